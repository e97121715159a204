//! What consumers ask of a whole node, and what their waiting costs it.

use super::*;

#[test]
fn a_fetch_waits_for_records_and_holds_up_only_answers() {
    whole_node(async |node| {
        let mut waiting = node.connect().await;
        let topic = create(&mut waiting, "orders").await;
        // Behind the fetch on the same connection is the produce that it waits for.
        waiting.send(1, ApiKey::Fetch, FETCH, fetch(topic, 0, 20_000, 1)).await;
        waiting.send(2, ApiKey::Produce, PRODUCE, produce(topic, -1, 3)).await;
        let (code, high_watermark, records) = fetched(&mut waiting).await;
        assert_eq!((code, high_watermark, records.is_empty()), (0, 3, false));
        assert_eq!(produced(&mut waiting).await, (2, 0, 0));
    });
}

#[test]
fn fetches_that_wait_hold_up_nobody_and_are_forgotten_with_their_connection() {
    with_whole_node(
        |config| config.server.requests_in_flight = 2,
        async |node, _| {
            let mut client = node.connect().await;
            let topic = create(&mut client, "orders").await;
            let mut waiting = Vec::new();
            for polls in [100, 100, 100, 1, 1] {
                let mut one = node.connect().await;
                let polls: Vec<u8> = (0..polls)
                    .flat_map(|n| framed(n, ApiKey::Fetch, FETCH, fetch(topic, 0, 600_000, 1 << 19)))
                    .collect();
                one.send_bytes(&polls).await;
                waiting.push(one);
            }
            let metrics = &node.context.metrics;
            soon(node, "all wait", || {
                metrics.waiting_bytes.get() > 0 && metrics.requests_in_flight.get() == 0
            })
            .await;
            for n in 0..10 {
                client.send(n, ApiKey::Produce, PRODUCE, produce(topic, -1, 1)).await;
                assert_eq!(produced(&mut client).await, (n, 0, n.into()));
            }
            drop(waiting);
            soon(node, "they are gone", || {
                metrics.connections.get() == 1 && metrics.waiting_bytes.get() == 0
            })
            .await;
            assert_eq!((metrics.requests_in_flight.get(), metrics.request_bytes.get()), (0, 0));
        },
    );
}

#[test]
fn a_fetch_that_finds_no_room_to_wait_in_is_answered_with_what_there_is() {
    with_whole_node(
        |config| config.server.waiting_bytes = 1,
        async |node, _| {
            let mut first = node.connect().await;
            let topic = create(&mut first, "orders").await;
            // An account that is empty grants any wish.
            first.send(1, ApiKey::Fetch, FETCH, fetch(topic, 0, 600_000, 1)).await;
            soon(node, "the first waits", || node.context.metrics.waiting_bytes.get() > 0).await;
            let mut second = node.connect().await;
            second.send(2, ApiKey::Fetch, FETCH, fetch(topic, 0, 600_000, 1)).await;
            assert_eq!(fetched(&mut second).await, (0, 0, Bytes::new()));
            // What is behind the first finds no room either: the first may wait no longer.
            first.send(3, ApiKey::ApiVersions, 3, ApiVersionsRequest::default().into()).await;
            assert_eq!(fetched(&mut first).await, (0, 0, Bytes::new()));
            assert!(first.answer().await.is_some());
        },
    );
}

#[test]
fn no_fetch_waits_longer_than_the_node_allows() {
    with_whole_node(
        |config| config.server.fetch_wait_max = Duration::from_millis(50),
        async |node, _| {
            let mut client = node.connect().await;
            let topic = create(&mut client, "orders").await;
            client.send(1, ApiKey::Fetch, FETCH, fetch(topic, 0, i32::MAX, 1)).await;
            assert_eq!(fetched(&mut client).await, (0, 0, Bytes::new()));
        },
    );
}

#[test]
fn a_fetch_that_wants_more_bytes_than_come_ends_with_its_wait_and_what_there_is() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        let topic = create(&mut client, "orders").await;
        let mut other = node.connect().await;
        client.send(1, ApiKey::Fetch, FETCH, fetch(topic, 0, 1_000, 1 << 19)).await;
        for n in 0..3 {
            other.send(n, ApiKey::Produce, PRODUCE, produce(topic, 1, 2)).await;
            assert_eq!(produced(&mut other).await, (n, 0, i64::from(n) * 2));
        }
        let (code, high_watermark, records) = fetched(&mut client).await;
        assert_eq!((code, high_watermark), (0, 6));
        assert_eq!(
            records.len(),
            BatchSpec::records(2).build().len() * 3,
            "nothing twice and nothing left out"
        );
    });
}

#[test]
fn answers_that_nobody_reads_stay_within_their_account_and_others_are_served() {
    const ACCOUNT: i64 = 8 << 20;
    with_whole_node(
        |config| config.server.answer_bytes = ACCOUNT as usize,
        async |node, _| {
            let mut client = node.connect().await;
            let topic = create(&mut client, "orders").await;
            let batch = BatchSpec::records(1).value_bytes(900 << 10);
            let one = batch.build().len();
            for n in 0..20 {
                client.send(n, ApiKey::Produce, PRODUCE, produce_batch(topic, -1, batch)).await;
                assert_eq!(produced(&mut client).await, (n, 0, n.into()));
            }
            let all = |max_wait_ms| {
                let partition = FetchPartition::default()
                    .with_partition_max_bytes(55 << 20)
                    .with_current_leader_epoch(-1);
                let topic = FetchTopic::default().with_topic_id(topic).with_partitions(vec![partition]);
                FetchRequest::default()
                    .with_max_wait_ms(max_wait_ms)
                    .with_min_bytes(1)
                    .with_max_bytes(55 << 20)
                    .with_session_epoch(-1)
                    .with_topics(vec![topic])
            };
            let mut deaf = Vec::new();
            for _ in 0..12 {
                let mut one = node.connect().await;
                let requests: Vec<u8> =
                    (0..5).flat_map(|n| framed(n, ApiKey::Fetch, FETCH, all(100).into())).collect();
                one.send_bytes(&requests).await;
                deaf.push(one);
            }
            let held = &node.context.metrics.answer_bytes;
            soon(node, "the account is full", || held.get() > ACCOUNT / 2).await;
            for n in 0..3 {
                client.send(n, ApiKey::Fetch, FETCH, all(100).into()).await;
                let (code, high_watermark, records) = fetched(&mut client).await;
                assert_eq!((code, high_watermark), (0, 20));
                assert!(records.len() >= one, "{} bytes", records.len());
                assert!(held.get() <= ACCOUNT + one as i64, "{} are held", held.get());
            }
            drop(deaf);
            soon(node, "all is given back", || held.get() == 0).await;
        },
    );
}

#[test]
fn a_fetch_outside_the_log_and_of_an_unknown_topic_is_told_so_at_once() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        let topic = create(&mut client, "orders").await;
        for (topic, from, expected) in [(topic, 7, 1), (topic, -3, 1), (Uuid::from_u128(9), 0, 100)] {
            client.send(1, ApiKey::Fetch, FETCH, fetch(topic, from, 20_000, 1)).await;
            assert_eq!(fetched(&mut client).await.0, expected);
        }
    });
}

/// As with Kafka: a topic that was deleted under a consumer does not make it ask for the others all the time.
#[test]
fn what_is_unknown_keeps_a_fetch_from_waiting_only_where_all_is() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        let topic = create(&mut client, "orders").await;
        let (RequestKind::Fetch(mut both), RequestKind::Fetch(unknown)) =
            (fetch(topic, 0, 20_000, 1), fetch(Uuid::from_u128(9), 0, 20_000, 1))
        else {
            panic!("fetches")
        };
        both.topics.extend(unknown.topics);
        let began = node.context.backend.now();
        let ResponseKind::Fetch(answer) = asked(&mut client, ApiKey::Fetch, FETCH, both.into()).await else {
            panic!("another answer")
        };
        let codes: Vec<i16> = answer.responses.iter().map(|one| one.partitions[0].error_code).collect();
        assert_eq!(codes, [0, 100]);
        assert!(node.context.backend.now().since(began) >= Duration::from_secs(20), "it waited");
    });
}

#[test]
fn only_the_first_batch_of_a_fetch_may_be_larger_than_what_it_asks_for() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        let new = CreatableTopic::default()
            .with_name(name("orders"))
            .with_num_partitions(3)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(20_000);
        let ResponseKind::CreateTopics(created) =
            asked(&mut client, ApiKey::CreateTopics, 7, request.into()).await
        else {
            panic!("another answer")
        };
        let topic = created.topics[0].topic_id;
        let batch = BatchSpec::records(3).build();
        let each =
            |index| PartitionProduceData::default().with_index(index).with_records(Some(batch.clone()));
        let data =
            TopicProduceData::default().with_topic_id(topic).with_partition_data((0..3).map(each).collect());
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![data]);
        asked(&mut client, ApiKey::Produce, PRODUCE, request.into()).await;
        for (max_bytes, expected) in [(1, 1), (batch.len() * 2 - 1, 1), (batch.len() * 2, 2), (1 << 20, 3)] {
            let each = |index| {
                FetchPartition::default()
                    .with_partition(index)
                    .with_partition_max_bytes(1 << 20)
                    .with_current_leader_epoch(-1)
            };
            let wanted =
                FetchTopic::default().with_topic_id(topic).with_partitions((0..3).map(each).collect());
            let request = FetchRequest::default()
                .with_max_bytes(max_bytes as i32)
                .with_session_epoch(-1)
                .with_topics(vec![wanted]);
            let ResponseKind::Fetch(fetched) = asked(&mut client, ApiKey::Fetch, FETCH, request.into()).await
            else {
                panic!("another answer")
            };
            let partitions = &fetched.responses[0].partitions;
            let has =
                |one: &&fetch_response::PartitionData| one.records.as_ref().is_some_and(|r| !r.is_empty());
            assert_eq!(partitions.iter().filter(has).count(), expected, "{max_bytes} bytes at most");
        }
    });
}

#[test]
fn a_stop_answers_a_fetch_that_waits() {
    with_whole_node(
        |_| {},
        async |door, node| {
            let mut client = door.connect().await;
            let topic = create(&mut client, "orders").await;
            client.send(1, ApiKey::Fetch, FETCH, fetch(topic, 0, 600_000, 1)).await;
            let mut other = door.connect().await;
            other.send(1, ApiKey::ApiVersions, 3, ApiVersionsRequest::default().into()).await;
            assert!(other.answer().await.is_some());
            let began = door.backend().now();
            node.stop(Deadline::after(door.backend(), Duration::from_secs(60))).await;
            assert_eq!(fetched(&mut client).await.0, 0);
            assert_eq!(client.answer().await, None);
            assert!(door.backend().now().since(began) < Duration::from_secs(60));
        },
    );
}
