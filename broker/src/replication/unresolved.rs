//! Additions to ISRs that were asked for, and whose outcome is not known: each may still be decided, as long as its partition has the
//! version that it was asked for at. They are asked for again until it has another. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::isr::Wish;
use crate::ids::{BrokerId, PartitionEpoch, PartitionId};

/// Of all partitions that a node leads.
#[derive(Default)]
pub(super) struct Unresolved(BTreeMap<PartitionId, (PartitionEpoch, BTreeSet<BrokerId>)>);

impl Unresolved {
    /// Whether there is something to ask for again.
    pub(super) fn has(&self, partition: PartitionId) -> bool {
        self.0.contains_key(&partition)
    }

    /// It took effect.
    pub(super) fn decided(&mut self, partition: PartitionId) {
        self.0.remove(&partition);
    }

    /// These were asked for at this version, and whether they take effect is not known.
    pub(super) fn left_open(&mut self, partition: PartitionId, at: PartitionEpoch, joining: &[BrokerId]) {
        if joining.is_empty() {
            return;
        }
        let (version, open) = self.0.entry(partition).or_insert((at, BTreeSet::new()));
        if *version != at {
            (*version, *open) = (at, BTreeSet::new());
        }
        open.extend(joining);
    }

    /// What is wished for, and what is to be asked for again beside it.
    pub(super) fn with_open(
        &mut self,
        mut wishes: Vec<Wish>,
        version_of: impl Fn(PartitionId) -> Option<PartitionEpoch>,
    ) -> Vec<Wish> {
        self.0.retain(|partition, (version, _)| version_of(*partition) == Some(*version));
        for (partition, (_, open)) in &self.0 {
            match wishes.iter_mut().find(|wish| wish.partition == *partition) {
                Some(wish) => {
                    let more: Vec<_> =
                        open.iter().copied().filter(|broker| !wish.join.contains(broker)).collect();
                    wish.join.extend(more);
                }
                None => {
                    let join = open.iter().copied().collect();
                    wishes.push(Wish { partition: *partition, leave: Vec::new(), join });
                }
            }
        }
        wishes
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::TopicId;

    fn partition(index: i32) -> PartitionId {
        PartitionId { topic: TopicId(Uuid::from_u128(1)), index }
    }

    fn wish(index: i32, leave: &[i32], join: &[i32]) -> Wish {
        let brokers = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
        Wish { partition: partition(index), leave: brokers(leave), join: brokers(join) }
    }

    #[test]
    fn what_may_still_be_decided_is_asked_for_again_until_its_partition_has_another_version() {
        let mut all = Unresolved::default();
        let (first, second) = (PartitionEpoch(1), PartitionEpoch(2));
        all.left_open(partition(0), first, &[BrokerId(2)]);
        all.left_open(partition(0), first, &[BrokerId(3)]);
        all.left_open(partition(1), first, &[BrokerId(2)]);
        // Who was asked to leave is not waited for.
        all.left_open(partition(2), first, &[]);
        assert_eq!([0, 1, 2].map(|index| all.has(partition(index))), [true, true, false]);
        let at_first = |_| Some(first);
        let again = [wish(0, &[], &[2, 3]), wish(1, &[], &[2])];
        assert_eq!(all.with_open(Vec::new(), at_first), again);
        let beside = all.with_open(vec![wish(1, &[4], &[5, 2]), wish(2, &[4], &[])], at_first);
        assert_eq!(beside, [wish(1, &[4], &[5, 2]), wish(2, &[4], &[]), wish(0, &[], &[2, 3])]);
        all.decided(partition(1));
        assert_eq!(all.with_open(Vec::new(), at_first), [wish(0, &[], &[2, 3])]);
        all.left_open(partition(0), second, &[BrokerId(4)]);
        assert_eq!(all.with_open(Vec::new(), |_| Some(second)), [wish(0, &[], &[4])]);
        assert_eq!(all.with_open(Vec::new(), |_| Some(PartitionEpoch(3))), []);
        all.left_open(partition(0), second, &[BrokerId(4)]);
        assert_eq!(all.with_open(Vec::new(), |_| None), [], "nor where it is no more");
        assert!(!all.has(partition(0)));
    }
}
