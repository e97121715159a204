"""Judges a system call trace: did an acknowledgement leave before the write it covers was synced?

Input: the lines of `strace -f -yy -s BIG -o FILE` of a broker, and the markers that clients put into their records, one
record in flight per connection. For each marker: the request arrives on a socket; a write to a file carries the marker; a
sync of that file starts after this write has returned, and returns 0; only then may the next send on that socket start.
strace writes a line when it sees a call enter or leave, so the order of lines is the order of events.
"""

import dataclasses
import re

RECEIVES = {"recvfrom", "recvmsg", "read", "readv"}
SENDS = {"sendto", "sendmsg", "write", "writev"}
FILE_WRITES = {"write", "writev", "pwrite64", "pwritev", "pwritev2"}
SYNCS = {"fdatasync", "fsync"}
OPENS = {"openat", "open"}

WHOLE = re.compile(r"^(\d+)\s+(\w+)\((.*)\)\s+= (.*)$")
ENTERS = re.compile(r"^(\d+)\s+(\w+)\((.*?)\s*<unfinished \.\.\.>$")
LEAVES = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)\)\s+= (.*)$")
DESCRIPTOR = re.compile(r"^\d+<((?:->|[^<>])*)>")


@dataclasses.dataclass
class Call:
    name: str
    target: str
    text: str
    result: int
    injected: bool
    enters: int
    leaves: int

    @property
    def on_socket(self):
        return self.target.startswith(("TCP", "socket:"))


def calls(lines):
    """Completed calls, in the order in which they returned."""
    entered = {}
    for number, line in enumerate(lines):
        line = line.rstrip("\n")
        if match := ENTERS.match(line):
            pid, name, text = match.groups()
            entered[pid] = (name, text, number)
        elif match := LEAVES.match(line):
            pid, name, rest, result = match.groups()
            began = entered.pop(pid, None)
            if began and began[0] == name:
                yield _call(name, began[1] + rest, result, began[2], number)
        elif match := WHOLE.match(line):
            _, name, text, result = match.groups()
            yield _call(name, text, result, number, number)


def _call(name, text, result, enters, leaves):
    match = DESCRIPTOR.match(text.strip())
    number = re.match(r"-?\d+", result)
    injected = "(INJECTED)" in result
    return Call(name, match[1] if match else "", text, int(number[0]) if number else -1, injected, enters, leaves)


def synced_by_itself(write, opened_synced):
    return write.target in opened_synced or "RWF_DSYNC" in write.text or "RWF_SYNC" in write.text


def judge(lines, markers):
    """[(marker, complaint)]; empty when every acknowledgement waited for its sync."""
    trace = list(calls(lines))
    opened_synced = set()
    for call in trace:
        if call.name in OPENS and ("O_DSYNC" in call.text or "O_SYNC" in call.text):
            named = re.search(r'"([^"]*)"', call.text)
            opened_synced.update([named[1]] if named else [])
    complaints = []
    for marker in markers:
        complaint = _judge_one(trace, marker, opened_synced)
        if complaint:
            complaints.append((marker, complaint))
    return complaints


def _judge_one(trace, marker, opened_synced):
    request = next((c for c in trace if c.name in RECEIVES and c.on_socket and marker in c.text), None)
    if request is None:
        return "the request is not in the trace"
    answer = next(
        (c for c in trace if c.name in SENDS and c.target == request.target and c.enters > request.leaves), None
    )
    if answer is None:
        return "no answer in the trace"
    write = next(
        (c for c in trace if c.name in FILE_WRITES and not c.on_socket and marker in c.text and c.enters > request.leaves),
        None,
    )
    if write is None:
        return "acknowledged, and no write to a file carries the record"
    if write.result <= 0 or write.injected:
        return "acknowledged, and its write failed or was skipped"
    if synced_by_itself(write, opened_synced):
        done = write
    else:
        done = next(
            (
                c for c in trace
                if c.name in SYNCS and c.target == write.target and c.enters > write.leaves and c.result == 0
                and not c.injected
            ),
            None,
        )
    if done is None:
        return f"acknowledged, and {write.target} was never synced after its write"
    if answer.enters < done.leaves:
        return f"acknowledged (line {answer.enters + 1}) before the sync of {write.target} returned (line {done.leaves + 1})"
    return None
