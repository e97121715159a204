//! The configurations a topic may have: names, legal values, and what they come to.
//!
//! Names, types and defaults are Kafka's. Each is honoured, or refused for every value but the default, with the reason:
//! none is accepted and ignored. Where a topic has no value of its own, the broker's key counts. Pure: no I/O, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::TopicError;
pub use crate::config::TimestampType;
use crate::config::kafka::{self, Kind};
use crate::config::{CleanupPolicy, Config, gzip_level};
use crate::limits;
use crate::log::Compaction;
use crate::log::encoder::Method;

/// One configuration that a topic may have.
#[derive(Clone, Copy, Debug)]
pub struct TopicSetting {
    /// Kafka's name of it.
    pub name: &'static str,
    /// The type that Kafka gives it.
    pub kind: Kind,
    /// What it is, for people: the documentation that DescribeConfigs gives.
    pub doc: &'static str,
    /// Why no value but the default is possible, where that is so.
    pub only: Option<&'static str>,
    rule: Rule,
    default: Default,
}

/// Which values of the type are legal.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    GzipLevel,
    OneOf(&'static [&'static str]),
    Policy,
    Ratio,
    Replicas,
    BatchBytes,
}

#[derive(Clone, Copy, Debug)]
enum Default {
    Fixed(&'static str),
    /// What the broker has under this name of Kafka's.
    Of(&'static str),
}

/// All of them, by name.
pub const TOPIC_SETTINGS: &[TopicSetting] = &[
    TopicSetting {
        name: "cleanup.policy",
        kind: Kind::List,
        rule: Rule::Policy,
        default: Default::Of("log.cleanup.policy"),
        only: None,
        doc: "What happens to old data: `delete` after retention, `compact` to the last record of each key, both, or nothing where it is empty.",
    },
    TopicSetting {
        name: "compression.gzip.level",
        kind: Kind::Int,
        rule: Rule::GzipLevel,
        default: Default::Of("compression.gzip.level"),
        only: None,
        doc: "How hard gzip tries where the broker compresses; -1: as it does by itself.",
    },
    TopicSetting {
        name: "compression.lz4.level",
        kind: Kind::Int,
        rule: Rule::Between(1, 17),
        default: Default::Of("compression.lz4.level"),
        only: Some(kafka::ONE_LEVEL),
        doc: "How hard lz4 tries where the broker compresses: it has one level there, whatever the number.",
    },
    TopicSetting {
        name: "compression.type",
        kind: Kind::Text,
        rule: Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        default: Default::Of("compression.type"),
        only: None,
        doc: "How batches are kept: as their producers compressed them, or compressed anew by the leader where that is otherwise.",
    },
    TopicSetting {
        name: "compression.zstd.level",
        kind: Kind::Int,
        rule: Rule::Between(-131_072, 22),
        default: Default::Of("compression.zstd.level"),
        only: Some(kafka::ONE_LEVEL),
        doc: "How hard zstd tries where the broker compresses: it has one level there, whatever the number.",
    },
    TopicSetting {
        name: "delete.retention.ms",
        kind: Kind::Long,
        rule: Rule::AtLeast(0),
        default: Default::Of("log.cleaner.delete.retention.ms"),
        only: None,
        doc: "How long tombstones of compacted topics stay after they were cleaned for the first time, and at least until all replicas have them.",
    },
    TopicSetting {
        name: "file.delete.delay.ms",
        kind: Kind::Long,
        rule: Rule::AtLeast(0),
        default: Default::Of("log.segment.delete.delay.ms"),
        only: None,
        doc: "How long the files of a segment outlive it.",
    },
    TopicSetting {
        name: "flush.messages",
        kind: Kind::Long,
        rule: Rule::AtLeast(1),
        default: Default::Of("log.flush.interval.messages"),
        only: None,
        doc: "Records after which a sync is forced. Every record is synced before it is acknowledged, which is sooner than any value.",
    },
    TopicSetting {
        name: "flush.ms",
        kind: Kind::Long,
        rule: Rule::AtLeast(0),
        default: Default::Fixed("9223372036854775807"),
        only: None,
        doc: "Time after which a sync is forced. Every record is synced before it is acknowledged, which is sooner than any value.",
    },
    TopicSetting {
        name: "follower.replication.throttled.replicas",
        kind: Kind::List,
        rule: Rule::Replicas,
        default: Default::Fixed(""),
        only: Some("replication is not throttled"),
        doc: "Replicas whose fetching is throttled: none.",
    },
    TopicSetting {
        name: "index.interval.bytes",
        kind: Kind::Int,
        rule: Rule::AtLeast(0),
        default: Default::Of("log.index.interval.bytes"),
        only: None,
        doc: "Bytes of log between two entries of the offset index.",
    },
    TopicSetting {
        name: "leader.replication.throttled.replicas",
        kind: Kind::List,
        rule: Rule::Replicas,
        default: Default::Fixed(""),
        only: Some("replication is not throttled"),
        doc: "Replicas whose being fetched is throttled: none.",
    },
    TopicSetting {
        name: "local.retention.bytes",
        kind: Kind::Long,
        rule: Rule::AtLeast(-2),
        default: Default::Of("log.local.retention.bytes"),
        only: Some("there is no tiered storage"),
        doc: "Most bytes kept locally of a tiered log.",
    },
    TopicSetting {
        name: "local.retention.ms",
        kind: Kind::Long,
        rule: Rule::AtLeast(-2),
        default: Default::Of("log.local.retention.ms"),
        only: Some("there is no tiered storage"),
        doc: "How long a tiered log is kept locally.",
    },
    TopicSetting {
        name: "max.compaction.lag.ms",
        kind: Kind::Long,
        rule: Rule::AtLeast(1),
        default: Default::Of("log.cleaner.max.compaction.lag.ms"),
        only: None,
        doc: "How long a record may wait for compaction, and a segment of a compacted topic for its end.",
    },
    TopicSetting {
        name: "max.message.bytes",
        kind: Kind::Int,
        rule: Rule::BatchBytes,
        default: Default::Of("message.max.bytes"),
        only: None,
        doc: "The largest record batch; at most what an entry of the journal takes.",
    },
    TopicSetting {
        name: "message.timestamp.after.max.ms",
        kind: Kind::Long,
        rule: Rule::AtLeast(0),
        default: Default::Of("log.message.timestamp.after.max.ms"),
        only: None,
        doc: "How far a producer's time may lie ahead of the broker's clock.",
    },
    TopicSetting {
        name: "message.timestamp.before.max.ms",
        kind: Kind::Long,
        rule: Rule::AtLeast(0),
        default: Default::Of("log.message.timestamp.before.max.ms"),
        only: None,
        doc: "How far a producer's time may lie behind the broker's clock.",
    },
    TopicSetting {
        name: "message.timestamp.type",
        kind: Kind::Text,
        rule: Rule::OneOf(&["CreateTime", "LogAppendTime"]),
        default: Default::Of("log.message.timestamp.type"),
        only: None,
        doc: "Whose time a record carries: its producer's or the broker's.",
    },
    TopicSetting {
        name: "min.cleanable.dirty.ratio",
        kind: Kind::Double,
        rule: Rule::Ratio,
        default: Default::Of("log.cleaner.min.cleanable.ratio"),
        only: None,
        doc: "A compacted log is cleaned when more than this part of it never was.",
    },
    TopicSetting {
        name: "min.compaction.lag.ms",
        kind: Kind::Long,
        rule: Rule::AtLeast(0),
        default: Default::Of("log.cleaner.min.compaction.lag.ms"),
        only: None,
        doc: "How long a record is not compacted.",
    },
    TopicSetting {
        name: "min.insync.replicas",
        kind: Kind::Int,
        rule: Rule::AtLeast(1),
        default: Default::Of("min.insync.replicas"),
        only: None,
        doc: "Replicas in sync without which acks=all is refused; counts as at most the replication factor, as with Kafka. Where nothing is set anywhere it is two of three replicas and more, and one of fewer.",
    },
    TopicSetting {
        name: "preallocate",
        kind: Kind::Boolean,
        rule: Rule::Any,
        default: Default::Of("log.preallocate"),
        only: Some("the journal is preallocated, segments are not"),
        doc: "Whether segment files are preallocated: no.",
    },
    TopicSetting {
        name: "remote.log.copy.disable",
        kind: Kind::Boolean,
        rule: Rule::Any,
        default: Default::Fixed("false"),
        only: Some("there is no tiered storage"),
        doc: "Whether a tiered log is copied no more.",
    },
    TopicSetting {
        name: "remote.log.delete.on.disable",
        kind: Kind::Boolean,
        rule: Rule::Any,
        default: Default::Fixed("false"),
        only: Some("there is no tiered storage"),
        doc: "Whether remote data goes when tiering ends.",
    },
    TopicSetting {
        name: "remote.storage.enable",
        kind: Kind::Boolean,
        rule: Rule::Any,
        default: Default::Fixed("false"),
        only: Some("there is no tiered storage"),
        doc: "Whether the log is tiered.",
    },
    TopicSetting {
        name: "retention.bytes",
        kind: Kind::Long,
        rule: Rule::Any,
        default: Default::Of("log.retention.bytes"),
        only: None,
        doc: "Most bytes kept of a partition; below zero: no limit.",
    },
    TopicSetting {
        name: "retention.ms",
        kind: Kind::Long,
        rule: Rule::AtLeast(-1),
        default: Default::Of("log.retention.ms"),
        only: None,
        doc: "How long records are kept at least; -1: for ever.",
    },
    TopicSetting {
        name: "segment.bytes",
        kind: Kind::Int,
        rule: Rule::AtLeast(1_048_576),
        default: Default::Of("log.segment.bytes"),
        only: None,
        doc: "Size at which a segment is closed.",
    },
    TopicSetting {
        name: "segment.index.bytes",
        kind: Kind::Int,
        rule: Rule::AtLeast(4),
        default: Default::Of("log.index.size.max.bytes"),
        only: Some("indexes grow as needed"),
        doc: "Size of an index file.",
    },
    TopicSetting {
        name: "segment.jitter.ms",
        kind: Kind::Long,
        rule: Rule::AtLeast(0),
        default: Default::Fixed("0"),
        only: Some("segments of several partitions are begun without jitter"),
        doc: "By how much the age at which segments are closed varies.",
    },
    TopicSetting {
        name: "segment.ms",
        kind: Kind::Long,
        rule: Rule::AtLeast(1),
        default: Default::Of("log.roll.ms"),
        only: None,
        doc: "Age at which a segment is closed.",
    },
    TopicSetting {
        name: "unclean.leader.election.enable",
        kind: Kind::Boolean,
        rule: Rule::Any,
        default: Default::Of("unclean.leader.election.enable"),
        only: Some(kafka::UNCLEAN_ON_REQUEST),
        doc: "Whether a replica that misses acknowledged records leads by itself where nobody else is left: no.",
    },
];

/// Known to Kafka, and for its own tests.
const INTERNAL: &str = "internal.segment.bytes";

/// The setting of that name.
pub fn setting(name: &str) -> Option<&'static TopicSetting> {
    TOPIC_SETTINGS.iter().find(|setting| setting.name == name)
}

fn invalid(why: String) -> TopicError {
    TopicError::InvalidConfig(why)
}

/// The setting of that name, or what is said of one that is not there.
pub fn known(name: &str) -> Result<&'static TopicSetting, TopicError> {
    setting(name).ok_or_else(|| match name {
        INTERNAL => invalid(format!("{name} cannot be set: it is for Kafka's own tests")),
        _ => invalid(format!("Unknown topic config name: {name}")),
    })
}

/// Whether a topic of a broker with this configuration may have these.
pub fn validate(configs: &BTreeMap<String, String>, config: &Config) -> Result<(), TopicError> {
    for name in configs.keys() {
        known(name)?;
    }
    configs.iter().try_for_each(|(name, value)| known(name)?.check(value, config))?;
    check_lags(configs, config)
}

const MIN_LAG: &str = "min.compaction.lag.ms";
const MAX_LAG: &str = "max.compaction.lag.ms";

/// Whether it is one of the two that are checked together.
pub fn is_lag(name: &str) -> bool {
    [MIN_LAG, MAX_LAG].contains(&name)
}

/// In Kafka's words: a record that may not be compacted yet does not have to be.
pub fn check_lags(configs: &BTreeMap<String, String>, config: &Config) -> Result<(), TopicError> {
    if !configs.keys().any(|name| is_lag(name)) {
        return Ok(());
    }
    let lag = |name: &str, of_broker: Option<Duration>| {
        let own = configs.get(name).and_then(|value| value.trim().parse::<u128>().ok());
        own.or(of_broker.map(|lag| lag.as_millis())).unwrap_or(u128::MAX)
    };
    let (min, max) = (lag(MIN_LAG, Some(config.cleaner.min_lag)), lag(MAX_LAG, config.cleaner.max_lag));
    match min > max {
        true => Err(invalid(format!("conflict topic config setting {MIN_LAG} ({min}) > {MAX_LAG} ({max})"))),
        false => Ok(()),
    }
}

impl TopicSetting {
    /// The broker's configuration that counts where a topic has none of its own, by Kafka's name.
    pub fn of_broker(&self) -> Option<&'static str> {
        match self.default {
            Default::Fixed(_) => None,
            Default::Of(name) => Some(name),
        }
    }

    /// The value where a topic has none of its own.
    pub fn default_value(&self, config: &Config) -> String {
        match self.default {
            Default::Fixed(value) => value.to_owned(),
            Default::Of(name) => kafka::find(name).and_then(|known| known.show(config)).unwrap_or_default(),
        }
    }

    /// Whether a topic of a broker with this configuration may have this value.
    pub fn check(&self, value: &str, config: &Config) -> Result<(), TopicError> {
        let wrong =
            |why: String| invalid(format!("Invalid value {value} for configuration {}: {why}", self.name));
        if value.len() > limits::CONFIG_VALUE_BYTES_MAX {
            let max = limits::CONFIG_VALUE_BYTES_MAX;
            return Err(invalid(format!("A value of {} has more than {max} bytes", self.name)));
        }
        self.kind.check(value).map_err(wrong)?;
        self.rule.check(value.trim(), config).map_err(wrong)?;
        let default = || self.default_value(config);
        match self.only {
            Some(why) if !value.trim().eq_ignore_ascii_case(&default()) => Err(wrong(why.to_owned())),
            _ => Ok(()),
        }
    }
}

impl Rule {
    fn check(self, value: &str, config: &Config) -> Result<(), String> {
        let within = |min: i64, max: i64| match value.parse::<i64>() {
            Ok(number) if number < min => Err(format!("Value must be at least {min}")),
            Ok(number) if number > max => Err(format!("Value must be no more than {max}")),
            _ => Ok(()),
        };
        let one_of = |words: &[&str]| match words.contains(&value) {
            true => Ok(()),
            false => Err(format!("String must be one of: {}", words.join(", "))),
        };
        match self {
            Rule::Any => Ok(()),
            Rule::AtLeast(min) => within(min, i64::MAX),
            Rule::Between(min, max) => within(min, max),
            Rule::GzipLevel => gzip_level(value).map(|_| ()),
            Rule::OneOf(words) => one_of(words),
            Rule::Policy => value.parse::<CleanupPolicy>().map(|_| ()),
            Rule::Ratio => match value.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
                Ok(ratio) if ratio < 0.0 => Err("Value must be at least 0".to_owned()),
                _ => Err("Value must be no more than 1".to_owned()),
            },
            Rule::Replicas if value == "*" || elements(value).all(is_replica) => Ok(()),
            Rule::Replicas => Err("neither '*' nor a list of [partitionId]:[brokerId]".to_owned()),
            Rule::BatchBytes => {
                within(0, i64::MAX)?;
                let largest = config.batch_bytes_largest();
                within(0, largest as i64).map_err(|error| {
                    format!("{error}: a batch has to fit into an entry of the journal, twice into its files and its \
                             queue, and into a request (journal.file_bytes, journal.queue_bytes, server.request_bytes)")
                })
            }
        }
    }
}

/// Those of a list.
pub fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|element| !element.is_empty())
}

fn is_replica(text: &str) -> bool {
    text.split_once(':')
        .is_some_and(|(partition, broker)| partition.parse::<u32>().is_ok() && broker.parse::<u32>().is_ok())
}

/// What the configurations of one topic come to on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Size at which a new segment begins (`segment.bytes`).
    pub segment_bytes: u64,
    /// Age at which a new segment begins (`segment.ms`).
    pub segment_age: Duration,
    /// Bytes between two index entries (`index.interval.bytes`).
    pub index_interval_bytes: usize,
    /// Largest record batch, in bytes (`max.message.bytes`).
    pub max_batch_bytes: usize,
    /// How its batches are kept; `None`: as their producers compressed them (`compression.type`).
    pub compression: Option<Method>,
    /// None: for ever.
    pub retention: Option<Duration>,
    /// None: no limit.
    pub retention_bytes: Option<u64>,
    /// How long a segment's files outlive the segment.
    pub file_delete_delay: Duration,
    /// Its records may be deleted, by age, size or request (`cleanup.policy` has `delete`).
    pub deletes: bool,
    /// Of each key the last record is kept (`cleanup.policy` has `compact`).
    pub compaction: Option<Compaction>,
    /// Whose time records carry (`message.timestamp.type`).
    pub timestamps: TimestampType,
    /// How far a producer's time may lie behind the broker's clock; None: no bound.
    pub timestamp_before_max: Option<Duration>,
    /// How far a producer's time may lie ahead of the broker's clock (`message.timestamp.after.max.ms`);
    /// `None`: no bound.
    pub timestamp_after_max: Option<Duration>,
    /// Replicas that have to be in sync for acks=all (`min.insync.replicas`).
    pub min_insync_replicas: usize,
}

impl TopicSettings {
    /// Takes the topic's own value where it has a legal one, the node's default elsewhere.
    pub fn resolve(configs: &BTreeMap<String, String>, config: &Config) -> TopicSettings {
        let number = |name: &str| configs.get(name).and_then(|value| value.trim().parse::<i64>().ok());
        let unsigned = |name: &str| number(name).and_then(|value| u64::try_from(value).ok());
        let size = |name: &str| number(name).and_then(|value| usize::try_from(value).ok());
        // What is below zero has no bound.
        let time_or_none = |name: &str, default: Option<Duration>| match number(name) {
            Some(value) => u64::try_from(value).ok().map(Duration::from_millis),
            None => default,
        };
        let bounded = |name: &str, default| {
            time_or_none(name, default).filter(|time| *time < Duration::from_millis(i64::MAX as u64))
        };
        let policy = configs.get("cleanup.policy").and_then(|policy| policy.parse().ok());
        let CleanupPolicy { delete: deletes, compact } = policy.unwrap_or(config.cleaner.policy);
        let own_ratio =
            configs.get("min.cleanable.dirty.ratio").and_then(|value| value.trim().parse::<f64>().ok());
        let compaction = compact.then(|| Compaction {
            min_dirty_ppm: own_ratio
                .map_or(config.cleaner.min_dirty_ppm, |ratio| (ratio * 1e6).round() as u32),
            min_lag: unsigned("min.compaction.lag.ms").map_or(config.cleaner.min_lag, Duration::from_millis),
            max_lag: bounded("max.compaction.lag.ms", config.cleaner.max_lag),
            delete_retention: unsigned("delete.retention.ms")
                .map_or(config.cleaner.delete_retention, Duration::from_millis),
        });
        let segment_age = unsigned("segment.ms").map_or(config.log.segment_age, Duration::from_millis);
        // What is written on is not cleaned: so it ends before a record has waited for too long.
        let max_lag = compaction.and_then(|compaction| compaction.max_lag);
        let retention_bytes = match number("retention.bytes") {
            Some(value) => u64::try_from(value).ok(),
            None => config.log.retention_bytes,
        };
        let timestamps = configs.get("message.timestamp.type").and_then(|value| value.trim().parse().ok());
        let compression = configs.get("compression.type").and_then(|value| value.trim().parse().ok());
        let own_level = configs.get("compression.gzip.level").and_then(|value| gzip_level(value).ok());
        TopicSettings {
            segment_bytes: unsigned("segment.bytes").unwrap_or(config.log.segment_bytes),
            segment_age: max_lag.map_or(segment_age, |lag| segment_age.min(lag)),
            index_interval_bytes: size("index.interval.bytes").unwrap_or(config.log.index_interval_bytes),
            max_batch_bytes: size("max.message.bytes").unwrap_or(config.topics.max_batch_bytes),
            compression: compression
                .unwrap_or(config.topics.compression)
                .codec()
                .map(|codec| Method { codec, gzip_level: own_level.unwrap_or(config.topics.gzip_level) }),
            retention: time_or_none("retention.ms", config.log.retention).filter(|_| deletes),
            retention_bytes: retention_bytes.filter(|_| deletes),
            deletes,
            compaction,
            file_delete_delay: unsigned("file.delete.delay.ms")
                .map_or(config.log.file_delete_delay, Duration::from_millis),
            timestamps: timestamps.unwrap_or(config.log.timestamp_type),
            timestamp_before_max: bounded("message.timestamp.before.max.ms", config.log.timestamp_before_max),
            timestamp_after_max: bounded("message.timestamp.after.max.ms", config.log.timestamp_after_max),
            min_insync_replicas: size("min.insync.replicas").unwrap_or(config.topics.min_insync_replicas),
        }
    }
}

#[cfg(test)]
#[path = "configs_tests.rs"]
mod tests;
