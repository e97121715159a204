//! How compacted logs are cleaned.

use std::time::Duration;

use super::super::values::{bytes, duration, or_none, ratio, shown, shown_or, shown_ratio};
use super::key::{DAY, GIB, Key, MS_MAX};

/// In the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    key!(
        "cleaner.policy",
        "what happens to old data, where a topic does not say: it is deleted after retention, or of each key the last record is kept, or both",
        "delete, compact, or both with a comma",
        |c, v| {
            c.cleaner.policy = v.parse()?;
            Ok(())
        },
        |c| c.cleaner.policy.to_string()
    ),
    key!(
        "cleaner.min_dirty_ratio",
        "a compacted log is cleaned when more than this part of it never was, where its topic does not say",
        "0..=1",
        |c, v| {
            c.cleaner.min_dirty_ppm = ratio(v)?;
            Ok(())
        },
        |c| shown_ratio(c.cleaner.min_dirty_ppm)
    ),
    key!(
        "cleaner.min_lag",
        "younger records are not cleaned, where a topic does not say",
        "0ms..=9223372036854775807ms",
        |c, v| {
            c.cleaner.min_lag = duration(v, Duration::ZERO, MS_MAX)?;
            Ok(())
        },
        |c| shown(c.cleaner.min_lag)
    ),
    key!(
        "cleaner.max_lag",
        "no record waits longer to be cleaned, where a topic does not say",
        "1ms..=9223372036854775807ms, or unlimited (-1)",
        |c, v| {
            c.cleaner.max_lag = or_none(v, "unlimited", |v| duration(v, Duration::from_millis(1), MS_MAX))?;
            Ok(())
        },
        |c| shown_or(c.cleaner.max_lag.map(shown), "unlimited")
    ),
    key!(
        "cleaner.delete_retention",
        "how long tombstones stay after they were cleaned for the first time, where a topic does not say, and at least until all replicas have them",
        "0ms..=9223372036854775807ms",
        |c, v| {
            c.cleaner.delete_retention = duration(v, Duration::ZERO, MS_MAX)?;
            Ok(())
        },
        |c| shown(c.cleaner.delete_retention)
    ),
    key!(
        "cleaner.memory_bytes",
        "most memory for the keys of what is cleaned, about 29 bytes each; more keys wait for another round",
        "1 KiB..=64 GiB",
        |c, v| {
            c.cleaner.memory_bytes = bytes(v, 1 << 10, 64 * GIB)? as usize;
            Ok(())
        },
        |c| c.cleaner.memory_bytes.to_string()
    ),
    key!(
        "cleaner.bytes_per_s",
        "what cleaning reads and writes a second, on average, in the whole node",
        "64 KiB..=64 GiB",
        |c, v| {
            c.cleaner.bytes_per_s = bytes(v, 64 << 10, 64 * GIB)?;
            Ok(())
        },
        |c| c.cleaner.bytes_per_s.to_string()
    ),
    key!(
        "cleaner.pause",
        "a partition that was cleaned is not cleaned again sooner",
        "1ms..=365d",
        |c, v| {
            c.cleaner.pause = duration(v, Duration::from_millis(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.cleaner.pause)
    ),
];
