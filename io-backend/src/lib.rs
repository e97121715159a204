//! The seams of Chronik: everything outside the process stands behind [`Backend`].
//!
//! A node sees its disk, its network, its clocks, its randomness, its tasks and the ways tasks
//! wait for one another only through this crate. There is one implementation for production
//! ([`real`]); any other one is held to the same contracts by the [`conformance`] suite.
//!
//! Two rules hold everywhere: **every wait is named and has a deadline** (or says with
//! [`Deadline::Unbounded`] why it has none), and **every wait is an entry in the
//! [`registry::Registry`]** for as long as it lasts, so that a process that stands still can always be
//! asked what it stands on.

pub mod backend;
pub mod channel;
pub mod conformance;
pub mod disk;
pub mod lock;
pub mod network;
pub mod progress;
pub mod published;
pub mod real;
pub mod registry;
pub mod reply;
pub mod task;
#[cfg(test)]
mod testing;
pub mod time;

pub use backend::{Backend, DedicatedLoop, ExitStatus, Pressure, Seam};
pub use channel::{Receiver, Replier, Reply, Sender, channel};
pub use disk::{DedicatedDisk, DedicatedFile, Disk, DiskError, File, OpenHow};
pub use lock::{Level, Lock};
pub use network::{Listener, Network};
pub use published::Published;
pub use registry::{Registry, WaitKind};
pub use task::{TaskHandle, TaskName};
pub use time::{Deadline, Moment, TimedOut, within};
