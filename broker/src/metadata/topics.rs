//! Topics come, grow and go.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::command::{NewPartitions, NewTopic};
use super::image::{BrokerImage, MetadataImage, PartitionImage, Replica, TopicImage, folded};
use super::outcome::TopicError;
use crate::ids::{AssignmentId, BrokerId, TopicId};
use crate::limits;

pub(super) fn create_topic(
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
    let partitions = check_assignments(image, AssignmentId(index), new)?;
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

pub(super) fn create_partitions(
    image: &mut MetadataImage,
    new: &NewPartitions,
    own_assignment: Option<AssignmentId>,
) -> Result<Arc<TopicImage>, TopicError> {
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
    let assignment = own_assignment.unwrap_or(AssignmentId(topic.created_at));
    let mut changed = TopicImage::clone(topic);
    for replicas in &new.assignments {
        let partition = assigned_partition(image, replicas, replication)?;
        let number = changed.partitions.len();
        changed.partitions.push(begun(image, assignment, partition).ok_or_else(|| nobody_active(number))?);
    }
    let topic = Arc::new(changed);
    image.topics.insert(topic.name.clone(), topic.clone());
    Ok(topic)
}

/// In Kafka's words where it cannot be.
fn assigned_partition<'a>(
    image: &MetadataImage,
    replicas: &'a [BrokerId],
    replication: usize,
) -> Result<&'a [BrokerId], TopicError> {
    let invalid = |what: String| {
        Err(TopicError::InvalidAssignment(format!("The manual partition assignment includes {what}.")))
    };
    if replicas.is_empty() {
        return invalid("an empty replica list".to_owned());
    }
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
    Ok(replicas)
}

/// A partition at its beginning: who is active is in sync, and the first of them leads. `None` where nobody is.
fn begun(image: &MetadataImage, assignment: AssignmentId, replicas: &[BrokerId]) -> Option<PartitionImage> {
    let brokers = || replicas.iter().filter_map(|id| image.brokers.get(id));
    let active: Vec<&BrokerImage> = brokers().filter(|broker| broker.is_active()).collect();
    let leader = active.first()?;
    let seat = |broker: &BrokerImage| Replica {
        broker: broker.id(),
        storage: broker.registration.storage,
        assignment,
    };
    Some(PartitionImage {
        leader: Some(leader.id()),
        leader_broker_epoch: leader.epoch,
        replicas: brokers().map(seat).collect(),
        isr: active.iter().map(|broker| broker.id()).collect(),
        ..PartitionImage::default()
    })
}

fn nobody_active(number: usize) -> TopicError {
    TopicError::InvalidAssignment(format!(
        "All brokers specified in the manual partition assignment for partition {number} are fenced or in controlled \
         shutdown."
    ))
}

fn too_many_partitions(asked: usize) -> TopicError {
    TopicError::InvalidPartitions(format!(
        "Number of partitions {asked} is above the limit of {} for one topic.",
        limits::TOPIC_PARTITIONS_MAX
    ))
}

pub(super) fn delete_topic(image: &mut MetadataImage, id: TopicId) -> Result<Arc<TopicImage>, TopicError> {
    let name = image.topic_names.remove(&id).ok_or(TopicError::Unknown)?;
    image.folded_names.remove(&folded(&name));
    image.topics.remove(&name).ok_or(TopicError::Unknown)
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

fn check_assignments(
    image: &MetadataImage,
    assignment: AssignmentId,
    new: &NewTopic,
) -> Result<Vec<PartitionImage>, TopicError> {
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
        if replicas.is_empty() {
            return invalid(format!("Partition {number} has no replica."));
        }
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
        partitions.push(begun(image, assignment, replicas).ok_or_else(|| nobody_active(number))?);
    }
    Ok(partitions)
}
