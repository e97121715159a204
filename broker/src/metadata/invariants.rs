//! What holds of every image, and of every image after the one before. Only what has changed is looked at.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::image::{MetadataImage, PartitionImage, TopicImage};
use crate::ids::BrokerId;

/// Panics where `image`, which follows `before`, is none that commands can make.
pub(super) fn check(before: &MetadataImage, image: &MetadataImage) {
    assert!(before.index <= image.index, "images follow the log");
    assert!(before.next_producer_id <= image.next_producer_id, "a producer id is given once");
    assert_eq!(image.topics.len(), image.topic_names.len(), "each topic has an id of its own");
    assert_eq!(image.topics.len(), image.folded_names.len(), "no two names collide");
    for (id, broker) in &image.brokers {
        assert_eq!(*id, broker.id());
        assert!(broker.epoch.0 <= image.index, "broker {id} was granted what has been applied");
        if let Some(before) = before.brokers.get(id) {
            assert!(before.epoch <= broker.epoch, "the epoch of broker {id} fell");
        }
    }
    let brokers_same = before.brokers.ptr_eq(&image.brokers);
    for (name, topic) in &image.topics {
        let known = before.topics.get(name).filter(|known| known.id == topic.id);
        if brokers_same && known.is_some_and(|known| Arc::ptr_eq(known, topic)) {
            continue;
        }
        assert_eq!(image.topic_names.get(&topic.id), Some(name));
        for (index, partition) in topic.partitions.iter().enumerate() {
            let known = known.and_then(|known| known.partitions.get(index));
            check_partition(image, topic, partition);
            if let Some(known) = known {
                check_step(known, partition);
            }
        }
        assert!(known.is_none_or(|known| known.partitions.len() <= topic.partitions.len()), "{name} shrank");
    }
}

fn check_partition(image: &MetadataImage, topic: &TopicImage, partition: &PartitionImage) {
    let name = &topic.name;
    let replicas: BTreeSet<BrokerId> = partition.replica_brokers().collect();
    assert_eq!(replicas.len(), partition.replicas.len(), "{name}: a broker twice in {partition:?}");
    let lists = [&partition.isr, &partition.elr, &partition.adding, &partition.removing];
    for list in lists {
        let members: BTreeSet<BrokerId> = list.iter().copied().collect();
        assert_eq!(members.len(), list.len(), "{name}: a broker twice in {partition:?}");
        assert!(members.is_subset(&replicas), "{name}: no replica, and a member in {partition:?}");
    }
    assert!(!partition.elr.iter().any(|member| partition.isr.contains(member)), "{name}: {partition:?}");
    let minimum = partition.min_insync_replicas(image.min_insync_replicas_set(topic));
    assert!(
        partition.elr.is_empty() || partition.isr.len() < minimum,
        "{name}: committed without those that are eligible: {partition:?}"
    );
    for seat in &partition.replicas {
        assert!(seat.assignment.0 <= image.index, "{name}: {partition:?}");
        if let Some(broker) = image.brokers.get(&seat.broker) {
            assert_eq!(seat.storage, broker.registration.storage, "{name}: the seat of another storage");
        }
    }
    for member in &partition.isr {
        assert!(image.is_alive(*member), "{name}: a fenced broker is in sync: {partition:?}");
    }
    if let Some(leader) = partition.leader {
        assert!(partition.isr.contains(&leader), "{name}: who leads is in sync: {partition:?}");
        assert_eq!(partition.leader_broker_epoch, image.brokers[&leader].epoch, "{name}: {partition:?}");
        assert_eq!(partition.last_known_leader, None, "{name}: {partition:?}");
    }
}

fn check_step(before: &PartitionImage, after: &PartitionImage) {
    assert!(before.leader_epoch <= after.leader_epoch, "{before:?} {after:?}");
    if before != after {
        assert!(before.partition_epoch < after.partition_epoch, "{before:?} {after:?}");
    }
    if (before.leader, before.leader_broker_epoch) != (after.leader, after.leader_broker_epoch) {
        assert!(before.leader_epoch < after.leader_epoch, "{before:?} {after:?}");
    }
    for seat in &after.replicas {
        if let Some(known) = before.replica(seat.broker) {
            assert!(known == seat || known.assignment < seat.assignment, "{before:?} {after:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LeaderEpoch, PartitionEpoch};
    use crate::metadata::testing::cluster_with;

    fn with(image: &MetadataImage, change: impl FnOnce(&mut PartitionImage)) -> MetadataImage {
        let mut topic = TopicImage::clone(&image.topics["t1"]);
        change(&mut topic.partitions[0]);
        let mut next = image.clone();
        next.insert_topic(Arc::new(topic));
        next
    }

    #[test]
    fn what_commands_do_not_make_is_noticed() {
        let whole = cluster_with(3, &[&[1, 2]]);
        check(&whole, &whole);
        type Change = fn(&mut PartitionImage);
        let table: [(&str, Change); 9] = [
            ("a change without a version", |p| p.isr.truncate(1)),
            ("a leader that is not in sync", |p| {
                (p.isr, p.partition_epoch) = (vec![BrokerId(2)], PartitionEpoch(1))
            }),
            ("in sync without a replica", |p| p.isr.push(BrokerId(3))),
            ("a broker twice", |p| p.isr.push(BrokerId(2))),
            ("eligible and in sync", |p| p.elr.push(BrokerId(2))),
            ("eligible above the minimum", |p| {
                (p.isr, p.elr) = (vec![BrokerId(1)], vec![BrokerId(2)]);
                p.partition_epoch = PartitionEpoch(1);
            }),
            ("another leader in the same epoch", |p| {
                (p.leader, p.partition_epoch) = (Some(BrokerId(2)), PartitionEpoch(1));
            }),
            ("an epoch that fell", |p| p.leader_epoch = LeaderEpoch(-1)),
            ("a seat of another storage", |p| p.replicas[0].storage = p.replicas[1].storage),
        ];
        for (what, change) in table {
            let broken = with(&whole, change);
            let noticed = std::panic::catch_unwind(|| check(&whole, &broken));
            assert!(noticed.is_err(), "{what}");
        }
    }
}
