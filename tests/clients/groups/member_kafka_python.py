"""kafka-python: a member of a group."""

import sys

from kafka import KafkaConsumer
from kafka.errors import KafkaError

import member

options = member.arguments()
leaving = member.leaving()
consumer = KafkaConsumer(
    options.topic, bootstrap_servers=options.bootstrap, group_id=options.group, auto_offset_reset="earliest",
    enable_auto_commit=False, session_timeout_ms=6000, heartbeat_interval_ms=1000,
)
told = None
while not leaving.is_set():
    batches = consumer.poll(timeout_ms=200)
    now = {p.partition for p in consumer.assignment()}
    if now != told:
        member.assigned(now)
        told = now
    for records in batches.values():
        for record in records:
            member.say("R", record.partition, record.offset)
    if batches:
        try:
            consumer.commit()
            member.say("C")
        except KafkaError:
            pass
consumer.close()
sys.exit(0)
