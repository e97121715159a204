//! From what happened to a record: every checker is asked, the gravest finding is the verdict.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use reports::{FaultHit, Hash64, RunRecord, Verdict, Violation};

use super::node;
use super::observations::{self, Observations};
use super::order::{Choice, Order};
use super::witness::Witness;
use crate::checker::budgets::Peaks;
use crate::checker::circumstances::{Circumstances, Times};
use crate::checker::stalls::{Costs, Stall};
use crate::checker::{
    self, answers, beginnings, budgets, causes, compaction, configs, corruption, endings, epochs, groups,
    log, lookups, overdue, polls, recovery, refusals, replica_logs, replicas, rest, segments, sends, served,
    stalls, syncs, unacknowledged, visibility,
};
use crate::fault::{Family, FaultHits, FaultKind, FaultPlan};
use crate::history::{
    AckMode, At, Change, History, Outcome as SendOutcome, RequestEnd, Send, Teller, Trade, Value, seconds,
};
use crate::probe::Probe;
use crate::scenario::Scenario;
use crate::workload::SESSION;
use crate::workload::open_batches;
use crate::world::{Outcome, Stop};

/// The shortest way between two machines.
const WAY: At = 35_000;
/// A disk that has stood still for so long is known to, and who leads the metadata is another node.
const STALL_KNOWN_AFTER: At = 2_000_000_000;
/// What was sent before its connection ended is read and decided within this, once nothing is broken any more.
const ARRIVES_WITHIN: At = 20_000_000_000;

pub(super) fn record(
    order: &Order,
    plan: &FaultPlan,
    outcome: Outcome<Observations>,
    witness: &Witness,
) -> RunRecord {
    let scenario = &order.scenario.scenario;
    let mut record = RunRecord {
        version: reports::VERSION,
        scenario: order.scenario.id.clone(),
        seed: order.seed,
        part: order.part().map(str::to_owned),
        production: order.choice == Choice::Production,
        expected: order.expected(),
        trace_hash: Hash64(outcome.trace_hash),
        plan_hash: Hash64(plan.hash()),
        events: outcome.events,
        hits: outcome
            .fault_hits
            .iter()
            .map(|hit| FaultHit { fault: hit.fault.to_string(), kind: hit.fault.kind.name(), hits: hit.hits })
            .collect(),
        hits_required: scenario.hits_required(),
        simulated_seconds: outcome.simulated.as_secs_f64(),
        probes: outcome.probes.clone(),
        probes_required: scenario.probes.required.clone(),
        plan: serde_json::to_value(plan).unwrap_or_default(),
        last_events: outcome.last_events.iter().map(ToString::to_string).collect(),
        ..RunRecord::default()
    };
    let lives = witness.lives.with_ends(&outcome.endings, &witness.journal_failures());
    let circumstances = Circumstances::new(outcome.fault_hits.clone(), lives, ns(outcome.simulated));
    record.violations =
        node::names(scenario).flat_map(|node| endings::exits(&circumstances, &node)).collect();
    match &outcome.result {
        Ok(story) => judge(&mut record, scenario, &circumstances, story),
        Err(stop) => {
            record.violations.push(broken(stop, outcome.simulated));
            record.violations.extend(cut_short(stop, scenario, &circumstances, witness));
        }
    }
    record.verdict = match &outcome.result {
        Ok(_) => checker::verdict(&record.violations),
        // Whatever else was found up to then: it is this that ended the run.
        Err(stop) => verdict_of(stop),
    };
    record
}

fn ns(duration: Duration) -> At {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn verdict_of(stop: &Stop) -> Verdict {
    match stop {
        Stop::Crash { .. } | Stop::Main(_) => Verdict::Crash,
        Stop::NeverYields { .. }
        | Stop::Busy { .. }
        | Stop::NothingLeft
        | Stop::OutOfTime
        | Stop::Livelock { .. }
        | Stop::GivenUp { .. } => Verdict::Freeze,
    }
}

/// The world broke before the story was over.
fn broken(stop: &Stop, at: Duration) -> Violation {
    let verdict = verdict_of(stop);
    let checker = match stop {
        Stop::Livelock { .. } | Stop::GivenUp { .. } => "livelock",
        _ if verdict == Verdict::Crash => "crash",
        _ => "standstill",
    };
    Violation { checker: checker.into(), verdict, what: format!("at {}: {stop}", seconds(ns(at))) }
}

/// What must hold of every moment of a history. What is only owed in the end nobody can say.
const AT_ALL_TIMES: [fn(&History) -> Vec<Violation>; 16] = [
    log::inconsistent_offsets,
    log::foreign_records,
    polls::poll_order,
    sends::send_order,
    sends::rejections,
    unacknowledged::refused_and_read,
    visibility::high_watermark_back,
    beginnings::log_start_back,
    beginnings::out_of_range,
    lookups::lookups,
    epochs::epochs,
    configs::lost_configs,
    groups::owners,
    compaction::differing,
    compaction::undeleted,
    compaction::lookups,
];

/// The history up to a stop of the world, judged by what must hold at all times.
fn cut_short(
    stop: &Stop,
    scenario: &Scenario,
    circumstances: &Circumstances,
    witness: &Witness,
) -> Vec<Violation> {
    // Whoever is stopped from outside keeps whatever it had taken.
    if matches!(stop, Stop::NeverYields { .. } | Stop::GivenUp { .. }) {
        return Vec::new();
    }
    let history = witness.notes.take();
    let promised = promised(&history, scenario, circumstances);
    let mut found: Vec<Violation> = AT_ALL_TIMES.iter().flat_map(|check| check(&promised)).collect();
    found.extend(compaction::lost(&promised, clocks_differ(scenario, circumstances)));
    found.extend(groups::positions(&history, &|_| At::MAX));
    let disks = witness.disks();
    if !disks.is_empty() && !is_damaged(scenario, circumstances) {
        let durable = observations::durable(&history, &disks);
        found.extend(early(&history, &durable, in_sync(scenario)));
    }
    found
}

/// The history as far as anybody may rely on it: where there are replicas, what the leader alone has acknowledged goes with
/// the leader. That it was durable there is judged all the same. A node that has lost its disk knows nothing of what it told.
fn promised<'a>(
    history: &'a History,
    scenario: &Scenario,
    circumstances: &Circumstances,
) -> Cow<'a, History> {
    if scenario.cluster.replication == 1 {
        return Cow::Borrowed(history);
    }
    let mut promised = history.clone();
    for send in promised.sends.iter_mut().filter(|send| send.acks == AckMode::Leader) {
        if matches!(send.outcome, SendOutcome::Acked { .. }) {
            send.outcome = SendOutcome::Unknown;
            send.unknown_attempts += 1;
        }
    }
    let lost =
        |number| circumstances.faults_of(&node::name(number), FaultKind::destroys_data).next().is_some();
    for told in &mut promised.log_starts {
        if matches!(told.by, Teller::Node(number) if lost(number)) {
            told.by = Teller::Nobody;
        }
    }
    Cow::Owned(promised)
}

/// What a fault changed on some disk stands there no more as it was written.
fn is_damaged(scenario: &Scenario, circumstances: &Circumstances) -> bool {
    node::names(scenario).any(|node| circumstances.faults_of(&node, corruption::corrupts).next().is_some())
}

fn clocks_differ(scenario: &Scenario, circumstances: &Circumstances) -> bool {
    let is_of_a_clock = |kind: FaultKind| kind.family() == Family::Clock;
    node::names(scenario).any(|node| circumstances.faults_of(&node, is_of_a_clock).next().is_some())
}

/// So many copies has what acks=all was answered for, and what is read.
fn in_sync(scenario: &Scenario) -> usize {
    usize::try_from(scenario.cluster.min_insync_replicas).unwrap_or(1)
}

fn early(history: &History, durable: &BTreeMap<Value, visibility::Copies>, in_sync: usize) -> Vec<Violation> {
    let since = |send: &Send, value| {
        let copies = if send.acks == AckMode::All { in_sync } else { 1 };
        match durable.get(&value)?.durable(copies) {
            visibility::Durable::Since(at) => Some(at),
            visibility::Durable::Never => None,
        }
    };
    let mut found = syncs::acked_before_durable(history, since, WAY);
    let of = |value| durable.get(&value).map(|copies| copies.durable(in_sync));
    found.extend(visibility::reads_only_durable(history, of, WAY));
    found
}

fn judge(record: &mut RunRecord, scenario: &Scenario, circumstances: &Circumstances, story: &Observations) {
    let history = &story.history;
    let liveness = &scenario.liveness;
    let promised = promised(history, scenario, circumstances);
    let found = &mut record.violations;
    found.extend(AT_ALL_TIMES.iter().flat_map(|check| check(&promised)));
    found.extend(log::duplicates(&promised));
    found.extend(beginnings::deleted_too_early(history, story.kept));
    let rules = overdue::Rules {
        kept: story.kept,
        segment: story.segment_bounds.segment,
        looked_for_every: ns(story.looked_for_every),
    };
    let nodes: Vec<String> = node::names(scenario).collect();
    let able = overdue::able(circumstances, &nodes, circumstances.until());
    found.extend(overdue::kept_too_long(history, rules, &able));
    let mut missing: Vec<Violation> =
        [log::lost_writes, log::gaps, log::lost_topics, log::unreadable, polls::unseen]
            .iter()
            .flat_map(|check| check(&promised))
            .collect();
    missing.extend(compaction::lost(&promised, clocks_differ(scenario, circumstances)));
    found.extend(compaction::not_compacted(history));
    // Whoever has other copies keeps what one disk loses.
    let told = match scenario.cluster.replication {
        1 => nodes.iter().find_map(|node| corruption::told(history, circumstances, node)),
        _ => None,
    };
    if let Some(told) = &told {
        missing = told.without_told(missing);
    }
    if !is_damaged(scenario, circumstances) {
        found.extend(early(history, &story.durable, in_sync(scenario)));
    }
    found.extend(missing);
    found.extend(groups::progress(history));
    found.extend(match &told {
        Some(told) => told.without_told(groups::untold(history)),
        None => groups::untold(history),
    });
    found.extend(unacknowledged::fired_and_lost(history, circumstances));
    let grace = ns(liveness.grace.0);
    found.extend(answers::answered(history, circumstances, grace));
    found.extend(answers::standstill(story.standstill.as_ref(), ns(liveness.frozen_after.0)));
    let places_full = story.places.full_for_an_address;
    found.extend(served::served_beside_others(history, circumstances, grace, places_full));
    found.extend(causes::errors_have_causes(history, circumstances, &nodes));
    // A node that takes nothing is one of several: what it refuses others may take.
    if let [node] = nodes.as_slice() {
        for check in [refusals::silent_refusals, refusals::refused_at_once] {
            found.extend(check(history, circumstances, node));
        }
    }
    let trouble_of = |node: &String, partition: Option<i32>| {
        let trouble = match partition {
            Some(partition) => circumstances.trouble_of(node, &history.requests, partition),
            None => circumstances.trouble(node, &history.requests),
        };
        let mut spans = trouble.spans().to_vec();
        // The others have to do without it, as soon as they have noticed.
        if let Some((_, gone)) = story.without.as_ref().filter(|(gone, _)| gone == node) {
            spans.iter_mut().for_each(|(from, to)| (*from, *to) = ((*from).min(*gone), (*to).min(*gone)));
        }
        spans
    };
    let trouble = |partition| Times::of(nodes.iter().flat_map(|node| trouble_of(node, partition)));
    let clear = |partition| trouble(Some(partition)).others_until(circumstances.until());
    let recovery = recovery::acknowledged_when_clear(
        history,
        clear,
        ns(liveness.connected_for.0),
        ns(liveness.acknowledged_within.0),
    );
    found.extend(match &told {
        Some(told) => told.without_named(recovery.violations),
        None => recovery.violations,
    });
    let trouble_at_all = trouble(None);
    let clear_of_all = trouble_at_all.others_until(circumstances.until());
    found.extend(groups::positions(history, &|at| arrived_by(&clear_of_all, at)));
    let assigned = groups::assigned_when_clear(
        history,
        &clear_of_all,
        ns(liveness.connected_for.0),
        ns(liveness.assigned_within.0),
    );
    found.extend(match &told {
        Some(told) => told.without_named(assigned),
        None => assigned,
    });
    for check in [endings::polite_stops, endings::starts_after_stops, endings::stopped_in_the_end] {
        found.extend(nodes.iter().flat_map(|node| check(circumstances, node)));
    }
    found.extend(story.rest.iter().flat_map(rest::back_to_idle));
    // A file that was given up for its errors, or for want of room, is left as it was.
    let was_full = story.probes.contains_key(Probe::DiskFull.name());
    let spoils =
        |kind: FaultKind| kind.destroys_data() || matches!(kind, FaultKind::DiskError | FaultKind::DiskFull);
    for (node, files) in story.segments.iter().filter(|_| !was_full) {
        if circumstances.faults_of(node, spoils).next().is_none() {
            let seen = story.nodes.iter().find(|seen| seen.name() == *node);
            let starts = seen.map(|seen| seen.log_starts()).unwrap_or_default();
            found.extend(segments::segments(files, &starts, story.segment_bounds));
        }
    }
    let disturbed = |kind: FaultKind| kind.family() == Family::Disk;
    for (node, files) in story.files_at_rest.iter().filter(|_| !was_full) {
        if circumstances.faults_of(node, disturbed).next().is_none() {
            found.extend(segments::retained(files, story.kept.bytes, story.segment_bounds));
        }
    }
    found.extend(story.looks.violations());
    let holds_up = |kind: FaultKind| {
        matches!(kind.family(), Family::Task | Family::SyncPoint)
            || matches!(kind, FaultKind::Pause | FaultKind::Unkillable)
    };
    let has = |node: &str, wanted: &dyn Fn(FaultKind) -> bool| {
        circumstances.faults_of(node, wanted).next().is_some()
    };
    let clocks_differ = clocks_differ(scenario, circumstances);
    if !clocks_differ {
        found.extend(groups::taken_too_soon(history, ns(SESSION)));
    }
    let is_held_up = |number: i32| clocks_differ || has(&node::name(number.unsigned_abs()), &holds_up);
    found.extend(story.looks.stale_leaders(clocks_differ, is_held_up));
    found.extend(replicas::not_converged(&story.pending));
    if !is_damaged(scenario, circumstances) {
        found.extend(replica_logs::replicas_differ(&story.segments, &story.nodes, open_batches));
    }
    let lives = nodes.iter().flat_map(|node| circumstances.lives(node));
    let raft_replayed = lives.map(|life| life.raft_replayed).max().unwrap_or(0);
    let partition_changes = story.looks.partition_changes;
    let rebalance = groups::longest_rebalance(history, &trouble_at_all);
    let peaks = Peaks { raft_replayed, partition_changes, rebalance, ..story.peaks };
    let undecided = story.undecided.as_ref();
    let placements = &story.looks.placements;
    let stands_still = |kind| times_of(scenario, circumstances, kind);
    let pauses = stalls::apart(stands_still(FaultKind::Pause));
    let costs = Costs {
        pause_resume: stalls::costs(history, &pauses, placements).resume,
        ..stalls::costs(history, &stands_still(FaultKind::DiskStall), placements)
    };
    let (figures, over) =
        budgets::budgets(history, &scenario.budget, undecided, story.idle, peaks, story.disk, costs);
    record.budgets = figures;
    record.violations.extend(over);
    record.probes = probes_of(story, circumstances);
    record.probes.extend(changed_in_stall(history, &stands_still(FaultKind::DiskStall)));
    record.figures = figures_of(story, recovery.slowest);
}

/// When whatever was on its way to a node at that time has surely been decided there.
fn arrived_by(clear: &[(At, At)], at: At) -> At {
    let arrived = |(from, to): &(At, At)| {
        let by = at.max(*from).saturating_add(ARRIVES_WITHIN);
        (by <= *to).then_some(by)
    };
    clear.iter().filter_map(arrived).min().unwrap_or(At::MAX)
}

/// When such a fault held up a node, and which.
fn times_of(scenario: &Scenario, circumstances: &Circumstances, kind: FaultKind) -> Vec<Stall> {
    let of_node = |number: u32| {
        let name = node::name(number);
        let stall = |hit: &FaultHits| Stall { node: number as i32, from: hit.from, until: hit.until };
        let found: Vec<Stall> = circumstances.faults_of(&name, |found| found == kind).map(stall).collect();
        found
    };
    (1..=scenario.cluster.nodes).flat_map(of_node).collect()
}

/// Changes that were made for clients of a node while its disk stood still, and was known to.
fn changed_in_stall(history: &History, stalls: &[Stall]) -> Option<(String, u64)> {
    let in_stall = |change: &&Change| {
        let during = |stall: &Stall| {
            let known = stall.from.saturating_add(STALL_KNOWN_AFTER);
            stall.node == change.node as i32
                && known <= change.began
                && change.made.is_some_and(|made| made <= stall.until)
        };
        stalls.iter().any(during)
    };
    let count = history.changes.iter().filter(in_stall).count() as u64;
    (count > 0).then(|| (Probe::ChangedInStall.name().to_owned(), count))
}

/// Situations that the world saw, and those that clients did.
fn probes_of(story: &Observations, circumstances: &Circumstances) -> BTreeMap<String, u64> {
    let mut probes = story.probes.clone();
    let mut add = |probe: Probe, count: u64| {
        if count > 0 {
            *probes.entry(probe.name().to_owned()).or_insert(0) += count;
        }
    };
    for (name, count) in &story.history.counts {
        match Probe::of_name(name) {
            // Clients cannot know why they were refused.
            Some(Probe::RefusedInStall) | None => {}
            Some(probe) => add(probe, *count),
        }
    }
    let held = |kind: FaultKind| matches!(kind, FaultKind::DiskStall | FaultKind::DiskSlow);
    let stalls = circumstances.times_of_any(0, held);
    let refused = story.history.complaints.iter().filter(|complaint| {
        complaint.trade == Trade::Produce
            && causes::is_storage_error(&complaint.error)
            && stalls.meet(complaint.sent, complaint.at)
    });
    add(Probe::RefusedInStall, refused.count() as u64);
    let compacted = compaction::sightings(&story.history);
    add(Probe::RecordsCompacted, compacted.records_gone);
    add(Probe::ReadWithGaps, compacted.reads_with_gaps);
    add(Probe::TombstonesGone, compacted.tombstones_gone);
    let lying = story.segments.values().flatten();
    add(Probe::CleanedSegments, lying.filter(|file| segments::is_cleaned(file)).count() as u64);
    add(Probe::SyncFailed, story.failed_syncs);
    add(Probe::PlacesTaken, u64::from(story.places.full));
    probes
}

fn figures_of(story: &Observations, slowest: Option<At>) -> BTreeMap<String, f64> {
    let history = &story.history;
    let mut figures = BTreeMap::new();
    let mut put = |name: &str, value: f64| {
        figures.insert(name.to_owned(), value);
    };
    put("acknowledged records", history.acked_records() as f64);
    let ended = |end| history.requests.iter().filter(|request| request.end == end).count() as f64;
    put("requests answered", ended(RequestEnd::Answered));
    put("requests cut off", ended(RequestEnd::Disconnected));
    put("requests unanswered", ended(RequestEnd::Unanswered));
    let latest = history.requests.iter().map(|request| request.ended.saturating_sub(request.deadline)).max();
    put("latest answer after its deadline, ms", latest.unwrap_or(0) as f64 / 1e6);
    let mut latencies = budgets::latencies(history);
    latencies.sort_unstable();
    for (name, share) in [("produce p50, ms", 0.5), ("produce p99, ms", 0.99)] {
        if let Some(ns) = checker::quantile(&latencies, share) {
            put(name, ns as f64 / 1e6);
        }
    }
    if let Some(slowest) = slowest {
        put("longest way back after a fault, ms", slowest as f64 / 1e6);
    }
    if let Some(idle) = story.idle {
        put("idle wake-ups per s", idle.wakeups as f64 / idle.seconds.max(0.001));
        put("idle disk operations per s", idle.disk_operations as f64 / idle.seconds.max(0.001));
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::{acked, poll};

    fn stopped(stop: Stop) -> Vec<String> {
        let witness = Witness::default();
        {
            let mut notes = witness.notes.write();
            // Told that record 0 stands at offset 0, where somebody reads record 1; record 2 was never read again.
            notes.sends = vec![acked(0, 0), Send { began: 1, ..acked(1, 1) }, acked(2, 2)];
            notes.polls.push(poll(0, 0, 5, &[(0, 1)]));
        }
        let text = "name = \"x\"\nabout = \"x\"\nduration = \"1s\"\n";
        let scenario = crate::scenario::parse("x.toml", text).unwrap();
        let found = cut_short(&stop, &scenario, &Circumstances::default(), &witness);
        found.into_iter().map(|violation| violation.checker).collect()
    }

    #[test]
    fn a_run_that_was_cut_short_is_judged_by_what_must_hold_at_all_times() {
        let found = stopped(Stop::NothingLeft);
        assert!(found.iter().any(|checker| checker == "inconsistent-offset"), "{found:?}");
        assert!(found.iter().all(|checker| checker != "lost-write"), "nobody read it to its end: {found:?}");
    }

    #[test]
    fn what_the_leader_alone_acknowledged_is_owed_only_where_there_is_no_other() {
        let text = |more: &str| format!("name = \"x\"\nabout = \"x\"\nduration = \"1s\"\n[cluster]\n{more}");
        let scenario = |more: &str| crate::scenario::parse("x.toml", &text(more)).unwrap();
        let by_leader = Send { acks: AckMode::Leader, ..acked(0, 0) };
        let history = History { sends: vec![by_leader, acked(1, 1)], ..History::default() };
        let known = |scenario: &Scenario| -> Vec<bool> {
            let promised = promised(&history, scenario, &Circumstances::default());
            promised.sends.iter().map(|send| matches!(send.outcome, SendOutcome::Acked { .. })).collect()
        };
        assert_eq!(known(&scenario("nodes = 1")), [true, true]);
        assert_eq!(known(&scenario("nodes = 3\nreplication = 3")), [false, true]);
    }

    #[test]
    fn a_world_that_was_stopped_from_outside_is_left_alone() {
        assert_eq!(stopped(Stop::NeverYields { task: "x".into() }), Vec::<String>::new());
    }
}
