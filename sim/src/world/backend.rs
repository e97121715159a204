//! The backend that a simulated process sees.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};

use io_backend::{
    Backend, Clock, DedicatedLoop, ExitStatus, Interference, Moment, Registry, SyncPoint, TaskHandle,
    TaskName,
};

use super::disk::{Device, SimDedicatedDisk, SimDisk, SkippedSyncs};
use super::ending::Cause;
use super::kernel::Kernel;
use super::lock;
use super::network::{Network, Rewrites, SimNetwork};
use super::process::Process;
use super::runner;
use super::threads::SimThread;
use super::timer::{SimClock, SimTimer};
use crate::fault;

/// A handle to one process of a simulated machine.
#[derive(Clone)]
pub struct SimBackend {
    process: Arc<Process>,
    /// Whose threads run what is spawned through this handle.
    thread: Arc<SimThread>,
    clock: SimClock,
    disk: SimDisk,
    network: SimNetwork,
    /// So much is its wall clock ahead of its machine's.
    ahead_ms: i64,
}

impl SimBackend {
    pub(super) fn new(process: Arc<Process>, device: &Arc<Device>, network: &Arc<Network>) -> SimBackend {
        SimBackend {
            thread: process.runtime.clone(),
            clock: SimClock::of(&process.host),
            disk: SimDisk::new(&process, device),
            network: SimNetwork::new(&process, network),
            ahead_ms: 0,
            process,
        }
    }

    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    pub fn kernel(&self) -> &Arc<Kernel> {
        self.process.kernel()
    }

    /// The same process, but what is spawned through the handle runs on a group of `size` threads of this
    /// name: when `size` of its tasks are in [`SimBackend::blocking`], all the others stop.
    pub fn on_threads(&self, name: &str, size: usize) -> SimBackend {
        SimBackend { thread: self.process.thread(name, size), ..self.clone() }
    }

    /// The same process on a disk that reports these syncs as done and does not do them.
    pub fn skipping(&self, skipped: SkippedSyncs) -> SimBackend {
        SimBackend { disk: self.disk.skipping(skipped), ..self.clone() }
    }

    /// The same process, but what passes through connections that it accepts is rewritten.
    pub fn rewriting(&self, rewrites: Rewrites) -> SimBackend {
        SimBackend { network: self.network.rewriting(rewrites), ..self.clone() }
    }

    /// The same process, but its wall clock is ahead of what its machine's says.
    pub fn with_clock_ahead(&self, ahead_ms: i64) -> SimBackend {
        SimBackend { ahead_ms, ..self.clone() }
    }

    /// A call that blocks its thread: until `call` is done, one thread less is left for the tasks of this
    /// handle's group.
    pub async fn blocking<F: Future>(&self, call: F) -> F::Output {
        let task = io_backend::task::current_id().0;
        let blocked = Blocked { backend: self, task };
        self.thread.block(task);
        let output = call.await;
        drop(blocked);
        output
    }

    /// Resolves when the process is asked to stop politely.
    pub async fn stop_requested(&self) {
        poll_fn(
            |cx| {
                if self.process.poll_stop_requested(cx.waker()) { Poll::Ready(()) } else { Poll::Pending }
            },
        )
        .await;
    }

    /// Something worth reaching was reached.
    pub fn probe(&self, name: &str) {
        self.kernel().probe(name);
    }
}

struct Blocked<'a> {
    backend: &'a SimBackend,
    task: u64,
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        if self.backend.thread.unblock(self.task) {
            self.backend.process.catch_up();
        }
    }
}

impl Clock for SimBackend {
    type Timer = SimTimer;

    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn timer(&self, at: Moment) -> SimTimer {
        self.clock.timer(at)
    }
}

impl Backend for SimBackend {
    type Disk = SimDisk;
    type Network = SimNetwork;

    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn network(&self) -> &SimNetwork {
        &self.network
    }

    fn wall_ms(&self) -> i64 {
        lock(&self.process.host.clock).wall_ms(self.kernel().now()) + self.ahead_ms
    }

    fn random_u64(&self) -> u64 {
        self.kernel().guard.check();
        lock(&self.process.random).u64()
    }

    fn registry(&self) -> &Arc<Registry> {
        &self.process.registry
    }

    fn spawn<F>(&self, name: impl Into<TaskName>, future: F) -> TaskHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        runner::spawn(&self.process, &self.thread, name.into(), future)
    }

    fn spawn_dedicated<L: DedicatedLoop<Self>>(&self, name: impl Into<TaskName>, body: L) -> TaskHandle {
        let name = name.into();
        let thread = SimThread::new(name.to_string(), 1);
        let disk = SimDedicatedDisk::new(&self.disk);
        runner::spawn(&self.process, &thread, name, body.run(disk))
    }

    fn interference(&self, sync_point: SyncPoint<'_>) -> Interference {
        let kernel = self.kernel();
        let mut stream = lock(&self.process.pressure);
        kernel.with_faults(|faults| {
            fault::sync_point::interference(
                faults,
                &self.process.host.name,
                sync_point,
                kernel.now(),
                &mut stream,
            )
        })
    }

    fn wake_when_relieved(&self, waker: &Waker) {
        self.process.wake_when_relieved(waker);
    }

    fn exit(&self, status: ExitStatus, why: &str) {
        self.process.end_soon(Cause::Exited(status, why.to_owned()));
    }
}
