package chronik;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * What a schema registry does with its topic: one partition that is compacted, read from the start into a map before anything is
 * answered, written with all acknowledgements, and read up to what was written before a write is answered.
 *
 * <p>{@code Registry BOOTSTRAP}: {@code put KEY VALUE} is answered {@code ok} or {@code failed WHY}, {@code delete KEY} the same,
 * {@code all} with a line for each key and {@code end}. Says {@code ready N} when it has read the topic. A process is to be started
 * anew to see what it kept.
 */
public final class Registry {
    private static final String TOPIC = "_schemas";
    private static final TopicPartition PARTITION = new TopicPartition(TOPIC, 0);
    private static final String NOOP = "noop";

    private final Map<String, String> store = new TreeMap<>();
    private final KafkaProducer<String, String> producer;
    private final KafkaConsumer<String, String> consumer;

    private Registry(String bootstrap) {
        Properties writes = new Properties();
        writes.put("bootstrap.servers", bootstrap);
        writes.put("acks", "all");
        writes.put("retries", 0);
        writes.put("enable.idempotence", false);
        writes.put("delivery.timeout.ms", 10_000);
        writes.put("request.timeout.ms", 5_000);
        producer = new KafkaProducer<>(writes, new StringSerializer(), new StringSerializer());
        Properties reads = new Properties();
        reads.put("bootstrap.servers", bootstrap);
        reads.put("enable.auto.commit", false);
        reads.put("auto.offset.reset", "earliest");
        consumer = new KafkaConsumer<>(reads, new StringDeserializer(), new StringDeserializer());
    }

    public static void main(String[] arguments) throws Exception {
        createOrCheck(arguments[0]);
        Registry registry = new Registry(arguments[0]);
        registry.consumer.assign(List.of(PARTITION));
        registry.consumer.seekToBeginning(List.of(PARTITION));
        registry.readUpTo(registry.write(NOOP, null));
        say("ready " + registry.store.size());
        BufferedReader asked = new BufferedReader(new InputStreamReader(System.in));
        for (String line = asked.readLine(); line != null; line = asked.readLine()) {
            registry.answer(line.split(" ", 3));
        }
        Runtime.getRuntime().halt(0);
    }

    /** As registries do: a topic that is not compacted would forget schemas after its retention. */
    private static void createOrCheck(String bootstrap) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            try {
                NewTopic topic = new NewTopic(TOPIC, 1, (short) 1);
                // A segment ends often, and is cleaned at once: what is read from the start is what cleaning left.
                topic.configs(Map.of(
                        "cleanup.policy", "compact", "segment.ms", "1000", "min.cleanable.dirty.ratio", "0.01"));
                admin.createTopics(Set.of(topic)).all().get(30, TimeUnit.SECONDS);
            } catch (ExecutionException failure) {
                if (!(failure.getCause() instanceof TopicExistsException)) {
                    throw failure;
                }
                ConfigResource of = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
                String policy = admin.describeConfigs(Set.of(of)).all().get(30, TimeUnit.SECONDS).get(of)
                        .get("cleanup.policy").value();
                if (!policy.equals("compact")) {
                    throw new IllegalStateException("the cleanup policy is " + policy);
                }
            }
        }
    }

    private void answer(String[] asked) {
        try {
            switch (asked[0]) {
                case "put" -> readUpTo(write(asked[1], asked[2]));
                case "delete" -> readUpTo(write(asked[1], null));
                default -> {
                    store.forEach((key, value) -> say(key + " " + value));
                    say("end");
                    return;
                }
            }
            say("ok");
        } catch (Exception failure) {
            say("failed " + failure.toString().lines().findFirst().orElse("?"));
        }
    }

    private long write(String key, String value) throws ExecutionException, InterruptedException, TimeoutException {
        return producer.send(new ProducerRecord<>(TOPIC, 0, key, value)).get(15, TimeUnit.SECONDS).offset();
    }

    private void readUpTo(long offset) throws TimeoutException {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        while (consumer.position(PARTITION) <= offset) {
            if (System.nanoTime() > until) {
                throw new TimeoutException("what was written is not read back");
            }
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                if (record.value() == null) {
                    store.remove(record.key());
                } else {
                    store.put(record.key(), record.value());
                }
            }
        }
    }

    private static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
