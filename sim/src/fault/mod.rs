//! Faults: what a plan says will break, where and for how long.
//!
//! A [`Fault`] is plain data that reads well in TOML; a [`FaultPlan`] is what a seed drew, recorded and
//! replayed as it is. The family files ([`disk`], [`network`], [`task`], [`sync_point`]) decide what the faults in
//! force do to one operation, segment, poll or acquisition; they know no clock and no world. The world
//! carries their decisions out, and process and clock faults itself. Every touch counts as a hit,
//! since a fault that never hit anything has shown nothing.

pub mod duration;
pub mod select;
pub mod trigger;
pub mod model;
pub mod active;
pub mod disk;
pub mod network;
pub mod process;
pub mod sync_point;
pub mod task;

pub use active::{ActiveFaults, FaultHits, FaultId};
pub use duration::{Extent, Offset, Span};
pub use model::{Family, Fault, FaultError, FaultKind, FaultPlan};
pub use select::{Link, NodeRef, Operation, PathClass, PathSelector};
pub use trigger::{Occasion, When};
