#!/usr/bin/env python3
"""A data directory of the first release: today's binary opens it, reads every record of it and writes on.

    tests/old_directory.py [--disk threads]
    tests/old_directory.py --make tests/data/NAME.tar.xz      # with $CHRONIK_BIN, the binary that is to be remembered

The directory has records in segments (from before a polite stop), records in the journal only (the process was killed after
them), a topic that was deleted, and small journal files, so that it packs into a few kilobytes. What is in it follows from the
numbers below and is compared byte for byte. docs/formats.md lists the formats. Ends with `N passed, N failed`.
"""

import argparse
import pathlib
import sys
import tarfile

import kafka_wire
from chronik_process import ROOT, Chronik, scratch
from verdicts import Verdicts

DATA = ROOT / "tests" / "data"
PARTITIONS = {"orders": 3, "payments": 1}
DELETED = "deleted"
BATCHES, RECORDS = 30, 5
# Batches before the polite stop; the others were in the journal alone when the process was killed.
IN_SEGMENTS = 20
SMALL = {
    "CHRONIK_JOURNAL_FILE_BYTES": str(1 << 20),
    "CHRONIK_JOURNAL_MAX_BATCH_BYTES": str(256 << 10),
    "CHRONIK_JOURNAL_QUEUE_BYTES": str(1 << 20),
    "CHRONIK_JOURNAL_CHECKPOINT_BYTES": str(1 << 20),
    "CHRONIK_TOPICS_MAX_BATCH_BYTES": str(64 << 10),
}
# From here on a batch is its producer's: before it stand base offset, length, leader epoch, magic and checksum.
OWN_BYTES_FROM = 21
verdicts = Verdicts()


def batch(topic, partition, number):
    values = [f"{topic}-{partition} record {number * RECORDS + n} ".encode() * 4 for n in range(RECORDS)]
    return kafka_wire.batch(values, timestamp_ms=1_700_000_000_000 + number)


def write(broker, numbers):
    with kafka_wire.Connection(broker.bootstrap) as connection:
        for number in numbers:
            for topic, partitions in PARTITIONS.items():
                for partition in range(partitions):
                    code, base = connection.produce(topic, partition, batch(topic, partition, number))
                    assert (code, base) == (0, number * RECORDS), f"{topic}-{partition}: error {code}, offset {base}"


def make(archive):
    home = scratch("old-directory")
    data = home / "data"
    with Chronik(data_dir=data, environment=SMALL) as broker:
        with kafka_wire.Connection(broker.bootstrap) as connection:
            for topic, partitions in {**PARTITIONS, DELETED: 2}.items():
                for name, (code, message) in connection.create_topics([topic], partitions).items():
                    assert code == 0, f"create {name}: {code} {message}"
            assert connection.produce(DELETED, 0, batch(DELETED, 0, 0))[0] == 0
            assert connection.delete_topics([DELETED]) == {DELETED: 0}
        write(broker, range(IN_SEGMENTS))
        assert broker.restart() == 0
        write(broker, range(IN_SEGMENTS, BATCHES))
        broker.kill9()
    archive.parent.mkdir(exist_ok=True)
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        tar.add(data, arcname="data", filter=without_owner)
    print(f"{archive}: {archive.stat().st_size} bytes")


def without_owner(entry):
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def read_all(broker, batches):
    """Every batch as it was sent, at its offset; how many there were."""
    count = 0
    with kafka_wire.Connection(broker.bootstrap) as connection:
        for topic, partitions in PARTITIONS.items():
            for partition in range(partitions):
                end = connection.end_offset(topic, partition)
                assert end == batches * RECORDS, f"{topic}-{partition} ends at {end}, not {batches * RECORDS}"
                offset = 0
                while offset < end:
                    code, _, records = connection.fetch(topic, partition, offset)
                    assert code == 0 and records, f"fetch of {topic}-{partition} at {offset}: error {code}"
                    while records:
                        base = int.from_bytes(records[:8], "big")
                        length = 12 + int.from_bytes(records[8:12], "big")
                        sent = batch(topic, partition, base // RECORDS)
                        assert base == offset, f"{topic}-{partition}: offset {base} where {offset} was due"
                        assert records[OWN_BYTES_FROM:length] == sent[OWN_BYTES_FROM:], f"{topic}-{partition} at {base}"
                        records, offset, count = records[length:], offset + RECORDS, count + 1
        assert connection.metadata([DELETED])[DELETED][0] != 0, "the deleted topic is back"
    return count


def judge(archive, disk):
    home = scratch("old-directory")
    with tarfile.open(archive) as tar:
        tar.extractall(home, filter="data")
    with verdicts.case(f"{archive.name.split('.')[0]}, --disk {disk}") as note, Chronik(disk=disk, data_dir=home / "data") as broker:
        note(f"{read_all(broker, BATCHES)} batches read as they were written")
        write(broker, range(BATCHES, BATCHES + 5))
        assert broker.restart() == 0, "a polite stop"
        note(f"{read_all(broker, BATCHES + 5)} after five more in each partition and a restart")
        assert not broker.panics(), broker.panics()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disk", default="threads")
    parser.add_argument("--make", type=pathlib.Path, metavar="ARCHIVE")
    options = parser.parse_args()
    if options.make:
        make(options.make)
        return
    archives = sorted(DATA.glob("*.tar.xz"))
    if not archives:
        sys.exit(f"no archive in {DATA}")
    for archive in archives:
        judge(archive, options.disk)
    verdicts.finish()


main()
