//! What is kept of a consumer group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use regex::{Regex, RegexBuilder};

use super::super::assignor::{Assignment, Assignor};
use super::super::classic::Protocol;
use super::super::ids::{InstanceId, MemberId};
use super::reconcile::{Epoch, Held};
use super::requests::MemberClient;
use super::topics::Topics;
use crate::ids::TopicId;

/// What a member reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Names of topics, of those that there are and others.
    pub names: BTreeSet<Arc<str>>,
    /// An expression for more of them.
    pub pattern: Option<Arc<str>>,
}

/// What a member said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredMember {
    /// What it is called by its operator, of a static member.
    pub instance: Option<InstanceId>,
    /// Where it stands.
    pub rack: Option<Arc<str>>,
    /// Who it is to people.
    pub client: MemberClient,
    /// How long it may need to give up a partition.
    pub rebalance_timeout: Duration,
    /// What it reads.
    pub subscription: Subscription,
    /// How it wants to be assigned.
    pub assignor: Option<Assignor>,
    /// What it said beside that, where it speaks the classic protocol.
    pub classic: Option<ClassicMember>,
}

/// What a member says that speaks the classic protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicMember {
    /// Silent for so long, it is taken for gone.
    pub session_timeout: Duration,
    /// The ways of assigning it knows, in its order of preference; at least one.
    pub protocols: Vec<Protocol>,
}

/// What an expression may take when it is compiled.
const PATTERN_BYTES_MAX: usize = 256 << 10;

/// An expression that matches names as a whole; none where it is not one, or too large.
pub(super) fn compiled(pattern: &str) -> Option<Regex> {
    let compile = |pattern: &str| RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build().ok();
    // By itself first: in brackets it might be another one.
    compile(pattern)?;
    compile(&format!("^(?:{pattern})$"))
}

impl Subscription {
    /// The topics among those that there are, with their numbers of partitions.
    pub(super) fn resolve(&self, topics: &dyn Topics) -> BTreeMap<TopicId, i32> {
        let named = self.names.iter().filter_map(|name| topics.of_name(name));
        let matched = self.pattern.iter().filter_map(|pattern| compiled(pattern));
        named.chain(matched.flat_map(|pattern| topics.matching(&pattern))).collect()
    }
}

/// All of it, as the latest record of each part says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredConsumerGroup {
    /// The group's epoch, and the hash of the topics that were read then.
    pub epoch: Option<(Epoch, i64)>,
    /// What members said.
    pub members: BTreeMap<MemberId, StoredMember>,
    /// In which epoch it was decided what members are to have.
    pub target_epoch: Epoch,
    /// What they are to have.
    pub target: BTreeMap<MemberId, Assignment>,
    /// What they have, and whether they are away.
    pub held: BTreeMap<MemberId, (Held, bool)>,
}

/// A record of a consumer group; none where what it names is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerRecord {
    /// The group's epoch, and the hash of the topics that were read then.
    Group(Option<(Epoch, i64)>),
    /// What a member said of itself.
    Member(MemberId, Option<StoredMember>),
    /// In which epoch it was decided what members are to have.
    TargetEpoch(Option<Epoch>),
    /// What a member is to have.
    Target(MemberId, Option<Assignment>),
    /// What a member has, and whether it is away.
    Held(MemberId, Option<(Held, bool)>),
}

impl ConsumerRecord {
    /// What is kept is as this says from now on.
    pub fn load(self, group: &mut StoredConsumerGroup) {
        fn set<V>(of: &mut BTreeMap<MemberId, V>, member: MemberId, value: Option<V>) {
            match value {
                Some(value) => {
                    of.insert(member, value);
                }
                None => {
                    of.remove(&member);
                }
            }
        }
        match self {
            ConsumerRecord::Group(epoch) => group.epoch = epoch,
            ConsumerRecord::Member(member, stored) => set(&mut group.members, member, stored),
            ConsumerRecord::TargetEpoch(epoch) => group.target_epoch = epoch.unwrap_or_default(),
            ConsumerRecord::Target(member, target) => set(&mut group.target, member, target),
            ConsumerRecord::Held(member, held) => set(&mut group.held, member, held),
        }
    }
}
