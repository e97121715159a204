//! The door to the metadata group.

use std::sync::Arc;

use io_backend::{Backend, Deadline, Published};

use super::{MetadataCommand, MetadataImage, Outcome, ProposeError};

/// Cloneable; reads cost a reference count, writes go through Raft.
pub struct MetadataHandle<B: Backend> {
    pub(crate) images: Published<MetadataImage>,
    pub(crate) backend: B,
}

impl<B: Backend> Clone for MetadataHandle<B> {
    fn clone(&self) -> Self {
        MetadataHandle { images: self.images.clone(), backend: self.backend.clone() }
    }
}

impl<B: Backend> MetadataHandle<B> {
    /// The latest applied image.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.images.get()
    }

    pub fn images(&self) -> &Published<MetadataImage> {
        &self.images
    }

    /// Has a command decided: `Ok` when it is committed, synced and in this node's image.
    pub async fn propose(
        &self,
        command: MetadataCommand,
        deadline: Deadline,
    ) -> Result<Outcome, ProposeError> {
        let _ = (command, deadline);
        unimplemented!()
    }
}
