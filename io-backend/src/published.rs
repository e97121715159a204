//! A state that one task publishes and others read and wait on: the latest value wins.

use std::future::{Future, poll_fn};
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
    waiting: Vec<Waker>,
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Published { name: self.name, shared: self.shared.clone() }
    }
}

impl<T: Send + Sync> Published<T> {
    pub fn new(name: &'static str, value: T) -> Published<T> {
        let shared = Shared { value: Arc::new(value), version: 0, waiting: Vec::new() };
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
        let mut shared = lock(&self.shared);
        shared.value = Arc::new(value);
        shared.version += 1;
        let waiting = std::mem::take(&mut shared.waiting);
        drop(shared);
        for waker in waiting {
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
            let waiting = poll_fn(|cx| {
                let mut shared = lock(&self.shared);
                if wanted(&shared.value) {
                    return Poll::Ready(shared.value.clone());
                }
                if !shared.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    shared.waiting.push(cx.waker().clone());
                }
                Poll::Pending
            });
            let wait = backend.registry().waiting(backend, WaitKind::Change, self.name, site);
            within(backend, deadline, wait.during(waiting)).await
        }
    }
}
