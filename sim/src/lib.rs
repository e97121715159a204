//! The testbed: the broker's own code in a simulated universe that is broken on purpose.

pub mod checker;
pub mod fault;
pub mod history;
pub mod museum;
pub mod plan;
pub mod planted;
pub mod probe;
pub mod run;
pub mod scenario;
pub mod workload;
pub mod world;
