"""Three broker processes that are one cluster, for the tests: on loopback ports, or each in a network namespace of its own,
which can be cut off (root)."""

import concurrent.futures
import contextlib
import random
import socket
import subprocess
import time

from chronik_process import Chronik, wait_until

SECRET = "what the nodes of a test share"


def free_ports(count):
    """None of those that the system hands out by itself (from 32768): while a node is down, any client's connection
    could have its port."""
    free = []
    for port in random.sample(range(12_000, 32_000), 20_000):
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            break
    return free


class Namespaces:
    """A network namespace for each node, joined by a bridge on which the machine itself has an address."""

    def __init__(self, nodes):
        self.name = f"chr{free_ports(1)[0]}"
        self.nodes = nodes
        ip("link", "add", self.name, "type", "bridge")
        ip("addr", "add", "10.99.7.254/24", "dev", self.name)
        ip("link", "set", self.name, "up")
        for node in nodes:
            ns, link = self.namespace(node), self.link(node)
            ip("netns", "add", ns)
            ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", ns)
            ip("link", "set", link, "master", self.name, "up")
            ip("-n", ns, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
            ip("-n", ns, "link", "set", "eth0", "up")
            ip("-n", ns, "link", "set", "lo", "up")

    def namespace(self, node):
        return f"{self.name}n{node}"

    def link(self, node):
        return f"{self.name}v{node}"

    def address(self, node):
        return f"10.99.7.{node}"

    def cut(self, node):
        """From here on nothing comes from this node or to it, and nobody is told."""
        ip("link", "set", self.link(node), "down")

    def heal(self, node):
        ip("link", "set", self.link(node), "up")

    def close(self):
        for node in self.nodes:
            subprocess.run(["ip", "netns", "del", self.namespace(node)], check=False)
        subprocess.run(["ip", "link", "del", self.name], check=False)


def ip(*arguments):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def no_namespaces():
    """Why there can be no network namespaces here, or None."""
    done = subprocess.run(["ip", "netns", "add", "chrprobe"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return done.stderr.strip() or "ip netns"
    subprocess.run(["ip", "netns", "del", "chrprobe"], check=False)
    return None


class Cluster:
    """Use as a context manager; `nodes` by their numbers."""

    def __init__(self, numbers=(1, 2, 3), disk="threads", data_dirs=None, namespaces=False, environment=None):
        self.numbers = list(numbers)
        self.disk = disk
        self.data_dirs = data_dirs or {}
        self.environment = environment or {}
        self.net = Namespaces(self.numbers) if namespaces else None
        if self.net:
            self.listeners = {n: [f"{self.net.address(n)}:{port}" for port in (9092, 9094, 9093)] for n in self.numbers}
        else:
            ports = free_ports(3 * len(self.numbers))
            self.listeners = {n: [f"127.0.0.1:{ports.pop()}" for _ in range(3)] for n in self.numbers}
        self.nodes = {}

    def environment_of(self, node):
        peers = ",".join(f"{n}@{self.listeners[n][2]}" for n in self.numbers)
        return {
            "CHRONIK_NODE_ID": str(node), "CHRONIK_CLUSTER_PEERS": peers, "CHRONIK_CLUSTER_SECRET": SECRET,
            "CHRONIK_RACK": f"rack-{node}", **self.environment,
        }

    def _start(self, node):
        wrapper = ["ip", "netns", "exec", self.net.namespace(node)] if self.net else []
        # `ip netns exec` becomes the broker: there is no process above it.
        broker = Chronik(
            disk=self.disk, data_dir=self.data_dirs.get(node), arguments=[], environment=self.environment_of(node),
            listeners=self.listeners[node], prefix=wrapper,
        )
        return node, broker

    def start(self, nodes=None):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for node, broker in pool.map(self._start, nodes or self.numbers):
                self.nodes[node] = broker

    @property
    def bootstrap(self):
        return ",".join(self.listeners[n][0] for n in self.numbers)

    def healthy(self, timeout_s=60):
        """Waits until all nodes that run say that they are ready."""
        for broker in self.nodes.values():
            if broker.alive():
                wait_until(lambda broker=broker: ready(broker), timeout_s, f"{broker.admin} ready")

    def panics(self):
        return [line for broker in self.nodes.values() for line in broker.panics()]

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *failure):
        for number, broker in self.nodes.items():
            if failure[0] is not None and broker.stderr():
                print(f"--- stderr of node {number} ends ({broker.stderr_path}):\n{broker.stderr()[-3000:]}", flush=True)
        self.close()

    def close(self):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(lambda broker: broker.__exit__(None, None, None), self.nodes.values()))
        if self.net:
            self.net.close()


def ready(broker):
    try:
        broker.get("/health/ready", timeout_s=2)
    except OSError:
        return False
    return True


def until_resumed(last, since, timeout_s):
    """Waits until `last()`, the time of the latest success, is after `since`; how long after, in seconds."""
    wait_until(lambda: last() > since, timeout_s, "a success")
    return last() - since


def now():
    return time.monotonic()
