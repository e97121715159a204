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
//!
//! The modules stand in layers: each imports only from those before it in this list, which the broker's
//! `tests/architecture.rs` enforces.
//!
//! - `mutex` guards the short critical sections of this crate; [`invariants`] says whether state machines look through
//!   themselves. [`time`] is a node's clock, and the deadline of every
//!   wait on it; a [`task`] is who waits, with its name and the locks it holds; the [`registry`] has every wait and
//!   every operation for as long as it lasts.
//! - The [`disk`] and the [`network`] say what implementations owe to callers; the [`backend`] is all that a node sees
//!   of the outside. A [`stream`] is read and written with a deadline.
//! - How tasks wait for one another: a [`reply`] answers one request, a [`channel`](mod@channel) carries them to the owner
//!   of a state, a [`lock`] may be held across an await, a [`published`] state is read by many, and [`progress`] is a
//!   number that grows.
//! - [`real`] is the implementation for production, and [`conformance`] the suite that any implementation passes.

#![warn(missing_docs, clippy::missing_errors_doc)]

pub(crate) mod mutex;
pub mod invariants;
pub mod time;
pub mod task;
pub mod registry;
pub mod disk;
pub mod network;
pub mod backend;
pub mod stream;
pub mod reply;
pub mod channel;
pub mod lock;
pub mod published;
pub mod progress;
pub mod real;
pub mod conformance;
#[cfg(test)]
mod testing;

pub use backend::{Backend, DedicatedLoop, ExitStatus, Interference, SyncPoint};
pub use channel::{Receiver, Sender, channel};
pub use disk::{DedicatedDisk, DedicatedFile, Disk, DiskError, File, OpenHow};
pub use lock::Lock;
pub use network::{Listener, Network};
pub use published::Published;
pub use registry::{Registry, WaitKind};
pub use reply::{Replier, Reply};
pub use task::{Level, TaskHandle, TaskName};
pub use time::{Clock, Deadline, Moment, TimedOut, within};
