//! Members of the classic protocol in a consumer group: the coordinator assigns, and tells them in the words of their protocol.
//!
//! A member's generation is its epoch. What it is told when it joins names nobody who assigns, and what it is assigned is what it has by
//! [`super::reconcile`]; so who is to give up something is told so by an assignment without it, gives it up, and joins again. It is to join
//! whenever there is something else for it: it hears that when it says that it is there.

use super::super::classic::{self, Join, Joined, MemberError, Sync, Synced, check_said};
use super::super::consumer_protocol::{
    ConsumerSubscription, NamedPartitions, PROTOCOL_TYPE, write_assignment,
};
use super::super::ids::Generation;
use super::*;

impl ConsumerGroup {
    /// A member of the classic protocol joins, or joins again. `fresh` is the id that it gets, should it need one.
    ///
    /// # Errors
    /// What the member is to do instead of going on. Nothing was changed.
    pub fn join<T>(
        &mut self,
        join: &Join<T>,
        fresh: MemberId,
        topics: &dyn Topics,
        (settings, classic): (&Settings, &classic::Settings),
        now: Moment,
        outcome: &mut Outcome,
    ) -> Result<Joined, MemberError> {
        let subscription = self.check_join(join, classic)?;
        let id = self.joining_id(join, fresh, !subscription.owned.is_empty())?;
        self.check_room(&id, join.instance.as_ref(), settings).map_err(|_| MemberError::Full)?;
        let is_new = self.place(&id, join.instance.as_ref(), outcome);
        let owned = of_names(topics, &subscription.owned);
        let protocol = join.protocols.first().map(|protocol| protocol.name.clone());
        let Some(member) = self.members.get_mut(&id) else { return Err(MemberError::UnknownMember) };
        let said = said(join, subscription, member.said.instance.clone());
        let (reads, assignor) = (&member.said.subscription, member.said.assignor);
        let reads_other = said.subscription != *reads || said.assignor != assignor;
        if said != member.said {
            member.said = said;
            outcome.changed.insert(Changed::Member(id.clone()));
        }
        member.alive_until = now + join.session_timeout;
        // Until then it is to ask for what it is assigned.
        member.answer_until = Some(now + member.rebalance_timeout());
        self.follow_topics(topics, is_new || reads_other, outcome);
        self.decide_target(settings, outcome);
        self.reconcile(&id, Some(&owned), now, outcome);
        self.check_invariants();
        let epoch = self.members.get(&id).map(|member| member.held.epoch).unwrap_or_default();
        Ok(Joined {
            member: id,
            generation: Generation(epoch.0),
            protocol_type: Some(Arc::from(PROTOCOL_TYPE)),
            protocol,
            leader: None,
            skip_assignment: false,
            members: Vec::new(),
        })
    }

    /// Such a member asks for its assignment.
    ///
    /// # Errors
    /// What the member is to do instead of going on.
    pub fn sync<T>(
        &mut self,
        sync: &Sync<T>,
        topics: &dyn Topics,
        now: Moment,
    ) -> Result<Synced, MemberError> {
        let epoch = self.epoch;
        let member = self.classic_mut(&sync.member, sync.instance.as_ref(), sync.generation)?;
        // Who has to give up something is told first, however old its epoch is.
        if member.held.epoch < epoch && member.held.state != HeldState::Unrevoked {
            member.ask_to_join(now);
            return Err(MemberError::RebalanceInProgress);
        }
        let protocol = member.said.classic.iter().flat_map(|classic| &classic.protocols).next();
        let name = protocol.map(|protocol| protocol.name.clone());
        let differs = |said: Option<&str>, ours: Option<&str>| said.is_some_and(|said| Some(said) != ours);
        if differs(sync.protocol_type.as_deref(), Some(PROTOCOL_TYPE))
            || differs(sync.protocol.as_deref(), name.as_deref())
        {
            return Err(MemberError::InconsistentProtocol);
        }
        let said = protocol.and_then(|protocol| ConsumerSubscription::read(protocol.metadata.clone()));
        let version = said.map_or(0, |said| said.version);
        let assignment = write_assignment(version, &names_of(topics, &member.held.assigned));
        member.answer_until = None;
        member.hear(now);
        Ok(Synced { protocol_type: Some(Arc::from(PROTOCOL_TYPE)), protocol: name, assignment })
    }

    /// Such a member says that it is there.
    ///
    /// # Errors
    /// What the member is to do instead of going on.
    pub fn classic_heartbeat(
        &mut self,
        id: &MemberId,
        instance: Option<&InstanceId>,
        generation: Generation,
        topics: &dyn Topics,
        now: Moment,
        outcome: &mut Outcome,
    ) -> Result<(), MemberError> {
        self.classic_mut(id, instance, generation)?;
        // It may be that nobody else says anything that makes the group look.
        self.follow_topics(topics, false, outcome);
        let there_is_more = self.is_free_for(id);
        let epoch = self.epoch;
        let member = self.classic_mut(id, instance, generation)?;
        member.hear(now);
        let is_to_join = match member.held.state {
            _ if member.held.epoch < epoch => true,
            HeldState::Stable => false,
            HeldState::Unrevoked => true,
            HeldState::Unreleased => there_is_more,
        };
        if is_to_join {
            member.ask_to_join(now);
            return Err(MemberError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Such a member leaves, or an administrator removes it by its instance id.
    ///
    /// # Errors
    /// There is no such member, or another process has taken its place.
    pub fn classic_leave(
        &mut self,
        member: Option<&MemberId>,
        instance: Option<&InstanceId>,
        outcome: &mut Outcome,
    ) -> Result<(), MemberError> {
        let id = match (member, instance) {
            (Some(member), instance) => {
                self.check_classic(member, instance)?;
                member.clone()
            }
            (None, Some(instance)) => {
                self.by_instance.get(instance).cloned().ok_or(MemberError::UnknownMember)?
            }
            (None, None) => return Err(MemberError::UnknownMember),
        };
        self.check_classic(&id, None)?;
        self.remove(&id, outcome);
        self.check_invariants();
        Ok(())
    }

    /// Whether offsets may be committed in the name of such a member. A commit says that it is there.
    ///
    /// # Errors
    /// They may not.
    pub fn check_classic_commit(
        &mut self,
        id: &MemberId,
        instance: Option<&InstanceId>,
        generation: Generation,
        now: Moment,
    ) -> Result<(), MemberError> {
        let member = self.classic_mut(id, instance, generation)?;
        member.hear(now);
        Ok(())
    }

    /// Whether this is a member that speaks the classic protocol.
    pub fn is_classic(&self, id: &MemberId) -> bool {
        self.members.get(id).is_some_and(|member| member.said.classic.is_some())
    }

    fn check_join<T>(
        &self,
        join: &Join<T>,
        classic: &classic::Settings,
    ) -> Result<ConsumerSubscription, MemberError> {
        if !classic.session_timeout.contains(&join.session_timeout) {
            return Err(MemberError::InvalidSessionTimeout);
        }
        check_said(join)?;
        let known = self.members.values().filter_map(|member| member.said.classic.as_ref());
        let know = |name: &Arc<str>| {
            known.clone().all(|classic| classic.protocols.iter().any(|protocol| protocol.name == *name))
        };
        let fits = &*join.protocol_type == PROTOCOL_TYPE
            && join.protocols.iter().any(|protocol| know(&protocol.name));
        let first = join.protocols.first().filter(|_| fits).ok_or(MemberError::InconsistentProtocol)?;
        ConsumerSubscription::read(first.metadata.clone()).ok_or(MemberError::InconsistentProtocol)
    }

    /// The id that it joins with. One that it was told is not remembered: it may come with any, unless it `has` something. That was
    /// somebody's who is no member any more, and may be another's by now.
    fn joining_id<T>(&self, join: &Join<T>, fresh: MemberId, has: bool) -> Result<MemberId, MemberError> {
        let Some(id) = &join.member else {
            let takes_id_first = join.takes_id_first && join.instance.is_none();
            return if takes_id_first { Err(MemberError::IdRequired(fresh)) } else { Ok(fresh) };
        };
        if join.instance.is_some() || self.members.contains_key(id) || has {
            self.check_classic(id, join.instance.as_ref())?;
        }
        Ok(id.clone())
    }

    fn check_classic(&self, id: &MemberId, instance: Option<&InstanceId>) -> Result<(), MemberError> {
        self.check_member(id, instance).map_err(|error| match error {
            ConsumerError::FencedInstance => MemberError::FencedInstance,
            _ => MemberError::UnknownMember,
        })?;
        if self.is_classic(id) { Ok(()) } else { Err(MemberError::UnknownMember) }
    }

    fn classic_mut(
        &mut self,
        id: &MemberId,
        instance: Option<&InstanceId>,
        generation: Generation,
    ) -> Result<&mut Member, MemberError> {
        self.check_classic(id, instance)?;
        let member = self.members.get_mut(id).ok_or(MemberError::UnknownMember)?;
        if generation == Generation(member.held.epoch.0) {
            Ok(member)
        } else {
            Err(MemberError::IllegalGeneration(Generation(member.held.epoch.0)))
        }
    }

    /// Whether nobody else has anything any more that a member is to have. For each partition alone it would give up all it has.
    fn is_free_for(&self, id: &MemberId) -> bool {
        let Some(target) = self.target.get(id) else { return false };
        let mut all = target.iter().flat_map(|(topic, all)| all.iter().map(|partition| (*topic, *partition)));
        all.all(|partition| self.holders.get(&partition).is_none_or(|holder| holder == id))
    }
}

fn said<T>(join: &Join<T>, subscription: ConsumerSubscription, instance: Option<InstanceId>) -> StoredMember {
    StoredMember {
        instance,
        rack: subscription.rack,
        client: MemberClient { id: join.client.id.clone(), host: join.client.host.clone() },
        rebalance_timeout: join.rebalance_timeout,
        subscription: Subscription { names: subscription.topics.into_iter().collect(), pattern: None },
        assignor: None,
        classic: Some(ClassicMember {
            session_timeout: join.session_timeout,
            protocols: join.protocols.clone(),
        }),
    }
}

/// Those that there are.
pub(super) fn of_names(topics: &dyn Topics, named: &NamedPartitions) -> Assignment {
    let known = named.iter().filter_map(|(name, partitions)| {
        let (topic, count) = topics.of_name(name)?;
        let there: BTreeSet<i32> =
            partitions.iter().copied().filter(|partition| (0..count).contains(partition)).collect();
        (!there.is_empty()).then_some((topic, there))
    });
    known.collect()
}

/// Those that there are still.
pub(super) fn names_of(topics: &dyn Topics, assignment: &Assignment) -> NamedPartitions {
    let named = assignment.iter().filter_map(|(topic, all)| Some((topics.name_of(*topic)?, all.clone())));
    named.collect()
}
