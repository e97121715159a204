#!/usr/bin/env python3
"""The command line for people, each command against one real node, and some where two of three are down: what it prints, what it changes, and how it ends.

    tests/cli.py

A member of each protocol stays in its group while it is looked at. Ends with `N passed, N failed`.
"""

import base64
import datetime
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import uuid

from chronik_cluster import Cluster
from chronik_process import STEERING, Chronik, binary, wait_until
from kafka_wire import Connection, Reader, array, blob, request, string
from verdicts import Verdicts, arguments

JOIN, HEARTBEAT, SYNC, CONSUMER_HEARTBEAT = 11, 12, 14, 68
verdicts = Verdicts()


class Cli:
    def __init__(self, broker):
        self.bootstrap = broker.bootstrap
        environment = {key: value for key, value in os.environ.items() if key not in STEERING}
        self.environment = {**environment, "CHRONIK_BOOTSTRAP": self.bootstrap}

    def run(self, *words, stdin=b"", status=0, timeout_s=40):
        """(stdout, stderr) of a command that has to end with this status."""
        done = subprocess.run(
            [binary(), *words], input=stdin, capture_output=True, env=self.environment, timeout=timeout_s, check=False
        )
        out, err = done.stdout, done.stderr.decode()
        assert done.returncode == status, f"`chronik {' '.join(words)}` ended with {done.returncode}, not {status}: {out.decode(errors='replace')} {err}"
        assert "panicked" not in err, err
        return out, err

    def text(self, *words, **more):
        return self.run(*words, **more)[0].decode()

    def json(self, *words, **more):
        return json.loads(self.text(*words, "--json", **more))

    def lines(self, *words, **more):
        return [json.loads(line) for line in self.text(*words, "--json", **more).splitlines()]

    def error(self, *words, status=1, **more):
        return self.run(*words, status=status, **more)[1]


class Started:
    """A command that runs beside what is done here."""

    def __init__(self, cli, *words):
        self.process = subprocess.Popen(
            [binary(), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.environment
        )

    def write(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end(self):
        """Ends its input; (status, stdout, stderr)."""
        out, err = self.process.communicate(timeout=40)
        return self.process.returncode, out.decode(), err.decode()


def columns(text):
    """Rows of a table as {header: cell}; every cell has to begin or end where its header does."""
    header, *rows = text.splitlines()
    starts = [(found.start(), found.group()) for found in re.finditer(r"\S+", header)]
    told = []
    for row in rows:
        cells = list(re.finditer(r"\S+(?: \S+)*", row))
        assert len(cells) == len(starts), f"{len(cells)} cells below {len(starts)} headers: {text}"
        for cell, (start, name) in zip(cells, starts):
            assert cell.start() == start or cell.end() == start + len(name), text
        told.append({name: cell.group() for (_, name), cell in zip(starts, cells)})
    return told


class ClassicMember:
    """Of the classic protocol; leads its group and gives itself partitions."""

    def __init__(self, bootstrap, group, topic, partitions):
        self.connection = Connection(bootstrap)
        call = self.connection.call
        protocols = array([string("range") + blob(b"\0\0" + array([string(topic)]) + blob(b""))])
        body = string(group) + struct.pack(">ii", 30_000, 10_000) + string("") + string("consumer") + protocols
        answer = call(JOIN, 1, body)
        code, generation = answer.number("h"), answer.number("i")
        assert code == 0, code
        answer.string(), answer.string()
        self.member = answer.string()
        assignment = b"\0\0" + array([string(topic) + array([struct.pack(">i", one) for one in partitions])]) + blob(b"")
        body = string(group) + struct.pack(">i", generation) + string(self.member) + array([string(self.member) + blob(assignment)])
        assert call(SYNC, 0, body).number("h") == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.__exit__(*_)


def compact(text):
    return b"\0" if text is None else bytes([len(text) + 1]) + text.encode()


def consumer_heartbeat(bootstrap, group, member, epoch, topic):
    """Of KIP-848, version 1; its code and the member's epoch. The frame is flexible, and written here by hand."""
    body = compact(group) + compact(member) + struct.pack(">i", epoch) + compact(None) + compact(None) + struct.pack(">i", 10_000)
    body += b"\x02" + compact(topic) + compact(None) + compact(None) + (b"\x01" if epoch == 0 else b"\0") + b"\0"
    host, port = bootstrap.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        # An empty set of tags ends a header of the second form.
        wire.sendall(request(CONSUMER_HEARTBEAT, 1, 1, b"\0" + body))
        size = struct.unpack(">i", wire.recv(4, socket.MSG_WAITALL))[0]
        answer = wire.recv(size, socket.MSG_WAITALL)
    code = struct.unpack(">h", answer[9:11])[0]
    rest = answer[11:]
    rest = rest[max(rest[0], 1):]
    rest = rest[max(rest[0], 1):]
    return code, struct.unpack(">i", rest[:4])[0]


def topics(cli):
    assert cli.text("topics", "list") == ""
    said = cli.text("topics", "create", "orders", "--partitions", "3", "--config", "retention.ms=86400000")
    assert said == "created orders\n", said
    again = cli.error("topics", "create", "orders", "another", "--partitions", "1")
    assert "create topic orders: TOPIC_ALREADY_EXISTS" in again and "node 1 (" in again, again
    assert cli.text("topics", "create", "orders", "--if-not-exists") == ""
    rows = columns(cli.text("topics", "list"))
    assert [(row["TOPIC"], row["PARTITIONS"]) for row in rows] == [("another", "1"), ("orders", "3")], rows
    long = "a-topic-with-a-name-" + "x" * 100
    cli.text("topics", "create", long, "--partitions", "1")
    rows = columns(cli.text("topics", "list"))
    assert {row["TOPIC"] for row in rows} == {"orders", "another", long}, rows
    cli.text("topics", "delete", long, "another")
    missing = cli.error("topics", "delete", "absent")
    assert "UNKNOWN_TOPIC_OR_PARTITION" in missing and "topics list" in missing, missing
    assert cli.text("topics", "delete", "absent", "--if-exists") == ""
    described = cli.json("topics", "describe", "orders")[0]
    assert [one["leader"] for one in described["partitions"]] == [1, 1, 1], described
    assert list(described["configs"]) == ["retention.ms"], described["configs"]
    assert described["configs"]["retention.ms"]["value"] == "86400000", described
    text = cli.text("topics", "describe", "orders")
    assert "DYNAMIC_TOPIC_CONFIG" in text and described["id"] in text, text
    assert cli.text("topics", "add-partitions", "orders", "--partitions", "4") == "topic orders has 4 partitions\n"
    assert "INVALID_PARTITIONS" in cli.error("topics", "add-partitions", "orders", "--partitions", "2")
    assert cli.json("topics", "list")[0]["partitions"] == 4


def produce(cli):
    said = cli.text("produce", "orders", "--partition", "0", stdin=b"one\ntwo\nthree\n")
    assert said == "3 records written to topic orders\n", said
    told = cli.lines("produce", "orders", "--partition", "0", stdin=b"four\nfive")
    assert [(row["line"], row["partition"], row["offset"]) for row in told] == [(1, 0, 3), (2, 0, 4)], told
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        lines = b"".join(b"%s again and again %d\n" % (codec.encode(), n) for n in range(200))
        cli.text("produce", "orders", "--partition", "1", "--compression", codec, stdin=lines)
    read = cli.text("consume", "orders", "--partition", "1").splitlines()
    assert len(read) == 1000 and read[0] == "none again and again 0" and read[-1] == "zstd again and again 199", read[-3:]
    keyed = cli.lines("produce", "orders", "--key-separator", ":", stdin=b"".join(b"k%d:v%d\n" % (n % 5, n) for n in range(50)))
    by_key = {}
    for row in keyed:
        by_key.setdefault((row["line"] - 1) % 5, set()).add(row["partition"])
    assert all(len(partitions) == 1 for partitions in by_key.values()) and len(keyed) == 50, by_key
    wrong = cli.error("produce", "orders", "--key-separator", ":", stdin=b"k:v\nnothing\n")
    assert "line 2" in wrong and "1 records had been written" in wrong, wrong
    cli.text("produce", "orders", "--partition", "2", "--acks", "0", stdin=b"unanswered\n")
    cli.text("produce", "orders", "--partition", "2", "--acks", "1", stdin=b"answered\n")
    absent = cli.error("produce", "absent", stdin=b"a\n")
    assert "UNKNOWN_TOPIC_OR_PARTITION" in absent, absent
    assert "has no partition 9" in cli.error("produce", "orders", "--partition", "9", status=2, stdin=b"a\n")
    too_large = cli.error("produce", "orders", "--partition", "0", stdin=b"x" * (2 << 20))
    assert "MESSAGE_TOO_LARGE" in too_large and "line 1" in too_large, too_large


def written(cli, topic):
    return sum(one["latest"] for one in cli.json("topics", "offsets", topic))


def produce_pieces(cli):
    """Lines that come piece by piece are written as they become whole, and a signal ends only what is not."""
    cli.text("topics", "create", "lines", "--partitions", "2")
    producing = Started(cli, "produce", "lines")
    producing.write(b"a\nb\nc")
    wait_until(lambda: written(cli, "lines") == 2, 4, "whole lines are written beside one that has begun")
    producing.write(b"d\n")
    assert producing.end() == (0, "3 records written to topic lines\n", "")
    for number in [signal.SIGINT, signal.SIGTERM]:
        before = written(cli, "lines")
        producing = Started(cli, "produce", "lines")
        producing.write(b"e\nf\ng")
        wait_until(lambda: written(cli, "lines") == before + 2, 4, "whole lines are written")
        producing.process.send_signal(number)
        # Standard input stays open: the signal alone ends it.
        status, out, err = producing.process.wait(10), producing.process.stdout.read(), producing.process.stderr.read().decode()
        assert (status, out) == (1, b""), (status, out, err)
        assert "2 records had been written" in err and f"{number.name} came" in err and "line 3 had begun" in err, err
    before = written(cli, "lines")
    producing = Started(cli, "produce", "lines")
    feeding = threading.Thread(target=feed, args=(producing.process.stdin,))
    feeding.start()
    wait_until(lambda: written(cli, "lines") > before, 10, "something is written")
    producing.process.send_signal(signal.SIGTERM)
    err = producing.process.stderr.read().decode()
    assert producing.process.wait(10) == 1, err
    feeding.join()
    said = int(re.search(r"(\d+) records had been written", err)[1])
    assert said == written(cli, "lines") - before, f"{said} were said to be written: {err}"


def feed(pipe):
    try:
        while True:
            pipe.write(b"x" * 99 + b"\n")
    except BrokenPipeError:
        pass


def consume(cli, now):
    cli.text("topics", "create", "read", "--partitions", "1")
    cli.text("produce", "read", "--key-separator", ":", stdin=b"k:first\n\xff:\xfe\x00\nlast:\xc3\xbc\n")
    assert cli.run("consume", "read")[0] == b"first\n\xfe\x00\n\xc3\xbc\n"
    assert cli.run("consume", "read", "--with-key", "--max-records", "1")[0] == b"k\tfirst\n"
    told = cli.lines("consume", "read")
    assert (told[0]["key"], told[0]["value"], told[0]["offset"], told[0]["partition"]) == ("k", "first", 0, 0), told[0]
    assert abs(told[0]["timestamp"] - now * 1000) < 120_000, told[0]
    assert base64.b64decode(told[1]["key_base64"]) == b"\xff" and base64.b64decode(told[1]["value_base64"]) == b"\xfe\0", told[1]
    assert told[2]["value"] == "ü", told[2]
    assert [row["offset"] for row in cli.lines("consume", "read", "--from", "1")] == [1, 2]
    assert cli.text("consume", "read", "--from", "latest") == ""
    beyond = cli.error("consume", "read", "--from", "17")
    assert "offsets 0 to 3, not 17" in beyond, beyond
    assert len(cli.lines("consume", "read", "--from", "2020-01-01")) == 3
    assert cli.text("consume", "read", "--from", "2099-01-01") == ""
    # What comes while it waits is read as well, and silence ends it.
    late = threading.Timer(1, lambda: cli.text("produce", "read", stdin=b"late\n"))
    late.start()
    assert cli.text("consume", "read", "--from", "latest", "--follow", "--timeout", "3s") == "late\n"
    late.join()
    cli.text("consume", "read", "--from", "latest", "--follow", "--max-records", "0")
    # Partitions that are added while it reads are read from their start.
    following = Started(cli, "consume", "read", "--from", "latest", "--follow", "--max-records", "3", "--json", "--timeout", "20s")
    only = Started(cli, "consume", "read", "--partition", "0", "--from", "latest", "--follow", "--timeout", "8s", "--json")
    time.sleep(1)
    cli.text("topics", "add-partitions", "read", "--partitions", "2")
    cli.text("produce", "read", "--partition", "1", stdin=b"new 1\nnew 2\n")
    cli.text("produce", "read", "--partition", "0", stdin=b"old\n")
    status, out, err = following.end()
    told = sorted((one["partition"], one["offset"], one["value"]) for one in map(json.loads, out.splitlines()))
    assert (status, [(one, value) for one, _, value in told]) == (0, [(0, "old"), (1, "new 1"), (1, "new 2")]), (status, out, err)
    assert told[1][1] == 0 and "partition read-1 was added" in err, (told, err)
    status, out, err = only.end()
    assert (status, [json.loads(line)["value"] for line in out.splitlines()], err) == (0, ["old"], ""), (status, out, err)


def pipes(cli):
    lines = b"".join(b"a line to fill a pipe with %d\n" % n for n in range(20_000))
    cli.text("produce", "orders", "--partition", "3", stdin=lines)
    for command in ["consume orders", "consume orders --json", "keys --markdown", "completions bash"]:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f'"{binary()}" {command} | head -n 1'], capture_output=True, env=cli.environment, check=False, timeout=40
        )
        assert done.returncode == 0 and done.stderr == b"", f"{command}: {done.returncode} {done.stderr.decode()}"
        assert done.stdout.count(b"\n") == 1, done.stdout


    # What a command does goes on without who reads of it, and its status is of what it did.
    before = written(cli, "lines")
    producing = Started(cli, "produce", "lines", "--json")
    producing.write(b"first\n")
    assert json.loads(producing.process.stdout.readline())["line"] == 1
    producing.process.stdout.close()
    producing.process.stdin.write(lines)
    producing.process.stdin.close()
    assert (producing.process.wait(40), producing.process.stderr.read()) == (0, b"")
    assert written(cli, "lines") == before + 20_001, written(cli, "lines")
    reading, writing = os.pipe()
    os.close(reading)
    for status, topic, words in [(0, "unheard", []), (1, "unheard", ["--json"])]:
        done = subprocess.run([binary(), "topics", "create", topic, *words], stdout=writing, stderr=writing, env=cli.environment, check=False, timeout=40)
        assert done.returncode == status, f"{words}: {done.returncode}"
    os.close(writing)
    assert "unheard" in cli.text("topics", "list")
    cli.text("topics", "delete", "unheard")


def offsets(cli):
    rows = columns(cli.text("topics", "offsets", "orders:1,2"))
    assert [(row["PARTITION"], row["EARLIEST"]) for row in rows] == [("1", "0"), ("2", "0")], rows
    deleted = cli.json("topics", "delete-records", "orders:0", "--before", "2")
    assert deleted["partitions"] == [{"partition": 0, "earliest": 2}], deleted
    assert cli.text("consume", "orders", "--partition", "0", "--max-records", "1") == "three\n"
    gone = cli.error("consume", "orders", "--partition", "0", "--from", "0")
    assert "has the offsets 2 to" in gone, gone
    beyond = cli.error("topics", "delete-records", "orders:0", "--before", "9999999")
    assert "OFFSET_OUT_OF_RANGE" in beyond, beyond
    cli.text("topics", "delete-records", "orders:3", "--before", "latest")
    told = cli.json("topics", "offsets", "orders:3", "--at", "2020-01-01")[0]
    assert told["earliest"] == told["latest"] and told["at"] is None, told


def groups(cli, broker):
    cli.text("topics", "create", "lagging", "--partitions", "2")
    for partition in ["0", "1"]:
        cli.text("produce", "lagging", "--partition", partition, stdin=b"x\n" * 10)
    nobody = cli.error("groups", "describe", "absent")
    assert "GROUP_ID_NOT_FOUND" in nobody and "groups list" in nobody, nobody
    reset = ["groups", "reset-offsets", "readers"]
    out, err = cli.run(*reset, "--topic", "lagging", "--to-offset", "4")
    assert "--execute" in err and [row["NEW-OFFSET"] for row in columns(out.decode())] == ["4", "4"], out
    assert cli.text("groups", "list") == "", "a dry run changed something"
    cli.text(*reset, "--topic", "lagging", "--to-offset", "4", "--execute")
    listed = cli.json("groups", "list")
    assert [(one["group"], one["type"], one["state"], one["coordinator"]) for one in listed] == [("readers", "classic", "Empty", 1)], listed
    rows = columns(cli.text("groups", "lag", "readers"))
    assert [(row["PARTITION"], row["CURRENT-OFFSET"], row["LOG-END-OFFSET"], row["LAG"]) for row in rows] == [
        ("0", "4", "10", "6"), ("1", "4", "10", "6")], rows
    assert cli.json("groups", "lag", "readers")["lag"] == 12
    told = ['chronik_group_lag_records{group="readers",topic="lagging",partition="%d"} 6' % partition for partition in (0, 1)]
    wait_until(lambda: all(line in broker.get("/metrics").splitlines() for line in told), 10, "the metrics tell the lag")

    def moved(*how):
        told = cli.json(*reset, *how, "--execute")
        return [(one["partition"], one["new_offset"]) for one in told["partitions"]]

    assert moved("--topic", "lagging:1", "--shift-by", "-3") == [(1, 1)]
    assert moved("--all-topics", "--shift-by", "100") == [(0, 10), (1, 10)]
    assert moved("--topic", "lagging:0", "--to-earliest") == [(0, 0)]
    assert moved("--topic", "lagging:0", "--to-latest") == [(0, 10)]
    assert moved("--topic", "lagging:0", "--to-datetime", "2020-01-01T00:00:00Z") == [(0, 0)]
    later = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert moved("--topic", "lagging:0", "--to-datetime", later) == [(0, 10)]
    assert cli.text("groups", "delete-offsets", "readers", "--topic", "lagging:1") == "deleted lagging-1\n"
    assert [one["partition"] for one in cli.json("groups", "lag", "readers")["partitions"]] == [0]
    cli.error(*reset, "--topic", "lagging", status=2)
    cli.error(*reset, "--to-latest", status=2)
    assert "has no partition 7" in cli.error(*reset, "--topic", "lagging:7", "--to-latest", status=2)
    with ClassicMember(broker.bootstrap, "readers", "lagging", [0]) as member:
        told = wait_until(lambda: (one := cli.json("groups", "describe", "readers"))["state"] == "Stable" and one, 10, "the group is stable")
        assert told["type"] == "classic" and told["coordinator"]["address"] == broker.bootstrap, told
        assert [(one["consumer_id"], one["assignment"]) for one in told["members"]] == [(member.member, {"lagging": [0]})], told
        row = columns(cli.text("groups", "lag", "readers"))[0]
        assert (row["CONSUMER-ID"], row["CLIENT-ID"], row["LAG"]) == (member.member, "test", "0"), row
        assert member.member in cli.text("groups", "describe", "readers")
        busy = cli.error(*reset, "--topic", "lagging", "--to-earliest", "--execute")
        assert "NON_EMPTY_GROUP" in busy and "Stop its members" in busy, busy
        assert "NON_EMPTY_GROUP" in cli.error("groups", "delete", "readers")


def consumer_groups(cli, broker):
    member = str(uuid.uuid4())
    code, epoch = consumer_heartbeat(broker.bootstrap, "modern", member, 0, "lagging")
    assert code == 0, f"a heartbeat was told {code}"
    told = wait_until(
        lambda: (one := cli.json("groups", "describe", "modern"))["members"][0]["assignment"] and one, 10, "the member has partitions"
    )
    assert (told["type"], told["members"][0]["consumer_id"]) == ("consumer", member), told
    assert told["members"][0]["assignment"] == {"lagging": [0, 1]}, told
    assert ("modern", "consumer") in [(one["group"], one["type"]) for one in cli.json("groups", "list")]
    rows = columns(cli.text("groups", "lag", "modern"))
    assert [(row["PARTITION"], row["CURRENT-OFFSET"], row["LAG"], row["CONSUMER-ID"]) for row in rows] == [
        ("0", "-", "-", member), ("1", "-", "-", member)], rows
    lag = cli.json("groups", "lag", "modern")
    assert (lag["lag"], [one["lag"] for one in lag["partitions"]]) == (None, [None, None]), lag
    cli.text("configs", "set", "group", "modern", "consumer.session.timeout.ms=50000")
    own = cli.json("configs", "describe", "group", "modern")
    assert {name: one["source"] for name, one in own.items()} == {"consumer.session.timeout.ms": "DYNAMIC_GROUP_CONFIG"}, own
    assert "group.consumer.max.session.timeout.ms" in cli.error("configs", "set", "group", "modern", "consumer.session.timeout.ms=70000")
    cli.text("configs", "unset", "group", "modern", "consumer.session.timeout.ms")
    assert cli.json("configs", "describe", "group", "modern") == {}
    code, _ = consumer_heartbeat(broker.bootstrap, "modern", member, -1, "lagging")
    assert code == 0, f"a leaving member was told {code}"
    cli.text("groups", "reset-offsets", "modern", "--topic", "lagging", "--to-earliest", "--execute")
    assert cli.json("groups", "lag", "modern")["lag"] == 20
    assert cli.text("groups", "delete", "modern") == "deleted modern\n"
    assert "modern" not in cli.text("groups", "list")


def configs(cli):
    assert "retention.ms = 1000\n" in cli.text("configs", "set", "topic", "orders", "retention.ms=1000", "segment.ms=60000")
    rows = {row["CONFIGURATION"]: row for row in columns(cli.text("configs", "describe", "topic", "orders"))}
    assert rows["retention.ms"]["VALUE"] == "1000" and set(rows) == {"retention.ms", "segment.ms"}, rows
    unknown = cli.error("configs", "unset", "topic", "orders", "retention.ms", "segment.mss")
    assert "no configuration segment.mss (did you mean 'segment.ms'?)" in unknown and "Nothing was changed" in unknown, unknown
    assert cli.json("configs", "describe", "topic", "orders")["retention.ms"]["value"] == "1000", "it was changed all the same"
    said = cli.text("configs", "unset", "topic", "orders", "retention.ms", "segment.ms", "cleanup.policy")
    assert said.splitlines() == [
        "topic orders: retention.ms is as by default", "topic orders: segment.ms is as by default", "topic orders: cleanup.policy was not set"], said
    assert cli.json("configs", "unset", "topic", "orders", "retention.ms") == {"retention.ms": None}
    out, err = cli.run("configs", "describe", "topic", "orders")
    assert out == b"" and "--all" in err, (out, err)
    every = cli.json("configs", "describe", "topic", "orders", "--all")
    assert len(every) > 10 and every["retention.ms"]["source"] == "DEFAULT_CONFIG", every["retention.ms"]
    wrong = cli.error("configs", "set", "topic", "orders", "retention.ms=soon")
    assert "INVALID_CONFIG" in wrong and "configure topic orders" in wrong, wrong
    cli.error("configs", "set", "topic", "orders", "retention.ms", status=2)
    assert "UNKNOWN_TOPIC_OR_PARTITION" in cli.error("configs", "describe", "topic", "absent")
    cli.text("configs", "set", "cluster", "log.retention.ms=7200000")
    assert "DYNAMIC_DEFAULT_BROKER_CONFIG" in cli.text("configs", "describe", "cluster")
    assert cli.json("configs", "describe", "broker", "1")["log.retention.ms"]["value"] == "7200000"
    assert cli.text("configs", "unset", "broker", "1", "log.retention.ms") == "broker 1: log.retention.ms was not set\n"
    assert cli.text("configs", "unset", "cluster", "log.retention.ms") == "the cluster: log.retention.ms is as by default\n"
    assert cli.text("configs", "unset", "cluster", "log.retention.ms") == "the cluster: log.retention.ms was not set\n"
    for whose in [["cluster"], ["broker", "1"], ["group", "modern"]]:
        unknown = cli.error("configs", "unset", *whose, "no.such.name")
        assert "there is no configuration no.such.name" in unknown, unknown
    began = time.monotonic()
    for what in [["describe", "broker", "7"], ["set", "broker", "7", "log.retention.ms=1000"]]:
        absent = cli.error("configs", *what)
        assert "node 7 is not among the nodes that are alive: 1" in absent, absent
    assert time.monotonic() - began < 5, "it was waited for a node that is not there"


def cluster(cli, broker):
    host, port = broker.bootstrap.rsplit(":", 1)
    rows = columns(cli.text("cluster", "nodes"))
    assert rows == [{"NODE": "1", "HOST": host, "PORT": port, "RACK": "-", "CONTROLLER": "yes"}], rows
    quorum = cli.json("cluster", "quorum")
    assert quorum["leader"] == 1 and [one["role"] for one in quorum["members"]] == ["leader"], quorum
    assert "high watermark" in cli.text("cluster", "quorum")
    assert cli.json("cluster", "reassignments") == []


def three_nodes():
    """Who follows partitions of several leaders ends in time. Then two are killed: what the third knows is told as old, and what cannot be
    done with the reason."""
    with Cluster() as nodes:
        nodes.healthy()
        cli = Cli(nodes.nodes[3])
        cli.text("topics", "create", "spread", "--partitions", "6", "--replication-factor", "3")
        assert len({one["leader"] for one in cli.json("topics", "describe", "spread")[0]["partitions"]}) > 1
        began = time.monotonic()
        assert cli.run("consume", "spread", "--follow", "--timeout", "1s") == (b"", "")
        assert time.monotonic() - began < 3, "silence did not end it"
        cli.text("topics", "create", "kept", "--partitions", "1", "--replication-factor", "3")
        out, err = cli.run("cluster", "nodes")
        assert len(columns(out.decode())) == 3 and err == "", err
        nodes.nodes[1].kill9()
        nodes.nodes[2].kill9()
        wait_until(lambda: "no controller is known" in cli.run("cluster", "nodes")[1], 20, "the nodes are told as old")
        for listing in [["cluster", "nodes"], ["topics", "list"], ["topics", "describe", "kept"], ["cluster", "reassignments"]]:
            out, err = cli.run(*listing, "--json")
            assert json.loads(out) is not None and "this may be old" in err and "/health/ready" in err, (listing, err)
        for refused in [["cluster", "quorum"], ["topics", "create", "more"], ["configs", "set", "topic", "kept", "retention.ms=1000"]]:
            told = cli.error(*refused, "--timeout", "1s")
            assert "most of the voters" in told and "/health/ready" in told, (refused, told)
        # Nobody knows whether such a node is alive, so it is waited for.
        assert "not within 1s" in cli.error("configs", "describe", "broker", "9", "--timeout", "1s")
        assert not nodes.panics(), nodes.panics()


def ends(cli, broker):
    cli.error("topics", status=2)
    cli.error("topics", "list", "--bootstrap", "nowhere", status=2)
    cli.error("topics", "list", "--timeout", "soon", status=2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nobody = "127.0.0.1:1"
        hangs = f"127.0.0.1:{silent.getsockname()[1]}"
        told = cli.error("topics", "list", "--bootstrap", nobody)
        assert nobody in told and "--bootstrap" in told, told
        began = time.monotonic()
        told = cli.error("topics", "list", "--bootstrap", hangs, "--timeout", "1s")
        assert hangs in told and 0.5 < time.monotonic() - began < 5, told
        # Whichever answers is good enough.
        cli.text("topics", "list", "--bootstrap", f"{nobody},{hangs},{broker.bootstrap}", "--timeout", "3s")
    with socket.create_server(("127.0.0.1", 0)) as other:
        def answer():
            connection, _ = other.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()
        threading.Thread(target=answer, daemon=True).start()
        told = cli.error("topics", "list", "--bootstrap", f"127.0.0.1:{other.getsockname()[1]}")
        assert "Kafka's protocol" in told, told
    for shell in ["bash", "zsh", "fish"]:
        script = cli.text("completions", shell)
        assert "reset-offsets" in script, script[:200]
    checked = subprocess.run(["bash", "-n"], input=cli.text("completions", "bash").encode(), capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


def restarted(cli, broker):
    """A node that is away for a moment while lines come is waited for."""
    writing = subprocess.Popen(
        [binary(), "produce", "orders", "--partition", "2", "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.environment
    )
    try:
        writing.stdin.write(b"before\n")
        writing.stdin.flush()
        assert json.loads(writing.stdout.readline())["line"] == 1
        broker.stop()
        writing.stdin.write(b"meanwhile\n")
        writing.stdin.flush()
        time.sleep(0.5)
        broker.start()
        out, err = writing.communicate(timeout=40)
        assert writing.returncode == 0 and json.loads(out)["line"] == 2, (out, err)
    finally:
        writing.kill()
    assert cli.text("consume", "orders", "--partition", "2").splitlines()[-2:] == ["before", "meanwhile"]


def main():
    options = arguments(__doc__).parse_args()
    with Chronik(disk=options.disk) as broker:
        cli = Cli(broker)
        now = time.time()
        for name, case in [
            ("topics", lambda: topics(cli)),
            ("produce", lambda: produce(cli)),
            ("produce from what comes piece by piece", lambda: produce_pieces(cli)),
            ("consume", lambda: consume(cli, now)),
            ("a reader of the output that has seen enough", lambda: pipes(cli)),
            ("offsets of topics, and records deleted", lambda: offsets(cli)),
            ("groups", lambda: groups(cli, broker)),
            ("groups of KIP-848", lambda: consumer_groups(cli, broker)),
            ("configurations", lambda: configs(cli)),
            ("the cluster", lambda: cluster(cli, broker)),
            ("three nodes, and one of them without a quorum", three_nodes),
            ("wrong arguments, no node, completions", lambda: ends(cli, broker)),
            ("a node that restarts under a producer", lambda: restarted(cli, broker)),
        ]:
            with verdicts.case(name) as note:
                began = time.monotonic()
                case()
                note(f"{time.monotonic() - began:.1f} s")
        assert not broker.panics(), broker.panics()
    verdicts.finish()


main()
