//! The task `checkpoint`: brings what the journal holds into segments, records how far, and lets the journal go.
//!
//! It wakes when the journal has grown by `journal.checkpoint_bytes`, or when asked. A timer runs only after a
//! round that left more than that unreleased: what held it up may be over without the journal growing, since
//! producers wait while checkpoints are behind.
//! Order of a round: segments, index and producer state of every partition (each synced by its owner), the
//! directory that names them, the record of all marks, and only then the release. Nothing is released
//! that a partition has not vouched for, that a replica not yet open still needs, or that was
//! submitted after the round began.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::panic::Location;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};
use io_backend::channel::ReceiveError;
use io_backend::progress::Progress;
use io_backend::{Backend, Deadline, Disk, DiskError, Published, Receiver, Replier, Sender, WaitKind};

use super::reconcile::ReplicaId;
use super::recover::checkpoint_entries;
use super::{HeldBy, Replicas};
use crate::ids::{BrokerId, Lsn, Offset, PartitionId};
use crate::journal::{JournalEntry, JournalHandle, JournalStatus, SubmitError};
use crate::limits;
use crate::log::CheckpointMark;
use crate::metadata::{MetadataHandle, MetadataImage};

/// What replicas that are not open still need of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pins {
    pub(super) replicas: BTreeMap<ReplicaId, Pin>,
    /// The process ends and closes its replicas: those that are not open any more need what they needed.
    pub(super) closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    /// The mark it was recovered with, which every record repeats.
    pub(super) mark: Option<CheckpointMark>,
    /// Its first entry after that.
    pub(super) needed_from: Option<Lsn>,
}

/// The pause after a round that left too much unreleased is as long as the round took, within these. Where the disk was
/// full, records are taken again soon after there is space.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(2);

pub(super) enum CheckpointInput {
    /// Answers whether it has all that was submitted by its end.
    Now(Replier<Result<bool, CheckpointFailed>>),
    /// Records that these logs start there, which their owners have made durable, without writing any segment: where
    /// space is short, that is what makes some. Answers what the record vouches for.
    Vouch(Vec<LaterStart>, Replier<Result<Vec<CheckpointMark>, CheckpointFailed>>),
}

/// Where a log starts now.
pub(super) struct LaterStart {
    pub(super) partition: PartitionId,
    pub(super) log_start: Offset,
    /// How often it had been truncated.
    pub(super) truncations: u32,
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
    /// It has all that was submitted by its end.
    has_all: bool,
    /// Why it keeps what was durable when the round began.
    held_by: Option<HeldBy>,
    /// Partitions that could not be checkpointed.
    failed: usize,
}

/// The last record of a round, which a start needs until there is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    /// Nothing of it is before this.
    from: Lsn,
    /// Of what is before this, it or itself says all.
    vouched_before: Lsn,
}

impl Recorded {
    /// `count` entries that end with `last`, of a round that began when the journal ended with `began_at`. Of what came into the journal
    /// between the two, nobody has said anything.
    fn new(needed: Lsn, began_at: Lsn, last: Lsn, count: u64) -> Recorded {
        let vouches_for_all = needed > began_at && last.0 == began_at.0 + count;
        Recorded {
            from: Lsn(began_at.0 + 1),
            vouched_before: if vouches_for_all { Lsn(last.0 + 1) } else { needed },
        }
    }

    /// Another record of what is needed from here on would say nothing new.
    fn covers(&self, needed: Lsn) -> bool {
        needed <= self.vouched_before
    }
}

/// When the next round begins, if nobody asks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// When the journal holds more than so many bytes.
    Above(u64),
    After(Duration),
}

/// Decides that. Pure.
#[derive(Clone, Copy, Debug)]
struct Pace {
    every_bytes: u64,
    /// The journal takes no records above this.
    unreleased_max: u64,
}

impl Pace {
    fn first(self) -> Next {
        self.above(self.every_bytes)
    }

    /// After a round; `None` is one without a record.
    fn next(self, round: Option<&Round>, took: Duration, unreleased: u64, disk_full: bool) -> Next {
        match round {
            // The journal has no room for another file, and asks at once for all that can be released.
            _ if disk_full => Next::After(pause(took)),
            // What was written during the round may ask for the next one at once; what stays because the
            // journal lets go in steps, and the record itself, may not.
            Some(Round { record_bytes, complete: true, .. }) => {
                self.above(self.every_bytes + limits::JOURNAL_RELEASE_STEP_BYTES + *record_bytes as u64)
            }
            _ => match self.first() {
                // So little is kept that it waits for the journal to grow.
                Next::Above(bytes) if unreleased <= bytes => Next::Above(bytes),
                // What could not be released now does not start the next round by itself.
                _ => Next::After(pause(took)),
            },
        }
    }

    /// Never above the limit: there the journal does not grow any more.
    fn above(self, bytes: u64) -> Next {
        Next::Above(bytes.min(self.unreleased_max / 2))
    }
}

fn pause(took: Duration) -> Duration {
    took.clamp(PAUSE_MIN, PAUSE_MAX)
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
    /// What the last record of a round said.
    pub(super) recorded: Recorded,
    /// Those whose last checkpoint failed.
    pub(super) failing: BTreeSet<PartitionId>,
    /// Why the journal was not released, as it was logged last.
    pub(super) told: Option<String>,
    pub(super) directory: PathBuf,
    /// Largest entry that the journal takes.
    pub(super) entry_bytes: usize,
    /// A round begins when the journal has grown by this.
    pub(super) every_bytes: u64,
    /// The journal takes no records while it holds more than this.
    pub(super) unreleased_max: u64,
}

impl<B: Backend> Checkpointer<B> {
    pub(super) async fn run(mut self) {
        const MAILBOX: Deadline = Deadline::Unbounded("the checkpoint task waits to be asked");
        let pace = Pace { every_bytes: self.every_bytes, unreleased_max: self.unreleased_max };
        let mut next = pace.first();
        loop {
            let asked = {
                let asked = pin!(self.mailbox.receive(MAILBOX));
                match select(asked, pin!(due(&self.backend, &self.journal, next))).await {
                    Either::Left((Ok(input), _)) => Some(input),
                    Either::Left((Err(ReceiveError::Closed | ReceiveError::TimedOut), _)) => return,
                    Either::Right(_) => None,
                }
            };
            let asked = match asked {
                Some(CheckpointInput::Vouch(starts, replier)) => {
                    replier.answer(self.vouch(starts).await);
                    continue;
                }
                Some(CheckpointInput::Now(replier)) => Some(replier),
                None => None,
            };
            let began = self.backend.now();
            let result = self.round().await;
            let took = self.backend.now().since(began);
            let JournalStatus { unreleased_bytes, disk_full, .. } = self.journal.status();
            next = pace.next(result.as_ref().ok(), took, unreleased_bytes, disk_full);
            self.tell(&result, next, unreleased_bytes);
            let result = result.and_then(|round| match round.failed {
                0 => Ok(round.has_all),
                failed => Err(CheckpointFailed::Partitions(failed)),
            });
            if let Some(replier) = asked {
                replier.answer(result);
            }
        }
    }

    /// Says why a round did not release what it was begun for: once, until that changes.
    fn tell(&mut self, result: &Result<Round, CheckpointFailed>, next: Next, unreleased_bytes: u64) {
        let held_by = result.as_ref().map_or(None, |round| round.held_by.clone());
        let pause_ms = match next {
            Next::After(pause) => Some(pause.as_millis() as u64),
            Next::Above(_) => None,
        };
        let told = match (result, &held_by) {
            (Err(error), _) => Some(error.to_string()),
            // Without the reason, which names another file at each attempt.
            (Ok(_), Some(held_by)) if pause_ms.is_some() => Some(held_by.name()),
            (Ok(_), _) => None,
        };
        if self.told != told {
            match (result, &held_by) {
                (Err(error), _) => {
                    tracing::warn!(error = %error, unreleased_bytes, pause_ms, "checkpoint failed; the journal keeps what it would have released, and the next ones follow after pauses");
                }
                (Ok(Round { failed, .. }), Some(held_by)) if told.is_some() => {
                    tracing::warn!(%held_by, failed, unreleased_bytes, pause_ms, "a checkpoint released less than it should; the next ones follow after pauses");
                }
                (Ok(_), _) => tracing::info!(unreleased_bytes, "checkpoints release the journal again"),
            }
            self.told = told;
        }
        if *self.replicas.held_by.get() != held_by {
            self.replicas.held_by.publish(held_by);
        }
    }

    async fn round(&mut self) -> Result<Round, CheckpointFailed> {
        let deadline = Deadline::after(&self.backend, limits::CHECKPOINT_DEADLINE);
        // In this order: a replica that is seen neither pinned nor open is not begun yet, so it has no entry up to
        // here; or it was closed, and then `closing` is seen after it.
        let JournalStatus { submitted: began_at, durable, disk_full, .. } = self.journal.status();
        let pins = self.pins.get();
        let open = self.replicas.open().get();
        let closing = self.pins.get().closing;
        // Closed at the end of the process is not deleted: its mark goes on.
        let image = self.metadata.image();
        self.marks.retain(|id, _| open.contains_key(id) || is_here(&image, *id, self.node));
        self.failing.retain(|id| open.contains_key(id));
        let asked: Vec<_> = open.values().cloned().collect();
        let answers: Vec<_> = futures::stream::iter(asked)
            .map(|partition| async move { (partition.id(), partition.checkpoint(deadline).await) })
            .buffer_unordered(limits::CHECKPOINTS_AT_ONCE)
            .collect()
            .await;
        let mut needed = (Lsn(began_at.0 + 1), None);
        let mut keep = |from: Lsn, held_by: HeldBy| {
            if from < needed.0 {
                needed = (from, Some(held_by));
            }
        };
        let mut failed = 0;
        for (id, answer) in answers {
            let why = match answer {
                Ok(mark) => {
                    self.marks.insert(id, mark);
                    self.failing.remove(&id);
                    None
                }
                // Deleted meanwhile: nobody needs it. What the image still has here was only closed, and the next
                // start needs its entries.
                Err(_)
                    if self.replicas.get(id).is_none() && !is_here(&self.metadata.image(), id, self.node) =>
                {
                    self.marks.remove(&id);
                    self.failing.remove(&id);
                    continue;
                }
                Err(error) => {
                    if self.failing.insert(id) {
                        tracing::warn!(partition = %id, error = %error, "partition not checkpointed; tried again until it is");
                    }
                    failed += 1;
                    Some(error.to_string())
                }
            };
            let from = self.marks.get(&id).map_or(Lsn(0), |mark| Lsn(mark.lsn.0 + 1));
            keep(from, HeldBy::Partition(id, why));
        }
        let mut marks = self.marks.clone();
        for (id, pin) in &pins.replicas {
            if let Some(from) = pin.needed_from {
                keep(from, HeldBy::NotOpen(id.partition));
            }
            if let Some(mark) = pin.mark {
                marks.entry(id.partition).or_insert(mark);
            }
        }
        if closing {
            keep(Lsn(0), HeldBy::Closing);
        }
        let (needed, held_by) = needed;
        let (mut record_bytes, mut record_entries) = (0, 0);
        // What a full disk has left in the journal's file is for what makes room: a record that releases nothing spends it.
        let is_spared = disk_full && self.recorded.covers(needed);
        if !marks.is_empty() && !is_spared {
            // Whoever was not done in time keeps the others' record from nothing.
            let deadline = Deadline::after(&self.backend, limits::CHECKPOINT_DEADLINE);
            self.backend.disk().sync_dir(&self.directory, deadline).await?;
            let marks: Vec<CheckpointMark> = marks.into_values().collect();
            let entries = checkpoint_entries(&marks, self.entry_bytes);
            record_bytes = entries.iter().map(|entry| entry.payload.len()).sum();
            record_entries = entries.len() as u64;
            let last = write_durably(&self.backend, &self.journal, entries, deadline).await?;
            self.recorded = Recorded::new(needed, began_at, last, record_entries);
        }
        // A record that no other one follows stays, though all that it was made for is vouched for.
        let released = if is_spared { needed.min(self.recorded.from) } else { needed };
        self.journal.release_before(released);
        tracing::debug!(event = "CHECKPOINT", partitions = open.len(), failed, released_before = released.0);
        let has_all = durable == began_at && self.journal.status().submitted.0 == began_at.0 + record_entries;
        Ok(Round { record_bytes, complete: needed > durable && failed == 0, has_all, held_by, failed })
    }
}

impl<B: Backend> Checkpointer<B> {
    /// Repeats the last marks of these with later starts.
    async fn vouch(&mut self, starts: Vec<LaterStart>) -> Result<Vec<CheckpointMark>, CheckpointFailed> {
        let mut marks = Vec::new();
        for LaterStart { partition, log_start, truncations } in starts {
            // Without a mark there is no segment that a start would open, and nothing to vouch for.
            let Some(mark) = self.marks.get_mut(&partition) else { continue };
            if mark.truncations < truncations {
                // What it has was not committed, and the journal cuts it below where the log starts now.
                let Some(handle) = self.replicas.get(partition) else { continue };
                let deadline = Deadline::after(&self.backend, limits::CHECKPOINT_DEADLINE);
                let Ok(newer) = handle.checkpoint(deadline).await else { continue };
                *mark = newer;
            }
            mark.log_start = mark.log_start.max(log_start.min(mark.log_end));
            marks.push(*mark);
        }
        if !marks.is_empty() {
            let deadline = Deadline::after(&self.backend, limits::CHECKPOINT_DEADLINE);
            // A mark of a round that was not recorded may be the first to name its partition's directory.
            self.backend.disk().sync_dir(&self.directory, deadline).await?;
            let entries = checkpoint_entries(&marks, self.entry_bytes);
            write_durably(&self.backend, &self.journal, entries, deadline).await?;
        }
        Ok(marks)
    }
}

/// Whether this node has a replica of the partition, as the image knows it.
fn is_here(image: &MetadataImage, id: PartitionId, node: BrokerId) -> bool {
    image.partition(id).is_some_and(|partition| partition.replica(node).is_some())
}

/// Until the next round is due.
async fn due<B: Backend>(backend: &B, journal: &JournalHandle, next: Next) {
    const GROWTH: Deadline = Deadline::Unbounded("a checkpoint begins when the journal has grown");
    match next {
        Next::Above(bytes) => {
            let _ = journal.until_unreleased(bytes, GROWTH).await;
        }
        Next::After(pause) => backend.sleep(pause).await,
    }
}

pub(super) async fn ask_to_vouch<B: Backend>(
    checkpoints: &Sender<B, CheckpointInput>,
    starts: Vec<LaterStart>,
    deadline: Deadline,
) -> Result<Vec<CheckpointMark>, CheckpointFailed> {
    let (replier, reply) = checkpoints.reply("record of the logs' starts");
    let asked = checkpoints.send(CheckpointInput::Vouch(starts, replier), deadline).await;
    asked.map_err(|_| CheckpointFailed::NotDurable)?;
    reply.wait(deadline).await.unwrap_or(Err(CheckpointFailed::NotDurable))
}

/// Whether it has all that was submitted by its end.
pub(super) async fn ask_for_checkpoint<B: Backend>(
    checkpoints: &Sender<B, CheckpointInput>,
    deadline: Deadline,
) -> Result<bool, CheckpointFailed> {
    let (replier, reply) = checkpoints.reply("checkpoint");
    let asked = checkpoints.send(CheckpointInput::Now(replier), deadline).await;
    asked.map_err(|_| CheckpointFailed::NotDurable)?;
    reply.wait(deadline).await.unwrap_or(Err(CheckpointFailed::NotDurable))
}

/// Submits and waits until it is durable; the LSN of the last.
async fn write_durably<B: Backend>(
    backend: &B,
    journal: &JournalHandle,
    entries: Vec<JournalEntry>,
    deadline: Deadline,
) -> Result<Lsn, CheckpointFailed> {
    let progress = Arc::new(Progress::default());
    let mut last = Lsn(0);
    // One by one: a record of many entries may be more than the queue takes at once.
    for entry in entries {
        last = submit(journal, entry, &progress, deadline).await?;
    }
    durable(backend, journal, &progress, last, deadline).await?;
    Ok(last)
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
            Err(
                error @ (SubmitError::Full
                | SubmitError::ShareExhausted
                | SubmitError::Stalled
                | SubmitError::NoRoom),
            ) => {
                // Until there is room, and never longer than the round may take.
                if journal.wait_for_capacity(PartitionId::NODE, entry.payload.len(), deadline).await.is_err()
                {
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

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: u64 = 100;
    const LIMIT: u64 = 400;
    const TOOK: Duration = Duration::from_millis(1);

    fn round(complete: bool) -> Round {
        Round { record_bytes: 0, complete, has_all: complete, held_by: None, failed: 0 }
    }

    const PACE: Pace = Pace { every_bytes: EVERY, unreleased_max: LIMIT };

    #[test]
    fn a_record_vouches_for_nothing_that_came_after_its_round_began() {
        // The round began with entry 10, and its record is the next two; or another entry came before that.
        let recorded = |needed, last| Recorded::new(Lsn(needed), Lsn(10), Lsn(last), 2);
        let of = |from, vouched_before| Recorded { from: Lsn(from), vouched_before: Lsn(vouched_before) };
        assert_eq!(recorded(11, 12), of(11, 13), "and for itself");
        assert_eq!(recorded(11, 13), of(11, 11), "entry 11 is in no mark");
        assert_eq!(recorded(7, 12), of(11, 7), "somebody was not done");
    }

    #[test]
    fn a_node_whose_rounds_release_everything_has_no_timer() {
        assert_eq!(PACE.first(), Next::Above(EVERY));
        let next = PACE.next(Some(&round(true)), TOOK, 20, false);
        assert!(matches!(next, Next::Above(bytes) if bytes < LIMIT));
    }

    #[test]
    fn no_round_waits_for_more_than_the_journal_may_hold() {
        for (every_bytes, unreleased_max) in
            [(EVERY, LIMIT), (LIMIT, LIMIT), (1 << 40, LIMIT), (EVERY, u64::MAX)]
        {
            let pace = Pace { every_bytes, unreleased_max };
            for (outcome, unreleased) in [
                (None, 0),
                (Some(round(false)), 0),
                (Some(round(true)), unreleased_max),
                (None, unreleased_max),
            ] {
                for next in [pace.first(), pace.next(outcome.as_ref(), TOOK, unreleased, false)] {
                    let waits_in_vain = matches!(next, Next::Above(bytes) if bytes >= unreleased_max);
                    assert!(!waits_in_vain, "{pace:?}: {next:?}");
                }
            }
        }
    }

    #[test]
    fn a_round_that_leaves_too_much_is_followed_by_another_after_a_pause_as_long_as_it_was() {
        let pause = |took| PACE.next(Some(&round(false)), took, LIMIT + 1, false);
        assert_eq!(pause(TOOK), Next::After(PAUSE_MIN));
        assert_eq!(pause(Duration::from_secs(1)), Next::After(Duration::from_secs(1)));
        assert_eq!(pause(Duration::from_secs(60)), Next::After(PAUSE_MAX));
        assert_eq!(PACE.next(None, TOOK, LIMIT + 1, false), Next::After(PAUSE_MIN));
    }

    #[test]
    fn what_little_an_incomplete_round_leaves_waits_for_the_journal_to_grow() {
        assert_eq!(PACE.next(Some(&round(false)), TOOK, EVERY, false), Next::Above(EVERY));
    }

    #[test]
    fn while_the_disk_is_full_rounds_follow_by_the_clock_and_not_by_what_is_asked() {
        assert_eq!(PACE.next(Some(&round(true)), TOOK, 1, true), Next::After(PAUSE_MIN));
        assert!(matches!(PACE.next(Some(&round(true)), TOOK, 1, false), Next::Above(_)));
    }
}
