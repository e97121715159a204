//! Tasks: each spawned future behind a control block that can stop, age, kill and name it.
//!
//! The futures themselves lie in a table of the world's thread, so that a process can be killed by dropping
//! all of them at once, wherever they wait, and so that loops need not be `Send`.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use io_backend::task::{CurrentTask, Named};

use super::kernel::Kernel;
use super::lock;
use super::panics;
use super::threads::SimThread;
use super::trace::{Event, What};

pub(super) type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Default)]
struct Table {
    futures: Vec<Option<LocalFuture>>,
    free: Vec<usize>,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

pub(super) fn store(future: LocalFuture) -> usize {
    TABLE.with_borrow_mut(|table| match table.free.pop() {
        Some(slot) => {
            table.futures[slot] = Some(future);
            slot
        }
        None => {
            table.futures.push(Some(future));
            table.futures.len() - 1
        }
    })
}

pub(super) fn take(slot: usize) -> Option<LocalFuture> {
    TABLE.with_borrow_mut(|table| table.futures[slot].take())
}

pub(super) fn put_back(slot: usize, future: LocalFuture) {
    TABLE.with_borrow_mut(|table| table.futures[slot] = Some(future));
}

fn give_up(slot: usize) {
    TABLE.with_borrow_mut(|table| table.free.push(slot));
}

/// The control block of one task.
pub struct Task {
    pub number: u64,
    pub current: Arc<CurrentTask>,
    pub full_name: Arc<str>,
    pub thread: Arc<SimThread>,
    kernel: Arc<Kernel>,
    /// Wake-ups of its process.
    wakes: Arc<AtomicU64>,
    pub(super) slot: usize,
    /// Wakes the runner.
    runner: Mutex<Option<Waker>>,
    pub(super) woken: AtomicBool,
    /// Came to be polled while it was stopped.
    missed: AtomicBool,
    killed: AtomicBool,
    ended: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.ended.load(Ordering::Relaxed) || self.woken.swap(true, Ordering::Relaxed) {
            return;
        }
        let by = io_backend::task::current_id();
        self.wakes.fetch_add(1, Ordering::Relaxed);
        self.kernel.event(Event::new(What::Wake).task(self.number).numbers(by.0, 0));
        self.wake_runner();
    }
}

impl Task {
    /// A task that is to run `future`, which it puts into the table. Its name is full with what it serves.
    pub(super) fn new(
        current: Arc<CurrentTask>,
        full_name: Arc<str>,
        thread: &Arc<SimThread>,
        kernel: &Arc<Kernel>,
        wakes: &Arc<AtomicU64>,
        future: impl Future<Output = ()> + 'static,
    ) -> Arc<Task> {
        let number = current.id.0;
        let slot = store(Box::pin(Named::new(current.clone(), future)));
        Arc::new(Task {
            number,
            current,
            full_name,
            thread: thread.clone(),
            kernel: kernel.clone(),
            wakes: wakes.clone(),
            slot,
            runner: Mutex::default(),
            woken: AtomicBool::new(true),
            missed: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        })
    }

    /// Who polls it, told at the first poll.
    pub(super) fn is_run_by(&self, waker: &Waker) {
        lock(&self.runner).get_or_insert_with(|| waker.clone());
    }

    pub(super) fn wake_runner(&self) {
        let runner = lock(&self.runner).clone();
        if let Some(runner) = runner {
            runner.wake();
        }
    }

    /// Came to be polled while it was stopped.
    pub(super) fn miss(&self) {
        self.missed.store(true, Ordering::Relaxed);
    }

    /// Polls it again if it came to be polled while it was stopped.
    pub(super) fn catch_up(&self) {
        if self.missed.swap(false, Ordering::Relaxed) {
            self.wake_runner();
        }
    }

    pub(super) fn has_missed(&self) -> bool {
        self.missed.load(Ordering::Relaxed)
    }

    /// It is to end at its next await. False when it has ended or is to end already.
    pub(super) fn condemn(&self) -> bool {
        !self.has_ended() && !self.killed.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_condemned(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Drops its future. False when that is being polled, or is gone.
    pub(super) fn drop_future(&self) -> bool {
        let future = take(self.slot);
        let was_there = future.is_some();
        if let Some(future) = future {
            drop_quietly(future);
        }
        was_there
    }

    /// It runs no more. False when it had ended before.
    pub(super) fn end(&self) -> bool {
        if self.ended.swap(true, Ordering::Relaxed) {
            return false;
        }
        give_up(self.slot);
        self.kernel.event(Event::new(What::TaskEnd).task(self.number));
        self.kernel.guard.ended(self.number);
        true
    }
}

/// Drops a future that may do anything in its destructors.
pub(super) fn drop_quietly(future: LocalFuture) {
    if catch_unwind(AssertUnwindSafe(move || drop(future))).is_err() {
        panics::take_message();
    }
}

/// Forgets every future of this thread, for the end of a world that is over: nothing is spawned any more.
pub(super) fn clear_table() {
    // The slots stay: runners and destructors may still look at theirs.
    let futures: Vec<LocalFuture> =
        TABLE.with_borrow_mut(|table| table.futures.iter_mut().filter_map(Option::take).collect());
    for future in futures {
        drop_quietly(future);
    }
}
