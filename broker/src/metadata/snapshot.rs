//! The image as bytes, and commands as bytes.
//!
//! Both begin with a version byte and go on as JSON: rare, small and readable by people in need. In an
//! image each partition is a short array, so that a hundred thousand of them stay a few megabytes.
//!
//! Version 2 has configurations of brokers, and commands that change configurations and partitions. Version 3 has brokers
//! with several listeners, an epoch and a state, replicas with an identity, and the commands of several nodes; images are
//! of version 3 at least. Version 4 has configurations of groups. What needs none of it is written as the version that first had
//! it, which every binary since reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    AlteredConfigs, BrokerConfigs, BrokerImage, ConfigResource, MetadataCommand, MetadataImage,
    PartitionImage, Replica, TopicImage,
};
use crate::config::dynamic::Overrides;
use crate::formats::METADATA;
use crate::ids::{
    AssignmentId, BrokerEpoch, BrokerId, Incarnation, LeaderEpoch, PartitionEpoch, ProducerId, StorageId,
    TopicId,
};

/// What is read is this and newer, up to [`METADATA`].
const OLDEST: u8 = 1;
/// From here on there are configurations of brokers, and changes of configurations and partitions.
const CHANGES: u8 = 2;
/// From here on there are several nodes.
const SEVERAL_NODES: u8 = 3;
/// From here on groups have configurations.
pub const GROUPS: u8 = 4;

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
struct Image<P> {
    index: u64,
    cluster_id: String,
    next_producer_id: ProducerId,
    brokers: Vec<BrokerImage>,
    topics: Vec<Topic<P>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broker_configs: Option<Configs>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    group_configs: BTreeMap<Arc<str>, Overrides>,
}

#[derive(Serialize, Deserialize)]
struct Configs {
    of_all: Overrides,
    of_one: BTreeMap<BrokerId, Overrides>,
}

#[derive(Serialize, Deserialize)]
struct Topic<P> {
    id: TopicId,
    name: Arc<str>,
    created_at: u64,
    configs: BTreeMap<String, String>,
    partitions: Vec<P>,
}

/// Before version 3: leader, its start, its epoch, replicas, in-sync replicas.
type OldPartition = (Option<BrokerId>, Incarnation, LeaderEpoch, Vec<BrokerId>, Vec<BrokerId>);

/// Leader, its broker epoch, its epoch, the partition's epoch, replicas, in-sync replicas, and what most do not have.
#[derive(Serialize, Deserialize)]
struct Partition(
    Option<BrokerId>,
    BrokerEpoch,
    LeaderEpoch,
    PartitionEpoch,
    Vec<Seat>,
    Vec<BrokerId>,
    Option<Rare>,
);

/// Broker, assignment, and the storage where it is not the one that the broker is registered with.
#[derive(Serialize, Deserialize)]
struct Seat(BrokerId, AssignmentId, Option<StorageId>);

/// See [`PartitionImage`].
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Rare {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    elr: Vec<BrokerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_known_leader: Option<BrokerId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    adding: Vec<BrokerId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removing: Vec<BrokerId>,
}

fn registered(brokers: &imbl::OrdMap<BrokerId, BrokerImage>, id: BrokerId) -> Option<StorageId> {
    Some(brokers.get(&id)?.registration.storage)
}

/// The controller is not in it: who leads the group is no part of what the group agreed upon.
pub(crate) fn encode_image(image: &MetadataImage) -> Vec<u8> {
    let topic = |topic: &Arc<TopicImage>| Topic {
        id: topic.id,
        name: topic.name.clone(),
        created_at: topic.created_at,
        configs: topic.configs.clone(),
        partitions: topic.partitions.iter().map(|partition| stored(&image.brokers, partition)).collect(),
    };
    let configs = &image.broker_configs;
    let broker_configs = (**configs != BrokerConfigs::default())
        .then(|| Configs { of_all: configs.of_all.clone(), of_one: configs.of_one.clone() });
    let image = Image {
        index: image.index,
        cluster_id: image.cluster_id.clone(),
        next_producer_id: image.next_producer_id,
        brokers: image.brokers.values().cloned().collect(),
        topics: image.topics.values().map(topic).collect(),
        broker_configs,
        group_configs: image
            .group_configs
            .iter()
            .map(|(id, own)| (id.clone(), Overrides::clone(own)))
            .collect(),
    };
    let version = if image.group_configs.is_empty() { SEVERAL_NODES } else { GROUPS };
    encode(version, &image)
}

fn stored(brokers: &imbl::OrdMap<BrokerId, BrokerImage>, partition: &PartitionImage) -> Partition {
    let seat = |seat: &Replica| {
        let other = registered(brokers, seat.broker) != Some(seat.storage);
        Seat(seat.broker, seat.assignment, other.then_some(seat.storage))
    };
    let p = partition.clone();
    let seats = p.replicas.iter().map(seat).collect();
    let rare =
        Rare { elr: p.elr, last_known_leader: p.last_known_leader, adding: p.adding, removing: p.removing };
    let rare = Some(rare).filter(|rare| *rare != Rare::default());
    Partition(p.leader, p.leader_broker_epoch, p.leader_epoch, p.partition_epoch, seats, p.isr, rare)
}

pub(crate) fn decode_image(bytes: &[u8]) -> Result<MetadataImage, SnapshotError> {
    if bytes.first().is_none_or(|version| *version < SEVERAL_NODES) {
        // Of one node: its replicas are called after the index that created their topic, and no process has an epoch.
        return image_of(decode::<Image<OldPartition>>(bytes)?, |brokers, created_at, partition| {
            let (leader, _, leader_epoch, replicas, isr): OldPartition = partition;
            let seat = |broker: BrokerId| Replica {
                broker,
                storage: registered(brokers, broker).unwrap_or_default(),
                assignment: AssignmentId(created_at),
            };
            let replicas = replicas.into_iter().map(seat).collect();
            PartitionImage { leader, leader_epoch, replicas, isr, ..PartitionImage::default() }
        });
    }
    image_of(decode::<Image<Partition>>(bytes)?, |brokers, _, partition| {
        let Partition(leader, leader_broker_epoch, leader_epoch, partition_epoch, seats, isr, rare) =
            partition;
        let seat = |Seat(broker, assignment, storage)| Replica {
            broker,
            storage: storage.or_else(|| registered(brokers, broker)).unwrap_or_default(),
            assignment,
        };
        let replicas = seats.into_iter().map(seat).collect();
        let Rare { elr, last_known_leader, adding, removing } = rare.unwrap_or_default();
        PartitionImage {
            leader,
            leader_broker_epoch,
            leader_epoch,
            partition_epoch,
            replicas,
            isr,
            elr,
            last_known_leader,
            adding,
            removing,
        }
    })
}

/// The image that was stored, of partitions that are read so: given the brokers and when the topic was created.
fn image_of<P>(
    stored: Image<P>,
    partition: impl Fn(&imbl::OrdMap<BrokerId, BrokerImage>, u64, P) -> PartitionImage,
) -> Result<MetadataImage, SnapshotError> {
    let mut image = MetadataImage {
        index: stored.index,
        cluster_id: stored.cluster_id,
        next_producer_id: stored.next_producer_id,
        brokers: stored.brokers.into_iter().map(|broker| (broker.id(), broker)).collect(),
        broker_configs: Arc::new(stored.broker_configs.map_or_else(BrokerConfigs::default, |configs| {
            BrokerConfigs { of_all: configs.of_all, of_one: configs.of_one }
        })),
        group_configs: stored.group_configs.into_iter().map(|(id, own)| (id, Arc::new(own))).collect(),
        ..MetadataImage::default()
    };
    for topic in stored.topics {
        let partitions = topic.partitions.into_iter();
        image.insert_topic(Arc::new(TopicImage {
            id: topic.id,
            name: topic.name,
            partitions: partitions.map(|one| partition(&image.brokers, topic.created_at, one)).collect(),
            configs: topic.configs,
            created_at: topic.created_at,
        }));
    }
    Ok(image)
}

pub(crate) fn encode_command(command: &MetadataCommand) -> Vec<u8> {
    let version = match command {
        MetadataCommand::CreateTopics { .. }
        | MetadataCommand::DeleteTopics { .. }
        | MetadataCommand::AllocateProducerIds { .. } => OLDEST,
        MetadataCommand::AlterConfigs { resources } if resources.iter().any(is_of_group) => GROUPS,
        MetadataCommand::AlterConfigs { .. }
        | MetadataCommand::CreatePartitions { own_assignment: false, .. } => CHANGES,
        _ => SEVERAL_NODES,
    };
    encode(version, command)
}

fn is_of_group(altered: &AlteredConfigs) -> bool {
    matches!(altered.resource, ConfigResource::Group(_))
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
