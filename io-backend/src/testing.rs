//! What the tests of this crate run on: the real backend, on a runtime of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::real::{DiskKind, RealBackend};
use crate::task::{CurrentTask, TaskIds};
use crate::{Backend, Deadline};

/// Runs a test as a task, with other tasks on other threads.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(RealBackend) -> F) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(3).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        test(RealBackend::with_disk(DiskKind::Threads).expect("a backend")).await;
    });
    runtime.shutdown_background();
}

/// Far enough away that only a test that hangs meets it.
pub(crate) fn soon(backend: &impl Backend) -> Deadline {
    Deadline::after(backend, Duration::from_secs(30))
}

/// A task that runs nowhere, for futures that are polled by hand.
pub(crate) fn some_task(name: &'static str) -> Arc<CurrentTask> {
    TaskIds::default().next(name.into())
}

/// Counts how often it is woken.
#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wakes {
    pub(crate) fn new() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (wakes.clone(), wakes.into())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) fn poll_with<F: Future>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

/// Waits until something comes true.
pub(crate) async fn eventually(backend: &impl Backend, mut done: impl FnMut() -> bool) {
    let until = backend.now() + Duration::from_secs(30);
    while !done() {
        assert!(backend.now() < until, "never came true");
        backend.sleep(Duration::from_millis(1)).await;
    }
}
