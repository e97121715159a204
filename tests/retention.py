#!/usr/bin/env python3
"""Records go: for their size, for their age, and on request, while they are written and read.

    tests/retention.py [--short | --full] [--disk threads]

--full writes 2 GB into a topic that keeps 200 MB, and prints what a producer waits beside that against without it. Ends with
`N passed, N failed`.
"""

import os
import statistics
import threading
import time

import kafka_wire
from chronik_process import Chronik
from steady_producer import SteadyProducer
from verdicts import Verdicts, arguments

MIB = 1 << 20
BATCH_BYTES = 512 << 10
CHECKPOINT_MIB = 16
ENVIRONMENT = {
    "CHRONIK_LOG_RETENTION_CHECK_INTERVAL": "200ms", "CHRONIK_LOG_FILE_DELETE_DELAY": "0ms",
    "CHRONIK_JOURNAL_FILE_BYTES": str(16 * MIB), "CHRONIK_JOURNAL_CHECKPOINT_BYTES": str(CHECKPOINT_MIB * MIB),
}
KEPT_FOR_S = 3
# Looks are 0.2 s apart, and files go when the round of checkpoints that is under way is over: on a busy machine that takes.
ROUND_WITHIN_S = 2
# Whatever else the machine does: a producer beside deletions waits no longer than so many times what it does without.
RATIO_MAX = 20
verdicts = Verdicts()


class Peak(threading.Thread):
    def __init__(self, broker):
        super().__init__(daemon=True)
        self.broker, self.bytes, self.ends = broker, 0, threading.Event()

    def run(self):
        while not self.ends.wait(0.02):
            self.bytes = max(self.bytes, self.broker.segment_bytes())

    def end(self):
        self.ends.set()
        self.join()
        return self.bytes


class Reader(threading.Thread):
    """Reads a partition from where it starts, one batch a `pause_s`: one that pauses is overtaken by the deletions."""

    def __init__(self, bootstrap, topic, pause_s):
        super().__init__(daemon=True)
        self.bootstrap, self.topic, self.pause_s, self.ends = bootstrap, topic, pause_s, threading.Event()
        self.fallen = self.batches = 0
        self.wrong = []

    def run(self):
        with kafka_wire.Connection(self.bootstrap) as connection:
            offset = connection.start_offset(self.topic, 0)
            while not self.ends.wait(self.pause_s):
                code, _, data = connection.fetch(self.topic, 0, offset, max_wait_ms=100, max_bytes=1)
                if code == kafka_wire.OFFSET_OUT_OF_RANGE:
                    start = connection.start_offset(self.topic, 0)
                    if start <= offset:
                        self.wrong.append(f"offset {offset} out of range, and the log starts at {start}")
                    self.fallen += 1
                    offset = start
                    continue
                if code != 0:
                    self.wrong.append(f"error {code} at offset {offset}")
                for base, count, _ in kafka_wire.batches(data):
                    if base > offset:
                        self.wrong.append(f"a batch at {base} where {offset} was due")
                    offset = max(offset, base + count)
                    self.batches += 1

    def end(self):
        self.ends.set()
        self.join()


def fill(connection, topic, total_bytes):
    value = os.urandom(BATCH_BYTES - 200)
    records = kafka_wire.batch([value])
    written = 0
    while written < total_bytes:
        code, _ = connection.produce(topic, 0, records)
        if code in kafka_wire.RETRIABLE:
            time.sleep(0.05)
            continue
        assert code == 0, f"produce: error {code}"
        written += len(records)


def within(seconds, holds):
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.05)
    return holds()


def by_size(broker, kept, segment, total):
    with verdicts.case(f"{total // MIB} MB written to a topic that keeps {kept // MIB} MB") as note:
        with kafka_wire.Connection(broker.bootstrap, timeout_s=60) as connection:
            configs = {"retention.bytes": kept, "segment.bytes": segment}
            connection.create_topics(["sized"], partitions=1, configs=configs)

            def said():
                return connection.log_sizes()["sized", 0]

            peak, readers = Peak(broker), [Reader(broker.bootstrap, "sized", pause) for pause in (0, 0.1, 0.1)]
            for thread in [peak, *readers]:
                thread.start()
            began = time.monotonic()
            fill(connection, "sized", total)
            took = time.monotonic() - began
            within(20, lambda: broker.segment_bytes() <= kept + segment and said() <= kept + segment + BATCH_BYTES)
            assert broker.segment_bytes() <= kept + segment, f"{broker.segment_bytes() // MIB} MB stay"
            for reader in readers:
                reader.end()
            most, left = peak.end(), broker.segment_bytes()
            size = said()
            start, end = connection.start_offset("sized", 0), connection.end_offset("sized", 0)
            note(f"{total / took / 1e6:.0f} MB/s; at most {most / MIB:.0f} MB of segments at a time, {left / MIB:.0f} in the end")
            note(f"the broker says {size / MIB:.0f}; offsets {start} to {end}")
            assert kept <= size <= kept + segment + BATCH_BYTES, f"{size} bytes are kept"
            # What rounds of checkpoints bring into segments before the next look, and what is written meanwhile.
            meanwhile = 2 * CHECKPOINT_MIB * MIB + min(ROUND_WITHIN_S * total / took, total / 2)
            assert most <= kept + segment + meanwhile, f"{most // MIB} MB at a time"
        wrong = [what for reader in readers for what in reader.wrong]
        fallen = sum(r.fallen for r in readers)
        note(f"readers: {sum(r.batches for r in readers)} batches, {fallen} times out of range")
        assert not wrong, wrong[:3]
        assert fallen > 0, "no reader met a deletion"


def by_age(broker):
    with verdicts.case(f"a topic that keeps {KEPT_FOR_S} s") as note:
        with kafka_wire.Connection(broker.bootstrap) as connection:
            connection.create_topics(["aged"], partitions=1, configs={"retention.ms": KEPT_FOR_S * 1000})
            began = time.monotonic()
            for _ in range(10):
                assert connection.produce("aged", 0, kafka_wire.batch([b"x" * 1000]))[0] == 0
            while time.monotonic() - began < KEPT_FOR_S - 0.5:
                assert connection.start_offset("aged", 0) == 0, "gone before its time"
                time.sleep(0.1)
            gone = within(10, lambda: connection.start_offset("aged", 0) == 10)
            assert gone, f"it starts at {connection.start_offset('aged', 0)}"
            note(f"gone after {time.monotonic() - began:.1f} s")
            assert connection.fetch("aged", 0, 3)[0] == kafka_wire.OFFSET_OUT_OF_RANGE
            assert connection.produce("aged", 0, kafka_wire.batch([b"next"])) == (0, 10)
            assert [value for _, value in kafka_wire.decode(connection.fetch("aged", 0, 10)[2])] == [b"next"]


def on_request(broker):
    with verdicts.case("DeleteRecords, and a kill right after") as note:
        with kafka_wire.Connection(broker.bootstrap) as connection:
            connection.create_topics(["asked"], partitions=1)
            for number in range(10):
                assert connection.produce("asked", 0, kafka_wire.batch([b"%d" % number]))[0] == 0
            assert connection.delete_records("asked", 0, 11) == (-1, kafka_wire.OFFSET_OUT_OF_RANGE)
            assert connection.delete_records("asked", 0, 4) == (4, 0)
            assert connection.delete_records("asked", 0, 2) == (4, 0)
        broker.kill9()
        broker.start()
        with kafka_wire.Connection(broker.bootstrap) as connection:
            start = connection.start_offset("asked", 0)
            note(f"after kill -9 it starts at {start}")
            assert start == 4
            assert connection.delete_records("asked", 0, -1) == (10, 0)
            assert connection.produce("asked", 0, kafka_wire.batch([b"10"])) == (0, 10)


def beside(broker, windows, window_s):
    with verdicts.case("a producer beside deletions, against without") as note:
        p99 = {"kept": [], "deleted": []}
        with kafka_wire.Connection(broker.bootstrap, timeout_s=60) as connection:
            connection.create_topics(["steady"], partitions=1)
            connection.create_topics(["kept"], partitions=1, configs={"segment.bytes": MIB})
            connection.create_topics(
                ["deleted"], partitions=1, configs={"segment.bytes": MIB, "retention.bytes": 4 * MIB}
            )
            with SteadyProducer(broker.bootstrap, "steady", pause_s=0.001) as producer:
                for nth in range(2 * windows):
                    topic = ["kept", "deleted"][nth % 2]
                    began = time.monotonic()
                    while time.monotonic() - began < window_s:
                        fill(connection, topic, 2 * MIB)
                        time.sleep(0.05)
                    p99[topic].append(producer.between(began, time.monotonic()).quantile_ms(0.99))
        ratio = statistics.median(d / k for d, k in zip(p99["deleted"], p99["kept"]))
        note(f"p99 {statistics.median(p99['deleted']):.2f} ms against {statistics.median(p99['kept']):.2f}: {ratio:.2f} x")
        assert ratio <= RATIO_MAX


def main():
    options = arguments(__doc__).parse_args()
    kept, segment, total = (200 * MIB, 16 * MIB, 2000 * MIB) if options.full else (24 * MIB, 2 * MIB, 320 * MIB)
    with Chronik(disk=options.disk, environment=ENVIRONMENT) as broker:
        by_size(broker, kept, segment, total)
        by_age(broker)
        on_request(broker)
        beside(broker, 9 if options.full else 2, 4 if options.full else 2)
        verdicts.report("no panic", not broker.panics(), "; ".join(broker.panics()[:3]))
    verdicts.finish()


if __name__ == "__main__":
    main()
