//! Takes the snapshot of a process: what its registry, its threads and the planned faults say at this moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use io_backend::Moment;
use io_backend::registry::Entry;
use io_backend::task::CurrentTask;

use super::disk::Device;
use super::lock;
use super::process::Process;
use super::snapshot::{ProcessSnapshot, ThreadSnapshot};
use super::task::Task;
use super::threads::SimThread;
use crate::fault::{self, FaultHits, FaultId, FaultKind};

pub fn observe(process: &Process, disk: &Device) -> ProcessSnapshot {
    let tasks = process.tasks();
    let mut groups: BTreeMap<usize, Vec<&Arc<Task>>> = BTreeMap::new();
    let mut order: Vec<Arc<SimThread>> = process.threads();
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
    let clock = lock(&process.host.clock).clone();
    let mut entries = process.registry.snapshot();
    for entry in &mut entries {
        entry.since = Moment(clock.when(entry.since.0));
    }
    ProcessSnapshot {
        machine: process.host.name.clone(),
        incarnation: process.incarnation,
        now: Moment(process.kernel().now()),
        held: held(process, disk, &entries),
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
    process.kernel().with_faults(|faults| format!("{} ({})", id.0 + 1, faults.get(id)))
}

fn held(process: &Process, disk: &Device, entries: &[Entry]) -> BTreeMap<u64, String> {
    let mut held = BTreeMap::new();
    for operation in disk.held(process.number) {
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
    let (kernel, machine) = (process.kernel(), &process.host.name);
    tasks
        .iter()
        .filter(|task| task.has_missed())
        .filter_map(|task| {
            let role = task.current.name.role;
            let id = kernel.with_faults(|faults| {
                fault::task::stops(faults, machine, role, &task.full_name, kernel.now())
            })?;
            Some((task.current.clone(), named(process, id)))
        })
        .collect()
}

fn paused(process: &Process) -> Option<String> {
    if !process.host.is_paused() {
        return None;
    }
    let kernel = process.kernel();
    let now = kernel.now();
    let of_this = |hits: &FaultHits| {
        let fault = &hits.fault;
        fault.kind == FaultKind::Pause
            && (hits.from..hits.until).contains(&now)
            && fault.node.as_ref().is_some_and(|node| node.machine() == *process.host.name)
    };
    let index = kernel.with_faults(|faults| faults.hits()).iter().position(of_this);
    Some(index.map_or_else(|| "none of the plan's".to_owned(), |index| named(process, FaultId(index))))
}
