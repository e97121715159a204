//! A replica that leads: under which epoch, with whom in sync, and who may come into sync.

use super::{Answers, AppendError, EntryInFlight, InSync, Leadership, ReplicaState, What};
use crate::ids::{BrokerId, LeaderEpoch, PartitionEpoch};

impl<T> ReplicaState<T> {
    /// Leadership under `epoch` was granted to this process, with these in sync.
    pub fn handle_lead(&mut self, epoch: LeaderEpoch, in_sync: InSync, answers: &mut Answers<T>) {
        match self.leadership {
            Leadership::Leading(current) if current == epoch => answers.led.push((epoch, Ok(()))),
            Leadership::Pending(current) | Leadership::Starting(current) if current == epoch => {}
            Leadership::Pending(current) | Leadership::Starting(current) | Leadership::Leading(current)
                if current > epoch =>
            {
                answers.led.push((epoch, Err(AppendError::NotLeader(self.id))));
            }
            Leadership::Following(current) if current >= epoch => {
                answers.led.push((epoch, Err(AppendError::NotLeader(self.id))));
            }
            _ if self.epochs.latest() > epoch || self.taken_back_in >= epoch => {
                answers.led.push((epoch, Err(AppendError::NotLeader(self.id))));
            }
            _ => {
                self.resign(answers);
                self.leadership = Leadership::Pending(epoch);
                self.in_sync = in_sync;
                // What is still to be cut goes first, and who waits is told where that is not taken either.
                self.cut_refused = false;
            }
        }
        self.check_invariants();
    }

    /// Of a leader: whether all that earlier epochs may have committed is known to be. Before, its high watermark may lie
    /// behind what readers have seen (KIP-207).
    pub fn is_settled(&self) -> bool {
        self.epochs.entries().last().is_none_or(|(_, start)| self.high_watermark >= *start)
    }

    /// Of a leader: something new is known of those that follow it, or of who is in sync.
    pub fn handle_in_sync(
        &mut self,
        epoch: LeaderEpoch,
        change: impl FnOnce(&mut InSync),
        answers: &mut Answers<T>,
    ) {
        let leads = match self.leadership {
            Leadership::Pending(current) | Leadership::Starting(current) | Leadership::Leading(current) => {
                current == epoch
            }
            Leadership::No | Leadership::Following(_) => false,
        };
        if leads {
            let was_alone = self.in_sync.is_alone();
            change(&mut self.in_sync);
            if !self.in_sync.is_below_min() {
                self.below_min_bytes = 0;
            }
            let taken_back = |entry: &EntryInFlight| matches!(entry.what, What::Truncate);
            if was_alone
                && !self.in_sync.is_alone()
                && (self.truncate_pending || self.in_flight.iter().any(taken_back))
            {
                self.resign(answers);
                answers.resigned = Some(epoch);
                self.taken_back_in = epoch;
            }
            self.advance(answers);
            self.check_invariants();
        }
    }

    /// Whether the follower may be put in sync: its disk has all that this leader's had when its epoch began, all that is
    /// known to be committed, and nothing that is deleted. Before that the high watermark may lag behind what was acknowledged in
    /// earlier epochs.
    pub(super) fn may_join(&self, follower: BrokerId) -> bool {
        let Leadership::Leading(epoch) = self.leadership else { return false };
        let begun =
            self.epochs.entries().last().filter(|(latest, _)| *latest == epoch).map(|(_, start)| *start);
        let has_deleted = self.in_sync.start_of(follower).is_some_and(|start| start >= self.log_start);
        has_deleted
            && begun
                .zip(self.in_sync.synced_by(follower))
                .is_some_and(|(begun, synced)| synced >= begun.max(self.high_watermark))
    }

    /// Those of `followers` that may be put in sync now, which are to be at this version: from now on nothing is committed, or deleted
    /// for good, without them. In one step: what is committed between two they might lack. `None` where the partition has
    /// a later version, or this replica does not lead under `epoch`.
    pub fn handle_joining(
        &mut self,
        epoch: LeaderEpoch,
        version: PartitionEpoch,
        mut followers: Vec<BrokerId>,
        answers: &mut Answers<T>,
    ) -> Option<Vec<BrokerId>> {
        followers.retain(|follower| self.may_join(*follower));
        let mut are_added = followers.is_empty();
        if !are_added {
            let add = |in_sync: &mut InSync| are_added = in_sync.add(version, followers.iter().copied());
            self.handle_in_sync(epoch, add, answers);
        }
        are_added.then_some(followers)
    }
}
