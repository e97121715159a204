//! The handles by which a run is driven: of the world, and of one machine.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use super::backend::SimBackend;
use super::disk::Device;
use super::ending::Ending;
use super::kernel::Kernel;
use super::machine::Machine;
use super::machines::Machines;
use super::network::NetworkCounts;
use super::process::ProcessCounts;
use super::snapshot::ProcessSnapshot;
use super::timers::TimerKey;
use super::trace::{Event, What};
use super::waits::Explanation;
use crate::fault::{Fault, FaultHits, FaultId};
use crate::streams::Stream;

/// The handle to a kernel, for whoever runs it. Cheap to clone; of use on the kernel's thread only.
#[derive(Clone)]
pub struct World {
    pub(super) kernel: Arc<Kernel>,
    pub(super) machines: Arc<Machines>,
}

impl World {
    pub(super) fn new(kernel: &Arc<Kernel>) -> World {
        let machines = Machines::new(kernel);
        let residents: Weak<Machines> = Arc::downgrade(&machines);
        kernel.is_home_of(residents);
        World { kernel: kernel.clone(), machines }
    }

    /// Drops whatever could hold the world alive in a circle.
    pub(super) fn dissolve(&self) {
        self.kernel.dissolve();
        self.machines.dissolve();
    }

    pub fn seed(&self) -> u64 {
        self.kernel.seed
    }

    /// Time since the world began.
    pub fn now(&self) -> Duration {
        self.kernel.elapsed()
    }

    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// A random stream of its own.
    pub fn stream(&self, name: &str) -> Stream {
        Stream::new(self.kernel.seed, name)
    }

    /// The machine of that name, made when it is new.
    pub fn machine(&self, name: &str) -> MachineHandle {
        MachineHandle { machine: self.machines.get_or_make(name) }
    }

    /// The broker node of that number: machine `node1`, `node2`, ...
    pub fn node(&self, number: u32) -> MachineHandle {
        self.machine(&format!("node{number}"))
    }

    /// The backend of a client machine, whose process runs what is spawned through it.
    pub fn client(&self, name: &str) -> SimBackend {
        let machine = self.machine(name).machine;
        match machine.process() {
            Some(process) => machine.backend_of(process),
            None => machine.start_bare(),
        }
    }

    /// Completes after that time of the world.
    pub async fn sleep(&self, duration: Duration) {
        let at = self.kernel.now().saturating_add(crate::fault::duration::nanos(duration));
        self.sleep_until(Duration::from_nanos(at)).await;
    }

    pub async fn sleep_until(&self, at: Duration) {
        let at = crate::fault::duration::nanos(at);
        let mut timer = WorldTimer { kernel: &self.kernel, key: None };
        poll_fn(|cx| {
            if self.kernel.now() >= at {
                return Poll::Ready(());
            }
            timer.set(at, cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// Puts a fault into force at its time, or now if that has passed.
    pub fn inject(&self, fault: &Fault) -> FaultId {
        self.kernel.inject(fault)
    }

    /// Ends a fault now. What it did for good (a reset, a lost page) stays.
    pub fn heal(&self, id: FaultId) {
        self.kernel.heal(id);
    }

    /// Ends every fault in force and keeps those to come from beginning.
    pub fn heal_all(&self) {
        self.kernel.heal_all();
    }

    pub fn fault_hits(&self) -> Vec<FaultHits> {
        self.kernel.with_faults(|faults| faults.hits())
    }

    /// Something worth reaching was reached.
    pub fn probe(&self, name: &str) {
        self.kernel.probe(name);
    }

    pub fn probes(&self) -> BTreeMap<String, u64> {
        self.kernel.probes()
    }

    /// A remark in the trace.
    pub fn note(&self, text: &str) {
        self.kernel.event(Event::new(What::Note).named(text));
    }

    /// How processes ended so far.
    pub fn endings(&self) -> Vec<Ending> {
        self.machines.endings()
    }

    /// Who waits for what in every live process, in order of machines.
    pub fn snapshots(&self) -> Vec<ProcessSnapshot> {
        self.kernel.snapshots()
    }

    /// Who waits for whom on the nodes, now.
    pub fn explain(&self) -> Explanation {
        self.kernel.explain()
    }

    /// Keeps the events around that moment for the outcome, whatever comes after them.
    pub fn mark(&self, at: u64) {
        self.kernel.mark(at);
    }

    pub fn events(&self) -> u64 {
        self.kernel.with_trace(|trace| trace.count())
    }

    pub fn trace_hash(&self) -> u64 {
        self.kernel.with_trace(|trace| trace.hash())
    }
}

struct WorldTimer<'a> {
    kernel: &'a Arc<Kernel>,
    key: Option<TimerKey>,
}

impl WorldTimer<'_> {
    fn set(&mut self, at: u64, waker: &std::task::Waker) {
        if let Some(key) = self.key
            && self.kernel.rewake(key, waker)
        {
            return;
        }
        self.key = Some(self.kernel.wake_at(at, waker));
    }
}

impl Drop for WorldTimer<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.kernel.cancel(key);
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
        &self.machine.host.name
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

    /// Whatever ends it from here on, and whatever has begun to: nothing starts it again but [`MachineHandle::start_again`].
    pub fn retire(&self) {
        self.machine.retire();
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
        self.machine.host.pause();
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
        self.machine.process().map(|process| self.machine.backend_of(process))
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

    /// How many tasks of each role its process has.
    pub fn tasks_by_role(&self) -> BTreeMap<&'static str, u64> {
        let tasks = self.machine.process().map(|process| process.tasks()).unwrap_or_default();
        tasks.iter().fold(BTreeMap::new(), |mut counts, task| {
            *counts.entry(task.current.name.role).or_default() += 1;
            counts
        })
    }

    pub fn connections(&self) -> NetworkCounts {
        self.machine.connections()
    }
}
