//! The configurations a topic may have: names, legal values, and what they come to.
//!
//! Names and meanings are Kafka's. A configuration is legal when it is honoured, or when not honouring
//! it harms nobody; one that would change what a client may rely on, and that we do not honour, is
//! refused by name. Pure: no I/O, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::TopicError;
use crate::config::Config;
use crate::limits;

/// The type of a value, as DescribeConfigs tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    Boolean,
    Int,
    Long,
    Text,
    List,
}

/// One configuration that a topic may have.
#[derive(Clone, Copy, Debug)]
pub struct TopicSetting {
    pub name: &'static str,
    pub kind: SettingKind,
    pub doc: &'static str,
    rule: Rule,
    default: Default,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Range(i64, i64),
    OneOf(&'static [&'static str]),
    CleanupPolicy,
    /// A decimal fraction from zero to one.
    Ratio,
}

#[derive(Clone, Copy, Debug)]
enum Default {
    Fixed(&'static str),
    SegmentBytes,
    SegmentAge,
    MaxMessageBytes,
    IndexInterval,
    MinInsync,
}

const fn long(name: &'static str, min: i64, max: i64, default: Default, doc: &'static str) -> TopicSetting {
    TopicSetting { name, kind: SettingKind::Long, doc, rule: Rule::Range(min, max), default }
}

const fn int(name: &'static str, min: i64, default: Default, doc: &'static str) -> TopicSetting {
    TopicSetting { name, kind: SettingKind::Int, doc, rule: Rule::Range(min, i32::MAX as i64), default }
}

const fn one_of(
    name: &'static str,
    kind: SettingKind,
    values: &'static [&'static str],
    default: &'static str,
    doc: &'static str,
) -> TopicSetting {
    TopicSetting { name, kind, doc, rule: Rule::OneOf(values), default: Default::Fixed(default) }
}

/// All of them, by name.
pub const TOPIC_SETTINGS: &[TopicSetting] = &[
    TopicSetting {
        name: "cleanup.policy",
        kind: SettingKind::List,
        doc: "What happens to old data. Only 'delete' is supported.",
        rule: Rule::CleanupPolicy,
        default: Default::Fixed("delete"),
    },
    one_of(
        "compression.type",
        SettingKind::Text,
        &["producer"],
        "producer",
        "Batches are stored as their producer compressed them; the broker never recompresses.",
    ),
    long(
        "delete.retention.ms",
        0,
        i64::MAX,
        Default::Fixed("86400000"),
        "Concerns compacted topics only; without effect.",
    ),
    long(
        "file.delete.delay.ms",
        0,
        i64::MAX,
        Default::Fixed("0"),
        "Segments are removed at once; without effect.",
    ),
    long(
        "flush.messages",
        1,
        i64::MAX,
        Default::Fixed("1"),
        "Every record is synced before it is acknowledged; without effect.",
    ),
    long(
        "flush.ms",
        0,
        i64::MAX,
        Default::Fixed("0"),
        "Every record is synced before it is acknowledged; without effect.",
    ),
    int(
        "index.interval.bytes",
        0,
        Default::IndexInterval,
        "Bytes of log between two entries of the offset index.",
    ),
    TopicSetting {
        name: "max.message.bytes",
        kind: SettingKind::Int,
        doc: "The largest record batch, in bytes; at most what an entry of the journal takes.",
        rule: Rule::Range(0, (limits::JOURNAL_ENTRY_BYTES_MAX - 4096) as i64),
        default: Default::MaxMessageBytes,
    },
    long(
        "message.timestamp.after.max.ms",
        0,
        i64::MAX,
        Default::Fixed("9223372036854775807"),
        "How far a record's timestamp may lie ahead of the broker's clock; without effect.",
    ),
    long(
        "message.timestamp.before.max.ms",
        0,
        i64::MAX,
        Default::Fixed("9223372036854775807"),
        "How far a record's timestamp may lie behind the broker's clock; without effect.",
    ),
    one_of(
        "message.timestamp.type",
        SettingKind::Text,
        &["CreateTime", "LogAppendTime"],
        "CreateTime",
        "Whose time a record carries: its producer's or the broker's.",
    ),
    int(
        "min.insync.replicas",
        1,
        Default::MinInsync,
        "Replicas that must have synced a record before acks=all is answered; counts as at most the replication factor.",
    ),
    one_of(
        "preallocate",
        SettingKind::Boolean,
        &["true", "false"],
        "false",
        "Durability comes from the preallocated journal; without effect on segments.",
    ),
    long(
        "retention.bytes",
        -1,
        i64::MAX,
        Default::Fixed("-1"),
        "Most bytes kept of a partition; -1: no limit. Not enforced yet: nothing is removed.",
    ),
    long(
        "retention.ms",
        -1,
        i64::MAX,
        Default::Fixed("604800000"),
        "How long records are kept at least; -1: for ever. Not enforced yet: nothing is removed.",
    ),
    int("segment.bytes", 1 << 14, Default::SegmentBytes, "Size at which a segment is closed."),
    int("segment.index.bytes", 4, Default::Fixed("10485760"), "Indexes grow as needed; without effect."),
    long("segment.jitter.ms", 0, i64::MAX, Default::Fixed("0"), "Without effect."),
    long("segment.ms", 1, i64::MAX, Default::SegmentAge, "Age at which a segment is closed."),
    one_of(
        "unclean.leader.election.enable",
        SettingKind::Boolean,
        &["false"],
        "false",
        "A replica that misses acknowledged records never leads.",
    ),
];

/// Known to Kafka, refused here: what the client would rely on is not done.
const REFUSED: &[(&str, &str)] = &[
    ("remote.storage.enable", "tiered storage is not supported"),
    ("local.retention.ms", "tiered storage is not supported"),
    ("local.retention.bytes", "tiered storage is not supported"),
    ("remote.copy.disable", "tiered storage is not supported"),
    ("remote.log.delete.on.disable", "tiered storage is not supported"),
];

/// Legal wherever compaction is off, which it always is.
const IGNORED_WITHOUT_COMPACTION: &[TopicSetting] = &[
    long(
        "min.compaction.lag.ms",
        0,
        i64::MAX,
        Default::Fixed("0"),
        "Concerns compacted topics only; without effect.",
    ),
    long(
        "max.compaction.lag.ms",
        1,
        i64::MAX,
        Default::Fixed("9223372036854775807"),
        "Concerns compacted topics only; without effect.",
    ),
    TopicSetting {
        name: "min.cleanable.dirty.ratio",
        kind: SettingKind::Text,
        doc: "Concerns compacted topics only; without effect.",
        rule: Rule::Ratio,
        default: Default::Fixed("0.5"),
    },
];

/// The setting of that name.
pub fn setting(name: &str) -> Option<&'static TopicSetting> {
    TOPIC_SETTINGS.iter().chain(IGNORED_WITHOUT_COMPACTION).find(|setting| setting.name == name)
}

/// Whether a topic may have these configurations.
pub fn validate(configs: &BTreeMap<String, String>) -> Result<(), TopicError> {
    for (name, value) in configs {
        let Some(known) = setting(name) else {
            let why = REFUSED.iter().find(|(refused, _)| refused == name).map(|(_, why)| *why);
            return Err(TopicError::InvalidConfig(match why {
                Some(why) => format!("{name} cannot be set: {why}"),
                None => format!("Unknown topic config name: {name}"),
            }));
        };
        known.check(value)?;
    }
    Ok(())
}

impl TopicSetting {
    /// The value where a topic has none of its own.
    pub fn default_value(&self, config: &Config) -> String {
        match self.default {
            Default::Fixed(value) => value.to_owned(),
            Default::SegmentBytes => config.log.segment_bytes.to_string(),
            Default::SegmentAge => config.log.segment_age.as_millis().to_string(),
            Default::MaxMessageBytes => config.topics.max_batch_bytes.to_string(),
            Default::IndexInterval => config.log.index_interval_bytes.to_string(),
            Default::MinInsync => "1".to_owned(),
        }
    }

    fn check(&self, value: &str) -> Result<(), TopicError> {
        let wrong = |what: String| {
            let name = self.name;
            Err(TopicError::InvalidConfig(format!("Invalid value {value} for configuration {name}: {what}")))
        };
        match self.rule {
            Rule::Range(min, max) => match value.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                Ok(_) if max == i64::MAX => wrong(format!("Value must be at least {min}")),
                Ok(_) => wrong(format!("Value must be between {min} and {max}")),
                Err(_) => wrong("Not a number".to_owned()),
            },
            Rule::OneOf([only]) if value != *only => wrong(format!("only '{only}' is supported")),
            Rule::OneOf(values) if !values.contains(&value) => {
                wrong(format!("String must be one of: {}", values.join(", ")))
            }
            Rule::OneOf(_) => Ok(()),
            Rule::CleanupPolicy => {
                let mut policies = value.split(',').map(str::trim);
                if policies.clone().any(|policy| policy == "compact") {
                    return wrong("log compaction is not supported yet; use 'delete'".to_owned());
                }
                match policies.all(|policy| policy == "delete") {
                    true => Ok(()),
                    false => wrong("String must be one of: delete".to_owned()),
                }
            }
            Rule::Ratio => match value.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
                _ => wrong("Value must be between 0 and 1".to_owned()),
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// What the configurations of one topic come to on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    pub segment_bytes: u64,
    pub segment_age: Duration,
    pub index_interval_bytes: usize,
    pub max_batch_bytes: usize,
    /// None: for ever.
    pub retention: Option<Duration>,
    /// None: no limit.
    pub retention_bytes: Option<u64>,
    pub timestamps: TimestampType,
    pub min_insync_replicas: usize,
}

impl TopicSettings {
    /// Takes the topic's own value where it has a legal one, the node's default elsewhere.
    pub fn resolve(configs: &BTreeMap<String, String>, config: &Config) -> TopicSettings {
        let number = |name: &str| configs.get(name).and_then(|value| value.parse::<i64>().ok());
        let unsigned = |name: &str| number(name).and_then(|value| u64::try_from(value).ok());
        let size = |name: &str| number(name).and_then(|value| usize::try_from(value).ok());
        let retention_ms = number("retention.ms").unwrap_or(604_800_000);
        let log_append_time =
            configs.get("message.timestamp.type").is_some_and(|value| value == "LogAppendTime");
        TopicSettings {
            segment_bytes: unsigned("segment.bytes").unwrap_or(config.log.segment_bytes),
            segment_age: unsigned("segment.ms").map_or(config.log.segment_age, Duration::from_millis),
            index_interval_bytes: size("index.interval.bytes").unwrap_or(config.log.index_interval_bytes),
            max_batch_bytes: size("max.message.bytes").unwrap_or(config.topics.max_batch_bytes),
            retention: u64::try_from(retention_ms).ok().map(Duration::from_millis),
            retention_bytes: unsigned("retention.bytes"),
            timestamps: if log_append_time {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            min_insync_replicas: size("min.insync.replicas").unwrap_or(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str) -> Result<(), TopicError> {
        validate(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn legal_values_pass_and_others_say_what_is_wrong() {
        let table = [
            ("retention.ms", "-1", None),
            ("retention.ms", "-2", Some("at least -1")),
            ("retention.ms", "soon", Some("Not a number")),
            ("segment.bytes", "1048576", None),
            ("segment.bytes", "10", Some("between 16384 and 2147483647")),
            ("cleanup.policy", "delete", None),
            ("cleanup.policy", "compact", Some("compaction is not supported yet")),
            ("cleanup.policy", "compact,delete", Some("compaction is not supported yet")),
            ("cleanup.policy", "keep", Some("one of: delete")),
            ("cleanup.policy", "", Some("one of: delete")),
            ("compression.type", "producer", None),
            ("compression.type", "gzip", Some("only 'producer'")),
            ("message.timestamp.type", "LogAppendTime", None),
            ("message.timestamp.type", "logappendtime", Some("one of: CreateTime, LogAppendTime")),
            ("min.insync.replicas", "0", Some("between 1 and")),
            ("min.cleanable.dirty.ratio", "0.25", None),
            ("min.cleanable.dirty.ratio", "NaN", Some("between 0 and 1")),
            ("unclean.leader.election.enable", "true", Some("only 'false'")),
            ("remote.storage.enable", "true", Some("tiered storage is not supported")),
            ("max.message.bytes", "1000000", None),
            ("max.message.bytes", "100000000", Some("between 0 and 8384512")),
            ("retention.milliseconds", "1", Some("Unknown topic config name: retention.milliseconds")),
        ];
        for (name, value, refusal) in table {
            match (check(name, value), refusal) {
                (Ok(()), None) => {}
                (Err(error), Some(part)) => {
                    assert!(error.to_string().contains(part), "{name}={value}: {error}");
                }
                (got, wanted) => panic!("{name}={value}: {got:?}, wanted {wanted:?}"),
            }
        }
    }

    #[test]
    fn each_default_is_itself_a_legal_value() {
        let config = Config::default();
        for setting in TOPIC_SETTINGS.iter().chain(IGNORED_WITHOUT_COMPACTION) {
            setting.check(&setting.default_value(&config)).unwrap();
        }
    }

    #[test]
    fn a_topic_overrides_only_what_it_sets() {
        let config = Config::default();
        let own = BTreeMap::from([
            ("retention.ms".to_owned(), "-1".to_owned()),
            ("segment.bytes".to_owned(), "65536".to_owned()),
            ("message.timestamp.type".to_owned(), "LogAppendTime".to_owned()),
        ]);
        let settings = TopicSettings::resolve(&own, &config);
        assert_eq!(settings.retention, None);
        assert_eq!(settings.segment_bytes, 65_536);
        assert_eq!(settings.timestamps, TimestampType::LogAppendTime);
        assert_eq!(settings.segment_age, config.log.segment_age);
        assert_eq!(settings.retention_bytes, None);
    }
}
