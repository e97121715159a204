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

use bytes::Bytes;
use io_backend::{Backend, Receiver, Sender, TaskHandle, TaskName, channel};

use crate::ids::BrokerId;
use crate::limits;
use crate::peers::PeerIdentity;

pub(crate) mod protocol;
mod session;
mod isr;
mod unresolved;
mod progress;
mod context;
mod gathering;
mod serving;
mod followed;
mod fetcher;
mod counts;
mod membership;
#[cfg(test)]
mod tests;

pub use context::ReplicationContext;
use context::{Asked, Told};
use progress::ProgressTable;
use protocol::Message;

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
