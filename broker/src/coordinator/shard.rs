//! The groups that one partition of `__consumer_offsets` keeps, as a pure state machine.
//!
//! A call decides at once, on the state as it will be when all that was decided before is durable. Its driver appends the records of
//! [`Effects`] in their order, and gives an answer only when the records of its call, and of all calls before, are. Should an append
//! fail, or its outcome be unknown, nothing here is worth anything any more: a new shard loads what there is.
//!
//! Loading is [`Shard::load`], record by record, and then [`Shard::begin`]: from then on members are expected to be heard of.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use io_backend::Moment;

use super::classic::{self, ClassicGroup, Join, Joined, MemberError, StoredGroup, Sync, Synced};
use super::consumer::{
    self, Beat, ConsumerError, ConsumerGroup, ConsumerRecord, Epoch, Heartbeat, Joining, StoredConsumerGroup,
    Topics,
};
use super::ids::{Generation, GroupId, InstanceId, MemberId};
use super::offsets::{Committed, Offsets};
use super::records::CoordinatorRecord;
use super::settings::GroupSettings;
use crate::metadata::MetadataImage;
use crate::partition::replica_state::Now;

mod looking;
mod forgetting;
mod migration;

pub use looking::{GroupKind, Listed, NotDescribed, OffsetsStay};

/// What calls decided and the driver has not taken yet. `T` is what waiting members are answered by.
#[derive(Debug)]
pub struct Effects<T> {
    /// To be appended, in this order.
    pub records: Vec<CoordinatorRecord>,
    /// Members whose join phase is over.
    pub joins: Vec<(T, Result<Joined, MemberError>)>,
    /// Members whose assignment is known.
    pub syncs: Vec<(T, Result<Synced, MemberError>)>,
    /// Groups that became those of the other protocol with members in them.
    pub upgrades: u64,
    /// See `upgrades`.
    pub downgrades: u64,
}

impl<T> Default for Effects<T> {
    fn default() -> Self {
        Effects { records: Vec::new(), joins: Vec::new(), syncs: Vec::new(), upgrades: 0, downgrades: 0 }
    }
}

/// By what it is decided, beside what is asked.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Topics as they are.
    pub topics: &'a dyn Topics,
    /// What the operator allows.
    pub settings: &'a GroupSettings,
    /// Where configurations of single groups stand.
    pub image: &'a MetadataImage,
}

impl Rules<'_> {
    fn of_consumer_group(&self, id: &GroupId) -> consumer::Settings {
        self.settings.of_consumer_group(self.image.group_configs(&id.0))
    }
}

/// Who commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committer {
    /// None of who is no member: an administrator, or a consumer that assigns itself.
    pub member: Option<MemberId>,
    /// What it is called by its operator, of a static member.
    pub instance: Option<InstanceId>,
    /// Below zero of who is no member.
    pub generation: Generation,
}

/// How far a group is, partition by partition; none where it is nowhere.
pub type CommittedOffsets = Vec<(Arc<str>, i32, Option<Committed>)>;

/// Why a group stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    /// No group has this name.
    #[error("there is no such group")]
    NotFound,
    /// It has members.
    #[error("the group has members")]
    NotEmpty,
}

/// Why something is not done for a group, of either kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// As a classic group says it.
    #[error("{0}")]
    Classic(#[from] MemberError),
    /// As a consumer group says it.
    #[error("{0}")]
    Consumer(#[from] ConsumerError),
}

/// A group, and how far it is.
#[derive(Debug)]
struct Group<T> {
    members: Members<T>,
    offsets: Offsets,
    /// Records say that it is there.
    is_kept: bool,
    /// When it is to be looked at; a heartbeat may have moved that further away.
    due: Option<Moment>,
}

#[derive(Debug)]
enum Members<T> {
    Classic(ClassicGroup<T>),
    Consumer(ConsumerGroup),
}

impl<T> Group<T> {
    /// Nobody has said yet what it is for.
    fn new(now: Now) -> Self {
        let members = Members::Classic(ClassicGroup::new(now));
        Group { members, offsets: Offsets::default(), is_kept: false, due: None }
    }
}

impl<T> Members<T> {
    fn is_empty(&self) -> bool {
        match self {
            Members::Classic(group) => group.is_empty(),
            Members::Consumer(group) => group.is_empty(),
        }
    }

    fn next_deadline(&self) -> Option<Moment> {
        match self {
            Members::Classic(group) => group.next_deadline(),
            Members::Consumer(group) => group.next_deadline(),
        }
    }

    fn check_commit(&mut self, by: &Committer, now: Now) -> Result<(), GroupError> {
        match self {
            Members::Classic(group) => {
                group.check_commit(by.member.as_ref(), by.instance.as_ref(), by.generation, now)?;
            }
            Members::Consumer(group) if group.is_empty() && by.generation < Generation(0) => {}
            Members::Consumer(group) if by.member.as_ref().is_some_and(|id| group.is_classic(id)) => {
                let member = by.member.as_ref().ok_or(MemberError::UnknownMember)?;
                group.check_classic_commit(member, by.instance.as_ref(), by.generation, now.moment)?;
            }
            Members::Consumer(group) => {
                let member = by.member.as_ref().ok_or(ConsumerError::UnknownMember)?;
                group.check_commit(member, by.instance.as_ref(), Epoch(by.generation.0))?;
            }
        }
        Ok(())
    }
}

/// Owned by the task that leads the partition.
#[derive(Debug)]
pub struct Shard<T> {
    groups: BTreeMap<GroupId, Group<T>>,
    /// When which group is to be looked at.
    timers: BTreeSet<(Moment, GroupId)>,
    /// What records said of groups, until all are read.
    loaded: BTreeMap<GroupId, Loaded>,
    effects: Effects<T>,
}

#[derive(Debug)]
enum Loaded {
    Classic(StoredGroup),
    Consumer(StoredConsumerGroup),
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Shard {
            groups: BTreeMap::new(),
            timers: BTreeSet::new(),
            loaded: BTreeMap::new(),
            effects: Effects::default(),
        }
    }
}

impl<T> Shard<T> {
    /// Takes in a record that is durable. The latest of what it names counts.
    pub fn load(&mut self, record: CoordinatorRecord, now: Now) {
        match record {
            CoordinatorRecord::Offset { group, topic, partition, committed } => {
                let group = self.groups.entry(group).or_insert_with(|| Group::new(now));
                group.offsets.set(&topic, partition, committed);
            }
            CoordinatorRecord::Group { group, stored: Some(stored) } => {
                self.loaded.insert(group, Loaded::Classic(stored));
            }
            // One that became a group of the other kind is deleted as what it was.
            CoordinatorRecord::Group { group, stored: None } => {
                if let Some(Loaded::Classic(_)) = self.loaded.get(&group) {
                    self.loaded.remove(&group);
                }
            }
            CoordinatorRecord::Consumer(group, ConsumerRecord::Group(None)) => {
                if let Some(Loaded::Consumer(_)) = self.loaded.get(&group) {
                    self.loaded.remove(&group);
                }
            }
            CoordinatorRecord::Consumer(id, record) => match self.loaded.get_mut(&id) {
                Some(Loaded::Consumer(group)) => record.load(group),
                Some(Loaded::Classic(_)) | None => {
                    let mut group = StoredConsumerGroup::default();
                    record.load(&mut group);
                    // What is left of a group that is deleted says that something of it is gone.
                    if group != StoredConsumerGroup::default() {
                        self.loaded.insert(id, Loaded::Consumer(group));
                    }
                }
            },
        }
    }

    /// All records are read: groups go on. A group of which only offsets are left has no members.
    pub fn begin(&mut self, rules: &Rules<'_>, now: Now) {
        for (id, loaded) in mem::take(&mut self.loaded) {
            // Records that were left of a group when it was deleted, and outlived what said so, make none.
            if matches!(&loaded, Loaded::Consumer(stored) if stored.epoch.is_none()) {
                continue;
            }
            let group = self.groups.entry(id.clone()).or_insert_with(|| Group::new(now));
            group.members = match loaded {
                Loaded::Classic(stored) => Members::Classic(ClassicGroup::restored(stored, now.moment)),
                Loaded::Consumer(stored) => {
                    let settings = rules.of_consumer_group(&id);
                    Members::Consumer(ConsumerGroup::restored(stored, &settings, now.moment))
                }
            };
            group.is_kept = true;
            self.arm(&id);
        }
        self.groups.retain(|_, group| group.is_kept || !group.offsets.is_empty());
    }

    /// What was decided since this was asked last.
    pub fn take_effects(&mut self) -> Effects<T> {
        mem::take(&mut self.effects)
    }

    /// When [`Self::handle_time`] has something to do, at the earliest.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Does what is due.
    pub fn handle_time(&mut self, rules: &Rules<'_>, now: Now) {
        while let Some((_, id)) = self.timers.first().filter(|(due, _)| *due <= now.moment).cloned() {
            self.change(&id, |group, outcome| group.handle_time(now, outcome));
            self.change_consumer(&id, |group, outcome| group.handle_time(now.moment, outcome));
            self.downgrade(&id, rules, now);
        }
    }

    /// A member of the classic protocol joins its group; the first makes it. `fresh` is the id that it gets, should it need one.
    pub fn join(&mut self, id: &GroupId, join: Join<T>, fresh: MemberId, rules: &Rules<'_>, now: Now) {
        let settings = &rules.settings.classic;
        match self.groups.get(id).map(|group| &group.members) {
            Some(Members::Classic(_)) => {}
            Some(Members::Consumer(group)) if !group.is_empty() => {
                return self.join_consumers(id, join, fresh, rules, now);
            }
            Some(Members::Consumer(_)) | None if join.member.is_some() => {
                self.effects.joins.push((join.ticket, Err(MemberError::UnknownMember)));
                return;
            }
            Some(Members::Consumer(group)) => {
                // Who was a member before must not be taken for one of a later generation.
                let members = ClassicGroup::after(Generation(group.epoch().0), now);
                self.become_other(id, Members::Classic(members), now);
                // Whatever becomes of the join, it is known how many generations there were.
                self.change(id, |_, outcome| outcome.changed = true);
            }
            None => self.become_other(id, Members::Classic(ClassicGroup::new(now)), now),
        }
        self.change(id, |group, outcome| group.join(join, fresh, settings, now, outcome));
    }

    /// A member asks for its assignment.
    pub fn sync(&mut self, id: &GroupId, sync: Sync<T>, rules: &Rules<'_>, now: Now) {
        match self.groups.get(id).map(|group| &group.members) {
            Some(Members::Classic(_)) => self.change(id, |group, outcome| group.sync(sync, now, outcome)),
            Some(Members::Consumer(_)) => {
                let synced = self
                    .change_consumer(id, |group, _| Some(group.sync(&sync, rules.topics, now.moment)))
                    .unwrap_or(Err(MemberError::UnknownMember));
                self.effects.syncs.push((sync.ticket, synced));
            }
            None => self.effects.syncs.push((sync.ticket, Err(MemberError::UnknownMember))),
        }
    }

    /// A member of the classic protocol says that it is there.
    ///
    /// # Errors
    /// What the member is to do instead of going on.
    pub fn heartbeat(
        &mut self,
        id: &GroupId,
        member: &MemberId,
        instance: Option<&InstanceId>,
        generation: Generation,
        rules: &Rules<'_>,
        now: Now,
    ) -> Result<(), MemberError> {
        match self.groups.get_mut(id).map(|group| &mut group.members) {
            // It makes no deadline earlier: the group is looked at when it would have been, and then again.
            Some(Members::Classic(group)) => group.heartbeat(member, instance, generation, now),
            Some(Members::Consumer(_)) => {
                let (topics, now) = (rules.topics, now.moment);
                let heard = self.change_consumer(id, |group, outcome| {
                    Some(group.classic_heartbeat(member, instance, generation, topics, now, outcome))
                });
                heard.unwrap_or(Err(MemberError::UnknownMember))
            }
            None => Err(MemberError::UnknownMember),
        }
    }

    /// Members of the classic protocol leave. Answers stand in the order of who is named.
    pub fn leave(
        &mut self,
        id: &GroupId,
        leaving: &[(Option<MemberId>, Option<InstanceId>)],
        now: Now,
    ) -> Vec<Result<(), MemberError>> {
        match self.groups.get(id).map(|group| &group.members) {
            Some(Members::Classic(_)) => self.change(id, |group, outcome| group.leave(leaving, now, outcome)),
            Some(Members::Consumer(_)) => self.change_consumer(id, |group, outcome| {
                let leave = |(member, instance): &(Option<MemberId>, Option<InstanceId>)| {
                    group.classic_leave(member.as_ref(), instance.as_ref(), outcome)
                };
                leaving.iter().map(leave).collect()
            }),
            None => leaving.iter().map(|_| Err(MemberError::UnknownMember)).collect(),
        }
    }

    /// A member of a consumer group joins, or says how it is; the first makes the group.
    ///
    /// # Errors
    /// What the member is to do instead of going on. Nothing was changed.
    pub fn consumer_heartbeat(
        &mut self,
        id: &GroupId,
        beat: Heartbeat,
        rules: &Rules<'_>,
        now: Now,
    ) -> Result<Beat, ConsumerError> {
        let settings = &rules.of_consumer_group(id);
        match self.groups.get(id).map(|group| &group.members) {
            Some(Members::Consumer(_)) => {}
            Some(Members::Classic(_)) | None if beat.epoch != Joining::Join => {
                return Err(ConsumerError::UnknownMember);
            }
            Some(Members::Classic(group)) if !group.is_empty() => {
                self.upgrade(id, &beat, settings, rules, now)?;
            }
            Some(Members::Classic(group)) => {
                let members = ConsumerGroup::after(Epoch(group.generation().0));
                members.check(&beat, settings)?;
                self.become_other(id, Members::Consumer(members), now);
            }
            None => self.become_other(id, Members::Consumer(ConsumerGroup::default()), now),
        }
        let beaten = self.change_consumer(id, |group, outcome| {
            Some(group.heartbeat(beat, rules.topics, settings, now.moment, outcome))
        });
        self.drop_if_unused(id);
        beaten.unwrap_or(Err(ConsumerError::UnknownMember))
    }

    /// A member of a consumer group goes; a static one may come back.
    ///
    /// # Errors
    /// There is no such member, or another process has taken its place.
    pub fn consumer_leave(
        &mut self,
        id: &GroupId,
        member: &MemberId,
        instance: Option<&InstanceId>,
        comes_back: bool,
        rules: &Rules<'_>,
        now: Now,
    ) -> Result<(), ConsumerError> {
        let left = self
            .change_consumer(id, |group, outcome| Some(group.leave(member, instance, comes_back, outcome)));
        self.downgrade(id, rules, now);
        left.unwrap_or(Err(ConsumerError::UnknownMember))
    }

    /// A group is this far from now on. Where there is none of this name, one without members is made.
    ///
    /// # Errors
    /// Who commits may not. Nothing was changed.
    pub fn commit(
        &mut self,
        id: &GroupId,
        by: &Committer,
        offsets: Vec<(Arc<str>, i32, Committed)>,
        now: Now,
    ) -> Result<(), GroupError> {
        if !self.groups.contains_key(id) && by.generation >= Generation(0) {
            return Err(MemberError::IllegalGeneration(Generation::NONE).into());
        }
        let group = self.groups.entry(id.clone()).or_insert_with(|| Group::new(now));
        let checked = group.members.check_commit(by, now);
        if checked.is_ok() {
            for (topic, partition, committed) in offsets {
                group.offsets.set(&topic, partition, Some(committed.clone()));
                let record = CoordinatorRecord::Offset {
                    group: id.clone(),
                    topic,
                    partition,
                    committed: Some(committed),
                };
                self.effects.records.push(record);
            }
        }
        self.drop_if_unused(id);
        checked
    }

    /// Whether a member of a consumer group is told how far the group is.
    ///
    /// # Errors
    /// It is no member, or in another epoch.
    pub fn check_fetch(&self, id: &GroupId, member: &MemberId, epoch: Epoch) -> Result<(), ConsumerError> {
        match self.groups.get(id).map(|group| &group.members) {
            Some(Members::Consumer(group)) => group.check_commit(member, None, epoch),
            Some(Members::Classic(_)) | None => Ok(()),
        }
    }

    /// How far a group is in these partitions, or wherever it is; nowhere, where there is no group of this name.
    pub fn committed(&self, id: &GroupId, of: Option<Vec<(Arc<str>, i32)>>) -> CommittedOffsets {
        let offsets = self.groups.get(id).map(|group| &group.offsets);
        match (of, offsets) {
            (Some(of), offsets) => {
                let committed = |topic: &str, partition| offsets?.get(topic, partition).cloned();
                of.into_iter()
                    .map(|(topic, partition)| {
                        let committed = committed(&topic, partition);
                        (topic, partition, committed)
                    })
                    .collect()
            }
            (None, Some(offsets)) => offsets
                .iter()
                .map(|(topic, partition, committed)| (topic.clone(), partition, Some(committed.clone())))
                .collect(),
            (None, None) => Vec::new(),
        }
    }

    /// Members that wait, when there is nothing any more that they could wait for.
    pub fn into_waiting(self) -> impl Iterator<Item = T> {
        self.groups.into_values().flat_map(|group| match group.members {
            Members::Classic(group) => Some(group.into_waiting()).into_iter().flatten(),
            // Its members are answered at once.
            Members::Consumer(_) => None.into_iter().flatten(),
        })
    }

    /// A group, if there is any, goes on as one of another kind. How far it is stays; who waits is to join again.
    fn become_other(&mut self, id: &GroupId, members: Members<T>, now: Now) {
        let group = self.groups.entry(id.clone()).or_insert_with(|| Group::new(now));
        let before = mem::replace(&mut group.members, members);
        if mem::take(&mut group.is_kept) {
            self.effects.records.extend(before.tombstones(id));
        }
        if let Members::Classic(before) = before {
            let mut outcome = classic::Outcome::default();
            before.dismiss(&mut outcome);
            self.effects.joins.extend(outcome.joins);
            self.effects.syncs.extend(outcome.syncs);
        }
    }

    /// Of a classic group that is there.
    fn change<R: Default>(
        &mut self,
        id: &GroupId,
        change: impl FnOnce(&mut ClassicGroup<T>, &mut classic::Outcome<T>) -> R,
    ) -> R {
        let Some(group) = self.groups.get_mut(id) else { return R::default() };
        let Members::Classic(members) = &mut group.members else { return R::default() };
        let mut outcome = classic::Outcome::default();
        let answer = change(members, &mut outcome);
        if outcome.changed {
            group.is_kept = true;
            let stored = Some(members.stored());
            self.effects.records.push(CoordinatorRecord::Group { group: id.clone(), stored });
        }
        self.effects.joins.extend(outcome.joins);
        self.effects.syncs.extend(outcome.syncs);
        self.arm(id);
        self.drop_if_unused(id);
        answer
    }

    /// Of a consumer group that is there.
    fn change_consumer<R: Default>(
        &mut self,
        id: &GroupId,
        change: impl FnOnce(&mut ConsumerGroup, &mut consumer::Outcome) -> R,
    ) -> R {
        let Some(group) = self.groups.get_mut(id) else { return R::default() };
        let Members::Consumer(members) = &mut group.members else { return R::default() };
        let mut outcome = consumer::Outcome::default();
        let answer = change(members, &mut outcome);
        group.is_kept |= !outcome.changed.is_empty();
        let records = outcome.changed.iter().map(|changed| members.record(changed));
        let records = records.map(|record| CoordinatorRecord::Consumer(id.clone(), record));
        self.effects.records.extend(records);
        self.arm(id);
        answer
    }

    fn arm(&mut self, id: &GroupId) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let due = group.members.next_deadline();
        if due != group.due {
            if let Some(before) = mem::replace(&mut group.due, due) {
                self.timers.remove(&(before, id.clone()));
            }
            self.timers.extend(due.map(|due| (due, id.clone())));
        }
    }

    /// Who only asked leaves nothing behind.
    fn drop_if_unused(&mut self, id: &GroupId) {
        let is_unused = |group: &Group<T>| {
            let has_none = match &group.members {
                Members::Classic(group) => group.is_unused(),
                Members::Consumer(group) => group.is_empty(),
            };
            has_none && group.offsets.is_empty() && !group.is_kept
        };
        if self.groups.get(id).is_some_and(is_unused) {
            self.forget_group(id);
        }
    }
}

#[cfg(test)]
mod tests;
