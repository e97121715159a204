//! Opening one replica: where its directory is and what its partition is told.

use std::sync::Arc;

use io_backend::{Backend, Deadline};

use super::ReplicasContext;
use super::reconcile::Wanted;
use super::recover::RecoveredReplica;
use crate::partition::PartitionHandle;

pub(super) async fn open_replica<B: Backend>(
    context: Arc<ReplicasContext<B>>,
    wanted: Wanted,
    recovered: RecoveredReplica,
    deadline: Deadline,
) -> Result<PartitionHandle<B>, String> {
    let _ = (context, wanted, recovered, deadline);
    unimplemented!()
}
