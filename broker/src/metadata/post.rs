//! What goes between the members of the metadata group: Raft's messages, to the other nodes and from them, and their
//! questions.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use io_backend::{Backend, Deadline, Published, Receiver, Sender, channel};
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};

use super::image::MetadataImage;
use super::lately::Lately;
use super::members::{Members, broker_id, raft_id};
use crate::limits;
use crate::peers::asks::Question;
use crate::peers::{MessageKind, PeerIdentity, Peers};
use crate::raft::{GroupInput, Transport};
use crate::stall::capacities::Capacities;

/// Where the group could not be told something, it is tried again after this.
const TOLD_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Where what other nodes say to the metadata group is handed in; it never waits.
pub struct Post<B: Backend> {
    images: Published<MetadataImage>,
    members: Published<Members>,
    group: Sender<B, GroupInput>,
    questions: Sender<B, Question>,
}

/// Where it comes out.
pub(super) struct Inbox<B: Backend> {
    pub(super) group: Receiver<B, GroupInput>,
    pub(super) questions: Receiver<B, Question>,
}

impl<B: Backend> Clone for Post<B> {
    fn clone(&self) -> Self {
        Post {
            images: self.images.clone(),
            members: self.members.clone(),
            group: self.group.clone(),
            questions: self.questions.clone(),
        }
    }
}

impl<B: Backend> Post<B> {
    pub(super) fn new(
        backend: &B,
        images: Published<MetadataImage>,
        members: Published<Members>,
    ) -> (Post<B>, Inbox<B>) {
        let (group, group_inbox) = channel(backend, "raft messages", limits::RAFT_MESSAGES_WAITING_MAX);
        let (questions, question_inbox) =
            channel(backend, "questions of nodes", limits::PEER_QUESTIONS_WAITING_MAX);
        let inbox = Inbox { group: group_inbox, questions: question_inbox };
        (Post { images, members, group, questions }, inbox)
    }

    /// Raft's messages of a peer. What has no room is lost: Raft says again what matters.
    pub fn raft(&self, from: &PeerIdentity, messages: &[Bytes]) {
        let (image, members) = (self.images.get(), self.members.get());
        let voice = voice(&image, &members, from);
        if voice == Voice::None {
            tracing::debug!(%from, "Raft messages of a process that is not the latest are not heard");
            return;
        }
        let decoded = messages.iter().filter_map(|bytes| match Message::parse_from_bytes(bytes) {
            Ok(message) if message.from == raft_id(from.node) => {
                let is_heard = voice == Voice::Full || is_of_who_leads(message.get_msg_type());
                is_heard.then_some(message)
            }
            Ok(message) => {
                tracing::warn!(%from, says = message.from, "a Raft message in another node's name is dropped");
                None
            }
            Err(error) => {
                tracing::warn!(%from, %error, "a Raft message cannot be read and is dropped");
                None
            }
        });
        let decoded: Vec<Message> = decoded.collect();
        if self.group.try_send(GroupInput::Messages(decoded)).is_err() {
            tracing::debug!(%from, "the metadata group takes no more messages now");
        }
    }

    /// A question of a peer. What has no room is not answered.
    pub fn question(&self, question: Question) {
        if self.questions.try_send(question).is_err() {
            tracing::debug!("too many questions of other nodes wait");
        }
    }

    /// Tells the group whether this node's member may vote, for as long as the node runs.
    pub async fn tell_fitness(self, backend: B, capacities: Capacities) {
        const FITNESS: Deadline = Deadline::Unbounded("a disk may be well for ever");
        let mut told = true;
        loop {
            let before = told;
            let changed = capacities.published().until(&backend, FITNESS, |now| now.may_vote != before).await;
            let Ok(fitness) = changed else { return };
            told = fitness.may_vote;
            // What this would push out is what peers say; they say it again, and the driver sees a disk that stands still.
            if self.group.try_send(GroupInput::MayVote(told)).is_err() {
                tracing::warn!(
                    may_vote = told,
                    "the metadata group is not told now whether this node may vote"
                );
                backend.sleep(TOLD_AGAIN_AFTER).await;
                told = before;
            }
        }
    }

    pub(super) fn group(&self) -> &Sender<B, GroupInput> {
        &self.group
    }
}

/// How far a process speaks for its node in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Full,
    /// It is heard as who leads, or wants to, and what it agrees to counts for nothing. The node votes by another directory, as
    /// far as is known here: either this one is empty and has forgotten votes, and then it neither leads nor asks for
    /// votes; or the group has taken it in since, and who is behind can hear of that from nobody else while it leads.
    /// Nobody votes for a log that is shorter than his own.
    OfALeader,
    /// A later process of its directory, or another one of the same start, has registered: it is a copy that has forgotten votes.
    None,
}

fn voice(image: &MetadataImage, members: &Members, from: &PeerIdentity) -> Voice {
    let Some(known) = image.brokers.get(&from.node) else { return Voice::Full };
    let known = &known.registration;
    if known.storage != from.storage {
        let votes = members.voters.contains(&from.node);
        return if votes { Voice::OfALeader } else { Voice::Full };
    }
    let is_latest = from.incarnation > known.incarnation
        || from.incarnation == known.incarnation
            && known.incarnation_id.is_none_or(|known| known == from.incarnation_id);
    if is_latest { Voice::Full } else { Voice::None }
}

fn is_of_who_leads(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgAppend
            | MessageType::MsgHeartbeat
            | MessageType::MsgSnapshot
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestPreVote
    )
}

/// Raft's messages to the other nodes.
pub(super) struct PeerTransport<B: Backend> {
    pub(super) peers: Peers<B>,
    pub(super) group: Sender<B, GroupInput>,
}

impl<B: Backend> Transport for PeerTransport<B> {
    fn send(&self, messages: Vec<Message>) {
        let reachable = self.peers.reachable().get();
        for message in messages {
            let Some(node) = broker_id(message.to) else { continue };
            let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
            let sent = reachable.contains_key(&node) && self.queue(node, &message);
            if is_snapshot {
                // Whether it came shows in what the member answers to what follows.
                let told = GroupInput::SnapshotSent { peer: message.to, ok: sent };
                if self.group.try_send(told).is_err() {
                    tracing::debug!(%node, "what became of a snapshot is not told: it counts as lost later");
                }
            }
        }
    }
}

impl<B: Backend> PeerTransport<B> {
    fn queue(&self, node: crate::ids::BrokerId, message: &Message) -> bool {
        let kind = message.get_msg_type();
        let queued = message.write_to_bytes().map_err(|error| error.to_string()).and_then(|bytes| {
            self.peers.send(node, MessageKind::Raft, Bytes::from(bytes)).map_err(|error| error.to_string())
        });
        if let Err(why) = &queued {
            tracing::warn!(%node, ?kind, %why, "a Raft message cannot be sent");
        }
        queued.is_ok()
    }
}

/// Tells the group of links that are lost, for as long as the node runs.
pub(super) async fn watch_links<B: Backend>(
    backend: B,
    peers: Peers<B>,
    group: Sender<B, GroupInput>,
    doubts: Lately,
) {
    const LINKS: Deadline = Deadline::Unbounded("links to other nodes are lost at any time, or never");
    let mut before = Arc::default();
    loop {
        let last = before;
        let Ok(now) = peers.reachable().until(&backend, LINKS, |now| *now != *last).await else { return };
        for node in
            last.iter().filter(|(node, process)| now.get(node) != Some(process)).map(|(node, _)| *node)
        {
            if group.try_send(GroupInput::Unreachable(raft_id(node))).is_err() {
                tracing::debug!(%node, "the metadata group is not told of a lost link now");
            }
            doubts.set(node, Some(backend.now()));
        }
        now.keys().for_each(|node| doubts.set(*node, None));
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::{BrokerId, Incarnation, IncarnationId, StorageId};
    use crate::metadata::testing::cluster_with;

    #[test]
    fn copies_and_replaced_directories_have_no_voice() {
        let image = cluster_with(3, &[]);
        let known = image.brokers[&BrokerId(2)].registration.clone();
        let process = |storage: StorageId, incarnation: u64, id: Option<IncarnationId>| PeerIdentity {
            node: BrokerId(2),
            storage,
            incarnation: Incarnation(incarnation),
            incarnation_id: id.unwrap_or(IncarnationId(Uuid::from_u128(99))),
        };
        let other = StorageId(Uuid::from_u128(77));
        let (now, id) = (known.incarnation.0, known.incarnation_id);
        let voters = Members { voters: vec![BrokerId(2)], ..Members::default() };
        let learner = Members { learners: vec![BrokerId(2)], ..Members::default() };
        let table = [
            (process(known.storage, now, id), &voters, Voice::Full),
            (process(known.storage, now + 1, None), &voters, Voice::Full),
            (
                process(known.storage, now, None),
                &voters,
                if id.is_none() { Voice::Full } else { Voice::None },
            ),
            (process(known.storage, now - 1, None), &voters, Voice::None),
            (process(other, 1, None), &voters, Voice::OfALeader),
            (process(other, 1, None), &learner, Voice::Full),
            (PeerIdentity { node: BrokerId(9), ..process(other, 1, None) }, &voters, Voice::Full),
        ];
        for (index, (from, members, heard)) in table.into_iter().enumerate() {
            assert_eq!(voice(&image, members, &from), heard, "{index}");
        }
    }

    #[test]
    fn what_a_directory_agrees_to_that_does_not_vote_counts_for_nothing() {
        use MessageType::*;
        for answer in
            [MsgAppendResponse, MsgRequestVoteResponse, MsgRequestPreVoteResponse, MsgHeartbeatResponse]
        {
            assert!(!is_of_who_leads(answer), "{answer:?}");
        }
    }
}
