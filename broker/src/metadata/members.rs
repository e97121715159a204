//! The members of the metadata group: as one of them sees it, and in more detail as its leader does.

use std::sync::Arc;

use io_backend::Published;
use serde::{Deserialize, Serialize};

use crate::ids::BrokerId;
use crate::raft::GroupView;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Who leads, as far as this node knows.
    pub leader: Option<BrokerId>,
    /// Raft's term.
    pub term: u64,
    /// This node leads, and its image has all that was decided before its term: it may act as the controller.
    pub acts: bool,
    /// Who votes.
    pub voters: Vec<BrokerId>,
    /// Who is given the log and does not vote.
    pub learners: Vec<BrokerId>,
}

/// The group, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// Who says so.
    pub leader: BrokerId,
    /// Raft's term.
    pub term: u64,
    /// The index after the last committed entry.
    pub high_watermark: u64,
    /// All members, in order of their numbers.
    pub members: Vec<QuorumMember>,
}

/// A member of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumMember {
    /// Which node.
    pub node: BrokerId,
    /// Kafka's voter; else an observer.
    pub votes: bool,
    /// The index after the last entry that it is known to have; 0 where nothing is known of its log.
    pub end: u64,
    /// How many milliseconds ago it answered its leader; `None`: not since that leads.
    pub heard_ms: Option<u64>,
}

/// Raft's ids begin at one, Kafka's broker ids at zero.
pub(super) fn raft_id(broker: BrokerId) -> u64 {
    u64::from(broker.0.unsigned_abs()) + 1
}

pub(super) fn broker_id(raft_id: u64) -> Option<BrokerId> {
    Some(BrokerId(i32::try_from(raft_id.checked_sub(1)?).ok()?))
}

/// Says what has changed of them.
pub(super) fn publish(members: &Published<Members>, group: &GroupView<'_>) {
    let brokers = |ids: &[u64]| ids.iter().filter_map(|id| broker_id(*id)).collect::<Vec<_>>();
    let before: Arc<Members> = members.get();
    let leader = group.leader.and_then(broker_id);
    let is_same = (before.leader, before.term, before.acts) == (leader, group.term, group.is_current)
        && before.voters.iter().map(|id| raft_id(*id)).eq(group.members.voters.iter().copied())
        && before.learners.iter().map(|id| raft_id(*id)).eq(group.members.learners.iter().copied());
    if !is_same {
        let (voters, learners) = (brokers(&group.members.voters), brokers(&group.members.learners));
        members.publish(Members { leader, term: group.term, acts: group.is_current, voters, learners });
    }
}
