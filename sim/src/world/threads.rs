//! Simulated threads: tasks that share threads stop together when all of these are blocked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::lock;

/// So many threads that run the tasks of one group.
#[derive(Debug)]
pub struct SimThread {
    pub name: Arc<str>,
    size: usize,
    blockers: Mutex<BTreeSet<u64>>,
}

impl SimThread {
    pub fn new(name: impl Into<Arc<str>>, size: usize) -> Arc<SimThread> {
        Arc::new(SimThread { name: name.into(), size: size.max(1), blockers: Mutex::default() })
    }

    /// Whether the task may run: it blocks a thread itself, or one is free.
    pub fn admits(&self, task: u64) -> bool {
        let blockers = lock(&self.blockers);
        blockers.len() < self.size || blockers.contains(&task)
    }

    /// The task blocks one of the threads from now on.
    pub fn block(&self, task: u64) {
        lock(&self.blockers).insert(task);
    }

    /// It does no more. True if that frees the group.
    pub fn unblock(&self, task: u64) -> bool {
        let mut blockers = lock(&self.blockers);
        let was_full = blockers.len() >= self.size;
        blockers.remove(&task) && was_full
    }

    /// The tasks that block threads, if these are all there are.
    pub fn blocked_by(&self) -> Vec<u64> {
        let blockers = lock(&self.blockers);
        if blockers.len() < self.size { Vec::new() } else { blockers.iter().copied().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_stops_when_all_its_threads_are_blocked() {
        let threads = SimThread::new("runtime", 2);
        threads.block(1);
        assert!(threads.admits(3));
        threads.block(2);
        assert!(!threads.admits(3));
        assert!(threads.admits(1), "a blocker's own call may come back");
        assert_eq!(threads.blocked_by(), [1, 2]);
        assert!(threads.unblock(2));
        assert!(threads.admits(3));
        assert!(!threads.unblock(2));
    }
}
