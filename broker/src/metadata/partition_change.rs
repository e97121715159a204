//! What becomes of a partition when its ISR, its replicas or the brokers around it change: who is eligible, whether a
//! reassignment ends, who leads, and under which epochs. Pure; every change of a partition goes through here.
//!
//! The ELR is KIP-966's: below the minimum of in-sync replicas the high watermark stands still, so whoever leaves the
//! ISR there still has everything that is committed, and may lead. With the ISR back at its minimum nobody is eligible
//! any more, for it moves on without them.

use std::sync::Arc;

use imbl::OrdMap;

use super::image::{BrokerImage, MetadataImage, PartitionImage, Replica, TopicImage};
use crate::ids::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionId};

/// What a partition's change is decided by, beside the partition.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    pub brokers: &'a OrdMap<BrokerId, BrokerImage>,
    /// What is set of `min.insync.replicas`.
    pub min_isr: Option<usize>,
    /// Whether somebody else may lead where nobody is left who has everything: who led last, or who is there.
    pub unclean: bool,
    /// These are given nothing to lead.
    pub barred: &'a [BrokerId],
}

impl<'a> Around<'a> {
    pub fn new(image: &'a MetadataImage, topic: &TopicImage, barred: &'a [BrokerId]) -> Around<'a> {
        Around {
            brokers: &image.brokers,
            min_isr: image.min_insync_replicas_set(topic),
            unclean: image.elects_uncleanly(topic),
            barred,
        }
    }

    /// Whether a broker may be given a leadership.
    pub fn may_lead(&self, broker: BrokerId) -> bool {
        self.brokers.get(&broker).is_some_and(BrokerImage::is_active) && !self.barred.contains(&broker)
    }

    /// Whether a broker may keep what it leads: one that is about to stop leads until somebody else does.
    fn may_keep(&self, broker: BrokerId) -> bool {
        self.brokers.get(&broker).is_some_and(|broker| !broker.fenced)
    }
}

/// Who is to lead after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The leader, where it can; else whoever can.
    IfNeeded,
    /// This one, where it can; else as if nobody had asked.
    For(BrokerId),
    /// Where nobody has everything that is committed, somebody who has not.
    Unclean,
}

/// A change that is wanted.
#[derive(Clone, Debug)]
pub struct Change {
    pub isr: Vec<BrokerId>,
    pub replicas: Vec<Replica>,
    pub adding: Vec<BrokerId>,
    pub removing: Vec<BrokerId>,
    /// Their data is gone: they are not eligible, and did not lead.
    pub lost: Vec<BrokerId>,
    pub election: Election,
}

impl Change {
    /// Everything as it is.
    pub fn none(partition: &PartitionImage) -> Change {
        Change {
            isr: partition.isr.clone(),
            replicas: partition.replicas.clone(),
            adding: partition.adding.clone(),
            removing: partition.removing.clone(),
            lost: Vec::new(),
            election: Election::IfNeeded,
        }
    }

    /// Without this member of the ISR.
    pub fn leave(partition: &PartitionImage, broker: BrokerId) -> Change {
        let mut change = Change::none(partition);
        change.isr.retain(|member| *member != broker);
        change
    }

    pub fn election(self, election: Election) -> Change {
        Change { election, ..self }
    }
}

/// The partition after a change, with all that follows from it. The same as before where nothing changes.
pub fn changed(before: &PartitionImage, around: Around<'_>, change: Change) -> PartitionImage {
    let Change { isr, replicas, adding, removing, mut lost, election } = change;
    let mut next = PartitionImage { isr, replicas, adding, removing, ..before.clone() };
    complete_reassignment(&mut next);
    // Who has no replica any more has nothing.
    lost.extend(before.replica_brokers().filter(|broker| next.replica(*broker).is_none()));
    next.isr.retain(|member| !lost.contains(member));
    next.elr = eligible(before, &next, around.min_isr, &lost);
    next.last_known_leader = before.last_known_leader.filter(|leader| !lost.contains(leader));
    elect(before, &mut next, around, election, &lost);
    // Another process of the same leader is granted another epoch: it may have lost a tail that others have seen.
    let holds = next.leader.and_then(|leader| around.brokers.get(&leader));
    next.leader_broker_epoch = holds.map_or(BrokerEpoch(0), |broker| broker.epoch);
    if next == *before {
        return next;
    }
    next.partition_epoch = PartitionEpoch(before.partition_epoch.0 + 1);
    // Where a replica goes, too: the leader is to see no more of its fetches, as with Kafka.
    let granted_anew = next.leader != before.leader
        || next.leader_broker_epoch != before.leader_broker_epoch
        || before.replica_brokers().any(|broker| next.replica(broker).is_none());
    if granted_anew {
        next.leader_epoch = LeaderEpoch(before.leader_epoch.0 + 1);
    }
    next
}

/// The replicas that were to be added are in sync: those that were to go, go.
fn complete_reassignment(next: &mut PartitionImage) {
    if !next.is_reassigned() {
        return;
    }
    let stays = |broker: &BrokerId| !next.removing.contains(broker);
    let isr: Vec<BrokerId> = next.isr.iter().copied().filter(stays).collect();
    let replicas: Vec<Replica> = next.replicas.iter().copied().filter(|one| stays(&one.broker)).collect();
    if isr.is_empty() || !next.adding.iter().all(|added| isr.contains(added)) {
        return;
    }
    *next = PartitionImage { isr, replicas, adding: Vec::new(), removing: Vec::new(), ..next.clone() };
}

/// The ELR beside this ISR.
fn eligible(
    before: &PartitionImage,
    next: &PartitionImage,
    min_isr: Option<usize>,
    lost: &[BrokerId],
) -> Vec<BrokerId> {
    if next.isr.len() >= next.min_insync_replicas(min_isr) {
        return Vec::new();
    }
    let candidates = next.replica_brokers().filter(|broker| before.is_in_sync_or_eligible(*broker));
    candidates.filter(|broker| !next.isr.contains(broker) && !lost.contains(broker)).collect()
}

fn elect(
    before: &PartitionImage,
    next: &mut PartitionImage,
    around: Around<'_>,
    election: Election,
    lost: &[BrokerId],
) {
    let holds = next.leader.filter(|leader| next.isr.contains(leader) && around.may_keep(*leader));
    let mut elected = match election {
        Election::For(broker) if next.is_in_sync_or_eligible(broker) && around.may_lead(broker) => {
            Some(broker)
        }
        _ => holds,
    };
    if elected.is_none() {
        let in_sync =
            next.replica_brokers().find(|broker| next.isr.contains(broker) && around.may_lead(*broker));
        let eligible = || next.elr.iter().copied().find(|broker| around.may_lead(*broker));
        elected = in_sync.or_else(eligible);
    }
    if elected.is_none() && (around.unclean || election == Election::Unclean) {
        let left = |broker: &BrokerId| around.may_lead(*broker) && !lost.contains(broker);
        let last = next.last_known_leader.or(before.leader).into_iter();
        elected =
            last.filter(|leader| next.replica(*leader).is_some()).chain(next.replica_brokers()).find(left);
    }
    next.leader = elected;
    match elected {
        None if before.leader.is_some() => {
            next.last_known_leader = before.leader.filter(|leader| !lost.contains(leader));
        }
        None => {}
        Some(leader) => {
            next.last_known_leader = None;
            if next.is_in_sync_or_eligible(leader) {
                if !next.isr.contains(&leader) {
                    // Nobody else is known to have what it has.
                    next.isr = vec![leader];
                    next.elr = eligible(before, next, around.min_isr, lost);
                }
            } else {
                next.isr = vec![leader];
                next.elr = Vec::new();
            }
        }
    }
}

/// Looks at every partition, and puts in what becomes of those for which something else than `None` is said. Topics
/// without a change are shared with the image before.
pub fn change_partitions(
    image: &mut MetadataImage,
    barred: &[BrokerId],
    mut wanted: impl FnMut(&PartitionImage, Around<'_>) -> Option<Change>,
) {
    let now = image.clone();
    for topic in now.topics.values() {
        let mut grown: Option<TopicImage> = None;
        let around = Around::new(&now, topic, barred);
        for (index, partition) in topic.partitions.iter().enumerate() {
            let Some(change) = wanted(partition, around) else { continue };
            let next = changed(partition, around, change);
            if next != *partition {
                grown.get_or_insert_with(|| TopicImage::clone(topic)).partitions[index] = next;
            }
        }
        if let Some(topic) = grown {
            image.topics.insert(topic.name.clone(), Arc::new(topic));
        }
    }
}

/// Puts this partition into the image.
pub fn put_partition(image: &mut MetadataImage, id: PartitionId, partition: PartitionImage) {
    let index = usize::try_from(id.index).ok();
    let Some((topic, index)) = image.topic_by_id(id.topic).cloned().zip(index) else { return };
    let mut topic = TopicImage::clone(&topic);
    if let Some(place) = topic.partitions.get_mut(index)
        && *place != partition
    {
        *place = partition;
        image.topics.insert(topic.name.clone(), Arc::new(topic));
    }
}
