//! A group of the consumer protocol (KIP-848) as a pure state machine: the coordinator says what each member reads, and members follow one
//! by one.
//!
//! No I/O, no waiting, no clock. Members send heartbeats and are answered at once. Three things rise, and each follows the one before:
//! the *group's epoch*, with what there is to assign and to whom; the *target's epoch*, when it was decided what each member is to have;
//! a *member's epoch*, when it has given up what it is not to have any more. A partition is given to a member only when no other
//! has it: neither reads it nor is about to give it up.
//!
//! [`Outcome::changed`] names the records that have to be durable before any answer of the same call, or a later one, is given.
//! What a restart forgets is only until when members have to be heard of, and until when they have to give up what they are to.
//!
//! Members that speak the classic protocol may be among them: `classic_members` says how these are told of the same.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use io_backend::Moment;

use super::assignor::{Assignment, Assignor, GroupSpec, MemberSpec};
use super::ids::{InstanceId, MemberId};
use crate::ids::TopicId;

mod topics;
mod reconcile;
mod requests;
mod stored;
mod members;
mod classic_members;
mod migration;
mod restart;
mod description;

pub use description::{ConsumerDescription, DescribedConsumer};
pub use members::Member;
pub use reconcile::{Epoch, Held, HeldState};
pub use requests::{Beat, ConsumerError, Heartbeat, Joining, MemberClient};
pub use stored::{ClassicMember, ConsumerRecord, StoredConsumerGroup, StoredMember, Subscription};
pub use topics::Topics;

/// What the operator allows to all groups.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A member that is silent for so long is gone (`group.consumer.session.timeout.ms`).
    pub session_timeout: Duration,
    /// How often members are asked to be heard of (`group.consumer.heartbeat.interval.ms`).
    pub heartbeat_interval: Duration,
    /// Members of a group at most (`group.consumer.max.size`).
    pub members_max: usize,
    /// How a group assigns whose members do not say (the first of `group.consumer.assignors`).
    pub assignor: Assignor,
}

/// A record of a group that is to be written anew, or deleted where there is nothing of it any more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// The group's epoch.
    Group,
    /// What a member said of itself.
    Member(MemberId),
    /// What a member is to have.
    Target(MemberId),
    /// In which epoch it was decided what members are to have. Where only a part of the records of a decision is kept, it is decided
    /// anew unless this is: so it stands behind what it says.
    TargetEpoch,
    /// What a member has.
    Held(MemberId),
}

/// What a call decided.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is to survive a restart and has changed.
    pub changed: BTreeSet<Changed>,
}

/// A group whose coordinator assigns.
#[derive(Debug, Default)]
pub struct ConsumerGroup {
    epoch: Epoch,
    members: BTreeMap<MemberId, Member>,
    by_instance: BTreeMap<InstanceId, MemberId>,
    target_epoch: Epoch,
    target: BTreeMap<MemberId, Assignment>,
    /// The topics that anybody reads, with their numbers of partitions, as of the group's epoch; none before they were looked at.
    topics: BTreeMap<TopicId, i32>,
    topics_hash: i64,
    /// As of which version of all topics.
    topics_seen: Option<u64>,
    /// Who has a partition, or is still to give it up.
    holders: BTreeMap<(TopicId, i32), MemberId>,
}

impl ConsumerGroup {
    /// A group that nobody has joined yet, whose epochs follow this one.
    pub fn after(epoch: Epoch) -> ConsumerGroup {
        ConsumerGroup { epoch, target_epoch: epoch, ..ConsumerGroup::default() }
    }

    /// Kafka's name of the state that the group is in.
    pub fn state_name(&self) -> &'static str {
        let is_settled = |member: &Member| {
            member.held.state == HeldState::Stable && member.held.epoch == self.target_epoch
        };
        match () {
            () if self.members.is_empty() => "Empty",
            () if self.epoch > self.target_epoch => "Assigning",
            () if self.members.values().all(is_settled) => "Stable",
            () => "Reconciling",
        }
    }

    /// It has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The group's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// In which epoch it was decided what members are to have.
    pub fn target_epoch(&self) -> Epoch {
        self.target_epoch
    }

    /// What a member is to have.
    pub fn target(&self, member: &MemberId) -> Option<&Assignment> {
        self.target.get(member)
    }

    /// In the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = (&MemberId, &Member)> {
        self.members.iter()
    }

    /// Names of the topics that its members read. None where expressions say some of them.
    pub fn subscribed_names(&self) -> Option<Vec<Arc<str>>> {
        let mut names = BTreeSet::new();
        for member in self.members.values() {
            if member.said.subscription.pattern.is_some() {
                return None;
            }
            names.extend(member.said.subscription.names.iter().cloned());
        }
        Some(names.into_iter().collect())
    }

    /// A member joins, or says how it is.
    ///
    /// # Errors
    /// What the member is to do instead of going on. Nothing was changed.
    pub fn heartbeat(
        &mut self,
        beat: Heartbeat,
        topics: &dyn Topics,
        settings: &Settings,
        now: Moment,
        outcome: &mut Outcome,
    ) -> Result<Beat, ConsumerError> {
        let is_join = matches!(beat.epoch, Joining::Join);
        let is_full = is_join || (beat.owned.is_some() && beat.subscription.is_some());
        let id = beat.member.clone();
        self.check(&beat, settings)?;
        if is_join {
            self.admit(&beat, outcome);
        }
        let told = self.members.get(&id).map(|member| member.held.assigned.clone()).unwrap_or_default();
        let owned = beat.owned.clone();
        let Some(member) = self.members.get_mut(&id) else { return Err(ConsumerError::UnknownMember) };
        let changed = member.update(&beat);
        member.alive_until = now + settings.session_timeout;
        if changed.record {
            outcome.changed.insert(Changed::Member(id.clone()));
        }
        self.follow_topics(topics, changed.subscription || is_join, outcome);
        self.decide_target(settings, outcome);
        self.reconcile(&id, owned.as_ref(), now, outcome);
        self.check_invariants();
        let Some(member) = self.members.get(&id) else { return Err(ConsumerError::UnknownMember) };
        let is_news = is_full || member.held.assigned != told;
        Ok(Beat {
            epoch: member.held.epoch,
            interval: settings.heartbeat_interval,
            assignment: is_news.then(|| member.held.assigned.clone()),
        })
    }

    /// A member goes. A static one that says so comes back: what it has stays its own until its session is over.
    ///
    /// # Errors
    /// There is no such member, or another process has taken its place.
    pub fn leave(
        &mut self,
        id: &MemberId,
        instance: Option<&InstanceId>,
        comes_back: bool,
        outcome: &mut Outcome,
    ) -> Result<(), ConsumerError> {
        self.check_member(id, instance)?;
        match self.members.get_mut(id) {
            Some(member) if comes_back && instance.is_some() => {
                member.is_away = true;
                outcome.changed.insert(Changed::Held(id.clone()));
            }
            _ => self.remove(id, outcome),
        }
        Ok(())
    }

    /// Whether offsets may be committed in this member's name.
    ///
    /// # Errors
    /// They may not.
    pub fn check_commit(
        &self,
        id: &MemberId,
        instance: Option<&InstanceId>,
        epoch: Epoch,
    ) -> Result<(), ConsumerError> {
        self.check_member(id, instance)?;
        let known = self.members.get(id).map(|member| member.held.epoch);
        if known == Some(epoch) { Ok(()) } else { Err(ConsumerError::StaleEpoch) }
    }

    /// When [`Self::handle_time`] has something to do, at the earliest. A heartbeat only moves it further away.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.members.values().map(Member::next_deadline).min()
    }

    /// Members that are silent for too long, or do not give up what they are to, are gone.
    pub fn handle_time(&mut self, now: Moment, outcome: &mut Outcome) {
        let is_over = |member: &Member| member.next_deadline() <= now;
        let over: Vec<_> =
            self.members.iter().filter(|(_, member)| is_over(member)).map(|(id, _)| id.clone()).collect();
        for id in over {
            self.remove(&id, outcome);
        }
        self.check_invariants();
    }

    /// Whether a heartbeat is taken.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, beat: &Heartbeat, settings: &Settings) -> Result<(), ConsumerError> {
        if beat
            .pattern
            .as_ref()
            .is_some_and(|pattern| !pattern.is_empty() && stored::compiled(pattern).is_none())
        {
            return Err(ConsumerError::InvalidPattern);
        }
        self.check_room(&beat.member, beat.instance.as_ref(), settings)?;
        let known = self.members.get(&beat.member);
        match beat.epoch {
            Joining::Join => {
                let holder = beat.instance.as_ref().and_then(|instance| self.by_instance.get(instance));
                let holder = holder.filter(|holder| **holder != beat.member);
                match holder.and_then(|holder| self.members.get(holder)) {
                    // One of the classic protocol does not say that it comes back.
                    Some(holder) if !holder.is_away && holder.said.classic.is_none() => {
                        Err(ConsumerError::UnreleasedInstance)
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Joining::Member(epoch) => {
                self.check_member(&beat.member, beat.instance.as_ref())?;
                let known = known.filter(|member| member.said.classic.is_none());
                let known = known.ok_or(ConsumerError::UnknownMember)?;
                if known.may_say(epoch, beat.owned.as_ref()) {
                    Ok(())
                } else {
                    Err(ConsumerError::FencedEpoch)
                }
            }
        }
    }

    fn check_member(&self, id: &MemberId, instance: Option<&InstanceId>) -> Result<(), ConsumerError> {
        match instance.map(|instance| self.by_instance.get(instance)) {
            Some(None) => Err(ConsumerError::UnknownMember),
            Some(Some(holder)) if holder != id => Err(ConsumerError::FencedInstance),
            Some(Some(_)) | None if self.members.contains_key(id) => Ok(()),
            Some(Some(_)) | None => Err(ConsumerError::UnknownMember),
        }
    }

    fn check_room(
        &self,
        id: &MemberId,
        instance: Option<&InstanceId>,
        settings: &Settings,
    ) -> Result<(), ConsumerError> {
        let takes_over = instance.is_some_and(|instance| self.by_instance.contains_key(instance));
        let is_here = takes_over || self.members.contains_key(id);
        if is_here || self.members.len() < settings.members_max { Ok(()) } else { Err(ConsumerError::Full) }
    }

    /// A new member, one that begins anew and has nothing, or one that comes in the place of another.
    fn admit(&mut self, beat: &Heartbeat, outcome: &mut Outcome) {
        let id = &beat.member;
        self.place(id, beat.instance.as_ref(), outcome);
        let Some(member) = self.members.get_mut(id) else { return };
        if !member.held.is_nothing() {
            outcome.changed.insert(Changed::Held(id.clone()));
        }
        member.held = Held::default();
        (member.give_up_until, member.answer_until) = (None, None);
        self.holders.retain(|_, holder| holder != id);
    }

    /// There is a member of this id then, and it is here. Whether nobody was there in whose place it comes.
    fn place(&mut self, id: &MemberId, instance: Option<&InstanceId>, outcome: &mut Outcome) -> bool {
        let before = instance.and_then(|instance| self.by_instance.get(instance)).cloned();
        if let Some(before) = before.filter(|before| before != id) {
            self.rename(&before, id.clone(), outcome);
        }
        if let Some(known) = self.members.get_mut(id) {
            known.is_away = false;
            return false;
        }
        if let Some(instance) = instance {
            self.by_instance.insert(instance.clone(), id.clone());
        }
        self.members.insert(id.clone(), Member::new(instance));
        outcome.changed.extend([Changed::Member(id.clone()), Changed::Held(id.clone())]);
        true
    }

    /// Another process of a static member: it is to have what that was to have.
    fn rename(&mut self, before: &MemberId, id: MemberId, outcome: &mut Outcome) {
        let Some(member) = self.members.remove(before) else { return };
        if let Some(instance) = &member.said.instance {
            self.by_instance.insert(instance.clone(), id.clone());
        }
        if let Some(target) = self.target.remove(before) {
            self.target.insert(id.clone(), target);
        }
        self.holders.retain(|_, holder| holder != before);
        let begins = Member { held: Held::default(), give_up_until: None, answer_until: None, ..member };
        self.members.insert(id.clone(), begins);
        for id in [before.clone(), id] {
            outcome.changed.extend([
                Changed::Member(id.clone()),
                Changed::Target(id.clone()),
                Changed::Held(id),
            ]);
        }
    }

    fn remove(&mut self, id: &MemberId, outcome: &mut Outcome) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(instance) = &member.said.instance {
            self.by_instance.remove(instance);
        }
        self.holders.retain(|_, holder| holder != id);
        if self.target.remove(id).is_some() {
            outcome.changed.insert(Changed::Target(id.clone()));
        }
        outcome.changed.extend([Changed::Member(id.clone()), Changed::Held(id.clone())]);
        self.rise(outcome);
    }

    /// There is something else to assign, or somebody else to assign it to.
    fn rise(&mut self, outcome: &mut Outcome) {
        self.epoch = self.epoch.next();
        outcome.changed.insert(Changed::Group);
    }

    /// What is read by anybody, as it is now.
    fn follow_topics(&mut self, topics: &dyn Topics, members_changed: bool, outcome: &mut Outcome) {
        if !members_changed && self.topics_seen == Some(topics.version()) {
            return;
        }
        self.topics_seen = Some(topics.version());
        let mut read = BTreeMap::new();
        for member in self.members.values_mut() {
            let subscribed = member.said.subscription.resolve(topics);
            member.reads = subscribed.keys().copied().collect();
            read.extend(subscribed);
        }
        let hash = hash_of(&read);
        // After a restart the hash says whether anything has changed meanwhile.
        let changed = hash != self.topics_hash;
        (self.topics, self.topics_hash) = (read, hash);
        if changed || members_changed {
            self.rise(outcome);
        }
    }

    /// Once the group's epoch has risen: what each member is to have.
    fn decide_target(&mut self, settings: &Settings, outcome: &mut Outcome) {
        if self.target_epoch == self.epoch {
            return;
        }
        let spec = GroupSpec {
            members: self
                .members
                .iter()
                .map(|(id, member)| {
                    let spec = MemberSpec {
                        instance: member.said.instance.clone(),
                        subscribed: member.reads.clone(),
                        assigned: self.target.get(id).cloned().unwrap_or_default(),
                    };
                    (id.clone(), spec)
                })
                .collect(),
            topics: self.topics.clone(),
        };
        let target = self.assignor().unwrap_or(settings.assignor).assign(&spec);
        let before = mem::replace(&mut self.target, target);
        for (id, assignment) in &self.target {
            if before.get(id) != Some(assignment) {
                outcome.changed.insert(Changed::Target(id.clone()));
            }
        }
        self.target_epoch = self.epoch;
        outcome.changed.insert(Changed::TargetEpoch);
    }

    /// The one that most members prefer, of those who say.
    pub fn assignor(&self) -> Option<Assignor> {
        let votes = |assignor: &Assignor| {
            self.members.values().filter(|member| member.said.assignor == Some(*assignor)).count()
        };
        let most = Assignor::ALL.into_iter().rev().max_by_key(votes)?;
        (votes(&most) > 0).then_some(most)
    }

    /// Takes a member a step towards what it is to have.
    fn reconcile(&mut self, id: &MemberId, owned: Option<&Assignment>, now: Moment, outcome: &mut Outcome) {
        let nothing = Assignment::new();
        let target = self.target.get(id).unwrap_or(&nothing);
        let Some(member) = self.members.get(id) else { return };
        let is_free =
            |topic, partition| self.holders.get(&(topic, partition)).is_none_or(|holder| holder == id);
        let next = reconcile::step(&member.held, self.target_epoch, target, owned, is_free);
        let Some(member) = self.members.get_mut(id) else { return };
        if next == member.held {
            return;
        }
        let begins_to_give_up = next.state == HeldState::Unrevoked
            && (member.held.state != HeldState::Unrevoked || next.revoking != member.held.revoking);
        if begins_to_give_up {
            member.give_up_until = Some(now + member.rebalance_timeout());
        } else if next.state != HeldState::Unrevoked {
            member.give_up_until = None;
        }
        member.held = next;
        self.holders.retain(|_, holder| holder != id);
        let has = member.held.assigned.iter().chain(&member.held.revoking);
        let has = has.flat_map(|(topic, all)| all.iter().map(|partition| (*topic, *partition)));
        self.holders.extend(has.map(|partition| (partition, id.clone())));
        outcome.changed.insert(Changed::Held(id.clone()));
    }

    /// What must hold between any two calls.
    fn check_invariants(&self) {
        debug_assert!(self.target_epoch <= self.epoch);
        let all = self.members.iter().flat_map(|(id, member)| {
            let has = member.held.assigned.iter().chain(&member.held.revoking);
            has.flat_map(move |(topic, all)| all.iter().map(move |partition| ((*topic, *partition), id)))
        });
        let mut seen = BTreeMap::new();
        for (partition, id) in all {
            debug_assert!(seen.insert(partition, id).is_none(), "{partition:?} has two holders");
        }
        debug_assert!(
            seen.iter().map(|(partition, id)| (partition, *id)).eq(self.holders.iter()),
            "who has what is known"
        );
    }
}

/// FNV-1a, of 64 bits: it is kept, so it has to be the same in each process.
fn hash_of(topics: &BTreeMap<TopicId, i32>) -> i64 {
    let bytes = topics
        .iter()
        .flat_map(|(topic, partitions)| topic.0.into_bytes().into_iter().chain(partitions.to_be_bytes()));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.cast_signed()
}

#[cfg(test)]
mod tests;
