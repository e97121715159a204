//! How a connection is told of its end, and what it tells of itself.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Waker;

use futures::task::AtomicWaker;
use io_backend::Moment;

use crate::budget::CutOff;
use crate::limits::IDLE_BEFORE_NEWCOMERS;
use crate::partition::{AppendError, Unacknowledged};

/// What a connection is told about its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Closing {
    /// It goes on.
    No = 0,
    /// No new request; close when the last answer is written.
    WhenAnswered = 1,
    /// Others wait for what it holds of the node's memory.
    ForRoom = 2,
    /// Nothing is asked on it, and somebody else wants its place.
    ForNewcomer = 3,
    /// It ends at once, whatever is unanswered.
    Now = 4,
}

/// The server's line to one connection.
#[derive(Debug, Default)]
pub struct Control {
    closing: AtomicU8,
    hurried: AtomicBool,
    /// Since when nothing is asked on it, ns; 0 while something is.
    idle_since: AtomicU64,
    /// Something has been asked on it.
    has_asked: AtomicBool,
    /// The first failure of a produce that nobody waits for.
    failure: OnceLock<AppendError>,
    waker: AtomicWaker,
}

impl Control {
    /// The latest word; the connection is woken when it changes.
    pub fn closing(&self, waker: &Waker) -> Closing {
        self.waker.register(waker);
        match self.closing.load(Ordering::Acquire) {
            0 => Closing::No,
            1 => Closing::WhenAnswered,
            2 => Closing::ForRoom,
            3 => Closing::ForNewcomer,
            _ => Closing::Now,
        }
    }

    /// Whether a request of this connection may not wait for anything that it could be answered without. Said and
    /// heard by the connection's own task.
    pub fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::Relaxed)
    }

    /// Whether its requests are to be answered with what there is: others need the room.
    pub fn hurry(&self, hurried: bool) {
        self.hurried.store(hurried, Ordering::Relaxed);
    }

    /// Looked at after [`Control::closing`], which leaves the waker that a failure wakes.
    pub fn unacknowledged_failure(&self) -> Option<&AppendError> {
        self.failure.get()
    }

    /// A request has begun to come.
    pub fn asked(&self) {
        self.idle_since.store(0, Ordering::Relaxed);
        self.has_asked.store(true, Ordering::Relaxed);
    }

    /// Nothing is asked on it since this moment.
    pub fn idle(&self, since: Moment) {
        self.idle_since.store(since.0.max(1), Ordering::Relaxed);
    }

    /// Who gives way first: those that never asked anything, then by how long they have been idle.
    pub fn gives_way(&self, now: Moment) -> Option<(bool, u64)> {
        let since = self.idle_since.load(Ordering::Relaxed);
        let idle = since > 0 && now.since(Moment(since)) >= IDLE_BEFORE_NEWCOMERS;
        idle.then(|| (self.has_asked.load(Ordering::Relaxed), since))
    }

    /// Tells it to end in this way. Of several the most urgent holds.
    pub fn close(&self, how: Closing) {
        self.closing.fetch_max(how as u8, Ordering::AcqRel);
        self.waker.wake();
    }
}

impl CutOff for Control {
    fn cut_off(&self) {
        self.close(Closing::ForRoom);
    }
}

impl Unacknowledged for Control {
    fn failed(&self, error: &AppendError) {
        // A later one says no more.
        let _ = self.failure.set(error.clone());
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_is_never_taken_back() {
        let control = Control::default();
        control.close(Closing::Now);
        control.close(Closing::WhenAnswered);
        assert_eq!(control.closing(Waker::noop()), Closing::Now);
    }
}
