//! In-sync replication: followers fetch from leaders, over the connections between nodes.
//!
//! For each other node there are two tasks. `fetcher[N]` asks node N for the partitions that it leads and this node follows, all of
//! them in one fetch; `fetch session[N]` answers node N for those that this node leads. The task `in sync` asks the
//! controller for followers to be added to ISRs, and removed. Who leads what is read from the metadata image; a partition hears
//! it from [`crate::replicas`].
//!
//! Both disks work in parallel: a follower fetches what the leader has not synced yet, and says at once how far it has
//! synced. The high watermark counts that alone.
//!
//! The [`protocol`] is what they say, a [`session`] what was asked for, and [`isr`] decides who is in sync; these are pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use imbl::OrdMap;
use io_backend::{Backend, Deadline, Published, Receiver, Sender, TaskHandle, TaskName, channel};

use crate::ids::{BrokerEpoch, BrokerId, PartitionId};
use crate::limits;
use crate::metadata::{MetadataCommand, MetadataImage, Outcome, ProposeError};
use crate::metrics::Metrics;
use crate::partition::{LogSignal, PartitionHandle};
use crate::peers::{PeerIdentity, Peers};

mod protocol;
mod session;
mod isr;
mod progress;
mod gathering;
mod serving;
mod followed;
mod fetcher;
mod counts;
mod membership;
#[cfg(test)]
mod tests;

use progress::ProgressTable;
use protocol::{Answer, Message, Refused, SessionId};

/// How a change of metadata is had decided.
pub type Propose =
    Arc<dyn Fn(MetadataCommand, Deadline) -> BoxFuture<'static, Result<Outcome, ProposeError>> + Send + Sync>;

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
    /// The controller.
    pub propose: Propose,
    /// A follower that has not caught up for so long leaves the ISR: Kafka's `replica.lag.time.max.ms`.
    pub lag_max: Duration,
}

/// What a follower says to this node, as its leader.
enum Asked {
    Fetch(protocol::Fetch),
    Synced(protocol::SyncedUpTo),
}

/// What a leader says to this node, as its follower.
enum Told {
    Answer(Answer),
    Refused(SessionId, Refused),
}

/// Where the messages of other nodes go. Cloneable.
pub struct ReplicationInbox<B: Backend> {
    nodes: Arc<BTreeMap<BrokerId, Doors<B>>>,
}

struct Doors<B: Backend> {
    asked: Sender<B, (PeerIdentity, Asked)>,
    told: Sender<B, Told>,
}

/// The other ends of a [`ReplicationInbox`].
pub struct ReplicationMail<B: Backend> {
    nodes: BTreeMap<BrokerId, Mailboxes<B>>,
}

struct Mailboxes<B: Backend> {
    asked: Receiver<B, (PeerIdentity, Asked)>,
    told: Receiver<B, Told>,
}

impl<B: Backend> Clone for ReplicationInbox<B> {
    fn clone(&self) -> Self {
        ReplicationInbox { nodes: self.nodes.clone() }
    }
}

/// Takes messages from these nodes, to be worked off once replication has started.
pub fn inbox<B: Backend>(
    backend: &B,
    others: impl IntoIterator<Item = BrokerId>,
) -> (ReplicationInbox<B>, ReplicationMail<B>) {
    let mut doors = BTreeMap::new();
    let mut mailboxes = BTreeMap::new();
    for node in others {
        let (asked, asked_of) =
            channel(backend, format!("fetches of node {node}"), limits::REPLICATION_ASKED_MAX);
        let (told, told_of) =
            channel(backend, format!("answers of node {node}"), limits::REPLICATION_TOLD_MAX);
        doors.insert(node, Doors { asked, told });
        mailboxes.insert(node, Mailboxes { asked: asked_of, told: told_of });
    }
    (ReplicationInbox { nodes: Arc::new(doors) }, ReplicationMail { nodes: mailboxes })
}

impl<B: Backend> ReplicationInbox<B> {
    /// Takes messages of [`crate::peers::MessageKind::Replication`], and does not wait: those for which there is no room are
    /// lost, which is noticed.
    pub fn received(&self, from: &PeerIdentity, messages: Vec<Bytes>) {
        let Some(doors) = self.nodes.get(&from.node) else { return };
        for message in messages {
            let lost = match Message::decode(message) {
                Ok(Message::Fetch(fetch)) => doors.asked.try_send((*from, Asked::Fetch(fetch))).is_err(),
                Ok(Message::Synced(synced)) => doors.asked.try_send((*from, Asked::Synced(synced))).is_err(),
                Ok(Message::Answer(answer)) => doors.told.try_send(Told::Answer(answer)).is_err(),
                Ok(Message::Refused(session, why)) => {
                    doors.told.try_send(Told::Refused(session, why)).is_err()
                }
                Err(error) => {
                    tracing::warn!(peer = %from.node, "{error}");
                    continue;
                }
            };
            if lost {
                tracing::debug!(peer = %from.node, "a message of replication found no room");
            }
        }
    }
}

/// Replication at work.
pub struct Replication {
    tasks: Vec<TaskHandle>,
}

impl Replication {
    /// Begins to fetch, and to answer fetches.
    pub fn start<B: Backend>(context: ReplicationContext<B>, mail: ReplicationMail<B>) -> Replication {
        let context = Arc::new(context);
        let backend = context.backend.clone();
        let table = ProgressTable::default();
        let mut tasks = Vec::new();
        for (node, Mailboxes { asked, told }) in mail.nodes {
            let serving = serving::Serving::new(context.clone(), node, table.clone(), asked);
            tasks.push(backend.spawn(TaskName::of("fetch session", node.to_string()), serving.run()));
            let fetcher = fetcher::Fetcher::new(context.clone(), node, told);
            tasks.push(backend.spawn(TaskName::of("fetcher", node.to_string()), fetcher.run()));
        }
        tasks.push(backend.spawn("in sync", membership::Membership::new(context, table).run()));
        Replication { tasks }
    }

    /// Ends it. What was fetched and given to a partition stays.
    pub fn stop(self) {
        for task in self.tasks {
            task.abort();
        }
    }
}

impl<B: Backend> ReplicationContext<B> {
    fn send(&self, to: BrokerId, message: &Message) {
        let kind = crate::peers::MessageKind::Replication;
        if let Err(error) = self.peers.send(to, kind, message.encode()) {
            tracing::error!(peer = %to, "a message of replication is not sent: {error}");
        }
    }

    fn soon(&self) -> Deadline {
        Deadline::after(&self.backend, limits::ASK_DEADLINE)
    }

    /// Whether a peer's process is the registered one of its node, with this epoch, as far as the image says (KIP-903).
    fn is_registered(&self, peer: &PeerIdentity, epoch: BrokerEpoch) -> bool {
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
