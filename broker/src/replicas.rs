//! The replicas of this node: follows the metadata image, opens, promotes and deletes partitions.

use std::sync::Arc;

use im::OrdMap;
use io_backend::{Backend, Published};

use crate::ids::PartitionId;
use crate::partition::PartitionHandle;

/// Where the partitions of a data directory stand.
pub const PARTITIONS_DIRECTORY: &str = "partitions";

/// The partitions that this node has; cloneable.
pub struct Replicas<B: Backend> {
    pub(crate) open: Published<OrdMap<PartitionId, PartitionHandle<B>>>,
}

impl<B: Backend> Clone for Replicas<B> {
    fn clone(&self) -> Self {
        Replicas { open: self.open.clone() }
    }
}

impl<B: Backend> Replicas<B> {
    pub fn get(&self, id: PartitionId) -> Option<PartitionHandle<B>> {
        self.open.get().get(&id).cloned()
    }

    /// All open partitions, and a way to wait for more.
    pub fn open(&self) -> &Published<OrdMap<PartitionId, PartitionHandle<B>>> {
        &self.open
    }
}

pub type OpenReplicas<B> = Arc<OrdMap<PartitionId, PartitionHandle<B>>>;
