//! One run: a seed becomes a plan, a world, a cluster with its load, and a record of what came of it.
//!
//! Everything that decides the course of a run is in its [`Order`]. The machine it runs on shows only in the
//! wall-clock figure of the record.

mod excuses;
mod judge;
pub(crate) mod node;
mod story;

use reports::{RunRecord, Verdict};

use crate::fault::FaultPlan;
use crate::plan;
use crate::scenario::ShelvedScenario;
use crate::world::trace::Keep;
use crate::world::{Options, World};

/// Whose code stands behind the handles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The scenario's part, if it names one.
    AsTheScenarioSays,
    Production,
    Part(String),
}

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub scenario: ShelvedScenario,
    pub seed: u64,
    pub choice: Choice,
    /// Instead of the plan that the seed draws.
    pub plan: Option<FaultPlan>,
}

impl Order {
    pub fn new(scenario: ShelvedScenario, seed: u64) -> Order {
        Order { scenario, seed, choice: Choice::AsTheScenarioSays, plan: None }
    }

    /// The part that is put in, if any.
    pub fn part(&self) -> Option<&str> {
        match &self.choice {
            Choice::AsTheScenarioSays => self.scenario.scenario.part.as_deref(),
            Choice::Production => None,
            Choice::Part(part) => Some(part),
        }
    }

    /// The scenario's expectation is about its own part: with another, or with none, all should be well.
    pub fn expected(&self) -> Verdict {
        let scenario = &self.scenario.scenario;
        if self.part() == scenario.part.as_deref() { scenario.expect } else { Verdict::Pass }
    }

    pub fn faults(&self) -> FaultPlan {
        match &self.plan {
            Some(plan) => plan.clone(),
            None => plan::plan(&self.scenario.scenario, self.seed),
        }
    }
}

/// The machine's clock, for the figure of how long a run took.
#[allow(clippy::disallowed_methods, reason = "measures the simulator, which lives in real time")]
pub fn wall_clock() -> std::time::Instant {
    std::time::Instant::now()
}

/// Runs it on a thread of its own and waits.
pub fn run(order: &Order) -> RunRecord {
    let began = wall_clock();
    let (plan, outcome) = live(order, Keep::Last(200));
    let mut record = judge::record(order, &plan, outcome);
    record.wall_seconds = began.elapsed().as_secs_f64();
    record
}

/// All events of a run as text, in order: to find where two runs part.
pub fn traced(order: &Order) -> Vec<String> {
    let (_, outcome) = live(order, Keep::All);
    outcome.last_events.iter().map(ToString::to_string).collect()
}

fn live(order: &Order, keep: Keep) -> (FaultPlan, crate::world::Outcome<story::Story>) {
    let plan = order.faults();
    let options = options(&order.scenario.scenario, keep);
    let script = story::Script {
        scenario: order.scenario.scenario.clone(),
        seed: order.seed,
        plan: plan.clone(),
        part: order.part().map(str::to_owned),
    };
    let outcome = World::run(order.seed, options, move |world| story::tell(world, script));
    (plan, outcome)
}

/// What the scenario says of its machines, and our own wishes.
fn options(scenario: &crate::scenario::Scenario, keep: Keep) -> Options {
    let usual = Options::default();
    let machine = &scenario.machine;
    Options {
        keep,
        marker: Some(crate::workload::payload::MARK),
        runtime_threads: machine.runtime_threads.unwrap_or(2),
        descriptors: machine.descriptors.unwrap_or(usual.descriptors),
        disk_capacity: machine.disk_bytes.unwrap_or(usual.disk_capacity),
        disk_bytes_per_s: machine.disk_mb_per_s.map_or(usual.disk_bytes_per_s, |mb| mb * 1_000_000),
        disk_sync_ns: machine
            .disk_sync
            .map_or(usual.disk_sync_ns, |span| crate::fault::duration::nanos(span.0)),
        ..usual
    }
}
