//! Reads what a partition of `__consumer_offsets` has, when this node begins to lead it.

use std::time::Duration;

use bytes::Bytes;
use io_backend::{Backend, Deadline};

use super::batches;
use super::messages::Waiting;
use super::shard::Shard;
use crate::ids::{LeaderEpoch, Offset};
use crate::limits;
use crate::log::batch::{BatchHeader, Damage};
use crate::partition::replica_state::Now;
use crate::partition::{PartitionHandle, ReadError, ReadRequest};

/// What a read asks for.
const READ_BYTES: usize = 1 << 20;
/// A disk that does not answer by then is asked again, later.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// Those in sync have so long to take what the log has.
const COMMIT_DEADLINE: Duration = Duration::from_secs(30);

/// Why the groups of a partition are not known.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// This node leads no more, or in another epoch.
    #[error("the leadership is over")]
    NotLeader,
    /// Its owner does not say where the log ends.
    #[error("where the log ends is not known: {0}")]
    End(ReadError),
    /// What is there is not committed yet.
    #[error("records before offset {0} are not committed yet")]
    NotCommitted(Offset),
    /// The log cannot be read.
    #[error("offset {0} cannot be read: {1}")]
    Read(Offset, ReadError),
    /// A batch is not what a leader writes.
    #[error("the batch at offset {0} is damaged: {1}")]
    Damaged(Offset, Damage),
    /// Records are not what a coordinator writes.
    #[error("the batch at offset {0} holds what no coordinator writes: {1}")]
    Foreign(Offset, String),
}

/// All that is in the log of this node, which leads in `epoch`: what earlier leaders acknowledged, and what this one appended and has no
/// answer for.
///
/// # Errors
/// It cannot be read now.
pub(super) async fn load<B: Backend>(
    backend: B,
    partition: PartitionHandle<B>,
    epoch: LeaderEpoch,
) -> Result<Shard<Waiting>, LoadError> {
    // Of its owner: what is published is as of the last change of anything else.
    let deadline = Deadline::after(&backend, limits::ASK_DEADLINE);
    let (_, end) = partition.epoch_end(epoch, Some(epoch), deadline).await.map_err(LoadError::End)?;
    let deadline = Deadline::after(&backend, COMMIT_DEADLINE);
    let committed = partition
        .views()
        .until(&backend, deadline, |view| {
            !view.leading || view.leader_epoch != epoch || view.high_watermark >= end
        })
        .await
        .map_err(|_| LoadError::NotCommitted(end))?;
    if !committed.leading || committed.leader_epoch != epoch {
        return Err(LoadError::NotLeader);
    }
    let mut shard = Shard::default();
    let mut from = committed.log_start;
    while from < end {
        let request = ReadRequest {
            from,
            max_bytes: READ_BYTES,
            at_least_one: true,
            read_committed: false,
            current_epoch: Some(epoch),
        };
        let deadline = Deadline::after(&backend, READ_DEADLINE);
        let read = partition.read(request, deadline).await.map_err(|error| LoadError::Read(from, error))?;
        let before = from;
        for batch in read.batches {
            from = take(&mut shard, &backend, batch, from)?;
        }
        if from == before {
            return Err(LoadError::NotCommitted(end));
        }
    }
    Ok(shard)
}

/// Takes in what stands in whole batches; answers where the next one begins.
fn take<B: Backend>(
    shard: &mut Shard<Waiting>,
    backend: &B,
    bytes: Bytes,
    from: Offset,
) -> Result<Offset, LoadError> {
    let now = Now { moment: backend.now(), wall_ms: backend.wall_ms() };
    let mut rest = bytes;
    let mut next = from;
    while !rest.is_empty() {
        let header = BatchHeader::read(&rest).map_err(|damage| LoadError::Damaged(next, damage))?;
        let batch = rest.split_to(header.bytes.min(rest.len()));
        for record in batches::decode(batch).map_err(|why| LoadError::Foreign(next, why))? {
            shard.load(record, now);
        }
        next = header.end();
    }
    Ok(next)
}
