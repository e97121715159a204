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
use super::disk::Device;
use super::ending::{Cause, Ending};
use super::host::Host;
use super::kernel::Kernel;
use super::lock;
use super::network::{Network, NetworkCounts};
use super::observe::observe;
use super::process::{Keeper, Process};
use super::runner;
use super::snapshot::ProcessSnapshot;
use super::trace::{Event, What};

/// So often a supervisor doubles its pause.
const FAILED_STARTS_DOUBLE: u32 = 4;

/// What a machine runs: called at each start with the new process's backend.
pub type Program = Arc<dyn Fn(SimBackend) -> BoxFuture<'static, ()> + Send + Sync>;

pub struct Machine {
    pub host: Arc<Host>,
    pub disk: Arc<Device>,
    network: Arc<Network>,
    /// How processes ended so far, those of other machines included.
    endings: Arc<Mutex<Vec<Ending>>>,
    program: Mutex<Option<Program>>,
    process: Mutex<Option<Arc<Process>>>,
    starts: AtomicU64,
    /// Nanoseconds after which a supervisor starts an ended process again.
    supervised: Mutex<Option<u64>>,
    /// No fault starts it again.
    retired: AtomicBool,
    /// Processes in a row that ended by themselves before they served.
    failed_starts: AtomicU32,
    waiting_for_change: Mutex<Vec<Waker>>,
}

impl Machine {
    pub(super) fn new(
        host: Arc<Host>,
        network: &Arc<Network>,
        endings: &Arc<Mutex<Vec<Ending>>>,
    ) -> Arc<Machine> {
        Arc::new(Machine {
            disk: Device::new(host.kernel(), host.name.clone()),
            host,
            network: network.clone(),
            endings: endings.clone(),
            program: Mutex::default(),
            process: Mutex::default(),
            starts: AtomicU64::new(0),
            supervised: Mutex::default(),
            retired: AtomicBool::new(false),
            failed_starts: AtomicU32::new(0),
            waiting_for_change: Mutex::default(),
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

    pub fn kernel(&self) -> &Arc<Kernel> {
        self.host.kernel()
    }

    /// The running process.
    pub fn process(&self) -> Option<Arc<Process>> {
        lock(&self.process).clone()
    }

    /// The backend of a process of this machine.
    pub(super) fn backend_of(&self, process: Arc<Process>) -> SimBackend {
        SimBackend::new(process, &self.disk, &self.network)
    }

    pub(super) fn connections(&self) -> NetworkCounts {
        self.network.counts(&self.host.name)
    }

    /// Who waits for what in the running process.
    pub(super) fn snapshot(&self) -> Option<ProcessSnapshot> {
        self.process().map(|process| observe(&process, &self.disk))
    }

    pub fn set_program(&self, program: Program) {
        *lock(&self.program) = Some(program);
    }

    pub fn supervise(&self, restart_after_ns: Option<u64>) {
        *lock(&self.supervised) = restart_after_ns;
    }

    /// From here on nothing starts it again but who asks for it.
    pub fn retire(&self) {
        self.supervise(None);
        self.retired.store(true, Ordering::Relaxed);
    }

    /// After a fault that ended it.
    pub(super) fn start_after_fault(self: &Arc<Machine>) {
        if !self.retired.load(Ordering::Relaxed) {
            self.power_on();
            self.start();
        }
    }

    /// Starts a process with no program of its own (a client's).
    pub(super) fn start_bare(self: &Arc<Machine>) -> SimBackend {
        self.host.set_powered(true);
        let incarnation = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        let process = Process::new(&self.host, self.clone(), incarnation);
        *lock(&self.process) = Some(process.clone());
        self.kernel().event(
            Event::new(What::ProcessStart).numbers(process.number, incarnation).named(self.host.name.clone()),
        );
        self.backend_of(process)
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
        self.network.machine_changed(&self.host.name);
        let main = process.clone();
        let future = async move {
            program(backend).await;
            main.end_soon(Cause::Exited(ExitStatus::Clean, "returned".to_owned()));
        };
        let runtime = process.runtime.clone();
        drop(runner::spawn(&process, &runtime, TaskName::from("main"), future));
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
        self.kernel().event(Event::new(What::PowerLoss).named(self.host.name.clone()));
        self.host.set_powered(false);
        if let Some(process) = self.process() {
            process.vanished.store(true, Ordering::Relaxed);
            process.finish(Cause::PowerLost);
        }
        self.disk.power_loss();
    }

    pub fn power_on(self: &Arc<Machine>) {
        self.host.set_powered(true);
        self.network.machine_changed(&self.host.name);
    }

    pub(super) fn resume(&self) {
        if self.host.resume()
            && let Some(process) = self.process()
        {
            process.catch_up();
        }
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

    /// Tells who waits, and the supervisor. One whose process ends again and again before it serves waits longer and
    /// longer.
    fn after_end(self: &Arc<Machine>, cause: &Cause, served: bool) {
        if served {
            self.failed_starts.store(0, Ordering::Relaxed);
        }
        if let (Cause::Exited(..), Some(after)) = (cause, *lock(&self.supervised)) {
            let failed = self.failed_starts.fetch_add(1, Ordering::Relaxed);
            let machine = self.clone();
            self.kernel().act_in(after << failed.min(FAILED_STARTS_DOUBLE), move || {
                machine.start();
            });
        }
        self.changed();
    }
}

impl Keeper for Machine {
    fn let_go(self: Arc<Self>, process: &Arc<Process>, cause: Cause) {
        let ended = lock(&self.process).take_if(|running| running.number == process.number);
        drop(ended);
        self.disk.process_ended(process.number);
        process.kill_all();
        self.network.process_ended(process);
        lock(&self.endings).push(Ending {
            machine: self.host.name.to_string(),
            incarnation: process.incarnation,
            at: self.kernel().now(),
            cause: cause.clone(),
        });
        self.after_end(&cause, process.is_serving());
    }
}
