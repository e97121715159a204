//! The other nodes of the cluster: who they are, that they are who they say, and the connections between them.
//!
//! Each node makes one connection to each of the others, a *link*, and sends on it; what the others send comes on the
//! connections that they make. Both ends of each prove that they know the cluster's secret. Messages may be lost, with the connection that
//! they were on or because too many wait, and are never doubled or reordered on one connection: who needs more says it
//! again, as Raft does. Sending never waits.
//!
//! In layers: a [`frame`] is what goes over a connection, a [`hello`] what two nodes say first, the [`handshake`] how they come to believe it. The
//! `roster` says which process of a peer counts, `patience` for how long one is waited for, an `outbox` what waits to be sent, the `entrance` who may
//! try. Beneath those, which are pure, `shared` is what all connections have in common, the `greeting` carries out a handshake, a `link` sends, and what comes is `incoming`. Over them, `asks` are questions that are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use io_backend::{Backend, Published, TaskHandle, TaskName};

pub(crate) mod frame;
pub(crate) mod hello;
mod handshake;
mod roster;
mod patience;
mod outbox;
mod entrance;
mod shared;
mod greeting;
mod link;
mod incoming;
pub(crate) mod secret;
pub(crate) mod asks;

pub use frame::MessageKind;
pub use hello::PeerIdentity;
pub use roster::Reachable;
pub use secret::SecretError;
pub use shared::{Frame, ListenerOf, PeerHandler, Taken};

use entrance::{Strangers, Told};
use outbox::Outbox;
use roster::Roster;
use shared::{Shared, lock};

use crate::budget::Account;
use crate::config::{PeerAddress, Secret};
use crate::ids::BrokerId;
use crate::limits::{PEER_MESSAGE_BYTES_MAX, PEER_QUEUE_BYTES, PEER_QUEUE_MESSAGES};
use crate::lines::Lines;
use crate::metrics::{FrameLabel, Metrics};

/// What the connections to other nodes are made of.
pub struct PeersContext<B: Backend> {
    /// The outside.
    pub backend: B,
    /// Where is counted what comes and goes.
    pub metrics: Arc<Metrics>,
    /// Who this process is.
    pub own: PeerIdentity,
    /// The cluster that this node is of; empty while it does not know of one. Each new connection says what it is then.
    pub cluster_id: Published<String>,
    /// All nodes of the cluster; this one may be among them.
    pub peers: Vec<PeerAddress>,
    /// What they share; `None` where only this machine can connect.
    pub secret: Option<Secret>,
    /// Bound of the memory for what others send and for what waits to be sent, half for each, in bytes; shared evenly by
    /// the peers. One frame of a peer, and one message to it, may be larger than its share.
    pub bytes: usize,
    /// Where the others connect to.
    pub listener: ListenerOf<B>,
    /// Who is given what they send.
    pub handler: Arc<dyn PeerHandler>,
}

/// Makes the connections to other nodes. [`Peers::start`] is what ships.
pub type StartPeers<B> = Box<dyn FnOnce(PeersContext<B>) -> Peers<B> + Send>;

/// Who takes what is to go to other nodes.
pub trait SendToPeers: Send + Sync + 'static {
    /// See [`Peers::send`].
    ///
    /// # Errors
    ///
    /// Nobody could take it, ever; nothing was queued.
    fn send(&self, to: BrokerId, kind: MessageKind, message: Bytes) -> Result<(), PeerSendError>;
}

/// The handle of all of it. Clones are handles of the same.
pub struct Peers<B: Backend> {
    shared: Arc<Shared<B>>,
    sender: Arc<dyn SendToPeers>,
    tasks: Arc<Mutex<Vec<TaskHandle>>>,
}

impl<B: Backend> Clone for Peers<B> {
    fn clone(&self) -> Self {
        Peers { shared: self.shared.clone(), sender: self.sender.clone(), tasks: self.tasks.clone() }
    }
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerSendError {
    /// It is for a node that is not among the peers.
    #[error("node {0} is not among the peers (cluster.peers)")]
    UnknownPeer(BrokerId),
    /// No frame takes it.
    #[error("a message of {0} bytes is larger than what goes between nodes, {PEER_MESSAGE_BYTES_MAX}")]
    TooLarge(usize),
}

impl<B: Backend> Peers<B> {
    /// Listens, and begins to connect.
    pub fn start(context: PeersContext<B>) -> Peers<B> {
        let PeersContext { backend, metrics, own, cluster_id, peers, secret, bytes, listener, handler } =
            context;
        let others: Vec<PeerAddress> = peers.into_iter().filter(|peer| peer.id != own.node).collect();
        let bytes_of_each = bytes / 2 / others.len().max(1);
        let queue_bytes = bytes_of_each.min(PEER_QUEUE_BYTES);
        let account = || Account::new(bytes_of_each, metrics.peer_bytes.clone());
        let outboxes: BTreeMap<BrokerId, Arc<Outbox>> = others
            .iter()
            .map(|peer| (peer.id, Arc::new(Outbox::new(PEER_QUEUE_MESSAGES, queue_bytes))))
            .collect();
        let shared = Arc::new(Shared {
            roster: Mutex::new(Roster::new(own, others.iter().map(|peer| peer.id))),
            received_bytes: others.iter().map(|peer| (peer.id, account())).collect(),
            reachable: Published::new("reachable peers", Reachable::new()),
            gone: Published::new("peers that have ended", BTreeSet::new()),
            told: Mutex::new(Told::default()),
            strangers: Mutex::new(Strangers::default()),
            strange: Lines::default(),
            closings: Mutex::default(),
            numbers: AtomicU64::new(0),
            backend,
            metrics,
            own,
            cluster_id,
            secret,
            handler,
            outboxes,
        });
        let backend = &shared.backend;
        let mut tasks = vec![backend.spawn("cluster listener", incoming::accept(shared.clone(), listener))];
        for peer in others {
            let Some(outbox) = shared.outboxes.get(&peer.id).cloned() else { continue };
            let name = TaskName::of("peer link", peer.id.to_string());
            tasks.push(backend.spawn(name, link::run(shared.clone(), peer, outbox)));
        }
        Peers { sender: shared.clone(), shared, tasks: Arc::new(Mutex::new(tasks)) }
    }

    /// Queues a message for a peer, reachable or not, and returns at once. Where the queue is full its oldest messages make
    /// way. What is queued may be lost all the same, with the connection that it is written to.
    ///
    /// # Errors
    ///
    /// Nobody could take it, ever; nothing was queued.
    pub fn send(&self, to: BrokerId, kind: MessageKind, message: Bytes) -> Result<(), PeerSendError> {
        self.sender.send(to, kind, message)
    }

    /// The same connections, with another in front of them who takes what is to be sent.
    pub fn sending_through(self, sender: Arc<dyn SendToPeers>) -> Peers<B> {
        Peers { sender, ..self }
    }

    /// The other nodes, by their numbers.
    pub fn all(&self) -> impl Iterator<Item = BrokerId> {
        self.shared.outboxes.keys().copied()
    }

    /// Which peers this node is linked to, and to which process of each. Whoever waits for changes learns of each link that
    /// is made or lost, of several at once where they come quickly.
    pub fn reachable(&self) -> &Published<Reachable> {
        &self.shared.reachable
    }

    /// Which peers' processes have ended, as their machines say by refusing connections, and a way to wait for changes.
    pub fn gone(&self) -> &Published<BTreeSet<BrokerId>> {
        &self.shared.gone
    }

    /// Messages and bytes that wait to be sent to a peer; nothing where there is no such peer.
    pub fn queued(&self, to: BrokerId) -> (usize, usize) {
        self.shared.outboxes.get(&to).map_or((0, 0), |outbox| outbox.len())
    }

    /// Ends all connections, links and the listening. What is queued is lost.
    pub fn stop(&self) {
        for task in std::mem::take(&mut *lock(&self.tasks)) {
            task.abort();
        }
        let closings: Vec<Published<bool>> = {
            let mut closings = lock(&self.shared.closings);
            closings.stopped = true;
            closings.of.values().cloned().collect()
        };
        for closing in closings {
            closing.publish(true);
        }
    }
}

impl<B: Backend> SendToPeers for Shared<B> {
    fn send(&self, to: BrokerId, kind: MessageKind, message: Bytes) -> Result<(), PeerSendError> {
        if message.len() > PEER_MESSAGE_BYTES_MAX {
            return Err(PeerSendError::TooLarge(message.len()));
        }
        let outbox = self.outboxes.get(&to).ok_or(PeerSendError::UnknownPeer(to))?;
        for (kind, _) in outbox.push(kind, message) {
            self.metrics.peer_messages_dropped.get_or_create(&FrameLabel { kind: kind.name() }).inc();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
