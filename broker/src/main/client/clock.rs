//! Time as a command on a terminal has it.

#![allow(clippy::disallowed_methods, reason = "the command line waits by itself, and has no backend")]

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Until when something is tried.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    /// From its beginning.
    pub whole: Duration,
}

impl Deadline {
    /// A century stands for ever: a moment further away cannot be told.
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

    pub fn after(whole: Duration) -> Deadline {
        let whole = whole.min(Deadline::LONGEST);
        Deadline { at: Instant::now() + whole, whole }
    }

    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}

pub fn pause(duration: Duration) {
    thread::sleep(duration);
}

/// Milliseconds since 1970; 0 where the clock stands before that.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
