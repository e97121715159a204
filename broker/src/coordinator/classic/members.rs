//! The members of a classic group: who they are, what they can, and who of them assigns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use io_backend::Moment;

use super::super::ids::{Generation, InstanceId, MemberId};
use super::requests::{Client, MemberError, Protocol};
use crate::limits;

#[derive(Debug)]
pub(super) struct Member<T> {
    pub instance: Option<InstanceId>,
    pub client: Client,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    /// Empty until one is made in a generation of this member.
    pub assignment: Bytes,
    /// Waits for the end of the join phase.
    pub joining: Option<T>,
    /// Waits for the assignment.
    pub syncing: Option<T>,
    /// It has asked for its assignment in this generation.
    pub has_synced: bool,
    /// The generation that it knows, where it came from a group in which each member had its own.
    pub knows: Option<Generation>,
    /// It has seen no end of a join phase: it knows no id to send heartbeats with.
    pub is_new: bool,
    /// Unless it is heard of again, or waits for us, it is gone then.
    pub alive_until: Moment,
}

impl<T> Member<T> {
    /// When it is taken for gone; nobody is who waits for an answer of ours, unless it never had one.
    pub(super) fn expires(&self) -> Option<Moment> {
        let waits = self.joining.is_some() || self.syncing.is_some();
        (self.is_new || !waits).then_some(self.alive_until)
    }

    pub(super) fn touch(&mut self, now: Moment) {
        self.alive_until = now + self.session_timeout;
    }

    /// At most what its record takes, but for its assignment.
    fn said_bytes(&self) -> usize {
        said_bytes(&self.client, self.instance.as_ref(), &self.protocols)
    }

    /// What it says to who assigns by this protocol.
    pub(super) fn metadata_for(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|one| &*one.name == protocol)
            .map(|one| one.metadata.clone())
            .unwrap_or_default()
    }
}

/// Numbers and lengths in a member's record, and an id with a name in it.
const MEMBER_BYTES: usize = 512;

/// At most what the record of a member takes that says this, but for its assignment.
pub(super) fn said_bytes(client: &Client, instance: Option<&InstanceId>, protocols: &[Protocol]) -> usize {
    // Its record has one of them, and its member keeps all.
    let metadata: usize = protocols.iter().map(|one| one.name.len() + one.metadata.len()).sum();
    MEMBER_BYTES + client.id.len() + client.host.len() + instance.map_or(0, |id| 2 * id.0.len()) + metadata
}

/// In the order of their ids, so that what is told of them does not depend on a map's order.
#[derive(Debug)]
pub(super) struct Members<T> {
    by_id: BTreeMap<MemberId, Member<T>>,
    by_instance: BTreeMap<InstanceId, MemberId>,
    /// Who assigns: the first that joined, until it leaves or is missing where a join phase ends.
    leader: Option<MemberId>,
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Members { by_id: BTreeMap::new(), by_instance: BTreeMap::new(), leader: None }
    }
}

impl<T> Members<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: &MemberId) -> Option<&Member<T>> {
        self.by_id.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &MemberId) -> Option<&mut Member<T>> {
        self.by_id.get_mut(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&MemberId, &Member<T>)> {
        self.by_id.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&MemberId, &mut Member<T>)> {
        self.by_id.iter_mut()
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (MemberId, Member<T>)> {
        self.by_id.into_iter()
    }

    pub(super) fn leader(&self) -> Option<&MemberId> {
        self.leader.as_ref()
    }

    pub(super) fn leads(&self, id: &MemberId) -> bool {
        self.leader.as_ref() == Some(id)
    }

    /// At most what their records take, but for assignments and for this member.
    pub(super) fn said_bytes_but(&self, but: Option<&MemberId>) -> usize {
        let others = self.by_id.iter().filter(|(id, _)| Some(*id) != but);
        others.map(|(_, member)| member.said_bytes()).sum()
    }

    pub(super) fn of_instance(&self, instance: &InstanceId) -> Option<MemberId> {
        self.by_instance.get(instance).cloned()
    }

    pub(super) fn joining(&self) -> usize {
        self.by_id.values().filter(|member| member.joining.is_some()).count()
    }

    pub(super) fn none_joins(&self) -> bool {
        self.joining() == 0
    }

    pub(super) fn none_syncs(&self) -> bool {
        self.by_id.values().all(|member| member.syncing.is_none())
    }

    /// Whether a request in this name is the member's.
    pub(super) fn check(&self, id: &MemberId, instance: Option<&InstanceId>) -> Result<(), MemberError> {
        match instance.map(|instance| self.by_instance.get(instance)) {
            Some(None) => Err(MemberError::UnknownMember),
            Some(Some(holder)) if holder != id => Err(MemberError::FencedInstance),
            Some(Some(_)) | None if self.by_id.contains_key(id) => Ok(()),
            Some(Some(_)) | None => Err(MemberError::UnknownMember),
        }
    }

    pub(super) fn touch(&mut self, id: &MemberId, now: Moment) {
        if let Some(member) = self.by_id.get_mut(id) {
            member.touch(now);
        }
    }

    pub(super) fn insert(&mut self, id: MemberId, member: Member<T>) {
        if let Some(instance) = &member.instance {
            self.by_instance.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.by_id.insert(id, member);
    }

    pub(super) fn remove(&mut self, id: &MemberId) -> Option<Member<T>> {
        let removed = self.by_id.remove(id)?;
        if let Some(instance) = &removed.instance {
            self.by_instance.remove(instance);
        }
        if self.leads(id) {
            self.leader = self.by_id.keys().next().cloned();
        }
        Some(removed)
    }

    /// A static member has another id from now on; who assigns goes with it.
    pub(super) fn rename(&mut self, before: &MemberId, id: MemberId) {
        let Some(member) = self.by_id.remove(before) else { return };
        if self.leads(before) {
            self.leader = Some(id.clone());
        }
        self.insert(id, member);
    }

    pub(super) fn lead_as(&mut self, leader: Option<MemberId>) {
        self.leader =
            leader.filter(|id| self.by_id.contains_key(id)).or_else(|| self.by_id.keys().next().cloned());
    }

    /// Where a join phase ends, who assigns is one who waits for that. False where nobody does.
    pub(super) fn elect_one_who_joins(&mut self) -> bool {
        let joins = |id: &MemberId| self.by_id.get(id).is_some_and(|member| member.joining.is_some());
        if !self.leader.as_ref().is_some_and(joins) {
            let Some(other) = self.by_id.keys().find(|id| joins(id)).cloned() else { return false };
            self.leader = Some(other);
        }
        true
    }

    /// The longest that any member needs to come back to a rebalance.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        let longest = self.by_id.values().map(|member| member.rebalance_timeout).max();
        longest.unwrap_or_default().max(limits::REBALANCE_TIMEOUT_MIN)
    }

    /// Protocols that all members know.
    fn in_common(&self) -> BTreeSet<&str> {
        let names_of =
            |member: &Member<T>| member.protocols.iter().map(|one| one.name.clone()).collect::<BTreeSet<_>>();
        let mut members = self.by_id.values();
        let Some(first) = members.next() else { return BTreeSet::new() };
        let others: Vec<_> = members.map(names_of).collect();
        let names = first.protocols.iter().map(|one| &*one.name);
        names.filter(|name| others.iter().all(|known| known.contains(*name))).collect()
    }

    /// Whether these leave a protocol that all know.
    pub(super) fn can_do_with(&self, protocols: &[Protocol]) -> bool {
        let in_common = self.in_common();
        protocols.iter().any(|one| in_common.contains(&*one.name))
    }

    /// Each member votes for what it likes most of what all know; the name decides between equals.
    pub(super) fn choose_protocol(&self) -> Option<Arc<str>> {
        let in_common = self.in_common();
        let mut votes = BTreeMap::<&Arc<str>, usize>::new();
        for member in self.by_id.values() {
            let vote = member.protocols.iter().find(|one| in_common.contains(&*one.name));
            *votes.entry(&vote?.name).or_default() += 1;
        }
        votes.into_iter().rev().max_by_key(|(_, votes)| *votes).map(|(name, _)| name.clone())
    }
}
