//! The short critical sections of this crate, which no panic spoils.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A mutex whose holder panicked still guards sound data here: every critical section is a few moves.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
