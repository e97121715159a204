// kafkajs: create, produce (acks=all; idempotent where told), read back, seek by timestamp. What is written and what must come
// back is what ../python/roundtrip.py says.
"use strict";

const { Kafka, CompressionTypes, logLevel } = require("kafkajs");

const PARTITIONS = 3;
const options = {};
for (let i = 2; i + 1 < process.argv.length; i += 2) options[process.argv[i].slice(2)] = process.argv[i + 1];
const records = Number(options.records);
const baseMs = Number(options["base-ms"]);
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP };

function value(i) {
  let text = `${String(i).padStart(10, "0")}:`;
  for (let j = 0; j < 89; j++) text += String.fromCharCode(97 + ((i + j) % 26));
  return text;
}

function fail(text) {
  console.log(`FAILED: ${text}`);
  process.exit(1);
}

async function produce(kafka) {
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: options.topic, numPartitions: PARTITIONS, replicationFactor: 1 }] });
  await admin.disconnect();
  const producer = kafka.producer({ idempotent: options.idempotence === "on", maxInFlightRequests: 1 });
  await producer.connect();
  for (let from = 0; from < records; from += 500) {
    const messages = [];
    for (let i = from; i < Math.min(from + 500, records); i++) {
      messages.push({ key: `k${i}`, value: value(i), timestamp: String(baseMs + i) });
    }
    await producer.send({ topic: options.topic, acks: -1, compression: codecs[options.codec], messages });
  }
  await producer.disconnect();
}

async function readBack(kafka) {
  const read = Array.from({ length: PARTITIONS }, () => []);
  const seen = new Set();
  const consumer = kafka.consumer({ groupId: `reads-${options.topic}` });
  await consumer.connect();
  await consumer.subscribe({ topic: options.topic, fromBeginning: true });
  await new Promise((complete) => {
    setTimeout(() => fail(`${seen.size} of ${records} records after 150 s`), 150000).unref();
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        const i = Number(message.key.toString().slice(1));
        const before = read[partition];
        if (Number(message.offset) !== before.length) fail(`partition ${partition}: offset ${message.offset}, due was ${before.length}`);
        if (seen.has(i) || (before.length > 0 && i <= before[before.length - 1])) fail(`partition ${partition}: record ${i} twice or late`);
        if (message.value.toString() !== value(i)) fail(`record ${i}: content differs`);
        if (Number(message.timestamp) !== baseMs + i) fail(`record ${i}: timestamp ${message.timestamp}`);
        seen.add(i);
        before.push(i);
        if (seen.size === records) complete();
      },
    });
  });
  await consumer.disconnect();
  return read;
}

async function seek(kafka, read) {
  const admin = kafka.admin();
  await admin.connect();
  const half = Math.floor(records / 2);
  const sought = await admin.fetchTopicOffsetsByTimestamp(options.topic, baseMs + half);
  if (sought.length !== PARTITIONS) fail(`a time was sought in ${PARTITIONS} partitions, and told in ${sought.length}`);
  for (const { partition, offset } of sought) {
    // Nothing that late: kafkajs answers with the end.
    const found = read[partition].findIndex((i) => i >= half);
    const due = found < 0 ? read[partition].length : found;
    if (Number(offset) !== due) fail(`partition ${partition}: seek gave offset ${offset}, due was ${due}`);
  }
  await admin.disconnect();
}

async function main() {
  if (!(records > 0 && baseMs > 0)) fail("--records and --base-ms are numbers above 0");
  const kafka = new Kafka({ brokers: [options.bootstrap], logLevel: logLevel.NOTHING });
  await produce(kafka);
  const read = await readBack(kafka);
  await seek(kafka, read);
  console.log(`ok: ${records} records (${read.map((one) => one.length).join("/")})`);
  process.exit(0);
}

main().catch((error) => fail(error.stack || error));
