//! The timer queue: what is to happen when, in order of moment and then of registration.
//!
//! Entries are cancelled by key, so a deadline that did not pass leaves nothing behind.

use std::collections::BTreeMap;
use std::task::Waker;

/// What is done when the time has come.
pub type Action = Box<dyn FnOnce() + Send>;

/// What a timer does when it is due. Actions run with no lock held and no task being polled.
pub enum Due {
    Wake(Waker),
    Act(Action),
}

/// Identifies an entry: its moment and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerKey {
    pub at: u64,
    pub number: u64,
}

#[derive(Default)]
pub struct Timers {
    queue: BTreeMap<TimerKey, Due>,
    numbers: u64,
    fired: u64,
}

impl Timers {
    pub fn add(&mut self, at: u64, due: Due) -> TimerKey {
        self.numbers += 1;
        let key = TimerKey { at, number: self.numbers };
        self.queue.insert(key, due);
        key
    }

    /// Takes the entry out; the caller drops it when no lock is held.
    pub fn cancel(&mut self, key: TimerKey) -> Option<Due> {
        self.queue.remove(&key)
    }

    /// Replaces the waker of an entry that has not fired; false when it has.
    pub fn rewake(&mut self, key: TimerKey, waker: &Waker) -> bool {
        match self.queue.get_mut(&key) {
            Some(Due::Wake(old)) => {
                old.clone_from(waker);
                true
            }
            _ => false,
        }
    }

    pub fn next(&self) -> Option<u64> {
        self.queue.first_key_value().map(|(key, _)| key.at)
    }

    /// The first entry due at `now`.
    pub fn pop_due(&mut self, now: u64) -> Option<(TimerKey, Due)> {
        if self.next()? > now {
            return None;
        }
        self.fired += 1;
        self.queue.pop_first()
    }

    pub fn fired(&self) -> u64 {
        self.fired
    }

    pub fn take_all(&mut self) -> BTreeMap<TimerKey, Due> {
        std::mem::take(&mut self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wake() -> Due {
        Due::Wake(Waker::noop().clone())
    }

    #[test]
    fn timers_fire_in_order_of_moment_then_of_registration() {
        let mut timers = Timers::default();
        let late = timers.add(20, wake());
        let first = timers.add(10, wake());
        let second = timers.add(10, wake());
        let order: Vec<TimerKey> = std::iter::from_fn(|| timers.pop_due(30).map(|(key, _)| key)).collect();
        assert_eq!(order, [first, second, late]);
    }

    #[test]
    fn nothing_fires_early_and_nothing_cancelled_fires() {
        let mut timers = Timers::default();
        let key = timers.add(10, wake());
        timers.add(11, wake());
        assert!(timers.pop_due(9).is_none());
        assert!(timers.cancel(key).is_some());
        assert!(timers.cancel(key).is_none());
        assert_eq!(timers.pop_due(11).map(|(key, _)| key.at), Some(11));
        assert_eq!(timers.next(), None);
    }
}
