//! A small backend for tests: one thread, its own clock, a disk in memory that loses power and fails on
//! demand. Tasks run in the order in which they were woken; time passes when nobody can run.

#[cfg(test)]
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use io_backend::disk::{DirEntry, DiskResult, Space};
use io_backend::real::RealStream;
use io_backend::task::{Named, TaskIds};
use io_backend::{
    Backend, Clock, Deadline, DedicatedDisk, DedicatedFile, DedicatedLoop, Disk, DiskError, ExitStatus, File,
    Listener, Moment, Network, OpenHow, Registry, TaskHandle, TaskName,
};

const SECTOR: usize = 512;

#[derive(Default)]
pub struct World {
    now: u64,
    /// The wall clock stands still.
    pub wall_ms: i64,
    random: u64,
    timers: Vec<(u64, Waker)>,
    pub files: BTreeMap<PathBuf, Stored>,
    /// Names that a directory sync has made durable.
    pub named: BTreeSet<PathBuf>,
    /// Outcomes of the next durable writes; all is well when it is empty.
    pub durable_writes: VecDeque<Option<io::ErrorKind>>,
    /// Outcomes of the next syncs outside the commit path; all is well when it is empty.
    pub syncs: VecDeque<Option<io::ErrorKind>>,
    /// Nothing can grow.
    pub full: bool,
    /// Durable writes stay in flight.
    pub held: bool,
    holding: Vec<Waker>,
    pub durable_writes_done: u64,
    /// So many opens fail for want of descriptors, those of the commit path, too.
    pub opens_refused: usize,
    /// A directory sync never gets through.
    pub names_unsynced: bool,
    /// Longest time that an operation takes, in nanoseconds; 0: no time.
    pub latency: u64,
    /// Every file operation that was begun, by kind.
    pub log: Vec<String>,
}

#[derive(Clone, Default)]
pub struct Stored {
    pub now: Vec<u8>,
    pub durable: Vec<u8>,
}

#[derive(Clone)]
pub struct Fake {
    world: Arc<Mutex<World>>,
    registry: Arc<Registry>,
    disk: FakeDisk,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static SPAWNED: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Fake {
    pub fn new() -> Fake {
        Fake::seeded(0)
    }

    pub fn seeded(seed: u64) -> Fake {
        let world = Arc::new(Mutex::new(World { random: seed << 32, ..World::default() }));
        Fake { disk: FakeDisk { world: world.clone() }, world, registry: Registry::new() }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panics while it holds the world")
    }

    /// Runs until `main` is done; whatever else runs is dropped then, as by a kill.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> T {
        SPAWNED.with_borrow_mut(Vec::clear);
        let mut main = Box::pin(main);
        let main_flag = Arc::new(Flag(AtomicBool::new(true)));
        let mut tasks: Vec<(Arc<Flag>, Task)> = Vec::new();
        loop {
            let mut progressed = false;
            if main_flag.0.swap(false, Ordering::SeqCst) {
                progressed = true;
                let waker = Waker::from(main_flag.clone());
                if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return output;
                }
            }
            for (flag, task) in &mut tasks {
                if flag.0.swap(false, Ordering::SeqCst) {
                    progressed = true;
                    let waker = Waker::from(flag.clone());
                    if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                        *task = Box::pin(std::future::pending());
                    }
                }
            }
            let new = SPAWNED.with_borrow_mut(std::mem::take);
            progressed |= !new.is_empty();
            tasks.extend(new.into_iter().map(|task| (Arc::new(Flag(AtomicBool::new(true))), task)));
            if !progressed {
                self.pass_time();
            }
        }
    }

    fn pass_time(&self) {
        let mut world = self.world();
        let next = world.timers.iter().map(|(at, _)| *at).min();
        world.now = next.expect("everybody waits, and nothing will ever happen");
        let now = world.now;
        let due: Vec<Waker> = world.timers.extract_if(.., |(at, _)| *at <= now).map(|(_, w)| w).collect();
        drop(world);
        due.into_iter().for_each(Waker::wake);
    }

    pub fn let_go(&self) {
        let mut world = self.world();
        world.held = false;
        let holding = std::mem::take(&mut world.holding);
        drop(world);
        holding.into_iter().for_each(Waker::wake);
    }

    /// What was not synced is kept or lost, sector by sector, as `keeps` says; names too.
    pub fn lose_power(&self, mut keeps: impl FnMut(&Path, usize) -> bool) {
        let mut world = self.world();
        let named = world.named.clone();
        world.files.retain(|path, _| named.contains(path));
        for (path, stored) in &mut world.files {
            let mut after = stored.durable.clone();
            if stored.now.len() > after.len() && keeps(path, usize::MAX) {
                after.resize(stored.now.len(), 0);
            }
            for (sector, bytes) in after.chunks_mut(SECTOR).enumerate() {
                let from = sector * SECTOR;
                let to = (from + bytes.len()).min(stored.now.len());
                if from < to && bytes[..to - from] != stored.now[from..to] && keeps(path, sector) {
                    bytes[..to - from].copy_from_slice(&stored.now[from..to]);
                }
            }
            stored.now = after.clone();
            stored.durable = after;
        }
        drop(world);
        self.forget_waiting();
    }

    /// Nobody of the life before is there any more.
    pub fn forget_waiting(&self) {
        let mut world = self.world();
        world.held = false;
        world.holding.clear();
        world.timers.clear();
    }

    /// Changes bytes of a file on the medium.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let stored = world.files.get_mut(path).expect("a file to damage");
        change(&mut stored.now);
        stored.durable = stored.now.clone();
    }
}

impl Clock for Fake {
    type Timer = FakeTimer;

    fn now(&self) -> Moment {
        Moment(self.world().now)
    }

    fn timer(&self, at: Moment) -> FakeTimer {
        FakeTimer { world: self.world.clone(), at: at.0 }
    }
}

impl Backend for Fake {
    type Disk = FakeDisk;
    type Network = NoNetwork;

    fn disk(&self) -> &FakeDisk {
        &self.disk
    }

    fn network(&self) -> &NoNetwork {
        &NoNetwork
    }

    fn wall_ms(&self) -> i64 {
        self.world().wall_ms
    }

    fn random_u64(&self) -> u64 {
        let mut world = self.world();
        world.random += 1;
        world.random.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    fn spawn<F>(&self, name: impl Into<TaskName>, future: F) -> TaskHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let future = Named::new(TaskIds::default().next(name.into()), future);
        SPAWNED.with_borrow_mut(|spawned| spawned.push(Box::pin(future)));
        TaskHandle::new(|| {}, || false)
    }

    fn spawn_dedicated<L: DedicatedLoop<Self>>(&self, _: impl Into<TaskName>, body: L) -> TaskHandle {
        let disk = FakeDedicated { world: self.world.clone() };
        SPAWNED.with_borrow_mut(|spawned| spawned.push(Box::pin(body.run(disk))));
        TaskHandle::new(|| {}, || false)
    }

    fn exit(&self, _: ExitStatus, why: &str) {
        panic!("the process ends: {why}");
    }
}

pub struct FakeTimer {
    world: Arc<Mutex<World>>,
    at: u64,
}

impl Future for FakeTimer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut world = self.world.lock().expect("sound");
        if world.now >= self.at {
            return Poll::Ready(());
        }
        let at = self.at;
        world.timers.push((at, cx.waker().clone()));
        Poll::Pending
    }
}

/// No test of a journal goes to the network.
#[derive(Clone)]
pub struct NoNetwork;

impl Network for NoNetwork {
    type Listener = NoNetwork;

    async fn listen(&self, _: &str) -> io::Result<NoNetwork> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, _: &str, _: Deadline) -> io::Result<RealStream> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Listener for NoNetwork {
    type Stream = RealStream;

    async fn accept(&self) -> io::Result<(RealStream, String)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn local_address(&self) -> String {
        String::new()
    }
}

#[derive(Clone)]
pub struct FakeDisk {
    world: Arc<Mutex<World>>,
}

fn failure(operation: &'static str, path: &Path, kind: io::ErrorKind) -> DiskError {
    DiskError::new(operation, path, io::Error::from(kind))
}

impl FakeDisk {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("sound")
    }
}

fn refuse_open(world: &mut World, path: &Path) -> DiskResult<()> {
    const EMFILE: i32 = 24;
    if world.opens_refused == 0 {
        return Ok(());
    }
    world.opens_refused -= 1;
    Err(DiskError::new("open", path, io::Error::from_raw_os_error(EMFILE)))
}

/// The time that an operation takes before it has its effect.
fn taking_time(world: &Arc<Mutex<World>>) -> FakeTimer {
    let mut locked = world.lock().expect("sound");
    locked.random += 1;
    let drawn = locked.random.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 32;
    let at = if locked.latency == 0 { locked.now } else { locked.now + 1 + drawn % locked.latency };
    drop(locked);
    FakeTimer { world: world.clone(), at }
}

impl Disk for FakeDisk {
    type File = FakeFile;
    type Dedicated = FakeDedicated;

    fn preparing(&self) -> FakeDisk {
        self.clone()
    }

    async fn open(&self, path: &Path, how: OpenHow, _: Deadline) -> DiskResult<FakeFile> {
        taking_time(&self.world).await;
        let mut world = self.world();
        world.log.push(format!("open {}", path.display()));
        refuse_open(&mut world, path)?;
        let there = world.files.contains_key(path);
        match how {
            OpenHow::ReadOnly | OpenHow::Existing if !there => {
                return Err(failure("open", path, io::ErrorKind::NotFound));
            }
            OpenHow::CreateNew if there => return Err(failure("open", path, io::ErrorKind::AlreadyExists)),
            _ => {
                world.files.entry(path.into()).or_default();
            }
        }
        Ok(FakeFile { world: self.world.clone(), path: path.into() })
    }

    async fn create_dir_all(&self, _: &Path, _: Deadline) -> DiskResult<()> {
        Ok(())
    }

    async fn read_dir(&self, path: &Path, _: Deadline) -> DiskResult<Vec<DirEntry>> {
        let world = self.world();
        let below = world.files.iter().filter(|(file, _)| file.parent() == Some(path));
        let entry = |(file, stored): (&PathBuf, &Stored)| DirEntry {
            name: file.file_name().map(|name| name.to_string_lossy().into()).unwrap_or_default(),
            is_dir: false,
            len: stored.now.len() as u64,
        };
        Ok(below.map(entry).collect())
    }

    async fn rename(&self, from: &Path, to: &Path, _: Deadline) -> DiskResult<()> {
        let mut world = self.world();
        let moved =
            world.files.remove(from).ok_or_else(|| failure("rename", from, io::ErrorKind::NotFound))?;
        world.files.insert(to.into(), moved);
        Ok(())
    }

    async fn space(&self, _: &Path, _: Deadline) -> DiskResult<Space> {
        let used: usize = self.world().files.values().map(|stored| stored.now.len()).sum();
        Ok(Space { total: 1 << 30, usable: (1 << 30) - used as u64 })
    }

    async fn remove_file(&self, path: &Path, _: Deadline) -> DiskResult<()> {
        taking_time(&self.world).await;
        let mut world = self.world();
        world.log.push(format!("remove {}", path.display()));
        let removed = world.files.remove(path);
        world.named.remove(path);
        removed.map(drop).ok_or_else(|| failure("remove", path, io::ErrorKind::NotFound))
    }

    async fn remove_dir_all(&self, path: &Path, _: Deadline) -> DiskResult<()> {
        self.world().files.retain(|file, _| !file.starts_with(path));
        Ok(())
    }

    async fn sync_dir(&self, path: &Path, _: Deadline) -> DiskResult<()> {
        taking_time(&self.world).await;
        let mut world = self.world();
        if world.names_unsynced {
            return Ok(());
        }
        let below: Vec<PathBuf> = world.files.keys().filter(|f| f.parent() == Some(path)).cloned().collect();
        world.named.extend(below);
        Ok(())
    }

    async fn lock_dir(&self, _: &Path, _: Deadline) -> DiskResult<()> {
        Ok(())
    }
}

#[derive(Clone)]
pub struct FakeFile {
    world: Arc<Mutex<World>>,
    path: PathBuf,
}

impl FakeFile {
    fn with<T>(&self, look: impl FnOnce(&mut World) -> DiskResult<T>) -> DiskResult<T> {
        look(&mut self.world.lock().expect("sound"))
    }

    fn write_now(&self, world: &mut World, position: u64, data: &[u8]) -> DiskResult<()> {
        let end = position as usize + data.len();
        let full = world.full;
        let stored = world.files.get_mut(&self.path);
        let stored = stored.ok_or_else(|| failure("write", &self.path, io::ErrorKind::NotFound))?;
        if end > stored.now.len() {
            if full {
                return Err(failure("write", &self.path, io::ErrorKind::StorageFull));
            }
            stored.now.resize(end, 0);
        }
        stored.now[position as usize..end].copy_from_slice(data);
        Ok(())
    }

    fn sync_now(&self, world: &mut World) -> DiskResult<()> {
        if let Some(stored) = world.files.get_mut(&self.path) {
            stored.durable = stored.now.clone();
        }
        Ok(())
    }
}

impl File for FakeFile {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn read_at(&self, position: u64, len: usize, _: Deadline) -> DiskResult<Bytes> {
        self.with(|world| {
            let bytes = world.files.get(&self.path).map_or(&[][..], |stored| &stored.now[..]);
            let from = (position as usize).min(bytes.len());
            Ok(Bytes::copy_from_slice(&bytes[from..(from + len).min(bytes.len())]))
        })
    }

    async fn write_at(&self, position: u64, data: Bytes, _: Deadline) -> DiskResult<()> {
        taking_time(&self.world).await;
        self.with(|world| {
            world.log.push(format!("write {} {position}", self.path.display()));
            self.write_now(world, position, &data)
        })
    }

    async fn sync(&self, _: Deadline) -> DiskResult<()> {
        taking_time(&self.world).await;
        self.with(|world| {
            world.log.push(format!("sync {}", self.path.display()));
            match world.syncs.pop_front().flatten() {
                Some(kind) => Err(failure("fdatasync", &self.path, kind)),
                None => self.sync_now(world),
            }
        })
    }

    async fn len(&self, _: Deadline) -> DiskResult<u64> {
        self.with(|world| Ok(world.files.get(&self.path).map_or(0, |stored| stored.now.len() as u64)))
    }

    async fn set_len(&self, len: u64, _: Deadline) -> DiskResult<()> {
        self.with(|world| {
            world.files.entry(self.path.clone()).or_default().now.resize(len as usize, 0);
            Ok(())
        })
    }
}

pub struct FakeDedicated {
    world: Arc<Mutex<World>>,
}

impl DedicatedDisk for FakeDedicated {
    type File = FakeFile;

    async fn open(&self, path: &Path) -> DiskResult<FakeFile> {
        refuse_open(&mut self.world.lock().expect("sound"), path)?;
        Ok(FakeFile { world: self.world.clone(), path: path.into() })
    }
}

impl DedicatedFile for FakeFile {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn write_at(&self, position: u64, data: Vec<u8>) -> (DiskResult<()>, Vec<u8>) {
        (self.with(|world| self.write_now(world, position, &data)), data)
    }

    /// The bytes are in the cache when it fails, or while it is held.
    async fn write_durable(&self, position: u64, data: Vec<u8>) -> (DiskResult<()>, Vec<u8>) {
        let written = self.with(|world| {
            world.log.push(format!("commit {} {position}", self.path.display()));
            self.write_now(world, position, &data)
        });
        taking_time(&self.world).await;
        std::future::poll_fn(|cx| {
            let mut world = self.world.lock().expect("sound");
            if world.held {
                world.holding.push(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        let synced = self.with(|world| {
            if let Some(Some(kind)) = world.durable_writes.pop_front() {
                return Err(failure("fdatasync", &self.path, kind));
            }
            world.durable_writes_done += 1;
            // What else is dirty in the file is not covered: O_DSYNC is enough of an implementation.
            if let Some(stored) = world.files.get_mut(&self.path) {
                let range = position as usize..position as usize + data.len();
                let len = stored.durable.len().max(range.end);
                stored.durable.resize(len, 0);
                stored.durable[range.clone()].copy_from_slice(&stored.now[range]);
            }
            Ok(())
        });
        (written.and(synced), data)
    }

    async fn sync(&self) -> DiskResult<()> {
        self.with(|world| self.sync_now(world))
    }
}
