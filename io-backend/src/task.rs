//! Who is running: names and numbers of tasks, known to every wait that a task begins.
//!
//! A backend wraps each future it spawns in [`Named`], which tells the thread during a poll which task
//! is being polled. The registry, locks and channels read it from there.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

/// Number of a task, unique in one backend. Zero is "outside any task".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// What a task is called: the role, and what it serves (`partition` `orders-3`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskName {
    /// What kind of task it is: the same for all tasks of one kind.
    pub role: &'static str,
    /// What it serves, where there are many of its kind.
    pub instance: Option<Arc<str>>,
}

impl TaskName {
    /// A task of that role for that instance.
    pub fn of(role: &'static str, instance: impl Into<Arc<str>>) -> TaskName {
        TaskName { role, instance: Some(instance.into()) }
    }
}

impl From<&'static str> for TaskName {
    fn from(role: &'static str) -> TaskName {
        TaskName { role, instance: None }
    }
}

impl std::fmt::Display for TaskName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.instance {
            Some(instance) => write!(f, "{}[{instance}]", self.role),
            None => f.write_str(self.role),
        }
    }
}

/// Rank of a lock: locks are acquired in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u16);

/// A lock that a task holds.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) level: Level,
    pub(crate) name: Arc<str>,
    pub(crate) site: &'static Location<'static>,
}

/// The task a thread is polling right now.
#[derive(Debug)]
pub struct CurrentTask {
    /// Its number.
    pub id: TaskId,
    /// Its name.
    pub name: TaskName,
    /// The locks it holds. Of the task and not of the thread: a task that holds a lock across an await
    /// may be polled by another thread afterwards.
    pub(crate) held: Mutex<Vec<Held>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<CurrentTask>>> = const { RefCell::new(None) };
}

/// The task being polled on this thread, if any.
pub fn current() -> Option<Arc<CurrentTask>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// Id of the task being polled on this thread; zero outside any task.
pub fn current_id() -> TaskId {
    CURRENT.with(|current| current.borrow().as_ref().map_or(TaskId(0), |task| task.id))
}

/// Lets others run before the next step.
pub async fn give_way() {
    let mut given = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Gives out the task numbers of one backend.
#[derive(Debug, Default)]
pub struct TaskIds(AtomicU64);

impl TaskIds {
    /// The next task, which is to be run in a [`Named`].
    pub fn next(&self, name: TaskName) -> Arc<CurrentTask> {
        let id = TaskId(self.0.fetch_add(1, Ordering::Relaxed) + 1);
        Arc::new(CurrentTask { id, name, held: Mutex::new(Vec::new()) })
    }
}

pin_project_lite::pin_project! {
    /// A future that tells the thread who it is while it is polled.
    pub struct Named<F> {
        // Lent to the thread while the future is polled.
        task: Option<Arc<CurrentTask>>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Named<F> {
    /// `future`, run as this task.
    pub fn new(task: Arc<CurrentTask>, future: F) -> Named<F> {
        Named { task: Some(task), future }
    }
}

impl<F: Future> Future for Named<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let before = CURRENT.replace(this.task.take());
        let _back = GiveBack { to: this.task, before };
        this.future.poll(cx)
    }
}

/// Puts things back in their place also when the future panics.
struct GiveBack<'a> {
    to: &'a mut Option<Arc<CurrentTask>>,
    before: Option<Arc<CurrentTask>>,
}

impl Drop for GiveBack<'_> {
    fn drop(&mut self) {
        *self.to = CURRENT.replace(self.before.take());
    }
}

/// A spawned task. Dropping the handle lets the task run on; [`TaskHandle::abort`] ends it at its next
/// await.
pub struct TaskHandle {
    abort: Option<Box<dyn FnOnce() + Send + Sync>>,
    finished: Box<dyn Fn() -> bool + Send + Sync>,
}

impl TaskHandle {
    /// A task that `abort` ends at its next await and of which `finished` tells whether it has ended.
    pub fn new(
        abort: impl FnOnce() + Send + Sync + 'static,
        finished: impl Fn() -> bool + Send + Sync + 'static,
    ) -> TaskHandle {
        TaskHandle { abort: Some(Box::new(abort)), finished: Box::new(finished) }
    }

    /// Ends the task at its next await; what it owns is dropped then.
    pub fn abort(mut self) {
        if let Some(abort) = self.abort.take() {
            abort();
        }
    }

    /// Whether the task has returned or was ended.
    pub fn is_finished(&self) -> bool {
        (self.finished)()
    }
}
