"""kafka-python 3: create, produce, read back, seek by timestamp."""

import sys
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

import roundtrip


def produce(options):
    configuration = {"bootstrap_servers": options.bootstrap}
    if options.codec != "none":
        configuration["compression_type"] = options.codec
    if options.idempotence == "on":
        configuration["enable_idempotence"] = True
    producer = KafkaProducer(**configuration)
    futures = [
        producer.send(
            options.topic, key=roundtrip.key(i), value=roundtrip.value(i), timestamp_ms=options.base_ms + i
        )
        for i in range(options.records)
    ]
    producer.flush(timeout=120)
    for future in futures:
        future.get(timeout=30)
    producer.close()


def read_back(options):
    readback = roundtrip.Readback(options)
    consumer = KafkaConsumer(bootstrap_servers=options.bootstrap, group_id=None, auto_offset_reset="earliest")
    partitions = [TopicPartition(options.topic, p) for p in range(roundtrip.PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    until = time.monotonic() + 120
    while not readback.complete() and time.monotonic() < until:
        for records in consumer.poll(timeout_ms=1000, max_records=5000).values():
            for record in records:
                readback.add(record.partition, record.offset, record.timestamp, record.key, record.value)
    readback.check()
    target = readback.seek_target_ms()
    found = consumer.offsets_for_times({partition: target for partition in partitions})
    for partition in partitions:
        hit = found.get(partition)
        readback.check_seek(partition.partition, hit.offset if hit else None)
    ends = consumer.end_offsets(partitions)
    for partition in partitions:
        if ends[partition] != len(readback.partitions[partition.partition]):
            roundtrip.fail(f"partition {partition.partition}: end offset {ends[partition]}")
    consumer.close()
    readback.done()


def main():
    options = roundtrip.arguments()
    if not options.read_only:
        admin = KafkaAdminClient(bootstrap_servers=options.bootstrap)
        admin.create_topics({options.topic: {"num_partitions": roundtrip.PARTITIONS}})
        admin.close()
        produce(options)
    read_back(options)
    return 0


sys.exit(main())
