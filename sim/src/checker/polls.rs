//! What consumers saw on their way: every record once, in order, none skipped, and in the end all.

use std::collections::{BTreeMap, BTreeSet};

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{AckMode, At, History, Outcome, Place, seconds};

/// A poll goes on where the one before it ended, and offsets rise by one.
pub fn poll_order(history: &History) -> Vec<Violation> {
    let mut skipped = Findings::of("poll-skip", Verdict::Safety);
    let mut backwards = Findings::of("non-monotonic-poll", Verdict::Safety);
    let mut expected: BTreeMap<(u32, &Place), (u32, i64)> = BTreeMap::new();
    let resets: BTreeSet<(u32, &Place, i64)> =
        history.resets.iter().map(|reset| (reset.consumer, &reset.place, reset.to)).collect();
    for poll in &history.polls {
        let key = (poll.consumer, &poll.place);
        let mut next = match expected.get(&key) {
            // It fell out, and begins again where the log starts.
            Some((round, next))
                if *round == poll.round && !resets.contains(&(poll.consumer, &poll.place, poll.from)) =>
            {
                *next
            }
            _ => poll.from,
        };
        if poll.again > 0 {
            // What was read before began where it was asked for, as everything has to.
            next = poll.known_until();
        }
        for (offset, value) in &poll.records {
            let says = |what: &str| {
                format!(
                    "consumer {} {what} in {} at {}: expected offset {next}, got {offset} ({value})",
                    poll.consumer,
                    poll.place,
                    seconds(poll.at)
                )
            };
            if *offset > next {
                skipped.add(says("was led past records"));
            } else if *offset < next {
                backwards.add(says("was led back"));
            }
            next = offset + 1;
        }
        expected.insert(key, (poll.round, next));
    }
    let mut all = skipped.all();
    all.extend(backwards.all());
    all
}

/// Acknowledged, and a consumer that had all the time in the world never got there.
pub fn unseen(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("unseen", Verdict::Safety);
    let mut acknowledged: BTreeMap<&Place, Vec<(At, i64)>> = BTreeMap::new();
    for send in &history.sends {
        if let Outcome::Acked { base: Some(base), at } = send.outcome
            && send.acks != AckMode::None
        {
            acknowledged.entry(&send.place).or_default().push((at, base + i64::from(send.count)));
        }
    }
    for ((consumer, place), position) in &history.positions {
        let by_then =
            acknowledged.get(place).into_iter().flatten().filter(|(at, _)| *at < position.owed_until);
        let end = by_then.map(|(_, end)| *end).max().unwrap_or(0);
        if position.offset < end {
            findings.add(format!(
                "consumer {consumer} stayed at offset {} of {place}, where records up to {end} were acknowledged",
                position.offset
            ));
        }
    }
    findings.all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;
    use crate::history::Position;

    fn polls(polls: Vec<crate::history::Poll>) -> History {
        History { polls, ..History::default() }
    }

    #[test]
    fn a_consumer_that_reads_on_and_starts_over_is_fine() {
        let history = polls(vec![
            poll(0, 0, 1, &[(0, 0), (1, 1)]),
            poll(0, 2, 2, &[]),
            poll(0, 2, 3, &[(2, 2)]),
            poll(1, 0, 4, &[(0, 0), (1, 1), (2, 2)]),
        ]);
        assert_eq!(poll_order(&history), []);
    }

    #[test]
    fn a_record_that_is_passed_over_is_a_skip() {
        for history in [
            polls(vec![poll(0, 0, 1, &[(0, 0), (2, 2)])]),
            polls(vec![poll(0, 0, 1, &[(0, 0)]), poll(0, 1, 2, &[(2, 2)])]),
            polls(vec![poll(0, 0, 1, &[(1, 1)])]),
        ] {
            assert_eq!(poll_order(&history)[0].checker, "poll-skip");
        }
    }

    #[test]
    fn a_record_that_comes_again_is_a_step_back() {
        for history in [
            polls(vec![poll(0, 0, 1, &[(0, 0), (0, 0)])]),
            polls(vec![poll(0, 0, 1, &[(0, 0), (1, 1)]), poll(0, 2, 2, &[(1, 1)])]),
        ] {
            assert_eq!(poll_order(&history)[0].checker, "non-monotonic-poll");
        }
    }

    #[test]
    fn a_consumer_that_never_gets_to_an_acknowledged_record_has_not_seen_it() {
        let mut history = ending_with(vec![acked(0, 0), acked(1, 1)], &[(0, 0), (1, 1)]);
        let mut left_at = |offset, owed_until| {
            history.positions.insert((1, place()), Position { offset, owed_until });
            unseen(&history).len()
        };
        assert_eq!((left_at(2, At::MAX), left_at(1, At::MAX)), (0, 1));
        assert_eq!(left_at(1, 0), 0, "acknowledged when it had left");
    }
}
