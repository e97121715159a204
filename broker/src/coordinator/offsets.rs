//! How far the groups are: the offsets that they committed, and when these are forgotten. Pure.
//!
//! A commit counts from when its record is durable; whoever asks before that is answered when it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{LeaderEpoch, Offset};

/// Where a group is in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next record it wants.
    pub offset: Offset,
    /// The epoch of the last record it had, for a consumer to find out whether that was truncated.
    pub leader_epoch: LeaderEpoch,
    /// What the consumer wants to remember beside it.
    pub metadata: Arc<str>,
    /// When it was committed, by the wall clock.
    pub committed_ms: i64,
    /// When it is to be forgotten, where the client said so itself: those of old do.
    pub expires_ms: Option<i64>,
}

/// When offsets of a group may be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forgetting {
    /// Not while it is as it is.
    Nothing,
    /// Those committed longer ago than they are kept; of a group that has members none of the topics that these read.
    ByCommit {
        /// Topics that are read.
        but: Vec<Arc<str>>,
    },
    /// All, once the group has had no members for so long.
    SinceEmpty {
        /// Since when it has none, by the wall clock.
        since_ms: i64,
    },
}

/// The offsets of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    by_topic: BTreeMap<Arc<str>, BTreeMap<i32, Committed>>,
}

impl Offsets {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// Where the group is in this partition.
    pub fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.by_topic.get(topic)?.get(&partition)
    }

    /// In how many partitions the group is somewhere.
    pub fn partitions(&self) -> usize {
        self.by_topic.values().map(BTreeMap::len).sum()
    }

    /// In the order of topics and partitions.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, i32, &Committed)> {
        self.by_topic.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, committed)| (topic, *partition, committed))
        })
    }

    /// The partitions of a topic in which the group is somewhere.
    pub fn of_topic(&self, topic: &str) -> impl Iterator<Item = i32> {
        self.by_topic.get(topic).into_iter().flat_map(|partitions| partitions.keys().copied())
    }

    /// As a record says it. A tombstone says none.
    pub fn set(&mut self, topic: &Arc<str>, partition: i32, committed: Option<Committed>) {
        match committed {
            Some(committed) => {
                self.by_topic.entry(topic.clone()).or_default().insert(partition, committed);
            }
            None => {
                let Some(partitions) = self.by_topic.get_mut(topic) else { return };
                partitions.remove(&partition);
                if partitions.is_empty() {
                    self.by_topic.remove(topic);
                }
            }
        }
    }

    /// Those that are over, where they are kept for `retention_ms`.
    pub fn forgettable(&self, how: &Forgetting, retention_ms: i64, now_ms: i64) -> Vec<(Arc<str>, i32)> {
        let is_over = |topic: &Arc<str>, committed: &Committed| match (how, committed.expires_ms) {
            (Forgetting::Nothing, _) => false,
            (Forgetting::ByCommit { but }, _) if but.contains(topic) => false,
            (_, Some(expires_ms)) => now_ms >= expires_ms,
            (Forgetting::ByCommit { .. }, None) => now_ms - committed.committed_ms >= retention_ms,
            (Forgetting::SinceEmpty { since_ms }, None) => now_ms - since_ms >= retention_ms,
        };
        let over = self.iter().filter(|(topic, _, committed)| is_over(topic, committed));
        over.map(|(topic, partition, _)| (topic.clone(), partition)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(of: &[(&str, i32, i64, Option<i64>)]) -> Offsets {
        let mut offsets = Offsets::default();
        for &(topic, partition, committed_ms, expires_ms) in of {
            let committed = Committed {
                offset: Offset(1),
                leader_epoch: LeaderEpoch(0),
                metadata: Arc::from(""),
                committed_ms,
                expires_ms,
            };
            offsets.set(&Arc::from(topic), partition, Some(committed));
        }
        offsets
    }

    #[test]
    fn offsets_are_forgotten_when_nobody_can_want_them() {
        let offsets = offsets(&[
            ("old", 0, 0, None),
            ("read", 0, 0, None),
            ("young", 0, 95, None),
            ("own", 0, 0, Some(101)),
        ]);
        let cases: [(Forgetting, i64, &[&str]); 7] = [
            (Forgetting::Nothing, 1_000, &[]),
            (Forgetting::ByCommit { but: vec![] }, 99, &[]),
            (Forgetting::ByCommit { but: vec![] }, 100, &["old", "read"]),
            (Forgetting::ByCommit { but: vec![] }, 101, &["old", "own", "read"]),
            (Forgetting::ByCommit { but: vec![Arc::from("read")] }, 1_000, &["old", "own", "young"]),
            (Forgetting::SinceEmpty { since_ms: 50 }, 149, &["own"]),
            (Forgetting::SinceEmpty { since_ms: 50 }, 150, &["old", "own", "read", "young"]),
        ];
        for (how, now_ms, expected) in cases {
            let over: Vec<_> =
                offsets.forgettable(&how, 100, now_ms).into_iter().map(|(topic, _)| topic).collect();
            assert_eq!(
                over.iter().map(|topic| &**topic).collect::<Vec<_>>(),
                expected,
                "{how:?} at {now_ms}"
            );
        }
    }

    #[test]
    fn a_tombstone_leaves_nothing_behind() {
        let mut offsets = offsets(&[("t", 0, 0, None), ("t", 1, 0, None)]);
        for partition in [0, 1, 1] {
            offsets.set(&Arc::from("t"), partition, None);
        }
        assert!(offsets.is_empty());
        assert_eq!(offsets.get("t", 0), None);
    }
}
