#!/usr/bin/env python3
"""One damaged partition: the others take all the writes they are given, and the node says which one is damaged.

    tests/damaged_partition.py [--short | --full] [--disk threads]

After `kill -9` the newest segment of one partition is cut in half. Then another topic is written to: 100 MB with checkpoints
every 4 MiB, or 2 GB at the defaults (--full): many times what the journal keeps for partitions that have not let go of it.
Ends with `N passed, N failed`.
"""

import re
import time
import urllib.error

import kafka_wire
from chronik_process import Chronik, wait_until
from verdicts import Verdicts, arguments

MIB = 1 << 20
DAMAGED, SOUND = "damaged", "sound"
RECORDS = 40
ANSWERED_WITHIN_S = 10
verdicts = Verdicts()


def create(broker, *names):
    with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
        for name, (code, message) in connection.create_topics(list(names), partitions=1).items():
            assert code == 0, f"create topic {name}: error {code} {message}"


def segments(broker):
    """The files of records, newest last; the only partition so far that has any is the one to be damaged."""
    return sorted((broker.data_dir / "partitions").glob("*/*.log"))


def prepare(broker):
    create(broker, DAMAGED)
    value = b"before the damage" + b"x" * MIB
    with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
        for _ in range(RECORDS):
            code, _ = connection.produce(DAMAGED, 0, kafka_wire.batch([value[: MIB - 4096]]))
            assert code == 0, f"produce to {DAMAGED}: error {code}"
    wait_until(lambda: sum(file.stat().st_size for file in segments(broker)) > RECORDS / 2 * MIB, 30, "a checkpoint")
    # The rest stays in the journal: a replica that does not open holds on to it.
    with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
        code, _ = connection.produce(DAMAGED, 0, kafka_wire.batch([b"in the journal only"]))
        assert code == 0, f"produce to {DAMAGED}: error {code}"


def damage(broker):
    newest = segments(broker)[-1]
    half = newest.stat().st_size // 2
    with open(newest, "r+b") as file:
        file.truncate(half)
    return f"{newest.name} cut to {half} bytes"


def write_much(broker, megabytes):
    """Refusals that a client tries again after are tried again, for a while."""
    records = kafka_wire.batch([b"y" * (MIB - 4096)])
    refused, slowest_s, began = 0, 0.0, time.monotonic()
    with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
        for number in range(megabytes):
            until = time.monotonic() + ANSWERED_WITHIN_S
            sent = time.monotonic()
            while (code := connection.produce(SOUND, 0, records)[0]) != 0:
                refused += 1
                assert code in kafka_wire.RETRIABLE, f"after {number} MB: error {code}"
                assert time.monotonic() < until, f"after {number} MB only error {code} for {ANSWERED_WITHIN_S} s"
                time.sleep(0.1)
            slowest_s = max(slowest_s, time.monotonic() - sent)
    took = time.monotonic() - began
    return f"{megabytes} MB in {took:.1f} s, slowest {slowest_s:.2f} s, {refused} tried again"


def ready_text(broker):
    try:
        return broker.get("/health/ready")
    except urllib.error.HTTPError as refused:
        return refused.read().decode()


def metric_of_damage(broker):
    """A metric that counts partitions which do not serve, above zero."""
    for line in broker.get("/metrics").splitlines():
        told = re.fullmatch(r"(\S*(?:damaged|fenced|failed|offline|unavailable|not_open)\S*)\s+([0-9.]+)", line)
        if told and "partition" in told[1] and float(told[2]) > 0:
            return line
    return None


def check(disk, full):
    environment = {} if full else {"CHRONIK_JOURNAL_CHECKPOINT_BYTES": str(4 * MIB)}
    # So that there is something to cut soon, whatever the rest is like.
    with Chronik(disk=disk, environment={"CHRONIK_JOURNAL_CHECKPOINT_BYTES": str(4 * MIB)}) as broker:
        prepare(broker)
        broker.kill9()
        print(f"      {damage(broker)}", flush=True)
        broker.environment = environment
        with verdicts.case("starts"):
            broker.start()
        create(broker, SOUND)
        with verdicts.case("the others take all the writes they are given") as note:
            note(write_much(broker, 2_000 if full else 100))
        with verdicts.case("/health/ready names the damaged partition") as note:
            note(ready_text(broker).strip())
            assert re.search(rf"\b{DAMAGED}-0\b", ready_text(broker)), f"{DAMAGED}-0 is not in it"
        with verdicts.case("a metric counts it") as note:
            note(metric_of_damage(broker))
            assert metric_of_damage(broker), "no metric of partitions that do not serve is above zero"
        with verdicts.case("writes to the damaged partition are answered") as note:
            with kafka_wire.Connection(broker.bootstrap, timeout_s=ANSWERED_WITHIN_S) as connection:
                note(f"error code {connection.produce(DAMAGED, 0, kafka_wire.batch([b'after']), timeout_ms=3_000)[0]}")
        with verdicts.case("nothing of the others is lost, after another kill -9") as note:
            broker.kill9()
            broker.start()
            with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
                stored = connection.count_records(SOUND, 0)
            note(f"{stored} records stored")
            assert stored >= (2_000 if full else 100), "fewer than were acknowledged"
        verdicts.report("no panic", broker.alive() and not broker.panics(), broker.panics()[:3])


def main():
    options = arguments(__doc__).parse_args()
    check(options.disk, options.full)
    verdicts.finish()


main()
