//! What a command does to the image: the pure and deterministic heart of the metadata group.
//!
//! Every node applies the same commands in the same order and must come to the same image, so nothing
//! here reads a clock, draws a number or fails halfway: a command that cannot be done changes nothing
//! and says why in its [`Outcome`].

use std::collections::BTreeSet;
use std::sync::Arc;

use super::alter::alter_configs;
use super::{
    BrokerRegistration, MetadataCommand, MetadataImage, NewPartitions, NewTopic, Outcome, PartitionImage,
    TopicError, TopicImage, folded,
};
use crate::ids::{BrokerId, Incarnation, LeaderEpoch, ProducerId, TopicId};
use crate::limits;

/// The image after `command`, which stands at `index` of the log, and what it came to.
pub fn apply(image: &MetadataImage, index: u64, command: &MetadataCommand) -> (MetadataImage, Outcome) {
    let mut next = image.clone();
    next.index = index;
    let outcome = match command {
        MetadataCommand::RegisterBroker(registration) => register_broker(&mut next, registration),
        MetadataCommand::CreateTopics { topics, validate_only } => {
            let mut scratch = next.clone();
            let outcomes = topics.iter().map(|topic| create_topic(&mut scratch, index, topic)).collect();
            if !validate_only {
                next = scratch;
            }
            Outcome::Topics(outcomes)
        }
        MetadataCommand::DeleteTopics { topics } => {
            Outcome::Topics(topics.iter().map(|id| delete_topic(&mut next, *id)).collect())
        }
        MetadataCommand::CreatePartitions { topics } => {
            Outcome::Topics(topics.iter().map(|new| create_partitions(&mut next, new)).collect())
        }
        MetadataCommand::AlterConfigs { resources } => {
            Outcome::Configs(resources.iter().map(|one| alter_configs(&mut next, one)).collect())
        }
        MetadataCommand::AllocateProducerIds { count, .. } => allocate_producer_ids(&mut next, *count),
    };
    (next, outcome)
}

fn register_broker(image: &mut MetadataImage, registration: &BrokerRegistration) -> Outcome {
    let known = image.brokers.get(&registration.id);
    let same_storage = known.is_none_or(|known| known.storage == registration.storage);
    if let Some(known) = known
        && same_storage
    {
        if registration.incarnation < known.incarnation {
            // A late message of a process that has been started anew since.
            return Outcome::Done;
        }
        if registration.incarnation == known.incarnation {
            // Said again: where it listens may have changed, what it leads has not.
            image.brokers.insert(registration.id, registration.clone());
            return Outcome::Done;
        }
    }
    image.brokers.insert(registration.id, registration.clone());
    let names: Vec<Arc<str>> = image.topics.keys().cloned().collect();
    for name in names {
        let Some(topic) = image.topics.get(&name) else { continue };
        if !topic.partitions.iter().any(|partition| concerns(partition, registration.id)) {
            continue;
        }
        let mut changed = TopicImage::clone(topic);
        for partition in &mut changed.partitions {
            if !concerns(partition, registration.id) {
                continue;
            }
            match same_storage {
                true => grant(partition, registration.id, registration.incarnation),
                false => lose_replica(partition, registration.id, &image.brokers),
            }
        }
        image.topics.insert(name, Arc::new(changed));
    }
    Outcome::Done
}

/// Whether a registration of that broker changes this partition.
fn concerns(partition: &PartitionImage, broker: BrokerId) -> bool {
    partition.leader == Some(broker) || partition.isr.contains(&broker)
}

/// A new process of the leader leads only under a new epoch: it may have lost an unsynced tail that others
/// have seen. A leaderless partition goes to the first of its in-sync replicas that shows up.
fn grant(partition: &mut PartitionImage, broker: BrokerId, incarnation: Incarnation) {
    if partition.leader.is_none_or(|leader| leader == broker) {
        partition.leader = Some(broker);
        partition.leader_incarnation = incarnation;
        partition.leader_epoch = LeaderEpoch(partition.leader_epoch.0 + 1);
    }
}

/// A disk was replaced: what the replica had acknowledged is gone, so it is in sync with nothing and leads
/// nothing until it has caught up.
fn lose_replica(
    partition: &mut PartitionImage,
    broker: BrokerId,
    brokers: &imbl::OrdMap<BrokerId, BrokerRegistration>,
) {
    partition.isr.retain(|member| *member != broker);
    if partition.leader != Some(broker) {
        return;
    }
    let successor = partition.isr.iter().find_map(|member| brokers.get(member));
    partition.leader = successor.map(|broker| broker.id);
    partition.leader_incarnation = successor.map_or(Incarnation(0), |broker| broker.incarnation);
    partition.leader_epoch = LeaderEpoch(partition.leader_epoch.0 + 1);
}

fn create_topic(
    image: &mut MetadataImage,
    index: u64,
    new: &NewTopic,
) -> Result<Arc<TopicImage>, TopicError> {
    check_name(&new.name)?;
    let name: Arc<str> = new.name.as_str().into();
    if image.topics.contains_key(&name) || image.topic_names.contains_key(&new.id) {
        return Err(TopicError::AlreadyExists(new.name.clone()));
    }
    let folded = folded(&name);
    if let Some(other) = image.folded_names.get(&folded) {
        return Err(TopicError::InvalidName(format!(
            "Topic '{name}' collides with existing topics: {other}"
        )));
    }
    let partitions = check_assignments(image, new)?;
    let topic = Arc::new(TopicImage {
        id: new.id,
        name: name.clone(),
        partitions,
        configs: new.configs.clone(),
        created_at: index,
    });
    image.insert_topic(topic.clone());
    Ok(topic)
}

fn create_partitions(image: &mut MetadataImage, new: &NewPartitions) -> Result<Arc<TopicImage>, TopicError> {
    let topic = image.topic_by_id(new.topic).ok_or(TopicError::Unknown)?;
    let (existing, total) = (topic.partitions.len(), new.total);
    if total <= existing {
        return Err(TopicError::InvalidPartitions(format!(
            "The topic {} currently has {existing} partition(s); {total} would not be an increase.",
            topic.name
        )));
    }
    if total > limits::TOPIC_PARTITIONS_MAX {
        return Err(too_many_partitions(total));
    }
    let (more, assigned) = (total - existing, new.assignments.len());
    if more != assigned {
        return Err(TopicError::InvalidAssignment(format!(
            "Attempted to add {more} additional partition(s), but only {assigned} assignment(s) were specified."
        )));
    }
    let replication = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
    let mut changed = TopicImage::clone(topic);
    for replicas in &new.assignments {
        changed.partitions.push(assigned_partition(image, replicas, replication)?);
    }
    let topic = Arc::new(changed);
    image.topics.insert(topic.name.clone(), topic.clone());
    Ok(topic)
}

/// In Kafka's words where it cannot be.
fn assigned_partition(
    image: &MetadataImage,
    replicas: &[BrokerId],
    replication: usize,
) -> Result<PartitionImage, TopicError> {
    let invalid = |what: String| {
        Err(TopicError::InvalidAssignment(format!("The manual partition assignment includes {what}.")))
    };
    let Some(leader) = replicas.first() else {
        return invalid("an empty replica list".to_owned());
    };
    let mut seen = BTreeSet::new();
    for broker in replicas {
        if !seen.insert(broker) {
            return invalid(format!("the broker {broker} more than once"));
        }
        if !image.brokers.contains_key(broker) {
            return invalid(format!("broker {broker}, but no such broker is registered"));
        }
    }
    if replicas.len() != replication {
        return invalid(format!(
            "a partition with {} replica(s), but this is not consistent with previous partitions, which have \
             {replication} replica(s)",
            replicas.len()
        ));
    }
    Ok(begun(image, *leader, replicas))
}

/// A partition at its beginning.
fn begun(image: &MetadataImage, leader: BrokerId, replicas: &[BrokerId]) -> PartitionImage {
    PartitionImage {
        leader: Some(leader),
        leader_incarnation: image.brokers[&leader].incarnation,
        leader_epoch: LeaderEpoch(0),
        replicas: replicas.to_vec(),
        isr: replicas.to_vec(),
    }
}

fn too_many_partitions(asked: usize) -> TopicError {
    TopicError::InvalidPartitions(format!(
        "Number of partitions {asked} is above the limit of {} for one topic.",
        limits::TOPIC_PARTITIONS_MAX
    ))
}

fn delete_topic(image: &mut MetadataImage, id: TopicId) -> Result<Arc<TopicImage>, TopicError> {
    let name = image.topic_names.remove(&id).ok_or(TopicError::Unknown)?;
    image.folded_names.remove(&folded(&name));
    image.topics.remove(&name).ok_or(TopicError::Unknown)
}

fn allocate_producer_ids(image: &mut MetadataImage, count: i64) -> Outcome {
    let first = image.next_producer_id;
    let count = count.clamp(1, limits::PRODUCER_ID_BLOCK_MAX).min(i64::MAX - first.0);
    image.next_producer_id = ProducerId(first.0 + count);
    Outcome::ProducerIds { first, count }
}

/// Kafka's rules for topic names.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    let invalid = |why: String| Err(TopicError::InvalidName(why));
    if name.is_empty() {
        return invalid("Topic name is invalid: the empty string is not allowed".to_owned());
    }
    if name == "." || name == ".." {
        return invalid("Topic name is invalid: '.' or '..' is not allowed".to_owned());
    }
    if name.len() > limits::TOPIC_NAME_BYTES_MAX {
        return invalid(format!(
            "Topic name is invalid: the length of '{}...' is longer than the max allowed length {}",
            name.chars().take(32).collect::<String>(),
            limits::TOPIC_NAME_BYTES_MAX
        ));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return invalid(format!(
            "Topic name is invalid: '{}' contains one or more characters other than ASCII alphanumerics, '.', '_' and \
             '-'",
            name.escape_default()
        ));
    }
    Ok(())
}

fn check_assignments(image: &MetadataImage, new: &NewTopic) -> Result<Vec<PartitionImage>, TopicError> {
    let invalid = |why: String| Err(TopicError::InvalidAssignment(why));
    if new.assignments.is_empty() {
        return Err(TopicError::InvalidPartitions("Number of partitions must be larger than 0.".to_owned()));
    }
    if new.assignments.len() > limits::TOPIC_PARTITIONS_MAX {
        return Err(too_many_partitions(new.assignments.len()));
    }
    let replication = new.assignments[0].len();
    let mut partitions = Vec::with_capacity(new.assignments.len());
    for (number, replicas) in new.assignments.iter().enumerate() {
        let Some(leader) = replicas.first() else {
            return invalid(format!("Partition {number} has no replica."));
        };
        if replicas.len() != replication {
            return invalid("Inconsistent replication factor between partitions.".to_owned());
        }
        if replicas.iter().collect::<BTreeSet<_>>().len() != replicas.len() {
            return invalid(format!("Partition {number} names a broker twice: {replicas:?}."));
        }
        if let Some(unknown) = replicas.iter().find(|broker| !image.brokers.contains_key(*broker)) {
            return invalid(format!(
                "Partition {number} is assigned to broker {unknown}, which is not registered."
            ));
        }
        partitions.push(begun(image, *leader, replicas));
    }
    Ok(partitions)
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
