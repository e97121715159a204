//! The configuration of a node: TOML, environment, command line; every key with unit, default and range.

use std::path::PathBuf;
use std::time::Duration;

use crate::ids::BrokerId;
use crate::journal::JournalSettings;
use crate::limits;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub node_id: BrokerId,
    pub data_dir: PathBuf,
    /// Where the Kafka protocol is served, `HOST:PORT`.
    pub listen: String,
    /// What clients are told to connect to; the listening address where absent.
    pub advertise: Option<String>,
    pub cluster: String,
    pub admin: String,
    pub journal: JournalConfig,
    pub log: LogConfig,
    pub topics: TopicConfig,
    pub server: ServerConfig,
    pub stall: StallConfig,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    pub file_bytes: usize,
    pub max_batch_records: usize,
    pub max_batch_bytes: usize,
    pub queue_records: usize,
    pub queue_bytes: usize,
    pub linger: Duration,
    /// A checkpoint begins when more than this has been written since the last.
    pub checkpoint_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub segment_bytes: u64,
    pub segment_age: Duration,
    /// Bytes between two entries of an offset index.
    pub index_interval_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    pub auto_create: bool,
    pub partitions: i32,
    pub replication_factor: i16,
    pub max_batch_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    pub connections: usize,
    pub requests_in_flight: usize,
    pub request_bytes: usize,
    pub request_bytes_in_flight: usize,
    pub responses_queued: usize,
    pub produce_deadline: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StallConfig {
    pub warn_after: Duration,
    pub stalled_after: Duration,
    /// Only where a peer has taken over.
    pub exit_after: Duration,
    pub sample: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            node_id: BrokerId(1),
            data_dir: PathBuf::from("./chronik-data"),
            listen: "127.0.0.1:9092".into(),
            advertise: None,
            cluster: "127.0.0.1:9093".into(),
            admin: "127.0.0.1:9094".into(),
            journal: JournalConfig {
                file_bytes: limits::JOURNAL_FILE_BYTES,
                max_batch_records: limits::JOURNAL_GROUP_ENTRIES,
                max_batch_bytes: limits::JOURNAL_GROUP_BYTES,
                queue_records: limits::JOURNAL_QUEUE_ENTRIES,
                queue_bytes: limits::JOURNAL_QUEUE_BYTES,
                linger: Duration::ZERO,
                checkpoint_bytes: 128 << 20,
            },
            log: LogConfig {
                segment_bytes: 512 << 20,
                segment_age: Duration::from_secs(30 * 60),
                index_interval_bytes: 4096,
            },
            topics: TopicConfig {
                auto_create: true,
                partitions: 3,
                replication_factor: 1,
                max_batch_bytes: limits::BATCH_BYTES_MAX,
            },
            server: ServerConfig {
                connections: limits::CONNECTIONS_MAX,
                requests_in_flight: limits::REQUESTS_IN_FLIGHT_MAX,
                request_bytes: limits::REQUEST_BYTES_MAX,
                request_bytes_in_flight: limits::REQUEST_BYTES_IN_FLIGHT_MAX,
                responses_queued: limits::RESPONSES_QUEUED_MAX,
                produce_deadline: limits::PRODUCE_DEADLINE,
            },
            stall: StallConfig {
                warn_after: Duration::from_millis(250),
                stalled_after: Duration::from_secs(1),
                exit_after: Duration::from_secs(30),
                sample: Duration::from_millis(100),
            },
        }
    }
}

impl Config {
    pub fn journal_settings(&self) -> JournalSettings {
        JournalSettings {
            file_bytes: self.journal.file_bytes,
            group_entries: self.journal.max_batch_records,
            group_bytes: self.journal.max_batch_bytes,
            queue_entries: self.journal.queue_records,
            queue_bytes: self.journal.queue_bytes,
            linger: self.journal.linger,
        }
    }

    /// Raft's journal takes small groups and never lingers.
    pub fn raft_journal_settings(&self) -> JournalSettings {
        JournalSettings {
            file_bytes: self.journal.file_bytes.min(limits::RAFT_JOURNAL_FILE_BYTES),
            linger: Duration::ZERO,
            ..self.journal_settings()
        }
    }
}
