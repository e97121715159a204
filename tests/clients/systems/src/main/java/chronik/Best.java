package chronik;

import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

/**
 * A Streams application without exactly-once: the highest score of each player, from games in which they play.
 *
 * <p>{@code Best BOOTSTRAP DIRECTORY}: reads {@code scores} (game to {@code player:score}), groups by player through a repartition
 * topic, keeps the highest in a store with a changelog, and writes it to {@code best}. What is processed twice changes nothing, so
 * the end is known. Runs until its standard input ends.
 */
public final class Best {
    private Best() {}

    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, "best-of");
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, arguments[1]);
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 500);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), 10_000);

        StreamsBuilder builder = new StreamsBuilder();
        builder.stream("scores", Consumed.with(Serdes.String(), Serdes.String()))
                .map((game, said) -> {
                    String[] parts = said.split(":");
                    return KeyValue.pair(parts[0], Long.parseLong(parts[1]));
                })
                .groupByKey(Grouped.with("by-player", Serdes.String(), Serdes.Long()))
                .reduce(Math::max, Materialized.with(Serdes.String(), Serdes.Long()))
                .toStream()
                .mapValues(score -> Long.toString(score))
                .to("best", Produced.with(Serdes.String(), Serdes.String()));

        try (KafkaStreams streams = new KafkaStreams(builder.build(), properties)) {
            streams.setStateListener((now, before) -> {
                System.out.println("STATE " + now);
                System.out.flush();
            });
            streams.setUncaughtExceptionHandler(failure -> {
                failure.printStackTrace();
                return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse
                        .REPLACE_THREAD;
            });
            streams.start();
            while (System.in.read() >= 0) {}
            streams.close(Duration.ofSeconds(20));
        }
    }
}
