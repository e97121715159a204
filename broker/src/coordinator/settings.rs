//! What the operator allows to groups, and how long things are kept, as Kafka has it where nothing is set.

use std::time::Duration;

use super::assignor::Assignor;
use super::{classic, consumer};

/// In effect now: all of it may be changed while the node runs.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// What members of classic groups may ask for.
    pub classic: classic::Settings,
    /// What members of consumer groups may ask for.
    pub consumer: consumer::Settings,
    /// A group that nobody is in keeps its offsets so long (`offsets.retention.minutes`).
    pub offsets_retention: Duration,
    /// How often it is looked for what may be forgotten (`offsets.retention.check.interval.ms`).
    pub retention_check_interval: Duration,
    /// A commit or an assignment that is not committed by then is answered as failed (`offsets.commit.timeout.ms`).
    pub commit_timeout: Duration,
}

impl Default for GroupSettings {
    fn default() -> Self {
        GroupSettings {
            classic: classic::Settings {
                session_timeout: Duration::from_secs(6)..=Duration::from_secs(30 * 60),
                initial_rebalance_delay: Duration::from_secs(3),
                members_max: i32::MAX as usize,
            },
            consumer: consumer::Settings {
                session_timeout: Duration::from_secs(45),
                heartbeat_interval: Duration::from_secs(5),
                members_max: i32::MAX as usize,
                assignor: Assignor::Uniform,
            },
            offsets_retention: Duration::from_secs(7 * 24 * 3_600),
            retention_check_interval: Duration::from_secs(600),
            commit_timeout: Duration::from_secs(5),
        }
    }
}
