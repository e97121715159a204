//! What the node has in flight: so many requests, so many bytes of requests. A connection that finds no room
//! waits in line and is not read meanwhile, which is how clients feel it.
//!
//! Produces wait for the disk and may fill most of the account, but never all of it: whoever asks something
//! else is answered while they stand still.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use prometheus_client::metrics::gauge::Gauge;

/// What a request asks for, as far as room for it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Produce = 0,
    Other = 1,
}

/// One part in this many of the account is not for produces.
const KEPT_FREE: usize = 8;

/// The node-wide account.
pub struct InFlight {
    /// By class.
    limits: [Limit; 2],
    state: Mutex<State>,
    gauge: Gauge,
}

#[derive(Clone, Copy)]
struct Limit {
    requests: usize,
    bytes: usize,
}

#[derive(Default)]
struct State {
    requests: usize,
    bytes: usize,
    numbers: u64,
    /// By class; first come, first served, so that a large request is not starved by small ones.
    waiting: [VecDeque<(u64, Waker)>; 2],
}

impl State {
    /// The first in each line: there may be room for one.
    fn first(&self) -> [Option<Waker>; 2] {
        [0, 1].map(|class: usize| self.waiting[class].front().map(|(_, waker)| waker.clone()))
    }
}

fn wake(wakers: [Option<Waker>; 2]) {
    for waker in wakers.into_iter().flatten() {
        waker.wake();
    }
}

impl InFlight {
    pub fn new(requests_max: usize, bytes_max: usize, gauge: Gauge) -> Arc<InFlight> {
        let all = Limit { requests: requests_max, bytes: bytes_max };
        let produces = Limit {
            requests: requests_max - requests_max / KEPT_FREE,
            bytes: bytes_max - bytes_max / KEPT_FREE,
        };
        Arc::new(InFlight { limits: [produces, all], state: Mutex::default(), gauge })
    }

    /// Room for a request of `bytes`, or a place in line. A request larger than the whole account is
    /// let in when nothing else is.
    pub fn poll_enter(
        self: &Arc<Self>,
        place: &mut Place,
        class: Class,
        bytes: usize,
        cx: &Context<'_>,
    ) -> Poll<Permit> {
        let mut state = self.state();
        let line = &state.waiting[class as usize];
        let first = match place.number {
            None => line.is_empty(),
            Some(number) => line.front().is_some_and(|(n, _)| *n == number),
        };
        let limit = self.limits[class as usize];
        let fits = state.requests == 0
            || (state.requests < limit.requests && state.bytes.saturating_add(bytes) <= limit.bytes);
        if first && fits {
            if place.number.take().is_some() {
                state.waiting[class as usize].pop_front();
            }
            state.requests += 1;
            state.bytes += bytes;
            let next = state.first();
            drop(state);
            wake(next);
            self.gauge.inc();
            return Poll::Ready(Permit { of: self.clone(), bytes });
        }
        match place.number {
            None => {
                state.numbers += 1;
                let number = state.numbers;
                *place = Place { number: Some(number), class, of: Some(self.clone()) };
                state.waiting[class as usize].push_back((number, cx.waker().clone()));
            }
            Some(number) => {
                let mut line = state.waiting[class as usize].iter_mut();
                if let Some((_, waker)) = line.find(|(n, _)| *n == number) {
                    waker.clone_from(cx.waker());
                }
            }
        }
        Poll::Pending
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, bytes: usize) {
        let mut state = self.state();
        state.requests -= 1;
        state.bytes -= bytes;
        let next = state.first();
        drop(state);
        wake(next);
        self.gauge.dec();
    }
}

/// A place in line, kept by who waits; dropping it leaves the line.
pub struct Place {
    number: Option<u64>,
    class: Class,
    of: Option<Arc<InFlight>>,
}

impl Default for Place {
    fn default() -> Place {
        Place { number: None, class: Class::Other, of: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (Some(number), Some(of)) = (self.number, &self.of) else { return };
        let mut state = of.state();
        state.waiting[self.class as usize].retain(|(n, _)| *n != number);
        let next = state.first();
        drop(state);
        wake(next);
    }
}

/// A request's share of the account; dropping it gives it back.
pub struct Permit {
    of: Arc<InFlight>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of.leave(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(account: &Arc<InFlight>, place: &mut Place, bytes: usize) -> Option<Permit> {
        enter_as(Class::Other, account, place, bytes)
    }

    fn enter_as(class: Class, account: &Arc<InFlight>, place: &mut Place, bytes: usize) -> Option<Permit> {
        match account.poll_enter(place, class, bytes, &Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn requests_and_bytes_are_bounded_and_come_back() {
        let account = InFlight::new(2, 100, Gauge::default());
        let a = enter(&account, &mut Place::default(), 60);
        assert!(a.is_some());
        let mut place = Place::default();
        assert!(enter(&account, &mut place, 60).is_none(), "too many bytes");
        drop(a);
        let b = enter(&account, &mut place, 60);
        let c = enter(&account, &mut Place::default(), 1);
        assert!(b.is_some() && c.is_some());
        assert!(enter(&account, &mut Place::default(), 1).is_none(), "too many requests");
    }

    #[test]
    fn a_small_request_does_not_overtake_a_large_one_that_waits() {
        let account = InFlight::new(10, 100, Gauge::default());
        let a = enter(&account, &mut Place::default(), 60);
        let (mut large, mut small) = (Place::default(), Place::default());
        assert!(enter(&account, &mut large, 90).is_none());
        assert!(enter(&account, &mut small, 1).is_none());
        drop(large);
        assert!(enter(&account, &mut small, 1).is_some(), "who gives up lets the next one in");
        drop(a);
    }

    #[test]
    fn produces_that_stand_still_leave_room_for_other_requests() {
        let account = InFlight::new(16, 1_000, Gauge::default());
        let held: Vec<Option<Permit>> =
            (0..14).map(|_| enter_as(Class::Produce, &account, &mut Place::default(), 1)).collect();
        assert!(held.iter().all(Option::is_some));
        let mut waits = Place::default();
        assert!(enter_as(Class::Produce, &account, &mut waits, 1).is_none());
        assert!(enter(&account, &mut Place::default(), 1).is_some(), "a produce in line holds up no other");
        drop(held);
        assert!(enter_as(Class::Produce, &account, &mut waits, 1).is_some());
    }

    #[test]
    fn a_request_larger_than_the_account_is_let_in_alone() {
        let account = InFlight::new(10, 100, Gauge::default());
        assert!(enter(&account, &mut Place::default(), 1_000).is_some());
    }
}
