//! What is set while brokers run: by Kafka's names, for one broker or for all, over what its file says.
//!
//! What a broker cannot follow without a restart is refused, and so is every name that would be stored and not be
//! honoured. Pure.

use std::collections::BTreeMap;

use super::kafka::{self, KafkaName, Meaning, Mode};
use super::{Config, KEYS, SetError};

/// Names and values, as they were set.
pub type Overrides = BTreeMap<String, String>;

/// Those of this node: what is set for it is over what is set for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// Set for all brokers.
    pub of_all: Overrides,
    /// Set for this one.
    pub of_this: Overrides,
}

/// Keys whose readers look at what is in effect each time.
const FOLLOWED: &[&str] = &[
    "cleaner.delete_retention",
    "cleaner.max_lag",
    "cleaner.min_dirty_ratio",
    "cleaner.min_lag",
    "cleaner.policy",
    "log.file_delete_delay",
    "log.index_interval_bytes",
    "log.retention",
    "log.retention_bytes",
    "log.segment_age",
    "log.segment_bytes",
    "log.timestamp_after_max",
    "log.timestamp_before_max",
    "log.timestamp_type",
    "topics.compression",
    "topics.gzip_level",
    "topics.max_batch_bytes",
    "topics.min_insync_replicas",
];

/// Why a configuration of a broker cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DynamicError {
    /// Neither Kafka nor we have such a name.
    #[error("Unknown broker config name: {name}{}", .suggestion.as_ref().map(|s| format!(": did you mean '{s}'?")).unwrap_or_default())]
    Unknown { name: String, suggestion: Option<String> },
    /// Kafka has the name, and what would be set would not be honoured.
    #[error("{name} cannot be set: {why}")]
    Refused { name: String, why: String },
    /// Kafka's own words.
    #[error("Cannot update these configs dynamically: [{0}]")]
    ReadOnly(String),
    /// Kafka's own words: the name is of one broker only.
    #[error("Cannot update these configs at default cluster level, broker id must be specified: [{0}]")]
    PerBroker(String),
    /// Kafka's own words.
    #[error("Invalid value {value} for configuration {name}: {why}")]
    Invalid { name: String, value: String, why: String },
    /// The value is legal by itself, and not beside the others.
    #[error("{0}")]
    Inconsistent(String),
}

/// Kafka's configurations of brokers that exist only while they run. Its tools take them away after a reassignment, whether
/// they were set or not.
const THROTTLES: [&str; 3] = [
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

/// Whether it is one of those that may be taken away, and never set.
pub fn is_throttle(name: &str) -> bool {
    THROTTLES.contains(&name)
}

/// Whether a name can be set while the broker runs, for all brokers or for one.
pub fn changeable(name: &str, for_all: bool) -> Result<&'static KafkaName, DynamicError> {
    let Some(known) = kafka::find(name) else {
        if let Some(key) = KEYS.iter().find(|key| key.path == name) {
            let names = kafka::KAFKA_NAMES.iter().filter(|known| is_followed(known));
            let names = names.filter(|known| known.key().is_some_and(|of| of.path == key.path));
            let names: Vec<&str> = names.map(|known| known.name).collect();
            let why = match names.is_empty() {
                true => "it is read when the broker starts".to_owned(),
                false => format!("it is set in the file; while the broker runs set {}", names.join(" or ")),
            };
            return Err(DynamicError::Refused { name: name.to_owned(), why });
        }
        let throttle = is_throttle(name).then_some("replication is not throttled");
        return Err(match kafka::refusal(name).or(throttle) {
            Some(why) => DynamicError::Refused { name: name.to_owned(), why: why.to_owned() },
            None => DynamicError::Unknown { name: name.to_owned(), suggestion: super::set::suggest(name) },
        });
    };
    match known.mode {
        Mode::ReadOnly => Err(DynamicError::ReadOnly(name.to_owned())),
        Mode::PerBroker if for_all => Err(DynamicError::PerBroker(name.to_owned())),
        _ if is_followed(known) => Ok(known),
        _ => Err(DynamicError::Refused {
            name: name.to_owned(),
            why: "it is read when the broker starts".to_owned(),
        }),
    }
}

/// Whether a change takes effect without a restart, or nothing has to.
pub fn is_followed(known: &KafkaName) -> bool {
    match known.meaning {
        Meaning::Key { path, .. } => known.mode != Mode::ReadOnly && FOLLOWED.contains(&path),
        Meaning::Fixed { .. } => known.mode != Mode::ReadOnly,
    }
}

/// Whether a broker could be run with this value over its configuration.
pub fn check(config: &Config, name: &str, value: &str, for_all: bool) -> Result<(), DynamicError> {
    let known = changeable(name, for_all)?;
    let invalid = |why: String| DynamicError::Invalid { name: name.to_owned(), value: value.to_owned(), why };
    let mut changed = config.clone();
    changed.set(known.name, value).map_err(|error| match error {
        SetError::Invalid { why, .. } => invalid(why),
        SetError::Refused { key, why } => DynamicError::Refused { name: key, why },
        error @ SetError::Unknown { .. } => invalid(error.to_string()),
    })?;
    changed.check().map_err(DynamicError::Inconsistent)
}

impl Config {
    /// This configuration with what is set while the broker runs. What cannot be set here, since another broker took
    /// it or an older one of ours, is left out.
    pub fn with(&self, dynamic: &Dynamic) -> Config {
        let mut config = self.clone();
        for (name, value) in dynamic.of_all.iter().chain(&dynamic.of_this) {
            if check(&config, name, value, false).is_ok() {
                let _ = config.set(name, value);
            }
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_key_that_is_followed_has_a_name_by_which_it_can_be_set() {
        for path in FOLLOWED {
            let settable = kafka::KAFKA_NAMES.iter().any(|known| {
                matches!(known.meaning, Meaning::Key { path: of, .. } if of == *path) && is_followed(known)
            });
            assert!(settable, "{path}");
        }
    }

    #[test]
    fn what_is_set_for_one_broker_is_over_what_is_set_for_all_and_both_are_over_the_file() {
        let base = Config::default();
        let dynamic = Dynamic {
            of_all: set(&[("log.retention.ms", "5000"), ("message.max.bytes", "2000")]),
            of_this: set(&[("log.retention.ms", "-1")]),
        };
        let config = base.with(&dynamic);
        assert_eq!((config.log.retention, config.topics.max_batch_bytes), (None, 2_000));
        assert_eq!(base.with(&Dynamic::default()), base);
    }

    #[test]
    fn what_is_stored_and_cannot_be_honoured_is_left_out() {
        let dynamic = Dynamic {
            of_all: set(&[("num.partitions", "9"), ("nope", "1"), ("log.retention.ms", "soon")]),
            of_this: set(&[("message.max.bytes", "7340033"), ("log.segment.bytes", "1048576")]),
        };
        let config = Config::default().with(&dynamic);
        let mut wanted = Config::default();
        wanted.log.segment_bytes = 1 << 20;
        assert_eq!(config, wanted);
    }

    #[test]
    fn a_change_is_refused_as_kafka_refuses_it_or_with_the_reason() {
        let table = [
            ("log.retention.ms", "5000", true, Ok(())),
            (
                "log.retention.ms",
                "x",
                true,
                Err("Invalid value x for configuration log.retention.ms: Not a number of type LONG"),
            ),
            (
                "leader.replication.throttled.rate",
                "5",
                false,
                Err("leader.replication.throttled.rate cannot be set: replication is not throttled"),
            ),
            ("num.partitions", "5", false, Err("Cannot update these configs dynamically: [num.partitions]")),
            (
                "log.retention.hours",
                "5",
                true,
                Err("Cannot update these configs dynamically: [log.retention.hours]"),
            ),
            (
                "listeners",
                "PLAINTEXT://:1",
                true,
                Err(
                    "Cannot update these configs at default cluster level, broker id must be specified: [listeners]",
                ),
            ),
            (
                "listeners",
                "PLAINTEXT://:1",
                false,
                Err("listeners cannot be set: it is read when the broker starts"),
            ),
            (
                "log.retention",
                "5s",
                true,
                Err(
                    "log.retention cannot be set: it is set in the file; while the broker runs set log.retention.ms",
                ),
            ),
            (
                "memory.bytes",
                "64 MiB",
                true,
                Err("memory.bytes cannot be set: it is read when the broker starts"),
            ),
            (
                "max.connections",
                "5",
                true,
                Err("max.connections cannot be set: it is read when the broker starts"),
            ),
            ("compression.type", "producer", true, Ok(())),
            (
                "compression.lz4.level",
                "1",
                true,
                Err(
                    "compression.lz4.level cannot be set: only 9 is possible: the broker compresses with lz4 and zstd at one level, their fastest",
                ),
            ),
            (
                "ssl.keystore.location",
                "x",
                false,
                Err(
                    "ssl.keystore.location cannot be set: connections are neither encrypted nor authenticated yet",
                ),
            ),
            (
                "log.retention.mss",
                "5",
                true,
                Err("Unknown broker config name: log.retention.mss: did you mean 'log.retention.ms'?"),
            ),
            (
                "message.max.bytes",
                "8000000",
                true,
                Err(
                    "Invalid value 8000000 for configuration message.max.bytes: outside 1024..=7340032 bytes",
                ),
            ),
        ];
        for (name, value, for_all, wanted) in table {
            let found = check(&Config::default(), name, value, for_all).map_err(|error| error.to_string());
            assert_eq!(found, wanted.map_err(str::to_owned), "{name}={value}");
        }
    }
}
