"""kcat: a member of a group. It says on its standard error what it is assigned, and commits by itself."""

import re
import signal
import subprocess
import sys
import threading

import member

options = member.arguments()
leaving = member.leaving()
process = subprocess.Popen(
    [
        "kcat", "-b", options.bootstrap, "-G", options.group, "-E", "-u", "-f", "R %p %o\n", "-X", "auto.offset.reset=earliest",
        "-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=1000", "-X", "auto.commit.interval.ms=200",
        "-X", "partition.assignment.strategy=range", options.topic,
    ],
    stdout=None, stderr=subprocess.PIPE, text=True,
)


def tell():
    for line in process.stderr:
        if "assigned:" in line:
            member.assigned(int(p) for p in re.findall(r"\[(\d+)\]", line))
        elif "revoked:" in line:
            member.assigned([])
        else:
            print(line, end="", file=sys.stderr)


threading.Thread(target=tell, daemon=True).start()
leaving.wait()
process.send_signal(signal.SIGTERM)
sys.exit(0 if process.wait(50) in (0, -signal.SIGTERM) else 1)
