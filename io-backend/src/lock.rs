//! Locks that may be held across an await, with a name and a level.
//!
//! Whoever holds a lock may only acquire locks of a higher level: acquiring a lower or equal one is an
//! assertion that names both source lines, so an inversion shows at its first execution and not when
//! two tasks happen to meet. Waiting has a deadline; the entry in the registry names the holder.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::backend::{Backend, Interference, SyncPoint};
use crate::mutex::lock;
use crate::registry::{Holder, Resource, WaitKind};
pub use crate::task::Level;
use crate::task::{self, CurrentTask, Held};
use crate::time::{Deadline, TimedOut, within};

#[allow(
    clippy::disallowed_types,
    reason = "lends the value without unsafe code; the queue is what tasks wait in"
)]
type Slot<T> = tokio::sync::Mutex<T>;

/// A named lock around a value, that may be held across an await.
pub struct Lock<B, T> {
    backend: B,
    level: Level,
    resource: Arc<Resource>,
    queue: Mutex<WaitQueue>,
    value: Slot<T>,
}

#[derive(Default)]
struct WaitQueue {
    held: bool,
    numbers: u64,
    /// First come, first served.
    waiting: VecDeque<(u64, Waker)>,
}

impl<B: Backend, T: Send> Lock<B, T> {
    /// A lock of this level around `value`. `name` is what the registry and assertions call it.
    pub fn new(backend: &B, name: impl Into<Arc<str>>, level: Level, value: T) -> Lock<B, T> {
        Lock {
            backend: backend.clone(),
            level,
            resource: Resource::new(name),
            queue: Mutex::new(WaitQueue::default()),
            value: Slot::new(value),
        }
    }

    /// What the lock is called.
    pub fn name(&self) -> &Arc<str> {
        &self.resource.name
    }

    /// The lock if nobody holds it now.
    #[track_caller]
    pub fn try_lock(&self) -> Option<Guard<'_, B, T>> {
        let site = Location::caller();
        self.check_level(site);
        if self.backend.interference(SyncPoint::Lock(self.name())) != Interference::None {
            return None;
        }
        let mut queue = lock(&self.queue);
        if queue.held {
            return None;
        }
        queue.held = true;
        drop(queue);
        Some(self.guard(site))
    }

    /// The lock, once all that asked before have had it.
    ///
    /// # Errors
    /// When the deadline passed before the lock was free; the place in the queue is given up.
    #[track_caller]
    pub fn lock(&self, deadline: Deadline) -> impl Future<Output = Result<Guard<'_, B, T>, TimedOut>> + Send
    where
        T: Sync,
    {
        let site = Location::caller();
        async move {
            self.check_level(site);
            if let Interference::Delay(delay) = self.backend.interference(SyncPoint::Lock(self.name())) {
                self.backend.sleep(delay).await;
            }
            let mut turn = Turn { queue: &self.queue, number: None };
            let waiting = poll_fn(|cx| turn.poll(cx.waker()));
            let wait = self
                .backend
                .registry()
                .waiting(&self.backend, WaitKind::Lock, "lock", site)
                .on(self.name().clone())
                .held(self.resource.clone())
                .bounded_by(deadline);
            within(&self.backend, deadline, wait.during(waiting)).await?;
            Ok(self.guard(site))
        }
    }

    fn guard(&self, site: &'static Location<'static>) -> Guard<'_, B, T> {
        let owner = task::current();
        self.resource.held_by(Holder { task: owner.clone(), since: self.backend.now(), site });
        if let Some(owner) = &owner {
            let held = Held { level: self.level, name: self.name().clone(), site };
            lock(&owner.held).push(held);
        }
        let value = match self.value.try_lock() {
            Ok(value) => value,
            Err(_) => unreachable!("the queue admits one holder at a time"),
        };
        Guard { of: self, owner, value: Some(value) }
    }

    fn check_level(&self, site: &'static Location<'static>) {
        let Some(owner) = task::current() else { return };
        for held in lock(&owner.held).iter() {
            assert!(
                held.level < self.level,
                "lock order: {} (level {}) wanted at {site} while {} (level {}) is held since {}",
                self.name(),
                self.level.0,
                held.name,
                held.level.0,
                held.site,
            );
        }
    }
}

/// A place in the line for a lock.
struct Turn<'a> {
    queue: &'a Mutex<WaitQueue>,
    number: Option<u64>,
}

impl Turn<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<()> {
        let mut queue = lock(self.queue);
        let first = match self.number {
            None => queue.waiting.is_empty(),
            Some(number) => queue.waiting.front().is_some_and(|(n, _)| *n == number),
        };
        if first && !queue.held {
            queue.held = true;
            if self.number.take().is_some() {
                queue.waiting.pop_front();
            }
            return Poll::Ready(());
        }
        match self.number {
            None => {
                queue.numbers += 1;
                let number = queue.numbers;
                self.number = Some(number);
                queue.waiting.push_back((number, waker.clone()));
            }
            Some(number) => {
                if let Some((_, old)) = queue.waiting.iter_mut().find(|(n, _)| *n == number) {
                    old.clone_from(waker);
                }
            }
        }
        Poll::Pending
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut queue = lock(self.queue);
        queue.waiting.retain(|(n, _)| *n != number);
        if !queue.held
            && let Some((_, next)) = queue.waiting.front()
        {
            next.wake_by_ref();
        }
    }
}

/// Holds the lock until dropped.
pub struct Guard<'a, B: Backend, T: Send> {
    of: &'a Lock<B, T>,
    owner: Option<Arc<CurrentTask>>,
    value: Option<tokio::sync::MutexGuard<'a, T>>,
}

impl<B: Backend, T: Send> Deref for Guard<'_, B, T> {
    type Target = T;
    fn deref(&self) -> &T {
        match &self.value {
            Some(value) => value,
            None => unreachable!("only drop takes the value"),
        }
    }
}

impl<B: Backend, T: Send> DerefMut for Guard<'_, B, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.value {
            Some(value) => value,
            None => unreachable!("only drop takes the value"),
        }
    }
}

impl<B: Backend, T: Send> Drop for Guard<'_, B, T> {
    fn drop(&mut self) {
        drop(self.value.take());
        if let Some(owner) = self.owner.take() {
            let mut held = lock(&owner.held);
            if let Some(at) = held.iter().rposition(|held| Arc::ptr_eq(&held.name, self.of.name())) {
                held.remove(at);
            }
        }
        self.of.resource.released();
        let mut queue = lock(&self.of.queue);
        queue.held = false;
        let next = queue.waiting.front().map(|(_, waker)| waker.clone());
        drop(queue);
        if let Some(next) = next {
            next.wake();
        }
    }
}

#[cfg(test)]
mod tests;
