//! Where the replicas of new partitions go: leaders in turn, and the replicas of a partition on different racks as far as
//! there are any. Kafka's striping, with a start that follows from the image and not from a dice. Pure.

use std::collections::BTreeSet;

use super::image::{BrokerImage, MetadataImage};
use crate::ids::BrokerId;

/// Why replicas cannot be placed, in Kafka's words. Its code is INVALID_REPLICATION_FACTOR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// No broker has registered, or all are fenced.
    #[error("All brokers are currently fenced.")]
    AllFenced,
    /// There are fewer brokers than replicas.
    #[error(
        "Unable to replicate the partition {asked} time(s): The target replication factor of {asked} cannot be reached because only {registered} broker(s) are registered."
    )]
    TooFewBrokers {
        /// Replicas of a partition.
        asked: usize,
        /// Brokers that there are.
        registered: usize,
    },
}

/// Replicas for `partitions` new partitions, the preferred leader first. `first` is the turn of the first of them.
///
/// Leaders are active brokers. Others follow where there are not enough of those: they are registered, and may come back.
pub fn place(
    image: &MetadataImage,
    first: usize,
    partitions: usize,
    replication: usize,
) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
    let registered = image.brokers.len();
    if replication > registered {
        return Err(PlacementError::TooFewBrokers { asked: replication, registered });
    }
    let (active, others): (Vec<&BrokerImage>, Vec<&BrokerImage>) =
        image.brokers.values().partition(|broker| broker.is_active());
    if active.is_empty() {
        return Err(PlacementError::AllFenced);
    }
    let (active, others) = (striped(&active), striped(&others));
    let replicas = |partition: usize| {
        let turn = first + partition;
        let leaders = in_turn(&active, turn);
        // With each round the followers of a leader begin one further, so that its load goes to others in turn when it fails.
        let round = if has_racks(&active) { turn / active.len() } else { 0 };
        let (leader, followers) = leaders.split_first().expect("somebody is active");
        let followers = in_turn(followers, round);
        let mut chosen = vec![*leader];
        let rest: Vec<&BrokerImage> = followers.into_iter().chain(in_turn(&others, turn)).collect();
        // First who brings another rack, active or not; then who is left.
        for new_racks_only in [true, false] {
            for broker in &rest {
                let has_rack = chosen.iter().any(|one| rack(one) == rack(broker));
                let taken = chosen.iter().any(|one| one.id() == broker.id());
                if chosen.len() < replication && !taken && !(new_racks_only && has_rack) {
                    chosen.push(broker);
                }
            }
        }
        chosen.iter().map(|broker| broker.id()).collect()
    };
    Ok((0..partitions).map(replicas).collect())
}

fn rack(broker: &BrokerImage) -> Option<&str> {
    broker.registration.rack.as_deref()
}

fn has_racks(brokers: &[&BrokerImage]) -> bool {
    brokers.iter().map(|broker| rack(broker)).collect::<BTreeSet<_>>().len() > 1
}

/// One of each rack in turn, racks and the brokers of each in their order.
fn striped<'a>(brokers: &[&'a BrokerImage]) -> Vec<&'a BrokerImage> {
    let racks: BTreeSet<Option<&str>> = brokers.iter().map(|broker| rack(broker)).collect();
    let mut by_rack: Vec<_> = racks
        .into_iter()
        .map(|of| brokers.iter().copied().filter(move |broker| rack(broker) == of))
        .collect();
    let mut striped = Vec::with_capacity(brokers.len());
    while striped.len() < brokers.len() {
        striped.extend(by_rack.iter_mut().filter_map(Iterator::next));
    }
    striped
}

/// All of them, beginning with the one whose turn it is.
fn in_turn<T: Copy>(all: &[T], turn: usize) -> Vec<T> {
    let at = if all.is_empty() { 0 } else { turn % all.len() };
    all[at..].iter().chain(&all[..at]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::{cluster, image_with_racks};

    fn placed(image: &MetadataImage, first: usize, partitions: usize, replication: usize) -> Vec<Vec<i32>> {
        let placed = place(image, first, partitions, replication).unwrap();
        placed.into_iter().map(|replicas| replicas.into_iter().map(|id| id.0).collect()).collect()
    }

    #[test]
    fn leaders_take_turns_each_followed_by_its_neighbours() {
        assert_eq!(placed(&cluster(1), 7, 2, 1), [[1], [1]]);
        assert_eq!(placed(&cluster(3), 1, 4, 2), [[2, 3], [3, 1], [1, 2], [2, 3]]);
    }

    #[test]
    fn replicas_are_on_different_racks_and_leaders_on_all_brokers() {
        let image = image_with_racks(&["a", "a", "a", "b", "b", "c"]);
        let all = placed(&image, 0, 12, 3);
        for replicas in &all {
            let racks: BTreeSet<Option<&str>> =
                replicas.iter().map(|id| rack(&image.brokers[&BrokerId(*id)])).collect();
            assert_eq!(racks.len(), 3, "{replicas:?}");
        }
        for id in 1..=6 {
            assert_eq!(all.iter().filter(|replicas| replicas[0] == id).count(), 2, "leaders of {id}");
        }
        assert_eq!(all[..3], [[1, 4, 6], [4, 6, 2], [6, 2, 5]]);
        assert!(placed(&image, 0, 6, 6).iter().all(|replicas| replicas.len() == 6));
    }

    #[test]
    fn who_is_fenced_leads_nothing_and_is_taken_last() {
        let mut image = cluster(3);
        image.brokers[&BrokerId(1)].fenced = true;
        assert_eq!(placed(&image, 0, 3, 2), [[2, 3], [3, 2], [2, 3]]);
        assert_eq!(placed(&image, 0, 2, 3), [[2, 3, 1], [3, 2, 1]]);
        let mut all_fenced = image.clone();
        for id in [2, 3] {
            all_fenced.brokers[&BrokerId(id)].fenced = true;
        }
        assert_eq!(place(&all_fenced, 0, 1, 1), Err(PlacementError::AllFenced));
        let error = place(&image, 0, 1, 4).unwrap_err().to_string();
        assert!(error.ends_with("cannot be reached because only 3 broker(s) are registered."), "{error}");
    }
}
