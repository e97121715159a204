//! What a check is written with: claims that hold or break, deadlines, and polls by hand.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::backend::Backend;
use crate::time::Deadline;

/// Why a check does not hold. Made from any error by `?`; no error itself.
pub(super) struct Broken(pub(super) String);

impl<E: fmt::Debug> From<E> for Broken {
    fn from(error: E) -> Broken {
        Broken(format!("{error:?}"))
    }
}

pub(super) type Outcome = Result<(), Broken>;

/// Fails the check with a message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::conformance::claim::Broken(format!($($message)+)));
        }
    };
}
pub(super) use ensure;

pub(super) fn soon<B: Backend>(backend: &B) -> Deadline {
    Deadline::after(backend, Duration::from_secs(20))
}

pub(super) fn in_ms<B: Backend>(backend: &B, ms: u64) -> Deadline {
    Deadline::after(backend, Duration::from_millis(ms))
}

/// Polls once, with nobody to be woken.
pub(super) fn poll_once<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Waits in steps until `done` holds.
pub(super) async fn eventually<B: Backend>(backend: &B, what: &str, done: impl Fn() -> bool) -> Outcome {
    let until = backend.now() + Duration::from_secs(20);
    while !done() {
        ensure!(backend.now() < until, "never came true: {what}");
        backend.sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
