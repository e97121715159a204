#!/usr/bin/env python3
"""Strangers on the port of the nodes and clients without manners, on all of three nodes at once, beside producers that behave.

    tests/rude_to_cluster.py [--short | --full] [--disk threads]

To the cluster port: garbage, announced frames that never come, hundreds of silent connections. To the Kafka port: topics created and
deleted by clients that are gone before the answer, pipelined produces to a node that does not lead, pipelined long polls, connections
that open and close. Every fresh write to each of three partitions is acknowledged within 5 s and kept; memory, descriptors and the
log stay small. --full: two minutes, in which one node after the other is killed and has to come back beside the strangers. Ends
with `N passed, N failed`.
"""

import collections
import os
import random
import socket
import struct
import threading
import time

from chronik_cluster import Cluster, ready
from chronik_process import wait_until
from kafka_wire import (
    CREATE_TOPICS, DELETE_TOPICS, FETCH, PRODUCE, Closed, Connection, array, batch, produce_body, request, string,
)
from verdicts import Verdicts, arguments

NODES = (1, 2, 3)
TOPIC, PARTITIONS = "well-behaved", 3
SERVED_WITHIN_S = 5
SHORT_S, FULL_S, KILLED_EVERY_S = 20, 120, 12
BACK_WITHIN_S = 30
DESCRIPTORS_MORE_MAX = 40
RESIDENT_MIB_MAX = 300
# Of one kind, of one process: the first 100, and then seldom.
STRANGER_LINES_MAX, STRANGERS = 120, "a connection to the cluster listener is over"
verdicts = Verdicts()


def leader(cluster, asked, partition):
    with Connection(cluster.listeners[asked][0], timeout_s=3) as connection:
        return connection.metadata([TOPIC])[TOPIC][1][partition][1]


class Producer(threading.Thread):
    """One record in flight with acks=all, at whichever node leads; a new record where it is not known what became of one."""

    def __init__(self, cluster, partition):
        super().__init__(daemon=True)
        self.cluster, self.partition = cluster, partition
        self.acknowledged, self.slowest_s, self.over = [], 0.0, False
        self.start()

    def run(self):
        connection, number, turn, began = None, 0, 0, time.monotonic()
        while not self.over:
            value = b"%d-%08d" % (self.partition, number)
            number += 1
            code = None
            try:
                if connection is None:
                    turn += 1
                    leads = leader(self.cluster, NODES[turn % 3], self.partition)
                    connection = Connection(self.cluster.listeners[leads][0], timeout_s=3)
                code, offset = connection.produce(TOPIC, self.partition, batch([value]), timeout_ms=2_000)
            except (OSError, Closed, KeyError, struct.error):
                pass
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if code == 0:
                self.acknowledged.append((offset, value))
                time.sleep(0.005)
                began = time.monotonic()
            else:
                if connection:
                    connection.close()
                connection = None
                time.sleep(0.02)


class Rude(threading.Thread):
    """Does its kind of thing to one node after the other until it is over."""

    def __init__(self, cluster, kind, over):
        super().__init__(daemon=True)
        self.cluster, self.kind, self.over = cluster, kind, over
        self.dice = random.Random(kind.__name__)
        self.start()

    def run(self):
        while not self.over.is_set():
            opened = []
            try:
                self.kind(self, self.dice.choice(NODES), opened)
            except (OSError, Closed):
                self.over.wait(0.05)
            for connection in opened:
                connection.close()

    def connect(self, opened, node, listener=0):
        host, port = self.cluster.listeners[node][listener].rsplit(":", 1)
        opened.append(socket.create_connection((host, int(port)), timeout=2))
        return opened[-1]

    def client(self, opened, node):
        opened.append(Connection(self.cluster.listeners[node][0], timeout_s=3))
        return opened[-1]

    def garbage(self, node, opened):
        for _ in range(20):
            self.connect(opened, node, 2).sendall(self.dice.randbytes(self.dice.choice([1, 4, 100, 5_000])))
            opened.pop().close()
        self.over.wait(0.02)

    def silent(self, node, opened):
        for _ in range(300):
            self.connect(opened, node, 2)
        self.over.wait(3)

    def announced(self, node, opened):
        for _ in range(100):
            self.connect(opened, node, 2).sendall(struct.pack(">I", 200)[: self.dice.randint(1, 4)])
        self.over.wait(2)

    def leavers(self, node, opened):
        for _ in range(20):
            name = string(f"left-{self.dice.randrange(50)}") + struct.pack(">ih", self.dice.randint(1, 20), 3)
            leaver = self.client(opened, node)
            leaver.send(request(CREATE_TOPICS, 2, 1, array([name + array([]) + array([])]) + struct.pack(">ib", 30_000, 0)))
            if self.dice.random() < 0.5:
                # Its end is a reset.
                leaver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            leaver.close()
        names = array([string(f"left-{number}") for number in range(50)])
        self.client(opened, self.dice.choice(NODES)).send(request(DELETE_TOPICS, 1, 1, names + struct.pack(">i", 30_000)))
        self.over.wait(0.2)

    def wrong_node(self, node, opened):
        client = self.client(opened, node)
        for number in range(300):
            records = batch([b"rude-%d" % number])
            body = produce_body(TOPIC, self.dice.randrange(PARTITIONS), records, self.dice.choice([0, 1, -1]), timeout_ms=100)
            client.send(request(PRODUCE, 7, number, body))
        self.over.wait(0.1)

    def polls(self, node, opened):
        for _ in range(10):
            client = self.client(opened, node)
            for number in range(50):
                at = struct.pack(">iqi", self.dice.randrange(PARTITIONS), self.dice.choice([0, 5, 10**9]), 50 << 20)
                head = struct.pack(">iiiib", -1, 600_000, 1, 50 << 20, 0)
                client.send(request(FETCH, 4, number, head + array([string(TOPIC) + array([at])])))
        self.over.wait(2)

    def open_and_close(self, node, opened):
        for _ in range(200):
            self.connect(opened, node).close()


KINDS = (
    Rude.garbage, Rude.silent, Rude.announced, Rude.leavers, Rude.wrong_node, Rude.polls, Rude.open_and_close,
)


def descriptors(broker):
    return len(os.listdir(f"/proc/{broker.pid}/fd"))


def beside_the_rude(cluster, options):
    over = threading.Event()
    rude = [Rude(cluster, kind, over) for kind in KINDS]
    until = time.monotonic() + (FULL_S if options.full else SHORT_S)
    turn, starts = 0, collections.Counter(NODES)
    try:
        while time.monotonic() < until:
            time.sleep(min(KILLED_EVERY_S, max(0, until - time.monotonic())))
            if options.full and time.monotonic() < until:
                node = NODES[turn % 3]
                turn += 1
                cluster.nodes[node].kill9()
                time.sleep(2)
                began = time.monotonic()
                cluster.nodes[node].start()
                starts[node] += 1
                wait_until(lambda node=node: ready(cluster.nodes[node]), BACK_WITHIN_S, f"node {node} ready")
                print(f"      node {node} was killed, and is ready {time.monotonic() - began:.1f} s after its start", flush=True)
    finally:
        over.set()
        for one in rude:
            one.join(30)
    return starts


def lost(cluster, producer):
    with Connection(cluster.listeners[leader(cluster, 1, producer.partition)][0], timeout_s=30) as connection:
        stored = dict(connection.read_values(TOPIC, producer.partition, checked=False))
    return [one for one in producer.acknowledged if stored.get(one[0]) != one[1]]


def main():
    options = arguments(__doc__).parse_args()
    with Cluster(disk=options.disk) as cluster:
        cluster.healthy()
        with Connection(cluster.listeners[1][0]) as connection:
            connection.create_topics([TOPIC], replicas=[[1, 2, 3], [2, 3, 1], [3, 1, 2]])
        wait_until(lambda: all(leader(cluster, 1, p) > 0 for p in range(PARTITIONS)), 10, "all to be led")
        before = {node: descriptors(broker) for node, broker in cluster.nodes.items()}
        producers = [Producer(cluster, partition) for partition in range(PARTITIONS)]
        with verdicts.case("nodes come back beside strangers" if options.full else "strangers and rude clients") as note:
            starts = beside_the_rude(cluster, options)
            note(f"{len(KINDS)} kinds on three nodes")
        time.sleep(3)
        for producer in producers:
            producer.over = True
        for producer in producers:
            producer.join(10)
        slowest = max(producer.slowest_s for producer in producers)
        taken = [len(producer.acknowledged) for producer in producers]
        verdicts.report("fresh writes", slowest < SERVED_WITHIN_S and all(taken), f"{taken} acknowledged, the slowest in {slowest:.2f} s")
        gone = [one for producer in producers for one in lost(cluster, producer)]
        verdicts.report("nothing acknowledged is lost", not gone, gone[:3])
        with verdicts.case("descriptors come back") as note:
            for node, broker in cluster.nodes.items():
                bound = before[node] + DESCRIPTORS_MORE_MAX
                wait_until(lambda broker=broker, bound=bound: descriptors(broker) <= bound, 30, f"at most {bound} on node {node}")
            note({node: descriptors(broker) for node, broker in cluster.nodes.items()})
        peaks = [round(broker.peak_mib()) for broker in cluster.nodes.values()]
        verdicts.report("memory", max(peaks) <= RESIDENT_MIB_MAX, f"{peaks} MiB at most")
        # Nodes that were killed begin to count anew.
        lines = {node: broker.stderr().count(STRANGERS) for node, broker in cluster.nodes.items()}
        few = all(lines[node] <= starts[node] * STRANGER_LINES_MAX for node in NODES)
        verdicts.report("the log", few, f"{lines} lines of strangers")
        verdicts.report("no panic", not cluster.panics(), cluster.panics()[:3])
    verdicts.finish()


if __name__ == "__main__":
    main()
