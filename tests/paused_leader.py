#!/usr/bin/env python3
"""A leader that is paused (SIGSTOP) until another one leads, and answers what lies in its sockets when it goes on (SIGCONT).

    tests/paused_leader.py [--short | --full] [--disk threads]

Three nodes. While the leader is paused, records are acknowledged elsewhere; then clients that have not heard of it ask the paused
one, half of them for the end of the log, half of them to take a record with acks=1. It goes on, and no look-up may find less than
was acknowledged before it was sent, and no record may be taken that the next leader does not have. --short: three rounds, --full:
twenty. Ends with `N passed, N failed`.
"""

import os
import signal
import struct

from chronik_cluster import Cluster
from chronik_process import wait_until
from kafka_wire import CREATE_TOPICS, LIST_OFFSETS, PRODUCE, Connection, array, batch, produce_body, request, string
from verdicts import Verdicts, arguments

TOPIC = "judged"
CLIENTS = 40
RECORDS = 20
verdicts = Verdicts()


def leader(cluster, asked):
    """Of the partition, as that node says; none where it names nobody, or does not answer."""
    try:
        with Connection(cluster.listeners[asked][0], timeout_s=2) as connection:
            _, partitions = connection.metadata([TOPIC])[TOPIC]
    except (OSError, KeyError):
        return None
    _, node = partitions[0]
    return node if node in cluster.numbers else None


def produce(cluster, asked, paused):
    """Where the log ends when some records were acknowledged by another leader than the paused one."""
    ends = []

    def acknowledged():
        node = leader(cluster, asked)
        if node not in (paused, None):
            with Connection(cluster.listeners[node][0]) as connection:
                code, base = connection.produce(TOPIC, 0, batch([b"kept"]))
            if code == 0:
                ends.append(base + 1)
        return len(ends) == RECORDS

    wait_until(acknowledged, 30, "another leader, and records to be acknowledged by it")
    return ends[-1]


def end_offset(reader):
    reader.number("i"), reader.string(), reader.number("i"), reader.number("i")
    code, _, offset = reader.number("h"), reader.number("q"), reader.number("q")
    return code, offset


def round_of(cluster, found):
    cluster.healthy()
    paused = leader(cluster, 1)
    asked = next(node for node in cluster.numbers if node != paused)
    clients = [Connection(cluster.listeners[paused][0], timeout_s=20) for _ in range(CLIENTS)]
    for client in clients:
        client.api_versions()
    process = cluster.nodes[paused].process.pid
    os.kill(process, signal.SIGSTOP)
    try:
        end = produce(cluster, asked, paused)
        list_offsets = struct.pack(">i", -1) + array([string(TOPIC) + array([struct.pack(">iq", 0, -1)])])
        for number, client in enumerate(clients):
            client.send(
                request(LIST_OFFSETS, 1, 1, list_offsets) if number % 2 else
                request(PRODUCE, 7, 1, produce_body(TOPIC, 0, batch([b"not kept"]), acks=1, timeout_ms=5_000))
            )
    finally:
        os.kill(process, signal.SIGCONT)
    for number, client in enumerate(clients):
        _, reader = client.receive()
        if number % 2:
            code, offset = end_offset(reader)
            found["refused" if code else "stale" if offset < end else "right"] += 1
        else:
            code, _ = client.produce_answer(reader)
            found["refused" if code else "taken"] += 1
        client.close()


def main():
    options = arguments(__doc__).parse_args()
    rounds = 20 if options.full else 3
    found = {"refused": 0, "stale": 0, "right": 0, "taken": 0}
    with Cluster(disk=options.disk) as cluster:
        cluster.healthy()
        with Connection(cluster.listeners[1][0]) as connection:
            topic = array([string(TOPIC) + struct.pack(">ih", 1, 3) + array([]) + array([])])
            connection.call(CREATE_TOPICS, 2, topic + struct.pack(">ib", 30_000, 0))
        wait_until(lambda: leader(cluster, 1) is not None, 10, "the partition to be led")
        with verdicts.case("every request is answered") as note:
            for _ in range(rounds):
                round_of(cluster, found)
            note(f"{rounds} rounds: {found}")
        verdicts.report("no look-up is stale", found["stale"] == 0, found["stale"])
        verdicts.report("nothing is taken beside the next leader", found["taken"] == 0, found["taken"])
        verdicts.report("no panic", not cluster.panics(), cluster.panics())
    verdicts.finish()


if __name__ == "__main__":
    main()
