//! What is kept of a classic group while it lives, and how one goes on from that.

use super::*;

impl<T> ClassicGroup<T> {
    /// What is to be kept of the group as it is now. Between generations it is what the latest one was.
    pub fn stored(&self) -> StoredGroup {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| StoredMember {
            id: id.clone(),
            instance: member.instance.clone(),
            client: member.client.clone(),
            session_timeout: member.session_timeout,
            rebalance_timeout: member.rebalance_timeout,
            metadata: member.metadata_for(protocol),
            assignment: member.assignment.clone(),
        });
        StoredGroup {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.members.leader().filter(|_| !self.is_preparing()).cloned(),
            since_ms: self.since_ms,
            members: members.collect(),
        }
    }

    fn is_preparing(&self) -> bool {
        matches!(self.state, State::PreparingRebalance { .. })
    }

    /// A group goes on as it was kept; its members have one session time-out to be heard of. Where nobody led them, they join.
    pub fn restored(stored: StoredGroup, now: Moment) -> Self {
        let mut members = Members::default();
        for member in stored.members {
            let protocols = stored
                .protocol
                .iter()
                .map(|name| Protocol { name: name.clone(), metadata: member.metadata.clone() });
            let restored = Member {
                instance: member.instance,
                client: member.client,
                session_timeout: member.session_timeout,
                rebalance_timeout: member.rebalance_timeout,
                protocols: protocols.collect(),
                assignment: member.assignment,
                joining: None,
                syncing: None,
                has_synced: true,
                is_new: false,
                knows: None,
                alive_until: now + member.session_timeout,
            };
            members.insert(member.id, restored);
        }
        let state = match (members.is_empty(), &stored.leader) {
            (true, _) => State::Empty,
            (false, Some(_)) => State::Stable,
            (false, None) => {
                State::PreparingRebalance { until: now + members.rebalance_timeout(), initial: None }
            }
        };
        members.lead_as(stored.leader);
        let group = ClassicGroup {
            state,
            since_ms: stored.since_ms,
            generation: stored.generation,
            protocol_type: stored.protocol_type,
            protocol: stored.protocol,
            members,
            told: BTreeMap::new(),
            sync_until: None,
        };
        group.check_invariants();
        group
    }
}
