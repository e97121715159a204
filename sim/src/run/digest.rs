//! What clients saw in the end belongs to a run's course: two runs that differ in nothing else differ in their hash.

use std::fmt::{self, Write};
use std::hash::Hasher;

use twox_hash::XxHash3_64;

use crate::history::{History, Value};

/// Of everything in the history.
pub(super) fn of(history: &History) -> u64 {
    let mut digest = Digest { hasher: XxHash3_64::new(), gathered: Vec::with_capacity(4096 + 64) };
    let History {
        sends,
        requests,
        polls,
        damages,
        rejections,
        last_read,
        epochs,
        unreadable,
        topics,
        added,
        first_records,
        changes,
        topics_in_the_end,
        deleted,
        config_changes,
        configs_seen,
        complaints,
        health,
        watermarks,
        lookups,
        misled,
        epoch_questions,
        epoch_ends,
        deletions,
        log_starts,
        resets,
        last_start,
        positions,
        groups,
        compaction,
        pulse: _,
        counts,
        returned,
        reassigned,
        // Follows from what is hashed already.
        seen: _,
    } = history;
    // The bulk is taken as numbers; text of it would cost more than the rest of the judging.
    for poll in polls {
        digest.numbers([poll.consumer.into(), poll.round.into(), poll.from as u64, poll.at]);
        digest.numbers([poll.again.into()]);
        digest.show(&poll.place);
        digest.records(&poll.records);
    }
    for (place, records) in last_read {
        digest.show(place);
        digest.records(records);
    }
    for send in sends {
        digest.show(send);
    }
    for request in requests {
        digest.numbers([request.sent, request.deadline, request.ended, request.trade as u64]);
        digest.numbers([request.end as u64]);
    }
    digest.show(&(damages, rejections, unreadable, topics, topics_in_the_end, deleted));
    digest.show(&(complaints, health, watermarks, lookups, positions, counts));
    if !groups.assigned.is_empty() {
        digest.show(groups);
    }
    if !compaction.writes.is_empty() {
        digest.show(compaction);
    }
    if !added.is_empty() {
        digest.show(added);
    }
    digest.show(&(epochs, misled, epoch_questions, epoch_ends));
    for change in config_changes {
        digest.show(change);
    }
    for seen in configs_seen {
        digest.show(seen);
    }
    digest.show(&(deletions, log_starts, resets, last_start, returned));
    for change in changes {
        digest.numbers([change.node.into(), change.began, change.took()]);
    }
    for took in first_records {
        digest.numbers([*took]);
    }
    for moves in reassigned {
        digest.show(&moves);
    }
    digest.finish()
}

struct Digest {
    hasher: XxHash3_64,
    gathered: Vec<u8>,
}

impl Digest {
    fn bytes(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= 4096 {
            self.hasher.write(&self.gathered);
            self.gathered.clear();
        }
    }

    fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        for number in numbers {
            self.bytes(&number.to_le_bytes());
        }
    }

    fn records(&mut self, records: &[(i64, Value)]) {
        self.numbers([records.len() as u64]);
        for (offset, value) in records {
            self.numbers([*offset as u64, value.producer.into(), value.number]);
        }
    }

    fn show(&mut self, thing: &impl fmt::Debug) {
        // Writing into memory does not fail.
        let _ = write!(self, "{thing:?};");
    }

    fn finish(mut self) -> u64 {
        self.hasher.write(&self.gathered);
        self.hasher.finish()
    }
}

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Poll;

    #[test]
    fn one_other_record_is_another_digest() {
        let history = |number| {
            let place = crate::history::Place { topic: "t".into(), partition: 0 };
            let value = Value { producer: 1, number };
            let records = vec![(0, value)];
            let poll =
                Poll { consumer: 1, round: 0, place: place.clone(), from: 0, again: 0, at: 5, records };
            let mut history = History { polls: vec![poll], ..History::default() };
            history.last_read.insert(place, vec![(0, value)]);
            history
        };
        assert_eq!(of(&history(1)), of(&history(1)));
        assert_ne!(of(&history(1)), of(&history(2)));
        let mut longer = history(1);
        longer.count("x");
        assert_ne!(of(&history(1)), of(&longer));
    }
}
