#!/usr/bin/env python3
"""A disk without a free byte: the node says so, keeps serving what it has, starts, and takes records again when there is space.

    tests/full_disk.py [--short | --full] [--disk threads]

A ballast file fills a small ext4 of the test's own (root, loop device), once under a running node and once before a start. --full
does it three times over on one data directory. Ends with `N passed, N failed`.
"""

import os
import re
import time
import urllib.error

import kafka_wire
import private_disk
from chronik_process import Chronik, wait_until
from verdicts import Verdicts, arguments

MIB = 1 << 20
TOPIC = "kept"
DISK_MIB = 512
# Small files, so that what is prepared beforehand is used up soon.
ENVIRONMENT = {
    "CHRONIK_JOURNAL_FILE_BYTES": str(16 * MIB), "CHRONIK_JOURNAL_CHECKPOINT_BYTES": str(16 * MIB),
    "CHRONIK_LOG_SEGMENT_BYTES": str(4 * MIB),
}
VALUE_BYTES = 256 << 10
TIMEOUT_MS = 3_000
ANSWERED_WITHIN_S = 5
# A machine under load may take longer: only --full judges what operators are promised.
RESUMED_WITHIN_S, RESUMED_WITHIN_FULL_S = 20, 5
READY_WITHIN_S = 30
CREATING_S = 10
CREATED_MAX = 4
NAMES_THE_REASON = re.compile(r"full|space", re.I)
verdicts = Verdicts()


class Ballast:
    """Takes every block that is left."""

    def __init__(self, directory):
        self.path = directory / "ballast"

    def fill(self):
        piece = b"\xff" * MIB
        with open(self.path, "wb", buffering=0) as file:
            while piece:
                try:
                    file.write(piece)
                except OSError:
                    piece = piece[: len(piece) // 2]
            os.fsync(file.fileno())

    def drop(self):
        self.path.unlink()
        os.sync()


class Writer:
    """Values that count up, one request in flight; what was acknowledged is to stay."""

    def __init__(self):
        self.number = 0
        self.acknowledged = []
        self.slowest_s = 0.0

    def write(self, broker):
        """The error code."""
        value = b"value-%08d-" % self.number + b"x" * VALUE_BYTES
        self.number += 1
        began = time.monotonic()
        with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
            code, _ = connection.produce(TOPIC, 0, kafka_wire.batch([value]), timeout_ms=TIMEOUT_MS)
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        if code == 0:
            self.acknowledged.append(value[:15])
        return code

    def check(self, broker):
        with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
            stored = [value[:15] for _, value in connection.read_values(TOPIC, 0, checked=False)]
        lost = [value for value in self.acknowledged if value not in set(stored)]
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged are not there: {lost[:3]}"
        assert len(stored) == len(set(stored)), f"{len(stored) - len(set(stored))} are there twice"
        return f"{len(self.acknowledged)} acknowledged, {len(stored)} stored"


def ready(broker):
    """(status, text) of /health/ready."""
    try:
        return 200, broker.get("/health/ready")
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def refuses(broker, writer):
    """Writes until it is refused: what was prepared beforehand still takes some."""
    for taken in range(4 * DISK_MIB):
        code = writer.write(broker)
        if code != 0:
            assert code in kafka_wire.RETRIABLE, f"refused with error {code}, which no client tries again"
            return f"error {code} ({kafka_wire.RETRIABLE[code]}) after {taken} more records"
    raise AssertionError("a full disk took everything")


def while_full(name, broker, writer):
    with verdicts.case(f"{name}: writes are refused with an error that clients try again after") as note:
        note(refuses(broker, writer))
    with verdicts.case(f"{name}: /health/ready says why") as note:
        # Writes go on: a node that nobody writes to need not have noticed.
        def says_why():
            writer.write(broker)
            status, text = ready(broker)
            return status == 503 and NAMES_THE_REASON.search(text) and text.strip()

        try:
            note(wait_until(says_why, 10, "503 with the reason", 0.2))
        finally:
            note(ready(broker))
    with verdicts.case(f"{name}: what is there is served") as note:
        note(writer.check(broker))
    with verdicts.case(f"{name}: creating topics is answered, and the process lives") as note:
        answers, took_s, asked = {}, 0, 0
        until = time.monotonic() + CREATING_S
        # Each partition wants files of its own once there is space again: many of them would be what is waited for then.
        while time.monotonic() < until and asked < CREATED_MAX:
            asked += 1
            topic = f"while-full-{time.monotonic_ns()}"
            began = time.monotonic()
            with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
                code, message = connection.create_topics([topic], partitions=50)[topic]
            took_s = max(took_s, time.monotonic() - began)
            answers[code] = message
            if code != 0 or took_s > 15:
                break
        note(f"answers {answers}, the slowest after {took_s:.1f} s")
        assert took_s < 15
        unclear = [code for code, message in answers.items() if code != 0 and not message]
        assert not unclear, f"errors without a word: {unclear}"
        assert broker.alive(), f"the process ended: {broker.stderr()[-500:]}"
    with verdicts.case(f"{name}: no write waited longer than its deadline") as note:
        note(f"slowest {writer.slowest_s:.2f} s, asked for {TIMEOUT_MS} ms")
        assert writer.slowest_s < ANSWERED_WITHIN_S


def when_space_is_back(name, broker, writer, within_s):
    began = time.monotonic()
    with verdicts.case(f"{name}: takes records again") as note:
        wait_until(lambda: writer.write(broker) == 0, within_s, "a record taken", 0.1)
        note(f"{time.monotonic() - began:.2f} s after space came back")
    with verdicts.case(f"{name}: and creates topics again") as note:
        def creates():
            topic = f"again-{time.monotonic_ns()}"
            with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
                code, _ = connection.create_topics([topic], partitions=1)[topic]
                return code == 0 and connection.produce(topic, 0, kafka_wire.batch([b"first"]))[0] == 0

        wait_until(creates, within_s, "a topic created and written to", 0.2)
        note(f"{time.monotonic() - began:.2f} s after space came back")
    with verdicts.case(f"{name}: and is ready"):
        wait_until(lambda: ready(broker)[0] == 200, within_s, "200 from /health/ready", 0.2)
    with verdicts.case(f"{name}: nothing lost") as note:
        note(writer.check(broker))


def alive(broker):
    """A process that ended takes the rest of its part with it; the next begins with a new one."""
    if not broker.alive():
        broker.start()


def check(disk, rounds, within_s):
    with private_disk.PrivateDisk(size_mib=DISK_MIB) as private:
        ballast, writer = Ballast(private.path), Writer()
        with Chronik(disk=disk, data_dir=private.path / "data", environment=ENVIRONMENT, ready_s=READY_WITHIN_S) as broker:
            with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
                code, message = connection.create_topics([TOPIC], partitions=1)[TOPIC]
                assert code == 0, f"create topic: error {code} {message}"
            for _ in range(100):
                assert writer.write(broker) == 0, "no record taken on an empty disk"
            for number in range(rounds):
                name = f"fills up while running, {number + 1}"
                ballast.fill()
                while_full(name, broker, writer)
                ballast.drop()
                alive(broker)
                when_space_is_back(name, broker, writer, within_s)

                name = f"full at the start, {number + 1}"
                broker.kill9()
                ballast.fill()
                with verdicts.case(f"{name}: starts"):
                    broker.start()
                if broker.alive():
                    while_full(name, broker, writer)
                ballast.drop()
                alive(broker)
                when_space_is_back(name, broker, writer, within_s)
            verdicts.report("no panic", not broker.panics(), broker.panics()[:3])


def main():
    options = arguments(__doc__).parse_args()
    reason = private_disk.unavailable()
    if reason:
        print(f"skipped: {reason}", flush=True)
    else:
        rounds, within_s = (3, RESUMED_WITHIN_FULL_S) if options.full else (1, RESUMED_WITHIN_S)
        check(options.disk, rounds, within_s)
    verdicts.finish()


main()
