#!/usr/bin/env python3
"""A start that takes long: the admin port answers from when it is bound, and says what the start does.

    tests/slow_start.py [--short | --full] [--disk threads]

20 MB (500 MB with --full) are written to the journal and the broker is killed; then it starts below strace, which delays every read of a
file, and a probe asks every tenth of a second. Ends with `N passed, N failed`.
"""

import threading
import time
import urllib.error
import urllib.request

import kafka_wire
from chronik_cluster import free_ports
from chronik_process import Chronik
from verdicts import Verdicts, arguments

MIB = 1 << 20
READ_TAKES_MS = 50
ANSWERED_WITHIN_S = 2
# Nothing of it is brought into segments before the end.
ENVIRONMENT = {"CHRONIK_MEMORY_BYTES": "8 GiB", "CHRONIK_JOURNAL_CHECKPOINT_BYTES": "1 GiB"}
verdicts = Verdicts()


def write(broker, megabytes):
    with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
        code, message = connection.create_topics(["kept"], partitions=1)["kept"]
        assert code == 0, f"create topic: error {code} {message}"
        records = kafka_wire.batch([b"x" * (MIB - 4096)])
        for _ in range(megabytes):
            code, _ = connection.produce("kept", 0, records)
            assert code == 0, f"produce: error {code}"


def ask(address, path):
    """Status and text; None where nobody listens."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=ANSWERED_WITHIN_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()
    except TimeoutError:
        return "no answer", f"within {ANSWERED_WITHIN_S} s"
    except OSError as error:
        if "timed out" in str(error):
            return "no answer", f"within {ANSWERED_WITHIN_S} s"
        return None


def probe(address, paths, over):
    told = {path: [] for path in paths}
    while not over.is_set():
        for path in paths:
            answer = ask(address, path)
            if answer and not over.is_set():
                told[path].append(answer)
        time.sleep(0.1)
    return told


def main():
    options = arguments(__doc__).parse_args()
    with Chronik(disk=options.disk, environment=ENVIRONMENT, ready_s=300) as broker:
        write(broker, 500 if options.full else 20)
        broker.kill9()
        broker.admin_listen = f"127.0.0.1:{free_ports(1)[0]}"
        broker.wrapper = [
            "strace", "-f", "-o", "/dev/null", "--seccomp-bpf", "-e", "trace=pread64,preadv",
            "-e", f"inject=pread64,preadv:delay_enter={READ_TAKES_MS}ms",
        ]
        over, told = threading.Event(), {}
        paths = ["/health/live", "/health/ready", "/metrics", "/debug/stalls"]
        prober = threading.Thread(target=lambda: told.update(probe(broker.admin_listen, paths, over)))
        prober.start()
        began = time.monotonic()
        try:
            broker.start()
        finally:
            over.set()
            prober.join()
        took_s = time.monotonic() - began
        with verdicts.case("while it starts, /health/ready is 503 and says what is done") as note:
            starting = [text.strip() for status, text in told["/health/ready"] if status == 503]
            note(f"a start of {took_s:.1f} s, asked {len(told['/health/ready'])} times: {sorted(set(starting))}")
            assert starting and all(text.startswith("starting: ") for text in starting)
            assert any("reading the journal back" in text for text in starting)
        with verdicts.case("while it starts, the other pages answer") as note:
            for path in ["/health/live", "/metrics", "/debug/stalls"]:
                statuses = {status for status, _ in told[path]}
                note(f"{path} {statuses}")
                assert statuses == {200}
        with verdicts.case("then it is ready, and has what was acknowledged") as note:
            note(ask(broker.admin_listen, "/health/ready"))
            assert ask(broker.admin_listen, "/health/ready") == (200, "ready\n")
        assert not broker.panics()
    verdicts.finish()


if __name__ == "__main__":
    main()
