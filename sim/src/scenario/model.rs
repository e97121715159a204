//! The form of a scenario file. An unknown key is an error; a missing one has the default given here.

use std::collections::BTreeMap;
use std::time::Duration;

use reports::Verdict;
use serde::Deserialize;

use super::knobs::Knobs;
use crate::checker::budgets::Budget;
use crate::fault::{Family, Fault, FaultKind, Span};
use crate::history::AckMode;
use crate::streams::Stream;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    /// Goal and story; a regression tells the bug it caught.
    pub about: String,
    #[serde(default)]
    pub expect: Verdict,
    /// The checker that the expected failure has to come from.
    #[serde(default)]
    pub expect_checker: Option<String>,
    /// A text that the finding or its explanation has to contain.
    #[serde(default)]
    pub expect_text: Option<String>,
    /// The part that is put in place of ours; `--production` ignores it.
    #[serde(default)]
    pub part: Option<String>,
    /// Simulated time of the safety phase.
    pub duration: Span,
    #[serde(default)]
    pub cluster: Cluster,
    #[serde(default)]
    pub machine: MachineLimits,
    #[serde(default)]
    pub knobs: Knobs,
    #[serde(default)]
    pub workload: Workload,
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
    #[serde(default)]
    pub swarm: Option<Swarm>,
    #[serde(default)]
    pub budget: Budget,
    #[serde(default)]
    pub probes: Probes,
    #[serde(default)]
    pub liveness: Liveness,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// How many, or those that a seed draws from; [`Scenario::of_seed`] settles it.
    #[serde(rename = "nodes")]
    pub nodes_drawn: OneOrMore<u32>,
    #[serde(skip)]
    pub nodes: u32,
    pub topics: u32,
    /// Of each topic.
    pub partitions: i32,
    /// At most: as many as there are nodes, where a seed drew fewer; `min_insync_replicas` is at most that, too.
    pub replication: i16,
    pub min_insync_replicas: i16,
    /// Any key of the broker's configuration, nested as in its own file.
    pub config: toml::Table,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            nodes_drawn: OneOrMore::One(1),
            nodes: 1,
            topics: 1,
            partitions: 3,
            replication: 1,
            min_insync_replicas: 1,
            config: toml::Table::new(),
        }
    }
}

/// What a node's process and its machine have. What is missing here has the defaults of
/// [`crate::world::Options`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MachineLimits {
    /// Descriptors that a process may have open: files and sockets.
    pub descriptors: Option<u64>,
    /// Bytes that the disk holds.
    pub disk_bytes: Option<u64>,
    /// What the disk's device moves, in MB per second.
    pub disk_mb_per_s: Option<u64>,
    /// What a sync takes on an idle device beside moving what is dirty.
    pub disk_sync: Option<Span>,
    /// Threads of the process's runtime.
    pub runtime_threads: Option<usize>,
    /// What a poll of a task takes; all nodes and clients share one core.
    pub poll_time: Option<Span>,
}

/// One value for all, or several that are dealt out in turn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T: Copy> OneOrMore<T> {
    /// All of them.
    pub fn all(&self) -> Vec<T> {
        match self {
            OneOrMore::One(value) => vec![*value],
            OneOrMore::More(values) => values.clone(),
        }
    }

    /// What the `index`-th of several gets; an empty list is refused at loading.
    pub fn deal(&self, index: usize, otherwise: T) -> T {
        match self {
            OneOrMore::One(value) => *value,
            OneOrMore::More(values) if values.is_empty() => otherwise,
            OneOrMore::More(values) => values[index % values.len()],
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workload {
    pub producers: u32,
    pub consumers: u32,
    /// Records per second of each producer; it waits for its acknowledgements, so it may fall behind.
    pub rate: f64,
    /// Bytes of a record's value.
    pub size: usize,
    /// Records in a batch, at most; how many is drawn anew for each.
    pub batch: u32,
    pub acks: OneOrMore<AckMode>,
    pub idempotent: OneOrMore<bool>,
    /// What a producer asks the broker to answer within.
    pub request_timeout: Span,
    /// Idempotent producers begin anew so often, as restarted ones do: under a new id, with sequences from 0.
    pub renew_every: Option<Span>,
    /// A client has partitions kept by other nodes this often.
    pub reassign_every: Option<Span>,
    /// All that producers reach is this node, which passes on what others lead (`server.forward_produce`).
    pub produce_through: Option<u32>,
    /// How often a consumer starts over from the beginning.
    pub reread_every: Span,
    /// Clients fall silent after this; what remains of the duration is idle time.
    pub stop_after: Option<Span>,
    /// A topic is created this often while the run lasts, beside those of the cluster.
    pub create_topic_every: Option<Span>,
    /// So are others, by clients that reach one node each.
    pub create_through_each: bool,

    /// Each seed draws how its clients are from ranges around what is written here, which is among the draws.
    pub varied: bool,
    /// Requests that a producer has on the wire at a time.
    pub in_flight: u32,
    /// Partitions, over all topics, that one produce request has batches for.
    pub partitions_per_request: u32,
    /// Batches that a producer wants to send at the same moment; its rate stays.
    pub burst: u32,
    pub compression: OneOrMore<Compression>,
    /// Records have keys and headers.
    pub keyed: bool,
    /// Record sizes from tens of bytes up to what a batch may hold, most of them near `size`.
    pub mixed_sizes: bool,
    /// How long a consumer asks the broker to wait for more, and for how many bytes.
    pub long_poll: Span,
    pub min_bytes: u32,
    /// What a consumer takes of one partition at a time, at most.
    pub fetch_bytes: u32,
    /// Fetches that a consumer has on the wire at a time, each for partitions of its own.
    pub fetches_in_flight: u32,
    /// Consumers name topics by their ids.
    pub fetch_by_id: bool,
    /// Consumers fetch in sessions (KIP-227): dealt out among them in turn.
    pub fetch_sessions: OneOrMore<bool>,
    /// Offsets are looked up (earliest, latest, by time) this often.
    pub lookups_every: Option<Span>,
    /// A topic is created, written, read, deleted or created again under its name this often.
    pub churn_topics_every: Option<Span>,
    /// A configuration is changed, or asked for, or a topic gets one partition more, this often.
    pub administrate_every: Option<Span>,
    /// Records may be deleted for their age or size, or on request: who is behind begins again where the log starts.
    pub falls_out: bool,
    /// Records up to some offset are deleted (DeleteRecords) this often.
    pub delete_records_every: Option<Span>,
    /// Consumer groups that read all partitions, and the members of each.
    pub groups: u32,
    pub group_members: u32,
    /// A compacted topic beside those of the cluster, with as many partitions and replicas.
    pub compacted: Option<Compacted>,
    /// Which protocols they speak: dealt out among the groups in turn, from one on that a seed draws.
    pub group_protocols: OneOrMore<GroupProtocol>,
    /// Clients that go away in the middle of whatever they do, again and again.
    pub leavers: u32,
    /// Well-behaved clients with small requests and little patience (5 s each); the first one shares the hostile
    /// clients' address.
    pub probes: u32,
    pub hostile: Hostile,
}

/// Who writes to a compacted topic and reads it whole, and how it is configured.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compacted {
    /// Clients that write; each has keys of its own, and waits for what became of a key before it writes that again.
    pub keepers: u32,
    /// A third of them are written often, the others now and then.
    pub keys: u32,
    /// Records per second of each keeper.
    pub rate: f64,
    /// Bytes of a record's value, at most.
    pub size: usize,
    /// Records in a batch, at most, each of another key.
    pub batch: u32,
    /// One record in so many is a tombstone; 0: none.
    pub tombstone_one_in: u64,
    /// Clients that read it whole, again and again: every so often, about.
    pub readers: u32,
    pub read_every: Span,
    /// From when nobody writes any more and nothing is broken until it is compacted.
    pub settled_after: Span,
    /// So many records, in all partitions, are left by then at most: what is written on or waits for a checkpoint is never compacted.
    pub left_max: Option<u64>,
    /// The topic's configuration, under Kafka's names.
    pub min_cleanable_dirty_ratio: f64,
    pub delete_retention: Span,
    pub min_compaction_lag: Span,
    pub max_compaction_lag: Option<Span>,
    /// Records older than this go as well, whatever their keys: `cleanup.policy` is `compact,delete`.
    pub retention: Option<Span>,
    /// A client asks for the deletion of records (DeleteRecords) so often; it is refused without `retention`.
    pub delete_records_every: Option<Span>,
}

impl Default for Compacted {
    fn default() -> Compacted {
        Compacted {
            keepers: 3,
            keys: 120,
            rate: 60.0,
            size: 800,
            batch: 6,
            tombstone_one_in: 8,
            readers: 2,
            read_every: Span::millis(1_500),
            settled_after: Span::secs(10),
            left_max: None,
            min_cleanable_dirty_ratio: 0.1,
            delete_retention: Span::secs(5),
            min_compaction_lag: Span::millis(0),
            max_compaction_lag: None,
            retention: None,
            delete_records_every: None,
        }
    }
}

/// Clients that do what the protocol allows and no client should. They are counted; what they are told is judged only
/// where it would mislead them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hostile {
    /// Connections that announce the largest request and send little of it, or a byte now and then.
    pub announcers: u32,
    /// Connections with a hundred long polls each, ten minutes long.
    pub pollers: u32,
    /// Connections that fetch as much as they can and do not read it, or a byte now and then.
    pub non_readers: u32,
    /// Connections that say nothing.
    pub idlers: u32,
    /// Connections that get producer ids all the time and send one small batch under each.
    pub flooders: u32,
    /// Clients that connect, send the largest batches they can and hang up at once, ten times a second.
    pub deserters: u32,
    /// They ask for no acknowledgement: nothing is owed to their connections, which end before their batches are written.
    pub deserters_unacknowledged: bool,
    /// Clients that send batches whose records nobody can open, to topics of their own.
    pub poisoners: u32,
    /// Clients that ask whether topics of thousands of partitions could be created, a dozen times in a row, and hang up.
    pub creators: u32,
    /// All come from one machine; otherwise each has its own.
    pub from_one_address: bool,
    /// From when until when; a sixth and five sixths of the duration if it is not said.
    pub from: Option<Span>,
    pub until: Option<Span>,
}

impl Hostile {
    /// Whether there are any of them.
    pub fn are_any(&self) -> bool {
        let Hostile {
            announcers,
            pollers,
            non_readers,
            idlers,
            flooders,
            deserters,
            poisoners,
            creators,
            ..
        } = self;
        [announcers, pollers, non_readers, idlers, flooders, deserters, poisoners, creators]
            .into_iter()
            .any(|of| *of > 0)
    }
}

/// By which protocol the members of a group speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupProtocol {
    /// They assign partitions among themselves.
    Classic,
    /// The coordinator assigns (KIP-848).
    Consumer,
    /// Some by one, some by the other; who comes anew may have changed.
    Mixed,
}

/// How batches are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    /// As the Java client packs it.
    SnappyFramed,
    Lz4,
    Zstd,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload {
            producers: 3,
            consumers: 2,
            rate: 50.0,
            size: 100,
            batch: 8,
            acks: OneOrMore::One(AckMode::All),
            idempotent: OneOrMore::One(true),
            request_timeout: Span::secs(5),
            renew_every: None,
            produce_through: None,
            reassign_every: None,
            reread_every: Span::secs(20),
            stop_after: None,
            create_topic_every: None,
            create_through_each: false,
            varied: false,
            in_flight: 1,
            partitions_per_request: 1,
            burst: 1,
            compression: OneOrMore::One(Compression::None),
            keyed: false,
            mixed_sizes: false,
            long_poll: Span::millis(500),
            min_bytes: 1,
            fetch_bytes: 256 << 10,
            fetches_in_flight: 1,
            fetch_by_id: false,
            fetch_sessions: OneOrMore::One(false),
            lookups_every: None,
            churn_topics_every: None,
            administrate_every: None,
            falls_out: false,
            delete_records_every: None,
            groups: 0,
            group_members: 3,
            compacted: None,
            group_protocols: OneOrMore::More(vec![GroupProtocol::Classic, GroupProtocol::Consumer]),
            leavers: 0,
            probes: 0,
            hostile: Hostile::default(),
        }
    }
}

/// Faults that the seed draws. A seed takes a random subset of the families (or kinds) with random weights,
/// so that each seed is a swarm_mix of its own and not the average of all.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Swarm {
    /// How many faults a run gets, from and to.
    pub faults: (u32, u32),
    pub families: BTreeMap<Family, u32>,
    /// Particular kinds with their weights, instead of or beside families.
    pub kinds: BTreeMap<FaultKind, u32>,
    /// Scales how long faults last.
    pub longest: Span,
    /// Some faults more, each aimed at a step of a deletion of records.
    pub at_deletions: bool,
    /// The same, each aimed at a step of a cleaning of a compacted log.
    pub at_cleanings: bool,
    /// Faults that damage what is stored may be drawn on a single node, too: the checkers know how to judge what it
    /// makes of that.
    pub corrupting: bool,
}

impl Default for Swarm {
    fn default() -> Swarm {
        Swarm {
            faults: (2, 8),
            families: BTreeMap::new(),
            kinds: BTreeMap::new(),
            longest: Span::secs(10),
            at_deletions: false,
            at_cleanings: false,
            corrupting: false,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Probes {
    /// Situations that a sweep has to see at least once.
    pub required: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Liveness {
    /// How long the way has to be free before an acknowledgement may be asked for.
    pub connected_for: Span,
    /// From then on each partition acknowledges within this.
    pub acknowledged_within: Span,
    /// ... and each member of a group is told what it reads, and its group commits what was acknowledged, within this.
    pub assigned_within: Span,
    /// What an answer may come later than its deadline.
    pub grace: Span,
    /// How long nothing may be decided, with requests only running out of time.
    pub frozen_after: Span,
    /// When the faults are over, one node of several is broken for good, as soon as the others have a majority and a copy of
    /// everything: they have to go on and agree without it. It comes back after the clients have gone.
    pub without_one: bool,
    /// Events after which the run is a livelock; by the length of the run and the number of clients when missing.
    pub events_max: Option<u64>,
}

impl Default for Liveness {
    fn default() -> Liveness {
        Liveness {
            connected_for: Span::secs(3),
            acknowledged_within: Span::secs(5),
            // A join that waits for others, on a connection that has silently ended.
            assigned_within: Span::secs(45),
            grace: Span::secs(2),
            frozen_after: Span::secs(60),
            without_one: false,
            events_max: None,
        }
    }
}

impl Scenario {
    /// With as many nodes as this seed draws. Clients that keep to one node are there where it is the only one.
    pub fn of_seed(&self, seed: u64) -> Scenario {
        let mut own = self.clone();
        let drawn = own.cluster.nodes_drawn.all();
        let Some(last) = (drawn.len() as u64).checked_sub(1) else { return own };
        let cluster = &mut own.cluster;
        cluster.nodes = drawn[Stream::new(seed, "nodes").between(0, last) as usize];
        cluster.replication = cluster.replication.min(i16::try_from(cluster.nodes).unwrap_or(i16::MAX));
        cluster.min_insync_replicas = cluster.min_insync_replicas.min(cluster.replication);
        if drawn.len() > 1 && cluster.nodes > 1 {
            own.workload.leavers = 0;
            own.workload.hostile = Hostile::default();
        }
        own
    }

    pub fn duration(&self) -> Duration {
        self.duration.0
    }

    /// Events that no run of it needs. A client makes some hundred events a second.
    pub fn events_max(&self) -> u64 {
        const BASE: u64 = 3_000_000;
        const PER_CLIENT_AND_S: u64 = 1_500;
        let members = self.workload.groups * self.workload.group_members;
        let keyed = self.workload.compacted.as_ref().map_or(0, |of| of.keepers + of.readers);
        let clients = u64::from(self.workload.producers + self.workload.consumers + members + keyed + 1);
        let seconds = self.duration().as_secs() + 120;
        self.liveness.events_max.unwrap_or(BASE + clients * seconds * PER_CLIENT_AND_S)
    }

    /// Explicit faults are the point of the scenario: they have to hit something.
    pub fn hits_required(&self) -> bool {
        !self.faults.is_empty()
    }
}
