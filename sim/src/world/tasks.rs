//! Tasks: each spawned future behind a control block that can stop, age, kill and name it.
//!
//! The futures themselves lie in a table of the world's thread, so that a process can be killed by dropping
//! all of them at once, wherever they wait, and so that loops need not be `Send`. What the executor runs
//! is a [`Runner`], which takes the future out for the time of a poll: a future that kills its own
//! process is dropped when its poll returns.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};

use io_backend::task::{CurrentTask, Named};
use io_backend::{TaskHandle, TaskName};

use super::alloc;
use super::lock;
use super::outcome::Stop;
use super::panics;
use super::process::Process;
use super::threads::SimThread;
use super::trace::{Event, What};
use super::universe::Universe;
use crate::fault;

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Default)]
struct Table {
    futures: Vec<Option<LocalFuture>>,
    free: Vec<usize>,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
    /// The executor's node on which all runners are spawned.
    static NODE: RefCell<Option<madsim::runtime::NodeHandle>> = const { RefCell::new(None) };
}

/// So many spawns, and the executor is made to forget the tasks that have ended.
const SWEEP: u64 = 8192;

/// Readies the executor; call it once in the world's runtime.
pub(super) fn found() {
    let node = madsim::runtime::Handle::current().create_node().build();
    NODE.set(Some(node));
}

fn run(number: u64, runner: Runner) {
    if number.is_multiple_of(SWEEP) {
        // Counting is what makes it drop its records of ended tasks.
        madsim::runtime::Handle::current().metrics().num_tasks();
    }
    NODE.with_borrow(|node| {
        if let Some(node) = node {
            drop(node.spawn(runner));
        }
    });
}

fn store(future: LocalFuture) -> usize {
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

fn take(slot: usize) -> Option<LocalFuture> {
    TABLE.with_borrow_mut(|table| table.futures[slot].take())
}

fn put_back(slot: usize, future: LocalFuture) {
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
    pub process: Arc<Process>,
    pub thread: Arc<SimThread>,
    slot: usize,
    /// Wakes the runner.
    runner: Mutex<Option<Waker>>,
    woken: AtomicBool,
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
        self.process.count_wake();
        self.process.universe().event(Event::new(What::Wake).task(self.number).numbers(by.0, 0));
        self.wake_runner();
    }
}

impl Task {
    fn wake_runner(&self) {
        let runner = lock(&self.runner).clone();
        if let Some(runner) = runner {
            runner.wake();
        }
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

    /// Ends it at its next await: at once, unless it is being polled.
    pub(super) fn kill(&self) {
        if self.ended.load(Ordering::Relaxed) || self.killed.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(future) = take(self.slot) {
            drop_quietly(future);
            self.end();
        }
        self.wake_runner();
    }

    fn end(&self) {
        if self.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        give_up(self.slot);
        let universe = self.process.universe();
        universe.event(Event::new(What::TaskEnd).task(self.number));
        universe.guard.ended(self.number);
        self.process.forget_task(self.number);
        if self.thread.unblock(self.number) {
            self.process.catch_up();
        }
    }

    /// Why it must not be polled now.
    fn is_stopped(&self, universe: &Universe) -> bool {
        if self.process.is_halted() || !self.thread.admits(self.number) {
            return true;
        }
        let mut faults = lock(&universe.faults);
        let machine = &self.process.machine.name;
        let stopping =
            fault::task::stops(&faults, machine, self.current.name.role, &self.full_name, universe.now());
        if let Some(id) = stopping {
            faults.hit(id);
        }
        stopping.is_some()
    }
}

/// Drops a future that may do anything in its destructors.
fn drop_quietly(future: LocalFuture) {
    if catch_unwind(AssertUnwindSafe(move || drop(future))).is_err() {
        panics::take_message();
    }
}

/// Starts a task in a process. In one that is dead or dying it never runs.
pub(super) fn spawn<F>(
    process: &Arc<Process>,
    thread: &Arc<SimThread>,
    name: TaskName,
    future: F,
) -> TaskHandle
where
    F: Future<Output = ()> + 'static,
{
    let universe = process.universe().clone();
    if !process.is_alive() || universe.is_over() {
        drop(future);
        return TaskHandle::new(|| {}, || true);
    }
    let full_name: Arc<str> = Arc::from(name.to_string());
    let current = universe.task_ids.next(name);
    let number = current.id.0;
    let slot = store(Box::pin(Named::new(current.clone(), future)));
    let task = Arc::new(Task {
        number,
        current,
        full_name,
        process: process.clone(),
        thread: thread.clone(),
        slot,
        runner: Mutex::default(),
        woken: AtomicBool::new(true),
        missed: AtomicBool::new(false),
        killed: AtomicBool::new(false),
        ended: AtomicBool::new(false),
    });
    universe.guard.spawned(number, task.full_name.clone(), process.machine.name.clone());
    process.admit_task(task.clone());
    let name = task.full_name.clone();
    let by = io_backend::task::current_id();
    universe.event(Event::new(What::Spawn).task(number).numbers(by.0, process.number).named(name));
    run(number, Runner { task: Arc::downgrade(&task) });
    let (aborted, watched) = (task.clone(), task);
    TaskHandle::new(move || aborted.kill(), move || watched.ended.load(Ordering::Relaxed))
}

/// What the executor polls. Holds its task weakly: the task holds the runner's waker, and its process holds the task.
struct Runner {
    task: Weak<Task>,
}

impl Future for Runner {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(task) = self.task.upgrade() else {
            return Poll::Ready(());
        };
        let universe = task.process.universe().clone();
        {
            let mut runner = lock(&task.runner);
            if runner.is_none() {
                *runner = Some(cx.waker().clone());
            }
        }
        // Its slot may be another task's by now.
        if universe.is_over() || task.ended.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        universe.tick();
        if task.ended.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        if task.killed.load(Ordering::Relaxed) {
            if let Some(future) = take(task.slot) {
                drop_quietly(future);
            }
            task.end();
            return Poll::Ready(());
        }
        if task.is_stopped(&universe) {
            task.missed.store(true, Ordering::Relaxed);
            return Poll::Pending;
        }
        let Some(mut future) = take(task.slot) else {
            return Poll::Ready(());
        };
        universe.event(Event::new(What::Poll).task(task.number));
        task.process.count_poll();
        universe.polled(&task.process.machine.name, &task.full_name);
        task.woken.store(false, Ordering::Relaxed);
        let waker = Waker::from(task.clone());
        universe.guard.enter(task.number);
        let charging = alloc::charge_to(task.process.account);
        let polled =
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        drop(charging);
        universe.guard.leave();
        match polled {
            Ok(Poll::Pending) if !task.killed.load(Ordering::Relaxed) => {
                put_back(task.slot, future);
                Poll::Pending
            }
            Ok(_) => {
                drop_quietly(future);
                task.end();
                Poll::Ready(())
            }
            Err(_) => {
                let message = panics::take_message();
                universe.event(Event::new(What::Panic).task(task.number).named(message.as_str()));
                universe.stop_with(Stop::Crash {
                    machine: task.process.machine.name.to_string(),
                    task: task.full_name.to_string(),
                    message,
                });
                drop_quietly(future);
                task.end();
                Poll::Ready(())
            }
        }
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

/// Lets the executor's node go, which must not outlive its runtime.
pub(super) fn leave() {
    NODE.set(None);
}
