//! The configurations that a group of the consumer protocol may have (KIP-848): names, legal values, and what they come to.
//!
//! Names and bounds are Kafka's. Where a group has no value of its own, the broker's key counts. Pure: no I/O, no clock.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::TopicError;
use crate::config::dynamic::Overrides;
use crate::config::kafka::Kind;
use crate::config::{Config, GroupsConfig};

/// One configuration that a group may have.
#[derive(Clone, Copy, Debug)]
pub struct GroupSetting {
    /// Kafka's name of it.
    pub name: &'static str,
    /// What it is, for people: the documentation that DescribeConfigs gives.
    pub doc: &'static str,
    /// The broker's configuration that counts where a group has none of its own, by Kafka's name.
    pub of_broker: &'static str,
    /// Kafka's names of the least and the most that a group may have.
    bounds: [&'static str; 2],
    allowed: fn(&GroupsConfig) -> RangeInclusive<Duration>,
    default: fn(&GroupsConfig) -> Duration,
}

const HEARTBEAT_INTERVAL: GroupSetting = GroupSetting {
    name: "consumer.heartbeat.interval.ms",
    doc: "How often members of this group are asked to be heard of.",
    of_broker: "group.consumer.heartbeat.interval.ms",
    bounds: ["group.consumer.min.heartbeat.interval.ms", "group.consumer.max.heartbeat.interval.ms"],
    allowed: |groups| groups.consumer_heartbeat_interval_min..=groups.consumer_heartbeat_interval_max,
    default: |groups| groups.consumer_heartbeat_interval,
};

const SESSION_TIMEOUT: GroupSetting = GroupSetting {
    name: "consumer.session.timeout.ms",
    doc: "A member of this group that is silent for so long is gone.",
    of_broker: "group.consumer.session.timeout.ms",
    bounds: ["group.consumer.min.session.timeout.ms", "group.consumer.max.session.timeout.ms"],
    allowed: |groups| groups.consumer_session_timeout_min..=groups.consumer_session_timeout_max,
    default: |groups| groups.consumer_session_timeout,
};

/// All of them, by name.
pub const GROUP_SETTINGS: &[GroupSetting] = &[HEARTBEAT_INTERVAL, SESSION_TIMEOUT];

/// Kafka has them, and what they would be of is not served.
const OF_OTHERS: [(&str, &str); 3] = [
    ("share.", "share groups are not served"),
    ("streams.", "groups of the streams protocol are not served"),
    ("consumer.assignment.interval.ms", "what members are to have is decided with each change"),
];

impl GroupSetting {
    /// Kafka's type of it.
    pub fn kind(&self) -> Kind {
        Kind::Int
    }

    /// The value where a group has none of its own.
    pub fn default_value(&self, config: &Config) -> String {
        (self.default)(&config.groups).as_millis().to_string()
    }

    /// Whether a group may have this value.
    fn check(&self, value: &str, config: &Config) -> Result<(), TopicError> {
        let name = self.name;
        let wrong = |why: String| invalid(format!("Invalid value {value} for configuration {name}: {why}"));
        self.kind().check(value).map_err(wrong)?;
        let set = value.trim().parse().map_or(Duration::ZERO, Duration::from_millis);
        let (allowed, [min, max]) = ((self.allowed)(&config.groups), self.bounds);
        if set < *allowed.start() {
            return Err(invalid(format!("{name} must be greater than or equal to {min}")));
        }
        if set > *allowed.end() {
            return Err(invalid(format!("{name} must be less than or equal to {max}")));
        }
        Ok(())
    }

    /// What counts of a group that has these. What another broker allowed, or an older configuration, is kept within bounds.
    fn resolve(&self, configs: &Overrides, groups: &GroupsConfig) -> Duration {
        let set = configs.get(self.name).and_then(|value| value.trim().parse().ok());
        let allowed = (self.allowed)(groups);
        match set.map(Duration::from_millis) {
            Some(set) => set.clamp(*allowed.start(), *allowed.end()),
            None => (self.default)(groups),
        }
    }
}

fn invalid(why: String) -> TopicError {
    TopicError::InvalidConfig(why)
}

/// Whether a group may have all of these.
pub fn validate(configs: &Overrides, config: &Config) -> Result<(), TopicError> {
    for (name, value) in configs {
        let known = GROUP_SETTINGS.iter().find(|known| known.name == name);
        known.ok_or_else(|| unknown(name))?.check(value, config)?;
    }
    let times = GroupTimes::resolve(configs, &config.groups);
    if times.session_timeout <= times.heartbeat_interval {
        let (session, heartbeat) = (SESSION_TIMEOUT.name, HEARTBEAT_INTERVAL.name);
        return Err(invalid(format!("{session} must be greater than {heartbeat}")));
    }
    Ok(())
}

fn unknown(name: &str) -> TopicError {
    match OF_OTHERS.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        Some((_, why)) => invalid(format!("{name} cannot be set: {why}")),
        None => invalid(format!("Unknown group config name: {name}")),
    }
}

/// What the configurations of a group come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupTimes {
    /// A member that is silent for so long is gone.
    pub session_timeout: Duration,
    /// How often members are asked to be heard of.
    pub heartbeat_interval: Duration,
}

impl GroupTimes {
    /// Of a group that has these, on a broker with this configuration.
    pub fn resolve(configs: &Overrides, groups: &GroupsConfig) -> GroupTimes {
        GroupTimes {
            session_timeout: SESSION_TIMEOUT.resolve(configs, groups),
            heartbeat_interval: HEARTBEAT_INTERVAL.resolve(configs, groups),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kafka;

    fn configs(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_setting_has_names_that_brokers_have() {
        for known in GROUP_SETTINGS {
            for name in known.bounds.iter().chain([&known.of_broker]) {
                assert!(kafka::find(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn a_value_is_refused_in_kafkas_words() {
        let table = [
            ("consumer.session.timeout.ms", "60000", None),
            ("consumer.session.timeout.ms", "45000", None),
            (
                "consumer.session.timeout.ms",
                "44999",
                Some(
                    "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
                ),
            ),
            (
                "consumer.session.timeout.ms",
                "60001",
                Some(
                    "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms",
                ),
            ),
            (
                "consumer.session.timeout.ms",
                "x",
                Some(
                    "Invalid value x for configuration consumer.session.timeout.ms: Not a number of type INT",
                ),
            ),
            (
                "consumer.heartbeat.interval.ms",
                "1000",
                Some(
                    "consumer.heartbeat.interval.ms must be greater than or equal to group.consumer.min.heartbeat.interval.ms",
                ),
            ),
            ("consumer.heartbeat.interval.ms", "15000", None),
            ("nope", "1", Some("Unknown group config name: nope")),
            (
                "share.isolation.level",
                "1",
                Some("share.isolation.level cannot be set: share groups are not served"),
            ),
        ];
        for (name, value, expected) in table {
            let found =
                validate(&configs(&[(name, value)]), &Config::default()).err().map(|error| error.to_string());
            assert!(
                match (&found, expected) {
                    (None, None) => true,
                    (Some(found), Some(expected)) => found.contains(expected),
                    _ => false,
                },
                "{name}={value}: {found:?}"
            );
        }
    }

    #[test]
    fn a_session_outlasts_a_heartbeat_whichever_of_them_is_set() {
        let mut config = Config::default();
        config.groups.consumer_heartbeat_interval_max = Duration::from_secs(60);
        let both =
            configs(&[("consumer.session.timeout.ms", "50000"), ("consumer.heartbeat.interval.ms", "50000")]);
        assert!(validate(&both, &config).is_err());
        assert!(validate(&configs(&[("consumer.heartbeat.interval.ms", "45000")]), &config).is_err());
        assert!(validate(&configs(&[("consumer.heartbeat.interval.ms", "44000")]), &config).is_ok());
    }

    #[test]
    fn what_a_group_has_is_over_what_the_broker_has_and_within_its_bounds() {
        let groups = GroupsConfig::default();
        let default = GroupTimes {
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(5),
        };
        assert_eq!(GroupTimes::resolve(&Overrides::new(), &groups), default);
        let own = configs(&[("consumer.session.timeout.ms", "50000")]);
        let longer = GroupTimes { session_timeout: Duration::from_secs(50), ..default };
        assert_eq!(GroupTimes::resolve(&own, &groups), longer);
        let outside =
            configs(&[("consumer.session.timeout.ms", "1"), ("consumer.heartbeat.interval.ms", "99999")]);
        let within = GroupTimes { heartbeat_interval: Duration::from_secs(15), ..default };
        assert_eq!(GroupTimes::resolve(&outside, &groups), within);
    }
}
