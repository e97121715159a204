//! Time as a node sees it: [`Moment`]s of its monotonic clock, and [`Deadline`]s on every wait.
//!
//! A wait that has no deadline must say why ([`Deadline::Unbounded`]); a test in the broker lists
//! all of them. A deadline bounds the *waiter*, never the operation it waits for.

use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A point on a node's monotonic clock, in nanoseconds since the backend was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment at which the backend was made.
    pub const ZERO: Moment = Moment(0);

    /// The time from `earlier` to this moment; zero when that is later.
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

/// What a wait needs of a backend: the monotonic clock, and timers on it.
pub trait Clock: Send + Sync + 'static {
    /// Completes at the moment it was made for, never earlier. Dropping it cancels it.
    type Timer: Future<Output = ()> + Send;

    /// The monotonic clock: never goes back, may stand still while the process is paused.
    fn now(&self) -> Moment;

    /// Completes once the clock shows `at`.
    fn timer(&self, at: Moment) -> Self::Timer;

    /// A wait of this length, for loops that pace themselves.
    fn sleep(&self, duration: Duration) -> Self::Timer {
        self.timer(self.now() + duration)
    }
}

/// Until when a wait may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Until this moment.
    At(Moment),
    /// No bound, and the reason why none is needed (who else ends this wait).
    Unbounded(&'static str),
}

impl Deadline {
    /// That long from now.
    pub fn after<C: Clock>(clock: &C, duration: Duration) -> Deadline {
        Deadline::At(clock.now() + duration)
    }

    /// Whether nothing may begin under it any more.
    pub fn has_passed<C: Clock>(self, clock: &C) -> bool {
        matches!(self, Deadline::At(at) if at <= clock.now())
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
///
/// # Errors
/// [`TimedOut`] when the deadline passed first; the future is dropped with what is returned here.
pub fn within<C: Clock, F: Future>(
    clock: &C,
    deadline: Deadline,
    future: F,
) -> impl Future<Output = Result<F::Output, TimedOut>> {
    Within { clock, deadline, timer: None, future }
}

pin_project_lite::pin_project! {
    struct Within<'a, C: Clock, F> {
        clock: &'a C,
        deadline: Deadline,
        #[pin]
        timer: Option<C::Timer>,
        #[pin]
        future: F,
    }
}

impl<C: Clock, F: Future> Future for Within<'_, C, F> {
    type Output = Result<F::Output, TimedOut>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let Deadline::At(at) = *this.deadline else { return Poll::Pending };
        if this.timer.is_none() {
            this.timer.set(Some(this.clock.timer(at)));
        }
        match this.timer.as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|()| Err(TimedOut)),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
