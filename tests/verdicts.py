"""What a script found, one line each, and how it ends."""

import argparse
import contextlib
import struct
import sys
import traceback

from chronik_process import NotReady
from kafka_wire import Closed


class Verdicts:
    def __init__(self):
        self.results = []

    def report(self, name, passed, detail=""):
        self.results.append(bool(passed))
        print(f"{'pass' if passed else 'FAIL'}  {name}: {str(detail)[:900]}", flush=True)

    @contextlib.contextmanager
    def case(self, name):
        """Passes unless an assertion or another error leaves the block; what is noted in it is printed."""
        notes = []
        try:
            yield notes.append
            passed = True
        except (AssertionError, NotReady, Closed, OSError, struct.error) as failure:
            passed = False
            notes.append(str(failure) or traceback.format_exc(limit=3))
        self.report(name, passed, " | ".join(map(str, notes)))

    def finish(self):
        passed = sum(self.results)
        print(f"{passed} passed, {len(self.results) - passed} failed", flush=True)
        sys.exit(0 if all(self.results) else 1)


def arguments(doc):
    """Every script has two lengths: right or wrong within CI's time, or everything with figures."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="right or wrong only, for CI (the default)")
    length.add_argument("--full", action="store_true", help="at the sizes of production, with figures")
    parser.add_argument("--disk", default="threads")
    return parser
