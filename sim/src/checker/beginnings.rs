//! Where logs start: later and later, and no later than what may be gone.
//!
//! A record may be gone once its time is over by the wall clock, once so much was sent behind it that the rest is as large
//! as what is to be kept, or once somebody asked for its deletion, whether he was told that it happened or not. What nobody
//! saw go nobody can judge: consumers, look-ups and deletions say where a log starts all the time.

use std::collections::BTreeMap;

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{
    At, Deleted, Deletion, History, LogStart, Outcome, Place, Reset, Send, Teller, seconds, timestamp_of,
};

/// A request that was not answered may be carried out so much later.
const LATE: At = 40_000_000_000;

/// What the node was told to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// In milliseconds; none: for ever.
    pub ms: Option<i64>,
    /// None: all.
    pub bytes: Option<u64>,
}

/// A log that was told to start at an offset never starts before it again, as far as who told it holds to that.
pub fn log_start_back(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("log-start-back", Verdict::Safety);
    for (place, told) in by_place(history) {
        let mut tellers: BTreeMap<Teller, Vec<&LogStart>> = BTreeMap::new();
        for one in &told {
            tellers.entry(one.by).or_default().push(one);
        }
        let known: BTreeMap<Teller, Known<'_>> =
            tellers.into_iter().map(|(by, told)| (by, Known::of(told))).collect();
        for one in &told {
            let holding = [Teller::AllInSync, one.by].into_iter().filter(|by| *by != Teller::Nobody);
            let known = holding.filter_map(|by| known.get(&by)?.before(one.sent));
            let Some(known) = known.max_by_key(|known| known.start) else { continue };
            if one.start < known.start {
                findings.add(format!(
                    "{place} started at {} for {} at {}, and at {} for {}, who asked at {}",
                    known.start,
                    known.client,
                    seconds(known.at),
                    one.start,
                    one.client,
                    seconds(one.sent)
                ));
            }
        }
    }
    findings.all()
}

/// What one has told, and for each the highest start up to then.
struct Known<'a> {
    told: Vec<&'a LogStart>,
    highest: Vec<&'a LogStart>,
}

impl<'a> Known<'a> {
    fn of(mut told: Vec<&'a LogStart>) -> Known<'a> {
        told.sort_by_key(|one| one.at);
        let mut highest: Vec<&LogStart> = Vec::new();
        for one in &told {
            let last = highest.last().copied().filter(|last| last.start >= one.start);
            highest.push(last.unwrap_or(one));
        }
        Known { told, highest }
    }

    /// The highest start that was told before then.
    fn before(&self, at: At) -> Option<&'a LogStart> {
        let before = self.told.partition_point(|earlier| earlier.at < at);
        Some(self.highest[before.checked_sub(1)?])
    }
}

/// Whoever was told that an offset is out of range was told so because the log starts behind it.
pub fn out_of_range(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("out-of-range", Verdict::Safety);
    for Reset { consumer, place, from, at, to, of_one } in &history.resets {
        if *of_one && to <= from && history.deleted.get(&*place.topic).is_none_or(|deleted| at < deleted) {
            findings.add(format!(
                "consumer {consumer} was told that offset {from} of {place} is out of range, and at {} that it starts at {to}",
                seconds(*at)
            ));
        }
    }
    findings.all()
}

/// Whatever lies before the start of a log was allowed to go by then.
pub fn deleted_too_early(history: &History, kept: Kept) -> Vec<Violation> {
    let mut findings = Findings::of("deleted-too-early", Verdict::Safety);
    let mut sends: BTreeMap<&Place, Vec<(i64, &Send)>> = BTreeMap::new();
    let mut all: BTreeMap<&Place, Vec<&Send>> = BTreeMap::new();
    for send in &history.sends {
        all.entry(&send.place).or_default().push(send);
        if let Outcome::Acked { base: Some(base), .. } = send.outcome {
            sends.entry(&send.place).or_default().push((base, send));
        }
    }
    for batches in sends.values_mut() {
        batches.sort_by_key(|(base, _)| *base);
    }
    for (place, told) in by_place(history) {
        let Some(batches) = sends.get(place) else { continue };
        let of_place = |deletion: &&Deletion| deletion.place == *place && deletion.told != Deleted::Refused;
        let deletions: Vec<&Deletion> = history.deletions.iter().filter(of_place).collect();
        for one in told {
            let gone = batches.iter().take_while(|(base, _)| *base < one.start);
            for (base, send) in gone {
                let asked = |deletion: &&Deletion| {
                    deletion.sent <= one.at && deleted_by(deletion, *base, send, one.start)
                };
                if deletions.iter().any(asked) {
                    continue;
                }
                let last = (one.start - base).min(i64::from(send.count)) as usize;
                let newest = (0..last).map(|index| timestamp_of(send.timestamp_ms, index)).max().unwrap_or(0);
                if kept.ms.is_some_and(|ms| newest.saturating_add(ms) < one.wall_ms) {
                    continue;
                }
                if kept.bytes.is_some_and(|most| sent_behind(&all[place], *base, one.at) >= most) {
                    continue;
                }
                findings.add(format!(
                    "{place} started at {} for {} at {}, and the record at offset {base}, sent at {}, had to be kept ({kept:?})",
                    one.start,
                    one.client,
                    seconds(one.at),
                    seconds(send.began)
                ));
            }
        }
    }
    findings.all()
}

/// Whether a deletion may have taken the part of a batch that lies before `start`.
fn deleted_by(deletion: &Deletion, base: i64, send: &Send, start: i64) -> bool {
    let end = (base + i64::from(send.count)).min(start);
    match (deletion.told, deletion.before) {
        (Deleted::From(low), before) => before.unwrap_or(low).max(low) >= end,
        (Deleted::Unknown, Some(before)) => before >= end,
        (Deleted::Unknown, None) => {
            send.began <= deletion.answered.unwrap_or(deletion.sent).saturating_add(LATE)
        }
        (Deleted::Refused, _) => false,
    }
}

/// What may have been appended behind an offset until then, all attempts counted.
fn sent_behind(sends: &[&Send], offset: i64, until: At) -> u64 {
    let behind = |send: &&&Send| match send.outcome {
        Outcome::Acked { base: Some(base), .. } => base > offset,
        _ => true,
    };
    let begun = sends.iter().filter(|send| send.began <= until);
    begun.filter(behind).map(|send| send.bytes * (1 + u64::from(send.unknown_attempts))).sum()
}

fn by_place(history: &History) -> BTreeMap<&Place, Vec<&LogStart>> {
    let mut all: BTreeMap<&Place, Vec<&LogStart>> = BTreeMap::new();
    for told in &history.log_starts {
        // A topic that is deleted may be created again, and begins again.
        if history.deleted.get(&*told.place.topic).is_none_or(|deleted| told.at < *deleted) {
            all.entry(&told.place).or_default().push(told);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;

    fn told(sent: At, at: At, start: i64, wall_ms: i64) -> LogStart {
        LogStart { client: "client-1".into(), place: place(), start, by: Teller::Node(1), sent, at, wall_ms }
    }

    fn back(log_starts: Vec<LogStart>) -> usize {
        log_start_back(&History { log_starts, ..History::default() }).len()
    }

    #[test]
    fn a_start_that_was_told_is_never_taken_back() {
        assert_eq!(back(vec![told(1, 2, 0, 0), told(3, 4, 5, 0), told(5, 6, 5, 0)]), 0);
        assert_eq!(back(vec![told(1, 9, 5, 0), told(8, 10, 3, 0)]), 0, "asked before the other was answered");
        assert_eq!(back(vec![told(1, 2, 5, 0), told(3, 4, 3, 0)]), 1);
        assert_eq!(back(vec![told(1, 2, 5, 0), told(3, 4, 7, 0), told(5, 6, 6, 0)]), 1);
    }

    #[test]
    fn a_node_holds_to_what_it_told_itself_and_all_to_a_deletion_that_was_acknowledged() {
        use Teller::{AllInSync, Nobody, Node};
        let then = |first, second| {
            back(vec![
                LogStart { by: first, ..told(1, 2, 5, 0) },
                LogStart { by: second, ..told(3, 4, 3, 0) },
            ])
        };
        assert_eq!([then(Node(1), Node(1)), then(AllInSync, Node(2)), then(AllInSync, Nobody)], [1, 1, 1]);
        assert_eq!([then(Node(1), Node(2)), then(Nobody, Nobody), then(Node(1), AllInSync)], [0, 0, 0]);
    }

    #[test]
    fn out_of_range_is_what_lies_before_the_start() {
        let reset = |from, to, of_one| {
            let resets = vec![Reset { consumer: 1, place: place(), from, at: 9, to, of_one }];
            out_of_range(&History { resets, ..History::default() }).len()
        };
        assert_eq!((reset(3, 4, true), reset(3, 3, true), reset(3, 0, true)), (0, 1, 1));
        assert_eq!(reset(3, 0, false), 0, "another node has deleted less");
    }

    /// Records 0, 1, 2 of times 1,000, 1,001, 1,002 and 100 bytes each; the log starts there at 9,000.
    fn early(start: i64, wall_ms: i64, kept: Kept, deletions: Vec<Deletion>) -> usize {
        let mut history = ending_with(vec![acked(0, 0), acked(1, 1), acked(2, 2)], &[]);
        history.log_starts.push(told(9_000, 9_001, start, wall_ms));
        history.deletions = deletions;
        deleted_too_early(&history, kept).len()
    }

    #[test]
    fn what_is_gone_was_old_or_more_than_is_kept() {
        let ms = |ms| Kept { ms: Some(ms), bytes: None };
        assert_eq!(early(0, 0, Kept::default(), vec![]), 0);
        assert_eq!(early(1, 9_999, Kept::default(), vec![]), 1, "nothing may go");
        assert_eq!(early(2, 1_502, ms(500), vec![]), 0);
        assert_eq!(early(2, 1_501, ms(500), vec![]), 1, "the second is not older than that");
        let bytes = |bytes| Kept { ms: None, bytes: Some(bytes) };
        assert_eq!((early(1, 0, bytes(200), vec![]), early(1, 0, bytes(201), vec![])), (0, 1));
        assert_eq!(early(2, 0, bytes(200), vec![]), 1);
    }

    #[test]
    fn what_is_gone_was_asked_for_whether_that_is_known_or_not() {
        let deletion = |before, told| Deletion {
            client: "client-2".into(),
            place: place(),
            before,
            sent: 8_000,
            answered: Some(8_500),
            told,
        };
        let gone = |start, before, told| early(start, 0, Kept::default(), vec![deletion(before, told)]);
        assert_eq!(gone(2, Some(2), Deleted::From(2)), 0);
        assert_eq!(gone(2, None, Deleted::From(2)), 0);
        assert_eq!(gone(3, Some(2), Deleted::From(2)), 1);
        assert_eq!(gone(2, Some(2), Deleted::Unknown), 0);
        assert_eq!(gone(3, None, Deleted::Unknown), 0);
        assert_eq!(gone(2, Some(2), Deleted::Refused), 2);
    }
}
