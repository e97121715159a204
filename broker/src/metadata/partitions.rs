//! Changes of single partitions that a leader, an operator or the controller asks for: ISRs, elections, rotten replicas
//! and reassignments.

use std::collections::BTreeSet;

use super::brokers::process;
use super::command::{
    AlteredPartition, BrokerProcess, ElectionKind, PartitionElection, PartitionReassignment,
};
use super::image::{BrokerImage, MetadataImage, PartitionImage, Replica, TopicImage};
use super::outcome::PartitionError;
use super::partition_change::{Around, Change, Election, changed, put_partition};
use crate::ids::{AssignmentId, BrokerId, PartitionEpoch, PartitionId};

type Changed = Result<PartitionImage, PartitionError>;

fn find(image: &MetadataImage, id: PartitionId) -> Result<(&TopicImage, &PartitionImage), PartitionError> {
    let topic = image.topic_by_id(id.topic).ok_or(PartitionError::UnknownTopic)?;
    let partition = image.partition(id).ok_or(PartitionError::UnknownPartition)?;
    Ok((topic, partition))
}

/// Another ISR, as its leader sees it. Compares versions first: what was asked before the partition changed is not
/// done, however late it comes. What is done gives the partition another version, even where the ISR stays as it is.
pub fn alter_partition(
    image: &mut MetadataImage,
    leader: BrokerProcess,
    asked: &AlteredPartition,
) -> Changed {
    process(image, leader)?;
    let (topic, partition) = find(image, asked.partition)?;
    if asked.leader_epoch > partition.leader_epoch || asked.partition_epoch > partition.partition_epoch {
        return Err(PartitionError::NotController);
    }
    if asked.leader_epoch < partition.leader_epoch {
        return Err(PartitionError::FencedLeaderEpoch);
    }
    if partition.leader != Some(leader.broker) {
        return Err(PartitionError::InvalidRequest("the partition is led by another broker".to_owned()));
    }
    if asked.partition_epoch < partition.partition_epoch {
        return Err(PartitionError::InvalidUpdateVersion);
    }
    let isr: Vec<BrokerId> = asked.isr.iter().map(|member| member.broker).collect();
    if isr.iter().any(|member| partition.replica(*member).is_none()) || twice(&isr).is_some() {
        return Err(PartitionError::InvalidRequest(
            "the ISR names a broker twice, or one without a replica".to_owned(),
        ));
    }
    if !isr.contains(&leader.broker) {
        return Err(PartitionError::InvalidRequest("the leader is not in the ISR".to_owned()));
    }
    for member in &asked.isr {
        // The leader itself may be about to stop: it leads until somebody else does.
        let may = |broker: &BrokerImage| broker.is_active() || member.broker == leader.broker;
        if !process(image, *member).is_ok_and(may) {
            return Err(PartitionError::IneligibleReplica(member.broker));
        }
    }
    let change = Change { isr, ..Change::none(partition) };
    let mut next = changed(partition, Around::new(image, topic, &[]), change);
    // An ISR that is asked for as it is ends what was asked for before: that must find another version.
    if next.partition_epoch == partition.partition_epoch {
        next.partition_epoch = PartitionEpoch(next.partition_epoch.0 + 1);
    }
    put_partition(image, asked.partition, next.clone());
    if next.leader != Some(leader.broker) {
        return Err(PartitionError::NewLeaderElected);
    }
    Ok(next)
}

/// Another leader for one partition.
pub fn elect_leader(image: &mut MetadataImage, asked: &PartitionElection, barred: &[BrokerId]) -> Changed {
    let (topic, partition) = find(image, asked.partition)?;
    if asked.partition_epoch.is_some_and(|epoch| epoch != partition.partition_epoch) {
        return Err(PartitionError::InvalidUpdateVersion);
    }
    let election = match asked.kind {
        ElectionKind::Unclean if partition.leader.is_some() => return Err(PartitionError::ElectionNotNeeded),
        ElectionKind::Unclean => Election::Unclean,
        ElectionKind::Designated(broker) => Election::For(broker),
        ElectionKind::Preferred => {
            let preferred = partition.replica_brokers().next();
            Election::For(preferred.ok_or(PartitionError::PreferredLeaderNotAvailable)?)
        }
    };
    if matches!(election, Election::For(broker) if partition.leader == Some(broker)) {
        return Err(PartitionError::ElectionNotNeeded);
    }
    let around = Around::new(image, topic, barred);
    let next = changed(partition, around, Change::none(partition).election(election));
    let elected = match election {
        Election::For(broker) => next.leader == Some(broker),
        _ => next.leader.is_some(),
    };
    if !elected {
        return Err(match asked.kind {
            ElectionKind::Preferred => PartitionError::PreferredLeaderNotAvailable,
            _ => PartitionError::EligibleLeadersNotAvailable,
        });
    }
    put_partition(image, asked.partition, next.clone());
    Ok(next)
}

/// The data of a replica is rotten. Its seat is given anew: the broker drops the files of the old one because the image
/// does not have it any more, so never before this is committed.
pub fn lose_replica(
    image: &mut MetadataImage,
    index: u64,
    of: BrokerProcess,
    id: PartitionId,
    assignment: AssignmentId,
) -> Changed {
    process(image, of)?;
    let (topic, partition) = find(image, id)?;
    if partition.replica(of.broker).is_none_or(|seat| seat.assignment != assignment) {
        return Err(PartitionError::NoSuchReplica);
    }
    // Where nobody is in sync nobody knows who has what: nothing is dropped there either.
    let has_all = |other: BrokerId| other != of.broker && partition.is_in_sync_or_eligible(other);
    if !partition.replica_brokers().any(has_all) {
        return Err(PartitionError::LastReplica);
    }
    let mut change = Change::leave(partition, of.broker);
    for seat in change.replicas.iter_mut().filter(|seat| seat.broker == of.broker) {
        seat.assignment = AssignmentId(index);
    }
    change.lost.push(of.broker);
    let next = changed(partition, Around::new(image, topic, &[]), change);
    put_partition(image, id, next.clone());
    Ok(next)
}

/// Begins a reassignment, instead of the one that goes on, or ends it.
pub fn reassign(image: &mut MetadataImage, index: u64, asked: &PartitionReassignment) -> Changed {
    let (topic, partition) = find(image, asked.partition)?;
    let change = match &asked.replicas {
        Some(target) => begin(image, index, partition, target)?,
        None => cancel(partition, image.elects_uncleanly(topic))?,
    };
    let next = changed(partition, Around::new(image, topic, &[]), change);
    put_partition(image, asked.partition, next.clone());
    Ok(next)
}

/// The replicas are those of the target and, behind them, those that are to go.
fn begin(
    image: &MetadataImage,
    index: u64,
    partition: &PartitionImage,
    target: &[BrokerId],
) -> Result<Change, PartitionError> {
    let refuse = |what: String| {
        PartitionError::InvalidReplicaAssignment(format!("The manual partition assignment includes {what}."))
    };
    if target.is_empty() {
        return Err(refuse("an empty replica list".to_owned()));
    }
    if let Some(broker) = twice(target) {
        return Err(refuse(format!("the broker {broker} more than once")));
    }
    let mut replicas = Vec::with_capacity(target.len() + partition.replicas.len());
    let mut adding = Vec::new();
    for id in target {
        let broker = image.brokers.get(id);
        let broker =
            broker.ok_or_else(|| refuse(format!("broker {id}, but no such broker is registered")))?;
        let seat = partition.replica(*id);
        // One that an earlier reassignment began to add has yet to come into the ISR.
        if seat.is_none() || partition.adding.contains(id) {
            adding.push(*id);
        }
        let (storage, assignment) = (broker.registration.storage, AssignmentId(index));
        replicas.push(seat.copied().unwrap_or(Replica { broker: *id, storage, assignment }));
    }
    let going = partition.replicas.iter().filter(|seat| !target.contains(&seat.broker));
    let removing = going.clone().map(|seat| seat.broker).collect();
    replicas.extend(going);
    Ok(Change { replicas, adding, removing, ..Change::none(partition) })
}

fn cancel(partition: &PartitionImage, unclean: bool) -> Result<Change, PartitionError> {
    if !partition.is_reassigned() {
        return Err(PartitionError::NoReassignmentInProgress);
    }
    let stays = |broker: BrokerId| !partition.adding.contains(&broker);
    let mut change = Change::none(partition);
    change.replicas.retain(|seat| stays(seat.broker));
    change.isr.retain(|member| stays(*member));
    (change.adding, change.removing) = (Vec::new(), Vec::new());
    let somebody = partition.elr.iter().any(|broker| stays(*broker)) || !change.isr.is_empty();
    if change.replicas.is_empty() || !(somebody || unclean) {
        let why = "Cancelling the reassignment would leave nobody who has everything that is committed.";
        return Err(PartitionError::InvalidReplicaAssignment(why.to_owned()));
    }
    Ok(change)
}

fn twice(brokers: &[BrokerId]) -> Option<BrokerId> {
    let mut seen = BTreeSet::new();
    brokers.iter().copied().find(|broker| !seen.insert(*broker))
}

#[cfg(test)]
#[path = "partitions_tests.rs"]
mod tests;
