//! First batches of idempotent producers that were refused before they came to their partition: it did not serve yet, or
//! nothing was admitted. A partition that knows nothing of a producer takes any sequence from it, as in Kafka; a later
//! batch on the same connection would overtake the refused one, which comes again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use io_backend::Moment;

use super::AppendError;
use crate::ids::{PartitionId, ProducerId};
use crate::limits;
use crate::log::batch::{CheckedBatch, ProducerStamp};

type Key = (PartitionId, ProducerId, i16);

/// Held for a lookup, never while waiting. Each with the time of the last refusal.
#[derive(Debug, Default)]
pub struct FirstRefused(Mutex<BTreeMap<Key, Moment>>);

impl FirstRefused {
    /// The batch did not come to its partition, and may come again.
    pub fn refused(&self, partition: PartitionId, stamp: Option<ProducerStamp>, now: Moment) {
        let Some(stamp) = stamp.filter(|stamp| stamp.base_sequence == 0) else { return };
        let mut kept = self.kept();
        kept.insert(key(partition, stamp), now);
        if kept.len() > limits::FIRST_REFUSED_MAX {
            let oldest = kept.iter().min_by_key(|(_, refused)| **refused).map(|(key, _)| *key);
            oldest.and_then(|oldest| kept.remove(&oldest));
        }
    }

    /// Whether the batch may go to its partition: not before the first one, unless its client has given that up.
    pub fn check(
        &self,
        partition: PartitionId,
        batch: &CheckedBatch,
        now: Moment,
    ) -> Result<(), AppendError> {
        let Some(stamp) = batch.producer.filter(|stamp| stamp.base_sequence != 0) else { return Ok(()) };
        match self.kept().get(&key(partition, stamp)) {
            Some(refused) if now.since(*refused) < limits::PRODUCER_RETRIES_WITHIN => {
                let found = stamp.base_sequence;
                Err(AppendError::OutOfOrderSequence { producer: stamp.id, expected: 0, found })
            }
            _ => Ok(()),
        }
    }

    /// The batch stands in its partition's line: from there on the partition itself keeps the order.
    pub fn came_through(&self, partition: PartitionId, stamp: Option<ProducerStamp>) {
        let Some(stamp) = stamp else { return };
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

    use bytes::Bytes;

    use super::*;

    const HERE: PartitionId = PartitionId::NODE;
    const T0: Moment = Moment(0);

    fn batch(id: i64, base_sequence: i32) -> CheckedBatch {
        CheckedBatch {
            bytes: Bytes::new(),
            records: 1,
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            times: (0, 0),
            producer: Some(ProducerStamp { id: ProducerId(id), epoch: 0, base_sequence }),
            transactional: false,
        }
    }

    fn refuse(kept: &FirstRefused, id: i64, base_sequence: i32, now: Moment) {
        kept.refused(HERE, batch(id, base_sequence).producer, now);
    }

    #[test]
    fn no_later_batch_overtakes_a_first_one_that_was_refused() {
        let kept = FirstRefused::default();
        refuse(&kept, 1, 0, T0);
        refuse(&kept, 2, 7, T0);
        let early = AppendError::OutOfOrderSequence { producer: ProducerId(1), expected: 0, found: 3 };
        assert_eq!(kept.check(HERE, &batch(1, 3), T0), Err(early.clone()));
        assert_eq!(kept.check(HERE, &batch(2, 8), T0), Ok(()), "its first batch was not refused here");
        assert_eq!(kept.check(HERE, &batch(1, 0), T0), Ok(()));
        assert_eq!(kept.check(HERE, &batch(1, 3), T0), Err(early), "the first one may be refused once more");
        kept.came_through(HERE, batch(1, 0).producer);
        assert_eq!(kept.check(HERE, &batch(1, 3), T0), Ok(()));
    }

    #[test]
    fn a_client_that_gave_its_first_batch_up_goes_on() {
        let kept = FirstRefused::default();
        refuse(&kept, 1, 0, T0);
        let again = T0 + Duration::from_secs(60);
        refuse(&kept, 1, 0, again);
        let given_up = again + limits::PRODUCER_RETRIES_WITHIN;
        assert!(kept.check(HERE, &batch(1, 3), Moment(given_up.0 - 1)).is_err());
        assert_eq!(kept.check(HERE, &batch(1, 3), given_up), Ok(()));
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
        assert!(kept.check(HERE, &batch(1, 3), last).is_err());
        assert_eq!(kept.check(HERE, &batch(flood, 3), last), Ok(()));
    }
}
