//! How records are made durable, and how logs are kept.

use std::time::Duration;

use super::super::values::{bytes, duration, number, or_none, shown, shown_or};
use super::key::{DAY, GIB, Key, MS_MAX};

/// In the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    key!(
        "journal.profile",
        "preset of the journal numbers below, which override it",
        "low-latency, balanced, throughput",
        |c, v| {
            let profile = v.parse()?;
            c.apply_profile(profile);
            Ok(())
        },
        |c| c.journal.profile.name().into()
    ),
    key!(
        "journal.file_bytes",
        "size of a journal file; two are prefilled at the first start",
        "1 MiB..=4 GiB",
        |c, v| {
            c.journal.file_bytes = bytes(v, 1 << 20, 4 * GIB)? as usize;
            Ok(())
        },
        |c| c.journal.file_bytes.to_string()
    ),
    key!(
        "journal.max_batch_records",
        "entries of one commit group at most",
        "1..=1000000",
        |c, v| {
            c.journal.max_batch_records = number(v, 1, 1_000_000)?;
            Ok(())
        },
        |c| c.journal.max_batch_records.to_string()
    ),
    key!(
        "journal.max_batch_bytes",
        "bytes of one commit group at most",
        "64 KiB..=1 GiB",
        |c, v| {
            c.journal.max_batch_bytes = bytes(v, 64 << 10, GIB)? as usize;
            Ok(())
        },
        |c| c.journal.max_batch_bytes.to_string()
    ),
    key!(
        "journal.queue_records",
        "entries that wait for a commit at most",
        "1..=10000000",
        |c, v| {
            c.journal.queue_records = number(v, 1, 10_000_000)?;
            Ok(())
        },
        |c| c.journal.queue_records.to_string()
    ),
    key!(
        "journal.queue_bytes",
        "bytes that wait for a commit at most",
        "1 MiB..=16 GiB",
        |c, v| {
            c.journal.queue_bytes = bytes(v, 1 << 20, 16 * GIB)? as usize;
            Ok(())
        },
        |c| c.journal.queue_bytes.to_string()
    ),
    key!(
        "journal.linger",
        "how long a commit waits for company; costs latency, gains throughput",
        "0ms..=1s",
        |c, v| {
            c.journal.linger = duration(v, Duration::ZERO, Duration::from_secs(1))?;
            Ok(())
        },
        |c| shown(c.journal.linger)
    ),
    key!(
        "journal.checkpoint_bytes",
        "journal written since the last checkpoint that starts the next one",
        "1 MiB..=64 GiB",
        |c, v| {
            c.journal.checkpoint_bytes = bytes(v, 1 << 20, 64 * GIB)?;
            Ok(())
        },
        |c| c.journal.checkpoint_bytes.to_string()
    ),
    key!(
        "metadata.snapshot_entries",
        "entries of the metadata's Raft log after which a snapshot is taken, however small they are",
        "1..=1000000",
        |c, v| {
            c.metadata.snapshot_entries = number(v, 1, 1_000_000)?;
            Ok(())
        },
        |c| c.metadata.snapshot_entries.to_string()
    ),
    key!(
        "log.segment_bytes",
        "size at which a new segment begins",
        "64 KiB..=2 GiB",
        |c, v| {
            c.log.segment_bytes = bytes(v, 64 << 10, 2 * GIB)?;
            Ok(())
        },
        |c| c.log.segment_bytes.to_string()
    ),
    key!(
        "log.segment_age",
        "age at which a new segment begins",
        "1s..=365d",
        |c, v| {
            c.log.segment_age = duration(v, Duration::from_secs(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.log.segment_age)
    ),
    key!(
        "log.index_interval_bytes",
        "bytes of log between two index entries",
        "256 B..=1 MiB",
        |c, v| {
            c.log.index_interval_bytes = bytes(v, 256, 1 << 20)? as usize;
            Ok(())
        },
        |c| c.log.index_interval_bytes.to_string()
    ),
    key!(
        "log.open_files",
        "segment files that stay open for readers, in the whole node; never more than a quarter of the process's descriptors",
        "1..=1000000",
        |c, v| {
            c.log.open_files = number(v, 1, 1_000_000)?;
            Ok(())
        },
        |c| c.log.open_files.to_string()
    ),
    key!(
        "log.retention",
        "how long records are kept at least, where a topic does not say",
        "1ms..=9223372036854775807ms, or forever (-1)",
        |c, v| {
            c.log.retention = or_none(v, "forever", |v| duration(v, Duration::from_millis(1), MS_MAX))?;
            Ok(())
        },
        |c| shown_or(c.log.retention.map(shown), "forever")
    ),
    key!(
        "log.retention_bytes",
        "most bytes kept of a partition, where its topic does not say",
        "0..=8 EiB, or unlimited (-1)",
        |c, v| {
            c.log.retention_bytes = or_none(v, "unlimited", |v| bytes(v, 0, i64::MAX as u64))?;
            Ok(())
        },
        |c| shown_or(c.log.retention_bytes, "unlimited")
    ),
    key!(
        "log.file_delete_delay",
        "how long the files of a segment outlive it, where a topic does not say",
        "0ms..=365d",
        |c, v| {
            c.log.file_delete_delay = duration(v, Duration::ZERO, 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.log.file_delete_delay)
    ),
    key!(
        "log.retention_check_interval",
        "how often it is looked for segments that may go",
        "1ms..=365d",
        |c, v| {
            c.log.retention_check_interval = duration(v, Duration::from_millis(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.log.retention_check_interval)
    ),
    key!(
        "log.timestamp_type",
        "whose time a record carries, its producer's or the broker's, where a topic does not say",
        "CreateTime, LogAppendTime",
        |c, v| {
            c.log.timestamp_type = v.parse()?;
            Ok(())
        },
        |c| c.log.timestamp_type.name().into()
    ),
    key!(
        "log.timestamp_before_max",
        "how far a producer's time may lie behind the broker's clock, where a topic does not say",
        "0ms..=9223372036854775807ms, or unlimited (-1)",
        |c, v| {
            c.log.timestamp_before_max = or_none(v, "unlimited", |v| duration(v, Duration::ZERO, MS_MAX))?;
            Ok(())
        },
        |c| shown_or(c.log.timestamp_before_max.map(shown), "unlimited")
    ),
    key!(
        "log.timestamp_after_max",
        "how far a producer's time may lie ahead of the broker's clock, where a topic does not say",
        "0ms..=9223372036854775807ms, or unlimited (-1)",
        |c, v| {
            c.log.timestamp_after_max = or_none(v, "unlimited", |v| duration(v, Duration::ZERO, MS_MAX))?;
            Ok(())
        },
        |c| shown_or(c.log.timestamp_after_max.map(shown), "unlimited")
    ),
];
