//! A follower that reports the most that its disk ever had: also where its log was cut since.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use broker::ids::{BrokerId, Offset, PartitionId};
use broker::parts::Parts;
use broker::parts::replication::Message;
use broker::peers::{MessageKind, PeerSendError, Peers, PeersContext, SendToPeers};
use bytes::Bytes;

use crate::world::{SimBackend, lock};

pub(super) fn plant(parts: &mut Parts<SimBackend>) {
    parts.peers = Box::new(start);
}

fn start(context: PeersContext<SimBackend>) -> Peers<SimBackend> {
    let peers = Peers::start(context);
    let sender = Maximum { peers: peers.clone(), most: Mutex::default() };
    peers.sending_through(Arc::new(sender))
}

struct Maximum {
    peers: Peers<SimBackend>,
    most: Mutex<BTreeMap<PartitionId, Offset>>,
}

impl Maximum {
    fn keep(&self, partition: PartitionId, synced: &mut Offset) {
        let mut known = lock(&self.most);
        let most = known.entry(partition).or_insert(*synced);
        *most = (*most).max(*synced);
        *synced = *most;
    }
}

impl SendToPeers for Maximum {
    fn send(&self, to: BrokerId, kind: MessageKind, message: Bytes) -> Result<(), PeerSendError> {
        let mut changed = match kind {
            MessageKind::Replication => Message::decode(message.clone()).ok(),
            _ => None,
        };
        match &mut changed {
            Some(Message::Fetch(fetch)) => {
                fetch.asked.iter_mut().for_each(|(id, at)| self.keep(*id, &mut at.synced));
            }
            Some(Message::Synced(synced)) => {
                synced.reports.iter_mut().for_each(|(id, _, to)| self.keep(*id, to));
            }
            _ => return self.peers.send(to, kind, message),
        }
        self.peers.send(to, kind, changed.map_or(message, |changed| changed.encode()))
    }
}
