//! Images for tests: brokers and topics by small numbers.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::apply::apply;
use super::invariants;
use super::{
    BrokerProcess, BrokerRegistration, CLIENT_LISTENER, Endpoint, MetadataCommand, MetadataImage, NewTopic,
    Outcome, PartitionImage,
};
use crate::formats::METADATA;
use crate::ids::{BrokerEpoch, BrokerId, Incarnation, IncarnationId, PartitionId, StorageId, TopicId};

/// As binaries before version 3 registered.
pub fn old_broker(id: i32, incarnation: u64, storage: u128) -> BrokerRegistration {
    BrokerRegistration {
        id: BrokerId(id),
        incarnation: Incarnation(incarnation),
        incarnation_id: None,
        previous_epoch: None,
        storage: StorageId(Uuid::from_u128(storage)),
        listeners: vec![Endpoint { name: CLIENT_LISTENER.into(), host: "localhost".into(), port: 9092 }],
        rack: None,
        reads: 3,
    }
}

/// Start number `incarnation` on this storage, by a process with a nonce of its own, whose directory knows of all that it
/// was granted before.
pub fn broker(id: i32, incarnation: u64, storage: u128, nonce: u128) -> BrokerRegistration {
    let incarnation_id = Some(IncarnationId(Uuid::from_u128(nonce)));
    let previous_epoch = Some(BrokerEpoch(u64::MAX));
    let reads = METADATA;
    BrokerRegistration { incarnation_id, previous_epoch, reads, ..old_broker(id, incarnation, storage) }
}

pub fn new_topic(id: u128, name: &str, assignments: &[&[i32]]) -> NewTopic {
    NewTopic {
        id: TopicId(Uuid::from_u128(id)),
        name: name.into(),
        assignments: assignments
            .iter()
            .map(|replicas| replicas.iter().copied().map(BrokerId).collect())
            .collect(),
        configs: BTreeMap::new(),
    }
}

pub fn create(topics: Vec<NewTopic>) -> MetadataCommand {
    MetadataCommand::CreateTopics { topics, validate_only: false }
}

/// The image that these commands add up to, at indices from one on.
pub fn image_of(commands: &[MetadataCommand]) -> MetadataImage {
    let mut image = MetadataImage { cluster_id: "cluster".into(), ..MetadataImage::default() };
    for command in commands {
        image = after(&image, command).0;
    }
    image
}

/// The image after one more command, and its outcome.
pub fn after(image: &MetadataImage, command: &MetadataCommand) -> (MetadataImage, Outcome) {
    let (after, outcome) = apply(image, image.index + 1, command);
    invariants::check(image, &after);
    (after, outcome)
}

pub fn partition(image: &MetadataImage, topic: u128, index: i32) -> PartitionImage {
    image.partition(id(topic, index)).unwrap().clone()
}

pub fn id(topic: u128, index: i32) -> PartitionId {
    PartitionId { topic: TopicId(Uuid::from_u128(topic)), index }
}

/// The latest process of a broker.
pub fn process(image: &MetadataImage, broker: i32) -> BrokerProcess {
    let broker = BrokerId(broker);
    BrokerProcess { broker, epoch: image.brokers[&broker].epoch }
}

/// Brokers 1 to `count`, none fenced, each with a storage of its number.
pub fn cluster(count: i32) -> MetadataImage {
    let mut image = MetadataImage { cluster_id: "cluster".into(), ..MetadataImage::default() };
    for id in 1..=count {
        let registration = broker(id, 1, id.unsigned_abs().into(), id.unsigned_abs().into());
        image = after(&image, &MetadataCommand::RegisterBroker(registration)).0;
        image = after(&image, &MetadataCommand::UnfenceBroker(process(&image, id))).0;
    }
    image
}

/// Brokers from 1 on, in these racks.
pub fn image_with_racks(racks: &[&str]) -> MetadataImage {
    let mut image = cluster(i32::try_from(racks.len()).unwrap());
    for (id, rack) in (1..).zip(racks) {
        image.brokers[&BrokerId(id)].registration.rack = Some((*rack).to_owned());
    }
    image
}

/// `cluster`, and topics 1, 2, ... with a partition each, which has these replicas.
pub fn cluster_with(count: i32, assignments: &[&[i32]]) -> MetadataImage {
    let topics = (1..).zip(assignments).map(|(id, replicas)| new_topic(id, &format!("t{id}"), &[replicas]));
    after(&cluster(count), &create(topics.collect())).0
}

/// `leader@leader epoch/partition epoch isr [elr]`, to be read in tables.
pub fn shown(partition: &PartitionImage) -> String {
    let list = |ids: &[BrokerId]| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(",");
    let leader = partition.leader.map_or("-".to_owned(), |leader| leader.0.to_string());
    let mut text = format!(
        "{leader}@{}/{} isr {}",
        partition.leader_epoch,
        partition.partition_epoch,
        list(&partition.isr)
    );
    for (name, ids) in
        [("elr", &partition.elr), ("adding", &partition.adding), ("removing", &partition.removing)]
    {
        if !ids.is_empty() {
            text += &format!(" {name} {}", list(ids));
        }
    }
    if let Some(last) = partition.last_known_leader {
        text += &format!(" last {last}");
    }
    text
}
