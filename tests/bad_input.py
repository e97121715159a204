#!/usr/bin/env python3
"""Bad input to the real binary: each a clear error that says what and what to do; no panic, nothing lost, others undisturbed.

    tests/bad_input.py [--disk threads] [--seed 1] [--mutations 300]

Four parts: starts that must be refused, damaged data, hostile bytes on the wire beside a client that must notice
nothing, and a log that nobody takes. Ends with `N passed, N failed`.
"""

import argparse
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import threading
import time

import kafka_wire
from chronik_process import STEERING, Chronik, NotReady, binary, scratch
from kafka_wire import API_VERSIONS, FETCH, METADATA, PRODUCE, Closed, Connection, array, batch, blob, string
from verdicts import Verdicts

ANSWERED_WITHIN_S = 8
verdicts = Verdicts()
case = verdicts.case


# --- starts that must be refused


def refused(status, *words, arguments=(), data_dir=None, environment=None, listen="127.0.0.1:0"):
    """Starts the binary, wants this exit status and each of the words (regular expressions) on stderr."""
    ours = None if data_dir else scratch("refused")
    data_dir = data_dir or ours / "data"
    command = [
        binary(), "serve", "--data-dir", str(data_dir), "--listen", listen, "--cluster", "127.0.0.1:0",
        "--admin", "127.0.0.1:0", *arguments,
    ]
    inherited = {key: value for key, value in os.environ.items() if key not in STEERING}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, env={**inherited, **(environment or {})}, check=False
        )
    except subprocess.TimeoutExpired as running:
        raise AssertionError(f"still running after 30 s; said {running.stdout} {running.stderr}") from None
    finally:
        if ours:
            shutil.rmtree(ours, ignore_errors=True)
    text = done.stderr.strip()
    last = text.splitlines()[-1] if text else "(nothing on stderr)"
    assert done.returncode == status, f"exit status {done.returncode}, expected {status}; stderr: {text[-500:]}"
    assert "panicked" not in text, f"panic: {text[-500:]}"
    assert "ready:" not in done.stdout, "said it was ready"
    for word in words:
        assert re.search(word, text, re.I), f"stderr does not say {word!r}: {text[-500:]}"
    return last


def write_some(broker, topic="kept", count=20):
    with Connection(broker.bootstrap, timeout_s=30) as connection:
        code, message = connection.create_topics([topic], partitions=1)[topic]
        assert code == 0, f"create topic: error {code} {message}"
        for i in range(count):
            code, _ = connection.produce(topic, 0, batch([b"kept-record-%06d-end" % i]))
            assert code == 0, f"produce: error {code}"


def check_some(broker, topic="kept", count=20):
    with Connection(broker.bootstrap, timeout_s=30) as connection:
        values = [value for _, value in connection.read_values(topic, 0)]
    assert values == [b"kept-record-%06d-end" % i for i in range(count)], f"{len(values)} of {count} read back: {values[:3]}"


def refuse_configurations(home):
    def file(text):
        path = home / "chronik.toml"
        path.write_text(text)
        return ["--config", str(path)]

    with case("unknown configuration key: exit 2 with a suggestion") as note:
        note(refused(2, "profil", "profile", arguments=file('[journal]\nprofil = "balanced"\n')))
    with case("unknown key in the environment: exit 2 with a suggestion") as note:
        note(refused(2, "profile", environment={"CHRONIK_JOURNAL_PROFIL": "balanced"}))
    with case("value of the wrong kind: exit 2") as note:
        note(refused(2, "journal", arguments=file('[journal]\nprofile = "fast-and-loose"\n')))
    with case("not TOML: exit 2 with the line") as note:
        note(refused(2, "line|:1:|1 \\|", arguments=file("this is = = not TOML\n")))
    with case("configuration file missing: exit 2 with its name") as note:
        note(refused(2, "no-such-file.toml", arguments=["--config", str(home / "no-such-file.toml")]))
    with case("unknown flag: exit 2") as note:
        note(refused(2, "--dta-dir", arguments=["--dta-dir", "x"]))
    with case("address without a port: exit 2") as note:
        note(refused(2, "listen|address|port", listen="nonsense"))


def refuse_directories(home, disk):
    with case("data directory is a file: exit 3 with its name") as note:
        (home / "a-file").write_text("not a directory")
        note(refused(3, "a-file", data_dir=home / "a-file"))
    with case("foreign directory: exit 3, and it stays as it is") as note:
        foreign = home / "foreign"
        foreign.mkdir()
        (foreign / "thesis.txt").write_text("years of work")
        note(refused(3, "foreign", data_dir=foreign))
        names = [entry.name for entry in foreign.iterdir()]
        assert names == ["thesis.txt"], f"the directory now holds {names}"
    with Chronik(disk=disk) as broker:
        write_some(broker)
        with case("second process on the same directory: exit 3, the first unharmed") as note:
            note(refused(3, "lock|in use|another", data_dir=broker.data_dir))
            check_some(broker)
        with case("port in use: exit 4 with the address") as note:
            note(refused(4, re.escape(broker.bootstrap.rsplit(":", 1)[1]), listen=broker.bootstrap))
        broker.stop()
        with case("directory of a newer version: exit 3") as note:
            newer = home / "newer"
            shutil.copytree(broker.data_dir, newer)
            note(f"raised the version in {make_newer(newer)}")
            note(refused(3, "version|newer", data_dir=newer))
        with case("identity of the directory unreadable: exit 3") as note:
            garbled = home / "garbled"
            shutil.copytree(broker.data_dir, garbled)
            identity = identity_file(garbled)
            identity.write_bytes(b"\xff\x00garbage\xfe" * 4)
            note(refused(3, re.escape(identity.name), data_dir=garbled))
        with case("the original directory still starts, with everything in it"):
            broker.start()
            check_some(broker)


def identity_file(directory):
    """The small file at the top that says whose directory this is and in which format."""
    candidates = [
        path for path in sorted(directory.iterdir())
        if path.is_file() and 0 < path.stat().st_size < 4096 and "lock" not in path.name.lower()
    ]
    assert candidates, f"no identity file among {[path.name for path in directory.iterdir()]}"
    return candidates[0]


def make_newer(directory):
    path = identity_file(directory)
    text = path.read_text(errors="strict")
    raised, count = re.subn(r'((?:format|version)\w*"?\s*[=:]\s*)"?\d+"?', r"\g<1>9999", text, count=1, flags=re.I)
    assert count == 1, f"no version in {path.name}: {text[:200]}"
    path.write_text(raised)
    return path.name


# --- damaged data


def places(directory, needle):
    """Files below `directory` that contain `needle`, with the position."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            at = path.read_bytes().find(needle)
            if at >= 0:
                yield path, at


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def damage(disk):
    with Chronik(disk=disk) as broker:
        write_some(broker, count=200)
        broker.kill9()
        with case("corrupt middle of the journal: exit 3 with file, place and what to do") as note:
            found = [
                (path, at) for path, at in places(broker.data_dir, b"kept-record-000020-end") if "journal" in str(path)
            ]
            assert found, "the record is in no journal file"
            for path, at in found:
                flip(path, at + 5)
            note(f"damaged {', '.join(path.name for path, _ in found)}")
            try:
                broker.start()
            except NotReady as stopped:
                assert stopped.status == 3, f"exit status {stopped.status}, expected 3: {stopped.stderr[-500:]}"
                said = stopped.stderr.splitlines()[-1]
                assert found[0][0].name in stopped.stderr, f"the file is not named: {said}"
                assert re.search("corrupt|damage", stopped.stderr, re.I), f"does not say corrupt: {said}"
                note(said)
            else:
                raise AssertionError("the broker started on it")
        with case("and with the damage undone it starts, with everything in it"):
            for path, at in found:
                flip(path, at + 5)
            if not broker.alive():
                broker.start()
            check_some(broker, count=200)
        broker.stop()

    with Chronik(disk=disk) as broker:
        write_some(broker, count=50)
        broker.stop()
        with case("rotten batch in a segment: an error for its reader, never wrong bytes, the broker lives") as note:
            found = [
                (path, at) for path, at in places(broker.data_dir, b"kept-record-000010-end") if path.suffix == ".log"
            ] or [
                (path, at) for path, at in places(broker.data_dir, b"kept-record-000010-end") if "journal" not in str(path)
            ]
            assert found, "the record is in no segment after a clean stop"
            for path, at in found:
                flip(path, at + 5)
            note(f"damaged {', '.join(path.name for path, _ in found)}")
            broker.start()
            with Connection(broker.bootstrap, timeout_s=30) as connection:
                code, _, data = connection.fetch("kept", 0, 10)
                values = [value for _, value in kafka_wire.decode(data)]
                assert b"kept-record-000010-end" not in values, "served although damaged on disk: read from elsewhere?"
                assert code != 0 or not values, f"error 0 with {values[:2]}"
                note(f"fetch of it: error {code}")
                code, _, data = connection.fetch("kept", 0, 0)
                note(f"fetch of offset 0: error {code}, {len(kafka_wire.decode(data))} records")
            assert broker.alive(), "the broker ended"
            assert not broker.panics(), broker.panics()


# --- hostile bytes on the wire


class Bystander:
    """A well-behaved client beside the hostile ones: every produce must be acknowledged, on one connection throughout."""

    def __init__(self, broker):
        self.connection = Connection(broker.bootstrap, timeout_s=30)
        code, _ = self.connection.create_topics(["bystander"], partitions=1)["bystander"]
        assert code == 0, f"create topic: error {code}"
        self.acknowledged = []
        self.trouble = []
        self.slowest_s = 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        i = 0
        while not self.over.is_set():
            value = b"bystander-%06d" % i
            i += 1
            began = time.monotonic()
            try:
                code, _ = self.connection.produce("bystander", 0, batch([value]))
            except (Closed, OSError, AssertionError) as failure:
                self.trouble.append(str(failure))
                return
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if code == 0:
                self.acknowledged.append(value)
            else:
                self.trouble.append(f"error {code}")
            time.sleep(0.005)

    def stop(self):
        self.over.set()
        self.thread.join()


def hostile(broker, data):
    """Sends raw bytes; returns 'answered', 'closed', and never waits for more than a while."""
    with Connection(broker.bootstrap, timeout_s=ANSWERED_WITHIN_S) as connection:
        try:
            connection.send(data)
            _, reader = connection.receive()
            return "answered", reader
        except (Closed, BrokenPipeError, ConnectionResetError):
            return "closed", None


def must_close(broker, data, name):
    with case(name) as note:
        try:
            how, _ = hostile(broker, data)
        except (socket.timeout, TimeoutError):
            raise AssertionError(f"neither closed nor answered within {ANSWERED_WITHIN_S} s") from None
        assert how == "closed", "answered instead of closed"
        assert broker.alive(), "the broker ended"
        note("closed")


def frames(broker, chance):
    garbage = chance.randbytes(1000)
    must_close(broker, b"\x7f\xff\xff\xff" + garbage, "frame of 2 GiB: closed")
    must_close(broker, b"\xff\xff\xff\xff" + garbage, "frame of negative length: closed")
    must_close(broker, struct.pack(">i", 101 << 20) + garbage, "frame of 101 MiB: closed")
    must_close(broker, b"GET / HTTP/1.1\r\nHost: chronik\r\n\r\n", "an HTTP request: closed")
    must_close(broker, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + garbage, "a TLS hello: closed")
    must_close(broker, struct.pack(">i", 0), "frame of length 0: closed")
    must_close(broker, struct.pack(">i", 3) + b"abc", "frame shorter than any header: closed")
    with case("a client that ends in the middle of a frame"):
        with Connection(broker.bootstrap) as connection:
            connection.send(struct.pack(">i", 500) + b"half")
        assert broker.alive(), "the broker ended"


def unsupported(broker):
    for api in (999, 32767, -1, 1000):
        request = kafka_wire.request(api, 0, 4711, b"")
        must_close(broker, request, f"unknown API key {api}: closed, as by Kafka")
    with case("ApiVersions 99: UNSUPPORTED_VERSION in the body of version 0, with the list") as note:
        with Connection(broker.bootstrap, timeout_s=ANSWERED_WITHIN_S) as connection:
            connection.send(kafka_wire.request(API_VERSIONS, 99, 4711, b""))
            correlation_id, reader = connection.receive()
            assert correlation_id == 4711, f"correlation id {correlation_id}"
            rest = reader.read()
            assert rest[:2] == struct.pack(">h", 35), f"body starts {rest[:8].hex()}"
            (count,) = struct.unpack(">i", rest[2:6])
            assert len(rest) >= 6 + 6 * count and count > 5, f"{count} ranges in {len(rest)} bytes"
            code, ranges = connection.api_versions()
            assert code == 0 and ranges, f"then ApiVersions answers {code}"
            note(f"{count} ranges; connection usable")
    for name, api, version in (
        ("Produce", PRODUCE, 2), ("Produce", PRODUCE, 99), ("Fetch", FETCH, 99), ("Metadata", METADATA, 99),
        ("Metadata", METADATA, -1),
    ):
        must_close(broker, kafka_wire.request(api, version, 4711, b""), f"{name} version {version}: closed, as by Kafka")


def malformed_batches(broker):
    good = batch([b"one", b"two", b"three"])

    def patched(at, data):
        return good[:at] + data + good[at + len(data):]

    flipped = bytearray(good)
    flipped[-3] ^= 1
    lies = {
        "bad CRC": (bytes(flipped), {2}),
        "CRC of zero": (batch([b"x"], crc=0), {2}),
        "count above the records": (batch([b"a", b"b"], count=3), {2, 87}),
        "count below the records": (batch([b"a", b"b"], count=1), {2, 87}),
        "count negative": (batch([b"a"], count=-5), {2, 87}),
        "count of 2 thousand million": (batch([b"a"], count=0x7FFFFFFF), {2, 87}),
        "last offset delta that disagrees": (batch([b"a", b"b"], last_delta=7), {2, 87}),
        "length negative": (batch([b"a"], length=-1), {2, 87}),
        "length of zero": (batch([b"a"], length=0), {2, 87}),
        "length behind the end": (batch([b"a"], length=100_000), {2, 87}),
        "length below its header": (batch([b"a"], length=20), {2, 87}),
        "magic 1": (batch([b"a"], magic=1), {2, 43, 76, 87}),
        "magic 77": (batch([b"a"], magic=77), {2, 43, 76, 87}),
        "control batch from a client": (resealed(patched(21, struct.pack(">h", 0x20))), {2, 42, 87}),
        "transactional without a producer": (resealed(patched(21, struct.pack(">h", 0x10))), {2, 42, 48, 49, 87}),
        "unknown codec": (resealed(patched(21, struct.pack(">h", 7))), {2, 74, 76, 87}),
        "ends in its header": (good[:40], {2, 87}),
        "garbage behind the batch": (good + b"garbage", {2, 87}),
        "nothing": (b"", {2, 42, 87}),
        "null": (None, {2, 42, 87}),
        "batch above 1 MiB": (batch([b"x" * ((1 << 20) + 200)]), {10, 18}),
    }
    with Connection(broker.bootstrap, timeout_s=30) as connection:
        code, _ = connection.create_topics(["malformed"], partitions=1)["malformed"]
        assert code == 0, f"create topic: error {code}"
        assert connection.produce("malformed", 0, good)[0] == 0, "the good batch is refused"
    for name, (records, codes) in lies.items():
        with case(f"batch with {name}: refused, nothing stored") as note, Connection(
            broker.bootstrap, timeout_s=ANSWERED_WITHIN_S
        ) as connection:
            code, _ = connection.produce("malformed", 0, records)
            note(f"error {code}")
            assert code in codes, f"expected one of {sorted(codes)}"
            end = connection.end_offset("malformed", 0)
            assert end == 3, f"end offset {end}, was 3"
    with case("acks=7: INVALID_REQUIRED_ACKS") as note, Connection(broker.bootstrap) as connection:
        code, _ = connection.produce("malformed", 0, good, acks=7)
        assert code == 21, f"error {code}"
    with case("partition that is not there: UNKNOWN_TOPIC_OR_PARTITION"), Connection(broker.bootstrap) as connection:
        for partition in (1, -1, 0x7FFFFFFF):
            code, _ = connection.produce("malformed", partition, good)
            assert code == 3, f"partition {partition}: error {code}"
    with case("fetch behind the end and before the start: OFFSET_OUT_OF_RANGE"), Connection(broker.bootstrap) as connection:
        for offset in (10, -7, 1 << 62):
            code, _, _ = connection.fetch("malformed", 0, offset)
            assert code == 1, f"offset {offset}: error {code}"
    with case("topic names that are none: INVALID_TOPIC_EXCEPTION") as note, Connection(broker.bootstrap) as connection:
        for name in ("", ".", "..", "a/b", "../../etc", "x" * 250, "a b", "a\0b"):
            code, _ = connection.create_topics([name])[name]
            assert code == 17, f"{name[:20]!r}: error {code}"


def resealed(data):
    """The batch with the CRC that its bytes have."""
    return data[:17] + struct.pack(">I", kafka_wire.crc32c(data[21:])) + data[21:]


def malformed_requests(broker):
    def body(topics):
        return string(None) + struct.pack(">hi", -1, 1000) + topics

    huge = struct.pack(">i", 0x7FFFFFFF)
    shapes = {
        "array of 2 thousand million topics": body(huge),
        "array of -5 topics": body(struct.pack(">i", -5)),
        "topic name longer than the frame": body(struct.pack(">ih", 1, 30_000) + b"short"),
        "records longer than the frame": body(
            array([string("malformed") + array([struct.pack(">ii", 0, 1 << 30) + b"x"])])),
        "records of negative length": body(
            array([string("malformed") + array([struct.pack(">ii", 0, -77)])])),
        "nothing behind the header": b"",
        "topic name that is not UTF-8": body(array([struct.pack(">h", 2) + b"\xff\xfe" + array([])])),
        "trailing bytes": body(array([string("malformed") + array([struct.pack(">i", 0) + blob(b"")])])) + b"xxxx",
    }
    for name, data in shapes.items():
        with case(f"produce request with {name}: closed or refused") as note:
            try:
                how, reader = hostile(broker, kafka_wire.request(PRODUCE, 7, 1, data))
            except (socket.timeout, TimeoutError):
                raise AssertionError(f"neither closed nor answered within {ANSWERED_WITHIN_S} s") from None
            note(how if reader is None else f"{how} with {reader.read(40).hex()}")
            assert broker.alive(), "the broker ended"


def mutations(broker, chance, count):
    """Valid requests with a few bytes changed: any answer or a closed connection will do, and no silence of minutes."""
    seeds = [
        kafka_wire.request(PRODUCE, 7, 1, kafka_wire.produce_body("malformed", 0, batch([b"seed"]), timeout_ms=500)),
        kafka_wire.request(METADATA, 4, 1, array([string("malformed")]) + b"\0"),
        kafka_wire.request(FETCH, 4, 1, struct.pack(">iiiib", -1, 100, 1, 1000, 0) + array(
            [string("malformed") + array([struct.pack(">iqi", 0, 0, 1000)])])),
        kafka_wire.request(API_VERSIONS, 0, 1, b""),
    ]
    with case(f"{count} requests with changed bytes: the broker lives") as note:
        outcomes = {"answered": 0, "closed": 0, "silent": 0}
        for _ in range(count):
            data = bytearray(chance.choice(seeds))
            for _ in range(chance.randint(1, 6)):
                # The length prefix stays: a changed one only waits for bytes that never come.
                data[chance.randrange(4, len(data))] = chance.randrange(256)
            with Connection(broker.bootstrap, timeout_s=1.5) as connection:
                try:
                    connection.send(bytes(data))
                    connection.receive()
                    outcomes["answered"] += 1
                except (Closed, BrokenPipeError, ConnectionResetError):
                    outcomes["closed"] += 1
                except (socket.timeout, TimeoutError):
                    outcomes["silent"] += 1
            assert broker.alive(), f"the broker ended after {bytes(data).hex()}"
        note(outcomes)
        # acks=0 (or a long poll) may come out of a mutation and is rightly unanswered; more is not.
        assert outcomes["silent"] <= count // 10, "too many without answer"


def order_and_slowness(broker):
    with case("60 requests sent at once are answered in their order"), Connection(broker.bootstrap) as connection:
        connection.create_topics(["pipelined"], partitions=1)
        sent = b""
        for correlation_id in range(1, 61):
            if correlation_id % 3 == 0:
                sent += kafka_wire.request(METADATA, 4, correlation_id, array([string("pipelined")]) + b"\0")
            else:
                body = kafka_wire.produce_body("pipelined", 0, batch([b"pipelined-%d" % correlation_id]))
                sent += kafka_wire.request(PRODUCE, 7, correlation_id, body)
        connection.send(sent)
        answered, offsets = [], []
        for _ in range(60):
            correlation_id, reader = connection.receive()
            answered.append(correlation_id)
            if correlation_id % 3:
                code, offset = connection.produce_answer(reader)
                assert code == 0, f"request {correlation_id}: error {code}"
                offsets.append(offset)
        assert answered == list(range(1, 61)), f"answered in the order {answered}"
        assert offsets == list(range(40)), f"offsets {offsets}"

    with case("a client that asks for much and reads nothing costs only itself") as note:
        with Connection(broker.bootstrap, timeout_s=30) as writer:
            writer.create_topics(["much"], partitions=1)
            for _ in range(16):
                code, _ = writer.produce("much", 0, batch([b"m" * 900_000]))
                assert code == 0, f"produce: error {code}"
        slow = Connection(broker.bootstrap, timeout_s=5)
        asked = 0
        try:
            wanted = array([string("much") + array([struct.pack(">iqi", 0, 0, 8 << 20)])])
            for _ in range(2000):
                slow.send(kafka_wire.request(FETCH, 4, 1, struct.pack(">iiiib", -1, 100, 1, 16 << 20, 0) + wanted))
                asked += 1
        except (socket.timeout, TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
        began = time.monotonic()
        with Connection(broker.bootstrap, timeout_s=10) as other:
            code, _ = other.produce("much", 0, batch([b"another client"]))
            assert code == 0, f"another client: error {code}"
        note(f"{asked} fetches of 8 MiB sent, none read; another client was answered after {time.monotonic() - began:.3f} s")
        resident_mib = int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{broker.pid}/status").read())[1]) // 1024
        note(f"{resident_mib} MiB resident")
        assert resident_mib < 500, "the broker buffers for it"
        slow.close()


def wire(disk, chance, count):
    with Chronik(disk=disk) as broker:
        bystander = Bystander(broker)
        try:
            frames(broker, chance)
            unsupported(broker)
            malformed_batches(broker)
            malformed_requests(broker)
            order_and_slowness(broker)
            mutations(broker, chance, count)
        finally:
            bystander.stop()
        with case("the bystander noticed nothing, and all its records are there") as note:
            note(f"{len(bystander.acknowledged)} acknowledged, slowest {bystander.slowest_s * 1000:.0f} ms")
            assert not bystander.trouble, f"trouble: {bystander.trouble[:3]}"
            with Connection(broker.bootstrap, timeout_s=30) as connection:
                values = [value for _, value in connection.read_values("bystander", 0)]
            assert values == bystander.acknowledged, f"{len(values)} stored"
        with case("no panic, and a clean stop"):
            assert not broker.panics(), broker.panics()
            status = broker.stop()
            assert status == 0, f"exit status {status}"


def log(disk):
    """Standard error that takes nothing: each way with so much of it that any pipe is full."""
    for what, redirection in [
        ("a pipe that nobody empties", "2> >(exec sleep 600)"),
        ("a pipe whose reader has left", "2> >(true)"),
        ("a full device", "2> /dev/full"),
    ]:
        with case(f"a log that goes to {what} holds up nobody") as note:
            prefix = ["bash", "-c", f'exec "$@" {redirection}', "bash"]
            with Chronik(disk=disk, prefix=prefix, environment={"CHRONIK_LOG": "debug"}) as broker:
                with Connection(broker.bootstrap, timeout_s=10) as connection:
                    connection.create_topics(["logged"], partitions=1)
                    for n in range(2000):
                        code, _ = connection.produce("logged", 0, batch([b"%d" % n]))
                        assert code == 0, f"error {code}"
                    assert connection.end_offset("logged", 0) == 2000
                began = time.monotonic()
                status = broker.stop()
                note(f"2,000 records, stopped within {time.monotonic() - began:.1f} s")
                assert status == 0, f"exit status {status}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disk", default="threads")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutations", type=int, default=300)
    parser.add_argument("parts", nargs="*", default=["configurations", "directories", "damage", "wire", "log"])
    options = parser.parse_args()
    home = scratch("bad-input")
    parts = {
        "configurations": lambda: refuse_configurations(home),
        "directories": lambda: refuse_directories(home, options.disk),
        "damage": lambda: damage(options.disk),
        "wire": lambda: wire(options.disk, random.Random(options.seed), options.mutations),
        "log": lambda: log(options.disk),
    }
    for part in options.parts:
        with case(f"part {part} ran to its end"):
            parts[part]()
    shutil.rmtree(home, ignore_errors=True)
    verdicts.finish()


main()
