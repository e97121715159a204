//! The handle of a journal, and what its three users share: those who submit, the commit loop, and the task
//! that prepares files.
//!
//! One short mutex guards it; nobody waits while holding it. Submitting wakes the commit loop only
//! when it sleeps: while a commit is in flight a submission costs a push. Every wait is named and shows the
//! commit loop as the one that ends it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_backend::invariants;
use io_backend::progress::Progress;
use io_backend::registry::{Holder, Resource};
use io_backend::time::{TimedOut, within};
use io_backend::{Backend, Deadline, WaitKind, task};

use super::catalogue::{Catalogue, FileWork, Plan};
use super::commit_state::{Prepared, Sealed};
use super::stream::Stream;
use super::submission_queue::{Amount, Submission, SubmissionQueue};
use super::{JournalEntry, NoFile, SubmitError};
use crate::ids::Lsn;
use crate::metrics::Metrics;

pub struct JournalShared<B: Backend> {
    pub(super) backend: B,
    name: Arc<str>,
    directory: Arc<str>,
    /// Held by the commit loop.
    pub(super) resource: Arc<Resource>,
    payload_bytes_max: usize,
    metrics: Option<Arc<Metrics>>,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) submissions: SubmissionQueue,
    pub(super) next_lsn: Lsn,
    pub(super) durable: Lsn,
    pub(super) last_entry: Lsn,
    in_flight: bool,
    pub(super) refusing: Option<SubmitError>,
    pub(super) disk_full: bool,
    pub(super) failed: bool,
    pub(super) closing: bool,
    ended: bool,
    /// And so has the task that prepares its files.
    files_ended: bool,
    pub(super) catalogue: Catalogue,
    /// The last preparation of a file failed, and why: for want of space or otherwise.
    preparation: Preparation,
    pub(super) stream: Stream,
    /// The commit loop, when it waits.
    pub(super) committer: Option<Waker>,
    /// It waits for a group of this size to fill.
    lingers_for: Option<Amount>,
    /// The task that prepares files, when it waits.
    pub(super) preparer: Option<Waker>,
    pub(super) room: Vec<Waker>,
    pub(super) busy: Vec<Waker>,
    pub(super) unreleased: Vec<(u64, Waker)>,
    pub(super) unreleased_bytes_max: u64,
    pub(super) times_relieved: u64,
    /// The commit loop waits for a file, or for a descriptor to open it.
    awaits_file: bool,
    lacks_descriptors: bool,
    /// What the file being written has left, and how much of it is kept back.
    room_left: u64,
    kept_back: u64,
    /// What is submitted must not fail for want of space, only wait for it: Raft cannot take back what it said.
    holds_on: bool,
    closed: Vec<Waker>,
}

impl State {
    fn check_invariants(&self) {
        if invariants::are_checked() {
            assert!(self.durable < self.next_lsn, "only what has an LSN is durable");
            assert!(self.last_entry <= self.durable, "an entry that was committed is durable");
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Preparation {
    Working,
    NoSpace,
    Failed,
}

/// What the commit loop is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Commit,
    Close,
}

/// What came of waiting for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextFile {
    Ready(Prepared),
    NoSpace,
}

/// What a queue begins with.
pub struct InitialState {
    pub name: &'static str,
    pub directory: Arc<str>,
    pub bound: Amount,
    pub payload_bytes_max: usize,
    /// The next LSN is the one after this.
    pub given_out: Lsn,
    /// The last one that a recovered entry has.
    pub last_entry: Lsn,
    pub catalogue: Catalogue,
    /// First LSN and bytes of the files that hold recovered entries, in order.
    pub unreleased: Vec<(Lsn, u64)>,
    pub unreleased_bytes_max: u64,
    /// Of each file, for what is no record.
    pub kept_back: u64,
    /// Waits for space instead of failing.
    pub holds_on: bool,
}

impl<B: Backend> JournalShared<B> {
    pub fn new(backend: B, initial: InitialState, metrics: Option<Arc<Metrics>>) -> Arc<JournalShared<B>> {
        let stream = Stream::of_files(initial.unreleased);
        let name: Arc<str> = format!("{} queue", initial.name).into();
        Arc::new(JournalShared {
            backend,
            resource: Resource::new(name.clone()),
            name,
            directory: initial.directory,
            payload_bytes_max: initial.payload_bytes_max,
            metrics,
            state: Mutex::new(State {
                submissions: SubmissionQueue::new(initial.bound),
                next_lsn: Lsn(initial.given_out.0 + 1),
                durable: initial.given_out,
                last_entry: initial.last_entry,
                in_flight: false,
                refusing: None,
                disk_full: false,
                failed: false,
                closing: false,
                ended: false,
                files_ended: false,
                catalogue: initial.catalogue,
                preparation: Preparation::Working,
                stream,
                committer: None,
                lingers_for: None,
                preparer: None,
                room: Vec::new(),
                busy: Vec::new(),
                unreleased: Vec::new(),
                unreleased_bytes_max: initial.unreleased_bytes_max,
                times_relieved: 0,
                awaits_file: false,
                lacks_descriptors: false,
                room_left: u64::MAX,
                kept_back: initial.kept_back,
                holds_on: initial.holds_on,
                closed: Vec::new(),
            }),
        })
    }

    /// Every critical section is a few moves, so a panic in one leaves sound data.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn depth(&self, state: &State) {
        if let Some(metrics) = &self.metrics {
            metrics.wal_queue_depth.set(state.submissions.held().entries as i64);
        }
    }

    pub(super) fn submit(
        &self,
        entries: Vec<JournalEntry>,
        progress: &Arc<Progress>,
    ) -> Result<Lsn, SubmitError> {
        if let Some(large) = entries.iter().find(|entry| entry.payload.len() > self.payload_bytes_max) {
            return Err(SubmitError::TooLarge(large.payload.len()));
        }
        let amount = Amount::of(&entries);
        let mut state = self.state();
        // While the disk is full there is room for what is no record.
        let records = entries.iter().any(|entry| entry.kind == super::EntryKind::Batch);
        state.takes(progress, records)?;
        if entries.is_empty() {
            return Ok(Lsn(state.next_lsn.0 - 1));
        }
        if entries[0].kind == super::EntryKind::Batch && state.holds_too_much() {
            return Err(SubmitError::Full);
        }
        state.submissions.admit(&entries, amount)?;
        let first_lsn = state.next_lsn;
        state.next_lsn = Lsn(first_lsn.0 + amount.entries as u64);
        let progress = progress.clone();
        state.submissions.join(Submission { first_lsn, entries, bytes: amount.bytes, progress });
        self.depth(&state);
        state.check_invariants();
        let last_lsn = Lsn(state.next_lsn.0 - 1);
        let committer = match state.lingers_for {
            Some(bound) if !state.submissions.fills(bound) => None,
            _ => state.committer.take(),
        };
        let busy = std::mem::take(&mut state.busy);
        drop(state);
        wake(committer);
        wake(busy);
        Ok(last_lsn)
    }

    /// Waits for something to commit, or for the end.
    #[track_caller]
    pub fn work(&self) -> impl Future<Output = Work> + '_ {
        let site = Location::caller();
        async move {
            let waiting = poll_fn(|cx| {
                let mut state = self.state();
                if !state.submissions.is_empty() {
                    return Poll::Ready(Work::Commit);
                }
                if state.closing {
                    return Poll::Ready(Work::Close);
                }
                state.committer = Some(cx.waker().clone());
                Poll::Pending
            });
            let registry = self.backend.registry();
            let wait = registry.waiting(&self.backend, WaitKind::Receive, "entries to commit", site);
            let idle = Deadline::Unbounded("a journal with nothing in line waits for something to commit");
            wait.on(self.name.clone()).bounded_by(idle).during(waiting).await
        }
    }

    /// Waits until the next group is full, or for so long.
    #[track_caller]
    pub fn linger(&self, bound: Amount, linger: Duration) -> impl Future<Output = ()> + '_ {
        let site = Location::caller();
        async move {
            let filled = poll_fn(|cx| {
                let mut state = self.state();
                if state.closing || state.submissions.fills(bound) {
                    return Poll::Ready(());
                }
                state.lingers_for = Some(bound);
                state.committer = Some(cx.waker().clone());
                Poll::Pending
            });
            let until = Deadline::after(&self.backend, linger);
            let registry = self.backend.registry();
            let wait = registry.waiting(&self.backend, WaitKind::Timer, "more entries for the group", site);
            // Nobody holds what it waits for, and less than a full group is what most lingering ends with.
            let filling = wait.on(self.name.clone()).bounded_by(until).during(filled);
            let _ = within(&self.backend, until, filling).await;
            let mut state = self.state();
            state.lingers_for = None;
            state.committer = None;
        }
    }

    /// Moves the next group into `group`.
    pub fn take_group(&self, bound: Amount, group: &mut VecDeque<Submission>) {
        let mut state = self.state();
        state.submissions.take(bound, group);
        assert!(!state.in_flight, "one group is in flight at a time");
        state.in_flight = !group.is_empty();
        self.depth(&state);
        state.check_invariants();
        let room = std::mem::take(&mut state.room);
        drop(state);
        wake(room);
    }

    /// The group is durable: says so to everyone who waits for part of it, and empties it.
    pub fn complete(&self, group: &mut VecDeque<Submission>, bytes: u64, room_left: u64) {
        let (first, last) = group.front().zip(group.back()).expect("a group that was written has entries");
        let (first_lsn, last_lsn) = (first.first_lsn, last.last_lsn());
        let mut state = self.state();
        assert!(first_lsn > state.durable, "groups become durable in order");
        state.in_flight = false;
        state.durable = last_lsn;
        state.last_entry = last_lsn;
        state.room_left = room_left;
        state.stream.write(first_lsn, bytes);
        state.check_invariants();
        let unreleased = state.stream.unreleased();
        let mut crossed: Vec<Waker> =
            state.unreleased.extract_if(.., |(bound, _)| unreleased > *bound).map(|(_, w)| w).collect();
        if state.holds_too_much() {
            crossed.append(&mut state.busy);
        }
        drop(state);
        // From the back each waiter is met at its highest LSN first, and told once.
        for submission in group.iter().rev() {
            let lsn = submission.last_lsn();
            if submission.progress.reached() < lsn.0 {
                submission.progress.reach(lsn.0);
            }
        }
        wake(crossed);
        group.clear();
    }

    /// The group will not become durable, nor will what waits behind it: entries of a partition only
    /// make sense in order. Told under the mutex, so nobody submits behind a failure without seeing it.
    pub fn fail(&self, group: &mut VecDeque<Submission>, why: CommitFailure) {
        let mut state = self.state();
        state.in_flight = false;
        match why {
            CommitFailure::MovedOn => {}
            // A file may have been prepared since the commit loop gave up waiting for one.
            CommitFailure::NoSpace => state.disk_full = state.lacks_space(),
            CommitFailure::Stopped => state.failed = true,
        }
        let waiting = state.submissions.take_all();
        for submission in group.iter().chain(&waiting) {
            submission.progress.fail_from(submission.first_lsn.0);
        }
        self.depth(&state);
        let room = std::mem::take(&mut state.room);
        // Whoever watches for work also has to see that none is taken any more; and checkpoints make room.
        let tells = state.failed || state.disk_full;
        let mut busy = if tells { std::mem::take(&mut state.busy) } else { Vec::new() };
        if state.disk_full {
            busy.extend(std::mem::take(&mut state.unreleased).into_iter().map(|(_, waker)| waker));
        }
        drop(state);
        wake(room);
        wake(busy);
        group.clear();
    }

    /// Gives a file up.
    pub fn sealed(&self, file: Sealed) {
        let mut state = self.state();
        state.catalogue.handle_sealed(file);
        let preparer = state.preparer.take();
        drop(state);
        wake(preparer);
    }

    /// Waits for a file to write to in the place of one that is full, which is sealed when there is another and not
    /// before: until then it may take what is no record.
    #[track_caller]
    pub fn next_file(&self, mut full: Option<Sealed>) -> impl Future<Output = NextFile> + '_ {
        let site = Location::caller();
        async move {
            let waiting = poll_fn(|cx| {
                let mut state = self.state();
                state.awaits_file = false;
                if state.catalogue.has_spare()
                    && let Some(full) = full.take()
                {
                    // Before the next one is begun: what its header says of the oldest file counts this one.
                    state.catalogue.handle_sealed(full);
                }
                if let Some(file) = state.catalogue.take_spare() {
                    let preparer = state.preparer.take();
                    drop(state);
                    wake(preparer);
                    return Poll::Ready(NextFile::Ready(file));
                }
                let hopeless = match state.preparation {
                    Preparation::Working => false,
                    Preparation::NoSpace => !state.holds_on,
                    Preparation::Failed => state.closing,
                };
                if hopeless {
                    return Poll::Ready(NextFile::NoSpace);
                }
                state.awaits_file = true;
                state.committer = Some(cx.waker().clone());
                Poll::Pending
            });
            let registry = self.backend.registry();
            let wait = registry.waiting(&self.backend, WaitKind::Change, super::FILE_WAIT, site);
            let told = Deadline::Unbounded(
                "a commit without a file waits for one; that it lasts is told as a write state",
            );
            wait.on(self.directory.clone()).bounded_by(told).during(waiting).await
        }
    }

    /// Whether a file cannot be opened for want of a descriptor.
    pub fn descriptors_lack(&self, lack: bool) {
        self.state().lacks_descriptors = lack;
    }

    /// The commit loop is the one that all who wait here wait for.
    pub fn loop_began(&self, site: &'static Location<'static>) {
        self.resource.held_by(Holder { task: task::current(), since: self.backend.now(), site });
    }

    pub fn loop_ended(&self) {
        let mut state = self.state();
        state.ended = true;
        let mut woken = std::mem::take(&mut state.closed);
        woken.extend(state.preparer.take());
        drop(state);
        self.resource.released();
        wake(woken);
    }

    pub fn files_ended(&self) {
        let mut state = self.state();
        state.files_ended = true;
        let woken = std::mem::take(&mut state.closed);
        drop(state);
        wake(woken);
    }

    /// The commit loop takes nothing any more.
    pub fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// Waits for something to do about files; `None` when the journal has ended.
    #[track_caller]
    pub fn file_work(&self) -> impl Future<Output = Option<FileWork>> + Send + '_ {
        let site = Location::caller();
        async move {
            let waiting = poll_fn(|cx| {
                let mut state = self.state();
                if state.ended {
                    return Poll::Ready(None);
                }
                if let Some(work) = state.catalogue.next_work() {
                    return Poll::Ready(Some(work));
                }
                state.preparer = Some(cx.waker().clone());
                Poll::Pending
            });
            let registry = self.backend.registry();
            let wait = registry.waiting(&self.backend, WaitKind::Receive, "journal files to prepare", site);
            let idle = Deadline::Unbounded("a journal with a spare file needs no other until that is taken");
            wait.on(self.name.clone()).bounded_by(idle).during(waiting).await
        }
    }

    /// Waits until the commit loop has ended, at most until the deadline.
    pub async fn until_ended(&self, deadline: Deadline) -> Result<(), TimedOut> {
        self.until_closed_as(|state| state.ended, deadline).await
    }

    /// Waits until nothing of the journal is left, at most until the deadline.
    pub async fn until_closed(&self, deadline: Deadline) -> Result<(), TimedOut> {
        self.until_closed_as(|state| state.ended && state.files_ended, deadline).await
    }

    async fn until_closed_as(&self, closed: fn(&State) -> bool, deadline: Deadline) -> Result<(), TimedOut> {
        let waiting = poll_fn(|cx| {
            let mut state = self.state();
            if closed(&state) {
                return Poll::Ready(());
            }
            remember(&mut state.closed, cx);
            Poll::Pending
        });
        self.wait(WaitKind::Change, "the end of the journal", Location::caller(), deadline, waiting).await
    }

    /// What a new file's header says is its first LSN.
    pub fn next_lsn(&self) -> Lsn {
        self.state().next_lsn
    }

    pub fn prepared(&self, file: Prepared, plan: &Plan) {
        let mut state = self.state();
        state.catalogue.handle_prepared(file, plan);
        state.preparation = Preparation::Working;
        state.disk_full = false;
        let committer = state.committer.take();
        let room = std::mem::take(&mut state.room);
        drop(state);
        wake(committer);
        wake(room);
    }

    pub fn preparation_failed(&self, work: FileWork, no_space: bool) {
        let mut state = self.state();
        if let FileWork::Recycle { from, .. } = work {
            state.catalogue.handle_recycling_failed(from);
        }
        state.preparation = if no_space { Preparation::NoSpace } else { Preparation::Failed };
        let committer = state.committer.take();
        let busy = if state.is_full() { std::mem::take(&mut state.busy) } else { Vec::new() };
        drop(state);
        wake(committer);
        wake(busy);
    }

    pub fn removed(&self, file: Sealed) {
        self.state().catalogue.handle_removed(file);
    }

    pub(super) async fn wait<T>(
        &self,
        kind: WaitKind,
        what: &'static str,
        site: &'static Location<'static>,
        deadline: Deadline,
        waiting: impl Future<Output = T>,
    ) -> Result<T, TimedOut> {
        let registry = self.backend.registry();
        let wait = registry
            .waiting(&self.backend, kind, what, site)
            .on(self.name.clone())
            .held(self.resource.clone())
            .bounded_by(deadline);
        within(&self.backend, deadline, wait.during(waiting)).await
    }
}

/// Why entries were not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFailure {
    /// The next ones may succeed.
    MovedOn,
    NoSpace,
    Stopped,
}

impl State {
    fn takes(&self, progress: &Progress, records: bool) -> Result<(), SubmitError> {
        if self.closing {
            Err(SubmitError::Closed)
        } else if self.failed {
            Err(SubmitError::Failed)
        } else if self.disk_full && records {
            Err(SubmitError::DiskFull)
        } else if let Some(why) = self.refuses(records) {
            Err(why)
        } else if progress.failed_from().is_some() {
            // Its owner has not yet seen that what it submitted before has failed.
            Err(SubmitError::Failed)
        } else {
            Ok(())
        }
    }

    /// What the stall watchdog says of records, or of what is none.
    pub(super) fn refuses(&self, records: bool) -> Option<SubmitError> {
        self.refusing.filter(|why| records || *why == SubmitError::Stalled)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight || !self.submissions.is_empty()
    }

    /// Records are in memory until a checkpoint has brought them into segments: where checkpoints cannot keep up,
    /// producers wait for them.
    pub(super) fn holds_too_much(&self) -> bool {
        self.stream.unreleased() > self.unreleased_bytes_max
    }

    pub(super) fn no_file(&self) -> Option<NoFile> {
        if self.lacks_descriptors {
            return Some(NoFile::NoDescriptor);
        }
        let why = match self.preparation {
            Preparation::Failed => NoFile::Failed,
            Preparation::Working | Preparation::NoSpace => NoFile::BeingPrepared,
        };
        self.awaits_file.then_some(why)
    }

    /// Whether there is no room for what clients want, as far as it is known.
    pub(super) fn is_full(&self) -> bool {
        let none_left = self.awaits_file || self.room_left < self.kept_back;
        self.disk_full || (self.holds_on && self.lacks_space() && none_left)
    }

    fn lacks_space(&self) -> bool {
        self.preparation == Preparation::NoSpace && !self.catalogue.has_spare()
    }
}

pub(super) fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

pub(super) fn remember(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}
