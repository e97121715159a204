//! A backend whose disk or network leaves something out and says that it was done.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use io_backend::disk::{DirEntry, DiskResult};
use io_backend::{
    Backend, Clock, Deadline, DedicatedDisk, DedicatedFile, DedicatedLoop, Disk, ExitStatus, File, Moment,
    OpenHow, Pressure, Registry, Seam, TaskHandle, TaskName,
};

use super::empty_fetches::LyingNetwork;
use crate::world::{SimBackend, SimDedicatedDisk, SimDedicatedFile, SimDisk, SimFile, SimTimer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    DirectoriesNotSynced,
    NothingSynced,
    FetchesEmptied,
}

#[derive(Clone)]
pub struct LyingBackend {
    inner: SimBackend,
    disk: LyingDisk,
    network: LyingNetwork,
}

impl LyingBackend {
    pub fn new(inner: SimBackend, lie: Lie) -> LyingBackend {
        let empties_fetches = lie == Lie::FetchesEmptied;
        let network = LyingNetwork { inner: inner.network().clone(), empties_fetches };
        LyingBackend { disk: LyingDisk { inner: inner.disk().clone(), lie }, network, inner }
    }
}

impl Clock for LyingBackend {
    type Timer = SimTimer;

    fn now(&self) -> Moment {
        self.inner.now()
    }

    fn timer(&self, at: Moment) -> SimTimer {
        self.inner.timer(at)
    }
}

impl Backend for LyingBackend {
    type Disk = LyingDisk;
    type Network = LyingNetwork;

    fn disk(&self) -> &LyingDisk {
        &self.disk
    }

    fn network(&self) -> &LyingNetwork {
        &self.network
    }

    fn wall_ms(&self) -> i64 {
        self.inner.wall_ms()
    }

    fn random_u64(&self) -> u64 {
        self.inner.random_u64()
    }

    fn registry(&self) -> &Arc<Registry> {
        self.inner.registry()
    }

    fn spawn<F>(&self, name: impl Into<TaskName>, future: F) -> TaskHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.inner.spawn(name, future)
    }

    fn spawn_dedicated<L: DedicatedLoop<Self>>(&self, name: impl Into<TaskName>, body: L) -> TaskHandle {
        self.inner.spawn_dedicated(name, Adapted { body, lie: self.disk.lie })
    }

    fn pressure(&self, seam: Seam<'_>) -> Pressure {
        self.inner.pressure(seam)
    }

    fn exit(&self, status: ExitStatus, why: &str) {
        self.inner.exit(status, why);
    }
}

struct Adapted<L> {
    body: L,
    lie: Lie,
}

impl<L: DedicatedLoop<LyingBackend>> DedicatedLoop<SimBackend> for Adapted<L> {
    async fn run(self, disk: SimDedicatedDisk) {
        self.body.run(LyingDedicatedDisk { inner: disk, lie: self.lie }).await;
    }
}

#[derive(Clone)]
pub struct LyingDisk {
    inner: SimDisk,
    lie: Lie,
}

impl Disk for LyingDisk {
    type File = LyingFile;
    type Dedicated = LyingDedicatedDisk;

    fn preparing(&self) -> LyingDisk {
        LyingDisk { inner: self.inner.preparing(), lie: self.lie }
    }

    async fn open(&self, path: &Path, how: OpenHow, deadline: Deadline) -> DiskResult<LyingFile> {
        Ok(LyingFile { inner: self.inner.open(path, how, deadline).await?, lie: self.lie })
    }

    async fn create_dir_all(&self, path: &Path, deadline: Deadline) -> DiskResult<()> {
        self.inner.create_dir_all(path, deadline).await
    }

    async fn read_dir(&self, path: &Path, deadline: Deadline) -> DiskResult<Vec<DirEntry>> {
        self.inner.read_dir(path, deadline).await
    }

    async fn rename(&self, from: &Path, to: &Path, deadline: Deadline) -> DiskResult<()> {
        self.inner.rename(from, to, deadline).await
    }

    async fn remove_file(&self, path: &Path, deadline: Deadline) -> DiskResult<()> {
        self.inner.remove_file(path, deadline).await
    }

    async fn remove_dir_all(&self, path: &Path, deadline: Deadline) -> DiskResult<()> {
        self.inner.remove_dir_all(path, deadline).await
    }

    async fn sync_dir(&self, path: &Path, deadline: Deadline) -> DiskResult<()> {
        match self.lie {
            // A disk that syncs nothing syncs no names either.
            Lie::DirectoriesNotSynced | Lie::NothingSynced => Ok(()),
            Lie::FetchesEmptied => self.inner.sync_dir(path, deadline).await,
        }
    }

    async fn lock_dir(&self, path: &Path, deadline: Deadline) -> DiskResult<()> {
        self.inner.lock_dir(path, deadline).await
    }
}

#[derive(Clone)]
pub struct LyingFile {
    inner: SimFile,
    lie: Lie,
}

impl File for LyingFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    async fn read_at(&self, position: u64, len: usize, deadline: Deadline) -> DiskResult<Bytes> {
        self.inner.read_at(position, len, deadline).await
    }

    async fn write_at(&self, position: u64, data: Bytes, deadline: Deadline) -> DiskResult<()> {
        self.inner.write_at(position, data, deadline).await
    }

    async fn sync(&self, deadline: Deadline) -> DiskResult<()> {
        match self.lie {
            Lie::NothingSynced => Ok(()),
            Lie::DirectoriesNotSynced | Lie::FetchesEmptied => self.inner.sync(deadline).await,
        }
    }

    async fn len(&self, deadline: Deadline) -> DiskResult<u64> {
        self.inner.len(deadline).await
    }

    async fn set_len(&self, len: u64, deadline: Deadline) -> DiskResult<()> {
        self.inner.set_len(len, deadline).await
    }
}

pub struct LyingDedicatedDisk {
    inner: SimDedicatedDisk,
    lie: Lie,
}

impl DedicatedDisk for LyingDedicatedDisk {
    type File = LyingDedicatedFile;

    async fn open(&self, path: &Path) -> DiskResult<LyingDedicatedFile> {
        Ok(LyingDedicatedFile { inner: self.inner.open(path).await?, lie: self.lie })
    }
}

pub struct LyingDedicatedFile {
    inner: SimDedicatedFile,
    lie: Lie,
}

impl DedicatedFile for LyingDedicatedFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    async fn write_at(&self, position: u64, data: Vec<u8>) -> (DiskResult<()>, Vec<u8>) {
        self.inner.write_at(position, data).await
    }

    async fn write_durable(&self, position: u64, data: Vec<u8>) -> (DiskResult<()>, Vec<u8>) {
        match self.lie {
            Lie::NothingSynced => self.inner.write_at(position, data).await,
            Lie::DirectoriesNotSynced | Lie::FetchesEmptied => self.inner.write_durable(position, data).await,
        }
    }

    async fn sync(&self) -> DiskResult<()> {
        match self.lie {
            Lie::NothingSynced => Ok(()),
            Lie::DirectoriesNotSynced | Lie::FetchesEmptied => self.inner.sync().await,
        }
    }
}
