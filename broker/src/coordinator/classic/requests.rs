//! What members ask for, and what they are told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::ids::{Generation, InstanceId, MemberId};

/// A way of assigning that a member knows, and what it says to who assigns by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Name of the assignor.
    pub name: Arc<str>,
    /// What the member subscribes to, in the form of the protocol's type; the coordinator hands it on.
    pub metadata: Bytes,
}

/// Who a member is to people: it stands in what DescribeGroups tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// As the client calls itself.
    pub id: Arc<str>,
    /// Where its connection comes from.
    pub host: Arc<str>,
}

/// A member's request to join.
#[derive(Debug)]
pub struct Join<T> {
    /// None where the group is to give it an id.
    pub member: Option<MemberId>,
    /// What it is called by its operator, of a static member.
    pub instance: Option<InstanceId>,
    /// Who it is to people.
    pub client: Client,
    /// Silent for so long, it is taken for gone.
    pub session_timeout: Duration,
    /// So much time it needs at most to come back to a rebalance.
    pub rebalance_timeout: Duration,
    /// What the group is for.
    pub protocol_type: Arc<str>,
    /// The ways of assigning it knows, in its order of preference.
    pub protocols: Vec<Protocol>,
    /// Without an id, it is told one and asks again with it (from version 4 on). A client that gives up meanwhile leaves nothing
    /// behind that others have to wait for.
    pub takes_id_first: bool,
    /// It understands that it leads a group whose assignment stands (from version 9 on).
    pub can_skip_assignment: bool,
    /// Who is answered.
    pub ticket: T,
}

/// What a member is told when its join phase is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its id from now on.
    pub member: MemberId,
    /// The generation it is a member of.
    pub generation: Generation,
    /// What the group is for.
    pub protocol_type: Option<Arc<str>>,
    /// The way of assigning that was chosen.
    pub protocol: Option<Arc<str>>,
    /// Who assigns. That a static member took over from may stand here still, for clients that do not understand `skip_assignment`.
    pub leader: Option<MemberId>,
    /// It leads, and has nothing to assign: the assignment stands.
    pub skip_assignment: bool,
    /// For who assigns, all members and what they say to it; for others nothing.
    pub members: Vec<(MemberId, Option<InstanceId>, Bytes)>,
}

/// A member's request for its assignment.
#[derive(Debug)]
pub struct Sync<T> {
    /// Who asks.
    pub member: MemberId,
    /// What it is called by its operator, of a static member.
    pub instance: Option<InstanceId>,
    /// What it was told when it joined.
    pub generation: Generation,
    /// As it was told, by clients from version 5 on.
    pub protocol_type: Option<Arc<str>>,
    /// As it was told, by clients from version 5 on.
    pub protocol: Option<Arc<str>>,
    /// From who leads, what each member is assigned; from others nothing.
    pub assignments: Vec<(MemberId, Bytes)>,
    /// Who is answered.
    pub ticket: T,
}

/// What a member is assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// What the group is for.
    pub protocol_type: Option<Arc<str>>,
    /// The way of assigning by which it was made.
    pub protocol: Option<Arc<str>>,
    /// In the form of the protocol's type. Empty where who assigned left the member out.
    pub assignment: Bytes,
}

/// Why a request of a member comes to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Who never joined, has left, or was silent for too long.
    #[error("the group has no such member")]
    UnknownMember,
    /// Another process came with the same instance id.
    #[error("another member has taken over this instance id")]
    FencedInstance,
    /// The request belongs to a membership that is over, or never was.
    #[error("the group is in generation {0:?}")]
    IllegalGeneration(Generation),
    /// The member is to join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// No way of assigning is known to all members, this one included.
    #[error("the group's members have no protocol in common with this one")]
    InconsistentProtocol,
    /// The id that the group gave; the member is to ask again with it.
    #[error("the member is to join with the id {}", .0.0)]
    IdRequired(MemberId),
    /// `group.max.size` is reached, or what the members say of themselves is more than a record holds.
    #[error("the group is full")]
    Full,
    /// What the members are to be assigned is more than a record holds.
    #[error("the assignment is too large to be kept")]
    TooLarge,
    /// Outside `group.min.session.timeout.ms` and `group.max.session.timeout.ms`.
    #[error("the session time-out is outside what the broker allows")]
    InvalidSessionTimeout,
}
