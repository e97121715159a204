//! The partition: gives records their offsets, decides when they are acknowledged, serves readers.
//!
//! Hot state has one owner, the task `partition[<topic>-<index>]`; [`PartitionHandle`] is its only door.

use bytes::Bytes;

use crate::ids::{LeaderEpoch, Offset, PartitionId, ProducerId};
use crate::log::producers::SequenceError;

mod first_refused;
mod schedule;
mod retention;
pub mod machine;
mod owner;
mod handle;
mod open;
#[cfg(test)]
mod tests;

pub use first_refused::FirstRefused;
pub use handle::{PartitionHandle, PendingAppend};
pub use open::{EntriesError, OpenPartition, PartitionOpenError, open};
pub use retention::{DeadFiles, DeleteRecordsError};
pub use schedule::{Due, RetentionSchedule};

/// When an append is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    None,
    Leader,
    All,
}

/// Who is told of what fails although no acknowledgement was asked for. Must not wait.
pub trait Unacknowledged: Send + Sync {
    fn failed(&self, error: &AppendError);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    pub log_start: Offset,
    /// The broker's time, for topics with `LogAppendTime`; -1 otherwise.
    pub log_append_time_ms: i64,
    /// It had been there before: a retry of an idempotent producer.
    pub duplicate: bool,
}

/// Why records were not appended, or not known to be. Mapped to Kafka's codes in `wire`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("this node does not lead {0}")]
    NotLeader(PartitionId),
    #[error("the storage takes nothing now: {0}")]
    Storage(crate::journal::SubmitError),
    /// Nothing was written.
    #[error("no room in time; nothing was written, so it may be sent again")]
    Overloaded,
    /// It was submitted; whether it is or will be durable is not known.
    #[error("the outcome is not known within the deadline")]
    Unknown,
    #[error("sequence {found} of producer {producer} does not follow {expected}")]
    OutOfOrderSequence { producer: ProducerId, expected: i32, found: i32 },
    #[error("epoch {found} of producer {producer} is older than {current}")]
    ProducerFenced { producer: ProducerId, current: i16, found: i16 },
    #[error("the partition is gone")]
    Gone,
}

impl From<SequenceError> for AppendError {
    fn from(error: SequenceError) -> AppendError {
        match error {
            SequenceError::OutOfOrder { producer, expected, found } => {
                AppendError::OutOfOrderSequence { producer, expected, found }
            }
            SequenceError::Fenced { producer, current, found } => {
                AppendError::ProducerFenced { producer, current, found }
            }
            SequenceError::TooManyProducers => AppendError::Overloaded,
        }
    }
}

/// What readers may see, published after each change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionView {
    pub leading: bool,
    pub leader_epoch: LeaderEpoch,
    pub log_start: Offset,
    pub high_watermark: Offset,
    pub last_stable: Offset,
    pub log_end: Offset,
}

#[derive(Clone, Debug)]
pub struct ReadRequest {
    pub from: Offset,
    pub max_bytes: usize,
    /// The first batch is given even where it is larger than `max_bytes`.
    pub at_least_one: bool,
    /// Consumers see up to the high watermark, or the last stable offset.
    pub read_committed: bool,
    /// The epoch the client believes in, if it said.
    pub current_epoch: Option<LeaderEpoch>,
}

#[derive(Clone, Debug)]
pub struct ReadOutcome {
    pub view: PartitionView,
    /// Whole batches, in order.
    pub batches: Vec<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("offset {0:?} is out of range {1:?}..={2:?}")]
    OutOfRange(Offset, Offset, Offset),
    #[error("this node does not lead the partition")]
    NotLeader,
    #[error("the client's leader epoch is older than ours")]
    FencedEpoch,
    #[error("the client's leader epoch is newer than ours")]
    UnknownEpoch,
    #[error("the disk did not answer in time, or failed: {0}")]
    Storage(String),
    /// Damage below the high watermark: said, and never served.
    #[error("{0}")]
    Corrupt(String),
    #[error("the partition is gone")]
    Gone,
}

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// Where the log starts, on local disks and at all: there are no others.
    Earliest,
    Latest {
        read_committed: bool,
    },
    MaxTimestamp,
    /// The first record whose timestamp is not older.
    Timestamp(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetFound {
    pub offset: Offset,
    /// -1 where there is none.
    pub timestamp: i64,
    pub leader_epoch: LeaderEpoch,
}
