//! What happens in the world, from the first start to the last read.
//!
//! Safety phase: load and faults. Then everything is healed and has to converge: producers get through,
//! consumers see the end. Then the node ends without a word, recovers, is read back and asked to stop. Two
//! things are watched along the way: whether anything is still decided, and what the node does while nobody
//! asks for anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::watch::{SETTLE, Sighting, Watch, Why};
use super::{excuses, node};
use crate::checker::answers::Excuses;
use crate::checker::budgets::Idle;
use crate::fault::FaultPlan;
use crate::history::{At, History, Standstill, Value};
use crate::scenario::{Scenario, Settings};
use crate::workload::{self, Client, Field, Schedule, payload, read_everything};
use crate::world::streams::Stream;
use crate::world::{MachineHandle, World, lock};

/// The last read, on a healed system.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// How long an idle node is watched where the scenario itself leaves no idle time.
const IDLE: Duration = Duration::from_secs(10);
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// A supervisor starts a node that has ended by itself again after this.
const SUPERVISOR: Duration = Duration::from_millis(500);

pub(super) struct Script {
    pub(super) scenario: Scenario,
    pub(super) seed: u64,
    pub(super) plan: FaultPlan,
    /// What the seed drew for the node's settings.
    pub(super) settings: Settings,
    pub(super) part: Option<String>,
}

/// What is judged afterwards.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) history: History,
    /// Since when each acknowledged record is durable on the node's disk.
    pub(super) durable: BTreeMap<Value, At>,
    pub(super) excuses: Excuses,
    /// The longest time in which nothing was decided, while clients were there.
    pub(super) standstill: Option<Standstill>,
    /// Who waited for whom whenever something looked like a standstill.
    pub(super) sightings: Vec<Sighting>,
    pub(super) idle: Option<Idle>,
    /// After the polite stop; absent when the node did not get that far.
    pub(super) left: Option<Vec<String>>,
    pub(super) probes: BTreeMap<String, u64>,
    pub(super) failed_syncs: u64,
    pub(super) ended: At,
}

pub(super) async fn tell(world: World, script: Script) -> Story {
    let Script { scenario, seed, plan, settings, part } = script;
    let connected_for = ns(scenario.liveness.connected_for.0);
    let excuses = excuses::excuses(&plan, connected_for);
    let schedule = Schedule::of(&scenario);
    let field = Field::new("node1:9092", &scenario, schedule);
    for fault in &plan.faults {
        world.inject(fault);
    }
    let setup =
        node::Setup { config: node::config(&scenario, &settings, 1), part, left: Arc::new(Mutex::new(None)) };
    let left = setup.left.clone();
    let machine = world.node(1);
    machine.supervise(Some(SUPERVISOR));
    machine.start(move |backend| node::live(backend, setup.clone()));
    workload::start(&scenario, seed, &field, |name| world.client(name));

    let mut watch = Watch::new(&world, &field, &excuses, ns(scenario.liveness.frozen_after.0));
    watch.until(Duration::from_nanos(schedule.healed), || false).await;
    world.heal_all();
    if !machine.is_running() {
        machine.start_again();
    }
    let patience = Duration::from_nanos(schedule.give_up) + Duration::from_secs(30);
    watch.until(patience, || field.is_done()).await;
    if !field.is_done() {
        watch.sight(Why::Unfinished);
    }
    let standstill = field.notes.write().pulse.longest(ns(world.now()));
    if scenario.workload.stop_after.is_none() && scenario.budget.is_of_idle_time() {
        watch.idle_from(world.now() + SETTLE, world.now() + SETTLE + IDLE).await;
    }
    let idle = watch.idle();

    // What the last end brings about is no merit of the plan's.
    let probes = world.probes();
    end_without_a_word(&machine, seed);
    let until = world.now() + READ_WITHIN;
    let reader = Client::new(world.client("client-1"), "client-1", &field);
    read_everything(reader, ns(until));
    while !field.is_done() && world.now() < until + Duration::from_secs(30) {
        world.sleep(Duration::from_millis(50)).await;
    }
    if !field.is_done() {
        watch.sight(Why::Unread);
    }
    let ended = ns(world.now());
    machine.supervise(None);
    machine.request_stop();
    let stop_by = world.now() + STOP_WITHIN;
    while machine.is_running() && world.now() < stop_by {
        world.sleep(Duration::from_millis(50)).await;
    }
    if machine.is_running() {
        watch.sight(Why::NotStopping);
    }
    let sightings = watch.sightings;
    let history = field.notes.take();
    let disk = machine.disk();
    let durable = history
        .sends
        .iter()
        .flat_map(|send| send.values())
        .filter_map(|value| Some((value, disk.marker(payload::number(value)).durable?)))
        .collect();
    let failed_syncs = disk.syncs().iter().filter(|sync| !sync.ok).count() as u64;
    let left = lock(&left).take();
    Story { history, durable, excuses, standstill, sightings, idle, left, probes, failed_syncs, ended }
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

fn ns(duration: Duration) -> At {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
