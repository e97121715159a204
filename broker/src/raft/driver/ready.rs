//! What `raft` has decided: into the line, to the peers and to the state machine.

use bytes::Bytes;
use io_backend::Backend;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfChangeV2, Entry, EntryType, Message, MessageType};
use raft::{SnapshotStatus, StateRole};

use super::line::{Persisting, Then};
use super::{Decision, Driver, RaftError, TICK};
use crate::raft::{Place, Refusal, StateMachine, entries, pieces};

impl<B: Backend, M: StateMachine> Driver<B, M> {
    /// Does all that can be done now.
    pub(super) fn step(&mut self) -> Result<(), RaftError> {
        self.settle_persisted()?;
        loop {
            self.submit()?;
            if self.raft.has_ready() {
                self.take_ready()?;
            } else if !self.apply_change_of_members()? {
                break;
            }
        }
        // Asked either way, for the wish is forgotten when it is asked for.
        let wanted = self.raft.store().take_snapshot_wanted() && !self.snapshots.in_flight;
        if self.snapshots.due() || wanted {
            self.take_snapshot();
            self.submit()?;
        }
        match (self.rests(), self.tick_at) {
            (true, _) => self.tick_at = None,
            (false, None) => self.tick_at = Some(self.backend.now() + TICK),
            (false, Some(_)) => {}
        }
        self.check_invariants();
        Ok(())
    }

    /// There is nobody to beat for and nobody to listen to.
    fn rests(&self) -> bool {
        let has_others = self.raft.raft.prs().iter().any(|(id, _)| *id != self.id);
        !has_others && (self.leads() || !self.raft.store().has_group())
    }

    fn take_ready(&mut self) -> Result<(), RaftError> {
        let mut ready = self.raft.ready();
        let store = self.raft.mut_store();
        let committed_before = store.hard.commit;
        let mut persisting = Persisting { ready: Some(ready.number()), ..Persisting::default() };
        if let Some(hard) = ready.hs() {
            persisting.promises = hard.term != store.hard.term || hard.vote != store.hard.vote;
            store.hard = hard.clone();
        }
        // Where the journal may end behind the hard state, the log is as it was: what is committed of the
        // entries that follow is none of that log, and may be another entry there.
        let first_of_log = ready.entries().first().map(|entry| entry.index);
        let mut hard = store.hard.clone();
        hard.commit = first_of_log.map_or(hard.commit, |first| hard.commit.min(first - 1));
        let leaders_snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());
        let mut refused = Vec::new();
        if let Some(snapshot) = leaders_snapshot {
            let mut before = hard.clone();
            before.commit = committed_before;
            let first = Persisting {
                entries: vec![entries::hard_state_entry(&before)],
                promises: persisting.promises,
                ..Persisting::default()
            };
            let pieces = pieces::snapshot_entries(&snapshot, self.snapshots.piece_bytes, true);
            let own = pieces.len() + 1 + ready.entries().len();
            store.replace(snapshot.clone());
            self.to_apply.clear();
            refused.extend(self.line.push(first));
            for piece in pieces {
                refused.extend(self.line.push(Persisting { entries: vec![piece], ..Persisting::default() }));
            }
            persisting.then = Some(Then::Restore(snapshot, own));
        }
        if ready.must_sync() {
            persisting.commit = hard.commit;
            persisting.entries.push(entries::hard_state_entry(&hard));
        }
        persisting.entries.extend(ready.entries().iter().map(entries::log_entry));
        persisting.log = ready.entries().iter().map(|entry| (entry.index, entry.term)).collect();
        store.append(ready.entries());
        let mut at_once = ready.take_messages();
        self.number_heartbeats(&mut at_once);
        persisting.messages = ready.take_persisted_messages();
        if persisting.promises || self.line.promises() {
            // A sole voter leads its learners as soon as it has voted for itself. Crashed now, it would lead
            // again in the same term, with another log.
            persisting.messages.append(&mut at_once);
        }
        self.note_snapshots(at_once.iter().chain(&persisting.messages));
        refused.extend(self.line.push(persisting));
        if !at_once.is_empty() {
            self.transport.send(at_once);
        }
        let leader_changed = ready.ss().is_some();
        if ready.ss().is_some_and(|state| state.raft_state != StateRole::Leader) {
            // Another leader decides about them: who waits here for an outcome is told that nobody here knows.
            self.waiting.clear();
            self.office.handed_over = None;
            self.office.confirmations.waiting.clear();
        }
        let committed = ready.take_committed_entries();
        self.raft.advance_append_async(ready);
        for lost in refused.iter().filter(|message| message.get_msg_type() == MessageType::MsgSnapshot) {
            self.raft.report_snapshot(lost.to, SnapshotStatus::Failure);
        }
        let applies = leader_changed || !committed.is_empty();
        self.to_apply.extend(committed);
        if applies {
            self.apply()?;
        }
        Ok(())
    }

    /// The answers to heartbeats repeat what stands in their contexts.
    fn number_heartbeats(&mut self, messages: &mut [Message]) {
        let is_heartbeat = |message: &&mut Message| message.get_msg_type() == MessageType::MsgHeartbeat;
        let mut heartbeats = messages.iter_mut().filter(is_heartbeat).peekable();
        if heartbeats.peek().is_some() {
            self.office.confirmations.sent += 1;
            let number = self.office.confirmations.sent.to_be_bytes();
            heartbeats.for_each(|message| message.context = number.to_vec().into());
        }
    }

    fn note_snapshots<'a>(&mut self, messages: impl Iterator<Item = &'a Message>) {
        for message in messages.filter(|message| message.get_msg_type() == MessageType::MsgSnapshot) {
            self.office.snapshots_sent.insert(message.to, self.office.ticks);
        }
    }

    /// Applies what is committed, up to a change of the members that may not be applied yet, and says who leads.
    fn apply(&mut self) -> Result<(), RaftError> {
        let began = self.backend.now();
        let mut answers = Vec::new();
        let (mut bytes, mut applied) = (0, 0);
        while let Some(entry) = self.to_apply.pop_front() {
            if entry.get_entry_type() != EntryType::EntryNormal && self.commit_durable < entry.index {
                self.to_apply.push_front(entry);
                break;
            }
            bytes += entry.data.len();
            applied += 1;
            let answer =
                self.apply_one(&entry).map_err(|what| RaftError::Apply { index: entry.index, what })?;
            self.applied = entry.index;
            // Only what this node proposed and led to here is its own; anything else there was overwritten.
            if let Some(waiting) = self.waiting.remove(&entry.index) {
                answers.push((waiting.decision, Some(answer).filter(|_| waiting.term == entry.term)));
            }
        }
        let leader = self.leader();
        self.publish();
        // Answered only now: whoever is told finds the change in the image.
        for (decision, answer) in answers {
            let overwritten = Refusal::NotLeader { leader: leader.filter(|leader| *leader != self.id) };
            match (decision, answer) {
                (Decision::Proposal(replier), Some(Applied::Entry(Some(answer)))) => {
                    replier.answer(Ok(answer))
                }
                (Decision::Placed, _) => {}
                (Decision::Proposal(replier), _) => replier.answer(Err(overwritten)),
                (Decision::Members(replier), Some(Applied::Members)) => replier.answer(Ok(())),
                (Decision::Members(replier), _) => replier.answer(Err(overwritten)),
            }
        }
        if applied > 0 {
            self.raft.advance_apply_to(self.applied);
            self.snapshots.entries_since += applied;
            self.snapshots.bytes_since += bytes;
            let took = self.backend.now().since(began);
            self.metrics.raft_apply_duration_ms.observe(took.as_secs_f64() * 1e3);
            tracing::debug!(
                event = "RAFT_APPLY",
                entries = applied,
                bytes,
                index = self.applied,
                duration_us = took.as_micros() as u64,
            );
        }
        self.leave_office_if_removed();
        Ok(())
    }

    /// Goes on with a change of the members that waits for its commit index to be durable; whether anything was done.
    ///
    /// A start begins with the members of its snapshot and campaigns when it has applied what it knows to be committed. If
    /// that ended before a change which it had followed, it could be a quorum of members that are none any more.
    fn apply_change_of_members(&mut self) -> Result<bool, RaftError> {
        let Some(change) = self.to_apply.front() else { return Ok(false) };
        if self.commit_durable >= change.index {
            self.apply()?;
            return Ok(true);
        }
        if self.line.commit() >= change.index {
            return Ok(false);
        }
        let hard = &self.raft.store().hard;
        let entries = vec![entries::hard_state_entry(hard)];
        let persisting = Persisting { entries, commit: hard.commit, ..Persisting::default() };
        self.line.push(persisting);
        Ok(true)
    }

    fn apply_one(&mut self, entry: &Entry) -> Result<Applied<M::Answer>, String> {
        use protobuf::Message;
        let place = Place { index: entry.index, term: entry.term };
        let unreadable = |error: protobuf::ProtobufError| error.to_string();
        let changed = match entry.get_entry_type() {
            EntryType::EntryNormal => {
                return self.machine.apply(place, &entry.data).map(Applied::Entry);
            }
            EntryType::EntryConfChange => {
                let change = ConfChange::parse_from_carllerche_bytes(&entry.data).map_err(unreadable)?;
                self.say_farewell(&change);
                self.raft.apply_conf_change(&change)
            }
            EntryType::EntryConfChangeV2 => {
                let change = ConfChangeV2::parse_from_carllerche_bytes(&entry.data).map_err(unreadable)?;
                self.raft.apply_conf_change(&change)
            }
        };
        self.machine.apply(place, &[])?;
        match changed {
            Ok(conf) => {
                tracing::info!(voters = ?conf.voters, learners = ?conf.learners, "members of the metadata group");
                self.raft.mut_store().conf = conf;
                Ok(Applied::Members)
            }
            Err(error) => {
                // All members find the same: they stay as they are.
                tracing::error!(%error, index = entry.index, "a change of the members is impossible");
                Ok(Applied::Entry(None))
            }
        }
    }

    /// Lets a member hear that it is one no more, as long as it is heard to: afterwards it gets nothing.
    fn say_farewell(&mut self, change: &ConfChange) {
        let leaves = change.get_change_type() == ConfChangeType::RemoveNode && change.node_id != self.id;
        if leaves && self.leads() && self.raft.raft.prs().get(change.node_id).is_some() {
            self.raft.raft.send_append(change.node_id);
        }
    }

    /// A leader that is no voter any more has whoever is furthest take over.
    fn leave_office_if_removed(&mut self) {
        if !self.leads() || self.raft.raft.promotable() {
            return;
        }
        let voters = self.raft.raft.prs().conf().voters().ids();
        let others = self.raft.raft.prs().iter().filter(|(id, _)| voters.contains(**id));
        let furthest = others.max_by_key(|(id, progress)| (progress.matched, std::cmp::Reverse(**id)));
        if let Some(successor) = furthest.map(|(id, _)| *id) {
            self.raft.raft.send_timeout_now(successor);
        }
        let term = self.raft.raft.term;
        self.raft.raft.become_follower(term, raft::INVALID_ID);
    }

    /// Copies all that recovery needs forward: the image with the members as of it, and the hard state.
    pub(super) fn take_snapshot(&mut self) {
        let Some(term) = self.raft.store().term_of(self.applied) else { return };
        if self.applied == 0 || self.line.restores() {
            return;
        }
        let conf = self.raft.store().conf.clone();
        let image = Bytes::from(self.machine.snapshot());
        let snapshot = entries::snapshot(self.applied, term, conf, image);
        let hard = &self.raft.store().hard;
        let mut entries = pieces::snapshot_entries(&snapshot, self.snapshots.piece_bytes, false);
        entries.push(entries::hard_state_entry(hard));
        let commit = hard.commit;
        tracing::debug!(index = self.applied, bytes = snapshot.data.len(), "metadata snapshot");
        self.snapshots.in_flight = true;
        // One by one, so that an image of any size passes through the journal's queue.
        let count = entries.len();
        let mut snapshot = Some(snapshot);
        for (number, entry) in (1..).zip(entries) {
            let last = number == count;
            let then = snapshot.take_if(|_| last).map(|snapshot| Then::Compact(snapshot, count));
            let commit = if last { commit } else { 0 };
            self.line.push(Persisting { entries: vec![entry], commit, then, ..Persisting::default() });
        }
    }

    pub(super) fn check_invariants(&self) {
        if !io_backend::invariants::are_checked() {
            return;
        }
        let store = self.raft.store();
        store.check_hard_state();
        self.line.check_invariants();
        assert!(self.waiting.is_empty() || self.leads(), "only a leader has proposals");
        assert!(self.commit_durable <= store.hard.commit, "what is durably committed is committed");
        let snapshot = store.snapshot.get_metadata().index;
        assert!(self.applied >= snapshot || self.line.restores(), "what a snapshot holds is applied");
        assert!(self.applied <= store.hard.commit, "only what is committed is applied");
    }
}

/// What applying an entry came to.
enum Applied<A> {
    Entry(Option<A>),
    Members,
}
