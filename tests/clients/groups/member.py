"""What every member says, and what it is told; the member scripts only speak their library's dialect."""

import argparse
import sys
import threading


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--mode", required=True, choices=["eager", "cooperative", "static", "consumer"])
    parser.add_argument("--instance")
    return parser.parse_args()


def leaving():
    """Set when standard input ends."""
    event = threading.Event()

    def wait():
        sys.stdin.read()
        event.set()

    threading.Thread(target=wait, daemon=True).start()
    return event


def say(*words):
    print(*words, flush=True)


def assigned(partitions):
    say("A", ",".join(str(p) for p in sorted(partitions)))
