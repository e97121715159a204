//! How the nodes of a cluster keep count of one another. A node that is alone has none of it.
//!
//! Every node says four times a second how it is (task `heartbeat`), to whoever leads the metadata. Every node could be that:
//! its task `controller` drives the decisions of [`metadata::controller`](crate::metadata::controller) for as long as it leads,
//! and does nothing otherwise. What is decided is proposed to the metadata group, so that a controller that has been
//! replaced, and does not know it, decides nothing.
//!
//! ```text
//!   heartbeat ──── Heartbeat ────► controller ── commands ──► Raft ──► image ──► replicas
//!       ▲                             │
//!       └──── fenced, may stop, ◄─────┘
//!             something was taken
//! ```
//!
//! The answers say more than the image: a node whose metadata stand still learns that way that it leads no more
//! ([`Contact`](crate::stall::contact::Contact)).

mod message;
mod session;
mod granted;
mod resigning;
mod office;
mod heartbeat;
mod giving_way;

use std::collections::BTreeSet;
use std::sync::Arc;

use io_backend::{Backend, Deadline, Published, Receiver, Replier, Sender, TaskHandle, TimedOut, channel};

use crate::config::Config;
use crate::ids::{BrokerEpoch, BrokerId};
use crate::limits;
use crate::metadata::controller::{ControllerSettings, Heartbeat};
use crate::metadata::{BrokerProcess, MetadataHandle, borrow_when_needed};
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::peers::asks::{Asks, Question};
use crate::replicas::Replicas;
use crate::stall::StorageHealth;
use message::HeartbeatReply;

/// What comes to the task `controller`.
enum ControllerInput {
    /// A heartbeat of another node.
    Asked(Question),
    /// This node's own, which needs no network.
    Own(Heartbeat, Replier<HeartbeatReply>),
}

/// Where heartbeats are handed in; it never waits.
pub struct ControllerPost<B: Backend>(Sender<B, ControllerInput>);

/// Where they come out.
pub struct ControllerInbox<B: Backend>(Receiver<B, ControllerInput>);

impl<B: Backend> Clone for ControllerPost<B> {
    fn clone(&self) -> Self {
        ControllerPost(self.0.clone())
    }
}

impl<B: Backend> ControllerPost<B> {
    /// Both ends.
    pub fn new(backend: &B) -> (ControllerPost<B>, ControllerInbox<B>) {
        let (post, inbox) = channel(backend, "heartbeats", limits::HEARTBEATS_WAITING_MAX);
        (ControllerPost(post), ControllerInbox(inbox))
    }

    /// A heartbeat of another node. What has no room is not answered, and comes again.
    pub fn heartbeat(&self, question: Question) {
        if self.0.try_send(ControllerInput::Asked(question)).is_err() {
            tracing::debug!("too many heartbeats wait");
        }
    }
}

/// What both tasks need.
pub struct ControllerContext<B: Backend> {
    /// What time and tasks come from.
    pub backend: B,
    /// The configuration of the process.
    pub config: Arc<Config>,
    /// Where is counted what is decided.
    pub metrics: Arc<Metrics>,
    /// This node.
    pub node: BrokerId,
    /// The image that is decided from, and the group that decides.
    pub metadata: MetadataHandle<B>,
    /// The other nodes.
    pub asks: Asks<B>,
}

/// Starts the task `controller`: whenever this node leads the metadata, it is the cluster's controller.
pub fn start<B: Backend>(context: ControllerContext<B>, inbox: ControllerInbox<B>) -> TaskHandle {
    let cluster = &context.config.cluster_times;
    let settings = ControllerSettings {
        session_timeout: cluster.session_timeout,
        unlinked_timeout: (2 * cluster.heartbeat_interval).min(cluster.session_timeout),
        ..ControllerSettings::default()
    };
    let backend = context.backend.clone();
    backend.spawn("controller", office::Driver::new(context, settings, inbox.0).run())
}

/// Starts the task `heartbeat`, for the process that was granted this epoch, and what looks after it while its own metadata
/// stand still.
pub fn begin_heartbeats<B: Backend>(
    context: ControllerContext<B>,
    epoch: BrokerEpoch,
    controller: ControllerPost<B>,
    replicas: Replicas<B>,
    health: StorageHealth,
) -> (Membership<B>, Vec<TaskHandle>) {
    let membership = Membership {
        backend: context.backend.clone(),
        process: BrokerProcess { broker: context.node, epoch },
        metadata: context.metadata.clone(),
        health: health.clone(),
        wants_shutdown: Published::new("whether the node wants to stop", false),
        may_stop: Published::new("whether the node may stop", false),
    };
    let (backend, metadata, node) = (context.backend.clone(), context.metadata.clone(), context.node);
    let borrowing = borrow_when_needed(metadata.clone(), context.asks.clone(), health);
    let resigning = resigning::run(metadata, replicas.clone(), node);
    let beating = heartbeat::Beating::new(context, membership.clone(), controller.0, replicas);
    let tasks = vec![
        backend.spawn("heartbeat", beating.run()),
        backend.spawn("borrowed metadata", borrowing),
        backend.spawn("resignations", resigning),
    ];
    (membership, tasks)
}

/// Waits until this process is better ended, for its disk stands still and the others do without it; says why.
pub async fn until_given_up<B: Backend>(context: ControllerContext<B>, health: StorageHealth) -> String {
    giving_way::until_given_up(&context, &health).await
}

/// This broker among the others.
pub struct Membership<B: Backend> {
    backend: B,
    process: BrokerProcess,
    metadata: MetadataHandle<B>,
    health: StorageHealth,
    wants_shutdown: Published<bool>,
    may_stop: Published<bool>,
}

impl<B: Backend> Clone for Membership<B> {
    fn clone(&self) -> Self {
        Membership {
            backend: self.backend.clone(),
            process: self.process,
            metadata: self.metadata.clone(),
            health: self.health.clone(),
            wants_shutdown: self.wants_shutdown.clone(),
            may_stop: self.may_stop.clone(),
        }
    }
}

impl<B: Backend> Membership<B> {
    /// Waits until the others count on this broker, and it knows it: before, it leads nothing, and who connects is told of
    /// a broker that is not in the cluster.
    ///
    /// # Errors
    ///
    /// Not by the deadline.
    pub async fn until_unfenced(&self, deadline: Deadline) -> Result<(), TimedOut> {
        let process = self.process;
        let counts = |image: &crate::metadata::MetadataImage| is_unfenced(image, process);
        self.metadata.images().until(&self.backend, deadline, counts).await?;
        let contact = self.health.contact.published();
        contact.until(&self.backend, deadline, Option::is_none).await?;
        Ok(())
    }

    /// Has what this broker leads led by others, as far as they can.
    ///
    /// # Errors
    ///
    /// Not by the deadline: what it leads moves when it is gone.
    pub async fn hand_over(&self, deadline: Deadline) -> Result<(), TimedOut> {
        self.wants_shutdown.publish(true);
        self.may_stop.until(&self.backend, deadline, |may| *may).await?;
        Ok(())
    }
}

/// Whether the controller counts on this process, by this image.
fn is_unfenced(image: &crate::metadata::MetadataImage, process: BrokerProcess) -> bool {
    image.brokers.get(&process.broker).is_some_and(|broker| broker.epoch == process.epoch && !broker.fenced)
}

/// The other nodes that this one has no link to.
fn unlinked<B: Backend>(peers: &Peers<B>) -> BTreeSet<BrokerId> {
    let reachable = peers.reachable().get();
    peers.all().filter(|node| !reachable.contains_key(node)).collect()
}
