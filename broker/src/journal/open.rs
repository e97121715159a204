//! Opening a journal: recovery, the first file, then the loop that writes and the task that prepares files.

use std::sync::Arc;

use futures::future::BoxFuture;
use io_backend::{Backend, Disk, DiskError, File, OpenHow, TaskName};

use super::catalogue::{Catalogue, FileWork};
use super::commit::CommitLoop;
use super::commit_state::{Active, CommitState, FailurePolicy, Prepared, ResumePoint, kept_back};
use super::files::{self, JournalDir};
use super::format::{
    ENTRY_HEADER_BYTES, GROUP_HEADER_BYTES, GroupEncoder, HEADER_BYTES, PAGE_BYTES, group_bytes_max,
    journal_name,
};
use super::handle::Handle;
use super::recovery::{self, LSN_GAP};
use super::shared::{InitialState, JournalShared};
use super::submission_queue::Amount;
use super::{
    COMMIT_TASK, FILES_TASK, JournalContext, JournalOpenError, JournalSettings, OpenedJournal, RAFT,
};
use crate::ids::Lsn;
use crate::limits;

/// Opens the production journal: recovers what is there, and starts the loop that writes and the task that
/// prepares files. With time for whole files: each operation on the disk has [`limits::START_DISK_DEADLINE`].
///
/// # Errors
///
/// What was durable cannot be read, or the disk does not do what is asked of it: see [`JournalOpenError`].
pub fn open<B: Backend>(
    context: JournalContext<B>,
) -> BoxFuture<'static, Result<OpenedJournal, JournalOpenError>> {
    Box::pin(opened(context))
}

async fn opened<B: Backend>(context: JournalContext<B>) -> Result<OpenedJournal, JournalOpenError> {
    let JournalContext { backend, name, directory, settings, metrics } = context;
    let dir = JournalDir {
        backend: backend.clone(),
        directory: directory.clone(),
        name: journal_name(name),
        operation_timeout: Some(limits::START_DISK_DEADLINE),
    };
    backend.disk().create_dir_all(&directory, dir.deadline()).await?;
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        backend.disk().sync_dir(parent, dir.deadline()).await?;
    }
    let recovered = recovery::recover(&dir).await?;
    let bounds = Bounds::of(&settings);
    let mut catalogue = Catalogue::new(bounds.file_bytes, recovered.found);
    let start = begin(&dir, &mut catalogue, recovered.start, recovered.given_out).await?;
    let failure_policy = if name == RAFT { FailurePolicy::Stop } else { FailurePolicy::MoveOn };
    let metrics = (name != RAFT).then_some(metrics);
    let initial = InitialState {
        name,
        directory: directory.to_string_lossy().into(),
        bound: bounds.submissions,
        payload_bytes_max: bounds.payload_bytes,
        given_out: recovered.given_out,
        last_entry: recovered.entries.last().map_or(Lsn(0), |entry| entry.lsn),
        catalogue,
        unreleased: recovered.unreleased,
        unreleased_bytes_max: settings.unreleased_bytes_max,
        kept_back: kept_back(bounds.file_bytes),
        holds_on: name == RAFT,
    };
    let machine = CommitState::new(failure_policy, start);
    let queue = JournalShared::new(backend.clone(), initial, metrics.clone());
    let commit_loop = CommitLoop {
        name,
        directory,
        queue: queue.clone(),
        machine,
        group_bound: bounds.group,
        linger: settings.linger,
        metrics,
    };
    backend.spawn_dedicated(TaskName::of(COMMIT_TASK, name), commit_loop);
    let unhurried = JournalDir { operation_timeout: None, ..dir };
    backend.spawn(TaskName::of(FILES_TASK, name), files::keep_prepared(unhurried, queue.clone()));
    Ok(OpenedJournal {
        journal: Arc::new(Handle(queue)),
        entries: recovered.entries,
        torn_tail: recovered.torn_tail,
    })
}

/// Writes the group that records this start. It proves that what recovery found is durable, settles what it
/// did not find, and covers all LSNs that may have been given out before, so that none is given out twice.
async fn begin<B: Backend>(
    dir: &JournalDir<B>,
    catalogue: &mut Catalogue,
    mut start: ResumePoint,
    given_out: Lsn,
) -> Result<ResumePoint, DiskError> {
    if let Some(Active { file, position }) = start.active
        && position + PAGE_BYTES as u64 > file.file_bytes
    {
        start.active = None;
        catalogue.handle_sealed(file.sealed(start.durable, true));
    }
    let active = match start.active {
        Some(active) => active,
        None => {
            let file = first_file(dir, catalogue, Lsn(given_out.0 + 1)).await?;
            Active { file, position: HEADER_BYTES as u64 }
        }
    };
    start.active = Some(active);
    if given_out == Lsn(0) {
        // Nothing was ever here.
        return Ok(start);
    }
    let mut encoder = GroupEncoder::new(Vec::new(), active.file.generation);
    encoder.cover(given_out);
    let group = encoder.finish(&start.place(&active));
    let position = active.position + group.len() as u64;
    let path = files::file_path(&dir.directory, active.file.slot);
    let file = dir.disk().open(&path, OpenHow::Existing, dir.deadline()).await?;
    file.write_at(active.position, group.into(), dir.deadline()).await?;
    file.sync(dir.deadline()).await?;
    Ok(ResumePoint {
        active: Some(Active { position, ..active }),
        next_number: start.next_number.max(1) + 1,
        durable: given_out,
        durable_file: active.file.sequence,
    })
}

/// The file to begin with: the spare that is there, or one made now.
async fn first_file<B: Backend>(
    dir: &JournalDir<B>,
    catalogue: &mut Catalogue,
    next_lsn: Lsn,
) -> Result<Prepared, DiskError> {
    loop {
        if let Some(file) = catalogue.take_spare() {
            return Ok(file);
        }
        match catalogue.next_work() {
            Some(FileWork::Create(plan)) => {
                if let Some(file) = dir.create(&plan, next_lsn, || true).await? {
                    catalogue.handle_prepared(file, &plan);
                }
            }
            Some(FileWork::Recycle { plan, .. }) => {
                catalogue.handle_prepared(dir.recycle(&plan, next_lsn).await?, &plan);
            }
            Some(FileWork::Remove(_)) | None => unreachable!("without a spare, preparing one comes first"),
        }
    }
}

/// The settings, made to fit one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub file_bytes: u64,
    /// Largest payload of an entry: with its frame it fits an empty file and an empty queue.
    pub payload_bytes: usize,
    pub submissions: Amount,
    /// What a group may hold without its header. It fits an empty file.
    pub group: Amount,
}

impl Bounds {
    pub fn of(settings: &JournalSettings) -> Bounds {
        let room = group_bytes_max(settings.file_bytes as u64).saturating_sub(GROUP_HEADER_BYTES);
        let entries_max = (LSN_GAP / 8) as usize;
        let entry = limits::JOURNAL_ENTRY_BYTES_MAX.min(room).min(settings.queue_bytes);
        Bounds {
            file_bytes: settings.file_bytes as u64,
            payload_bytes: entry.saturating_sub(ENTRY_HEADER_BYTES),
            submissions: Amount {
                entries: settings.queue_entries.min(entries_max),
                bytes: settings.queue_bytes,
            },
            group: Amount {
                entries: settings.group_entries.clamp(1, entries_max),
                bytes: settings.group_bytes.min(room),
            },
        }
    }
}
