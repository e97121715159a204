//! The simulated disk, seen from a process.
//!
//! Operations begin at their first poll and go on in the [`device`] whoever waits; waits have deadlines and
//! entries in the registry like on any other backend. The dedicated loop's disk is the same disk.

mod pages;
mod file;
mod names;
mod image;
mod markers;
mod operation;
mod device;
mod perform;
mod view;

pub use device::{Device, DeviceCounts, JournalFailure};
pub use markers::MarkerTimes;
pub use operation::SyncRecord;
pub use pages::Pages;
pub use view::{SimDedicatedDisk, SimDedicatedFile, SimDisk, SimFile, SkippedSyncs};
