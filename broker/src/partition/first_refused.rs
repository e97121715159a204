//! First batches of idempotent producers that were refused before they came to their partition: it did not serve yet, or
//! nothing was admitted, or it was passed on to a node of which nothing was heard. A partition that knows nothing of a producer takes any sequence from it, as in Kafka; a later
//! batch on the same connection would overtake the refused one, which comes again. Where the partition does know the
//! producer, the first batch came by another node: then it keeps the order by itself, whatever was refused here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use io_backend::Moment;

use crate::ids::{PartitionId, ProducerId};
use crate::limits;
use crate::log::batch::ProducerStamp;

type Key = (PartitionId, ProducerId, i16);

/// Held for a lookup, never while waiting. Each with the time of the last refusal.
#[derive(Debug, Default)]
pub struct FirstRefused(Mutex<BTreeMap<Key, Moment>>);

impl FirstRefused {
    /// The batch did not come to its partition, as far as is known, and may come again.
    pub fn refused(&self, partition: PartitionId, stamp: Option<ProducerStamp>, now: Moment) {
        let Some(stamp) = stamp.filter(|stamp| stamp.base_sequence == 0) else { return };
        let mut kept = self.kept();
        kept.insert(key(partition, stamp), now);
        if kept.len() > limits::FIRST_REFUSED_MAX {
            let oldest = kept.iter().min_by_key(|(_, refused)| **refused).map(|(key, _)| *key);
            oldest.and_then(|oldest| kept.remove(&oldest));
        }
    }

    /// Whether the first batch of its producer was refused and may still come again.
    pub fn is_before(&self, partition: PartitionId, stamp: Option<ProducerStamp>, now: Moment) -> bool {
        stamp
            .filter(|stamp| stamp.base_sequence != 0)
            .and_then(|stamp| self.kept().get(&key(partition, stamp)).copied())
            .is_some_and(|refused| now.since(refused) < limits::PRODUCER_RETRIES_WITHIN)
    }

    /// The first batch stands in its partition's line: from there on the partition itself keeps the order.
    pub fn came_through(&self, partition: PartitionId, stamp: Option<ProducerStamp>) {
        let Some(stamp) = stamp.filter(|stamp| stamp.base_sequence == 0) else { return };
        self.kept().remove(&key(partition, stamp));
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<Key, Moment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(partition: PartitionId, stamp: ProducerStamp) -> Key {
    (partition, stamp.id, stamp.epoch)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HERE: PartitionId = PartitionId::NODE;
    const T0: Moment = Moment(0);

    fn stamp(id: i64, base_sequence: i32) -> Option<ProducerStamp> {
        Some(ProducerStamp { id: ProducerId(id), epoch: 0, base_sequence })
    }

    fn refuse(kept: &FirstRefused, id: i64, base_sequence: i32, now: Moment) {
        kept.refused(HERE, stamp(id, base_sequence), now);
    }

    #[test]
    fn no_later_batch_overtakes_a_first_one_that_was_refused() {
        let kept = FirstRefused::default();
        refuse(&kept, 1, 0, T0);
        refuse(&kept, 2, 7, T0);
        assert!(kept.is_before(HERE, stamp(1, 3), T0));
        assert!(!kept.is_before(HERE, stamp(2, 8), T0), "its first batch was not refused here");
        assert!(!kept.is_before(HERE, stamp(1, 0), T0), "it is the first one");
        kept.came_through(HERE, stamp(1, 3));
        assert!(kept.is_before(HERE, stamp(1, 3), T0), "it was not the first that came through");
        kept.came_through(HERE, stamp(1, 0));
        assert!(!kept.is_before(HERE, stamp(1, 3), T0));
    }

    #[test]
    fn a_client_that_gave_its_first_batch_up_goes_on() {
        let kept = FirstRefused::default();
        refuse(&kept, 1, 0, T0);
        let again = T0 + Duration::from_secs(60);
        refuse(&kept, 1, 0, again);
        let given_up = again + limits::PRODUCER_RETRIES_WITHIN;
        assert!(kept.is_before(HERE, stamp(1, 3), Moment(given_up.0 - 1)));
        assert!(!kept.is_before(HERE, stamp(1, 3), given_up));
    }

    #[test]
    fn of_a_flood_of_refusals_the_latest_are_kept() {
        let kept = FirstRefused::default();
        let flood = 2 * limits::FIRST_REFUSED_MAX as i64;
        for id in 0..flood {
            refuse(&kept, flood - id, 0, Moment(id as u64));
        }
        assert_eq!(kept.kept().len(), limits::FIRST_REFUSED_MAX);
        let last = Moment(flood as u64);
        assert!(kept.is_before(HERE, stamp(1, 3), last));
        assert!(!kept.is_before(HERE, stamp(flood, 3), last));
    }
}
