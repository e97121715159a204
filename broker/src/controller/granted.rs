//! Epochs that this broker was granted and has not begun, or has given back: somebody else could lead. Pure.
//!
//! A replica gives an epoch back when the disk did not take what others may have fetched already, and never leads in it again.
//! To begin an epoch is one entry in the journal. Who has not written it for a second is not likely to, though nothing stands
//! still: the disk may be full, or the replica does not open. An age grows by at most two beats from one beat to the next, so
//! that a process that was paused reports nothing that it had no time for.

use std::collections::BTreeMap;
use std::time::Duration;

use io_backend::Moment;

use crate::ids::{LeaderEpoch, PartitionId};
use crate::metadata::{BrokerProcess, MetadataImage};

/// An open replica begins its epoch within this.
const BEGUN_AFTER: Duration = Duration::from_secs(1);
/// One that is still to be opened, perhaps with many others: its topic was just created, or it moved here.
const OPENED_AFTER: Duration = Duration::from_secs(5);
/// Epochs of one heartbeat: it stays far below what goes between nodes, and as many are elected at once.
const REPORTED_MAX: usize = 1_000;

/// How far a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It leads in this epoch.
    Leads(LeaderEpoch),
    /// It is open, and does not lead.
    Not,
    /// It is not open.
    NotOpen,
}

/// See the module.
#[derive(Default)]
pub struct Granted {
    /// The image that `granted` was last filled from.
    index: u64,
    looked: Option<Moment>,
    granted: BTreeMap<PartitionId, Epoch>,
}

struct Epoch {
    epoch: LeaderEpoch,
    /// Since it was granted.
    age: Duration,
    /// It has begun.
    begun: bool,
}

impl Granted {
    /// Takes in an image and how far the replicas are, once a beat; what has not begun in time.
    pub fn handle_beat(
        &mut self,
        now: Moment,
        beat: Duration,
        image: &MetadataImage,
        process: BrokerProcess,
        begun: impl Fn(PartitionId) -> Begun,
    ) -> Vec<(PartitionId, LeaderEpoch)> {
        let passed = self.looked.map_or(Duration::ZERO, |looked| now.since(looked).min(2 * beat));
        self.looked = Some(now);
        if self.index != image.index {
            self.index = image.index;
            self.follow(image, process);
        }
        let mut late = Vec::new();
        for (id, granted) in &mut self.granted {
            granted.age += passed;
            let is_late = match begun(*id) {
                Begun::Leads(epoch) if epoch == granted.epoch => {
                    granted.begun = true;
                    false
                }
                Begun::NotOpen => granted.age >= OPENED_AFTER,
                Begun::Leads(_) | Begun::Not => granted.begun || granted.age >= BEGUN_AFTER,
            };
            if is_late && late.len() < REPORTED_MAX {
                late.push((*id, granted.epoch));
            }
        }
        late
    }

    /// What is granted is looked at, for as long as it is; what was known already stays so.
    fn follow(&mut self, image: &MetadataImage, process: BrokerProcess) {
        let mut before = std::mem::take(&mut self.granted);
        for topic in image.topics.values() {
            for (index, partition) in (0..).zip(&topic.partitions) {
                let is_granted = partition.leader == Some(process.broker)
                    && partition.leader_broker_epoch == process.epoch
                    && partition.replicas.len() > 1;
                if !is_granted {
                    continue;
                }
                let id = PartitionId { topic: topic.id, index };
                let epoch = partition.leader_epoch;
                let known = before.remove(&id).filter(|known| known.epoch == epoch);
                self.granted.insert(id, known.unwrap_or(Epoch { epoch, age: Duration::ZERO, begun: false }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::{cluster_with, id, process};

    const BEAT: Duration = Duration::from_millis(250);

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn what_has_not_begun_a_second_after_it_was_granted_is_reported_until_it_has() {
        let image = cluster_with(2, &[&[1, 2], &[1], &[2, 1]]);
        let epoch = LeaderEpoch(0);
        let mut granted = Granted::default();
        let mut beat =
            |ms, begun: Begun| granted.handle_beat(at(ms), BEAT, &image, process(&image, 1), move |_| begun);
        for ms in [0, 250, 500, 750] {
            assert_eq!(beat(ms, Begun::Not), [], "{ms} ms");
        }
        assert_eq!(
            beat(1_000, Begun::Not),
            [(id(1, 0), epoch)],
            "alone nobody else could, and 3 is led elsewhere"
        );
        assert_eq!(
            beat(1_250, Begun::Leads(LeaderEpoch(-1))),
            [(id(1, 0), epoch)],
            "an earlier epoch is another"
        );
        assert_eq!(beat(1_500, Begun::Leads(epoch)), []);
        assert_eq!(beat(9_000, Begun::Leads(epoch)), []);
        assert_eq!(
            beat(9_250, Begun::Not),
            [(id(1, 0), epoch)],
            "what was given back is never led again in it"
        );
    }

    #[test]
    fn who_is_to_be_opened_has_more_time_and_a_pause_is_no_time() {
        let image = cluster_with(2, &[&[1, 2]]);
        let mut granted = Granted::default();
        let mut late = |ms, begun: Begun| {
            !granted.handle_beat(at(ms), BEAT, &image, process(&image, 1), move |_| begun).is_empty()
        };
        assert!(!late(0, Begun::NotOpen));
        assert!(!late(60_000, Begun::NotOpen), "half a second at most");
        let first = (1..100).find(|beat| late(60_000 + 250 * beat, Begun::NotOpen));
        assert_eq!(first, Some(18), "another four and a half");
    }
}
