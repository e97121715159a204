//! The owner task `partition[<topic>-<index>]`: the one place where a partition's hot state changes.
//!
//! It waits for appends, questions, progress of the journal, room in the journal's queue and the end of a
//! checkpoint, all at once, and never for anything else: while appends wait for room it goes on
//! answering. Appends have a mailbox of their own, which is not emptied while some of them wait, so
//! a full journal holds up producers and not readers. All appends found at once go to the journal
//! in one submission.

use std::future::poll_fn;
use std::panic::Location;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use io_backend::progress::Progress;
use io_backend::{
    Backend, Deadline, Disk, DiskError, Published, Receiver, Replier, Sender, TimedOut, WaitKind, within,
};

use super::log_signal::{Durable, LogSignal, LogState};
use super::replica_state::{Answers, Append, FollowError, InSync, Now, Refused, ReplicaState};
use super::retention::{DeadFiles, DeleteReply, Retained, Retaining};
use super::schedule::Schedules;
use super::{
    AppendError, Appended, Fetched, FollowerRead, LeaderMarks, OffsetFound, OffsetQuery, PartitionView,
    ReadError, ReadRequest, Unacknowledged,
};
use crate::ids::{BrokerId, Incarnation, LeaderEpoch, Lsn, Offset, PartitionEpoch, PartitionId};
use crate::journal::JournalHandle;
use crate::limits;
use crate::log::checkpoint::{Checkpointed, LogFiles};
use crate::log::cleaning::{Cleaned, Plan};
use crate::log::read::ReadPlan;
use crate::log::search::SearchPlan;
use crate::log::writing::FileOf;
use crate::log::{CheckpointMark, LogSettings};
use crate::metrics::TopicCounters;

mod beginning;
mod cleaning;
mod checkpoints;
mod readers;
mod replication;

/// How long to leave the journal alone when the room it told of was gone at once.
const ROOM_RETRY: Duration = Duration::from_millis(1);

/// Who hears what became of an append.
pub(super) enum Ticket {
    Reply(Replier<Result<Appended, AppendError>>),
    /// Only if it failed.
    Failure(Arc<dyn Unacknowledged>),
    Nobody,
}

/// Everything that can be asked of a partition's owner, but for appends, which have a mailbox of their own.
pub enum PartitionInput<B: Backend> {
    Read {
        request: ReadRequest,
        reply: Replier<Result<Planned<B>, ReadError>>,
    },
    Offset {
        query: OffsetQuery,
        current_epoch: Option<LeaderEpoch>,
        reply: Replier<Result<Looked<B>, ReadError>>,
    },
    EpochEnd {
        epoch: LeaderEpoch,
        current_epoch: Option<LeaderEpoch>,
        reply: Replier<Result<(LeaderEpoch, Offset), ReadError>>,
    },
    Lead {
        epoch: LeaderEpoch,
        in_sync: InSync,
        reply: Replier<Result<(), AppendError>>,
    },
    Follow {
        epoch: LeaderEpoch,
        reply: Replier<(LeaderEpoch, Offset)>,
    },
    Fetched {
        epoch: LeaderEpoch,
        asked: (LeaderEpoch, Offset),
        fetched: Fetched,
        reply: Replier<Result<(LeaderEpoch, Offset), FollowError>>,
    },
    FollowerRead {
        read: FollowerRead,
        reply: Replier<Result<(PlannedFetch<B>, LeaderMarks), ReadError>>,
    },
    Reported {
        epoch: LeaderEpoch,
        follower: BrokerId,
        durable: Durable,
    },
    ForgetFollower {
        epoch: LeaderEpoch,
        follower: BrokerId,
    },
    InSync {
        epoch: LeaderEpoch,
        in_sync: InSync,
    },
    AddToInSync {
        epoch: LeaderEpoch,
        version: PartitionEpoch,
        followers: Vec<BrokerId>,
        reply: Replier<Option<Vec<BrokerId>>>,
    },
    Resign {
        reply: Replier<()>,
    },
    Checkpoint {
        deadline: Deadline,
        reply: Replier<Result<CheckpointMark, DiskError>>,
    },
    Retain {
        reply: Replier<Retained>,
    },
    DeleteRecords {
        before: Option<Offset>,
        reply: DeleteReply,
    },
    ForgetBefore {
        start: Offset,
        reply: Replier<DeadFiles>,
    },
    PlanCleaning {
        reply: Replier<Option<Box<Plan<B>>>>,
    },
    Cleaned {
        cleaned: Box<Cleaned<B>>,
        reply: Replier<Option<DeadFiles>>,
    },
    Settings {
        settings: Box<LogSettings>,
        reply: Replier<()>,
    },
    Size {
        reply: Replier<u64>,
    },
    Close {
        delete: bool,
        deadline: Deadline,
        reply: Replier<()>,
    },
}

/// A read as the owner plans it; the disk part is the caller's.
pub struct Planned<B: Backend> {
    pub(super) view: PartitionView,
    pub(super) plan: ReadPlan<FileOf<B>>,
}

/// A follower's read as the leader plans it: the disk part is the caller's.
pub enum PlannedFetch<B: Backend> {
    Records(Planned<B>),
    /// What the follower has is deleted here. The batch that holds the log's start may have begun before that.
    Beginning {
        asked: Offset,
        /// It has no record.
        has_none: bool,
        /// It has others than those that are deleted here.
        had_left: bool,
        planned: Planned<B>,
    },
    Diverging {
        epoch: LeaderEpoch,
        end: Offset,
    },
}

/// The answer to an offset query, or where to look for it.
pub enum Looked<B: Backend> {
    Found(OffsetFound),
    Search(SearchPlan<FileOf<B>>),
}

type CheckpointReply = Replier<Result<CheckpointMark, DiskError>>;

pub(super) struct Owner<B: Backend> {
    pub(super) backend: B,
    pub(super) id: PartitionId,
    pub(super) name: Arc<str>,
    pub(super) replica: Incarnation,
    pub(super) settings: LogSettings,
    pub(super) journal: JournalHandle,
    pub(super) counters: TopicCounters,
    pub(super) progress: Arc<Progress>,
    pub(super) machine: ReplicaState<Ticket>,
    pub(super) files: LogFiles<B>,
    pub(super) views: Published<PartitionView>,
    pub(super) appends: Receiver<B, Append<Ticket>>,
    pub(super) questions: Receiver<B, PartitionInput<B>>,
    /// To make replies of our own.
    pub(super) own: Sender<B, ()>,
    pub(super) open: Waits<B>,
    pub(super) schedules: Schedules,
    pub(super) signal: LogSignal,
    /// What was told there last.
    pub(super) told: Option<LogState>,
    pub(super) retaining: Retaining,
    /// The last checkpoint: what is cleaned ends before it.
    pub(super) marked: Option<CheckpointMark>,
    /// What was cleaned, and is to take its place when no checkpoint is at work.
    pub(super) cleaned: Vec<(Cleaned<B>, Replier<Option<DeadFiles>>)>,
}

/// What the owner waits for beside its mailboxes.
pub(super) struct Waits<B: Backend> {
    room: Option<BoxFuture<'static, Result<(), TimedOut>>>,
    /// The wait for room has just ended, with room or without.
    waited: bool,
    checkpoint: Option<BoxFuture<'static, Option<Checkpointed<B>>>>,
    /// Who is to be told of the running checkpoint, and who wants another after it.
    running: Vec<CheckpointReply>,
    next: Vec<(Deadline, CheckpointReply)>,
    /// The log was truncated since the running checkpoint began: it has copied what is gone.
    cut_since: bool,
    leads: Vec<(LeaderEpoch, Replier<Result<(), AppendError>>)>,
    seen: (Lsn, Option<Lsn>),
    journal_name: Arc<str>,
}

impl<B: Backend> Default for Waits<B> {
    fn default() -> Self {
        Waits {
            room: None,
            waited: false,
            checkpoint: None,
            running: Vec::new(),
            next: Vec::new(),
            cut_since: false,
            leads: Vec::new(),
            seen: (Lsn(0), None),
            journal_name: Arc::from("journal"),
        }
    }
}

/// Why the owner woke up.
struct Woken<B: Backend> {
    checkpointed: Option<Option<Checkpointed<B>>>,
    abandoned: bool,
}

impl<B: Backend> Owner<B> {
    pub(super) async fn run(mut self) {
        let mut appends = Vec::new();
        let mut questions = Vec::new();
        let mut answers = Answers::default();
        self.appends.claim();
        self.questions.claim();
        self.reschedule();
        loop {
            let woken = self.wait(&mut appends, &mut questions).await;
            // First what is durable, so that whoever asks now sees it.
            let (reached, failed) = self.progress_now();
            self.machine.handle_progress(reached, failed, &mut answers);
            if failed.is_some() {
                self.progress.clear_failure();
                self.open.seen = (reached, None);
            }
            for append in appends.drain(..) {
                self.machine.enqueue(append);
            }
            self.submit(&mut answers);
            // Before anybody is answered: whoever is sees what it was told of.
            self.publish();
            self.answer(&mut answers);
            if let Some(done) = woken.checkpointed {
                self.checkpointed(done);
            }
            self.begin_next_checkpoint();
            for question in questions.drain(..) {
                if let PartitionInput::Close { delete, deadline, reply } = question {
                    return self.close(delete, deadline, reply).await;
                }
                self.handle(question, &mut answers);
            }
            self.submit(&mut answers);
            self.publish();
            self.answer(&mut answers);
            self.reschedule_if_grown();
            if woken.abandoned {
                return;
            }
        }
    }

    fn progress_now(&self) -> (Lsn, Option<Lsn>) {
        // In this order: what is durable after a failure is then never seen without the failure.
        let reached = Lsn(self.progress.reached());
        (reached, self.progress.failed_from().map(Lsn))
    }

    /// Waits until there is anything to do.
    async fn wait(
        &mut self,
        appends: &mut Vec<Append<Ticket>>,
        questions: &mut Vec<PartitionInput<B>>,
    ) -> Woken<B> {
        let backend = self.backend.clone();
        let name = self.name.clone();
        let in_flight = self.machine.first_in_flight().is_some();
        let (kind, what, target, committer) = match in_flight {
            true => (
                WaitKind::Change,
                "progress of the journal",
                self.open.journal_name.clone(),
                self.journal.resource(),
            ),
            false => (WaitKind::Receive, "appends and questions", name, None),
        };
        let forever = Deadline::Unbounded("an owner waits for its mailboxes and for what it has started");
        let registry = backend.registry().clone();
        let waiting = registry
            .waiting(&backend, kind, what, Location::caller())
            .on(target)
            .held_by_any(committer)
            .bounded_by(forever);
        let ready = poll_fn(|cx| {
            let mut woken = Woken { checkpointed: None, abandoned: false };
            self.progress.register(cx);
            let now = self.progress_now();
            let mut ready = std::mem::replace(&mut self.open.seen, now) != now;
            if let Some(checkpoint) = &mut self.open.checkpoint
                && let Poll::Ready(done) = checkpoint.as_mut().poll(cx)
            {
                self.open.checkpoint = None;
                woken.checkpointed = Some(done);
                ready = true;
            }
            if let Some(room) = &mut self.open.room
                && room.as_mut().poll(cx).is_ready()
            {
                self.open.room = None;
                self.open.waited = true;
                ready = true;
            }
            match self.questions.poll_receive_many(cx, questions, limits::PARTITION_MAILBOX) {
                Poll::Ready(Some(_)) => ready = true,
                Poll::Ready(None) => {
                    woken.abandoned = true;
                    ready = true;
                }
                Poll::Pending => {}
            }
            if self.open.room.is_none()
                && let Poll::Ready(Some(_)) =
                    self.appends.poll_receive_many(cx, appends, limits::PARTITION_MAILBOX)
            {
                ready = true;
            }
            if ready { Poll::Ready(woken) } else { Poll::Pending }
        });
        match within(&backend, forever, waiting.during(ready)).await {
            Ok(woken) => woken,
            Err(TimedOut) => Woken { checkpointed: None, abandoned: true },
        }
    }

    /// Brings everything that is queued to the journal, or as much as it has room for.
    fn submit(&mut self, answers: &mut Answers<Ticket>) {
        while self.open.room.is_none() && self.machine.has_queued() {
            let now = Now { moment: self.backend.now(), wall_ms: self.backend.wall_ms() };
            let Some(entries) = self.machine.stage(now, answers) else { continue };
            match self.journal.submit(entries, &self.progress) {
                Ok(last) => {
                    self.open.waited = false;
                    self.machine.handle_submitted(last, answers);
                }
                Err(error) => {
                    if self.machine.handle_refused(error, answers) == Refused::Full {
                        let otherwise = Deadline::after(&self.backend, limits::PRODUCE_DEADLINE);
                        let (bytes, deadline) = self.machine.queue_wants(otherwise);
                        self.open.room = Some(match std::mem::replace(&mut self.open.waited, false) {
                            false => self.journal.wait_for_capacity(self.id, bytes, deadline),
                            // Others were faster, or time was up: not again at once.
                            true => self.pause(),
                        });
                    }
                }
            }
        }
    }

    fn pause(&self) -> BoxFuture<'static, Result<(), TimedOut>> {
        let backend = self.backend.clone();
        Box::pin(async move {
            backend.sleep(ROOM_RETRY).await;
            Ok(())
        })
    }

    fn answer(&mut self, answers: &mut Answers<Ticket>) {
        let taken = std::mem::take(&mut answers.taken);
        if taken.records > 0 {
            self.counters.took(taken);
        }
        for (ticket, answer) in answers.appends.drain(..) {
            match (ticket, answer) {
                (Ticket::Reply(reply), answer) => reply.answer(answer),
                (Ticket::Failure(told), Err(error)) => told.failed(&error),
                (Ticket::Failure(_), Ok(_)) | (Ticket::Nobody, _) => {}
            }
        }
        for (epoch, result) in answers.led.drain(..) {
            let (told, waiting): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.open.leads).into_iter().partition(|(of, _)| *of == epoch);
            self.open.leads = waiting;
            for (_, reply) in told {
                reply.answer(result.clone());
            }
        }
        if let Some(to) = answers.cut.take() {
            self.files.cut(to);
            self.open.cut_since |= self.has_checkpoint();
            self.reschedule();
        }
        if let Some(at) = answers.begun_anew.take() {
            tracing::info!(partition = %self.name, from = at.0, "the log begins anew: its leader's begins behind what it had");
            self.files.go_on_from(at);
            self.open.cut_since |= self.has_checkpoint();
            self.reschedule();
        }
        self.answer_moves(answers);
    }

    /// Wakes readers only for what they may see.
    fn publish(&mut self) {
        let state = self.machine.log_state();
        if state != self.told {
            self.told = state;
            self.signal.tell(self.id, state);
        }
        let view = self.machine.view();
        let published = self.views.get();
        if *published != (PartitionView { log_end: published.log_end, ..view }) {
            self.views.publish(view);
        }
    }

    fn handle(&mut self, question: PartitionInput<B>, answers: &mut Answers<Ticket>) {
        match question {
            PartitionInput::Read { request, reply } => reply.answer(self.plan(&request)),
            PartitionInput::Offset { query, current_epoch, reply } => {
                reply.answer(self.look_up(query, current_epoch));
            }
            PartitionInput::EpochEnd { epoch, current_epoch, reply } => {
                let view = self.machine.view();
                let found = self.epoch_is_current(&view, current_epoch).map(|()| {
                    let end = self.machine.epochs().end_of(epoch, view.log_end);
                    // What is known of before the start is for followers.
                    end.map_or((LeaderEpoch::NONE, Offset(-1)), |(of, end)| (of, end.max(view.log_start)))
                });
                reply.answer(found);
            }
            PartitionInput::Lead { epoch, in_sync, reply } => {
                self.open.leads.push((epoch, reply));
                self.machine.handle_lead(epoch, in_sync, answers);
            }
            PartitionInput::Follow { epoch, reply } => {
                self.machine.handle_follow(epoch, answers);
                self.publish();
                reply.answer(self.machine.fetch_position());
            }
            PartitionInput::Fetched { epoch, asked, fetched, reply } => {
                self.fetched(epoch, asked, fetched, reply, answers);
            }
            PartitionInput::FollowerRead { read, reply } => {
                let planned = self.read_by_follower(&read, answers);
                reply.answer(planned.map(|planned| (planned, self.machine.marks())));
            }
            PartitionInput::Reported { epoch, follower, durable } => {
                self.reported(epoch, follower, durable, answers);
            }
            PartitionInput::ForgetFollower { epoch, follower } => {
                self.machine.handle_in_sync(epoch, |in_sync| in_sync.forget(follower), answers);
            }
            PartitionInput::AddToInSync { epoch, version, followers, reply } => {
                reply.answer(self.machine.handle_joining(epoch, version, followers, answers));
            }
            PartitionInput::InSync { epoch, in_sync } => self.change_in_sync(epoch, in_sync, answers),
            PartitionInput::Resign { reply } => {
                self.machine.handle_resign(answers);
                reply.answer(());
            }
            PartitionInput::Checkpoint { deadline, reply } => {
                // What is durable now may not be in one that is running.
                self.open.next.push((deadline, reply));
                self.begin_next_checkpoint();
            }
            PartitionInput::Retain { reply } => self.retain(reply),
            PartitionInput::DeleteRecords { before, reply } => self.delete_records(before, reply),
            PartitionInput::ForgetBefore { start, reply } => {
                self.forget_before(start, reply);
                self.reschedule();
            }
            PartitionInput::PlanCleaning { reply } => reply.answer(self.plan_cleaning().map(Box::new)),
            PartitionInput::Cleaned { cleaned, reply } => {
                self.cleaned.push((*cleaned, reply));
                self.put_cleaned();
            }
            PartitionInput::Settings { settings, reply } => {
                self.set_settings(*settings);
                self.reschedule();
                reply.answer(());
            }
            PartitionInput::Size { reply } => reply.answer(self.log_bytes()),
            PartitionInput::Close { .. } => {}
        }
    }

    pub(super) fn has_checkpoint(&self) -> bool {
        self.open.checkpoint.is_some()
    }

    fn gone(&self, operation: &'static str) -> DiskError {
        let source = std::io::Error::other("the partition is closed");
        DiskError::new(operation, &self.files.directory, source)
    }

    async fn close(mut self, delete: bool, deadline: Deadline, reply: Replier<()>) {
        let mut answers = Answers::default();
        let mut late = Vec::new();
        self.appends.try_receive_many(&mut late, usize::MAX);
        for append in late {
            self.machine.enqueue(append);
        }
        self.machine.handle_close(&mut answers);
        self.answer(&mut answers);
        self.publish();
        self.signal.tell(self.id, None);
        self.close_retaining();
        if let Some(checkpoint) = self.open.checkpoint.take() {
            // Its files must not be removed under it.
            if let Ok(done) = within(&self.backend, deadline, checkpoint).await {
                self.checkpointed(done);
                // The schedules were told again.
                self.close_retaining();
            }
        }
        if delete
            && let Err(error) = self.backend.disk().remove_dir_all(&self.files.directory, deadline).await
        {
            tracing::warn!(partition = %self.name, "the files of a deleted partition stay: {error}");
        }
        reply.answer(());
    }
}
