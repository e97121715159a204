//! One partition as its fetcher has it.

use io_backend::{Backend, Moment};

use super::protocol::Position;
use crate::ids::{BrokerId, LeaderEpoch, Offset, PartitionId};
use crate::limits;
use crate::partition::{Durable, LeaderMarks, LogState, PartitionHandle};

/// What the fetcher waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its owner, who is to say where it stands.
    Asked,
    /// The leader: its log ends there, with a record of that epoch.
    At((LeaderEpoch, Offset)),
    /// Time, after something went wrong.
    Paused(Moment),
}

pub struct Followed<B: Backend> {
    pub handle: PartitionHandle<B>,
    /// Of the leader.
    pub epoch: LeaderEpoch,
    pub phase: Phase,
    /// What the leader has told of its log.
    told: LeaderMarks,
    /// What the leader was told last.
    reported: Option<Durable>,
    /// In a row.
    failures: u32,
}

impl<B: Backend> Followed<B> {
    pub fn new(epoch: LeaderEpoch, handle: PartitionHandle<B>) -> Followed<B> {
        let told = LeaderMarks::default();
        Followed { handle, epoch, phase: Phase::Asked, told, reported: None, failures: 0 }
    }

    /// The owner has taken what the leader says beside records: it need not be said again.
    pub fn heard(&mut self, marks: LeaderMarks) {
        self.told = marks;
    }

    /// What to ask the leader with; nothing while that is not known.
    pub fn position(&mut self, state: Option<LogState>) -> Option<Position> {
        let Phase::At((last_fetched_epoch, offset)) = self.phase else { return None };
        // What the owner has told may be older than where it stands, and a truncation lies in between.
        let durable = self.durable(state).unwrap_or_default().within(offset);
        self.reported = Some(durable);
        Some(Position { epoch: self.epoch, last_fetched_epoch, offset, durable, told: self.told })
    }

    /// What is on this node's disk, where the leader does not know that yet.
    pub fn report(&mut self, state: Option<LogState>) -> Option<Durable> {
        let durable = self.durable(state)?;
        (self.reported.replace(durable) != Some(durable)).then_some(durable)
    }

    /// Whether the log ends before where the leader is asked from: what was in flight was not written. Nobody would ask for it again where
    /// the leader has nothing more.
    pub fn is_taken_back(&self, state: Option<LogState>) -> bool {
        let Phase::At((_, asked)) = self.phase else { return false };
        state.is_some_and(|state| !state.leading && state.epoch == self.epoch && state.log_end < asked)
    }

    fn durable(&self, state: Option<LogState>) -> Option<Durable> {
        state.filter(|state| !state.leading && state.epoch == self.epoch).map(|state| state.durable())
    }

    pub fn paused_until(&self) -> Option<Moment> {
        match self.phase {
            Phase::Paused(until) => Some(until),
            Phase::Asked | Phase::At(_) => None,
        }
    }

    /// Leaves it out for a while, longer with each failure in a row. What is wrong is said when it goes on being so.
    pub fn pause(&mut self, partition: PartitionId, leader: BrokerId, now: Moment, why: &str) {
        let pause = limits::REPLICATION_PAUSE_MIN.saturating_mul(1 << self.failures.min(10));
        self.phase = Phase::Paused(now + pause.min(limits::REPLICATION_PAUSE_MAX));
        self.failures += 1;
        if self.failures == FAILURES_TOLD {
            let name = self.handle.name();
            tracing::warn!(partition = %name, id = %partition, %leader, "does not follow its leader, and tries again: {why}");
        }
    }

    /// It goes on.
    pub fn recovered(&mut self, partition: PartitionId) {
        if std::mem::take(&mut self.failures) >= FAILURES_TOLD {
            tracing::info!(partition = %self.handle.name(), id = %partition, "follows its leader again");
        }
    }
}

/// What passes by itself is not worth a line.
const FAILURES_TOLD: u32 = 5;
const _: () = assert!(limits::REPLICATION_PAUSE_MIN.as_millis() < limits::REPLICATION_PAUSE_MAX.as_millis());
