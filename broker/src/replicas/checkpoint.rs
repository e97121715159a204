//! The task `checkpoint`: brings what the journal holds into segments, records how far, and lets the journal go.
//!
//! It wakes when the journal has grown by `journal.checkpoint_bytes`, or when asked; there is no timer.
//! Order of a round: segments, index and producer state of every partition (each synced by its owner), the
//! directory that names them, the record of all marks, and only then the release. Nothing is released
//! that a partition has not vouched for, that a replica not yet open still needs, or that was
//! submitted after the round began.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::Location;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures::StreamExt;
use futures::future::{Either, select};
use io_backend::channel::ReceiveError;
use io_backend::progress::Progress;
use io_backend::{Backend, Deadline, Disk, DiskError, Published, Receiver, Replier, Sender, WaitKind};

use super::reconcile::ReplicaId;
use super::recover::checkpoint_entries;
use super::{OpenReplicas, Replicas};
use crate::ids::{BrokerId, Lsn, PartitionId};
use crate::journal::{JournalEntry, JournalHandle, JournalStatus, SubmitError};
use crate::limits;
use crate::metadata::MetadataHandle;
use crate::partition::CheckpointMark;

/// What replicas that are not open yet still need of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pins(pub(super) BTreeMap<ReplicaId, Pin>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    /// The mark it was recovered with, which every record repeats.
    pub(super) mark: Option<CheckpointMark>,
    /// Its first entry after that.
    pub(super) needed_from: Option<Lsn>,
}

pub(super) enum CheckpointInput {
    Now(Replier<Result<(), CheckpointFailed>>),
}

/// Why a round did not end with a record.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFailed {
    #[error("{0}")]
    Disk(#[from] DiskError),
    #[error("the journal did not take the checkpoint record: {0}")]
    Submit(#[from] SubmitError),
    #[error("the checkpoint record did not become durable")]
    NotDurable,
    #[error("{0} partitions could not be checkpointed")]
    Partitions(usize),
}

/// What a round came to.
struct Round {
    record_bytes: usize,
    /// Everything was released that was durable when it began.
    complete: bool,
}

pub(super) struct Checkpointer<B: Backend> {
    pub(super) backend: B,
    pub(super) journal: JournalHandle,
    pub(super) replicas: Replicas<B>,
    pub(super) metadata: MetadataHandle<B>,
    pub(super) node: BrokerId,
    pub(super) pins: Published<Pins>,
    pub(super) mailbox: Receiver<B, CheckpointInput>,
    /// The last mark of each open replica.
    pub(super) marks: BTreeMap<PartitionId, CheckpointMark>,
    pub(super) directory: PathBuf,
    /// Largest entry that the journal takes.
    pub(super) entry_bytes: usize,
    /// A round begins when the journal has grown by this.
    pub(super) every_bytes: u64,
}

impl<B: Backend> Checkpointer<B> {
    pub(super) async fn run(mut self) {
        const GROWTH: Deadline = Deadline::Unbounded("a checkpoint begins when the journal has grown");
        const MAILBOX: Deadline = Deadline::Unbounded("the checkpoint task waits to be asked");
        let mut growth = self.every_bytes;
        loop {
            let asked = {
                let asked = pin!(self.mailbox.receive(MAILBOX));
                match select(asked, self.journal.until_unreleased(growth, GROWTH)).await {
                    Either::Left((Ok(CheckpointInput::Now(replier)), _)) => Some(replier),
                    Either::Left((Err(ReceiveError::Closed | ReceiveError::TimedOut), _)) => return,
                    Either::Right(_) => None,
                }
            };
            let result = self.round(Deadline::after(&self.backend, limits::CHECKPOINT_DEADLINE)).await;
            growth = match &result {
                // What was written during the round may ask for the next one at once; what stays because the
                // journal lets go in steps, and the record itself, may not.
                Ok(Round { record_bytes, complete: true }) => {
                    self.every_bytes + limits::JOURNAL_RELEASE_STEP_BYTES + *record_bytes as u64
                }
                // What a round could not release does not start the next one.
                _ => self.every_bytes.max(self.journal.status().unreleased_bytes + self.every_bytes / 2),
            };
            match (asked, result) {
                (Some(replier), result) => replier.answer(result.map(|_| ())),
                (None, Ok(_)) => {}
                (None, Err(error)) => {
                    tracing::warn!(error = %error, "checkpoint failed; the journal keeps what it would have released");
                }
            }
        }
    }

    async fn round(&mut self, deadline: Deadline) -> Result<Round, CheckpointFailed> {
        // In this order: a replica that is seen neither pinned nor open has no entry up to here.
        let JournalStatus { submitted: began_at, durable, .. } = self.journal.status();
        let pins = self.pins.get();
        let open = self.replicas.open().get();
        let asked: Vec<_> = open.values().cloned().collect();
        let answers: Vec<_> = futures::stream::iter(asked)
            .map(|partition| async move { (partition.id(), partition.checkpoint(deadline).await) })
            .buffer_unordered(limits::CHECKPOINTS_AT_ONCE)
            .collect()
            .await;
        // Closed at the end of the process is not deleted: its mark goes on.
        let image = self.metadata.image();
        self.marks.retain(|id, _| open.contains_key(id) || image.partition(*id).is_some());
        let mut needed = Lsn(began_at.0 + 1);
        let mut failed = 0;
        for (id, answer) in answers {
            match answer {
                Ok(mark) => {
                    self.marks.insert(id, mark);
                }
                // Deleted meanwhile: nobody needs it. What the image still has was only closed, and the next
                // start needs its entries.
                Err(_)
                    if self.replicas.get(id).is_none() && self.metadata.image().partition(id).is_none() =>
                {
                    self.marks.remove(&id);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(partition = %id, error = %error, "partition not checkpointed");
                    failed += 1;
                }
            }
            needed = needed.min(self.marks.get(&id).map_or(Lsn(0), |mark| Lsn(mark.lsn.0 + 1)));
        }
        let mut marks = self.marks.clone();
        for (id, pin) in &pins.0 {
            needed = needed.min(pin.needed_from.unwrap_or(needed));
            if let Some(mark) = pin.mark {
                marks.entry(id.partition).or_insert(mark);
            }
        }
        if self.some_are_closed(&open, &pins) {
            needed = Lsn(0);
        }
        let mut record_bytes = 0;
        if !marks.is_empty() {
            self.backend.disk().sync_dir(&self.directory, deadline).await?;
            let marks: Vec<CheckpointMark> = marks.into_values().collect();
            let entries = checkpoint_entries(&marks, self.entry_bytes);
            record_bytes = entries.iter().map(|entry| entry.payload.len()).sum();
            write_durably(&self.backend, &self.journal, entries, deadline).await?;
        }
        self.journal.release_before(needed);
        tracing::debug!(event = "CHECKPOINT", partitions = open.len(), failed, released_before = needed.0);
        match failed {
            0 => Ok(Round { record_bytes, complete: needed > durable }),
            failed => Err(CheckpointFailed::Partitions(failed)),
        }
    }
}

impl<B: Backend> Checkpointer<B> {
    /// Whether the image has a replica of this node that is neither open nor pinned: one that was closed because the
    /// process ends, or that is not begun yet. Nobody can say what it needs, so nothing is released.
    fn some_are_closed(&self, open: &OpenReplicas<B>, pins: &Pins) -> bool {
        let image = self.metadata.image();
        image.topics.values().any(|topic| {
            (0..).zip(&topic.partitions).any(|(index, partition)| {
                let id = PartitionId { topic: topic.id, index };
                partition.replicas.contains(&self.node)
                    && !open.contains_key(&id)
                    && !pins.0.keys().any(|pinned| pinned.partition == id)
            })
        })
    }
}

pub(super) async fn ask_for_checkpoint<B: Backend>(
    checkpoints: &Sender<B, CheckpointInput>,
    deadline: Deadline,
) -> Result<(), CheckpointFailed> {
    let (replier, reply) = checkpoints.reply("checkpoint");
    let asked = checkpoints.send(CheckpointInput::Now(replier), deadline).await;
    asked.map_err(|_| CheckpointFailed::NotDurable)?;
    reply.wait(deadline).await.unwrap_or(Err(CheckpointFailed::NotDurable))
}

/// Submits and waits until it is durable.
async fn write_durably<B: Backend>(
    backend: &B,
    journal: &JournalHandle,
    entries: Vec<JournalEntry>,
    deadline: Deadline,
) -> Result<(), CheckpointFailed> {
    let progress = Arc::new(Progress::default());
    let mut last = Lsn(0);
    // One by one: a record of many entries may be more than the queue takes at once.
    for entry in entries {
        last = submit(journal, entry, &progress, deadline).await?;
    }
    durable(backend, journal, &progress, last, deadline).await
}

async fn submit(
    journal: &JournalHandle,
    entry: JournalEntry,
    progress: &Arc<Progress>,
    deadline: Deadline,
) -> Result<Lsn, CheckpointFailed> {
    loop {
        match journal.submit(vec![entry.clone()], progress) {
            Ok(lsn) => return Ok(lsn),
            Err(error @ (SubmitError::Full | SubmitError::ShareExhausted | SubmitError::Stalled)) => {
                // Until there is room, and never longer than the round may take.
                if journal.room(PartitionId::NODE, entry.payload.len(), deadline).await.is_err() {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[track_caller]
fn durable<'a, B: Backend>(
    backend: &'a B,
    journal: &'a JournalHandle,
    progress: &'a Progress,
    lsn: Lsn,
    deadline: Deadline,
) -> impl Future<Output = Result<(), CheckpointFailed>> + Send + 'a {
    let site = Location::caller();
    async move {
        let waiting = poll_fn(|cx| {
            progress.register(cx);
            if progress.reached() >= lsn.0 {
                return Poll::Ready(Ok(()));
            }
            match progress.failed_from() {
                Some(_) => Poll::Ready(Err(CheckpointFailed::NotDurable)),
                None => Poll::Pending,
            }
        });
        let wait = backend
            .registry()
            .waiting(backend, WaitKind::Change, "sync of the checkpoint record", site)
            .held_by_any(journal.resource());
        io_backend::within(backend, deadline, wait.during(waiting))
            .await
            .unwrap_or(Err(CheckpointFailed::NotDurable))
    }
}
