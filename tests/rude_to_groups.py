#!/usr/bin/env python3
"""Many groups, and clients that groups have to be kept from: against the real broker binary.

    tests/rude_to_groups.py [--disk threads,uring] [--groups 300] [--full]

1. Groups of ten members each, ten members a connection: all join, are told their assignments and send heartbeats; what these cost is
   printed. Members that share a connection do not wait for one another.
2. Requests that are wrong, one after the other: each gets Kafka's own error code, and the group that they name goes on.
3. An assignment that no record can hold is refused to who brings it; with one that fits the group goes on.
4. Clients that join and hang up, again and again; many groups that only commit. The broker answers others meanwhile, and what it takes
   in memory is bounded.
5. A group of 100 members, and commits at an even pace beside produces: what they wait is printed.
6. The broker is killed: all commits that were acknowledged are there.

--full: 1,000 groups with members, 100,000 that commit, and a coordinator whose log has a million commits. Exit status 1 if something does not hold.
"""

import argparse
import os
import queue
import socket
import struct
import sys
import threading
import time

from chronik_process import Chronik, disks
from kafka_wire import Connection, Reader, array, blob, request, string
from steady_producer import SteadyProducer

OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR, JOIN, HEARTBEAT, LEAVE, SYNC = 8, 9, 10, 11, 12, 13, 14
MEMBERS = 10
TOPIC = "read-by-groups"
HEARTBEAT_EVERY_S = 3
ROUNDS = 4
# Beside what the broker has anyway; a group that only commits takes a few hundred bytes.
MEMORY_MIB_MAX = 220


def check(holds, what):
    if not holds:
        raise AssertionError(what)


def join_body(group, member="", session_ms=30_000, rebalance_ms=60_000, kind="consumer", protocols=(("range", b"topics"),)):
    listed = array([string(name) + blob(metadata) for name, metadata in protocols])
    return string(group) + struct.pack(">ii", session_ms, rebalance_ms) + string(member) + string(kind) + listed


def joined(answer):
    code, generation = answer.number("h"), answer.number("i")
    protocol, leader, member = answer.string(), answer.string(), answer.string()
    members = answer.array(lambda: (answer.string(), answer.blob())[0])
    return code, generation, protocol, leader, member, members


def sync_body(group, generation, member, assignments=()):
    return string(group) + struct.pack(">i", generation) + string(member) + array([string(m) + blob(a) for m, a in assignments])


def heartbeat_body(group, generation, member):
    return string(group) + struct.pack(">i", generation) + string(member)


def commit_body(group, offset, generation=-1, member="", topic=TOPIC, metadata="", partition=0):
    one = struct.pack(">iq", partition, offset) + string(metadata)
    return string(group) + struct.pack(">i", generation) + string(member) + struct.pack(">q", -1) + array([string(topic) + array([one])])


def committed_code(answer):
    return answer.array(lambda: (answer.string(), answer.array(lambda: (answer.number("i"), answer.number("h"))[1]))[1])[0][0]


def fetched_offset(answer):
    return answer.array(
        lambda: (answer.string(), answer.array(lambda: (answer.number("i"), answer.number("q"), answer.string(), answer.number("h"))[1]))[1]
    )[0][0]


def readable(body):
    answer = Reader(body)
    answer.number("i")
    return answer


class Pipelined:
    """Several requests of one form at once, answers in their order."""

    def __init__(self, bootstrap):
        host, port = bootstrap.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = self.socket.makefile("rb")
        self.number = 0

    def frames(self, api, version, bodies):
        frames = []
        for body in bodies:
            self.number += 1
            frames.append(request(api, version, self.number, body))
        return b"".join(frames)

    def send(self, api, version, bodies):
        self.socket.sendall(self.frames(api, version, bodies))

    def take(self, count):
        return [readable(body) for body in self.take_raw(count)]

    def take_raw(self, count):
        return [self._bytes(struct.unpack(">i", self._bytes(4))[0]) for _ in range(count)]

    def _bytes(self, count):
        data = self.answers.read(count)
        check(len(data) == count, "the broker closed a connection")
        return data

    def close(self):
        self.answers.close()
        self.socket.close()


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def many_members(broker, groups):
    clients = [(f"many-{n}", Pipelined(broker.bootstrap)) for n in range(groups)]
    for name, client in clients:
        client.send(JOIN, 1, [join_body(name) for _ in range(MEMBERS)])
    began = time.monotonic()
    members = {}
    for name, client in clients:
        told = [joined(answer) for answer in client.take(MEMBERS)]
        check(all(code == 0 for code, *_ in told), f"{name}: joins were told {[code for code, *_ in told]}")
        check(len({generation for _, generation, *_ in told}) == 1, f"{name}: members are of several generations")
        check(len({member for *_, member, _ in told}) == MEMBERS, f"{name}: members share ids")
        members[name] = told
    print(f"  {groups} groups of {MEMBERS} have joined after {time.monotonic() - began:.1f} s")
    for name, client in clients:
        bodies = []
        for _, generation, _, leader, member, all_members in members[name]:
            assignments = [(m, m.encode()) for m in all_members] if member == leader else []
            bodies.append(sync_body(name, generation, member, assignments))
        client.send(SYNC, 0, bodies)
    for name, client in clients:
        for answer, (*_, member, _) in zip(client.take(MEMBERS), members[name]):
            check((answer.number("h"), answer.blob()) == (0, member.encode()), f"{name}: {member} was told another's assignment")
    used, began = cpu_s(broker.pid), time.monotonic()
    for turn in range(ROUNDS):
        for name, client in clients:
            client.send(HEARTBEAT, 0, [heartbeat_body(name, told[1], told[4]) for told in members[name]])
        for name, client in clients:
            codes = {answer.number("h") for answer in client.take(MEMBERS)}
            check(codes == {0}, f"{name}: heartbeats were told {codes}")
        time.sleep(max(0.0, began + (turn + 1) * HEARTBEAT_EVERY_S - time.monotonic()))
    share = (cpu_s(broker.pid) - used) / (time.monotonic() - began)
    print(f"  heartbeats of {groups * MEMBERS} members every {HEARTBEAT_EVERY_S} s take {100 * share:.1f} % of a core")
    for _, client in clients:
        client.close()


def wrong_requests(broker):
    with Connection(broker.bootstrap) as client:
        name = "careful"
        code, generation, _, leader, member, _ = joined(client.call(JOIN, 1, join_body(name)))
        check(code == 0 and leader == member, f"a first member was told {code}")
        check(client.call(SYNC, 0, sync_body(name, generation, member, [(member, b"all")])).number("h") == 0, "its sync was refused")
        long = "g" * 20_000

        def told(api, version, body, of=lambda answer: answer.number("h")):
            return of(client.call(api, version, body))

        cases = [
            ("a group without a name", 24, told(JOIN, 1, join_body(""))),
            ("a group with a name of 20,000 letters", 24, told(JOIN, 1, join_body(long))),
            ("a session of a millisecond", 26, told(JOIN, 1, join_body("other", session_ms=1))),
            ("a session of a day", 26, told(JOIN, 1, join_body("other", session_ms=86_400_000))),
            ("a negative session", 26, told(JOIN, 1, join_body("other", session_ms=-5))),
            ("no way of assigning", 23, told(JOIN, 1, join_body("other", protocols=()))),
            ("a member that nobody knows", 25, told(JOIN, 1, join_body(name, member="stranger"))),
            ("another kind of group", 23, told(JOIN, 1, join_body(name, kind="connect"))),
            ("a way of assigning that others do not know", 23, told(JOIN, 1, join_body(name, protocols=(("mine", b""),)))),
            ("a heartbeat of a stranger", 25, told(HEARTBEAT, 0, heartbeat_body(name, generation, "stranger"))),
            ("a heartbeat of yesterday", 22, told(HEARTBEAT, 0, heartbeat_body(name, generation - 1, member))),
            ("a heartbeat of a group that is not there", 25, told(HEARTBEAT, 0, heartbeat_body("absent", 1, member))),
            ("a sync of yesterday", 22, told(SYNC, 0, sync_body(name, generation - 1, member))),
            ("a stranger that leaves", 25, told(LEAVE, 0, string(name) + string("stranger"))),
            ("a commit of a stranger", 25, told(OFFSET_COMMIT, 2, commit_body(name, 5, generation, "stranger"), committed_code)),
            ("a commit of yesterday", 22, told(OFFSET_COMMIT, 2, commit_body(name, 5, generation - 1, member), committed_code)),
            ("a commit of nobody to a group with members", 25, told(OFFSET_COMMIT, 2, commit_body(name, 5), committed_code)),
            ("a commit to a topic that is not there", 3, told(OFFSET_COMMIT, 2, commit_body(name, 5, generation, member, topic="absent"), committed_code)),
            ("a commit to a partition that is not there", 3, told(OFFSET_COMMIT, 2, commit_body(name, 5, generation, member, partition=9), committed_code)),
            ("a commit with a long text", 12, told(OFFSET_COMMIT, 2, commit_body(name, 5, generation, member, metadata="m" * 5_000), committed_code)),
        ]
        for what, wanted, code in cases:
            check(code == wanted, f"{what} was told {code}, not {wanted}")
        check(told(HEARTBEAT, 0, heartbeat_body(name, generation, member)) == 0, "the group does not go on")
        check(told(OFFSET_COMMIT, 2, commit_body(name, 5, generation, member), committed_code) == 0, "the member's own commit was refused")
    print(f"  {len(cases)} wrong requests have Kafka's error codes")


def too_large_an_assignment(broker):
    with Connection(broker.bootstrap, timeout_s=60) as client:
        name = "large"
        code, generation, _, _, member, _ = joined(client.call(JOIN, 1, join_body(name)))
        check(code == 0, f"a first member was told {code}")
        code = client.call(SYNC, 0, sync_body(name, generation, member, [(member, bytes(3 << 20))])).number("h")
        check(code == -1, f"an assignment of 3 MiB was told {code}")
        with Connection(broker.bootstrap) as other:
            check(committed_code(other.call(OFFSET_COMMIT, 2, commit_body("beside", 1))) == 0, "others are refused beside it")
        code = client.call(SYNC, 0, sync_body(name, generation, member, [(member, bytes(400 << 10))])).number("h")
        check(code == 0, f"an assignment of 400 KiB was told {code}")
    print("  an assignment that no record can hold is refused, and the group goes on")


def a_large_group(broker, members):
    """Each member has a connection of its own."""
    name = "many-members"
    clients = [Pipelined(broker.bootstrap) for _ in range(members)]
    for client in clients:
        client.send(JOIN, 1, [join_body(name)])
    told = [joined(client.take(1)[0]) for client in clients]
    began = time.monotonic()
    check({code for code, *_ in told} == {0} and len({generation for _, generation, *_ in told}) == 1, "not all of a group have joined")
    for client, (_, generation, _, leader, member, everyone) in zip(clients, told):
        check(member != leader or len(everyone) == members, f"the leader was told of {len(everyone)} members")
        client.send(SYNC, 0, [sync_body(name, generation, member, [(m, m.encode()) for m in everyone])])
    for client, (*_, member, _) in zip(clients, told):
        answer = client.take(1)[0]
        check((answer.number("h"), answer.blob()) == (0, member.encode()), f"{member} was told another's assignment")
    print(f"  a group of {members}: {1000 * (time.monotonic() - began):.0f} ms from the last answer to a join to the last one to a sync")
    for client in clients:
        client.close()


def commits_beside_produces(broker, a_second, seconds):
    """So many commits of 100 groups on one connection, at an even pace, and one produce after the other on another."""
    every_s = 0.005
    at_once, turns = int(a_second * every_s), int(seconds / every_s)
    client = Pipelined(broker.bootstrap)
    # Made before and read after: meanwhile the client has little to do but to look at the clock.
    made = [client.frames(OFFSET_COMMIT, 2, [commit_body(f"paced-{n % 100}", turn) for n in range(at_once)]) for turn in range(turns)]
    came = []
    with Connection(broker.bootstrap) as connection:
        connection.create_topics(["beside-commits"], partitions=1)

    def answers():
        for _ in range(turns):
            came.append((client.take_raw(at_once), time.monotonic()))

    reader = threading.Thread(target=answers)
    with SteadyProducer(broker.bootstrap, "beside-commits", pause_s=0.001) as steady:
        time.sleep(1)
        reader.start()
        began, sent = time.monotonic(), []
        for turn, frames in enumerate(made):
            due = began + turn * every_s
            time.sleep(max(0.0, due - time.monotonic()))
            sent.append(due)
            client.socket.sendall(frames)
        reader.join()
        ended = time.monotonic()
        # One after the other tells of a time in which nothing goes on once, and of commits at an even pace each.
        produces = steady.between(began, ended).at_an_even_pace(every_s)
    client.close()
    check(len(came) == turns, "not all commits were answered")
    check(not produces.errors, f"produces were told {set(produces.errors)}")
    refused = {committed_code(answer) for answers, _ in came for answer in map(readable, answers)} - {0}
    check(not refused, f"commits were told {refused}")
    took = sorted(at - due for (_, at), due in zip(came, sent))
    commits = 1000 * took[int(len(took) * 0.99)]
    print(
        f"  {turns * at_once / (ended - began):.0f} commits/s beside produces: p99 {commits:.1f} ms of the last of {at_once} commits, "
        f"{produces.quantile_ms(0.99):.1f} ms of a produce at the same pace ({commits - produces.quantile_ms(0.99):+.1f} ms)"
    )


def who_hangs_up(broker):
    for nth in range(300):
        client = Pipelined(broker.bootstrap)
        client.send(JOIN, 1, [join_body(f"left-{nth % 7}", session_ms=6_000, rebalance_ms=6_000) for _ in range(1 + nth % 5)])
        client.close()
    with Connection(broker.bootstrap) as client:
        began = time.monotonic()
        check(committed_code(client.call(OFFSET_COMMIT, 2, commit_body("beside", 2))) == 0, "a commit was refused")
        check(time.monotonic() - began < 5, "a commit took long")
    print("  300 clients joined and hung up")


def many_commits(broker, groups):
    client = Pipelined(broker.bootstrap)
    began, before = time.monotonic(), broker.resident_mib()
    at_once = 500
    for first in range(0, groups, at_once):
        names = range(first, min(first + at_once, groups))
        client.send(OFFSET_COMMIT, 2, [commit_body(f"commits-{n}", n) for n in names])
        codes = {committed_code(answer) for answer in client.take(len(names))}
        check(codes == {0}, f"commits were told {codes}")
    took = time.monotonic() - began
    client.close()
    grown = broker.resident_mib() - before
    print(f"  {groups} groups have committed in {took:.1f} s ({groups / took:.0f}/s); {grown:.0f} MiB more")
    check(grown < MEMORY_MIB_MAX, f"{groups} groups take {grown} MiB")


def all_is_there(broker, groups):
    broker.kill9()
    began = time.monotonic()
    broker.start()
    with Connection(broker.bootstrap, timeout_s=60) as client:
        for n in [*range(0, groups, max(1, groups // 500)), groups - 1]:
            body = string(f"commits-{n}") + array([string(TOPIC) + array([struct.pack(">i", 0)])])
            until = time.monotonic() + 60
            while True:
                answer = client.call(OFFSET_FETCH, 1, body)
                place = fetched_offset(answer)
                answer.seek(-2, 2)
                code = answer.number("h")
                if code == 0 or time.monotonic() > until:
                    break
                time.sleep(0.1)
            check((code, place) == (0, n), f"commits-{n} is at {place} (error {code}) after the broker was killed")
    print(f"  all commits are there {time.monotonic() - began:.1f} s after the start that followed a kill")


def hashed(text):
    """Java's hash of a string, as Kafka takes it for a partition."""
    value = 0
    for letter in text:
        value = (value * 31 + ord(letter)) & 0xFFFFFFFF
    return value & 0x7FFFFFFF


def a_long_log(broker, commits):
    """Of 100 groups that one partition keeps, read back after a kill."""
    names = [name for name in (f"long-{n}" for n in range(100_000)) if hashed(name) % 50 == 7][:100]
    client, at_once = Pipelined(broker.bootstrap), 500
    began = time.monotonic()
    for first in range(0, commits, at_once):
        client.send(OFFSET_COMMIT, 2, [commit_body(names[n % len(names)], n) for n in range(first, first + at_once)])
        codes = {committed_code(answer) for answer in client.take(at_once)}
        check(codes == {0}, f"commits were told {codes}")
    client.close()
    print(f"  {commits} commits of {len(names)} groups: {commits / (time.monotonic() - began):.0f}/s on one connection")
    broker.kill9()
    broker.start()
    began = time.monotonic()
    with Connection(broker.bootstrap, timeout_s=60) as client:
        while True:
            answer = client.call(OFFSET_FETCH, 1, string(names[-1]) + array([string(TOPIC) + array([struct.pack(">i", 0)])]))
            place = fetched_offset(answer)
            answer.seek(-2, 2)
            if answer.number("h") == 0:
                break
            check(time.monotonic() < began + 30, "the groups are not loaded within 30 s")
            time.sleep(0.01)
    check(place == commits - 1, f"{names[-1]} is at {place}")
    print(f"  a coordinator with {commits} commits in its log answers {time.monotonic() - began:.2f} s after the broker is ready")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disk", default="threads")
    parser.add_argument("--groups", type=int, default=300)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    groups, committing = (1_000, 100_000) if options.full else (options.groups, 20_000)
    for disk in disks(options.disk):
        with Chronik(disk=disk) as broker:
            print(broker.ready_line)
            with Connection(broker.bootstrap) as client:
                client.create_topics([TOPIC], 1)
                answer = client.call(FIND_COORDINATOR, 0, string("any"))
                check(answer.number("h") == 0, "there is no coordinator")
            many_members(broker, groups)
            wrong_requests(broker)
            too_large_an_assignment(broker)
            who_hangs_up(broker)
            a_large_group(broker, 100)
            commits_beside_produces(broker, 10_000 if options.full else 2_000, 20 if options.full else 2)
            many_commits(broker, committing)
            all_is_there(broker, committing)
            if options.full:
                a_long_log(broker, 1_000_000)
            check(not broker.panics(), f"the broker panicked: {broker.panics()}")
    print("groups keep to themselves")
    return 0


try:
    sys.exit(main())
except AssertionError as why:
    print(f"FAILED: {why}")
    sys.exit(1)
