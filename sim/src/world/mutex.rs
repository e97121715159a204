//! The locks of a world.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Everything here lives on one thread and a panic ends the run: what a poisoned lock guards is not used.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
