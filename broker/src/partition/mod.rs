//! The partition: gives records their offsets, decides when they are acknowledged, serves readers.
//!
//! Hot state has one owner, the task `partition[<topic>-<index>]`; [`PartitionHandle`] is its only handle.

use bytes::Bytes;

use crate::ids::{BrokerId, LeaderEpoch, Offset, PartitionId, ProducerId};
use crate::log::producers::SequenceError;

mod first_refused;
mod log_signal;
mod schedule;
mod retention;
pub mod replica_state;
mod owner;
mod handle;
mod open;
#[cfg(test)]
mod tests;

pub use first_refused::{Destination, FirstRefused};
pub use handle::{FollowerPlan, PartitionHandle, PendingAppend};
pub use log_signal::{Durable, LogListener, LogSignal, LogState};
pub use open::{EntriesError, OpenPartition, PartitionOpenError, open};
pub use replica_state::{FollowError, InSync};
pub use retention::{DeadFiles, DeleteRecordsError, Retained};
pub use schedule::{Due, DueSchedule, Schedules};

/// When an append is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Kafka's acks=0: the client is told nothing, and does not wait.
    None,
    /// Kafka's acks=1: when this node has synced the records.
    Leader,
    /// Kafka's acks=all (-1): when all in sync have, and the high watermark is behind them.
    All,
}

/// Who is told of what fails although no acknowledgement was asked for. Must not wait.
pub trait Unacknowledged: Send + Sync {
    /// An append with acks=0 came to nothing, or nobody knows; Kafka closes the connection then.
    fn failed(&self, error: &AppendError);
}

/// Where an append's records stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the first record; -1 where the client asked for no answer.
    pub base_offset: Offset,
    /// Where the log starts, as of the answer; -1 where the client asked for no answer.
    pub log_start: Offset,
    /// The broker's time, for topics with `LogAppendTime`; -1 otherwise.
    pub log_append_time_ms: i64,
    /// It had been there before: a retry of an idempotent producer.
    pub duplicate: bool,
}

/// Why records were not appended, or not known to be. Mapped to Kafka's codes in `error_codes`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Another broker leads, or none yet. Nothing was written.
    #[error("this node does not lead {0}")]
    NotLeader(PartitionId),
    /// The journal or the admission refused it. Nothing was written.
    #[error("the storage takes nothing now: {0}")]
    Storage(crate::journal::SubmitError),
    /// Nothing was written.
    #[error("no room in time; nothing was written, so it may be sent again")]
    Overloaded,
    /// Too few are in sync for what is appended to be committed, and it was to be, or too much waits for that already. Nothing
    /// was written.
    #[error("too few replicas are in sync")]
    NotEnoughReplicas,
    /// It was submitted; whether it is or will be durable is not known.
    #[error("the outcome is not known within the deadline")]
    Unknown,
    /// An idempotent producer's batch does not follow its last one, at whose end `expected` comes (KIP-98).
    /// Nothing was written.
    #[error("sequence {found} of producer {producer} does not follow {expected}")]
    OutOfOrderSequence { producer: ProducerId, expected: i32, found: i32 },
    /// A later life of the producer, `current`, has been seen here (KIP-98). Nothing was written.
    #[error("epoch {found} of producer {producer} is older than {current}")]
    ProducerFenced { producer: ProducerId, current: i16, found: i16 },
    /// The partition was closed: its topic is deleted, it moved to other nodes, or this one stops. Nothing was written.
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
    /// Whether this node leads, under an epoch granted to this process: only then it takes records.
    pub leading: bool,
    /// Whether it follows whoever leads: consumers may read what it knows to be committed (KIP-392).
    pub following: bool,
    /// The epoch in which it leads or follows; where it does neither, the latest that the log knows.
    pub leader_epoch: LeaderEpoch,
    /// Kafka's log start offset: earlier records are deleted.
    pub log_start: Offset,
    /// Kafka's high watermark: consumers see records before it.
    pub high_watermark: Offset,
    /// Kafka's last stable offset: readers of committed transactions see records before it.
    pub last_stable: Offset,
    /// Kafka's log end offset: what the next record gets.
    pub log_end: Offset,
}

/// What a fetch wants of one partition.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// The first offset that is wanted; the batch that has it is given whole.
    pub from: Offset,
    /// Bytes of batches at most.
    pub max_bytes: usize,
    /// The first batch is given even where it is larger than `max_bytes`.
    pub at_least_one: bool,
    /// Consumers see up to the high watermark, or the last stable offset.
    pub read_committed: bool,
    /// The epoch the client believes in, if it said.
    pub current_epoch: Option<LeaderEpoch>,
}

/// What a fetch is given of one partition.
#[derive(Clone, Debug)]
pub struct ReadOutcome {
    /// As of when the read was planned.
    pub view: PartitionView,
    /// Whole batches, in order.
    pub batches: Vec<Bytes>,
}

/// What a follower asks its leader for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerRead {
    /// Who asks.
    pub follower: BrokerId,
    /// The epoch of the leader that it follows.
    pub epoch: LeaderEpoch,
    /// The epoch of its last record; none where it has no record.
    pub last_fetched_epoch: LeaderEpoch,
    /// Where its log ends.
    pub from: Offset,
    /// Bytes of batches at most.
    pub max_bytes: usize,
    /// The first batch is given even where it is larger than `max_bytes`.
    pub at_least_one: bool,
}

/// What a leader says of its log beside records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderMarks {
    /// Kafka's high watermark.
    pub high_watermark: Offset,
    /// Where the log starts.
    pub log_start: Offset,
    /// All replicas, in sync or not, have everything before on their disks, as far as is known.
    pub held_by_all: Offset,
}

impl LeaderMarks {
    /// Whether a follower that was told `told` hears of this without waiting for records: at once where it knows too much, and not
    /// of each step of another one that catches up.
    pub fn is_news_after(&self, told: LeaderMarks) -> bool {
        let is_held = self.held_by_all >= self.high_watermark;
        self.high_watermark > told.high_watermark
            || self.log_start > told.log_start
            || self.held_by_all < told.held_by_all
            || (is_held && self.held_by_all > told.held_by_all)
    }
}

/// What a follower's fetch came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// What follows in the leader's log, in whole batches; nothing where nothing does yet.
    Records {
        /// Each with one batch or more, one after the other.
        batches: Vec<Bytes>,
        /// Of the leader's log.
        marks: LeaderMarks,
    },
    /// What was asked from is not in the leader's log: there `epoch`, or the largest one before it, ends at `end` (KIP-595).
    Diverging {
        /// The largest epoch of the leader's log that is not above the one that was asked with.
        epoch: LeaderEpoch,
        /// The offset after its last record there.
        end: Offset,
    },
    /// What the follower has is deleted: the first batch that the leader has begins there, or its log does, where it is empty.
    BeginsLater {
        /// The offset.
        at: Offset,
    },
}

/// Why a read, or a search, gives nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The offset asked for is before the log's start or behind its end: what was asked for, and both of
    /// these.
    #[error("offset {0:?} is out of range {1:?}..={2:?}")]
    OutOfRange(Offset, Offset, Offset),
    /// Another broker leads, or none yet.
    #[error("this node does not lead the partition")]
    NotLeader,
    /// The leader is new and does not know yet where what earlier epochs committed ends (KIP-207): asked later, it does.
    #[error("the high watermark is not known yet in this leader epoch")]
    NotYetKnown,
    /// Kafka's fencing (KIP-320): the client has not heard of the latest leader, and asks for metadata anew.
    #[error("the client's leader epoch is older than ours")]
    FencedEpoch,
    /// Kafka's fencing (KIP-320): this node has not heard of the latest leader, and the client asks again.
    #[error("the client's leader epoch is newer than ours")]
    UnknownEpoch,
    /// The owner or the disk did not answer in time, or the disk failed. It may be asked for again.
    #[error("the disk did not answer in time, or failed: {0}")]
    Storage(String),
    /// Damage below the high watermark: said, and never served.
    #[error("{0}")]
    Corrupt(String),
    /// The partition was closed: its topic is deleted, it moved to other nodes, or this one stops.
    #[error("the partition is gone")]
    Gone,
}

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// Where the log starts, on local disks and at all: there are no others.
    Earliest,
    /// The end of what readers see: the high watermark, or the last stable offset with `read_committed`.
    Latest { read_committed: bool },
    /// The record with the largest timestamp (KIP-734).
    MaxTimestamp,
    /// The first record whose timestamp is not older.
    Timestamp(i64),
}

/// An answer to an [`OffsetQuery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetFound {
    /// The offset.
    pub offset: Offset,
    /// -1 where there is none.
    pub timestamp: i64,
    /// The epoch in which the record there was appended.
    pub leader_epoch: LeaderEpoch,
}
