//! One run: a seed becomes a plan, a world, a cluster with its load, and a record of what came of it.
//!
//! Everything that decides the course of a run is in its [`Order`]. The machine it runs on shows only in the
//! wall-clock figure of the record.

mod digest;
mod provenance;
mod inside;
mod witness;
mod node;
mod order;
mod watch;
mod observations;
mod judge;
mod twice;

use reports::RunRecord;
use witness::Witness;

use crate::scenario::{Scenario, Settings};
use crate::world::trace::Keep;
use crate::world::{Options, Outcome, World};

pub use order::{Choice, Order};
pub use twice::{Course, Divergence, divergence, first_divergence, here};

/// The machine's clock, for the figure of how long a run took.
#[allow(clippy::disallowed_methods, reason = "measures the simulator, which lives in real time")]
pub fn wall_clock() -> std::time::Instant {
    std::time::Instant::now()
}

/// Runs it on a thread of its own and waits.
pub fn run(order: &Order) -> RunRecord {
    let began = wall_clock();
    let (mut outcome, witness) = live(order, Keep::Last(200));
    let plan = order.faults();
    let scenario = &order.scenario.scenario;
    let sightings = sightings(&mut outcome);
    let (marked, stop) = (outcome.marked.take(), outcome.result.as_ref().err().cloned());
    let classes = std::mem::take(&mut outcome.events_by_class);
    // Of those that a swarm draws beside them one may be in the way: there the required probes say whether anything was shown.
    let missed = if scenario.swarm.is_none() { missed(&scenario.faults, &outcome) } else { Vec::new() };
    let mut record = judge::record(order, &plan, outcome, &witness);
    record.events_by_class = classes.into_iter().map(|(class, count)| (class.to_owned(), count)).collect();
    if order.part() == scenario.part.as_deref() {
        record.expected_checker.clone_from(&scenario.expect_checker);
        record.expected_text.clone_from(&scenario.expect_text);
    }
    record.missed_faults = missed;
    watch::explain(&mut record, &sightings, marked.as_ref(), stop.as_ref());
    record.plan_file.clone_from(&order.plan_file);
    record.settings = order.settings();
    record.scenario_text.clone_from(&order.scenario.text);
    record.commit = provenance::commit();
    record.wall_seconds = began.elapsed().as_secs_f64();
    record
}

fn sightings(outcome: &mut Outcome<observations::Observations>) -> Vec<watch::Sighting> {
    let stopped = outcome.explanation.take();
    match &mut outcome.result {
        Ok(story) => std::mem::take(&mut story.sightings),
        Err(_) => stopped
            .into_iter()
            .map(|told| watch::Sighting { why: watch::Why::Stopped, explanation: told })
            .collect(),
    }
}

/// Faults that the scenario lists and that touched nothing. What happens at a moment counts by being carried out:
/// a kill that finds no process has done what it says.
fn missed(listed: &[crate::fault::Fault], outcome: &Outcome<observations::Observations>) -> Vec<String> {
    let simulated = u64::try_from(outcome.simulated.as_nanos()).unwrap_or(u64::MAX);
    let mut unclaimed: Vec<_> = outcome.fault_hits.iter().collect();
    let mut missed = Vec::new();
    for fault in listed {
        // The plan may end it with the safety phase.
        let same = |hits: &&crate::fault::FaultHits| {
            crate::fault::Fault { for_: fault.for_, ..hits.fault.clone() } == *fault
        };
        let Some(at) = unclaimed.iter().position(same) else { continue };
        let hits = unclaimed.remove(at);
        let carried_out = fault.kind.is_moment() && hits.from <= simulated;
        if hits.hits == 0 && !carried_out {
            missed.push(fault.to_string());
        }
    }
    missed
}

fn live(order: &Order, keep: Keep) -> (Outcome<observations::Observations>, Witness) {
    if let Some(part) = order.part() {
        crate::planted::prepare(part);
    }
    let witness = Witness::default();
    let settings = order.settings();
    let options = options(&order.scenario.scenario, &settings, keep);
    let script = observations::Inputs {
        scenario: order.scenario.scenario.clone(),
        seed: order.seed,
        plan: order.faults(),
        settings,
        part: order.part().map(str::to_owned),
        witness: witness.clone(),
    };
    let mut outcome = World::run(order.seed, options, move |world| observations::tell(world, script));
    if let Ok(story) = &outcome.result {
        // What clients saw is part of the course.
        let both = [outcome.trace_hash.to_le_bytes(), digest::of(&story.history).to_le_bytes()].concat();
        outcome.trace_hash = crate::world::trace::digest(&both);
    }
    (outcome, witness)
}

/// What the scenario says of its machines, what the seed drew for the rest, and our own wishes.
fn options(scenario: &Scenario, drawn: &Settings, keep: Keep) -> Options {
    let usual = Options::default();
    let machine = &scenario.machine;
    let number = |key: &str| drawn.get(&format!("machine.{key}")).and_then(|value| value.parse::<u64>().ok());
    let span = |key: &str| drawn.get(&format!("machine.{key}")).and_then(|value| value.parse().ok());
    let threads = || number("runtime_threads").map(|threads| threads as usize);
    let mb_per_s = machine.disk_mb_per_s.or_else(|| number("disk_mb_per_s"));
    let sync: Option<crate::fault::Span> = machine.disk_sync.or_else(|| span("disk_sync"));
    let poll: Option<crate::fault::Span> = machine.poll_time.or_else(|| span("poll_time"));
    let nanos = |span: Option<crate::fault::Span>| span.map(|span| crate::fault::duration::nanos(span.0));
    Options {
        keep,
        marker: Some(crate::workload::payload::MARK),
        runtime_threads: machine.runtime_threads.or_else(threads).unwrap_or(2),
        descriptors: node::descriptors(scenario, drawn),
        disk_capacity: machine.disk_bytes.or_else(|| number("disk_bytes")).unwrap_or(usual.disk_capacity),
        disk_bytes_per_s: mb_per_s.map_or(usual.disk_bytes_per_s, |mb| mb * 1_000_000),
        disk_sync_ns: nanos(sync).unwrap_or(usual.disk_sync_ns),
        poll_ns: nanos(poll).unwrap_or(usual.poll_ns),
        events_max: scenario.events_max(),
        ..usual
    }
}
