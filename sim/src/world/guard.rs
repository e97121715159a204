//! The wall-clock guard: names a task that never yields, and loses patience with a run that takes too long.
//!
//! The only place where real time is looked at. The world's thread counts polls and says which task it polls;
//! the thread that waits for the world's end sees when that stands still. It never changes what a
//! healthy run does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;

#[derive(Default)]
pub struct Guard {
    polls: AtomicU64,
    /// Number of the task being polled; zero between polls.
    polling: AtomicU64,
    last: AtomicU64,
    condemned: AtomicBool,
    /// How much of the run's real time is used up.
    patience: AtomicU8,
    names: Mutex<BTreeMap<u64, (Arc<str>, Arc<str>)>>,
}

/// Of the real time that a run may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Patience {
    Whole,
    /// Nearly used up: time to look who runs all the time.
    Low,
    Lost,
}

impl Guard {
    pub fn spawned(&self, task: u64, name: Arc<str>, machine: Arc<str>) {
        lock(&self.names).insert(task, (name, machine));
    }

    pub fn set_patience(&self, patience: Patience) {
        self.patience.store(patience as u8, Ordering::Relaxed);
    }

    pub fn patience(&self) -> Patience {
        match self.patience.load(Ordering::Relaxed) {
            0 => Patience::Whole,
            1 => Patience::Low,
            _ => Patience::Lost,
        }
    }

    pub fn ended(&self, task: u64) {
        lock(&self.names).remove(&task);
    }

    pub fn enter(&self, task: u64) {
        self.polling.store(task, Ordering::Relaxed);
        self.last.store(task, Ordering::Relaxed);
        self.polls.fetch_add(1, Ordering::Release);
    }

    pub fn leave(&self) {
        self.polling.store(0, Ordering::Release);
    }

    pub fn polls(&self) -> u64 {
        self.polls.load(Ordering::Acquire)
    }

    /// The task being polled and its poll's number; `None` between polls.
    pub fn polling(&self) -> Option<(u64, u64)> {
        let task = self.polling.load(Ordering::Acquire);
        (task != 0).then(|| (task, self.polls()))
    }

    /// The task that was polled last.
    pub fn last_task(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    pub fn name_of(&self, task: u64) -> String {
        match lock(&self.names).get(&task) {
            Some((name, machine)) => format!("{name} of {machine}"),
            None => format!("task {task}"),
        }
    }

    /// The run is over although a poll goes on: its next call of the backend panics, which ends the
    /// thread of a loop that does call it.
    pub fn condemn(&self) {
        self.condemned.store(true, Ordering::Release);
    }

    pub fn check(&self) {
        assert!(!self.condemned.load(Ordering::Relaxed), "the run was ended while this task did not yield");
    }
}
