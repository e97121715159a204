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
mod membership;
mod office;
mod heartbeat;
mod giving_way;
mod start;

use std::collections::BTreeSet;
use std::sync::Arc;

use io_backend::{Backend, Receiver, Replier, Sender, channel};

use crate::config::Config;
use crate::ids::BrokerId;
use crate::limits;
use crate::metadata::MetadataHandle;
use crate::metadata::controller::Heartbeat;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::peers::asks::{Asks, Question};
use message::HeartbeatReply;

pub use membership::Membership;
pub use start::{begin_heartbeats, start, until_given_up};

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

/// The other nodes that this one has no link to.
fn unlinked<B: Backend>(peers: &Peers<B>) -> BTreeSet<BrokerId> {
    let reachable = peers.reachable().get();
    peers.all().filter(|node| !reachable.contains_key(node)).collect()
}
