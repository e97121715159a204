//! A number that only grows, told by one task to one waiter: how far a journal is durable for a replica.
//!
//! Never lost and never queued: later values replace earlier ones, so a stalled reader costs nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use crate::mutex::lock;

/// How far something has come. One task tells, one waits.
#[derive(Debug, Default)]
pub struct Progress {
    reached: AtomicU64,
    /// 0: nothing failed; otherwise one more than the first number that will never be reached.
    failed_from: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Progress {
    /// Progress that begins at `reached`.
    pub fn at(reached: u64) -> Progress {
        Progress { reached: AtomicU64::new(reached), ..Progress::default() }
    }

    /// The highest number that has been reached.
    pub fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// The first number that will never be reached, if something failed.
    pub fn failed_from(&self) -> Option<u64> {
        self.failed_from.load(Ordering::Acquire).checked_sub(1)
    }

    /// Moves forward to `number` (never back) and wakes the waiter.
    pub fn reach(&self, number: u64) {
        self.reached.fetch_max(number, Ordering::AcqRel);
        self.wake();
    }

    /// Nothing from `number` on will be reached by what was submitted so far.
    pub fn fail_from(&self, number: u64) {
        let _ = self.failed_from.compare_exchange(0, number + 1, Ordering::AcqRel, Ordering::Acquire);
        self.wake();
    }

    /// The failure has been dealt with; later submissions may succeed.
    pub fn clear_failure(&self) {
        self.failed_from.store(0, Ordering::Release);
    }

    /// Asks to be woken at the next change. Call it before looking, or a change may be missed.
    pub fn register(&self, cx: &Context<'_>) {
        let mut waker = lock(&self.waker);
        match &mut *waker {
            Some(old) => old.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        let waker = lock(&self.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
