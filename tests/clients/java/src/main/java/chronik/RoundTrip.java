package chronik;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** kafka-clients at its defaults (idempotent, acks=all): create, produce, read back, seek by timestamp. */
public final class RoundTrip {
    private static final int PARTITIONS = 3;

    private final Map<String, String> options;
    private final String topic;
    private final int records;
    private final long baseMs;

    private RoundTrip(Map<String, String> options) {
        this.options = options;
        topic = options.get("topic");
        records = Integer.parseInt(options.get("records"));
        baseMs = Long.parseLong(options.get("base-ms"));
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (int i = 0; i + 1 < arguments.length; i += 2) {
            options.put(arguments[i].replaceFirst("^--", ""), arguments[i + 1]);
        }
        RoundTrip trip = new RoundTrip(options);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.get("bootstrap")))) {
            // Without a replication factor: the broker's default, as people create topics today.
            NewTopic created = new NewTopic(trip.topic, java.util.Optional.of(PARTITIONS), java.util.Optional.empty());
            admin.createTopics(List.of(created)).all().get(60, TimeUnit.SECONDS);
        }
        trip.produce();
        trip.readBack();
    }

    private static String value(int i) {
        StringBuilder text = new StringBuilder(String.format("%010d:", i));
        for (int j = 0; j < 89; j++) {
            text.append((char) (97 + (i + j) % 26));
        }
        return text.toString();
    }

    private static void fail(String text) {
        System.out.println("FAILED: " + text);
        System.exit(1);
    }

    private Properties properties() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", options.get("bootstrap"));
        return properties;
    }

    private void produce() throws Exception {
        Properties properties = properties();
        properties.put("key.serializer", ByteArraySerializer.class.getName());
        properties.put("value.serializer", ByteArraySerializer.class.getName());
        if (!options.get("codec").equals("none")) {
            properties.put("compression.type", options.get("codec"));
        }
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties)) {
            for (int i = 0; i < records; i++) {
                byte[] key = ("k" + i).getBytes(StandardCharsets.UTF_8);
                byte[] value = value(i).getBytes(StandardCharsets.UTF_8);
                sent.add(producer.send(new ProducerRecord<>(topic, null, baseMs + i, key, value)));
            }
            producer.flush();
            for (Future<RecordMetadata> future : sent) {
                future.get(60, TimeUnit.SECONDS);
            }
        }
    }

    private void readBack() {
        Properties properties = properties();
        properties.put("key.deserializer", ByteArrayDeserializer.class.getName());
        properties.put("value.deserializer", ByteArrayDeserializer.class.getName());
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties)) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (int p = 0; p < PARTITIONS; p++) {
                partitions.add(new TopicPartition(topic, p));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            boolean[] seen = new boolean[records];
            int[] last = {-1, -1, -1};
            long[] next = new long[PARTITIONS];
            Long[] due = new Long[PARTITIONS];
            long target = baseMs + records / 2;
            int count = 0;
            long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(120);
            while (count < records && System.nanoTime() < until) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    int p = record.partition();
                    int i = Integer.parseInt(new String(record.key(), StandardCharsets.UTF_8).substring(1));
                    if (i >= records || seen[i]) {
                        fail("record " + i + " twice or never sent");
                    }
                    if (record.offset() != next[p]) {
                        fail("partition " + p + ": offset " + record.offset() + " where " + next[p] + " was due");
                    }
                    if (i <= last[p]) {
                        fail("partition " + p + ": record " + i + " after " + last[p]);
                    }
                    if (!new String(record.value(), StandardCharsets.UTF_8).equals(value(i))) {
                        fail("record " + i + ": content differs");
                    }
                    if (record.timestamp() != baseMs + i) {
                        fail("record " + i + ": timestamp " + record.timestamp());
                    }
                    if (due[p] == null && record.timestamp() >= target) {
                        due[p] = record.offset();
                    }
                    seen[i] = true;
                    last[p] = i;
                    next[p]++;
                    count++;
                }
            }
            if (count != records) {
                fail(count + " of " + records + " records read within 120 s");
            }
            Map<TopicPartition, Long> wanted = new HashMap<>();
            partitions.forEach(partition -> wanted.put(partition, target));
            consumer.offsetsForTimes(wanted).forEach((partition, found) -> {
                Long offset = found == null ? null : found.offset();
                if (!java.util.Objects.equals(offset, due[partition.partition()])) {
                    fail(partition + ": seek gave " + offset + ", due was " + due[partition.partition()]);
                }
            });
            consumer.endOffsets(partitions).forEach((partition, end) -> {
                if (end != next[partition.partition()]) {
                    fail(partition + ": end offset " + end);
                }
            });
            System.out.printf("ok: %d records (%d/%d/%d)%n", count, next[0], next[1], next[2]);
        }
    }
}
