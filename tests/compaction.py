#!/usr/bin/env python3
"""Compacted topics: they shrink to the last record of each key, in every codec, while they are written, read, and the broker is killed. And topics
that keep another codec than their producers send.

    target/clients/venv/bin/python3 tests/compaction.py [--short | --full] [--disk threads]

Needs confluent-kafka and kafka-python, which tests/clients/run installs there. --full writes 1 GB of 100,000 keys, prints what stays of it,
and what a producer waits beside the cleaning against without. Ends with `N passed, N failed`.
"""

import gzip
import os
import random
import struct
import threading
import time

import kafka_wire
from chronik_process import Chronik
from confluent_kafka import Consumer, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from steady_producer import SteadyProducer
from verdicts import Verdicts, arguments

MIB = 1 << 20
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
CHECKPOINT_MIB = 1
SEGMENT = MIB
ENVIRONMENT = {
    "CHRONIK_CLEANER_PAUSE": "200ms", "CHRONIK_LOG_FILE_DELETE_DELAY": "0ms", "CHRONIK_JOURNAL_FILE_BYTES": str(16 * MIB),
    "CHRONIK_JOURNAL_CHECKPOINT_BYTES": str(CHECKPOINT_MIB * MIB), "CHRONIK_CLEANER_BYTES_PER_S": str(256 * MIB),
}
RATIO_MAX = 20
FILLER = kafka_wire.batch([os.urandom(MIB // 4)])
verdicts = Verdicts()


def create(broker, topic, **configs):
    with kafka_wire.Connection(broker.bootstrap) as connection:
        compacted = {"cleanup.policy": "compact", "segment.bytes": SEGMENT, "min.cleanable.dirty.ratio": 0.1, **configs}
        connection.create_topics([topic], partitions=1, configs=compacted)


def producer(broker, codec):
    return Producer({
        "bootstrap.servers": broker.bootstrap, "compression.type": codec, "enable.idempotence": True, "linger.ms": 5,
        "message.timeout.ms": 60_000, "log_level": 0,
    })


def write(client, topic, pairs, wrong, headers=None):
    def delivered(error, _):
        if error is not None:
            wrong.append(str(error))

    for key, value in pairs:
        while True:
            try:
                client.produce(topic, key=key, value=value, headers=headers, on_delivery=delivered)
                break
            except BufferError:
                client.poll(0.1)
        client.poll(0)


def read_all(broker, topic, name="confluent"):
    """Key to last value, records read, and the offsets."""
    last, offsets = {}, []
    if name == "confluent":
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "none", "enable.auto.commit": False, "log_level": 0})
        place = TopicPartition(topic, 0)
        _, end = consumer.get_watermark_offsets(place, timeout=10)
        place.offset = 0
        consumer.assign([place])
        until = time.monotonic() + 120
        while time.monotonic() < until:
            message = consumer.poll(1)
            if message is not None:
                assert message.error() is None, message.error()
                offsets.append(message.offset())
                last[message.key()] = message.value()
            if consumer.position([place])[0].offset >= end:
                break
        else:
            raise AssertionError(f"{topic}: not at {end} after 120 s, but at {offsets[-1:]}")
        consumer.close()
    else:
        import kafka

        consumer = kafka.KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
        place = kafka.TopicPartition(topic, 0)
        consumer.assign([place])
        consumer.seek(place, 0)
        end = consumer.end_offsets([place])[place]
        until = time.monotonic() + 120
        while consumer.position(place) < end:
            assert time.monotonic() < until, f"{topic}: not at {end} after 120 s, but at {consumer.position(place)}"
            for message in (m for some in consumer.poll(1000).values() for m in some):
                offsets.append(message.offset)
                last[message.key] = message.value
        consumer.close()
    assert offsets == sorted(set(offsets)), f"{topic}: offsets do not rise"
    return last, len(offsets), end


def until_small(broker, topic, wanted, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        found = read_all(broker, topic)
        if found[1] <= wanted or time.monotonic() > deadline:
            return found
        # What is in no segment yet is not cleaned: the journal grows until a checkpoint brings it there.
        with kafka_wire.Connection(broker.bootstrap) as connection:
            connection.create_topics(["filler"], partitions=1)
            for _ in range(CHECKPOINT_MIB * 4 + 1):
                connection.produce("filler", 0, FILLER)
        time.sleep(0.5)


def every_codec(broker, keys, rounds, kill):
    rng = random.Random(7)
    wanted, written = {codec: {} for codec in CODECS}, dict.fromkeys(CODECS, 0)
    clients = {codec: producer(broker, codec) for codec in CODECS}
    wrong = []
    for codec in CODECS:
        create(broker, f"of-{codec}", **{"delete.retention.ms": 500})
    for number in range(rounds):
        for codec in CODECS:
            some = [rng.randrange(keys) for _ in range(keys)]
            pairs = [(b"key-%d" % key, None if rng.random() < 0.1 else b"%d of round %d " % (key, number) + rng.randbytes(400)) for key in some]
            write(clients[codec], f"of-{codec}", pairs, wrong)
            wanted[codec].update(pairs)
            written[codec] += len(pairs)
        if kill and number == rounds // 2:
            broker.kill9()
            broker.start()
    for client in clients.values():
        assert client.flush(60) == 0, "not all was delivered"
    assert not wrong, wrong[:3]
    for codec in CODECS:
        with verdicts.case(f"{written[codec]} records of {keys} keys in {codec} shrink to the last of each" + (", broker killed" if kill else "")) as note:
            # What is not in a segment that ended is not cleaned.
            last, count, end = until_small(broker, f"of-{codec}", written[codec] // 2)
            note(f"{count} of {end} left")
            assert count <= written[codec] // 2, "too many"
            for reader in ("confluent", "kafka-python"):
                last, count, _ = read_all(broker, f"of-{codec}", reader)
                values = {key: value for key, value in wanted[codec].items() if value is not None}
                read = {key: value for key, value in last.items() if value is not None}
                assert read == values, f"{reader} reads {len(read)} keys, {len(values)} should be there; {sum(read.get(k) != v for k, v in values.items())} wrong"
    broker.kill9()
    broker.start()
    with verdicts.case("the same after kill -9") as note:
        for codec in CODECS:
            last, count, _ = read_all(broker, f"of-{codec}")
            note(f"{codec} {count}")
            assert {k: v for k, v in last.items() if v is not None} == {k: v for k, v in wanted[codec].items() if v is not None}, codec


def refused(broker):
    with verdicts.case("a record without a key is refused, and DeleteRecords too") as note:
        create(broker, "keys-only")
        wrong = []
        client = producer(broker, "gzip")
        write(client, "keys-only", [(None, b"value")], wrong)
        client.flush(30)
        note(wrong)
        assert len(wrong) == 1 and "rejected" in wrong[0].lower() or "invalid" in wrong[0].lower(), wrong
        with kafka_wire.Connection(broker.bootstrap) as connection:
            code = connection.delete_records("keys-only", 0, 0)
            note(f"DeleteRecords: {code}")
            assert code[1] == 44, "POLICY_VIOLATION"


def codecs_on_disk(broker, topic_id):
    """Names of the codecs of all batches that the broker has in segments of this topic, and how many batches."""
    found = []
    for path in sorted((broker.data_dir / "partitions").glob(f"{topic_id:032x}-0.*/*.log")):
        data = path.read_bytes()
        found += [data[at + 22] & 7 for at in batches_at(data)]
    return sorted({CODECS[codec] for codec in found}), len(found)


def topic_ids(broker, topics):
    # What it is asked ends with it.
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    ids = {topic: future.result(30).topic_id for topic, future in admin.describe_topics(TopicCollection(topics)).items()}
    half = (1 << 64) - 1
    return {
        topic: (one.get_most_significant_bits() & half) << 64 | one.get_least_significant_bits() & half for topic, one in ids.items()
    }


def batches_at(data):
    at = 0
    while at + 61 <= len(data):
        yield at
        at += 12 + int.from_bytes(data[at + 8:at + 12], "big")


def recompressed(broker):
    """Every codec sent to a topic that keeps another."""
    wanted = {"uncompressed": "none", "gzip": "gzip", "snappy": "snappy", "lz4": "lz4", "zstd": "zstd", "producer": None}
    rng, sent = random.Random(11), {}
    with kafka_wire.Connection(broker.bootstrap) as connection:
        for kind in wanted:
            connection.create_topics([f"keeps-{kind}"], partitions=1, configs={"compression.type": kind})
    for kind in wanted:
        with verdicts.case(f"a topic with compression.type={kind} is read back, whatever its producers send") as note:
            topic, wrong = f"keeps-{kind}", []
            # Of few letters and of all, and some of it larger than a block of any codec.
            sizes = [rng.choice([10, 500, 150_000]) for _ in range(60)]
            values = [bytes(rng.choices(b"abcde", k=size)) if rng.random() < 0.7 else rng.randbytes(size) for size in sizes]
            sent[topic] = {}
            for codec in CODECS:
                client = producer(broker, codec)
                pairs = [(f"{topic} {codec} {n}".encode(), value) for n, value in enumerate(values)]
                sent[topic].update(pairs)
                write(client, topic, pairs, wrong, headers=[("of", codec.encode()), ("none", None)])
                assert client.flush(60) == 0, "not all was delivered"
            assert not wrong, wrong[:3]
            for reader in ("confluent", "kafka-python"):
                last, count, _ = read_all(broker, topic, reader)
                note(f"{reader} {count}")
                assert count == len(sent[topic]) and last == sent[topic], f"{reader} reads {count} of {len(sent[topic])}, or others"
    with verdicts.case("what would be larger than max.message.bytes as it is kept is refused") as note:
        wrong = []
        with kafka_wire.Connection(broker.bootstrap) as connection:
            configs = {"compression.type": "uncompressed", "max.message.bytes": 100_000}
            connection.create_topics(["keeps-little"], partitions=1, configs=configs)
        client = producer(broker, "zstd")
        write(client, "keeps-little", [(b"key", b"a" * 200_000)], wrong)
        client.flush(60)
        note(wrong)
        assert len(wrong) == 1 and "large" in wrong[0].lower(), wrong
    ids = topic_ids(broker, [f"keeps-{kind}" for kind in wanted])
    # A polite stop brings all of it into segments.
    broker.stop()
    with verdicts.case("what lies on the disk has the codec that its topic asks for") as note:
        for kind, codec in wanted.items():
            found, batches = codecs_on_disk(broker, ids[f"keeps-{kind}"])
            note(f"{kind}: {'+'.join(found)} in {batches}")
            assert found == ([codec] if codec else sorted(CODECS)), f"{kind}: {found}"
    broker.start()


def opens_to_much(values, size):
    """A batch in gzip of so many records of one key, of zeros."""
    records = bytearray()
    for nth in range(values):
        body = b"\0\0" + kafka_wire.varint(nth) + kafka_wire.varint(1) + b"k" + kafka_wire.varint(size) + bytes(size) + b"\0"
        records += kafka_wire.varint(len(body)) + body
    now = int(time.time() * 1000)
    covered = struct.pack(">hiqqqhii", 1, values - 1, now, now, -1, -1, -1, values) + gzip.compress(records)
    crc = struct.pack(">I", kafka_wire.crc32c(covered))
    return struct.pack(">qiib", 0, len(covered) + 9, -1, 2) + crc + covered


def opened_at_once(broker, connections):
    with verdicts.case(f"{connections} connections send what opens to 27 MiB at once, and memory stays bounded") as note:
        create(broker, "opened")
        batch = opens_to_much(27, MIB)
        before, codes = broker.peak_mib(), []

        def send():
            with kafka_wire.Connection(broker.bootstrap, timeout_s=60) as connection:
                codes.append(connection.produce("opened", 0, batch, timeout_ms=30_000)[0])

        began = time.monotonic()
        senders = [threading.Thread(target=send) for _ in range(connections)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        note(f"{len(batch)} bytes each, {codes.count(0)} taken in {time.monotonic() - began:.1f} s")
        note(f"{before:.0f} MiB before, {broker.peak_mib():.0f} at most")
        # Who finds no room in time is told to try again.
        assert len(codes) == connections and set(codes) <= {0, 56} and codes.count(0) > 0, codes
        assert broker.peak_mib() < before + 64, "all of them were opened beside one another"


def large(broker, total_mib, keys):
    with verdicts.case(f"{total_mib} MiB of {keys} keys shrink to what is live") as note:
        create(broker, "large", **{"segment.bytes": 32 * MIB, "min.cleanable.dirty.ratio": 0.1})
        rng, value, wrong = random.Random(3), os.urandom(900), []
        client = producer(broker, "none")

        def size_mib():
            with kafka_wire.Connection(broker.bootstrap) as connection:
                return sum(size for (topic, _), size in connection.log_sizes().items() if topic == "large") / MIB

        began = time.monotonic()
        for _ in range(total_mib):
            write(client, "large", [(b"%d" % rng.randrange(keys), value) for _ in range(MIB // 960)], wrong)
        assert client.flush(120) == 0 and not wrong, wrong[:2]
        note(f"written in {time.monotonic() - began:.0f} s, {size_mib():.0f} MiB of log then")
        # Batches, too, have heads.
        live = keys * 960 / MIB
        best, until = size_mib(), time.monotonic() + 120
        while best > live * 1.4 and time.monotonic() < until:
            # What was written last is in no segment that ended.
            write(client, "large", [(b"%d" % rng.randrange(keys), value) for _ in range(300)], wrong)
            time.sleep(0.5)
            best = min(best, size_mib())
        note(f"{best:.0f} MiB at least, {live:.0f} are live: {best / live:.2f} x")
        assert best < live * 1.5 and not wrong, wrong[:2]


def beside(broker, windows, window_s):
    with verdicts.case("a producer beside cleanings, against without") as note:
        p99 = {"deleted": [], "compacted": []}
        with kafka_wire.Connection(broker.bootstrap) as connection:
            connection.create_topics(["steady-one"], partitions=1)
            connection.create_topics(["deleted"], partitions=1, configs={"segment.bytes": 8 * MIB})
        create(broker, "compacted", **{"segment.bytes": 8 * MIB, "min.cleanable.dirty.ratio": 0.01})
        rng, value, wrong = random.Random(5), os.urandom(900), []
        client = producer(broker, "none")
        with SteadyProducer(broker.bootstrap, "steady-one", pause_s=0.001) as steady:
            for nth in range(2 * windows):
                topic = ["deleted", "compacted"][nth % 2]
                began = time.monotonic()
                while time.monotonic() - began < window_s:
                    write(client, topic, [(b"%d" % rng.randrange(20_000), value) for _ in range(2_000)], wrong)
                    client.flush(60)
                p99[topic].append(steady.between(began, time.monotonic()).quantile_ms(0.99))
        ratios = sorted(one / other for one, other in zip(p99["compacted"], p99["deleted"]))
        note(f"p99 without {[round(p, 2) for p in p99['deleted']]} ms, beside {[round(p, 2) for p in p99['compacted']]} ms")
        note(f"ratios {[round(r, 2) for r in ratios]}, median {ratios[len(ratios) // 2]:.2f}")
        assert ratios[len(ratios) // 2] < RATIO_MAX


def main():
    options = arguments(__doc__).parse_args()
    with Chronik(disk=options.disk, environment=ENVIRONMENT) as broker:
        every_codec(broker, 500, 24, kill=True)
        refused(broker)
        recompressed(broker)
        opened_at_once(broker, 100)
        if options.full:
            beside(broker, 5, 10)
            large(broker, 1024, 100_000)
        verdicts.report("no panic", not broker.panics(), "; ".join(broker.panics()[:3]))
    verdicts.finish()


if __name__ == "__main__":
    main()
