//! Scenarios: what is run, under which load, what breaks and what is expected to come of it.
//!
//! [`model`] is the file's form, [`load`] reads it and says where a mistake is, [`shelf`] finds files by name.
//! Everything is checked at loading, so a run never fails for a typo.

pub mod load;
pub mod model;
pub mod shelf;

pub use load::{ScenarioError, parse};
pub use model::{
    AckMode, Budget, Cluster, Compression, Hostile, Liveness, MachineLimits, OneOrMore, Probes, Scenario,
    Swarm, Workload,
};
pub use shelf::{Shelf, ShelfError, ShelvedScenario};
