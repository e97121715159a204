//! Limits that a scenario names: latency of acknowledgements, how long nothing was decided, what a node does and takes.

use reports::{BudgetFigure, Verdict, Violation};
use serde::Deserialize;

use super::stalls::Costs;
use super::{Findings, quantile};
use crate::fault::Span;
use crate::history::{AckMode, At, Change, History, Outcome, Request, RequestEnd, Standstill, Trade};
use crate::world::DeviceCounts;

/// `[budget]` of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Of acknowledged requests, first attempt to acknowledgement.
    pub produce_p50: Option<Span>,
    pub produce_p99: Option<Span>,
    /// The 99th percentile of the times from the answer to a topic's creation to the first record acknowledged in it.
    pub first_record_p99: Option<Span>,
    /// The longest time that a change of metadata took, from its first attempt until it was made.
    pub change_max: Option<Span>,
    /// The longest time in which produce requests were made and none was decided.
    pub undecided: Option<Span>,
    /// Timers fired and operations begun per second on a node, once clients are silent.
    pub wakeups_per_s_idle: Option<f64>,
    /// Disk operations begun per second on a node, once clients are silent.
    pub disk_ops_per_s_idle: Option<f64>,
    /// Writes and syncs on a node's disk, in the whole run, for each acknowledged record.
    pub disk_ops_per_record: Option<f64>,
    /// Bytes written to a node's disk, in the whole run, for each acknowledged record.
    pub disk_bytes_per_record: Option<f64>,
    /// Bytes read from a node's disk, in the whole run, for each record that a fetch brought.
    pub disk_read_bytes_per_record: Option<f64>,
    /// Fetches that were answered for each record that they brought.
    pub fetches_per_record: Option<f64>,
    /// Most entries of Raft's log that a start had to read behind the last snapshot.
    pub raft_entries_replayed: Option<usize>,
    /// Most memory that a node's process had allocated at a time, in MiB.
    pub memory_mib: Option<f64>,
    /// Most sockets that a node's process had open at a time.
    pub sockets: Option<u64>,
    /// Most changes of one partition's leader, ISR or replicas.
    pub partition_changes: Option<u64>,
    /// Most terms of the metadata group after the first in which somebody led, until the nodes are ended for the last time.
    pub elections: Option<u64>,
    /// The longest time that a member of a group waited to be told what it reads, of those that no fault meets.
    pub rebalance_max: Option<Span>,
    /// From the beginning of a stall of a disk until all that was on its way, or was sent in the second after, was acknowledged.
    pub stall_resume: Option<Span>,
    /// The same of a pause of one node alone.
    pub pause_resume: Option<Span>,
    /// The 99th percentile of acknowledgements of partitions without a replica on a node whose disk stands still, as a multiple of the one
    /// without stalls.
    pub stall_untouched_p99: Option<f64>,
    /// The same of partitions with a replica there, from two seconds on.
    pub stall_touched_p99: Option<f64>,
}

impl Budget {
    pub fn is_of_idle_time(&self) -> bool {
        self.wakeups_per_s_idle.is_some() || self.disk_ops_per_s_idle.is_some()
    }
}

/// What was counted on the node while nobody talked to it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Idle {
    pub seconds: f64,
    pub wakeups: u64,
    pub disk_operations: u64,
}

/// The most that any process of a node had at a time, or that there was of something in the whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Peaks {
    /// Bytes; zero where nobody counted.
    pub memory: u64,
    pub sockets: u64,
    /// Entries of Raft's log that a start had to read behind the last snapshot.
    pub raft_replayed: usize,
    /// Changes of one partition's leader, ISR or replicas, in the whole run.
    pub partition_changes: u64,
    /// Terms of the metadata group after the first in which somebody led.
    pub elections: u64,
    /// The longest that a member of a group waited to be told what it reads while nothing was broken, if any did.
    pub rebalance: Option<At>,
}

/// All limits with what was measured, and a finding for each that was not kept.
pub fn budgets(
    history: &History,
    budget: &Budget,
    undecided: Option<&Standstill>,
    idle: Option<Idle>,
    peaks: Peaks,
    disk: DeviceCounts,
    stalls: Costs,
) -> (Vec<BudgetFigure>, Vec<Violation>) {
    let mut latencies: Vec<At> = latencies(history);
    latencies.sort_unstable();
    let mut figures = Vec::new();
    let mut figure = |name: &str, limit: Option<f64>, measured: Option<f64>| {
        if let Some(limit) = limit {
            // What could not be measured was not kept.
            let measured = measured.unwrap_or(f64::MAX);
            figures.push(BudgetFigure { name: name.into(), limit, measured, kept: measured <= limit });
        }
    };
    let ms = |span: crate::fault::Span| span.0.as_secs_f64() * 1e3;
    let percentile = |share: f64| quantile(&latencies, share).map(|ns| ns as f64 / 1e6);
    figure("produce_p50_ms", budget.produce_p50.map(ms), percentile(0.50));
    figure("produce_p99_ms", budget.produce_p99.map(ms), percentile(0.99));
    let mut first_records = history.first_records.clone();
    first_records.sort_unstable();
    let first_record = quantile(&first_records, 0.99).map(|ns| ns as f64 / 1e6);
    figure("first_record_p99_ms", budget.first_record_p99.map(ms), first_record);
    let change_max = history.changes.iter().map(Change::took).max().map(|ns| ns as f64 / 1e6);
    figure("change_max_ms", budget.change_max.map(ms), change_max);
    let seconds = |span: Span| span.0.as_secs_f64();
    let stood_still = undecided.map(|still| still.length() as f64 / 1e9);
    figure("undecided_s", budget.undecided.map(seconds), stood_still);
    let per_second = |count: fn(&Idle) -> u64| {
        idle.filter(|idle| idle.seconds > 0.0).map(|idle| count(&idle) as f64 / idle.seconds)
    };
    figure("wakeups_per_s_idle", budget.wakeups_per_s_idle, per_second(|idle| idle.wakeups));
    figure("disk_ops_per_s_idle", budget.disk_ops_per_s_idle, per_second(|idle| idle.disk_operations));
    let acked: u64 =
        history.sends.iter().filter(|send| is_acked(send)).map(|send| u64::from(send.count)).sum();
    let per_record = |count: u64| (acked > 0).then(|| count as f64 / acked as f64);
    figure("disk_ops_per_record", budget.disk_ops_per_record, per_record(disk.writes + disk.syncs));
    figure("disk_bytes_per_record", budget.disk_bytes_per_record, per_record(disk.written_bytes));
    let fetched: u64 =
        history.polls.iter().map(|poll| u64::from(poll.again) + poll.records.len() as u64).sum();
    let per_fetched = |count: u64| (fetched > 0).then(|| count as f64 / fetched as f64);
    figure("disk_read_bytes_per_record", budget.disk_read_bytes_per_record, per_fetched(disk.read_bytes));
    let fetches = history.requests.iter().filter(|request| is_answered_fetch(request)).count();
    figure("fetches_per_record", budget.fetches_per_record, per_fetched(fetches as u64));
    let replayed = Some(peaks.raft_replayed as f64);
    figure("raft_entries_replayed", budget.raft_entries_replayed.map(|most| most as f64), replayed);
    let counted = |count: u64| (count > 0).then_some(count as f64);
    figure("memory_mib", budget.memory_mib, counted(peaks.memory).map(|bytes| bytes / f64::from(1 << 20)));
    figure("sockets", budget.sockets.map(|most| most as f64), counted(peaks.sockets));
    let changes = Some(peaks.partition_changes as f64);
    figure("partition_changes", budget.partition_changes.map(|most| most as f64), changes);
    let elections = Some(peaks.elections as f64);
    figure("elections", budget.elections.map(|most| most as f64), elections);
    let rebalance = peaks.rebalance.map(|ns| ns as f64 / 1e9);
    figure("rebalance_max_s", budget.rebalance_max.map(seconds), rebalance);
    figure("pause_resume_s", budget.pause_resume.map(seconds), stalls.pause_resume.map(|ns| ns as f64 / 1e9));
    let resume = stalls.resume.map(|ns| ns as f64 / 1e9);
    figure("stall_resume_s", budget.stall_resume.map(seconds), resume);
    figure("stall_untouched_p99", budget.stall_untouched_p99, stalls.untouched_p99);
    figure("stall_touched_p99", budget.stall_touched_p99, stalls.touched_p99);
    let mut findings = Findings::of("budget", Verdict::Budget);
    for figure in figures.iter().filter(|figure| !figure.kept) {
        findings.add(format!("{} is {:.2}, allowed are {}", figure.name, figure.measured, figure.limit));
    }
    (figures, findings.all())
}

fn is_answered_fetch(request: &Request) -> bool {
    request.trade == Trade::Consume && request.end == RequestEnd::Answered
}

fn is_acked(send: &crate::history::Send) -> bool {
    matches!(send.outcome, Outcome::Acked { .. })
}

/// From when its first attempt was sent to the acknowledgement, in nanoseconds. Who left without waiting for it, and
/// heard of it by and by, has none.
pub fn latencies(history: &History) -> Vec<At> {
    let took = |send: &crate::history::Send| match &send.outcome {
        Outcome::Acked { at, .. } if send.acks != AckMode::None && !send.abandoned => {
            Some(at.saturating_sub(send.sent.unwrap_or(send.began)))
        }
        _ => None,
    };
    history.sends.iter().filter_map(took).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;
    use crate::fault::Span;

    const NO_DISK: DeviceCounts =
        DeviceCounts { reads: 0, writes: 0, syncs: 0, read_bytes: 0, written_bytes: 0 };

    #[test]
    fn a_budget_that_is_kept_is_shown_and_one_that_is_not_is_found() {
        let history = History { sends: vec![acked(0, 0), acked(1, 1)], ..History::default() };
        let budget = Budget { produce_p50: Some(Span::millis(1)), ..Budget::default() };
        let (figures, violations) =
            budgets(&history, &budget, None, None, Peaks::default(), NO_DISK, Costs::default());
        assert!(figures[0].kept && violations.is_empty());
        let budget = Budget { produce_p99: Some("100ns".parse().unwrap()), ..Budget::default() };
        let (figures, violations) =
            budgets(&history, &budget, None, None, Peaks::default(), NO_DISK, Costs::default());
        assert!(!figures[0].kept && violations.len() == 1);
    }

    #[test]
    fn the_first_records_of_new_topics_are_held_against_their_limit() {
        let budget = Budget { first_record_p99: Some(Span::millis(20)), ..Budget::default() };
        let found = |first_records: &[At]| {
            let history = History { first_records: first_records.to_vec(), ..History::default() };
            budgets(&history, &budget, None, None, Peaks::default(), NO_DISK, Costs::default()).1.len()
        };
        assert_eq!((found(&[20_000_000, 3]), found(&[20_000_001, 3])), (0, 1));
        assert_eq!(found(&[]), 1, "what nobody measured");
    }

    #[test]
    fn the_slowest_change_is_held_against_its_limit() {
        let budget = Budget { change_max: Some(Span::millis(20)), ..Budget::default() };
        let found = |took: &[Option<At>]| {
            let change = |made: &Option<At>| Change { node: 1, began: 7, made: made.map(|took| 7 + took) };
            let history = History { changes: took.iter().map(change).collect(), ..History::default() };
            budgets(&history, &budget, None, None, Peaks::default(), NO_DISK, Costs::default()).1.len()
        };
        assert_eq!((found(&[Some(3), Some(20_000_000)]), found(&[Some(20_000_001), Some(3)])), (0, 1));
        assert_eq!(found(&[None, Some(3)]), 1, "one was never made");
        assert_eq!(found(&[]), 1, "nobody changed anything");
    }

    #[test]
    fn a_time_without_decisions_is_held_against_its_limit() {
        let budget = Budget { undecided: Some(Span::millis(2_500)), ..Budget::default() };
        let found = |still: Option<&Standstill>| {
            budgets(&History::default(), &budget, still, None, Peaks::default(), NO_DISK, Costs::default())
                .1
                .len()
        };
        let still = |ms: At| Standstill { trade: Trade::Produce, from: 7, to: 7 + ms * 1_000_000 };
        assert_eq!((found(Some(&still(2_500))), found(Some(&still(2_501)))), (0, 1));
        assert_eq!(found(None), 1, "nobody produced anything");
    }

    #[test]
    fn a_node_that_is_busy_with_nothing_is_found() {
        let budget = Budget { disk_ops_per_s_idle: Some(1.0), ..Budget::default() };
        let idle = |disk_operations| Some(Idle { seconds: 10.0, wakeups: 0, disk_operations });
        assert_eq!(
            budgets(
                &History::default(),
                &budget,
                None,
                idle(2_300),
                Peaks::default(),
                NO_DISK,
                Costs::default()
            )
            .1
            .len(),
            1
        );
        assert_eq!(
            budgets(&History::default(), &budget, None, idle(3), Peaks::default(), NO_DISK, Costs::default())
                .1,
            []
        );
    }

    #[test]
    fn a_node_that_takes_more_than_it_may_is_found() {
        let budget = Budget { memory_mib: Some(64.0), sockets: Some(100), ..Budget::default() };
        let peaks = |mib: u64, sockets| Peaks { memory: mib << 20, sockets, ..Peaks::default() };
        let found = |peaks| {
            budgets(&History::default(), &budget, None, None, peaks, NO_DISK, Costs::default()).1.len()
        };
        assert_eq!((found(peaks(64, 100)), found(peaks(65, 100)), found(peaks(64, 101))), (0, 1, 1));
        assert_eq!(found(Peaks::default()), 2, "what nobody counted was not kept");
    }

    #[test]
    fn the_longest_rebalance_is_held_against_its_limit() {
        let budget = Budget { rebalance_max: Some(Span::secs(8)), ..Budget::default() };
        let found = |rebalance| {
            let peaks = Peaks { rebalance, ..Peaks::default() };
            budgets(&History::default(), &budget, None, None, peaks, NO_DISK, Costs::default()).1.len()
        };
        assert_eq!((found(Some(8_000_000_000)), found(Some(8_000_000_001))), (0, 1));
        assert_eq!(found(None), 1, "nobody joined anything while all was well");
    }

    #[test]
    fn a_node_that_works_more_than_its_records_are_worth_is_found() {
        let history = History { sends: vec![acked(0, 0), acked(1, 1)], ..History::default() };
        let budget = Budget {
            disk_ops_per_record: Some(3.0),
            disk_bytes_per_record: Some(5_000.0),
            ..Budget::default()
        };
        let found = |operations, written_bytes| {
            let disk = DeviceCounts { writes: operations, syncs: 2, written_bytes, ..NO_DISK };
            budgets(&history, &budget, None, None, Peaks::default(), disk, Costs::default()).1.len()
        };
        assert_eq!((found(4, 10_000), found(5, 10_000), found(4, 10_001)), (0, 1, 1));
        assert_eq!(
            budgets(&History::default(), &budget, None, None, Peaks::default(), NO_DISK, Costs::default())
                .1
                .len(),
            2
        );
    }

    #[test]
    fn a_node_that_reads_more_than_it_serves_is_found() {
        let fetch = |trade, end| Request {
            node: 1,
            client: "client-1".into(),
            trade,
            sent: 0,
            deadline: 9,
            ended: 1,
            connecting: 0,
            end,
        };
        let mut history = History { polls: vec![poll(0, 0, 1, &[(0, 0), (1, 1)])], ..History::default() };
        history.requests.push(fetch(Trade::Consume, RequestEnd::Answered));
        let budget = Budget {
            disk_read_bytes_per_record: Some(100.0),
            fetches_per_record: Some(0.5),
            raft_entries_replayed: Some(20),
            ..Budget::default()
        };
        let found = |history: &History, read_bytes, raft_replayed| {
            let (disk, peaks) =
                (DeviceCounts { read_bytes, ..NO_DISK }, Peaks { raft_replayed, ..Peaks::default() });
            budgets(history, &budget, None, None, peaks, disk, Costs::default()).1.len()
        };
        assert_eq!((found(&history, 200, 20), found(&history, 201, 20), found(&history, 200, 21)), (0, 1, 1));
        history.requests.push(fetch(Trade::Consume, RequestEnd::Unanswered));
        history.requests.push(fetch(Trade::Produce, RequestEnd::Answered));
        assert_eq!(found(&history, 200, 20), 0, "neither was a fetch that was answered");
        history.requests.push(fetch(Trade::Consume, RequestEnd::Answered));
        assert_eq!(found(&history, 200, 20), 1);
        assert_eq!(found(&History::default(), 0, 0), 2, "where nothing was fetched, nothing can be told");
    }

    #[test]
    fn what_could_not_be_measured_was_not_kept() {
        let budget = Budget { produce_p50: Some(Span::secs(1)), ..Budget::default() };
        assert_eq!(
            budgets(&History::default(), &budget, None, None, Peaks::default(), NO_DISK, Costs::default())
                .1
                .len(),
            1
        );
    }

    #[test]
    fn quantiles_are_values_that_were_there() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[1, 2, 3], 0.5), Some(2));
        assert_eq!(quantile(&[1, 2, 3], 0.99), Some(3));
    }
}
