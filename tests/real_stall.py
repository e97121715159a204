#!/usr/bin/env python3
"""A disk that really stalls, under load: requests are answered, the stall is named, service resumes, nothing is lost.

    tests/real_stall.py [--disk threads,uring] [--seconds 6]

The data directory lies on ext4 on a loop device, and `fsfreeze` freezes it (root). Elsewhere the reason is printed and `strace`
delays one fdatasync of the broker instead, for --disk threads only. Meanwhile producers and readers go on, one request in
flight each. Ends with `N passed, N failed`.
"""

import argparse
import collections
import concurrent.futures
import re
import shutil
import socket
import sys
import threading
import time

import kafka_wire
import private_disk
from chronik_process import Chronik, disks, scratch, wait_until

PRODUCERS = 4
TOPIC = "stalled"
# What a producer allows the broker, and what the network and a busy machine are allowed on top.
DEADLINE_S = 3.0
GRACE_S = 1.5
RESUMED_WITHIN_S = 5.0
# From this age on an operation counts as stalled.
STALLED_MS = 1000
NAMES_THE_OPERATION = re.compile(r"sync|write", re.I)
results = []


def report(name, passed, detail):
    results.append(passed)
    print(f"{'pass' if passed else 'FAIL'}  {name}: {detail}", flush=True)


class Load:
    """Producers and a reader, each keeping one request in flight, and what became of every request."""

    def __init__(self, broker):
        self.bootstrap = broker.bootstrap
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.acknowledged = []  # (value, when)
        self.errors = collections.Counter()
        self.slowest_s = collections.Counter()
        self.broken = []

    def produce(self, number):
        connection = None
        sequence = 0
        while not self.over.is_set():
            value = b"producer-%d-%08d" % (number, sequence)
            sequence += 1
            began = time.monotonic()
            try:
                connection = connection or kafka_wire.Connection(self.bootstrap, timeout_s=DEADLINE_S + GRACE_S)
                code, _ = connection.produce(
                    TOPIC, number % 3, kafka_wire.batch([value]), timeout_ms=int(DEADLINE_S * 1000)
                )
            except (kafka_wire.Closed, OSError) as failure:
                self._broken("produce", began, failure)
                connection = None
                continue
            now = time.monotonic()
            with self.lock:
                self.slowest_s["produce"] = max(self.slowest_s["produce"], now - began)
                if code == 0:
                    self.acknowledged.append((value, now))
                else:
                    self.errors[code] += 1
            time.sleep(0.002 if code == 0 else 0.05)

    def read(self):
        connection = None
        while not self.over.is_set():
            began = time.monotonic()
            try:
                connection = connection or kafka_wire.Connection(self.bootstrap, timeout_s=DEADLINE_S + GRACE_S)
                connection.metadata([TOPIC])
                connection.fetch(TOPIC, 0, 0, max_wait_ms=100)
            except (kafka_wire.Closed, OSError) as failure:
                self._broken("metadata and fetch", began, failure)
                connection = None
                continue
            with self.lock:
                self.slowest_s["read"] = max(self.slowest_s["read"], time.monotonic() - began)
            time.sleep(0.05)

    def _broken(self, what, began, failure):
        if isinstance(failure, (socket.timeout, TimeoutError)):
            failure = f"no answer after {time.monotonic() - began:.1f} s"
        with self.lock:
            self.broken.append(f"{what}: {failure}")
        time.sleep(0.1)

    def acknowledged_since(self, moment):
        with self.lock:
            return [when for _, when in self.acknowledged if when > moment]


def read_everything(broker):
    with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
        return collections.Counter(
            value for partition in range(3) for _, value in connection.read_values(TOPIC, partition)
        )


def check_kept(name, broker, acknowledged):
    stored = read_everything(broker)
    lost = [value for value in acknowledged if value not in stored]
    doubled = [value for value, count in stored.items() if count > 1]
    detail = f"{len(acknowledged)} acknowledged, {sum(stored.values())} stored, {len(lost)} lost, {len(doubled)} doubled"
    report(name, not lost and not doubled, f"{detail} {(lost + doubled)[:3] or ''}")


def named_stall(broker):
    """The operation on a journal that /debug/stalls calls stalled, in its words, or None."""
    try:
        stalls = broker.get_json("/debug/stalls")
    except OSError:
        return None
    if stalls["storage"] == "good":
        return None
    for operation in stalls["operations"]:
        on_journal = re.search(r"/(journal|raft)/", operation["file"] or "")
        if on_journal and operation["age_ms"] >= STALLED_MS and NAMES_THE_OPERATION.search(operation["operation"]):
            named = f"{operation['operation']} of {operation['file']} by {operation['task']}, {operation['age_ms']} ms"
            return f"storage {stalls['storage']}: {named}; waits: {[wait.get('of') for wait in stalls['waits']]}"
    return None


def check(disk, broker, stall, end_stall, seconds):
    """`stall` starts the stall (or waits for it), `end_stall` ends it (or waits for its end)."""
    with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
        code, message = connection.create_topics([TOPIC])[TOPIC]
        assert code == 0, f"create topic: error {code} {message}"
    load = Load(broker)
    with concurrent.futures.ThreadPoolExecutor(PRODUCERS + 1) as pool:
        futures = [pool.submit(load.produce, number) for number in range(PRODUCERS)] + [pool.submit(load.read)]
        try:
            wait_until(lambda: len(load.acknowledged) > 200, 30, "200 acknowledgements before the stall")
            stall()
            frozen_at = time.monotonic()
            try:
                body = wait_until(lambda: named_stall(broker), max(seconds - 1, 1), "a stall on /debug/stalls", 0.1)
                report(f"{disk}: /debug/stalls names it", True, body)
            except AssertionError as nothing:
                report(f"{disk}: /debug/stalls names it", False, nothing)
            time.sleep(max(0, frozen_at + seconds - time.monotonic()))
            # A delay that strace injects is noticed only when it is under way, and so ends earlier than it seems.
            surely_ends = frozen_at + seconds - 2.5
            during = sum(when < surely_ends for when in load.acknowledged_since(frozen_at + 0.5))
            end_stall()
            thawed_at = time.monotonic()
            try:
                wait_until(lambda: load.acknowledged_since(thawed_at), RESUMED_WITHIN_S, "an acknowledgement after the stall")
                resumed = load.acknowledged_since(thawed_at)[0] - thawed_at
                report(f"{disk}: service resumes", True, f"first acknowledgement {resumed:.2f} s after the stall ended")
            except AssertionError as nothing:
                report(f"{disk}: service resumes", False, nothing)
            time.sleep(2)
        finally:
            end_stall()
            load.over.set()
        for future in futures:
            future.result()
    report(
        f"{disk}: every request answered within its deadline", not load.broken,
        f"slowest produce {load.slowest_s['produce']:.2f} s, slowest metadata and fetch {load.slowest_s['read']:.2f} s, "
        f"error codes {dict(load.errors)}, unanswered {len(load.broken)} {load.broken[:3] or ''}",
    )
    report(f"{disk}: nothing acknowledged while stalled", during == 0, f"{during} acknowledgements")
    acknowledged = [value for value, _ in load.acknowledged]
    check_kept(f"{disk}: what was acknowledged is there", broker, acknowledged)
    status = broker.restart()
    report(f"{disk}: stops cleanly", status == 0, f"exit status {status}")
    check_kept(f"{disk}: and after a restart", broker, acknowledged)
    report(f"{disk}: no panic", not broker.panics(), f"{broker.panics()[:3]}")


def with_fsfreeze(disk, seconds):
    with private_disk.PrivateDisk() as private, Chronik(disk=disk, data_dir=private.path / "data") as broker:
        try:
            check(disk, broker, private.freeze, private.thaw, seconds)
        finally:
            private.thaw()


def with_strace(seconds):
    home = scratch("stall")
    wrapper = [
        "strace", "-f", "-o", "/dev/null", "--seccomp-bpf", "-e", "trace=fdatasync",
        "-e", f"inject=fdatasync:delay_enter={int(seconds * 1e6)}:when=400",
    ]
    with Chronik(disk="threads", data_dir=home / "data", wrapper=wrapper) as broker:
        check(
            "threads", broker, lambda: wait_until(lambda: named_stall(broker), 60, "the delayed fdatasync"),
            lambda: None, seconds,
        )
    shutil.rmtree(home)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disk", default="threads,uring")
    parser.add_argument("--seconds", type=float, default=6)
    options = parser.parse_args()
    reason = private_disk.unavailable()
    if reason:
        print(f"skipped: fsfreeze: {reason}; strace delays an fdatasync instead, on --disk threads", flush=True)
        with_strace(options.seconds)
    else:
        for disk in disks(options.disk):
            with_fsfreeze(disk, options.seconds)
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed", flush=True)
    return 0 if all(results) else 1


sys.exit(main())
