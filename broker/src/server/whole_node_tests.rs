//! The front above real partitions and a real journal: what the themes below it have in common, and what is about all of it.

use std::time::Duration;

use bytes::Bytes;
use io_backend::real::{DiskChoice, RealBackend};
use io_backend::{Clock, Deadline};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
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

mod configs;
mod fetch_sessions;
mod fetches;
mod produces;
mod topics;

const PRODUCE: i16 = 13;
const FETCH: i16 = 18;

fn name(text: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(text))
}

/// The answer to a request of a client that waits for no other.
async fn asked(client: &mut Client, key: ApiKey, version: i16, request: RequestKind) -> ResponseKind {
    client.send(1, key, version, request).await;
    client.message(key, version).await.1
}

/// Creates a topic of one partition; its id.
async fn create(client: &mut Client, topic: &'static str) -> Uuid {
    create_with(client, topic, &[]).await
}

async fn create_with(
    client: &mut Client,
    topic: &'static str,
    configs: &[(&'static str, &'static str)],
) -> Uuid {
    let text = StrBytes::from_static_str;
    let config = |&(name, value): &(&'static str, &'static str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let new = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(configs.iter().map(config).collect());
    let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(20_000);
    match asked(client, ApiKey::CreateTopics, 7, request.into()).await {
        ResponseKind::CreateTopics(response) => {
            assert_eq!(response.topics[0].error_code, 0, "{response:?}");
            assert!(response.topics[0].configs.as_ref().is_some_and(|configs| !configs.is_empty()));
            response.topics[0].topic_id
        }
        other => panic!("{other:?}"),
    }
}

fn produce(topic: Uuid, acks: i16, records: i32) -> RequestKind {
    produce_batch(topic, acks, BatchSpec::records(records))
}

fn produce_batch(topic: Uuid, acks: i16, batch: BatchSpec) -> RequestKind {
    produce_bytes(topic, acks, batch.build())
}

fn produce_bytes(topic: Uuid, acks: i16, batch: Bytes) -> RequestKind {
    let data = PartitionProduceData::default().with_records(Some(batch));
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
