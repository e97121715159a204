//! The journal: what makes records durable. One synced, sequential stream of files for all
//! partitions of a node, and a second one for Raft.

mod format;
mod decision;
mod submission_queue;
mod commit_state;
mod catalogue;
mod stream;
mod shared;
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
mod submission_queue_tests;
#[cfg(test)]
mod commit_state_tests;
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

pub(crate) use format::entry_bytes;
pub use inspect::{FileSummary, inspect};
pub use open::open;

use crate::ids::{Incarnation, LeaderEpoch, Lsn, Offset, PartitionId};
use crate::metrics::Metrics;

/// Opens a journal and reads back what it holds. [`open`] is the one that ships.
pub type OpenJournal<B> =
    Box<dyn FnOnce(JournalContext<B>) -> BoxFuture<'static, Result<OpenedJournal, JournalOpenError>> + Send>;

/// Role of the task that a journal's commit loop runs as: the stall watchdog knows commits by it.
pub const COMMIT_TASK: &str = "commit";
/// Role of the task that prepares a journal's files, and what the commit loop calls its wait for one.
pub const FILES_TASK: &str = "journal-files";
/// What the commit loop calls its wait for a file that [`FILES_TASK`] prepares.
pub const FILE_WAIT: &str = "a prepared journal file";

/// Name of Raft's journal. A failed write ends it at once: votes and terms must not be in doubt.
pub const RAFT: &str = "raft";

/// What an entry is. The numbers are the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// One or more record batches, stored as they are served.
    Batch = 1,
    /// The log of the replica ends at the base offset: records that stood behind it are gone, since their
    /// write failed.
    Truncate = 2,
    /// Leadership under a new epoch begins at the base offset.
    EpochStart = 3,
    /// The log of the replica begins at the base offset: earlier records are deleted.
    LogStart = 4,
    /// The replica has come to this node; its life, from which entries count, begins.
    ReplicaCreate = 5,
    /// The replica has left this node: no entry of it is read any more.
    ReplicaDelete = 6,
    /// Up to where each partition's segments hold its log.
    Checkpoint = 7,
    /// The log of the replica begins anew at the base offset, without a record: its leader's begins behind all that stood
    /// there.
    TruncateFully = 8,
    /// A Raft log entry, hard state, configuration state, snapshot (the Raft journal only).
    RaftEntry = 16,
    /// Raft's term, vote and commit index; of several the last holds (the Raft journal only).
    RaftHardState = 17,
    /// Raft's voters and learners; of several the last holds (the Raft journal only).
    RaftConfState = 18,
    /// A piece of a Raft snapshot (the Raft journal only).
    RaftSnapshot = 19,
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// What its payload means.
    pub kind: EntryKind,
    /// Whose log it belongs to; [`PartitionId::NODE`] where it is the node's.
    pub partition: PartitionId,
    /// Which life of the replica it belongs to: a topic deleted and made anew never reads old entries.
    pub replica: Incarnation,
    /// The epoch that it was appended under; Raft's term in the Raft journal.
    pub leader_epoch: LeaderEpoch,
    /// The offset of its first record, or the one that its kind speaks of; Raft's index in the Raft journal.
    pub base_offset: Offset,
    /// In the form of its kind: record batches, JSON, Raft's messages. Not all kinds have one.
    pub payload: Bytes,
}

/// Why entries were not taken. Nothing of the submission was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The entries do not fit into the queue now, or records have to wait for checkpoints; [`Journal::wait_for_capacity`]
    /// waits for it.
    #[error("the journal's queue is full")]
    Full,
    /// Others share what the queue has left, and this partition holds its part of it already.
    #[error("the share of this partition in the journal's queue is used up")]
    ShareExhausted,
    /// The operation in flight is older than `stall.stalled_after`; nothing is taken until it ends.
    #[error("the disk under the journal stands still")]
    Stalled,
    /// No records are taken, for the journal found no place for them for seconds; metadata and checkpoints
    /// are.
    #[error("the journal has had no room for records for long: /health/ready says why")]
    NoRoom,
    /// No records are taken until there is space; other entries are, a checkpoint's mark above all.
    #[error("the disk under the journal is full")]
    DiskFull,
    /// The journal is lost to this process; or something that the same owner submitted before has failed, and it has
    /// not looked yet.
    #[error("the journal failed, or did not write what was submitted before this")]
    Failed,
    /// [`Journal::close`] was called.
    #[error("the journal is closed")]
    Closed,
    /// An entry, or a submission, of so many bytes fits into no file or never into the queue: trying again is
    /// of no use.
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
    /// Entries that wait for a commit group or are in one.
    pub queued_entries: usize,
    /// Their bytes, as they are written.
    pub queued_bytes: usize,
    /// Bytes written since the oldest entry that has not been released.
    pub unreleased_bytes: u64,
    /// The journal is lost to this process ([`SubmitError::Failed`]).
    pub failed: bool,
    /// The last write found no space; no records are taken before one succeeds.
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
    /// [`FILES_TASK`] is at work on one.
    BeingPrepared,
    /// Preparing one failed, for another reason than want of space; it is tried again.
    Failed,
    /// It cannot be opened: the process has no descriptor left.
    NoDescriptor,
}

/// A wait that ends by its deadline at the latest, and keeps nothing of the journal alive that it waits for.
pub type Waiting = BoxFuture<'static, Result<(), TimedOut>>;

/// The one handle of a journal.
pub trait Journal: Send + Sync + 'static {
    /// Queues entries, in order and without waiting, and returns the LSN of the last. `progress` is
    /// moved to it once it is durable, or told that it failed.
    ///
    /// # Errors
    ///
    /// A [`SubmitError`] for all of them: nothing of the submission was or will be written.
    fn submit(&self, entries: Vec<JournalEntry>, progress: &Arc<Progress>) -> Result<Lsn, SubmitError>;
    /// Waits until the queue has room for `bytes` more of this partition.
    fn wait_for_capacity(&self, partition: PartitionId, bytes: usize, deadline: Deadline) -> Waiting;
    /// Entries before `lsn` are kept elsewhere, durably: their files may be used again.
    fn release_before(&self, lsn: Lsn);
    /// How the journal does now; takes no time.
    fn status(&self) -> JournalStatus;
    /// What those who wait for progress wait on; its holder is who commits.
    fn resource(&self) -> Option<Arc<Resource>> {
        None
    }
    /// What the stall watchdog has found: [`SubmitError::Stalled`], and nothing is taken; [`SubmitError::NoRoom`], and no
    /// records are. Who waits with records for room is told at once, and holds no memory any longer.
    fn set_refusing(&self, why: Option<SubmitError>);
    /// Waits until something is queued or in flight, or nothing is taken; for the stall watchdog, which sleeps
    /// while the journal is idle.
    fn until_busy(&self, deadline: Deadline) -> Waiting;
    /// Waits until more than `bytes` are unreleased, or until what can be released is wanted, for the disk is full.
    fn until_unreleased(&self, bytes: u64, deadline: Deadline) -> Waiting;
    /// Finishes what is queued, then takes nothing more.
    fn close(&self, deadline: Deadline) -> Waiting;
}

/// A journal, shared by all who write to it.
pub type JournalHandle = Arc<dyn Journal>;

/// What a journal needs to open.
pub struct JournalContext<B: Backend> {
    /// What its tasks, its disk and its time come from.
    pub backend: B,
    /// `journal` or `raft`: names the task, the metrics and the operations in the registry.
    pub name: &'static str,
    /// Where its files are; made where it is missing. No other process or journal may use it.
    pub directory: PathBuf,
    /// Sizes and bounds.
    pub settings: JournalSettings,
    /// Where it counts its commits.
    pub metrics: Arc<Metrics>,
}

/// The numbers of a journal, as the configuration has them. All of them are above zero, but for `linger`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// Size of a new file, in bytes; prefilled with zeros. A commit group has to fit into it.
    pub file_bytes: usize,
    /// Entries of a commit group at most.
    pub group_entries: usize,
    /// Bytes of a commit group at most.
    pub group_bytes: usize,
    /// Entries that wait or are in flight at most.
    pub queue_entries: usize,
    /// Bytes that wait or are in flight at most.
    pub queue_bytes: usize,
    /// How long a commit waits for company, where its group is not full; zero commits at once.
    pub linger: Duration,
    /// No more records are taken while more than this waits for checkpoints.
    pub unreleased_bytes_max: u64,
}

/// One entry that survived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredEntry {
    /// Its position in the journal.
    pub lsn: Lsn,
    /// What was submitted.
    pub entry: JournalEntry,
}

/// An opened journal and what was in it, in LSN order.
pub struct OpenedJournal {
    /// The handle to write with; the journal's tasks run.
    pub journal: JournalHandle,
    /// What is durable and not released, rising in LSN; all of it is in memory.
    pub entries: Vec<RecoveredEntry>,
    /// Bytes of a torn tail that were cut.
    pub torn_tail: Option<String>,
}

/// Why a journal does not open.
#[derive(Debug, thiserror::Error)]
pub enum JournalOpenError {
    /// An operation on the directory or a file failed, or did not end within the deadline.
    #[error("{0}")]
    Disk(#[from] io_backend::DiskError),
    /// What was durable cannot be read. The node must not go on without it.
    #[error("{path} is damaged at byte {position}: {what}. {advice}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes from its initial.
        position: u64,
        /// What is wrong with it.
        what: String,
        /// What a person can do.
        advice: String,
    },
    /// A file was written by a later release.
    #[error(
        "{path} has format version {found}, this binary reads up to {known}: start a newer chronik on it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The latest that this binary reads.
        known: u32,
    },
    /// A file in the journal's directory belongs to another journal, or to none.
    #[error("{path} is not a journal file: {what}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// By what it was told.
        what: String,
    },
}
