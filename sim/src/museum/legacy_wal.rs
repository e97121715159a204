//! The old group-commit log: a file, five mutexes and a worker for each partition.
//!
//! An append takes `pending`, leaves its entry and waits for the worker's reply. The worker and the rotation of segments
//! take `file` and what follows it: last_fsync, queued_bytes, segment_created_at. None of the waits has a deadline.
//! What else was wrong with it differs by exhibit: see [`DefectOptions`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::ids::{Lsn, PartitionId};
use broker::journal::{
    Journal, JournalContext, JournalEntry, JournalOpenError, JournalStatus, OpenedJournal, RecoveredEntry,
    SubmitError, Waiting,
};
use bytes::Bytes;
use io_backend::disk::DiskResult;
use io_backend::progress::Progress;
use io_backend::time::TimedOut;
use io_backend::{
    Backend, Clock, Deadline, Disk, File, Level, Lock, OpenHow, Receiver, Replier, Sender, TaskName, channel,
};

use super::frame;
use super::ledger::{Ledger, Submission};
use crate::world::{SimBackend, SimFile, lock};

/// How often somebody looked whether a segment was old enough to be closed.
const ROTATION: Duration = Duration::from_secs(10);
const OPEN_WITHIN: Duration = Duration::from_secs(60);
const NO_DEADLINE: Deadline = Deadline::Unbounded("the old log had no time-outs");

/// What an exhibit did its own way.
#[derive(Clone, Copy, Debug)]
pub(super) struct DefectOptions {
    /// The worker is told of new entries and commits at once.
    pub(super) listens: bool,
    /// How often a worker looks on its own.
    pub(super) tick: Duration,
    /// Who appends asks the worker, and waits for as long as it takes to hear from it.
    pub(super) asks_worker: bool,
    /// A second worker ticks for all partitions.
    pub(super) global_worker: bool,
    /// The sync blocks the thread it is called on, one of the runtime's.
    pub(super) blocks_thread: bool,
    /// One worker's hands do all syncs: a partition waits for those of the partitions before it.
    pub(super) one_after_the_other: bool,
}

pub(super) struct LegacyWal {
    backend: SimBackend,
    directory: PathBuf,
    options: DefectOptions,
    ledger: Arc<Ledger>,
    partitions: Mutex<BTreeMap<PartitionId, Arc<PartitionWal>>>,
    /// Held by whoever syncs, where there is one after the other.
    turn: Lock<SimBackend, ()>,
}

struct PartitionWal {
    path: PathBuf,
    incoming: Mutex<Vec<Submission>>,
    /// Appenders that wait for the worker.
    asking: Mutex<Vec<Replier<()>>>,
    notify: Sender<SimBackend, ()>,
    pending: Lock<SimBackend, u64>,
    file: Lock<SimBackend, Option<Appender>>,
    last_fsync: Lock<SimBackend, u64>,
    queued_bytes: Lock<SimBackend, u64>,
    segment_created_at: Lock<SimBackend, u64>,
}

struct Appender {
    file: SimFile,
    end: u64,
}

/// Reads all partition files back and goes on after them.
pub(super) async fn open(
    context: JournalContext<SimBackend>,
    options: DefectOptions,
) -> Result<(Arc<LegacyWal>, OpenedJournal), JournalOpenError> {
    let backend = context.backend;
    let deadline = Deadline::after(&backend, OPEN_WITHIN);
    let mut entries = read_all(&backend, &context.directory, deadline).await?;
    entries.sort_by_key(|recovered| recovered.lsn);
    let last = entries.last().map_or(Lsn(0), |recovered| recovered.lsn);
    let wal = Arc::new(LegacyWal {
        ledger: Arc::new(Ledger::after(&backend, last)),
        backend: backend.clone(),
        directory: context.directory,
        options,
        partitions: Mutex::default(),
        turn: Lock::new(&backend, "turn to sync", Level(902), ()),
    });
    if options.global_worker {
        let all = wal.clone();
        let _detached = backend.spawn("wal-global-worker", async move { all.commit_all_for_ever().await });
    }
    if options.asks_worker {
        let all = wal.clone();
        let _detached = backend.spawn("wal-rotation", async move { all.rotate_for_ever().await });
    }
    let journal = Arc::new(LegacyJournal(wal.clone()));
    Ok((wal, OpenedJournal { journal, entries, torn_tail: None }))
}

pub(super) async fn read_all(
    backend: &SimBackend,
    directory: &Path,
    deadline: Deadline,
) -> Result<Vec<RecoveredEntry>, JournalOpenError> {
    let disk = backend.disk();
    disk.create_dir_all(directory, deadline).await?;
    if let Some(parent) = directory.parent() {
        disk.sync_dir(parent, deadline).await?;
    }
    let mut entries = Vec::new();
    for entry in disk.read_dir(directory, deadline).await? {
        let file = disk.open(&directory.join(&entry.name), OpenHow::ReadOnly, deadline).await?;
        let length = usize::try_from(file.len(deadline).await?).unwrap_or(usize::MAX);
        entries.extend(frame::decode_all(file.read_at(0, length, deadline).await?));
    }
    Ok(entries)
}

impl LegacyWal {
    fn partition(self: &Arc<Self>, id: PartitionId) -> Arc<PartitionWal> {
        let mut partitions = lock(&self.partitions);
        if let Some(known) = partitions.get(&id) {
            return known.clone();
        }
        // The same file after a restart: it is named after the partition.
        let name = format!("wal-{}-{}.log", id.topic.0.simple(), id.index);
        let short =
            if id == PartitionId::NODE { "node".to_owned() } else { format!("partition {}", id.index) };
        let (notify, woken) = channel(&self.backend, format!("{short} commits"), 1);
        let named = |what: &str| format!("{short} {what}");
        let partition = Arc::new(PartitionWal {
            path: self.directory.join(name),
            incoming: Mutex::default(),
            asking: Mutex::default(),
            notify,
            pending: Lock::new(&self.backend, named("pending"), Level(900), 0),
            file: Lock::new(&self.backend, named("file"), Level(901), None),
            last_fsync: Lock::new(&self.backend, named("last_fsync"), Level(903), 0),
            queued_bytes: Lock::new(&self.backend, named("queued_bytes"), Level(904), 0),
            segment_created_at: Lock::new(&self.backend, named("segment_created_at"), Level(905), 0),
        });
        partitions.insert(id, partition.clone());
        drop(partitions);
        let (wal, worked) = (self.clone(), partition.clone());
        let worker = async move { wal.work(&worked, woken).await };
        let _detached = self.backend.spawn(TaskName::of("wal-commit-worker", short), worker);
        partition
    }

    async fn work(&self, partition: &PartitionWal, mut woken: Receiver<SimBackend, ()>) {
        loop {
            if self.options.listens {
                let _ = woken.receive(Deadline::after(&self.backend, self.options.tick)).await;
            } else {
                self.backend.sleep(self.options.tick).await;
            }
            if self.ledger.is_closed() && lock(&partition.incoming).is_empty() {
                return;
            }
            if self.commit(partition).await.is_err() {
                // It logged the error and went on.
                continue;
            }
        }
    }

    async fn commit_all_for_ever(&self) {
        while !self.ledger.is_closed() {
            self.backend.sleep(self.options.tick).await;
            let all: Vec<Arc<PartitionWal>> = lock(&self.partitions).values().cloned().collect();
            for partition in all {
                let _ = self.commit(&partition).await;
            }
        }
    }

    /// Closes segments that are old enough: never here, but it takes the lock to see that.
    async fn rotate_for_ever(&self) {
        while !self.ledger.is_closed() {
            self.backend.sleep(ROTATION).await;
            let all: Vec<Arc<PartitionWal>> = lock(&self.partitions).values().cloned().collect();
            for partition in all {
                let Ok(file) = partition.file.lock(NO_DEADLINE).await else { return };
                let Ok(created) = partition.segment_created_at.lock(NO_DEADLINE).await else { return };
                drop((created, file));
            }
        }
    }

    /// Writes and syncs what is pending, holding the file's lock for all of it.
    async fn commit(&self, partition: &PartitionWal) -> DiskResult<()> {
        let Ok(mut pending) = partition.pending.lock(NO_DEADLINE).await else { return Ok(()) };
        let group = std::mem::take(&mut *lock(&partition.incoming));
        *pending = 0;
        let asking = std::mem::take(&mut *lock(&partition.asking));
        drop(pending);
        for appender in asking {
            appender.answer(());
        }
        if group.is_empty() {
            return Ok(());
        }
        let Ok(mut file) = partition.file.lock(NO_DEADLINE).await else { return Ok(()) };
        if file.is_none() {
            *file = Some(self.open_file(partition).await?);
        }
        let Some(appender) = &mut *file else { return Ok(()) };
        let turn = match self.options.one_after_the_other {
            true => self.turn.lock(NO_DEADLINE).await.ok(),
            false => None,
        };
        let bytes: Vec<u8> = group.iter().flat_map(|submission| submission.bytes.iter().copied()).collect();
        let length = bytes.len() as u64;
        if length > 0 {
            appender.file.write_at(appender.end, Bytes::from(bytes), NO_DEADLINE).await?;
            appender.end += length;
        }
        // The partition's file lock is held here, however long the disk takes.
        if self.options.blocks_thread {
            self.backend.blocking(appender.file.sync(NO_DEADLINE)).await?;
        } else {
            appender.file.sync(NO_DEADLINE).await?;
        }
        drop(turn);
        if let Ok(mut last_fsync) = partition.last_fsync.lock(NO_DEADLINE).await {
            *last_fsync = self.backend.now().0;
        }
        if let Ok(mut queued_bytes) = partition.queued_bytes.lock(NO_DEADLINE).await {
            *queued_bytes = queued_bytes.saturating_sub(length);
        }
        drop(file);
        for submission in &group {
            self.ledger.done(submission);
        }
        Ok(())
    }

    async fn open_file(&self, partition: &PartitionWal) -> DiskResult<Appender> {
        let disk = self.backend.disk();
        let file = disk.open(&partition.path, OpenHow::OrCreate, NO_DEADLINE).await?;
        disk.sync_dir(&self.directory, NO_DEADLINE).await?;
        let length = usize::try_from(file.len(NO_DEADLINE).await?).unwrap_or(usize::MAX);
        let end = frame::whole_bytes(&file.read_at(0, length, NO_DEADLINE).await?);
        Ok(Appender { file, end })
    }

    /// What an append had to go through before it got its place.
    pub(super) async fn admit(self: Arc<Self>, id: PartitionId) -> Result<(), SubmitError> {
        let partition = self.partition(id);
        let Ok(mut pending) = partition.pending.lock(NO_DEADLINE).await else { return Ok(()) };
        *pending += 1;
        if !self.options.asks_worker {
            return Ok(());
        }
        let (appender, reply) = partition.notify.reply("reply of the commit worker");
        lock(&partition.asking).push(appender);
        drop(pending);
        let _ = partition.notify.try_send(());
        // No time-out: whoever asks has all the time of the disk.
        let _ = reply.wait(NO_DEADLINE).await;
        Ok(())
    }
}

/// The broker's handle of the old log.
pub(super) struct LegacyJournal(Arc<LegacyWal>);

impl Journal for LegacyJournal {
    fn submit(&self, entries: Vec<JournalEntry>, progress: &Arc<Progress>) -> Result<Lsn, SubmitError> {
        let Some(id) = entries.first().map(|entry| entry.partition) else {
            return Ok(self.0.ledger.status().submitted);
        };
        if self.0.ledger.is_closed() {
            return Err(SubmitError::Closed);
        }
        let submission = self.0.ledger.submit(&entries, progress);
        let last = submission.last;
        let partition = self.0.partition(id);
        lock(&partition.incoming).push(submission);
        // Full means that the worker has been told already.
        let _ = partition.notify.try_send(());
        Ok(last)
    }

    fn wait_for_capacity(&self, _: PartitionId, _: usize, _: Deadline) -> Waiting {
        Box::pin(async { Ok(()) })
    }

    fn release_before(&self, _: Lsn) {
        self.0.ledger.release();
    }

    fn status(&self) -> JournalStatus {
        self.0.ledger.status()
    }

    fn set_refusing(&self, _: Option<SubmitError>) {}

    fn until_busy(&self, deadline: Deadline) -> Waiting {
        never(self.0.backend.clone(), deadline)
    }

    fn until_unreleased(&self, bytes: u64, deadline: Deadline) -> Waiting {
        Box::pin(self.0.ledger.clone().until_unreleased(bytes, deadline))
    }

    fn close(&self, deadline: Deadline) -> Waiting {
        Box::pin(self.0.ledger.clone().close(deadline))
    }
}

/// Nobody watches an exhibit.
pub(super) fn never(backend: SimBackend, deadline: Deadline) -> Waiting {
    Box::pin(async move {
        match deadline {
            Deadline::At(at) => backend.timer(at).await,
            Deadline::Unbounded(_) => std::future::pending().await,
        }
        Err(TimedOut)
    })
}
