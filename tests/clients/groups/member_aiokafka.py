"""aiokafka: a member of a group."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

import member


async def main():
    options = member.arguments()
    leaving = member.leaving()
    consumer = AIOKafkaConsumer(
        options.topic, bootstrap_servers=options.bootstrap, group_id=options.group, auto_offset_reset="earliest",
        enable_auto_commit=False, session_timeout_ms=6000, heartbeat_interval_ms=1000,
    )
    await consumer.start()
    told = None
    while not leaving.is_set():
        batches = await consumer.getmany(timeout_ms=200)
        now = {p.partition for p in consumer.assignment()}
        if now != told:
            member.assigned(now)
            told = now
        for records in batches.values():
            for record in records:
                member.say("R", record.partition, record.offset)
        if batches:
            try:
                await consumer.commit()
                member.say("C")
            except KafkaError:
                pass
    await consumer.stop()
    return 0


sys.exit(asyncio.run(main()))
