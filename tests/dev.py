#!/usr/bin/env python3
"""`chronik dev`: three processes are one cluster, one of them may be killed and started again, and all end together.

    tests/dev.py

Ends with `N passed, N failed`.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile

import kafka_wire
from chronik_process import binary, scratch, wait_until
from verdicts import Verdicts, arguments

READY = re.compile(r"chronik dev ready: (\S+)\. ")
NODE = re.compile(r"^(\d) +(\S+) +(\S+) +(\d+) +(\S+)$", re.MULTILINE)
APART = 10
verdicts = Verdicts()


def free_base(nodes=3):
    """A port from which on each node finds its three free."""
    for base in range(21_092, 60_000, 100):
        ports = [base + APART * node + offset for node in range(nodes) for offset in range(3)]
        try:
            for port in ports:
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return base
    raise RuntimeError("no free ports")


class Dev:
    """Use as a context manager; its process group is its own, as that of a shell's job."""

    def __init__(self, *arguments_, temporary=None):
        self.said = scratch("dev") / "stdout"
        environment = {**os.environ, **({"TMPDIR": str(temporary)} if temporary else {})}
        with self.said.open("w") as stdout:
            self.process = subprocess.Popen(
                [binary(), "dev", *arguments_], stdout=stdout, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True,
            )

    def text(self):
        return self.said.read_text()

    def ready(self):
        wait_until(lambda: READY.search(self.text()) or self.process.poll() is not None, 60, "the cluster is ready")
        assert READY.search(self.text()), self.text()
        return {int(node): (kafka, int(process), pathlib.Path(home)) for node, kafka, _, process, home in
                NODE.findall(self.text())}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        shutil.rmtree(self.said.parent, ignore_errors=True)


def runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def leader_of(bootstrap, topic, but=None):
    """Who leads partition 0, as soon as somebody does who is not `but`."""
    found = []

    def led():
        with kafka_wire.Connection(bootstrap) as connection:
            code, partitions = connection.metadata([topic], auto_create=True)[topic]
        leader = partitions[0][1] if code == 0 else -1
        found[:] = [leader]
        return leader not in (-1, but)

    wait_until(led, 30, f"somebody leads {topic}")
    return found[0]


def produce(nodes, topic, value, but=None):
    """Through whoever leads; who that is."""
    asked = next(number for number in nodes if number != but)
    taken = []

    def done():
        leader = leader_of(nodes[asked][0], topic, but)
        with kafka_wire.Connection(nodes[leader][0]) as connection:
            code, _ = connection.produce(topic, 0, kafka_wire.batch([value]))
        taken[:] = [leader]
        return code == 0

    wait_until(done, 30, "a record is acknowledged")
    return taken[0]


def a_cluster_and_its_end(home, signal_, temporary=None):
    options = ["--port", str(free_base())] + (["--data-dir", str(home)] if home else [])
    with Dev(*options, temporary=temporary) as dev:
        nodes = dev.ready()
        assert sorted(nodes) == [1, 2, 3], dev.text()
        killed = produce(nodes, "orders", b"before")
        os.kill(nodes[killed][1], signal.SIGKILL)
        produce(nodes, "orders", b"after", but=killed)
        again = re.compile(r"chronik serve --config (\S+)")
        wait_until(lambda: again.search(dev.text()), 10, "it is said how to start it again")
        one = subprocess.Popen(
            [binary(), "serve", "--config", again.search(dev.text()).group(1)], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )
        try:
            assert "chronik ready" in one.stdout.readline()
            leader = leader_of(nodes[killed][0], "orders")
            with kafka_wire.Connection(nodes[leader][0]) as connection:
                values = [value for _, value in connection.read_values("orders", 0)]
            assert values == [b"before", b"after"], values
        finally:
            one.terminate()
            one.wait(20)
        os.kill(dev.process.pid, signal_)
        status = dev.process.wait(30)
        assert status == 0, f"status {status}: {dev.text()}"
        assert not any(runs(process) for _, process, _ in nodes.values()), "a node runs on"
        return nodes


def main():
    arguments(__doc__)
    with verdicts.case("three nodes in a directory of ours, one killed and started again") as note:
        home = scratch("dev-home")
        a_cluster_and_its_end(home, signal.SIGTERM)
        assert (home / "secret").stat().st_mode & 0o077 == 0, "others can read the secret"
        note(f"left: {sorted(path.name for path in home.iterdir())}")
        shutil.rmtree(home)
    with verdicts.case("a temporary directory goes at the end") as note:
        with tempfile.TemporaryDirectory(dir=scratch("dev-temporary")) as temporary:
            a_cluster_and_its_end(None, signal.SIGINT, temporary=temporary)
            left = os.listdir(temporary)
            assert not left, left
    with verdicts.case("a port that is taken ends all of it, and says which") as note:
        base = free_base()
        with socket.create_server(("127.0.0.1", base + APART)):
            with Dev("--port", str(base), temporary=None) as dev:
                status = dev.process.wait(60)
                assert status == 1 and f"127.0.0.1:{base + APART}" in dev.text(), f"{status}: {dev.text()}"
    verdicts.finish()


main()
