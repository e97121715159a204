//! Every configuration key once: path, what it is, how it is read and shown. The loader, the
//! environment names, `/config` and the suggestion for a mistyped key all come from this table.

use std::time::Duration;

use super::peers::{self, Secret};
use super::values::{bytes, duration, endpoint, number, or_none, shown, shown_or};
use super::{Config, Profile};
use crate::ids::BrokerId;

/// One key. Its default is what [`Config::default`] shows.
pub struct Key {
    /// Its name in the file, with dots: `journal.linger`.
    pub path: &'static str,
    /// What it is, for people: the text of `chronik keys` and of DescribeConfigs.
    pub about: &'static str,
    /// Legal values, for people.
    pub range: &'static str,
    /// Reads a text into the configuration, with all that follows from it; an error says what is wrong with
    /// the text.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
    /// What is in effect, in the text that `set` reads; of a secret only that there is one.
    pub show: fn(&Config) -> String,
    /// Whether its value must not be shown or said, not even where it is wrong.
    pub is_secret: bool,
}

impl Key {
    /// `journal.max_batch_bytes` -> `CHRONIK_JOURNAL_MAX_BATCH_BYTES`.
    pub fn environment(&self) -> String {
        environment_of(self.path)
    }
}

/// The variable that sets a key, under whichever of its names.
pub(super) fn environment_of(name: &str) -> String {
    format!("CHRONIK_{}", name.replace('.', "_").to_uppercase())
}

const DAY: Duration = Duration::from_secs(86_400);
/// The longest time that Kafka's configurations can say.
const MS_MAX: Duration = Duration::from_millis(i64::MAX as u64);
const GIB: u64 = 1 << 30;

macro_rules! key {
    ($path:literal, $about:literal, $range:literal, $set:expr, $show:expr) => {
        Key { path: $path, about: $about, range: $range, set: $set, show: $show, is_secret: false }
    };
}

/// Every key, in the order in which it is shown.
pub const KEYS: &[Key] = &[
    key!(
        "node_id",
        "number of this node in its cluster",
        "0..=2147483647",
        |c, v| {
            c.node_id = BrokerId(number(v, 0, i32::MAX)?);
            Ok(())
        },
        |c| c.node_id.to_string()
    ),
    key!(
        "data_dir",
        "directory of all data; belongs to one process",
        "a path",
        |c, v| {
            c.data_dir = v.into();
            Ok(())
        },
        |c| c.data_dir.display().to_string()
    ),
    key!(
        "listen",
        "where the Kafka protocol is served; port 0 picks a free one",
        "HOST:PORT",
        |c, v| {
            c.listen = endpoint(v)?;
            Ok(())
        },
        |c| c.listen.clone()
    ),
    key!(
        "advertise",
        "what clients are told to connect to; empty: the listening address",
        "HOST:PORT or empty",
        |c, v| {
            c.advertise = if v.is_empty() { None } else { Some(endpoint(v)?) };
            Ok(())
        },
        |c| c.advertise.clone().unwrap_or_default()
    ),
    key!(
        "cluster",
        "where other nodes connect to",
        "HOST:PORT",
        |c, v| {
            c.cluster = endpoint(v)?;
            Ok(())
        },
        |c| c.cluster.clone()
    ),
    key!(
        "cluster.advertise",
        "what other nodes are told to connect to; empty: what cluster.peers says of this node, or the address it listens on",
        "HOST:PORT or empty",
        |c, v| {
            c.peers.advertise = if v.is_empty() { None } else { Some(endpoint(v)?) };
            Ok(())
        },
        |c| c.peers.advertise.clone().unwrap_or_default()
    ),
    key!(
        "cluster.peers",
        "all nodes of the cluster with the addresses of their cluster listeners; empty: this node is alone, and nobody listens at cluster",
        "ID@HOST:PORT, with commas between them, or empty",
        |c, v| {
            let voters = peers::voters(v)?;
            c.apply_peers(voters);
            Ok(())
        },
        |c| c.peers.voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    ),
    Key {
        path: "cluster.secret",
        about: "what the nodes of a cluster share and prove to one another; without one they are reached on the loopback address only. Better in a file: cluster.secret_file",
        range: "16 to 1024 characters, or empty",
        set: |c, v| {
            c.peers.secret = if v.is_empty() { None } else { Some(Secret::new(v)?) };
            Ok(())
        },
        show: |c| peers::hidden(c.peers.secret.as_ref()),
        is_secret: true,
    },
    key!(
        "cluster.secret_file",
        "a file that holds the cluster's secret, read at the start",
        "a path or empty",
        |c, v| {
            c.peers.secret_file = if v.is_empty() { None } else { Some(v.into()) };
            Ok(())
        },
        |c| c.peers.secret_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    ),
    key!(
        "cluster.heartbeat_interval",
        "how often a node tells the controller how it is",
        "10ms..=1m",
        |c, v| {
            c.cluster_times.heartbeat_interval =
                duration(v, Duration::from_millis(10), Duration::from_secs(60))?;
            Ok(())
        },
        |c| shown(c.cluster_times.heartbeat_interval)
    ),
    key!(
        "cluster.session_timeout",
        "a node that the controller has not heard for so long leads nothing any more; one at whose address nobody listens, after two heartbeats",
        "100ms..=10m",
        |c, v| {
            c.cluster_times.session_timeout =
                duration(v, Duration::from_millis(100), Duration::from_secs(600))?;
            Ok(())
        },
        |c| shown(c.cluster_times.session_timeout)
    ),
    key!(
        "rack",
        "where the node stands: replicas of a partition are spread over racks; empty: not said",
        "a name or empty",
        |c, v| {
            c.rack = if v.is_empty() { None } else { Some(v.to_owned()) };
            Ok(())
        },
        |c| c.rack.clone().unwrap_or_default()
    ),
    key!(
        "admin",
        "where metrics, health and stalls are served over HTTP",
        "HOST:PORT",
        |c, v| {
            c.admin = endpoint(v)?;
            Ok(())
        },
        |c| c.admin.clone()
    ),
    key!(
        "disk",
        "how the disk is driven; auto measures both and takes the faster",
        "auto, uring, threads",
        |c, v| {
            c.disk = v.parse()?;
            Ok(())
        },
        |c| c.disk.to_string()
    ),
    key!(
        "memory.bytes",
        "bound of all that grows with load: half for the log's tails, a quarter for requests, the rest for answers and what waits; the keys of the parts below override it",
        "64 MiB..=1 TiB",
        |c, v| {
            let least = crate::limits::MEMORY_BYTES_MIN as u64;
            c.apply_memory(bytes(v, least, 1024 * GIB)? as usize);
            Ok(())
        },
        |c| c.memory_bytes.to_string()
    ),
    key!(
        "journal.profile",
        "preset of the journal numbers below, which override it",
        "low-latency, balanced, throughput",
        |c, v| {
            let profile = v.parse()?;
            c.apply_profile(profile);
            Ok(())
        },
        |c| c.journal.profile.name().into()
    ),
    key!(
        "journal.file_bytes",
        "size of a journal file; two are prefilled at the first start",
        "1 MiB..=4 GiB",
        |c, v| {
            c.journal.file_bytes = bytes(v, 1 << 20, 4 * GIB)? as usize;
            Ok(())
        },
        |c| c.journal.file_bytes.to_string()
    ),
    key!(
        "journal.max_batch_records",
        "entries of one commit group at most",
        "1..=1000000",
        |c, v| {
            c.journal.max_batch_records = number(v, 1, 1_000_000)?;
            Ok(())
        },
        |c| c.journal.max_batch_records.to_string()
    ),
    key!(
        "journal.max_batch_bytes",
        "bytes of one commit group at most",
        "64 KiB..=1 GiB",
        |c, v| {
            c.journal.max_batch_bytes = bytes(v, 64 << 10, GIB)? as usize;
            Ok(())
        },
        |c| c.journal.max_batch_bytes.to_string()
    ),
    key!(
        "journal.queue_records",
        "entries that wait for a commit at most",
        "1..=10000000",
        |c, v| {
            c.journal.queue_records = number(v, 1, 10_000_000)?;
            Ok(())
        },
        |c| c.journal.queue_records.to_string()
    ),
    key!(
        "journal.queue_bytes",
        "bytes that wait for a commit at most",
        "1 MiB..=16 GiB",
        |c, v| {
            c.journal.queue_bytes = bytes(v, 1 << 20, 16 * GIB)? as usize;
            Ok(())
        },
        |c| c.journal.queue_bytes.to_string()
    ),
    key!(
        "journal.linger",
        "how long a commit waits for company; costs latency, gains throughput",
        "0ms..=1s",
        |c, v| {
            c.journal.linger = duration(v, Duration::ZERO, Duration::from_secs(1))?;
            Ok(())
        },
        |c| shown(c.journal.linger)
    ),
    key!(
        "journal.checkpoint_bytes",
        "journal written since the last checkpoint that starts the next one",
        "1 MiB..=64 GiB",
        |c, v| {
            c.journal.checkpoint_bytes = bytes(v, 1 << 20, 64 * GIB)?;
            Ok(())
        },
        |c| c.journal.checkpoint_bytes.to_string()
    ),
    key!(
        "metadata.snapshot_entries",
        "entries of the metadata's Raft log after which a snapshot is taken, however small they are",
        "1..=1000000",
        |c, v| {
            c.metadata.snapshot_entries = number(v, 1, 1_000_000)?;
            Ok(())
        },
        |c| c.metadata.snapshot_entries.to_string()
    ),
    key!(
        "log.segment_bytes",
        "size at which a new segment begins",
        "64 KiB..=2 GiB",
        |c, v| {
            c.log.segment_bytes = bytes(v, 64 << 10, 2 * GIB)?;
            Ok(())
        },
        |c| c.log.segment_bytes.to_string()
    ),
    key!(
        "log.segment_age",
        "age at which a new segment begins",
        "1s..=365d",
        |c, v| {
            c.log.segment_age = duration(v, Duration::from_secs(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.log.segment_age)
    ),
    key!(
        "log.index_interval_bytes",
        "bytes of log between two index entries",
        "256 B..=1 MiB",
        |c, v| {
            c.log.index_interval_bytes = bytes(v, 256, 1 << 20)? as usize;
            Ok(())
        },
        |c| c.log.index_interval_bytes.to_string()
    ),
    key!(
        "log.open_files",
        "segment files that stay open for readers, in the whole node; never more than a quarter of the process's descriptors",
        "1..=1000000",
        |c, v| {
            c.log.open_files = number(v, 1, 1_000_000)?;
            Ok(())
        },
        |c| c.log.open_files.to_string()
    ),
    key!(
        "log.retention",
        "how long records are kept at least, where a topic does not say",
        "1ms..=9223372036854775807ms, or forever (-1)",
        |c, v| {
            c.log.retention = or_none(v, "forever", |v| duration(v, Duration::from_millis(1), MS_MAX))?;
            Ok(())
        },
        |c| shown_or(c.log.retention.map(shown), "forever")
    ),
    key!(
        "log.retention_bytes",
        "most bytes kept of a partition, where its topic does not say",
        "0..=8 EiB, or unlimited (-1)",
        |c, v| {
            c.log.retention_bytes = or_none(v, "unlimited", |v| bytes(v, 0, i64::MAX as u64))?;
            Ok(())
        },
        |c| shown_or(c.log.retention_bytes, "unlimited")
    ),
    key!(
        "log.file_delete_delay",
        "how long the files of a segment outlive it, where a topic does not say",
        "0ms..=365d",
        |c, v| {
            c.log.file_delete_delay = duration(v, Duration::ZERO, 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.log.file_delete_delay)
    ),
    key!(
        "log.retention_check_interval",
        "how often it is looked for segments that may go",
        "1ms..=365d",
        |c, v| {
            c.log.retention_check_interval = duration(v, Duration::from_millis(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.log.retention_check_interval)
    ),
    key!(
        "log.timestamp_type",
        "whose time a record carries, its producer's or the broker's, where a topic does not say",
        "CreateTime, LogAppendTime",
        |c, v| {
            c.log.timestamp_type = v.parse()?;
            Ok(())
        },
        |c| c.log.timestamp_type.name().into()
    ),
    key!(
        "log.timestamp_before_max",
        "how far a producer's time may lie behind the broker's clock, where a topic does not say",
        "0ms..=9223372036854775807ms, or unlimited (-1)",
        |c, v| {
            c.log.timestamp_before_max = or_none(v, "unlimited", |v| duration(v, Duration::ZERO, MS_MAX))?;
            Ok(())
        },
        |c| shown_or(c.log.timestamp_before_max.map(shown), "unlimited")
    ),
    key!(
        "log.timestamp_after_max",
        "how far a producer's time may lie ahead of the broker's clock, where a topic does not say",
        "0ms..=9223372036854775807ms, or unlimited (-1)",
        |c, v| {
            c.log.timestamp_after_max = or_none(v, "unlimited", |v| duration(v, Duration::ZERO, MS_MAX))?;
            Ok(())
        },
        |c| shown_or(c.log.timestamp_after_max.map(shown), "unlimited")
    ),
    key!(
        "topics.auto_create",
        "whether asking for an unknown topic creates it",
        "true, false",
        |c, v| {
            c.topics.auto_create = v.parse().map_err(|_| "neither true nor false".to_string())?;
            Ok(())
        },
        |c| c.topics.auto_create.to_string()
    ),
    key!(
        "topics.partitions",
        "partitions of a topic that does not say",
        "1..=10000",
        |c, v| {
            c.topics.partitions = number(v, 1, 10_000)?;
            Ok(())
        },
        |c| c.topics.partitions.to_string()
    ),
    key!(
        "topics.partitions_max",
        "partitions of all topics at most; above it none is created",
        "1..=1000000",
        |c, v| {
            c.topics.partitions_max = number(v, 1, 1_000_000)?;
            Ok(())
        },
        |c| c.topics.partitions_max.to_string()
    ),
    key!(
        "topics.replication_factor",
        "replicas of a topic that does not say; where there are fewer brokers, as many as there are",
        "1..=32",
        |c, v| {
            c.topics.replication_factor = number(v, 1, 32)?;
            Ok(())
        },
        |c| c.topics.replication_factor.to_string()
    ),
    key!(
        "topics.min_insync_replicas",
        "replicas in sync without which acks=all is refused, where a topic does not say; counts as at most the replication factor, and at 1 as two where there are three replicas or more",
        "1..=32",
        |c, v| {
            c.topics.min_insync_replicas = number(v, 1, 32)?;
            Ok(())
        },
        |c| c.topics.min_insync_replicas.to_string()
    ),
    key!(
        "topics.max_batch_bytes",
        "largest record batch (max.message.bytes), where a topic does not say",
        "1 KiB..=7 MiB",
        |c, v| {
            c.topics.max_batch_bytes = bytes(v, 1 << 10, 7 << 20)? as usize;
            Ok(())
        },
        |c| c.topics.max_batch_bytes.to_string()
    ),
    key!(
        "server.worker_threads",
        "threads that work on requests, beside those of the disk; 0: one for each core. Less where several nodes share a machine",
        "0..=1024",
        |c, v| {
            c.server.worker_threads = number(v, 0, 1_024)?;
            Ok(())
        },
        |c| c.server.worker_threads.to_string()
    ),
    key!(
        "server.connections",
        "client connections at most; never more than half of the process's descriptors; from one address three quarters, unless the next key says otherwise",
        "1..=1000000",
        |c, v| {
            c.apply_connections(number(v, 1, 1_000_000)?);
            Ok(())
        },
        |c| c.server.connections.to_string()
    ),
    key!(
        "server.connections_per_address",
        "client connections from one address at most; above it the one that is idle for the longest gives way",
        "1..=1000000",
        |c, v| {
            c.server.connections_per_address = number(v, 1, 1_000_000)?;
            Ok(())
        },
        |c| c.server.connections_per_address.to_string()
    ),
    key!(
        "server.idle_timeout",
        "a connection without a request for so long is closed",
        "1s..=365d",
        |c, v| {
            c.server.idle_timeout = duration(v, Duration::from_secs(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.server.idle_timeout)
    ),
    key!(
        "server.requests_in_flight",
        "requests being worked on at most",
        "1..=1000000",
        |c, v| {
            c.server.requests_in_flight = number(v, 1, 1_000_000)?;
            Ok(())
        },
        |c| c.server.requests_in_flight.to_string()
    ),
    key!(
        "server.request_bytes",
        "largest request",
        "64 KiB..=1 GiB",
        |c, v| {
            c.server.request_bytes = bytes(v, 64 << 10, GIB)? as usize;
            Ok(())
        },
        |c| c.server.request_bytes.to_string()
    ),
    key!(
        "server.request_bytes_in_flight",
        "bytes of requests being worked on at most",
        "1 MiB..=64 GiB",
        |c, v| {
            c.server.request_bytes_in_flight = bytes(v, 1 << 20, 64 * GIB)? as usize;
            Ok(())
        },
        |c| c.server.request_bytes_in_flight.to_string()
    ),
    key!(
        "server.waiting_bytes",
        "bytes of requests that wait for their turn or for records at most; above it fetches are answered at once",
        "256 KiB..=64 GiB",
        |c, v| {
            c.server.waiting_bytes = bytes(v, 256 << 10, 64 * GIB)? as usize;
            Ok(())
        },
        |c| c.server.waiting_bytes.to_string()
    ),
    key!(
        "server.answer_bytes",
        "bytes of answers that are not written yet at most",
        "1 MiB..=64 GiB",
        |c, v| {
            c.server.answer_bytes = bytes(v, 1 << 20, 64 * GIB)? as usize;
            Ok(())
        },
        |c| c.server.answer_bytes.to_string()
    ),
    key!(
        "server.responses_queued",
        "responses queued behind a slow reader before its requests wait",
        "1..=10000",
        |c, v| {
            c.server.responses_queued = number(v, 1, 10_000)?;
            Ok(())
        },
        |c| c.server.responses_queued.to_string()
    ),
    key!(
        "server.fetch_wait_max",
        "a fetch waits for records no longer than this; the client's own time counts where shorter",
        "0ms..=1h",
        |c, v| {
            c.server.fetch_wait_max = duration(v, Duration::ZERO, Duration::from_secs(3_600))?;
            Ok(())
        },
        |c| shown(c.server.fetch_wait_max)
    ),
    key!(
        "server.produce_deadline",
        "a produce is answered by then; the client's own time-out counts where shorter",
        "100ms..=10m",
        |c, v| {
            c.server.produce_deadline = duration(v, Duration::from_millis(100), Duration::from_secs(600))?;
            Ok(())
        },
        |c| shown(c.server.produce_deadline)
    ),
    key!(
        "server.forward_produce",
        "a produce for a partition that another node leads is forwarded to it, for clients that reach this node only; otherwise its client is told who leads",
        "true, false",
        |c, v| {
            c.server.forward_produce = v.parse().map_err(|_| "neither true nor false".to_string())?;
            Ok(())
        },
        |c| c.server.forward_produce.to_string()
    ),
    key!(
        "server.rack_aware_fetch",
        "a consumer that says in which rack it stands (client.rack) is sent to a replica in sync there; followers serve it either way",
        "true, false",
        |c, v| {
            c.server.rack_aware_fetch = v.parse().map_err(|_| "neither true nor false".to_string())?;
            Ok(())
        },
        |c| c.server.rack_aware_fetch.to_string()
    ),
    key!(
        "replication.lag_max",
        "a follower whose disk has not come to where its leader's log ended so long ago leaves the in-sync replicas",
        "400ms..=10m",
        |c, v| {
            c.replication.lag_max = duration(v, Duration::from_millis(400), Duration::from_secs(600))?;
            Ok(())
        },
        |c| shown(c.replication.lag_max)
    ),
    key!(
        "stall.warn_after",
        "age of a disk operation that is logged",
        "10ms..=10m",
        |c, v| {
            c.stall.warn_after = duration(v, Duration::from_millis(10), Duration::from_secs(600))?;
            Ok(())
        },
        |c| shown(c.stall.warn_after)
    ),
    key!(
        "stall.stalled_after",
        "age of a disk operation at which nothing new is taken",
        "50ms..=10m",
        |c, v| {
            c.stall.stalled_after = duration(v, Duration::from_millis(50), Duration::from_secs(600))?;
            Ok(())
        },
        |c| shown(c.stall.stalled_after)
    ),
    key!(
        "stall.sample",
        "how often the age is looked at while an operation is in flight",
        "5ms..=1s",
        |c, v| {
            c.stall.sample = duration(v, Duration::from_millis(5), Duration::from_secs(1))?;
            Ok(())
        },
        |c| shown(c.stall.sample)
    ),
    key!(
        "stall.exit_after",
        "age of a disk operation at which the process ends (exit status 6), where other nodes lead all that it led; a node that is alone never does",
        "1s..=365d",
        |c, v| {
            c.stall.exit_after = duration(v, Duration::from_secs(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.stall.exit_after)
    ),
];

impl std::str::FromStr for Profile {
    type Err = String;
    fn from_str(text: &str) -> Result<Profile, String> {
        [Profile::LowLatency, Profile::Balanced, Profile::Throughput]
            .into_iter()
            .find(|profile| profile.name() == text)
            .ok_or_else(|| format!("unknown profile '{text}'"))
    }
}

impl Profile {
    /// The word that the key `journal.profile` has for it.
    pub fn name(self) -> &'static str {
        match self {
            Profile::LowLatency => "low-latency",
            Profile::Balanced => "balanced",
            Profile::Throughput => "throughput",
        }
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
