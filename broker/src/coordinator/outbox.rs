//! What is decided and not kept yet, and the answers that rest on it. Pure.

use std::collections::VecDeque;

use bytes::Bytes;

use super::messages::CoordinatorError;
use super::records::CoordinatorRecord;

/// Gives an answer, or says why there is none.
pub(super) type Held = Box<dyn FnOnce(Result<(), CoordinatorError>) + Send>;

/// Key and value of a record of the topic.
pub(super) type Encoded = (Bytes, Option<Bytes>);

/// In the order in which it was decided.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Encoded>,
    waiting_bytes: usize,
    /// How many records were ever put in, taken out to be appended, and kept.
    put: u64,
    taken: u64,
    kept: u64,
    /// Answers, each with how many records have to be kept first.
    held: VecDeque<(u64, Held)>,
}

fn bytes_of((key, value): &Encoded) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len)
}

impl Outbox {
    /// Records, and the answers that rest on them and on all before.
    pub(super) fn put(&mut self, records: Vec<CoordinatorRecord>, held: Vec<Held>) {
        for record in records {
            let record = record.encode();
            self.waiting_bytes += bytes_of(&record);
            self.waiting.push_back(record);
            self.put += 1;
        }
        self.held.extend(held.into_iter().map(|held| (self.put, held)));
    }

    /// What is appended next: at least one record, if there is any, and no more than `bytes_max` otherwise.
    pub(super) fn take(&mut self, bytes_max: usize) -> Vec<Encoded> {
        let mut bytes = 0;
        let mut taken = Vec::new();
        while let Some(next) = self.waiting.front() {
            bytes += bytes_of(next);
            if bytes > bytes_max && !taken.is_empty() {
                break;
            }
            self.waiting_bytes -= bytes_of(next);
            taken.extend(self.waiting.pop_front());
        }
        self.taken += taken.len() as u64;
        taken
    }

    /// Bytes of records that wait to be appended.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// All that was taken is kept.
    pub(super) fn keep(&mut self) {
        self.kept = self.taken;
    }

    /// Gives the answers that rest on nothing any more.
    pub(super) fn answer(&mut self) {
        while let Some((_, held)) = self.held.pop_front_if(|(needs, _)| *needs <= self.kept) {
            held(Ok(()));
        }
    }

    /// Nothing of it is kept any more.
    pub(super) fn refuse(self, why: &CoordinatorError) {
        for (_, held) in self.held {
            held(Err(why.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::ids::GroupId;
    use super::*;

    type Answers = Arc<Mutex<Vec<(u32, bool)>>>;

    fn record(topic: &str) -> CoordinatorRecord {
        CoordinatorRecord::Offset {
            group: GroupId(Arc::from("g")),
            topic: Arc::from(topic),
            partition: 0,
            committed: None,
        }
    }

    fn held(answers: &Answers, nth: u32) -> Held {
        let answers = answers.clone();
        Box::new(move |kept| answers.lock().expect("one thread").push((nth, kept.is_ok())))
    }

    #[test]
    fn an_answer_is_given_when_what_it_rests_on_is_kept_and_what_came_before() {
        let answers = Answers::default();
        let given = || std::mem::take(&mut *answers.lock().expect("one thread"));
        let mut outbox = Outbox::default();
        outbox.put(Vec::new(), vec![held(&answers, 0)]);
        outbox.answer();
        assert_eq!(given(), [(0, true)]);
        outbox.put(vec![record("a"), record("b")], vec![held(&answers, 1)]);
        outbox.put(Vec::new(), vec![held(&answers, 2)]);
        // A record larger than what is asked for goes alone.
        assert_eq!(outbox.take(1).len(), 1);
        outbox.answer();
        assert_eq!(given(), []);
        outbox.keep();
        outbox.put(vec![record("c")], vec![held(&answers, 3)]);
        outbox.answer();
        assert_eq!(given(), []);
        assert_eq!(outbox.take(1).len(), 1);
        outbox.keep();
        outbox.answer();
        assert_eq!(given(), [(1, true), (2, true)]);
        assert_eq!(outbox.waiting_bytes(), bytes_of(&record("c").encode()));
        outbox.refuse(&CoordinatorError::NotKept);
        assert_eq!(given(), [(3, false)]);
    }
}
