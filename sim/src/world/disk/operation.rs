//! What is asked of a disk, what comes back, and the cell in which a waiter finds it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use io_backend::disk::{DirEntry, DiskClass};
use io_backend::{OpenHow, WaitKind};

use super::image::Image;
use super::names::Inode;
use crate::fault::Operation;
use crate::world::descriptors::Descriptor;
use crate::world::lock;

#[derive(Clone, Debug)]
pub enum Work {
    Read {
        inode: Inode,
        position: u64,
        len: usize,
    },
    Write {
        inode: Inode,
        position: u64,
        data: Bytes,
    },
    /// A write and the sync of it in one call.
    WriteDurable {
        inode: Inode,
        position: u64,
        data: Bytes,
    },
    Sync {
        inode: Inode,
    },
    Len {
        inode: Inode,
    },
    SetLen {
        inode: Inode,
        len: u64,
    },
    Open(OpenHow),
    CreateDirAll,
    ReadDir,
    Rename(PathBuf),
    RemoveFile,
    RemoveDirAll,
    SyncDir,
    LockDir,
}

pub enum Output {
    Done,
    Bytes(Bytes),
    Opened(Handle),
    Len(u64),
    Entries(Vec<DirEntry>),
}

/// Where a file that was opened is closed.
pub trait Closes: Send + Sync {
    fn close(&self, inode: Inode);
}

/// A file that is open, be it that nobody waits for it any more: dropping it closes it, so it is dropped with no
/// lock held.
pub struct Handle {
    pub of: Arc<dyn Closes>,
    pub inode: Inode,
    pub _descriptor: Descriptor,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.of.close(self.inode);
    }
}

impl Work {
    pub fn name(&self) -> &'static str {
        match self {
            Work::Read { .. } => "read",
            Work::Write { .. } => "write",
            Work::WriteDurable { .. } => "write and fdatasync",
            Work::Sync { .. } => "fdatasync",
            Work::Len { .. } => "ask the length of",
            Work::SetLen { .. } => "set the length of",
            Work::Open(_) => "open",
            Work::CreateDirAll => "create directory",
            Work::ReadDir => "list",
            Work::Rename(_) => "rename",
            Work::RemoveFile => "remove",
            Work::RemoveDirAll => "remove directory",
            Work::SyncDir => "sync directory",
            Work::LockDir => "lock directory",
        }
    }

    pub fn kind(&self) -> WaitKind {
        match self {
            Work::Read { .. } => WaitKind::DiskRead,
            Work::Write { .. } => WaitKind::DiskWrite,
            Work::Sync { .. } | Work::WriteDurable { .. } => WaitKind::DiskSync,
            _ => WaitKind::DiskName,
        }
    }

    pub fn class(&self) -> DiskClass {
        match self {
            Work::Open(how) => DiskClass::of_open(*how),
            other => DiskClass::of(other.kind()),
        }
    }

    /// Classes of operation that it counts as for faults, in the order in which they happen.
    pub fn operations(&self) -> &'static [Operation] {
        match self {
            Work::Read { .. } => &[Operation::Read],
            Work::Write { .. } => &[Operation::Write],
            Work::WriteDurable { .. } => &[Operation::Write, Operation::Sync],
            Work::Sync { .. } => &[Operation::Sync],
            Work::Open(_) => &[Operation::Open],
            _ => &[Operation::Name],
        }
    }

    /// Nanoseconds that a real disk usually takes beside moving the data; `sync` is what a sync takes.
    pub fn usual_latency(&self, sync: u64) -> u64 {
        match self {
            Work::Read { .. } => 80_000,
            // Goes to the page cache.
            Work::Write { data, .. } => 20_000 + data.len() as u64 / 10,
            Work::WriteDurable { .. } => sync + 5_000,
            Work::Sync { .. } => sync,
            Work::Len { .. } => 2_000,
            Work::SetLen { .. } | Work::LockDir => 15_000,
            Work::Open(_) | Work::ReadDir | Work::CreateDirAll => 20_000,
            Work::Rename(_) | Work::RemoveFile | Work::RemoveDirAll => 30_000,
            Work::SyncDir => sync + 20_000,
        }
    }

    /// Bytes that the device has to move for it, after all that it was given before; none when the page cache or
    /// the file system's memory answers.
    pub fn transfer(&self, image: &Image) -> Option<u64> {
        let dirty = |inode: &Inode| image.file(*inode).map_or(0, |file| file.unsynced_bytes());
        match self {
            Work::Read { inode, position, len } => {
                let there = image.file(*inode).map_or(0, |file| file.current().len());
                Some(there.saturating_sub(*position).min(*len as u64))
            }
            Work::WriteDurable { inode, data, .. } => Some(dirty(inode) + data.len() as u64),
            Work::Sync { inode } => Some(dirty(inode)),
            // The flush comes after what is on its way.
            Work::SyncDir => Some(0),
            _ => None,
        }
    }
}

/// Where the result of an operation is left. Its waiter may have gone.
#[derive(Default)]
pub struct Outlet(Mutex<OutletState>);

#[derive(Default)]
struct OutletState {
    result: Option<io::Result<Output>>,
    waker: Option<Waker>,
    abandoned: bool,
}

impl Outlet {
    /// Leaves the result and wakes the waiter. False when nobody waits any more.
    pub fn put(&self, result: io::Result<Output>) -> bool {
        let mut state = lock(&self.0);
        state.result = Some(result);
        let abandoned = state.abandoned;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        !abandoned
    }

    pub fn poll(&self, cx: &Context<'_>) -> Poll<io::Result<Output>> {
        let mut state = lock(&self.0);
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The waiter's end; dropping it leaves the operation to itself.
pub struct Waiter(pub Arc<Outlet>);

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0);
        state.abandoned = true;
        state.waker = None;
    }
}

/// What a sync did or did not make durable, for checkers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRecord {
    pub path: PathBuf,
    pub began: u64,
    pub ended: u64,
    pub ok: bool,
    /// Position and length of each write covered.
    pub ranges: Vec<(u64, u64)>,
}

/// What an operation is done to: a path, and the same as text for the registry, made once per file.
#[derive(Clone)]
pub struct Target {
    pub path: Arc<Path>,
    pub text: Arc<str>,
}

impl Target {
    pub fn new(path: &Path) -> Target {
        Target { path: Arc::from(path), text: Arc::from(path.to_string_lossy().as_ref()) }
    }

    /// Whether the last part of the path contains `part`.
    pub fn is_named(&self, part: &str) -> bool {
        self.path.file_name().is_some_and(|name| name.to_string_lossy().contains(part))
    }
}
