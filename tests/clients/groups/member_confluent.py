"""confluent-kafka: a member of a group."""

import sys

from confluent_kafka import Consumer, KafkaException

import member

options = member.arguments()
leaving = member.leaving()
configuration = {
    "bootstrap.servers": options.bootstrap, "group.id": options.group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
}
if options.mode == "consumer":
    configuration["group.protocol"] = "consumer"
else:
    strategy = "cooperative-sticky" if options.mode == "cooperative" else "range"
    configuration.update({"partition.assignment.strategy": strategy, "session.timeout.ms": 6000, "heartbeat.interval.ms": 1000})
if options.instance:
    configuration["group.instance.id"] = options.instance
consumer = Consumer(configuration)
consumer.subscribe([options.topic])
told = None
while not leaving.is_set():
    record = consumer.poll(0.2)
    now = {p.partition for p in consumer.assignment()}
    if now != told:
        member.assigned(now)
        told = now
    if record is None or record.error():
        continue
    member.say("R", record.partition(), record.offset())
    try:
        consumer.commit(record, asynchronous=False)
        member.say("C")
    except KafkaException:
        # Somebody else has it by now, or the coordinator is away: it is read again, or committed with the next.
        pass
consumer.close()
sys.exit(0)
