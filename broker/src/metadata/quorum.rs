//! The members of the metadata group as its leader sees them, asked of it by whichever node wants to know; and what
//! operators have done about them.

use std::time::Duration;

use io_backend::{Backend, Deadline};
use serde::{Deserialize, Serialize};

use super::members::{Quorum, QuorumMember, broker_id, raft_id};
use super::voters::MemberStep;
use super::{MetadataHandle, ProposeError, VoterChange, VoterError};
use crate::ids::BrokerId;
use crate::peers::asks::{AskError, Subject};
use crate::raft::{MemberChange, MembersProposal, RaftInput, Refusal};

/// Before a member is asked about again that is not as far as it has to be.
const STEP_AGAIN: Duration = Duration::from_millis(100);

/// What a node asks whoever leads the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum QuorumQuestion {
    /// How far the members are.
    Describe,
    /// To change them by one.
    Change(MemberStep),
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum QuorumAnswer {
    /// By somebody who does not lead.
    NotLeader,
    /// How far they are.
    Quorum(Quorum),
    /// The members are so.
    Changed,
    /// Not now: the member lacks entries, or another change goes on.
    Later,
    /// It is not decided in time, and may be yet.
    Undecided,
}

impl<B: Backend> MetadataHandle<B> {
    /// The group as whoever leads it sees it.
    pub async fn quorum(&self, deadline: Deadline) -> Result<Quorum, ProposeError> {
        match self.ask_leader(&QuorumQuestion::Describe, deadline).await? {
            QuorumAnswer::Quorum(quorum) => Ok(quorum),
            _ => Err(ProposeError::TimedOut),
        }
    }

    /// Has a node vote, or vote no more: step by step, whoever leads meanwhile.
    pub async fn change_voters(&self, change: VoterChange, deadline: Deadline) -> Result<(), VoterError> {
        let mut begun = false;
        loop {
            let quorum = self.quorum(deadline).await?;
            let Some(step) = change.next(&quorum, &self.image(), begun)? else { return Ok(()) };
            match self.ask_leader(&QuorumQuestion::Change(step), deadline).await? {
                QuorumAnswer::Changed => begun = true,
                _ if deadline.has_passed(&self.backend) => return Err(ProposeError::TimedOut.into()),
                _ => self.backend.sleep(STEP_AGAIN).await,
            }
        }
    }

    /// Asks whoever leads, and looks for the next one as long as nobody does.
    async fn ask_leader(
        &self,
        question: &QuorumQuestion,
        deadline: Deadline,
    ) -> Result<QuorumAnswer, ProposeError> {
        let body = serde_json::to_vec(question).unwrap_or_default();
        let mut tried = None;
        loop {
            let leader = self.leader_other_than(tried, deadline).await;
            let answer = match (leader, &self.others) {
                (Some(leader), _) if leader == self.node => self.answer_quorum(question, deadline).await,
                (Some(leader), Some(others)) => {
                    match others.asks.ask(leader, Subject::Quorum, &body, deadline).await {
                        Ok(answer) => serde_json::from_slice(&answer).unwrap_or(QuorumAnswer::Undecided),
                        Err(AskError::Unreachable(_)) => QuorumAnswer::NotLeader,
                        Err(AskError::Unanswered(_)) => QuorumAnswer::Undecided,
                    }
                }
                _ => QuorumAnswer::NotLeader,
            };
            match answer {
                QuorumAnswer::NotLeader if deadline.has_passed(&self.backend) => {
                    return Err(ProposeError::NoController);
                }
                QuorumAnswer::NotLeader => tried = leader,
                QuorumAnswer::Undecided => return Err(ProposeError::TimedOut),
                answer => return Ok(answer),
            }
        }
    }

    /// Answers as this node's member of the group.
    pub(super) async fn answer_quorum(&self, question: &QuorumQuestion, deadline: Deadline) -> QuorumAnswer {
        match question {
            QuorumQuestion::Describe => self.describe_members(deadline).await,
            QuorumQuestion::Change(step) => {
                let change = match step {
                    MemberStep::AddObserver(node) => MemberChange::AddLearner(raft_id(*node)),
                    MemberStep::AddVoter(node) => MemberChange::AddVoter(raft_id(*node)),
                    MemberStep::Remove(node) => MemberChange::Remove(raft_id(*node)),
                };
                match self.change_members(change, deadline).await {
                    Ok(()) => QuorumAnswer::Changed,
                    Err(Some(Refusal::NotLeader { .. } | Refusal::Closed)) => QuorumAnswer::NotLeader,
                    // Also where somebody was faster: what there is to do is looked at again.
                    Err(Some(Refusal::Members(_) | Refusal::DiskFull)) => QuorumAnswer::Later,
                    Err(None) => QuorumAnswer::Undecided,
                }
            }
        }
    }

    /// Whether this node, which leads, knows that a member has had entries of the log.
    pub(super) async fn has_had_entries(&self, node: BrokerId, deadline: Deadline) -> bool {
        match self.describe_members(deadline).await {
            QuorumAnswer::Quorum(quorum) => {
                quorum.members.iter().any(|member| member.node == node && member.end > 0)
            }
            _ => false,
        }
    }

    async fn describe_members(&self, deadline: Deadline) -> QuorumAnswer {
        let (replier, reply) = self.mailbox.reply("progress of the metadata group");
        if self.mailbox.send(RaftInput::Describe(replier), deadline).await.is_err() {
            return QuorumAnswer::Undecided;
        }
        match reply.wait(deadline).await {
            Ok(Ok(progress)) => {
                let members = progress.members.iter().filter_map(|member| {
                    Some(QuorumMember {
                        node: broker_id(member.id)?,
                        votes: member.votes,
                        end: if member.last == 0 { 0 } else { member.last + 1 },
                        heard_ms: member.heard.and_then(|ago| u64::try_from(ago.as_millis()).ok()),
                    })
                });
                QuorumAnswer::Quorum(Quorum {
                    leader: self.node,
                    term: progress.term,
                    high_watermark: progress.committed + 1,
                    members: members.collect(),
                })
            }
            Ok(Err(_)) => QuorumAnswer::NotLeader,
            Err(_) => QuorumAnswer::Undecided,
        }
    }

    /// Has the members of the group changed by this node's member of it. `None`: not decided in time.
    pub(super) async fn change_members(
        &self,
        change: MemberChange,
        deadline: Deadline,
    ) -> Result<(), Option<Refusal>> {
        let (replier, reply) = self.mailbox.reply("change of the members of the metadata group");
        let until = match deadline {
            Deadline::At(at) => Some(at),
            Deadline::Unbounded(_) => None,
        };
        let proposal = MembersProposal { change, until, replier };
        self.mailbox.send(RaftInput::ChangeMembers(proposal), deadline).await.map_err(|_| None)?;
        match reply.wait(deadline).await {
            Ok(decided) => decided.map_err(Some),
            Err(_) => Err(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BrokerId;

    #[test]
    fn questions_and_answers_come_out_as_they_went_in() {
        let member = QuorumMember { node: BrokerId(2), votes: true, end: 8, heard_ms: Some(50) };
        let quorum = Quorum { leader: BrokerId(1), term: 3, high_watermark: 9, members: vec![member] };
        for answer in [
            QuorumAnswer::NotLeader,
            QuorumAnswer::Quorum(quorum),
            QuorumAnswer::Changed,
            QuorumAnswer::Later,
            QuorumAnswer::Undecided,
        ] {
            let bytes = serde_json::to_vec(&answer).unwrap();
            assert_eq!(serde_json::from_slice::<QuorumAnswer>(&bytes).unwrap(), answer);
        }
        let remove = QuorumQuestion::Change(MemberStep::Remove(BrokerId(3)));
        for question in [QuorumQuestion::Describe, remove] {
            let bytes = serde_json::to_vec(&question).unwrap();
            assert_eq!(serde_json::from_slice::<QuorumQuestion>(&bytes).unwrap(), question);
        }
    }
}
