//! How many disk operations a process has in flight: as many as the real backend allows, first come, first served.
//!
//! An operation keeps its permit until it is done, whoever waits for it; only dedicated loops need none.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::lock;

/// The permits of one process and one class of operations.
pub struct Permits(Mutex<State>);

struct State {
    free: usize,
    /// Who waits, by number, oldest first.
    waiting: VecDeque<(u64, Option<Waker>)>,
    /// Permits given to the oldest waiters that have not fetched them yet.
    granted: Vec<u64>,
    numbers: u64,
}

impl Permits {
    pub fn new(most: usize) -> Arc<Permits> {
        let state = State { free: most, waiting: VecDeque::new(), granted: Vec::new(), numbers: 0 };
        Arc::new(Permits(Mutex::new(state)))
    }

    /// One that is free now; whoever waits comes first.
    pub fn try_acquire(self: &Arc<Permits>) -> Option<Permit> {
        let mut state = lock(&self.0);
        state.free = state.free.checked_sub(1)?;
        Some(Permit(self.clone()))
    }

    pub fn acquire(self: &Arc<Permits>) -> Acquire {
        Acquire { permits: self.clone(), number: None }
    }

    /// Passes a permit on to the oldest waiter, or puts it back.
    fn put_back(&self) {
        let waker = {
            let mut state = lock(&self.0);
            match state.waiting.pop_front() {
                Some((number, waker)) => {
                    state.granted.push(number);
                    waker
                }
                None => {
                    state.free += 1;
                    None
                }
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The right to have one operation in flight; given back when it is dropped, with no lock held.
pub struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.put_back();
    }
}

/// Completes when the permit is there.
pub struct Acquire {
    permits: Arc<Permits>,
    /// Its place in the queue, once it has one.
    number: Option<u64>,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let permits = self.permits.clone();
        let mut state = lock(&permits.0);
        let State { free, waiting, granted, numbers } = &mut *state;
        match self.number {
            None if *free > 0 => {
                *free -= 1;
                drop(state);
                return Poll::Ready(Permit(permits));
            }
            None => {
                *numbers += 1;
                self.number = Some(*numbers);
                waiting.push_back((*numbers, Some(cx.waker().clone())));
            }
            Some(number) => {
                if let Some(at) = granted.iter().position(|known| *known == number) {
                    granted.swap_remove(at);
                    self.number = None;
                    drop(state);
                    return Poll::Ready(Permit(permits));
                }
                if let Some((_, waker)) = waiting.iter_mut().find(|(known, _)| *known == number) {
                    *waker = Some(cx.waker().clone());
                }
            }
        }
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = lock(&self.permits.0);
        state.waiting.retain(|(known, _)| *known != number);
        let granted = state.granted.iter().position(|known| *known == number);
        if let Some(at) = granted {
            state.granted.swap_remove(at);
        }
        drop(state);
        if granted.is_some() {
            self.permits.put_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(acquire: &mut Acquire) -> Option<Permit> {
        match Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_oldest_waiter_gets_the_next_permit() {
        let permits = Permits::new(1);
        let held = poll(&mut permits.acquire()).unwrap();
        let (mut first, mut second) = (permits.acquire(), permits.acquire());
        assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
        drop(held);
        assert!(poll(&mut permits.acquire()).is_none(), "nobody overtakes");
        assert!(poll(&mut second).is_none());
        let held = poll(&mut first).unwrap();
        assert!(poll(&mut second).is_none());
        drop(held);
        assert!(poll(&mut second).is_some());
    }

    #[test]
    fn a_waiter_that_gives_up_passes_its_permit_on() {
        let permits = Permits::new(1);
        let held = poll(&mut permits.acquire()).unwrap();
        let (mut first, mut second) = (permits.acquire(), permits.acquire());
        assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
        drop(held);
        drop(first);
        drop(poll(&mut second).unwrap());
        assert!(poll(&mut permits.acquire()).is_some());
    }
}
