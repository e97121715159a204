//! Topics of a whole node: made on mention, bounded, counted.

use super::*;

/// Has a topic mentioned, and created where `create` says so and it is not there: its error code, partitions and id.
async fn mention(client: &mut Client, topic: &'static str, create: bool) -> (i16, usize, Uuid) {
    let topic = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request =
        MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(create);
    match asked(client, ApiKey::Metadata, 13, request.into()).await {
        ResponseKind::Metadata(response) => {
            let topic = &response.topics[0];
            (topic.error_code, topic.partitions.len(), topic.topic_id)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_topic_that_is_mentioned_can_be_produced_to_at_once_and_not_where_that_is_switched_off() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        assert_eq!(mention(&mut client, "mentioned", false).await.0, 3, "the client does not want it made");
        let (code, partitions, id) = mention(&mut client, "mentioned", true).await;
        assert_eq!((code, partitions), (0, 3));
        client.send(1, ApiKey::Produce, PRODUCE, produce(id, -1, 1)).await;
        assert_eq!(produced(&mut client).await, (1, 0, 0));
    });
    with_whole_node(
        |config| config.topics.auto_create = false,
        async |node, _| {
            let mut client = node.connect().await;
            assert_eq!(mention(&mut client, "mentioned", true).await.0, 3);
        },
    );
}

#[test]
fn a_mention_creates_no_reserved_topic_and_neither_it_nor_a_request_goes_beyond_the_nodes_partitions() {
    with_whole_node(
        |config| config.topics.partitions_max = 5,
        async |node, _| {
            let mut client = node.connect().await;
            for (topic, code) in
                [("__consumer_offsets", 17), ("of-three-partitions", 0), ("of-three-more", 44)]
            {
                assert_eq!(mention(&mut client, topic, true).await.0, code, "{topic}");
            }
            let of = |topic, partitions| {
                CreatableTopic::default()
                    .with_name(name(topic))
                    .with_num_partitions(partitions)
                    .with_replication_factor(1)
            };
            let topics =
                vec![of("a", 3), of("__explicit", 1), of("b", 1), of("c", 1), of("__cluster_metadata", 1)];
            let request = CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(20_000);
            match asked(&mut client, ApiKey::CreateTopics, 7, request.into()).await {
                ResponseKind::CreateTopics(response) => {
                    let codes: Vec<i16> = response.topics.iter().map(|topic| topic.error_code).collect();
                    assert_eq!(codes, [44, 0, 0, 44, 42]);
                }
                other => panic!("{other:?}"),
            }
        },
    );
}

#[test]
fn a_topic_counts_what_it_took_and_gave_and_is_forgotten_when_it_is_deleted() {
    with_whole_node(
        |_| {},
        async |door, node| {
            let metrics = node.context().metrics.clone();
            let counted = || {
                let mut registry = prometheus_client::registry::Registry::default();
                metrics.register(&mut registry);
                let mut text = String::new();
                prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
                let of_topic = text.lines().filter(|line| line.contains("{topic=\"orders\"}"));
                let records = of_topic.filter(|line| line.contains("records"));
                records.map(str::to_owned).collect::<Vec<_>>()
            };
            let mut client = door.connect().await;
            let topic = create(&mut client, "orders").await;
            // The second repeats the first, the third is out of order.
            for (sequence, code) in [(0, 0), (0, 0), (9, 45)] {
                let batch = BatchSpec::records(3).producer(7, 0, sequence);
                client.send(1, ApiKey::Produce, PRODUCE, produce_batch(topic, -1, batch)).await;
                assert_eq!(produced(&mut client).await.1, code);
            }
            client.send(1, ApiKey::Fetch, FETCH, fetch(topic, 0, 0, 1)).await;
            assert_eq!(fetched(&mut client).await.1, 3);
            assert_eq!(
                counted(),
                ["topic_records_in_total{topic=\"orders\"} 3", "topic_records_out_total{topic=\"orders\"} 3",]
            );
            let gone =
                DeleteTopicsRequest::default().with_topic_names(vec![name("orders")]).with_timeout_ms(20_000);
            asked(&mut client, ApiKey::DeleteTopics, 5, gone.into()).await;
            soon(door, "the topic is forgotten", || counted().is_empty()).await;
        },
    );
}
