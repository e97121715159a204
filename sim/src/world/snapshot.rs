//! Who waits for what in one process at one moment: what the wait-for graph is built from.
//!
//! Moments are the world's, whatever the machine's clock shows, and what a planned fault holds says by which.

use std::collections::BTreeMap;
use std::sync::Arc;

use io_backend::Moment;
use io_backend::registry::Entry;
use io_backend::task::CurrentTask;

use super::clock::ClockView;

#[derive(Clone, Debug)]
pub struct ProcessSnapshot {
    pub machine: Arc<str>,
    pub incarnation: u64,
    /// The world's time.
    pub now: Moment,
    /// What the machine's clock showed when: moments of holders are its own.
    pub clock: ClockView,
    /// All waits and operations, in order of beginning.
    pub entries: Vec<Entry>,
    pub threads: Vec<ThreadSnapshot>,
    pub tasks: Vec<Arc<CurrentTask>>,
    /// Planned faults that hold operations, by the number of the operation's entry.
    pub held: BTreeMap<u64, String>,
    /// Tasks that a planned fault keeps from running although they could.
    pub stopped: Vec<(Arc<CurrentTask>, String)>,
    /// The planned fault that keeps the whole process from running.
    pub paused: Option<String>,
}

/// A group of threads that are all blocked, and the tasks that stand still for it.
#[derive(Clone, Debug)]
pub struct ThreadSnapshot {
    pub name: Arc<str>,
    pub blockers: Vec<Arc<CurrentTask>>,
    pub starved: Vec<Arc<CurrentTask>>,
}
