//! How the node's storage does, judged from the age of the operation in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Shared by all who must know before they promise anything.
#[derive(Clone, Debug, Default)]
pub struct StorageHealth(Arc<AtomicU8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Good,
    /// An operation is in flight for longer than a disk takes: nothing new is taken.
    Stalled,
    Failed,
}

impl StorageHealth {
    pub fn get(&self) -> Health {
        match self.0.load(Ordering::Acquire) {
            0 => Health::Good,
            1 => Health::Stalled,
            _ => Health::Failed,
        }
    }

    pub fn set(&self, health: Health) {
        self.0.store(health as u8, Ordering::Release);
    }
}
