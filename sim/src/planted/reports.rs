//! Followers that report what is not on their disks: the most that ever was, also where a log was cut since; or that all is
//! deleted that may ever be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use broker::ids::{BrokerId, Offset, PartitionId};
use broker::parts::Parts;
use broker::parts::replication::{Durable, Message};
use broker::peers::{MessageKind, PeerSendError, Peers, PeersContext, SendToPeers};
use bytes::Bytes;

use crate::world::{SimBackend, lock};

pub(super) fn plant_the_most(parts: &mut Parts<SimBackend>) {
    parts.peers = Box::new(|context| {
        let known: Mutex<BTreeMap<PartitionId, Offset>> = Mutex::default();
        start(context, move |partition, durable| {
            let mut known = lock(&known);
            let most = known.entry(partition).or_insert(durable.synced);
            *most = (*most).max(durable.synced);
            durable.synced = *most;
        })
    });
}

pub(super) fn plant_all_deleted(parts: &mut Parts<SimBackend>) {
    parts.peers = Box::new(|context| start(context, |_, durable| durable.log_start = Offset(i64::MAX)));
}

fn start(
    context: PeersContext<SimBackend>,
    falsify: impl Fn(PartitionId, &mut Durable) + Send + Sync + 'static,
) -> Peers<SimBackend> {
    let peers = Peers::start(context);
    let sender = False { peers: peers.clone(), falsify };
    peers.sending_through(Arc::new(sender))
}

struct False<F> {
    peers: Peers<SimBackend>,
    falsify: F,
}

impl<F: Fn(PartitionId, &mut Durable) + Send + Sync + 'static> SendToPeers for False<F> {
    fn send(&self, to: BrokerId, kind: MessageKind, message: Bytes) -> Result<(), PeerSendError> {
        let mut changed = match kind {
            MessageKind::Replication => Message::decode(message.clone()).ok(),
            _ => None,
        };
        match &mut changed {
            Some(Message::Fetch(fetch)) => {
                fetch.asked.iter_mut().for_each(|(id, at)| (self.falsify)(*id, &mut at.durable));
            }
            Some(Message::Synced(synced)) => {
                synced.reports.iter_mut().for_each(|(id, _, durable)| (self.falsify)(*id, durable));
            }
            _ => return self.peers.send(to, kind, message),
        }
        self.peers.send(to, kind, changed.map_or(message, |changed| changed.encode()))
    }
}
