//! What members say of themselves, and what they are told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::assignor::{Assignment, Assignor};
use super::super::ids::{InstanceId, MemberId};
use super::reconcile::Epoch;

/// What a member believes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// Nothing: it begins, and has nothing.
    Join,
    /// A member in this epoch.
    Member(Epoch),
}

/// Who a member is to people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberClient {
    /// As the client calls itself.
    pub id: Arc<str>,
    /// Where its connection comes from.
    pub host: Arc<str>,
}

/// What a member says. What it leaves out is as it said before.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Who.
    pub member: MemberId,
    /// What it believes to be.
    pub epoch: Joining,
    /// What it is called by its operator, of a static member.
    pub instance: Option<InstanceId>,
    /// Where it stands.
    pub rack: Option<Arc<str>>,
    /// Who it is to people.
    pub client: MemberClient,
    /// How long it may need to give up a partition.
    pub rebalance_timeout: Option<Duration>,
    /// Names of topics that it reads.
    pub subscription: Option<BTreeSet<Arc<str>>>,
    /// An expression for names of topics that it reads beside these; an empty one for none.
    pub pattern: Option<Arc<str>>,
    /// How it wants to be assigned.
    pub assignor: Option<Assignor>,
    /// What it has.
    pub owned: Option<Assignment>,
}

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Its epoch from now on.
    pub epoch: Epoch,
    /// When it is to be heard of again.
    pub interval: Duration,
    /// What it has; none where that is as it was.
    pub assignment: Option<Assignment>,
}

/// Why a member is not what it believes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumerError {
    /// Who never joined, has left, or was silent for too long.
    #[error("the group has no such member")]
    UnknownMember,
    /// The member is to give up all it has, and join anew.
    #[error("the member's epoch is not the one that the coordinator knows")]
    FencedEpoch,
    /// What is committed is of another epoch of the member.
    #[error("the member is in another epoch")]
    StaleEpoch,
    /// Another process came with the same instance id.
    #[error("another member has taken over this instance id")]
    FencedInstance,
    /// The process that has the instance id has not said that it goes.
    #[error("the instance id is another member's still")]
    UnreleasedInstance,
    /// The group has members of the classic protocol.
    #[error("the group is a classic group")]
    OtherKind,
    /// `group.consumer.max.size` is reached.
    #[error("the group is full")]
    Full,
    /// It is none that could be understood.
    #[error("the expression for names of topics is not valid")]
    InvalidPattern,
}
