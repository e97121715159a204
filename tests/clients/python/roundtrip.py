"""What every client does and what must come back; the client scripts only speak their library's dialect.

Record i has key `k<i>`, the timestamp base + i ms, and a value that is a function of i. The Java and Go clients write the
same records, so any client can read any other's topic.
"""

import argparse
import sys

PARTITIONS = 3


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--codec", default="none", choices=["none", "gzip", "snappy", "lz4", "zstd"])
    parser.add_argument("--base-ms", type=int, required=True)
    parser.add_argument("--idempotence", default="default", choices=["default", "on"])
    parser.add_argument("--read-only", action="store_true", help="only read back and check what another client wrote")
    return parser.parse_args()


def key(i):
    return b"k%d" % i


def value(i):
    return b"%010d:" % i + bytes(97 + (i + j) % 26 for j in range(89))


def fail(text):
    print(f"FAILED: {text}", flush=True)
    sys.exit(1)


class Readback:
    """Collects records by partition and checks order, count and content."""

    def __init__(self, options):
        self.options = options
        self.partitions = {p: [] for p in range(PARTITIONS)}
        self.count = 0

    def add(self, partition, offset, timestamp_ms, record_key, record_value):
        self.partitions[partition].append((offset, timestamp_ms, bytes(record_key), bytes(record_value)))
        self.count += 1

    def complete(self):
        return self.count >= self.options.records

    def check(self):
        seen = bytearray(self.options.records)
        for partition, records in self.partitions.items():
            last = -1
            for position, (offset, timestamp_ms, record_key, record_value) in enumerate(records):
                if offset != position:
                    fail(f"partition {partition}: offset {offset} where {position} was due")
                i = int(record_key[1:])
                if i <= last:
                    fail(f"partition {partition}: record {i} after record {last}")
                last = i
                if record_value != value(i):
                    fail(f"record {i}: content differs: {record_value[:40]!r}")
                if timestamp_ms != self.options.base_ms + i:
                    fail(f"record {i}: timestamp {timestamp_ms}")
                if seen[i]:
                    fail(f"record {i} twice")
                seen[i] = 1
        missing = seen.count(0)
        if missing:
            fail(f"{missing} of {self.options.records} records missing, first {seen.index(0)}")

    def seek_target_ms(self):
        return self.options.base_ms + self.options.records // 2

    def check_seek(self, partition, offset):
        """`offset`: what a look-up of the target timestamp gave, None for 'nothing that late'."""
        target = self.seek_target_ms()
        later = [record[0] for record in self.partitions[partition] if record[1] >= target]
        due = later[0] if later else None
        if offset != due:
            fail(f"partition {partition}: seek to {target} gave offset {offset}, due was {due}")

    def done(self):
        spread = "/".join(str(len(records)) for records in self.partitions.values())
        print(f"ok: {self.count} records ({spread})", flush=True)
