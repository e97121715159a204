//! What a node machine runs: the whole broker, from its data directory, until it is asked to stop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::config::{Config, PeerAddress, Secret};
use broker::ids::{BrokerId, PartitionId};
use broker::journal::{EntryKind, RecoveredEntry};
use broker::node::Node;
use broker::parts::Parts;
use io_backend::{Backend, Clock, Deadline};

use super::inside::Insides;
use super::witness::{LatestMetrics, Lives};
use crate::checker::circumstances::Life;
use crate::museum;
use crate::planted;
use crate::probe::Probe;
use crate::scenario::{Scenario, Settings, knobs};
use crate::workload::{HEARTBEAT_EVERY, OFFSETS_PARTITIONS, SESSION};
use crate::world::{Options, SimBackend, lock};

/// What the nodes of a cluster share.
const SECRET: &str = "of all nodes of this world";

/// The machines that run nodes, by their numbers.
pub(super) fn names(scenario: &Scenario) -> impl Iterator<Item = String> + use<> {
    (1..=scenario.cluster.nodes).map(name)
}

pub(super) fn name(number: u32) -> String {
    format!("node{number}")
}

/// A service manager kills what has not stopped after ten seconds: a node's own deadline is within that.
const STOP_DEADLINE: Duration = Duration::from_secs(8);

/// Everything that one start of a node needs.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) part: Option<String>,
    pub(super) lives: Lives,
    pub(super) metrics: LatestMetrics,
    pub(super) insides: Insides,
}

/// How many a process may have.
pub(super) fn descriptors(scenario: &Scenario, drawn: &Settings) -> u64 {
    let drawn = || drawn.get("machine.descriptors").and_then(|value| value.parse().ok());
    scenario.machine.descriptors.or_else(drawn).unwrap_or(Options::default().descriptors)
}

/// A small configuration, so that files wrap around, segments roll and checkpoints happen in every run; then
/// what the seed drew, then the scenario's own keys.
pub(super) fn config(scenario: &Scenario, settings: &Settings, number: u32) -> Config {
    let host = name(number);
    let mut config = Config {
        node_id: BrokerId(i32::try_from(number).unwrap_or(1)),
        data_dir: PathBuf::from("/data"),
        listen: format!("{host}:9092"),
        advertise: Some(format!("{host}:9092")),
        cluster: format!("{host}:9093"),
        admin: format!("{host}:9094"),
        ..Config::default()
    };
    config.journal.file_bytes = 1 << 20;
    config.journal.max_batch_bytes = 256 << 10;
    config.journal.queue_bytes = 1 << 20;
    config.journal.checkpoint_bytes = 256 << 10;
    config.metadata.snapshot_entries = 5;
    config.log.segment_bytes = 64 << 10;
    config.log.index_interval_bytes = 512;
    config.topics.max_batch_bytes = 64 << 10;
    config.offsets.partitions = OFFSETS_PARTITIONS;
    config.offsets.segment_bytes = 64 << 10;
    config.groups.session_timeout_min = Duration::from_secs(1);
    config.groups.consumer_session_timeout = SESSION;
    config.groups.consumer_session_timeout_min = SESSION;
    config.groups.consumer_heartbeat_interval = HEARTBEAT_EVERY;
    config.groups.consumer_heartbeat_interval_min = HEARTBEAT_EVERY;
    config.groups.initial_rebalance_delay = Duration::from_millis(500);
    config.server.request_bytes = 1 << 20;
    config.server.request_bytes_in_flight = 8 << 20;
    let nodes = scenario.cluster.nodes;
    if nodes > 1 {
        let peer = |id: u32| PeerAddress {
            id: BrokerId(i32::try_from(id).unwrap_or(1)),
            address: format!("{}:9093", name(id)),
        };
        config.apply_peers((1..=nodes).map(peer).collect());
        config.peers.secret = Secret::new(SECRET).ok();
        config.rack = Some(format!("rack-{}", number % 3));
    }
    knobs::apply(settings, &scenario.cluster.config, &mut config);
    config.share_descriptors(descriptors(scenario, settings));
    config
}

/// One process: starts the broker and serves until it is asked to stop.
pub(super) async fn live(backend: SimBackend, setup: Setup) {
    let process = backend.process().clone();
    setup.lives.began(&process.host.name, process.incarnation, backend.kernel().now());
    setup.metrics.forget(&process.host.name);
    setup.insides.forget(&process.host.name);
    if process.incarnation > 1 {
        backend.probe(Probe::NodeStartedAgain.name());
    }
    match setup.part.as_deref() {
        Some(name)
            if let Some(seen) =
                museum::backend(name, &backend).or_else(|| planted::backend(name, &backend)) =>
        {
            serve(seen, Parts::production(), backend, setup).await;
        }
        name => {
            let parts = name.and_then(planted::parts).unwrap_or_else(|| museum::parts(name));
            serve(backend.clone(), parts, backend, setup).await;
        }
    }
}

async fn serve(seen: SimBackend, parts: Parts<SimBackend>, backend: SimBackend, setup: Setup) {
    let batches = JournaledBatches::default();
    let parts = watched(parts, &backend, &setup.lives, batches.clone());
    let node = match Node::start(seen, parts, setup.config).await {
        Ok(node) => node,
        Err(error) => {
            backend.exit(error.exit_status(), &error.to_string());
            return;
        }
    };
    let process = backend.process().clone();
    setup.metrics.are(&process.host.name, node.context().metrics.clone());
    setup.insides.are(&process.host.name, process.incarnation, &node);
    let note = |note: &dyn Fn(&mut Life, u64)| {
        let now = backend.kernel().now();
        setup.lives.note(&process.host.name, process.incarnation, |life| note(life, now));
    };
    let image = node.context().metadata.image();
    note(&|life, now| {
        life.serving = Some(now);
        // Those of a topic that was deleted are nobody's.
        let batches = lock(&batches);
        let of_topics = batches.iter().filter(|(id, _)| image.partition(**id).is_some());
        life.replayed = of_topics.map(|(_, batches)| batches).sum();
    });
    backend.stop_requested().await;
    note(&|life, now| {
        life.asked_to_stop.get_or_insert(now);
    });
    node.stop(Deadline::after(&backend, STOP_DEADLINE)).await;
    // Tasks that were told to end do so at their next poll.
    backend.sleep(Duration::from_millis(100)).await;
    let left = in_flight(&backend);
    note(&|life, now| {
        life.stopped = Some(now);
        life.in_flight.clone_from(&left);
    });
}

/// What a process waits for, as text.
pub(super) fn in_flight(backend: &SimBackend) -> Vec<String> {
    backend.registry().snapshot().iter().map(describe).collect()
}

fn describe(entry: &io_backend::registry::Entry) -> String {
    let task = entry.task.as_ref().map(|task| task.name.to_string()).unwrap_or_default();
    let target = entry.target.as_deref().map(|target| format!(" {target}")).unwrap_or_default();
    format!("{} {}{target} of task {task}, from {}", entry.kind.name(), entry.what, entry.site)
}

/// Notes what recovery found.
fn watched<B: Backend>(
    mut parts: Parts<B>,
    backend: &SimBackend,
    lives: &Lives,
    batches: JournaledBatches,
) -> Parts<B> {
    let inner = std::mem::replace(&mut parts.journal, Box::new(broker::journal::open));
    let (backend, lives) = (backend.clone(), lives.clone());
    let (raft_backend, raft_lives) = (backend.clone(), lives.clone());
    parts.journal = Box::new(move |context| {
        let (opening, batches) = (inner(context), batches.clone());
        Box::pin(async move {
            let opened = opening.await?;
            if opened.torn_tail.is_some() {
                backend.probe(Probe::TornTailCut.name());
            }
            if opened.entries.iter().any(|recovered| recovered.entry.kind == EntryKind::Batch) {
                backend.probe(Probe::RecordsRecovered.name());
            }
            if opened.entries.iter().any(|recovered| recovered.entry.kind == EntryKind::LogStart) {
                backend.probe(Probe::LogStartRecovered.name());
            }
            if opened.entries.iter().any(|recovered| recovered.entry.kind == EntryKind::TruncateFully) {
                backend.probe(Probe::LogBegunAnewRecovered.name());
            }
            let process = backend.process();
            lives.note(&process.host.name, process.incarnation, |life| {
                life.torn_tail |= opened.torn_tail.is_some();
            });
            *lock(&batches) = batches_to_replay(opened.entries.clone());
            Ok(opened)
        })
    });
    let raft = std::mem::replace(&mut parts.raft_journal, Box::new(broker::journal::open));
    parts.raft_journal = Box::new(move |context| {
        let opening = raft(context);
        Box::pin(async move {
            let opened = opening.await?;
            if opened.entries.iter().any(|recovered| recovered.entry.kind == EntryKind::RaftSnapshot) {
                raft_backend.probe(Probe::SnapshotRecovered.name());
            }
            let process = raft_backend.process();
            raft_lives.note(&process.host.name, process.incarnation, |life| {
                life.raft_replayed += raft_entries_to_replay(&opened.entries);
            });
            Ok(opened)
        })
    });
    parts
}

/// Batches of the data journal that no checkpoint covers, by partition.
type JournaledBatches = Arc<Mutex<BTreeMap<PartitionId, usize>>>;

fn batches_to_replay(entries: Vec<RecoveredEntry>) -> BTreeMap<PartitionId, usize> {
    let mut batches = BTreeMap::new();
    for (id, replica) in broker::replicas::split(entries).unwrap_or_default().replicas {
        let of_it = replica.entries.iter().filter(|recovered| recovered.entry.kind == EntryKind::Batch);
        *batches.entry(id.partition).or_default() += of_it.count();
    }
    batches
}

/// Those of Raft's log that no snapshot covers.
fn raft_entries_to_replay(entries: &[RecoveredEntry]) -> usize {
    let of = |kind: EntryKind| {
        entries.iter().map(|recovered| &recovered.entry).filter(move |entry| entry.kind == kind)
    };
    let covered = of(EntryKind::RaftSnapshot).map(|entry| entry.base_offset).max();
    of(EntryKind::RaftEntry).filter(|entry| covered.is_none_or(|covered| entry.base_offset > covered)).count()
}
