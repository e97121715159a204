//! What the owner does between a leader and those who follow it.

use bytes::BytesMut;
use io_backend::{Backend, Replier};

use super::{Owner, Planned, PlannedFetch, Ticket};
use crate::ids::{BrokerId, LeaderEpoch, Offset};
use crate::log::read::ReadPlan;
use crate::partition::replica_state::{Answers, FollowError, InSync};
use crate::partition::{Durable, Fetched, FollowerRead, ReadError};

impl<B: Backend> Owner<B> {
    /// As a follower: answers with what to ask for next.
    pub(super) fn fetched(
        &mut self,
        epoch: LeaderEpoch,
        asked: (LeaderEpoch, Offset),
        fetched: Fetched,
        reply: Replier<Result<(LeaderEpoch, Offset), FollowError>>,
        answers: &mut Answers<Ticket>,
    ) {
        let taken = match fetched {
            Fetched::Diverging { epoch: of, end } => {
                self.machine.handle_diverging(epoch, asked, (of, end), answers)
            }
            Fetched::BeginsLater { at } => self.machine.handle_begins_later(epoch, asked, at),
            Fetched::Records { batches, marks } => {
                let bytes = match <[_; 1]>::try_from(batches) {
                    Ok([one]) => one,
                    Err(several) => {
                        let mut together = BytesMut::new();
                        several.iter().for_each(|batches| together.extend_from_slice(batches));
                        together.freeze()
                    }
                };
                self.machine.handle_fetched(epoch, bytes, marks, answers).map(|_| ())
            }
        };
        self.submit(answers);
        // Before it is answered: where the log stands then is never newer than what is told.
        self.publish();
        self.answer(answers);
        reply.answer(taken.map(|()| self.machine.fetch_position()));
    }

    /// As a leader: plans what a follower gets, up to the log's end. What it asks from is what it has, where that is a
    /// beginning of this log.
    pub(super) fn read_by_follower(
        &mut self,
        read: &FollowerRead,
        answers: &mut Answers<Ticket>,
    ) -> Result<PlannedFetch<B>, ReadError> {
        let view = self.machine.view();
        self.epoch_is_current(&view, Some(read.epoch))?;
        let (last_epoch, from) = (read.last_fetched_epoch, read.from);
        let (segments, tail) = (&self.files.segments, self.machine.tail());
        if self.machine.has_deleted_all_of(last_epoch, from) {
            let plan = ReadPlan::new(segments, tail, view.log_start, view.log_end, read.max_bytes, true);
            let has_none = last_epoch == LeaderEpoch::NONE;
            let planned = Planned { view, plan };
            let had_left = self.machine.had_left(last_epoch, from);
            return Ok(PlannedFetch::Beginning { asked: from, has_none, had_left, planned });
        }
        if let Some((epoch, end)) = self.machine.diverging(last_epoch, from) {
            return Ok(PlannedFetch::Diverging { epoch, end });
        }
        if from > view.log_end {
            return Err(ReadError::OutOfRange(from, view.log_start, view.log_end));
        }
        let plan = ReadPlan::new(segments, tail, from, view.log_end, read.max_bytes, read.at_least_one);
        let follower = read.follower;
        self.machine.handle_in_sync(read.epoch, |in_sync| in_sync.fetched(follower, from), answers);
        Ok(PlannedFetch::Records(Planned { view: self.machine.view(), plan }))
    }

    pub(super) fn reported(
        &mut self,
        epoch: LeaderEpoch,
        follower: BrokerId,
        durable: Durable,
        answers: &mut Answers<Ticket>,
    ) {
        self.machine.handle_in_sync(epoch, |in_sync| in_sync.reported(follower, durable), answers);
    }

    pub(super) fn change_in_sync(&mut self, epoch: LeaderEpoch, to: InSync, answers: &mut Answers<Ticket>) {
        self.machine.handle_in_sync(epoch, |in_sync| in_sync.change_to(to), answers);
    }
}
