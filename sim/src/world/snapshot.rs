//! Who waits for what in one process at one moment: what the wait-for graph is built from.
//!
//! Moments are the world's, whatever the machine's clock shows, and what a planned fault holds says by which.

use std::collections::BTreeMap;
use std::sync::Arc;

use io_backend::Moment;
use io_backend::registry::Entry;
use io_backend::task::CurrentTask;

use super::clock::ClockView;
use super::lock;
use super::process::Process;
use super::tasks::Task;
use crate::fault::{self, FaultId, FaultKind};

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
    let clock = lock(&process.machine.clock).clone();
    let mut entries = process.registry.snapshot();
    for entry in &mut entries {
        entry.since = Moment(clock.when(entry.since.0));
    }
    ProcessSnapshot {
        machine: process.machine.name.clone(),
        incarnation: process.incarnation,
        now: Moment(process.universe().now()),
        held: held(process, &entries),
        entries,
        clock,
        threads,
        tasks: tasks.iter().map(|task| task.current.clone()).collect(),
        stopped: stopped(process, &tasks),
        paused: paused(process),
    }
}

/// `fault 2 (disk-stall node1 ...)`, counted from 1 in order of the plan.
fn named(process: &Process, id: FaultId) -> String {
    process.universe().with_faults(|faults| format!("{} ({})", id.0 + 1, faults.get(id)))
}

fn held(process: &Process, entries: &[Entry]) -> BTreeMap<u64, String> {
    let mut held = BTreeMap::new();
    for operation in process.machine.disk.held(process.number) {
        let same = |entry: &&Entry| {
            entry.operation
                && entry.what == operation.what
                && entry.target.as_deref() == Some(operation.path.to_string_lossy().as_ref())
        };
        let apart = |entry: &&Entry| entry.since.0.abs_diff(operation.began);
        if let Some(entry) = entries.iter().filter(same).min_by_key(apart) {
            held.insert(entry.number, named(process, operation.fault));
        }
    }
    held
}

fn stopped(process: &Process, tasks: &[Arc<Task>]) -> Vec<(Arc<CurrentTask>, String)> {
    let (universe, machine) = (process.universe(), &process.machine.name);
    tasks
        .iter()
        .filter(|task| task.has_missed())
        .filter_map(|task| {
            let role = task.current.name.role;
            let id = universe.with_faults(|faults| {
                fault::task::stops(faults, machine, role, &task.full_name, universe.now())
            })?;
            Some((task.current.clone(), named(process, id)))
        })
        .collect()
}

fn paused(process: &Process) -> Option<String> {
    if !process.machine.is_paused() {
        return None;
    }
    let universe = process.universe();
    let now = universe.now();
    let of_this = |hits: &crate::fault::FaultHits| {
        let fault = &hits.fault;
        fault.kind == FaultKind::Pause
            && (hits.from..hits.until).contains(&now)
            && fault.node.as_ref().is_some_and(|node| node.machine() == *process.machine.name)
    };
    let index = universe.with_faults(|faults| faults.hits()).iter().position(of_this);
    Some(index.map_or_else(|| "none of the plan's".to_owned(), |index| named(process, FaultId(index))))
}
