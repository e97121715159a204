use std::ffi::CString;
use std::fs::File as StdFile;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{DiskKind, RealBackend, RealDedicatedDisk, RealDisk};
use crate::disk::{DedicatedDisk, DedicatedFile, Disk, DiskClass, File, OpenHow};
use crate::network::{Listener, Network};
use crate::stream::read;
use crate::testing::{eventually, poll_with, soon};
use crate::{Backend, Clock, Deadline, DedicatedLoop, channel};

/// More than a pipe holds.
const BYTES: usize = 1 << 20;

fn pattern() -> Vec<u8> {
    (0..BYTES).map(|at| (at % 251) as u8).collect()
}

/// Runs a test on a ring, or says why not.
fn on_uring<F: Future<Output = ()>>(test: impl FnOnce(RealBackend, PathBuf) -> F) {
    on_disk(DiskKind::Uring, test);
}

fn on_both<F: Future<Output = ()>>(test: impl Fn(RealBackend, PathBuf) -> F) {
    on_disk(DiskKind::Threads, &test);
    on_disk(DiskKind::Uring, &test);
}

fn on_disk<F: Future<Output = ()>>(kind: DiskKind, test: impl FnOnce(RealBackend, PathBuf) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        match RealBackend::with_disk(kind) {
            Ok(backend) => test(backend, dir.path().into()).await,
            Err(reason) => println!("skipped: {reason}"),
        }
    });
    runtime.shutdown_background();
}

/// A named pipe: a write into it stays in flight until somebody reads, for as long as a test likes.
fn pipe(dir: &Path) -> PathBuf {
    let path = dir.join("pipe");
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the name is a string that ends with zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0, "{}", std::io::Error::last_os_error());
    path
}

fn in_flight(backend: &RealBackend, path: &Path) -> bool {
    let name = path.to_string_lossy();
    backend.registry().snapshot().iter().any(|e| e.operation && e.target.as_deref() == Some(&*name))
}

/// Reads everything that goes through the pipe, on a thread of its own.
fn drain(path: &Path) -> std::thread::JoinHandle<Vec<u8>> {
    let mut reader = StdFile::open(path).unwrap();
    std::thread::spawn(move || {
        let mut all = vec![0; BYTES];
        reader.read_exact(&mut all).unwrap();
        all
    })
}

/// Bytes that tell when they are freed, and are overwritten then, so that a kernel that still reads them is found out.
struct Owned {
    bytes: Vec<u8>,
    freed: Arc<AtomicBool>,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.bytes.fill(0xff);
        self.freed.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_buffer_stays_owned_when_the_waiter_is_dropped_in_the_middle_of_a_write() {
    on_uring(async |backend, dir| {
        let path = pipe(&dir);
        let file = backend.disk().open(&path, OpenHow::Existing, soon(&backend)).await.unwrap();
        let freed = Arc::new(AtomicBool::new(false));
        let data = Bytes::from_owner(Owned { bytes: pattern(), freed: freed.clone() });
        {
            let mut writing = pin!(file.write_at(0, data, soon(&backend)));
            assert!(poll_with(writing.as_mut(), Waker::noop()).is_pending());
            // The kernel has it, and can't finish it.
            backend.sleep(Duration::from_millis(30)).await;
            assert!(poll_with(writing.as_mut(), Waker::noop()).is_pending());
        }
        // The file goes, too, as far as its users know.
        drop(file);
        backend.sleep(Duration::from_millis(30)).await;
        assert!(in_flight(&backend, &path), "the write is still in flight and has lost its entry");
        assert!(!freed.load(Ordering::SeqCst), "the kernel still reads from it");
        let arrived = drain(&path).join().unwrap();
        assert!(arrived == pattern(), "foreign bytes were written");
        eventually(&backend, || freed.load(Ordering::SeqCst)).await;
        eventually(&backend, || !in_flight(&backend, &path)).await;
        eventually(&backend, || backend.registry().late_completions() == 1).await;
    });
}

#[test]
fn a_ring_ends_only_after_its_last_operation() {
    on_uring(async |backend, dir| {
        let path = pipe(&dir);
        let file = backend.disk().open(&path, OpenHow::Existing, soon(&backend)).await.unwrap();
        let late =
            file.write_at(0, pattern().into(), Deadline::after(&backend, Duration::from_millis(20))).await;
        assert!(late.unwrap_err().timed_out());
        // The last doors to the ring thread.
        drop((file, backend));
        std::thread::sleep(Duration::from_millis(30));
        assert!(drain(&path).join().unwrap() == pattern(), "foreign bytes were written");
    });
}

/// Starts a write that can't finish, and leaves it in one way or the other.
struct Careless {
    path: PathBuf,
    panics: bool,
}

impl DedicatedLoop<RealBackend> for Careless {
    async fn run(self, disk: RealDedicatedDisk) {
        let file = disk.open(&self.path).await.unwrap();
        let mut writing = Box::pin(file.write_at(0, pattern()));
        let mut rounds = 0;
        std::future::poll_fn(|cx| {
            assert!(writing.as_mut().poll(cx).is_pending());
            rounds += 1;
            assert!(rounds < 2 || !self.panics, "this panic is part of the test");
            cx.waker().wake_by_ref();
            if rounds < 2 { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
        })
        .await;
    }
}

#[test]
fn a_dedicated_ring_finishes_what_its_loop_left_in_flight() {
    for panics in [false, true] {
        on_uring(async |backend, dir| {
            let path = pipe(&dir);
            // A reader at the other end, or opening for writing only would wait.
            let running = backend.spawn_dedicated("careless", Careless { path: path.clone(), panics });
            eventually(&backend, || in_flight(&backend, &path)).await;
            backend.sleep(Duration::from_millis(50)).await;
            assert!(!running.is_finished(), "the ring ended with an operation in flight");
            assert!(drain(&path).join().unwrap() == pattern(), "foreign bytes were written");
            eventually(&backend, || running.is_finished()).await;
            assert!(!in_flight(&backend, &path));
        });
    }
}

#[test]
fn a_descriptor_of_the_ring_is_closed_with_its_file() {
    on_uring(async |backend, dir| {
        let open_in_dir = || {
            let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            links.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(&dir))).count()
        };
        for number in 0..20 {
            let path = dir.join(number.to_string());
            let file = backend.disk().open(&path, OpenHow::CreateNew, soon(&backend)).await.unwrap();
            file.write_at(0, Bytes::from_static(b"x"), soon(&backend)).await.unwrap();
            assert!(open_in_dir() > 0);
        }
        eventually(&backend, || open_in_dir() == 0).await;
    });
}

#[test]
fn when_the_process_ends_every_socket_is_shut_down_although_tasks_hold_on_to_them() {
    crate::testing::run(async |backend| {
        let network = backend.network();
        let listener = network.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let mut near = network.connect(&address, soon(&backend)).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let (told, mut tells) = channel(&backend, "told", 1);
        drop(backend.spawn("acceptor", async move {
            let refused = listener.accept().await.is_err();
            let _ = told.try_send(refused);
            // As a task that is stuck would.
            std::future::pending::<()>().await;
            drop((listener, far));
        }));
        backend.sleep(Duration::from_millis(5)).await;
        backend.parts.core.sockets.close_all();
        assert_eq!(tells.receive(soon(&backend)).await, Ok(true), "accepting goes on");
        let mut buffer = BytesMut::with_capacity(16);
        let end = read(&backend, &mut near, &mut buffer, "end", soon(&backend)).await;
        assert!(matches!(end, Ok(0)), "the peer is still connected: {end:?}");
        let refused = network.connect(&address, soon(&backend)).await;
        let refused = refused.err().map(|error| error.kind());
        assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused));
        // Whatever is opened from now on is closed at once.
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut late =
            network.connect(&other.local_addr().unwrap().to_string(), soon(&backend)).await.unwrap();
        let end = read(&backend, &mut late, &mut buffer, "end", soon(&backend)).await;
        assert!(matches!(end, Ok(0)), "a new connection works: {end:?}");
    });
}

#[test]
fn a_failed_operation_is_an_error_with_its_path_and_no_panic() {
    for kind in [DiskKind::Threads, DiskKind::Uring] {
        on_uring(async |_, dir| {
            let backend = RealBackend::with_disk(kind).unwrap();
            let file =
                backend.disk().open(Path::new("/dev/full"), OpenHow::Existing, soon(&backend)).await.unwrap();
            let full = file.write_at(0, Bytes::from_static(b"x"), soon(&backend)).await.unwrap_err();
            assert!(full.is_full(), "{kind}: {full}");
            assert_eq!(full.path, Path::new("/dev/full"));
            let listed = backend.disk().open(&dir, OpenHow::ReadOnly, soon(&backend)).await.unwrap();
            let unreadable = listed.read_at(0, 10, soon(&backend)).await.unwrap_err();
            assert_eq!(unreadable.source.raw_os_error(), Some(libc::EISDIR), "{kind}: {unreadable}");
        });
    }
}

struct WriteToFull {
    told: crate::Sender<RealBackend, Vec<crate::disk::DiskResult<()>>>,
}

impl DedicatedLoop<RealBackend> for WriteToFull {
    async fn run(self, disk: RealDedicatedDisk) {
        let file = disk.open(Path::new("/dev/full")).await.unwrap();
        let (plain, buffer) = file.write_at(0, vec![1; 100]).await;
        let (durable, buffer) = file.write_durable(0, buffer).await;
        assert_eq!(buffer, vec![1; 100], "a failed write gives its buffer back");
        let _ = self.told.try_send(vec![plain, durable]);
    }
}

#[test]
fn a_dedicated_loop_is_told_of_a_full_disk() {
    for kind in [DiskKind::Threads, DiskKind::Uring] {
        on_uring(async |_, _| {
            let backend = RealBackend::with_disk(kind).unwrap();
            let (told, mut tells) = channel(&backend, "told", 1);
            drop(backend.spawn_dedicated("writer", WriteToFull { told }));
            for outcome in tells.receive(soon(&backend)).await.unwrap() {
                let error = outcome.unwrap_err();
                assert!(error.is_full(), "{kind}: {error}");
            }
            assert!(backend.registry().is_empty());
        });
    }
}

#[test]
fn operations_beyond_the_limit_wait_for_their_turn_and_all_run() {
    crate::testing::run(async |backend| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = backend.disk().open(&path, OpenHow::CreateNew, soon(&backend)).await.unwrap();
        let (told, mut tells) = channel(&backend, "told", 500);
        for number in 0..500_u64 {
            let (file, told, deadline) = (file.clone(), told.clone(), soon(&backend));
            drop(backend.spawn("writer", async move {
                let _ = told.try_send(file.write_at(number, Bytes::from_static(b"x"), deadline).await);
            }));
        }
        for _ in 0..500 {
            tells.receive(soon(&backend)).await.unwrap().unwrap();
        }
        assert_eq!(file.len(soon(&backend)).await.unwrap(), 500);
        assert_eq!(backend.registry().late_completions(), 0);
    });
}

/// Opens that hang, since nobody opens the other end of the pipe for writing, until it is done.
async fn hang(backend: &RealBackend, disk: &RealDisk, path: &Path, count: usize) {
    for _ in 0..count {
        let deadline = Deadline::after(backend, Duration::from_millis(5));
        assert!(disk.open(path, OpenHow::ReadOnly, deadline).await.is_err_and(|late| late.timed_out()));
    }
}

fn let_go(path: &Path) {
    // Neither waits for the other end nor keeps it waiting.
    drop(StdFile::options().read(true).write(true).open(path).unwrap());
}

#[test]
fn reads_that_hang_hold_up_neither_writes_nor_names_nor_the_preparation_of_files() {
    on_both(async |backend, dir| {
        let (disk, path) = (backend.disk(), pipe(&dir));
        hang(&backend, disk, &path, DiskClass::Read.operations_max()).await;
        let within = || Deadline::after(&backend, Duration::from_secs(5));
        let file = disk.open(&dir.join("plain"), OpenHow::CreateNew, within()).await.unwrap();
        file.write_at(0, Bytes::from_static(b"synced"), within()).await.unwrap();
        file.sync(within()).await.unwrap();
        let prepared = disk.preparing().open(&dir.join("plain"), OpenHow::Existing, within()).await.unwrap();
        assert_eq!(&prepared.read_at(0, 6, within()).await.unwrap()[..], b"synced");
        let other_read = file.read_at(0, 6, Deadline::after(&backend, Duration::from_millis(20))).await;
        assert!(other_read.is_err_and(|late| late.timed_out()), "more reads are in flight than there may be");
        let_go(&path);
        assert_eq!(&file.read_at(0, 6, within()).await.unwrap()[..], b"synced");
    });
}

#[test]
fn preparations_that_hang_hold_up_nothing_else() {
    on_both(async |backend, dir| {
        let (disk, path) = (backend.disk(), pipe(&dir));
        hang(&backend, &disk.preparing(), &path, DiskClass::Prepare.operations_max()).await;
        let within = || Deadline::after(&backend, Duration::from_secs(5));
        let file = disk.open(&dir.join("plain"), OpenHow::CreateNew, within()).await.unwrap();
        file.write_at(0, Bytes::from_static(b"synced"), within()).await.unwrap();
        file.sync(within()).await.unwrap();
        assert_eq!(&file.read_at(0, 6, within()).await.unwrap()[..], b"synced");
        let more =
            disk.preparing().sync_dir(&dir, Deadline::after(&backend, Duration::from_millis(20))).await;
        assert!(more.is_err_and(|late| late.timed_out()), "more files are prepared than may be");
        let_go(&path);
    });
}
