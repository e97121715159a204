//! What a producer has on its way and in which order it goes out again: the rules of real clients, without I/O.
//!
//! One lane per partition. An idempotent producer gives a batch its sequence when it first leaves, and sends it
//! with that sequence until it knows what became of it: batches to be retried go in order, one at a time, and new
//! ones wait behind them. A plain producer sends again what it has to, beside what is still on its way, and that may
//! change the order.

use std::collections::VecDeque;

use super::connection::{ns, pause};
use crate::history::At;

/// A batch leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) lane: usize,
    pub(super) id: usize,
    pub(super) sequence: Option<i32>,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Written,
    /// Surely not written; trying again may help.
    NotWritten,
    /// It may have been written, or still be.
    Unknown,
    /// The sequence does not follow from the last one that was written.
    OutOfOrder,
    /// The broker does not know the producer, or takes it for an old one.
    Disowned,
    /// Trying again does not help.
    Refused,
}

/// What follows for the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is done with.
    Over,
    /// It goes out again.
    Again,
    /// It goes out again under another identity: the producer was told that it is wrong though it left nothing out.
    Blamed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batch {
    id: usize,
    records: u32,
    sequence: Option<i32>,
    sent: bool,
    /// Whom it was last sent to.
    node: u32,
    /// An earlier attempt may have been written.
    unknown: bool,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    /// To be sent, those to be retried first.
    waiting: VecDeque<Batch>,
    flying: Vec<Batch>,
    next_sequence: i32,
    failures: u32,
    not_before: At,
}

impl Lane {
    fn open(&self) -> usize {
        self.waiting.len() + self.flying.len()
    }
}

/// So many failures in a row are no accident.
const STUCK_AFTER: u32 = 3;

#[derive(Clone, Debug)]
pub(super) struct Retries {
    idempotent: bool,
    /// Whether the order of batches is kept when another node leads.
    ordered: bool,
    /// Under which sequences mean something.
    identified: bool,
    lanes: Vec<Lane>,
    /// Whose turn it is.
    turn: usize,
}

impl Retries {
    pub(super) fn new(lanes: usize, idempotent: bool) -> Retries {
        let lanes = vec![Lane::default(); lanes];
        Retries { idempotent, ordered: idempotent, identified: false, lanes, turn: 0 }
    }

    /// A producer with one request in flight keeps the order of what it sends, as with `max.in.flight.requests.per.connection=1`.
    pub(super) fn one_at_a_time(self) -> Retries {
        Retries { ordered: true, ..self }
    }

    pub(super) fn add(&mut self, lane: usize, id: usize, records: u32) {
        let batch = Batch { id, records, sequence: None, sent: false, node: 0, unknown: false };
        self.lanes[lane].waiting.push_back(batch);
    }

    /// Batches that are not done with.
    pub(super) fn open(&self) -> usize {
        self.lanes.iter().map(Lane::open).sum()
    }

    /// Of them those that nothing is wrong with: what a partition keeps refusing does not end the others' work.
    pub(super) fn moving(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.failures < STUCK_AFTER).map(Lane::open).sum()
    }

    /// Whether one more may wait behind what its partition refuses.
    pub(super) fn takes(&self, lane: usize, behind_max: usize) -> bool {
        let lane = &self.lanes[lane];
        lane.failures < STUCK_AFTER || lane.open() < behind_max
    }

    fn flying(&self) -> usize {
        self.lanes.iter().map(|lane| lane.flying.len()).sum()
    }

    /// A producer id has to be asked for, and nothing goes under the old one any more.
    pub(super) fn wants_identity(&self) -> bool {
        self.idempotent && !self.identified && self.flying() == 0
    }

    /// Whether what leaves now leaves under an identity, or needs none.
    pub(super) fn is_identified(&self) -> bool {
        self.identified || !self.idempotent
    }

    /// Has done with everything and begins anew, under another producer id or epoch.
    pub(super) fn renew(&mut self) {
        debug_assert_eq!(self.open(), 0, "what is open has sequences of the old id");
        self.identified = false;
    }

    /// All sequences begin anew. Those whose earlier attempts may have been written may now be written twice.
    pub(super) fn identified(&mut self) -> Vec<usize> {
        self.identified = true;
        let mut doubtful = Vec::new();
        for lane in &mut self.lanes {
            lane.next_sequence = 0;
            for batch in &mut lane.waiting {
                batch.sequence = None;
                if batch.unknown {
                    doubtful.push(batch.id);
                }
            }
        }
        doubtful
    }

    /// Whether the lane's next batch may go to `node`. A producer that keeps the order sends nothing to a new leader before all that went
    /// to another node is answered or lost: there a later batch could come first, and, of an idempotent one, be taken for the beginning.
    pub(super) fn goes_to(&self, lane: usize, node: u32) -> bool {
        !self.ordered || self.lanes[lane].flying.iter().all(|other| other.node == node)
    }

    /// Whether something may go to `node` now, which leads the lanes that are `its`.
    pub(super) fn has_for(&self, now: At, its: impl Fn(usize) -> bool) -> bool {
        let may_go =
            |(lane, here): (usize, &Lane)| self.may_send(here) && here.not_before <= now && its(lane);
        self.is_identified() && self.lanes.iter().enumerate().any(may_go)
    }

    /// What goes into the next request to `node`: a batch of each of up to `lanes_max` of the lanes that are `its`.
    pub(super) fn next(
        &mut self,
        now: At,
        lanes_max: usize,
        node: u32,
        its: impl Fn(usize) -> bool,
    ) -> Vec<Flight> {
        let mut flights = Vec::new();
        if self.idempotent && !self.identified {
            return flights;
        }
        let count = self.lanes.len();
        let first = self.turn;
        for lane in (0..count).map(|step| (first + step) % count) {
            if flights.len() == lanes_max {
                break;
            }
            if !self.may_send(&self.lanes[lane]) || self.lanes[lane].not_before > now || !its(lane) {
                continue;
            }
            self.turn = (lane + 1) % count;
            let idempotent = self.idempotent;
            let here = &mut self.lanes[lane];
            let Some(mut batch) = here.waiting.pop_front() else { continue };
            if idempotent && batch.sequence.is_none() {
                batch.sequence = Some(here.next_sequence);
                here.next_sequence = here.next_sequence.wrapping_add(batch.records as i32);
            }
            batch.sent = true;
            batch.node = node;
            here.flying.push(batch);
            flights.push(Flight { lane, id: batch.id, sequence: batch.sequence });
        }
        flights
    }

    fn may_send(&self, lane: &Lane) -> bool {
        let Some(batch) = lane.waiting.front() else { return false };
        // What has a sequence is sent again, and alone: only when everything before it is done with.
        batch.sequence.is_none() || lane.flying.iter().all(|other| other.sequence > batch.sequence)
    }

    /// When something that waits for its pause may go, if `open_from` says when there is room where its lane goes.
    pub(super) fn wakes_at(&self, open_from: impl Fn(usize) -> Option<At>) -> Option<At> {
        if self.idempotent && !self.identified {
            return None;
        }
        let waiting = self.lanes.iter().enumerate().filter(|(_, lane)| self.may_send(lane));
        waiting.filter_map(|(index, lane)| Some(lane.not_before.max(open_from(index)?))).min()
    }

    /// An attempt is over.
    pub(super) fn told(&mut self, flight: Flight, told: Told, now: At, random: u64) -> Next {
        let lane = &mut self.lanes[flight.lane];
        let Some(index) = lane.flying.iter().position(|batch| batch.id == flight.id) else {
            return Next::Over;
        };
        let mut batch = lane.flying.remove(index);
        let explained = !self.identified || lane.has_before(&batch);
        match told {
            Told::Written => {
                lane.failures = 0;
                return Next::Over;
            }
            Told::Refused => {
                // Whether its sequences are used up is not known.
                self.identified &= !self.idempotent;
                return Next::Over;
            }
            Told::OutOfOrder | Told::Disowned
                if self.idempotent && !(explained && told == Told::OutOfOrder) =>
            {
                if self.identified {
                    self.identified = false;
                    batch.unknown = true;
                    lane.retry(batch, now, random);
                    return Next::Blamed;
                }
            }
            Told::Unknown => batch.unknown = true,
            Told::NotWritten | Told::OutOfOrder | Told::Disowned => {}
        }
        lane.retry(batch, now, random);
        Next::Again
    }

    /// The connection to `node` is gone, and with it all answers: what was on its way may have been written. Their ids.
    pub(super) fn lost(&mut self, node: u32, now: At, random: u64) -> Vec<usize> {
        let mut unknown = Vec::new();
        for lane in &mut self.lanes {
            let (gone, flying): (Vec<Batch>, Vec<Batch>) =
                std::mem::take(&mut lane.flying).into_iter().partition(|one| one.node == node);
            lane.flying = flying;
            for mut batch in gone {
                batch.unknown = true;
                unknown.push(batch.id);
                lane.retry(batch, now, random);
            }
        }
        unknown
    }
}

impl Lane {
    /// Something that was sent before this one is not done with.
    fn has_before(&self, batch: &Batch) -> bool {
        let before = |other: &Batch| other.sequence.is_some() && other.sequence < batch.sequence;
        self.waiting.iter().chain(&self.flying).any(before)
    }

    fn retry(&mut self, batch: Batch, now: At, random: u64) {
        let behind = |other: &&Batch| match (other.sequence, batch.sequence) {
            (Some(other), Some(sequence)) => other < sequence,
            _ => other.sent && other.id < batch.id,
        };
        let at = self.waiting.iter().take_while(behind).count();
        self.waiting.insert(at, batch);
        self.failures += 1;
        self.not_before = now + ns(pause(self.failures, random));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: At = 1_000_000_000;

    /// One partition, batches 0, 1, ... of two records each.
    fn producer(idempotent: bool, batches: usize) -> Retries {
        let mut retries = Retries::new(1, idempotent);
        (0..batches).for_each(|id| retries.add(0, id, 2));
        if idempotent {
            assert!(retries.wants_identity());
            assert_eq!(retries.identified(), Vec::<usize>::new());
        }
        retries
    }

    fn leaving(retries: &mut Retries, now: At) -> Vec<(usize, Option<i32>)> {
        let mut all = Vec::new();
        loop {
            let flights = retries.next(now, 1, 1, |_| true);
            if flights.is_empty() {
                return all;
            }
            all.extend(flights.iter().map(|flight| (flight.id, flight.sequence)));
        }
    }

    fn told(retries: &mut Retries, id: usize, told: Told) -> Next {
        retries.told(Flight { lane: 0, id, sequence: None }, told, 0, 0)
    }

    #[test]
    fn several_leave_at_once_with_sequences_that_follow_one_another() {
        let mut retries = producer(true, 3);
        assert_eq!(leaving(&mut retries, 0), [(0, Some(0)), (1, Some(2)), (2, Some(4))]);
        for id in 0..3 {
            assert_eq!(told(&mut retries, id, Told::Written), Next::Over);
        }
        assert_eq!(retries.open(), 0);
    }

    #[test]
    fn nothing_goes_to_another_node_before_what_went_to_the_last_one_is_answered_or_lost() {
        let mut retries = producer(true, 3);
        assert_eq!(retries.next(0, 1, 1, |_| true).len(), 1);
        assert!(retries.goes_to(0, 1) && !retries.goes_to(0, 2));
        assert_eq!(retries.lost(1, 0, 0), [0]);
        assert!(retries.goes_to(0, 2));
        let mut careless = producer(false, 3);
        assert_eq!(careless.next(0, 1, 1, |_| true).len(), 1);
        assert!(careless.goes_to(0, 2));
        assert!(!careless.one_at_a_time().goes_to(0, 2));
    }

    #[test]
    fn one_that_begins_anew_begins_its_sequences_anew() {
        let mut retries = producer(true, 1);
        assert_eq!(leaving(&mut retries, 0), [(0, Some(0))]);
        assert_eq!(told(&mut retries, 0, Told::Written), Next::Over);
        retries.renew();
        retries.add(0, 1, 2);
        assert_eq!(leaving(&mut retries, 0), [], "it has no id yet");
        assert!(retries.wants_identity());
        assert_eq!(retries.identified(), Vec::<usize>::new());
        assert_eq!(leaving(&mut retries, 0), [(1, Some(0))]);
    }

    #[test]
    fn a_partition_that_keeps_refusing_does_not_end_the_others_work() {
        let mut retries = Retries::new(2, false);
        retries.add(0, 0, 1);
        for n in 1..=3 {
            assert_eq!((retries.moving(), retries.takes(0, 1)), (1, true));
            assert_eq!(leaving(&mut retries, n * 10 * SECOND), [(0, None)]);
            told(&mut retries, 0, Told::NotWritten);
        }
        assert_eq!((retries.moving(), retries.takes(0, 1), retries.takes(0, 2)), (0, false, true));
        assert!(retries.takes(1, 1));
        assert_eq!(leaving(&mut retries, 40 * SECOND), [(0, None)]);
        told(&mut retries, 0, Told::Written);
        assert!(retries.takes(0, 1));
    }

    #[test]
    fn a_gap_that_a_refusal_explains_is_retried_in_order_and_one_at_a_time() {
        let mut retries = producer(true, 4);
        retries.next(0, 1, 1, |_| true);
        retries.next(0, 1, 1, |_| true);
        retries.next(0, 1, 1, |_| true);
        assert_eq!(told(&mut retries, 0, Told::NotWritten), Next::Again);
        assert_eq!(told(&mut retries, 1, Told::OutOfOrder), Next::Again);
        assert_eq!(told(&mut retries, 2, Told::OutOfOrder), Next::Again);
        assert_eq!(leaving(&mut retries, 0), [], "it pauses first");
        assert_eq!(leaving(&mut retries, SECOND), [(0, Some(0))]);
        assert_eq!(told(&mut retries, 0, Told::Written), Next::Over);
        assert_eq!(leaving(&mut retries, SECOND), [(1, Some(2))]);
        assert_eq!(told(&mut retries, 1, Told::Written), Next::Over);
        // The last of those to be retried leaves, and what is new behind it.
        assert_eq!(leaving(&mut retries, SECOND), [(2, Some(4)), (3, Some(6))]);
    }

    #[test]
    fn a_gap_that_nothing_explains_is_blame_and_everything_begins_anew() {
        let mut retries = producer(true, 3);
        retries.next(0, 1, 1, |_| true);
        retries.next(0, 1, 1, |_| true);
        assert_eq!(told(&mut retries, 0, Told::OutOfOrder), Next::Blamed);
        assert!(!retries.wants_identity(), "not while something is on its way under the old one");
        assert_eq!(leaving(&mut retries, SECOND), []);
        assert_eq!(told(&mut retries, 1, Told::OutOfOrder), Next::Again, "it is blamed once");
        assert!(retries.wants_identity());
        assert_eq!(retries.identified(), [0], "the first may have been written after all");
        assert_eq!(leaving(&mut retries, SECOND), [(0, Some(0)), (1, Some(2)), (2, Some(4))]);
    }

    #[test]
    fn what_was_on_its_way_when_the_connection_ended_goes_out_again_with_the_same_sequences() {
        for idempotent in [true, false] {
            let mut retries = producer(idempotent, 3);
            leaving(&mut retries, 0);
            assert_eq!(told(&mut retries, 0, Told::Written), Next::Over);
            assert_eq!(retries.lost(1, 0, 0), [1, 2]);
            let expected = if idempotent { vec![(1, Some(2))] } else { vec![(1, None), (2, None)] };
            assert_eq!(leaving(&mut retries, SECOND), expected, "idempotent: {idempotent}");
        }
    }

    #[test]
    fn a_plain_producer_sends_again_what_failed_beside_what_is_on_its_way() {
        let mut retries = producer(false, 3);
        leaving(&mut retries, 0);
        assert_eq!(told(&mut retries, 0, Told::Unknown), Next::Again);
        assert_eq!(leaving(&mut retries, SECOND), [(0, None)]);
        assert_eq!(retries.open(), 3);
    }

    #[test]
    fn a_batch_that_is_refused_for_good_leaves_a_gap_and_so_needs_another_identity() {
        let mut retries = producer(true, 2);
        leaving(&mut retries, 0);
        assert_eq!(told(&mut retries, 0, Told::Refused), Next::Over);
        assert_eq!(told(&mut retries, 1, Told::OutOfOrder), Next::Again);
        assert!(retries.wants_identity());
        assert_eq!(retries.identified(), Vec::<usize>::new());
        assert_eq!(leaving(&mut retries, SECOND), [(1, Some(0))]);
    }

    #[test]
    fn a_producer_that_is_disowned_says_so_even_behind_a_failure() {
        let mut retries = producer(true, 2);
        leaving(&mut retries, 0);
        assert_eq!(told(&mut retries, 0, Told::NotWritten), Next::Again);
        assert_eq!(told(&mut retries, 1, Told::Disowned), Next::Blamed);
    }

    #[test]
    fn partitions_take_turns_and_do_not_wait_for_one_another() {
        let mut retries = Retries::new(3, false);
        for lane in 0..3 {
            retries.add(lane, lane, 1);
        }
        let lanes = |flights: Vec<Flight>| flights.iter().map(|flight| flight.lane).collect::<Vec<_>>();
        assert_eq!(lanes(retries.next(0, 2, 1, |_| true)), [0, 1]);
        retries.told(Flight { lane: 0, id: 0, sequence: None }, Told::NotWritten, 0, 0);
        assert_eq!(lanes(retries.next(0, 3, 1, |_| true)), [2]);
        assert_eq!(retries.wakes_at(|_| Some(0)), Some(80_000_000));
        assert_eq!(lanes(retries.next(80_000_000, 3, 1, |_| true)), [0]);
    }
}
