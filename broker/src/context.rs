//! What everything that serves a request shares.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use io_backend::{Backend, Published};

use crate::admission::Admission;
use crate::budget::Budget;
use crate::config::Config;
use crate::coordinator::coordinators::Coordinators;
use crate::fetch_sessions::FetchSessions;
use crate::ids::{BrokerId, Incarnation};
use crate::lines::Lines;
use crate::metadata::{Changes, MetadataHandle, ProducerIds};
use crate::metrics::{Metrics, RequestMetrics};
use crate::partition::FirstRefused;
use crate::peers::asks::Asks;
use crate::replicas::Replicas;
use crate::stall::StorageHealth;

/// One for a node, from when it can serve until it has stopped.
pub struct Context<B: Backend> {
    /// What disk, network, time and tasks come from.
    pub backend: B,
    /// The configuration of the process; what is changed while it runs is in [`MetadataHandle::config`].
    pub config: Arc<Config>,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    /// What is counted for each API.
    pub requests: RequestMetrics,
    /// This node.
    pub node: BrokerId,
    /// This process start.
    pub incarnation: Incarnation,
    /// The metadata image, and the way to change it.
    pub metadata: MetadataHandle<B>,
    /// The way for changes of metadata that clients ask for.
    pub changes: Changes<B>,
    /// Ids for idempotent producers.
    pub producer_ids: ProducerIds<B>,
    /// The partitions that are open here.
    pub replicas: Replicas<B>,
    /// Who coordinates the groups that this node is to coordinate.
    pub coordinators: Coordinators<B>,
    /// Whether the storage stands still or has failed, and what keeps records from being taken.
    pub health: StorageHealth,
    /// Asked before a request that ends in the journal is queued.
    pub admission: Arc<dyn Admission>,
    /// Partitions of topics that are being created.
    pub creating: Arc<AtomicUsize>,
    /// First batches of producers that were refused before they came to their partitions.
    pub first_refused: FirstRefused,
    /// What consumers fetch again and again.
    pub fetch_sessions: FetchSessions,
    /// The way to the leaders of other partitions, where produces for them are forwarded.
    pub forward_produce: Option<Asks<B>>,
    /// Accounts of requests and bytes.
    pub budget: Budget,
    /// What clients can have logged.
    pub lines: ClientLines,
    /// True when the node stops: who waits for records is answered then.
    pub stopping: Published<bool>,
}

/// What clients can have logged.
#[derive(Default)]
pub struct ClientLines {
    /// Connections that were closed for what their clients did or did not do.
    pub closed: Lines,
    /// Topics that were mentioned and could not be created.
    pub not_created: Lines,
    /// Producers that asked for transactions.
    pub transactional: Lines,
    /// Producers that no id could be had for.
    pub without_id: Lines,
}
