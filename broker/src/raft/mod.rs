//! Raft: how the nodes agree on the order of changes to metadata.
//!
//! One group from the first day; a single node is its only voter. The `driver` owns the state machine
//! of the `raft` crate in the task `raft`; the log stands in a journal of its own, held in memory by
//! `store`. What is agreed upon is the business of a `StateMachine`, how messages travel that of a `Transport`.
//!
//! The task has two mailboxes. `RaftInput` is what can wait: while the journal takes nothing it stays where it has
//! a deadline. `GroupInput` is what peers say, and it is read whatever the journal does.
//!
//! **No ticks while a voter leads alone.** Ticks exist to send heartbeats, to notice a silent leader
//! and to step down without a quorum. A sole member has nobody to beat for, is its own quorum and campaigns
//! by itself at the start, so it waits for proposals and syncs only, and an idle node does not wake up.

use std::time::Duration;

use io_backend::{Moment, Replier};
use raft::eraftpb::{ConfState, Message};
use serde::{Deserialize, Serialize};

use crate::budget::Share;

mod logging;
mod entries;
mod pieces;
mod store;
mod capacity;
mod heard;
mod members;
mod driver;

pub(crate) use driver::{Driver, RaftContext, SubmissionMax};
pub use driver::{RaftError, RaftStartError};
pub(crate) use store::logged;

/// What committed entries are applied to.
pub(crate) trait StateMachine: Send + 'static {
    type Answer: Send + 'static;
    /// Applies the entry that stands there. Empty data is the entry with which a leader begins its term, or a change of
    /// the group's members.
    /// An error is final: the node knows less than the group and must not go on.
    fn apply(&mut self, place: Place, data: &[u8]) -> Result<Option<Self::Answer>, String>;
    /// Shows the world what has been applied, and how the group is.
    fn publish(&mut self, group: GroupView<'_>);
    /// Everything applied so far.
    fn snapshot(&self) -> Vec<u8>;
    /// Begins from a snapshot.
    fn restore(&mut self, data: &[u8]) -> Result<(), String>;
}

/// Where an entry stands in the log. A place belongs to one entry for ever: where another term is found at its index, that entry is
/// nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

/// The group as one member sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupView<'a> {
    /// Who leads, as far as it knows.
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
    /// This member leads, and has applied all that was committed before its term.
    pub(crate) is_current: bool,
    pub(crate) members: &'a ConfState,
}

/// Where messages to the other members go.
pub(crate) trait Transport: Send + 'static {
    /// Takes messages, each for the member that its `to` names, those for one member in order. It never waits: what
    /// finds no room is dropped, the oldest first, for Raft says everything again. Of a snapshot it has to be
    /// told how it went ([`GroupInput::SnapshotSent`]), dropped ones included: the member gets nothing else before.
    fn send(&self, messages: Vec<Message>);
}

/// The transport of a group with one member.
pub(crate) struct Nobody;

impl Transport for Nobody {
    fn send(&self, messages: Vec<Message>) {
        tracing::debug!(messages = messages.len(), "there is nobody to send to");
    }
}

/// How a node whose Raft journal is empty comes to its group. One whose journal is not has a group, or
/// waits for one already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// It is a group of its own.
    Alone,
    /// The group is begun by these voters, itself among them, which all say the same, once: the log of each begins
    /// with the same snapshot. A wiped node must not: it forgot its votes.
    Found { voters: Vec<u64> },
    /// It neither votes nor campaigns until a group that has it as a learner has sent it a snapshot.
    Join,
}

/// What can be asked of the owner of the group. It waits in its mailbox while the journal takes nothing.
pub(crate) enum RaftInput<A> {
    Propose(Proposal<A>),
    ChangeMembers(MembersProposal),
    /// Hands the group over to another voter, if this one leads. Answered with whom: whether it comes to that shows in who
    /// leads next.
    HandOver(Replier<Option<u64>>),
    /// How far the members are; only who leads knows.
    Describe(Replier<Result<GroupProgress, Refusal>>),
    /// Decides what is in flight, then ends. Answered when nothing more will be written.
    Close(Replier<()>),
}

/// What the owner of the group is told. It is read whatever the journal does.
pub(crate) enum GroupInput {
    /// From other members, in the order in which they came.
    Messages(Vec<Message>),
    /// What was sent to this member lately may not have come to it.
    Unreachable(u64),
    /// A snapshot has come to this member, or will not.
    SnapshotSent { peer: u64, ok: bool },
    /// Is answered once most of the voters have answered a heartbeat that was sent after this was asked, in the term of this leader;
    /// dropped where this member does not lead, or ceases to. It costs no message unless it is asked to be done at once.
    Confirm { at_once: bool, replier: Replier<()> },
    /// Whether the disk under the journal can be relied on, as far as who watches it knows. It can be
    /// until this says otherwise.
    MayVote(bool),
}

pub(crate) struct Proposal<A> {
    pub(crate) data: Vec<u8>,
    /// Nobody waits for it after that: it is not proposed then.
    pub(crate) until: Option<Moment>,
    pub(crate) proposer: Proposer<A>,
    /// Keeps its bytes counted until it is decided.
    pub(crate) share: Share,
}

/// What a proposer waits for.
pub(crate) enum Proposer<A> {
    /// What the entry came to, when it is applied here.
    ForOutcome(Replier<Result<A, Refusal>>),
    /// Where the entry stands, at once. Whether it stays there is found where it is applied, which may be elsewhere earlier.
    ForPlace(Replier<Result<Place, Refusal>>),
}

impl<A> Proposer<A> {
    fn refuse(self, why: Refusal) {
        match self {
            Proposer::ForOutcome(replier) => replier.answer(Err(why)),
            Proposer::ForPlace(replier) => replier.answer(Err(why)),
        }
    }
}

/// One change at a time is decided; it is answered when this node has applied it.
pub(crate) struct MembersProposal {
    pub(crate) change: MemberChange,
    /// Nobody waits for it after that: it is not proposed then.
    pub(crate) until: Option<Moment>,
    pub(crate) replier: Replier<Result<(), Refusal>>,
}

/// A change of who is in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberChange {
    /// It gets the log and has no vote.
    AddLearner(u64),
    /// A learner that has a snapshot becomes a voter.
    AddVoter(u64),
    /// It gets nothing more.
    Remove(u64),
}

/// How far the members of a group are, as its leader knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupProgress {
    pub(crate) term: u64,
    /// The last entry that most voters have.
    pub(crate) committed: u64,
    pub(crate) members: Vec<MemberProgress>,
}

/// How far one member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberProgress {
    pub(crate) id: u64,
    pub(crate) votes: bool,
    /// The last entry that it is known to have; 0 where nothing is known of its log.
    pub(crate) last: u64,
    /// How long ago it answered anything; `None`: nothing since this member leads.
    pub(crate) heard: Option<Duration>,
}

/// A proposal that came to nothing, for certain. One whose leader lost its office is not refused: a reply that is still owed is
/// dropped, since another leader may still commit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Only the leader proposes; this is who it is, as far as this node knows.
    NotLeader {
        leader: Option<u64>,
    },
    Closed,
    /// There is no room for it in the journal.
    DiskFull,
    Members(MembersRefusal),
}

/// Why the members stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MembersRefusal {
    /// Another change is not applied yet.
    OneAtATime,
    /// It is a voter: to have it as a learner it is removed first.
    IsVoter,
    /// Only a learner becomes a voter.
    NoLearner,
    /// It has not taken a snapshot of the group yet.
    HasNothing,
    /// A group needs a voter.
    LastVoter,
}

#[cfg(test)]
pub(crate) mod memory_journal;
