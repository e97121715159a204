//! What administrators are told of a consumer group.

use super::super::assignor::{Assignment, Assignor};
use super::super::ids::MemberId;
use super::reconcile::Epoch;
use super::stored::StoredMember;
use super::{ConsumerGroup, Member};

/// A consumer group, as ConsumerGroupDescribe tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerDescription {
    /// Kafka's name of its state.
    pub state: &'static str,
    /// The group's epoch.
    pub epoch: Epoch,
    /// In which epoch it was decided what members are to have.
    pub target_epoch: Epoch,
    /// The one that most members prefer, of those who say.
    pub assignor: Option<Assignor>,
    /// In the order of their ids.
    pub members: Vec<DescribedConsumer>,
}

/// One of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConsumer {
    /// Its id.
    pub id: MemberId,
    /// What it said of itself.
    pub said: StoredMember,
    /// Its epoch.
    pub epoch: Epoch,
    /// What it has.
    pub assigned: Assignment,
    /// What it is to have.
    pub target: Assignment,
}

impl ConsumerGroup {
    /// As it is now.
    pub fn description(&self) -> ConsumerDescription {
        let say = |(id, member): (&MemberId, &Member)| DescribedConsumer {
            id: id.clone(),
            said: member.said.clone(),
            epoch: member.held.epoch,
            assigned: member.held.assigned.clone(),
            target: self.target(id).cloned().unwrap_or_default(),
        };
        ConsumerDescription {
            state: self.state_name(),
            epoch: self.epoch(),
            target_epoch: self.target_epoch(),
            assignor: self.assignor(),
            members: self.members().map(say).collect(),
        }
    }
}
