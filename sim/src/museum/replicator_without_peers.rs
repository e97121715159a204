//! The replicator was built without the configuration of the cluster: it ran on every node, knew of no other one, and said nothing
//! to anybody. A produce with acks=all waited for followers that never came, and all of them timed out.

use std::sync::Arc;

use broker::ids::BrokerId;
use broker::peers::{MessageKind, PeerSendError, Peers, PeersContext, SendToPeers};
use bytes::Bytes;

use crate::world::SimBackend;

pub(super) fn start(context: PeersContext<SimBackend>) -> Peers<SimBackend> {
    let peers = Peers::start(context);
    peers.clone().sending_through(Arc::new(AllButReplication(peers)))
}

struct AllButReplication(Peers<SimBackend>);

impl SendToPeers for AllButReplication {
    fn send(&self, to: BrokerId, kind: MessageKind, message: Bytes) -> Result<(), PeerSendError> {
        match kind {
            MessageKind::Replication => Ok(()),
            _ => self.0.send(to, kind, message),
        }
    }
}
