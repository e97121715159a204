//! A simulated kernel: machines with disks, clocks and a network between them, all of one seed.
//!
//! [`World::run`] builds one on a fresh OS thread and runs a future in it that starts programs, injects
//! faults and judges. madsim gives the executor and its random choice of who runs next; disk, network, clocks,
//! timers, tasks and processes are ours. Nothing here reads real time, the environment or the
//! machine, except the `guard`, which only ends runs that would never end.
//!
//! The modules stand in layers: each imports only from those before it in this list, which the broker's
//! `tests/architecture.rs` enforces.
//!
//! - Of the thread: `mutex` guards, `alloc` accounts for memory, `getrandom` answers those who ask the system for
//!   randomness, `panics` are kept, the `guard` looks at real time.
//! - Pure parts: the `clock` that a machine shows, `descriptors` and `permits` of a process, its groups of
//!   `threads`, `timers` in order, the [`trace`] of all that happens, `spins` of a run that does not end, the
//!   `ending` of a process; a [`snapshot`] says who waits for what, [`waits`] why, and the `outcome` is what is left.
//! - The `kernel` is the kernel: time, faults, trace, and no machine. [`logs`] show its time.
//! - A `host` has a name and a clock; a `task` runs in a `process` on it, with the host's clock as its `timer`. The
//!   `disk` and the `network` are what it sees of the outside.
//! - The `runner` polls tasks, the `backend` is what a program is given. `observe` takes snapshots.
//! - A `machine` is a host with a disk and a program; the `machines` are all of them, and `inject` does to them
//!   what faults do.
//! - The `handle` is how a world is driven, and `run` drives its time.

mod mutex;
mod alloc;
mod getrandom;
mod panics;
mod guard;
mod clock;
mod descriptors;
mod permits;
mod threads;
mod timers;
pub mod trace;
mod spins;
mod ending;
pub mod snapshot;
pub mod waits;
mod outcome;
mod kernel;
pub mod logs;
mod host;
mod task;
mod process;
mod timer;
mod disk;
mod network;
mod runner;
mod backend;
mod observe;
mod machine;
mod machines;
mod inject;
mod handle;
mod run;

pub use backend::SimBackend;
pub use disk::{
    Device, DeviceCounts, JournalFailure, MarkerTimes, Pages, SimDedicatedDisk, SimDedicatedFile, SimDisk,
    SimFile, SkippedSyncs, SyncRecord,
};
pub use ending::{Cause, Ending};
pub use handle::{MachineHandle, World};
pub use host::Host;
pub use kernel::Kernel;
pub use machine::{Machine, Program};
pub(crate) use mutex::lock;
pub use network::{NetworkCounts, Rewrite, Rewrites, SimListener, SimNetwork, SimStream};
pub use outcome::{Options, Outcome, Stop};
pub use process::{Process, ProcessCounts};
pub use spins::Spinner;
pub use timer::{SimClock, SimTimer};

#[cfg(test)]
mod tests;
