//! What a command does to the image: the pure and deterministic heart of the metadata group.
//!
//! Every node applies the same commands in the same order and must come to the same image, so nothing
//! here reads a clock, draws a number or fails halfway: a command that cannot be done changes nothing
//! and says why in its [`Outcome`].

use super::alter::alter_configs;
use super::brokers;
use super::command::MetadataCommand;
use super::image::MetadataImage;
use super::outcome::Outcome;
use super::partitions;
pub use super::topics::check_name;
use super::topics::{create_partitions, create_topic, delete_topic};
use crate::ids::{AssignmentId, ProducerId};
use crate::limits;

/// The image after `command`, which stands at `index` of the log, and what it came to.
pub fn apply(image: &MetadataImage, index: u64, command: &MetadataCommand) -> (MetadataImage, Outcome) {
    let mut next = image.clone();
    next.index = index;
    let outcome = match command {
        MetadataCommand::RegisterBroker(registration) => {
            Outcome::Registered(brokers::register(&mut next, index, registration))
        }
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
        MetadataCommand::CreatePartitions { topics, own_assignment } => {
            let assignment = own_assignment.then_some(AssignmentId(index));
            Outcome::Topics(topics.iter().map(|new| create_partitions(&mut next, new, assignment)).collect())
        }
        MetadataCommand::AlterConfigs { resources } => {
            Outcome::Configs(resources.iter().map(|one| alter_configs(&mut next, one)).collect())
        }
        MetadataCommand::AllocateProducerIds { count, .. } => allocate_producer_ids(&mut next, *count),
        MetadataCommand::FenceBroker(named) => Outcome::Broker(brokers::fence(&mut next, *named)),
        MetadataCommand::UnfenceBroker(named) => Outcome::Broker(brokers::unfence(&mut next, *named)),
        MetadataCommand::ControlledShutdown(named) => {
            Outcome::Broker(brokers::begin_controlled_shutdown(&mut next, *named))
        }
        MetadataCommand::UnregisterBroker { broker } => {
            Outcome::Broker(brokers::unregister(&mut next, *broker))
        }
        MetadataCommand::MoveLeaders { from, barred, avoided } => {
            Outcome::Broker(brokers::move_leaders(&mut next, *from, barred, avoided))
        }
        MetadataCommand::ElectLeaders { elections, barred } => {
            let elect = |one| partitions::elect_leader(&mut next, one, barred);
            Outcome::Partitions(elections.iter().map(elect).collect())
        }
        MetadataCommand::AlterPartition { leader, partitions } => {
            let alter = |one| partitions::alter_partition(&mut next, *leader, one);
            Outcome::Partitions(partitions.iter().map(alter).collect())
        }
        MetadataCommand::ReplicaLost { broker, partition, assignment } => {
            Outcome::Partitions(vec![partitions::lose_replica(
                &mut next,
                index,
                *broker,
                *partition,
                *assignment,
            )])
        }
        MetadataCommand::AlterPartitionReassignments { reassignments } => {
            let reassign = |one| partitions::reassign(&mut next, index, one);
            Outcome::Partitions(reassignments.iter().map(reassign).collect())
        }
    };
    (next, outcome)
}

fn allocate_producer_ids(image: &mut MetadataImage, count: i64) -> Outcome {
    let first = image.next_producer_id;
    let count = count.clamp(1, limits::PRODUCER_ID_BLOCK_MAX).min(i64::MAX - first.0);
    image.next_producer_id = ProducerId(first.0 + count);
    Outcome::ProducerIds { first, count }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
