//! What everything that serves a request shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use io_backend::{Backend, Published};

use crate::budget::Budget;
use crate::config::Config;
use crate::ids::{BrokerId, Incarnation};
use crate::metadata::{Changes, MetadataHandle, ProducerIds};
use crate::metrics::{Metrics, RequestMetrics};
use crate::partition::FirstRefused;
use crate::parts::Admission;
use crate::replicas::Replicas;
use crate::stall::StorageHealth;

/// One for a node, from when it can serve until it has stopped.
pub struct Context<B: Backend> {
    pub backend: B,
    pub config: Arc<Config>,
    pub metrics: Arc<Metrics>,
    /// What is counted for each API.
    pub requests: RequestMetrics,
    pub node: BrokerId,
    pub incarnation: Incarnation,
    pub metadata: MetadataHandle<B>,
    /// The way for changes of metadata that clients ask for.
    pub changes: Changes<B>,
    pub producer_ids: ProducerIds<B>,
    pub replicas: Replicas<B>,
    pub health: StorageHealth,
    /// Asked before a request that ends in the journal takes its place in line.
    pub admission: Arc<dyn Admission>,
    /// Partitions of topics that are being created.
    pub creating: Arc<AtomicUsize>,
    pub first_refused: FirstRefused,
    pub budget: Budget,
    /// Connections that were closed for what their clients did or did not do.
    pub closed: AtomicU64,
    /// True when the node stops: who waits for records is answered then.
    pub stopping: Published<bool>,
}
