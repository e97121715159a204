//! What groups of consumers are allowed, and how long is kept how far they are.

use std::time::Duration;

/// What groups of consumers are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupsConfig {
    /// The least that members of classic groups may ask for (`group.min.session.timeout.ms`).
    pub session_timeout_min: Duration,
    /// The most that they may ask for (`group.max.session.timeout.ms`).
    pub session_timeout_max: Duration,
    /// How long a classic group that was empty waits for more members (`group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay: Duration,
    /// Members of one classic group at most (`group.max.size`).
    pub members_max: usize,
    /// A member of a consumer group that is silent for so long is gone (`group.consumer.session.timeout.ms`).
    pub consumer_session_timeout: Duration,
    /// How often it is asked to be heard of (`group.consumer.heartbeat.interval.ms`).
    pub consumer_heartbeat_interval: Duration,
    /// The least that a group may have of its own instead (`group.consumer.min.session.timeout.ms`).
    pub consumer_session_timeout_min: Duration,
    /// The most that it may have (`group.consumer.max.session.timeout.ms`).
    pub consumer_session_timeout_max: Duration,
    /// The least that a group may have of its own instead (`group.consumer.min.heartbeat.interval.ms`).
    pub consumer_heartbeat_interval_min: Duration,
    /// The most that it may have (`group.consumer.max.heartbeat.interval.ms`).
    pub consumer_heartbeat_interval_max: Duration,
    /// Members of one consumer group at most (`group.consumer.max.size`).
    pub consumer_members_max: usize,
    /// Whether a group that has members goes from one protocol to the other (`group.consumer.migration.policy`).
    pub migration: MigrationPolicy,
}

/// Kafka's `group.consumer.migration.policy`. A group without members always goes by the protocol of who comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Who speaks the consumer protocol is refused while members of the classic one are there alone.
    Disabled,
    /// A classic group becomes a consumer group with the first member that speaks its protocol.
    Upgrade,
    /// A consumer group becomes a classic group when the last member that speaks its protocol has gone.
    Downgrade,
    /// Both.
    Bidirectional,
}

impl MigrationPolicy {
    const ALL: [MigrationPolicy; 4] = [
        MigrationPolicy::Disabled,
        MigrationPolicy::Upgrade,
        MigrationPolicy::Downgrade,
        MigrationPolicy::Bidirectional,
    ];

    /// Whether a classic group becomes a consumer group.
    pub fn upgrades(self) -> bool {
        matches!(self, MigrationPolicy::Upgrade | MigrationPolicy::Bidirectional)
    }

    /// Whether a consumer group becomes a classic group.
    pub fn downgrades(self) -> bool {
        matches!(self, MigrationPolicy::Downgrade | MigrationPolicy::Bidirectional)
    }

    /// Kafka's word for it.
    pub fn name(self) -> &'static str {
        match self {
            MigrationPolicy::Disabled => "disabled",
            MigrationPolicy::Upgrade => "upgrade",
            MigrationPolicy::Downgrade => "downgrade",
            MigrationPolicy::Bidirectional => "bidirectional",
        }
    }
}

impl std::str::FromStr for MigrationPolicy {
    type Err = String;

    /// Kafka's words, in letters of either case.
    fn from_str(text: &str) -> Result<MigrationPolicy, String> {
        let named = MigrationPolicy::ALL.into_iter().find(|policy| policy.name().eq_ignore_ascii_case(text));
        named.ok_or_else(|| {
            let names = MigrationPolicy::ALL.map(MigrationPolicy::name).join(", ");
            format!("must be one of {names}")
        })
    }
}

/// How far groups are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsConfig {
    /// How long offsets outlive the members of their group (`offsets.retention.minutes`).
    pub retention: Duration,
    /// How often it is looked for what may be forgotten (`offsets.retention.check.interval.ms`).
    pub retention_check_interval: Duration,
    /// What groups decide is durable by then, or has failed (`offsets.commit.timeout.ms`).
    pub commit_timeout: Duration,
    /// Largest text beside an offset, in bytes (`offset.metadata.max.bytes`).
    pub metadata_bytes_max: usize,
    /// Partitions of the topic, when it is created (`offsets.topic.num.partitions`).
    pub partitions: i32,
    /// Replicas of the topic, when it is created (`offsets.topic.replication.factor`), of as many as there are brokers.
    pub replication_factor: i16,
    /// Size of its segments, when it is created (`offsets.topic.segment.bytes`).
    pub segment_bytes: u64,
}

impl Default for GroupsConfig {
    fn default() -> GroupsConfig {
        GroupsConfig {
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(30 * 60),
            initial_rebalance_delay: Duration::from_secs(3),
            members_max: i32::MAX as usize,
            consumer_session_timeout: Duration::from_secs(45),
            consumer_heartbeat_interval: Duration::from_secs(5),
            consumer_session_timeout_min: Duration::from_secs(45),
            consumer_session_timeout_max: Duration::from_secs(60),
            consumer_heartbeat_interval_min: Duration::from_secs(5),
            consumer_heartbeat_interval_max: Duration::from_secs(15),
            consumer_members_max: i32::MAX as usize,
            migration: MigrationPolicy::Bidirectional,
        }
    }
}

impl Default for OffsetsConfig {
    fn default() -> OffsetsConfig {
        OffsetsConfig {
            retention: Duration::from_secs(7 * 86_400),
            retention_check_interval: Duration::from_secs(10 * 60),
            commit_timeout: Duration::from_secs(5),
            metadata_bytes_max: 4_096,
            partitions: 50,
            replication_factor: 3,
            segment_bytes: 100 << 20,
        }
    }
}

impl GroupsConfig {
    /// What is wrong with the values beside one another.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.session_timeout_min > self.session_timeout_max {
            return Err(
                "groups.session_timeout_min must not be longer than groups.session_timeout_max".into()
            );
        }
        if 2 * self.consumer_heartbeat_interval > self.consumer_session_timeout {
            return Err(
                "groups.consumer_session_timeout must be at least twice groups.consumer_heartbeat_interval: one lost heartbeat is no silence".into(),
            );
        }
        let session = self.consumer_session_timeout_min..=self.consumer_session_timeout_max;
        let heartbeat = self.consumer_heartbeat_interval_min..=self.consumer_heartbeat_interval_max;
        let bounded = [
            ("groups.consumer_session_timeout", session, self.consumer_session_timeout),
            ("groups.consumer_heartbeat_interval", heartbeat, self.consumer_heartbeat_interval),
        ];
        match bounded.into_iter().find(|(_, allowed, set)| !allowed.contains(set)) {
            Some((name, ..)) => Err(format!(
                "{name} must be between {name}_min and {name}_max, as what groups have of their own: set these too"
            )),
            None => Ok(()),
        }
    }
}
