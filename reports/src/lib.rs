//! What a simulation leaves behind: the run record, and what renders it.
//!
//! The records are plain serialisable data with a version ([`record`], [`sweep`]); [`status`] turns them into
//! the exit status that CI acts on; [`render`] makes terminal text, JUnit XML and self-contained HTML of them.
//! Nothing here runs anything, and nothing of ours is needed to read a record. A module imports only from those before it.

pub mod record;
pub mod status;
pub mod sweep;
pub mod render;

pub use record::{
    BudgetFigure, FaultHit, Hash64, ReadError, RunRecord, Standstill, VERSION, Verdict, Violation,
};
pub use status::{Shortfall, Status};
pub use sweep::{ScenarioSummary, SweepRecord};
