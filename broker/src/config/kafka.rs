//! Kafka's names of a broker's configurations: which of them name a key of ours, which may only have the value that
//! holds here anyway, and why the others cannot be set.
//!
//! Every name that Apache Kafka 4.3 knows is in one of the three, so none is silently ignored. Types and modes are
//! Kafka's: what may be changed while a broker runs, there as here, is `ClusterWide` or `PerBroker`.

use std::time::Duration;

use super::kafka_refused::REFUSED;
use super::keys::{KEYS, Key};
use super::values;
use super::{Config, SetError};

/// The type of a value, as Kafka names and checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, in letters of any size.
    Boolean,
    /// Kafka's `STRING`.
    Text,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    Long,
    /// A number with a fraction.
    Double,
    /// Texts with commas between them.
    List,
}

/// Whether and how a configuration may be changed while brokers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only before a broker starts.
    ReadOnly,
    /// For one broker at a time only.
    PerBroker,
    /// For one or for all.
    ClusterWide,
}

/// How Kafka's text of a value becomes the text of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Both have the same text.
    Same,
    /// A number of bytes.
    Bytes,
    /// -1: no bound.
    BytesOrUnlimited,
    /// Milliseconds.
    Millis,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
    /// Below zero: for ever.
    MillisOrForever,
    /// Minutes; below zero: for ever.
    MinutesOrForever,
    /// Hours; below zero: for ever.
    HoursOrForever,
    /// The largest number: no bound.
    MillisOrUnlimited,
    /// One listener, without encryption.
    Listener,
    /// One of them.
    Directory,
    /// One of the two classes that Kafka comes with.
    ReplicaSelector,
}

/// What one of Kafka's names comes to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Another name of one of our keys.
    Key {
        /// The key, as in [`Key::path`].
        path: &'static str,
        /// How its text is read and shown under Kafka's name.
        unit: Unit,
    },
    /// Holds as it is; other values are refused with the reason.
    Fixed {
        /// The one value, in Kafka's text.
        value: &'static str,
        /// The reason that there is no other, in words.
        why: &'static str,
    },
}

/// One of Kafka's names that means something here.
#[derive(Clone, Copy, Debug)]
pub struct KafkaName {
    /// Kafka's name of it, `log.retention.ms`.
    pub name: &'static str,
    /// The type that Kafka gives it.
    pub kind: Kind,
    /// Whether Kafka lets it be changed while brokers run, and so do we.
    pub mode: Mode,
    /// What it comes to here.
    pub meaning: Meaning,
}

const fn key(name: &'static str, kind: Kind, mode: Mode, path: &'static str, unit: Unit) -> KafkaName {
    KafkaName { name, kind, mode, meaning: Meaning::Key { path, unit } }
}

const fn fixed(
    name: &'static str,
    kind: Kind,
    mode: Mode,
    value: &'static str,
    why: &'static str,
) -> KafkaName {
    KafkaName { name, kind, mode, meaning: Meaning::Fixed { value, why } }
}

use Kind::{Boolean, Double, Int, List, Long, Text};
use Mode::{ClusterWide, PerBroker, ReadOnly};
use Unit::{
    Bytes, BytesOrUnlimited, Directory, Hours, HoursOrForever, Listener, Millis, MillisOrForever,
    MillisOrUnlimited, Minutes, MinutesOrForever, ReplicaSelector, Same,
};

// Why some may have one value only.
/// Said of lz4 and zstd, for topics as well.
pub(crate) const ONE_LEVEL: &str = "the broker compresses with lz4 and zstd at one level, their fastest";
const NO_TIERED_STORAGE: &str = "there is no tiered storage";
/// A replica never gives up what it knows to be committed.
pub(crate) const UNCLEAN_ON_REQUEST: &str = "no replica that misses acknowledged records leads by itself: where all others are lost, ask for it with ElectLeaders \
     (kafka-leader-election.sh --election-type unclean)";

const LEADER_SELECTOR: &str = "org.apache.kafka.common.replica.LeaderSelector";
const RACK_AWARE_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// In order of their names.
pub const KAFKA_NAMES: &[KafkaName] = &[
    key("advertised.listeners", List, ReadOnly, "advertise", Listener),
    key("auto.create.topics.enable", Boolean, ReadOnly, "topics.auto_create", Same),
    fixed(
        "auto.leader.rebalance.enable",
        Boolean,
        ReadOnly,
        "true",
        "leaders go back to the first of their replicas",
    ),
    key("broker.heartbeat.interval.ms", Int, ReadOnly, "cluster.heartbeat_interval", Millis),
    key("broker.id", Int, ReadOnly, "node_id", Same),
    key("broker.rack", Text, ReadOnly, "rack", Same),
    key("broker.session.timeout.ms", Int, ReadOnly, "cluster.session_timeout", Millis),
    key("compression.gzip.level", Int, ClusterWide, "topics.gzip_level", Same),
    fixed("compression.lz4.level", Int, ClusterWide, "9", ONE_LEVEL),
    key("compression.type", Text, ClusterWide, "topics.compression", Same),
    fixed("compression.zstd.level", Int, ClusterWide, "3", ONE_LEVEL),
    key("connections.max.idle.ms", Long, ReadOnly, "server.idle_timeout", Millis),
    fixed(
        "controlled.shutdown.enable",
        Boolean,
        ReadOnly,
        "true",
        "a node hands over what it leads before it stops",
    ),
    key("controller.quorum.voters", List, ReadOnly, "cluster.peers", Same),
    key("default.replication.factor", Int, ReadOnly, "topics.replication_factor", Same),
    fixed("delete.topic.enable", Boolean, ReadOnly, "true", "topics can always be deleted"),
    fixed("fetch.max.bytes", Int, ReadOnly, "57671680", "the largest answer to a fetch is fixed"),
    fixed(
        "group.consumer.assignors",
        List,
        ReadOnly,
        "uniform,range",
        "there are two, and members say which",
    ),
    key("group.consumer.heartbeat.interval.ms", Int, ReadOnly, "groups.consumer_heartbeat_interval", Millis),
    key(
        "group.consumer.max.heartbeat.interval.ms",
        Int,
        ReadOnly,
        "groups.consumer_heartbeat_interval_max",
        Millis,
    ),
    key(
        "group.consumer.max.session.timeout.ms",
        Int,
        ReadOnly,
        "groups.consumer_session_timeout_max",
        Millis,
    ),
    key("group.consumer.max.size", Int, ReadOnly, "groups.consumer_members_max", Same),
    key("group.consumer.migration.policy", Text, ReadOnly, "groups.consumer_migration", Same),
    key(
        "group.consumer.min.heartbeat.interval.ms",
        Int,
        ReadOnly,
        "groups.consumer_heartbeat_interval_min",
        Millis,
    ),
    key(
        "group.consumer.min.session.timeout.ms",
        Int,
        ReadOnly,
        "groups.consumer_session_timeout_min",
        Millis,
    ),
    key("group.consumer.session.timeout.ms", Int, ReadOnly, "groups.consumer_session_timeout", Millis),
    key("group.initial.rebalance.delay.ms", Int, ReadOnly, "groups.initial_rebalance_delay", Millis),
    key("group.max.session.timeout.ms", Int, ReadOnly, "groups.session_timeout_max", Millis),
    key("group.max.size", Int, ReadOnly, "groups.members_max", Same),
    key("group.min.session.timeout.ms", Int, ReadOnly, "groups.session_timeout_min", Millis),
    fixed(
        "leader.imbalance.check.interval.seconds",
        Long,
        ReadOnly,
        "300",
        "how often leaders go back is fixed",
    ),
    key("listeners", List, PerBroker, "listen", Listener),
    key("log.cleaner.delete.retention.ms", Long, ClusterWide, "cleaner.delete_retention", Millis),
    key("log.cleaner.max.compaction.lag.ms", Long, ClusterWide, "cleaner.max_lag", MillisOrUnlimited),
    key("log.cleaner.min.cleanable.ratio", Double, ClusterWide, "cleaner.min_dirty_ratio", Same),
    key("log.cleaner.min.compaction.lag.ms", Long, ClusterWide, "cleaner.min_lag", Millis),
    key("log.cleanup.policy", List, ClusterWide, "cleaner.policy", Same),
    key("log.dir", List, ReadOnly, "data_dir", Directory),
    key("log.dirs", List, ReadOnly, "data_dir", Directory),
    fixed(
        "log.flush.interval.messages",
        Long,
        ClusterWide,
        "9223372036854775807",
        "every record is synced before it is acknowledged",
    ),
    key("log.index.interval.bytes", Int, ClusterWide, "log.index_interval_bytes", Bytes),
    fixed("log.index.size.max.bytes", Int, ClusterWide, "10485760", "indexes grow as needed"),
    fixed("log.local.retention.bytes", Long, ClusterWide, "-2", NO_TIERED_STORAGE),
    fixed("log.local.retention.ms", Long, ClusterWide, "-2", NO_TIERED_STORAGE),
    key(
        "log.message.timestamp.after.max.ms",
        Long,
        ClusterWide,
        "log.timestamp_after_max",
        MillisOrUnlimited,
    ),
    key(
        "log.message.timestamp.before.max.ms",
        Long,
        ClusterWide,
        "log.timestamp_before_max",
        MillisOrUnlimited,
    ),
    key("log.message.timestamp.type", Text, ClusterWide, "log.timestamp_type", Same),
    fixed("log.preallocate", Boolean, ClusterWide, "false", "the journal is preallocated, segments are not"),
    key("log.retention.bytes", Long, ClusterWide, "log.retention_bytes", BytesOrUnlimited),
    key("log.retention.check.interval.ms", Long, ReadOnly, "log.retention_check_interval", Millis),
    key("log.retention.hours", Int, ReadOnly, "log.retention", HoursOrForever),
    key("log.retention.minutes", Int, ReadOnly, "log.retention", MinutesOrForever),
    key("log.retention.ms", Long, ClusterWide, "log.retention", MillisOrForever),
    key("log.roll.hours", Int, ReadOnly, "log.segment_age", Hours),
    fixed(
        "log.roll.jitter.hours",
        Int,
        ReadOnly,
        "0",
        "segments of several partitions are begun without jitter",
    ),
    key("log.roll.ms", Long, ClusterWide, "log.segment_age", Millis),
    key("log.segment.bytes", Int, ClusterWide, "log.segment_bytes", Bytes),
    key("log.segment.delete.delay.ms", Long, ClusterWide, "log.file_delete_delay", Millis),
    key("max.connections", Int, ClusterWide, "server.connections", Same),
    key("max.connections.per.ip", Int, ClusterWide, "server.connections_per_address", Same),
    key("max.incremental.fetch.session.cache.slots", Int, ReadOnly, "server.fetch_sessions", Same),
    key("message.max.bytes", Int, ClusterWide, "topics.max_batch_bytes", Bytes),
    key("min.insync.replicas", Int, ClusterWide, "topics.min_insync_replicas", Same),
    key("node.id", Int, ReadOnly, "node_id", Same),
    key("num.partitions", Int, ReadOnly, "topics.partitions", Same),
    key("offset.metadata.max.bytes", Int, ReadOnly, "offsets.metadata_bytes_max", Bytes),
    key("offsets.commit.timeout.ms", Int, ReadOnly, "offsets.commit_timeout", Millis),
    key("offsets.retention.check.interval.ms", Long, ReadOnly, "offsets.retention_check_interval", Millis),
    key("offsets.retention.minutes", Int, ReadOnly, "offsets.retention", Minutes),
    fixed(
        "offsets.topic.compression.codec",
        Int,
        ReadOnly,
        "0",
        "records of groups are small, and not compressed",
    ),
    key("offsets.topic.num.partitions", Int, ReadOnly, "offsets.partitions", Same),
    key("offsets.topic.replication.factor", Int, ReadOnly, "offsets.replication_factor", Same),
    key("offsets.topic.segment.bytes", Int, ReadOnly, "offsets.segment_bytes", Bytes),
    fixed(
        "producer.id.expiration.ms",
        Int,
        ClusterWide,
        "86400000",
        "how long idle producers are remembered is fixed",
    ),
    key("queued.max.request.bytes", Long, ReadOnly, "server.request_bytes_in_flight", Bytes),
    key("queued.max.requests", Int, ReadOnly, "server.requests_in_flight", Same),
    key("replica.lag.time.max.ms", Long, ReadOnly, "replication.lag_max", Millis),
    key("replica.selector.class", Text, ReadOnly, "server.rack_aware_fetch", ReplicaSelector),
    key("socket.request.max.bytes", Int, ReadOnly, "server.request_bytes", Bytes),
    fixed("unclean.leader.election.enable", Boolean, ClusterWide, "false", UNCLEAN_ON_REQUEST),
];

/// The name, where it means something here.
pub fn find(name: &str) -> Option<&'static KafkaName> {
    let at = KAFKA_NAMES.binary_search_by(|known| known.name.cmp(name)).ok()?;
    Some(&KAFKA_NAMES[at])
}

/// Why a name that Kafka knows cannot be set here.
pub fn refusal(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(_, names)| names.split_whitespace().any(|known| known == name)).map(|(why, _)| *why)
}

/// Reasons why names cannot be set, each with those.
pub fn refused() -> impl Iterator<Item = (&'static str, std::str::SplitWhitespace<'static>)> {
    REFUSED.iter().map(|(why, names)| (*why, names.split_whitespace()))
}

/// All names that Kafka knows.
pub fn all_names() -> impl Iterator<Item = &'static str> {
    let refused = REFUSED.iter().flat_map(|(_, names)| names.split_whitespace());
    KAFKA_NAMES.iter().map(|known| known.name).chain(refused)
}

/// Kafka's names of one quantity in several units, the finest first, which there is the one that topics follow.
const ALTERNATIVES: [&[&str]; 2] = [
    &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
    &["log.roll.ms", "log.roll.hours"],
];

impl KafkaName {
    /// Under which names a value of this one may be set, in Kafka's order.
    pub fn alternatives(&self) -> &[&'static str] {
        let own = std::slice::from_ref(&self.name);
        ALTERNATIVES.into_iter().find(|names| names.contains(&self.name)).unwrap_or(own)
    }

    /// The key of ours.
    pub fn key(&self) -> Option<&'static Key> {
        match self.meaning {
            Meaning::Key { path, .. } => KEYS.iter().find(|key| key.path == path),
            Meaning::Fixed { .. } => None,
        }
    }

    /// Key and text of ours for a value of Kafka's; `None` where the value holds anyway.
    ///
    /// # Errors
    ///
    /// The value is not one of Kafka's type, cannot be said in our unit, or is not the only one that is
    /// possible.
    pub fn read(&self, value: &str) -> Result<Option<(&'static Key, String)>, SetError> {
        let invalid = |why: String| SetError::Invalid {
            key: self.name,
            value: value.to_owned(),
            why,
            range: self.key().map_or("", |key| key.range),
        };
        self.kind.check(value).map_err(invalid)?;
        match self.meaning {
            Meaning::Fixed { value: only, .. } if value.trim().eq_ignore_ascii_case(only) => Ok(None),
            Meaning::Fixed { value: only, why } => {
                let why = format!("only {only} is possible: {why}");
                Err(SetError::Refused { key: self.name.to_owned(), why })
            }
            Meaning::Key { unit, .. } => {
                let text = unit.read(value.trim()).map_err(invalid)?;
                Ok(self.key().map(|key| (key, text)))
            }
        }
    }

    /// What is in effect, in Kafka's text; `None` where it cannot be said in this unit.
    pub fn show(&self, config: &Config) -> Option<String> {
        match self.meaning {
            Meaning::Fixed { value, .. } => Some(value.to_owned()),
            Meaning::Key { unit, .. } => unit.show(&(self.key()?.show)(config)),
        }
    }

    /// What it is, for people: the documentation that DescribeConfigs gives.
    pub fn about(&self) -> String {
        match self.meaning {
            Meaning::Fixed { why, .. } => format!("Cannot be changed: {why}."),
            Meaning::Key { path, .. } => {
                format!("{}; the key {path}.", self.key().map_or("", |key| key.about))
            }
        }
    }
}

impl Kind {
    /// By Kafka's numbers.
    pub fn code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::Text => 2,
            Kind::Int => 3,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
        }
    }

    /// Whether a text is of this type, in Kafka's words if not.
    ///
    /// # Errors
    ///
    /// It is not; the text is Kafka's.
    pub fn check(self, value: &str) -> Result<(), String> {
        let value = value.trim();
        let number = |is: bool, of: &str| match is {
            true => Ok(()),
            false => Err(format!("Not a number of type {of}")),
        };
        match self {
            Kind::Boolean if ["true", "false"].iter().any(|word| value.eq_ignore_ascii_case(word)) => Ok(()),
            Kind::Boolean => Err("Expected value to be either true or false".to_owned()),
            Kind::Int => number(value.parse::<i32>().is_ok(), "INT"),
            Kind::Long => number(value.parse::<i64>().is_ok(), "LONG"),
            Kind::Double => number(value.parse::<f64>().is_ok(), "DOUBLE"),
            Kind::Text | Kind::List => Ok(()),
        }
    }
}

impl Unit {
    fn read(self, value: &str) -> Result<String, String> {
        let times = |ms: i64| {
            let count: i64 = value.parse().map_err(|_| "not a whole number".to_owned())?;
            let ms = count.checked_mul(ms).ok_or("too long")?;
            Ok(format!("{ms}ms"))
        };
        let or_forever = |ms: i64| match value.starts_with('-') {
            true => Ok("forever".to_owned()),
            false => times(ms),
        };
        match self {
            // A word to Kafka is a word in small letters here.
            Unit::Same if Kind::Boolean.check(value).is_ok() => Ok(value.to_ascii_lowercase()),
            Unit::Same | Unit::Bytes | Unit::BytesOrUnlimited => Ok(value.to_owned()),
            Unit::Millis => times(1),
            Unit::Minutes => times(60_000),
            Unit::Hours => times(3_600_000),
            Unit::MillisOrForever => or_forever(1),
            Unit::MinutesOrForever => or_forever(60_000),
            Unit::HoursOrForever => or_forever(3_600_000),
            Unit::MillisOrUnlimited if value.parse() == Ok(i64::MAX) => Ok("unlimited".to_owned()),
            Unit::MillisOrUnlimited => times(1),
            Unit::Listener => listener(value),
            Unit::Directory if value.contains(',') => Err("there is one data directory".to_owned()),
            Unit::Directory => Ok(value.to_owned()),
            Unit::ReplicaSelector => match value {
                LEADER_SELECTOR => Ok("false".to_owned()),
                RACK_AWARE_SELECTOR => Ok("true".to_owned()),
                _ => Err(format!("neither {LEADER_SELECTOR} nor {RACK_AWARE_SELECTOR}")),
            },
        }
    }

    fn show(self, ours: &str) -> Option<String> {
        let in_units_of = |ms: u128| {
            let time = values::duration(ours, Duration::ZERO, Duration::MAX).ok()?.as_millis();
            (time % ms == 0).then(|| (time / ms).to_string())
        };
        let or = |none: &str, instead: &str, ms: u128| match ours == none {
            true => Some(instead.to_owned()),
            false => in_units_of(ms),
        };
        match self {
            Unit::Same | Unit::Bytes | Unit::Directory => Some(ours.to_owned()),
            Unit::BytesOrUnlimited => Some(if ours == "unlimited" { "-1" } else { ours }.to_owned()),
            Unit::Millis => in_units_of(1),
            Unit::Minutes => in_units_of(60_000),
            Unit::Hours => in_units_of(3_600_000),
            Unit::MillisOrForever => or("forever", "-1", 1),
            Unit::MinutesOrForever => or("forever", "-1", 60_000),
            Unit::HoursOrForever => or("forever", "-1", 3_600_000),
            Unit::MillisOrUnlimited => or("unlimited", "9223372036854775807", 1),
            Unit::ReplicaSelector if ours == "true" => Some(RACK_AWARE_SELECTOR.to_owned()),
            Unit::ReplicaSelector => Some(LEADER_SELECTOR.to_owned()),
            Unit::Listener => (!ours.is_empty()).then(|| format!("PLAINTEXT://{ours}")),
        }
    }
}

/// `PLAINTEXT://host:port`; no host means every address.
fn listener(value: &str) -> Result<String, String> {
    if value.contains(',') {
        return Err("there is one listener".to_owned());
    }
    let (protocol, endpoint) = value.split_once("://").ok_or("not PLAINTEXT://HOST:PORT")?;
    if protocol != "PLAINTEXT" {
        return Err(format!("{protocol} is not served, only PLAINTEXT is"));
    }
    Ok(if endpoint.starts_with(':') { format!("0.0.0.0{endpoint}") } else { endpoint.to_owned() })
}

#[cfg(test)]
#[path = "kafka_tests.rs"]
mod tests;
