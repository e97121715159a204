//! The kernel of a simulated kernel: its time, timers, trace, planned faults and probes.
//!
//! It knows no machine: what lives in it makes itself known as its [`Residents`], who carry out what faults do and say who
//! waits for what.
//!
//! All of it lives on one thread. Locks here are held for a few moves at a time, and never while a waker is
//! called, a future polled or dropped, or a timer's action run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::Waker;
use std::time::Duration;

use io_backend::task::TaskIds;

use super::alloc;
use super::guard::{Guard, Patience};
use super::lock;
use super::outcome::{Options, Stop};
use super::snapshot::ProcessSnapshot;
use super::spins::{Spinner, Spins};
use super::timers::{Due, TimerKey, Timers};
use super::trace::{Event, Marked, Trace, What};
use super::waits::{self, Explanation};
use crate::fault::{ActiveFaults, Fault, FaultId, Occasion};
use crate::probe::Probe;

/// The share of a budget after which it is time to look who uses it up.
fn nearly(budget: u64) -> u64 {
    budget / 10 * 9
}

/// What lives in a kernel.
pub(super) trait Residents: Send + Sync {
    /// The time of a fault has come.
    fn fault_begins(self: Arc<Self>, id: FaultId);
    /// The time of a fault is over, or it is healed.
    fn fault_ends(self: Arc<Self>, id: FaultId);
    /// Who waits for what in every live process, in order of machines.
    fn snapshots(&self) -> Vec<ProcessSnapshot>;
}

pub struct Kernel {
    pub seed: u64,
    pub options: Options,
    now: AtomicU64,
    timers: Mutex<Timers>,
    trace: Mutex<Trace>,
    /// Events so far, to be asked at every poll.
    events: AtomicU64,
    marked: Mutex<Option<Marked>>,
    /// Polls are counted by task: the run's budget is nearly used up.
    counts_spins: AtomicBool,
    spins: Mutex<Spins>,
    explanation: Mutex<Option<Explanation>>,
    pub(super) faults: Mutex<ActiveFaults>,
    residents: OnceLock<Weak<dyn Residents>>,
    probes: Mutex<BTreeMap<Arc<str>, u64>>,
    pub(super) guard: Arc<Guard>,
    stop: Mutex<Option<Stop>>,
    over: AtomicBool,
    root: Mutex<Option<Waker>>,
    pub(super) polls_since_idle: AtomicU64,
    pub(super) task_ids: TaskIds,
    numbers: AtomicU64,
}

impl Kernel {
    pub fn new(seed: u64, options: Options) -> Arc<Kernel> {
        Arc::new(Kernel {
            seed,
            now: AtomicU64::new(0),
            timers: Mutex::default(),
            trace: Mutex::new(Trace::new(options.keep)),
            events: AtomicU64::new(0),
            marked: Mutex::default(),
            counts_spins: AtomicBool::new(false),
            spins: Mutex::default(),
            explanation: Mutex::default(),
            faults: Mutex::default(),
            residents: OnceLock::new(),
            probes: Mutex::default(),
            guard: Arc::default(),
            stop: Mutex::default(),
            over: AtomicBool::new(false),
            root: Mutex::default(),
            polls_since_idle: AtomicU64::new(0),
            task_ids: TaskIds::default(),
            numbers: AtomicU64::new(0),
            options,
        })
    }

    /// Those who live here from now on; the first call counts.
    pub(super) fn is_home_of(&self, residents: Weak<dyn Residents>) {
        let _ = self.residents.set(residents);
    }

    fn residents(&self) -> Option<Arc<dyn Residents>> {
        self.residents.get().and_then(Weak::upgrade)
    }

    /// Nanoseconds since the world began.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// A number never used before, for processes, connections and operations.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn event(&self, mut event: Event) {
        if self.is_over() {
            return;
        }
        let _world = alloc::as_world();
        event.at = self.now();
        let mut trace = lock(&self.trace);
        trace.push(event);
        self.events.store(trace.count(), Ordering::Relaxed);
    }

    /// Keeps the events around that moment, whatever comes after them.
    pub fn mark(&self, at: u64) {
        let around = lock(&self.trace).around(at);
        *lock(&self.marked) = Some(around);
    }

    pub(super) fn marked(&self) -> Option<Marked> {
        lock(&self.marked).clone()
    }

    pub fn with_trace<R>(&self, look: impl FnOnce(&Trace) -> R) -> R {
        look(&lock(&self.trace))
    }

    /// Asks the faults; what they hit goes into the trace.
    pub(super) fn with_faults<R>(&self, ask: impl FnOnce(&mut ActiveFaults) -> R) -> R {
        let _world = alloc::as_world();
        let mut faults = lock(&self.faults);
        let answer = ask(&mut faults);
        let hits = faults.take_fresh_hits();
        drop(faults);
        for id in hits {
            self.event(Event::new(What::FaultHit).numbers(id.0 as u64, 0));
        }
        answer
    }

    /// Puts a fault into force at its time, or now if that has passed.
    pub fn inject(self: &Arc<Kernel>, fault: &Fault) -> FaultId {
        let now = self.now();
        let id = self.with_faults(|faults| faults.add(fault, now));
        if fault.when.is_none() {
            self.follow(id);
        }
        id
    }

    /// Carries out beginning and end of a fault whose window is known.
    fn follow(self: &Arc<Kernel>, id: FaultId) {
        let ((from, until), moment) =
            self.with_faults(|faults| (faults.window(id), faults.get(id).kind.is_moment()));
        let kernel = self.clone();
        self.act_at(from, move || kernel.begins(id));
        if !moment && until != u64::MAX {
            let kernel = self.clone();
            self.act_at(until, move || {
                // Unless it was healed before. The time may be a little later than it was meant to be.
                if kernel.with_faults(|faults| faults.window(id).1) == until {
                    kernel.ends(id);
                }
            });
        }
    }

    /// An operation begins on a disk: faults that waited for it begin, those that happen at a moment at `moment`.
    pub(super) fn occasion(self: &Arc<Kernel>, occasion: &Occasion<'_>, moment: u64) {
        let begun = self.with_faults(|faults| faults.trigger(occasion, self.now(), moment));
        for id in begun {
            self.probe(Probe::FaultMetItsState.name());
            self.follow(id);
        }
    }

    /// Ends a fault now. What it did for good stays.
    pub fn heal(self: &Arc<Kernel>, id: FaultId) {
        let now = self.now();
        let ended = self.with_faults(|faults| {
            let running = faults.in_force(id, now);
            faults.end(id, now);
            running
        });
        if ended {
            self.ends(id);
        }
    }

    /// Ends every fault that is in force and keeps the others from beginning. Operations that are never to complete
    /// stay as they are; no further ones join them.
    pub fn heal_all(self: &Arc<Kernel>) {
        let now = self.now();
        let unfinished = self.with_faults(|faults| faults.unfinished(now));
        for id in unfinished {
            if self.with_faults(|faults| faults.get(id).outlives_the_healing()) {
                self.with_faults(|faults| faults.end(id, now));
            } else {
                self.heal(id);
            }
        }
    }

    fn begins(&self, id: FaultId) {
        if let Some(residents) = self.residents() {
            residents.fault_begins(id);
        }
    }

    fn ends(&self, id: FaultId) {
        if let Some(residents) = self.residents() {
            residents.fault_ends(id);
        }
    }

    /// Something worth reaching was reached.
    pub fn probe(&self, name: &str) {
        debug_assert!(crate::probe::is_known(name), "{name} is no probe");
        let _world = alloc::as_world();
        let mut probes = lock(&self.probes);
        let known = probes.get_key_value(name).map(|(name, _)| name.clone());
        let name = known.unwrap_or_else(|| Arc::from(name));
        *probes.entry(name.clone()).or_insert(0) += 1;
        drop(probes);
        self.event(Event::new(What::Probe).named(name));
    }

    pub fn probes(&self) -> BTreeMap<String, u64> {
        lock(&self.probes).iter().map(|(name, count)| (name.to_string(), *count)).collect()
    }

    pub(super) fn wake_at(&self, at: u64, waker: &Waker) -> TimerKey {
        let _world = alloc::as_world();
        lock(&self.timers).add(at.max(self.now()), Due::Wake(waker.clone()))
    }

    pub(super) fn rewake(&self, key: TimerKey, waker: &Waker) -> bool {
        lock(&self.timers).rewake(key, waker)
    }

    /// Runs `act` at that time, with no lock held and no task being polled.
    pub(super) fn act_at(&self, at: u64, act: impl FnOnce() + Send + 'static) -> TimerKey {
        let _world = alloc::as_world();
        lock(&self.timers).add(at.max(self.now()), Due::Act(Box::new(act)))
    }

    pub(super) fn act_in(&self, ns: u64, act: impl FnOnce() + Send + 'static) -> TimerKey {
        self.act_at(self.now().saturating_add(ns), act)
    }

    pub(super) fn cancel(&self, key: TimerKey) {
        let cancelled = lock(&self.timers).cancel(key);
        drop(cancelled);
    }

    pub fn timers_fired(&self) -> u64 {
        lock(&self.timers).fired()
    }

    /// One poll's worth of time passes.
    pub(super) fn tick(&self) {
        self.now.fetch_add(self.options.poll_ns, Ordering::Relaxed);
        self.fire_due();
        let polls = self.polls_since_idle.fetch_add(1, Ordering::Relaxed);
        if polls == self.options.polls_without_idle {
            self.stop_with(Stop::Busy { task: String::new(), polls });
        }
        self.check_budget(polls);
    }

    /// A run always ends: by its budget of events, or, if that is not enough, by real time.
    fn check_budget(&self, polls: u64) {
        let (events, most) = (self.events.load(Ordering::Relaxed), self.options.events_max);
        let patience = self.guard.patience();
        if events >= most {
            self.stop_with(Stop::Livelock { events: most, spinners: self.spinners() });
        } else if patience == Patience::Lost {
            let after = self.options.wall_time_max;
            self.stop_with(Stop::GivenUp { after, events, spinners: self.spinners() });
        } else if events >= nearly(most)
            || polls >= nearly(self.options.polls_without_idle)
            || patience == Patience::Low
        {
            self.counts_spins.store(true, Ordering::Relaxed);
        }
    }

    /// A task is polled; who is polled most is of interest only towards the end of a budget.
    pub(super) fn polled(&self, machine: &Arc<str>, task: &Arc<str>) {
        if self.counts_spins.load(Ordering::Relaxed) {
            lock(&self.spins).count(machine, task);
        }
    }

    /// The task that was polled most, once polls are counted.
    pub(super) fn busiest(&self) -> Option<String> {
        let most = lock(&self.spins).most();
        most.first().map(|spinner| format!("{} of {}", spinner.task, spinner.machine))
    }

    fn spinners(&self) -> Vec<Spinner> {
        let mut spinners = lock(&self.spins).most();
        let snapshots = self.snapshots();
        for spinner in &mut spinners {
            spinner.waits = waits::wait_of(&snapshots, &spinner.machine, &spinner.task);
        }
        spinners
    }

    /// Who waits for what in every live process, in order of machines.
    pub fn snapshots(&self) -> Vec<ProcessSnapshot> {
        self.residents().map(|residents| residents.snapshots()).unwrap_or_default()
    }

    /// Who waits for whom on the nodes: clients only wait for those.
    pub fn explain(&self) -> Explanation {
        let mut nodes = self.snapshots();
        nodes.retain(|snapshot| snapshot.machine.starts_with("node"));
        let mut told = waits::explain(&nodes);
        told.at = self.now();
        if told.lines.is_empty() {
            told.lines = waits::oldest_waits(&nodes);
        }
        told
    }

    /// Explains what a stop finds, before it is torn down.
    pub(super) fn explain_the_stop(&self) {
        let told = self.explain();
        *lock(&self.explanation) = Some(told);
    }

    pub(super) fn stop_explanation(&self) -> Option<Explanation> {
        lock(&self.explanation).clone()
    }

    /// Nothing can run: time moves to the next timer. False when there is none.
    pub(super) fn jump(&self) -> bool {
        let polls = self.polls_since_idle.swap(0, Ordering::Relaxed);
        if polls >= nearly(self.options.polls_without_idle) {
            // It was only a busy time.
            self.counts_spins.store(false, Ordering::Relaxed);
            lock(&self.spins).clear();
        }
        let Some(next) = lock(&self.timers).next() else {
            return false;
        };
        self.now.fetch_max(next, Ordering::Relaxed);
        self.fire_due();
        true
    }

    fn fire_due(&self) {
        loop {
            let due = lock(&self.timers).pop_due(self.now());
            match due {
                None => return,
                Some((key, Due::Wake(waker))) => {
                    self.event(Event::new(What::TimerFired).numbers(key.number, 0));
                    waker.wake();
                }
                Some((_, Due::Act(act))) => act(),
            }
        }
    }

    /// Ends the run; the first reason counts.
    pub fn stop_with(&self, stop: Stop) {
        let mut reason = lock(&self.stop);
        let first = reason.is_none();
        let crash = matches!(stop, Stop::Crash { .. } | Stop::Main(_));
        reason.get_or_insert(stop);
        drop(reason);
        if first && !crash {
            self.explain_the_stop();
        }
        self.close();
        self.wake_root();
    }

    /// Nothing is polled or traced any more.
    pub(super) fn close(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub fn stopped(&self) -> Option<Stop> {
        lock(&self.stop).clone()
    }

    pub(super) fn set_root(&self, waker: &Waker) {
        *lock(&self.root) = Some(waker.clone());
    }

    fn wake_root(&self) {
        let root = lock(&self.root).take();
        if let Some(root) = root {
            root.wake();
        }
    }

    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now())
    }

    /// Drops whatever could hold the world alive in a circle.
    pub(super) fn dissolve(&self) {
        let timers = lock(&self.timers).take_all();
        let root = lock(&self.root).take();
        drop((timers, root));
    }
}
