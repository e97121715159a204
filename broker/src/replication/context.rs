//! What the tasks of replication share, and what is said to them.

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use io_backend::{Backend, Deadline, Published};

use super::protocol::{self, Answer, Message, Refused, SessionId};
use crate::ids::{BrokerEpoch, BrokerId, PartitionId};
use crate::limits;
use crate::metadata::{MetadataImage, Propose};
use crate::metrics::Metrics;
use crate::partition::{LogSignal, PartitionHandle};
use crate::peers::{PeerIdentity, Peers};
use crate::stall::capacities::Capacities;

/// The open partitions of this node.
pub type OpenPartitions<B> = Published<OrdMap<PartitionId, PartitionHandle<B>>>;

/// What replication needs of a node.
pub struct ReplicationContext<B: Backend> {
    /// The outside.
    pub backend: B,
    /// This node.
    pub node: BrokerId,
    /// Granted to this process.
    pub broker_epoch: BrokerEpoch,
    /// Where is counted what is replicated.
    pub metrics: Arc<Metrics>,
    /// Who leads what, and who is in sync.
    pub images: Published<MetadataImage>,
    /// The partitions of this node.
    pub open: OpenPartitions<B>,
    /// Where their logs stand.
    pub signal: LogSignal,
    /// The other nodes.
    pub peers: Peers<B>,
    /// Whether this node takes records, as far as its storage goes.
    pub capacities: Capacities,
    /// The controller.
    pub propose: Propose,
    /// A follower that has not caught up for so long leaves the ISR: Kafka's `replica.lag.time.max.ms`.
    pub lag_max: Duration,
}

/// What a follower says to this node, as its leader.
pub(super) enum Asked {
    Fetch(protocol::Fetch),
    Synced(protocol::SyncedUpTo),
}

/// What a leader says to this node, as its follower.
pub(super) enum Told {
    Answer(Answer),
    Refused(SessionId, Refused),
}

impl<B: Backend> ReplicationContext<B> {
    pub(super) fn send(&self, to: BrokerId, message: &Message) {
        let kind = crate::peers::MessageKind::Replication;
        if let Err(error) = self.peers.send(to, kind, message.encode()) {
            tracing::error!(peer = %to, "a message of replication is not sent: {error}");
        }
    }

    pub(super) fn soon(&self) -> Deadline {
        Deadline::after(&self.backend, limits::ASK_DEADLINE)
    }

    /// Whether a peer's process is the registered one of its node, with this epoch, as far as the image says (KIP-903).
    pub(super) fn is_registered(&self, peer: &PeerIdentity, epoch: BrokerEpoch) -> bool {
        let image = self.images.get();
        image.brokers.get(&peer.node).is_some_and(|broker| {
            let of = &broker.registration;
            broker.epoch == epoch
                && of.storage == peer.storage
                && of.incarnation == peer.incarnation
                && of.incarnation_id.is_none_or(|id| id == peer.incarnation_id)
        })
    }
}
