//! What the tasks of all connections share, in short sections: who is known, what waits to be sent, what is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use io_backend::{Backend, Deadline, Network, Published, WaitKind, stream, within};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::io::AsyncWrite;

use super::entrance::{Strangers, Told};
use super::frame::{FrameError, FrameKind, MessageKind};
use super::hello::{Hello, NONCE_BYTES, PeerIdentity, Refusal};
use super::outbox::Outbox;
use super::roster::{ConnectionNumber, Nudge, Reachable, Roster};
use crate::budget::Account;
use crate::config::Secret;
use crate::ids::BrokerId;
use crate::limits::{PEER_SILENT_DEADLINE, PEER_TAKEN_DEADLINE};
use crate::lines::Lines;
use crate::metrics::{FrameLabel, Metrics, ReasonLabel};

/// The listener of a backend.
pub type ListenerOf<B> = <<B as Backend>::Network as Network>::Listener;

/// What a peer sent at once.
#[derive(Debug)]
pub struct Frame {
    /// Whose messages these are.
    pub kind: MessageKind,
    /// In the order in which they were sent; at least one. Their memory is charged until the last of them is dropped.
    pub messages: Vec<Bytes>,
}

/// Whether a frame was taken.
pub enum Taken {
    /// It was, and the next may come.
    Now,
    /// It is when this is done; until then nothing more is read of that connection. A sender that has more gives its link up
    /// after 2 s of that, and this node the connection after 30 s: then it is dropped, and what it holds is lost.
    Later(BoxFuture<'static, ()>),
}

/// Who is given what peers send.
pub trait PeerHandler: Send + Sync + 'static {
    /// Takes a frame; those of one connection come in the order in which they were sent, each once. It is called on the
    /// connection's task and must not block: who has no room now says [`Taken::Later`].
    fn received(&self, from: &PeerIdentity, frame: Frame) -> Taken;
}

/// Why a connection between two nodes is over, or did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("it cannot be connected to: {0}")]
    Connect(io::Error),
    #[error("the network: {0}")]
    Network(#[from] io::Error),
    #[error("the other side closed it")]
    Closed,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("this node refuses it: {0}")]
    Refused(Refusal),
    #[error("the other refuses this node: {0}")]
    RefusedByPeer(Refusal),
    #[error("nothing of what is on its way to it was received for {PEER_SILENT_DEADLINE:?}")]
    Silent,
    #[error("what it sent was not taken, or found no room, within {PEER_TAKEN_DEADLINE:?}")]
    NotTaken,
    #[error("another connection, or another start, of the same node took its place")]
    Replaced,
}

impl Ended {
    /// The machine at the other end answers, and nobody listens there. A connection that is reset says less: what stands between may
    /// do that. A firewall that refuses in the other's name looks like this as well.
    fn is_refusal(&self) -> bool {
        matches!(self, Ended::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

pub struct Shared<B: Backend> {
    pub backend: B,
    pub metrics: Arc<Metrics>,
    pub own: PeerIdentity,
    pub cluster_id: Published<String>,
    pub secret: Option<Secret>,
    pub handler: Arc<dyn PeerHandler>,
    pub outboxes: BTreeMap<BrokerId, Arc<Outbox>>,
    pub reachable: Published<Reachable>,
    pub gone: Published<BTreeSet<BrokerId>>,
    /// What came of each peer and is not worked off.
    pub received_bytes: BTreeMap<BrokerId, Arc<Account>>,
    pub numbers: AtomicU64,
    pub roster: Mutex<Roster>,
    pub told: Mutex<Told>,
    pub strangers: Mutex<Strangers>,
    /// What strangers did wrong.
    pub strange: Lines,
    /// Connections that peers have made: who publishes true ends one.
    pub closings: Mutex<Closings>,
}

#[derive(Default)]
pub struct Closings {
    pub of: BTreeMap<ConnectionNumber, Published<bool>>,
    /// The node stops: what is accepted by then ends at once.
    pub stopped: bool,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B: Backend> Shared<B> {
    /// What this node says of itself on a new connection. The nonce is no secret, it must only never come twice.
    pub fn hello(&self, expects: BrokerId) -> Hello {
        let mut nonce = [0; NONCE_BYTES];
        for part in nonce.chunks_exact_mut(8) {
            part.copy_from_slice(&self.backend.random_u64().to_be_bytes());
        }
        Hello { identity: self.own, expects, cluster: String::clone(&self.cluster_id.get()), nonce }
    }

    /// A connection that somebody has made, and what tells it to end: at once where the node has stopped.
    pub fn begin_connection(&self) -> (ConnectionNumber, Published<bool>) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut closings = lock(&self.closings);
        let closing = Published::new("end of a peer's connection", closings.stopped);
        closings.of.insert(number, closing.clone());
        (number, closing)
    }

    /// Takes in a connection that a peer has made and ends the one that it replaces.
    pub fn admit(&self, number: ConnectionNumber, identity: PeerIdentity) -> Result<(), Refusal> {
        let admitted = {
            let mut roster = lock(&self.roster);
            let admitted = roster.admit(self.backend.now(), number, identity);
            self.publish_gone(&roster);
            admitted
        };
        let admitted = admitted.inspect_err(|why| self.doubt(*why))?;
        if let Some(replaced) = admitted.replaced {
            self.close(replaced);
        }
        if let (Some(nudge), Some(outbox)) = (admitted.nudge, self.outboxes.get(&identity.node)) {
            outbox.nudge(nudge);
        }
        Ok(())
    }

    /// This node's own connection to a peer is made.
    pub fn link(&self, identity: PeerIdentity) -> Result<(), Refusal> {
        let outlived = {
            let mut roster = lock(&self.roster);
            let outlived = roster.link(self.backend.now(), identity)?;
            self.publish(&roster);
            outlived
        };
        if let Some(outlived) = outlived {
            self.close(outlived);
        }
        Ok(())
    }

    pub fn unlink(&self, node: BrokerId) {
        let mut roster = lock(&self.roster);
        roster.unlink(node);
        self.publish(&roster);
    }

    /// Its attempt at a connection is over.
    pub fn ended(&self, node: BrokerId, ended: &Ended) {
        let mut roster = lock(&self.roster);
        roster.ended(node, ended.is_refusal());
        self.publish_gone(&roster);
    }

    /// A connection that a peer has made is over.
    pub fn left(&self, node: BrokerId, number: ConnectionNumber) {
        let mut roster = lock(&self.roster);
        roster.left(node, number);
        self.publish_gone(&roster);
    }

    fn publish(&self, roster: &Roster) {
        let reachable = roster.reachable();
        self.metrics.peers_connected.set(reachable.len() as i64);
        self.reachable.publish(reachable);
        self.publish_gone(roster);
    }

    fn publish_gone(&self, roster: &Roster) {
        let gone = roster.gone();
        if *self.gone.get() != gone {
            self.gone.publish(gone);
        }
    }

    /// Two processes say that they are one node: whether the one that is known is still there is looked at.
    fn doubt(&self, why: Refusal) {
        if let Refusal::Duplicate(node) = why
            && let Some(outbox) = self.outboxes.get(&node)
        {
            outbox.nudge(Nudge::Probe);
        }
    }

    fn close(&self, number: ConnectionNumber) {
        let closing = lock(&self.closings).of.get(&number).cloned();
        if let Some(closing) = closing {
            closing.publish(true);
        }
    }

    pub fn count_in(&self, kind: FrameKind, bytes: usize) {
        count(&self.metrics.peer_frames_in, &self.metrics.peer_bytes_in, kind, bytes);
    }

    pub fn count_out(&self, kind: FrameKind, bytes: usize) {
        count(&self.metrics.peer_frames_out, &self.metrics.peer_bytes_out, kind, bytes);
    }

    pub fn count_refused(&self, why: Refusal) {
        self.metrics.peer_handshakes_refused.get_or_create(&ReasonLabel { reason: why.reason() }).inc();
    }

    /// Whether what became of somebody is to be logged: it was not the last time.
    pub fn is_news(&self, of: &str, ended: &Ended) -> bool {
        lock(&self.told).is_new(of, &ended.to_string())
    }

    /// Waits no longer than somebody of this node may hold up a peer.
    pub async fn bounded<T>(
        &self,
        kind: WaitKind,
        what: &'static str,
        future: impl Future<Output = T>,
    ) -> Result<T, Ended> {
        let backend = &self.backend;
        let deadline = Deadline::after(backend, PEER_TAKEN_DEADLINE);
        let wait = backend.registry().waiting(backend, kind, what, Location::caller());
        let waiting = wait.bounded_by(deadline).during(future);
        within(backend, deadline, waiting).await.map_err(|_| Ended::NotTaken)
    }

    /// Sends a whole frame.
    pub async fn send<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        kind: FrameKind,
        frame: &[u8],
        deadline: Deadline,
    ) -> Result<(), Ended> {
        stream::write_all(&self.backend, stream, frame, "a frame to a peer", deadline).await?;
        self.count_out(kind, frame.len());
        Ok(())
    }
}

fn count(
    frames: &Family<FrameLabel, Counter>,
    all: &Family<FrameLabel, Counter>,
    kind: FrameKind,
    bytes: usize,
) {
    let label = FrameLabel { kind: kind.name() };
    frames.get_or_create(&label).inc();
    all.get_or_create(&label).inc_by(bytes as u64);
}
