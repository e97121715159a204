"""confluent-kafka (librdkafka): create, produce, read back, seek by timestamp."""

import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import roundtrip


def produce(options):
    configuration = {"bootstrap.servers": options.bootstrap}
    if options.codec != "none":
        configuration["compression.type"] = options.codec
    if options.idempotence == "on":
        configuration["enable.idempotence"] = True
    producer = Producer(configuration)
    acknowledged = 0

    def delivered(error, message):
        nonlocal acknowledged
        if error is not None:
            roundtrip.fail(f"produce: {error}")
        acknowledged += 1

    for i in range(options.records):
        while True:
            try:
                producer.produce(
                    options.topic, key=roundtrip.key(i), value=roundtrip.value(i),
                    timestamp=options.base_ms + i, on_delivery=delivered,
                )
                break
            except BufferError:
                producer.poll(0.1)
        if i % 1000 == 0:
            producer.poll(0)
    left = producer.flush(60)
    if left or acknowledged != options.records:
        roundtrip.fail(f"{acknowledged} of {options.records} acknowledged, {left} left after 60 s")


def read_back(options):
    readback = roundtrip.Readback(options)
    # librdkafka wants a group's name even where partitions are assigned by hand and nothing is committed.
    consumer = Consumer({"bootstrap.servers": options.bootstrap, "group.id": "unused", "enable.auto.commit": False})
    consumer.assign([TopicPartition(options.topic, p, 0) for p in range(roundtrip.PARTITIONS)])
    until = time.monotonic() + 120
    while not readback.complete() and time.monotonic() < until:
        for message in consumer.consume(1000, timeout=0.2):
            if message.error():
                raise KafkaException(message.error())
            readback.add(message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value())
    readback.check()
    target = readback.seek_target_ms()
    wanted = [TopicPartition(options.topic, p, target) for p in range(roundtrip.PARTITIONS)]
    for found in consumer.offsets_for_times(wanted, timeout=30):
        readback.check_seek(found.partition, found.offset if found.offset >= 0 else None)
        if found.offset >= 0:
            consumer.assign([TopicPartition(options.topic, found.partition, found.offset)])
            message = consumer.poll(30)
            if message is None or message.error() or message.offset() != found.offset:
                roundtrip.fail(f"nothing at offset {found.offset} of partition {found.partition} after the seek")
    for partition in range(roundtrip.PARTITIONS):
        low, high = consumer.get_watermark_offsets(TopicPartition(options.topic, partition), timeout=30)
        if (low, high) != (0, len(readback.partitions[partition])):
            roundtrip.fail(f"partition {partition}: watermarks {low}..{high}")
    consumer.close()
    readback.done()


def main():
    options = roundtrip.arguments()
    if not options.read_only:
        admin = AdminClient({"bootstrap.servers": options.bootstrap})
        for future in admin.create_topics([NewTopic(options.topic, roundtrip.PARTITIONS)]).values():
            future.result(30)
        produce(options)
    read_back(options)
    return 0


sys.exit(main())
