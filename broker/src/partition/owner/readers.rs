//! What the owner plans for those who read: what may be told now, and where it is. Nothing waits for the disk here.

use io_backend::Backend;

use super::{Looked, Owner, Planned};
use crate::ids::{LeaderEpoch, Offset};
use crate::log::read::ReadPlan;
use crate::log::search::{SearchPlan, Wanted};
use crate::log::tail::Chunk;
use crate::partition::{OffsetFound, OffsetQuery, PartitionView, ReadError, ReadRequest};

impl<B: Backend> Owner<B> {
    pub(super) fn epoch_is_current(
        &self,
        view: &PartitionView,
        current: Option<LeaderEpoch>,
    ) -> Result<(), ReadError> {
        match view.leading {
            true => self.epoch_is_of(view, current),
            false => Err(ReadError::NotLeader),
        }
    }

    pub(super) fn epoch_is_of(
        &self,
        view: &PartitionView,
        current: Option<LeaderEpoch>,
    ) -> Result<(), ReadError> {
        match current {
            Some(epoch) if epoch < view.leader_epoch => Err(ReadError::FencedEpoch),
            Some(epoch) if epoch > view.leader_epoch => Err(ReadError::UnknownEpoch),
            _ => Ok(()),
        }
    }

    pub(super) fn plan(&self, request: &ReadRequest) -> Result<Planned<B>, ReadError> {
        let view = self.machine.view();
        if !view.leading && !view.following {
            return Err(ReadError::NotLeader);
        }
        self.epoch_is_of(&view, request.current_epoch)?;
        if request.from < view.log_start || request.from > view.log_end {
            return Err(ReadError::OutOfRange(request.from, view.log_start, view.high_watermark));
        }
        let limit = if request.read_committed { view.last_stable } else { view.high_watermark };
        let plan = ReadPlan::new(
            &self.files.segments,
            self.machine.tail(),
            request.from,
            limit,
            request.max_bytes,
            request.at_least_one,
        );
        Ok(Planned { view, plan })
    }

    pub(super) fn look_up(
        &self,
        query: OffsetQuery,
        current_epoch: Option<LeaderEpoch>,
    ) -> Result<Looked<B>, ReadError> {
        let view = self.machine.view();
        self.epoch_is_current(&view, current_epoch)?;
        let at = |offset: Offset| {
            let leader_epoch = self.machine.epochs().of(offset);
            Ok(Looked::Found(OffsetFound { offset, timestamp: -1, leader_epoch }))
        };
        if query != OffsetQuery::Earliest && !self.machine.is_settled() {
            return Err(ReadError::NotYetKnown);
        }
        let limit = view.high_watermark;
        let (tail, segments) = (self.machine.tail(), &self.files.segments);
        let (wanted, since) = match query {
            OffsetQuery::Earliest => return at(view.log_start),
            OffsetQuery::Latest { read_committed: true } => return at(view.last_stable),
            OffsetQuery::Latest { read_committed: false } => return at(limit),
            OffsetQuery::Timestamp(timestamp) => (Wanted::Since(timestamp), timestamp),
            OffsetQuery::MaxTimestamp => {
                let of_tail = tail.largest_timestamp(view.log_start, limit);
                (Wanted::Newest(of_tail), of_tail.unwrap_or(i64::MAX))
            }
        };
        let holds_start = |chunk: &&Chunk| chunk.base < view.log_start && view.log_start < chunk.end;
        let newest = matches!(wanted, Wanted::Newest(_));
        let beginning = tail.chunks().find(|chunk| newest && holds_start(chunk));
        Ok(Looked::Search(SearchPlan {
            wanted,
            log_start: view.log_start,
            limit,
            segments: segments.clone(),
            tail: tail.not_older_than(since),
            beginning: beginning.map(|chunk| chunk.bytes.clone()),
        }))
    }
}
