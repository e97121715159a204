//! How partitions are kept in sync, and when the disk counts as standing still.

use std::time::Duration;

use super::super::values::{duration, shown};
use super::key::{DAY, Key};

/// In the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    key!(
        "replication.lag_max",
        "a follower whose disk has not come to where its leader's log ended so long ago leaves the in-sync replicas",
        "400ms..=10m",
        |c, v| {
            c.replication.lag_max = duration(v, Duration::from_millis(400), Duration::from_secs(600))?;
            Ok(())
        },
        |c| shown(c.replication.lag_max)
    ),
    key!(
        "stall.warn_after",
        "age of a disk operation that is logged",
        "10ms..=10m",
        |c, v| {
            c.stall.warn_after = duration(v, Duration::from_millis(10), Duration::from_secs(600))?;
            Ok(())
        },
        |c| shown(c.stall.warn_after)
    ),
    key!(
        "stall.stalled_after",
        "age of a disk operation at which nothing new is taken",
        "50ms..=10m",
        |c, v| {
            c.stall.stalled_after = duration(v, Duration::from_millis(50), Duration::from_secs(600))?;
            Ok(())
        },
        |c| shown(c.stall.stalled_after)
    ),
    key!(
        "stall.sample",
        "how often the age is looked at while an operation is in flight",
        "5ms..=1s",
        |c, v| {
            c.stall.sample = duration(v, Duration::from_millis(5), Duration::from_secs(1))?;
            Ok(())
        },
        |c| shown(c.stall.sample)
    ),
    key!(
        "stall.exit_after",
        "age of a disk operation at which the process ends (exit status 6), where other nodes lead all that it led; a node that is alone never does",
        "1s..=365d",
        |c, v| {
            c.stall.exit_after = duration(v, Duration::from_secs(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.stall.exit_after)
    ),
];
