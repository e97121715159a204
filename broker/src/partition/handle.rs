//! The handle of a partition's owner task.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use io_backend::channel::{ReplyError, SendError};
use io_backend::{Backend, Deadline, DiskError, Published, Replier, Reply, Sender};

use super::log_signal::Durable;
use super::owner::{Looked, PartitionInput, Planned, PlannedFetch, Ticket};
use super::replica_state::{Append, FollowError, InSync};
use super::retention::{DeadFiles, DeleteRecordsError, Retained};
use super::{
    Acks, AppendError, Appended, Fetched, FollowerRead, LeaderMarks, OffsetFound, OffsetQuery, PartitionView,
    ReadError, ReadOutcome, ReadRequest, Unacknowledged,
};
use crate::budget::{Account, Share, charged};
use crate::ids::{BrokerId, LeaderEpoch, Offset, PartitionEpoch, PartitionId};
use crate::log::batch::{BatchHeader, CheckedBatch};
use crate::log::cleaning::{Cleaned, Plan, batch_from};
use crate::log::read::ReadFailure;
use crate::log::{CheckpointMark, LogSettings};
use crate::metrics::TopicCounters;

/// Cloneable; all clones lead to the same owner. A fetch has one for each of its partitions, so they share what they hold.
pub struct PartitionHandle<B: Backend>(pub(super) Arc<Door<B>>);

/// What a handle holds.
pub struct Door<B: Backend> {
    pub(super) id: PartitionId,
    /// `<topic>-<index>`, for people.
    pub(super) name: Arc<str>,
    pub(super) backend: B,
    /// Bytes of appends that the owner has not copied yet.
    pub(super) room: Arc<Account>,
    pub(super) appends: Sender<B, Append<Ticket>>,
    pub(super) mailbox: Sender<B, PartitionInput<B>>,
    pub(super) views: Published<PartitionView>,
    pub(super) counters: TopicCounters,
    /// Offset of the damage that was told last, so that each is told once.
    pub(super) told_damage: AtomicI64,
}

impl<B: Backend> Deref for PartitionHandle<B> {
    type Target = Door<B>;

    fn deref(&self) -> &Door<B> {
        &self.0
    }
}

impl<B: Backend> Clone for PartitionHandle<B> {
    fn clone(&self) -> Self {
        PartitionHandle(self.0.clone())
    }
}

/// An append that is queued: where it stands among others is settled, its outcome is not.
pub struct PendingAppend<B: Backend> {
    pub(super) reply: Option<Reply<B, Result<Appended, AppendError>>>,
    pub(super) deadline: Deadline,
}

impl<B: Backend> PendingAppend<B> {
    /// The outcome; for acks=0 at once, and then without an offset.
    pub async fn wait(self) -> Result<Appended, AppendError> {
        match self.reply {
            Some(reply) => match reply.wait(self.deadline).await {
                Ok(outcome) => outcome,
                // It may have been submitted.
                Err(ReplyError::TimedOut | ReplyError::Dropped) => Err(AppendError::Unknown),
            },
            None => Ok(Appended {
                base_offset: Offset(-1),
                log_start: Offset(-1),
                log_append_time_ms: -1,
                duplicate: false,
            }),
        }
    }
}

impl<B: Backend> PartitionHandle<B> {
    /// Which partition it is.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// `<topic>-<index>`, for people.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What is counted for its topic.
    pub fn counters(&self) -> &TopicCounters {
        &self.counters
    }

    /// What readers may see now, and a way to wait for more. The log's end in it is as of the last time
    /// that anything else changed.
    pub fn views(&self) -> &Published<PartitionView> {
        &self.views
    }

    /// Queues batches. Returns as soon as they have a place in the mailbox (waiting for one is
    /// what holds up a connection that produces too fast); appends of one caller keep their order.
    pub async fn append(
        &self,
        batches: Vec<CheckedBatch>,
        acks: Acks,
        deadline: Deadline,
    ) -> Result<PendingAppend<B>, AppendError> {
        let (ticket, reply) = match acks {
            Acks::None => (Ticket::Nobody, None),
            Acks::Leader | Acks::All => {
                let (replier, reply) = self.appends.reply("append");
                (Ticket::Reply(replier), Some(reply))
            }
        };
        self.enqueue(batches, acks, ticket, deadline).await?;
        Ok(PendingAppend { reply, deadline })
    }

    /// Queues batches whose producer asks for no acknowledgement; `told` hears if they fail there.
    pub async fn append_unacknowledged(
        &self,
        batches: Vec<CheckedBatch>,
        told: Arc<dyn Unacknowledged>,
        deadline: Deadline,
    ) -> Result<PendingAppend<B>, AppendError> {
        self.enqueue(batches, Acks::None, Ticket::Failure(told), deadline).await?;
        Ok(PendingAppend { reply: None, deadline })
    }

    async fn enqueue(
        &self,
        mut batches: Vec<CheckedBatch>,
        acks: Acks,
        ticket: Ticket,
        deadline: Deadline,
    ) -> Result<(), AppendError> {
        if deadline.has_passed(&self.backend) {
            // It stood behind others for all of its time. What is begun now ends in an answer that says nothing.
            return Err(AppendError::Overloaded);
        }
        for batch in &mut batches {
            let share = self.take_room(batch.bytes.len(), deadline).await?;
            batch.bytes = charged(std::mem::take(&mut batch.bytes), share);
        }
        match self.appends.send(Append { batches, acks, deadline, ticket }, deadline).await {
            Ok(()) => Ok(()),
            Err(SendError::Closed(_)) => Err(AppendError::Gone),
            Err(SendError::Full(_) | SendError::TimedOut(_)) => Err(AppendError::Overloaded),
        }
    }

    /// Room for an append, waited for until the deadline.
    async fn take_room(&self, bytes: usize, deadline: Deadline) -> Result<Share, AppendError> {
        let class = crate::budget::RequestClass::Essential;
        if let Some(share) = self.room.try_take(class, bytes) {
            return Ok(share);
        }
        let (registry, site) = (self.backend.registry(), std::panic::Location::caller());
        let wait = registry.waiting(&self.backend, io_backend::WaitKind::Send, "room for appends", site);
        let wait = wait.on(self.name.clone()).bounded_by(deadline);
        let taking = wait.during(self.room.take(class, bytes));
        io_backend::within(&self.backend, deadline, taking).await.map_err(|_| AppendError::Overloaded)
    }

    /// Whole batches in order from the one that holds the offset; each piece holds one or more.
    pub async fn read(&self, request: ReadRequest, deadline: Deadline) -> Result<ReadOutcome, ReadError> {
        let from = request.from;
        let ask = |reply| PartitionInput::Read { request, reply };
        let planned = self.question("read plan", ask, deadline).await??;
        match planned.plan.execute(deadline).await {
            Ok(batches) => Ok(ReadOutcome { view: planned.view, batches }),
            Err(failure) => {
                let now = self.views.get();
                // Deleted while it was read: what cannot be read is not there any more.
                if from < now.log_start {
                    return Err(ReadError::OutOfRange(from, now.log_start, now.high_watermark));
                }
                Err(self.read_error(failure))
            }
        }
    }

    /// `None`: no record answers the query.
    pub async fn offset(
        &self,
        query: OffsetQuery,
        current_epoch: Option<LeaderEpoch>,
        deadline: Deadline,
    ) -> Result<Option<OffsetFound>, ReadError> {
        loop {
            let ask = |reply| PartitionInput::Offset { query, current_epoch, reply };
            let plan = match self.question("offset", ask, deadline).await?? {
                Looked::Found(found) => return Ok(Some(found)),
                Looked::Search(plan) => plan,
            };
            let log_start = plan.log_start;
            match plan.execute(deadline).await {
                Ok(found) => {
                    return Ok(found.map(|found| OffsetFound {
                        offset: found.offset,
                        timestamp: found.timestamp,
                        leader_epoch: found.leader_epoch,
                    }));
                }
                // Deleted while it was searched: the answer is in what is left.
                Err(_) if self.views.get().log_start > log_start && !deadline.has_passed(&self.backend) => {}
                Err(failure) => return Err(self.read_error(failure)),
            }
        }
    }

    /// KIP-101: the largest epoch not above `epoch`, and where it ends; (-1, -1) where none is known.
    pub async fn epoch_end(
        &self,
        epoch: LeaderEpoch,
        current_epoch: Option<LeaderEpoch>,
        deadline: Deadline,
    ) -> Result<(LeaderEpoch, Offset), ReadError> {
        let ask = |reply| PartitionInput::EpochEnd { epoch, current_epoch, reply };
        self.question("epoch end", ask, deadline).await?
    }

    /// Begins to lead under `epoch`: done when the epoch's start is synced. Asking again for the same
    /// epoch is harmless.
    pub async fn lead(
        &self,
        epoch: LeaderEpoch,
        in_sync: InSync,
        deadline: Deadline,
    ) -> Result<(), AppendError> {
        let ask = |reply| PartitionInput::Lead { epoch, in_sync, reply };
        self.ask("leadership", ask, deadline).await?
    }

    /// Follows the leader of `epoch` from now on. Answers the epoch of its last record and its log end, to fetch from.
    pub async fn follow(
        &self,
        epoch: LeaderEpoch,
        deadline: Deadline,
    ) -> Result<(LeaderEpoch, Offset), ReadError> {
        self.question("following", |reply| PartitionInput::Follow { epoch, reply }, deadline).await
    }

    /// What the leader of `epoch` has answered to a fetch from `asked`, which this replica had answered as what to fetch from
    /// next. Answers the same for the next fetch.
    pub async fn fetched(
        &self,
        epoch: LeaderEpoch,
        asked: (LeaderEpoch, Offset),
        fetched: Fetched,
        deadline: Deadline,
    ) -> Result<Result<(LeaderEpoch, Offset), FollowError>, ReadError> {
        let ask = |reply| PartitionInput::Fetched { epoch, asked, fetched, reply };
        self.question("what was fetched", ask, deadline).await
    }

    /// What a follower gets of this replica, which leads. The disk part is still to be done.
    pub async fn plan_for_follower(
        &self,
        read: FollowerRead,
        deadline: Deadline,
    ) -> Result<FollowerPlan<B>, ReadError> {
        let ask = |reply| PartitionInput::FollowerRead { read, reply };
        let (planned, marks) = self.question("read plan", ask, deadline).await??;
        Ok(FollowerPlan { partition: self.clone(), planned, marks })
    }

    /// So much is on a follower's disk, as it says in `epoch`. Says nothing where the owner is gone.
    pub async fn reported(
        &self,
        epoch: LeaderEpoch,
        follower: BrokerId,
        durable: Durable,
        deadline: Deadline,
    ) {
        let _ = self.mailbox.send(PartitionInput::Reported { epoch, follower, durable }, deadline).await;
    }

    /// The same, of who does not wait: `false` where the owner has no room for it now.
    pub fn try_reported(&self, epoch: LeaderEpoch, follower: BrokerId, durable: Durable) -> bool {
        let said = self.mailbox.try_send(PartitionInput::Reported { epoch, follower, durable });
        !matches!(said, Err(SendError::Full(_)))
    }

    /// Nothing is known of the follower any more: it is another process, or fetches anew. Says nothing where the owner is gone.
    pub async fn forget_follower(&self, epoch: LeaderEpoch, follower: BrokerId, deadline: Deadline) {
        let _ = self.mailbox.send(PartitionInput::ForgetFollower { epoch, follower }, deadline).await;
    }

    /// Those of `followers` that may be put in sync, for they have all that must be there, on their disks. They count as in sync
    /// from now on, beside others that were to be, until the partition has another version than `version`. `None`: it has,
    /// or this node does not lead in the epoch.
    pub async fn add_to_in_sync(
        &self,
        epoch: LeaderEpoch,
        version: PartitionEpoch,
        followers: Vec<BrokerId>,
        deadline: Deadline,
    ) -> Result<Option<Vec<BrokerId>>, ReadError> {
        let ask = |reply| PartitionInput::AddToInSync { epoch, version, followers, reply };
        self.question("who is to be in sync", ask, deadline).await
    }

    /// Whether both lead to the same owner.
    pub fn is_same(&self, other: &PartitionHandle<B>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The ISR changed within `epoch`.
    ///
    /// # Errors
    ///
    /// The owner is gone, or had no room for it in time: it has not heard of it.
    pub async fn change_in_sync(
        &self,
        epoch: LeaderEpoch,
        in_sync: InSync,
        deadline: Deadline,
    ) -> Result<(), AppendError> {
        let said = self.mailbox.send(PartitionInput::InSync { epoch, in_sync }, deadline).await;
        said.map_err(|error| match error {
            SendError::Closed(_) => AppendError::Gone,
            _ => AppendError::Overloaded,
        })
    }

    /// Leads no more: appends are refused from now on. [`AppendError::Unknown`]: it has not said so in time, and may yet.
    pub async fn resign(&self, deadline: Deadline) -> Result<(), AppendError> {
        let ask = |reply| PartitionInput::Resign { reply };
        Ok(self.ask("resignation", ask, deadline).await?)
    }

    /// Brings everything that the journal holds durably into segments, with index and producer snapshot;
    /// returns what the checkpoint record says of this partition. Its LSN rises with the journal's
    /// even where this partition had nothing to write.
    pub async fn checkpoint(&self, deadline: Deadline) -> Result<CheckpointMark, DiskError> {
        let ask = |reply| PartitionInput::Checkpoint { deadline, reply };
        let unanswered = |unanswered| {
            let kind = match unanswered {
                Unanswered::Gone => std::io::ErrorKind::NotFound,
                Unanswered::NotAsked | Unanswered::TimedOut => std::io::ErrorKind::TimedOut,
            };
            DiskError::new("checkpoint", &*self.name, kind.into())
        };
        self.ask("checkpoint", ask, deadline).await.map_err(unanswered)?
    }

    /// Keeps its log so from now on.
    pub async fn configure(&self, settings: LogSettings, deadline: Deadline) -> Result<(), ReadError> {
        let ask = |reply| PartitionInput::Settings { settings: Box::new(settings), reply };
        self.question("new settings", ask, deadline).await
    }

    /// Moves the log's start past what may go. Answered when that is durable, or does not come to pass.
    pub async fn retain(&self, deadline: Deadline) -> Result<Retained, ReadError> {
        self.question("what may go", |reply| PartitionInput::Retain { reply }, deadline).await
    }

    /// Deletes all records before an offset, or before the high watermark. Where the logs of all in sync start then, durably.
    pub async fn delete_records(
        &self,
        before: Option<Offset>,
        deadline: Deadline,
    ) -> Result<Offset, DeleteRecordsError> {
        let ask = |reply| PartitionInput::DeleteRecords { before, reply };
        match self.question("deletion of records", ask, deadline).await {
            Ok(outcome) => outcome,
            Err(ReadError::Gone) => Err(DeleteRecordsError::Gone),
            Err(_) => {
                tracing::debug!(
                    partition = %self.name(),
                    ?before,
                    "a deletion is not acknowledged in time: not all in sync, or too few, have it on their disks"
                );
                Err(DeleteRecordsError::TimedOut)
            }
        }
    }

    /// A recorded checkpoint vouches that the log starts at `start`: segments before it are not needed any more.
    pub async fn forget_before(&self, start: Offset, deadline: Deadline) -> Result<DeadFiles, ReadError> {
        self.question("dead segments", |reply| PartitionInput::ForgetBefore { start, reply }, deadline).await
    }

    /// What is to be cleaned of it now, if anything is.
    pub async fn plan_cleaning(&self, deadline: Deadline) -> Result<Option<Box<Plan<B>>>, ReadError> {
        self.question("what to clean", |reply| PartitionInput::PlanCleaning { reply }, deadline).await
    }

    /// Puts what was cleaned in its place. The files that it took the place of; `None` where what it was made of is not there any
    /// more, and it does not count.
    pub async fn put_cleaned(
        &self,
        cleaned: Box<Cleaned<B>>,
        deadline: Deadline,
    ) -> Result<Option<DeadFiles>, ReadError> {
        let ask = |reply| PartitionInput::Cleaned { cleaned, reply };
        self.question("place of what was cleaned", ask, deadline).await
    }

    /// Bytes of all records it holds, in segments or not.
    pub async fn bytes(&self, deadline: Deadline) -> Result<u64, ReadError> {
        self.question("size", |reply| PartitionInput::Size { reply }, deadline).await
    }

    /// Answers what waits and ends the owner; `delete` also removes the files.
    pub async fn close(&self, delete: bool, deadline: Deadline) {
        let ask = |reply| PartitionInput::Close { delete, deadline, reply };
        // Gone already, or it ends when its disk operation does: either way nobody can wait for more.
        let _ = self.ask("end of the owner", ask, deadline).await;
    }

    async fn question<A: Send>(
        &self,
        what: &'static str,
        input: impl FnOnce(Replier<A>) -> PartitionInput<B>,
        deadline: Deadline,
    ) -> Result<A, ReadError> {
        self.ask(what, input, deadline).await.map_err(|unanswered| match unanswered {
            Unanswered::Gone => ReadError::Gone,
            Unanswered::NotAsked | Unanswered::TimedOut => {
                ReadError::Storage(format!("{} did not answer in time", self.name))
            }
        })
    }

    async fn ask<A: Send>(
        &self,
        what: &'static str,
        input: impl FnOnce(Replier<A>) -> PartitionInput<B>,
        deadline: Deadline,
    ) -> Result<A, Unanswered> {
        let (replier, reply) = self.mailbox.reply(what);
        self.mailbox.send(input(replier), deadline).await.map_err(|error| match error {
            SendError::Closed(_) => Unanswered::Gone,
            SendError::Full(_) | SendError::TimedOut(_) => Unanswered::NotAsked,
        })?;
        reply.wait(deadline).await.map_err(|error| match error {
            ReplyError::TimedOut => Unanswered::TimedOut,
            ReplyError::Dropped => Unanswered::Gone,
        })
    }

    fn read_error(&self, failure: ReadFailure) -> ReadError {
        match failure {
            ReadFailure::Disk(error) => ReadError::Storage(error.to_string()),
            ReadFailure::Damaged(damage) => {
                let text = ReadFailure::Damaged(damage.clone()).to_string();
                if self.told_damage.swap(damage.offset.0, Ordering::Relaxed) != damage.offset.0 {
                    tracing::error!(partition = %self.name, offset = damage.offset.0, "{text}");
                }
                ReadError::Corrupt(text)
            }
        }
    }
}

/// What a follower's fetch comes to, as the leader has planned it: a snapshot, of which the disk part is still to be done.
pub struct FollowerPlan<B: Backend> {
    partition: PartitionHandle<B>,
    planned: PlannedFetch<B>,
    marks: LeaderMarks,
}

impl<B: Backend> FollowerPlan<B> {
    /// Reads what it says, at most so many bytes of it; the first batch is given even where it is larger if `at_least_one`.
    pub async fn execute(
        self,
        max_bytes: usize,
        at_least_one: bool,
        deadline: Deadline,
    ) -> Result<Fetched, ReadError> {
        let (Planned { view, mut plan }, deleted) = match self.planned {
            PlannedFetch::Diverging { epoch, end } => return Ok(Fetched::Diverging { epoch, end }),
            PlannedFetch::Records(planned) => (planned, None),
            PlannedFetch::Beginning { asked, has_none, had_left, planned } => {
                (planned, Some((asked, has_none, had_left)))
            }
        };
        let from = deleted.map_or(plan.from, |(asked, ..)| asked);
        plan.limit_to(max_bytes, at_least_one || deleted.is_some());
        let mut batches = match plan.execute(deadline).await {
            Ok(batches) => batches,
            Err(failure) => return Err(self.partition.read_error(failure)),
        };
        let first = batches.first().and_then(|first| BatchHeader::read(first).ok());
        let lies_within = first.is_some_and(|first| first.base_offset < from && from < first.end());
        if lies_within && deleted.is_none_or(|(_, has_none, _)| has_none) {
            // It had what is before that when batches had other bounds, or began there: it gets the rest of this one.
            begin_at(&self.partition, &mut batches, from).await?;
        } else if let Some((asked, _, had_left)) = deleted {
            let at = match first {
                // It has less than the batch that the log begins within: from there it is given the rest.
                Some(first) if first.base_offset < asked => view.log_start,
                Some(first) => first.base_offset,
                None if view.log_start == view.log_end => view.log_start,
                None => return Err(ReadError::Storage("the log's first batch was not read".to_owned())),
            };
            // Who asks from the beginning of that batch has begun anew there.
            if at != asked || had_left {
                return Ok(Fetched::BeginsLater { at });
            }
        }
        Ok(Fetched::Records { batches, marks: self.marks })
    }
}

/// Leaves out what the first batch has before `from`, which lies within it.
async fn begin_at<B: Backend>(
    partition: &PartitionHandle<B>,
    batches: &mut Vec<Bytes>,
    from: Offset,
) -> Result<(), ReadError> {
    let Some(piece) = batches.first_mut() else { return Ok(()) };
    let whole = BatchHeader::read(piece).ok().filter(|header| header.bytes <= piece.len());
    let rest = match whole {
        Some(header) => {
            batch_from(&header, &piece.slice(..header.bytes), from).await.map(|rest| (header, rest))
        }
        None => None,
    };
    let (header, rest) = rest.ok_or_else(|| {
        ReadError::Corrupt(format!(
            "the batch of {} that holds offset {from} cannot be divided there",
            partition.name
        ))
    })?;
    let others = piece.split_off(header.bytes);
    *piece = rest;
    if !others.is_empty() {
        batches.insert(1, others);
    }
    Ok(())
}

/// Why there is no answer.
enum Unanswered {
    NotAsked,
    TimedOut,
    Gone,
}

impl From<Unanswered> for AppendError {
    fn from(unanswered: Unanswered) -> AppendError {
        match unanswered {
            Unanswered::NotAsked => AppendError::Overloaded,
            Unanswered::TimedOut => AppendError::Unknown,
            Unanswered::Gone => AppendError::Gone,
        }
    }
}
