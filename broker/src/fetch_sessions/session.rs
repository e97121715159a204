//! One fetch session: which partitions its client asks for, and what it was last told of each.
//!
//! Nothing here waits or knows the time. Partitions stand in a line; those that gave records go to its end, so that with
//! a bound on an answer's bytes none of them starves.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{LeaderEpoch, Offset, TopicId};

/// What sessions take in memory: for themselves, for each topic beside its name, and for each partition.
const SESSION_BYTES: usize = 512;
const TOPIC_BYTES: usize = 256;
const PARTITION_BYTES: usize = 200;

/// A topic, as its client names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Since version 13 of Fetch.
    Id(TopicId),
    /// Before. With bytes of its own: a slice of the request would keep all of it.
    Name(Arc<str>),
}

impl Topic {
    fn bytes(&self) -> usize {
        match self {
            Topic::Id(_) => TOPIC_BYTES,
            Topic::Name(name) => TOPIC_BYTES + name.len(),
        }
    }
}

/// Why a request of a session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// It has ended, gave way to another, or was another process's.
    Unknown,
    /// Another request was to come next.
    Epoch,
    /// It names topics by id where the session does by name, or the other way.
    TopicIds,
}

/// What a client asks of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The first offset that it wants.
    pub from: Offset,
    /// Bytes of records at most; the first batch of an answer may be larger.
    pub max_bytes: i32,
    /// The epoch of the leader that it believes to ask.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// A partition that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub topic: Topic,
    pub index: i32,
    pub terms: Terms,
}

/// What an answer says of a partition beside its records, as far as a change of it is worth an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// -1 beside an error: what is right again is told, then.
    pub high_watermark: Offset,
    /// -1 beside an error.
    pub log_start: Offset,
}

impl Told {
    /// Beside an error, and of what was never answered.
    pub const NOTHING: Told = Told { high_watermark: Offset(-1), log_start: Offset(-1) };
}

/// What came of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub told: Told,
    pub has_records: bool,
    /// An error, or who had better be asked: told each time.
    pub is_urgent: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    /// What the next request has to say.
    epoch: i32,
    by_id: bool,
    /// Where each partition stands in the line.
    places: BTreeMap<Topic, BTreeMap<i32, u64>>,
    line: BTreeMap<u64, Kept>,
    /// Places given out.
    given: u64,
    topic_bytes: usize,
}

#[derive(Debug)]
struct Kept {
    wanted: Wanted,
    told: Told,
}

/// The epoch after `epoch`: zero begins a session, so it is left out when the largest is over.
pub fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

impl Session {
    /// A session of what was asked for without one and has been answered. What was named twice counts as named last.
    pub fn new(by_id: bool, answered: impl IntoIterator<Item = (Wanted, Told)>) -> Session {
        let mut session = Session {
            epoch: next_epoch(0),
            by_id,
            places: BTreeMap::new(),
            line: BTreeMap::new(),
            given: 0,
            topic_bytes: 0,
        };
        for (wanted, told) in answered {
            session.put(wanted, Some(told));
        }
        session
    }

    /// A request of the session: takes its epoch, which no other request can have then, and what it changes. The epoch
    /// that the session is in then, by which its answer is concluded.
    ///
    /// # Errors
    /// It comes in another epoch, or names topics in another way. Nothing is changed then.
    pub fn take(
        &mut self,
        epoch: i32,
        by_id: bool,
        asked: Vec<Wanted>,
        forgotten: &[(Topic, i32)],
    ) -> Result<i32, SessionError> {
        if epoch != self.epoch {
            return Err(SessionError::Epoch);
        }
        if by_id != self.by_id {
            return Err(SessionError::TopicIds);
        }
        for wanted in asked {
            self.put(wanted, None);
        }
        for (topic, index) in forgotten {
            self.forget(topic, *index);
        }
        self.epoch = next_epoch(epoch);
        Ok(self.epoch)
    }

    /// What is asked for, in the order in which it is to be looked at.
    pub fn wanted(&self) -> Vec<Wanted> {
        self.line.values().map(|kept| kept.wanted.clone()).collect()
    }

    /// ... as long as the session is in this epoch.
    pub fn wanted_in(&self, epoch: i32) -> Option<Vec<Wanted>> {
        (epoch == self.epoch).then(|| self.wanted())
    }

    /// Takes note of what came of all that [`Session::wanted`] gave in this epoch, in its order; which of it is to be told.
    /// `None` where a later request has taken the session over.
    pub fn conclude(&mut self, epoch: i32, outcomes: &[Outcome]) -> Option<Vec<bool>> {
        if epoch != self.epoch {
            return None;
        }
        assert_eq!(outcomes.len(), self.line.len(), "an epoch has one request");
        let mut tells = Vec::with_capacity(outcomes.len());
        let mut gave = Vec::new();
        for ((place, kept), outcome) in self.line.iter_mut().zip(outcomes) {
            tells.push(outcome.is_urgent || outcome.has_records || kept.told != outcome.told);
            kept.told = outcome.told;
            if outcome.has_records {
                gave.push(*place);
            }
        }
        for place in gave {
            if let Some(kept) = self.line.remove(&place) {
                self.push(kept);
            }
        }
        Some(tells)
    }

    /// How many partitions it has.
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        SESSION_BYTES + self.topic_bytes + PARTITION_BYTES * self.line.len()
    }

    fn put(&mut self, wanted: Wanted, told: Option<Told>) {
        let place = self.places.get(&wanted.topic).and_then(|topic| topic.get(&wanted.index));
        match place.and_then(|place| self.line.get_mut(place)) {
            Some(kept) => {
                kept.wanted.terms = wanted.terms;
                kept.told = told.unwrap_or(kept.told);
            }
            None => {
                // One name for all its partitions: it is charged for once.
                let topic = match self.places.get_key_value(&wanted.topic) {
                    Some((known, _)) => known.clone(),
                    None => {
                        self.topic_bytes += wanted.topic.bytes();
                        self.places.insert(wanted.topic.clone(), BTreeMap::new());
                        wanted.topic
                    }
                };
                let wanted = Wanted { topic, ..wanted };
                self.push(Kept { wanted, told: told.unwrap_or(Told::NOTHING) });
            }
        }
    }

    /// At the end of the line.
    fn push(&mut self, kept: Kept) {
        self.given += 1;
        if let Some(topic) = self.places.get_mut(&kept.wanted.topic) {
            topic.insert(kept.wanted.index, self.given);
        }
        self.line.insert(self.given, kept);
    }

    fn forget(&mut self, topic: &Topic, index: i32) {
        let Some(indexes) = self.places.get_mut(topic) else { return };
        if let Some(place) = indexes.remove(&index) {
            self.line.remove(&place);
        }
        if indexes.is_empty() {
            self.places.remove(topic);
            self.topic_bytes -= topic.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::Name(name.into())
    }

    fn wanted(index: i32, from: i64) -> Wanted {
        let terms = Terms { from: Offset(from), max_bytes: 100, leader_epoch: None };
        Wanted { topic: topic("t"), index, terms }
    }

    fn told(high_watermark: i64) -> Told {
        Told { high_watermark: Offset(high_watermark), log_start: Offset(0) }
    }

    fn quiet(high_watermark: i64) -> Outcome {
        Outcome { told: told(high_watermark), has_records: false, is_urgent: false }
    }

    const ERROR: Outcome = Outcome { told: Told::NOTHING, has_records: false, is_urgent: true };

    fn of_three() -> Session {
        Session::new(false, (0..3).map(|index| (wanted(index, 5), told(5))))
    }

    fn order(session: &Session) -> Vec<i32> {
        session.wanted().iter().map(|wanted| wanted.index).collect()
    }

    #[test]
    fn a_name_that_is_said_for_each_partition_is_kept_once() {
        let session = Session::new(false, (0..3).map(|index| (wanted(index, 5), told(5))));
        let names: Vec<Topic> = session.wanted().into_iter().map(|wanted| wanted.topic).collect();
        let same = |one: &Topic, other: &Topic| match (one, other) {
            (Topic::Name(one), Topic::Name(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        assert!(names.iter().all(|name| same(name, &names[0])));
    }

    #[test]
    fn an_epoch_is_taken_once_and_in_order_and_what_is_refused_changes_nothing() {
        let mut session = of_three();
        let table = [
            (0, false, Err(SessionError::Epoch)),
            (2, false, Err(SessionError::Epoch)),
            (-7, false, Err(SessionError::Epoch)),
            (1, true, Err(SessionError::TopicIds)),
            (1, false, Ok(2)),
            (1, false, Err(SessionError::Epoch)),
            (2, false, Ok(3)),
        ];
        for (epoch, by_id, expected) in table {
            let before = session.len();
            let outcome = session.take(epoch, by_id, vec![wanted(epoch, 0)], &[]);
            assert_eq!(outcome, expected, "epoch {epoch}");
            if expected.is_err() {
                assert_eq!(session.len(), before, "epoch {epoch}");
            }
        }
    }

    #[test]
    fn after_the_largest_epoch_comes_the_first() {
        assert_eq!((next_epoch(0), next_epoch(i32::MAX - 1), next_epoch(i32::MAX)), (1, i32::MAX, 1));
        let mut session = of_three();
        session.epoch = i32::MAX;
        assert_eq!(session.take(i32::MAX, false, Vec::new(), &[]), Ok(1));
        assert_eq!(session.take(1, false, Vec::new(), &[]), Ok(2));
    }

    #[test]
    fn partitions_are_added_changed_and_forgotten() {
        let mut session = of_three();
        let asked = vec![wanted(1, 9), wanted(7, 2), Wanted { topic: topic("u"), ..wanted(0, 1) }];
        let gone = [(topic("t"), 0), (topic("t"), 44), (topic("none"), 0)];
        session.take(1, false, asked, &gone).unwrap();
        let expected =
            [wanted(1, 9), wanted(2, 5), wanted(7, 2), Wanted { topic: topic("u"), ..wanted(0, 1) }];
        assert_eq!(session.wanted(), expected);
        let rest = [(topic("t"), 1), (topic("t"), 2), (topic("t"), 7), (topic("u"), 0)];
        session.take(2, false, Vec::new(), &rest).unwrap();
        assert_eq!((session.len(), session.bytes()), (0, SESSION_BYTES));
    }

    /// As Kafka: what is asked for and forgotten in one request is forgotten.
    #[test]
    fn what_is_named_twice_counts_once() {
        let twice = [(wanted(0, 1), told(1)), (wanted(1, 1), told(1)), (wanted(0, 2), told(3))];
        let mut session = Session::new(false, twice);
        assert_eq!(session.wanted(), [wanted(0, 2), wanted(1, 1)]);
        assert_eq!(session.conclude(1, &[quiet(3), quiet(1)]), Some(vec![false, false]));
        session.take(1, false, vec![wanted(0, 9)], &[(topic("t"), 0)]).unwrap();
        assert_eq!(order(&session), [1]);
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut session = of_three();
        let start_moved =
            Outcome { told: Told { log_start: Offset(3), ..told(5) }, has_records: false, is_urgent: false };
        let preferred = Outcome { is_urgent: true, ..quiet(5) };
        let table = [
            ([quiet(5), quiet(5), quiet(5)], [false, false, false]),
            ([quiet(5), quiet(6), start_moved], [false, true, true]),
            ([quiet(5), quiet(6), start_moved], [false, false, false]),
            ([preferred, ERROR, start_moved], [true, true, false]),
            ([preferred, ERROR, start_moved], [true, true, false]),
            ([quiet(5), quiet(6), quiet(5)], [false, true, true]),
        ];
        for (nth, (outcomes, expected)) in (1..).zip(table) {
            session.take(nth, false, Vec::new(), &[]).unwrap();
            assert_eq!(session.conclude(nth + 1, &outcomes), Some(expected.to_vec()), "request {nth}");
        }
        session.take(7, false, vec![wanted(9, 0)], &[]).unwrap();
        let told = session.conclude(8, &[quiet(5), quiet(6), quiet(5), quiet(0)]);
        assert_eq!(told, Some(vec![false, false, false, true]), "a new partition is told once");
    }

    #[test]
    fn who_gave_records_goes_to_the_end_and_is_told_also_where_nothing_else_changed() {
        let mut session = of_three();
        session.take(1, false, Vec::new(), &[]).unwrap();
        let gave = Outcome { has_records: true, ..quiet(5) };
        assert_eq!(session.conclude(2, &[gave, quiet(5), gave]), Some(vec![true, false, true]));
        assert_eq!(order(&session), [1, 0, 2]);
        session.take(2, false, vec![wanted(0, 6)], &[(topic("t"), 2)]).unwrap();
        assert_eq!(session.wanted(), [wanted(1, 5), wanted(0, 6)], "its place is known");
    }

    #[test]
    fn who_was_overtaken_by_a_later_request_is_not_told_anything() {
        let mut session = of_three();
        let first = session.take(1, false, Vec::new(), &[]).unwrap();
        let second = session.take(2, false, vec![wanted(8, 0)], &[]).unwrap();
        assert_eq!(session.conclude(first, &[quiet(9), quiet(9), quiet(9)]), None);
        let told = session.conclude(second, &[quiet(9), quiet(5), quiet(5), ERROR]);
        assert_eq!(told, Some(vec![true, false, false, true]), "what the first found was not told");
    }

    #[test]
    fn what_it_takes_grows_and_falls_with_what_it_keeps() {
        let mut session = Session::new(false, []);
        for round in 0..3 {
            let epoch = session.epoch;
            session.take(epoch, false, vec![wanted(round, 0)], &[]).unwrap();
        }
        assert_eq!(session.bytes(), SESSION_BYTES + TOPIC_BYTES + 1 + 3 * PARTITION_BYTES);
    }
}
