//! The wait-for graph: who waits for whom, on what, and whether anything can still end it.
//!
//! Nodes are tasks and operations in flight; edges come from the registry: a waiter waits for its operation,
//! for the holder of a lock, for the receiver of a channel, for a thread. Pure functions over a snapshot. Two
//! things make a process stand still: an operation of the outside that does not complete (a freeze), and
//! tasks that wait for one another with no way out (a deadlock; latent when only deadlines break it).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use io_backend::registry::{Entry, task_of};
use io_backend::task::{CurrentTask, TaskId};
use io_backend::{Moment, WaitKind};

use super::snapshot::{ProcessSnapshot, ThreadSnapshot};

/// An operation in flight for so long is not merely slow.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// What kind of standstill it is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standstill {
    /// Tasks wait for one another and none of them gives up.
    Deadlock,
    /// Tasks wait for one another until one gives up at its deadline.
    LatentDeadlock,
    /// An operation or a blocked thread holds everything behind it.
    Freeze,
    /// Nothing stands still.
    None,
}

impl Standstill {
    pub fn name(self) -> &'static str {
        match self {
            Standstill::Deadlock => "deadlock",
            Standstill::LatentDeadlock => "latent deadlock",
            Standstill::Freeze => "freeze",
            Standstill::None => "none",
        }
    }
}

/// The causes found, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// When it was looked at, in nanoseconds of the world.
    pub at: u64,
    pub standstill: Standstill,
    /// What stands still first: machine and task.
    pub component: Option<String>,
    /// The operation that does not complete and its file.
    pub operation: Option<String>,
    /// The lock or channel behind which others wait.
    pub seam: Option<String>,
    /// The planned fault that holds the operation, with its number.
    pub fault: Option<String>,
    pub lines: Vec<String>,
}

/// Explains what every process waits for, in order of processes.
pub fn explain(snapshots: &[ProcessSnapshot]) -> Explanation {
    let mut whole = Explanation {
        at: snapshots.iter().map(|snapshot| snapshot.now.0).max().unwrap_or(0),
        standstill: Standstill::None,
        component: None,
        operation: None,
        seam: None,
        fault: None,
        lines: Vec::new(),
    };
    for snapshot in snapshots {
        let mut found = WaitStory::new(snapshot);
        found.tell();
        whole.lines.append(&mut found.lines);
        if found.standstill < whole.standstill {
            whole.standstill = found.standstill;
            whole.component = found.component;
            whole.operation = found.operation;
            whole.seam = found.seam;
            whole.fault = found.fault;
        }
    }
    whole
}

/// Where nothing is seen to stand still: what has been waited for longest, so that there is somewhere to begin.
pub fn oldest_waits(snapshots: &[ProcessSnapshot]) -> Vec<String> {
    const TOLD: usize = 5;
    if snapshots.is_empty() {
        return vec!["no node runs".to_owned()];
    }
    let mut lines = Vec::new();
    for snapshot in snapshots {
        let mut waits: Vec<&Entry> = snapshot.entries.iter().filter(|entry| !is_idle(entry)).collect();
        waits.sort_by_key(|entry| (entry.since, entry.number));
        lines.push(format!(
            "{}: nothing is seen to stand still; {} waits and operations that somebody asked for{}",
            snapshot.machine,
            waits.len(),
            if waits.is_empty() { "" } else { ", the oldest:" }
        ));
        for entry in waits.into_iter().take(TOLD) {
            let task = entry.task.as_ref().map_or_else(|| "?".to_owned(), |task| task.name.to_string());
            let target = entry.target.as_deref().unwrap_or("");
            let (what, since) = (entry.what, moment(entry.since));
            lines.push(format!("  task {task}: {what} {target} since {since}, at {}", site(entry.site)));
        }
    }
    lines
}

/// What a task is found waiting for when nobody wants anything of it.
fn is_idle(entry: &Entry) -> bool {
    matches!(
        entry.kind,
        WaitKind::Receive | WaitKind::Accept | WaitKind::NetworkRead | WaitKind::Timer | WaitKind::Change
    )
}

/// What a task of that name waits for, in words.
pub fn wait_of(snapshots: &[ProcessSnapshot], machine: &str, task: &str) -> Option<String> {
    let of_task = |entry: &&Entry| entry.task.as_ref().is_some_and(|found| found.name.to_string() == task);
    let snapshot = snapshots.iter().find(|snapshot| &*snapshot.machine == machine)?;
    let entry = snapshot.entries.iter().find(of_task)?;
    let target = entry.target.as_deref().map(|target| format!(" {target}")).unwrap_or_default();
    Some(format!("{}{target} at {}", entry.what, site(entry.site)))
}

/// Who ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum On {
    /// The operation of that number.
    Operation(u64),
    Task(TaskId),
    /// Time, the network, someone unknown.
    Open,
}

struct WaitStory<'a> {
    of: &'a ProcessSnapshot,
    names: BTreeMap<TaskId, &'a Arc<CurrentTask>>,
    /// The waits of each task.
    waits: BTreeMap<TaskId, Vec<(&'a Entry, On)>>,
    told: BTreeSet<TaskId>,
    standstill: Standstill,
    component: Option<String>,
    operation: Option<String>,
    seam: Option<String>,
    fault: Option<String>,
    lines: Vec<String>,
}

impl<'a> WaitStory<'a> {
    fn new(of: &'a ProcessSnapshot) -> WaitStory<'a> {
        let mut waits: BTreeMap<TaskId, Vec<(&Entry, On)>> = BTreeMap::new();
        for entry in &of.entries {
            if entry.operation {
                // A dedicated loop has no wait beside the operation that it is in.
                let alone = !of.entries.iter().any(|wait| !wait.operation && is_wait_for(wait, entry));
                if alone && entry.task.is_some() && !gave_up(of, entry) {
                    waits.entry(task_of(entry)).or_default().push((entry, On::Operation(entry.number)));
                }
            } else if entry.task.is_some() {
                waits.entry(task_of(entry)).or_default().push((entry, ends_by(of, entry)));
            }
        }
        let mut names: BTreeMap<TaskId, &Arc<CurrentTask>> =
            of.tasks.iter().map(|task| (task.id, task)).collect();
        for entry in &of.entries {
            if let Some(task) = &entry.task {
                names.insert(task.id, task);
            }
        }
        WaitStory {
            of,
            names,
            waits,
            told: BTreeSet::new(),
            standstill: Standstill::None,
            component: None,
            operation: None,
            seam: None,
            fault: None,
            lines: Vec::new(),
        }
    }

    fn tell(&mut self) {
        self.tell_stopped();
        self.tell_knots();
        let mut stuck: Vec<&Entry> = self
            .of
            .entries
            .iter()
            .filter(|entry| entry.operation && entry.kind.is_disk() && self.age(entry.since) >= STUCK_AFTER)
            .collect();
        stuck.sort_by_key(|entry| (entry.since, entry.number));
        for operation in &stuck {
            self.tell_operation(operation);
        }
        let threads: Vec<&ThreadSnapshot> =
            self.of.threads.iter().filter(|thread| !thread.starved.is_empty()).collect();
        for thread in threads {
            self.tell_thread(thread);
        }
        if self.standstill != Standstill::None {
            self.tell_others(stuck.first().map(|operation| operation.since));
        }
    }

    /// What the plan itself keeps from running.
    fn tell_stopped(&mut self) {
        if let Some(fault) = &self.of.paused {
            self.lines.push(format!("{}: the whole process is paused by fault {fault}", self.of.machine));
            self.standstill = Standstill::Freeze;
            self.component = Some(self.of.machine.to_string());
            self.fault = Some(fault.clone());
        }
        for (task, fault) in &self.of.stopped {
            let line =
                format!("{}: task {} is kept from running by fault {fault}", self.of.machine, task.name);
            self.lines.push(line);
            if self.standstill > Standstill::Freeze {
                self.standstill = Standstill::Freeze;
                self.component = Some(format!("{}, task {}", self.of.machine, task.name));
                self.fault = Some(fault.clone());
            }
            if self.told.insert(task.id) {
                self.tell_waiters_of(On::Task(task.id), task.id, 1);
            }
        }
    }

    /// Tasks that wait for one another.
    fn tell_knots(&mut self) {
        for knot in self.knots() {
            let waits: Vec<(TaskId, &Entry)> =
                knot.iter().filter_map(|task| Some((*task, self.waits.get(task)?.first()?.0))).collect();
            let latent = waits.iter().any(|(_, entry)| entry.bounded);
            let class = if latent { Standstill::LatentDeadlock } else { Standstill::Deadlock };
            let how = if latent { "only a deadline ends it" } else { "nothing ends it" };
            self.lines.push(format!(
                "{}: {}: {} tasks wait for one another, {how}",
                self.of.machine,
                class.name(),
                knot.len()
            ));
            for (task, entry) in &waits {
                let line = format!(
                    "  task {} waits for {} since {}, at {}",
                    self.name(*task),
                    self.awaited(entry),
                    moment(entry.since),
                    site(entry.site)
                );
                self.lines.push(line);
                self.told.insert(*task);
            }
            if let (Some((task, entry)), true) = (waits.first(), class < self.standstill) {
                self.standstill = class;
                self.component = Some(format!("{}, task {}", self.of.machine, self.name(*task)));
                self.seam = Some(self.awaited_thing(entry));
            }
            for task in knot {
                self.tell_waiters_of(On::Task(task), task, 2);
            }
        }
    }

    fn tell_operation(&mut self, operation: &'a Entry) {
        let by = operation.task.as_ref().map_or_else(|| "no task".to_owned(), |task| task.name.to_string());
        let target = operation.target.as_deref().unwrap_or("?");
        let fault = self.of.held.get(&operation.number);
        let held = fault.map(|fault| format!(", held by fault {fault}")).unwrap_or_default();
        self.lines.push(format!(
            "{}: {} of {target} in flight for {} (since {}), begun by task {by} at {}{held}",
            self.of.machine,
            operation.what,
            age(self.age(operation.since)),
            moment(operation.since),
            site(operation.site)
        ));
        if self.standstill > Standstill::Freeze {
            self.standstill = Standstill::Freeze;
            self.fault = fault.cloned();
            self.component = Some(format!("{}, task {by}", self.of.machine));
            self.operation = Some(format!("{} of {target}", operation.what));
        }
        let waiters: Vec<TaskId> = self.waiters(On::Operation(operation.number));
        for waiter in waiters {
            if self.told.insert(waiter) {
                self.tell_waiters_of(On::Task(waiter), waiter, 1);
            }
        }
    }

    fn tell_thread(&mut self, thread: &ThreadSnapshot) {
        let blockers: Vec<String> = thread.blockers.iter().map(|task| task.name.to_string()).collect();
        self.lines.push(format!(
            "{}: all threads of {} are blocked by task {}; {} stand still: {}",
            self.of.machine,
            thread.name,
            blockers.join(", "),
            tasks(thread.starved.len()),
            roles(thread.starved.iter()),
        ));
        if self.standstill > Standstill::Freeze {
            self.standstill = Standstill::Freeze;
            self.component = Some(format!("{}, threads {}", self.of.machine, thread.name));
            self.operation = Some(format!("a blocking call of task {}", blockers.join(", ")));
        }
        let involved: Vec<TaskId> =
            thread.blockers.iter().chain(&thread.starved).map(|task| task.id).collect();
        for task in involved {
            if let Some((entry, _)) = self.waits.get(&task).and_then(|waits| waits.first())
                && thread.blockers.iter().any(|blocker| blocker.id == task)
            {
                let line = format!(
                    "  task {} waits for {} since {}, at {}",
                    self.name(task),
                    self.awaited(entry),
                    moment(entry.since),
                    site(entry.site)
                );
                self.lines.push(line);
            }
            if self.told.insert(task) {
                self.tell_waiters_of(On::Task(task), task, 1);
            }
        }
    }

    /// What a stuck task holds, and who waits for that, as deep as it goes.
    fn tell_waiters_of(&mut self, on: On, holder: TaskId, depth: usize) {
        let mut groups: BTreeMap<(WaitKind, String), Vec<(TaskId, &'a Entry)>> = BTreeMap::new();
        for (task, waits) in &self.waits {
            for (entry, target) in waits {
                if *target == on && *task != holder && !self.told.contains(task) {
                    groups.entry((entry.kind, self.awaited_thing(entry))).or_default().push((*task, entry));
                }
            }
        }
        for ((kind, thing), waiters) in groups {
            for (task, _) in &waiters {
                self.told.insert(*task);
            }
            let indent = "  ".repeat(depth);
            if let Some(held) = waiters[0].1.resource.as_ref().and_then(|resource| resource.holder()) {
                let verb = if kind == WaitKind::Lock { "holds" } else { "is the one to serve" };
                let line = format!(
                    "{indent}task {} {verb} {thing} since {}, at {}",
                    self.name(holder),
                    self.when(held.since),
                    site(held.site)
                );
                self.lines.push(line);
            }
            if self.seam.is_none() {
                self.seam = Some(thing.clone());
            }
            let first = waiters.iter().map(|(_, entry)| entry.since).min().unwrap_or_default();
            let mut line = format!("{indent}  ");
            let verb = if waiters.len() == 1 { "waits" } else { "wait" };
            let _ = write!(line, "{} {verb} for ", tasks(waiters.len()));
            let _ = match kind {
                WaitKind::Lock => write!(line, "{thing}"),
                WaitKind::Send => write!(line, "room in {thing}"),
                _ => write!(line, "a {} from {thing}", kind.name()),
            };
            let names = waiters.iter().filter_map(|(task, _)| self.names.get(task).copied());
            let _ = write!(line, ", the first since {}: {}", moment(first), roles(names));
            self.lines.push(line);
            for (task, _) in waiters {
                self.tell_waiters_of(On::Task(task), task, depth + 2);
            }
        }
    }

    /// Waits that hang on something unnamed, and are as old as the trouble.
    fn tell_others(&mut self, since: Option<Moment>) {
        let mut groups: BTreeMap<(WaitKind, &str, String), Vec<TaskId>> = BTreeMap::new();
        for (task, waits) in &self.waits {
            if self.told.contains(task) {
                continue;
            }
            for (entry, on) in waits {
                let idle = matches!(
                    entry.kind,
                    WaitKind::Receive | WaitKind::Accept | WaitKind::NetworkRead | WaitKind::Timer
                );
                let old = since.is_none_or(|since| entry.since >= since)
                    && self.age(entry.since) >= Duration::from_millis(100);
                if !idle && old && !matches!(on, On::Operation(_)) {
                    let thing = entry.target.as_deref().unwrap_or("").to_owned();
                    groups.entry((entry.kind, entry.what, thing)).or_default().push(*task);
                }
            }
        }
        for ((kind, what, thing), waiters) in groups {
            let names = waiters.iter().filter_map(|task| self.names.get(task).copied());
            let of = if thing.is_empty() { String::new() } else { format!(" ({thing})") };
            let line = format!(
                "  also waiting since then: {} for {} {what}{of}: {}",
                tasks(waiters.len()),
                kind.name(),
                roles(names)
            );
            self.lines.push(line);
        }
    }

    fn waiters(&self, on: On) -> Vec<TaskId> {
        let waits_on = |waits: &Vec<(&Entry, On)>| waits.iter().any(|(_, target)| *target == on);
        self.waits.iter().filter(|(_, waits)| waits_on(waits)).map(|(task, _)| *task).collect()
    }

    /// Groups of tasks with no way out: every wait of every one of them is for another one in the group.
    fn knots(&self) -> Vec<Vec<TaskId>> {
        // Whoever is not waiting, or waits for something open, can go on; so can whoever waits for them.
        let mut stuck: BTreeSet<TaskId> = self.waits.keys().copied().collect();
        loop {
            let free: Vec<TaskId> = stuck
                .iter()
                .copied()
                .filter(|task| {
                    self.waits[task].iter().any(|(_, on)| match on {
                        On::Task(other) => !stuck.contains(other),
                        On::Operation(_) | On::Open => true,
                    })
                })
                .collect();
            if free.is_empty() {
                break;
            }
            for task in free {
                stuck.remove(&task);
            }
        }
        let mut knots: Vec<Vec<TaskId>> = Vec::new();
        for task in &stuck {
            let reached = self.reachable(*task, &stuck);
            let in_circle = reached.contains(task);
            if in_circle && !knots.iter().any(|knot| knot.contains(task)) {
                let knot: Vec<TaskId> = reached
                    .iter()
                    .copied()
                    .filter(|other| self.reachable(*other, &stuck).contains(task))
                    .collect();
                knots.push(knot);
            }
        }
        knots
    }

    fn reachable(&self, from: TaskId, within: &BTreeSet<TaskId>) -> BTreeSet<TaskId> {
        let mut reached = BTreeSet::new();
        let mut todo = vec![from];
        while let Some(task) = todo.pop() {
            for (_, on) in self.waits.get(&task).into_iter().flatten() {
                if let On::Task(next) = on
                    && within.contains(next)
                    && reached.insert(*next)
                {
                    todo.push(*next);
                }
            }
        }
        reached
    }

    /// A moment of the machine's own clock.
    fn when(&self, local: Moment) -> String {
        moment(Moment(self.of.clock.when(local.0)))
    }

    fn age(&self, since: Moment) -> Duration {
        self.of.now.since(since)
    }

    fn name(&self, task: TaskId) -> String {
        self.names.get(&task).map_or_else(|| format!("{}", task.0), |task| task.name.to_string())
    }

    fn awaited(&self, entry: &Entry) -> String {
        let holder = entry.resource.as_ref().and_then(|resource| resource.holder());
        let thing = self.awaited_thing(entry);
        match (entry.kind, holder) {
            (WaitKind::Lock, Some(held)) => format!(
                "{thing} held by task {} since {}, taken at {}",
                held.task.map_or_else(|| "?".to_owned(), |task| task.name.to_string()),
                self.when(held.since),
                site(held.site)
            ),
            (WaitKind::Send | WaitKind::Reply, Some(held)) => format!(
                "{} {thing}, whose reader is task {}",
                if entry.kind == WaitKind::Send { "room in" } else { "an answer from" },
                held.task.map_or_else(|| "?".to_owned(), |task| task.name.to_string()),
            ),
            _ => format!("{} {thing}", entry.what),
        }
    }

    fn awaited_thing(&self, entry: &Entry) -> String {
        let target = entry.target.as_deref().unwrap_or(entry.what);
        match entry.kind {
            WaitKind::Lock => format!("lock {target}"),
            WaitKind::Send | WaitKind::Receive | WaitKind::Reply => format!("channel {target}"),
            _ => target.to_owned(),
        }
    }
}

fn is_wait_for(wait: &Entry, operation: &Entry) -> bool {
    task_of(wait) == task_of(operation) && wait.kind == operation.kind && wait.target == operation.target
}

/// Its task does something else by now: it waits for other things, so it has given this operation up.
fn gave_up(of: &ProcessSnapshot, operation: &Entry) -> bool {
    let task = task_of(operation);
    !of.tasks.iter().any(|live| live.id == task)
        || of
            .entries
            .iter()
            .any(|other| !other.operation && task_of(other) == task && other.number > operation.number)
}

fn ends_by(of: &ProcessSnapshot, wait: &Entry) -> On {
    if wait.kind.is_disk() {
        let operation = of.entries.iter().find(|entry| entry.operation && is_wait_for(wait, entry));
        return operation.map_or(On::Open, |operation| On::Operation(operation.number));
    }
    let holder = wait.resource.as_ref().and_then(|resource| resource.holder());
    match holder.and_then(|holder| holder.task) {
        Some(task) if task.id != TaskId(0) => On::Task(task.id),
        _ => On::Open,
    }
}

fn tasks(count: usize) -> String {
    if count == 1 { "1 task".to_owned() } else { format!("{count} tasks") }
}

/// Roles with how many tasks have each: `produce x12, wal-tick x23`.
fn roles<'a>(of: impl Iterator<Item = &'a Arc<CurrentTask>>) -> String {
    let mut counts: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    for task in of {
        let known = counts.entry(task.name.role).or_insert_with(|| (0, task.name.to_string()));
        known.0 += 1;
    }
    let parts: Vec<String> = counts
        .into_iter()
        .map(|(role, (count, only))| if count == 1 { only } else { format!("{role} x{count}") })
        .collect();
    parts.join(", ")
}

fn site(of: &Location<'_>) -> String {
    format!("{}:{}", of.file(), of.line())
}

fn moment(at: Moment) -> String {
    format!("{}.{:03} s", at.0 / 1_000_000_000, at.0 / 1_000_000 % 1_000)
}

/// A length of time for people.
fn age(of: Duration) -> String {
    let (s, ms) = (of.as_secs(), of.subsec_millis());
    match s {
        0..60 => format!("{s}.{ms:03} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
#[path = "waits_tests.rs"]
mod tests;
