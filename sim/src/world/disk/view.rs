//! A machine's disk as a process sees it: operations with deadlines, on names and on open files.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use io_backend::disk::{DirEntry, DiskClass, DiskResult, Space};
use io_backend::time::within;
use io_backend::{Deadline, DedicatedDisk, DedicatedFile, Disk, DiskError, File, OpenHow};

use super::device::Device;
use super::names::Inode;
use super::operation::{Handle, Output, Target, Waiter, Work};
use crate::world::alloc;
use crate::world::permits::Permit;
use crate::world::process::Process;
use crate::world::timer::SimClock;

/// Syncs that are reported as done and are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SkippedSyncs {
    #[default]
    None,
    OfDirectories,
    /// Of files whose names, as they were opened, contain this.
    OfFilesNamed(&'static str),
    All,
}

/// A process's view of its machine's disk.
#[derive(Clone)]
pub struct SimDisk {
    process: Arc<Process>,
    skipped: SkippedSyncs,
    device: Arc<Device>,
    clock: SimClock,
    /// The class of all operations; none means what each of them is.
    class: Option<DiskClass>,
}

impl SimDisk {
    pub(in crate::world) fn new(process: &Arc<Process>, device: &Arc<Device>) -> SimDisk {
        let clock = SimClock::of(&process.host);
        SimDisk {
            process: process.clone(),
            device: device.clone(),
            clock,
            skipped: SkippedSyncs::None,
            class: None,
        }
    }

    pub(in crate::world) fn skipping(&self, skipped: SkippedSyncs) -> SimDisk {
        SimDisk { skipped, ..self.clone() }
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
        let waiter = Waiter(self.device.begin(&self.process, target, work, site, permit));
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
        let (clock, registry) = (&self.clock, &self.process.registry);
        let waiting = || {
            let wait = registry.waiting(clock, kind, what, site).on(target.text.clone());
            if matches!(deadline, Deadline::Unbounded(_)) { wait.unbounded() } else { wait }
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "deadline passed");
        let permits = &self.process.disk_permits[self.class.unwrap_or(work.class()) as usize];
        let permit = match permits.try_acquire() {
            Some(permit) => permit,
            None => {
                let acquire = permits.acquire();
                within(clock, deadline, waiting().during(acquire)).await.map_err(late)?
            }
        };
        let done = self.operate(target, work, site, Some(permit));
        within(clock, deadline, waiting().during(done)).await.map_err(late)?
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
        let site = Location::caller();
        async move {
            match self.skipped {
                SkippedSyncs::None | SkippedSyncs::OfFilesNamed(_) => {
                    self.done(path, Work::SyncDir, deadline, site).await
                }
                SkippedSyncs::OfDirectories | SkippedSyncs::All => Ok(()),
            }
        }
    }

    #[track_caller]
    fn lock_dir(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        self.done(path, Work::LockDir, deadline, Location::caller())
    }

    #[track_caller]
    fn space(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<Space>> + Send {
        let site = Location::caller();
        async move {
            // It has to find the directory, and takes as long.
            self.run(&Target::new(path), Work::ReadDir, Some(deadline), site).await?;
            Ok(self.device.space())
        }
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
        async move {
            match self.disk.skipped {
                SkippedSyncs::All => Ok(()),
                SkippedSyncs::OfFilesNamed(part) if self.open.target.is_named(part) => Ok(()),
                _ => self.run(work, Some(deadline), site).await.map(|_| ()),
            }
        }
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
    pub(in crate::world) fn new(disk: &SimDisk) -> SimDedicatedDisk {
        SimDedicatedDisk { disk: SimDisk { class: None, ..disk.clone() } }
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
        let inode = self.file.open.inode;
        let work = match self.file.disk.skipped {
            SkippedSyncs::All => Work::Write { inode, position, data: bytes },
            _ => Work::WriteDurable { inode, position, data: bytes },
        };
        async move { (self.file.run(work, None, site).await.map(|_| ()), data) }
    }

    #[track_caller]
    fn sync(&self) -> impl Future<Output = DiskResult<()>> {
        let site = Location::caller();
        let work = Work::Sync { inode: self.file.open.inode };
        async move {
            match self.file.disk.skipped {
                SkippedSyncs::All => Ok(()),
                _ => self.file.run(work, None, site).await.map(|_| ()),
            }
        }
    }
}
