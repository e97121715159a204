//! A classic group becomes a consumer group, and a consumer group whose members all speak the classic protocol becomes a classic one: what
//! goes with its members.

use super::super::consumer_protocol::has_user_data;
use super::*;

/// Clients' own assignors, which tell a member its partitions and nothing else that it needs.
const PLAIN_ASSIGNORS: [&str; 4] = ["range", "roundrobin", "sticky", "cooperative-sticky"];

/// A member of the classic protocol on its way from a group of one kind to one of the other.
#[derive(Clone, Debug)]
pub struct MigratingMember {
    /// Its id.
    pub id: MemberId,
    /// What it is called by its operator, of a static member.
    pub instance: Option<InstanceId>,
    /// Who it is to people.
    pub client: Client,
    /// The latest generation that it knows.
    pub generation: Generation,
    /// Silent for so long, it is taken for gone.
    pub session_timeout: Duration,
    /// So much time it needs at most to come back to a rebalance.
    pub rebalance_timeout: Duration,
    /// The ways of assigning it knows, in its order of preference.
    pub protocols: Vec<Protocol>,
    /// What it was assigned since it said what it has; nothing where it has joined since, and waits.
    pub assignment: Bytes,
}

impl MigratingMember {
    /// At most what its record takes.
    fn bytes(&self) -> usize {
        let said = members::said_bytes(&self.client, self.instance.as_ref(), &self.protocols);
        said + self.assignment.len()
    }
}

impl<T> ClassicGroup<T> {
    /// Its members, where they are consumers whose assignors find all in an assignment that a coordinator makes.
    pub fn migrating(&self) -> Option<Vec<MigratingMember>> {
        // What librdkafka's assignors add is what members told them, and nobody reads it.
        let is_plain = self.protocol.as_deref().is_some_and(|name| PLAIN_ASSIGNORS.contains(&name));
        let needs_more = |member: &Member<T>| !is_plain && has_user_data(member.assignment.clone());
        if self.protocol_type.as_deref() != Some(PROTOCOL_TYPE)
            || self.members.iter().any(|(_, member)| needs_more(member))
        {
            return None;
        }
        let migrating = |(id, member): (&MemberId, &Member<T>)| MigratingMember {
            id: id.clone(),
            instance: member.instance.clone(),
            client: member.client.clone(),
            generation: member.knows.unwrap_or(self.generation),
            session_timeout: member.session_timeout,
            rebalance_timeout: member.rebalance_timeout,
            protocols: member.protocols.clone(),
            assignment: match member.joining {
                Some(_) => Bytes::new(),
                None => member.assignment.clone(),
            },
        };
        // Who waits for its first generation has nothing, and is told to join.
        let known = self.members.iter().filter(|(_, member)| !member.is_new);
        Some(known.map(migrating).collect())
    }

    /// The latest membership.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Who waits is to join again, as what the group has become.
    pub fn dismiss(self, outcome: &mut Outcome<T>) {
        for (_, member) in self.members.into_iter() {
            let again = MemberError::RebalanceInProgress;
            outcome.joins.extend(member.joining.map(|ticket| (ticket, Err(again.clone()))));
            outcome.syncs.extend(member.syncing.map(|ticket| (ticket, Err(again))));
        }
    }

    /// A group of these, which is to be assigned anew by who of them leads it. None where they are more than one record holds.
    pub fn of_migrating(members: Vec<MigratingMember>, generation: Generation, now: Now) -> Option<Self> {
        if members.iter().map(MigratingMember::bytes).sum::<usize>() > limits::GROUP_RECORD_HALF_BYTES {
            return None;
        }
        let mut group = ClassicGroup::after(generation, now);
        for member in members {
            let here = Member {
                instance: member.instance,
                client: member.client,
                session_timeout: member.session_timeout,
                rebalance_timeout: member.rebalance_timeout,
                protocols: member.protocols,
                assignment: member.assignment,
                joining: None,
                syncing: None,
                has_synced: true,
                is_new: false,
                knows: Some(member.generation),
                alive_until: now.moment + member.session_timeout,
            };
            group.members.insert(member.id, here);
        }
        group.protocol = group.members.choose_protocol();
        group.state = State::Stable;
        group.check_invariants();
        Some(group)
    }

    /// Who was assigned something by another coordinator's rules is to join, and it is kept that this is so.
    pub fn begin_anew(&mut self, now: Now, outcome: &mut Outcome<T>) {
        self.prepare_rebalance("its members were those of a consumer group", now, outcome);
        outcome.changed = true;
    }
}

/// Whether one record may hold members that say this; it costs less than to make it.
pub fn one_record_holds<'a>(mut said: impl Iterator<Item = &'a [Protocol]>) -> bool {
    let mut bytes = 0;
    said.all(|protocols| {
        bytes += protocols.iter().map(|one| one.metadata.len()).sum::<usize>();
        bytes <= limits::GROUP_RECORD_HALF_BYTES
    })
}
