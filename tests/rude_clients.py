#!/usr/bin/env python3
"""Clients that take without giving, beside one that behaves: it must not notice, and the node's memory stays bounded.

    tests/rude_clients.py [--short | --full] [--disk threads] [--kinds polls,frames,fetches,silent]

polls: 30 connections with 100 pipelined long polls each. frames: 40 connections that announce 100 MiB and send nothing, ten
of them a byte every 29 s. fetches: 200 connections that ask for 55 MiB and never read. silent: 9,000 connections without a word.

--short: every request of the well-behaved producer is answered without an error within 5 s, while they are there and after
they left, and the process stays within the memory that `/config` promises. --full: also the p99 of nine alternating windows with
and without them, and what is resident a minute after they left. Ends with `N passed, N failed`.
"""

import itertools
import re
import resource
import socket
import statistics
import struct
import threading
import time

import kafka_wire
from chronik_process import Chronik, wait_until
from kafka_wire import FETCH, PRODUCE, array, request, string
from steady_producer import SteadyProducer
from verdicts import Verdicts, arguments

MIB = 1 << 20
TOPIC, BULK = "well-behaved", "bulk"
BULK_BATCHES = 60
SERVED_WITHIN_S = 5
# What is promised where `/config` does not say: memory.bytes.
MEMORY_MIB_DEFAULT = 768
P99_RATIO_MAX, P99_MORE_MS_MAX = 2.0, 5.0
RETURNED_WITHIN_S, RETURNED_MIB = 60, 64
WINDOWS, WINDOW_S = 9, 5
SILENT = 9_000
verdicts = Verdicts()


def fetch_request(topic, offset, max_wait_ms, max_bytes, correlation_id):
    wanted = array([string(topic) + array([struct.pack(">iqi", 0, offset, max_bytes)])])
    return request(FETCH, 4, correlation_id, struct.pack(">iiiib", -1, max_wait_ms, 1, max_bytes, 0) + wanted)


class Rude:
    """Connections of one kind; `with` opens them and lets go of all at the end, without a farewell."""

    def __init__(self, broker, watch):
        self.broker, self.watch = broker, watch
        self.sockets = []
        self.over = threading.Event()

    def connect(self, receive_buffer=None):
        host, port = self.broker.bootstrap.rsplit(":", 1)
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(10)
        self.sockets.append(connection)
        connection.connect((host, int(port)))
        return connection

    def open(self):
        raise NotImplementedError

    def __enter__(self):
        self.open()
        return self

    def __exit__(self, *_):
        self.over.set()
        for connection in self.sockets:
            connection.close()
        self.sockets.clear()


class Polls(Rude):
    """30 connections x 100 pipelined long polls of 10 minutes"""

    def open(self):
        with kafka_wire.Connection(self.broker.bootstrap) as connection:
            end = connection.end_offset(BULK, 0)
        for _ in range(30):
            self.connect().sendall(b"".join(fetch_request(BULK, end, 600_000, MIB, n) for n in range(100)))


class Frames(Rude):
    """40 connections that announce 100 MiB and do not send it"""

    def open(self):
        for number in range(40):
            connection = self.connect()
            # A little below the limit of a request, so that it is taken for one.
            connection.sendall(struct.pack(">i", 100 * MIB - 1024) + struct.pack(">hhi", PRODUCE, 7, number))
            if number % 4 == 0:
                # Its first byte comes at any time within 29 s, so that some come in each window.
                threading.Thread(target=self._drip, args=(connection, 29 * number / 40), daemon=True).start()

    def _drip(self, connection, first_s):
        waits_s = itertools.chain([first_s], itertools.repeat(29))
        while not self.over.wait(next(waits_s)):
            try:
                connection.send(b"\0")
            except OSError:
                return


class Fetches(Rude):
    """200 connections that fetch 55 MiB and never read"""

    def open(self):
        for number in range(200):
            connection = self.connect(receive_buffer=4096)
            connection.sendall(fetch_request(BULK, 0, 500, 55 * MIB, number))
            # A broker without a bound must not take the machine with it.
            if number % 10 == 9 and self.watch():
                return


class Silent(Rude):
    """9,000 silent connections"""

    def open(self):
        for _ in range(SILENT):
            self.connect()


KINDS = {"polls": Polls, "frames": Frames, "fetches": Fetches, "silent": Silent}


def memory_bound_mib(broker):
    told = re.search(r"memory\.bytes\s*=\s*\"?(\d+)", broker.get("/config"))
    return int(told[1]) / MIB if told else MEMORY_MIB_DEFAULT


def cannot_have(kind):
    if kind != "silent":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = SILENT + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        return f"{needed} descriptors are needed, the hard limit is {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    return None


def fill(broker):
    records = kafka_wire.batch([b"x" * (MIB - 4096)])
    with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
        for name, (code, message) in connection.create_topics([TOPIC, BULK], partitions=1).items():
            assert code == 0, f"create topic {name}: error {code} {message}"
        for _ in range(BULK_BATCHES):
            code, _ = connection.produce(BULK, 0, records)
            assert code == 0, f"produce to {BULK}: error {code}"


def served(name, window):
    right = window.latencies_s and window.worst_s <= SERVED_WITHIN_S and not window.errors
    verdicts.report(name, right, f"{window} (each within {SERVED_WITHIN_S} s, no errors)")


def short(kind, broker, producer, watch):
    before = producer.window(2)
    with KINDS[kind](broker, watch):
        during = producer.window(8)
    after = producer.window(4)
    served(f"{kind}: a well-behaved producer beside {KINDS[kind].__doc__}", during)
    served(f"{kind}: and when they have left", after)
    print(f"      before: {before}", flush=True)


def full(kind, broker, producer, watch):
    resident_before = broker.resident_mib()
    ratios, more_ms, worst = [], [], 0
    for number in range(WINDOWS):
        without = producer.window(WINDOW_S)
        with KINDS[kind](broker, watch):
            beside = producer.window(WINDOW_S)
        ratios.append(beside.quantile_ms(0.99) / without.quantile_ms(0.99))
        more_ms.append(beside.quantile_ms(0.99) - without.quantile_ms(0.99))
        worst = max(worst, beside.worst_s, without.worst_s)
        errors = without.errors + beside.errors
        print(f"      {kind} {number + 1} without: {without}", flush=True)
        print(f"      {kind} {number + 1} beside:  {beside}", flush=True)
        if errors or worst > SERVED_WITHIN_S:
            break
    verdicts.report(f"{kind}: served", worst <= SERVED_WITHIN_S and not errors, f"worst {worst:.2f} s, errors {errors[:5]}")
    ratio, more = statistics.median(ratios), statistics.median(more_ms)
    verdicts.report(
        f"{kind}: p99 beside them", ratio <= P99_RATIO_MAX or more <= P99_MORE_MS_MAX,
        f"median of {len(ratios)} windows: {ratio:.2f} x, {more:+.2f} ms (at most {P99_RATIO_MAX} x or {P99_MORE_MS_MAX:+} ms)",
    )
    with verdicts.case(f"{kind}: memory comes back") as note:
        left_at = time.monotonic()
        try:
            wait_until(
                lambda: broker.resident_mib() <= resident_before + RETURNED_MIB, RETURNED_WITHIN_S,
                f"within {RETURNED_MIB} MiB of before", 0.2,
            )
        finally:
            note(f"{resident_before:.0f} MiB before, {broker.resident_mib():.0f} MiB {time.monotonic() - left_at:.0f} s after")


def check(kind, options):
    reason = cannot_have(kind)
    if reason:
        print(f"skipped: {kind}: {reason}", flush=True)
        return
    # A broker of its own, so that what one kind leaves behind is not told of the next.
    with Chronik(disk=options.disk) as broker:
        fill(broker)
        bound = memory_bound_mib(broker)
        with SteadyProducer(broker.bootstrap, TOPIC) as producer:
            try:
                (full if options.full else short)(kind, broker, producer, lambda: broker.resident_mib() > 2 * bound)
            except OSError as failure:
                verdicts.report(f"{kind}: can connect", False, failure)
        verdicts.report(f"{kind}: memory", broker.peak_mib() <= bound, f"{broker.peak_mib():.0f} MiB at most, {bound:.0f} promised")
        verdicts.report(f"{kind}: no panic", broker.alive() and not broker.panics(), broker.panics()[:3])


def main():
    parser = arguments(__doc__)
    parser.add_argument("--kinds", default=",".join(KINDS))
    options = parser.parse_args()
    for kind in options.kinds.split(","):
        check(kind, options)
    verdicts.finish()


main()
