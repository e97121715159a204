//! What is kept of a consumer group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::assignor::{Assignment, Assignor};
use super::super::ids::{InstanceId, MemberId};
use super::members::Subscription;
use super::reconcile::{Epoch, Held};
use super::requests::MemberClient;

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
