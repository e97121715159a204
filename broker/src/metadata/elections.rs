//! Which leaderships are to move, planned from an image and from what is known of brokers: each plan is one command, which
//! decides anew when it is applied. Pure.

use super::brokers::hands_over;
use super::command::{BrokerProcess, ElectionKind, MetadataCommand, PartitionElection};
use super::image::{MetadataImage, PartitionImage, TopicImage};
use super::partition_change::Around;
use crate::ids::{BrokerId, LeaderEpoch, PartitionId};

/// Elections of one command at most: it stays far below what the Raft journal takes.
const ELECTIONS_MAX: usize = 1_000;

fn partitions(image: &MetadataImage) -> impl Iterator<Item = (PartitionId, &TopicImage, &PartitionImage)> {
    image.topics.values().flat_map(|topic| {
        let numbered = (0..).zip(&topic.partitions);
        numbered.map(|(index, partition)| (PartitionId { topic: topic.id, index }, &**topic, partition))
    })
}

/// One event that moves all that a broker with a stalled storage leads; `None` where nobody better is there for any of it.
/// `barred` are others that are to be given nothing, `avoided` those that are given what nobody else can lead.
pub fn away_from(
    image: &MetadataImage,
    from: BrokerId,
    barred: &[BrokerId],
    avoided: &[BrokerId],
) -> Option<MetadataCommand> {
    let epoch = image.brokers.get(&from)?.epoch;
    let all: Vec<BrokerId> = barred.iter().copied().chain([from]).collect();
    let moves = partitions(image)
        .any(|(_, topic, partition)| hands_over(partition, from, Around::new(image, topic, &all)));
    let from = BrokerProcess { broker: from, epoch };
    moves.then(|| MetadataCommand::MoveLeaders { from, barred: barred.to_vec(), avoided: avoided.to_vec() })
}

/// Whether somebody else could lead something that a broker leads. `barred` are others that are to be given nothing.
pub fn takes_from(image: &MetadataImage, from: BrokerId, barred: &[BrokerId]) -> bool {
    let barred: Vec<BrokerId> = barred.iter().copied().chain([from]).collect();
    partitions(image).any(|(_, topic, partition)| {
        partition.leader == Some(from) && hands_over(partition, from, Around::new(image, topic, &barred))
    })
}

/// Partitions go back to the first of their replicas, where it can lead; `None` where all are there or cannot be.
pub fn preferred(image: &MetadataImage, barred: &[BrokerId]) -> Option<MetadataCommand> {
    let elections = partitions(image).filter(|(_, topic, partition)| {
        let Some(first) = partition.replica_brokers().next() else { return false };
        partition.leader != Some(first)
            && partition.isr.contains(&first)
            && Around::new(image, topic, barred).may_lead(first)
    });
    let kind = ElectionKind::Preferred;
    let elections: Vec<PartitionElection> =
        elections.take(ELECTIONS_MAX).map(|(id, _, partition)| election(id, partition, kind)).collect();
    (!elections.is_empty()).then(|| MetadataCommand::ElectLeaders { elections, barred: barred.to_vec() })
}

fn election(partition: PartitionId, seen: &PartitionImage, kind: ElectionKind) -> PartitionElection {
    PartitionElection { partition, kind, partition_epoch: Some(seen.partition_epoch) }
}

/// The leader of these partitions could not begin the epoch that it was granted: whoever stands behind it among the
/// replicas is elected, in turn. What it has begun, or does not lead any more, stays as it is.
pub fn next_in_turn(
    image: &MetadataImage,
    leader: BrokerId,
    not_begun: &[(PartitionId, LeaderEpoch)],
    barred: &[BrokerId],
) -> Option<MetadataCommand> {
    let mut elections = Vec::new();
    for (id, epoch) in not_begun.iter().take(ELECTIONS_MAX) {
        let known = image.topic_by_id(id.topic).zip(image.partition(*id));
        let Some((topic, partition)) = known else { continue };
        if (partition.leader, partition.leader_epoch) != (Some(leader), *epoch) {
            continue;
        }
        let around = Around::new(image, topic, barred);
        let replicas: Vec<BrokerId> = partition.replica_brokers().collect();
        let at = replicas.iter().position(|broker| *broker == leader).unwrap_or(0);
        let behind = replicas[at..].iter().chain(&replicas[..at]).copied().filter(|broker| *broker != leader);
        let may = |broker: &BrokerId| partition.is_in_sync_or_eligible(*broker) && around.may_lead(*broker);
        // In sync first: who is only eligible takes the ISR's place.
        let next = behind.clone().filter(|broker| partition.isr.contains(broker)).find(may);
        if let Some(next) = next.or_else(|| behind.clone().find(may)) {
            elections.push(election(*id, partition, ElectionKind::Designated(next)));
        }
    }
    (!elections.is_empty()).then(|| MetadataCommand::ElectLeaders { elections, barred: barred.to_vec() })
}

/// Partitions that commit nothing because their leader is cut off from those that have everything: they go to one of
/// these. `cut_off` says whether a broker has not reached another for long enough.
pub fn from_cut_off_leaders(
    image: &MetadataImage,
    short: impl Iterator<Item = PartitionId>,
    cut_off: impl Fn(BrokerId, BrokerId) -> bool,
    barred: &[BrokerId],
) -> Option<MetadataCommand> {
    let mut elections = Vec::new();
    for id in short.take(ELECTIONS_MAX) {
        let known = image.topic_by_id(id.topic).zip(image.partition(id));
        let Some((topic, partition)) = known else { continue };
        let Some(leader) = partition.leader else { continue };
        let around = Around::new(image, topic, barred);
        let mut eligible = partition.elr.iter().copied();
        if let Some(next) = eligible.find(|one| around.may_lead(*one) && cut_off(*one, leader)) {
            elections.push(election(id, partition, ElectionKind::Designated(next)));
        }
    }
    (!elections.is_empty()).then(|| MetadataCommand::ElectLeaders { elections, barred: barred.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::{after, cluster_with, id, partition, process, shown};

    fn all(image: &MetadataImage) -> Vec<String> {
        image.topics.values().map(|topic| shown(&topic.partitions[0])).collect()
    }

    fn done(image: &MetadataImage, command: Option<MetadataCommand>) -> MetadataImage {
        after(image, &command.expect("a command")).0
    }

    #[test]
    fn nobody_moves_where_nobody_better_is() {
        let image = cluster_with(3, &[&[1, 2], &[1]]);
        assert_eq!(away_from(&image, BrokerId(1), &[BrokerId(2)], &[]), None);
        assert_eq!(away_from(&image, BrokerId(3), &[], &[]), None);
        let moved = done(&image, away_from(&image, BrokerId(1), &[BrokerId(3)], &[]));
        assert_eq!(all(&moved), ["2@1/1 isr 2", "1@0/0 isr 1"]);
        assert_eq!(away_from(&moved, BrokerId(1), &[], &[]), None, "once is enough");
    }

    #[test]
    fn leaders_go_back_where_they_can() {
        let image = cluster_with(3, &[&[1, 2, 3], &[2, 3, 1]]);
        assert_eq!(preferred(&image, &[]), None);
        let moved = done(&image, next_in_turn(&image, BrokerId(1), &[(id(1, 0), LeaderEpoch(0))], &[]));
        assert_eq!(all(&moved), ["2@1/1 isr 1,2,3", "2@0/0 isr 2,3,1"]);
        assert_eq!(preferred(&moved, &[BrokerId(1)]), None);
        assert_eq!(all(&done(&moved, preferred(&moved, &[]))), ["1@2/2 isr 1,2,3", "2@0/0 isr 2,3,1"]);
    }

    #[test]
    fn an_epoch_that_does_not_begin_goes_round_the_replicas() {
        let mut image = cluster_with(3, &[&[1, 2, 3]]);
        for (leader, next) in [(1, 2), (2, 3), (3, 1), (1, 2)] {
            let epoch = partition(&image, 1, 0).leader_epoch;
            let late = [(id(1, 0), LeaderEpoch(epoch.0 - 1))];
            assert_eq!(
                next_in_turn(&image, BrokerId(leader), &late, &[]),
                None,
                "it is another epoch by now"
            );
            image = done(&image, next_in_turn(&image, BrokerId(leader), &[(id(1, 0), epoch)], &[]));
            assert_eq!(partition(&image, 1, 0).leader, Some(BrokerId(next)));
        }
        let everyone = [1, 2, 3].map(BrokerId);
        let now = [(id(1, 0), partition(&image, 1, 0).leader_epoch)];
        assert_eq!(next_in_turn(&image, BrokerId(2), &now, &everyone), None);
    }

    #[test]
    fn a_leader_that_is_cut_off_gives_way_to_one_that_has_everything() {
        let whole = cluster_with(3, &[&[1, 2, 3]]);
        let seen = partition(&whole, 1, 0);
        let shrink = crate::metadata::AlteredPartition {
            partition: id(1, 0),
            leader_epoch: seen.leader_epoch,
            partition_epoch: seen.partition_epoch,
            isr: vec![process(&whole, 1)],
        };
        let shrink = MetadataCommand::AlterPartition { leader: process(&whole, 1), partitions: vec![shrink] };
        let short = after(&whole, &shrink).0;
        let by_three = |one: BrokerId, leader: BrokerId| (one, leader) == (BrokerId(3), BrokerId(1));
        let plan = from_cut_off_leaders(&short, [id(1, 0)].into_iter(), by_three, &[]);
        assert_eq!(all(&done(&short, plan)), ["3@1/2 isr 3 elr 1,2"]);
        assert_eq!(from_cut_off_leaders(&short, [id(1, 0)].into_iter(), |_, _| false, &[]), None);
        assert_eq!(from_cut_off_leaders(&short, [id(1, 0)].into_iter(), by_three, &[BrokerId(3)]), None);
        assert_eq!(from_cut_off_leaders(&whole, [id(1, 0)].into_iter(), by_three, &[]), None);
    }
}
