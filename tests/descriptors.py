#!/usr/bin/env python3
"""More segments than descriptors, and more strangers: writes go on, and after `kill -9` everything is read back.

    tests/descriptors.py [--short | --full] [--disk threads]

`ulimit -n 256`, 60 partitions, and segments of 64 KiB (--full: 1 MiB) until there are more than 1,000; then 300 connections that say
nothing. Ends with `N passed, N failed`.
"""

import itertools
import pathlib
import shutil
import socket
import time

import kafka_wire
from chronik_process import Chronik, wait_until
from verdicts import Verdicts, arguments

MIB = 1 << 20
TOPIC = "many-segments"
DESCRIPTORS, PARTITIONS, SEGMENTS = 256, 60, 1_000
STRANGERS = 300
ANSWERED_WITHIN_S = 10
verdicts = Verdicts()


def segments(broker):
    return sum(1 for _ in (broker.data_dir / "partitions").glob("*/*.log"))


def open_descriptors(broker):
    return sum(1 for _ in pathlib.Path(f"/proc/{broker.pid}/fd").iterdir())


def write_until_many(broker, batch_bytes, batches_max, acknowledged):
    """Each partition in its turn, until there are segments enough."""
    records = kafka_wire.batch([b"z" * batch_bytes])
    most_open, refused = 0, 0
    with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
        for number, partition in zip(range(batches_max), itertools.cycle(range(PARTITIONS))):
            until = time.monotonic() + ANSWERED_WITHIN_S
            while (code := connection.produce(TOPIC, partition, records)[0]) != 0:
                refused += 1
                written = f"after {number * batch_bytes / MIB:.0f} MiB and {segments(broker)} segments"
                assert code in kafka_wire.RETRIABLE, f"{written}: error {code}"
                assert time.monotonic() < until, f"{written}: only error {code} for {ANSWERED_WITHIN_S} s"
                time.sleep(0.1)
            acknowledged[partition] += 1
            if number % PARTITIONS == 0:
                most_open = max(most_open, open_descriptors(broker))
                if segments(broker) > SEGMENTS:
                    return f"{segments(broker)} segments, {most_open} descriptors at most, {refused} tried again"
    raise AssertionError(f"{segments(broker)} segments after {batches_max * batch_bytes / MIB:.0f} MiB")


def write_beside_strangers(broker, batch_bytes, acknowledged):
    """Two rounds of all partitions, a checkpoint among them."""
    host, port = broker.bootstrap.split(":")
    strangers = [socket.create_connection((host, int(port)), timeout=10) for _ in range(STRANGERS)]
    try:
        # Who has just come is left in peace for a second.
        time.sleep(1.5)
        before, began = segments(broker), time.monotonic()
        records = kafka_wire.batch([b"s" * batch_bytes])
        with kafka_wire.Connection(broker.bootstrap, timeout_s=ANSWERED_WITHIN_S) as connection:
            for partition in 2 * list(range(PARTITIONS)):
                code, _ = connection.produce(TOPIC, partition, records)
                assert code == 0, f"partition {partition}: error {code}"
                acknowledged[partition] += 1
        took = time.monotonic() - began
        wait_until(lambda: segments(broker) > before, ANSWERED_WITHIN_S, "another segment")
        broker.get("/health/ready")
        return f"{2 * PARTITIONS} batches in {took:.1f} s, {open_descriptors(broker)} descriptors"
    finally:
        for stranger in strangers:
            stranger.close()


def check(disk, full):
    segment_bytes = MIB if full else 64 << 10
    # A segment takes one batch only, so that there are as many segments as batches.
    batch_bytes = segment_bytes - 8192
    environment = {
        "CHRONIK_LOG_SEGMENT_BYTES": str(segment_bytes),
        "CHRONIK_JOURNAL_CHECKPOINT_BYTES": str((32 if full else 2) * MIB),
    }
    limited = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
    with Chronik(disk=disk, wrapper=limited, environment=environment) as broker:
        with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
            code, message = connection.create_topics([TOPIC], partitions=PARTITIONS)[TOPIC]
            assert code == 0, f"create topic: error {code} {message}"
        acknowledged = [0] * PARTITIONS
        with verdicts.case(f"writes go on with {DESCRIPTORS} descriptors") as note:
            note(write_until_many(broker, batch_bytes, 3 * SEGMENTS, acknowledged))
        with verdicts.case(f"{STRANGERS} silent connections leave descriptors to the others") as note:
            note(write_beside_strangers(broker, batch_bytes, acknowledged))
        broker.kill9()
        with verdicts.case("starts again"):
            broker.start()
        with verdicts.case("everything is read back") as note:
            with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
                stored = [connection.count_records(TOPIC, partition) for partition in range(PARTITIONS)]
            note(f"{sum(acknowledged)} acknowledged, {sum(stored)} stored, {open_descriptors(broker)} descriptors")
            lost = [number for number in range(PARTITIONS) if stored[number] < acknowledged[number]]
            assert not lost, f"partitions {lost} lack records"
        with verdicts.case("writes go on after the start") as note:
            began = time.monotonic()
            with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
                for partition in range(PARTITIONS):
                    code, _ = connection.produce(TOPIC, partition, kafka_wire.batch([b"after"]))
                    assert code == 0, f"partition {partition}: error {code}"
            note(f"{PARTITIONS} partitions in {time.monotonic() - began:.1f} s")
        verdicts.report("no panic", broker.alive() and not broker.panics(), broker.panics()[:3])


def main():
    options = arguments(__doc__).parse_args()
    if shutil.which("prlimit"):
        check(options.disk, options.full)
    else:
        print("skipped: prlimit is not installed (util-linux)", flush=True)
    verdicts.finish()


main()
