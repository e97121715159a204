//! With which status a process may end by itself, and for what.
//!
//! A node has to live through a full disk and a disk that stands still for a while, and through whatever happens to the network,
//! to clocks and to tasks. It may end when its journals cannot be written any more, when it starts and cannot
//! read or trust what it finds, and while its disk stands still for long.

use broker::limits::JOURNAL_FAILURES_MAX;

use super::{Circumstances, JournalFailures, Life};
use crate::fault::{FaultHits, FaultKind};
use crate::history::At;

/// The process takes so long to find out, at most.
const SOON: At = 5_000_000_000;
/// `stall.exit_after`.
const STANDS_STILL_FOR: At = 30_000_000_000;
/// What a stall holds may have begun so long before it.
const BEGAN_BEFORE: At = 500_000_000;
/// A start may give up on a disk that has not answered for this long.
const START_PATIENCE: At = 30_000_000_000;

/// `io_backend::ExitStatus`, as numbers.
const OTHER: i32 = 1;
const DATA_DIRECTORY: i32 = 3;
const STORAGE_NOT_TRUSTED: i32 = 5;
const DISK_STANDS_STILL: i32 = 6;

/// Whether a fault on its own machine gives this process reason to end with this status.
pub fn are_caused(circumstances: &Circumstances, life: &Life, at: At, status: i32) -> bool {
    circumstances.faults_of(&life.node, |_| true).any(|hit| {
        let told_until = held_until(circumstances, &life.node, hit.until).saturating_add(SOON);
        let since = held_since(circumstances, &life.node, hit.from);
        allowed(hit, (since, told_until), life, at).contains(&status)
    })
}

/// Until when an operation that began before `until` may be held before it fails.
fn held_until(circumstances: &Circumstances, node: &str, until: At) -> At {
    let holds = |kind| matches!(kind, FaultKind::DiskStall | FaultKind::DiskSlow);
    let mut holders: Vec<&FaultHits> = circumstances.faults_of(node, holds).collect();
    holders.sort_by_key(|hit| hit.from);
    holders.iter().fold(until, |until, hit| if hit.from <= until { until.max(hit.until) } else { until })
}

/// Since when an operation may be held that a stall from `from` on still holds.
fn held_since(circumstances: &Circumstances, node: &str, from: At) -> At {
    let mut holders: Vec<&FaultHits> =
        circumstances.faults_of(node, |kind| kind == FaultKind::DiskStall).collect();
    holders.sort_by_key(|hit| std::cmp::Reverse(hit.until));
    holders.iter().fold(from, |from, hit| if from <= hit.until { from.min(hit.from) } else { from })
}

/// Statuses that this fault explains. Other stalls before it leave no gap `since` then; what it makes fail is known until `told_until`.
fn allowed(hit: &FaultHits, (since, told_until): (At, At), life: &Life, at: At) -> &'static [i32] {
    let (from, until) = (hit.from, hit.until);
    let starting = life.serving.is_none();
    let recent = from <= at && at <= told_until;
    match hit.fault.kind {
        // A failed write or sync of a journal is final for its file; so many of them are for the process.
        FaultKind::DiskError | FaultKind::SyncFails if recent && starting => {
            &[DATA_DIRECTORY, STORAGE_NOT_TRUSTED]
        }
        FaultKind::DiskError | FaultKind::SyncFails if recent && ends_journals(life.journal_failures) => {
            &[STORAGE_NOT_TRUSTED]
        }
        FaultKind::TornWrite
        | FaultKind::LostWrite
        | FaultKind::MisdirectedWrite
        | FaultKind::BitRot
        | FaultKind::Wipe
            if from <= at =>
        {
            &[DATA_DIRECTORY, STORAGE_NOT_TRUSTED]
        }
        FaultKind::DiskStall
            if starting && at <= until && at >= from.max(life.began).saturating_add(START_PATIENCE) =>
        {
            &[OTHER, DATA_DIRECTORY]
        }
        FaultKind::DiskStall if !starting && since + STANDS_STILL_FOR <= at + BEGAN_BEFORE && at <= until => {
            &[DISK_STANDS_STILL]
        }
        _ => &[],
    }
}

/// The metadata's journal ends with its first failure. The records' goes on in another file, if that opens.
fn ends_journals(failures: JournalFailures) -> bool {
    failures.raft > 0 || failures.opens > 0 || failures.contents >= JOURNAL_FAILURES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Operation};
    use std::time::Duration;

    const S: At = 1_000_000_000;

    fn hit(kind: FaultKind, path: Option<&str>, operation: Option<Operation>) -> FaultHits {
        let mut fault = Fault::new(kind).on(1).window(Duration::from_secs(100), Duration::from_secs(50));
        fault.path = path.map(|path| path.parse().unwrap());
        fault.operation = operation;
        let until = if kind.is_moment() { 100 * S } else { 150 * S };
        FaultHits::once(fault, 100 * S, until)
    }

    fn life(serving: bool) -> Life {
        Life {
            node: "node1".into(),
            incarnation: 1,
            began: 10 * S,
            serving: serving.then_some(20 * S),
            journal_failures: JournalFailures { raft: 0, opens: 0, contents: 3 },
            ..Life::default()
        }
    }

    fn caused(hit: FaultHits, serving: bool, at: At, status: i32) -> bool {
        are_caused(&Circumstances::new(vec![hit], Vec::new(), at), &life(serving), at, status)
    }

    #[test]
    fn every_kind_explains_the_statuses_that_it_can_bring_about_and_no_other() {
        use FaultKind::*;
        // Kind, path, operation, serving: the statuses that may be seen 110 s into the run.
        type Row = (FaultKind, Option<&'static str>, Option<Operation>, bool, &'static [i32]);
        let table: [Row; 15] = [
            (SyncFails, Some("journal"), None, true, &[5]),
            (SyncFails, Some("raft"), None, true, &[5]),
            (SyncFails, Some("segment"), None, false, &[3, 5]),
            (DiskError, Some("journal"), Some(Operation::Sync), true, &[5]),
            (DiskError, Some("any"), Some(Operation::Any), true, &[5]),
            (DiskError, Some("journal"), Some(Operation::Read), false, &[3, 5]),
            (DiskFull, None, None, true, &[]),
            (DiskFull, None, None, false, &[]),
            (DiskStall, Some("raft"), None, true, &[]),
            (DiskStall, Some("raft"), None, false, &[]),
            (BitRot, Some("journal"), None, false, &[3, 5]),
            (LostWrite, Some("journal"), None, true, &[3, 5]),
            (Partition, None, None, true, &[]),
            (TaskStopped, None, None, true, &[]),
            (ClockJump, None, None, true, &[]),
        ];
        for (kind, path, operation, serving, statuses) in table {
            for status in 1..=6 {
                let seen = caused(hit(kind, path, operation), serving, 110 * S, status);
                assert_eq!(
                    seen,
                    statuses.contains(&status),
                    "{kind} {path:?} {operation:?} {serving} {status}"
                );
            }
        }
    }

    #[test]
    fn a_process_may_end_while_its_disk_has_stood_still_for_long() {
        let stall = || hit(FaultKind::DiskStall, Some("journal"), None);
        let may = |serving, at| caused(stall(), serving, at, 6);
        assert_eq!([129, 130, 150, 151].map(|at| may(true, at * S)), [false, true, true, false]);
        assert!(!may(false, 140 * S), "a start ends for want of an answer");
    }

    #[test]
    fn stalls_without_a_gap_are_one() {
        let stall = |from: At, until: At| {
            FaultHits::once(Fault::new(FaultKind::DiskStall).on(1), from * S, until * S)
        };
        let may = |first: FaultHits, at: At| {
            let circumstances = Circumstances::new(vec![first, stall(100, 150)], Vec::new(), at * S);
            are_caused(&circumstances, &life(true), at * S, 6)
        };
        assert!(may(stall(92, 100), 122));
        assert!(!may(stall(92, 100), 121));
        assert!(!may(stall(92, 99), 122), "something was answered in between");
    }

    #[test]
    fn a_journal_of_records_survives_what_that_of_the_metadata_does_not() {
        let none = JournalFailures::default();
        let two = JournalFailures { contents: JOURNAL_FAILURES_MAX - 1, ..none };
        assert!(!ends_journals(none) && !ends_journals(two));
        assert!(ends_journals(JournalFailures { raft: 1, ..two }));
        assert!(ends_journals(JournalFailures { opens: 1, ..two }));
        assert!(ends_journals(JournalFailures { contents: JOURNAL_FAILURES_MAX, ..none }));
    }

    #[test]
    fn a_fault_that_was_elsewhere_later_long_ago_or_hit_nothing_explains_nothing() {
        let good = hit(FaultKind::SyncFails, Some("journal"), None);
        assert!(caused(good.clone(), true, 154 * S, 5));
        assert!(!caused(good.clone(), true, 156 * S, 5));
        assert!(!caused(good.clone(), true, 99 * S, 5));
        assert!(!caused(FaultHits { hits: 0, ..good.clone() }, true, 110 * S, 5));
        let elsewhere = FaultHits { fault: good.fault.clone().on(2), ..good };
        assert!(!caused(elsewhere, true, 110 * S, 5));
    }

    #[test]
    fn a_failure_is_told_when_whatever_holds_the_operation_lets_go_of_it() {
        let fails = hit(FaultKind::SyncFails, Some("journal"), None);
        let stall = |from: At, until: At| {
            FaultHits::once(Fault::new(FaultKind::DiskStall).on(1), from * S, until * S)
        };
        let caused = |stalls: Vec<FaultHits>, at: At| {
            let faults = std::iter::once(fails.clone()).chain(stalls).collect();
            are_caused(&Circumstances::new(faults, Vec::new(), at * S), &life(false), at * S, 3)
        };
        assert!(!caused(vec![], 160));
        assert!(caused(vec![stall(149, 158)], 160));
        assert!(caused(vec![stall(157, 170), stall(149, 158)], 174));
        assert!(!caused(vec![stall(149, 158)], 164));
        assert!(!caused(vec![stall(151, 158)], 160), "it began when all that fails had failed");
    }

    #[test]
    fn a_start_gives_up_on_a_disk_that_does_not_answer_for_long() {
        let stall = hit(FaultKind::DiskStall, None, None);
        assert!(!caused(stall.clone(), false, 129 * S, 3));
        assert!(caused(stall.clone(), false, 131 * S, 3));
        assert!(!caused(stall, true, 131 * S, 3));
    }
}
