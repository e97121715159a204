//! First batches of idempotent producers that were refused because their partition did not serve yet. A partition that
//! knows nothing of a producer takes any sequence from it, as in Kafka; a later batch on the same connection would
//! overtake the refused one, which comes again.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::{PartitionId, ProducerId};
use crate::limits;
use crate::partition::{AppendError, CheckedBatch, ProducerStamp};

/// Held for a lookup, never while waiting.
#[derive(Debug, Default)]
pub struct FirstRefused(Mutex<BTreeSet<(PartitionId, ProducerId, i16)>>);

impl FirstRefused {
    /// This node leads the partition, but it does not serve yet.
    pub fn refused(&self, partition: PartitionId, batch: &CheckedBatch) {
        let Some(stamp) = batch.producer.filter(|stamp| stamp.base_sequence == 0) else { return };
        let mut kept = self.kept();
        kept.insert(key(partition, stamp));
        if kept.len() > limits::FIRST_REFUSED_MAX {
            kept.pop_first();
        }
    }

    /// Whether the batch may go to its partition, which is open now: not before the first one.
    pub fn admit(&self, partition: PartitionId, batch: &CheckedBatch) -> Result<(), AppendError> {
        let Some(stamp) = batch.producer else { return Ok(()) };
        let mut kept = self.kept();
        if kept.is_empty() {
            return Ok(());
        }
        match stamp.base_sequence {
            0 => {
                kept.remove(&key(partition, stamp));
                Ok(())
            }
            found if kept.contains(&key(partition, stamp)) => {
                Err(AppendError::OutOfOrderSequence { producer: stamp.id, expected: 0, found })
            }
            _ => Ok(()),
        }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeSet<(PartitionId, ProducerId, i16)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(partition: PartitionId, stamp: ProducerStamp) -> (PartitionId, ProducerId, i16) {
    (partition, stamp.id, stamp.epoch)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn batch(id: i64, base_sequence: i32) -> CheckedBatch {
        CheckedBatch {
            bytes: Bytes::new(),
            records: 1,
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer: Some(ProducerStamp { id: ProducerId(id), epoch: 0, base_sequence }),
            transactional: false,
        }
    }

    #[test]
    fn no_later_batch_overtakes_a_first_one_that_was_refused() {
        let (kept, here) = (FirstRefused::default(), PartitionId::NODE);
        kept.refused(here, &batch(1, 0));
        kept.refused(here, &batch(2, 7));
        let early = AppendError::OutOfOrderSequence { producer: ProducerId(1), expected: 0, found: 3 };
        assert_eq!(kept.admit(here, &batch(1, 3)), Err(early));
        assert_eq!(kept.admit(here, &batch(2, 8)), Ok(()), "its first batch was not refused here");
        assert_eq!(kept.admit(here, &batch(1, 0)), Ok(()));
        assert_eq!(kept.admit(here, &batch(1, 3)), Ok(()));
    }

    #[test]
    fn a_flood_of_refusals_is_bounded() {
        let kept = FirstRefused::default();
        for id in 0..2 * limits::FIRST_REFUSED_MAX as i64 {
            kept.refused(PartitionId::NODE, &batch(id, 0));
        }
        assert_eq!(kept.kept().len(), limits::FIRST_REFUSED_MAX);
    }
}
