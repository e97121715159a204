//! The in-flight registry: every wait and every operation of the process, for as long as it lasts.
//!
//! Each entry says what is awaited, on which target, by which task, since when, from which source line,
//! and who is to wake it. Metrics, `/debug/stalls` and the stall watchdog read it, and so does
//! anyone who wants to know who waits for whom. It is always on, so it must stay cheap: a wait that is over
//! at its first poll never enters, and entering takes one short lock on one of several shards.
//!
//! `cargo run --release -p io-backend --example registry_cost`: a wait costs 68 ns more with its entry, 146 ns with a
//! deadline as well; an operation begun and ended 98 ns; a request to another task and its reply 400 ns, on bare
//! tokio 180 ns.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use crate::mutex::lock;
use crate::task::{self, CurrentTask, TaskId};
use crate::time::{Clock, Deadline, Moment};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitKind {
    /// A read of a file.
    DiskRead,
    /// A write to a file.
    DiskWrite,
    /// A sync of a file, or a write that includes it.
    DiskSync,
    /// Open, rename, remove, list and the like.
    DiskName,
    /// Bytes from a peer.
    NetworkRead,
    /// Room for bytes to a peer.
    NetworkWrite,
    /// A connection from a peer.
    Accept,
    /// A connection to a peer.
    Connect,
    /// A lock that another task holds.
    Lock,
    /// Room in a full channel.
    Send,
    /// A message in an empty channel.
    Receive,
    /// The answer to a request sent over a channel.
    Reply,
    /// A newer value of a published state, or progress of a journal.
    Change,
    /// Nothing but time.
    Timer,
}

impl WaitKind {
    /// In words, as reports have it.
    pub fn name(self) -> &'static str {
        match self {
            WaitKind::DiskRead => "read",
            WaitKind::DiskWrite => "write",
            WaitKind::DiskSync => "fdatasync",
            WaitKind::DiskName => "file system",
            WaitKind::NetworkRead => "network read",
            WaitKind::NetworkWrite => "network write",
            WaitKind::Accept => "accept",
            WaitKind::Connect => "connect",
            WaitKind::Lock => "lock",
            WaitKind::Send => "send",
            WaitKind::Receive => "receive",
            WaitKind::Reply => "reply",
            WaitKind::Change => "change",
            WaitKind::Timer => "timer",
        }
    }

    /// Whether it is an operation of the disk.
    pub fn is_disk(self) -> bool {
        matches!(self, WaitKind::DiskRead | WaitKind::DiskWrite | WaitKind::DiskSync | WaitKind::DiskName)
    }
}

/// Something that one task holds and others wait for: a lock and its holder, a channel and its reader.
#[derive(Debug)]
pub struct Resource {
    /// What it is called in reports.
    pub name: Arc<str>,
    holder: Mutex<Option<Holder>>,
}

/// Who holds a resource, since when, and from which line of source.
#[derive(Clone, Debug)]
pub struct Holder {
    /// None for what holds it outside of any task.
    pub task: Option<Arc<CurrentTask>>,
    /// On the clock of the process.
    pub since: Moment,
    /// The line that took it.
    pub site: &'static Location<'static>,
}

impl Resource {
    /// A resource that nobody holds.
    pub fn new(name: impl Into<Arc<str>>) -> Arc<Resource> {
        Arc::new(Resource { name: name.into(), holder: Mutex::new(None) })
    }

    /// Who holds it now.
    pub fn holder(&self) -> Option<Holder> {
        lock(&self.holder).clone()
    }

    /// It is held from now on.
    pub fn held_by(&self, holder: Holder) {
        *lock(&self.holder) = Some(holder);
    }

    /// Nobody holds it any more.
    pub fn released(&self) {
        *lock(&self.holder) = None;
    }
}

/// One wait or one operation in flight.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Order of entering, unique in the registry.
    pub number: u64,
    /// What is waited for, or done.
    pub kind: WaitKind,
    /// The same in words.
    pub what: &'static str,
    /// The file, lock or channel.
    pub target: Option<Arc<str>>,
    /// Who waits or began it; none outside of any task.
    pub task: Option<Arc<CurrentTask>>,
    /// When it began, on the clock of the process.
    pub since: Moment,
    /// The line that waits or began it.
    pub site: &'static Location<'static>,
    /// Whose doing ends the wait; none means the outside: a device, the network, time.
    pub resource: Option<Arc<Resource>>,
    /// True for the operation itself, false for a task that waits (for an operation or for a task).
    pub operation: bool,
    /// Whether the waiter gives up by itself at some time.
    pub bounded: bool,
}

/// Told of each entry. Called with no lock held; must not wait.
pub trait Observer: Send + Sync + 'static {
    /// An entry has come in.
    fn began(&self, entry: &Entry);
    /// An entry has left; `now` is the moment it ended, as far as that is known.
    fn ended(&self, entry: &Entry, now: Moment);
}

const SHARDS: usize = 16;

/// What is in flight in one process.
#[derive(Default)]
pub struct Registry {
    shards: [Mutex<Shard>; SHARDS],
    numbers: AtomicU64,
    late: AtomicU64,
    observer: OnceLock<Box<dyn Observer>>,
}

#[derive(Default)]
struct Shard {
    slots: Vec<Option<Entry>>,
    free: Vec<usize>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Arc<Registry> {
        Arc::new(Registry::default())
    }

    /// At most one observer; a second call is ignored.
    pub fn observe(&self, observer: Box<dyn Observer>) {
        let _ = self.observer.set(observer);
    }

    /// A wait that enters the registry only if it really has to wait: see [`Wait::during`].
    pub fn waiting<'a, C: Clock>(
        self: &'a Arc<Self>,
        clock: &'a C,
        kind: WaitKind,
        what: &'static str,
        site: &'static Location<'static>,
    ) -> Wait<'a, C> {
        Wait { registry: self, clock, kind, what, site, target: None, resource: None, bounded: true }
    }

    /// An operation that starts now and is in flight until the guard is dropped, whoever waits for it.
    pub fn operation<C: Clock>(
        self: &Arc<Self>,
        clock: &C,
        kind: WaitKind,
        what: &'static str,
        target: Arc<str>,
        site: &'static Location<'static>,
    ) -> EntryGuard {
        self.operation_at(clock.now(), kind, what, target, site)
    }

    /// The same at a moment that the caller knows.
    pub fn operation_at(
        self: &Arc<Self>,
        now: Moment,
        kind: WaitKind,
        what: &'static str,
        target: Arc<str>,
        site: &'static Location<'static>,
    ) -> EntryGuard {
        self.enter(Entry {
            number: 0,
            kind,
            what,
            target: Some(target),
            task: task::current(),
            since: now,
            site,
            resource: None,
            operation: true,
            bounded: false,
        })
    }

    /// A wait of the current task that begins at this moment and lasts until the guard is dropped.
    pub fn wait_at(
        self: &Arc<Self>,
        now: Moment,
        kind: WaitKind,
        what: &'static str,
        target: Arc<str>,
        site: &'static Location<'static>,
        bounded: bool,
    ) -> EntryGuard {
        self.enter(Entry {
            number: 0,
            kind,
            what,
            target: Some(target),
            task: task::current(),
            since: now,
            site,
            resource: None,
            operation: false,
            bounded,
        })
    }

    fn enter(self: &Arc<Self>, entry: Entry) -> EntryGuard {
        EntryGuard { place: self.place(entry), registry: self.clone(), ended_at: None }
    }

    fn place(&self, mut entry: Entry) -> SlotKey {
        entry.number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(observer) = self.observer.get() {
            observer.began(&entry);
        }
        let shard = entry.task.as_ref().map_or(0, |task| task.id.0 as usize) % SHARDS;
        let mut slots = lock(&self.shards[shard]);
        let slot = match slots.free.pop() {
            Some(slot) => {
                slots.slots[slot] = Some(entry);
                slot
            }
            None => {
                slots.slots.push(Some(entry));
                slots.slots.len() - 1
            }
        };
        drop(slots);
        SlotKey { shard, slot }
    }

    /// The clock is read only if somebody wants to know.
    fn leave(&self, SlotKey { shard, slot }: SlotKey, now: impl FnOnce() -> Option<Moment>) {
        let mut slots = lock(&self.shards[shard]);
        let entry = slots.slots[slot].take();
        slots.free.push(slot);
        drop(slots);
        if let (Some(observer), Some(entry)) = (self.observer.get(), entry) {
            observer.ended(&entry, now().unwrap_or(entry.since));
        }
    }

    /// Everything in flight, in order of entering.
    pub fn snapshot(&self) -> Vec<Entry> {
        let mut all: Vec<Entry> = self
            .shards
            .iter()
            .flat_map(|shard| lock(shard).slots.iter().flatten().cloned().collect::<Vec<_>>())
            .collect();
        all.sort_by_key(|entry| entry.number);
        all
    }

    /// The oldest operation in flight that `of_interest` picks.
    pub fn oldest_operation(&self, of_interest: impl Fn(&Entry) -> bool) -> Option<Entry> {
        self.oldest(|entry| entry.operation && of_interest(entry))
    }

    /// The oldest wait or operation that `of_interest` picks.
    pub fn oldest(&self, of_interest: impl Fn(&Entry) -> bool) -> Option<Entry> {
        self.shards
            .iter()
            .filter_map(|shard| {
                let slots = lock(shard);
                let hits = slots.slots.iter().flatten().filter(|entry| of_interest(entry));
                hits.min_by_key(|entry| (entry.since, entry.number)).cloned()
            })
            .min_by_key(|entry| (entry.since, entry.number))
    }

    /// Nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| lock(shard).slots.iter().all(Option::is_none))
    }

    /// Counts an operation that completed after its waiter had given up.
    pub fn count_late_completion(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// Operations that completed after their waiters had given up, so far.
    pub fn late_completions(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}

/// Where an entry is.
#[derive(Clone, Copy)]
struct SlotKey {
    shard: usize,
    slot: usize,
}

/// Keeps an entry in the registry; dropping it takes the entry out.
pub struct EntryGuard {
    registry: Arc<Registry>,
    place: SlotKey,
    ended_at: Option<Moment>,
}

impl EntryGuard {
    /// Takes the entry out and tells the observer when that was.
    pub fn end(mut self, now: Moment) {
        self.ended_at = Some(now);
    }
}

impl Drop for EntryGuard {
    fn drop(&mut self) {
        self.registry.leave(self.place, || self.ended_at);
    }
}

/// A wait about to begin.
pub struct Wait<'a, C> {
    registry: &'a Arc<Registry>,
    clock: &'a C,
    kind: WaitKind,
    what: &'static str,
    site: &'static Location<'static>,
    target: Option<Arc<str>>,
    resource: Option<Arc<Resource>>,
    bounded: bool,
}

impl<'a, C: Clock> Wait<'a, C> {
    /// What is waited on: a file, a lock, a channel.
    pub fn on(mut self, target: Arc<str>) -> Self {
        self.target = Some(target);
        self
    }

    /// Whose doing ends the wait.
    pub fn held(self, resource: Arc<Resource>) -> Self {
        self.held_by_any(Some(resource))
    }

    /// The same where it is not always known.
    pub fn held_by_any(mut self, resource: Option<Arc<Resource>>) -> Self {
        self.resource = resource;
        self
    }

    /// The waiter never gives up by itself.
    pub fn unbounded(mut self) -> Self {
        self.bounded = false;
        self
    }

    /// Whether the waiter gives up by itself, told by its deadline.
    pub fn bounded_by(mut self, deadline: Deadline) -> Self {
        self.bounded = matches!(deadline, Deadline::At(_));
        self
    }

    /// Runs `future`; from its first `Pending` until it is done or dropped there is an entry.
    pub fn during<F: Future>(self, future: F) -> During<'a, C, F> {
        During { wait: self, place: None, future }
    }

    fn enter(&mut self) -> SlotKey {
        self.registry.place(Entry {
            number: 0,
            kind: self.kind,
            what: self.what,
            target: self.target.take(),
            task: task::current(),
            since: self.clock.now(),
            site: self.site,
            resource: self.resource.take(),
            operation: false,
            bounded: self.bounded,
        })
    }
}

pin_project_lite::pin_project! {
    /// See [`Wait::during`].
    pub struct During<'a, C, F> {
        wait: Wait<'a, C>,
        place: Option<SlotKey>,
        #[pin]
        future: F,
    }

    impl<C, F> PinnedDrop for During<'_, C, F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(place) = this.place.take() {
                this.wait.registry.leave(place, || None);
            }
        }
    }
}

impl<C: Clock, F: Future> Future for During<'_, C, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        match this.future.poll(cx) {
            Poll::Ready(output) => {
                if let Some(place) = this.place.take() {
                    this.wait.registry.leave(place, || Some(this.wait.clock.now()));
                }
                Poll::Ready(output)
            }
            Poll::Pending => {
                if this.place.is_none() {
                    *this.place = Some(this.wait.enter());
                }
                Poll::Pending
            }
        }
    }
}

/// Id of the task an entry belongs to; zero outside any task.
pub fn task_of(entry: &Entry) -> TaskId {
    entry.task.as_ref().map_or(TaskId(0), |task| task.id)
}

#[cfg(test)]
mod tests;
