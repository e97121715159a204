//! A node: what its parts share, and how it starts and stops.

use std::sync::Arc;

use io_backend::{Backend, Deadline, ExitStatus};

use crate::admin::metrics::Metrics;
use crate::config::Config;
use crate::ids::{BrokerId, Incarnation};
use crate::metadata::MetadataHandle;
use crate::parts::{Admission, Parts};
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

/// A running node.
pub struct Node<B: Backend> {
    context: Arc<Context<B>>,
    kafka_address: String,
    admin_address: String,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "cannot listen on {address} for {purpose}: {why}. Choose another address with {flag}, or stop who uses it"
    )]
    Listen { address: String, purpose: &'static str, flag: &'static str, why: std::io::Error },
    #[error("{0}")]
    Journal(#[from] crate::journal::JournalOpenError),
}

impl StartError {
    pub fn exit_status(&self) -> ExitStatus {
        match self {
            StartError::Listen { .. } => ExitStatus::Network,
            StartError::Journal(_) => ExitStatus::DataDirectory,
        }
    }
}

impl<B: Backend> Node<B> {
    /// Opens the data directory, recovers, and serves. Returns once clients can connect.
    pub async fn start(backend: B, parts: Parts<B>, config: Config) -> Result<Node<B>, StartError> {
        let _ = (backend, parts, config);
        unimplemented!()
    }

    pub fn context(&self) -> &Arc<Context<B>> {
        &self.context
    }

    /// Where the Kafka protocol is really served, `HOST:PORT`.
    pub fn kafka_address(&self) -> &str {
        &self.kafka_address
    }

    pub fn admin_address(&self) -> &str {
        &self.admin_address
    }

    /// Stops accepting, finishes or fails what is in flight, checkpoints.
    pub async fn stop(self, deadline: Deadline) {
        let _ = deadline;
        unimplemented!()
    }
}
