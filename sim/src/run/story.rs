//! What happens in the world, from the first start to the last read.
//!
//! Safety phase: load and faults. Then everything is healed and has to converge: producers get through,
//! consumers see the end. Then the node ends without a word, recovers, is read back and asked to stop. Two
//! things are watched along the way: whether anything is still decided, and what the node does while nobody
//! asks for anything.

use std::collections::BTreeMap;
use std::time::Duration;

use super::node;
use super::witness::Witness;
use crate::checker::budgets::{Idle, Peaks};
use crate::checker::circumstances::Circumstances;
use crate::checker::rest::Rest;
use crate::checker::visibility::Durable;
use crate::fault::{FaultKind, FaultPlan};
use crate::history::{At, History, Standstill, Value};
use crate::scenario::Scenario;
use crate::workload::{self, Client, Field, Schedule, payload, read_everything};
use crate::world::streams::Stream;
use crate::world::{Device, MachineHandle, ProcessCounts, World, waits};

/// The node that clients talk to.
pub(super) const NODE: &str = "node1";
/// How often the watch looks.
const LOOK: Duration = Duration::from_millis(500);
/// The last read, on a healed system.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// After the clients have fallen silent: checkpoints may still be on their way.
const SETTLE: Duration = Duration::from_secs(5);
/// How long an idle node is watched where the scenario itself leaves no idle time.
const IDLE: Duration = Duration::from_secs(10);
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// A supervisor starts a node that has ended by itself again after this.
const SUPERVISOR: Duration = Duration::from_millis(500);
/// A node on a disk that nothing is wrong with serves by then, and its counts are those of a node at rest.
const FIRST_START: Duration = Duration::from_millis(500);

pub(super) struct Script {
    pub(super) scenario: Scenario,
    pub(super) seed: u64,
    pub(super) plan: FaultPlan,
    pub(super) part: Option<String>,
    pub(super) witness: Witness,
}

/// What is judged afterwards, beside what the [`Witness`] has seen.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) history: History,
    /// Since when each record that was sent is durable on the node's disk.
    pub(super) durable: BTreeMap<Value, Durable>,
    /// The longest time in which nothing was decided, while clients were there.
    pub(super) standstill: Option<Standstill>,
    /// Who waited for whom when nothing had been decided for too long.
    pub(super) explanation: Vec<String>,
    pub(super) idle: Option<Idle>,
    pub(super) rest: Option<Rest>,
    pub(super) peaks: Peaks,
    pub(super) probes: BTreeMap<String, u64>,
    pub(super) failed_syncs: u64,
}

pub(super) async fn tell(world: World, script: Script) -> Story {
    let Script { scenario, seed, plan, part, witness } = script;
    let schedule = Schedule::of(&scenario);
    let mut field = Field::new("node1:9092", &scenario, schedule);
    field.notes = witness.notes.clone();
    for fault in &plan.faults {
        world.inject(fault);
    }
    let setup = node::Setup { config: node::config(&scenario, 1), part, lives: witness.lives.clone() };
    let machine = world.node(1);
    witness.sees_disk(machine.disk());
    machine.supervise(Some(SUPERVISOR));
    machine.start(move |backend| node::live(backend, setup.clone()));
    let mut watch = Watch::new(&world, &field, &witness, &scenario);
    watch.until(FIRST_START, || false).await;
    let before = machine.counts();
    workload::start(&scenario, seed, &field, |name| world.client(name));

    watch.until(Duration::from_nanos(schedule.healed), || false).await;
    world.heal_all();
    if !machine.is_running() {
        machine.start_again();
    }
    let patience = Duration::from_nanos(schedule.give_up) + Duration::from_secs(30);
    watch.until(patience, || field.is_done()).await;
    let standstill = field.notes.write().pulse.longest(ns(world.now()));
    watch.until(world.now() + SETTLE, || false).await;
    let rest = before.zip(machine.counts()).map(|(before, after)| rest(&world, &field, before, after));
    if scenario.workload.stop_after.is_none() && scenario.budget.is_of_idle_time() {
        watch.idle_from(world.now(), world.now() + IDLE).await;
    }
    let (idle, explanation, peaks) = (watch.idle(), watch.explanation, watch.peaks);

    // What the last end brings about is no merit of the plan's.
    let probes = world.probes();
    end_without_a_word(&machine, seed);
    let until = world.now() + READ_WITHIN;
    let reader = Client::new(world.client("client-1"), "client-1", &field);
    read_everything(reader, ns(until));
    while !field.is_done() && world.now() < until + Duration::from_secs(30) {
        world.sleep(Duration::from_millis(50)).await;
    }
    stop(&world, &machine, &witness).await;
    let history = field.notes.take();
    let disk = machine.disk();
    let durable = durable(&history, disk);
    let failed_syncs = disk.syncs().iter().filter(|sync| !sync.ok).count() as u64;
    Story { history, durable, standstill, explanation, idle, rest, peaks, probes, failed_syncs }
}

/// What the disk knows of all that was sent.
pub(super) fn durable(history: &History, disk: &Device) -> BTreeMap<Value, Durable> {
    let since = |value| match disk.marker(payload::number(value)).durable {
        Some(at) => Durable::Since(at),
        None => Durable::Never,
    };
    history.sends.iter().flat_map(|send| send.values()).map(|value| (value, since(value))).collect()
}

/// What the node had before clients came, and what it has after they have gone.
fn rest(world: &World, field: &Field, before: ProcessCounts, after: ProcessCounts) -> Rest {
    let churned: usize = field.notes.write().topics.len();
    let silenced = world.fault_hits().iter().any(|hit| hit.hits > 0 && hit.fault.kind == FaultKind::Silence);
    Rest {
        before,
        after,
        // No topic that is created while a run lasts has more than a few partitions.
        partitions: (field.places.len() + 3 * churned) as u64,
        files: world.node(1).disk().durable_files().len() as u64,
        silenced,
    }
}

/// Asks the node to stop, and sees what it still does while it does not.
async fn stop(world: &World, machine: &MachineHandle, witness: &Witness) {
    machine.supervise(None);
    machine.request_stop();
    let stop_by = world.now() + STOP_WITHIN;
    while machine.is_running() && world.now() < stop_by {
        see_stopping(world, witness);
        world.sleep(Duration::from_millis(50)).await;
    }
}

/// A process that was asked to stop and has not: what it still waits for.
fn see_stopping(world: &World, witness: &Witness) {
    let machine = world.node(1);
    let Some(backend) = machine.backend() else { return };
    if !backend.process().is_asked_to_stop() {
        return;
    }
    witness.lives.note(machine.name(), backend.process().incarnation, |life| {
        life.asked_to_stop.get_or_insert(ns(world.now()));
        if life.stopped.is_none() {
            life.in_flight = node::in_flight(&backend);
        }
    });
}

/// The last read is of what recovery brings back: the node is killed, or loses power, once more.
fn end_without_a_word(machine: &MachineHandle, seed: u64) {
    if Stream::new(seed, "ending").coin() {
        machine.power_loss();
    } else {
        machine.kill();
    }
    machine.start_again();
}

/// Looks at the run from outside, twice a second.
struct Watch<'a> {
    world: &'a World,
    field: &'a Field,
    witness: &'a Witness,
    clients: Vec<String>,
    frozen_after: At,
    connected_for: At,
    explanation: Vec<String>,
    quiet: Option<Quiet>,
    quiet_end: Option<Quiet>,
    peaks: Peaks,
}

/// Counts of the node at one time.
#[derive(Clone, Copy)]
struct Quiet {
    at: At,
    wakes: u64,
    operations: u64,
}

impl<'a> Watch<'a> {
    fn new(world: &'a World, field: &'a Field, witness: &'a Witness, scenario: &Scenario) -> Watch<'a> {
        Watch {
            world,
            field,
            witness,
            clients: workload::machines(scenario),
            frozen_after: ns(scenario.liveness.frozen_after.0),
            connected_for: ns(scenario.liveness.connected_for.0),
            explanation: Vec::new(),
            quiet: None,
            quiet_end: None,
            peaks: Peaks::default(),
        }
    }

    async fn until(&mut self, end: Duration, over: impl Fn() -> bool) {
        while self.world.now() < end && !over() {
            self.world.sleep(LOOK.min(end - self.world.now())).await;
            self.look();
        }
    }

    fn look(&mut self) {
        let now = ns(self.world.now());
        see_stopping(self.world, self.witness);
        let circumstances = Circumstances::new(
            self.world.fault_hits(),
            self.witness.lives.with_ends(&self.world.endings()),
            now,
        );
        let mut notes = self.field.notes.write();
        if circumstances.keep_somebody_away(&self.clients, NODE, now, self.connected_for) {
            notes.pulse.excuse(now);
        } else if self.explanation.is_empty()
            && notes.pulse.longest(now).is_some_and(|still| still.to - still.from >= self.frozen_after)
        {
            drop(notes);
            self.explanation = explain(self.world);
        }
        self.count(now);
        if let Some(counts) = self.world.node(1).counts() {
            self.peaks.memory = self.peaks.memory.max(counts.memory_peak);
            self.peaks.sockets = self.peaks.sockets.max(counts.sockets_peak);
        }
    }

    /// What the scenario leaves as idle time, some seconds after its clients have fallen silent.
    fn count(&mut self, now: At) {
        let schedule = self.field.schedule;
        if now >= schedule.produce_until + ns(SETTLE) && now <= schedule.healed {
            self.count_now(now);
        }
    }

    async fn idle_from(&mut self, from: Duration, to: Duration) {
        self.world.sleep_until(from).await;
        self.count_now(ns(from));
        self.world.sleep_until(to).await;
        self.count_now(ns(to));
    }

    fn count_now(&mut self, now: At) {
        let machine = self.world.node(1);
        let Some(counts) = machine.counts() else { return };
        let disk = machine.disk().counts();
        let operations = disk.reads + disk.writes + disk.syncs;
        let quiet = Quiet { at: now, wakes: counts.wakes, operations };
        self.quiet.get_or_insert(quiet);
        self.quiet_end = Some(quiet);
    }

    fn idle(&self) -> Option<Idle> {
        let (from, to) = (self.quiet?, self.quiet_end?);
        (to.at > from.at).then(|| Idle {
            seconds: (to.at - from.at) as f64 / 1e9,
            wakeups: to.wakes.saturating_sub(from.wakes),
            disk_operations: to.operations.saturating_sub(from.operations),
        })
    }
}

fn ns(duration: Duration) -> At {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Of the nodes: clients only wait for those.
fn explain(world: &World) -> Vec<String> {
    let nodes: Vec<_> =
        world.snapshots().into_iter().filter(|snapshot| snapshot.machine.starts_with("node")).collect();
    waits::explain(&nodes).lines
}
