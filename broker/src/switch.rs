//! What other nodes send, handed to whom it is for.

use std::collections::BTreeMap;

use io_backend::{Backend, Moment, Receiver, Sender, channel};
use tracing::debug;

use crate::config::Config;
use crate::controller::ControllerPost;
use crate::ids::BrokerId;
use crate::limits;
use crate::metadata::Post;
use crate::peers::asks::{Answers, Question, Subject};
use crate::peers::{Frame, MessageKind, PeerHandler, PeerIdentity, Taken};
use crate::replication::ReplicationInbox;

/// Whom it is for; none of them waits.
pub struct Switch<B: Backend> {
    /// Whose clock says when something came.
    pub backend: B,
    /// The member of the metadata group.
    pub metadata: Post<B>,
    /// The controller.
    pub controller: ControllerPost<B>,
    /// Leaders and followers of partitions.
    pub replication: ReplicationInbox<B>,
    /// Where produces wait for their appends, by who forwards them.
    pub produces: Produces<B>,
    /// Who has asked.
    pub answers: Answers,
}

/// See [`Switch`].
pub type Produces<B> = BTreeMap<BrokerId, Sender<B, (Moment, Question)>>;

/// Where they come out, with when they came: those of one node in order.
pub type ProduceInboxes<B> = Vec<(BrokerId, Receiver<B, (Moment, Question)>)>;

/// For each of the other nodes.
pub fn produce_inboxes<B: Backend>(backend: &B, config: &Config) -> (Produces<B>, ProduceInboxes<B>) {
    let others = config.peers.others(config.node_id).map(|peer| {
        let (produces, inbox) =
            channel(backend, "forwarded produces", limits::PRODUCES_FORWARDED_WAITING_MAX);
        ((peer.id, produces), (peer.id, inbox))
    });
    others.unzip()
}

impl<B: Backend> PeerHandler for Switch<B> {
    fn received(&self, from: &PeerIdentity, frame: Frame) -> Taken {
        match frame.kind {
            MessageKind::Raft => self.metadata.raft(from, &frame.messages),
            MessageKind::Replication => self.replication.received(from, frame.messages),
            MessageKind::Ask | MessageKind::Produce => {
                let questions = frame.messages.into_iter();
                questions
                    .filter_map(|message| Question::decode(*from, message))
                    .for_each(|question| self.asked(question));
            }
            MessageKind::Answer => {
                frame.messages.into_iter().for_each(|message| self.answers.received(from.node, message));
            }
        }
        Taken::Now
    }
}

impl<B: Backend> Switch<B> {
    fn asked(&self, question: Question) {
        match question.subject {
            Subject::Heartbeat => self.controller.heartbeat(question),
            Subject::Produce => {
                let inbox = self.produces.get(&question.from.node);
                if inbox.is_none_or(|inbox| inbox.try_send((self.backend.now(), question)).is_err()) {
                    debug!("a forwarded produce finds no place");
                }
            }
            Subject::Founding
            | Subject::Membership
            | Subject::Proposal
            | Subject::Quorum
            | Subject::Image
            | Subject::Index
            | Subject::Outcome => self.metadata.question(question),
        }
    }
}
