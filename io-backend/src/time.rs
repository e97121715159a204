//! Time as a node sees it: [`Moment`]s of its monotonic clock, and [`Deadline`]s on every wait.
//!
//! A wait that has no deadline must say why ([`Deadline::Unbounded`]); a test in the broker lists
//! all of them. A deadline bounds the *waiter*, never the operation it waits for.

use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::Backend;

/// A point on a node's monotonic clock, in nanoseconds since the backend was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    pub const ZERO: Moment = Moment(0);

    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, by: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;
    fn sub(self, by: Duration) -> Moment {
        Moment(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Until when a wait may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    At(Moment),
    /// No bound, and the reason why none is needed (who else ends this wait).
    Unbounded(&'static str),
}

impl Deadline {
    pub fn after<B: Backend>(backend: &B, duration: Duration) -> Deadline {
        Deadline::At(backend.now() + duration)
    }

    /// Whether nothing may begin under it any more.
    pub fn has_passed<B: Backend>(self, backend: &B) -> bool {
        matches!(self, Deadline::At(at) if at <= backend.now())
    }

    /// The earlier of two deadlines; an unbounded one is later than any moment.
    pub fn earlier(self, other: Deadline) -> Deadline {
        match (self, other) {
            (Deadline::At(a), Deadline::At(b)) => Deadline::At(a.min(b)),
            (Deadline::At(a), Deadline::Unbounded(_)) | (Deadline::Unbounded(_), Deadline::At(a)) => {
                Deadline::At(a)
            }
            (unbounded, Deadline::Unbounded(_)) => unbounded,
        }
    }
}

/// The deadline passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

impl std::fmt::Display for TimedOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("deadline passed")
    }
}

impl std::error::Error for TimedOut {}

/// Polls `future` until it is done or the deadline has passed. The timer is made only when the future
/// was not ready at its first poll, so the path that need not wait costs nothing.
pub fn within<B: Backend, F: Future>(
    backend: &B,
    deadline: Deadline,
    future: F,
) -> impl Future<Output = Result<F::Output, TimedOut>> {
    Within { backend, deadline, timer: None, future }
}

pin_project_lite::pin_project! {
    struct Within<'a, B: Backend, F> {
        backend: &'a B,
        deadline: Deadline,
        #[pin]
        timer: Option<B::Timer>,
        #[pin]
        future: F,
    }
}

impl<B: Backend, F: Future> Future for Within<'_, B, F> {
    type Output = Result<F::Output, TimedOut>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let Deadline::At(at) = *this.deadline else { return Poll::Pending };
        if this.timer.is_none() {
            this.timer.set(Some(this.backend.timer(at)));
        }
        match this.timer.as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|()| Err(TimedOut)),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
