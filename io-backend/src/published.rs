//! A state that one task publishes and others read and wait on: the latest value wins.
//!
//! A reader may miss values in between, never the last one. No lock is held while a reader looks.

use std::future::poll_fn;
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::Backend;
use crate::registry::{WaitKind, lock};
use crate::time::{Deadline, TimedOut, within};

/// Cloneable: all clones are the same state.
pub struct Published<T> {
    name: &'static str,
    shared: Arc<Mutex<Shared<T>>>,
}

struct Shared<T> {
    value: Arc<T>,
    version: u64,
    /// Who waits for the next version; a waiter that gives up takes itself out by its number.
    waiting: Vec<(u64, Waker)>,
    numbers: u64,
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Published { name: self.name, shared: self.shared.clone() }
    }
}

impl<T: Send + Sync> Published<T> {
    pub fn new(name: &'static str, value: T) -> Published<T> {
        let shared = Shared { value: Arc::new(value), version: 0, waiting: Vec::new(), numbers: 0 };
        Published { name, shared: Arc::new(Mutex::new(shared)) }
    }

    /// The latest value.
    pub fn get(&self) -> Arc<T> {
        lock(&self.shared).value.clone()
    }

    pub fn version(&self) -> u64 {
        lock(&self.shared).version
    }

    /// Replaces the value and wakes all that wait for a change.
    pub fn publish(&self, value: T) {
        let value = Arc::new(value);
        let mut shared = lock(&self.shared);
        let old = std::mem::replace(&mut shared.value, value);
        shared.version += 1;
        let waiting = std::mem::take(&mut shared.waiting);
        drop(shared);
        drop(old);
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// Waits until `wanted` holds of the latest value, and returns that value.
    #[track_caller]
    pub fn until<'a, B: Backend>(
        &'a self,
        backend: &'a B,
        deadline: Deadline,
        mut wanted: impl FnMut(&T) -> bool + Send + 'a,
    ) -> impl Future<Output = Result<Arc<T>, TimedOut>> + Send + 'a {
        let site = Location::caller();
        async move {
            let mut place = Place { shared: &self.shared, number: None };
            let waiting = poll_fn(|cx| {
                loop {
                    let (value, version) = {
                        let shared = lock(&self.shared);
                        (shared.value.clone(), shared.version)
                    };
                    if wanted(&value) {
                        return Poll::Ready(value);
                    }
                    if place.take(version, cx.waker()) {
                        return Poll::Pending;
                    }
                }
            });
            let wait =
                backend.registry().waiting(backend, WaitKind::Change, self.name, site).bounded_by(deadline);
            within(backend, deadline, wait.during(waiting)).await
        }
    }
}

/// A waiter's place among those to be woken.
struct Place<'a, T> {
    shared: &'a Mutex<Shared<T>>,
    number: Option<u64>,
}

impl<T> Place<'_, T> {
    /// False if there is a newer version to look at first.
    fn take(&mut self, seen: u64, waker: &Waker) -> bool {
        let mut shared = lock(self.shared);
        if shared.version != seen {
            return false;
        }
        let own = self.number;
        match shared.waiting.iter_mut().find(|(number, _)| Some(*number) == own) {
            Some((_, old)) => old.clone_from(waker),
            None => {
                shared.numbers += 1;
                let number = shared.numbers;
                self.number = Some(number);
                shared.waiting.push((number, waker.clone()));
            }
        }
        true
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let Some(own) = self.number else { return };
        lock(self.shared).waiting.retain(|(number, _)| *number != own);
    }
}

#[cfg(test)]
mod tests;
