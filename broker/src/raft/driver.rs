//! The owner of the Raft group: carries what the `raft` crate decides to the journal and the state machine.
//!
//! The task `raft` waits for proposals and for syncs of its journal, and steps. All proposals that wait become
//! entries of one step, and the entries of a step one submission, so they share a journal group and a
//! sync; the next step need not wait for it (`advance_append_async`, then `on_persist_ready` when the
//! journal is durable that far). A commit index alone is never written: it is found again at a start.
//! A failed sync ends the process: what this voter promised to remember may be gone.

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
use raft::eraftpb::{ConfChange, ConfChangeV2, Entry, EntryType, Snapshot};
use raft::{Config, RawNode, StateRole};

use super::store::{self, RaftRecoveryError, Store};
use super::{Proposal, RaftInput, Refusal, StateMachine, logging};
use crate::budget::Share;
use crate::ids::Lsn;
use crate::journal::{JournalEntry, JournalHandle, RecoveredEntry, SubmitError};
use crate::limits;
use crate::metrics::Metrics;

const TICK: Duration = Duration::from_millis(50);
const HEARTBEAT_TICKS: usize = 2;
const ELECTION_TICKS: usize = 10;
/// How soon a submission is tried again that the journal did not take: only while its disk stands still
/// or is full, so never when idle.
const RETRY: Duration = Duration::from_millis(50);
/// Proposals with which a process begins, and which are taken while the disk is full.
const OF_A_START: u64 = 1;

pub(crate) struct RaftContext<B: Backend, M: StateMachine> {
    pub(crate) backend: B,
    pub(crate) id: u64,
    /// Of a group that is begun now; a group that was there has its own.
    pub(crate) voters: Vec<u64>,
    pub(crate) machine: M,
    pub(crate) journal: JournalHandle,
    pub(crate) recovered: Vec<RecoveredEntry>,
    pub(crate) mailbox: Receiver<B, RaftInput<M::Answer>>,
    pub(crate) metrics: Arc<Metrics>,
    /// A snapshot is journaled in pieces of at most this.
    pub(crate) snapshot_piece_bytes: usize,
    pub(crate) snapshot_every_entries: u64,
    /// Proposals worked on at a time: what they come to fits the journal's queue.
    pub(crate) proposals_in_flight_max: usize,
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
    /// A committed entry is of a later release or damaged; what this node knows ends before it.
    #[error("entry {index} of the metadata log cannot be applied: {what}")]
    Apply { index: u64, what: String },
    /// The Raft crate reports an error; this is final.
    #[error("the Raft state machine refused: {0}")]
    Raft(String),
}

/// What a step has to get durable.
struct Persisting {
    /// Of the step, as `raft` numbers them; none for a snapshot.
    ready: Option<u64>,
    entries: Vec<JournalEntry>,
    /// Index and term of the Raft entries among them, which stand last.
    log: Vec<(u64, u64)>,
    /// Set when submitted.
    lsn: Option<Lsn>,
    /// The snapshot of which these are the last entries, and how many it has in all.
    snapshot: Option<(Snapshot, usize)>,
}

struct Waiting<A> {
    term: u64,
    replier: Replier<Result<A, Refusal>>,
    _share: Share,
}

pub(crate) struct Driver<B: Backend, M: StateMachine> {
    backend: B,
    raft: RawNode<Store>,
    machine: M,
    journal: JournalHandle,
    progress: Arc<Progress>,
    mailbox: Receiver<B, RaftInput<M::Answer>>,
    metrics: Arc<Metrics>,
    /// Proposals by the index of their entry.
    waiting: BTreeMap<u64, Waiting<M::Answer>>,
    persisting: VecDeque<Persisting>,
    /// LSN of the last submission.
    submitted: Lsn,
    applied: u64,
    closing: Option<Option<Replier<()>>>,
    tick_at: Option<Moment>,
    retry_at: Option<Moment>,
    snapshots: Snapshots,
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

enum Event<A> {
    Inputs(Vec<RaftInput<A>>),
    Progress,
    Timer,
    Abandoned,
}

impl<B: Backend, M: StateMachine> Driver<B, M> {
    /// Brings back what the journal holds, or begins the group.
    pub(crate) fn open(context: RaftContext<B, M>) -> Result<Driver<B, M>, RaftStartError> {
        let RaftContext { backend, id, voters, mut machine, journal, recovered, mailbox, metrics, .. } =
            context;
        let submitted = journal.status().submitted;
        let recovered = Store::recover(recovered)?;
        let begun = recovered.is_none();
        let store = recovered.unwrap_or_else(|| Store::bootstrap(voters));
        let applied = store.snapshot.get_metadata().index;
        let last_bytes = store.snapshot.data.len();
        if applied > 0 {
            machine.restore(&store.snapshot.data).map_err(RaftStartError::Snapshot)?;
        }
        let mut persisting = VecDeque::new();
        if begun {
            let entries = vec![store::conf_state_entry(&store.conf)];
            persisting.push_back(Persisting {
                ready: None,
                entries,
                log: Vec::new(),
                lsn: None,
                snapshot: None,
            });
        }
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
            raft,
            machine,
            journal,
            progress: Arc::new(Progress::at(submitted.0)),
            mailbox,
            metrics,
            waiting: BTreeMap::new(),
            persisting,
            submitted,
            applied,
            closing: None,
            tick_at: None,
            retry_at: None,
            proposals_in_flight_max: context.proposals_in_flight_max,
            proposed: 0,
            snapshots: Snapshots {
                piece_bytes: context.snapshot_piece_bytes,
                every_entries: context.snapshot_every_entries,
                entries_since: 0,
                bytes_since: 0,
                last_bytes,
                in_flight: false,
            },
        })
    }

    /// Becomes leader and applies everything that had been committed. Only a sole voter can do that alone.
    pub(crate) async fn elect(&mut self, deadline: Deadline) -> Result<(), RaftStartError> {
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

    /// The task `raft`.
    pub(crate) async fn run(mut self) {
        const OWN_MAILBOX: Deadline =
            Deadline::Unbounded("the Raft task waits for proposals and its journal");
        loop {
            match self.step() {
                Ok(()) => {}
                Err(error) => {
                    let status = match &error {
                        RaftError::Journal(_) => ExitStatus::StorageNotTrusted,
                        RaftError::Apply { .. } => ExitStatus::DataDirectory,
                        RaftError::Raft(_) => ExitStatus::Other,
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
        if self.closing.is_none() || !self.waiting.is_empty() || !self.persisting.is_empty() {
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
        let awaited = self.persisting.iter().find_map(|persisting| persisting.lsn);
        // Proposals are left in the mailbox, where they wait with a deadline, as long as the journal takes no more.
        let room = self.proposals_in_flight_max.saturating_sub(self.waiting.len());
        let takes_inputs = self.retry_at.is_none() && room > 0 && self.closing.is_none();
        let wake_at = [self.tick_at, self.retry_at].into_iter().flatten().min();
        let mut timer = wake_at.map(|at| Box::pin(backend.timer(at)));
        let mut inputs = Vec::new();
        let waiting = poll_fn(|cx| {
            journal.register(cx);
            if journal.failed_from().is_some() || awaited.is_some_and(|lsn| journal.reached() >= lsn.0) {
                return Poll::Ready(Event::Progress);
            }
            if takes_inputs {
                match self.mailbox.poll_receive_many(cx, &mut inputs, room) {
                    Poll::Ready(Some(_)) => return Poll::Ready(Event::Inputs(std::mem::take(&mut inputs))),
                    Poll::Ready(None) => return Poll::Ready(Event::Abandoned),
                    Poll::Pending => {}
                }
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

    fn handle(&mut self, event: Event<M::Answer>) {
        let now = self.backend.now();
        match event {
            Event::Inputs(inputs) => {
                for input in inputs {
                    match input {
                        RaftInput::Propose(proposal) => self.propose(proposal, now),
                        RaftInput::Close(replier) => self.closing = Some(Some(replier)),
                    }
                }
            }
            Event::Abandoned => self.closing = Some(None),
            Event::Progress => {}
            Event::Timer => {
                if self.retry_at.is_some_and(|at| at <= now) {
                    self.retry_at = None;
                }
                if self.tick_at.is_some_and(|at| at <= now) {
                    self.tick_at = Some(now + TICK);
                    self.raft.tick();
                }
            }
        }
    }

    fn propose(&mut self, proposal: Proposal<M::Answer>, now: Moment) {
        let Proposal { data, until, replier, share } = proposal;
        if self.closing.is_some() {
            return replier.answer(Err(Refusal::Closed));
        }
        if until.is_some_and(|until| until <= now) {
            // Its proposer has given up: dropping the replier tells nobody.
            return;
        }
        // What is kept back of a journal file is for what a process start has to say: its registration.
        if self.proposed >= OF_A_START && self.journal.status().disk_full {
            return replier.answer(Err(Refusal::DiskFull));
        }
        self.proposed += 1;
        if self.raft.raft.state != StateRole::Leader || self.raft.propose(Vec::new(), data).is_err() {
            return replier.answer(Err(Refusal::NotLeader));
        }
        let index = self.raft.raft.raft_log.last_index();
        self.waiting.insert(index, Waiting { term: self.raft.raft.term, replier, _share: share });
    }

    /// Does all that can be done now.
    fn step(&mut self) -> Result<(), RaftError> {
        self.settle_persisted()?;
        loop {
            self.submit()?;
            if !self.raft.has_ready() {
                break;
            }
            self.take_ready()?;
        }
        if self.snapshots.due() {
            self.take_snapshot();
            self.submit()?;
        }
        let leads_alone = self.raft.raft.state == StateRole::Leader
            && self.raft.raft.prs().conf().voters().ids().len() == 1;
        match (leads_alone, self.tick_at) {
            (true, _) => self.tick_at = None,
            (false, None) => self.tick_at = Some(self.backend.now() + TICK),
            (false, Some(_)) => {}
        }
        Ok(())
    }

    /// Tells `raft` what has become durable.
    fn settle_persisted(&mut self) -> Result<(), RaftError> {
        if let Some(lsn) = self.progress.failed_from() {
            return Err(RaftError::Journal(format!("nothing from entry {lsn} on is durable")));
        }
        let reached = Lsn(self.progress.reached());
        while self.persisting.front().is_some_and(|front| front.lsn.is_some_and(|lsn| lsn <= reached)) {
            let Some(done) = self.persisting.pop_front() else { break };
            if let Some(ready) = done.ready {
                self.raft.on_persist_ready(ready);
            }
            if let Some((snapshot, entries)) = done.snapshot {
                self.snapshot_durable(snapshot, done.lsn, entries);
            }
        }
        Ok(())
    }

    /// Queues what waits for that, in order.
    fn submit(&mut self) -> Result<(), RaftError> {
        for persisting in self.persisting.iter_mut().filter(|persisting| persisting.lsn.is_none()) {
            if persisting.entries.is_empty() {
                // Nothing of its own: done with what stands before it.
                persisting.lsn = Some(self.submitted);
                continue;
            }
            match self.journal.submit(persisting.entries.clone(), &self.progress) {
                Ok(lsn) => {
                    persisting.lsn = Some(lsn);
                    self.submitted = lsn;
                    self.retry_at = None;
                    self.raft.mut_store().submitted(&persisting.log, lsn);
                }
                Err(
                    SubmitError::Full
                    | SubmitError::ShareExhausted
                    | SubmitError::Stalled
                    | SubmitError::NoRoom
                    | SubmitError::DiskFull,
                ) => {
                    self.retry_at.get_or_insert(self.backend.now() + RETRY);
                    return Ok(());
                }
                Err(error @ (SubmitError::Failed | SubmitError::Closed | SubmitError::TooLarge(_))) => {
                    return Err(RaftError::Journal(error.to_string()));
                }
            }
        }
        // An empty step may stand behind what is durable already.
        self.settle_persisted()
    }

    fn take_ready(&mut self) -> Result<(), RaftError> {
        let mut ready = self.raft.ready();
        let mut entries = Vec::new();
        if let Some(hard) = ready.hs() {
            self.raft.mut_store().hard = hard.clone();
        }
        if ready.must_sync() {
            entries.push(store::hard_state_entry(&self.raft.store().hard));
        }
        entries.extend(ready.entries().iter().map(store::log_entry));
        let log = ready.entries().iter().map(|entry| (entry.index, entry.term)).collect();
        self.raft.mut_store().append(ready.entries());
        self.persisting.push_back(Persisting {
            ready: Some(ready.number()),
            entries,
            log,
            lsn: None,
            snapshot: None,
        });
        let leader_changed = ready.ss().is_some();
        if ready.ss().is_some_and(|state| state.raft_state != StateRole::Leader) {
            // Another leader decides about them: their proposers are told that nobody here knows.
            self.waiting.clear();
        }
        let committed = ready.take_committed_entries();
        self.raft.advance_append_async(ready);
        if leader_changed || !committed.is_empty() {
            self.apply(committed)?;
        }
        Ok(())
    }

    fn apply(&mut self, committed: Vec<Entry>) -> Result<(), RaftError> {
        let began = self.backend.now();
        let mut answers = Vec::new();
        let mut bytes = 0;
        for entry in &committed {
            bytes += entry.data.len();
            let answer =
                self.apply_one(entry).map_err(|what| RaftError::Apply { index: entry.index, what })?;
            self.applied = entry.index;
            // Only what this node proposed and led to here is its own; anything else there was overwritten.
            if let Some(waiting) = self.waiting.remove(&entry.index) {
                let answer = match answer {
                    Some(answer) if waiting.term == entry.term => Ok(answer),
                    _ => Err(Refusal::NotLeader),
                };
                answers.push((waiting, answer));
            }
        }
        let leader = self.raft.raft.leader_id;
        self.machine.publish((leader != raft::INVALID_ID).then_some(leader));
        // Answered only now: whoever is told finds the change in the image.
        for (waiting, answer) in answers {
            waiting.replier.answer(answer);
        }
        if !committed.is_empty() {
            self.raft.advance_apply_to(self.applied);
            self.snapshots.entries_since += committed.len() as u64;
            self.snapshots.bytes_since += bytes;
            let took = self.backend.now().since(began);
            self.metrics.raft_apply_duration_ms.observe(took.as_secs_f64() * 1e3);
            tracing::debug!(
                event = "RAFT_APPLY",
                entries = committed.len(),
                bytes,
                index = self.applied,
                duration_us = took.as_micros() as u64,
            );
        }
        Ok(())
    }

    fn apply_one(&mut self, entry: &Entry) -> Result<Option<M::Answer>, String> {
        use protobuf::Message;
        let unreadable = |error: protobuf::ProtobufError| error.to_string();
        let conf = match entry.get_entry_type() {
            EntryType::EntryNormal => return self.machine.apply(entry.index, &entry.data),
            EntryType::EntryConfChange => {
                let change = ConfChange::parse_from_carllerche_bytes(&entry.data).map_err(unreadable)?;
                self.raft.apply_conf_change(&change)
            }
            EntryType::EntryConfChangeV2 => {
                let change = ConfChangeV2::parse_from_carllerche_bytes(&entry.data).map_err(unreadable)?;
                self.raft.apply_conf_change(&change)
            }
        }
        .map_err(|error| error.to_string())?;
        let entries = vec![store::conf_state_entry(&conf)];
        self.raft.mut_store().conf = conf;
        self.persisting.push_back(Persisting {
            ready: None,
            entries,
            log: Vec::new(),
            lsn: None,
            snapshot: None,
        });
        self.machine.apply(entry.index, &[])
    }

    /// Copies all that recovery needs forward: the image, the configuration and the hard state.
    fn take_snapshot(&mut self) {
        let Some(term) = self.raft.store().term_of(self.applied) else { return };
        let conf = self.raft.store().conf.clone();
        let snapshot = store::snapshot(self.applied, term, conf, Bytes::from(self.machine.snapshot()));
        let mut entries = store::snapshot_entries(&snapshot, self.snapshots.piece_bytes);
        entries.push(store::conf_state_entry(&self.raft.store().conf));
        entries.push(store::hard_state_entry(&self.raft.store().hard));
        tracing::debug!(index = self.applied, bytes = snapshot.data.len(), "metadata snapshot");
        self.snapshots.in_flight = true;
        // One by one, so that an image of any size passes through the journal's queue.
        let count = entries.len();
        let mut snapshot = Some((snapshot, count));
        for (number, entry) in (1..).zip(entries) {
            let snapshot = snapshot.take_if(|_| number == count);
            self.persisting.push_back(Persisting {
                ready: None,
                entries: vec![entry],
                log: Vec::new(),
                lsn: None,
                snapshot,
            });
        }
    }

    /// The snapshot stands: what it replaces may go.
    fn snapshot_durable(&mut self, snapshot: Snapshot, last: Option<Lsn>, entries: usize) {
        self.snapshots.in_flight = false;
        self.snapshots.entries_since = self.applied - snapshot.get_metadata().index;
        self.snapshots.bytes_since = 0;
        self.snapshots.last_bytes = snapshot.data.len();
        self.raft.mut_store().compact(snapshot);
        let Some(last) = last else { return };
        // Nobody else writes to this journal, so they stand next to one another.
        let first_of_snapshot = Lsn(last.0 + 1 - entries as u64);
        let needed =
            self.raft.store().first_lsn().map_or(first_of_snapshot, |lsn| lsn.min(first_of_snapshot));
        self.journal.release_before(needed);
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
