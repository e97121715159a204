//! What is kept of a classic group.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::ids::{Generation, InstanceId, MemberId};
use super::requests::Client;

/// What a group's record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGroup {
    /// What the group is for; empty where nobody ever said.
    pub protocol_type: Option<Arc<str>>,
    /// The latest generation that came to an assignment, or to no members.
    pub generation: Generation,
    /// The way of assigning.
    pub protocol: Option<Arc<str>>,
    /// Who assigned. None where members are to join before anybody does.
    pub leader: Option<MemberId>,
    /// Since when it is as it is, by the wall clock.
    pub since_ms: i64,
    /// In the order of their ids.
    pub members: Vec<StoredMember>,
}

/// What is kept of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMember {
    /// Its id.
    pub id: MemberId,
    /// What it is called by its operator, of a static member.
    pub instance: Option<InstanceId>,
    /// Who it is to people.
    pub client: Client,
    /// Silent for so long, it is taken for gone.
    pub session_timeout: Duration,
    /// So much time it needs at most to come back to a rebalance.
    pub rebalance_timeout: Duration,
    /// What it said to who assigned.
    pub metadata: Bytes,
    /// What it was assigned.
    pub assignment: Bytes,
}
