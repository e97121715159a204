//! The disk: named files in directories, read and written at positions.
//!
//! What a crash keeps (the contract every implementation and every caller goes by):
//! - `write_at` that returned has reached the kernel, not the medium. After a power loss any part of it
//!   may be there, in any order, torn at 512-byte sectors; after a mere `kill -9` all of it is there.
//! - `sync` that returned `Ok` covers every write to that file that had *returned* before it was called,
//!   and the file's length. Writes still running are not covered.
//! - A create, rename or remove is durable only after `sync_dir` of its directory returned.
//! - A failed `sync` is final: the kernel may have dropped the pages and a second call may lie. The file
//!   must not be written or synced again.
//! - A deadline that passes ends the *wait* with [`std::io::ErrorKind::TimedOut`]; the operation goes on,
//!   its buffer and descriptor stay alive until it is done, its entry in the registry stays until then,
//!   and its end is counted as a late completion.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::registry::WaitKind;
use crate::time::Deadline;

/// What an operation is for. Each class has a budget of its own, so that operations that hang in one, and keep
/// their place until the kernel answers, hold up none of the others. A dedicated loop's have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskClass {
    /// Reads, and opening a file for reading only.
    Read,
    /// Writes and syncs of files.
    Write,
    /// Everything that works on names or lengths.
    Name,
    /// Everything through [`Disk::preparing`].
    Prepare,
}

impl DiskClass {
    pub const ALL: [DiskClass; 4] = [DiskClass::Read, DiskClass::Write, DiskClass::Name, DiskClass::Prepare];

    /// Of an operation that says no more than what it waits for.
    pub const fn of(kind: WaitKind) -> DiskClass {
        match kind {
            WaitKind::DiskRead => DiskClass::Read,
            WaitKind::DiskWrite | WaitKind::DiskSync => DiskClass::Write,
            _ => DiskClass::Name,
        }
    }

    /// Of opening a file. What is opened for reading only waits on the device that is then read.
    pub const fn of_open(how: OpenHow) -> DiskClass {
        match how {
            OpenHow::ReadOnly => DiskClass::Read,
            OpenHow::Existing | OpenHow::OrCreate | OpenHow::CreateNew => DiskClass::Name,
        }
    }

    /// Operations of a process in flight at once, those whose waiters gave up included.
    pub const fn operations_max(self) -> usize {
        match self {
            DiskClass::Read | DiskClass::Write | DiskClass::Name => 64,
            DiskClass::Prepare => 8,
        }
    }
}

/// Of all classes together: fewer than a ring's completion queue and than a pool of threads holds, so neither overflows.
pub const OPERATIONS_MAX: usize = {
    let (mut class, mut sum) = (0, 0);
    while class < DiskClass::ALL.len() {
        sum += DiskClass::ALL[class].operations_max();
        class += 1;
    }
    sum
};

/// An operation failed: which, on what, and the system's reason.
#[derive(Debug)]
pub struct DiskError {
    pub operation: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl DiskError {
    pub fn new(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> DiskError {
        DiskError { operation, path: path.into(), source }
    }

    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    pub fn timed_out(&self) -> bool {
        self.kind() == io::ErrorKind::TimedOut
    }

    pub fn is_full(&self) -> bool {
        matches!(self.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the process, or the whole system, has no descriptor left: later there may be one, and the file is as
    /// good as before.
    pub fn lacks_descriptors(&self) -> bool {
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        matches!(self.source.raw_os_error(), Some(ENFILE | EMFILE))
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.path.display(), self.source)
    }
}

impl std::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

pub type DiskResult<T> = Result<T, DiskError>;

/// How a file is opened. Files are always readable and, unless `read_only`, writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenHow {
    ReadOnly,
    /// Must exist.
    Existing,
    /// Made when missing, kept when there.
    OrCreate,
    /// Must not exist.
    CreateNew,
}

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
    pub len: u64,
}

/// The node's file system. For everything but the journal's commit path.
pub trait Disk: Clone + Send + Sync + 'static {
    type File: File;
    type Dedicated: DedicatedDisk;

    /// The same disk, for what commits wait for: its operations, and those of files opened through it, are of
    /// [`DiskClass::Prepare`].
    fn preparing(&self) -> Self;
    #[track_caller]
    fn open(
        &self,
        path: &Path,
        how: OpenHow,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<Self::File>> + Send;
    /// Makes the directory and its missing parents; no error when it is there.
    #[track_caller]
    fn create_dir_all(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
    /// Sorted by name.
    #[track_caller]
    fn read_dir(
        &self,
        path: &Path,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<Vec<DirEntry>>> + Send;
    /// Replaces `to` when it is there, atomically.
    #[track_caller]
    fn rename(
        &self,
        from: &Path,
        to: &Path,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<()>> + Send;
    #[track_caller]
    fn remove_file(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
    /// Removes a directory with all that is in it; no error when it is missing.
    #[track_caller]
    fn remove_dir_all(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
    /// Makes creates, renames and removes in this directory durable.
    #[track_caller]
    fn sync_dir(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
    /// Takes the directory for this process alone, until the process ends. `WouldBlock` when a process
    /// has it, be it this one.
    #[track_caller]
    fn lock_dir(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
}

/// An open file; clones share it.
pub trait File: Clone + Send + Sync + 'static {
    fn path(&self) -> &Path;
    /// Up to `len` bytes from `position`; fewer only where the file ends.
    #[track_caller]
    fn read_at(
        &self,
        position: u64,
        len: usize,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<Bytes>> + Send;
    /// Writes all of `data` at `position`.
    #[track_caller]
    fn write_at(
        &self,
        position: u64,
        data: Bytes,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<()>> + Send;
    /// `fdatasync`.
    #[track_caller]
    fn sync(&self, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
    #[track_caller]
    fn len(&self, deadline: Deadline) -> impl Future<Output = DiskResult<u64>> + Send;
    #[track_caller]
    fn set_len(&self, len: u64, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
}

/// The disk of a dedicated loop: operations run inline (a plain thread blocks in them) or on the loop's
/// own ring. They carry no deadline, since a blocked thread could not see it pass: their age in
/// the registry is watched instead.
pub trait DedicatedDisk: 'static {
    type File: DedicatedFile;
    /// Opens an existing file for reading and writing.
    #[track_caller]
    fn open(&self, path: &Path) -> impl Future<Output = DiskResult<Self::File>>;
}

pub trait DedicatedFile: 'static {
    fn path(&self) -> &Path;
    /// Writes all of `data` at `position` without syncing; gives the buffer back for reuse.
    #[track_caller]
    fn write_at(&self, position: u64, data: Vec<u8>) -> impl Future<Output = (DiskResult<()>, Vec<u8>)>;
    /// Writes all of `data` and syncs it: `Ok` means durable. One operation where the system has one.
    #[track_caller]
    fn write_durable(&self, position: u64, data: Vec<u8>) -> impl Future<Output = (DiskResult<()>, Vec<u8>)>;
    /// `fdatasync`.
    #[track_caller]
    fn sync(&self) -> impl Future<Output = DiskResult<()>>;
}
