//! What a fetch is answered with: planned by the owners of the partitions, read beside them.

use futures::StreamExt;
use io_backend::{Backend, Deadline};

use super::context::ReplicationContext;
use super::protocol::{FetchError, Position};
use super::session::Asked;
use crate::ids::{BrokerId, PartitionId};
use crate::limits;
use crate::partition::{Fetched, FollowerPlan, FollowerRead, ReadError};

/// What was found for those that were asked for.
#[derive(Default)]
pub struct Gathered {
    /// Something new, and the position that it is new for.
    pub answers: Vec<(PartitionId, Position, Result<Fetched, FetchError>)>,
    /// Whose position is in the leader's log, or who has been told that it is not.
    pub compared: Vec<(PartitionId, Asked)>,
    /// There is more, and no room.
    pub left: Vec<PartitionId>,
    /// Their owners lead already, and were not among the open partitions yet.
    pub not_open: Vec<PartitionId>,
    /// Who was given records last.
    pub last: Option<PartitionId>,
}

/// Why nothing is read of a partition.
enum NotRead {
    NoRoom,
    NotOpen,
    Refused(ReadError),
}

/// Looks for something new for these, in their order, until an answer is full. The rest is only compared, so that what the follower
/// has counts.
pub async fn gather<B: Backend>(
    context: &ReplicationContext<B>,
    follower: BrokerId,
    due: Vec<(PartitionId, Asked)>,
) -> Gathered {
    let open = context.open.get();
    let mut gathered = Gathered::default();
    let mut room = limits::REPLICATION_ANSWER_BYTES;
    let mut rest = due.as_slice();
    while !rest.is_empty() {
        let (some, others) = rest.split_at(rest.len().min(limits::REPLICATION_PLANNED_AT_ONCE));
        rest = others;
        let full = room == 0 || gathered.answers.len() >= limits::REPLICATION_ANSWER_PARTITIONS;
        let planned: Vec<_> = futures::stream::iter(some.to_vec())
            .map(|(partition, asked)| {
                let handle = open.get(&partition).cloned();
                async move {
                    let Asked { position, fresh } = asked;
                    if full && !fresh {
                        return (partition, asked, Err(NotRead::NoRoom));
                    }
                    let Some(handle) = handle else { return (partition, asked, Err(NotRead::NotOpen)) };
                    let read = FollowerRead {
                        follower,
                        epoch: position.epoch,
                        last_fetched_epoch: position.last_fetched_epoch,
                        from: position.offset,
                        max_bytes: if full { 0 } else { room },
                        at_least_one: !full,
                    };
                    let soon = Deadline::after(&context.backend, limits::REPLICATION_READ_DEADLINE);
                    (partition, asked, handle.plan_for_follower(read, soon).await.map_err(NotRead::Refused))
                }
            })
            .buffered(limits::REPLICATION_PLANNED_AT_ONCE)
            .collect()
            .await;
        for (partition, asked, plan) in planned {
            let plan = match plan {
                Err(NotRead::NoRoom) => {
                    gathered.left.push(partition);
                    continue;
                }
                Err(NotRead::NotOpen) => {
                    gathered.not_open.push(partition);
                    continue;
                }
                Err(NotRead::Refused(error)) => Err(error),
                Ok(plan) => Ok(plan),
            };
            take(context, &mut gathered, &mut room, (partition, asked), plan).await;
        }
    }
    gathered
}

/// Reads what is planned for one partition, as far as there is room.
async fn take<B: Backend>(
    context: &ReplicationContext<B>,
    gathered: &mut Gathered,
    room: &mut usize,
    (partition, asked): (PartitionId, Asked),
    plan: Result<FollowerPlan<B>, ReadError>,
) {
    let position = asked.position;
    let first = *room == limits::REPLICATION_ANSWER_BYTES;
    let soon = Deadline::after(&context.backend, limits::REPLICATION_READ_DEADLINE);
    let read = match plan {
        Ok(plan) => plan.execute(*room, first, soon).await,
        Err(error) => Err(error),
    };
    let answer = match read {
        Ok(Fetched::Records { batches, marks }) => {
            gathered.compared.push((partition, asked));
            let bytes: usize = batches.iter().map(bytes::Bytes::len).sum();
            *room = room.saturating_sub(bytes);
            if bytes > 0 {
                gathered.last = Some(partition);
            }
            let has_more = |state: crate::partition::LogState| state.log_end > position.offset;
            if bytes == 0 && context.signal.state(partition).is_some_and(has_more) {
                gathered.left.push(partition);
            }
            if bytes == 0 && !marks.is_news_after(position.told) {
                return;
            }
            Ok(Fetched::Records { batches, marks })
        }
        Ok(other) => Ok(other),
        Err(ReadError::OutOfRange(_, log_start, log_end)) => {
            Err(FetchError::OutOfRange { log_start, log_end })
        }
        Err(ReadError::Storage(why) | ReadError::Corrupt(why)) => {
            tracing::debug!(%partition, why, "a follower's fetch is not answered");
            Err(FetchError::Storage)
        }
        // It waits until this node leads in that epoch.
        Err(
            ReadError::NotLeader
            | ReadError::NotYetKnown
            | ReadError::FencedEpoch
            | ReadError::UnknownEpoch
            | ReadError::Gone,
        ) => return,
    };
    gathered.answers.push((partition, position, answer));
}
