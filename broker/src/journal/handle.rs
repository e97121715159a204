//! The journal as its users see it: [`Journal`] on top of the queue.

use std::future::poll_fn;
use std::panic::Location;
use std::sync::Arc;
use std::task::{Context, Poll};

use io_backend::progress::Progress;
use io_backend::registry::Resource;
use io_backend::{Backend, Deadline, WaitKind};

use super::format::entry_bytes;
use super::shared::{JournalShared, State, remember, wake};
use super::submission_queue::Amount;
use super::{Journal, JournalEntry, JournalStatus, SubmitError, Waiting};
use crate::ids::{Lsn, PartitionId};

/// Dropping it ends the journal once what is queued is written.
pub struct Handle<B: Backend>(pub Arc<JournalShared<B>>);

impl<B: Backend> Drop for Handle<B> {
    fn drop(&mut self) {
        self.begin_closing();
    }
}

impl<B: Backend> Handle<B> {
    fn begin_closing(&self) {
        let mut state = self.0.state();
        state.closing = true;
        let mut woken = std::mem::take(&mut state.room);
        woken.extend(state.committer.take());
        drop(state);
        wake(woken);
    }

    fn until(
        &self,
        kind: WaitKind,
        what: &'static str,
        site: &'static Location<'static>,
        deadline: Deadline,
        mut look: impl FnMut(&mut State, &Context<'_>) -> bool + Send + 'static,
    ) -> Waiting {
        let queue = self.0.clone();
        Box::pin(async move {
            let waiting = poll_fn(|cx| match look(&mut queue.state(), cx) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
            queue.wait(kind, what, site, deadline, waiting).await
        })
    }
}

impl<B: Backend> Journal for Handle<B> {
    fn submit(&self, entries: Vec<JournalEntry>, progress: &Arc<Progress>) -> Result<Lsn, SubmitError> {
        self.0.submit(entries, progress)
    }

    #[track_caller]
    fn wait_for_capacity(&self, partition: PartitionId, bytes: usize, deadline: Deadline) -> Waiting {
        let wanted = Amount { entries: 1, bytes: entry_bytes(bytes) };
        let site = Location::caller();
        let what = match self.0.state().holds_too_much() {
            true => "a checkpoint to release the journal",
            false => "room in the journal's queue",
        };
        self.until(WaitKind::Send, what, site, deadline, move |state, cx| {
            // Where no records are taken at all, submitting tells why; waiting would not.
            let records = partition != PartitionId::NODE;
            let takes_none = records && (state.disk_full || state.refuses(true).is_some());
            let refuses = state.closing || state.failed || takes_none;
            let held_up = state.refuses(records).is_some() || (records && state.holds_too_much());
            let wanted = state.submissions.at_most(wanted);
            let admits = state.submissions.admit_one(partition, wanted).is_ok() && !held_up;
            if !refuses && !admits {
                remember(&mut state.room, cx);
            }
            refuses || admits
        })
    }

    fn release_before(&self, lsn: Lsn) {
        let mut state = self.0.state();
        state.catalogue.handle_released(lsn);
        let everything = lsn > state.last_entry;
        let held_too_much = state.holds_too_much();
        state.stream.release_before(lsn, everything);
        state.times_relieved += u64::from(held_too_much && !state.holds_too_much());
        let preparer = state.preparer.take();
        let room = std::mem::take(&mut state.room);
        drop(state);
        wake(preparer);
        wake(room);
    }

    fn status(&self) -> JournalStatus {
        let state = self.0.state();
        let held = state.submissions.held();
        JournalStatus {
            durable: state.durable,
            submitted: Lsn(state.next_lsn.0 - 1),
            queued_entries: held.entries,
            queued_bytes: held.bytes,
            unreleased_bytes: state.stream.unreleased(),
            failed: state.failed,
            disk_full: state.is_full(),
            holds_too_much: state.holds_too_much(),
            unreleased_bytes_max: state.unreleased_bytes_max,
            times_relieved: state.times_relieved,
            no_file: state.no_file(),
        }
    }

    fn resource(&self) -> Option<Arc<Resource>> {
        Some(self.0.resource.clone())
    }

    fn set_refusing(&self, why: Option<SubmitError>) {
        let mut state = self.0.state();
        if std::mem::replace(&mut state.refusing, why) == why {
            return;
        }
        let room = std::mem::take(&mut state.room);
        drop(state);
        wake(room);
    }

    #[track_caller]
    fn until_busy(&self, deadline: Deadline) -> Waiting {
        let site = Location::caller();
        self.until(WaitKind::Change, "the journal to be busy", site, deadline, |state, cx| {
            let busy = state.is_busy() || state.failed || state.is_full() || state.holds_too_much();
            if !busy {
                remember(&mut state.busy, cx);
            }
            busy
        })
    }

    #[track_caller]
    fn until_unreleased(&self, bytes: u64, deadline: Deadline) -> Waiting {
        let site = Location::caller();
        self.until(WaitKind::Change, "the journal to grow", site, deadline, move |state, cx| {
            // Where there is no room for another file, what can be released makes some.
            let grown =
                state.stream.unreleased() > bytes || (state.disk_full && state.stream.unreleased() > 0);
            if !grown && !state.unreleased.iter().any(|(b, w)| *b == bytes && w.will_wake(cx.waker())) {
                state.unreleased.push((bytes, cx.waker().clone()));
            }
            grown
        })
    }

    #[track_caller]
    fn close(&self, deadline: Deadline) -> Waiting {
        self.begin_closing();
        let queue = self.0.clone();
        Box::pin(async move { queue.until_closed(deadline).await })
    }
}
