//! The front above real partitions and a real journal.

use std::time::Duration;

use bytes::Bytes;
use io_backend::real::{DiskChoice, RealBackend};
use io_backend::{Clock, Deadline};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::test_node::{Client, TestNode, framed, framed_body, with_whole_node};
use crate::api;
use crate::api::test_requests::filled;
use crate::config::Config;
use crate::identity::IdentityError;
use crate::log::test_batches::BatchSpec;
use crate::node::{Node, StartError};
use crate::parts::Parts;

const PRODUCE: i16 = 13;
const FETCH: i16 = 18;

fn name(text: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(text))
}

/// Creates a topic of one partition; its id.
async fn create(client: &mut Client, topic: &'static str) -> Uuid {
    let new =
        CreatableTopic::default().with_name(name(topic)).with_num_partitions(1).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(20_000);
    client.send(0, ApiKey::CreateTopics, 7, request.into()).await;
    match client.message(ApiKey::CreateTopics, 7).await.1 {
        ResponseKind::CreateTopics(response) => {
            assert_eq!(response.topics[0].error_code, 0, "{response:?}");
            assert!(response.topics[0].configs.as_ref().is_some_and(|configs| !configs.is_empty()));
            response.topics[0].topic_id
        }
        other => panic!("{other:?}"),
    }
}

fn produce(topic: Uuid, acks: i16, records: i32) -> RequestKind {
    let data = PartitionProduceData::default().with_records(Some(BatchSpec::records(records).build()));
    let topic = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(20_000).with_topic_data(vec![topic]).into()
}

fn fetch(topic: Uuid, from: i64, max_wait_ms: i32, min_bytes: i32) -> RequestKind {
    let partition = FetchPartition::default()
        .with_fetch_offset(from)
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(-1);
    let topic = FetchTopic::default().with_topic_id(topic).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(min_bytes)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
        .into()
}

/// Correlation id, error code and base offset.
async fn produced(client: &mut Client) -> (i32, i16, i64) {
    match client.message(ApiKey::Produce, PRODUCE).await {
        (correlation, ResponseKind::Produce(response)) => {
            let partition = &response.responses[0].partition_responses[0];
            (correlation, partition.error_code, partition.base_offset)
        }
        other => panic!("{other:?}"),
    }
}

/// Error code, high watermark and bytes of the only partition.
async fn fetched(client: &mut Client) -> (i16, i64, Bytes) {
    match client.message(ApiKey::Fetch, FETCH).await.1 {
        ResponseKind::Fetch(response) => {
            let partition = &response.responses[0].partitions[0];
            (partition.error_code, partition.high_watermark, partition.records.clone().unwrap_or_default())
        }
        other => panic!("{other:?}"),
    }
}

fn whole_node(test: impl AsyncFnOnce(&TestNode)) {
    with_whole_node(|_| {}, async |door, _node| test(door).await);
}

/// Waits for what other tasks of the node will have done soon.
async fn soon(node: &TestNode, what: &str, mut done: impl FnMut() -> bool) {
    let until = node.backend().now() + Duration::from_secs(30);
    while !done() {
        assert!(node.backend().now() < until, "{what}");
        node.backend().sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn pipelined_produces_get_offsets_in_their_order() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        let topic = create(&mut client, "orders").await;
        let all: Vec<u8> =
            (0..200).flat_map(|n| framed(n, ApiKey::Produce, PRODUCE, produce(topic, -1, 3))).collect();
        client.send_bytes(&all).await;
        for n in 0..200 {
            assert_eq!(produced(&mut client).await, (n, 0, i64::from(n) * 3));
        }
        client.send(1, ApiKey::Fetch, FETCH, fetch(topic, 0, 0, 1)).await;
        let (code, high_watermark, records) = fetched(&mut client).await;
        assert_eq!((code, high_watermark), (0, 600));
        let one = BatchSpec::records(3).build().len();
        assert_eq!(records.len(), one * 200, "every batch, byte for byte as long as it was sent");
    });
}

#[test]
fn what_a_vanished_client_sent_is_charged_until_the_partition_has_it() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        let topic = create(&mut client, "orders").await;
        let mut silent = node.connect().await;
        for n in 0..50 {
            silent.send(n, ApiKey::Produce, PRODUCE, produce(topic, 0, 10)).await;
        }
        drop(silent);
        let metrics = &node.context.metrics;
        soon(node, "all is appended", || metrics.records_in.get() == 500).await;
        soon(node, "all is given back", || {
            metrics.request_bytes.get() == 0 && metrics.requests_in_flight.get() == 0
        })
        .await;
        client.send(1, ApiKey::Produce, PRODUCE, produce(topic, -1, 1)).await;
        assert_eq!(produced(&mut client).await, (1, 0, 500));
    });
}

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
            let batch = BatchSpec::records(1).value_bytes(900 << 10).build();
            let one = batch.len();
            let data = PartitionProduceData::default().with_records(Some(batch));
            let topic_data = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
            let request = ProduceRequest::default()
                .with_acks(-1)
                .with_timeout_ms(20_000)
                .with_topic_data(vec![topic_data]);
            for n in 0..20 {
                client.send(n, ApiKey::Produce, PRODUCE, request.clone().into()).await;
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

#[test]
fn a_topic_that_is_mentioned_can_be_produced_to_at_once_and_not_where_that_is_switched_off() {
    let mention = |create: bool| {
        let topic = MetadataRequestTopic::default().with_name(Some(name("mentioned")));
        MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(create)
            .into()
    };
    let told = async |client: &mut Client, create: bool| {
        client.send(1, ApiKey::Metadata, 13, mention(create)).await;
        match client.message(ApiKey::Metadata, 13).await.1 {
            ResponseKind::Metadata(response) => (
                response.topics[0].error_code,
                response.topics[0].partitions.len(),
                response.topics[0].topic_id,
            ),
            other => panic!("{other:?}"),
        }
    };
    whole_node(async |node| {
        let mut client = node.connect().await;
        assert_eq!(told(&mut client, false).await.0, 3, "the client does not want it made");
        let (code, partitions, id) = told(&mut client, true).await;
        assert_eq!((code, partitions), (0, 3));
        client.send(1, ApiKey::Produce, PRODUCE, produce(id, -1, 1)).await;
        assert_eq!(produced(&mut client).await, (1, 0, 0));
    });
    with_whole_node(
        |config| config.topics.auto_create = false,
        async |node, _| {
            let mut client = node.connect().await;
            assert_eq!(told(&mut client, true).await.0, 3);
        },
    );
}

#[test]
fn a_mention_creates_no_reserved_topic_and_neither_it_nor_a_request_goes_beyond_the_nodes_partitions() {
    with_whole_node(
        |config| config.topics.partitions_max = 5,
        async |node, _| {
            let mut client = node.connect().await;
            let mut mention = async |topic: &'static str| {
                let topic = MetadataRequestTopic::default().with_name(Some(name(topic)));
                let request = MetadataRequest::default()
                    .with_topics(Some(vec![topic]))
                    .with_allow_auto_topic_creation(true);
                client.send(1, ApiKey::Metadata, 13, request.into()).await;
                match client.message(ApiKey::Metadata, 13).await.1 {
                    ResponseKind::Metadata(response) => response.topics[0].error_code,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(mention("__consumer_offsets").await, 17);
            assert_eq!(mention("of-three-partitions").await, 0);
            assert_eq!(mention("of-three-more").await, 44, "three and three are more than five");
            let of = |topic, partitions| {
                CreatableTopic::default()
                    .with_name(name(topic))
                    .with_num_partitions(partitions)
                    .with_replication_factor(1)
            };
            let topics =
                vec![of("a", 3), of("__explicit", 1), of("b", 1), of("c", 1), of("__cluster_metadata", 1)];
            let request = CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(20_000);
            client.send(2, ApiKey::CreateTopics, 7, request.into()).await;
            match client.message(ApiKey::CreateTopics, 7).await.1 {
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
fn producer_ids_are_never_given_twice() {
    whole_node(async |node| {
        let mut ids = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let mut client = node.connect().await;
            for _ in 0..5 {
                client
                    .send(
                        1,
                        ApiKey::InitProducerId,
                        5,
                        InitProducerIdRequest::default().with_transactional_id(None).into(),
                    )
                    .await;
                match client.message(ApiKey::InitProducerId, 5).await.1 {
                    ResponseKind::InitProducerId(response) => assert!(ids.insert(response.producer_id.0)),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(ids.len(), 15);
    });
}

#[test]
fn acks_0_that_fails_in_the_partition_closes_the_connection() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        let topic = create(&mut client, "orders").await;
        let sequenced = |sequence| {
            let batch = BatchSpec::records(1).producer(7, 0, sequence).build();
            let data = PartitionProduceData::default().with_records(Some(batch));
            let topic = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
            ProduceRequest::default().with_acks(0).with_timeout_ms(20_000).with_topic_data(vec![topic])
        };
        let mut silent = node.connect().await;
        silent.send(1, ApiKey::Produce, PRODUCE, sequenced(0).into()).await;
        silent.send(2, ApiKey::ApiVersions, 3, ApiVersionsRequest::default().into()).await;
        assert!(silent.answer().await.is_some(), "all is well so far");
        // A hole in the sequence: only the partition's owner can tell.
        silent.send(3, ApiKey::Produce, PRODUCE, sequenced(5).into()).await;
        assert_eq!(silent.answer().await, None);
        client.send(4, ApiKey::Produce, PRODUCE, produce(topic, -1, 1)).await;
        assert_eq!(produced(&mut client).await, (4, 0, 1));
    });
}

#[test]
fn every_served_version_of_every_api_is_answered_in_its_own_form() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        create(&mut client, "orders").await;
        for row in api::rows::<RealBackend>() {
            let (key, versions) = (row.declaration.key, row.declaration.versions);
            for version in versions.min..=versions.max {
                let body = filled(key, version);
                client.send_bytes(&framed_body(i32::from(version), key, version, &body)).await;
                // Decoding fails, and with it the test, where the answer is of another form.
                let (correlation, _) = client.message(key, version).await;
                assert_eq!(correlation, i32::from(version), "{key:?}");
            }
        }
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
        client.send(0, ApiKey::CreateTopics, 7, request.into()).await;
        let ResponseKind::CreateTopics(created) = client.message(ApiKey::CreateTopics, 7).await.1 else {
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
        client.send(1, ApiKey::Produce, PRODUCE, request.into()).await;
        client.message(ApiKey::Produce, PRODUCE).await;
        for (max_bytes, expected) in [(1, 1), (batch.len() * 2 - 1, 1), (batch.len() * 2, 2), (1 << 20, 3)] {
            let each = |index| {
                FetchPartition::default()
                    .with_partition(index)
                    .with_partition_max_bytes(1 << 20)
                    .with_current_leader_epoch(-1)
            };
            let asked =
                FetchTopic::default().with_topic_id(topic).with_partitions((0..3).map(each).collect());
            let request = FetchRequest::default()
                .with_max_bytes(max_bytes as i32)
                .with_session_epoch(-1)
                .with_topics(vec![asked]);
            client.send(2, ApiKey::Fetch, FETCH, request.into()).await;
            let ResponseKind::Fetch(fetched) = client.message(ApiKey::Fetch, FETCH).await.1 else {
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
            let data = |stamp| {
                let batch = BatchSpec::records(3).producer(7, 0, stamp).build();
                let data = PartitionProduceData::default().with_records(Some(batch));
                let topic = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
                ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![topic])
            };
            // The second repeats the first, the third is out of order.
            for (stamp, code) in [(0, 0), (0, 0), (9, 45)] {
                client.send(1, ApiKey::Produce, PRODUCE, data(stamp).into()).await;
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
            client.send(1, ApiKey::DeleteTopics, 5, gone.into()).await;
            client.message(ApiKey::DeleteTopics, 5).await;
            soon(door, "the topic is forgotten", || counted().is_empty()).await;
        },
    );
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

/// As a storage that its metadata does not know it would lead nothing, and say that all is well.
#[test]
fn a_directory_whose_identity_is_not_that_of_its_metadata_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let start = async || {
            let (backend, _) = RealBackend::start(DiskChoice::Threads, home.path()).unwrap();
            let mut config = Config { data_dir: home.path().join("data"), ..Config::default() };
            for address in [&mut config.listen, &mut config.admin, &mut config.cluster] {
                *address = "127.0.0.1:0".into();
            }
            (Node::start(backend.clone(), Parts::production(), config).await, backend)
        };
        let (node, backend) = start().await;
        node.unwrap().stop(Deadline::after(&backend, Duration::from_secs(30))).await;
        drop(backend);
        let other = Uuid::from_u128(7);
        let identity = format!(
            "{{\"format\":\"chronik-data\",\"format_version\":2,\"storage_id\":\"{other}\",\"node_id\":1,\"cluster_id\":\"c\"}}"
        );
        std::fs::write(home.path().join("data/identity.json"), identity).unwrap();
        // Tasks that were told to end let go of the directory when they are polled for the last time.
        let (mut started, mut backend) = start().await;
        for _ in 0..1_000 {
            if !matches!(&started, Err(StartError::Identity(IdentityError::Locked(_)))) {
                break;
            }
            backend.sleep(Duration::from_millis(10)).await;
            (started, backend) = start().await;
        }
        let Err(error) = started else { panic!("it started") };
        assert!(matches!(error, StartError::OtherStorage { found, .. } if found == other), "{error}");
    });
}
