//! Opening a replica: at its creation with nothing, at a start with its checkpoint and what the journal holds
//! after it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use futures::future::BoxFuture;
use io_backend::progress::Progress;
use io_backend::{Backend, Deadline, Published, TaskName, channel};

use prometheus_client::metrics::gauge::Gauge;

use super::handle::Door;
use super::owner::{Owner, Waits};
use super::replica_state::{ReplayError, ReplicaState};
use super::retention::Retaining;
use super::{LogSignal, PartitionHandle, Schedules};
use crate::budget::Account;
use crate::ids::{Incarnation, Lsn, Offset, PartitionId};
use crate::journal::{EntryKind, JournalHandle, RecoveredEntry};
use crate::limits;
use crate::log::open_files::OpenFiles;
use crate::log::{self, CheckpointMark, LogSettings, open::LogOpenError};
use crate::metrics::TopicCounters;

/// What a replica is opened with.
pub struct OpenPartition<B: Backend> {
    /// What disk, time and tasks come from.
    pub backend: B,
    /// The partition.
    pub id: PartitionId,
    /// `<topic>-<index>`, for people.
    pub name: Arc<str>,
    /// Which life of the replica this is. A mark and entries of another one are ignored.
    pub replica: Incarnation,
    /// How it keeps its log.
    pub settings: LogSettings,
    /// Of the appends that wait in its mailbox and line.
    pub waiting_bytes: usize,
    /// The node's open segment files, of which it takes its part.
    pub open_files: OpenFiles<B>,
    /// Whom it tells when something of it may be deleted, or is to be cleaned.
    pub schedules: Schedules,
    /// Where is told how far its log is, while it is replicated.
    pub signal: LogSignal,
    /// Of this replica alone, and of this life of it. Made when there is something to keep in it.
    pub directory: PathBuf,
    /// Where its records are made durable.
    pub journal: JournalHandle,
    /// What it counts, by topic.
    pub counters: TopicCounters,
    /// The last recorded checkpoint.
    pub mark: Option<CheckpointMark>,
    /// What survived in the journal, in LSN order. Entries of others and those the mark covers are skipped.
    /// Asked for when the files are found sound.
    pub recovered: BoxFuture<'static, Result<Vec<RecoveredEntry>, EntriesError>>,
    /// For all operations on the disk together; where it passes, the replica does not open.
    pub deadline: Deadline,
}

/// Why the entries after the mark cannot be had, from whoever keeps them.
pub type EntriesError = Box<dyn std::error::Error + Send + Sync>;

/// Why a replica does not open. The node serves the others.
#[derive(Debug, thiserror::Error)]
pub enum PartitionOpenError {
    /// Its segments are not what the mark vouches for, or cannot be read.
    #[error("{name}: {error}")]
    Log { name: Arc<str>, error: LogOpenError },
    /// The entries behind the mark cannot be had.
    #[error("{name}: {error}")]
    Entries { name: Arc<str>, error: EntriesError },
    /// The entries behind the mark do not follow from what the segments hold.
    #[error("{name}: {error}")]
    Journal { name: Arc<str>, error: ReplayError },
}

/// Opens a replica and starts its owner. It does not lead until it is told to.
pub async fn open<B: Backend>(with: OpenPartition<B>) -> Result<PartitionHandle<B>, PartitionOpenError> {
    let OpenPartition {
        backend,
        id,
        name,
        replica,
        settings,
        waiting_bytes,
        directory,
        journal,
        counters,
        mark,
        recovered,
        deadline,
        schedules,
        signal,
        ..
    } = with;
    let mark = mark.filter(|mark| mark.partition == id && mark.replica == replica);
    let opened = log::open::open(&backend, &with.open_files, &directory, &settings, mark, deadline)
        .await
        .map_err(|error| PartitionOpenError::Log { name: name.clone(), error })?;
    let recovered =
        recovered.await.map_err(|error| PartitionOpenError::Entries { name: name.clone(), error })?;
    let mut files = opened.files;
    let covered = opened.recovered.lsn;
    let mut machine = ReplicaState::new(id, replica, settings.log_append_time, opened.recovered);
    let mut last = covered;
    for RecoveredEntry { lsn, entry } in &recovered {
        if entry.partition != id || entry.replica != replica || *lsn <= covered {
            continue;
        }
        machine
            .replay(*lsn, entry)
            .map_err(|error| PartitionOpenError::Journal { name: name.clone(), error })?;
        match entry.kind {
            EntryKind::Truncate => files.cut(entry.base_offset),
            EntryKind::TruncateFully => files.go_on_from(entry.base_offset),
            _ => {}
        }
        last = *lsn;
    }
    let room = Account::new(waiting_bytes, Gauge::default());
    Ok(start(
        backend, id, name, replica, settings, room, schedules, signal, journal, counters, machine, files,
        last, mark,
    ))
}

#[expect(clippy::too_many_arguments, reason = "the owner's fields, once")]
fn start<B: Backend>(
    backend: B,
    id: PartitionId,
    name: Arc<str>,
    replica: Incarnation,
    settings: LogSettings,
    room: Arc<Account>,
    schedules: Schedules,
    signal: LogSignal,
    journal: JournalHandle,
    counters: TopicCounters,
    machine: ReplicaState<super::owner::Ticket>,
    files: log::checkpoint::LogFiles<B>,
    last: Lsn,
    mark: Option<CheckpointMark>,
) -> PartitionHandle<B> {
    let (append_sender, appends) = channel(&backend, format!("appends of {name}"), limits::PARTITION_MAILBOX);
    let (mailbox, questions) = channel(&backend, format!("partition {name}"), limits::PARTITION_MAILBOX);
    let (own, _) = channel(&backend, format!("owner of {name}"), 1);
    let views = Published::new("view of a partition", machine.view());
    let handle = PartitionHandle(Arc::new(Door {
        id,
        name: name.clone(),
        backend: backend.clone(),
        room,
        appends: append_sender,
        mailbox,
        views: views.clone(),
        counters: counters.clone(),
        told_damage: AtomicI64::new(Offset(-1).0),
    }));
    let owner = Owner {
        backend: backend.clone(),
        id,
        name: name.clone(),
        replica,
        settings,
        journal,
        counters,
        progress: Arc::new(Progress::at(last.0)),
        machine,
        files,
        views,
        appends,
        questions,
        own,
        open: Waits::default(),
        schedules,
        signal,
        told: None,
        retaining: Retaining::default(),
        marked: mark,
        cleaned: Vec::new(),
    };
    backend.spawn(TaskName::of("partition", name), owner.run());
    handle
}
