package chronik;

import java.io.IOException;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** kafka-clients: a member of a group, which says what it is assigned, reads and commits. */
public final class Member {
    private Member() {}

    public static void main(String[] arguments) {
        Map<String, String> options = new HashMap<>();
        for (int i = 0; i + 1 < arguments.length; i += 2) {
            options.put(arguments[i].substring(2), arguments[i + 1]);
        }
        AtomicBoolean leaving = new AtomicBoolean();
        Thread listening = new Thread(() -> {
            try {
                while (System.in.read() >= 0) { }
            } catch (IOException over) {
                // It has ended as well.
            }
            leaving.set(true);
        });
        listening.setDaemon(true);
        listening.start();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties(options))) {
            consumer.subscribe(List.of(options.get("topic")));
            Set<Integer> told = null;
            while (!leaving.get()) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(200));
                Set<Integer> now = consumer.assignment().stream().map(TopicPartition::partition)
                    .collect(Collectors.toCollection(TreeSet::new));
                if (!now.equals(told)) {
                    say("A " + now.stream().map(String::valueOf).collect(Collectors.joining(",")));
                    told = now;
                }
                records.forEach(record -> say("R " + record.partition() + " " + record.offset()));
                if (!records.isEmpty()) {
                    commit(consumer);
                }
            }
        }
    }

    private static void commit(KafkaConsumer<byte[], byte[]> consumer) {
        try {
            consumer.commitSync();
            say("C");
        } catch (KafkaException refused) {
            // Somebody else has it by now, or the coordinator is away: it is read again, or committed with the next.
        }
    }

    private static Properties properties(Map<String, String> options) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", options.get("bootstrap"));
        properties.put("group.id", options.get("group"));
        properties.put("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        properties.put("key.deserializer", ByteArrayDeserializer.class.getName());
        properties.put("value.deserializer", ByteArrayDeserializer.class.getName());
        if (options.get("mode").equals("consumer")) {
            properties.put("group.protocol", "consumer");
        } else {
            String assignor = options.get("mode").equals("cooperative") ? "CooperativeStickyAssignor" : "RangeAssignor";
            properties.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor);
            properties.put("session.timeout.ms", "6000");
            properties.put("heartbeat.interval.ms", "1000");
        }
        if (options.containsKey("instance")) {
            properties.put("group.instance.id", options.get("instance"));
        }
        return properties;
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
