//! The state of one simulated universe: its time, timers, trace, faults, machines and probes.
//!
//! All of it lives on one thread. Locks here are held for a few moves at a time, and never while a waker is
//! called, a future polled or dropped, or a timer's action run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use io_backend::task::TaskIds;

use super::alloc;
use super::guard::Guard;
use super::lock;
use super::machine::Machine;
use super::network::Network;
use super::outcome::{Options, Stop};
use super::process::Ending;
use super::timers::{Due, TimerKey, Timers};
use super::trace::{Event, Trace, What};
use crate::fault::ActiveFaults;

/// How far the clock moves with each poll of a task, so that a task that yields for ever does not stop time.
const POLL_NS: u64 = 100;

pub struct Universe {
    pub seed: u64,
    pub options: Options,
    now: AtomicU64,
    timers: Mutex<Timers>,
    trace: Mutex<Trace>,
    pub(super) faults: Mutex<ActiveFaults>,
    pub(super) machines: Mutex<BTreeMap<String, Arc<Machine>>>,
    pub(super) network: Network,
    probes: Mutex<BTreeMap<String, u64>>,
    pub(super) guard: Arc<Guard>,
    stop: Mutex<Option<Stop>>,
    over: AtomicBool,
    root: Mutex<Option<Waker>>,
    pub(super) polls_since_idle: AtomicU64,
    pub(super) task_ids: TaskIds,
    pub(super) numbers: AtomicU64,
    pub(super) endings: Mutex<Vec<Ending>>,
}

impl Universe {
    pub fn new(seed: u64, options: Options) -> Arc<Universe> {
        Arc::new(Universe {
            seed,
            now: AtomicU64::new(0),
            timers: Mutex::default(),
            trace: Mutex::new(Trace::new(options.keep)),
            faults: Mutex::default(),
            machines: Mutex::default(),
            network: Network::default(),
            probes: Mutex::default(),
            guard: Arc::default(),
            stop: Mutex::default(),
            over: AtomicBool::new(false),
            root: Mutex::default(),
            polls_since_idle: AtomicU64::new(0),
            task_ids: TaskIds::default(),
            numbers: AtomicU64::new(0),
            endings: Mutex::default(),
            options,
        })
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
        lock(&self.trace).push(event);
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

    /// Something worth reaching was reached.
    pub fn probe(&self, name: &str) {
        let _world = alloc::as_world();
        let mut probes = lock(&self.probes);
        match probes.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                probes.insert(name.to_owned(), 1);
            }
        }
        drop(probes);
        self.event(Event::new(What::Probe).named(name));
    }

    pub fn probes(&self) -> BTreeMap<String, u64> {
        lock(&self.probes).clone()
    }

    pub(super) fn wake_at(&self, at: u64, waker: &Waker) -> TimerKey {
        let _world = alloc::as_world();
        lock(&self.timers).add(at.max(self.now()), Due::Wake(waker.clone()))
    }

    pub(super) fn rewake(&self, key: TimerKey, waker: &Waker) -> bool {
        lock(&self.timers).rewake(key, waker)
    }

    /// Runs `act` at that time, with no lock held and no task being polled.
    pub(super) fn act_at(&self, at: u64, act: impl FnOnce(&Arc<Universe>) + Send + 'static) -> TimerKey {
        let _world = alloc::as_world();
        lock(&self.timers).add(at.max(self.now()), Due::Act(Box::new(act)))
    }

    pub(super) fn act_in(&self, ns: u64, act: impl FnOnce(&Arc<Universe>) + Send + 'static) -> TimerKey {
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
    pub(super) fn tick(self: &Arc<Universe>) {
        self.now.fetch_add(POLL_NS, Ordering::Relaxed);
        self.fire_due();
        let polls = self.polls_since_idle.fetch_add(1, Ordering::Relaxed);
        if polls == self.options.polls_without_idle {
            self.stop_with(Stop::Busy { task: String::new(), polls });
        }
    }

    /// Nothing can run: time moves to the next timer. False when there is none.
    pub(super) fn jump(self: &Arc<Universe>) -> bool {
        self.polls_since_idle.store(0, Ordering::Relaxed);
        let Some(next) = lock(&self.timers).next() else {
            return false;
        };
        self.now.fetch_max(next, Ordering::Relaxed);
        self.fire_due();
        true
    }

    fn fire_due(self: &Arc<Universe>) {
        loop {
            let due = lock(&self.timers).pop_due(self.now());
            match due {
                None => return,
                Some((key, Due::Wake(waker))) => {
                    self.event(Event::new(What::TimerFired).numbers(key.number, 0));
                    waker.wake();
                }
                Some((_, Due::Act(act))) => act(self),
            }
        }
    }

    /// Ends the run; the first reason counts.
    pub fn stop_with(&self, stop: Stop) {
        let mut reason = lock(&self.stop);
        if reason.is_none() {
            *reason = Some(stop);
        }
        drop(reason);
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
        drop(timers);
        let machines = std::mem::take(&mut *lock(&self.machines));
        drop(machines);
        self.network.clear();
    }
}
