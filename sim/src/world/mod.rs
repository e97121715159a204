//! A simulated universe: machines with disks, clocks and a network between them, all of one seed.
//!
//! [`World::run`] builds one on a fresh OS thread and runs a future in it that starts programs, injects
//! faults and judges. madsim gives the executor and its random choice of who runs next; disk, network, clocks,
//! timers, tasks and processes are ours. Nothing here reads real time, the environment or the
//! machine, except the [`guard`], which only ends runs that would never end.

mod alloc;
mod backend;
mod clock;
mod descriptors;
mod disk;
mod getrandom;
mod guard;
mod inject;
pub mod logs;
mod machine;
mod network;
mod outcome;
mod panics;
mod process;
mod run;
pub mod snapshot;
mod spins;
mod tasks;
mod threads;
mod timers;
pub mod trace;
mod universe;
pub mod waits;

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

pub use backend::{SimBackend, SimTimer};
pub use disk::{
    Device, DeviceCounts, JournalFailure, MarkerTimes, Pages, SimDedicatedDisk, SimDedicatedFile, SimDisk,
    SimFile, SyncRecord,
};
pub use machine::{Machine, Program};
pub use network::{NetworkCounts, SimListener, SimNetwork, SimStream};
pub use outcome::{Options, Outcome, Stop};
pub use process::{Cause, Ending, Process, ProcessCounts};
pub use spins::Spinner;
pub use universe::Universe;

use crate::fault::{Fault, FaultHits, FaultId};
use crate::streams::Stream;
use snapshot::ProcessSnapshot;

/// The handle to a universe, for whoever runs it. Cheap to clone; of use on the universe's thread only.
#[derive(Clone)]
pub struct World {
    universe: Arc<Universe>,
}

impl World {
    pub fn seed(&self) -> u64 {
        self.universe.seed
    }

    /// Time since the world began.
    pub fn now(&self) -> Duration {
        self.universe.elapsed()
    }

    pub fn universe(&self) -> &Arc<Universe> {
        &self.universe
    }

    /// A random stream of its own.
    pub fn stream(&self, name: &str) -> Stream {
        Stream::new(self.universe.seed, name)
    }

    /// The machine of that name, made when it is new.
    pub fn machine(&self, name: &str) -> MachineHandle {
        if let Some(machine) = self.universe.machine(name) {
            return MachineHandle { machine };
        }
        let machine = Machine::new(&self.universe, name);
        lock(&self.universe.machines).insert(name.to_owned(), machine.clone());
        self.universe.network.join(&machine.name);
        MachineHandle { machine }
    }

    /// The broker node of that number: machine `node1`, `node2`, ...
    pub fn node(&self, number: u32) -> MachineHandle {
        self.machine(&format!("node{number}"))
    }

    /// The backend of a client machine, whose process runs what is spawned through it.
    pub fn client(&self, name: &str) -> SimBackend {
        let machine = self.machine(name).machine;
        match machine.process() {
            Some(process) => SimBackend::new(process),
            None => machine.start_bare(),
        }
    }

    /// Completes after that time of the world.
    pub async fn sleep(&self, duration: Duration) {
        let at = self.universe.now().saturating_add(crate::fault::duration::nanos(duration));
        self.sleep_until(Duration::from_nanos(at)).await;
    }

    pub async fn sleep_until(&self, at: Duration) {
        let at = crate::fault::duration::nanos(at);
        let mut timer = WorldTimer { universe: &self.universe, key: None };
        poll_fn(|cx| {
            if self.universe.now() >= at {
                return Poll::Ready(());
            }
            timer.set(at, cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// Puts a fault into force at its time, or now if that has passed.
    pub fn inject(&self, fault: &Fault) -> FaultId {
        self.universe.inject(fault)
    }

    /// Ends a fault now. What it did for good (a reset, a lost page) stays.
    pub fn heal(&self, id: FaultId) {
        self.universe.heal(id);
    }

    /// Ends every fault in force and keeps those to come from beginning.
    pub fn heal_all(&self) {
        self.universe.heal_all();
    }

    pub fn fault_hits(&self) -> Vec<FaultHits> {
        self.universe.with_faults(|faults| faults.hits())
    }

    /// Something worth reaching was reached.
    pub fn probe(&self, name: &str) {
        self.universe.probe(name);
    }

    pub fn probes(&self) -> BTreeMap<String, u64> {
        self.universe.probes()
    }

    /// A remark in the trace.
    pub fn note(&self, text: &str) {
        self.universe.event(trace::Event::new(trace::What::Note).named(text));
    }

    /// How processes ended so far.
    pub fn endings(&self) -> Vec<Ending> {
        lock(&self.universe.endings).clone()
    }

    /// Who waits for what in every live process, in order of machines.
    pub fn snapshots(&self) -> Vec<ProcessSnapshot> {
        self.universe.snapshots()
    }

    /// Who waits for whom on the nodes, now.
    pub fn explain(&self) -> waits::Explanation {
        self.universe.explain()
    }

    /// Keeps the events around that moment for the outcome, whatever comes after them.
    pub fn mark(&self, at: u64) {
        self.universe.mark(at);
    }

    pub fn events(&self) -> u64 {
        self.universe.with_trace(|trace| trace.count())
    }

    pub fn trace_hash(&self) -> u64 {
        self.universe.with_trace(|trace| trace.hash())
    }
}

struct WorldTimer<'a> {
    universe: &'a Arc<Universe>,
    key: Option<timers::TimerKey>,
}

impl WorldTimer<'_> {
    fn set(&mut self, at: u64, waker: &std::task::Waker) {
        if let Some(key) = self.key
            && self.universe.rewake(key, waker)
        {
            return;
        }
        self.key = Some(self.universe.wake_at(at, waker));
    }
}

impl Drop for WorldTimer<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.universe.cancel(key);
        }
    }
}

/// Controls one machine.
#[derive(Clone)]
pub struct MachineHandle {
    machine: Arc<Machine>,
}

impl MachineHandle {
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// Gives the machine its program and starts it; it is started again with the same one.
    pub fn start<P, F>(&self, program: P)
    where
        P: Fn(SimBackend) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.machine.set_program(Arc::new(move |backend| Box::pin(program(backend))));
        self.machine.start();
    }

    /// Starts the program again after an end. False when it runs or there is none.
    pub fn start_again(&self) -> bool {
        self.machine.power_on();
        self.machine.start()
    }

    /// A supervisor starts the program again that long after it has exited by itself.
    pub fn supervise(&self, restart_after: Option<Duration>) {
        self.machine.supervise(restart_after.map(crate::fault::duration::nanos));
    }

    /// `kill -9`. False when nothing ran.
    pub fn kill(&self) -> bool {
        self.machine.kill()
    }

    pub fn power_loss(&self) {
        self.machine.power_loss();
    }

    /// `kill -9` and start.
    pub fn restart(&self) {
        self.machine.kill();
        self.start_again();
    }

    /// Kills the process and empties the disk.
    pub fn wipe(&self) {
        self.machine.kill();
        self.machine.disk.wipe();
    }

    pub fn pause(&self) {
        self.machine.pause();
    }

    pub fn resume(&self) {
        self.machine.resume();
    }

    /// Asks the process to stop by itself: [`SimBackend::stop_requested`].
    pub fn request_stop(&self) {
        if let Some(process) = self.machine.process() {
            process.request_stop();
        }
    }

    pub fn is_running(&self) -> bool {
        self.machine.process().is_some()
    }

    /// Number of the running process's start on this machine.
    pub fn incarnation(&self) -> Option<u64> {
        self.machine.process().map(|process| process.incarnation)
    }

    /// The backend of the running process.
    pub fn backend(&self) -> Option<SimBackend> {
        self.machine.process().map(SimBackend::new)
    }

    /// Waits until no process runs.
    pub async fn ended(&self) {
        poll_fn(|cx| {
            if self.machine.process().is_none() {
                return Poll::Ready(());
            }
            self.machine.watch(cx.waker());
            Poll::Pending
        })
        .await;
    }

    pub fn disk(&self) -> &Arc<Device> {
        &self.machine.disk
    }

    pub fn counts(&self) -> Option<ProcessCounts> {
        self.machine.process().map(|process| process.counts())
    }

    pub fn connections(&self) -> NetworkCounts {
        self.machine.universe().network.counts(&self.machine.name)
    }
}

/// Everything here lives on one thread and a panic ends the run: what a poisoned lock guards is not used.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
