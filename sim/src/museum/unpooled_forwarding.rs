//! A produce for a partition that another node leads went there on a connection of its own: a millisecond or two for each, and each connection
//! that was closed kept its port for a minute, until there were none.

use std::sync::Arc;
use std::time::Duration;

use broker::config::PeerAddress;
use broker::ids::BrokerId;
use broker::peers::{MessageKind, PeerSendError, Peers, PeersContext, SendToPeers};
use bytes::Bytes;
use io_backend::{Backend, Clock, Deadline, Network};

use crate::world::SimBackend;

/// TIME_WAIT: here it is the socket that stays, for ports are not counted.
const PORT_KEPT: Duration = Duration::from_secs(60);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const KAFKA_PORT: u16 = 9092;

pub(super) fn start(context: PeersContext<SimBackend>) -> Peers<SimBackend> {
    let (backend, addresses) = (context.backend.clone(), context.peers.clone());
    let peers = Peers::start(context);
    peers.clone().sending_through(Arc::new(Unpooled { backend, addresses, peers }))
}

struct Unpooled {
    backend: SimBackend,
    addresses: Vec<PeerAddress>,
    peers: Peers<SimBackend>,
}

impl SendToPeers for Unpooled {
    fn send(&self, to: BrokerId, kind: MessageKind, message: Bytes) -> Result<(), PeerSendError> {
        let address = self.addresses.iter().find(|peer| peer.id == to);
        let (MessageKind::Produce, Some(address)) = (kind, address) else {
            return self.peers.send(to, kind, message);
        };
        let (backend, peers) = (self.backend.clone(), self.peers.clone());
        let host = address.address.rsplit_once(':').map_or(&*address.address, |(host, _)| host);
        let address = format!("{host}:{KAFKA_PORT}");
        let _detached = self.backend.spawn("forwarded produce", async move {
            let deadline = Deadline::after(&backend, CONNECT_WITHIN);
            match backend.network().connect(&address, deadline).await {
                Ok(connection) => {
                    let _ = peers.send(to, kind, message);
                    backend.sleep(PORT_KEPT).await;
                    drop(connection);
                }
                Err(error) => tracing::error!(%address, %error, "a produce is not forwarded"),
            }
        });
        Ok(())
    }
}
