//! The partition log: what consumers read. Filled from the journal, never ahead of it.
//!
//! A record batch is durable in the journal first and stays in the [`tail`] in memory until a
//! [`checkpoint`] has brought it into a [`segment`] file and synced that. Segments are written only by
//! a checkpoint, so they need no recovery of their own: at start they are cut back to the last recorded
//! checkpoint and the journal is replayed on top ([`open`]). What [`retention`] lets go of leaves at the beginning, by
//! whole segments; [`cleaning`] makes segments anew in which each key has its last record.
//!
//! Invariants: bytes of a segment beyond its synced length are never served; a file whose sync failed
//! or did not end in time is never written again; indexes can be rebuilt from the segments; a batch read
//! from disk is served only when its checksum holds.

pub mod batch;
pub mod codec;
pub mod encoder;
pub(crate) mod epochs;
pub mod index;
pub(crate) mod open_files;
pub(crate) mod producers;
pub(crate) mod records;
pub(crate) mod retention;
pub mod segment;
mod mark;
pub(crate) mod snapshot;
pub(crate) mod tail;
pub(crate) mod writing;
pub(crate) mod checkpoint;
pub(crate) mod open;
pub(crate) mod read;
pub(crate) mod search;
pub(crate) mod cleaning;
pub(crate) mod validate;
pub(crate) mod inner;

#[cfg(test)]
pub(crate) mod test_batches;

use std::time::Duration;

pub use mark::CheckpointMark;

/// How a partition keeps its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A new segment file begins when the current one would grow beyond this.
    pub segment_bytes: u64,
    /// A new segment file begins with a record that is so much newer than the first one of the current file; where records
    /// have no times, when the current file is older than this.
    pub segment_age: Duration,
    /// Bytes between two entries of an index file.
    pub index_interval_bytes: u64,
    /// Records carry the broker's time instead of the producer's (`message.timestamp.type`).
    pub log_append_time: bool,
    /// What may be deleted, and when (`retention.ms`, `retention.bytes`, `file.delete.delay.ms`).
    pub retention: Retention,
    /// Of each key only the last record is kept (`cleanup.policy` has `compact`).
    pub compaction: Option<Compaction>,
}

/// When a compacted partition is cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// It is due when more than so many millionths of what may be cleaned never were (`min.cleanable.dirty.ratio`).
    pub min_dirty_ppm: u32,
    /// Younger records are left alone (`min.compaction.lag.ms`).
    pub min_lag: Duration,
    /// A record waits no longer (`max.compaction.lag.ms`); `None`: no bound.
    pub max_lag: Option<Duration>,
    /// How long tombstones stay after they were cleaned for the first time (`delete.retention.ms`).
    pub delete_retention: Duration,
}

/// How long and how much a partition keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// None: for ever.
    pub time: Option<Duration>,
    /// None: no limit.
    pub bytes: Option<u64>,
    /// How long a segment's files outlive the segment.
    pub file_delete_delay: Duration,
}

impl Retention {
    /// Everything stays.
    pub const FOREVER: Retention = Retention { time: None, bytes: None, file_delete_delay: Duration::ZERO };
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            segment_bytes: 512 << 20,
            segment_age: Duration::from_secs(30 * 60),
            index_interval_bytes: 4096,
            log_append_time: false,
            retention: Retention::FOREVER,
            compaction: None,
        }
    }
}
