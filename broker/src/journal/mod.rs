//! The journal: what makes records durable. One synced, sequential stream of files for all
//! partitions of a node, and a second one for Raft.

mod format;
mod decision;
mod line;
mod machine;
mod catalogue;
mod stream;
mod queue;
mod files;
mod commit;
mod handle;
mod scan;
mod inspect;
mod recovery;
mod open;
#[cfg(test)]
mod catalogue_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod decision_tests;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod line_tests;
#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod open_tests;
#[cfg(test)]
mod real_tests;
#[cfg(test)]
mod refusing_disk_tests;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use io_backend::progress::Progress;
use io_backend::registry::Resource;
use io_backend::time::TimedOut;
use io_backend::{Backend, Deadline};

pub use inspect::{FileSummary, inspect};
pub use open::open;

use crate::ids::{Incarnation, LeaderEpoch, Lsn, Offset, PartitionId};
use crate::metrics::Metrics;

/// Role of the task that a journal's commit loop runs as: the stall watchdog knows commits by it.
pub const COMMIT_TASK: &str = "commit";
/// Role of the task that prepares a journal's files, and what the commit loop calls its wait for one.
pub const FILES_TASK: &str = "journal-files";
pub const FILE_WAIT: &str = "a prepared journal file";

/// Name of Raft's journal. A failed write ends it at once: votes and terms must not be in doubt.
pub const RAFT: &str = "raft";

/// What an entry is. The numbers are the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// One or more record batches, stored as they are served.
    Batch = 1,
    Truncate = 2,
    /// Leadership under a new epoch begins at the base offset.
    EpochStart = 3,
    LogStart = 4,
    ReplicaCreate = 5,
    ReplicaDelete = 6,
    /// Up to where each partition's segments hold its log.
    Checkpoint = 7,
    /// A Raft log entry, hard state, configuration state, snapshot (the Raft journal only).
    RaftEntry = 16,
    RaftHardState = 17,
    RaftConfState = 18,
    RaftSnapshot = 19,
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    pub kind: EntryKind,
    pub partition: PartitionId,
    /// Which life of the replica it belongs to: a topic deleted and made anew never reads old entries.
    pub replica: Incarnation,
    pub leader_epoch: LeaderEpoch,
    pub base_offset: Offset,
    pub payload: Bytes,
}

/// Why entries were not taken. Nothing of the submission was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error("the journal's queue is full")]
    Full,
    #[error("the share of this partition in the journal's queue is used up")]
    ShareExhausted,
    #[error("the disk under the journal stands still")]
    Stalled,
    #[error("the journal has had no room for records for long: /health/ready says why")]
    NoRoom,
    #[error("the disk under the journal is full")]
    DiskFull,
    #[error("the journal failed and takes nothing")]
    Failed,
    #[error("the journal is closed")]
    Closed,
    #[error("an entry of {0} bytes is larger than the journal takes")]
    TooLarge(usize),
}

/// How a journal does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalStatus {
    /// Everything up to here is synced.
    pub durable: Lsn,
    /// The last LSN given out.
    pub submitted: Lsn,
    pub queued_entries: usize,
    pub queued_bytes: usize,
    /// Bytes written since the oldest entry that has not been released.
    pub unreleased_bytes: u64,
    pub failed: bool,
    pub disk_full: bool,
    /// No records are taken until checkpoints have released some of it.
    pub holds_too_much: bool,
    /// Where that begins.
    pub unreleased_bytes_max: u64,
    /// How often a checkpoint has made room where there was none.
    pub times_relieved: u64,
    /// The commit loop has a group and no file to write it to.
    pub no_file: Option<NoFile>,
}

/// Why the commit loop has no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFile {
    BeingPrepared,
    /// Preparing one failed, for another reason than want of space; it is tried again.
    Failed,
    /// It cannot be opened: the process has no descriptor left.
    NoDescriptor,
}

/// The one door to a journal.
pub trait Journal: Send + Sync + 'static {
    /// Puts entries in line, in order and without waiting, and returns the LSN of the last. `progress` is
    /// moved to it once it is durable, or told that it failed.
    fn submit(&self, entries: Vec<JournalEntry>, progress: &Arc<Progress>) -> Result<Lsn, SubmitError>;
    /// Waits until the queue has room for `bytes` more of this partition.
    fn room(
        &self,
        partition: PartitionId,
        bytes: usize,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<(), TimedOut>>;
    /// Entries before `lsn` are kept elsewhere, durably: their files may be used again.
    fn release_before(&self, lsn: Lsn);
    fn status(&self) -> JournalStatus;
    /// What those who wait for progress wait on; its holder is who commits.
    fn resource(&self) -> Option<Arc<Resource>> {
        None
    }
    /// What the stall watchdog has found: [`SubmitError::Stalled`], and nothing is taken; [`SubmitError::NoRoom`], and no
    /// records are. Who waits with records for room is told at once, and holds no memory any longer.
    fn set_refusing(&self, why: Option<SubmitError>);
    /// Waits until something is in line or in flight, or nothing is taken; for the stall watchdog, which sleeps
    /// while the journal is idle.
    fn until_busy(&self, deadline: Deadline) -> BoxFuture<'static, Result<(), TimedOut>>;
    /// Waits until more than `bytes` are unreleased, or until what can be released is wanted, for the disk is full.
    fn until_unreleased(&self, bytes: u64, deadline: Deadline) -> BoxFuture<'static, Result<(), TimedOut>>;
    /// Finishes what is queued, then takes nothing more.
    fn close(&self, deadline: Deadline) -> BoxFuture<'static, Result<(), TimedOut>>;
}

pub type JournalHandle = Arc<dyn Journal>;

/// What a journal needs to open.
pub struct JournalContext<B: Backend> {
    pub backend: B,
    /// `journal` or `raft`: names the task, the metrics and the operations in the registry.
    pub name: &'static str,
    pub directory: PathBuf,
    pub settings: JournalSettings,
    pub metrics: Arc<Metrics>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    pub file_bytes: usize,
    pub group_entries: usize,
    pub group_bytes: usize,
    pub queue_entries: usize,
    pub queue_bytes: usize,
    pub linger: Duration,
    /// No more records are taken while more than this waits for checkpoints.
    pub unreleased_bytes_max: u64,
}

/// One entry that survived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredEntry {
    pub lsn: Lsn,
    pub entry: JournalEntry,
}

/// An opened journal and what was in it, in LSN order.
pub struct OpenedJournal {
    pub journal: JournalHandle,
    pub entries: Vec<RecoveredEntry>,
    /// Bytes of a torn tail that were cut.
    pub torn_tail: Option<String>,
}

/// Why a journal does not open.
#[derive(Debug, thiserror::Error)]
pub enum JournalOpenError {
    #[error("{0}")]
    Disk(#[from] io_backend::DiskError),
    #[error("{path} is damaged at byte {position}: {what}. {advice}")]
    Corrupt { path: PathBuf, position: u64, what: String, advice: String },
    #[error(
        "{path} has format version {found}, this binary reads up to {known}: start a newer chronik on it"
    )]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{path} is not a journal file: {what}")]
    Foreign { path: PathBuf, what: String },
}
