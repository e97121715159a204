//! A log that begins anew: all that a follower has lies before what its leader still has. Kafka's "truncate fully and start at".
//!
//! The replica stays what it is, and says so, until the entry of it is durable: from then on its disk has everything up to there,
//! for there is nothing. Once it was submitted the decision stands, whatever fails and whoever leads, since a restart may find it; so
//! nothing else is submitted before it is durable.
//!
//! Nobody who is in sync comes here: its log reaches up to the high watermark at least, and no log starts behind that.

use super::{FollowError, Leadership, ReplicaState, What};
use crate::ids::{LeaderEpoch, Offset};
use crate::log::epochs::EpochHistory;
use crate::log::producers::Producers;
use crate::log::tail::Tail;

impl<T> ReplicaState<T> {
    /// Whether the log of a follower that ends at `offset` with a record of `epoch` has nothing that this one still has: it ends
    /// before this one begins, or [has left](Self::had_left) it before that. This log's start may lie within a batch.
    pub fn has_deleted_all_of(&self, epoch: LeaderEpoch, offset: Offset) -> bool {
        offset < self.log_start || self.had_left(epoch, offset)
    }

    /// Whether such a log reaches to where this one begins, or beyond, and left it before that, for what this one begins with, or had
    /// just before it, is of a later epoch. Where the two part is not known: nor is what producers had sent before, and who
    /// is only where this one begins would keep what it remembers of others.
    pub fn had_left(&self, epoch: LeaderEpoch, offset: Offset) -> bool {
        let Some((first, known_from)) = self.epochs.entries().first() else { return false };
        let is_older = epoch != LeaderEpoch::NONE && epoch < *first && self.log_start > Offset::ZERO;
        is_older && (offset > self.log_start || (offset == self.log_start && *known_from < self.log_start))
    }

    /// The leader of `epoch` was asked from `asked`, a [fetch position](Self::fetch_position), and the first batch that it still
    /// has begins at `at`: nothing of it is here.
    ///
    /// # Errors
    ///
    /// Another epoch has begun, this log has changed since, or what would go was committed. Nothing was changed.
    pub fn handle_begins_later(
        &mut self,
        epoch: LeaderEpoch,
        asked: (LeaderEpoch, Offset),
        at: Offset,
    ) -> Result<(), FollowError> {
        self.follows(epoch)?;
        if self.fetch_position() != asked || !self.fetched.is_empty() {
            return Err(FollowError::NotNext { expected: self.log_end, found: asked.1 });
        }
        if at < self.high_watermark {
            let (partition, committed) = (self.id, self.high_watermark);
            return Err(FollowError::Committed { partition, epoch, to: at, committed });
        }
        self.anew.get_or_insert(at);
        self.cut_refused = false;
        self.check_invariants();
        Ok(())
    }

    /// What comes meanwhile does not follow from what there is. Where the journal has refused the entry, it is tried again.
    pub(super) fn is_as_it_stays(&mut self) -> Result<(), FollowError> {
        match self.anew {
            None => Ok(()),
            Some(at) => {
                self.cut_refused = false;
                Err(FollowError::BeginsAnew(at))
            }
        }
    }

    /// Where the log is to begin anew, if that is to be submitted.
    pub(super) fn anew_to_submit(&self) -> Option<Offset> {
        let is_in_flight =
            self.in_flight.iter().any(|entry| matches!(entry.what, What::TruncateFully { .. }));
        self.anew.filter(|_| !is_in_flight && !self.cut_refused)
    }

    /// Everything before `at` is gone, and nothing is there yet. What was truncated before is gone with it.
    pub(super) fn begin_anew(&mut self, at: Offset) {
        assert!(
            at >= self.high_watermark && !matches!(self.leadership, Leadership::Leading(_)),
            "{}: only who is not in sync begins anew, at {at}, which is behind {}",
            self.id,
            self.high_watermark
        );
        (self.log_start, self.high_watermark, self.synced, self.log_end) = (at, at, at, at);
        self.tail = Tail::default();
        self.epochs = EpochHistory::default();
        self.producers = Producers::default();
        self.truncations += 1;
        (self.anew, self.began_anew) = (None, true);
        (self.truncate_pending, self.cut_pending, self.cut_refused) = (false, false, false);
        self.log_start_pending = self.log_start_pending.filter(|start| *start > at);
    }
}
