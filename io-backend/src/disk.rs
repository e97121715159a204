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
    /// In order: `class as usize` is the place of a class in it.
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
    /// In words: `open`, `write`, `fdatasync`.
    pub operation: &'static str,
    /// The file or directory it was done to.
    pub path: PathBuf,
    /// The system's reason, or `TimedOut` for a waiter that gave up.
    pub source: io::Error,
}

impl DiskError {
    /// What became of an operation on a path.
    pub fn new(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> DiskError {
        DiskError { operation, path: path.into(), source }
    }

    /// The kind of the system's reason.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Whether the waiter gave up: the operation may still complete.
    pub fn timed_out(&self) -> bool {
        self.kind() == io::ErrorKind::TimedOut
    }

    /// Whether there is no space, or none for this user: later there may be some.
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

/// What a disk operation comes to.
pub type DiskResult<T> = Result<T, DiskError>;

/// How a file is opened. Files are always readable and, unless `read_only`, writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenHow {
    /// Must exist. Writing it, or setting its length, fails.
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
    /// The last component of its path.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes in a file; of no meaning for a directory.
    pub len: u64,
}

/// What a volume holds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it, used or not.
    pub total: u64,
    /// What this process may still use.
    pub usable: u64,
}

/// The node's file system. For everything but the journal's commit path.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file of this disk.
    type File: File;
    /// The same disk for a dedicated loop.
    type Dedicated: DedicatedDisk;

    /// The same disk, for what commits wait for: its operations, and those of files opened through it, are of
    /// [`DiskClass::Prepare`].
    fn preparing(&self) -> Self;
    /// Opens a file in the way `how`, in one step: nobody comes between the look and the making.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete. `NotFound` and `AlreadyExists` are what `how` says; [`DiskError::lacks_descriptors`] is over
    /// when something is closed.
    #[track_caller]
    fn open(
        &self,
        path: &Path,
        how: OpenHow,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<Self::File>> + Send;
    /// Makes the directory and its missing parents; no error when it is there.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete.
    #[track_caller]
    fn create_dir_all(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
    /// Sorted by name.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete.
    #[track_caller]
    fn read_dir(
        &self,
        path: &Path,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<Vec<DirEntry>>> + Send;
    /// Replaces `to` when it is there, atomically.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete. Nothing has changed when the name is not there.
    #[track_caller]
    fn rename(
        &self,
        from: &Path,
        to: &Path,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<()>> + Send;
    /// Removes a file's name. Who has the file open keeps it.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete. `NotFound` when it is not there.
    #[track_caller]
    fn remove_file(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
    /// Removes a directory with all that is in it; no error when it is missing.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete. Some of it may be gone.
    #[track_caller]
    fn remove_dir_all(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
    /// Makes creates, renames and removes in this directory durable.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete. What was to be durable may be so in part.
    #[track_caller]
    fn sync_dir(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
    /// Takes the directory for this process alone, until the process ends. `WouldBlock` when a process
    /// has it, be it this one.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete.
    #[track_caller]
    fn lock_dir(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
    /// Of the volume that a directory is on.
    #[track_caller]
    fn space(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<Space>> + Send;
}

/// An open file; clones share it.
pub trait File: Clone + Send + Sync + 'static {
    /// The path it was opened by.
    fn path(&self) -> &Path;
    /// Up to `len` bytes from `position`; fewer only where the file ends.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete.
    #[track_caller]
    fn read_at(
        &self,
        position: u64,
        len: usize,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<Bytes>> + Send;
    /// Writes all of `data` at `position`.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete. Some first part of the data may be there; [`DiskError::is_full`] when there is no room for
    /// all of it.
    #[track_caller]
    fn write_at(
        &self,
        position: u64,
        data: Bytes,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<()>> + Send;
    /// `fdatasync`.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete. Final: see the [module](self).
    #[track_caller]
    fn sync(&self, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
    /// Bytes in the file now.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete.
    #[track_caller]
    fn len(&self, deadline: Deadline) -> impl Future<Output = DiskResult<u64>> + Send;
    /// Cuts the file, or extends it with zeros, to `len` bytes.
    ///
    /// # Errors
    /// Any error of the system, with `TimedOut` when the deadline passed first: the operation may still
    /// complete. [`DiskError::is_full`] when there is no room.
    #[track_caller]
    fn set_len(&self, len: u64, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send;
}

/// The disk of a dedicated loop: operations run inline (a plain thread blocks in them) or on the loop's
/// own ring. They carry no deadline, since a blocked thread could not see it pass: their age in
/// the registry is watched instead.
pub trait DedicatedDisk: 'static {
    /// An open file of this disk.
    type File: DedicatedFile;
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// Any error of the system; it must be there.
    #[track_caller]
    fn open(&self, path: &Path) -> impl Future<Output = DiskResult<Self::File>>;
}

/// An open file of a dedicated loop. A buffer that is written is given back, whatever came of it.
pub trait DedicatedFile: 'static {
    /// The path it was opened by.
    fn path(&self) -> &Path;
    /// Writes all of `data` at `position` without syncing; gives the buffer back for reuse.
    ///
    /// # Errors
    /// Any error of the system. Some first part of the data may be there.
    #[track_caller]
    fn write_at(&self, position: u64, data: Vec<u8>) -> impl Future<Output = (DiskResult<()>, Vec<u8>)>;
    /// Writes all of `data` and syncs it: `Ok` means durable. One operation where the system has one.
    ///
    /// # Errors
    /// Any error of the system. Final: what of the data is there, and durable, is not known.
    #[track_caller]
    fn write_durable(&self, position: u64, data: Vec<u8>) -> impl Future<Output = (DiskResult<()>, Vec<u8>)>;
    /// `fdatasync`.
    ///
    /// # Errors
    /// Any error of the system. Final: see the [module](self).
    #[track_caller]
    fn sync(&self) -> impl Future<Output = DiskResult<()>>;
}
