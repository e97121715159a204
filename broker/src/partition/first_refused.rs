//! First batches of idempotent producers that were refused before they came to their partition: it was not known here yet, did not serve yet, or
//! nothing was admitted, or it was passed on to a node of which nothing was heard. A partition that knows nothing of a producer takes any sequence from it, as in Kafka; a later
//! batch on the same connection would overtake the refused one, which comes again. Where the partition does know the
//! producer, the first batch came by another node: then it keeps the order by itself, whatever was refused here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use io_backend::Moment;

use crate::ids::{PartitionId, ProducerId};
use crate::limits;
use crate::log::batch::ProducerStamp;

/// Where a batch was to go.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// The topic's name, which a producer may have used before this node knew what it names.
    pub topic: &'a str,
}

/// Held for a lookup, never while waiting. Each with the time of the last refusal.
#[derive(Debug, Default)]
pub struct FirstRefused(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_id: BTreeMap<(PartitionId, Producer), Moment>,
    /// Of topics that were not known here when they were named.
    by_name: BTreeMap<(Producer, i32, String), Moment>,
}

type Producer = (ProducerId, i16);

impl FirstRefused {
    /// The batch did not come to its partition, as far as is known, and may come again.
    pub fn refused(&self, partition: PartitionId, stamp: Option<ProducerStamp>, now: Moment) {
        let Some(producer) = first(stamp) else { return };
        keep(&mut self.kept().by_id, (partition, producer), now);
    }

    /// The same of a topic that was named and that this node knows nothing of.
    pub fn refused_by_name(&self, topic: &str, index: i32, stamp: Option<ProducerStamp>, now: Moment) {
        // No topic will ever have a longer name.
        let Some(producer) = first(stamp).filter(|_| topic.len() <= limits::TOPIC_NAME_BYTES_MAX) else {
            return;
        };
        keep(&mut self.kept().by_name, (producer, index, topic.to_owned()), now);
    }

    /// Whether the first batch of its producer was refused and may still come again.
    pub fn is_before(&self, to: Destination<'_>, stamp: Option<ProducerStamp>, now: Moment) -> bool {
        let Some(stamp) = stamp.filter(|stamp| stamp.base_sequence != 0) else { return false };
        let kept = self.kept();
        let is_recent = |refused: Option<&Moment>| {
            refused.is_some_and(|refused| now.since(*refused) < limits::PRODUCER_RETRIES_WITHIN)
        };
        is_recent(kept.by_id.get(&(to.partition, producer(stamp))))
            || !kept.by_name.is_empty() && is_recent(kept.by_name.get(&named(to, producer(stamp))))
    }

    /// The first batch stands in its partition's line: from there on the partition itself keeps the order.
    pub fn came_through(&self, to: Destination<'_>, stamp: Option<ProducerStamp>) {
        let Some(producer) = first(stamp) else { return };
        let mut kept = self.kept();
        kept.by_id.remove(&(to.partition, producer));
        if !kept.by_name.is_empty() {
            kept.by_name.remove(&named(to, producer));
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn producer(stamp: ProducerStamp) -> Producer {
    (stamp.id, stamp.epoch)
}

fn first(stamp: Option<ProducerStamp>) -> Option<Producer> {
    stamp.filter(|stamp| stamp.base_sequence == 0).map(producer)
}

fn named(to: Destination<'_>, producer: Producer) -> (Producer, i32, String) {
    (producer, to.partition.index, to.topic.to_owned())
}

fn keep<K: Ord + Clone>(kept: &mut BTreeMap<K, Moment>, key: K, now: Moment) {
    kept.insert(key, now);
    if kept.len() > limits::FIRST_REFUSED_MAX {
        let oldest = kept.iter().min_by_key(|(_, refused)| **refused).map(|(key, _)| key.clone());
        oldest.and_then(|oldest| kept.remove(&oldest));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HERE: PartitionId = PartitionId::NODE;
    const TO: Destination<'_> = Destination { partition: HERE, topic: "t" };
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
        assert!(kept.is_before(TO, stamp(1, 3), T0));
        assert!(!kept.is_before(TO, stamp(2, 8), T0), "its first batch was not refused here");
        assert!(!kept.is_before(TO, stamp(1, 0), T0), "it is the first one");
        kept.came_through(TO, stamp(1, 3));
        assert!(kept.is_before(TO, stamp(1, 3), T0), "it was not the first that came through");
        kept.came_through(TO, stamp(1, 0));
        assert!(!kept.is_before(TO, stamp(1, 3), T0));
    }

    #[test]
    fn what_was_refused_by_name_is_known_when_the_topic_is() {
        let kept = FirstRefused::default();
        kept.refused_by_name("t", HERE.index, stamp(1, 0), T0);
        assert!(kept.is_before(TO, stamp(1, 3), T0));
        let elsewhere = Destination { topic: "u", ..TO };
        assert!(!kept.is_before(elsewhere, stamp(1, 3), T0));
        kept.came_through(elsewhere, stamp(1, 0));
        assert!(kept.is_before(TO, stamp(1, 3), T0));
        kept.came_through(TO, stamp(1, 0));
        assert!(!kept.is_before(TO, stamp(1, 3), T0));
        let many = limits::FIRST_REFUSED_MAX as i32;
        for index in 0..=many {
            kept.refused_by_name("t", index, stamp(1, 0), Moment(index as u64));
        }
        assert_eq!(kept.kept().by_name.len(), limits::FIRST_REFUSED_MAX);
    }

    #[test]
    fn a_client_that_gave_its_first_batch_up_goes_on() {
        let kept = FirstRefused::default();
        refuse(&kept, 1, 0, T0);
        let again = T0 + Duration::from_secs(60);
        refuse(&kept, 1, 0, again);
        let given_up = again + limits::PRODUCER_RETRIES_WITHIN;
        assert!(kept.is_before(TO, stamp(1, 3), Moment(given_up.0 - 1)));
        assert!(!kept.is_before(TO, stamp(1, 3), given_up));
    }

    #[test]
    fn of_a_flood_of_refusals_the_latest_are_kept() {
        let kept = FirstRefused::default();
        let flood = 2 * limits::FIRST_REFUSED_MAX as i64;
        for id in 0..flood {
            refuse(&kept, flood - id, 0, Moment(id as u64));
        }
        assert_eq!(kept.kept().by_id.len(), limits::FIRST_REFUSED_MAX);
        let last = Moment(flood as u64);
        assert!(kept.is_before(TO, stamp(1, 3), last));
        assert!(!kept.is_before(TO, stamp(flood, 3), last));
    }
}
