#!/usr/bin/env python3
"""Two producers at full speed beside a loop that creates and deletes topics: a fresh write is taken, always.

    tests/topics_under_load.py [--short | --full] [--disk threads]

The producers write records of 10 KB to their topic, and a topic comes or goes every 30 ms. A third client writes one small record after
the other to a topic of its own, p99 below 1 s and none 5 s. The producers get another topic every 10 s and the one before goes, for what they
write in all fills a disk. 60 s with checkpoints every 4 MiB, so that many rounds run beside many topics; --full: 10 minutes at the
defaults. Ends with `N passed, N failed`.
"""

import itertools
import multiprocessing
import threading
import time

import kafka_wire
from chronik_process import Chronik
from steady_producer import SteadyProducer
from verdicts import Verdicts, arguments

MIB = 1 << 20
LOAD, FRESH = "load", "fresh"
PRODUCERS, PARTITIONS, IN_FLIGHT = 2, 3, 5
RECORD_BYTES, BATCH_RECORDS = 10_000, 80
TOPIC_EVERY_S, TOPICS_KEPT = 0.03, 20
LOAD_TOPIC_S = 10
P99_MS_MAX, WORST_S_MAX = 1_000, 5
verdicts = Verdicts()


def load_topic(turn):
    return f"{LOAD}-{turn}"


def produce_much(bootstrap, turn, taken, refused):
    """A few requests in flight on one connection, as librdkafka has them."""
    records = kafka_wire.batch([b"r" * RECORD_BYTES] * BATCH_RECORDS)
    while True:
        try:
            with kafka_wire.Connection(bootstrap, timeout_s=40) as connection:
                in_flight = 0
                for number in itertools.count():
                    body = kafka_wire.produce_body(load_topic(turn.value), number % PARTITIONS, records, timeout_ms=30_000)
                    connection.send(kafka_wire.request(kafka_wire.PRODUCE, 7, number, body))
                    in_flight += 1
                    if in_flight < IN_FLIGHT:
                        continue
                    _, reader = connection.receive()
                    in_flight -= 1
                    code, _ = connection.produce_answer(reader)
                    if code == 0:
                        taken.value += BATCH_RECORDS * RECORD_BYTES
                    else:
                        refused.value += 1
                    if code != 0:
                        time.sleep(0.1)
        except (kafka_wire.Closed, OSError):
            time.sleep(0.2)


def take_turns(bootstrap, turn, over):
    """The producers get another topic now and then."""
    while not over.wait(LOAD_TOPIC_S):
        with kafka_wire.Connection(bootstrap, timeout_s=30) as connection:
            connection.create_topics([load_topic(turn.value + 1)], partitions=PARTITIONS)
            turn.value += 1
            connection.delete_topics([load_topic(turn.value - 1)])


class Topics:
    """Creates a topic, writes to it, and deletes the oldest, again and again."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.created, self.deleted, self.failures = 0, 0, []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        kept = []
        connection = None
        while not self.over.wait(TOPIC_EVERY_S):
            try:
                connection = connection or kafka_wire.Connection(self.bootstrap, timeout_s=30)
                name = f"passing-{self.created:06d}"
                code, message = connection.create_topics([name], partitions=1)[name]
                if code != 0:
                    self.failures.append(f"create {name}: error {code} {message}")
                    continue
                self.created += 1
                kept.append(name)
                connection.produce(name, 0, kafka_wire.batch([b"passing"]), timeout_ms=5_000)
                if len(kept) > TOPICS_KEPT:
                    name = kept.pop(0)
                    code = connection.delete_topics([name])[name]
                    self.deleted += 1
                    if code != 0:
                        self.failures.append(f"delete {name}: error {code}")
            except (kafka_wire.Closed, OSError) as failure:
                self.failures.append(str(failure))
                connection = None

    def stop(self):
        self.over.set()
        self.thread.join(35)


def check(disk, full):
    seconds = 600 if full else 60
    environment = {} if full else {"CHRONIK_JOURNAL_CHECKPOINT_BYTES": str(4 * MIB)}
    with Chronik(disk=disk, environment=environment) as broker:
        with kafka_wire.Connection(broker.bootstrap, timeout_s=30) as connection:
            for name, (code, message) in connection.create_topics([load_topic(0), FRESH], partitions=PARTITIONS).items():
                assert code == 0, f"create topic {name}: error {code} {message}"
        forked = multiprocessing.get_context("fork")
        # One writer each and no locks: a producer that is killed while it holds one would stop whoever reads the number after it.
        turn, *counters = [forked.Value("q", 0, lock=False) for _ in range(1 + 2 * PRODUCERS)]
        taken, refused = counters[:PRODUCERS], counters[PRODUCERS:]
        load = [
            forked.Process(target=produce_much, args=(broker.bootstrap, turn, *own), daemon=True) for own in zip(taken, refused)
        ]
        try:
            with SteadyProducer(broker.bootstrap, FRESH, pause_s=0.01) as producer:
                for process in load:
                    process.start()
                topics = Topics(broker.bootstrap)
                threading.Thread(target=take_turns, args=(broker.bootstrap, turn, topics.over), daemon=True).start()
                window = producer.window(seconds)
                last = producer.window(3)
                topics.stop()
        finally:
            for process in load:
                process.kill()
        megabytes = sum(each.value for each in taken) / 1e6
        print(
            f"      {megabytes / seconds:.0f} MB/s taken ({megabytes:.0f} MB), {sum(each.value for each in refused)} batches refused; "
            f"{topics.created} topics created, {topics.deleted} deleted", flush=True,
        )
        verdicts.report(
            "a fresh write is taken", window.quantile_ms(0.99) < P99_MS_MAX and window.worst_s < WORST_S_MAX and not window.errors,
            f"{window} (p99 below {P99_MS_MAX} ms, none {WORST_S_MAX} s, no errors)",
        )
        verdicts.report("and still at the end", last.worst_s < WORST_S_MAX and not last.errors, last)
        verdicts.report("topics come and go", topics.created > seconds and not topics.failures, topics.failures[:3])
        verdicts.report("no panic", broker.alive() and not broker.panics(), broker.panics()[:3])


def main():
    options = arguments(__doc__).parse_args()
    check(options.disk, options.full)
    verdicts.finish()


main()
