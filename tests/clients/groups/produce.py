"""BOOTSTRAP TOPIC PARTITIONS RECORDS FIRST: makes the topic, if it is not there, and writes records to each of its partitions in turn."""

import sys

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap, topic = sys.argv[1:3]
partitions, records, first = map(int, sys.argv[3:6])
admin = AdminClient({"bootstrap.servers": bootstrap})
try:
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(60)
except KafkaException as error:
    if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
        raise
producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
failures = []
for i in range(first, first + records):
    producer.produce(topic, value=str(i), partition=i % partitions, on_delivery=lambda error, _: failures.append(error) if error else None)
left = producer.flush(60)
sys.exit(f"{left} records not delivered, {failures[:1]}" if left or failures else 0)
