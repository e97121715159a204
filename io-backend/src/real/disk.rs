//! The node's file system: names on tokio's blocking pool; reads, writes and syncs there (`threads`) or on the
//! ring thread (`uring`).
//!
//! Either way an operation belongs to nobody who could drop it: its buffer, its descriptor and its entry
//! travel with it.

use std::io;
use std::os::unix::fs::FileExt;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::core::{Core, Job};
use super::dedicated::RealDedicatedDisk;
use super::kind::DiskKind;
use super::ring::{Ring, RingDescriptor};
use super::system;
use crate::disk::{DirEntry, Disk, DiskClass, DiskResult, File, OpenHow, Space};
use crate::registry::WaitKind;
use crate::time::Deadline;

/// The disk for everything but the commit path: calls on threads that may block, or a shared ring.
#[derive(Clone)]
pub struct RealDisk {
    core: Arc<Core>,
    ring: Option<Ring>,
    /// The class of all operations; none means what each of them is.
    class: Option<DiskClass>,
}

impl RealDisk {
    pub(super) fn new(core: Arc<Core>, kind: DiskKind) -> io::Result<RealDisk> {
        let ring = match kind {
            DiskKind::Threads => None,
            DiskKind::Uring => Some(Ring::start(core.clone())?),
        };
        Ok(RealDisk { core, ring, class: None })
    }

    pub(super) fn kind(&self) -> DiskKind {
        if self.ring.is_some() { DiskKind::Uring } else { DiskKind::Threads }
    }

    /// Runs a blocking operation on names.
    fn named<T: Send + 'static>(
        &self,
        what: &'static str,
        site: &'static Location<'static>,
        path: &Path,
        deadline: Deadline,
        body: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> impl Future<Output = DiskResult<T>> + Send {
        self.classed(DiskClass::Name, what, site, path, deadline, body)
    }

    async fn classed<T: Send + 'static>(
        &self,
        class: DiskClass,
        what: &'static str,
        site: &'static Location<'static>,
        path: &Path,
        deadline: Deadline,
        body: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> DiskResult<T> {
        let job = Job { kind: WaitKind::DiskName, what, target: target(path), site };
        let owned = path.to_path_buf();
        on_pool(&self.core, job, self.class.unwrap_or(class), path, deadline, move || body(&owned)).await
    }
}

fn target(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

async fn on_pool<T: Send + 'static>(
    core: &Arc<Core>,
    job: Job,
    class: DiskClass,
    path: &Path,
    deadline: Deadline,
    body: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> DiskResult<T> {
    let start = |ticket: super::core::Ticket<T>| {
        // Detached: the ticket answers, and tells when nobody listens any more.
        drop(core.runtime.spawn_blocking(move || ticket.done(body())));
    };
    core.run(job, class, path, deadline, start).await
}

impl Disk for RealDisk {
    type File = RealFile;
    type Dedicated = RealDedicatedDisk;

    fn preparing(&self) -> RealDisk {
        RealDisk { class: Some(DiskClass::Prepare), ..self.clone() }
    }

    #[track_caller]
    fn open(
        &self,
        path: &Path,
        how: OpenHow,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<RealFile>> + Send {
        let site = Location::caller();
        async move {
            let ring = self.ring.clone();
            let opened = move |path: &Path| {
                let mut options = std::fs::OpenOptions::new();
                options.read(true);
                match how {
                    OpenHow::ReadOnly => &mut options,
                    OpenHow::Existing => options.write(true),
                    OpenHow::OrCreate => options.write(true).create(true).truncate(false),
                    OpenHow::CreateNew => options.write(true).create_new(true),
                };
                let file = options.open(path)?;
                Ok(match ring {
                    None => Descriptor::Plain(file),
                    Some(ring) => Descriptor::Ring(ring.adopt(file, target(path))),
                })
            };
            let class = DiskClass::of_open(how);
            let descriptor = self.classed(class, "open", site, path, deadline, opened).await?;
            let opened = Opened {
                core: self.core.clone(),
                path: path.into(),
                target: target(path),
                class: self.class,
                descriptor: Some(descriptor),
            };
            Ok(RealFile { opened: Arc::new(opened) })
        }
    }

    #[track_caller]
    fn create_dir_all(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        self.named("create directory", Location::caller(), path, deadline, |path| {
            std::fs::create_dir_all(path)
        })
    }

    #[track_caller]
    fn read_dir(
        &self,
        path: &Path,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<Vec<DirEntry>>> + Send {
        self.named("list directory", Location::caller(), path, deadline, |path| {
            let mut entries = Vec::new();
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                let metadata = match entry.metadata() {
                    Ok(metadata) => metadata,
                    // Removed since the directory was read.
                    Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
                    Err(other) => return Err(other),
                };
                let name = entry.file_name().to_string_lossy().into_owned();
                let len = if metadata.is_dir() { 0 } else { metadata.len() };
                entries.push(DirEntry { name, is_dir: metadata.is_dir(), len });
            }
            entries.sort();
            Ok(entries)
        })
    }

    #[track_caller]
    fn rename(
        &self,
        from: &Path,
        to: &Path,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<()>> + Send {
        let to = to.to_path_buf();
        self.named("rename", Location::caller(), from, deadline, move |from| std::fs::rename(from, to))
    }

    #[track_caller]
    fn remove_file(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        self.named("remove", Location::caller(), path, deadline, |path| std::fs::remove_file(path))
    }

    #[track_caller]
    fn remove_dir_all(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        self.named("remove directory", Location::caller(), path, deadline, |path| {
            match std::fs::remove_dir_all(path) {
                Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done,
            }
        })
    }

    #[track_caller]
    fn sync_dir(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        self.named("sync directory", Location::caller(), path, deadline, |path| {
            std::fs::File::open(path)?.sync_all()
        })
    }

    #[track_caller]
    fn lock_dir(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        let core = self.core.clone();
        self.named("lock directory", Location::caller(), path, deadline, move |path| {
            // The file, for every file system locks those, and so did all releases; and the directory itself, for somebody may
            // remove an empty file that is old.
            let lock = path.join("LOCK");
            let file =
                std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock)?;
            system::take(&file)?;
            let directory = std::fs::File::open(path)?;
            match system::take(&directory) {
                Err(held) if held.kind() == io::ErrorKind::WouldBlock => return Err(held),
                // Over a network directories may have no locks.
                Err(_) | Ok(()) => {}
            }
            crate::mutex::lock(&core.taken).extend([file, directory]);
            Ok(())
        })
    }

    #[track_caller]
    fn space(&self, path: &Path, deadline: Deadline) -> impl Future<Output = DiskResult<Space>> + Send {
        self.named("ask the space of", Location::caller(), path, deadline, system::space)
    }
}

/// An open file.
#[derive(Clone)]
pub struct RealFile {
    opened: Arc<Opened>,
}

struct Opened {
    core: Arc<Core>,
    path: PathBuf,
    target: Arc<str>,
    /// As the disk's it was opened on.
    class: Option<DiskClass>,
    /// Nothing once it is dropped.
    descriptor: Option<Descriptor>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        match self.descriptor.take() {
            Some(Descriptor::Plain(file)) => self.core.closer.close(file, self.target.clone()),
            // Sees to it itself.
            Some(Descriptor::Ring(_)) | None => {}
        }
    }
}

impl Opened {
    fn descriptor(&self) -> &Descriptor {
        self.descriptor.as_ref().expect("only a file that is dropped has none")
    }
}

enum Descriptor {
    Plain(std::fs::File),
    Ring(RingDescriptor),
}

impl Descriptor {
    fn std(&self) -> &std::fs::File {
        match self {
            Descriptor::Plain(file) => file,
            Descriptor::Ring(file) => file.std(),
        }
    }
}

impl RealFile {
    fn job(&self, kind: WaitKind, site: &'static Location<'static>) -> Job {
        Job { kind, what: kind.name(), target: self.opened.target.clone(), site }
    }

    async fn on_pool<T: Send + 'static>(
        &self,
        job: Job,
        deadline: Deadline,
        body: impl FnOnce(&std::fs::File) -> io::Result<T> + Send + 'static,
    ) -> DiskResult<T> {
        let opened = self.opened.clone();
        let (path, class) = (&self.opened.path, self.class(job.kind));
        on_pool(&self.opened.core, job, class, path, deadline, move || body(opened.descriptor().std())).await
    }

    fn class(&self, kind: WaitKind) -> DiskClass {
        self.opened.class.unwrap_or(DiskClass::of(kind))
    }

    async fn on_ring<T>(
        &self,
        job: Job,
        deadline: Deadline,
        start: impl FnOnce(super::core::Ticket<T>),
    ) -> DiskResult<T> {
        let class = self.class(job.kind);
        self.opened.core.run(job, class, &self.opened.path, deadline, start).await
    }
}

impl File for RealFile {
    fn path(&self) -> &Path {
        &self.opened.path
    }

    #[track_caller]
    fn read_at(
        &self,
        position: u64,
        len: usize,
        deadline: Deadline,
    ) -> impl Future<Output = DiskResult<Bytes>> + Send {
        let job = self.job(WaitKind::DiskRead, Location::caller());
        async move {
            match self.opened.descriptor() {
                Descriptor::Ring(file) if len > 0 => {
                    let start = |ticket| file.read(position, len, ticket);
                    self.on_ring(job, deadline, start).await
                }
                _ => self.on_pool(job, deadline, move |file| read_up_to(file, position, len)).await,
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
        let job = self.job(WaitKind::DiskWrite, Location::caller());
        async move {
            match self.opened.descriptor() {
                Descriptor::Ring(file) if !data.is_empty() => {
                    let start = |ticket| file.write(position, data, ticket);
                    self.on_ring(job, deadline, start).await
                }
                _ => self.on_pool(job, deadline, move |file| file.write_all_at(&data, position)).await,
            }
        }
    }

    #[track_caller]
    fn sync(&self, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        let job = self.job(WaitKind::DiskSync, Location::caller());
        async move {
            match self.opened.descriptor() {
                Descriptor::Ring(file) => {
                    let start = |ticket| file.sync(ticket);
                    self.on_ring(job, deadline, start).await
                }
                Descriptor::Plain(_) => self.on_pool(job, deadline, std::fs::File::sync_data).await,
            }
        }
    }

    #[track_caller]
    fn len(&self, deadline: Deadline) -> impl Future<Output = DiskResult<u64>> + Send {
        let job = Job { what: "length", ..self.job(WaitKind::DiskName, Location::caller()) };
        self.on_pool(job, deadline, |file| Ok(file.metadata()?.len()))
    }

    #[track_caller]
    fn set_len(&self, len: u64, deadline: Deadline) -> impl Future<Output = DiskResult<()>> + Send {
        let job = Job { what: "set length", ..self.job(WaitKind::DiskName, Location::caller()) };
        self.on_pool(job, deadline, move |file| file.set_len(len))
    }
}

fn read_up_to(file: &std::fs::File, position: u64, len: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(again) if again.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}
