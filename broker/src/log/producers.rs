//! What is remembered of idempotent producers (KIP-98): enough to recognise a retry and a gap.
//!
//! Of each producer the last five settled batches are kept, and all that are not settled yet, so that
//! rolling back what was not settled leaves at least what a retry may ask for. Sequences run from 0 to
//! `i32::MAX` and then begin again at 0. Pure.
//!
//! A producer is forgotten when it has been silent for a day, as in Kafka; where there are many, sooner, those with a
//! single batch first, but never while it may still try a batch again. Where that leaves too many, new ones are
//! refused: a flood of them must not make the broker forget whom it has to recognise.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use io_backend::{Moment, invariants};

use super::batch::{BatchHeader, ProducerStamp};
use crate::ids::{Offset, ProducerId};
use crate::limits::{self, PRODUCER_BATCHES_REMEMBERED as REMEMBERED};

/// A batch of an idempotent producer that is in the log, as far as its repetition must be known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RememberedBatch {
    /// The producer's epoch.
    pub epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
    /// Sequence number of the last record.
    pub last_sequence: i32,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// The offset after the last record.
    pub end: Offset,
    /// The broker's time for topics with `LogAppendTime`, -1 otherwise.
    pub append_time_ms: i64,
}

impl RememberedBatch {
    /// Of a batch that has its offsets.
    pub fn of(header: &BatchHeader) -> RememberedBatch {
        RememberedBatch {
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            last_sequence: sequence_after(header.base_sequence, header.last_offset_delta),
            base_offset: header.base_offset,
            end: header.end(),
            append_time_ms: if header.log_append_time() { header.max_timestamp } else { -1 },
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Producer {
    /// Rising in offset; their epochs never fall.
    batches: VecDeque<RememberedBatch>,
    /// Everything known was rolled back: what came first is expected again.
    rolled_back: Option<(i16, i32)>,
    /// When it was last heard of, by this process's clock; not yet known of one that was brought back.
    active: Option<Moment>,
}

impl Producer {
    /// It may still try what was refused or rolled back again.
    fn may_retry(&self, now: Moment) -> bool {
        self.active.is_none_or(|active| now.since(active) < limits::PRODUCER_RETRIES_WITHIN)
    }

    /// What ends at `settled` or before will not be rolled back: no more of it is kept than a retry may ask for.
    fn trim(&mut self, settled: Offset) {
        let done = self.batches.partition_point(|batch| batch.end <= settled);
        self.batches.drain(..done.saturating_sub(REMEMBERED));
    }

    fn check_invariants(&self) {
        if !invariants::are_checked() {
            return;
        }
        let rises =
            self.batches.iter().is_sorted_by(|one, two| one.end <= two.base_offset && one.epoch <= two.epoch);
        assert!(rises, "a producer's batches rise: {:?}", self.batches);
        let nothing_known = self.batches.is_empty();
        assert!(
            nothing_known || self.rolled_back.is_none(),
            "only who has nothing was rolled back to its beginning"
        );
    }

    /// Nothing of it can be rolled back.
    fn is_settled(&self, settled: Offset) -> bool {
        self.batches.back().is_none_or(|last| last.end <= settled)
    }
}

/// Whether a batch is to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequenced {
    /// It follows what is known of its producer, or nothing is.
    Next,
    /// It is there already: this one.
    Duplicate(RememberedBatch),
}

/// Why a batch of an idempotent producer is not to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// The batch does not follow the last one, which ends before `expected`, and is not one that is
    /// remembered.
    #[error("sequence {found} of producer {producer} does not follow {expected}")]
    OutOfOrder { producer: ProducerId, expected: i32, found: i32 },
    /// A later epoch of the producer has been seen.
    #[error("epoch {found} of producer {producer} is older than {current}")]
    Fenced { producer: ProducerId, current: i16, found: i16 },
    /// The new producer has to wait until somebody can be forgotten.
    #[error("too many producers are remembered, and each may still retry")]
    TooManyProducers,
}

/// What one partition remembers of idempotent producers.
#[derive(Clone, Debug, Default)]
pub struct Producers {
    known: BTreeMap<ProducerId, Producer>,
    /// Before that, looking for somebody to forget is of no use.
    look_again: Option<Moment>,
}

/// The sequence `by` records after `sequence`.
pub fn sequence_after(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) & i64::from(i32::MAX)) as i32
}

impl Producers {
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether it is known what this producer sends next; of others any start will do.
    pub fn knows(&self, id: ProducerId, now: Moment) -> bool {
        self.known.get(&id).is_some_and(|producer| {
            !producer.batches.is_empty() || producer.rolled_back.is_some() && producer.may_retry(now)
        })
    }

    /// Whether the batch that begins at `stamp` and spans so many more sequence numbers is to be appended
    /// now.
    ///
    /// # Errors
    ///
    /// It does not follow, comes from an earlier life of its producer, or its producer finds no place.
    pub fn check(
        &self,
        stamp: ProducerStamp,
        last_offset_delta: i32,
        now: Moment,
    ) -> Result<Sequenced, SequenceError> {
        let Some(producer) = self.known.get(&stamp.id) else {
            if self.known.len() >= limits::PRODUCERS_PER_PARTITION_MAX {
                return Err(SequenceError::TooManyProducers);
            }
            // Nothing is remembered (a new producer, or one forgotten long ago): any start will do.
            return Ok(Sequenced::Next);
        };
        let (current, expected) = match (producer.batches.back(), producer.rolled_back) {
            (Some(last), _) => (last.epoch, sequence_after(last.last_sequence, 1)),
            (None, Some(first)) if producer.may_retry(now) => first,
            (None, _) => return Ok(Sequenced::Next),
        };
        let out_of_order =
            |expected| SequenceError::OutOfOrder { producer: stamp.id, expected, found: stamp.base_sequence };
        if stamp.epoch < current {
            return Err(SequenceError::Fenced { producer: stamp.id, current, found: stamp.epoch });
        }
        if stamp.epoch > current {
            return if stamp.base_sequence == 0 { Ok(Sequenced::Next) } else { Err(out_of_order(0)) };
        }
        if stamp.base_sequence == expected {
            return Ok(Sequenced::Next);
        }
        let last_sequence = sequence_after(stamp.base_sequence, last_offset_delta);
        let same = |batch: &&RememberedBatch| {
            batch.epoch == stamp.epoch
                && (batch.base_sequence, batch.last_sequence) == (stamp.base_sequence, last_sequence)
        };
        // A producer has as many batches on their way at most as are remembered: it does not ask for an older one.
        let original = producer.batches.iter().rev().find(same).ok_or_else(|| out_of_order(expected))?;
        Ok(Sequenced::Duplicate(*original))
    }

    /// The batch has been given its offsets. `settled`: what ends there or before will not be rolled back. `now` is
    /// absent for what is brought back at a start.
    pub fn remember(&mut self, id: ProducerId, batch: RememberedBatch, settled: Offset, now: Option<Moment>) {
        let producer = self.known.entry(id).or_default();
        producer.active = now.or(producer.active);
        producer.rolled_back = None;
        producer.batches.push_back(batch);
        producer.trim(settled);
        producer.check_invariants();
        if let Some(now) = now
            && self.known.len() > limits::PRODUCERS_PER_PARTITION_KEPT
            && self.look_again.is_none_or(|then| then <= now)
        {
            self.look_again = Some(now + limits::PRODUCERS_LOOKED_THROUGH_EVERY);
            self.forget_idle(settled, now);
        }
    }

    /// A batch was refused before its turn: of a producer that nothing is known of, and that has just begun, nothing
    /// else is taken first.
    pub fn refused(&mut self, stamp: ProducerStamp, now: Moment) {
        let first = Some((stamp.epoch, stamp.base_sequence));
        let room = self.known.len() < limits::PRODUCERS_PER_PARTITION_MAX;
        match self.known.get_mut(&stamp.id) {
            Some(producer) if producer.batches.is_empty() && producer.rolled_back == first => {
                producer.active = Some(now);
            }
            None if stamp.base_sequence == 0 && room => {
                let begins = Producer { rolled_back: first, active: Some(now), ..Producer::default() };
                self.known.insert(stamp.id, begins);
            }
            _ => {}
        }
    }

    /// Base offsets of all batches before `until` that are remembered.
    pub fn remembered_before(&self, until: Offset) -> impl Iterator<Item = Offset> + '_ {
        let batches = self.known.values().flat_map(|producer| &producer.batches);
        batches.map(|batch| batch.base_offset).filter(move |base| *base < until)
    }

    /// Forgets those that have been silent for as long as Kafka remembers them. Of those that were brought back the
    /// silence begins now, and what was kept of them while entries were replayed is settled.
    pub fn expire(&mut self, settled: Offset, now: Moment) {
        self.known.retain(|_, producer| {
            producer.trim(settled);
            let active = *producer.active.get_or_insert(now);
            !producer.is_settled(settled) || now.since(active) < limits::PRODUCER_EXPIRATION
        });
    }

    /// Brings their number down to what is kept, as far as enough of them are silent for long enough: first those that
    /// sent a single batch, then those silent for the longest.
    fn forget_idle(&mut self, settled: Offset, now: Moment) {
        self.expire(settled, now);
        let idle = |producer: &Producer| {
            let silent = producer.active.map_or(Duration::ZERO, |active| now.since(active));
            (producer.is_settled(settled) && silent >= limits::PRODUCER_RETRIES_WITHIN).then_some(silent)
        };
        let mut candidates: Vec<(bool, Reverse<Duration>, ProducerId)> = self
            .known
            .iter()
            .filter_map(|(id, producer)| Some((producer.batches.len() > 1, Reverse(idle(producer)?), *id)))
            .collect();
        candidates.sort_unstable();
        let surplus = self.known.len().saturating_sub(limits::PRODUCERS_PER_PARTITION_KEPT * 9 / 10);
        for (_, _, id) in candidates.into_iter().take(surplus) {
            self.known.remove(&id);
        }
    }

    /// Takes back what `id` appended from `to` on.
    pub fn roll_back_one(&mut self, id: ProducerId, to: Offset) {
        let Some(producer) = self.known.get_mut(&id) else { return };
        while let Some(last) = producer.batches.back()
            && last.end > to
        {
            producer.rolled_back = Some((last.epoch, last.base_sequence));
            producer.batches.pop_back();
        }
        if !producer.batches.is_empty() {
            producer.rolled_back = None;
        }
        producer.check_invariants();
    }

    /// Takes back everything from `to` on.
    pub fn roll_back(&mut self, to: Offset) {
        let ids: Vec<ProducerId> = self.known.keys().copied().collect();
        for id in ids {
            self.roll_back_one(id, to);
        }
    }

    /// What a snapshot as of `upto` holds: of each producer the batches that end there or before, but of those that are
    /// `settled` only the last. So it can be rolled back as far as this can.
    pub fn as_of(&self, upto: Offset, settled: Offset) -> Vec<(ProducerId, Vec<RememberedBatch>)> {
        let of_one = |(id, producer): (&ProducerId, &Producer)| {
            let until = producer.batches.partition_point(|batch| batch.end <= upto);
            let done = producer.batches.partition_point(|batch| batch.end <= settled.min(upto));
            let from = done.saturating_sub(REMEMBERED);
            let batches: Vec<RememberedBatch> = producer.batches.range(from..until).copied().collect();
            (!batches.is_empty()).then_some((*id, batches))
        };
        self.known.iter().filter_map(of_one).collect()
    }

    /// From what a snapshot holds. When they were last heard of is not known.
    pub fn restored(all: impl IntoIterator<Item = (ProducerId, Vec<RememberedBatch>)>) -> Producers {
        let one = |(id, batches): (ProducerId, Vec<RememberedBatch>)| {
            (id, Producer { batches: batches.into(), rolled_back: None, active: None })
        };
        Producers { known: all.into_iter().map(one).collect(), look_again: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: ProducerId = ProducerId(7);
    const T0: Moment = Moment(0);

    fn stamp(epoch: i16, base_sequence: i32) -> ProducerStamp {
        ProducerStamp { id: P, epoch, base_sequence }
    }

    fn append(producers: &mut Producers, epoch: i16, sequence: i32, records: i32, at: i64, settled: i64) {
        assert_eq!(producers.check(stamp(epoch, sequence), records - 1, T0), Ok(Sequenced::Next));
        let batch = RememberedBatch {
            epoch,
            base_sequence: sequence,
            last_sequence: sequence_after(sequence, records - 1),
            base_offset: Offset(at),
            end: Offset(at + i64::from(records)),
            append_time_ms: -1,
        };
        producers.remember(P, batch, Offset(settled), None);
    }

    /// Ten batches of one record each, sequences and offsets 0 to 9, all settled.
    fn ten() -> Producers {
        let mut producers = Producers::default();
        for i in 0..10 {
            append(&mut producers, 0, i, 1, i64::from(i), 100);
        }
        producers
    }

    fn offset_of_duplicate(producers: &Producers, epoch: i16, sequence: i32, records: i32) -> Option<i64> {
        match producers.check(stamp(epoch, sequence), records - 1, T0) {
            Ok(Sequenced::Duplicate(batch)) => Some(batch.base_offset.0),
            _ => None,
        }
    }

    #[test]
    fn a_new_producer_may_start_anywhere_and_then_counts_on() {
        let mut producers = Producers::default();
        append(&mut producers, 3, 40, 5, 0, 100);
        assert_eq!(producers.check(stamp(3, 45), 0, T0), Ok(Sequenced::Next));
        let gap = SequenceError::OutOfOrder { producer: P, expected: 45, found: 46 };
        assert_eq!(producers.check(stamp(3, 46), 0, T0), Err(gap));
    }

    #[test]
    fn the_last_five_batches_are_recognised_and_older_ones_are_out_of_order() {
        let producers = ten();
        for sequence in 5..10 {
            assert_eq!(offset_of_duplicate(&producers, 0, sequence, 1), Some(i64::from(sequence)));
        }
        let out_of_order = SequenceError::OutOfOrder { producer: P, expected: 10, found: 4 };
        assert_eq!(producers.check(stamp(0, 4), 0, T0), Err(out_of_order));
    }

    #[test]
    fn a_first_batch_that_was_refused_and_comes_again_is_no_duplicate() {
        let mut producers = Producers::default();
        // The partition was not led yet when the first batch came, and was when the second did.
        append(&mut producers, 0, 1, 1, 0, 100);
        let refused = SequenceError::OutOfOrder { producer: P, expected: 2, found: 0 };
        assert_eq!(producers.check(stamp(0, 0), 0, T0), Err(refused));
    }

    #[test]
    fn no_later_batch_overtakes_a_first_one_that_was_refused() {
        let mut producers = Producers::default();
        producers.refused(stamp(0, 0), T0);
        let early = SequenceError::OutOfOrder { producer: P, expected: 0, found: 1 };
        assert_eq!(producers.check(stamp(0, 1), 0, T0), Err(early));
        append(&mut producers, 0, 0, 1, 0, 100);
        append(&mut producers, 0, 1, 1, 1, 100);
        producers.refused(stamp(0, 0), T0);
        assert_eq!(
            producers.check(stamp(0, 2), 0, T0),
            Ok(Sequenced::Next),
            "of one that is known nothing changes"
        );
    }

    #[test]
    fn a_producer_that_gave_its_first_batch_up_goes_on() {
        let mut producers = Producers::default();
        producers.refused(stamp(0, 0), T0);
        let again = T0 + Duration::from_secs(60);
        producers.refused(stamp(0, 0), again);
        let given_up = again + limits::PRODUCER_RETRIES_WITHIN;
        assert!(producers.check(stamp(0, 1), 0, Moment(given_up.0 - 1)).is_err());
        assert_eq!(producers.check(stamp(0, 1), 0, given_up), Ok(Sequenced::Next));
    }

    #[test]
    fn a_batch_that_overlaps_others_is_out_of_order() {
        let overlap = SequenceError::OutOfOrder { producer: P, expected: 10, found: 8 };
        assert_eq!(ten().check(stamp(0, 8), 1, T0), Err(overlap));
    }

    #[test]
    fn epochs_fence_and_a_new_one_starts_at_zero() {
        let mut producers = ten();
        append(&mut producers, 1, 0, 1, 10, 100);
        let fenced = SequenceError::Fenced { producer: P, current: 1, found: 0 };
        assert_eq!(producers.check(stamp(0, 10), 0, T0), Err(fenced));
        let late_start = SequenceError::OutOfOrder { producer: P, expected: 0, found: 1 };
        assert_eq!(producers.check(stamp(2, 1), 0, T0), Err(late_start));
        assert_eq!(offset_of_duplicate(&producers, 1, 0, 1), Some(10));
    }

    #[test]
    fn sequences_go_round_at_the_end_of_the_range() {
        let mut producers = Producers::default();
        append(&mut producers, 0, i32::MAX - 1, 4, 0, 100);
        append(&mut producers, 0, 2, 1, 4, 100);
        assert_eq!(offset_of_duplicate(&producers, 0, i32::MAX - 1, 4), Some(0));
        let before = SequenceError::OutOfOrder { producer: P, expected: 3, found: i32::MAX - 9 };
        assert_eq!(producers.check(stamp(0, i32::MAX - 9), 0, T0), Err(before));
    }

    #[test]
    fn what_is_not_settled_is_kept_however_much_it_is() {
        let mut producers = Producers::default();
        for i in 0..10 {
            append(&mut producers, 0, i, 1, i64::from(i), 2);
        }
        assert_eq!(offset_of_duplicate(&producers, 0, 0, 1), Some(0));
        producers.roll_back(Offset(2));
        assert_eq!(producers.check(stamp(0, 2), 0, T0), Ok(Sequenced::Next));
        assert_eq!(offset_of_duplicate(&producers, 0, 1, 1), Some(1));
    }

    #[test]
    fn a_producer_rolled_back_to_nothing_must_begin_where_it_began() {
        let mut producers = Producers::default();
        append(&mut producers, 0, 0, 1, 0, 0);
        append(&mut producers, 0, 1, 1, 1, 0);
        producers.roll_back(Offset(0));
        let skipped = SequenceError::OutOfOrder { producer: P, expected: 0, found: 1 };
        assert_eq!(producers.check(stamp(0, 1), 0, T0), Err(skipped));
        assert_eq!(producers.check(stamp(0, 0), 0, T0), Ok(Sequenced::Next));
    }

    #[test]
    fn a_snapshot_holds_the_state_as_of_its_offset() {
        let producers = ten();
        let restored = Producers::restored(producers.as_of(Offset(8), Offset(8)));
        assert_eq!(restored.check(stamp(0, 8), 0, T0), Ok(Sequenced::Next));
        assert_eq!(offset_of_duplicate(&restored, 0, 7, 1), Some(7));
    }

    const SETTLED: Offset = Offset(i64::MAX);

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    fn one(sequence: i32) -> RememberedBatch {
        RememberedBatch {
            epoch: 0,
            base_sequence: sequence,
            last_sequence: sequence,
            base_offset: Offset(sequence.into()),
            end: Offset(sequence.into()).plus(1),
            append_time_ms: -1,
        }
    }

    fn of(id: i64) -> ProducerStamp {
        ProducerStamp { id: ProducerId(id), epoch: 0, base_sequence: 0 }
    }

    /// New producers with one batch each, as many as are taken, a thousand a second from second `from` on; returns
    /// when the last of `count` came.
    fn flood(producers: &mut Producers, first: i64, count: i64, from: u64) -> u64 {
        let second = |nth: i64| from + nth as u64 / 1_000;
        for nth in 0..count {
            if producers.check(of(first + nth), 0, T0) == Ok(Sequenced::Next) {
                producers.remember(ProducerId(first + nth), one(0), SETTLED, Some(at(second(nth))));
            }
        }
        second(count)
    }

    #[test]
    fn a_flood_of_new_producers_is_refused_before_a_live_one_is_forgotten() {
        let mut producers = Producers::default();
        producers.remember(P, one(0), SETTLED, Some(at(0)));
        let end = flood(&mut producers, 1_000, 100_000, 0);
        assert_eq!(producers.len(), limits::PRODUCERS_PER_PARTITION_MAX);
        assert_eq!(producers.check(of(999), 0, T0), Err(SequenceError::TooManyProducers));
        assert_eq!(producers.check(stamp(0, 0), 0, T0), Ok(Sequenced::Duplicate(one(0))));
        let later = end + limits::PRODUCER_RETRIES_WITHIN.as_secs();
        producers.remember(P, one(1), SETTLED, Some(at(later)));
        assert!(producers.len() <= limits::PRODUCERS_PER_PARTITION_KEPT, "{}", producers.len());
        assert_eq!(producers.check(of(999), 0, T0), Ok(Sequenced::Next), "new ones are taken again");
        assert_eq!(producers.check(stamp(0, 0), 0, T0), Ok(Sequenced::Duplicate(one(0))));
    }

    #[test]
    fn producers_of_a_single_batch_go_before_those_that_came_back() {
        let mut producers = Producers::default();
        producers.remember(P, one(0), SETTLED, Some(at(0)));
        producers.remember(P, one(1), SETTLED, Some(at(0)));
        let end = flood(&mut producers, 1_000, 15_000, 1) + 3_600;
        producers.remember(ProducerId(1), one(0), SETTLED, Some(at(end)));
        assert!(producers.len() <= limits::PRODUCERS_PER_PARTITION_KEPT);
        assert!(
            producers.known.contains_key(&P),
            "it has been silent for longest, and is not one of the flood"
        );
    }

    #[test]
    fn a_producer_silent_for_a_day_is_forgotten_unless_it_is_in_flight_and_the_day_begins_at_a_start() {
        let mut producers = Producers::default();
        let day = limits::PRODUCER_EXPIRATION.as_secs();
        producers.remember(P, one(0), SETTLED, None);
        producers.expire(SETTLED, at(5 * day));
        assert_eq!(producers.len(), 1, "nobody knows how long it was silent before the start");
        producers.expire(Offset(0), at(6 * day));
        assert_eq!(producers.len(), 1, "its batch may still be rolled back");
        producers.expire(SETTLED, at(6 * day - 1));
        assert_eq!(producers.len(), 1);
        producers.expire(SETTLED, at(6 * day));
        assert!(producers.is_empty());
    }
}
