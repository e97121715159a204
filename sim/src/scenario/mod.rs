//! Scenarios: what is run, under which load, what breaks and what is expected to come of it.
//!
//! [`model`] is the file's form, [`load`] reads it and says where a mistake is, [`scenario_dir`] finds files by name,
//! [`knobs`] draws what a seed has of settings.
//! Everything is checked at loading, so a run never fails for a typo.

mod dotted;
pub mod knobs;
pub mod model;
pub mod load;
pub mod scenario_dir;

pub use knobs::{Knobs, NODES, Settings};
pub use load::{ScenarioError, parse};
pub use model::{
    Cluster, Compacted, Compression, GroupProtocol, Hostile, Liveness, MachineLimits, OneOrMore, Probes,
    Scenario, Swarm, Workload,
};
pub use scenario_dir::{ScenarioDir, ShelfError, ShelvedScenario};
