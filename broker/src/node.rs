//! A node: what its parts share, and how it starts and stops.

use std::sync::Arc;

use io_backend::Backend;

use crate::admin::metrics::Metrics;
use crate::config::Config;
use crate::ids::{BrokerId, Incarnation};
use crate::metadata::MetadataHandle;
use crate::parts::Admission;
use crate::replicas::Replicas;
use crate::stall::StorageHealth;

/// What every request handler may use.
pub struct Context<B: Backend> {
    pub backend: B,
    pub config: Arc<Config>,
    pub metrics: Arc<Metrics>,
    pub node: BrokerId,
    pub incarnation: Incarnation,
    pub metadata: MetadataHandle<B>,
    pub replicas: Replicas<B>,
    pub health: StorageHealth,
    /// Asked before a request that ends in the journal takes its place in line.
    pub admission: Arc<dyn Admission>,
}
