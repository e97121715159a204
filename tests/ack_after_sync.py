#!/usr/bin/env python3
"""No acknowledgement leaves before its sync; and this script fails when the sync is taken out.

    tests/ack_after_sync.py [--requests N]

--disk threads   every system call is traced and judged request by request (see ack_judge.py); the negative control
                 makes fdatasync a no-op with `strace -e inject`, and has to be rejected.
--disk uring     io_uring's operations are not system calls, so the device is asked: on a disk of its own (ext4 on a loop
                 device, root) the flush counter must have risen between each request and its acknowledgement. The
                 negative control mounts with barrier=0, which makes each sync return without a flush, and has to be
                 rejected. threads is asked in the same way. Without root the shared device's counter is used, which
                 other processes may raise too, and the control is left out; the output says so.

Ends with `N passed, N failed`.
"""

import argparse
import concurrent.futures
import shutil
import subprocess
import sys

import kafka_wire
import private_disk
from ack_judge import judge
from chronik_process import Chronik, disks, scratch

TRACED = (
    "openat,read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,pwrite64,pwritev,pwritev2,fdatasync,fsync"
)
CONNECTIONS = 4
results = []


def report(name, passed, detail):
    results.append(passed)
    print(f"{'pass' if passed else 'FAIL'}  {name}: {detail}", flush=True)


def create_topic(broker):
    with kafka_wire.Connection(broker.bootstrap, timeout_s=60) as connection:
        code, message = connection.create_topics(["synced"])["synced"]
        assert code == 0, f"create topic: error {code} {message}"


def produce_marked(broker, number, requests):
    """Produces one record after the other, each with a marker of its own; returns the acknowledged markers."""
    markers = []
    with kafka_wire.Connection(broker.bootstrap, timeout_s=60) as connection:
        for i in range(requests):
            marker = f"ack-{number}-{i:06d}-end"
            code, _ = connection.produce("synced", number % 3, kafka_wire.batch([marker.encode()]))
            if code == 0:
                markers.append(marker)
    return markers


def traced(inject, requests):
    """Runs a traced broker under load; returns (acknowledged markers, complaints)."""
    home = scratch("trace")
    trace = home / "trace"
    wrapper = ["strace", "-f", "-yy", "-s", "65536", "-o", str(trace), "-e", f"trace={TRACED}", "--seccomp-bpf"]
    if inject:
        wrapper += ["-e", "inject=fdatasync,fsync:retval=0"]
    with Chronik(disk="threads", data_dir=home / "data", wrapper=wrapper) as broker:
        create_topic(broker)
        with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
            share = max(requests // CONNECTIONS, 1)
            futures = [pool.submit(produce_marked, broker, c, share) for c in range(CONNECTIONS)]
            markers = [marker for future in futures for marker in future.result()]
    with open(trace, encoding="utf-8", errors="replace") as lines:
        complaints = judge(lines, markers)
    shutil.rmtree(home)
    return markers, complaints


def check_traced(requests):
    if not shutil.which("strace"):
        sys.exit("strace is not installed: apt-get install strace")
    markers, complaints = traced(False, requests)
    passed = len(markers) >= requests // CONNECTIONS * CONNECTIONS and not complaints
    detail = f"{len(markers)} acknowledgements, each after the sync of its write"
    if not passed:
        detail = f"{len(markers)} acknowledged, {len(complaints)} complaints, first: {complaints[:3]}"
    report("threads, traced", passed, detail)
    markers, complaints = traced(True, requests // 4)
    rejected = bool(markers) and len(complaints) == len(markers)
    detail = f"{len(markers)} acknowledged, {len(complaints)} rejected"
    if complaints:
        detail += f"; {complaints[0][0]}: {complaints[0][1]}"
    report("threads, fdatasync made a no-op: rejected", rejected, detail)


def count_flushes(disk, data_dir, flushes, requests):
    """Sequential produces; returns how many were acknowledged, and how many of these without a flush since sending."""
    acknowledged = unsynced = 0
    with Chronik(disk=disk, data_dir=data_dir) as broker:
        create_topic(broker)
        with kafka_wire.Connection(broker.bootstrap, timeout_s=60) as connection:
            for i in range(requests):
                before = flushes()
                code, _ = connection.produce("synced", 0, kafka_wire.batch([b"flush-%d" % i]))
                if code == 0:
                    acknowledged += 1
                    unsynced += flushes() <= before
    return acknowledged, unsynced


def check_flushes(disk, requests):
    reason = private_disk.unavailable()
    if reason:
        home = scratch("flushes")
        device = private_disk.device_of(home)
        print(f"note: {reason}; using the shared device {device}, no negative control for {disk}", flush=True)
        acknowledged, unsynced = count_flushes(
            disk, home / "data", lambda: private_disk.flushes_of(device), requests
        )
        shutil.rmtree(home)
        good = acknowledged == requests and unsynced == 0
        report(f"{disk}, flush counter of {device}", good, f"{acknowledged} acknowledged, {unsynced} without a flush")
        return
    with private_disk.PrivateDisk() as private:
        acknowledged, unsynced = count_flushes(disk, private.path / "data", private.flushes, requests)
    good = acknowledged == requests and unsynced == 0
    report(f"{disk}, flush counter", good, f"{acknowledged} acknowledged, {unsynced} without a flush")
    with private_disk.PrivateDisk(mount_options="barrier=0") as private:
        acknowledged, unsynced = count_flushes(disk, private.path / "data", private.flushes, requests // 4)
    rejected = acknowledged > 0 and unsynced > acknowledged // 2
    detail = f"{acknowledged} acknowledged, {unsynced} without a flush"
    report(f"{disk}, disk without flushes: rejected", rejected, detail)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    unit = subprocess.run([sys.executable, "-m", "unittest", "-q", "test_ack_judge"], cwd=sys.path[0], check=False)
    report("the judge on hand-made traces", unit.returncode == 0, f"status {unit.returncode}")
    check_traced(options.requests)
    for disk in disks("threads,uring"):
        check_flushes(disk, options.requests)
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed", flush=True)
    return 0 if all(results) else 1


sys.exit(main())
