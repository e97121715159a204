//! The in-sync replicas of old: whoever was given a partition counted as in sync with it for good, and a leader had no way to go
//! on without one that did not answer. Replication as it ships leaves a slow one behind, and exhibits that stand still have this beside them.

use std::sync::Arc;

use broker::metadata::{AlteredPartition, MetadataCommand, MetadataImage, ProposeError};
use broker::parts::{Proposals, Propose};
use io_backend::{Clock, Deadline};

use crate::world::SimBackend;

/// A leader that asks for fewer in-sync replicas hears nothing until it has waited for long enough.
pub(super) fn proposals(production: Proposals<SimBackend>) -> Propose {
    let Proposals { backend, images, propose } = production;
    Arc::new(move |command, deadline| {
        if !shrinks(&images.get(), &command) {
            return propose(command, deadline);
        }
        let backend = backend.clone();
        Box::pin(async move {
            match deadline {
                Deadline::At(at) => backend.timer(at).await,
                Deadline::Unbounded(_) => std::future::pending().await,
            }
            Err(ProposeError::TimedOut)
        })
    })
}

fn shrinks(image: &MetadataImage, command: &MetadataCommand) -> bool {
    let MetadataCommand::AlterPartition { partitions, .. } = command else { return false };
    let fewer = |asked: &AlteredPartition| {
        image.partition(asked.partition).is_some_and(|known| asked.isr.len() < known.isr.len())
    };
    partitions.iter().any(fewer)
}
