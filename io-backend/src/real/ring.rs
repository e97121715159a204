//! io_uring through tokio-uring: the thread that runs file operations for everybody, and what a dedicated
//! loop needs to run its own ring.
//!
//! tokio-uring frees the buffers of operations in flight when its runtime ends, and the kernel goes on using
//! them. So here every operation is a task of its own that owns its buffer and its descriptor, the runtime ends
//! only after the last one ([`Operations::drained`]), and a panic that would end it earlier ends
//! the process. It submits when its thread parks: nothing that computes belongs on such a thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_uring::buf::{BoundedBuf, IoBuf};
use tokio_uring::fs::File;

use super::closer::Closer;
use super::core::{Core, Ticket};
use super::system;
use crate::disk::OPERATIONS_MAX;
use crate::task::Named;

/// Whether a ring can't be had here; if so why, and what to do about it.
pub(super) fn refused() -> Option<String> {
    if let Some(reason) = system::io_uring_refused() {
        return Some(reason);
    }
    // A ring as large as the real ones, on a thread of its own as those have.
    let trial = std::thread::spawn(|| run(|_| async {}));
    match trial.join() {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("a ring of {RING_ENTRIES} entries is refused: {error}")),
        Err(_) => Some("the runtime of the ring can't be made".to_owned()),
    }
}

/// More than operations can be in flight, so submitting never waits.
const RING_ENTRIES: u32 = 256;
const _: () = assert!(OPERATIONS_MAX < RING_ENTRIES as usize);

/// The handle of the ring thread, which ends with the last handle.
#[derive(Clone)]
pub(super) struct Ring {
    requests: mpsc::UnboundedSender<Request>,
    numbers: Arc<AtomicU64>,
    closer: Arc<Closer>,
}

/// Bounded all the same: each operation carries a [`Ticket`], and those are counted.
enum Request {
    Adopt {
        number: u64,
        descriptor: OwnedFd,
    },
    /// `last` is another descriptor of the same file, so that closing the ring's own is cheap.
    Close {
        number: u64,
        last: Option<Last>,
    },
    Read {
        number: u64,
        position: u64,
        len: usize,
        ticket: Ticket<Bytes>,
    },
    Write {
        number: u64,
        position: u64,
        data: Bytes,
        ticket: Ticket<()>,
    },
    Sync {
        number: u64,
        ticket: Ticket<()>,
    },
}

impl Ring {
    pub(super) fn start(core: Arc<Core>) -> io::Result<Ring> {
        let (requests, received) = mpsc::unbounded_channel();
        let closer = core.closer.clone();
        std::thread::Builder::new().name("disk-ring".into()).spawn(move || {
            let task = core.tasks.next("disk ring".into());
            if let Err(error) = run(|operations| Named::new(task, serve(received, operations))) {
                tracing::error!("the io_uring of the disk cannot be made: {error}");
            }
        })?;
        Ok(Ring { requests, numbers: Arc::default(), closer })
    }

    /// Hands a file's descriptor over to the ring thread, which closes it.
    pub(super) fn adopt(&self, file: std::fs::File, path: Arc<str>) -> RingDescriptor {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the ring thread, the owner from here on, closes the descriptor only when told to by
        // the drop of the `RingDescriptor`, after which nobody can reach this view of it.
        let view = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(file.as_raw_fd()) });
        let descriptor = file.into();
        // If the ring thread is gone, the descriptor is closed here and operations fail for want of an answer.
        let _ = self.requests.send(Request::Adopt { number, descriptor });
        RingDescriptor { number, path, view, ring: self.clone() }
    }
}

/// A file that the ring thread owns.
pub(super) struct RingDescriptor {
    number: u64,
    path: Arc<str>,
    view: ManuallyDrop<std::fs::File>,
    ring: Ring,
}

impl RingDescriptor {
    /// For what the ring does not do, such as `ftruncate`.
    pub(super) fn std(&self) -> &std::fs::File {
        &self.view
    }

    pub(super) fn read(&self, position: u64, len: usize, ticket: Ticket<Bytes>) {
        self.request(Request::Read { number: self.number, position, len, ticket });
    }

    pub(super) fn write(&self, position: u64, data: Bytes, ticket: Ticket<()>) {
        self.request(Request::Write { number: self.number, position, data, ticket });
    }

    pub(super) fn sync(&self, ticket: Ticket<()>) {
        self.request(Request::Sync { number: self.number, ticket });
    }

    fn request(&self, request: Request) {
        // A ring that is gone drops the ticket, and its waiter learns of it.
        let _ = self.ring.requests.send(request);
    }
}

impl Drop for RingDescriptor {
    /// The ring thread lets go of it, and the closer has the last descriptor: what the ring's thread waits for, all
    /// operations wait for.
    fn drop(&mut self) {
        let closer = self.ring.closer.clone();
        // With no descriptor to spare it is closed on the ring thread.
        let last =
            self.view.try_clone().ok().map(|file| Last { file: Some(file), path: self.path.clone(), closer });
        self.request(Request::Close { number: self.number, last });
    }
}

/// A file's last descriptor, closed on the closer's thread.
struct Last {
    file: Option<std::fs::File>,
    path: Arc<str>,
    closer: Arc<Closer>,
}

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.closer.close(file, self.path.clone());
        }
    }
}

/// A file on the ring. Its fields are dropped in this order.
struct Adopted {
    file: File,
    last: RefCell<Option<Last>>,
}

impl Deref for Adopted {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

async fn serve(mut requests: mpsc::UnboundedReceiver<Request>, operations: Operations) {
    let mut files: BTreeMap<u64, Rc<Adopted>> = BTreeMap::new();
    let missing = || io::Error::from_raw_os_error(libc::EBADF);
    while let Some(request) = requests.recv().await {
        match request {
            Request::Adopt { number, descriptor } => {
                let adopted = Adopted { file: adopted(descriptor), last: RefCell::new(None) };
                files.insert(number, Rc::new(adopted));
            }
            // Operations in flight keep the file open until they are done.
            Request::Close { number, last } => {
                if let Some(file) = files.remove(&number) {
                    *file.last.borrow_mut() = last;
                }
            }
            Request::Read { number, position, len, ticket } => match files.get(&number).cloned() {
                Some(file) => operations.start(async move {
                    let (result, buffer) = read(&file, position, len).await;
                    ticket.done(result.map(|()| buffer.into()));
                }),
                None => ticket.done(Err(missing())),
            },
            Request::Write { number, position, data, ticket } => match files.get(&number).cloned() {
                Some(file) => operations.start(async move {
                    let (result, _) = write(&file, position, Shared(data)).await;
                    ticket.done(result);
                }),
                None => ticket.done(Err(missing())),
            },
            Request::Sync { number, ticket } => match files.get(&number).cloned() {
                Some(file) => operations.start(async move { ticket.done(file.sync_data().await) }),
                None => ticket.done(Err(missing())),
            },
        }
    }
}

pub(super) fn adopted(descriptor: OwnedFd) -> File {
    // SAFETY: an owned descriptor, given up here, is open and nobody else closes it.
    unsafe { File::from_raw_fd(descriptor.into_raw_fd()) }
}

/// `Bytes` as a buffer of the ring.
struct Shared(Bytes);

// SAFETY: the bytes live on the heap (or are static) and stay where they are when the handle moves; they are
// immutable and all initialised.
unsafe impl IoBuf for Shared {
    fn stable_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }

    fn bytes_total(&self) -> usize {
        self.0.len()
    }
}

async fn read(file: &File, position: u64, len: usize) -> (io::Result<()>, Vec<u8>) {
    let mut buffer = Vec::with_capacity(len);
    while buffer.len() < len {
        let filled = buffer.len();
        let (result, slice) = file.read_at(buffer.slice(filled..len), position + filled as u64).await;
        buffer = slice.into_inner();
        match result {
            Ok(0) => break,
            Ok(_) => {}
            Err(again) if again.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), buffer),
        }
    }
    (Ok(()), buffer)
}

/// Writes everything; the kernel may take it in pieces.
pub(super) async fn write<T: IoBuf>(file: &File, position: u64, mut data: T) -> (io::Result<()>, T) {
    let len = data.bytes_init();
    let mut written = 0;
    while written < len {
        let at = position + written as u64;
        let (result, slice) = file.write_at(data.slice(written..len), at).submit().await;
        data = slice.into_inner();
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), data),
            Ok(more) => written += more,
            Err(again) if again.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), data),
        }
    }
    (Ok(()), data)
}

/// Runs `body` on a ring of this thread, and returns when every operation that it started is done.
pub(super) fn run<F: Future>(body: impl FnOnce(Operations) -> F) -> io::Result<F::Output> {
    let guard = AbortOnUnwind;
    let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES))?;
    let operations = Operations::default();
    let output = runtime.block_on(async {
        let output = body(operations.clone()).await;
        operations.drained().await;
        output
    });
    drop(runtime);
    drop(guard);
    Ok(output)
}

/// Unwinding through a ring's runtime would free what the kernel still writes to or from.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a panic on a ring thread with operations in flight: the process ends");
            std::process::abort();
        }
    }
}

/// The operations of one ring, each a task of its own.
#[derive(Clone, Default)]
pub(super) struct Operations {
    shared: Rc<OperationInFlight>,
}

#[derive(Default)]
struct OperationInFlight {
    count: Cell<usize>,
    drained: RefCell<Option<Waker>>,
}

impl Operations {
    pub(super) fn start(&self, operation: impl Future<Output = ()> + 'static) {
        self.shared.count.set(self.shared.count.get() + 1);
        let one = One(self.shared.clone());
        drop(tokio_uring::spawn(async move {
            operation.await;
            drop(one);
        }));
    }

    /// Waits until nothing is in flight.
    async fn drained(&self) {
        poll_fn(|cx| {
            if self.shared.count.get() == 0 {
                return Poll::Ready(());
            }
            *self.shared.drained.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

struct One(Rc<OperationInFlight>);

impl Drop for One {
    fn drop(&mut self) {
        // Ended by a panic, and not by the kernel: see `AbortOnUnwind`.
        drop(AbortOnUnwind);
        self.0.count.set(self.0.count.get() - 1);
        if let Some(waiting) = self.0.drained.take() {
            waiting.wake();
        }
    }
}
