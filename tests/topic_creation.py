#!/usr/bin/env python3
"""Three nodes and librdkafka: how long a topic takes to be created, until its first record is acknowledged, until all nodes know it, and until
1,000 partitions take records.

    tests/topic_creation.py [--topics 200] [--short | --full] [--disk threads]

--short, the default, judges that all of it works and tells the figures; --full judges them too. Ends with `N passed, N failed`.
"""

import argparse
import contextlib
import statistics
import sys
import time

import failover
from failover import report, results

from chronik_cluster import Cluster  # noqa: E402
from kafka_wire import Connection  # noqa: E402

confluent_kafka = failover.confluent_kafka
# In milliseconds, in the 99th percentile, where it is judged.
CREATED_WITHIN_MS, FIRST_RECORD_WITHIN_MS, KNOWN_WITHIN_MS = 15, 30, 10
PARTITIONS_MANY, MANY_WITHIN_S = 1000, 1.0
ALL_WITHIN_S = 60


def figures(times_ms):
    ordered = sorted(times_ms)
    return ordered[round(0.99 * (len(ordered) - 1))], f"p50 {statistics.median(ordered):.1f} ms, p99 {ordered[round(0.99 * (len(ordered) - 1))]:.1f} ms, max {ordered[-1]:.1f} ms"


def admin(bootstrap):
    return confluent_kafka.admin.AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})


def create(client, name, partitions):
    new = confluent_kafka.admin.NewTopic(name, partitions, replication_factor=3)
    client.create_topics([new], operation_timeout=30)[name].result(60)


def creation(cluster, topics):
    client = admin(cluster.bootstrap)
    client.list_topics(timeout=10)
    took = []
    for number in range(topics):
        began = time.monotonic()
        create(client, f"created-{number}", 3)
        took.append((time.monotonic() - began) * 1e3)
    return took


def first_record(cluster, topics):
    """One client that creates and one that produces, each topic to its first acknowledged record."""
    client = admin(cluster.bootstrap)
    producer = confluent_kafka.Producer({
        "bootstrap.servers": cluster.bootstrap, "acks": "all", "linger.ms": 0, "log_level": 2, "enable.idempotence": True,
    })
    took = []
    for number in range(topics):
        name, told = f"first-{number}", []
        began = time.monotonic()
        create(client, name, 3)
        producer.produce(name, value=b"first", on_delivery=lambda error, _: told.append(error))
        while not told:
            producer.poll(0.001)
        if told[0] is not None:
            raise RuntimeError(f"{name}: {told[0]}")
        took.append((time.monotonic() - began) * 1e3)
    return took


def known(cluster, topics):
    """From the answer of the node that was asked until all the others have told who leads it, asked for it one after the other."""
    client = admin(cluster.listeners[1][0])
    client.list_topics(timeout=10)
    took = []
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(Connection(of[0])) for node, of in cluster.listeners.items() if node != 1]
        for number in range(topics):
            name = f"known-{number}"
            create(client, name, 1)
            answered = time.monotonic()
            for other in others:
                while not tells(other, name):
                    if time.monotonic() > answered + ALL_WITHIN_S:
                        raise RuntimeError(f"{name} is not known everywhere after {ALL_WITHIN_S} s")
            took.append((time.monotonic() - answered) * 1e3)
    return took


def tells(connection, topic):
    error, partitions = connection.metadata([topic])[topic]
    return error == 0 and bool(partitions) and all(code == 0 and leader > 0 for code, leader in partitions.values())


def many(cluster):
    client = admin(cluster.bootstrap)
    producer = confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "linger.ms": 0, "log_level": 2})
    acked, failed = set(), []

    def delivered(error, message):
        if error is None:
            acked.add(message.partition())
        else:
            failed.append(str(error))

    began = time.monotonic()
    create(client, "many", PARTITIONS_MANY)
    answered = time.monotonic() - began
    for partition in range(PARTITIONS_MANY):
        producer.produce("many", value=b"x", partition=partition, on_delivery=delivered)
    while len(acked) + len(failed) < PARTITIONS_MANY and time.monotonic() - began < ALL_WITHIN_S:
        producer.poll(0.005)
    return answered, time.monotonic() - began, len(acked), failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topics", type=int, default=200)
    parser.add_argument("--short", action="store_true", help="no judgement of times: the default")
    parser.add_argument("--full", action="store_true", help="times are judged")
    parser.add_argument("--disk", default="threads")
    options = parser.parse_args()
    with Cluster(disk=options.disk) as cluster:
        cluster.healthy()
        for name, measure, bound in [
            ("creation of a topic", creation, CREATED_WITHIN_MS),
            ("from its creation to the first record", first_record, FIRST_RECORD_WITHIN_MS),
            ("known on all nodes after the answer", known, KNOWN_WITHIN_MS),
        ]:
            p99, text = figures(measure(cluster, options.topics))
            report(name, not options.full or p99 < bound, f"{text} ({options.topics} topics)")
        answered, writable, acked, failed = many(cluster)
        passed = acked == PARTITIONS_MANY and not failed and (not options.full or writable < MANY_WITHIN_S)
        report(f"{PARTITIONS_MANY} partitions", passed,
               f"answered after {answered:.2f} s, {acked} had taken a record after {writable:.2f} s, {len(failed)} failed {failed[:1]}")
        report("no panic", not cluster.panics(), cluster.panics()[:3])
    passed = sum(results)
    print(f"{passed} passed, {len(results) - passed} failed")
    sys.exit(0 if passed == len(results) else 1)


if __name__ == "__main__":
    main()
