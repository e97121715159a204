//! Dedicated loops: a thread of their own, on which their disk operations run inline (`threads`) or on a ring
//! that the thread drives (`uring`).
//!
//! A durable write is pwrite + fdatasync on a plain thread, past the page cache, and one write through an `O_DSYNC` descriptor on a
//! ring. A loop that panics ends its thread as a task ends, but a ring only after its last operation.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::sync::{Notify, oneshot};

use super::core::{Core, Job};
use super::direct::DirectFile;
use super::kind::DiskKind;
use super::ring::{self, Operations};
use crate::disk::{DedicatedDisk, DedicatedFile, DiskError, DiskResult};
use crate::registry::{EntryGuard, WaitKind};
use crate::task::{Named, TaskHandle, TaskName};

/// Starts a loop on a thread of its own.
pub(super) fn spawn<F: Future<Output = ()>>(
    core: &Arc<Core>,
    kind: DiskKind,
    name: TaskName,
    body: impl FnOnce(RealDedicatedDisk) -> F + Send + 'static,
) -> TaskHandle {
    let stop = Arc::new(Notify::new());
    let finished = Arc::new(AtomicBool::new(false));
    let task = core.tasks.next(name.clone());
    let thread = {
        let (core, stop, finished) = (core.clone(), stop.clone(), Finished(finished.clone()));
        move || {
            let _finished = finished;
            match kind {
                DiskKind::Threads => {
                    let disk = RealDedicatedDisk { core: core.clone(), operations: None };
                    core.runtime.block_on(Named::new(task, until(&stop, async { body(disk).await })));
                }
                DiskKind::Uring => on_ring(core, task, &stop, body),
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name(name.to_string()).spawn(thread) {
        tracing::error!("no thread for {name}: {error}");
        finished.store(true, Ordering::Release);
    }
    TaskHandle::new(move || stop.notify_one(), move || finished.load(Ordering::Acquire))
}

fn on_ring<F: Future<Output = ()>>(
    core: Arc<Core>,
    task: Arc<crate::task::CurrentTask>,
    stop: &Notify,
    body: impl FnOnce(RealDedicatedDisk) -> F,
) {
    let ended = ring::run(|operations| {
        let disk = RealDedicatedDisk { core, operations: Some(operations) };
        caught(Named::new(task, until(stop, async { body(disk).await })))
    });
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => resume_unwind(panic),
        Err(error) => tracing::error!("no io_uring for a dedicated loop: {error}"),
    }
}

/// Set also when the thread unwinds.
struct Finished(Arc<AtomicBool>);

impl Drop for Finished {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The future, or its end at an await when told to stop.
async fn until(stop: &Notify, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let mut stopped = pin!(stop.notified());
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => stopped.as_mut().poll(cx),
    })
    .await;
}

/// A panic of the future, as a value. The future is dropped by the time this returns.
async fn caught(future: impl Future<Output = ()>) -> Result<(), Box<dyn Any + Send>> {
    let mut future: Pin<Box<_>> = Box::pin(future);
    poll_fn(|cx| {
        // Nobody looks at the future again after a panic.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// The disk of a dedicated loop: calls that block its thread, or its own ring.
pub struct RealDedicatedDisk {
    core: Arc<Core>,
    /// Of the thread's ring, if it has one.
    operations: Option<Operations>,
}

impl DedicatedDisk for RealDedicatedDisk {
    type File = RealDedicatedFile;

    #[track_caller]
    fn open(&self, path: &Path) -> impl Future<Output = DiskResult<RealDedicatedFile>> {
        let site = Location::caller();
        async move {
            let target: Arc<str> = path.to_string_lossy().into();
            let job = Job { kind: WaitKind::DiskName, what: "open", target: target.clone(), site };
            let opening = self.core.begin(&job);
            let how = self.open_now(path).map_err(|source| DiskError::new("open", path, source));
            opening.end(self.core.now());
            Ok(RealDedicatedFile { core: self.core.clone(), path: path.into(), target, how: how? })
        }
    }
}

impl RealDedicatedDisk {
    fn open_now(&self, path: &Path) -> io::Result<How> {
        let Some(operations) = &self.operations else { return DirectFile::open(path).map(How::Inline) };
        let mut options = std::fs::OpenOptions::new();
        let plain = options.read(true).write(true).open(path)?;
        let durable = options.custom_flags(libc::O_DSYNC).open(path)?;
        Ok(How::Ring {
            plain: Rc::new(ring::adopted(plain.into())),
            durable: Rc::new(ring::adopted(durable.into())),
            operations: operations.clone(),
        })
    }
}

/// An open file of a dedicated loop.
pub struct RealDedicatedFile {
    core: Arc<Core>,
    path: PathBuf,
    target: Arc<str>,
    how: How,
}

enum How {
    Inline(DirectFile),
    Ring { plain: Rc<tokio_uring::fs::File>, durable: Rc<tokio_uring::fs::File>, operations: Operations },
}

impl RealDedicatedFile {
    fn begin(&self, kind: WaitKind, what: &'static str, site: &'static Location<'static>) -> EntryGuard {
        self.core.begin(&Job { kind, what, target: self.target.clone(), site })
    }

    fn result(&self, operation: &'static str, result: io::Result<()>) -> DiskResult<()> {
        result.map_err(|source| DiskError::new(operation, &self.path, source))
    }

    /// Runs a syscall on this thread.
    fn inline(
        &self,
        kind: WaitKind,
        site: &'static Location<'static>,
        call: impl FnOnce() -> io::Result<()>,
    ) -> DiskResult<()> {
        let running = self.begin(kind, kind.name(), site);
        let result = call();
        running.end(self.core.now());
        self.result(kind.name(), result)
    }

    /// Runs an operation on the ring, as a task that outlives whoever waits for it.
    async fn on_ring<T: 'static>(
        &self,
        operations: &Operations,
        running: EntryGuard,
        operation: impl Future<Output = (io::Result<()>, T)> + 'static,
        lost: T,
    ) -> (io::Result<()>, T) {
        let (answer, answered) = oneshot::channel();
        let core = self.core.clone();
        operations.start(async move {
            let outcome = operation.await;
            running.end(core.now());
            if answer.send(outcome).is_err() {
                core.registry.count_late_completion();
            }
        });
        answered.await.unwrap_or_else(|_| (Err(io::Error::other("the ring is gone")), lost))
    }
}

impl DedicatedFile for RealDedicatedFile {
    fn path(&self) -> &Path {
        &self.path
    }

    #[track_caller]
    fn write_at(&self, position: u64, data: Vec<u8>) -> impl Future<Output = (DiskResult<()>, Vec<u8>)> {
        let site = Location::caller();
        async move {
            match &self.how {
                How::Inline(file) => {
                    let written = self.inline(WaitKind::DiskWrite, site, || file.write(position, &data));
                    (written, data)
                }
                How::Ring { plain, operations, .. } => {
                    let running = self.begin(WaitKind::DiskWrite, "write", site);
                    let file = plain.clone();
                    let writing = async move { ring::write(&file, position, data).await };
                    let (result, data) = self.on_ring(operations, running, writing, Vec::new()).await;
                    (self.result("write", result), data)
                }
            }
        }
    }

    #[track_caller]
    fn write_durable(&self, position: u64, data: Vec<u8>) -> impl Future<Output = (DiskResult<()>, Vec<u8>)> {
        let site = Location::caller();
        async move {
            match &self.how {
                How::Inline(file) => {
                    let durable = self
                        .inline(WaitKind::DiskWrite, site, || file.write(position, &data))
                        .and_then(|()| self.inline(WaitKind::DiskSync, site, || file.sync()));
                    (durable, data)
                }
                How::Ring { durable, operations, .. } => {
                    let running = self.begin(WaitKind::DiskSync, "synced write", site);
                    let file = durable.clone();
                    let writing = async move { ring::write(&file, position, data).await };
                    let (result, data) = self.on_ring(operations, running, writing, Vec::new()).await;
                    (self.result("synced write", result), data)
                }
            }
        }
    }

    #[track_caller]
    fn sync(&self) -> impl Future<Output = DiskResult<()>> {
        let site = Location::caller();
        async move {
            match &self.how {
                How::Inline(file) => self.inline(WaitKind::DiskSync, site, || file.sync()),
                How::Ring { plain, operations, .. } => {
                    let running = self.begin(WaitKind::DiskSync, "fdatasync", site);
                    let file = plain.clone();
                    let syncing = async move { (file.sync_data().await, ()) };
                    let (result, ()) = self.on_ring(operations, running, syncing, ()).await;
                    self.result("fdatasync", result)
                }
            }
        }
    }
}
