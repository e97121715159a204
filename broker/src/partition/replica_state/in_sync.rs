//! Who is in sync with a leader, and how far each has synced in its epoch.
//!
//! A follower's report says how far its disk is; it counts no further than the follower's fetch position, which the
//! leader has found to follow from its own log in this epoch. A leader begins each epoch knowing nothing of the others:
//! what they had synced before may have been truncated since.
//!
//! It says as well where the follower's log starts, on its disk. What is deleted on request is so for good once it is for all who
//! may lead: that all in sync have it says as much of a deletion as it says of a record.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{BrokerId, Offset, PartitionEpoch};
use crate::partition::log_signal::Durable;

/// The in-sync replicas of a leader's partition, but for itself, and what it knows of all that follow it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InSync {
    /// Members of the ISR.
    members: BTreeSet<BrokerId>,
    /// The version of the partition that this is of.
    version: PartitionEpoch,
    /// Who is being added to it, and at which version: the metadata may have them in it before the leader knows.
    joining: BTreeSet<BrokerId>,
    joining_at: PartitionEpoch,
    /// Kafka's `min.insync.replicas`, the leader included.
    min: usize,
    /// The other replicas, in sync or not.
    others: BTreeSet<BrokerId>,
    followers: BTreeMap<BrokerId, Follower>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Follower {
    /// Up to here it has what the leader has.
    fetched: Option<Offset>,
    /// What is on its disk, as it said last.
    reported: Option<Durable>,
}

impl Follower {
    fn synced(self) -> Option<Offset> {
        Some(self.fetched?.min(self.reported?.synced))
    }
}

impl InSync {
    /// The only replica.
    pub fn alone() -> InSync {
        InSync::new([], [], 1)
    }

    /// These `members` of the `others` that have replicas; the high watermark does not advance with fewer than `min`, the leader included.
    pub fn new(
        others: impl IntoIterator<Item = BrokerId>,
        members: impl IntoIterator<Item = BrokerId>,
        min: usize,
    ) -> InSync {
        let (others, members) = (others.into_iter().collect(), members.into_iter().collect());
        InSync { others, members, min, ..InSync::default() }
    }

    /// The same, at this version of the partition.
    pub fn at(self, version: PartitionEpoch) -> InSync {
        InSync { version, ..self }
    }

    /// The ISR changed, within the epoch: what is known of followers stays. Of another version of the partition it says who
    /// has come into it.
    pub fn change_to(&mut self, to: InSync) {
        let InSync { members, min, others, version, .. } = to;
        (self.members, self.min, self.others, self.version) = (members, min, others, version);
        if self.version > self.joining_at {
            self.joining.clear();
        }
    }

    /// These are to be added to the ISR of this version. They count from now on, beside those who were to be before, until the
    /// partition has a later version: whatever is answered, an earlier copy of what was asked may take effect as long as the
    /// version is the one that it names. `false` where the partition has a later version.
    pub fn add(&mut self, version: PartitionEpoch, joining: impl IntoIterator<Item = BrokerId>) -> bool {
        if version < self.version.max(self.joining_at) {
            return false;
        }
        if self.joining_at < version {
            self.joining.clear();
        }
        self.joining_at = version;
        self.joining.extend(joining);
        true
    }

    /// Whether nobody else has, or comes to have, what the leader gives offsets to.
    pub fn is_alone(&self) -> bool {
        self.others.is_empty()
    }

    /// Whether nothing is committed, for too few are in sync (KIP-966).
    pub fn is_below_min(&self) -> bool {
        self.members.len() + 1 < self.min
    }

    /// The follower has, and the leader has made sure of it, everything before `offset`.
    pub fn fetched(&mut self, follower: BrokerId, offset: Offset) {
        self.followers.entry(follower).or_default().fetched = Some(offset);
    }

    /// So much is on the follower's disk.
    pub fn reported(&mut self, follower: BrokerId, durable: Durable) {
        self.followers.entry(follower).or_default().reported = Some(durable);
    }

    /// Nothing is known of the follower any more: its process has been started anew, or it has another disk.
    pub fn forget(&mut self, follower: BrokerId) {
        self.followers.remove(&follower);
    }

    /// Up to where the follower surely has everything on its disk; `None` as long as that is not known in this epoch.
    pub fn synced_by(&self, follower: BrokerId) -> Option<Offset> {
        self.followers.get(&follower)?.synced()
    }

    /// Where the follower's log starts on its disk; `None` as long as it has not said so in this epoch.
    pub fn start_of(&self, follower: BrokerId) -> Option<Offset> {
        Some(self.followers.get(&follower)?.reported?.log_start)
    }

    /// Up to where all in sync have, when the leader itself has up to `own`; `None` where one of them is not known yet, or
    /// where they are too few (KIP-966).
    pub fn synced_by_in_sync(&self, own: Offset) -> Option<Offset> {
        self.least_of_all(own, |member| self.synced_by(member))
    }

    /// Up to where all replicas have, in sync or not, when the leader itself has up to `own`; `None` where one of them is not known yet.
    pub fn synced_by_replicas(&self, own: Offset) -> Option<Offset> {
        least(own, self.others.iter(), |other| self.synced_by(other))
    }

    /// From where on the logs of all in sync start at least, when the leader's own starts at `own`; `None` as above.
    pub fn start_of_all(&self, own: Offset) -> Option<Offset> {
        self.least_of_all(own, |member| self.start_of(member))
    }

    fn least_of_all(&self, own: Offset, of: impl Fn(BrokerId) -> Option<Offset>) -> Option<Offset> {
        if self.is_below_min() {
            return None;
        }
        least(own, self.members.iter().chain(&self.joining), of)
    }
}

fn least<'a>(
    own: Offset,
    mut all: impl Iterator<Item = &'a BrokerId>,
    of: impl Fn(BrokerId) -> Option<Offset>,
) -> Option<Offset> {
    all.try_fold(own, |least, one| Some(least.min(of(*one)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Offset = Offset(100);

    fn synced(offset: i64) -> Durable {
        Durable { synced: Offset(offset), log_start: Offset::ZERO }
    }

    fn two() -> InSync {
        InSync::new([BrokerId(2), BrokerId(3)], [BrokerId(2), BrokerId(3)], 2)
    }

    #[test]
    fn alone_what_is_synced_here_is_synced_by_all() {
        assert_eq!(InSync::alone().synced_by_in_sync(OWN), Some(OWN));
    }

    #[test]
    fn a_member_that_has_not_been_heard_of_in_this_epoch_holds_all() {
        let mut in_sync = two();
        in_sync.fetched(BrokerId(2), Offset(50));
        in_sync.reported(BrokerId(2), synced(50));
        in_sync.reported(BrokerId(3), synced(70));
        assert_eq!(in_sync.synced_by_in_sync(OWN), None, "what 3 has was not compared yet");
        in_sync.fetched(BrokerId(3), Offset(60));
        assert_eq!(in_sync.synced_by_in_sync(OWN), Some(Offset(50)));
    }

    #[test]
    fn a_report_counts_as_far_as_the_follower_has_fetched_and_the_last_one_counts() {
        let mut in_sync = InSync::new([BrokerId(2)], [BrokerId(2)], 1);
        in_sync.fetched(BrokerId(2), Offset(60));
        for (reported, counts) in [(90, 60), (40, 40), (60, 60)] {
            in_sync.reported(BrokerId(2), synced(reported));
            assert_eq!(in_sync.synced_by_in_sync(OWN), Some(Offset(counts)));
        }
        in_sync.forget(BrokerId(2));
        assert_eq!(in_sync.synced_by_in_sync(OWN), None);
    }

    #[test]
    fn who_is_to_be_added_counts_until_the_partition_has_another_version() {
        let of = |members: &[i32], version| {
            let others = [BrokerId(2), BrokerId(3)];
            InSync::new(others, members.iter().copied().map(BrokerId), 1).at(PartitionEpoch(version))
        };
        let mut in_sync = of(&[], 5);
        assert!(in_sync.add(PartitionEpoch(5), [BrokerId(2)]));
        assert!(in_sync.add(PartitionEpoch(5), [BrokerId(3)]));
        in_sync.fetched(BrokerId(3), Offset(70));
        in_sync.reported(BrokerId(3), synced(70));
        assert_eq!(in_sync.synced_by_in_sync(OWN), None, "that 3 was asked for says nothing of 2");
        in_sync.change_to(of(&[], 5));
        assert_eq!(in_sync.synced_by_in_sync(OWN), None, "it may be decided yet");
        in_sync.change_to(of(&[], 6));
        assert_eq!(in_sync.synced_by_in_sync(OWN), Some(OWN), "it cannot");
        assert!(!in_sync.add(PartitionEpoch(5), [BrokerId(2)]));
        assert!(in_sync.add(PartitionEpoch(6), [BrokerId(3)]));
        assert_eq!(in_sync.synced_by_in_sync(OWN), Some(Offset(70)));
    }

    #[test]
    fn a_start_is_that_of_all_once_each_in_sync_has_it_on_its_disk() {
        let at = |log_start| Durable { log_start: Offset(log_start), ..Durable::default() };
        assert_eq!(InSync::alone().start_of_all(OWN), Some(OWN));
        let mut in_sync = two();
        in_sync.reported(BrokerId(2), at(100));
        assert_eq!(in_sync.start_of_all(OWN), None, "3 was not heard of");
        in_sync.reported(BrokerId(3), at(60));
        assert_eq!(in_sync.start_of_all(OWN), Some(Offset(60)), "whatever it has of records");
        in_sync.reported(BrokerId(3), at(100));
        in_sync.reported(BrokerId(4), at(7));
        assert_eq!(in_sync.start_of_all(OWN), Some(OWN), "4 is not in sync");
        assert!(in_sync.add(PartitionEpoch(0), [BrokerId(4)]));
        assert_eq!(in_sync.start_of_all(OWN), Some(Offset(7)), "it may be");
        in_sync.forget(BrokerId(4));
        assert_eq!(in_sync.start_of_all(OWN), None, "it may have another disk");
    }

    #[test]
    fn what_all_replicas_have_is_what_the_one_has_that_is_furthest_behind_in_sync_or_not() {
        assert_eq!(InSync::alone().synced_by_replicas(OWN), Some(OWN));
        let mut in_sync = InSync::new([BrokerId(2), BrokerId(3)], [BrokerId(2)], 2);
        let has = |in_sync: &mut InSync, follower, offset| {
            in_sync.fetched(BrokerId(follower), Offset(offset));
            in_sync.reported(BrokerId(follower), synced(offset));
        };
        has(&mut in_sync, 2, 90);
        assert_eq!(in_sync.synced_by_replicas(OWN), None, "3 was not heard of");
        has(&mut in_sync, 3, 40);
        assert_eq!(
            (in_sync.synced_by_replicas(OWN), in_sync.synced_by_in_sync(OWN)),
            (Some(Offset(40)), Some(Offset(90)))
        );
        in_sync.change_to(InSync::new([BrokerId(2)], [BrokerId(2)], 2));
        assert_eq!(in_sync.synced_by_replicas(OWN), Some(Offset(90)), "3 has no replica any more");
        in_sync.forget(BrokerId(2));
        assert_eq!(in_sync.synced_by_replicas(OWN), None);
    }

    #[test]
    fn too_few_do_not_decide() {
        let mut in_sync = two();
        in_sync.change_to(InSync::new([BrokerId(2)], [], 2));
        assert_eq!((in_sync.synced_by_in_sync(OWN), in_sync.start_of_all(OWN)), (None, None));
        in_sync.change_to(InSync::new([BrokerId(2)], [], 1));
        assert_eq!(in_sync.synced_by_in_sync(OWN), Some(OWN));
    }
}
