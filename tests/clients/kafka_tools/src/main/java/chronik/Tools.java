package chronik;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's own command line tools one after the other in one JVM: each would need a second to start one of its own.
 *
 * <p>{@code Tools BOOTSTRAP COMMANDS}: prints each command of the file, what it says (both streams, as it comes) and its
 * exit status.
 */
public final class Tools {
    private static final Map<String, String> MAIN = Map.ofEntries(
            Map.entry("kafka-topics", "org.apache.kafka.tools.TopicCommand"),
            Map.entry("kafka-configs", "kafka.admin.ConfigCommand"),
            Map.entry("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
            Map.entry("kafka-delete-records", "org.apache.kafka.tools.DeleteRecordsCommand"),
            Map.entry("kafka-log-dirs", "org.apache.kafka.tools.LogDirsCommand"),
            Map.entry("kafka-broker-api-versions", "org.apache.kafka.tools.BrokerApiVersionsCommand"),
            Map.entry("kafka-features", "org.apache.kafka.tools.FeatureCommand"),
            Map.entry("kafka-leader-election", "org.apache.kafka.tools.LeaderElectionCommand"),
            Map.entry("kafka-consumer-groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
            Map.entry("kafka-reassign-partitions", "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"),
            Map.entry("kafka-console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
            Map.entry("kafka-consumer-perf-test", "org.apache.kafka.tools.ConsumerPerformance"),
            Map.entry("kafka-verifiable-producer", "org.apache.kafka.tools.VerifiableProducer"),
            Map.entry("kafka-verifiable-consumer", "org.apache.kafka.tools.VerifiableConsumer"));

    /** In place of the end of the process. Tools that catch it say so and end again: what counts is the first. */
    private static final class Ended extends RuntimeException {}

    private final String bootstrap;
    private final PrintStream out = System.out;
    private final ByteArrayOutputStream said = new ByteArrayOutputStream();
    private final PrintStream both = new PrintStream(said, true, StandardCharsets.UTF_8);
    /** Exit status of the tool and how much it had said by then; null while it has not ended. */
    private Integer status;
    private int length;

    private Tools(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] arguments) throws Exception {
        Tools tools = new Tools(arguments[0]);
        Exit.setExitProcedure(tools::end);
        Exit.setHaltProcedure(tools::end);
        for (String line : Files.readAllLines(Path.of(arguments[1]))) {
            if (!line.isBlank() && !line.startsWith("#")) {
                tools.run(line);
            }
        }
        tools.out.flush();
        // Threads of tools that ended by an exception do not keep this process.
        Runtime.getRuntime().halt(0);
    }

    private void end(int status, String message) {
        if (this.status == null) {
            if (message != null) {
                both.println(message);
            }
            this.status = status;
            length = said.size();
        }
        throw new Ended();
    }

    private void run(String line) throws Exception {
        out.println("$ " + line);
        List<String> words = words(line);
        String name = words.remove(0);
        if (name.equals("produce")) {
            produce(words.get(0), Integer.parseInt(words.get(1)), Integer.parseInt(words.get(2)));
            return;
        }
        Path file = null;
        int input = words.indexOf("<");
        if (input >= 0) {
            file = Files.createTempFile("kafka-tools", ".json");
            Files.writeString(file, words.get(input + 1));
            words.subList(input, input + 2).clear();
            words.add(file.toString());
        }
        words.add(0, bootstrap);
        words.add(0, "--bootstrap-server");
        said.reset();
        status = null;
        PrintStream err = System.err;
        System.setOut(both);
        System.setErr(both);
        try {
            // Scala's console keeps the streams that it found first.
            Class<?> main = Class.forName(MAIN.get(name));
            scala.Console.withOut(both, () -> scala.Console.withErr(both, () -> {
                try {
                    main.getMethod("main", String[].class).invoke(null, (Object) words.toArray(new String[0]));
                } catch (InvocationTargetException | IllegalAccessException | NoSuchMethodException failure) {
                    throw new RuntimeException(failure.getCause() != null ? failure.getCause() : failure);
                }
                return null;
            }));
        } catch (Throwable failure) {
            if (status == null) {
                both.println("Exception: " + failure);
                status = 1;
                length = said.size();
            }
        } finally {
            if (name.equals("kafka-verifiable-producer")) {
                untilSent(Integer.parseInt(words.get(words.indexOf("--max-messages") + 1)));
            }
            System.setOut(out);
            System.setErr(err);
        }
        if (file != null) {
            Files.delete(file);
        }
        int end = status == null ? said.size() : length;
        new String(said.toByteArray(), 0, end, StandardCharsets.UTF_8).lines()
                // Where in the tool it was thrown is the tool's matter.
                .filter(one -> !one.startsWith("\tat ") && !one.startsWith("\t... "))
                .forEach(out::println);
        out.println("=> " + (status == null ? 0 : status));
        out.flush();
    }

    /** This tool is told what became of its records when its process ends, or whenever. */
    private void untilSent(int records) throws InterruptedException {
        for (int tries = 0; tries < 200; tries++) {
            String soFar = said.toString(StandardCharsets.UTF_8);
            if (soFar.lines().filter(line -> line.contains("producer_send_success")).count() >= records) {
                return;
            }
            Thread.sleep(50);
        }
    }

    /** Numbered records, one batch each, as if at these milliseconds since the epoch. */
    private void produce(String topic, int partition, int records) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("batch.size", "0");
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<?>> sent = new ArrayList<>();
            for (int n = 0; n < records; n++) {
                byte[] value = ("record " + n).getBytes(StandardCharsets.UTF_8);
                sent.add(producer.send(new ProducerRecord<>(topic, partition, 1_700_000_000_000L + n, null, value)));
            }
            for (Future<?> one : sent) {
                one.get();
            }
        }
    }

    /** As a shell would split it, with single quotes. */
    private static List<String> words(String line) {
        List<String> words = new ArrayList<>();
        Matcher word = Pattern.compile("'([^']*)'|(\\S+)").matcher(line);
        while (word.find()) {
            words.add(word.group(1) != null ? word.group(1) : word.group(2));
        }
        return words;
    }
}
