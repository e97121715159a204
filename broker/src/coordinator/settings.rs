//! What the operator allows to groups, and how long things are kept, as the node is configured.

use std::time::Duration;

use super::assignor::Assignor;
use super::{classic, consumer};
use crate::config::dynamic::Overrides;
use crate::config::{Config, GroupsConfig, MigrationPolicy};
use crate::metadata::group_configs::GroupTimes;

/// In effect now: all of it may be changed while the node runs.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// What members of classic groups may ask for.
    pub classic: classic::Settings,
    /// How groups go from one protocol to the other (`group.consumer.migration.policy`).
    pub migration: MigrationPolicy,
    /// What groups have that have no configurations of their own.
    pub groups: GroupsConfig,
    /// A group that nobody is in keeps its offsets so long (`offsets.retention.minutes`).
    pub offsets_retention: Duration,
    /// How often it is looked for what may be forgotten (`offsets.retention.check.interval.ms`).
    pub retention_check_interval: Duration,
    /// A commit or an assignment that is not committed by then is answered as failed (`offsets.commit.timeout.ms`).
    pub commit_timeout: Duration,
}

impl GroupSettings {
    /// As a node's configuration has them.
    pub fn of(config: &Config) -> Self {
        let (groups, offsets) = (&config.groups, &config.offsets);
        GroupSettings {
            classic: classic::Settings {
                session_timeout: groups.session_timeout_min..=groups.session_timeout_max,
                initial_rebalance_delay: groups.initial_rebalance_delay,
                members_max: groups.members_max,
            },
            migration: groups.migration,
            groups: groups.clone(),
            offsets_retention: offsets.retention,
            retention_check_interval: offsets.retention_check_interval,
            commit_timeout: offsets.commit_timeout,
        }
    }

    /// What members of a consumer group that has these configurations may ask for.
    pub fn of_consumer_group(&self, own: Option<&Overrides>) -> consumer::Settings {
        let none = Overrides::new();
        let times = GroupTimes::resolve(own.unwrap_or(&none), &self.groups);
        consumer::Settings {
            session_timeout: times.session_timeout,
            heartbeat_interval: times.heartbeat_interval,
            members_max: self.groups.consumer_members_max,
            assignor: Assignor::Uniform,
        }
    }
}
