//! What administrators are told of a classic group.

use std::sync::Arc;

use bytes::Bytes;

use super::super::ids::{InstanceId, MemberId};
use super::requests::Client;
use super::{ClassicGroup, State};

/// A classic group, as DescribeGroups tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicDescription {
    /// Kafka's name of its state.
    pub state: &'static str,
    /// What the group is for; none where nobody ever said.
    pub protocol_type: Option<Arc<str>>,
    /// The way of assigning, where the assignment is known.
    pub protocol: Option<Arc<str>>,
    /// In the order of their ids.
    pub members: Vec<DescribedMember>,
}

/// One of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub id: MemberId,
    /// What it is called by its operator, of a static member.
    pub instance: Option<InstanceId>,
    /// Who it is to people.
    pub client: Client,
    /// What it said to who assigned, where the assignment is known.
    pub metadata: Bytes,
    /// What it is assigned.
    pub assignment: Bytes,
}

impl<T> ClassicGroup<T> {
    /// As it is now.
    pub fn description(&self) -> ClassicDescription {
        let protocol = self.protocol.clone().filter(|_| self.state == State::Stable);
        let say = |(id, member): (&MemberId, &super::Member<T>)| DescribedMember {
            id: id.clone(),
            instance: member.instance.clone(),
            client: member.client.clone(),
            metadata: protocol.as_ref().map(|protocol| member.metadata_for(protocol)).unwrap_or_default(),
            assignment: member.assignment.clone(),
        };
        let members = self.members.iter().map(say).collect();
        ClassicDescription {
            state: self.state_name(),
            protocol_type: self.protocol_type.clone(),
            protocol,
            members,
        }
    }

    /// Whether its members read this topic, as far as they say what they read.
    pub fn reads(&self, topic: &str) -> bool {
        self.subscribed_topics().is_none_or(|topics| topics.iter().any(|one| &**one == topic))
    }
}
