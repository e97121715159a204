#!/usr/bin/env python3
"""Everything at once on three nodes: producers of all kinds, consumers, topics that come and go, and every 20 s a node is killed, paused
or its disk frozen. Nothing acknowledged with acks=all is lost, nothing of an idempotent producer is doubled, a fresh write waits 5 s
at most, memory and descriptors stay flat.

    tests/chaos.py [--minutes 10] [--seed N] [--disk threads]

Pausing is SIGSTOP for some seconds; freezing needs root. Ends with `N passed, N failed`.
"""

import argparse
import collections
import contextlib
import os
import random
import signal
import sys
import threading
import time

import failover
from failover import Client, Metadata, judge, read_all, report, resumed, results, verdict  # noqa: F401

import private_disk  # noqa: E402
from chronik_cluster import Cluster  # noqa: E402
from chronik_process import wait_until  # noqa: E402

confluent_kafka = failover.confluent_kafka
EVERY_S = 20.0
FRESH_WITHIN_S = 5.0
MEMORY_GROWS_MIB = 200


class Careless:
    """Producers with acks=1 and acks=0, and none that is idempotent: they are judged by what they do to the others alone."""

    def __init__(self, bootstrap, acks):
        self.over = threading.Event()
        self.sent = self.failed = 0
        self.client = confluent_kafka.Producer({
            "bootstrap.servers": bootstrap, "acks": acks, "log_level": 2, "socket.timeout.ms": 2000, "request.timeout.ms": 2000,
            "message.timeout.ms": 10000, "compression.type": "lz4",
        })
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over.is_set():
            with contextlib.suppress(BufferError):
                self.client.produce("careless", value=os.urandom(300), on_delivery=self.delivered)
                self.sent += 1
            self.client.poll(0.002)
        self.client.flush(10)

    def delivered(self, error, _):
        self.failed += error is not None

    def stop(self):
        self.over.set()
        self.thread.join()


class Reader:
    """Reads everything that the judged producers write, and notices an offset whose record changes."""

    def __init__(self, bootstrap):
        self.over = threading.Event()
        self.seen, self.changed = {}, []
        self.client = confluent_kafka.Consumer({
            "bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "log_level": 2,
            "socket.timeout.ms": 2000, "fetch.wait.max.ms": 100, "topic.metadata.refresh.interval.ms": 2000,
        })
        partitions = range(failover.PARTITIONS)
        self.client.assign([confluent_kafka.TopicPartition(failover.TOPIC, p, 0) for p in partitions])
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over.is_set():
            for message in self.client.consume(500, timeout=0.1):
                if message.error() is None:
                    place = (message.partition(), message.offset())
                    before = self.seen.setdefault(place, message.value())
                    if before != message.value():
                        self.changed.append((place, before, message.value()))
        self.client.close()

    def stop(self):
        self.over.set()
        self.thread.join()


class Topics:
    """Topics come and go."""

    def __init__(self, metadata):
        self.over = threading.Event()
        self.made, self.slowest_s, self.failures = 0, 0.0, collections.Counter()
        self.metadata = metadata
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        number = 0
        while not self.over.is_set():
            name = f"passing-{number}"
            number += 1
            began = time.monotonic()
            try:
                new = confluent_kafka.admin.NewTopic(name, 3, replication_factor=3)
                self.metadata.admin.create_topics([new], operation_timeout=10)[name].result(30)
                self.made += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                self.metadata.admin.delete_topics([name], operation_timeout=10)[name].result(30)
            except confluent_kafka.KafkaException as error:
                self.failures[error.args[0].name()] += 1
            time.sleep(0.5)

    def stop(self):
        self.over.set()
        self.thread.join()


def break_one(cluster, disks, victim, kind, clients, chance):
    broker, began = cluster.nodes[victim], time.monotonic()
    lasts = chance.uniform(2, 9)
    if kind == "kill":
        broker.kill9()
        slowest = resumed(clients, began)
        time.sleep(lasts)
        broker.start()
    elif kind == "pause":
        os.kill(broker.pid, signal.SIGSTOP)
        slowest = resumed(clients, began)
        time.sleep(lasts)
        os.kill(broker.pid, signal.SIGCONT)
    else:
        disks[victim].freeze()
        try:
            slowest = resumed(clients, began)
            time.sleep(lasts)
        finally:
            disks[victim].thaw()
    return slowest


def run(minutes, seed, disk):
    chance = random.Random(seed)
    with contextlib.ExitStack() as stack:
        kinds, disks = ["kill", "pause"], {}
        if not private_disk.unavailable():
            kinds.append("freeze")
            disks = {n: stack.enter_context(private_disk.PrivateDisk(size_mib=4096)) for n in (1, 2, 3)}
        data_dirs = {n: one.path / "data" for n, one in disks.items()}
        cluster = stack.enter_context(Cluster(disk=disk, data_dirs=data_dirs))
        metadata = Metadata(cluster.bootstrap)
        new = [confluent_kafka.admin.NewTopic(name, failover.PARTITIONS, replication_factor=3) for name in (failover.TOPIC, "careless")]
        for future in metadata.admin.create_topics(new).values():
            future.result(30)
        clients = [Client(cluster.bootstrap, partition) for partition in range(failover.PARTITIONS)]
        others = [Careless(cluster.bootstrap, "1"), Careless(cluster.bootstrap, "0"), Reader(cluster.bootstrap), Topics(metadata)]
        slowest, memory, descriptors = [], [], []
        until = time.monotonic() + 60 * minutes
        try:
            while time.monotonic() < until:
                turn_ends = time.monotonic() + EVERY_S
                victim, kind = chance.choice((1, 2, 3)), chance.choice(kinds)
                slowest.append((break_one(cluster, disks, victim, kind, clients, chance), kind, victim))
                print(f"      {kind} of node {victim}: {slowest[-1][0]:.2f} s", flush=True)
                wait_until(lambda: metadata.all_in_sync(3), 90, "all replicas in sync again", every_s=0.2)
                memory.append(max(node.resident_mib() for node in cluster.nodes.values()))
                descriptors.append(max(len(os.listdir(f"/proc/{node.pid}/fd")) for node in cluster.nodes.values()))
                time.sleep(max(0.0, turn_ends - time.monotonic()))
        except AssertionError as stuck:
            report("service", False, stuck)
            failover.dump(cluster)
        finally:
            for one in [*clients, *others]:
                one.stop()
        worst = max(slowest, default=(0, "", 0))
        report("a fresh write", worst[0] < FRESH_WITHIN_S, f"{len(slowest)} breaks, the slowest client of the worst waited {worst[0]:.2f} s ({worst[1]})")
        half = len(memory) // 2
        if half >= 2:
            grows = max(memory[half:]) - max(memory[:half])
            report("memory", grows < MEMORY_GROWS_MIB, f"at most {max(memory):.0f} MiB a node; {grows:+.0f} MiB in the second half")
            report("descriptors", max(descriptors[half:]) < 2 * max(descriptors[:half]), f"at most {max(descriptors)} a node")
        careless, reader, topics = others[:2], others[2], others[3]
        print(f"      acks=1 and 0: {[one.sent for one in careless]} sent, {[one.failed for one in careless]} failed; "
              f"{topics.made} topics, the slowest {topics.slowest_s:.2f} s, failures {dict(topics.failures)}; {len(reader.seen)} read")
        report("no offset changed under a reader", not reader.changed, reader.changed[:3] or "none")
        judge("chaos", cluster, clients)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--disk", default="threads")
    options = parser.parse_args()
    run(options.minutes, options.seed, options.disk)
    passed = sum(results)
    print(f"{passed} passed, {len(results) - passed} failed")
    sys.exit(0 if passed == len(results) and results else 1)


if __name__ == "__main__":
    main()
