//! From the line to the journal, and what follows when it is durable.

use std::time::Duration;

use io_backend::Backend;
use raft::eraftpb::Snapshot;

use super::line::Then;
use super::{Driver, RaftError};
use crate::ids::Lsn;
use crate::journal::SubmitError;
use crate::raft::StateMachine;

/// How soon a submission is tried again that the journal did not take: only while its disk stands still
/// or is full, so never when idle.
const RETRY: Duration = Duration::from_millis(50);

impl<B: Backend, M: StateMachine> Driver<B, M> {
    /// Tells `raft` what has become durable, and says what may be said now.
    pub(super) fn settle_persisted(&mut self) -> Result<(), RaftError> {
        if let Some(lsn) = self.progress.failed_from() {
            return Err(RaftError::Journal(format!("nothing from entry {lsn} on is durable")));
        }
        let reached = Lsn(self.progress.reached());
        let mut messages = Vec::new();
        while let Some(done) = self.line.pop_durable(reached) {
            if let Some(ready) = done.ready {
                self.raft.on_persist_ready(ready);
            }
            self.commit_durable = self.commit_durable.max(done.commit);
            messages.extend(done.messages);
            match done.then {
                Some(Then::Compact(snapshot, entries)) => self.compact(snapshot, done.lsn, entries),
                Some(Then::Restore(snapshot, entries)) => self.restore(&snapshot, done.lsn, entries)?,
                None => {}
            }
        }
        if !messages.is_empty() {
            self.transport.send(messages);
        }
        Ok(())
    }

    /// Queues what waits for that, in order.
    pub(super) fn submit(&mut self) -> Result<(), RaftError> {
        while let Some(next) = self.line.next_to_submit() {
            if next.entries.is_empty() {
                // Nothing of its own: done with what stands before it.
                next.lsn = Some(self.submitted);
                continue;
            }
            match self.journal.submit(next.entries.clone(), &self.progress) {
                Ok(lsn) => {
                    next.lsn = Some(lsn);
                    self.submitted = lsn;
                    self.retry_at = None;
                    self.raft.mut_store().submitted(&next.log, lsn);
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
                Err(SubmitError::Closed) => return Err(RaftError::Closed),
                Err(error @ (SubmitError::Failed | SubmitError::TooLarge(_))) => {
                    return Err(RaftError::Journal(error.to_string()));
                }
            }
        }
        // An empty step may stand behind what is durable already.
        self.settle_persisted()
    }

    /// A snapshot taken here stands: what it replaces may go.
    fn compact(&mut self, snapshot: Snapshot, last: Option<Lsn>, entries: usize) {
        self.snapshots.in_flight = false;
        if snapshot.get_metadata().index < self.raft.store().snapshot.get_metadata().index {
            // A leader's came meanwhile, which holds more.
            return;
        }
        self.snapshots.entries_since = self.applied - snapshot.get_metadata().index;
        self.snapshots.bytes_since = 0;
        self.snapshots.last_bytes = snapshot.data.len();
        self.raft.mut_store().compact(snapshot);
        self.release(last, entries);
    }

    /// A leader's snapshot stands: the state machine goes on from there.
    fn restore(&mut self, snapshot: &Snapshot, last: Option<Lsn>, entries: usize) -> Result<(), RaftError> {
        let index = snapshot.get_metadata().index;
        self.machine.restore(&snapshot.data).map_err(|what| RaftError::Apply { index, what })?;
        self.applied = index;
        self.raft.advance_apply_to(index);
        self.snapshots.entries_since = 0;
        self.snapshots.bytes_since = 0;
        self.snapshots.last_bytes = snapshot.data.len();
        self.publish();
        tracing::info!(index, bytes = snapshot.data.len(), "metadata snapshot of the leader taken over");
        self.release(last, entries);
        Ok(())
    }

    /// Lets go of what stands before a snapshot whose last of so many entries is `last`, and that the log does not need.
    fn release(&mut self, last: Option<Lsn>, entries: usize) {
        let Some(last) = last else { return };
        // Nobody else writes to this journal, so they stand next to one another.
        let first_of_snapshot = Lsn(last.0 + 1 - entries as u64);
        let needed =
            self.raft.store().first_lsn().map_or(first_of_snapshot, |lsn| lsn.min(first_of_snapshot));
        self.journal.release_before(needed);
    }
}
