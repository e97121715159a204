//! What an assignor is given, and what it gives.

use std::collections::{BTreeMap, BTreeSet};

use super::super::ids::{InstanceId, MemberId};
use crate::ids::TopicId;

/// Partitions by topic. A topic without partitions is not in it.
pub type Assignment = BTreeMap<TopicId, BTreeSet<i32>>;

/// A member, as far as an assignor looks at it.
#[derive(Clone, Debug, Default)]
pub struct MemberSpec {
    /// What it is called by its operator, of a static member.
    pub instance: Option<InstanceId>,
    /// The topics that it reads.
    pub subscribed: BTreeSet<TopicId>,
    /// What it was to have so far.
    pub assigned: Assignment,
}

/// What is to be assigned, and to whom.
#[derive(Clone, Debug, Default)]
pub struct GroupSpec {
    /// The members.
    pub members: BTreeMap<MemberId, MemberSpec>,
    /// How many partitions the topics have. Those that are not in it do not exist.
    pub topics: BTreeMap<TopicId, i32>,
}

impl GroupSpec {
    /// Who reads a topic.
    pub fn subscribers(&self, topic: TopicId) -> impl Iterator<Item = (&MemberId, &MemberSpec)> {
        self.members.iter().filter(move |(_, member)| member.subscribed.contains(&topic))
    }
}
