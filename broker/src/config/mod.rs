//! The configuration of a node: TOML, environment, command line; every key with unit, default and range.

mod values;
mod cleaner;
mod compression;
mod groups;
mod peers;
mod keys;
mod kafka_refused;
pub mod kafka;
mod set;
pub(crate) mod dynamic;
mod load;

pub use cleaner::{CleanerConfig, CleanupPolicy};
pub use compression::{CompressionType, gzip_level};
pub use groups::{GroupsConfig, MigrationPolicy, OffsetsConfig};
pub use keys::{KEYS, Key};
pub use load::{ConfigError, Source};
pub use peers::{PeerAddress, PeersConfig, Secret};
pub use values::SetError;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use io_backend::real::DiskChoice;

use crate::ids::BrokerId;
use crate::journal::JournalSettings;
use crate::limits;

/// What a node is set to. [`Default`] is what ships; [`Config::assemble`] reads it from file, environment and
/// command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of the node in its cluster: Kafka's `broker.id`.
    pub node_id: BrokerId,
    /// Directory of all data; belongs to one process.
    pub data_dir: PathBuf,
    /// Where the Kafka protocol is served, `HOST:PORT`.
    pub listen: String,
    /// What clients are told to connect to; the listening address where absent.
    pub advertise: Option<String>,
    /// Where other nodes connect to, `HOST:PORT`; nobody listens there while there are none.
    pub cluster: String,
    /// Who they are.
    pub peers: PeersConfig,
    /// How soon they miss one another.
    pub cluster_times: ClusterTimes,
    /// Where the node stands: Kafka's `broker.rack`.
    pub rack: Option<String>,
    /// Where metrics, health and stalls are served over HTTP, `HOST:PORT`.
    pub admin: String,
    /// Which real disk to use.
    pub disk: DiskChoice,
    /// Bound of all that grows with load; the log's tails and the accounts of the front are shares of it.
    pub memory_bytes: usize,
    /// How records are made durable.
    pub journal: JournalConfig,
    /// The Raft group of the metadata.
    pub metadata: MetadataConfig,
    /// Segments, and what topics that do not say so themselves do with records.
    pub log: LogConfig,
    /// How compacted logs are cleaned.
    pub cleaner: CleanerConfig,
    /// What topics may be, and what is made where a client does not say.
    pub topics: TopicConfig,
    /// What groups of consumers are allowed.
    pub groups: GroupsConfig,
    /// How far groups are: how that is kept, and for how long.
    pub offsets: OffsetsConfig,
    /// What clients may take of the node.
    pub server: ServerConfig,
    /// How partitions are kept in sync with those of other nodes.
    pub replication: ReplicationConfig,
    /// When the disk counts as standing still.
    pub stall: StallConfig,
    /// Keys that were set by a file, a variable or a flag, with the name that this was said under.
    pub stated: BTreeMap<&'static str, &'static str>,
}

/// Whose time a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's, as the record came.
    CreateTime,
    /// The broker's, as it was appended.
    LogAppendTime,
}

impl TimestampType {
    /// Kafka's word for it, as `message.timestamp.type` has it.
    pub fn name(self) -> &'static str {
        match self {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        }
    }
}

impl std::str::FromStr for TimestampType {
    type Err = String;
    fn from_str(text: &str) -> Result<TimestampType, String> {
        [TimestampType::CreateTime, TimestampType::LogAppendTime]
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| "neither CreateTime nor LogAppendTime".to_owned())
    }
}

/// Presets of the journal's numbers: what is traded is latency at low load against throughput.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A commit never waits: groups are as large as what came meanwhile.
    LowLatency,
    /// A commit lingers 1 ms for more.
    Balanced,
    /// A commit lingers 5 ms for more, and groups and queue are larger.
    Throughput,
}

/// The numbers of the journal; Raft's has the same but for the size of its files and `linger`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// The preset that the others come from, where they are not set themselves.
    pub profile: Profile,
    /// Size of a file, in bytes; two are prefilled at the first start.
    pub file_bytes: usize,
    /// Entries of one commit group at most. An entry is one or more whole batches.
    pub max_batch_records: usize,
    /// Bytes of one commit group at most.
    pub max_batch_bytes: usize,
    /// Entries that wait for a commit at most.
    pub queue_records: usize,
    /// Bytes that wait for a commit at most.
    pub queue_bytes: usize,
    /// How long a commit waits for company; zero: not at all.
    pub linger: Duration,
    /// A checkpoint begins when more than this has been written since the last.
    pub checkpoint_bytes: u64,
}

/// What the metadata's group does with its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataConfig {
    /// Entries of the Raft log after which a snapshot is taken, however small they are.
    pub snapshot_entries: u64,
}

/// How logs are kept, where a topic has no configuration of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Size at which a new segment begins: Kafka's `log.segment.bytes`.
    pub segment_bytes: u64,
    /// Age at which a new segment begins: Kafka's `log.roll.ms`.
    pub segment_age: Duration,
    /// Bytes between two entries of an offset index.
    pub index_interval_bytes: usize,
    /// Segment files that stay open for readers, in the whole node.
    pub open_files: usize,
    /// How long records are kept at least; None: for ever.
    pub retention: Option<Duration>,
    /// Most bytes kept of a partition; None: no limit.
    pub retention_bytes: Option<u64>,
    /// How long a segment's files outlive the segment.
    pub file_delete_delay: Duration,
    /// How often it is looked for what may go.
    pub retention_check_interval: Duration,
    /// Whose time records carry: Kafka's `log.message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// How far a producer's time may lie behind the broker's clock; None: no bound.
    pub timestamp_before_max: Option<Duration>,
    /// How far it may lie ahead.
    pub timestamp_after_max: Option<Duration>,
}

/// Topics: how they are made, and what bounds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// Whether asking for an unknown topic creates it (`auto.create.topics.enable`); the client has to agree.
    pub auto_create: bool,
    /// Partitions of a topic for which nobody says how many (`num.partitions`).
    pub partitions: i32,
    /// Partitions of the node, of all topics.
    pub partitions_max: usize,
    /// Replicas of a partition for which nobody says how many (`default.replication.factor`), of as many as there are
    /// brokers.
    pub replication_factor: i16,
    /// Replicas that have to be in sync for a produce with acks=all (`min.insync.replicas`), where a topic
    /// does not say.
    pub min_insync_replicas: usize,
    /// Largest record batch, header included, in bytes (`message.max.bytes`), where a topic does not say.
    pub max_batch_bytes: usize,
    /// How batches are compressed, where a topic does not say (`compression.type`).
    pub compression: CompressionType,
    /// How hard gzip tries where a topic does not say (`compression.gzip.level`); `None`: as it does by itself.
    pub gzip_level: Option<u32>,
}

/// What clients may take of the node. All of it is about the Kafka port; the admin port has bounds of its
/// own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Threads that work on requests; 0 for one for each core.
    pub worker_threads: usize,
    /// Open connections at most (`max.connections`).
    pub connections: usize,
    /// Those of one address at most (`max.connections.per.ip`).
    pub connections_per_address: usize,
    /// A connection without a request for so long is closed (`connections.max.idle.ms`).
    pub idle_timeout: Duration,
    /// Requests being worked on at most, of all connections.
    pub requests_in_flight: usize,
    /// Largest request, in bytes without its length (`socket.request.max.bytes`).
    pub request_bytes: usize,
    /// Bytes of requests that arrive or are worked on at most (`queued.max.request.bytes`).
    pub request_bytes_in_flight: usize,
    /// Bytes of requests that wait for their turn or for records at most; above it fetches are answered at
    /// once.
    pub waiting_bytes: usize,
    /// Bytes of answers that are not written yet at most.
    pub answer_bytes: usize,
    /// Answers queued behind one slow reader before its requests wait.
    pub responses_queued: usize,
    /// Fetch sessions at most (`max.incremental.fetch.session.cache.slots`).
    pub fetch_sessions: usize,
    /// Bytes that they keep at most.
    pub fetch_session_bytes: usize,
    /// One that was not used for so long gives way to others; one that is so old to those with more partitions.
    pub fetch_sessions_evictable_after: Duration,
    /// A fetch waits for records no longer than this; the client's `max_wait_ms` counts where shorter.
    pub fetch_wait_max: Duration,
    /// A produce is answered by then; the client's `timeout_ms` counts where shorter.
    pub produce_deadline: Duration,
    /// Whether a produce goes to its leader by way of this node.
    pub forward_produce: bool,
    /// Whether a consumer that says where it stands is sent to a replica there (`replica.selector.class`).
    pub rack_aware_fetch: bool,
}

/// How soon the nodes of a cluster miss one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterTimes {
    /// How often a node tells the controller how it is (`broker.heartbeat.interval.ms`).
    pub heartbeat_interval: Duration,
    /// A node that the controller has not heard for so long leads nothing any more (`broker.session.timeout.ms`).
    pub session_timeout: Duration,
}

/// How partitions are kept in sync with those of other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationConfig {
    /// A follower whose disk has not come to where its leader's log ended so long ago leaves the ISR.
    pub lag_max: Duration,
}

/// The rungs of the stall ladder: the age of a disk operation that a commit waits for, at which something is
/// done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StallConfig {
    /// It is logged and counted.
    pub warn_after: Duration,
    /// Nothing new is taken, and what waits is refused.
    pub stalled_after: Duration,
    /// How often the age is looked at while an operation is in flight.
    pub sample: Duration,
    /// The process ends, where other nodes have taken over.
    pub exit_after: Duration,
}

impl Default for Config {
    fn default() -> Config {
        let memory = MemoryShares::of(limits::MEMORY_BYTES, false);
        Config {
            node_id: BrokerId(1),
            data_dir: PathBuf::from("./chronik-data"),
            listen: "127.0.0.1:9092".into(),
            advertise: None,
            cluster: "127.0.0.1:9093".into(),
            peers: PeersConfig::default(),
            cluster_times: ClusterTimes {
                heartbeat_interval: Duration::from_millis(250),
                session_timeout: Duration::from_secs(2),
            },
            rack: None,
            admin: "127.0.0.1:9094".into(),
            disk: DiskChoice::Auto,
            memory_bytes: limits::MEMORY_BYTES,
            journal: JournalConfig {
                profile: Profile::LowLatency,
                file_bytes: limits::JOURNAL_FILE_BYTES,
                max_batch_records: limits::JOURNAL_GROUP_ENTRIES,
                max_batch_bytes: limits::JOURNAL_GROUP_BYTES,
                queue_records: limits::JOURNAL_QUEUE_ENTRIES,
                queue_bytes: limits::JOURNAL_QUEUE_BYTES,
                linger: Duration::ZERO,
                checkpoint_bytes: limits::CHECKPOINT_BYTES,
            },
            metadata: MetadataConfig { snapshot_entries: limits::SNAPSHOT_EVERY_ENTRIES },
            log: LogConfig {
                segment_bytes: 512 << 20,
                segment_age: Duration::from_secs(30 * 60),
                index_interval_bytes: 4096,
                open_files: limits::OPEN_SEGMENT_FILES,
                retention: Some(Duration::from_secs(7 * 86_400)),
                retention_bytes: None,
                file_delete_delay: Duration::from_secs(60),
                retention_check_interval: Duration::from_secs(5 * 60),
                timestamp_type: TimestampType::CreateTime,
                timestamp_before_max: None,
                timestamp_after_max: Some(Duration::from_secs(3_600)),
            },
            cleaner: CleanerConfig::default(),
            topics: TopicConfig {
                auto_create: true,
                partitions: 3,
                partitions_max: limits::PARTITIONS_MAX,
                replication_factor: 3,
                min_insync_replicas: MIN_INSYNC_REPLICAS_UNSET,
                max_batch_bytes: limits::BATCH_BYTES_MAX,
                compression: CompressionType::Producer,
                gzip_level: None,
            },
            groups: GroupsConfig::default(),
            offsets: OffsetsConfig::default(),
            server: ServerConfig {
                worker_threads: 0,
                connections: limits::CONNECTIONS_MAX,
                connections_per_address: limits::CONNECTIONS_PER_ADDRESS_MAX,
                idle_timeout: limits::IDLE_TIMEOUT,
                requests_in_flight: limits::REQUESTS_IN_FLIGHT_MAX,
                request_bytes: limits::REQUEST_BYTES_MAX,
                request_bytes_in_flight: memory.requests,
                waiting_bytes: memory.waiting,
                answer_bytes: memory.answers,
                responses_queued: limits::RESPONSES_QUEUED_MAX,
                fetch_sessions: limits::FETCH_SESSIONS_MAX,
                fetch_session_bytes: memory.fetch_sessions,
                fetch_sessions_evictable_after: limits::FETCH_SESSIONS_EVICTABLE_AFTER,
                fetch_wait_max: limits::FETCH_WAIT_MAX,
                produce_deadline: limits::PRODUCE_DEADLINE,
                forward_produce: false,
                rack_aware_fetch: false,
            },
            replication: ReplicationConfig { lag_max: limits::REPLICATION_LAG_MAX },
            stall: StallConfig {
                warn_after: Duration::from_millis(250),
                stalled_after: Duration::from_secs(1),
                sample: Duration::from_millis(100),
                exit_after: Duration::from_secs(30),
            },
            stated: BTreeMap::new(),
        }
    }
}

/// How the bound of memory is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// What the journal has and segments do not: half.
    pub tails: usize,
    /// Requests that arrive, are worked on, or wait in a partition's mailbox: a quarter.
    pub requests: usize,
    /// Answers that are not written yet: three sixteenths but a quarter of one, or two where there are other nodes.
    pub answers: usize,
    /// What other nodes send, and what waits to be sent to them: one sixteenth where there are some.
    pub peers: usize,
    /// Requests that wait for their turn or for records: three quarters of a sixteenth.
    pub waiting: usize,
    /// What fetch sessions keep: the rest of it.
    pub fetch_sessions: usize,
    /// Batches that are opened before they are appended, until they are: half of a sixteenth, of what answers would have.
    pub opening: usize,
}

/// A group is written as one piece into one file.
fn file_bytes_for_groups(max_batch_bytes: usize) -> usize {
    (max_batch_bytes * 2).next_power_of_two()
}

impl MemoryShares {
    /// Divides `bytes`, of a node that has others beside it or has not.
    pub fn of(bytes: usize, has_peers: bool) -> MemoryShares {
        let sixteenth = bytes / 16;
        let peers = if has_peers { sixteenth } else { 0 };
        MemoryShares {
            tails: 8 * sixteenth,
            requests: 4 * sixteenth,
            answers: 3 * sixteenth - peers - 2 * (sixteenth / 4),
            peers,
            waiting: sixteenth - sixteenth / 4,
            fetch_sessions: sixteenth / 4,
            opening: 2 * (sixteenth / 4),
        }
    }
}

/// What nobody has set is left to the number of replicas.
const MIN_INSYNC_REPLICAS_UNSET: usize = 1;

impl Config {
    /// `min.insync.replicas` for topics of which nothing else says it; `None` where it is left to the number of replicas.
    pub(crate) fn min_insync_replicas(&self) -> Option<usize> {
        let set = self.topics.min_insync_replicas;
        (set != MIN_INSYNC_REPLICAS_UNSET).then_some(set)
    }

    /// Takes over the shares of a bound of memory.
    pub fn apply_memory(&mut self, bytes: usize) {
        let shares = MemoryShares::of(bytes, !self.peers.voters.is_empty());
        self.memory_bytes = bytes;
        self.server.request_bytes_in_flight = shares.requests;
        self.server.waiting_bytes = shares.waiting;
        self.server.answer_bytes = shares.answers;
        self.server.fetch_session_bytes = shares.fetch_sessions;
        self.server.request_bytes = self.server.request_bytes.min(shares.requests / 8 * 7);
        // A start reads whole files of what readers have in memory while the node runs.
        let least = file_bytes_for_groups(self.journal.max_batch_bytes);
        self.journal.file_bytes = self.journal.file_bytes.min((shares.tails / 4).max(least));
    }

    /// Takes over who the nodes of the cluster are, and what they take of the memory.
    pub fn apply_peers(&mut self, voters: Vec<PeerAddress>) {
        self.peers.voters = voters;
        self.server.answer_bytes = self.memory_shares().answers;
    }

    fn memory_shares(&self) -> MemoryShares {
        MemoryShares::of(self.memory_bytes, !self.peers.voters.is_empty())
    }

    /// Bytes of what other nodes send, and of what waits to be sent to them.
    pub fn peer_bytes(&self) -> usize {
        self.memory_shares().peers
    }

    /// What opening batches before they are appended takes, and what they are then.
    pub fn opening_bytes(&self) -> usize {
        self.memory_shares().opening
    }

    /// What other nodes are told to connect to.
    pub fn cluster_advertised(&self) -> &str {
        self.peers.advertised(self.node_id, &self.cluster)
    }

    /// Leaves a share of the descriptors that the process may have to journals, checkpoints and starts, whoever connects
    /// and whatever is read.
    pub fn share_descriptors(&mut self, limit: u64) {
        let share = |of: u64| usize::try_from(limit / of).unwrap_or(usize::MAX).max(1);
        self.log.open_files = self.log.open_files.min(share(limits::OPEN_SEGMENT_FILES_SHARE));
        let connections = share(limits::CONNECTIONS_SHARE);
        if connections < self.server.connections {
            let per_address = self.server.connections_per_address;
            self.apply_connections(connections);
            self.server.connections_per_address = self.server.connections_per_address.min(per_address);
        }
    }

    /// Nobody takes all places from one address.
    pub fn apply_connections(&mut self, connections: usize) {
        self.server.connections = connections;
        self.server.connections_per_address = limits::connections_per_address(connections);
    }

    /// Bytes of all logs' tails: what the journal may hold that is not in segments yet. Records wait above it.
    pub fn tail_bytes_max(&self) -> usize {
        self.memory_shares().tails
    }

    /// Bytes of the appends that wait at one partition: where it stands still, most of the room is the others'.
    pub fn partition_waiting_bytes(&self) -> usize {
        limits::PARTITION_WAITING_BYTES.min(self.server.request_bytes_in_flight / 4)
    }

    /// Takes over the numbers of a profile.
    pub fn apply_profile(&mut self, profile: Profile) {
        let (records, bytes, queue_records, queue_bytes, linger_ms) = match profile {
            Profile::LowLatency => (10_000, 4 << 20, 50_000, 64 << 20, 0),
            Profile::Balanced => (10_000, 50_000_000, 50_000, 128 << 20, 1),
            Profile::Throughput => (20_000, 100_000_000, 100_000, 256 << 20, 5),
        };
        let journal = &mut self.journal;
        journal.profile = profile;
        journal.max_batch_records = records;
        journal.max_batch_bytes = bytes;
        journal.queue_records = queue_records;
        journal.queue_bytes = queue_bytes;
        journal.linger = Duration::from_millis(linger_ms);
        journal.file_bytes = journal.file_bytes.max(file_bytes_for_groups(bytes));
    }

    /// Relations between keys that no single key can check.
    ///
    /// # Errors
    ///
    /// The first relation that does not hold, with the keys to change.
    pub fn check(&self) -> Result<(), String> {
        let journal = &self.journal;
        if journal.max_batch_bytes * 2 > journal.file_bytes {
            return Err(format!(
                "journal.file_bytes ({}) must be at least twice journal.max_batch_bytes ({}): raise the first or lower the second",
                journal.file_bytes, journal.max_batch_bytes
            ));
        }
        if self.topics.max_batch_bytes * 2 > journal.queue_bytes {
            return Err(format!(
                "journal.queue_bytes ({}) must be at least twice topics.max_batch_bytes ({})",
                journal.queue_bytes, self.topics.max_batch_bytes
            ));
        }
        if self.topics.max_batch_bytes * 2 > journal.file_bytes {
            return Err(format!(
                "journal.file_bytes ({}) must be at least twice topics.max_batch_bytes ({}): a batch has to fit into a file",
                journal.file_bytes, self.topics.max_batch_bytes
            ));
        }
        if self.topics.max_batch_bytes > self.server.request_bytes {
            return Err("topics.max_batch_bytes must not be larger than server.request_bytes".into());
        }
        // An eighth of the account is kept for small requests.
        if self.server.request_bytes > self.server.request_bytes_in_flight / 8 * 7 {
            return Err(format!(
                "server.request_bytes ({}) must be at most seven eighths of server.request_bytes_in_flight ({})",
                self.server.request_bytes, self.server.request_bytes_in_flight
            ));
        }
        let advertised = self.advertise.as_ref().unwrap_or(&self.listen);
        if peers::is_wildcard(advertised) {
            let host = advertised.rsplit_once(':').map_or("", |(host, _)| host);
            return Err(format!(
                "clients would be told to connect to {host}, which is no address of a machine: set advertise to a HOST:PORT at which they reach this node"
            ));
        }
        self.peers.check(self.node_id, &self.cluster)?;
        if 2 * self.cluster_times.heartbeat_interval > self.cluster_times.session_timeout {
            return Err(
                "cluster.session_timeout must be at least twice cluster.heartbeat_interval: one lost heartbeat is no silence".into(),
            );
        }
        self.groups.check()?;
        if self.stall.warn_after >= self.stall.stalled_after {
            return Err("stall.warn_after must be shorter than stall.stalled_after".into());
        }
        if self.stall.stalled_after > self.stall.exit_after {
            return Err("stall.exit_after must not be shorter than stall.stalled_after".into());
        }
        Ok(())
    }

    /// The largest batch that any topic may allow: what an entry of the journal takes, where a smaller journal or
    /// request does not bound it first.
    pub fn batch_bytes_largest(&self) -> usize {
        (limits::JOURNAL_ENTRY_BYTES_MAX - 4096)
            .min(self.journal.file_bytes / 2)
            .min(self.journal.queue_bytes / 2)
            .min(self.server.request_bytes)
    }

    /// The numbers of the journal of all partitions.
    pub fn journal_settings(&self) -> JournalSettings {
        JournalSettings {
            file_bytes: self.journal.file_bytes,
            group_entries: self.journal.max_batch_records,
            group_bytes: self.journal.max_batch_bytes,
            queue_entries: self.journal.queue_records,
            queue_bytes: self.journal.queue_bytes,
            linger: self.journal.linger,
            unreleased_bytes_max: (4 * (self.journal.checkpoint_bytes + limits::JOURNAL_RELEASE_STEP_BYTES))
                .min(self.tail_bytes_max() as u64),
        }
    }

    /// Raft's journal takes small groups and never lingers.
    pub fn raft_journal_settings(&self) -> JournalSettings {
        JournalSettings {
            file_bytes: self.journal.file_bytes.min(limits::RAFT_JOURNAL_FILE_BYTES),
            linger: Duration::ZERO,
            // Raft lets go by snapshots of its own.
            unreleased_bytes_max: u64::MAX,
            ..self.journal_settings()
        }
    }
}
