//! A consumer group comes of a classic one whose members are consumers, and gives them back when nobody speaks the consumer protocol any more.

use super::super::classic::{Client, MigratingMember, Protocol};
use super::super::consumer_protocol::{ConsumerSubscription, read_assignment, write_assignment};
use super::super::ids::Generation;
use super::classic_members::{names_of, of_names};
use super::*;

impl ConsumerGroup {
    /// A group of these, each of which has what it has and is in the epoch of its generation; that of the group is the latest. None where what they say is of
    /// another form than that of consumers.
    pub fn of_migrating(
        members: Vec<MigratingMember>,
        generation: Generation,
        topics: &dyn Topics,
        settings: &Settings,
        now: Moment,
    ) -> Option<ConsumerGroup> {
        let epoch = Epoch(generation.0);
        let mut stored = StoredConsumerGroup {
            epoch: Some((epoch, 0)),
            target_epoch: epoch,
            ..StoredConsumerGroup::default()
        };
        let said: Option<Vec<_>> = members
            .iter()
            .map(|member| ConsumerSubscription::read(member.protocols.first()?.metadata.clone()))
            .collect();
        let said = said?;
        // What was assigned counts before what is claimed. Who claims more may not have heard yet that it is to give that up.
        let mut taken = BTreeSet::new();
        let mut assigned = Vec::new();
        for member in &members {
            let named = read_assignment(member.assignment.clone())?;
            assigned.push(not_taken(of_names(topics, &named), &mut taken));
        }
        for ((member, said), mut has) in members.into_iter().zip(said).zip(assigned) {
            for (topic, all) in not_taken(of_names(topics, &said.owned), &mut taken) {
                has.entry(topic).or_default().extend(all);
            }
            let known = Epoch(member.generation.0);
            let held = Held { epoch: known, previous: known, assigned: has.clone(), ..Held::default() };
            let names = said.topics.into_iter().collect();
            let kept = StoredMember {
                instance: member.instance,
                rack: said.rack,
                client: MemberClient { id: member.client.id, host: member.client.host },
                rebalance_timeout: member.rebalance_timeout,
                subscription: Subscription { names, pattern: None },
                assignor: None,
                classic: Some(ClassicMember {
                    session_timeout: member.session_timeout,
                    protocols: member.protocols,
                }),
            };
            stored.held.insert(member.id.clone(), (held, false));
            stored.target.insert(member.id.clone(), has);
            stored.members.insert(member.id, kept);
        }
        Some(ConsumerGroup::restored(stored, settings, now))
    }

    /// It has members, all of them speak the classic protocol, and are no more than these.
    pub fn is_classic_alone(&self, members_max: usize) -> bool {
        let is_classic = |member: &Member| member.said.classic.is_some();
        (1..=members_max).contains(&self.members.len()) && self.members.values().all(is_classic)
    }

    /// What its members of the classic protocol say.
    pub fn classic_protocols(&self) -> impl Iterator<Item = &[Protocol]> {
        self.members.values().filter_map(|member| Some(&*member.said.classic.as_ref()?.protocols))
    }

    /// Its members, and the latest generation that they may know, where all of them speak the classic protocol.
    pub fn migrating(&self, topics: &dyn Topics) -> Option<(Vec<MigratingMember>, Generation)> {
        let members: Option<Vec<_>> =
            self.members.iter().map(|(id, member)| migrating(id, member, topics)).collect();
        Some((members.filter(|members| !members.is_empty())?, Generation(self.target_epoch.0)))
    }

    /// All that is kept of it.
    pub fn all(&self) -> BTreeSet<Changed> {
        let of_member = |id: &MemberId| {
            let id = id.clone();
            [Changed::Member(id.clone()), Changed::Target(id.clone()), Changed::Held(id)]
        };
        let members = self.members.keys().flat_map(of_member);
        members.chain([Changed::Group, Changed::TargetEpoch]).collect()
    }
}

fn migrating(id: &MemberId, member: &Member, topics: &dyn Topics) -> Option<MigratingMember> {
    let classic = member.said.classic.as_ref()?;
    let said = ConsumerSubscription::read(classic.protocols.first()?.metadata.clone())?;
    // What it is to give up it has until it says that it has.
    let mut has = member.held.assigned.clone();
    for (topic, all) in &member.held.revoking {
        has.entry(*topic).or_default().extend(all);
    }
    Some(MigratingMember {
        id: id.clone(),
        instance: member.said.instance.clone(),
        generation: Generation(member.held.epoch.0),
        client: Client { id: member.said.client.id.clone(), host: member.said.client.host.clone() },
        session_timeout: classic.session_timeout,
        rebalance_timeout: member.said.rebalance_timeout,
        protocols: classic.protocols.clone(),
        assignment: write_assignment(said.version, &names_of(topics, &has)),
    })
}

/// Members assign among themselves, and may have given one partition to two: the first has it.
fn not_taken(has: Assignment, taken: &mut BTreeSet<(TopicId, i32)>) -> Assignment {
    let left = has.into_iter().map(|(topic, all)| {
        let free: BTreeSet<i32> =
            all.into_iter().filter(|partition| taken.insert((topic, *partition))).collect();
        (topic, free)
    });
    left.filter(|(_, free)| !free.is_empty()).collect()
}
