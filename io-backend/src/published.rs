//! A state that one task publishes and others read and wait on: the latest value wins.
//!
//! A reader may miss values in between, never the last one. No lock is held while a reader looks.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::backend::Backend;
use crate::mutex::lock;
use crate::registry::WaitKind;
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
    waiting: BTreeMap<u64, Waker>,
    numbers: u64,
}

impl<T> Shared<T> {
    /// Has `waker` woken at the next change, in the place of this number if it is still there; the number.
    fn line_up(&mut self, number: Option<u64>, waker: &Waker) -> u64 {
        if let Some(number) = number
            && let Some(old) = self.waiting.get_mut(&number)
        {
            old.clone_from(waker);
            return number;
        }
        self.numbers += 1;
        self.waiting.insert(self.numbers, waker.clone());
        self.numbers
    }
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Published { name: self.name, shared: self.shared.clone() }
    }
}

impl<T: Send + Sync> Published<T> {
    /// A state with its first value. `name` is what waits for it are called in the registry.
    pub fn new(name: &'static str, value: T) -> Published<T> {
        let shared = Shared { value: Arc::new(value), version: 0, waiting: BTreeMap::new(), numbers: 0 };
        Published { name, shared: Arc::new(Mutex::new(shared)) }
    }

    /// The latest value.
    pub fn get(&self) -> Arc<T> {
        lock(&self.shared).value.clone()
    }

    /// How often the value has been replaced.
    pub fn version(&self) -> u64 {
        lock(&self.shared).version
    }

    /// To wait for changes of many states at once: whoever does so has one wait for all of them.
    pub fn watcher(&self) -> Watcher<T> {
        Watcher { shared: self.shared.clone(), number: None }
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
        for waker in waiting.into_values() {
            waker.wake();
        }
    }

    /// Waits until `wanted` holds of the latest value, and returns that value.
    ///
    /// # Errors
    /// When the deadline passed before `wanted` held.
    #[track_caller]
    pub fn until<'a, B: Backend>(
        &'a self,
        backend: &'a B,
        deadline: Deadline,
        mut wanted: impl FnMut(&T) -> bool + Send + 'a,
    ) -> impl Future<Output = Result<Arc<T>, TimedOut>> + Send + 'a {
        let site = Location::caller();
        async move {
            let mut place = Waiter { shared: &self.shared, number: None };
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

/// Watches one state; dropping it ends that.
pub struct Watcher<T> {
    shared: Arc<Mutex<Shared<T>>>,
    number: Option<u64>,
}

impl<T> Watcher<T> {
    /// The latest value; `waker` is woken when there is a newer one.
    pub fn watch(&mut self, waker: &Waker) -> Arc<T> {
        let mut shared = lock(&self.shared);
        self.number = Some(shared.line_up(self.number, waker));
        shared.value.clone()
    }
}

impl<T> Drop for Watcher<T> {
    fn drop(&mut self) {
        if let Some(own) = self.number {
            lock(&self.shared).waiting.remove(&own);
        }
    }
}

/// A waiter's place among those to be woken.
struct Waiter<'a, T> {
    shared: &'a Mutex<Shared<T>>,
    number: Option<u64>,
}

impl<T> Waiter<'_, T> {
    /// False if there is a newer version to look at first.
    fn take(&mut self, seen: u64, waker: &Waker) -> bool {
        let mut shared = lock(self.shared);
        if shared.version != seen {
            return false;
        }
        self.number = Some(shared.line_up(self.number, waker));
        true
    }
}

impl<T> Drop for Waiter<'_, T> {
    fn drop(&mut self) {
        let Some(own) = self.number else { return };
        lock(self.shared).waiting.remove(&own);
    }
}

#[cfg(test)]
mod tests;
