#!/usr/bin/env python3
"""`chronik dev`: three processes are one cluster, each may be killed and started again, and all end together. What is in its
directory stays as long as a node runs in it or is to be started again.

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
from chronik_process import STEERING, binary, scratch, wait_until
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


def environment(temporary=None):
    """Without what steers the tests, which a node would take for configuration of its own."""
    ours = {key: value for key, value in os.environ.items() if key not in STEERING}
    return {**ours, **({"TMPDIR": str(temporary)} if temporary else {})}


class Dev:
    """Use as a context manager; its process group is its own, as that of a shell's job."""

    def __init__(self, *arguments_, temporary=None):
        self.said = scratch("dev") / "stdout"
        with self.said.open("w") as stdout:
            self.process = subprocess.Popen(
                [binary(), "dev", *arguments_], stdout=stdout, stderr=subprocess.STDOUT, env=environment(temporary),
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


def again(dev, number):
    """Starts a node as it is said to be done, in a process of ours, and waits until it is ready."""
    line = re.compile(rf"node {number} has ended: .*\n +chronik serve --config (\S+)")
    wait_until(lambda: line.search(dev.text()), 10, "it is said how to start it again")
    one = subprocess.Popen(
        [binary(), "serve", "--config", line.search(dev.text()).group(1)], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=environment(),
    )
    ready = one.stdout.readline()
    if "chronik ready" not in ready:
        one.kill()
        raise AssertionError(f"node {number} did not start again: {ready}")
    return one


def reads_back(nodes, topic, asked, wanted):
    """What is in partition 0 has to be this, as soon as its leader serves it: it says for a while that it does not yet."""
    told = []

    def are_there():
        leader = leader_of(nodes[asked][0], topic)
        try:
            with kafka_wire.Connection(nodes[leader][0]) as connection:
                told[:] = [value for _, value in connection.read_values(topic, 0)]
        except AssertionError:
            return False
        return told == wanted

    wait_until(are_there, 30, f"{wanted} is read")


def stopped(dev, signal_, status=0):
    if signal_:
        os.kill(dev.process.pid, signal_)
    ended = dev.process.wait(40)
    assert ended == status, f"status {ended}: {dev.text()}"


def a_cluster_and_its_end(home, signal_, temporary=None):
    options = ["--port", str(free_base())] + (["--data-dir", str(home)] if home else [])
    with Dev(*options, temporary=temporary) as dev:
        nodes = dev.ready()
        assert sorted(nodes) == [1, 2, 3], dev.text()
        killed = produce(nodes, "orders", b"before")
        os.kill(nodes[killed][1], signal.SIGKILL)
        produce(nodes, "orders", b"after", but=killed)
        one = again(dev, killed)
        try:
            reads_back(nodes, "orders", killed, [b"before", b"after"])
            stopped(dev, signal_)
            assert one.wait(1) == 0, "the node that was started by hand was not asked to stop"
        finally:
            one.kill()
        assert not any(runs(process) for _, process, _ in nodes.values()), "a node runs on"


def all_of_them_by_hand(temporary):
    """Each node killed and started again in turn, so that none is left that `chronik dev` has started."""
    with Dev("--port", str(free_base()), temporary=temporary) as dev:
        nodes = dev.ready()
        produce(nodes, "orders", b"first")
        by_hand = []
        try:
            for number, (_, process, _) in nodes.items():
                os.kill(process, signal.SIGKILL)
                by_hand.append(again(dev, number))
            wait_until(lambda: "waited for" in dev.text(), 10, "it is said that nodes started by hand are waited for")
            assert dev.process.poll() is None, dev.text()
            produce(nodes, "orders", b"second")
            reads_back(nodes, "orders", 1, [b"first", b"second"])
            stopped(dev, signal.SIGINT)
            assert [one.wait(1) for one in by_hand] == [0, 0, 0], "the nodes that were started by hand run on"
        finally:
            for one in by_hand:
                one.kill()


def kept(dev, temporary):
    """What is left of a temporary directory; it has to be said how to go on with it."""
    [left] = pathlib.Path(temporary).iterdir()
    line = re.search(r"chronik: (\S+) is kept, for (.*)\. `chronik (dev .*)` goes on", dev.text())
    assert line and line.group(1) == str(left.resolve()), dev.text()
    return line.group(2), line.group(3).split()[1:]


def nobody_is_left(temporary):
    """All killed and none started again: what was acknowledged is there for who goes on as it is said."""
    with Dev("--port", str(free_base()), temporary=temporary) as dev:
        nodes = dev.ready()
        produce(nodes, "orders", b"kept")
        for _, process, _ in nodes.values():
            os.kill(process, signal.SIGKILL)
        stopped(dev, None, status=1)
        why, options = kept(dev, temporary)
    with Dev(*options, temporary=temporary) as dev:
        nodes = dev.ready()
        reads_back(nodes, "orders", 1, [b"kept"])
        stopped(dev, signal.SIGINT)
    return why


def one_is_down(temporary):
    with Dev("--port", str(free_base()), temporary=temporary) as dev:
        os.kill(dev.ready()[2][1], signal.SIGKILL)
        wait_until(lambda: "node 2 has ended" in dev.text(), 10, "the end of node 2 is noticed")
        stopped(dev, signal.SIGINT)
        return kept(dev, temporary)[0]


def nobody_listens(temporary):
    """A closed pipe at stdout and stderr is no reason to end, and above all none to leave the nodes alone."""
    base = free_base()
    dev = subprocess.Popen(
        [binary(), "dev", "--port", str(base)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(temporary), start_new_session=True,
    )
    try:
        dev.stdout.close()
        dev.stderr.close()
        bootstrap = f"127.0.0.1:{base}"

        def answers():
            try:
                return leader_of(bootstrap, "orders") > 0
            except OSError:
                return False

        wait_until(answers, 60, "the cluster serves")
        assert dev.poll() is None, f"it ended with {dev.returncode}"
        # As a terminal does with Ctrl-C: the nodes have it as well, and do not count as lost.
        os.killpg(dev.pid, signal.SIGINT)
        assert dev.wait(40) == 0
    finally:
        if dev.poll() is None:
            os.killpg(dev.pid, signal.SIGKILL)
            dev.wait()


def refusal(status, *options, temporary):
    """What is said by one that does not come to run a cluster."""
    with Dev(*options, temporary=temporary) as dev:
        stopped(dev, None, status=status)
        assert "started again with" not in dev.text() and "ready:" not in dev.text(), dev.text()
        return dev.text()


def a_port_that_is_taken(temporary):
    base = free_base()
    for port in (base, base + APART + 2):
        with socket.create_server(("127.0.0.1", port)):
            said = refusal(4, "--port", str(base), temporary=temporary)
        assert f"127.0.0.1:{port}" in said and "--port" in said and "--listen" not in said, said
        assert not os.listdir(temporary), "something was written"


def a_directory_in_use(temporary):
    home = temporary / "keep"
    base = free_base()

    def files():
        return {name: (home / "node-1" / name).read_bytes() for name in ("chronik.toml", "log")}

    with Dev("--port", str(base), "--data-dir", str(home), temporary=temporary) as dev:
        nodes = dev.ready()
        before = files()
        said = refusal(3, "--port", str(base + 50), "--data-dir", str(home), temporary=temporary)
        assert str(home.resolve()) in said and f"process {dev.process.pid}" in said, said
        # Its nodes run on without it, and hold their own.
        dev.process.kill()
        dev.process.wait()
        # Even without the file that says so.
        (home / "node-1" / "data" / "LOCK").unlink()
        said = refusal(3, "--port", str(base + 50), "--data-dir", str(home), temporary=temporary)
        assert re.search(r"a node \(process \d+\) runs in .*/node-\d/data", said), said
        after = files()
        assert after["chronik.toml"] == before["chronik.toml"], after
        assert after["log"].startswith(before["log"]), "the log was cut off"
        for _, process, _ in nodes.values():
            os.kill(process, signal.SIGKILL)
            wait_until(lambda process=process: not is_alive(process), 10, "the node is gone")


def is_alive(process):
    """A process that nobody has waited for yet is gone as well."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def a_directory_that_cannot_be_used(temporary):
    (temporary / "file").touch()
    said = refusal(3, "--port", str(free_base()), "--data-dir", str(temporary / "file" / "keep"), temporary=temporary)
    assert str(temporary / "file" / "keep") in said and "--data-dir" in said, said


def a_node_that_does_not_start(temporary):
    home = temporary / "keep"
    (home / "node-2" / "data").mkdir(parents=True)
    (home / "node-2" / "data" / "letters").touch()
    said = refusal(3, "--port", str(free_base()), "--data-dir", str(home), temporary=temporary)
    assert "node 2 did not come to be ready" in said and "letters" in said, said


def main():
    arguments(__doc__)
    with verdicts.case("three nodes in a directory of ours, one killed and started again") as note:
        home = scratch("dev-home")
        a_cluster_and_its_end(home, signal.SIGTERM)
        assert (home / "secret").stat().st_mode & 0o077 == 0, "others can read the secret"
        note(f"left: {sorted(path.name for path in home.iterdir())}")
        shutil.rmtree(home)
    for name, case, is_left in (
        ("a temporary directory goes at the end", lambda at: a_cluster_and_its_end(None, signal.SIGINT, at), False),
        ("nodes that were all started by hand are waited for, and stopped", all_of_them_by_hand, False),
        ("a temporary directory stays when all nodes were killed", nobody_is_left, True),
        ("a temporary directory stays for a node that is to be started again", one_is_down, True),
        ("nodes are not left alone when nobody reads what is said", nobody_listens, False),
    ):
        with verdicts.case(name) as note:
            with tempfile.TemporaryDirectory(dir=scratch("dev-temporary")) as temporary:
                why = case(temporary)
                note(why)
                left = os.listdir(temporary)
                assert bool(left) == is_left, left
    for name, case in (
        ("a port that is taken is named, and the flag for another", a_port_that_is_taken),
        ("a directory in use is refused and left as it is", a_directory_in_use),
        ("a directory that cannot be used is named", a_directory_that_cannot_be_used),
        ("a node that does not come to be ready ends all of it with its own status", a_node_that_does_not_start),
    ):
        with verdicts.case(name) as note:
            with tempfile.TemporaryDirectory(dir=scratch("dev-temporary")) as temporary:
                case(pathlib.Path(temporary))
    verdicts.finish()


main()
