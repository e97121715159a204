//! Processes: one start of a program on a machine, with its registry, tasks and threads.
//!
//! A process ends at once, all its tasks with it, or, when it is beyond killing, stands still with its
//! connections open until it can end. What it did is counted for budgets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use io_backend::Moment;
use io_backend::disk::DiskClass;
use io_backend::registry::{Entry, Observer, Registry};

use super::alloc::{self, Account};
use super::descriptors::Descriptors;
use super::ending::Cause;
use super::host::{Host, Peaks};
use super::kernel::Kernel;
use super::lock;
use super::permits::Permits;
use super::task::Task;
use super::threads::SimThread;
use super::trace::{Event, What};
use crate::fault;
use crate::streams::Stream;

/// Counts of what a process did, for budgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessCounts {
    pub polls: u64,
    pub wakes: u64,
    pub tasks: u64,
    /// Bytes that the process has allocated now, and that one of this machine had at most so far.
    pub memory: u64,
    pub memory_peak: u64,
    /// Descriptors open now: files and sockets.
    pub descriptors: u64,
    /// Sockets open now, and at most so far by one process of this machine.
    pub sockets: u64,
    pub sockets_peak: u64,
}

/// Who started a process, and has to do with its end.
pub(super) trait Keeper: Send + Sync {
    /// Takes the process from everything that knows it. Called once, when its end can no longer be held up.
    fn let_go(self: Arc<Self>, process: &Arc<Process>, cause: Cause);
}

pub struct Process {
    pub number: u64,
    pub incarnation: u64,
    pub host: Arc<Host>,
    keeper: Arc<dyn Keeper>,
    pub registry: Arc<Registry>,
    pub(super) runtime: Arc<SimThread>,
    threads: Mutex<Vec<Arc<SimThread>>>,
    tasks: Mutex<BTreeMap<u64, Arc<Task>>>,
    pub(super) account: Account,
    pub(super) descriptors: Arc<Descriptors>,
    /// Of each class, in the order of `DiskClass::ALL`.
    pub(super) disk_permits: [Arc<Permits>; DiskClass::ALL.len()],
    pub(super) random: Mutex<Stream>,
    pub(super) pressure: Mutex<Stream>,
    alive: AtomicBool,
    /// Ends soon: runs nothing any more, its connections are still open.
    dying: AtomicBool,
    /// How it would have ended, were it not beyond killing.
    held_up: Mutex<Option<Cause>>,
    /// Its connections say nothing when they are dropped.
    pub(super) vanished: AtomicBool,
    stop_requested: AtomicBool,
    stop_wakers: Mutex<Vec<Waker>>,
    /// Who was told that a channel is full, and looks again when the fault is over.
    pressed: Mutex<Vec<Waker>>,
    polls: AtomicU64,
    wakes: Arc<AtomicU64>,
    /// Disk operations begun.
    operations: AtomicU64,
    /// Has accepted clients: what it had to recover is recovered.
    serving: AtomicBool,
}

impl Process {
    pub(super) fn new(host: &Arc<Host>, keeper: Arc<dyn Keeper>, incarnation: u64) -> Arc<Process> {
        let kernel = host.kernel();
        let registry = Registry::new();
        registry.observe(Box::new(Recorder { kernel: kernel.clone() }));
        let runtime = SimThread::new("runtime", kernel.options.runtime_threads);
        let stream =
            |what: &str| Mutex::new(Stream::new(kernel.seed, &format!("{what}/{}/{incarnation}", host.name)));
        Arc::new(Process {
            number: kernel.number(),
            incarnation,
            host: host.clone(),
            keeper,
            registry,
            threads: Mutex::new(vec![runtime.clone()]),
            runtime,
            tasks: Mutex::default(),
            account: alloc::open_account(),
            descriptors: Descriptors::new(kernel.options.descriptors),
            disk_permits: DiskClass::ALL.map(|class| Permits::new(class.operations_max())),
            random: stream("process"),
            pressure: stream("pressure"),
            alive: AtomicBool::new(true),
            dying: AtomicBool::new(false),
            held_up: Mutex::default(),
            vanished: AtomicBool::new(false),
            stop_requested: AtomicBool::new(false),
            stop_wakers: Mutex::default(),
            pressed: Mutex::default(),
            polls: AtomicU64::new(0),
            wakes: Arc::default(),
            operations: AtomicU64::new(0),
            serving: AtomicBool::new(false),
        })
    }

    /// Lets go of what leads back to it.
    pub(super) fn dissolve(&self) {
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        drop(tasks);
        self.forget_wakers();
    }

    /// Wakers are tasks, and tasks hold their process.
    fn forget_wakers(&self) {
        let stop_wakers = std::mem::take(&mut *lock(&self.stop_wakers));
        let pressed = std::mem::take(&mut *lock(&self.pressed));
        drop((stop_wakers, pressed));
    }

    fn remember(&self, wakers: &Mutex<Vec<Waker>>, waker: &Waker) {
        let mut wakers = lock(wakers);
        if self.alive.load(Ordering::Relaxed) && !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    pub fn kernel(&self) -> &Arc<Kernel> {
        self.host.kernel()
    }

    /// Takes new tasks: not ended, not about to end.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed) && !self.dying.load(Ordering::Relaxed)
    }

    /// Its end has come, and is held up.
    pub(super) fn is_dying(&self) -> bool {
        self.dying.load(Ordering::Relaxed)
    }

    pub(super) fn is_halted(&self) -> bool {
        self.dying.load(Ordering::Relaxed) || self.host.is_paused()
    }

    pub fn counts(&self) -> ProcessCounts {
        let (memory, memory_peak) = alloc::balance(self.account);
        let before = self.host.peaks();
        ProcessCounts {
            polls: self.polls.load(Ordering::Relaxed),
            wakes: self.wakes.load(Ordering::Relaxed),
            tasks: lock(&self.tasks).len() as u64,
            descriptors: self.descriptors.open(),
            sockets: self.descriptors.sockets(),
            sockets_peak: self.descriptors.sockets_peak().max(before.sockets),
            memory,
            memory_peak: memory_peak.max(before.memory),
        }
    }

    pub(super) fn count_poll(&self) {
        self.polls.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a disk operation that begins now. Returns its number in this process.
    pub(super) fn count_operation(&self) -> u64 {
        self.operations.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn serves(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// Counts the wake-ups of its tasks.
    pub(super) fn wakes(&self) -> &Arc<AtomicU64> {
        &self.wakes
    }

    pub(super) fn tasks(&self) -> Vec<Arc<Task>> {
        lock(&self.tasks).values().cloned().collect()
    }

    pub(super) fn admit_task(&self, task: Arc<Task>) {
        let kernel = self.kernel();
        let blocks = kernel.with_faults(|faults| {
            let name = (&*self.host.name, task.current.name.role, &*task.full_name);
            fault::task::stops(faults, name.0, name.1, name.2, kernel.now())
                .is_some_and(|id| faults.get(id).kind == fault::FaultKind::ThreadBlocked)
        });
        if blocks {
            task.thread.block(task.number);
        }
        lock(&self.tasks).insert(task.number, task);
    }

    /// Why the task must not be polled now.
    pub(super) fn stops(&self, task: &Task) -> bool {
        if self.is_halted() || !task.thread.admits(task.number) {
            return true;
        }
        let kernel = self.kernel();
        let mut faults = lock(&kernel.faults);
        let machine = &self.host.name;
        let stopping =
            fault::task::stops(&faults, machine, task.current.name.role, &task.full_name, kernel.now());
        if let Some(id) = stopping {
            faults.hit(id);
        }
        stopping.is_some()
    }

    /// Ends a task at its next await: at once, unless it is being polled.
    pub(super) fn kill(&self, task: &Task) {
        if !task.condemn() {
            return;
        }
        if task.drop_future() {
            self.end(task);
        }
        task.wake_runner();
    }

    /// A task runs no more.
    pub(super) fn end(&self, task: &Task) {
        if !task.end() {
            return;
        }
        let forgotten = lock(&self.tasks).remove(&task.number);
        drop(forgotten);
        if task.thread.unblock(task.number) {
            self.catch_up();
        }
    }

    /// Ends all tasks, and forgets who waits for something of the process.
    pub(super) fn kill_all(&self) {
        for task in self.tasks() {
            self.kill(&task);
        }
        self.forget_wakers();
    }

    pub(super) fn threads(&self) -> Vec<Arc<SimThread>> {
        lock(&self.threads).clone()
    }

    /// The thread group of that name, made when it is new.
    pub(super) fn thread(&self, name: &str, size: usize) -> Arc<SimThread> {
        let mut threads = lock(&self.threads);
        if let Some(known) = threads.iter().find(|thread| &*thread.name == name) {
            return known.clone();
        }
        let made = SimThread::new(name, size);
        threads.push(made.clone());
        made
    }

    /// Polls again whoever came to be polled while the process, a task or a thread was stopped.
    pub(super) fn catch_up(&self) {
        for task in self.tasks() {
            task.catch_up();
        }
    }

    /// Wakes every task: whatever it waits for may have changed.
    pub(super) fn wake_all(&self) {
        for task in self.tasks() {
            task.wake();
        }
    }

    pub(super) fn wake_when_relieved(&self, waker: &Waker) {
        self.remember(&self.pressed, waker);
    }

    /// Channels may have room again.
    pub(super) fn relieve(&self) {
        let pressed = std::mem::take(&mut *lock(&self.pressed));
        for waker in pressed {
            waker.wake();
        }
    }

    /// Asks it politely to stop.
    pub fn request_stop(&self) {
        self.stop_requested.store(true, Ordering::Relaxed);
        let wakers = std::mem::take(&mut *lock(&self.stop_wakers));
        for waker in wakers {
            waker.wake();
        }
    }

    pub fn is_asked_to_stop(&self) -> bool {
        self.stop_requested.load(Ordering::Relaxed)
    }

    pub(super) fn poll_stop_requested(&self, waker: &Waker) -> bool {
        if self.stop_requested.load(Ordering::Relaxed) {
            return true;
        }
        self.remember(&self.stop_wakers, waker);
        false
    }

    /// Ends after the poll that is going on; runs nothing any more.
    pub(super) fn end_soon(self: &Arc<Process>, cause: Cause) {
        if !self.is_alive() {
            return;
        }
        self.dying.store(true, Ordering::Relaxed);
        let process = self.clone();
        self.kernel().act_in(0, move || process.end_now(cause));
    }

    /// Ends now, or, when it is beyond killing, as soon as that is over.
    pub(super) fn end_now(self: &Arc<Process>, cause: Cause) {
        if !self.alive.load(Ordering::Relaxed) {
            return;
        }
        let kernel = self.kernel();
        let unkillable = kernel.with_faults(|faults| {
            let id = fault::process::unkillable(faults, &self.host.name, kernel.now());
            if let Some(id) = id {
                faults.hit(id);
            }
            id.is_some()
        });
        if unkillable {
            self.dying.store(true, Ordering::Relaxed);
            lock(&self.held_up).get_or_insert(cause);
            return;
        }
        self.finish(cause);
    }

    /// The process was beyond killing when its end came, and no longer is.
    pub(super) fn end_if_held_up(self: &Arc<Process>) {
        let cause = lock(&self.held_up).take();
        if let Some(cause) = cause {
            self.end_now(cause);
        }
    }

    /// Ends, whatever may hold it up.
    pub(super) fn finish(self: &Arc<Process>, cause: Cause) {
        if !self.alive.swap(false, Ordering::Relaxed) {
            return;
        }
        let name = self.host.name.clone();
        self.kernel().event(Event::new(What::ProcessEnd).numbers(self.number, self.incarnation).named(name));
        let counts = self.counts();
        self.host.keep_peaks(Peaks { memory: counts.memory_peak, sockets: counts.sockets_peak });
        self.keeper.clone().let_go(self, cause);
    }
}

/// Puts what enters and leaves a registry into the trace.
struct Recorder {
    kernel: Arc<Kernel>,
}

impl Recorder {
    fn record(&self, what: What, entry: &Entry) {
        let task = io_backend::registry::task_of(entry).0;
        let mut event = Event::new(what).task(task).numbers(entry.number, 0);
        event.kind = Some(entry.kind);
        event.name = entry.target.clone();
        self.kernel.event(event);
    }
}

impl Observer for Recorder {
    fn began(&self, entry: &Entry) {
        self.record(if entry.operation { What::OperationBegin } else { What::WaitBegin }, entry);
    }

    fn ended(&self, entry: &Entry, _now: Moment) {
        self.record(if entry.operation { What::OperationEnd } else { What::WaitEnd }, entry);
    }
}
