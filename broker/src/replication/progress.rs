//! How far followers are, as their fetch sessions have found: read by who decides about ISRs.
//!
//! Every critical section is a few moves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use io_backend::Published;

use crate::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId};
use crate::partition::Durable;

/// How far a follower is in one epoch of its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub epoch: LeaderEpoch,
    /// Up to here it has what the leader has.
    pub fetched: Option<Offset>,
    /// What is on its disk, as it said last.
    pub reported: Option<Durable>,
}

impl Progress {
    /// Up to here its disk surely has everything.
    pub fn synced(&self) -> Option<Offset> {
        Some(self.fetched?.min(self.reported?.synced))
    }
}

/// All followers of this node. Cloneable: all clones are the same.
#[derive(Clone)]
pub struct ProgressTable {
    shared: Arc<Mutex<BTreeMap<BrokerId, OfFollower>>>,
    /// How often a follower has begun anew.
    begun: Published<u64>,
}

impl Default for ProgressTable {
    fn default() -> ProgressTable {
        ProgressTable { shared: Arc::default(), begun: Published::new("followers that have begun anew", 0) }
    }
}

#[derive(Default)]
struct OfFollower {
    /// Its process.
    broker_epoch: BrokerEpoch,
    /// As it said last: before it has, it does not.
    takes_records: bool,
    partitions: BTreeMap<PartitionId, Progress>,
}

impl ProgressTable {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<BrokerId, OfFollower>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when what was known of a follower is not known any more: it only grows otherwise.
    pub fn begun(&self) -> &Published<u64> {
        &self.begun
    }

    /// A follower begins anew, as this process. Returns what was known of it.
    pub fn begin(&self, follower: BrokerId, broker_epoch: BrokerEpoch) -> Vec<(PartitionId, LeaderEpoch)> {
        let begun = OfFollower { broker_epoch, ..OfFollower::default() };
        let before = self.lock().insert(follower, begun).unwrap_or_default();
        self.begun.publish(*self.begun.get() + 1);
        before.partitions.into_iter().map(|(partition, progress)| (partition, progress.epoch)).collect()
    }

    /// Whether its storage takes records, as it says now.
    pub fn takes_records(&self, follower: BrokerId, takes_records: bool) {
        self.lock().entry(follower).or_default().takes_records = takes_records;
    }

    /// Its log is a beginning of the leader's, up to here.
    pub fn fetched(&self, follower: BrokerId, partition: PartitionId, epoch: LeaderEpoch, to: Offset) {
        self.with(follower, partition, epoch, |progress| progress.fetched = Some(to));
    }

    /// So much is on its disk.
    pub fn reported(&self, follower: BrokerId, partition: PartitionId, epoch: LeaderEpoch, durable: Durable) {
        self.with(follower, partition, epoch, |progress| progress.reported = Some(durable));
    }

    /// What was on its disk as it said last, in this epoch.
    pub fn reported_in(
        &self,
        follower: BrokerId,
        partition: PartitionId,
        epoch: LeaderEpoch,
    ) -> Option<Durable> {
        let shared = self.lock();
        let progress = shared.get(&follower)?.partitions.get(&partition)?;
        progress.reported.filter(|_| progress.epoch == epoch)
    }

    fn with(
        &self,
        follower: BrokerId,
        partition: PartitionId,
        epoch: LeaderEpoch,
        change: impl FnOnce(&mut Progress),
    ) {
        let mut shared = self.lock();
        let of = shared.entry(follower).or_default();
        let nothing = Progress { epoch, fetched: None, reported: None };
        let progress = of.partitions.entry(partition).or_insert(nothing);
        if progress.epoch < epoch {
            *progress = nothing;
        }
        if progress.epoch == epoch {
            change(progress);
        }
    }

    /// As which process the follower has caught up in this epoch, where its storage takes records.
    pub fn may_join(
        &self,
        follower: BrokerId,
        partition: PartitionId,
        epoch: LeaderEpoch,
    ) -> Option<BrokerEpoch> {
        let takes_records = self.lock().get(&follower)?.takes_records;
        self.synced(follower, partition, epoch).map(|(process, _)| process).filter(|_| takes_records)
    }

    /// How far the follower has synced in this epoch, and as which process.
    pub fn synced(
        &self,
        follower: BrokerId,
        partition: PartitionId,
        epoch: LeaderEpoch,
    ) -> Option<(BrokerEpoch, Offset)> {
        let shared = self.lock();
        let of = shared.get(&follower)?;
        let progress = of.partitions.get(&partition).filter(|progress| progress.epoch == epoch)?;
        Some((of.broker_epoch, progress.synced()?))
    }
}

/// What a follower has said, and owners have yet to hear: of each partition the last.
#[derive(Debug, Default)]
pub struct Reports {
    waiting: BTreeMap<PartitionId, (LeaderEpoch, Durable)>,
}

impl Reports {
    /// So much is on the follower's disk.
    pub fn heard(&mut self, partition: PartitionId, epoch: LeaderEpoch, durable: Durable) {
        self.waiting.insert(partition, (epoch, durable));
    }

    /// What was passed on before is to be passed on once more, unless something later waits already.
    pub fn again(&mut self, partition: PartitionId, epoch: LeaderEpoch, durable: Durable) {
        let waits = self.waiting.get(&partition).is_some_and(|(waiting, _)| *waiting >= epoch);
        if !waits {
            self.waiting.insert(partition, (epoch, durable));
        }
    }

    /// Passes each on; those for which `taken` is not true wait on.
    pub fn pass(&mut self, mut taken: impl FnMut(PartitionId, LeaderEpoch, Durable) -> bool) {
        self.waiting.retain(|partition, (epoch, durable)| !taken(*partition, *epoch, *durable));
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TopicId;

    fn synced(offset: i64) -> Durable {
        Durable { synced: Offset(offset), log_start: Offset::ZERO }
    }

    #[test]
    fn what_is_passed_on_once_more_does_not_take_the_place_of_what_was_said_since() {
        let p = PartitionId { topic: TopicId::NIL, index: 0 };
        let [four, five] = [4, 5].map(LeaderEpoch);
        let passed = |reports: &mut Reports| {
            let mut all = Vec::new();
            reports.pass(|_, epoch, durable| {
                all.push((epoch, durable));
                true
            });
            assert!(reports.is_empty());
            all
        };
        let mut reports = Reports::default();
        reports.heard(p, four, synced(9));
        reports.again(p, four, synced(6));
        assert_eq!(passed(&mut reports), [(four, synced(9))]);
        reports.again(p, four, synced(9));
        assert_eq!(passed(&mut reports), [(four, synced(9))]);
        reports.heard(p, four, synced(9));
        reports.again(p, five, synced(6));
        assert_eq!(
            passed(&mut reports),
            [(five, synced(6))],
            "of an epoch that is over nothing is to be heard"
        );
    }

    #[test]
    fn a_follower_that_takes_no_records_joins_nothing_however_little_it_lacks() {
        let table = ProgressTable::default();
        let (two, p, four) = (BrokerId(2), PartitionId { topic: TopicId::NIL, index: 0 }, LeaderEpoch(4));
        let may_join = || table.may_join(two, p, four);
        table.begin(two, BrokerEpoch(7));
        table.fetched(two, p, four, Offset(9));
        table.reported(two, p, four, synced(9));
        assert_eq!(may_join(), None, "it has not said");
        table.takes_records(two, true);
        assert_eq!(may_join(), Some(BrokerEpoch(7)));
        table.takes_records(two, false);
        assert_eq!((may_join(), table.synced(two, p, four)), (None, Some((BrokerEpoch(7), Offset(9)))));
        table.takes_records(two, true);
        table.begin(two, BrokerEpoch(9));
        assert_eq!(may_join(), None, "what its process before said");
    }

    #[test]
    fn what_is_known_of_a_follower_ends_with_the_epoch_and_with_its_process() {
        let table = ProgressTable::default();
        let (two, p) = (BrokerId(2), PartitionId { topic: TopicId::NIL, index: 0 });
        let [four, five] = [4, 5].map(LeaderEpoch);
        assert_eq!(table.begin(two, BrokerEpoch(7)), []);
        table.reported(two, p, four, synced(9));
        assert_eq!(table.synced(two, p, four), None, "what it has was not compared");
        table.fetched(two, p, four, Offset(6));
        assert_eq!(table.synced(two, p, four), Some((BrokerEpoch(7), Offset(6))));
        table.fetched(two, p, five, Offset(8));
        assert_eq!((table.synced(two, p, four), table.synced(two, p, five)), (None, None));
        table.reported(two, p, four, synced(8));
        assert_eq!(table.synced(two, p, five), None, "a report of before");
        assert_eq!(table.reported_in(two, p, five), None);
        table.reported(two, p, five, synced(8));
        assert_eq!(
            (table.reported_in(two, p, five), table.reported_in(two, p, four)),
            (Some(synced(8)), None)
        );
        assert_eq!(table.begin(two, BrokerEpoch(9)), [(p, five)]);
        assert_eq!(table.synced(two, p, five), None);
    }
}
