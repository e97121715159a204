// kafkajs: a member of a group, which says what it is assigned, reads and commits.
"use strict";

const { Kafka, logLevel } = require("kafkajs");

const options = {};
for (let i = 2; i + 1 < process.argv.length; i += 2) options[process.argv[i].slice(2)] = process.argv[i + 1];

async function main() {
  const kafka = new Kafka({ brokers: [options.bootstrap], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 100, retries: 60 } });
  const consumer = kafka.consumer({ groupId: options.group, sessionTimeout: 6000, heartbeatInterval: 1000, rebalanceTimeout: 30000 });
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    const partitions = payload.memberAssignment[options.topic] || [];
    console.log(`A ${[...partitions].sort((a, b) => a - b).join(",")}`);
  });
  consumer.on(consumer.events.COMMIT_OFFSETS, () => console.log("C"));
  await consumer.connect();
  await consumer.subscribe({ topic: options.topic, fromBeginning: true });
  await consumer.run({
    autoCommitThreshold: 1,
    eachMessage: async ({ partition, message }) => console.log(`R ${partition} ${message.offset}`),
  });
  process.stdin.resume();
  process.stdin.on("end", async () => {
    await consumer.disconnect();
    process.exit(0);
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
