//! A host: what of a machine everything that runs on it can see.
//!
//! Its name, its clock and whether it has power outlive the processes that run on it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::clock::ClockView;
use super::kernel::Kernel;
use super::lock;

pub struct Host {
    pub name: Arc<str>,
    pub(super) clock: Mutex<ClockView>,
    kernel: Arc<Kernel>,
    /// Pauses in force.
    pauses: AtomicU32,
    powered: AtomicBool,
    peaks: Mutex<Peaks>,
}

/// The most that one process of a host had, of those that have ended.
#[derive(Clone, Copy, Default)]
pub(super) struct Peaks {
    pub(super) memory: u64,
    pub(super) sockets: u64,
}

impl Host {
    pub(super) fn new(kernel: &Arc<Kernel>, name: &str) -> Arc<Host> {
        Arc::new(Host {
            name: Arc::from(name),
            clock: Mutex::default(),
            kernel: kernel.clone(),
            pauses: AtomicU32::new(0),
            powered: AtomicBool::new(true),
            peaks: Mutex::default(),
        })
    }

    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    pub(super) fn local_now(&self) -> u64 {
        lock(&self.clock).local(self.kernel.now())
    }

    pub fn is_powered(&self) -> bool {
        self.powered.load(Ordering::Relaxed)
    }

    pub(super) fn set_powered(&self, powered: bool) {
        self.powered.store(powered, Ordering::Relaxed);
    }

    pub(super) fn pause(&self) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
    }

    /// True when that was the last pause in force.
    pub(super) fn resume(&self) -> bool {
        self.pauses.fetch_sub(1, Ordering::Relaxed) == 1
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pauses.load(Ordering::Relaxed) > 0
    }

    pub(super) fn peaks(&self) -> Peaks {
        *lock(&self.peaks)
    }

    /// A process ends: what it had at most is remembered.
    pub(super) fn keep_peaks(&self, peaks: Peaks) {
        *lock(&self.peaks) = peaks;
    }
}
