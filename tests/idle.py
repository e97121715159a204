#!/usr/bin/env python3
"""An idle broker with 100 topics: under 30 MiB resident, and none of its threads wakes up.

    tests/idle.py [--disk threads,uring] [--seconds 10]

Ends with `N passed, N failed`.
"""

import argparse
import pathlib
import re
import sys
import time

import kafka_wire
from chronik_process import Chronik, disks

TOPICS = 100
RESIDENT_MIB_MAX = 30
# An io_uring keeps one worker of the kernel per ring, whose idle time-out is this and is no setting (`disk = "uring"` only).
KERNELS_OWN, KERNELS_PERIOD_S = re.compile(r" iou-wrk-"), 5
# What the load left to do is done by then: a thread of the disk's pool ends when it had nothing to do for ten seconds.
SETTLE_S = 15


def wakeups(pid):
    """{thread id and name: times that it gave its core back, by itself or not}"""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (task / "status").read_text()
            name = (task / "comm").read_text().strip()
        except FileNotFoundError:
            continue
        found[f"{task.name} {name}"] = sum(map(int, re.findall(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)", status, re.M)))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disk", default="threads,uring")
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    results = []

    def report(name, passed, detail):
        results.append(passed)
        print(f"{'pass' if passed else 'FAIL'}  {name}: {detail}", flush=True)

    for disk in disks(options.disk):
        with Chronik(disk=disk) as broker:
            names = [f"idle-{i:03d}" for i in range(TOPICS)]
            with kafka_wire.Connection(broker.bootstrap, timeout_s=60) as connection:
                refused = {name: answer for name, answer in connection.create_topics(names).items() if answer[0]}
                assert not refused, f"create topics: {refused}"
                for name in names:
                    code, _ = connection.produce(name, 0, kafka_wire.batch([b"one record, so that it is in use"]))
                    assert code == 0, f"produce to {name}: error {code}"
            time.sleep(SETTLE_S)
            before = wakeups(broker.pid)
            time.sleep(options.seconds)
            after = wakeups(broker.pid)
            resident = broker.resident_mib()
            report(
                f"{disk}: resident with {TOPICS} topics", resident < RESIDENT_MIB_MAX,
                f"{resident:.1f} MiB, below {RESIDENT_MIB_MAX}",
            )
            risen = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name)}
            kernels = {name: rise for name, rise in risen.items() if KERNELS_OWN.search(name)}
            awake = {name: rise for name, rise in risen.items() if name not in kernels}
            report(
                f"{disk}: all {len(after)} threads asleep for {options.seconds:.0f} s", not awake,
                f"wake-ups by thread: {awake or 'none'}",
            )
            if kernels:
                report(
                    f"{disk}: the kernel's workers look around every {KERNELS_PERIOD_S} s only",
                    all(rise <= options.seconds / KERNELS_PERIOD_S + 1 for rise in kernels.values()), kernels,
                )
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed", flush=True)
    return 0 if all(results) else 1


sys.exit(main())
