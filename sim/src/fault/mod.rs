//! Faults: what a plan says will break, where and for how long.
//!
//! A [`Fault`] is plain data that reads well in TOML; a [`FaultPlan`] is what a seed drew, recorded and
//! replayed as it is. The world carries faults out and counts a hit for every operation, message, poll
//! or acquisition that one of them touched, since a fault that never hit anything has shown nothing.

pub mod duration;
pub mod model;
pub mod select;

pub use duration::{Extent, Offset, Span};
pub use model::{Family, Fault, FaultError, FaultKind, FaultPlan};
pub use select::{Link, NodeRef, Operation, PathClass, PathSelector};
