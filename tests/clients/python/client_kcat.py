"""kcat: -L, -P, -C, and consuming from a timestamp. kcat cannot set timestamps, so halves are told apart by the clock."""

import json
import subprocess
import sys
import time

import roundtrip


def kcat(options, *arguments, stdin=None):
    command = ["kcat", "-b", options.bootstrap, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=150, check=False)
    if done.returncode != 0:
        roundtrip.fail(f"{' '.join(command)}: status {done.returncode}: {done.stderr.decode()[-500:]}")
    return done.stdout


def lines(start, end):
    return b"".join(roundtrip.key(i) + b"=" + roundtrip.value(i) + b"\n" for i in range(start, end))


def consume(options, *offset):
    text = kcat(
        options, "-C", "-t", options.topic, *offset, "-e", "-q",
        "-f", '{"p":%p,"o":%o,"t":%T,"k":"%k","v":"%s"}\n',
    )
    return [json.loads(line) for line in text.splitlines()]


def main():
    options = roundtrip.arguments()
    producer = ["-P", "-t", options.topic, "-K", "="]
    if options.codec != "none":
        producer += ["-z", options.codec]
    if options.idempotence == "on":
        producer += ["-X", "enable.idempotence=true"]
    half = options.records // 2
    kcat(options, *producer, stdin=lines(0, half))
    time.sleep(0.02)
    middle_ms = int(time.time() * 1000)
    time.sleep(0.02)
    kcat(options, *producer, stdin=lines(half, options.records))

    listed = kcat(options, "-L", "-t", options.topic).decode()
    if f'topic "{options.topic}" with {roundtrip.PARTITIONS} partitions' not in listed:
        roundtrip.fail(f"-L does not show the topic:\n{listed}")
    everything = json.loads(kcat(options, "-L", "-J"))
    if options.topic not in [topic["topic"] for topic in everything["topics"]]:
        roundtrip.fail("-L -J does not list the topic")

    readback = roundtrip.Readback(options)
    for record in consume(options, "-o", "beginning"):
        i = int(record["k"][1:])
        readback.add(
            record["p"], record["o"], options.base_ms + i, record["k"].encode(), record["v"].encode()
        )
    readback.check()
    late = sorted(int(record["k"][1:]) for record in consume(options, "-o", f"s@{middle_ms}"))
    if late != list(range(half, options.records)):
        roundtrip.fail(f"from timestamp {middle_ms}: {len(late)} records, due were {options.records - half}")
    readback.done()
    return 0


sys.exit(main())
