"""A client that behaves: a process of its own, one produce with acks=all in flight, and what became of each.

Its latencies are the broker's and not those of the script beside it: the script's threads have another interpreter.
"""

import multiprocessing
import socket
import struct
import threading
import time

import kafka_wire

# A request that is not answered by then is broken; longer than any bound that is judged.
REQUEST_S_MAX = 30
OUTCOME = struct.Struct("<ddi")
# In place of an error code: no answer, or the connection ended.
UNANSWERED = -100


def _produce(pipe, bootstrap, topic, partition, value, pause_s):
    records = kafka_wire.batch([value])
    connection = None
    while True:
        began = time.monotonic()
        try:
            connection = connection or kafka_wire.Connection(bootstrap, timeout_s=REQUEST_S_MAX)
            code, _ = connection.produce(topic, partition, records, timeout_ms=REQUEST_S_MAX * 1000)
        except (kafka_wire.Closed, OSError, socket.timeout):
            code, connection = UNANSWERED, None
        try:
            pipe.send_bytes(OUTCOME.pack(began, time.monotonic(), code))
        except OSError:
            return
        time.sleep(pause_s if code == 0 else max(pause_s, 0.05))


class Window:
    """The requests that were under way between two moments."""

    def __init__(self, requests, seconds):
        self.requests, self.seconds = requests, seconds
        self.latencies_s = sorted(ended - began for began, ended, _ in requests)
        self.errors = [code for _, _, code in requests if code != 0]

    def quantile_ms(self, share):
        if not self.latencies_s:
            return float("inf")
        return 1000 * self.latencies_s[min(int(len(self.latencies_s) * share), len(self.latencies_s) - 1)]

    def at_an_even_pace(self, every_s):
        """As if a request had begun every so often: it takes what is left of one under way, or what the next one takes; of a short one all."""
        paced, due = [], self.requests[0][0] if self.requests else 0.0
        for began, ended, code in self.requests:
            while due < ended:
                waits = ended - max(began, due)
                paced.append((ended - max(waits, min(ended - began, every_s)), ended, code))
                due += every_s
        return Window(paced, self.seconds)

    @property
    def worst_s(self):
        return self.latencies_s[-1] if self.latencies_s else float("inf")

    def __str__(self):
        errors = f", error codes {sorted(set(self.errors))} {len(self.errors)} times" if self.errors else ""
        return (
            f"{len(self.latencies_s)} requests in {self.seconds:.0f} s, p50 {self.quantile_ms(0.5):.2f} ms, "
            f"p99 {self.quantile_ms(0.99):.2f} ms, worst {self.worst_s:.2f} s{errors}"
        )


class SteadyProducer:
    def __init__(self, bootstrap, topic, partition=0, value=b"v" * 100, pause_s=0.002):
        self.requests = []
        self.arrived = threading.Condition()
        ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
        self.process = multiprocessing.get_context("fork").Process(
            target=_produce, args=(theirs, bootstrap, topic, partition, value, pause_s), daemon=True
        )
        self.process.start()
        theirs.close()
        self.pipe = ours
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self):
        while True:
            try:
                outcome = OUTCOME.unpack(self.pipe.recv_bytes())
            except (EOFError, OSError):
                return
            with self.arrived:
                self.requests.append(outcome)
                self.arrived.notify_all()

    def between(self, begin, end):
        """Waits until everything that began before `end` is answered or broken."""
        until = time.monotonic() + REQUEST_S_MAX + 5
        with self.arrived:
            while not self.requests or self.requests[-1][1] < end:
                if not self.arrived.wait(max(until - time.monotonic(), 0)):
                    break
            inside = [request for request in self.requests if request[0] < end and request[1] > begin]
        return Window(inside, end - begin)

    def window(self, seconds):
        begin = time.monotonic()
        time.sleep(seconds)
        return self.between(begin, begin + seconds)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()
