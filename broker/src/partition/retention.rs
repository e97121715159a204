//! How a partition's beginning goes: the steps of its owner, and what is told of them.
//!
//! 1. The start of the log moves in the journal: an entry of its own, synced ([`super::replica_state`]). Only then it is
//!    published. A crash before leaves all as it was; after it, replay moves it again. Followers hear of it with their
//!    next fetch and do the same, and whoever asked for a deletion is answered once all in sync have: whichever of them
//!    leads next, its log starts there.
//! 2. A checkpoint record vouches for the new start ([`super::PartitionHandle::forget_before`] is called with what it says). A
//!    crash before: the next start opens all segments, which are all there, and the journal moves the log's start again.
//! 3. The owner forgets the segments, once no checkpoint is at work on a copy of them. Reads that were planned before keep
//!    them.
//! 4. The files go after `file.delete.delay.ms`. A crash anywhere in between leaves some of them: the next start, which
//!    opens by the record, needs none, and removes them ([`crate::log::open`]). A removal that the power undoes is made
//!    again there. A read that is still under way has the file open, or is told that its offset is out of range.

use std::path::PathBuf;
use std::time::Duration;

use io_backend::Replier;

use super::AppendError;
use super::schedule::Due;
use crate::ids::Offset;
use crate::log::segment::SegmentName;

/// Why records are not deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteRecordsError {
    /// Another broker leads, or none yet.
    #[error("this node does not lead the partition")]
    NotLeader,
    /// The offset asked for, and the high watermark: what is not readable yet cannot be deleted.
    #[error("offset {0} is behind the high watermark, {1}")]
    OutOfRange(Offset, Offset),
    /// The leader is new and does not know yet how far what may be deleted goes (KIP-207): asked later, it does.
    #[error("the high watermark is not known yet in this leader epoch")]
    NotYetKnown,
    /// The journal did not take the new start; nothing is deleted.
    #[error("{0}")]
    NotMoved(AppendError),
    /// Whether they are is not known.
    #[error("the outcome is not known within the deadline")]
    TimedOut,
    /// The partition was closed.
    #[error("the partition is gone")]
    Gone,
}

/// What came of looking for what may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Where the log starts now, durably.
    pub log_start: Offset,
    /// How often it was truncated: a checkpoint that began before knows records that were not committed.
    pub truncations: u32,
    /// There are segments before that.
    pub has_dead: bool,
    /// The start should have moved, and did not.
    pub failed: Option<AppendError>,
}

/// Segments that are not needed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadFiles {
    /// Where they are.
    pub directory: PathBuf,
    /// Those whose files are to go.
    pub segments: Vec<SegmentName>,
    /// Of their `.log` files.
    pub bytes: u64,
    /// How long their files stay.
    pub delay: Duration,
}

pub(super) type DeleteReply = Replier<Result<Offset, DeleteRecordsError>>;

/// Who waits for the log's start to move.
pub(super) struct Moving {
    pub(super) to: Offset,
    pub(super) who: Mover,
}

pub(super) enum Mover {
    Retention(Replier<Retained>),
    Client(DeleteReply),
}

/// What is under way of that.
#[derive(Default)]
pub(super) struct Retaining {
    pub(super) moving: Vec<Moving>,
    /// To be forgotten when no checkpoint is at work.
    pub(super) forget: Vec<(Offset, Replier<DeadFiles>)>,
    /// What the schedule was told last.
    pub(super) due: Option<Due>,
    /// Of all segments, as of when the schedule was told last.
    pub(super) segment_bytes: u64,
}
