//! The task `resignations`: ends leaderships that others have by now, on a node that does not hear of it itself.
//!
//! Its own metadata stand still, and another node's say who leads instead, as long as they are later than its own. Whoever waits
//! there for records to be acknowledged is told at once that nobody knows, and asks the new leader.

use std::sync::Arc;

use io_backend::{Backend, Deadline};

use crate::ids::BrokerId;
use crate::limits;
use crate::metadata::{MetadataHandle, MetadataImage};
use crate::replicas::Replicas;

pub(super) async fn run<B: Backend>(metadata: MetadataHandle<B>, replicas: Replicas<B>, node: BrokerId) {
    const BORROWED: Deadline = Deadline::Unbounded("a node whose metadata are good borrows none");
    let backend = metadata.backend.clone();
    let mut seen = 0;
    loop {
        let is_later =
            move |image: &Option<Arc<MetadataImage>>| image.as_ref().is_some_and(|image| image.index > seen);
        let Ok(image) = metadata.borrowed().until(&backend, BORROWED, is_later).await else { return };
        seen = image.as_ref().as_ref().map_or(seen, |image| image.index);
        let open = replicas.open().get();
        let mut resigned = 0;
        for (id, partition) in open.iter().filter(|(_, partition)| partition.views().get().leading) {
            // Looked up for each: this node's own image may be the later one by now.
            let leader = metadata.shown().partition(*id).and_then(|known| known.leader);
            if leader == Some(node) || !partition.views().get().leading {
                continue;
            }
            let soon = Deadline::after(&backend, limits::ASK_DEADLINE);
            match partition.resign(soon).await {
                Ok(()) => {
                    resigned += 1;
                    tracing::debug!(partition = %id, "another node leads it by now");
                }
                Err(error) => tracing::warn!(partition = %id, %error, "it still believes that it leads"),
            }
        }
        if resigned > 0 {
            tracing::info!(partitions = resigned, "other nodes lead by now what this one believed to lead");
        }
    }
}
