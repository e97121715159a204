"""aiokafka: create, produce, read back, seek by timestamp."""

import asyncio
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import roundtrip


async def create(options):
    admin = AIOKafkaAdminClient(bootstrap_servers=options.bootstrap)
    await admin.start()
    answer = await admin.create_topics(
        [NewTopic(options.topic, num_partitions=roundtrip.PARTITIONS, replication_factor=1)]
    )
    for topic in answer.topic_errors:
        if topic[1] != 0:
            roundtrip.fail(f"create topic: {topic}")
    await admin.close()


async def produce(options):
    configuration = {"bootstrap_servers": options.bootstrap}
    if options.codec != "none":
        configuration["compression_type"] = options.codec
    if options.idempotence == "on":
        configuration["enable_idempotence"] = True
    else:
        configuration["acks"] = "all"
    producer = AIOKafkaProducer(**configuration)
    await producer.start()
    futures = [
        await producer.send(
            options.topic, key=roundtrip.key(i), value=roundtrip.value(i), timestamp_ms=options.base_ms + i
        )
        for i in range(options.records)
    ]
    await asyncio.wait_for(producer.flush(), 120)
    await asyncio.gather(*futures)
    await producer.stop()


async def read_back(options):
    readback = roundtrip.Readback(options)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=options.bootstrap, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    partitions = [TopicPartition(options.topic, p) for p in range(roundtrip.PARTITIONS)]
    consumer.assign(partitions)
    until = time.monotonic() + 120
    while not readback.complete() and time.monotonic() < until:
        batches = await consumer.getmany(timeout_ms=1000, max_records=5000)
        for records in batches.values():
            for record in records:
                readback.add(record.partition, record.offset, record.timestamp, record.key, record.value)
    readback.check()
    target = readback.seek_target_ms()
    found = await consumer.offsets_for_times({partition: target for partition in partitions})
    for partition in partitions:
        hit = found.get(partition)
        readback.check_seek(partition.partition, hit.offset if hit else None)
    await consumer.stop()
    readback.done()


async def run(options):
    if not options.read_only:
        await create(options)
        await produce(options)
    await read_back(options)


def main():
    asyncio.run(run(roundtrip.arguments()))
    return 0


sys.exit(main())
