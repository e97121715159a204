//! What the logs hold in the end: everything acknowledged, nothing twice, nothing that nobody sent, and the
//! same value at an offset for everybody who ever saw it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{AckMode, At, History, Outcome, Place, Send, Value, seconds};

/// Acknowledged, or seen by a consumer, and missing in the end.
pub fn lost_writes(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("lost-write", Verdict::Safety);
    let kept: BTreeMap<&Place, BTreeSet<Value>> = history
        .last_read
        .iter()
        .map(|(place, log)| (place, log.iter().map(|(_, value)| *value).collect()))
        .collect();
    for send in &history.sends {
        let Outcome::Acked { at, base } = &send.outcome else { continue };
        if send.acks == AckMode::None {
            continue;
        }
        let Some(kept) = kept.get(&send.place) else { continue };
        let start = history.start_of(&send.place);
        for (index, value) in send.values().enumerate() {
            // What is deleted is judged by where logs start.
            if base.map_or(start > 0, |base| base + (index as i64) < start) {
                continue;
            }
            if !kept.contains(&value) {
                let offset =
                    base.map(|base| format!(" at offset {}", base + index as i64)).unwrap_or_default();
                findings.add(format!(
                    "{value} was acknowledged{offset} of {} at {} and is not there in the end",
                    send.place,
                    seconds(*at)
                ));
            }
        }
    }
    for poll in &history.polls {
        let Some(kept) = kept.get(&poll.place) else { continue };
        let start = history.start_of(&poll.place);
        for (offset, value) in poll.records.iter().filter(|(offset, _)| *offset >= start) {
            if !kept.contains(value) {
                findings.add(format!(
                    "{value} was read by consumer {} at offset {offset} of {} at {} and is not there in the end",
                    poll.consumer,
                    poll.place,
                    seconds(poll.at)
                ));
            }
        }
    }
    findings.all()
}

/// More copies than attempts can account for: one of an idempotent producer, else one for the
/// acknowledgement and one for each attempt whose outcome is unknown.
pub fn duplicates(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("duplicate", Verdict::Safety);
    let sends: BTreeMap<(u32, u64), &Send> =
        history.sends.iter().map(|send| ((send.producer, send.first), send)).collect();
    for (place, log) in &history.last_read {
        let mut copies: Vec<(Value, i64)> = log.iter().map(|(offset, value)| (*value, *offset)).collect();
        copies.sort_unstable();
        for copies in copies.chunk_by(|one, other| one.0 == other.0).filter(|copies| copies.len() > 1) {
            let value = copies[0].0;
            let offsets: Vec<i64> = copies.iter().map(|(_, offset)| *offset).collect();
            let send = sends.range(..=(value.producer, value.number)).next_back().map(|(_, send)| *send);
            let allowed = send.map_or(1, allowed_copies);
            if offsets.len() > allowed {
                let kind = if send.is_some_and(|send| send.idempotent) { "idempotent" } else { "plain" };
                findings.add(format!(
                    "{value} ({kind}) stands {} times in {place}, at offsets {offsets:?}, where {allowed} can be",
                    offsets.len()
                ));
            }
        }
    }
    findings.all()
}

pub(super) fn allowed_copies(send: &Send) -> usize {
    if send.idempotent {
        return 1;
    }
    let certain = usize::from(matches!(send.outcome, Outcome::Acked { .. }));
    certain + send.unknown_attempts as usize
}

/// Two values at one offset, seen by whoever at whatever time, or acknowledged there.
pub fn inconsistent_offsets(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("inconsistent-offset", Verdict::Safety);
    let mut seen: BTreeMap<&Place, BTreeMap<i64, (Value, Witness)>> = BTreeMap::new();
    let mut look = |place, records: &mut dyn Iterator<Item = (i64, Value)>, who: Witness| {
        let seen = seen.entry(place).or_default();
        for (offset, value) in records {
            let known = *seen.entry(offset).or_insert((value, who));
            if known.0 != value {
                findings.add(format!(
                    "offset {offset} of {place} is {} for {}, and {value} for {who}",
                    known.0, known.1
                ));
            }
        }
    };
    for (place, log) in &history.last_read {
        look(place, &mut log.iter().copied(), Witness::LastRead);
    }
    for poll in &history.polls {
        let who = Witness::Consumer { consumer: poll.consumer, at: poll.at };
        look(&poll.place, &mut poll.records.iter().copied(), who);
    }
    for send in &history.sends {
        let Outcome::Acked { at, base: Some(base) } = send.outcome else { continue };
        look(&send.place, &mut (base..).zip(send.values()), Witness::Producer { at });
    }
    findings.all()
}

/// Who saw a value at an offset.
#[derive(Clone, Copy)]
enum Witness {
    LastRead,
    Consumer { consumer: u32, at: At },
    Producer { at: At },
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Witness::LastRead => f.write_str("the last read"),
            Witness::Consumer { consumer, at } => write!(f, "consumer {consumer} at {}", seconds(*at)),
            Witness::Producer { at } => write!(f, "its producer, acknowledged at {}", seconds(*at)),
        }
    }
}

/// Values that nobody sent there, and batches that cannot be what was sent.
pub fn foreign_records(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("foreign-record", Verdict::Safety);
    for damage in &history.damages {
        findings.add(format!("{} at {}: {}", damage.place, seconds(damage.at), damage.what));
    }
    let sent: BTreeMap<(u32, u64), &Send> =
        history.sends.iter().map(|send| ((send.producer, send.first), send)).collect();
    for (place, log) in &history.last_read {
        // What was sent together mostly stands together.
        let mut before: Option<&Send> = None;
        for (offset, value) in log {
            let send = before.filter(|send| send.has(*value)).or_else(|| {
                let nearest = sent.range(..=(value.producer, value.number)).next_back();
                nearest.map(|(_, send)| *send).filter(|send| send.has(*value))
            });
            before = send;
            if send.is_none_or(|send| send.place != *place) {
                findings.add(format!("{value} at offset {offset} of {place} was never sent there"));
            }
        }
    }
    findings.all()
}

/// Topics that were created and are not there.
pub fn lost_topics(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("lost-topic", Verdict::Safety);
    if let Some(there) = &history.topics_in_the_end {
        for (topic, at) in history.topics.iter().filter(|(topic, _)| !there.contains(*topic)) {
            findings
                .add(format!("topic {topic} was created at {} and is not there in the end", seconds(*at)));
        }
    }
    findings.all()
}

/// Partitions that cannot be read to their end though nothing is broken any more.
pub fn unreadable(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("unreadable", Verdict::Freeze);
    for place in &history.unreadable {
        findings.add(format!("{place} could not be read to its end, long after the last fault"));
    }
    findings.all()
}

/// Offsets of a log are consecutive: nothing here compacts, and what is deleted is a beginning.
pub fn gaps(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("gap", Verdict::Safety);
    for (place, log) in &history.last_read {
        for pair in log.windows(2) {
            if pair[1].0 != pair[0].0 + 1 {
                findings.add(format!("offset {} of {place} is followed by {}", pair[0].0, pair[1].0));
            }
        }
    }
    findings.all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;
    use crate::history::Damage;

    #[test]
    fn a_sound_history_is_accepted() {
        let mut history = ending_with(vec![acked(0, 0), unknown(1), acked(2, 1)], &[(0, 0), (1, 2)]);
        history.polls.push(poll(0, 0, 5, &[(0, 0), (1, 2)]));
        for check in [lost_writes, duplicates, inconsistent_offsets, foreign_records, gaps] {
            assert_eq!(check(&history), []);
        }
    }

    #[test]
    fn an_acknowledged_record_that_is_gone_is_a_lost_write() {
        let history = ending_with(vec![acked(0, 0), acked(1, 1)], &[(0, 0)]);
        assert!(
            lost_writes(&history)[0].what.contains("record 1 of producer 1 was acknowledged at offset 1")
        );
    }

    #[test]
    fn a_record_that_a_consumer_has_seen_may_not_vanish_either() {
        let mut history = ending_with(vec![unknown(0)], &[]);
        history.polls.push(poll(0, 0, 5, &[(0, 0)]));
        assert_eq!(lost_writes(&history).len(), 1);
    }

    #[test]
    fn an_unknown_outcome_may_be_either() {
        assert_eq!(lost_writes(&ending_with(vec![unknown(0)], &[])), []);
        assert_eq!(foreign_records(&ending_with(vec![unknown(0)], &[(0, 0)])), []);
    }

    #[test]
    fn an_idempotent_record_that_stands_twice_is_a_duplicate() {
        let history = ending_with(vec![acked(0, 0)], &[(0, 0), (1, 0)]);
        assert!(duplicates(&history)[0].what.contains("stands 2 times"));
    }

    #[test]
    fn a_plain_producer_is_owed_no_more_than_its_attempts_explain() {
        let mut send = Send { idempotent: false, ..acked(0, 0) };
        send.unknown_attempts = 1;
        assert_eq!(duplicates(&ending_with(vec![send.clone()], &[(0, 0), (1, 0)])), []);
        send.unknown_attempts = 0;
        assert_eq!(duplicates(&ending_with(vec![send], &[(0, 0), (1, 0)])).len(), 1);
    }

    #[test]
    fn two_values_at_one_offset_are_inconsistent_whoever_saw_them() {
        let mut history = ending_with(vec![acked(0, 0), acked(1, 1)], &[(0, 0), (1, 1)]);
        history.polls.push(poll(0, 0, 5, &[(0, 1)]));
        assert!(inconsistent_offsets(&history)[0].what.contains("offset 0"));
        let history = ending_with(vec![acked(0, 1), acked(1, 0)], &[(0, 0), (1, 1)]);
        assert_eq!(inconsistent_offsets(&history).len(), 2);
    }

    #[test]
    fn what_nobody_sent_is_foreign_and_so_is_what_was_sent_elsewhere() {
        assert_eq!(foreign_records(&ending_with(vec![acked(0, 0)], &[(0, 0), (1, 7)])).len(), 1);
        let elsewhere = Send { place: Place { topic: "other".into(), partition: 3 }, ..acked(0, 0) };
        assert_eq!(foreign_records(&ending_with(vec![elsewhere], &[(0, 0)])).len(), 1);
        let mut damaged = ending_with(vec![], &[]);
        damaged.damages.push(Damage { place: place(), at: 1, what: "CRC".into() });
        assert_eq!(foreign_records(&damaged).len(), 1);
    }

    #[test]
    fn a_topic_or_a_partition_that_is_gone_is_missed() {
        let mut history = History::default();
        history.topics.insert("orders".into(), 5);
        assert_eq!(lost_topics(&history), []);
        history.topics_in_the_end = Some(BTreeSet::new());
        assert_eq!(lost_topics(&history).len(), 1);
        history.unreadable.push(place());
        assert_eq!(unreadable(&history)[0].verdict, Verdict::Freeze);
    }

    #[test]
    fn a_missing_offset_is_a_gap() {
        let history = ending_with(vec![acked(0, 0), acked(1, 2)], &[(0, 0), (2, 1)]);
        assert_eq!(gaps(&history).len(), 1);
    }
}
