//! What the node has in flight: so many requests, so many bytes of requests. A connection that finds no room
//! waits in line and is not read meanwhile, which is how clients feel it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use prometheus_client::metrics::gauge::Gauge;

/// The node-wide account.
pub struct InFlight {
    requests_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
    gauge: Gauge,
}

#[derive(Default)]
struct State {
    requests: usize,
    bytes: usize,
    numbers: u64,
    /// First come, first served: a large request is not starved by small ones.
    waiting: VecDeque<(u64, Waker)>,
}

impl InFlight {
    pub fn new(requests_max: usize, bytes_max: usize, gauge: Gauge) -> Arc<InFlight> {
        Arc::new(InFlight { requests_max, bytes_max, state: Mutex::default(), gauge })
    }

    /// Room for a request of `bytes`, or a place in line. A request larger than the whole account is
    /// let in when nothing else is.
    pub fn poll_enter(self: &Arc<Self>, place: &mut Place, bytes: usize, cx: &Context<'_>) -> Poll<Permit> {
        let mut state = self.state();
        let first = match place.number {
            None => state.waiting.is_empty(),
            Some(number) => state.waiting.front().is_some_and(|(n, _)| *n == number),
        };
        let fits = state.requests == 0
            || (state.requests < self.requests_max && state.bytes.saturating_add(bytes) <= self.bytes_max);
        if first && fits {
            if place.number.take().is_some() {
                state.waiting.pop_front();
            }
            state.requests += 1;
            state.bytes += bytes;
            // There may be room for the next in line too.
            let next = state.waiting.front().map(|(_, waker)| waker.clone());
            drop(state);
            if let Some(next) = next {
                next.wake();
            }
            self.gauge.inc();
            return Poll::Ready(Permit { of: self.clone(), bytes });
        }
        match place.number {
            None => {
                state.numbers += 1;
                let number = state.numbers;
                place.number = Some(number);
                place.of = Some(self.clone());
                state.waiting.push_back((number, cx.waker().clone()));
            }
            Some(number) => {
                if let Some((_, waker)) = state.waiting.iter_mut().find(|(n, _)| *n == number) {
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
        let next = state.waiting.front().map(|(_, waker)| waker.clone());
        drop(state);
        if let Some(next) = next {
            next.wake();
        }
        self.gauge.dec();
    }
}

/// A place in line, kept by who waits; dropping it leaves the line.
#[derive(Default)]
pub struct Place {
    number: Option<u64>,
    of: Option<Arc<InFlight>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let (Some(number), Some(of)) = (self.number, &self.of) else { return };
        let mut state = of.state();
        state.waiting.retain(|(n, _)| *n != number);
        let next = state.waiting.front().map(|(_, waker)| waker.clone());
        drop(state);
        if let Some(next) = next {
            next.wake();
        }
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
        match account.poll_enter(place, bytes, &Context::from_waker(Waker::noop())) {
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
    fn a_request_larger_than_the_account_is_let_in_alone() {
        let account = InFlight::new(10, 100, Gauge::default());
        assert!(enter(&account, &mut Place::default(), 1_000).is_some());
    }
}
