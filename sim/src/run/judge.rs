//! From what happened to a record: every checker is asked, the gravest finding is the verdict.

use std::collections::BTreeMap;
use std::time::Duration;

use reports::{FaultHit, Hash64, RunRecord, Verdict, Violation};

use super::Order;
use super::excuses;
use super::story::Story;
use crate::checker::{self, answers, budgets, endings, log, polls, recovery, sends, syncs};
use crate::fault::{FaultKind, FaultPlan};
use crate::history::{At, RequestEnd, seconds};
use crate::scenario::Scenario;
use crate::world::{Cause, Ending, Outcome, Stop};

/// The shortest way between two machines.
const WAY: At = 35_000;

pub(super) fn record(order: &Order, plan: &FaultPlan, outcome: Outcome<Story>) -> RunRecord {
    let scenario = &order.scenario.scenario;
    let mut record = RunRecord {
        version: reports::VERSION,
        scenario: order.scenario.id.clone(),
        seed: order.seed,
        part: order.part().map(str::to_owned),
        production: order.choice == super::Choice::Production,
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
    record.violations = endings::crashes(&ended(&outcome, plan));
    match &outcome.result {
        Ok(story) => judge(&mut record, scenario, plan, story),
        Err(stop) => record.violations.push(broken(stop, outcome.simulated)),
    }
    record.verdict = checker::verdict(&record.violations);
    record
}

/// The world broke before the story was over.
fn broken(stop: &Stop, at: Duration) -> Violation {
    let (checker, verdict) = match stop {
        Stop::Crash { .. } | Stop::Main(_) => ("crash", Verdict::Crash),
        Stop::Livelock { .. } | Stop::GivenUp { .. } => ("livelock", Verdict::Freeze),
        Stop::NeverYields { .. } | Stop::Busy { .. } | Stop::NothingLeft | Stop::OutOfTime => {
            ("standstill", Verdict::Freeze)
        }
    };
    let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    Violation { checker: checker.into(), verdict, what: format!("at {}: {stop}", seconds(at)) }
}

/// Ends of node processes that nobody asked for.
fn ended(outcome: &Outcome<Story>, plan: &FaultPlan) -> Vec<endings::Ending> {
    let failing = |kind: FaultKind| {
        matches!(
            kind,
            FaultKind::DiskError | FaultKind::SyncFails | FaultKind::DiskFull | FaultKind::DiskStall
        ) || kind.destroys_data()
    };
    outcome
        .endings
        .iter()
        .filter(|ending| ending.machine.starts_with("node"))
        .filter_map(|ending: &Ending| match &ending.cause {
            Cause::Killed | Cause::PowerLost => None,
            Cause::Exited(status, why) => Some(endings::Ending {
                node: ending.machine.clone(),
                at: ending.at,
                status: Some(*status as i32),
                why: why.clone(),
                disk_failed: plan
                    .faults
                    .iter()
                    .any(|fault| failing(fault.kind) && excuses::window(fault).0 <= ending.at),
            }),
        })
        .collect()
}

fn judge(record: &mut RunRecord, scenario: &Scenario, plan: &FaultPlan, story: &Story) {
    let history = &story.history;
    let liveness = &scenario.liveness;
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let found = &mut record.violations;
    for check in [
        log::lost_writes,
        log::duplicates,
        log::inconsistent_offsets,
        log::foreign_records,
        log::gaps,
        log::lost_topics,
        log::unreadable,
        polls::poll_order,
        polls::unseen,
        sends::send_order,
        sends::rejections,
    ] {
        found.extend(check(history));
    }
    found.extend(syncs::acked_before_durable(history, |value| story.durable.get(&value).copied(), WAY));
    found.extend(answers::answered(history, &story.excuses, ns(liveness.grace.0)));
    found.extend(answers::standstill(story.standstill.as_ref(), ns(liveness.frozen_after.0)));
    let mut windows: Vec<(At, At)> = plan.faults.iter().map(excuses::window).collect();
    windows.extend(excuses::unnoticed(plan, &history.requests));
    let clear = recovery::clear_times(&windows, story.ended);
    let recovery = recovery::acknowledged_when_clear(
        history,
        &clear,
        ns(liveness.connected_for.0),
        ns(liveness.acknowledged_within.0),
    );
    found.extend(recovery.violations);
    match &story.left {
        Some(left) => found.extend(endings::left_in_flight(left)),
        None => found.push(Violation {
            checker: "polite-stop".into(),
            verdict: Verdict::Freeze,
            what: "the node was asked to stop in the end and did not".into(),
        }),
    }
    let (figures, over) = budgets::budgets(history, &scenario.budget, story.idle);
    record.budgets = figures;
    record.violations.extend(over);
    record.probes.clone_from(&story.probes);
    for (name, count) in &history.counts {
        if crate::probe::is_known(name) {
            *record.probes.entry((*name).to_owned()).or_insert(0) += count;
        }
    }
    if story.failed_syncs > 0 {
        record.probes.insert("sync failed".into(), story.failed_syncs);
    }
    record.figures = figures_of(story, recovery.slowest);
}

fn figures_of(story: &Story, slowest: Option<At>) -> BTreeMap<String, f64> {
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
        if let Some(ns) = budgets::quantile(&latencies, share) {
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
