#!/usr/bin/env python3
"""An idle broker with 100 topics: under 30 MiB resident, and its commit path does not wake up.

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
# Threads that carry commits, by the names the broker gives them.
COMMIT_PATH = re.compile(r"journal|commit|wal|ring|raft")
SETTLE_S = 5


def resident_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def wakeups(pid):
    """{thread id and name: voluntary context switches}"""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (task / "status").read_text()
            name = (task / "comm").read_text().strip()
        except FileNotFoundError:
            continue
        found[f"{task.name} {name}"] = int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M)[1])
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
            resident = resident_mib(broker.pid)
            report(
                f"{disk}: resident with {TOPICS} topics", resident < RESIDENT_MIB_MAX,
                f"{resident:.1f} MiB, below {RESIDENT_MIB_MAX}",
            )
            risen = {name: after[name] - before.get(name, 0) for name in after}
            commit_path = {name: rise for name, rise in risen.items() if COMMIT_PATH.search(name.split(" ", 1)[1])}
            others = sum(rise for name, rise in risen.items() if name not in commit_path)
            quiet = bool(commit_path) and not any(commit_path.values())
            report(
                f"{disk}: commit path asleep for {options.seconds:.0f} s", quiet,
                f"wake-ups by thread: {commit_path or f'no such thread among {sorted(risen)}'}; others together {others}",
            )
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed", flush=True)
    return 0 if all(results) else 1


sys.exit(main())
