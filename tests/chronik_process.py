"""Runs the real broker binary for the tests: fresh data directory, free ports, clean stop, no orphans.

The binary is $CHRONIK_BIN, or target/release/chronik of this checkout. Data goes under $CHRONIK_TEST_DIR, or
target/test-data: a real disk, since syncing costs nothing on tmpfs. stderr is kept in a file elsewhere,
so that every test can ask for panics, and so that logging does not wait for a disk that a test stalls.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A test that is told to end (by a time limit, say) still stops its brokers and unmounts its disks.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
READY = re.compile(r"chronik ready: kafka (?P<kafka>[^,]+), admin (?P<admin>[^,]+)")
STEERING = {"CHRONIK_BIN", "CHRONIK_TEST_DIR", "CHRONIK_CLIENT_RECORDS"}


def binary():
    return os.environ.get("CHRONIK_BIN") or str(ROOT / "target" / "release" / "chronik")


def scratch(name):
    """A new directory on a real disk."""
    parent = pathlib.Path(os.environ.get("CHRONIK_TEST_DIR") or ROOT / "target" / "test-data")
    parent.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))


class NotReady(Exception):
    """The broker ended, or said nothing, before it was ready."""

    def __init__(self, status, stderr):
        self.status = status
        self.stderr = stderr
        super().__init__(f"no ready line; exit status {status}; stderr ends:\n{stderr[-2000:]}")


class Chronik:
    """One broker process. Use as a context manager; `restart` keeps data and port."""

    def __init__(
        self, disk="threads", data_dir=None, wrapper=(), arguments=(), environment=None, ready_s=60, listeners=None,
        prefix=(),
    ):
        self.disk = disk
        self.home = scratch("chronik")
        self.data_dir = pathlib.Path(data_dir or self.home / "data")
        self.wrapper = list(wrapper)
        # Of a command that becomes the broker, where a wrapper stays above it.
        self.prefix = list(prefix)
        self.arguments = list(arguments)
        self.environment = environment or {}
        self.ready_s = ready_s
        self.stderr_path = self.home / "stderr"
        # HOST:PORT each for Kafka clients, the admin port and the other nodes.
        self.listen, self.admin_listen, self.cluster_listen = listeners or ["127.0.0.1:0"] * 3
        self.process = None
        self.ready_line = ""
        self.start()

    def start(self):
        command = [
            *self.prefix, *self.wrapper, binary(), "serve", "--data-dir", str(self.data_dir), "--listen", self.listen,
            "--cluster", self.cluster_listen, "--admin", self.admin_listen, "--disk", self.disk, *self.arguments,
        ]
        self.ready_line = ""
        # What steers the tests is not configuration of the broker, which refuses keys that it does not know.
        environment = {key: value for key, value in os.environ.items() if key not in STEERING}
        with open(self.stderr_path, "ab") as stderr:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True,
                env={**environment, **self.environment},
            )
        arrived = threading.Event()
        threading.Thread(target=self._read_stdout, args=(self.process, arrived), daemon=True).start()
        arrived.wait(self.ready_s)
        match = READY.search(self.ready_line)
        if not match:
            if self.process.poll() is None:
                self.process.kill()
            raise NotReady(self.process.wait(), self.stderr())
        self.bootstrap = self.listen = match["kafka"].strip()
        self.admin = match["admin"].strip()

    def _read_stdout(self, process, arrived):
        for line in process.stdout:
            if READY.search(line):
                self.ready_line = line.strip()
                arrived.set()
        arrived.set()

    @property
    def pid(self):
        """The broker's own pid, also below a wrapper such as strace."""
        if not self.wrapper:
            return self.process.pid
        children = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        return int(children[0]) if children else self.process.pid

    def segment_bytes(self):
        """Of all segments on the disk."""
        total = 0
        for path in (self.data_dir / "partitions").glob("*/*.log"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                pass
        return total

    def stderr(self):
        return self.stderr_path.read_text(errors="replace") if self.stderr_path.exists() else ""

    def panics(self):
        return [line for line in self.stderr().splitlines() if "panicked at" in line]

    def resident_mib(self):
        return self._memory_mib("VmRSS")

    def peak_mib(self):
        """The most that was resident since the process started."""
        return self._memory_mib("VmHWM")

    def _memory_mib(self, field):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024

    def alive(self):
        return self.process.poll() is None

    def get(self, path, timeout_s=5):
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=timeout_s) as answer:
            return answer.read().decode()

    def get_json(self, path, timeout_s=5):
        return json.loads(self.get(path, timeout_s))

    def kill9(self):
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout_s=20):
        """SIGTERM; returns the exit status. A broker that does not end is killed, and that is an error."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            try:
                return self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill9()
                raise AssertionError(f"the broker did not stop within {timeout_s} s of SIGTERM") from None
        return self.process.returncode

    def restart(self):
        status = self.stop()
        self.start()
        return status

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        try:
            if failure[0] is not None and self.stderr():
                print(f"--- broker stderr ends ({self.stderr_path}):\n{self.stderr()[-3000:]}", flush=True)
            self.stop()
        finally:
            if failure[0] is None:
                shutil.rmtree(self.home, ignore_errors=True)


def wait_until(condition, timeout_s, what, every_s=0.05):
    until = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"{what}: not within {timeout_s} s")
        time.sleep(every_s)


def disks(wanted):
    """The disks of a comma-separated list that can be had here; the others are skipped with the broker's own reason."""
    for disk in wanted.split(","):
        if disk == "uring":
            try:
                with Chronik(disk=disk):
                    pass
            except NotReady as refused:
                if "io_uring" not in refused.stderr:
                    raise
                print(f"skipped: --disk uring: {refused.stderr.strip().splitlines()[-1]}", flush=True)
                continue
        yield disk
