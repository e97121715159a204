#!/usr/bin/env python3
"""Three nodes and real clients: a node is killed, its disk freezes, it is cut off, again and again. Nothing acknowledged is lost or
doubled, and every client's writes resume in time.

    tests/failover.py [--kinds kill,freeze,cut] [--rounds 20] [--short | --full] [--disk threads]

librdkafka producers with acks=all and idempotence, one for each partition, send a record every few milliseconds, and some groups
commit all the time; no commit that was acknowledged is lost. A client has
resumed when a record that it sent after the fault is acknowledged; told is the slowest of all clients, in each round. `freeze`
freezes the ext4 below one node's data directory (`fsfreeze`; root), `cut` takes its network namespace's link down (root). Ends
with `N passed, N failed`.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
VENV = HERE.parent / "target" / "clients" / "venv" / "bin" / "python"
try:
    import confluent_kafka
    import confluent_kafka.admin
except ImportError:
    # The venv that `clients/run` makes has the library; this script then starts anew inside it.
    if os.environ.get("FAILOVER_IN_VENV"):
        raise
    subprocess.run([str(HERE / "clients" / "run"), "--setup-only", "confluent"], check=True)
    os.execve(VENV, [str(VENV), *sys.argv], {**os.environ, "FAILOVER_IN_VENV": "1"})

import private_disk  # noqa: E402
from chronik_cluster import Cluster, no_namespaces  # noqa: E402
from chronik_process import scratch, wait_until  # noqa: E402

TOPIC = "failover"
PARTITIONS = 9
REQUEST_TIMEOUT_MS = 2000
# By kind: within how many seconds the slowest client has to have resumed, in most rounds. A request that was on its way to a node
# that is silent is given up after the clients' own time-out. (librdkafka that asked who leads in the very moment in which the
# leader's process ended, before any node knew, asks again after one to two seconds.)
RESUMED_WITHIN_S = {"kill": 1.5, "freeze": 3.0, "cut": REQUEST_TIMEOUT_MS / 1000 + 3.0}
# In any round, also on a machine that has other things to do.
RESUMED_AT_ALL_S = 12.0
# No answer of any request may be outstanding for longer.
STUCK_S = 30.0
# Groups whose progress is committed all the time, beside the producers; within this beyond the clients' time-out they go on.
GROUPS = 4
GROUPS_RESUMED_AFTER_S = 3.0
FROZEN_S = 8.0
CUT_S = 8.0
results = []


def report(name, passed, detail):
    results.append(passed)
    print(f"{'pass' if passed else 'FAIL'}  {name}: {detail}", flush=True)


class Client:
    """A producer for one partition, and when its records were sent and acknowledged."""

    def __init__(self, bootstrap, partition):
        self.partition = partition
        self.sent_at = []
        self.acknowledged = []  # (sequence, offset)
        self.last_acknowledged_sent_at = 0.0
        self.failures = collections.Counter()
        self.left = 0
        self.over = threading.Event()
        self.client = confluent_kafka.Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 0, "log_level": 2,
            "request.timeout.ms": REQUEST_TIMEOUT_MS, "socket.timeout.ms": REQUEST_TIMEOUT_MS,
            "socket.connection.setup.timeout.ms": 1000, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100,
            "retry.backoff.ms": 20, "retry.backoff.max.ms": 100, "topic.metadata.refresh.interval.ms": 10000,
            "topic.metadata.refresh.fast.interval.ms": 50, "message.timeout.ms": 120000,
        })
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def delivered(self, error, message):
        if error is not None:
            self.failures[str(error)] += 1
            return
        sequence = int(message.value().split(b"-")[1])
        self.acknowledged.append((sequence, message.offset()))
        self.last_acknowledged_sent_at = max(self.last_acknowledged_sent_at, self.sent_at[sequence])

    def run(self):
        while not self.over.is_set():
            sequence = len(self.sent_at)
            self.sent_at.append(time.monotonic())
            try:
                value = b"%d-%09d" % (self.partition, sequence)
                self.client.produce(TOPIC, value=value, partition=self.partition, on_delivery=self.delivered)
            except BufferError:
                self.sent_at.pop()
            except confluent_kafka.KafkaException as fatal:
                self.failures[str(fatal)] += 1
                return
            self.client.poll(0.005)
        self.left = self.client.flush(60)

    def stop(self):
        self.over.set()
        self.thread.join()


def resumed(clients, since):
    """How long after `since` the slowest client had an acknowledgement of something that it sent after it: of producers, of groups."""
    until = since + STUCK_S
    waiting, slowest = set(clients), {Client: 0.0, Committer: 0.0}
    while waiting:
        for client in list(waiting):
            if client.last_acknowledged_sent_at > since:
                waiting.discard(client)
                slowest[type(client)] = max(slowest[type(client)], time.monotonic() - since)
        if time.monotonic() > until:
            stuck = sorted(str(client.partition) for client in waiting)
            raise AssertionError(f"nothing is acknowledged to {stuck} in {STUCK_S:.0f} s")
        time.sleep(0.005)
    return slowest[Client], slowest[Committer]


class Committer:
    """A consumer that says how far its group is, again and again, and when that was asked and acknowledged."""

    def __init__(self, bootstrap, number):
        self.group = f"failover-{number}"
        self.partition = self.group
        self.committed = -1
        self.last_acknowledged_sent_at = 0.0
        self.failures = collections.Counter()
        self.over = threading.Event()
        self.client = confluent_kafka.Consumer({
            "bootstrap.servers": bootstrap, "group.id": self.group, "enable.auto.commit": False, "log_level": 2,
            "socket.timeout.ms": REQUEST_TIMEOUT_MS, "socket.connection.setup.timeout.ms": 1000, "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100, "retry.backoff.ms": 20, "retry.backoff.max.ms": 100,
            "coordinator.query.interval.ms": 1000,
        })
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        offset = 0
        while not self.over.is_set():
            sent = time.monotonic()
            try:
                self.client.commit(offsets=[confluent_kafka.TopicPartition(TOPIC, 0, offset)], asynchronous=False)
            except confluent_kafka.KafkaException as refused:
                # It is not known, or was not taken: whoever consumes commits what comes next.
                self.failures[str(refused)] += 1
                time.sleep(0.02)
            else:
                self.committed, self.last_acknowledged_sent_at = offset, sent
                time.sleep(0.005)
            offset += 1

    def stop(self):
        self.over.set()
        self.thread.join()

    def where_it_is(self):
        until = time.monotonic() + 60
        while True:
            try:
                return self.client.committed([confluent_kafka.TopicPartition(TOPIC, 0)], timeout=10)[0].offset
            except confluent_kafka.KafkaException:
                if time.monotonic() > until:
                    raise


class Metadata:
    def __init__(self, bootstrap):
        self.admin = confluent_kafka.admin.AdminClient({
            "bootstrap.servers": bootstrap, "log_level": 2, "socket.timeout.ms": 2000,
            "socket.connection.setup.timeout.ms": 1000,
        })

    def partitions(self):
        try:
            return self.admin.list_topics(TOPIC, timeout=3).topics[TOPIC].partitions.values()
        except (confluent_kafka.KafkaException, KeyError):
            return []

    def leaders(self):
        return collections.Counter(partition.leader for partition in self.partitions())

    def spread(self):
        """Leaders go back to the first of their replicas, so that each round finds some on each node."""
        with contextlib.suppress(confluent_kafka.KafkaException):
            self.admin.elect_leaders(confluent_kafka.ElectionType.PREFERRED, None).result(6)

    def all_in_sync(self, replicas):
        partitions = list(self.partitions())
        return bool(partitions) and all(len(partition.isrs) == replicas for partition in partitions)


@contextlib.contextmanager
def cluster_for(kind, disk):
    with contextlib.ExitStack() as stack:
        disks = {}
        if kind == "freeze":
            disks = {n: stack.enter_context(private_disk.PrivateDisk(size_mib=1024)) for n in (1, 2, 3)}
        data_dirs = {n: one.path / "data" for n, one in disks.items()}
        cluster = stack.enter_context(Cluster(disk=disk, data_dirs=data_dirs, namespaces=kind == "cut"))
        yield cluster, disks


def break_and_heal(kind, cluster, disks, victim, clients):
    """One round: how long the slowest client was without service, and the slowest group."""
    broker = cluster.nodes[victim]
    began = time.monotonic()
    if kind == "kill":
        broker.kill9()
        slowest = resumed(clients, began)
        broker.start()
    elif kind == "freeze":
        disks[victim].freeze()
        began = time.monotonic()
        try:
            slowest = resumed(clients, began)
            time.sleep(max(0.0, FROZEN_S - (time.monotonic() - began)))
        finally:
            disks[victim].thaw()
    else:
        cluster.net.cut(victim)
        try:
            slowest = resumed(clients, began)
            time.sleep(max(0.0, CUT_S - (time.monotonic() - began)))
        finally:
            cluster.net.heal(victim)
    return slowest


def dump(cluster):
    """What the nodes said and what they wait for, beside the data of this test: it stays."""
    kept = scratch("failed")
    for number, broker in cluster.nodes.items():
        (kept / f"node-{number}.log").write_text(broker.stderr())
        with contextlib.suppress(OSError):
            (kept / f"node-{number}.stalls.json").write_text(broker.get("/debug/stalls"))
        last = "\n".join(broker.stderr().splitlines()[-10:])
        print(f"--- what node {number} said last:\n{last}", flush=True)
    print(f"--- all they said, and /debug/stalls of each: {kept}", flush=True)


def check(kind, rounds, disk, timed):
    with cluster_for(kind, disk) as (cluster, disks):
        metadata = Metadata(cluster.bootstrap)
        new = confluent_kafka.admin.NewTopic(TOPIC, PARTITIONS, replication_factor=3)
        for future in metadata.admin.create_topics([new]).values():
            future.result(30)
        clients = [Client(cluster.bootstrap, partition) for partition in range(PARTITIONS)]
        clients += [Committer(cluster.bootstrap, number) for number in range(GROUPS)]
        times, groups, led = [], [], collections.Counter()
        try:
            for turn in range(rounds):
                resumed(clients, time.monotonic())
                wait_until(lambda: metadata.all_in_sync(3), 90, "all replicas in sync again", every_s=0.2)
                metadata.spread()
                leaders = metadata.leaders()
                # In turn, and so the controller's too.
                victim = 1 + turn % 3
                led["leads" if leaders[victim] else "follows only"] += 1
                of_clients, of_groups = break_and_heal(kind, cluster, disks, victim, clients)
                times.append(of_clients)
                groups.append(of_groups)
                told = f"{of_clients:.2f} s, groups {of_groups:.2f} s"
                print(f"      {kind} {turn + 1}: node {victim}, which led {leaders[victim]}: {told}", flush=True)
        except AssertionError as stuck:
            report(f"{kind}: service", False, stuck)
            dump(cluster)
        finally:
            for client in clients:
                client.stop()
        if times:
            figures = f"slowest client of each: median {statistics.median(times):.2f} s, worst {max(times):.2f} s ({dict(led)})"
            report(f"{kind}: {rounds} rounds", len(times) == rounds and max(times) < RESUMED_AT_ALL_S, figures)
            told = f"slowest group of each: median {statistics.median(groups):.2f} s, worst {max(groups):.2f} s"
            report(f"{kind}: {rounds} rounds of commits", max(groups) < RESUMED_AT_ALL_S, told)
            if timed:
                bound = RESUMED_WITHIN_S[kind]
                report(f"{kind}: most resumed within {bound} s", statistics.median(times) < bound, figures)
                within = REQUEST_TIMEOUT_MS / 1000 + GROUPS_RESUMED_AFTER_S
                report(f"{kind}: most groups resumed within {within} s", statistics.median(groups) < within, told)
        judge(kind, cluster, clients)


def judge(kind, cluster, clients):
    committers = [client for client in clients if isinstance(client, Committer)]
    clients = [client for client in clients if isinstance(client, Client)]
    behind = [(one.group, one.where_it_is(), one.committed) for one in committers]
    behind = [one for one in behind if one[1] < one[2]]
    report(f"{kind}: commits are kept", not behind, behind or {one.group: one.committed for one in committers})
    stored = read_all(cluster.bootstrap)
    for name, found in verdict(clients, stored).items():
        report(f"{kind}: {name}", not found, found[:5] or "none")
    acknowledged = sum(len(client.acknowledged) for client in clients)
    failures = sum((client.failures for client in clients), collections.Counter())
    report(f"{kind}: no client failed", not failures and not any(client.left for client in clients),
           f"{acknowledged} acknowledged, failures {dict(failures)}")
    report(f"{kind}: no panic", not cluster.panics(), f"{cluster.panics()[:3]}")


def verdict(clients, stored):
    lost, doubled, moved = [], [], []
    for client in clients:
        values = stored[client.partition]
        times = collections.Counter(values.values())
        for sequence, offset in client.acknowledged:
            value = b"%d-%09d" % (client.partition, sequence)
            if value not in times:
                lost.append(value)
            elif offset is not None and offset >= 0 and values.get(offset) != value:
                moved.append((offset, value))
        doubled += [value for value, count in times.items() if count > 1]
    return {"lost": lost, "doubled": doubled, "not where it was acknowledged": moved}


def read_all(bootstrap):
    """By partition: {offset: value}."""
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": True,
        "log_level": 2,
    })
    consumer.assign([confluent_kafka.TopicPartition(TOPIC, p, 0) for p in range(PARTITIONS)])
    stored, ended = {p: {} for p in range(PARTITIONS)}, set()
    until = time.monotonic() + 120
    while len(ended) < PARTITIONS and time.monotonic() < until:
        for message in consumer.consume(1000, timeout=0.2):
            error = message.error()
            if error is None:
                stored[message.partition()][message.offset()] = message.value()
            elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                ended.add(message.partition())
    consumer.close()
    assert len(ended) == PARTITIONS, "not all partitions were read to the end in 120 s"
    return stored


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="kill,freeze,cut")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--short", action="store_true", help="three rounds of each, and no judgement of times: the default")
    parser.add_argument("--full", action="store_true", help="all rounds, and how long they take is judged")
    parser.add_argument("--disk", default="threads")
    options = parser.parse_args()
    missing = {"freeze": private_disk.unavailable, "cut": no_namespaces}
    for kind in options.kinds.split(","):
        why = missing.get(kind, lambda: None)()
        if why:
            print(f"skipped: {kind}: {why}", flush=True)
            continue
        check(kind, options.rounds if options.full else 3, options.disk, options.full)
    passed = sum(results)
    print(f"{passed} passed, {len(results) - passed} failed")
    sys.exit(0 if passed == len(results) and results else 1)


if __name__ == "__main__":
    main()
