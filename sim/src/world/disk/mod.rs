//! The simulated disk, seen from a process.
//!
//! Operations begin at their first poll and go on in the [`device`] whoever waits; waits have deadlines and
//! entries in the registry like on any other backend. The dedicated loop's disk is the same disk.

mod device;
mod file;
mod image;
mod markers;
mod names;
mod operation;
mod pages;
mod perform;
mod permits;

use std::future::{Future, poll_fn};
use std::io;
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use io_backend::disk::{DirEntry, DiskClass, DiskResult};
use io_backend::time::within;
use io_backend::{Backend, Deadline, DedicatedDisk, DedicatedFile, Disk, DiskError, File, OpenHow};

pub use device::{Device, DeviceCounts, JournalFailure};
pub use markers::MarkerTimes;
pub use operation::SyncRecord;
pub use pages::Pages;
pub(super) use permits::Permits;

use super::alloc;
use super::backend::SimBackend;
use super::process::Process;
use names::Inode;
use operation::{Handle, Output, Target, Waiter, Work};
use permits::Permit;

/// A process's view of its machine's disk.
#[derive(Clone)]
pub struct SimDisk {
    process: Arc<Process>,
    /// The class of all operations; none means what each of them is.
    class: Option<DiskClass>,
}

impl SimDisk {
    pub(super) fn new(process: &Arc<Process>) -> SimDisk {
        SimDisk { process: process.clone(), class: None }
    }

    async fn run(
        &self,
        target: &Target,
        work: Work,
        deadline: Option<Deadline>,
        site: &'static Location<'static>,
    ) -> DiskResult<Output> {
        let what = work.name();
        let result = match deadline {
            // A dedicated loop's thread is in the operation itself: there is no other wait to enter.
            None => self.operate(target, work, site, None).await,
            Some(deadline) => self.operate_within(target, work, deadline, site).await,
        };
        result.map_err(|source| DiskError::new(what, target.path.to_path_buf(), source))
    }

    fn operate(
        &self,
        target: &Target,
        work: Work,
        site: &'static Location<'static>,
        permit: Option<Permit>,
    ) -> impl Future<Output = io::Result<Output>> + use<> {
        let waiter = Waiter(self.process.machine.disk.begin(&self.process, target, work, site, permit));
        poll_fn(move |cx| waiter.0.poll(cx))
    }

    /// Waits for a permit, then for the operation, both until the deadline.
    async fn operate_within(
        &self,
        target: &Target,
        work: Work,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> io::Result<Output> {
        let (kind, what) = (work.kind(), work.name());
        let backend = SimBackend::new(self.process.clone());
        let waiting = || {
            let wait = backend.registry().waiting(&backend, kind, what, site).on(target.text.clone());
            if matches!(deadline, Deadline::Unbounded(_)) { wait.unbounded() } else { wait }
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "deadline passed");
        let permits = &self.process.disk_permits[self.class.unwrap_or(work.class()) as usize];
        let permit = match permits.try_acquire() {
            Some(permit) => permit,
            None => {
                let acquire = permits.acquire();
                within(&backend, deadline, waiting().during(acquire)).await.map_err(late)?
            }
        };
        let done = self.operate(target, work, site, Some(permit));
        within(&backend, deadline, waiting().during(done)).await.map_err(late)?
    }

    async fn done(
        &self,
        path: &Path,
        work: Work,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> DiskResult<()> {
        self.run(&Target::new(path), work, Some(deadline), site).await.map(|_| ())
    }

    fn opened(&self, target: Target, how: OpenHow, output: Output) -> SimFile {
        let Output::Opened(handle) = output else {
            unreachable!("an open that succeeds leaves a handle");
        };
        let read_only = how == OpenHow::ReadOnly;
        SimFile {
            disk: self.clone(),
            open: Arc::new(Open { inode: handle.inode, _handle: handle, target, read_only }),
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Dedicated = SimDedicatedDisk;

    fn preparing(&self) -> SimDisk {
        SimDisk { class: Some(DiskClass::Prepare), ..self.clone() }
    }

    #[track_caller]
    fn open(
        &self,
        path: &Path,
        how: OpenHow,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<SimFile>> + Send {
        let site = Location::caller();
        let target = Target::new(path);
        async move {
            let output = self.run(&target, Work::Open(how), Some(deadline), site).await?;
            Ok(self.opened(target, how, output))
        }
    }

    #[track_caller]
    fn create_dir_all(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        self.done(path, Work::CreateDirAll, deadline, Location::caller())
    }

    #[track_caller]
    fn read_dir(
        &self,
        path: &Path,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<Vec<DirEntry>>> + Send {
        let site = Location::caller();
        async move {
            match self.run(&Target::new(path), Work::ReadDir, Some(deadline), site).await? {
                Output::Entries(entries) => Ok(entries),
                _ => Ok(Vec::new()),
            }
        }
    }

    #[track_caller]
    fn rename(
        &self,
        from: &Path,
        to: &Path,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<()>> + Send {
        self.done(from, Work::Rename(to.to_owned()), deadline, Location::caller())
    }

    #[track_caller]
    fn remove_file(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        self.done(path, Work::RemoveFile, deadline, Location::caller())
    }

    #[track_caller]
    fn remove_dir_all(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        self.done(path, Work::RemoveDirAll, deadline, Location::caller())
    }

    #[track_caller]
    fn sync_dir(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        self.done(path, Work::SyncDir, deadline, Location::caller())
    }

    #[track_caller]
    fn lock_dir(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        self.done(path, Work::LockDir, deadline, Location::caller())
    }
}

/// An open file of a process.
#[derive(Clone)]
pub struct SimFile {
    disk: SimDisk,
    open: Arc<Open>,
}

struct Open {
    inode: Inode,
    _handle: Handle,
    target: Target,
    read_only: bool,
}

impl SimFile {
    async fn run(
        &self,
        work: Work,
        deadline: Option<Deadline>,
        site: &'static Location<'static>,
    ) -> DiskResult<Output> {
        if self.open.read_only && !matches!(work, Work::Read { .. } | Work::Len { .. } | Work::Sync { .. }) {
            let refused = std::io::Error::from_raw_os_error(libc::EBADF);
            return Err(DiskError::new(work.name(), self.open.target.path.to_path_buf(), refused));
        }
        self.disk.run(&self.open.target, work, deadline, site).await
    }
}

impl File for SimFile {
    fn path(&self) -> &Path {
        &self.open.target.path
    }

    #[track_caller]
    fn read_at(
        &self,
        position: u64,
        len: usize,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<Bytes>> + Send {
        let site = Location::caller();
        async move {
            let work = Work::Read { inode: self.open.inode, position, len };
            match self.run(work, Some(deadline), site).await? {
                Output::Bytes(bytes) => Ok(bytes),
                _ => Ok(Bytes::new()),
            }
        }
    }

    #[track_caller]
    fn write_at(
        &self,
        position: u64,
        data: Bytes,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<()>> + Send {
        let site = Location::caller();
        let work = Work::Write { inode: self.open.inode, position, data };
        async move { self.run(work, Some(deadline), site).await.map(|_| ()) }
    }

    #[track_caller]
    fn sync(&self, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        let site = Location::caller();
        let work = Work::Sync { inode: self.open.inode };
        async move { self.run(work, Some(deadline), site).await.map(|_| ()) }
    }

    #[track_caller]
    fn len(&self, deadline: Deadline) -> impl Future<Output = DiskResult<u64>> + Send {
        let site = Location::caller();
        let work = Work::Len { inode: self.open.inode };
        async move {
            match self.run(work, Some(deadline), site).await? {
                Output::Len(len) => Ok(len),
                _ => Ok(0),
            }
        }
    }

    #[track_caller]
    fn set_len(&self, len: u64, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        let site = Location::caller();
        let work = Work::SetLen { inode: self.open.inode, len };
        async move { self.run(work, Some(deadline), site).await.map(|_| ()) }
    }
}

/// The same disk for a dedicated loop.
pub struct SimDedicatedDisk {
    disk: SimDisk,
}

impl SimDedicatedDisk {
    pub(super) fn new(process: &Arc<Process>) -> SimDedicatedDisk {
        SimDedicatedDisk { disk: SimDisk::new(process) }
    }
}

impl DedicatedDisk for SimDedicatedDisk {
    type File = SimDedicatedFile;

    #[track_caller]
    fn open(&self, path: &Path) -> impl Future<Output = DiskResult<SimDedicatedFile>> {
        let site = Location::caller();
        let target = Target::new(path);
        async move {
            let output = self.disk.run(&target, Work::Open(OpenHow::Existing), None, site).await?;
            Ok(SimDedicatedFile { file: self.disk.opened(target, OpenHow::Existing, output) })
        }
    }
}

/// The caller keeps its buffer; what the disk works with is the world's.
fn handed_over(data: &[u8]) -> Bytes {
    let _world = alloc::as_world();
    Bytes::copy_from_slice(data)
}

pub struct SimDedicatedFile {
    file: SimFile,
}

impl DedicatedFile for SimDedicatedFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    #[track_caller]
    fn write_at(&self, position: u64, data: Vec<u8>) -> impl Future<Output = (DiskResult<()>, Vec<u8>)> {
        let site = Location::caller();
        let bytes = handed_over(&data);
        let work = Work::Write { inode: self.file.open.inode, position, data: bytes };
        async move { (self.file.run(work, None, site).await.map(|_| ()), data) }
    }

    #[track_caller]
    fn write_durable(&self, position: u64, data: Vec<u8>) -> impl Future<Output = (DiskResult<()>, Vec<u8>)> {
        let site = Location::caller();
        let bytes = handed_over(&data);
        let work = Work::WriteDurable { inode: self.file.open.inode, position, data: bytes };
        async move { (self.file.run(work, None, site).await.map(|_| ()), data) }
    }

    #[track_caller]
    fn sync(&self) -> impl Future<Output = DiskResult<()>> {
        let site = Location::caller();
        let work = Work::Sync { inode: self.file.open.inode };
        async move { self.file.run(work, None, site).await.map(|_| ()) }
    }
}
