//! Records go when they need not be kept any more: the start of a log moves past them within a bound.
//!
//! Records go segment by segment, so a record is due when all that may share its segment is old, or when behind the largest
//! segment that may hold it there is as much as is to be kept. Time counts only while nothing that the node needs for it is
//! broken. A log's start never falls: who is told where it starts is told what had not gone by any moment before.

use std::collections::BTreeMap;

use reports::{Verdict, Violation};

use super::Findings;
use super::beginnings::Kept;
use super::circumstances::{Circumstances, Times};
use crate::fault::Family;
use crate::history::{At, History, LookupQuery, Outcome, Place, seconds};

/// The node tries again after this at the latest what a disk that failed has kept it from.
const TRIED_AGAIN_AFTER: At = 12_000_000_000;
/// From when a record may go until the log starts behind it, beside the time after which it is looked at.
const WITHIN: At = 3_000_000_000;
/// Records of a batch have times around the one at which it was made.
const SPREAD: At = 200_000_000;
const NS_PER_MS: At = 1_000_000;

/// How a node lets records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub kept: Kept,
    /// Bytes of a segment at most.
    pub segment: u64,
    /// How often it is looked for what is old.
    pub looked_for_every: At,
}

/// When nodes can be expected to let records go: their processes serve, and what was broken there is over.
pub fn able(circumstances: &Circumstances, nodes: &[String], until: At) -> Vec<(At, At)> {
    let of =
        |times: &dyn Fn(&str) -> Times| Times::of(nodes.iter().flat_map(|node| times(node).spans().to_vec()));
    let disk =
        of(&|node| circumstances.times_of(node, TRIED_AGAIN_AFTER, |kind| kind.family() == Family::Disk));
    let trouble = of(&|node| circumstances.trouble(node, &[]));
    Times::of(disk.spans().iter().chain(trouble.spans()).copied()).others_until(until)
}

/// What is known of a partition.
#[derive(Default)]
struct Log {
    /// By offset.
    batches: Vec<Known>,
    /// Nothing in it is newer.
    newest: At,
}

/// A batch whose place is known, with the bytes of all such batches up to its end, at least.
struct Known {
    base: i64,
    end: i64,
    acked: At,
    bytes: u64,
}

/// What may go is gone in time. `able` are the times in which it can be asked for.
pub fn kept_too_long(history: &History, rules: Rules, able: &[(At, At)]) -> Vec<Violation> {
    let mut findings = Findings::of("kept-too-long", Verdict::Safety);
    let logs = known(history);
    for (place, told) in told(history) {
        let Some(log) = logs.get(place) else { continue };
        let late = told.iter().find_map(|(sent, start)| {
            let first = log.batches.partition_point(|batch| batch.end <= *start);
            let due = due(log, first, rules)?;
            let within = rules.looked_for_every + WITHIN;
            let is_over = |(from, to): &&(At, At)| due.max(*from) + within <= *sent.min(to);
            able.iter().find(is_over).map(|_| (sent, start, log.batches[first].base, due))
        });
        if let Some((sent, start, base, due)) = late {
            findings.add(format!(
                "{place} still started at {start} at {}, and the record at offset {base} need not be kept since {} ({rules:?})",
                seconds(*sent),
                seconds(due)
            ));
        }
    }
    findings.all()
}

/// Since when the batch need not be kept.
fn due(log: &Log, nth: usize, rules: Rules) -> Option<At> {
    let rest = log.batches.get(nth..).filter(|rest| !rest.is_empty())?;
    let before = nth.checked_sub(1).map_or(0, |before| log.batches[before].bytes);
    let acked_behind = |bytes: u64| {
        rest.get(rest.partition_point(|batch| batch.bytes <= before + bytes)).map(|batch| batch.acked)
    };
    let by_age = rules.kept.ms.and_then(|ms| {
        // What stands before another batch was made before that was acknowledged.
        let newest = acked_behind(rules.segment).unwrap_or(log.newest).min(log.newest);
        let ms = u64::try_from(ms).ok()?;
        Some(newest.saturating_add(ms.saturating_mul(NS_PER_MS)).saturating_add(SPREAD))
    });
    let by_size = rules.kept.bytes.and_then(|most| acked_behind(most + 2 * rules.segment));
    by_age.into_iter().chain(by_size).min()
}

fn known(history: &History) -> BTreeMap<&Place, Log> {
    let mut logs: BTreeMap<&Place, Log> = BTreeMap::new();
    for send in &history.sends {
        let log = logs.entry(&send.place).or_default();
        log.newest = log.newest.max(send.began);
        if let Outcome::Acked { at, base: Some(base) } = send.outcome {
            let end = base + i64::from(send.count);
            let known = Known { base, end, acked: at, bytes: send.bytes_min };
            log.batches.push(known);
        }
    }
    for log in logs.values_mut() {
        log.batches.sort_by_key(|batch| batch.base);
        let (mut bytes, mut acked) = (0, 0);
        for batch in &mut log.batches {
            bytes += batch.bytes;
            acked = batch.acked.max(acked);
            (batch.bytes, batch.acked) = (bytes, acked);
        }
    }
    logs
}

/// Who asked where a log starts when, and what he was told.
fn told(history: &History) -> BTreeMap<&Place, Vec<(At, i64)>> {
    let mut all: BTreeMap<&Place, Vec<(At, i64)>> = BTreeMap::new();
    let starts = history.log_starts.iter().map(|one| (&one.place, one.sent, one.start));
    let earliest = history.lookups.iter().filter(|lookup| lookup.query == LookupQuery::Earliest);
    for (place, sent, start) in starts.chain(earliest.map(|one| (&one.place, one.sent, one.offset))) {
        // The next topic of that name begins again.
        if !history.deleted.contains_key(&*place.topic) {
            all.entry(place).or_default().push((sent, start));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::circumstances::Life;
    use crate::checker::stories::*;
    use crate::fault::{Fault, FaultHits, FaultKind, NodeRef};
    use crate::history::Teller;
    use crate::history::{LogStart, Lookup, Send};

    const S: At = 1_000_000_000;
    const ABLE: [(At, At); 1] = [(0, 1_000 * S)];

    /// Ten batches of a hundred bytes, one a second; who asks at a moment is told this start.
    fn found(asked_s: At, start: i64, kept: Kept, able: &[(At, At)]) -> usize {
        let send = |n: u64| Send {
            bytes_min: 100,
            began: n * S,
            outcome: Outcome::Acked { at: n * S, base: Some(n as i64) },
            ..acked(n, 0)
        };
        let log_start = LogStart {
            client: "client-1".into(),
            place: place(),
            start,
            by: Teller::Node(1),
            sent: asked_s * S,
            at: asked_s * S,
            wall_ms: 0,
        };
        let history =
            History { sends: (0..10).map(send).collect(), log_starts: vec![log_start], ..History::default() };
        let looked_up = History {
            log_starts: Vec::new(),
            lookups: vec![Lookup {
                client: "client-1".into(),
                place: place(),
                query: LookupQuery::Earliest,
                sent: asked_s * S,
                at: asked_s * S,
                offset: start,
                timestamp: -1,
            }],
            ..history.clone()
        };
        let rules = Rules { kept, segment: 200, looked_for_every: S };
        let found = kept_too_long(&history, rules, able).len();
        assert_eq!(kept_too_long(&looked_up, rules, able).len(), found, "however it was told");
        found
    }

    #[test]
    fn what_is_old_is_gone_once_all_of_its_segment_is() {
        let kept = Kept { ms: Some(10_000), bytes: None };
        // The third batch is in another segment than the first, for sure, and is acknowledged at 2 s.
        assert_eq!(found(16, 0, kept, &ABLE), 0);
        assert_eq!(found(17, 0, kept, &ABLE), 1);
        assert_eq!((found(17, 1, kept, &ABLE), found(18, 1, kept, &ABLE)), (0, 1));
        // Nothing says that there is a segment behind it: it is due when all of the log is.
        assert_eq!((found(23, 8, kept, &ABLE), found(24, 8, kept, &ABLE)), (0, 1));
        assert_eq!(found(900, 10, kept, &ABLE), 0, "the log is empty");
        assert_eq!(found(900, 0, Kept::default(), &ABLE), 0, "kept for ever");
    }

    #[test]
    fn what_is_more_than_is_kept_is_gone() {
        let kept = |bytes| Kept { ms: None, bytes: Some(bytes) };
        // Four hundred of two segments, and what is to be kept.
        assert_eq!((found(9, 0, kept(100), &ABLE), found(8, 0, kept(100), &ABLE)), (1, 0));
        assert_eq!(found(900, 0, kept(600), &ABLE), 0);
    }

    #[test]
    fn only_time_in_which_it_can_be_done_counts() {
        let kept = Kept { ms: Some(10_000), bytes: None };
        assert_eq!(found(900, 0, kept, &[(0, 15 * S)]), 0);
        assert_eq!(found(900, 0, kept, &[(0, 15 * S), (20 * S, 23 * S)]), 0);
        assert_eq!(found(900, 0, kept, &[(0, 15 * S), (20 * S, 24 * S)]), 1);
    }

    #[test]
    fn a_node_is_able_while_it_serves_and_some_time_after_its_disk_failed() {
        let life = Life { node: "node1".into(), began: S, serving: Some(2 * S), ..Life::default() };
        let fault = Fault { node: Some(NodeRef::Number(1)), ..Fault::new(FaultKind::DiskError) };
        let faults = vec![FaultHits::once(fault, 20 * S, 25 * S)];
        let circumstances = Circumstances::new(faults, vec![life], 100 * S);
        assert_eq!(
            able(&circumstances, &["node1".to_owned()], 100 * S),
            [(2 * S, 20 * S), (37 * S, 100 * S)]
        );
    }
}
