//! Machines: what outlives the processes that run on them.
//!
//! A machine keeps its name, clocks and disk; a process is one start of a program on it and loses
//! everything but what is on the disk. At most one process per machine.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use futures::future::BoxFuture;
use io_backend::{ExitStatus, TaskName};

use super::backend::SimBackend;
use super::clock::ClockView;
use super::disk::Device;
use super::lock;
use super::process::{Cause, Process, ProcessCounts};
use super::tasks;
use super::trace::{Event, What};
use super::universe::Universe;

/// So often a supervisor doubles its pause.
const FAILED_STARTS_DOUBLE: u32 = 4;

/// What a machine runs: called at each start with the new process's backend.
pub type Program = Arc<dyn Fn(SimBackend) -> BoxFuture<'static, ()> + Send + Sync>;

pub struct Machine {
    pub name: Arc<str>,
    pub disk: Arc<Device>,
    pub(super) clock: Mutex<ClockView>,
    universe: Arc<Universe>,
    program: Mutex<Option<Program>>,
    process: Mutex<Option<Arc<Process>>>,
    starts: AtomicU64,
    /// Pauses in force.
    pauses: AtomicU32,
    powered: AtomicBool,
    /// Nanoseconds after which a supervisor starts an ended process again.
    supervised: Mutex<Option<u64>>,
    /// Processes in a row that ended by themselves before they served.
    failed_starts: AtomicU32,
    waiting_for_change: Mutex<Vec<Waker>>,
    peaks: Mutex<Peaks>,
}

/// The most that one process of a machine had, of those that have ended.
#[derive(Clone, Copy, Default)]
pub(super) struct Peaks {
    pub(super) memory: u64,
    pub(super) sockets: u64,
}

impl Machine {
    pub(super) fn new(universe: &Arc<Universe>, name: &str) -> Arc<Machine> {
        let name: Arc<str> = Arc::from(name);
        Arc::new(Machine {
            disk: Device::new(universe, name.clone()),
            name,
            clock: Mutex::default(),
            universe: universe.clone(),
            program: Mutex::default(),
            process: Mutex::default(),
            starts: AtomicU64::new(0),
            pauses: AtomicU32::new(0),
            powered: AtomicBool::new(true),
            supervised: Mutex::default(),
            failed_starts: AtomicU32::new(0),
            waiting_for_change: Mutex::default(),
            peaks: Mutex::default(),
        })
    }

    /// Lets go of what leads back to it. Clients' processes never end by themselves.
    pub(super) fn dissolve(&self) {
        let process = lock(&self.process).take();
        if let Some(process) = &process {
            process.dissolve();
        }
        drop((process, lock(&self.program).take(), std::mem::take(&mut *lock(&self.waiting_for_change))));
        self.disk.dissolve();
    }

    pub fn universe(&self) -> &Arc<Universe> {
        &self.universe
    }

    /// The running process.
    pub fn process(&self) -> Option<Arc<Process>> {
        lock(&self.process).clone()
    }

    pub(super) fn peaks(&self) -> Peaks {
        *lock(&self.peaks)
    }

    /// A process ends: what it had at most is remembered.
    pub(super) fn keep_peaks(&self, counts: ProcessCounts) {
        *lock(&self.peaks) = Peaks { memory: counts.memory_peak, sockets: counts.sockets_peak };
    }

    pub fn is_powered(&self) -> bool {
        self.powered.load(Ordering::Relaxed)
    }

    pub(super) fn local_now(&self) -> u64 {
        lock(&self.clock).local(self.universe.now())
    }

    pub fn set_program(&self, program: Program) {
        *lock(&self.program) = Some(program);
    }

    pub fn supervise(&self, restart_after_ns: Option<u64>) {
        *lock(&self.supervised) = restart_after_ns;
    }

    /// Starts a process with no program of its own (a client's).
    pub(super) fn start_bare(self: &Arc<Machine>) -> SimBackend {
        self.powered.store(true, Ordering::Relaxed);
        let incarnation = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        let process = Process::new(self, incarnation);
        *lock(&self.process) = Some(process.clone());
        self.universe.event(
            Event::new(What::ProcessStart).numbers(process.number, incarnation).named(self.name.clone()),
        );
        SimBackend::new(process)
    }

    /// Starts the program if it is not running. False without a program or when one runs.
    pub fn start(self: &Arc<Machine>) -> bool {
        let Some(program) = lock(&self.program).clone() else {
            return false;
        };
        if self.process().is_some() {
            return false;
        }
        let backend = self.start_bare();
        let process = backend.process().clone();
        self.universe.network.machine_changed(&self.universe, &self.name);
        let main = process.clone();
        let future = async move {
            program(backend).await;
            main.end_soon(Cause::Exited(ExitStatus::Clean, "returned".to_owned()));
        };
        let runtime = process.runtime.clone();
        drop(tasks::spawn(&process, &runtime, TaskName::from("main"), future));
        self.changed();
        true
    }

    /// `kill -9`; does nothing when no process runs.
    pub fn kill(self: &Arc<Machine>) -> bool {
        match self.process() {
            Some(process) => {
                process.end_now(Cause::Killed);
                true
            }
            None => false,
        }
    }

    /// The machine loses power: its process vanishes without a word to anyone, its disk keeps what was
    /// synced and some of the rest.
    pub fn power_loss(self: &Arc<Machine>) {
        self.universe.event(Event::new(What::PowerLoss).named(self.name.clone()));
        self.powered.store(false, Ordering::Relaxed);
        if let Some(process) = self.process() {
            process.vanished.store(true, Ordering::Relaxed);
            process.finish(Cause::PowerLost);
        }
        self.disk.power_loss();
    }

    pub fn power_on(self: &Arc<Machine>) {
        self.powered.store(true, Ordering::Relaxed);
        self.universe.network.machine_changed(&self.universe, &self.name);
    }

    pub(super) fn pause(&self) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn resume(&self) {
        if self.pauses.fetch_sub(1, Ordering::Relaxed) == 1
            && let Some(process) = self.process()
        {
            process.catch_up();
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pauses.load(Ordering::Relaxed) > 0
    }

    /// Registers for the next start or end of a process.
    pub(super) fn watch(&self, waker: &Waker) {
        lock(&self.waiting_for_change).push(waker.clone());
    }

    fn changed(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting_for_change));
        for waker in waiting {
            waker.wake();
        }
    }

    /// The process of that number runs no more.
    pub(super) fn process_ended(&self, number: u64) {
        let mut running = lock(&self.process);
        if running.as_ref().is_some_and(|process| process.number == number) {
            let ended = running.take();
            drop(running);
            drop(ended);
        }
    }

    /// Tells who waits, and the supervisor. One whose process ends again and again before it serves waits longer and
    /// longer.
    pub(super) fn after_end(self: &Arc<Machine>, cause: &Cause, served: bool) {
        if served {
            self.failed_starts.store(0, Ordering::Relaxed);
        }
        if let (Cause::Exited(..), Some(after)) = (cause, *lock(&self.supervised)) {
            let failed = self.failed_starts.fetch_add(1, Ordering::Relaxed);
            let machine = self.clone();
            self.universe.act_in(after << failed.min(FAILED_STARTS_DOUBLE), move |_| {
                machine.start();
            });
        }
        self.changed();
    }
}
