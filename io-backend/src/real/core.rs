//! What all parts of the real backend share: the runtime, the clock, the registry, and how an operation
//! and its waiter part when the deadline passes.

use std::io;
use std::panic::Location;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::closer::{Closer, elapsed};
use super::sockets::Sockets;
use crate::disk::{DiskClass, DiskError, DiskResult};
use crate::registry::{EntryGuard, Registry, WaitKind};
use crate::task::{self, TaskId, TaskIds};
use crate::time::{Deadline, Moment, TimedOut};

pub(super) struct Core {
    pub(super) runtime: Handle,
    origin: Instant,
    pub(super) registry: Arc<Registry>,
    pub(super) tasks: TaskIds,
    pub(super) sockets: Arc<Sockets>,
    pub(super) closer: Arc<Closer>,
    /// Directories taken for this process: dropping one would give it back.
    pub(super) taken: Mutex<Vec<std::fs::File>>,
    /// One of each class of disk operations, in the order of [`DiskClass::ALL`].
    room: [Arc<Semaphore>; DiskClass::ALL.len()],
}

/// What an operation is, for the registry and for its error.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) kind: WaitKind,
    pub(super) what: &'static str,
    pub(super) target: Arc<str>,
    pub(super) site: &'static Location<'static>,
}

impl Core {
    pub(super) fn new(runtime: Handle) -> Arc<Core> {
        let (origin, registry) = (Instant::now(), Registry::new());
        Arc::new(Core {
            runtime,
            origin,
            closer: Closer::start(registry.clone(), origin),
            registry,
            tasks: TaskIds::default(),
            sockets: Arc::default(),
            taken: Mutex::new(Vec::new()),
            room: DiskClass::ALL.map(|class| Arc::new(Semaphore::new(class.operations_max()))),
        })
    }

    pub(super) fn now(&self) -> Moment {
        elapsed(self.origin)
    }

    pub(super) fn instant(&self, at: Moment) -> tokio::time::Instant {
        /// As far as tokio itself goes for "never".
        const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);
        let at = self.origin + Duration::from_nanos(at.0).min(FAR);
        at.into()
    }

    /// Makes something of tokio's inside a runtime. A task is inside one, be it the ring's, as it is.
    pub(super) fn inside<T>(&self, make: impl FnOnce() -> T) -> T {
        let _inside = (task::current_id() == TaskId(0)).then(|| self.runtime.enter());
        make()
    }

    pub(super) fn begin(&self, job: &Job) -> EntryGuard {
        self.registry.operation_at(self.now(), job.kind, job.what, job.target.clone(), job.site)
    }

    /// A wait of the current task, with its entry.
    pub(super) async fn wait<F: Future>(
        &self,
        job: &Job,
        deadline: Deadline,
        future: F,
    ) -> Result<F::Output, TimedOut> {
        let bounded = matches!(deadline, Deadline::At(_));
        let entry =
            self.registry.wait_at(self.now(), job.kind, job.what, job.target.clone(), job.site, bounded);
        let done = match deadline {
            Deadline::Unbounded(_) => Ok(future.await),
            Deadline::At(at) => {
                let waiting = self.inside(|| tokio::time::timeout_at(self.instant(at), future));
                waiting.await.map_err(|_| TimedOut)
            }
        };
        entry.end(self.now());
        done
    }

    /// Starts an operation and waits for it until the deadline. The [`Ticket`] that `start` gets goes
    /// wherever the operation runs, and stays there until it is done.
    pub(super) async fn run<T>(
        self: &Arc<Self>,
        job: Job,
        class: DiskClass,
        path: &Path,
        deadline: Deadline,
        start: impl FnOnce(Ticket<T>),
    ) -> DiskResult<T> {
        let failed = |source| DiskError::new(job.what, path, source);
        let late = || failed(io::Error::new(io::ErrorKind::TimedOut, "deadline passed"));
        let budget = &self.room[class as usize];
        let room = match budget.clone().try_acquire_owned() {
            Ok(room) => room,
            Err(_) => match self.wait(&job, deadline, budget.clone().acquire_owned()).await {
                Ok(Ok(room)) => room,
                Ok(Err(_)) => unreachable!("the semaphore is never closed"),
                Err(TimedOut) => return Err(late()),
            },
        };
        let (answer, mut answered) = oneshot::channel();
        start(Ticket { answer, in_flight: self.begin(&job), core: self.clone(), room });
        let received = match self.wait(&job, deadline, &mut answered).await {
            Ok(received) => received,
            Err(TimedOut) => {
                // What was sent before this line still counts; what comes later counts as late.
                answered.close();
                match answered.try_recv() {
                    Ok(result) => Ok(result),
                    Err(_) => return Err(late()),
                }
            }
        };
        match received {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(failed(io::Error::other("the operation was given up by its thread"))),
        }
    }
}

/// The right to run one operation, and the duty to say how it ended.
pub(super) struct Ticket<T> {
    answer: oneshot::Sender<io::Result<T>>,
    in_flight: EntryGuard,
    core: Arc<Core>,
    room: OwnedSemaphorePermit,
}

impl<T> Ticket<T> {
    pub(super) fn done(self, result: io::Result<T>) {
        self.in_flight.end(self.core.now());
        drop(self.room);
        if self.answer.send(result).is_err() {
            self.core.registry.count_late_completion();
        }
    }
}
