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

use super::classic::{ClassicGroup, Join, Joined, MemberError, Outcome, Settings, StoredGroup, Sync, Synced};
use super::ids::{Generation, GroupId, InstanceId, MemberId};
use super::offsets::{Committed, Forgetting, Offsets};
use super::records::CoordinatorRecord;
use crate::partition::replica_state::Now;

/// What calls decided and the driver has not taken yet. `T` is what waiting members are answered by.
#[derive(Debug)]
pub struct Effects<T> {
    /// To be appended, in this order.
    pub records: Vec<CoordinatorRecord>,
    /// Members whose join phase is over.
    pub joins: Vec<(T, Result<Joined, MemberError>)>,
    /// Members whose assignment is known.
    pub syncs: Vec<(T, Result<Synced, MemberError>)>,
}

impl<T> Default for Effects<T> {
    fn default() -> Self {
        Effects { records: Vec::new(), joins: Vec::new(), syncs: Vec::new() }
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

/// A group, and how far it is.
#[derive(Debug)]
struct Group<T> {
    members: ClassicGroup<T>,
    offsets: Offsets,
    /// A record says that it is there.
    is_kept: bool,
    /// When it is to be looked at; a heartbeat may have moved that further away.
    due: Option<Moment>,
}

impl<T> Group<T> {
    fn new(now: Now) -> Self {
        Group { members: ClassicGroup::new(now), offsets: Offsets::default(), is_kept: false, due: None }
    }
}

/// Owned by the task that leads the partition.
#[derive(Debug)]
pub struct Shard<T> {
    groups: BTreeMap<GroupId, Group<T>>,
    /// When which group is to be looked at.
    timers: BTreeSet<(Moment, GroupId)>,
    /// What a record said of groups, until all are read.
    loaded: BTreeMap<GroupId, StoredGroup>,
    effects: Effects<T>,
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
                self.loaded.insert(group, stored);
            }
            CoordinatorRecord::Group { group, stored: None } => {
                self.loaded.remove(&group);
            }
            // Nothing here writes them yet.
            CoordinatorRecord::Consumer(..) => {}
        }
    }

    /// All records are read: groups go on. A group of which only offsets are left has no members.
    pub fn begin(&mut self, now: Now) {
        for (id, stored) in mem::take(&mut self.loaded) {
            let group = self.groups.entry(id.clone()).or_insert_with(|| Group::new(now));
            group.members = ClassicGroup::restored(stored, now.moment);
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
    pub fn handle_time(&mut self, now: Now) {
        while let Some((_, id)) = self.timers.first().filter(|(due, _)| *due <= now.moment).cloned() {
            self.change(&id, |members, outcome| members.handle_time(now, outcome));
        }
    }

    /// A member joins its group; the first makes it. `fresh` is the id that the member gets, should it need one.
    pub fn join(&mut self, id: &GroupId, join: Join<T>, fresh: MemberId, settings: &Settings, now: Now) {
        if !self.groups.contains_key(id) {
            if join.member.is_some() {
                self.effects.joins.push((join.ticket, Err(MemberError::UnknownMember)));
                return;
            }
            self.groups.insert(id.clone(), Group::new(now));
        }
        self.change(id, |members, outcome| members.join(join, fresh, settings, now, outcome));
    }

    /// A member asks for its assignment.
    pub fn sync(&mut self, id: &GroupId, sync: Sync<T>, now: Now) {
        if self.groups.contains_key(id) {
            self.change(id, |members, outcome| members.sync(sync, now, outcome));
        } else {
            self.effects.syncs.push((sync.ticket, Err(MemberError::UnknownMember)));
        }
    }

    /// A member says that it is there.
    ///
    /// # Errors
    /// What the member is to do instead of going on.
    pub fn heartbeat(
        &mut self,
        id: &GroupId,
        member: &MemberId,
        instance: Option<&InstanceId>,
        generation: Generation,
        now: Now,
    ) -> Result<(), MemberError> {
        // It makes no deadline earlier: the group is looked at when it would have been, and then again.
        let group = self.groups.get_mut(id).ok_or(MemberError::UnknownMember)?;
        group.members.heartbeat(member, instance, generation, now)
    }

    /// Members leave. Answers stand in the order of who is named.
    pub fn leave(
        &mut self,
        id: &GroupId,
        leaving: &[(Option<MemberId>, Option<InstanceId>)],
        now: Now,
    ) -> Vec<Result<(), MemberError>> {
        if self.groups.contains_key(id) {
            self.change(id, |members, outcome| members.leave(leaving, now, outcome))
        } else {
            leaving.iter().map(|_| Err(MemberError::UnknownMember)).collect()
        }
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
    ) -> Result<(), MemberError> {
        if !self.groups.contains_key(id) {
            if by.generation >= Generation(0) {
                return Err(MemberError::IllegalGeneration(Generation::NONE));
            }
            self.groups.insert(id.clone(), Group::new(now));
        }
        let Some(group) = self.groups.get_mut(id) else { return Err(MemberError::UnknownMember) };
        let checked =
            group.members.check_commit(by.member.as_ref(), by.instance.as_ref(), by.generation, now);
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
        self.groups.into_values().flat_map(|group| group.members.into_waiting())
    }

    /// Forgets a group and how far it is.
    ///
    /// # Errors
    /// It stays as it is.
    pub fn delete(&mut self, id: &GroupId) -> Result<(), DeleteError> {
        let group = self.groups.get(id).ok_or(DeleteError::NotFound)?;
        if !group.members.is_empty() {
            return Err(DeleteError::NotEmpty);
        }
        let all = group.offsets.iter().map(|(topic, partition, _)| (topic.clone(), partition)).collect();
        self.forget_offsets(id, all);
        self.forget_group(id);
        Ok(())
    }

    /// A topic is no more: nobody is anywhere in it.
    pub fn handle_topic_deleted(&mut self, topic: &Arc<str>) {
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            let Some(group) = self.groups.get(&id) else { continue };
            let of_topic =
                group.offsets.of_topic(topic).map(|partition| (topic.clone(), partition)).collect();
            self.forget_offsets(&id, of_topic);
        }
    }

    /// Forgets what nobody can want any more: offsets kept for longer than `retention_ms`, and groups of which nothing is left.
    pub fn forget(&mut self, retention_ms: i64, now: Now) {
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            let Some(group) = self.groups.get(&id) else { continue };
            let over = group.offsets.forgettable(&forgetting(&group.members), retention_ms, now.wall_ms);
            self.forget_offsets(&id, over);
            let is_over = |group: &Group<T>| group.members.is_empty() && group.offsets.is_empty();
            if self.groups.get(&id).is_some_and(is_over) {
                self.forget_group(&id);
            }
        }
    }

    fn forget_offsets(&mut self, id: &GroupId, offsets: Vec<(Arc<str>, i32)>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        for (topic, partition) in offsets {
            group.offsets.set(&topic, partition, None);
            let group = id.clone();
            self.effects.records.push(CoordinatorRecord::Offset { group, topic, partition, committed: None });
        }
    }

    fn forget_group(&mut self, id: &GroupId) {
        let Some(group) = self.groups.remove(id) else { return };
        if let Some(due) = group.due {
            self.timers.remove(&(due, id.clone()));
        }
        if group.is_kept {
            self.effects.records.push(CoordinatorRecord::Group { group: id.clone(), stored: None });
        }
    }

    /// Of a group that is there.
    fn change<R: Default>(
        &mut self,
        id: &GroupId,
        change: impl FnOnce(&mut ClassicGroup<T>, &mut Outcome<T>) -> R,
    ) -> R {
        let Some(group) = self.groups.get_mut(id) else { return R::default() };
        let mut outcome = Outcome::default();
        let answer = change(&mut group.members, &mut outcome);
        if outcome.changed {
            group.is_kept = true;
            let stored = Some(group.members.stored());
            self.effects.records.push(CoordinatorRecord::Group { group: id.clone(), stored });
        }
        self.effects.joins.extend(outcome.joins);
        self.effects.syncs.extend(outcome.syncs);
        self.arm(id);
        self.drop_if_unused(id);
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
        let is_unused =
            |group: &Group<T>| group.members.is_unused() && group.offsets.is_empty() && !group.is_kept;
        if self.groups.get(id).is_some_and(is_unused) {
            self.forget_group(id);
        }
    }
}

/// Offsets of who has members are wanted, but for topics that these do not read; those of a group that nobody is in are wanted for as
/// long as somebody may come back.
fn forgetting<T>(members: &ClassicGroup<T>) -> Forgetting {
    match (members.protocol_type(), members.is_empty(), members.subscribed_topics()) {
        (None, _, _) => Forgetting::ByCommit { but: Vec::new() },
        (Some(_), true, _) => Forgetting::SinceEmpty { since_ms: members.since_ms() },
        (Some(_), false, Some(topics)) => Forgetting::ByCommit { but: topics },
        (Some(_), false, None) => Forgetting::Nothing,
    }
}

#[cfg(test)]
mod tests;
