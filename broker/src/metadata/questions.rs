//! The task `metadata questions`: answers what other nodes ask of this node's member of the group.

use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use io_backend::{Backend, Deadline, Published, Receiver};
use serde::{Deserialize, Serialize};

use super::borrowed;
use super::deciding::write_answer;
use super::founding::Standing;
use super::members::raft_id;
use super::quorum::QuorumQuestion;
use super::{MetadataHandle, ProposeError};
use crate::ids::BrokerId;
use crate::limits;
use crate::peers::asks::{Asks, Question, Subject};
use crate::raft::{MemberChange, MembersRefusal, Refusal};

/// What a node asks that is not a voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipQuestion {
    /// Its Raft journal has the group.
    pub has_group: bool,
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "membership", rename_all = "kebab-case")]
pub enum MembershipAnswer {
    /// This node does not lead; who does, as far as it knows.
    NotLeader {
        /// Who leads.
        leader: Option<BrokerId>,
    },
    /// It is given the log.
    Learner,
    /// It votes.
    Voter,
    /// Not now.
    Later,
}

pub(super) struct Questions<B: Backend> {
    pub(super) metadata: MetadataHandle<B>,
    pub(super) asks: Asks<B>,
    pub(super) standing: Published<Standing>,
    pub(super) inbox: Receiver<B, Question>,
}

impl<B: Backend> Questions<B> {
    pub(super) async fn run(mut self) {
        const INBOX: Deadline = Deadline::Unbounded("other nodes ask when they have something to ask");
        let (metadata, asks) = (self.metadata.clone(), self.asks.clone());
        let mut working: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        loop {
            if working.len() >= limits::PEER_QUESTIONS_AT_ONCE {
                working.next().await;
            }
            let question = {
                let next = pin!(self.inbox.receive(INBOX));
                match working.is_empty() {
                    true => next.await,
                    false => match select(next, working.next()).await {
                        Either::Left((question, _)) => question,
                        Either::Right(_) => continue,
                    },
                }
            };
            let Ok(question) = question else { return };
            match question.subject {
                Subject::Founding => {
                    let standing = serde_json::to_vec(&*self.standing.get());
                    asks.answer(&question, &standing.unwrap_or_default());
                }
                Subject::Image => {
                    asks.answer(&question, &borrowed::lend(&metadata.image(), &question.body));
                }
                Subject::Index => asks.answer(&question, &metadata.image().index.to_be_bytes()),
                Subject::Membership => working.push(Box::pin(admit(&metadata, &asks, question))),
                Subject::Proposal => working.push(Box::pin(place(&metadata, &asks, question))),
                Subject::Outcome => working.push(Box::pin(find(&metadata, &asks, question))),
                Subject::Quorum => working.push(Box::pin(quorum(&metadata, &asks, question))),
                // Of others, who have mailboxes of their own.
                Subject::Heartbeat | Subject::Produce => {}
            }
        }
    }
}

/// Puts what another node proposes into the log, if this one leads.
async fn place<B: Backend>(metadata: &MetadataHandle<B>, asks: &Asks<B>, question: Question) {
    let mut body: Bytes = question.body.clone();
    let result = match body.try_get_u32() {
        Ok(millis) => {
            let deadline = Deadline::after(&metadata.backend, Duration::from_millis(millis.into()));
            metadata.place_here(body.to_vec(), deadline).await
        }
        Err(_) => Err(ProposeError::TimedOut),
    };
    asks.answer(&question, &write_answer(&result));
}

/// See [`Found::Gone`](super::decided::Found::Gone).
const GONE: &[u8] = b"\"gone\"";

/// Answers what came of an entry, once it is applied here.
async fn find<B: Backend>(metadata: &MetadataHandle<B>, asks: &Asks<B>, question: Question) {
    let Ok(place) = serde_json::from_slice(&question.body) else { return };
    let found = metadata.found(place, Deadline::after(&metadata.backend, limits::CATCH_UP_DEADLINE)).await;
    let answer = serde_json::to_vec(&found.to_send()).unwrap_or_default();
    // What stands in its way for long is not told: who asks does without.
    let fits = answer.len() <= limits::OUTCOME_BYTES_MAX;
    asks.answer(&question, if fits { &answer } else { GONE });
}

/// Answers about the members of the group, if this node leads it.
async fn quorum<B: Backend>(metadata: &MetadataHandle<B>, asks: &Asks<B>, question: Question) {
    let Ok(asked) = serde_json::from_slice::<QuorumQuestion>(&question.body) else { return };
    let deadline = Deadline::after(&metadata.backend, limits::ASK_DEADLINE);
    let answer = metadata.answer_quorum(&asked, deadline).await;
    asks.answer(&question, &serde_json::to_vec(&answer).unwrap_or_default());
}

/// Whether the image knows the node that asks by the directory that it has, or not at all.
fn is_registered<B: Backend>(metadata: &MetadataHandle<B>, question: &Question) -> bool {
    let asking = &question.from;
    let registered = metadata.image().brokers.get(&asking.node).map(|known| known.registration.storage);
    registered.is_none_or(|known| known == asking.storage)
}

/// Makes another node a learner of the group, or a voter if it follows. One that was a voter, or a learner that had been given something,
/// and comes with nothing has lost its votes and its log: it is removed first, for it is spoken to as the one that it was.
async fn admit<B: Backend>(metadata: &MetadataHandle<B>, asks: &Asks<B>, question: Question) {
    let Ok(asked) = serde_json::from_slice::<MembershipQuestion>(&question.body) else { return };
    let node = question.from.node;
    let deadline = Deadline::after(&metadata.backend, limits::ASK_DEADLINE);
    let members = metadata.members.get();
    let answer = match members.leader {
        Some(leader) if leader == metadata.node => {
            let (votes, learns) = (members.voters.contains(&node), members.learners.contains(&node));
            let id = raft_id(node);
            let forgot = match asked.has_group {
                true => false,
                false => votes || learns && metadata.has_had_entries(node, deadline).await,
            };
            let changed = match (asked.has_group, votes, learns) {
                _ if forgot => match metadata.change_members(MemberChange::Remove(id), deadline).await {
                    Ok(()) => metadata
                        .change_members(MemberChange::AddLearner(id), deadline)
                        .await
                        .map(|()| MembershipAnswer::Learner),
                    Err(refused) => Err(refused),
                },
                (_, true, _) => Ok(MembershipAnswer::Voter),
                // A voter is heard as the directory that its node has registered.
                (true, false, true) if !is_registered(metadata, &question) => Ok(MembershipAnswer::Learner),
                (true, false, true) => metadata
                    .change_members(MemberChange::AddVoter(id), deadline)
                    .await
                    .map(|()| MembershipAnswer::Voter),
                (true | false, false, _) => metadata
                    .change_members(MemberChange::AddLearner(id), deadline)
                    .await
                    .map(|()| MembershipAnswer::Learner),
            };
            changed.unwrap_or_else(|refused| match refused {
                Some(Refusal::NotLeader { leader }) => {
                    MembershipAnswer::NotLeader { leader: leader.and_then(super::members::broker_id) }
                }
                Some(Refusal::Members(MembersRefusal::HasNothing)) => MembershipAnswer::Learner,
                refused => {
                    tracing::warn!(%node, ?refused, "this node cannot become a member of the metadata group now");
                    MembershipAnswer::Later
                }
            })
        }
        leader => MembershipAnswer::NotLeader { leader },
    };
    asks.answer(&question, &serde_json::to_vec(&answer).unwrap_or_default());
}
