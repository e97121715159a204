//! JoinGroup: members come, are waited for, and begin a generation together.

use super::*;

impl<T> ClassicGroup<T> {
    /// A member joins, or says that it wants to go on otherwise. `fresh` is the id that it gets, should it need one.
    pub fn join(
        &mut self,
        join: Join<T>,
        fresh: MemberId,
        settings: &Settings,
        now: Now,
        outcome: &mut Outcome<T>,
    ) {
        if let Err(error) = self.check_join(&join, settings, now, outcome) {
            outcome.joins.push((join.ticket, Err(error)));
            return;
        }
        match (join.member.clone(), &join.instance) {
            (None, Some(instance)) => match self.members.of_instance(instance) {
                Some(before) => self.take_over(&before, fresh, join, now, outcome),
                None => self.add(fresh, join, settings, now, outcome),
            },
            (None, None) if join.takes_id_first => {
                self.told.insert(fresh.clone(), now.moment + join.session_timeout);
                outcome.joins.push((join.ticket, Err(MemberError::IdRequired(fresh))));
            }
            (None, None) => self.add(fresh, join, settings, now, outcome),
            (Some(told), None) if self.told.remove(&told).is_some() => {
                self.add(told, join, settings, now, outcome)
            }
            (Some(member), instance) => match self.members.check(&member, instance.as_ref()) {
                Ok(()) => self.rejoin(&member, join, now, outcome),
                Err(error) => outcome.joins.push((join.ticket, Err(error))),
            },
        }
        self.check_invariants();
    }

    fn check_join(
        &mut self,
        join: &Join<T>,
        settings: &Settings,
        now: Now,
        outcome: &mut Outcome<T>,
    ) -> Result<(), MemberError> {
        if !settings.session_timeout.contains(&join.session_timeout) {
            return Err(MemberError::InvalidSessionTimeout);
        }
        if !self.has_room_for(join.member.as_ref(), settings) {
            // Where the bound was lowered, those who come back last are too many.
            if let Some(member) = &join.member {
                self.told.remove(member);
                self.remove(member, outcome);
                self.after_removal("a member was too many", now, outcome);
            }
            return Err(MemberError::Full);
        }
        let known = join.member.clone().or_else(|| self.members.of_instance(join.instance.as_ref()?));
        let said = said_by(join);
        if said + self.members.said_bytes_but(known.as_ref()) > limits::GROUP_RECORD_HALF_BYTES {
            return Err(MemberError::Full);
        }
        let fits = if self.members.is_empty() {
            !join.protocol_type.is_empty() && !join.protocols.is_empty()
        } else {
            self.protocol_type.as_ref() == Some(&join.protocol_type)
                && self.members.can_do_with(&join.protocols)
        };
        if fits { Ok(()) } else { Err(MemberError::InconsistentProtocol) }
    }

    /// While members join, those count who have: so the last to come back are too many, whoever they are.
    fn has_room_for(&self, member: Option<&MemberId>, settings: &Settings) -> bool {
        let known = member.and_then(|member| self.members.get(member));
        if member.is_none() && self.told.len() >= limits::GROUP_MEMBERS_TOLD_MAX {
            return false;
        }
        match self.state {
            State::Empty => true,
            State::PreparingRebalance { .. } => {
                known.is_some_and(|member| member.joining.is_some())
                    || self.members.joining() < settings.members_max
            }
            State::CompletingRebalance | State::Stable => {
                known.is_some() || self.members.len() < settings.members_max
            }
        }
    }

    fn add(&mut self, id: MemberId, join: Join<T>, settings: &Settings, now: Now, outcome: &mut Outcome<T>) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        let rebalance_timeout = join.rebalance_timeout;
        if let State::PreparingRebalance { initial: Some(delay), .. } = &mut self.state {
            delay.joined = true;
        }
        let member = Member {
            instance: join.instance,
            client: join.client,
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: join.protocols,
            assignment: Bytes::new(),
            joining: Some(join.ticket),
            syncing: None,
            has_synced: false,
            is_new: true,
            knows: None,
            alive_until: now.moment + limits::NEW_MEMBER_WAITS_MAX,
        };
        self.members.insert(id, member);
        if self.is_empty() {
            // Those that come with the first would otherwise make a generation each.
            let each = settings.initial_rebalance_delay.min(rebalance_timeout);
            let initial = InitialDelay { each, left: rebalance_timeout - each, joined: false };
            let until = now.moment + each;
            self.enter(State::PreparingRebalance { until, initial: Some(initial) }, now);
        } else {
            self.rebalance_or_complete("a member joins", now, outcome);
        }
    }

    /// A member that is known joins again.
    fn rejoin(&mut self, id: &MemberId, join: Join<T>, now: Now, outcome: &mut Outcome<T>) {
        let goes_on_as_it_is = self.members.get(id).is_some_and(|member| member.protocols == join.protocols)
            && match self.state {
                // It did not receive the answer.
                State::CompletingRebalance => true,
                // Who assigns has a reason to join again: what there is to assign has changed.
                State::Stable => !self.members.leads(id),
                State::Empty | State::PreparingRebalance { .. } => false,
            };
        if goes_on_as_it_is {
            let joined = self.joined(id);
            outcome.joins.push((join.ticket, Ok(joined)));
        } else {
            self.update(id, join, outcome);
            self.rebalance_or_complete("a member joins again", now, outcome);
        }
    }

    /// Another process comes with the instance id of a static member: it gets what that had, and that one is fenced.
    fn take_over(
        &mut self,
        before: &MemberId,
        id: MemberId,
        join: Join<T>,
        now: Now,
        outcome: &mut Outcome<T>,
    ) {
        let led_by = self.members.leader().cloned();
        let can_skip_assignment = join.can_skip_assignment;
        self.members.rename(before, id.clone());
        if let Some(member) = self.members.get_mut(&id) {
            let fenced = MemberError::FencedInstance;
            outcome.joins.extend(member.joining.take().map(|ticket| (ticket, Err(fenced.clone()))));
            outcome.syncs.extend(member.syncing.take().map(|ticket| (ticket, Err(fenced))));
            member.client = join.client.clone();
            member.touch(now.moment);
        }
        self.update(&id, join, outcome);
        match self.state {
            State::Stable if self.members.choose_protocol() == self.protocol => {
                // Nobody has to do anything, unless what the new one wants is another thing; then it is asked to join with that.
                let mut joined = self.joined(&id);
                joined.skip_assignment = can_skip_assignment && self.members.leads(&id);
                if !joined.skip_assignment {
                    // It must not assign: the others would not ask for what it says.
                    joined.members.clear();
                    joined.leader = led_by;
                }
                let ticket = self.members.get_mut(&id).and_then(|member| member.joining.take());
                outcome.joins.extend(ticket.map(|ticket| (ticket, Ok(joined))));
                outcome.changed = true;
            }
            // Who assigns may have been told of the one before, and would give it what is for this one.
            State::Stable | State::CompletingRebalance => {
                self.prepare_rebalance("a static member was replaced", now, outcome);
            }
            State::Empty | State::PreparingRebalance { .. } => {
                self.complete_join_if_all_are_here(now, outcome)
            }
        }
    }

    /// A known member says how it wants to go on, and waits for the end of the join phase.
    fn update(&mut self, id: &MemberId, join: Join<T>, outcome: &mut Outcome<T>) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.protocols = join.protocols;
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        if let Some(before) = member.joining.replace(join.ticket) {
            outcome.joins.push((before, Err(MemberError::RebalanceInProgress)));
        }
    }

    /// Of a group that has members.
    fn rebalance_or_complete(&mut self, why: &str, now: Now, outcome: &mut Outcome<T>) {
        match self.state {
            State::PreparingRebalance { .. } => self.complete_join_if_all_are_here(now, outcome),
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare_rebalance(why, now, outcome)
            }
        }
    }

    /// A join phase begins. Who waits for an assignment is to join instead.
    pub(super) fn prepare_rebalance(&mut self, why: &str, now: Now, outcome: &mut Outcome<T>) {
        for (_, member) in self.members.iter_mut() {
            member.has_synced = false;
            if let Some(ticket) = member.syncing.take() {
                member.touch(now.moment);
                outcome.syncs.push((ticket, Err(MemberError::RebalanceInProgress)));
            }
        }
        self.sync_until = None;
        let until = now.moment + self.members.rebalance_timeout();
        self.enter(State::PreparingRebalance { until, initial: None }, now);
        tracing::debug!(
            generation = self.generation.0,
            members = self.members.len(),
            "the group rebalances: {why}"
        );
        self.complete_join_if_all_are_here(now, outcome);
    }

    pub(super) fn complete_join_if_all_are_here(&mut self, now: Now, outcome: &mut Outcome<T>) {
        let waits_for_more = !matches!(self.state, State::PreparingRebalance { initial: None, .. });
        if !waits_for_more && self.told.is_empty() && self.members.joining() == self.members.len() {
            self.complete_join(now, outcome);
        }
    }

    /// The time of a join phase is over: for now, or for good.
    pub(super) fn handle_join_time(&mut self, now: Now, outcome: &mut Outcome<T>) {
        match self.state {
            State::PreparingRebalance {
                initial: Some(InitialDelay { each, left, joined: true }), ..
            } if !left.is_zero() => {
                let next = each.min(left);
                let initial = Some(InitialDelay { each, left: left - next, joined: false });
                self.state = State::PreparingRebalance { until: now.moment + next, initial };
            }
            _ => self.complete_join(now, outcome),
        }
    }

    /// The join phase is over: who has joined begins the next generation. Static members that have not come back keep their place
    /// for as long as their session lasts.
    fn complete_join(&mut self, now: Now, outcome: &mut Outcome<T>) {
        let absent = |member: &Member<T>| member.joining.is_none() && member.instance.is_none();
        let gone: Vec<_> =
            self.members.iter().filter(|(_, member)| absent(member)).map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.remove(id, outcome);
        }
        if !self.members.is_empty() && !self.members.elect_one_who_joins() {
            // Static members all, and none is back: nobody could assign.
            let until = now.moment + self.members.rebalance_timeout();
            self.state = State::PreparingRebalance { until, initial: None };
            return;
        }
        self.generation = self.generation.next();
        if self.members.is_empty() {
            self.protocol = None;
            self.enter(State::Empty, now);
            outcome.changed = true;
            return;
        }
        self.protocol = self.members.choose_protocol();
        self.sync_until = Some(now.moment + self.members.rebalance_timeout());
        self.enter(State::CompletingRebalance, now);
        let ids: Vec<_> = self.members.iter().map(|(id, _)| id.clone()).collect();
        for id in ids {
            let joined = self.joined(&id);
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.assignment = Bytes::new();
            (member.is_new, member.knows) = (false, None);
            if let Some(ticket) = member.joining.take() {
                member.touch(now.moment);
                outcome.joins.push((ticket, Ok(joined)));
            }
        }
    }

    /// What a member is told of the generation that there is.
    fn joined(&self, id: &MemberId) -> Joined {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let say = |(id, member): (&MemberId, &Member<T>)| {
            (id.clone(), member.instance.clone(), member.metadata_for(protocol))
        };
        let members =
            if self.members.leads(id) { self.members.iter().map(say).collect() } else { Vec::new() };
        Joined {
            member: id.clone(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.members.leader().cloned(),
            skip_assignment: false,
            members,
        }
    }
}

fn said_by<T>(join: &Join<T>) -> usize {
    members::said_bytes(&join.client, join.instance.as_ref(), &join.protocols)
}

/// Whether a record of its own holds what a member says.
///
/// # Errors
/// It does not.
pub fn check_said<T>(join: &Join<T>) -> Result<(), MemberError> {
    if said_by(join) > limits::GROUP_RECORD_HALF_BYTES { Err(MemberError::Full) } else { Ok(()) }
}
