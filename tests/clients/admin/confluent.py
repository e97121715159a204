"""confluent-kafka's admin calls (librdkafka), one after another; prints a line for each thing that the broker answers."""

import sys

from confluent_kafka import KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource, NewPartitions, NewTopic, OffsetSpec, ResourceType,
)

bootstrap = sys.argv[1]
admin = AdminClient({"bootstrap.servers": bootstrap})
SHOWN = ["cleanup.policy", "max.message.bytes", "message.timestamp.type", "retention.bytes", "retention.ms"]


def say(what, *more):
    print(what + ":", *more, flush=True)


def tell(what, futures, show=lambda result: "done"):
    for key, future in futures.items():
        try:
            say(f"{what} {key}", show(future.result(30)))
        except KafkaException as error:
            say(f"{what} {key}", error.args[0].name(), error.args[0].str())


def topic(name, partitions=2, **config):
    return NewTopic(name, partitions, 1, config=config)


tell("create", admin.create_topics([topic("plain"), topic("short", 3, **{"retention.ms": "60000"})]))
tell("create again", admin.create_topics([topic("plain")]))
tell("create, only checked", admin.create_topics([topic("never")], validate_only=True))
for wrong in (topic("bad name"), topic("none", 0), NewTopic("many", 1, 7), topic("odd", **{"retention.ms": "soon"})):
    tell("create wrong", admin.create_topics([wrong]))

tell("add partitions", admin.create_partitions([NewPartitions("plain", 4)]))
tell("add fewer", admin.create_partitions([NewPartitions("plain", 3)]))
tell("add to nothing", admin.create_partitions([NewPartitions("nowhere", 3)]))


def topics():
    found = admin.list_topics(timeout=30).topics
    for name in sorted(found):
        partitions = found[name].partitions
        say(f"topic {name}", [(p, partitions[p].leader, partitions[p].replicas, partitions[p].isrs) for p in sorted(partitions)])


def configs(kind, name, names):
    for resource, future in admin.describe_configs([ConfigResource(kind, name)]).items():
        try:
            found = future.result(30)
        except KafkaException as error:
            say(f"configs of {resource.name}", error.args[0].name(), error.args[0].str())
            continue
        for one in names:
            entry = found[one]
            source = ConfigSource(entry.source).name
            say(f"config {name} {one}", entry.value, source, f"read-only {entry.is_read_only}", f"default {entry.is_default}",
                [(synonym.name, synonym.value, ConfigSource(synonym.source).name) for synonym in entry.synonyms.values()])


topics()
configs(ResourceType.TOPIC, "short", SHOWN)
configs(ResourceType.TOPIC, "nowhere", [])
configs(ResourceType.BROKER, "1", ["log.retention.ms", "message.max.bytes", "auto.create.topics.enable"])


def alter(what, *entries, kind=ResourceType.TOPIC, name="short"):
    tell(what, admin.incremental_alter_configs([ConfigResource(kind, name, incremental_configs=list(entries))]))


def entry(name, value, how):
    return ConfigEntry(name, value, incremental_operation=how)


alter("set", entry("retention.ms", "120000", AlterConfigOpType.SET), entry("retention.bytes", "1000000", AlterConfigOpType.SET))
configs(ResourceType.TOPIC, "short", ["retention.ms", "retention.bytes"])
alter("delete", entry("retention.bytes", None, AlterConfigOpType.DELETE))
alter("append to a list", entry("cleanup.policy", "delete", AlterConfigOpType.APPEND))
alter("append to a number", entry("retention.ms", "1", AlterConfigOpType.APPEND))
alter("set to nonsense", entry("retention.ms", "soon", AlterConfigOpType.SET))
alter("set what is not", entry("no.such.config", "1", AlterConfigOpType.SET))
alter("set of nothing", entry("retention.ms", "1", AlterConfigOpType.SET), name="nowhere")
alter("set for the broker", entry("log.retention.ms", "3600000", AlterConfigOpType.SET), kind=ResourceType.BROKER, name="1")
configs(ResourceType.TOPIC, "plain", ["retention.ms"])
alter("back for the broker", entry("log.retention.ms", None, AlterConfigOpType.DELETE), kind=ResourceType.BROKER, name="1")
alter("set what is read-only", entry("num.partitions", "9", AlterConfigOpType.SET), kind=ResourceType.BROKER, name="1")
configs(ResourceType.TOPIC, "short", SHOWN)

producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
for n in range(10):
    producer.produce("plain", value=b"value", partition=0)
producer.flush(30)


def offsets(what, spec):
    for one, future in admin.list_offsets({TopicPartition("plain", 0): spec}).items():
        say(f"{what} offset", future.result(30).offset)


offsets("earliest", OffsetSpec.earliest())
offsets("latest", OffsetSpec.latest())
tell("delete records", admin.delete_records([TopicPartition("plain", 0, 4)]), lambda result: result.low_watermark)
offsets("earliest", OffsetSpec.earliest())
tell("delete too many", admin.delete_records([TopicPartition("plain", 0, 40)]), lambda result: result.low_watermark)
tell("delete all records", admin.delete_records([TopicPartition("plain", 0, -1)]), lambda result: result.low_watermark)
tell("delete of nothing", admin.delete_records([TopicPartition("nowhere", 0, 1)]), lambda result: result.low_watermark)
offsets("earliest", OffsetSpec.earliest())

cluster = admin.describe_cluster().result(30)
say("cluster", [node.id for node in cluster.nodes], "controller", cluster.controller.id)
for name, future in admin.describe_topics(TopicCollection(["plain", "short"])).items():
    described = future.result(30)
    say(f"described {name}", described.is_internal, [(p.id, p.leader.id, [r.id for r in p.replicas]) for p in described.partitions])

tell("drop", admin.delete_topics(["plain", "short"]))
tell("drop again", admin.delete_topics(["plain"]))
