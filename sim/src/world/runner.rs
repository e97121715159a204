//! Running tasks: what the executor polls.
//!
//! A [`Runner`] takes the future of its task out of the table for the time of a poll: a future that kills its own
//! process is dropped when its poll returns.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use io_backend::{TaskHandle, TaskName};

use super::alloc;
use super::outcome::Stop;
use super::panics;
use super::process::Process;
use super::task::{Task, drop_quietly, put_back, take};
use super::threads::SimThread;
use super::trace::{Event, What};

thread_local! {
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
    let kernel = process.kernel().clone();
    if !process.is_alive() || kernel.is_over() {
        drop(future);
        return TaskHandle::new(|| {}, || true);
    }
    let full_name: Arc<str> = Arc::from(name.to_string());
    let current = kernel.task_ids.next(name);
    let number = current.id.0;
    let task = Task::new(current, full_name, thread, &kernel, process.wakes(), future);
    kernel.guard.spawned(number, task.full_name.clone(), process.host.name.clone());
    process.admit_task(task.clone());
    let name = task.full_name.clone();
    let by = io_backend::task::current_id();
    kernel.event(Event::new(What::Spawn).task(number).numbers(by.0, process.number).named(name));
    run(number, Runner { process: Arc::downgrade(process), task: Arc::downgrade(&task) });
    let (process, aborted, watched) = (process.clone(), task.clone(), task);
    TaskHandle::new(move || process.kill(&aborted), move || watched.has_ended())
}

/// What the executor polls. Holds its task weakly: the task holds the runner's waker, and its process holds the task.
struct Runner {
    process: Weak<Process>,
    task: Weak<Task>,
}

impl Future for Runner {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(process), Some(task)) = (self.process.upgrade(), self.task.upgrade()) else {
            return Poll::Ready(());
        };
        let kernel = process.kernel().clone();
        task.is_run_by(cx.waker());
        // Its slot may be another task's by now.
        if kernel.is_over() || task.has_ended() {
            return Poll::Ready(());
        }
        kernel.tick();
        if task.has_ended() {
            return Poll::Ready(());
        }
        if task.is_condemned() {
            task.drop_future();
            process.end(&task);
            return Poll::Ready(());
        }
        if process.stops(&task) {
            task.miss();
            return Poll::Pending;
        }
        let Some(mut future) = take(task.slot) else {
            return Poll::Ready(());
        };
        kernel.event(Event::new(What::Poll).task(task.number));
        process.count_poll();
        kernel.polled(&process.host.name, &task.full_name);
        task.woken.store(false, Ordering::Relaxed);
        let waker = Waker::from(task.clone());
        kernel.guard.enter(task.number);
        let charging = alloc::charge_to(process.account);
        let polled =
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        drop(charging);
        kernel.guard.leave();
        match polled {
            Ok(Poll::Pending) if !task.is_condemned() => {
                put_back(task.slot, future);
                Poll::Pending
            }
            Ok(_) => {
                drop_quietly(future);
                process.end(&task);
                Poll::Ready(())
            }
            Err(_) => {
                let message = panics::take_message();
                kernel.event(Event::new(What::Panic).task(task.number).named(message.as_str()));
                kernel.stop_with(Stop::Crash {
                    machine: process.host.name.to_string(),
                    task: task.full_name.to_string(),
                    message,
                });
                drop_quietly(future);
                process.end(&task);
                Poll::Ready(())
            }
        }
    }
}

/// Lets the executor's node go, which must not outlive its runtime.
pub(super) fn leave() {
    NODE.set(None);
}
