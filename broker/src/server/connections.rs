//! Who is connected, and how to tell them all that it is over.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use futures::task::AtomicWaker;
use io_backend::{Backend, Deadline, Published, TimedOut};
use prometheus_client::metrics::gauge::Gauge;

use crate::partition::{AppendError, Unacknowledged};

/// What a connection is told about its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Closing {
    No = 0,
    /// No new request; close when the last answer is written.
    WhenAnswered = 1,
    /// Others wait for what it holds of the node's memory.
    ForRoom = 2,
    Now = 3,
}

/// The server's line to one connection.
#[derive(Debug, Default)]
pub struct Control {
    closing: AtomicU8,
    hurried: AtomicBool,
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
            _ => Closing::Now,
        }
    }

    /// Whether a request of this connection may not wait for anything that it could be answered without. Said and
    /// heard by the connection's own task.
    pub fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::Relaxed)
    }

    pub fn hurry(&self, hurried: bool) {
        self.hurried.store(hurried, Ordering::Relaxed);
    }

    /// Looked at after [`Control::closing`], which leaves the waker that a failure wakes.
    pub fn unacknowledged_failure(&self) -> Option<&AppendError> {
        self.failure.get()
    }

    pub fn close(&self, how: Closing) {
        self.closing.fetch_max(how as u8, Ordering::AcqRel);
        self.waker.wake();
    }
}

impl Unacknowledged for Control {
    fn failed(&self, error: &AppendError) {
        // A later one says no more.
        let _ = self.failure.set(error.clone());
        self.waker.wake();
    }
}

/// All open connections.
pub(super) struct Connections {
    open: Mutex<Open>,
    count: Published<usize>,
    refused: AtomicU64,
}

#[derive(Default)]
struct Open {
    numbers: u64,
    controls: BTreeMap<u64, Arc<Control>>,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections {
            open: Mutex::default(),
            count: Published::new("open connections", 0),
            refused: AtomicU64::new(0),
        }
    }
}

impl Connections {
    /// `None`: there are `max` already.
    pub(super) fn join(self: &Arc<Self>, max: usize, gauge: Gauge) -> Option<Member> {
        let mut open = self.open();
        if open.controls.len() >= max {
            return None;
        }
        open.numbers += 1;
        let number = open.numbers;
        let control = Arc::new(Control::default());
        open.controls.insert(number, control.clone());
        self.count.publish(open.controls.len());
        gauge.inc();
        Some(Member { of: self.clone(), number, control, gauge })
    }

    /// Counts a connection that was turned away; returns how many there have been.
    pub(super) fn count_refused(&self) -> u64 {
        self.refused.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn len(&self) -> usize {
        self.open().controls.len()
    }

    pub(super) fn close_all(&self, how: Closing) {
        let controls: Vec<Arc<Control>> = self.open().controls.values().cloned().collect();
        for control in controls {
            control.close(how);
        }
    }

    pub(super) async fn until_empty<B: Backend>(
        &self,
        backend: &B,
        deadline: Deadline,
    ) -> Result<(), TimedOut> {
        self.count.until(backend, deadline, |count| *count == 0).await.map(|_| ())
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's membership; dropping it leaves.
pub(super) struct Member {
    of: Arc<Connections>,
    number: u64,
    control: Arc<Control>,
    gauge: Gauge,
}

impl Member {
    pub(super) fn control(&self) -> &Arc<Control> {
        &self.control
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut open = self.of.open();
        open.controls.remove(&self.number);
        self.of.count.publish(open.controls.len());
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_a_place_that_is_left_is_free_again() {
        let connections = Arc::new(Connections::default());
        let gauge = Gauge::default();
        let first = connections.join(2, gauge.clone());
        let second = connections.join(2, gauge.clone());
        assert!(first.is_some() && second.is_some());
        assert!(connections.join(2, gauge.clone()).is_none());
        drop(first);
        assert_eq!((connections.len(), gauge.get()), (1, 1));
        assert!(connections.join(2, gauge).is_some());
    }

    #[test]
    fn closing_is_never_taken_back() {
        let control = Control::default();
        control.close(Closing::Now);
        control.close(Closing::WhenAnswered);
        assert_eq!(control.closing(Waker::noop()), Closing::Now);
    }
}
