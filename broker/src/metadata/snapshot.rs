//! The image as bytes, and commands as bytes.
//!
//! Both begin with a version byte and go on as JSON: rare, small and readable by people in need. In an
//! image each partition is a short array, so that a hundred thousand of them stay a few megabytes.
//!
//! Version 2 has configurations of brokers, and commands that change configurations and partitions. What has none of it
//! is written as version 1, which every binary reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BrokerConfigs, BrokerRegistration, MetadataCommand, MetadataImage, PartitionImage, TopicImage};
use crate::config::dynamic::Overrides;
use crate::formats::METADATA;
use crate::ids::{BrokerId, Incarnation, LeaderEpoch, ProducerId, TopicId};

/// What is read is this and newer, up to [`METADATA`].
const OLDEST: u8 = 1;

/// Bytes that are no image or no command.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(
        "metadata of version {0}, this binary reads version {METADATA}: start a newer chronik on this directory"
    )]
    Newer(u8),
    #[error("metadata that cannot be read: {0}")]
    Unreadable(String),
}

#[derive(Serialize, Deserialize)]
struct Image {
    index: u64,
    cluster_id: String,
    next_producer_id: ProducerId,
    brokers: Vec<BrokerRegistration>,
    topics: Vec<Topic>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broker_configs: Option<Configs>,
}

#[derive(Serialize, Deserialize)]
struct Configs {
    of_all: Overrides,
    of_one: BTreeMap<BrokerId, Overrides>,
}

#[derive(Serialize, Deserialize)]
struct Topic {
    id: TopicId,
    name: Arc<str>,
    created_at: u64,
    configs: BTreeMap<String, String>,
    partitions: Vec<Partition>,
}

/// Leader, its incarnation, its epoch, replicas, in-sync replicas.
#[derive(Serialize, Deserialize)]
struct Partition(Option<BrokerId>, Incarnation, LeaderEpoch, Vec<BrokerId>, Vec<BrokerId>);

/// The controller is not in it: who leads the group is no part of what the group agreed upon.
pub(crate) fn encode_image(image: &MetadataImage) -> Vec<u8> {
    let topic = |topic: &Arc<TopicImage>| Topic {
        id: topic.id,
        name: topic.name.clone(),
        created_at: topic.created_at,
        configs: topic.configs.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|p| {
                Partition(p.leader, p.leader_incarnation, p.leader_epoch, p.replicas.clone(), p.isr.clone())
            })
            .collect(),
    };
    let configs = &image.broker_configs;
    let broker_configs = (**configs != BrokerConfigs::default())
        .then(|| Configs { of_all: configs.of_all.clone(), of_one: configs.of_one.clone() });
    let version = if broker_configs.is_some() { METADATA } else { OLDEST };
    let image = Image {
        index: image.index,
        cluster_id: image.cluster_id.clone(),
        next_producer_id: image.next_producer_id,
        brokers: image.brokers.values().cloned().collect(),
        topics: image.topics.values().map(topic).collect(),
        broker_configs,
    };
    encode(version, &image)
}

pub(crate) fn decode_image(bytes: &[u8]) -> Result<MetadataImage, SnapshotError> {
    let stored: Image = decode(bytes)?;
    let mut image = MetadataImage {
        index: stored.index,
        cluster_id: stored.cluster_id,
        next_producer_id: stored.next_producer_id,
        brokers: stored.brokers.into_iter().map(|broker| (broker.id, broker)).collect(),
        broker_configs: Arc::new(stored.broker_configs.map_or_else(BrokerConfigs::default, |configs| {
            BrokerConfigs { of_all: configs.of_all, of_one: configs.of_one }
        })),
        ..MetadataImage::default()
    };
    for topic in stored.topics {
        let partition = |Partition(leader, leader_incarnation, leader_epoch, replicas, isr)| PartitionImage {
            leader,
            leader_incarnation,
            leader_epoch,
            replicas,
            isr,
        };
        image.insert_topic(Arc::new(TopicImage {
            id: topic.id,
            name: topic.name,
            partitions: topic.partitions.into_iter().map(partition).collect(),
            configs: topic.configs,
            created_at: topic.created_at,
        }));
    }
    Ok(image)
}

pub(crate) fn encode_command(command: &MetadataCommand) -> Vec<u8> {
    let version = match command {
        MetadataCommand::AlterConfigs { .. } | MetadataCommand::CreatePartitions { .. } => METADATA,
        _ => OLDEST,
    };
    encode(version, command)
}

pub(crate) fn decode_command(bytes: &[u8]) -> Result<MetadataCommand, SnapshotError> {
    decode(bytes)
}

fn encode(version: u8, value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![version];
    // Maps with text keys, numbers and text: nothing that JSON cannot say.
    serde_json::to_writer(&mut bytes, value).expect("writing JSON into memory");
    bytes
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, SnapshotError> {
    match bytes.split_first() {
        Some((OLDEST..=METADATA, json)) => {
            serde_json::from_slice(json).map_err(|error| SnapshotError::Unreadable(error.to_string()))
        }
        Some((&version, _)) if version > METADATA => Err(SnapshotError::Newer(version)),
        _ => Err(SnapshotError::Unreadable("no version".to_owned())),
    }
}
