//! Who waits for what in one process at one moment: what the wait-for graph is built from.

use std::collections::BTreeMap;
use std::sync::Arc;

use io_backend::Moment;
use io_backend::registry::Entry;
use io_backend::task::CurrentTask;

use super::process::Process;
use super::tasks::Task;

#[derive(Clone, Debug)]
pub struct ProcessSnapshot {
    pub machine: Arc<str>,
    pub incarnation: u64,
    /// The machine's monotonic clock.
    pub now: Moment,
    /// All waits and operations, in order of beginning.
    pub entries: Vec<Entry>,
    pub threads: Vec<ThreadSnapshot>,
    pub tasks: Vec<Arc<CurrentTask>>,
}

/// A group of threads that are all blocked, and the tasks that stand still for it.
#[derive(Clone, Debug)]
pub struct ThreadSnapshot {
    pub name: Arc<str>,
    pub blockers: Vec<Arc<CurrentTask>>,
    pub starved: Vec<Arc<CurrentTask>>,
}

pub fn of(process: &Process) -> ProcessSnapshot {
    let tasks = process.tasks();
    let mut groups: BTreeMap<usize, Vec<&Arc<Task>>> = BTreeMap::new();
    let mut order: Vec<Arc<super::threads::SimThread>> = process.threads();
    for task in &tasks {
        if !order.iter().any(|thread| Arc::ptr_eq(thread, &task.thread)) {
            order.push(task.thread.clone());
        }
        if let Some(place) = order.iter().position(|thread| Arc::ptr_eq(thread, &task.thread)) {
            groups.entry(place).or_default().push(task);
        }
    }
    let threads = groups
        .into_iter()
        .filter_map(|(place, members)| {
            let blocked_by = order[place].blocked_by();
            if blocked_by.is_empty() {
                return None;
            }
            let (blockers, others): (Vec<&Arc<Task>>, Vec<&Arc<Task>>) =
                members.into_iter().partition(|task| blocked_by.contains(&task.number));
            let starved = others.into_iter().filter(|task| task.has_missed());
            Some(ThreadSnapshot {
                name: order[place].name.clone(),
                blockers: blockers.into_iter().map(|task| task.current.clone()).collect(),
                starved: starved.map(|task| task.current.clone()).collect(),
            })
        })
        .collect();
    ProcessSnapshot {
        machine: process.machine.name.clone(),
        incarnation: process.incarnation,
        now: Moment(process.machine.local_now()),
        entries: process.registry.snapshot(),
        threads,
        tasks: tasks.iter().map(|task| task.current.clone()).collect(),
    }
}
