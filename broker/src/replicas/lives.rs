//! The beginnings and ends of replicas, as entries of the journal. Nobody waits until they are durable: what follows of a new
//! replica stands behind its beginning, and an end is in the image.

use std::sync::Arc;

use io_backend::progress::Progress;
use io_backend::{Backend, Deadline};

use super::ReplicasContext;
use super::reconcile::ReplicaId;
use super::recover::life_entry;
use crate::ids::PartitionId;
use crate::journal::{EntryKind, SubmitError};
use crate::limits;

/// Queues the ends of these, in parts that the queue takes.
///
/// # Errors
///
/// The journal did not take all of them.
pub(super) fn end<B: Backend>(context: &ReplicasContext<B>, ids: &[ReplicaId]) -> Result<(), SubmitError> {
    let at_once = context.config.journal_settings().queue_entries.div_ceil(4).max(1);
    for ids in ids.chunks(at_once) {
        submit(context, EntryKind::ReplicaDelete, ids)?;
    }
    Ok(())
}

/// Queues the beginnings of these, each when there is room for it, for there may be more of them than the queue takes. What has
/// no room in time is left for the next try, for roles wait meanwhile.
///
/// # Errors
///
/// The journal took none from that one on, whose place is told.
pub(super) async fn begin<B: Backend>(
    context: &ReplicasContext<B>,
    ids: &[ReplicaId],
) -> Result<(), (usize, SubmitError)> {
    let deadline = Deadline::after(&context.backend, limits::BEGIN_DEADLINE);
    for (place, id) in ids.iter().enumerate() {
        while let Err(error) = submit(context, EntryKind::ReplicaCreate, &[*id]) {
            // Room as for what belongs to the node: a beginning is taken where records have to wait.
            let room = context.journal.wait_for_capacity(PartitionId::NODE, 0, deadline);
            if error != SubmitError::Full || room.await.is_err() {
                return Err((place, error));
            }
        }
    }
    Ok(())
}

fn submit<B: Backend>(
    context: &ReplicasContext<B>,
    kind: EntryKind,
    ids: &[ReplicaId],
) -> Result<(), SubmitError> {
    let entries = ids.iter().map(|id| life_entry(kind, *id)).collect();
    context.journal.submit(entries, &Arc::new(Progress::default())).map(|_| ())
}
