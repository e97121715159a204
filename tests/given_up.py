#!/usr/bin/env python3
"""A process whose disk stands still for long ends, where others lead all that it led, and stays where it alone has something.

    tests/given_up.py [--short | --full] [--disk threads]

Three nodes, one of them on ext4 on a loop device that is frozen (`fsfreeze`; root) while clients are connected to it, and
`stall.exit_after` is short. It hands over, closes its listeners and connections (its process cannot be gone before the kernel lets go
of its disk), and has ended with status 6 once the disk is thawed. Started again it is in sync again. Then it alone has a partition,
and the same freeze leaves it where it is. --full: five rounds of both. Ends with `N passed, N failed`.
"""

import socket
import sys
import time

import private_disk
from chronik_cluster import Cluster, ready
from chronik_process import wait_until
from kafka_wire import PRODUCE, Connection, batch, produce_body, request
from verdicts import Verdicts, arguments

EXIT_AFTER_S = 3
# What noticing, handing over and looking again may take on top, on a busy machine.
GRACE_S = 12
STATUS = 6
FROZEN, WELL = 2, (1, 3)
PARTITIONS = 3
verdicts = Verdicts()


def leaders(cluster, asked, topic):
    with Connection(cluster.listeners[asked][0], timeout_s=5) as connection:
        return {index: leader for index, (_, leader) in connection.metadata([topic])[topic][1].items()}


def written(cluster, topic, value, asked=WELL[0]):
    """Whether every partition takes a record now, acks=all."""
    try:
        for partition, leader in leaders(cluster, asked, topic).items():
            with Connection(cluster.listeners[leader][0], timeout_s=5) as connection:
                code, _ = connection.produce(topic, partition, batch([value]), timeout_ms=3_000)
            if code:
                return False
    except (OSError, KeyError):
        return False
    return True


def writer(broker):
    """Sends a record that its disk does not take: what nobody writes to is not seen to stand still."""
    connection = Connection(broker.listen, timeout_s=EXIT_AFTER_S + GRACE_S)
    connection.send(request(PRODUCE, 7, 1, produce_body("shared", 0, batch([b"on its way"]))))
    return connection


def listens(address):
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def in_sync(cluster):
    shown = [broker.get("/metrics") for broker in cluster.nodes.values()]
    return all("chronik_replication_under_replicated_partitions 0\n" in one for one in shown)


def gives_up(cluster, disk, turn):
    broker = cluster.nodes[FROZEN]
    value = b"beside a frozen disk, %d" % turn
    with verdicts.case(f"round {turn + 1}: ends, and is back") as note:
        wait_until(lambda: in_sync(cluster), 60, "all replicas in sync")
        client = Connection(broker.listen, timeout_s=EXIT_AFTER_S + GRACE_S)
        client.api_versions()
        began = time.monotonic()
        disk.freeze()
        writing = writer(broker)
        try:
            wait_until(lambda: FROZEN not in leaders(cluster, WELL[0], "shared").values(), 10, "a hand-over")
            assert written(cluster, "shared", value), "the others do not take writes"
            assert client.socket.recv(1) == b"", "a client that asked nothing is told something"
            closed = time.monotonic() - began
            assert closed > EXIT_AFTER_S, f"it ended after {closed:.1f} s"
            still = [address for address in cluster.listeners[FROZEN] if listens(address)]
            assert not still, f"{still} are still listened on"
            assert written(cluster, "shared", value), "the others do not take writes any more"
        finally:
            disk.thaw()
        writing.close()
        status = broker.process.wait(30)
        assert status == STATUS, f"exit status {status}"
        last = broker.stderr().strip().splitlines()[-1]
        assert "stall.exit_after" in last and "Check the disk" in last, f"it did not say why: {last}"
        broker.start()
        wait_until(lambda: ready(broker) and in_sync(cluster), 60, "it to be in sync again")
        note(f"connections closed {closed:.1f} s after the freeze, status {status}")


def stays(cluster, disk, turn):
    broker = cluster.nodes[FROZEN]
    with verdicts.case(f"round {turn + 1}: stays where it alone has a partition") as note:
        topic = f"alone-{turn}"
        with Connection(broker.listen) as connection:
            code, why = connection.create_topics([topic], replicas=[[FROZEN]])[topic]
            assert code == 0, f"{code} {why}"
        wait_until(lambda: in_sync(cluster) and written(cluster, topic, b"before"), 60, "all to be well")
        disk.freeze()
        writing = writer(broker)
        try:
            time.sleep(EXIT_AFTER_S + 5)
            assert broker.alive() and broker.get("/health/live"), "it ended, or does not answer"
            handed = leaders(cluster, WELL[0], "shared")
            assert FROZEN not in handed.values(), f"it leads what others could: {handed}"
        finally:
            disk.thaw()
        writing.close()
        wait_until(lambda: written(cluster, topic, b"after"), 30, "its own partition to take writes again")
        with Connection(broker.listen) as connection:
            values = [value for _, value in connection.read_values(topic, 0)]
            assert values[0] == b"before" and values[-1] == b"after", values
            connection.delete_topics([topic])
        note(f"{len(values)} records of the partition that it alone has")


def main():
    options = arguments(__doc__).parse_args()
    why = private_disk.unavailable()
    if why:
        print(f"skipped: {why}\n0 passed, 0 failed")
        sys.exit(0)
    environment = {"CHRONIK_STALL_EXIT_AFTER": f"{EXIT_AFTER_S}s"}
    with private_disk.PrivateDisk() as disk:
        data_dirs = {FROZEN: disk.path / "data"}
        with Cluster(disk=options.disk, data_dirs=data_dirs, environment=environment) as cluster:
            cluster.healthy()
            with Connection(cluster.listeners[FROZEN][0]) as connection:
                replicas = [[FROZEN, *WELL] for _ in range(PARTITIONS)]
                connection.create_topics(["shared"], replicas=replicas)
            for turn in range(5 if options.full else 1):
                gives_up(cluster, disk, turn)
                stays(cluster, disk, turn)
            verdicts.report("no panic", not cluster.panics(), cluster.panics())
    verdicts.finish()


if __name__ == "__main__":
    main()
