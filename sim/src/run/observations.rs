//! What happens in the world, from the first start to the last read.
//!
//! Safety phase: load and faults. Then everything is healed and has to converge: producers get through,
//! consumers see the end. Then the node ends without a word, recovers, is read back and asked to stop. Two
//! things are watched along the way: whether anything is still decided, and what the node does while nobody
//! asks for anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use broker::data_dir;
use broker::log::segment::SegmentName;

use super::node;
use super::watch::{SETTLE, Sighting, Watch, Why};
use super::witness::Witness;
use crate::checker::beginnings::Kept;
use crate::checker::budgets::{Idle, Peaks};
use crate::checker::circumstances;
use crate::checker::replicas::{self, Looks, NodeSeen};
use crate::checker::rest::Rest;
use crate::checker::segments::{SegmentBounds, SegmentFiles};
use crate::checker::visibility::Copies;
use crate::fault::{Fault, FaultKind, FaultPlan, Link, PathClass, PathSelector, Span};
use crate::history::{At, History, Standstill, Trade, Value};
use crate::probe::Probe;
use crate::scenario::{Scenario, Settings};
use crate::streams::Stream;
use crate::workload::{
    self, Client, Field, OFFSETS_PARTITIONS, OFFSETS_TOPIC, Schedule, check_health, payload, read_everything,
};
use crate::world::{Device, DeviceCounts, MachineHandle, Pages, World};

/// The last read, on a healed system.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// How long an idle node is watched where the scenario itself leaves no idle time.
const IDLE: Duration = Duration::from_secs(10);
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// When the last read is over, all replicas are in sync again and say the same within this.
/// In so long there is a node without which the others have everything.
const DISPENSABLE_WITHIN: Duration = Duration::from_secs(10);
const CONVERGE_WITHIN: Duration = Duration::from_secs(30);
/// A supervisor starts a node that has ended by itself again after this.
const SUPERVISOR: Duration = Duration::from_millis(500);
/// Clients come when the node serves, or after this; what it has then is what it has at rest.
const FIRST_START: Duration = Duration::from_secs(2);

pub(super) struct Inputs {
    pub(super) scenario: Scenario,
    pub(super) seed: u64,
    pub(super) plan: FaultPlan,
    /// What the seed drew for the node's settings.
    pub(super) settings: Settings,
    pub(super) part: Option<String>,
    pub(super) witness: Witness,
}

/// What is judged afterwards, beside what the [`Witness`] has seen.
#[derive(Debug)]
pub(super) struct Observations {
    pub(super) history: History,
    /// Since when each record that was sent is durable.
    pub(super) durable: BTreeMap<Value, Copies>,
    /// What nodes had of the same thing, at all moments.
    pub(super) looks: Looks,
    /// In the end, when nothing was broken and nobody wrote any more.
    pub(super) nodes: Vec<NodeSeen>,
    /// What was not as it should be by then.
    /// The node that was broken for good when the faults were over, and since when.
    pub(super) without: Option<(String, At)>,
    pub(super) pending: Vec<String>,
    /// The longest time in which nothing was decided, while clients were there.
    pub(super) standstill: Option<Standstill>,
    /// The longest in which nothing was decided about produce requests.
    pub(super) undecided: Option<Standstill>,
    /// Who waited for whom whenever something looked like a standstill.
    pub(super) sightings: Vec<Sighting>,
    pub(super) idle: Option<Idle>,
    /// Of each node that was there all the time.
    pub(super) rest: Vec<Rest>,
    pub(super) peaks: Peaks,
    pub(super) places: Places,
    pub(super) disk: DeviceCounts,
    /// By node.
    pub(super) segments: BTreeMap<String, Vec<SegmentFiles>>,
    pub(super) segment_bounds: SegmentBounds,
    /// What a partition keeps.
    pub(super) kept: Kept,
    /// How often the node looks for what is old.
    pub(super) looked_for_every: Duration,
    /// The files of all partitions of each node, with their sizes, when all was quiet.
    pub(super) files_at_rest: BTreeMap<String, Vec<(PathBuf, u64)>>,
    pub(super) probes: BTreeMap<String, u64>,
    pub(super) failed_syncs: u64,
}

/// Of client connections, against what the node takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// At some time all were taken.
    pub(super) full: bool,
    /// There were as many as may come from one address.
    pub(super) full_for_an_address: bool,
}

pub(super) async fn tell(world: World, script: Inputs) -> Observations {
    let Inputs { scenario, seed, plan, settings, part, witness } = script;
    let schedule = Schedule::of(&scenario);
    let mut field = Field::new(&scenario, schedule);
    field.notes = witness.notes.clone();
    for fault in &plan.faults {
        world.inject(fault);
    }
    let config = node::config(&scenario, &settings, 1);
    field.answers_queued = config.server.responses_queued;
    let limits = workload::Limits::of(&config, &scenario.cluster);
    let segment_bounds = SegmentBounds {
        segment: config.log.segment_bytes,
        index_interval: config.log.index_interval_bytes as u64,
    };
    let (places, places_of_an_address) =
        (config.server.connections as u64, config.server.connections_per_address as u64);
    let kept = Kept {
        ms: config.log.retention.and_then(|time| i64::try_from(time.as_millis()).ok()),
        bytes: config.log.retention_bytes,
    };
    let looked_for_every = config.log.retention_check_interval;
    let cleaned_every = config.cleaner.pause;
    let tails = 2 * config.journal.checkpoint_bytes + 2 * config.journal.max_batch_bytes as u64;
    let nodes: Vec<Machine> = (1..=scenario.cluster.nodes)
        .map(|number| {
            let setup = node::Setup {
                config: node::config(&scenario, &settings, number),
                part: part.clone(),
                lives: witness.lives.clone(),
                metrics: witness.metrics.clone(),
                insides: witness.insides.clone(),
            };
            let machine = Machine { number, name: node::name(number), handle: world.node(number) };
            witness.sees_disk(&machine.name, machine.handle.disk());
            machine.handle.supervise(Some(SUPERVISOR));
            machine.handle.start(move |backend| node::live(backend, setup.clone()));
            machine
        })
        .collect();
    let mut watch = Watch::new(&world, &field, &witness, &scenario);
    let serves = |node: &Machine| witness.lives.is_serving(&node.name);
    watch.until(FIRST_START, || nodes.iter().all(serves)).await;
    let counted = |node: &Machine| node.handle.counts().map(|counts| (counts, node.handle.tasks_by_role()));
    let before: Vec<_> = nodes.iter().map(|node| counted(node).filter(|_| serves(node))).collect();
    workload::start(&scenario, limits, seed, &field, |name| world.client(name));

    watch.until(Duration::from_nanos(schedule.healed), || false).await;
    world.heal_all();
    for node in nodes.iter().filter(|node| !node.handle.is_running()) {
        node.handle.start_again();
    }
    let without = match scenario.liveness.without_one && nodes.len() > 1 {
        true => do_without_one(&world, &nodes, &witness, seed).await,
        false => None,
    };
    let patience = Duration::from_nanos(schedule.give_up) + Duration::from_secs(30);
    watch.until(patience, || field.is_done()).await;
    if !field.is_done() {
        watch.sight(Why::Unfinished);
    }
    let gone = without.as_ref().map(|(number, _)| *number);
    let (_, pending_at_rest) = converged(&world, &scenario, &witness, gone, &mut watch).await;
    let now = ns(world.now());
    let pulse = field.notes.write().pulse.clone();
    let (standstill, undecided) = (pulse.longest(now), pulse.longest_of(Trade::Produce, now));
    watch.until(world.now() + SETTLE, || false).await;
    let own = scenario.workload.hostile.poisoners as usize;
    // Topics too whose creation nobody has heard of.
    let decided = witness.insides.look().iter().map(|node| node.partitions.len()).max().unwrap_or(0);
    let rest = |(node, before)| {
        let (before, tasks_before) = before?;
        let (after, tasks_after) = counted(node)?;
        Some(Rest {
            before,
            after,
            tasks_before,
            tasks_after,
            under_way: witness.metrics.under_way(&node.name),
            partitions: (partitions(&field) + own).max(decided) as u64,
            coordinators: coordinators(&field) as u64,
            files: node.handle.disk().durable_files().len() as u64,
            tails,
            silenced: circumstances::hide_ends(&world.fault_hits(), &node.name, ns(world.now())),
        })
    };
    let stayed = |node: &Machine| gone.is_none_or(|gone| gone != i32::try_from(node.number).unwrap_or(0));
    let rest = nodes.iter().zip(before).filter(|(node, _)| stayed(node)).filter_map(rest).collect();
    let files_at_rest = nodes
        .iter()
        .filter(|node| node.handle.is_running() && stayed(node))
        .map(|node| (node.name.clone(), partition_files(node.handle.disk())))
        .collect();
    if scenario.workload.stop_after.is_none() && scenario.budget.is_of_idle_time() {
        // What the last writes have left to clean is cleaned by then.
        let from = world.now() + cleaned_every;
        watch.idle_from(from, from + IDLE).await;
    }
    let (idle, peaks) = (watch.idle(), Peaks { elections: watch.looks.elections(), ..watch.peaks });

    if without.is_some() {
        world.heal_all();
        nodes.iter().for_each(|node| node.handle.supervise(Some(SUPERVISOR)));
    }
    // What the last end brings about is no merit of the plan's.
    let probes = world.probes();
    end_without_a_word(&nodes, seed);
    let until = world.now() + READ_WITHIN;
    let reader = Client::new(world.client("client-1"), "client-1", &field);
    read_everything(reader, ns(until));
    done(&world, &field, until + Duration::from_secs(30)).await;
    if !field.is_done() {
        watch.sight(Why::Unread);
    }
    // What it does not serve by now it says.
    for node in &nodes {
        check_health(Client::new(world.client("health"), "health", &field), node.number);
    }
    done(&world, &field, world.now() + Duration::from_secs(3)).await;
    let (seen, pending_at_last) = converged(&world, &scenario, &witness, None, &mut watch).await;
    let again = |pending| format!("{pending}, after all nodes were ended and started again");
    let pending = pending_at_rest.into_iter().chain(pending_at_last.into_iter().map(again)).collect();
    stop(&world, &nodes, &mut watch).await;
    let (sightings, looks) = (watch.sightings, watch.looks);
    let history = field.notes.take();
    let durable = durable(&history, &witness.disks());
    let failed = |node: &Machine| node.handle.disk().syncs().iter().filter(|sync| !sync.ok).count() as u64;
    let failed_syncs = nodes.iter().map(failed).sum();
    let disk = nodes.iter().map(|node| node.handle.disk().counts()).fold(DeviceCounts::default(), add);
    let segments = nodes
        .iter()
        .filter(|node| !node.handle.is_running())
        .map(|node| (node.name.clone(), segments(node.handle.disk())))
        .collect();
    Observations {
        history,
        durable,
        looks,
        nodes: seen,
        without: without.map(|(number, since)| (node::name(number.unsigned_abs()), since)),
        pending,
        standstill,
        undecided,
        sightings,
        idle,
        rest,
        peaks,
        places: Places {
            full: peaks.sockets >= places,
            full_for_an_address: peaks.sockets >= places_of_an_address.min(places),
        },
        disk,
        segments,
        segment_bounds,
        kept,
        looked_for_every,
        files_at_rest,
        probes,
        failed_syncs,
    }
}

/// A machine that runs a node.
struct Machine {
    number: u32,
    name: String,
    handle: MachineHandle,
}

/// What the disks know of all that they could see.
pub(super) fn durable(history: &History, disks: &[Arc<Device>]) -> BTreeMap<Value, Copies> {
    let copies =
        |value| Copies::of(disks.iter().filter_map(|disk| disk.marker(payload::number(value)).durable));
    history.sends.iter().flat_map(|send| send.visible_values()).map(|value| (value, copies(value))).collect()
}

fn add(one: DeviceCounts, other: DeviceCounts) -> DeviceCounts {
    DeviceCounts {
        reads: one.reads + other.reads,
        writes: one.writes + other.writes,
        syncs: one.syncs + other.syncs,
        read_bytes: one.read_bytes + other.read_bytes,
        written_bytes: one.written_bytes + other.written_bytes,
    }
}

/// The segments of all partitions, in the order of their paths.
fn segments(disk: &Device) -> Vec<SegmentFiles> {
    let files: BTreeMap<PathBuf, Pages> = disk.current_files().into_iter().collect();
    let beside =
        |path: &Path, extension| files.get(&path.with_extension(extension)).cloned().unwrap_or_default();
    let segment = |(path, log): (&PathBuf, &Pages)| {
        let name = SegmentName::parse(path.file_name()?.to_str()?)?;
        let (index, timeindex) = (beside(path, "index"), beside(path, "timeindex"));
        Some(SegmentFiles { path: path.clone(), base: name.base.0, log: log.clone(), index, timeindex })
    };
    files.iter().filter_map(segment).collect()
}

fn partition_files(disk: &Device) -> Vec<(PathBuf, u64)> {
    let of_partitions = |path: &Path| path.components().any(|part| part.as_os_str() == data_dir::PARTITIONS);
    let files = disk.current_files().into_iter().filter(|(path, _)| of_partitions(path));
    files.map(|(path, pages)| (path, pages.len())).collect()
}

/// Those that stay when the load is over.
fn partitions(field: &Field) -> usize {
    // Topics of this name have three at most.
    let notes = field.notes.write();
    let extra = notes.topics.keys().filter(|topic| topic.starts_with("more-")).count();
    drop(notes);
    field.partitions() + 3 * extra + coordinators(field)
}

/// Those that a node may come to have: of each partition that keeps groups.
fn coordinators(field: &Field) -> usize {
    match field.notes.write().topics.contains_key(OFFSETS_TOPIC) {
        true => usize::try_from(OFFSETS_PARTITIONS).unwrap_or(0),
        false => 0,
    }
}

/// Until all clients are, or `until`.
async fn done(world: &World, field: &Field, until: Duration) {
    while !field.is_done() && world.now() < until {
        world.sleep(Duration::from_millis(50)).await;
    }
}

/// The nodes when they are as they should be in the end, or have had time enough for it; what is still missing. One node
/// has nobody to agree with.
async fn converged(
    world: &World,
    scenario: &Scenario,
    witness: &Witness,
    without: Option<i32>,
    watch: &mut Watch<'_>,
) -> (Vec<NodeSeen>, Vec<String>) {
    let count = scenario.cluster.nodes;
    if count == 1 {
        return (Vec::new(), Vec::new());
    }
    let is_done = || replicas::pending(&witness.insides.look(), count, without).is_empty();
    watch.until(world.now() + CONVERGE_WITHIN, is_done).await;
    let seen = witness.insides.look();
    let pending = replicas::pending(&seen, count, without);
    (seen, pending)
}

/// Breaks a node that the others can do without, for good, in a way that the seed draws, and says which and when; `None` where there is no
/// such node for long.
async fn do_without_one(world: &World, nodes: &[Machine], witness: &Witness, seed: u64) -> Option<(i32, At)> {
    let mut stream = Stream::new(seed, "without one");
    let until = world.now() + DISPENSABLE_WITHIN;
    let from_among = loop {
        let found = replicas::dispensable(&witness.insides.look());
        if !found.is_empty() {
            break found;
        }
        if world.now() >= until {
            return None;
        }
        world.sleep(Duration::from_millis(100)).await;
    };
    let number = from_among[stream.below(from_among.len() as u64) as usize];
    let machine = nodes.iter().find(|node| i32::try_from(node.number) == Ok(number))?;
    let kinds =
        [FaultKind::Kill, FaultKind::Partition, FaultKind::DiskStall, FaultKind::DiskStall, FaultKind::Pause];
    let kind = kinds[stream.below(kinds.len() as u64) as usize];
    let mut fault = Fault::new(kind).on(machine.number);
    fault.at = Span(world.now());
    match kind {
        FaultKind::Kill => machine.handle.retire(),
        FaultKind::Partition => {
            fault.node = None;
            fault.link = Some(Link { from: machine.name.clone(), to: "node*".to_owned(), both_ways: true });
        }
        FaultKind::DiskStall => {
            let classes = [PathSelector::Any, PathSelector::Class(PathClass::Journal)];
            fault.path = Some(classes[stream.below(2) as usize].clone());
        }
        _ => {}
    }
    world.inject(&fault);
    world.probe(Probe::WithoutOne.name());
    Some((number, ns(world.now())))
}

/// Asks all nodes to stop, and sees what they still do while they do not.
async fn stop(world: &World, nodes: &[Machine], watch: &mut Watch<'_>) {
    for node in nodes {
        node.handle.supervise(None);
        node.handle.request_stop();
    }
    let stop_by = world.now() + STOP_WITHIN;
    let runs = |node: &Machine| node.handle.is_running();
    while nodes.iter().any(runs) && world.now() < stop_by {
        watch.see_stopping();
        world.sleep(Duration::from_millis(50)).await;
    }
    if nodes.iter().any(runs) {
        watch.sight(Why::NotStopping);
    }
}

/// The last read is of what recovery brings back: each node is killed, or loses power, once more.
fn end_without_a_word(nodes: &[Machine], seed: u64) {
    let mut stream = Stream::new(seed, "ending");
    for node in nodes {
        if stream.coin() {
            node.handle.power_loss();
        } else {
            node.handle.kill();
        }
        node.handle.start_again();
    }
}

fn ns(duration: Duration) -> At {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
