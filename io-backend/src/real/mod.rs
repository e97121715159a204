//! The production backend: tokio for tasks, timers and sockets, and one of two disks.
//!
//! The only place of the node that touches the operating system. `unsafe` is confined to `system` and `memory` (calls
//! that std does not offer) and to `ring` (descriptors shared with the ring thread).
//! Invariants: a buffer or descriptor that the kernel may still use is owned until the operation is
//! done, whoever stopped waiting; no I/O error panics.
//!
//! In layers: `system` calls that std does not offer, `log_lines` to standard error, `memory` to give back, the `kind`s of disk, `sockets` to shut down, the
//! `closer` of files, the `core` that all share, the `ring`'s thread, files that are written to `direct`ly, `dedicated` loops, the `disk`, the trial that
//! `choose`s between the kinds, the `network`; this file makes a backend of them.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the one place where a node's backend meets the operating system"
)]

mod system;
pub mod log_lines;
mod memory;
mod kind;
mod sockets;
mod closer;
mod core;
mod ring;
mod direct;
mod dedicated;
mod disk;
mod choose;
mod network;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use choose::DiskReport;
pub use dedicated::{RealDedicatedDisk, RealDedicatedFile};
pub use disk::{RealDisk, RealFile};
pub use kind::{DiskChoice, DiskKind};
pub use memory::MemoryReturn;
pub use network::{RealListener, RealNetwork, RealStream};
pub use system::{exit_after, exit_now, raise_descriptor_limit};

use crate::backend::{Backend, DedicatedLoop, ExitStatus};
use crate::registry::Registry;
use crate::task::{Named, TaskHandle, TaskName};
use crate::time::{Clock, Moment};

use self::core::Core;

/// For the runtime that a node runs on: a thread for every disk operation that may hang, and some for those that compute.
pub const BLOCKING_THREADS_MAX: usize = crate::disk::OPERATIONS_MAX + 56;

/// Why a process ends is written within this, or not at all.
pub const SAID_WITHIN: Duration = Duration::from_millis(200);

/// A node's handle to the machine it runs on.
#[derive(Clone)]
pub struct RealBackend {
    parts: Arc<Parts>,
}

struct Parts {
    core: Arc<Core>,
    disk: RealDisk,
    network: RealNetwork,
}

impl RealBackend {
    /// Call it inside the tokio runtime that is to run the node. Makes `data_dir` when it is missing and
    /// measures the disk there, which blocks the calling thread for some tenths of a second.
    ///
    /// # Errors
    /// Without a runtime, when the directory cannot be made or written, or when the chosen disk is not
    /// available here.
    pub fn start(choice: DiskChoice, data_dir: &Path) -> io::Result<(RealBackend, DiskReport)> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let core = Core::new(runtime);
        let report = choose::choose(&core, choice, data_dir)?;
        Ok((RealBackend::on(core, report.chosen)?, report))
    }

    /// Takes this disk, whatever it is worth here. Like [`start`](Self::start) to be called inside a runtime.
    ///
    /// # Errors
    /// Without a runtime; `Unsupported` with the reason where io_uring is asked for and refused.
    pub fn with_disk(kind: DiskKind) -> io::Result<RealBackend> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        if kind == DiskKind::Uring
            && let Some(reason) = ring::refused()
        {
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        RealBackend::on(Core::new(runtime), kind)
    }

    fn on(core: Arc<Core>, kind: DiskKind) -> io::Result<RealBackend> {
        let disk = RealDisk::new(core.clone(), kind)?;
        let network = RealNetwork::new(core.clone());
        Ok(RealBackend { parts: Arc::new(Parts { core, disk, network }) })
    }
}

impl Clock for RealBackend {
    type Timer = tokio::time::Sleep;

    fn now(&self) -> Moment {
        self.parts.core.now()
    }

    fn timer(&self, at: Moment) -> tokio::time::Sleep {
        self.parts.core.inside(|| tokio::time::sleep_until(self.parts.core.instant(at)))
    }
}

impl Backend for RealBackend {
    type Disk = RealDisk;
    type Network = RealNetwork;

    fn disk(&self) -> &RealDisk {
        &self.parts.disk
    }

    fn network(&self) -> &RealNetwork {
        &self.parts.network
    }

    fn wall_ms(&self) -> i64 {
        let now = SystemTime::now();
        let ms = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        match now.duration_since(UNIX_EPOCH) {
            Ok(after) => ms(after),
            Err(before) => -ms(before.duration()),
        }
    }

    fn random_u64(&self) -> u64 {
        rand::random()
    }

    fn registry(&self) -> &Arc<Registry> {
        &self.parts.core.registry
    }

    fn spawn<F>(&self, name: impl Into<TaskName>, future: F) -> TaskHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let core = &self.parts.core;
        let task = core.tasks.next(name.into());
        let abort = core.runtime.spawn(Named::new(task, future)).abort_handle();
        let finished = abort.clone();
        TaskHandle::new(move || abort.abort(), move || finished.is_finished())
    }

    fn spawn_dedicated<L: DedicatedLoop<Self>>(&self, name: impl Into<TaskName>, body: L) -> TaskHandle {
        let kind = self.parts.disk.kind();
        dedicated::spawn(&self.parts.core, kind, name.into(), move |disk| body.run(disk))
    }

    fn exit(&self, status: ExitStatus, why: &str) {
        tracing::error!(status = status as i32, "the process ends: {why}");
        self.parts.core.sockets.close_all();
        log_lines::flush(SAID_WITHIN);
        system::exit_now(status as i32);
    }
}

#[cfg(test)]
mod tests;
