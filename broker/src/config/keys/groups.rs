//! What groups of consumers are allowed, and how long is kept how far they are.

use std::time::Duration;

use super::super::values::{bytes, duration, number, shown};
use super::key::{DAY, Key, MS_MAX};

/// In the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    key!(
        "groups.session_timeout_min",
        "the least session time-out that members of classic groups may ask for",
        "1ms..=365d",
        |c, v| {
            c.groups.session_timeout_min = duration(v, Duration::from_millis(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.groups.session_timeout_min)
    ),
    key!(
        "groups.session_timeout_max",
        "the longest session time-out that members of classic groups may ask for",
        "1ms..=365d",
        |c, v| {
            c.groups.session_timeout_max = duration(v, Duration::from_millis(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.groups.session_timeout_max)
    ),
    key!(
        "groups.initial_rebalance_delay",
        "how long a classic group that was empty waits for more members before it assigns; 0ms: not at all",
        "0ms..=1h",
        |c, v| {
            c.groups.initial_rebalance_delay = duration(v, Duration::ZERO, Duration::from_secs(3_600))?;
            Ok(())
        },
        |c| shown(c.groups.initial_rebalance_delay)
    ),
    key!(
        "groups.members_max",
        "members of one classic group at most",
        "1..=2147483647",
        |c, v| {
            c.groups.members_max = number(v, 1, i32::MAX as usize)?;
            Ok(())
        },
        |c| c.groups.members_max.to_string()
    ),
    key!(
        "groups.consumer_session_timeout",
        "a member of a consumer group (KIP-848) that is silent for so long is gone",
        "1ms..=365d",
        |c, v| {
            c.groups.consumer_session_timeout = duration(v, Duration::from_millis(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.groups.consumer_session_timeout)
    ),
    key!(
        "groups.consumer_heartbeat_interval",
        "how often members of consumer groups are asked to be heard of",
        "1ms..=1h",
        |c, v| {
            c.groups.consumer_heartbeat_interval =
                duration(v, Duration::from_millis(1), Duration::from_secs(3_600))?;
            Ok(())
        },
        |c| shown(c.groups.consumer_heartbeat_interval)
    ),
    key!(
        "groups.consumer_session_timeout_min",
        "the least session time-out that a consumer group may have of its own",
        "1ms..=365d",
        |c, v| {
            c.groups.consumer_session_timeout_min = duration(v, Duration::from_millis(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.groups.consumer_session_timeout_min)
    ),
    key!(
        "groups.consumer_session_timeout_max",
        "the longest session time-out that a consumer group may have of its own",
        "1ms..=365d",
        |c, v| {
            c.groups.consumer_session_timeout_max = duration(v, Duration::from_millis(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.groups.consumer_session_timeout_max)
    ),
    key!(
        "groups.consumer_heartbeat_interval_min",
        "the least heartbeat interval that a consumer group may have of its own",
        "1ms..=1h",
        |c, v| {
            c.groups.consumer_heartbeat_interval_min =
                duration(v, Duration::from_millis(1), Duration::from_secs(3_600))?;
            Ok(())
        },
        |c| shown(c.groups.consumer_heartbeat_interval_min)
    ),
    key!(
        "groups.consumer_heartbeat_interval_max",
        "the longest heartbeat interval that a consumer group may have of its own",
        "1ms..=1h",
        |c, v| {
            c.groups.consumer_heartbeat_interval_max =
                duration(v, Duration::from_millis(1), Duration::from_secs(3_600))?;
            Ok(())
        },
        |c| shown(c.groups.consumer_heartbeat_interval_max)
    ),
    key!(
        "groups.consumer_members_max",
        "members of one consumer group at most",
        "1..=2147483647",
        |c, v| {
            c.groups.consumer_members_max = number(v, 1, i32::MAX as usize)?;
            Ok(())
        },
        |c| c.groups.consumer_members_max.to_string()
    ),
    key!(
        "groups.consumer_migration",
        "whether a group that has members goes from the classic protocol to the consumer protocol with the first member that speaks it (upgrade), and back when the last such has gone (downgrade); a group without members goes by the protocol of who comes first",
        "disabled, upgrade, downgrade, bidirectional",
        |c, v| {
            c.groups.migration = v.parse()?;
            Ok(())
        },
        |c| c.groups.migration.name().to_owned()
    ),
    key!(
        "offsets.retention",
        "how long offsets are kept that a group committed, once it has no members; of who assigns itself, since the commit",
        "1m..=9223372036854775807ms",
        |c, v| {
            c.offsets.retention = duration(v, Duration::from_secs(60), MS_MAX)?;
            Ok(())
        },
        |c| shown(c.offsets.retention)
    ),
    key!(
        "offsets.retention_check_interval",
        "how often it is looked for offsets that may be forgotten",
        "1ms..=365d",
        |c, v| {
            c.offsets.retention_check_interval = duration(v, Duration::from_millis(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.offsets.retention_check_interval)
    ),
    key!(
        "offsets.commit_timeout",
        "what groups decide is durable on all replicas in sync by then, or answered as failed",
        "1ms..=1h",
        |c, v| {
            c.offsets.commit_timeout = duration(v, Duration::from_millis(1), Duration::from_secs(3_600))?;
            Ok(())
        },
        |c| shown(c.offsets.commit_timeout)
    ),
    key!(
        "offsets.metadata_bytes_max",
        "largest text that a consumer may keep beside an offset",
        "0 B..=8 KiB",
        |c, v| {
            c.offsets.metadata_bytes_max = bytes(v, 0, crate::limits::GROUP_TEXT_BYTES_MAX as u64)? as usize;
            Ok(())
        },
        |c| c.offsets.metadata_bytes_max.to_string()
    ),
    key!(
        "offsets.partitions",
        "partitions of __consumer_offsets, when it is created",
        "1..=10000",
        |c, v| {
            c.offsets.partitions = number(v, 1, 10_000)?;
            Ok(())
        },
        |c| c.offsets.partitions.to_string()
    ),
    key!(
        "offsets.replication_factor",
        "replicas of __consumer_offsets, when it is created; where there are fewer brokers, as many as there are",
        "1..=32",
        |c, v| {
            c.offsets.replication_factor = number(v, 1, 32)?;
            Ok(())
        },
        |c| c.offsets.replication_factor.to_string()
    ),
    key!(
        "offsets.segment_bytes",
        "size of the segments of __consumer_offsets, when it is created",
        "64 KiB..=2 GiB",
        |c, v| {
            c.offsets.segment_bytes = bytes(v, 64 << 10, 2 << 30)?;
            Ok(())
        },
        |c| c.offsets.segment_bytes.to_string()
    ),
];
