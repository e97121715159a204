//! The owner of the Raft group: carries what the `raft` crate decides to the journal, the peers and the state machine.
//!
//! The task `raft` waits for proposals, for messages of peers and for syncs of its journal, and steps. All proposals
//! that wait become entries of one step, and the entries of a step one submission, so they share a journal group and
//! a sync; the next step need not wait for it (`advance_append_async`, then `on_persist_ready` when the
//! journal is durable that far). A commit index alone is not written, but for a change of the members: it is
//! found again at a start. A failed sync ends the process: what this voter promised to remember may be gone.
//!
//! What waits is drained before time passes: a process that was paused hears what came meanwhile first, and then
//! it is one tick later.

mod line;
mod persist;
mod ready;
mod inputs;

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use io_backend::progress::Progress;
use io_backend::{Backend, Deadline, ExitStatus, Moment, Receiver, Replier, WaitKind};
use raft::eraftpb::{ConfState, Entry};
use raft::{Config, RawNode, StateRole};

pub(crate) use self::line::SubmissionMax;
use self::line::{Line, Persisting};
use super::store::{RaftRecoveryError, Store};
use super::{
    Begin, GroupInput, GroupView, RaftInput, Refusal, StateMachine, Transport, entries, logging, pieces,
};
use crate::budget::Share;
use crate::ids::Lsn;
use crate::journal::{JournalHandle, RecoveredEntry};
use crate::limits;
use crate::metrics::Metrics;

const TICK: Duration = Duration::from_millis(50);
const HEARTBEAT_TICKS: usize = 2;
const ELECTION_TICKS: usize = 10;
/// Proposals with which a process begins, and which are taken while the disk is full.
const OF_A_START: u64 = 1;
/// Index and term of the snapshot with which the log of a group of several begins.
const FOUNDED: u64 = 1;

pub(crate) struct RaftContext<B: Backend, M: StateMachine> {
    pub(crate) backend: B,
    pub(crate) id: u64,
    /// Where the journal holds no group.
    pub(crate) begin: Begin,
    pub(crate) machine: M,
    pub(crate) journal: JournalHandle,
    pub(crate) recovered: Vec<RecoveredEntry>,
    pub(crate) mailbox: Receiver<B, RaftInput<M::Answer>>,
    /// What peers say; `None` where there can be none.
    pub(crate) peers: Option<Receiver<B, GroupInput>>,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) metrics: Arc<Metrics>,
    /// A snapshot is journaled in pieces of at most this.
    pub(crate) snapshot_piece_bytes: usize,
    pub(crate) snapshot_every_entries: u64,
    /// Proposals worked on at a time: what they come to fits the journal's queue.
    pub(crate) proposals_in_flight_max: usize,
    /// What the journal takes at once.
    pub(crate) submission_max: SubmissionMax,
}

/// Why a group does not start.
#[derive(Debug, thiserror::Error)]
pub enum RaftStartError {
    /// What the journal holds is no Raft log.
    #[error("{0}")]
    Recovery(#[from] RaftRecoveryError),
    /// The snapshot is of a later release, or damaged.
    #[error("the metadata snapshot cannot be used: {0}")]
    Snapshot(String),
    /// The Raft crate refuses the log.
    #[error("the Raft log cannot be used: {0}")]
    Log(String),
    /// The group ended before it had a leader.
    #[error("{0}")]
    Running(#[from] RaftError),
    /// No leader by the deadline.
    #[error(
        "this node did not become leader of its group in time: the disk under the Raft journal does not answer"
    )]
    TimedOut,
}

/// Why a running group ends.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// A vote, a term or an entry may not be on the disk; this is final.
    #[error("the Raft journal failed ({0}): what this node voted and agreed to may not be on its disk")]
    Journal(String),
    /// The node stops, and does not wait any longer for what its disk has not taken.
    #[error("the Raft journal is closed: this node is stopping")]
    Closed,
    /// A committed entry is of a later release or damaged; what this node knows ends before it.
    #[error("entry {index} of the metadata log cannot be applied: {what}")]
    Apply { index: u64, what: String },
    /// The Raft crate reports an error; this is final.
    #[error("the Raft state machine refused: {0}")]
    Raft(String),
}

struct Waiting<A> {
    term: u64,
    decision: Decision<A>,
    _share: Option<Share>,
}

/// Whom to tell of an entry.
enum Decision<A> {
    Proposal(Replier<Result<A, Refusal>>),
    /// Whoever proposed it knows where it stands, and finds out by itself.
    Placed,
    Members(Replier<Result<(), Refusal>>),
}

pub(crate) struct Driver<B: Backend, M: StateMachine> {
    backend: B,
    id: u64,
    raft: RawNode<Store>,
    machine: M,
    journal: JournalHandle,
    progress: Arc<Progress>,
    mailbox: Receiver<B, RaftInput<M::Answer>>,
    peers: Option<Receiver<B, GroupInput>>,
    transport: Box<dyn Transport>,
    metrics: Arc<Metrics>,
    /// Proposals by the index of their entry.
    waiting: BTreeMap<u64, Waiting<M::Answer>>,
    line: Line,
    /// LSN of the last submission.
    submitted: Lsn,
    applied: u64,
    /// Committed, and not applied: a change of the members waits for its commit index to be durable.
    to_apply: VecDeque<Entry>,
    /// The commit index that a start would find.
    commit_durable: u64,
    closing: Option<Option<Replier<()>>>,
    tick_at: Option<Moment>,
    retry_at: Option<Moment>,
    snapshots: Snapshots,
    office: Office,
    proposals_in_flight_max: usize,
    /// Proposals of this process, as far as they are counted.
    proposed: u64,
}

/// When to take the next snapshot.
struct Snapshots {
    piece_bytes: usize,
    every_entries: u64,
    entries_since: u64,
    bytes_since: usize,
    last_bytes: usize,
    in_flight: bool,
}

impl Snapshots {
    /// A large image is not written anew for every few entries: what it costs stays in proportion to the log.
    fn due(&self) -> bool {
        let enough = limits::SNAPSHOT_EVERY_BYTES.max(2 * self.last_bytes);
        !self.in_flight
            && (self.bytes_since >= enough
                || (self.entries_since >= self.every_entries && self.bytes_since >= self.last_bytes / 2))
    }
}

/// What a member has to know of itself and others to judge what it may do, in ticks.
#[derive(Default)]
struct Office {
    ticks: u64,
    told_not_to_vote: bool,
    /// Who took this node for another, as was told.
    mistaken: Option<u64>,
    /// What stood in front of the line, and since when.
    front: Option<u64>,
    front_since: u64,
    /// When each member last acknowledged something of the log.
    acknowledged: BTreeMap<u64, u64>,
    /// When each last answered anything.
    heard: BTreeMap<u64, u64>,
    /// When this leader handed over.
    handed_over: Option<u64>,
    /// The leader that the link to is lost, since when, and nothing was heard of it since.
    lost_leader: Option<(u64, u64)>,
    /// Members that a snapshot is on its way to, and since when.
    snapshots_sent: BTreeMap<u64, u64>,
    confirmations: Confirmations,
}

/// Who asked whether this member still leads. Its heartbeats are numbered, and the answers to them repeat the number.
#[derive(Default)]
struct Confirmations {
    /// The last number of those that were sent.
    sent: u64,
    /// With the last number that was sent before.
    waiting: VecDeque<(u64, Replier<()>)>,
    /// The latest that each member answered.
    answered: BTreeMap<u64, u64>,
}

enum Event<A> {
    Inputs { of_the_group: Vec<GroupInput>, asked: Vec<RaftInput<A>> },
    Progress,
    Timer,
    Abandoned,
}

impl<B: Backend, M: StateMachine> Driver<B, M> {
    /// Brings back what the journal holds, or begins the group.
    pub(crate) fn open(context: RaftContext<B, M>) -> Result<Driver<B, M>, RaftStartError> {
        let RaftContext { backend, id, begin, mut machine, journal, recovered, mailbox, metrics, .. } =
            context;
        let submitted = journal.status().submitted;
        let mut line = Line::new(context.submission_max);
        let piece_bytes = context.snapshot_piece_bytes;
        let store = match (Store::recover(recovered)?, begin) {
            (Some(store), _) => store,
            (None, Begin::Alone) => {
                let store = Store::alone(id);
                let entries = vec![entries::conf_state_entry(&store.conf)];
                line.push(Persisting { entries, ..Persisting::default() });
                store
            }
            (None, Begin::Found { voters }) => {
                assert!(voters.contains(&id), "who begins a group is in it");
                let conf = ConfState { voters, ..ConfState::default() };
                let image = Bytes::from(machine.snapshot());
                let store = Store::founded(entries::snapshot(FOUNDED, FOUNDED, conf, image));
                let mut entries = pieces::snapshot_entries(&store.snapshot, piece_bytes, false);
                entries.push(entries::hard_state_entry(&store.hard));
                line.push(Persisting { entries, promises: true, ..Persisting::default() });
                store
            }
            (None, Begin::Join) => Store::default(),
        };
        let applied = store.snapshot.get_metadata().index;
        let last_bytes = store.snapshot.data.len();
        if applied > 0 {
            machine.restore(&store.snapshot.data).map_err(RaftStartError::Snapshot)?;
        }
        let commit_durable = if line.is_empty() { store.hard.commit } else { 0 };
        let config = Config {
            id,
            election_tick: ELECTION_TICKS,
            min_election_tick: ELECTION_TICKS,
            max_election_tick: 2 * ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied,
            max_size_per_msg: limits::PROPOSAL_BYTES_MAX as u64,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        let raft = RawNode::new(&config, store, &logging::logger())
            .map_err(|error| RaftStartError::Log(error.to_string()))?;
        Ok(Driver {
            backend,
            id,
            raft,
            machine,
            journal,
            progress: Arc::new(Progress::at(submitted.0)),
            mailbox,
            peers: context.peers,
            transport: context.transport,
            metrics,
            waiting: BTreeMap::new(),
            line,
            submitted,
            applied,
            to_apply: VecDeque::new(),
            commit_durable,
            closing: None,
            tick_at: None,
            retry_at: None,
            proposals_in_flight_max: context.proposals_in_flight_max,
            proposed: 0,
            office: Office::default(),
            snapshots: Snapshots {
                piece_bytes,
                every_entries: context.snapshot_every_entries,
                entries_since: 0,
                bytes_since: 0,
                last_bytes,
                in_flight: false,
            },
        })
    }

    /// Becomes leader and applies everything that had been committed, where it is the only voter. Among others it
    /// comes back at once: they elect when the task runs.
    pub(crate) async fn elect(&mut self, deadline: Deadline) -> Result<(), RaftStartError> {
        if self.raft.store().members_change_behind(self.applied) {
            // Who votes is known when that is applied.
            self.step()?;
        }
        if !self.is_sole_voter() {
            return Ok(());
        }
        self.raft.campaign().map_err(|error| RaftError::Raft(error.to_string()))?;
        let first_of_term = self.raft.raft.raft_log.last_index();
        self.step()?;
        while self.applied < first_of_term {
            match self.next_event(deadline).await {
                Some(event) => self.handle(event),
                None => return Err(RaftStartError::TimedOut),
            }
            self.step()?;
        }
        Ok(())
    }

    fn is_sole_voter(&self) -> bool {
        let voters = self.raft.raft.prs().conf().voters().ids();
        voters.len() == 1 && voters.contains(self.id)
    }

    fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// Who leads, as far as this node knows.
    fn leader(&self) -> Option<u64> {
        let leader = self.raft.raft.leader_id;
        (leader != raft::INVALID_ID).then_some(leader)
    }

    fn publish(&mut self) {
        let (leader, term) = (self.leader(), self.raft.raft.term);
        let is_current =
            self.leads() && self.raft.raft.raft_log.term(self.applied).is_ok_and(|applied| applied == term);
        self.machine.publish(GroupView { leader, term, is_current, members: &self.raft.store().conf });
    }

    /// Waits until all that the group begins with is durable. Meanwhile it neither votes nor hears anybody.
    pub(crate) async fn settle(&mut self, deadline: Deadline) -> Result<(), RaftStartError> {
        let peers = self.peers.take();
        loop {
            self.step()?;
            if self.line.is_empty() {
                break;
            }
            self.tick_at = None;
            match self.next_event(deadline).await {
                Some(event) => self.handle(event),
                None => return Err(RaftStartError::TimedOut),
            }
        }
        self.peers = peers;
        self.publish();
        Ok(())
    }

    /// The task `raft`.
    pub(crate) async fn run(mut self) {
        const OWN_MAILBOX: Deadline =
            Deadline::Unbounded("the Raft task waits for proposals and its journal");
        loop {
            match self.step() {
                Ok(()) => {}
                Err(RaftError::Closed) => return,
                Err(error) => {
                    let status = match &error {
                        RaftError::Journal(_) => ExitStatus::StorageNotTrusted,
                        RaftError::Apply { .. } => ExitStatus::DataDirectory,
                        RaftError::Raft(_) | RaftError::Closed => ExitStatus::Other,
                    };
                    tracing::error!(error = %error, "metadata ends");
                    self.backend.exit(status, &error.to_string());
                    return;
                }
            }
            if self.closed() {
                return;
            }
            if let Some(event) = self.next_event(OWN_MAILBOX).await {
                self.handle(event);
            }
        }
    }

    /// Whether it was closed and all that was in flight is decided.
    fn closed(&mut self) -> bool {
        if self.closing.is_none() || !self.waiting.is_empty() || !self.line.is_empty() {
            return false;
        }
        if let Some(Some(replier)) = self.closing.take() {
            replier.answer(());
        }
        true
    }

    /// Waits for something to do; `None` at the deadline.
    async fn next_event(&mut self, deadline: Deadline) -> Option<Event<M::Answer>> {
        let backend = self.backend.clone();
        let journal = self.progress.clone();
        let awaited = self.line.awaited();
        // Proposals are left in the mailbox, where they wait with a deadline, as long as the journal takes no more. Who does not lead
        // refuses them, and needs no journal for that.
        let room = self.proposals_in_flight_max.saturating_sub(self.waiting.len());
        let takes_inputs = (self.retry_at.is_none() || !self.leads()) && room > 0 && self.closing.is_none();
        let wake_at = [self.tick_at, self.retry_at].into_iter().flatten().min();
        let mut timer = wake_at.map(|at| Box::pin(backend.timer(at)));
        let mut asked = Vec::new();
        let mut of_the_group = Vec::new();
        let waiting = poll_fn(|cx| {
            journal.register(cx);
            if let Some(peers) = &mut self.peers
                && peers.poll_receive_many(cx, &mut of_the_group, usize::MAX) == Poll::Ready(None)
            {
                // Nobody is left who could say anything.
                self.peers = None;
            }
            let moved =
                journal.failed_from().is_some() || awaited.is_some_and(|lsn| journal.reached() >= lsn.0);
            if moved && of_the_group.is_empty() {
                return Poll::Ready(Event::Progress);
            }
            if takes_inputs && self.mailbox.poll_receive_many(cx, &mut asked, room) == Poll::Ready(None) {
                return Poll::Ready(Event::Abandoned);
            }
            if !of_the_group.is_empty() || !asked.is_empty() {
                return Poll::Ready(Event::Inputs {
                    of_the_group: std::mem::take(&mut of_the_group),
                    asked: std::mem::take(&mut asked),
                });
            }
            if let Some(timer) = &mut timer
                && Pin::as_mut(timer).poll(cx).is_ready()
            {
                return Poll::Ready(Event::Timer);
            }
            Poll::Pending
        });
        // Whoever asks what this task stands on is told of the journal as long as a sync is awaited.
        let (kind, what, target, committer) = match awaited {
            Some(_) => (WaitKind::Change, "sync of the Raft journal", "raft", self.journal.resource()),
            None => (WaitKind::Receive, "proposals", "raft proposals", None),
        };
        let wait = backend
            .registry()
            .waiting(&backend, kind, what, Location::caller())
            .on(target.into())
            .held_by_any(committer)
            .bounded_by(deadline);
        io_backend::within(&backend, deadline, wait.during(waiting)).await.ok()
    }
}

#[cfg(test)]
mod group;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod members_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod stalled_tests;
#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
