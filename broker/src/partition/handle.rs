//! The door to a partition's owner task.

use std::sync::Arc;

use io_backend::{Backend, Deadline, Published, Reply, Sender};

use super::{
    Acks, AppendError, Appended, CheckedBatch, OffsetFound, OffsetQuery, PartitionInput, PartitionView,
    ReadError, ReadOutcome, ReadRequest,
};
use crate::ids::{LeaderEpoch, Lsn, Offset, PartitionId};

/// Cloneable; all clones lead to the same owner.
pub struct PartitionHandle<B: Backend> {
    pub(super) id: PartitionId,
    /// `<topic>-<index>`, for people.
    pub(super) name: Arc<str>,
    pub(super) mailbox: Sender<B, PartitionInput>,
    pub(super) views: Published<PartitionView>,
}

impl<B: Backend> Clone for PartitionHandle<B> {
    fn clone(&self) -> Self {
        PartitionHandle {
            id: self.id,
            name: self.name.clone(),
            mailbox: self.mailbox.clone(),
            views: self.views.clone(),
        }
    }
}

/// An append that is in line: where it stands among others is settled, its outcome is not.
pub struct PendingAppend<B: Backend> {
    pub(super) reply: Option<Reply<B, Result<Appended, AppendError>>>,
    pub(super) deadline: Deadline,
}

impl<B: Backend> PendingAppend<B> {
    /// The outcome; for acks=0 at once.
    pub async fn wait(self) -> Result<Appended, AppendError> {
        unimplemented!()
    }
}

impl<B: Backend> PartitionHandle<B> {
    pub fn id(&self) -> PartitionId {
        self.id
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What readers may see now, and a way to wait for more.
    pub fn views(&self) -> &Published<PartitionView> {
        &self.views
    }

    /// Puts batches in line. Returns as soon as they have a place in the mailbox (waiting for one is
    /// what holds up a connection that produces too fast); appends of one caller keep their order.
    pub async fn append(
        &self,
        batches: Vec<CheckedBatch>,
        acks: Acks,
        deadline: Deadline,
    ) -> Result<PendingAppend<B>, AppendError> {
        let _ = (batches, acks, deadline);
        unimplemented!()
    }

    pub async fn read(&self, request: ReadRequest, deadline: Deadline) -> Result<ReadOutcome, ReadError> {
        let _ = (request, deadline);
        unimplemented!()
    }

    pub async fn offset(
        &self,
        query: OffsetQuery,
        current_epoch: Option<LeaderEpoch>,
        deadline: Deadline,
    ) -> Result<Option<OffsetFound>, ReadError> {
        let _ = (query, current_epoch, deadline);
        unimplemented!()
    }

    /// KIP-101: the largest epoch not above `epoch`, and where it ends.
    pub async fn epoch_end(
        &self,
        epoch: LeaderEpoch,
        current_epoch: Option<LeaderEpoch>,
        deadline: Deadline,
    ) -> Result<(LeaderEpoch, Offset), ReadError> {
        let _ = (epoch, current_epoch, deadline);
        unimplemented!()
    }

    /// Begins to lead under `epoch`: done when the epoch's start is synced.
    pub async fn lead(&self, epoch: LeaderEpoch, deadline: Deadline) -> Result<(), AppendError> {
        let _ = (epoch, deadline);
        unimplemented!()
    }

    /// Brings everything that the journal holds durably into segments, with index and producer snapshot;
    /// returns what the checkpoint record says of this partition.
    pub async fn checkpoint(
        &self,
        deadline: Deadline,
    ) -> Result<super::CheckpointMark, io_backend::DiskError> {
        let _ = deadline;
        unimplemented!()
    }

    /// Answers what waits and ends the owner; `delete` also removes the files.
    pub async fn close(&self, delete: bool, deadline: Deadline) {
        let _ = (delete, deadline);
        unimplemented!()
    }
}

/// The durable LSN of the partition's last checkpoint, for `release_before`.
pub type CheckpointedUpTo = Lsn;
