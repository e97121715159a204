//! What was to be sent to another node was tried ten times, a tenth of a second apart. Then the sender said `FAILED to send to peer after 10
//! retries`, and sent nothing to that peer any more, also when it was back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::ids::BrokerId;
use broker::peers::{MessageKind, PeerSendError, Peers, PeersContext, SendToPeers};
use bytes::Bytes;
use io_backend::{Clock, Moment};

use crate::world::{SimBackend, lock};

/// Ten of them, each after a tenth of a second.
const RETRIES_TAKE: Duration = Duration::from_secs(1);

pub(super) fn start(context: PeersContext<SimBackend>) -> Peers<SimBackend> {
    let backend = context.backend.clone();
    let peers = Peers::start(context);
    let sender = Retries { backend, peers: peers.clone(), senders: Mutex::default() };
    peers.sending_through(Arc::new(sender))
}

struct Retries {
    backend: SimBackend,
    peers: Peers<SimBackend>,
    senders: Mutex<Senders>,
}

#[derive(Default)]
struct Senders {
    /// Peers that messages have gone to.
    met: BTreeSet<BrokerId>,
    /// Peers that messages do not go to now, since when.
    retrying: BTreeMap<BrokerId, Moment>,
    failed: BTreeSet<BrokerId>,
}

impl Retries {
    /// Whether what was to be sent has been given up.
    fn has_failed(&self, to: BrokerId) -> bool {
        let (now, reached) = (self.backend.now(), self.peers.reachable().get());
        let mut senders = lock(&self.senders);
        senders.met.extend(reached.keys());
        for peer in senders.met.clone() {
            if reached.contains_key(&peer) {
                senders.retrying.remove(&peer);
            } else if now.since(*senders.retrying.entry(peer).or_insert(now)) >= RETRIES_TAKE
                && senders.failed.insert(peer)
            {
                tracing::error!(%peer, "FAILED to send to peer after 10 retries");
            }
        }
        senders.failed.contains(&to)
    }
}

impl SendToPeers for Retries {
    fn send(&self, to: BrokerId, kind: MessageKind, message: Bytes) -> Result<(), PeerSendError> {
        // What is said to the others goes on, and tells how long this one was silent.
        if self.has_failed(to) && kind == MessageKind::Raft {
            return Ok(());
        }
        self.peers.send(to, kind, message)
    }
}
