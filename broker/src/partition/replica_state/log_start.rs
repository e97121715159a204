//! Where the log starts: it moves when the journal has that durably, by itself or as the leader's does.

use super::{EntryInFlight, Leadership, ReplicaState, What};
use crate::ids::Offset;

impl<T> ReplicaState<T> {
    /// Records before `start` are to be deleted; takes effect once that is durable. What becomes of it:
    /// [`Self::moves_log_start_to`].
    pub fn handle_log_start(&mut self, start: Offset) {
        if start > self.log_start && start <= self.high_watermark && !self.moves_log_start_to(start) {
            self.log_start_pending = Some(start);
        }
        self.check_invariants();
    }

    /// Whether the log's start is on its way to `start` or beyond.
    pub fn moves_log_start_to(&self, start: Offset) -> bool {
        let moves = |entry: &EntryInFlight| matches!(entry.what, What::LogStart { start: to } if to >= start);
        self.log_start_pending.is_some_and(|pending| pending >= start) || self.in_flight.iter().any(moves)
    }

    /// Of a leader, Kafka's low watermark: what lies before is deleted on the disks of all in sync; `None` where that is not known
    /// of all of them, or where they are too few. Another leader's log starts there at least.
    pub fn low_watermark(&self) -> Option<Offset> {
        self.in_sync.start_of_all(self.log_start)
    }

    /// Where the log of a follower is yet to start, for its leader's does; as far as what lies before is known to be committed
    /// here. Nothing where it is on its way there.
    pub fn lacking_log_start(&self) -> Option<Offset> {
        let start = self.of_leader.log_start.min(self.high_watermark);
        let follows = matches!(self.leadership, Leadership::Following(_)) && self.anew.is_none();
        (follows && start > self.log_start && !self.moves_log_start_to(start)).then_some(start)
    }

    /// Has the log start there. What the journal has refused is tried again with whatever comes next.
    pub(super) fn follow_log_start(&mut self) {
        self.log_start_pending = self.lacking_log_start().or(self.log_start_pending);
    }

    /// Producers stay as they are remembered: they go when they have been silent for long, whatever becomes of their records.
    pub(super) fn begin_log_at(&mut self, start: Offset) {
        self.log_start = self.log_start.max(start);
        self.high_watermark = self.high_watermark.max(self.log_start);
        self.epochs.forget_before(self.log_start);
        self.tail.drop_before(self.log_start);
    }
}
