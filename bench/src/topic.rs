//! Topics and leaders: create, auto-create, resolve, and where a partition ends.
//!
//! Runs before, between and after loads, never on the measured path.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, ListOffsetsRequest, MetadataRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::wire::{Wire, check, code_name};

/// `ListOffsets` asks for the end with this timestamp.
const LATEST: i64 = -1;
const TOPIC_ALREADY_EXISTS: i16 = 36;

/// How the load comes by its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicMode {
    /// `CreateTopics` first; a topic that exists is used as it is.
    PreCreated,
    /// Only `Metadata` with auto-creation, as a client does that just starts to produce.
    AutoCreated,
}

/// Addresses of the partition leaders, by partition index.
#[derive(Clone, Debug)]
pub struct Leaders {
    pub addresses: Vec<String>,
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Makes the topic exist in the way `mode` says and waits until each partition has a leader.
pub async fn prepare(
    bootstrap: &[String],
    topic: &str,
    mode: TopicMode,
    partitions: i32,
    replication_factor: i16,
) -> Result<Leaders> {
    let mut wire = Wire::connect_any(bootstrap).await?;
    if mode == TopicMode::PreCreated {
        let request = CreateTopicsRequest::default().with_timeout_ms(30_000).with_topics(vec![
            CreatableTopic::default()
                .with_name(topic_name(topic))
                .with_num_partitions(partitions)
                .with_replication_factor(replication_factor),
        ]);
        let answer = wire.call(&request, 7).await.context("CreateTopics")?;
        for created in answer.topics {
            if created.error_code != 0 && created.error_code != TOPIC_ALREADY_EXISTS {
                let message = created.error_message.unwrap_or_default();
                bail!("creating topic {topic}: {} {}", code_name(created.error_code), message.as_str());
            }
        }
    }
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match leaders(&mut wire, topic, mode == TopicMode::AutoCreated).await {
            Ok(leaders) => return Ok(leaders),
            Err(error) if Instant::now() >= until => {
                return Err(error.context(format!("topic {topic} has no leaders after 30 s")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Asks once who leads each partition.
pub async fn leaders(wire: &mut Wire, topic: &str, auto_create: bool) -> Result<Leaders> {
    let request = MetadataRequest::default()
        .with_allow_auto_topic_creation(auto_create)
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic_name(topic)))]));
    let answer = wire.call(&request, 12).await.context("Metadata")?;
    let Some(described) = answer.topics.first() else {
        bail!("Metadata answered without topic {topic}");
    };
    check(described.error_code).with_context(|| format!("Metadata of {topic}"))?;
    let mut partitions: Vec<_> = described.partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    if partitions.is_empty() {
        bail!("topic {topic} has no partitions yet");
    }
    let addresses = partitions
        .into_iter()
        .map(|partition| {
            let broker = answer
                .brokers
                .iter()
                .find(|broker| broker.node_id == partition.leader_id)
                .with_context(|| format!("partition {} has no leader", partition.partition_index))?;
            Ok(format!("{}:{}", broker.host.as_str(), broker.port))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Leaders { addresses })
}

/// The next offset of each partition.
pub async fn end_offsets(leaders: &Leaders, topic: &str) -> Result<Vec<i64>> {
    let mut ends = Vec::with_capacity(leaders.addresses.len());
    for (index, address) in leaders.addresses.iter().enumerate() {
        let mut wire = Wire::connect(address).await?;
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
            ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![
                ListOffsetsPartition::default()
                    .with_partition_index(index as i32)
                    .with_current_leader_epoch(-1)
                    .with_timestamp(LATEST),
            ]),
        ]);
        let answer = wire.call(&request, 7).await.context("ListOffsets")?;
        let partition = answer
            .topics
            .first()
            .and_then(|topic| topic.partitions.first())
            .context("ListOffsets answered without the partition")?;
        check(partition.error_code).context("ListOffsets")?;
        ends.push(partition.offset);
    }
    Ok(ends)
}
