//! From a seed to the concrete faults of a run.
//!
//! The plan depends on the scenario and the seed, drawn from a stream of its own: never on the part that is
//! run, nor on anything that happens in the run. So a defect and its cure meet exactly the same faults.
//! On one node nothing that destroys acknowledged data is drawn, since no copy would be left to recover from, unless
//! the scenario says that its checkers can judge what a node makes of damage (`corrupting`). Of several nodes it is one that
//! loses data.

mod swarm_mix;
mod draw;

use std::time::Duration;

use crate::fault::{Extent, Fault, FaultPlan, NodeRef, Span};
use crate::scenario::Scenario;
use crate::streams::Stream;

/// The faults of this seed: those that the scenario lists, then those that its swarm draws.
pub fn plan(scenario: &Scenario, seed: u64) -> FaultPlan {
    let mut faults = scenario.faults.clone();
    if let Some(swarm) = &scenario.swarm {
        let mut stream = Stream::new(seed, "plan");
        let swarm_mix = swarm_mix::SwarmMix::draw(swarm, scenario.cluster.nodes, &mut stream);
        let (fewest, most) = swarm.faults;
        let count = stream.between(u64::from(fewest), u64::from(most));
        let place = draw::Place {
            nodes: scenario.cluster.nodes,
            partitions: u64::try_from(scenario.cluster.partitions).unwrap_or(1),
            duration: scenario.duration(),
            longest: swarm.longest.0,
        };
        for _ in 0..count {
            let Some(kind) = swarm_mix.kind(&mut stream) else { break };
            draw::fault(kind, &place, &mut stream, &mut faults);
        }
        if swarm.at_deletions {
            let mut stream = Stream::new(seed, "plan deletions");
            for _ in 0..stream.between(1, 4) {
                draw::at_a_deletion(&place, &mut stream, &mut faults);
            }
        }
        if swarm.at_cleanings {
            let mut stream = Stream::new(seed, "plan cleanings");
            for _ in 0..stream.between(1, 4) {
                draw::at_a_cleaning(&place, &mut stream, &mut faults);
            }
        }
        keep_to_one_victim(&mut faults, scenario.cluster.nodes, seed);
        faults.sort_by_key(|fault| fault.at);
    }
    for fault in &mut faults {
        end_with_the_safety_phase(fault, scenario.duration());
    }
    FaultPlan { faults }
}

/// What destroys data happens to one node of several, whichever: two copies of three may hold all that is acknowledged.
fn keep_to_one_victim(faults: &mut [Fault], nodes: u32, seed: u64) {
    if nodes == 1 {
        return;
    }
    let victim = Stream::new(seed, "plan victim").between(1, u64::from(nodes));
    for fault in faults.iter_mut().filter(|fault| fault.kind.destroys_data()) {
        fault.node = u32::try_from(victim).ok().map(NodeRef::from);
    }
}

/// The liveness phase begins on a healed system: on one node, whatever is broken is part of the core.
/// Only what nothing may depend on lasts: a few operations that never complete. A fault that waits for a state may
/// begin late; healing ends it at run time, or keeps it from beginning.
fn end_with_the_safety_phase(fault: &mut Fault, duration: Duration) {
    if fault.outlives_the_healing() {
        return;
    }
    if fault.kind.is_moment() && matches!(fault.for_, Extent::Forever) {
        return;
    }
    let left = duration.saturating_sub(fault.at.0);
    let length = match fault.for_ {
        Extent::For(length) => length.min(left),
        Extent::Forever => left,
    };
    fault.for_ = Extent::For(length);
}

/// A plan as TOML or JSON, as `--plan` takes it and records hold it.
pub fn read(text: &str) -> Result<FaultPlan, String> {
    let plan: FaultPlan = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else {
        toml::from_str(text).map_err(|error| error.to_string())?
    };
    for fault in &plan.faults {
        fault.check().map_err(|error| error.to_string())?;
    }
    Ok(plan)
}

/// For scenarios and tests that put a fault together by hand.
pub fn window(fault: Fault, at: Span, length: Span) -> Fault {
    fault.window(at.0, length.0)
}

#[cfg(test)]
mod tests;
