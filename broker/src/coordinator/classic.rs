//! A group of the classic protocol as a pure state machine: members join, one of them says who gets what, all are told.
//!
//! No I/O, no waiting, no clock. A request is a call with the time in it; what waits is answered by a later call, in its [`Outcome`]. `T` is
//! what an answer is given to, and every one is given an answer.
//!
//! Invariants: a join phase ends one generation and begins the next; whoever is told of a generation was a member when it began; an
//! assignment is told to those who ask for it in its generation, and to nobody after it. Where [`Outcome::changed`] is set, the group as it is then
//! has to be durable before the answers of that outcome, and of later ones, are given.
//!
//! What a restart forgets is what Kafka's does: members that were told an id and have not joined, and a join phase that had not come to an
//! assignment. Those members find their generation unknown, and join anew.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use io_backend::Moment;

use super::consumer_protocol::{ConsumerSubscription, PROTOCOL_TYPE};
use super::ids::{Generation, InstanceId, MemberId};
use crate::limits;
use crate::partition::replica_state::Now;

mod requests;
mod stored;
mod members;
mod joining;
mod syncing;
mod expiry;
mod restart;
mod migration;
mod description;

pub use description::{ClassicDescription, DescribedMember};
pub use joining::check_said;
pub use migration::{MigratingMember, one_record_holds};
pub use requests::{Client, Join, Joined, MemberError, Protocol, Sync, Synced};
pub use stored::{StoredGroup, StoredMember};

use members::{Member, Members};

/// What the operator allows to all groups.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What a member may ask for as its session time-out.
    pub session_timeout: RangeInclusive<Duration>,
    /// For how long an empty group waits for more members behind each that joins.
    pub initial_rebalance_delay: Duration,
    /// Members of a group at most.
    pub members_max: usize,
}

/// What a call decided.
#[derive(Debug)]
pub struct Outcome<T> {
    /// Members whose join phase is over.
    pub joins: Vec<(T, Result<Joined, MemberError>)>,
    /// Members whose assignment is known.
    pub syncs: Vec<(T, Result<Synced, MemberError>)>,
    /// What is to survive a restart has changed.
    pub changed: bool,
}

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Outcome { joins: Vec::new(), syncs: Vec::new(), changed: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody is a member; offsets may be here.
    Empty,
    /// Members join until all have, or until this moment.
    PreparingRebalance { until: Moment, initial: Option<InitialDelay> },
    /// All know the generation; what its leader assigns is awaited.
    CompletingRebalance,
    /// The assignment is known.
    Stable,
}

/// An empty group waits for more members than the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InitialDelay {
    /// How long it is each time.
    each: Duration,
    /// What is left of the time within which members may rejoin.
    left: Duration,
    /// Somebody has joined since this delay began.
    joined: bool,
}

/// A group whose members assign partitions among themselves.
#[derive(Debug)]
pub struct ClassicGroup<T> {
    state: State,
    /// When the state was entered, by the wall clock.
    since_ms: i64,
    generation: Generation,
    /// What the group is for, said by its first member: "consumer" where consumers are.
    protocol_type: Option<Arc<str>>,
    /// The way of assigning that this generation chose.
    protocol: Option<Arc<str>>,
    members: Members<T>,
    /// Who were told an id and have not joined with it, and until when they may.
    told: BTreeMap<MemberId, Moment>,
    /// Until then all members of the generation are to have asked for their assignment.
    sync_until: Option<Moment>,
}

impl<T> ClassicGroup<T> {
    /// A group that nobody has joined yet.
    pub fn new(now: Now) -> Self {
        ClassicGroup { protocol_type: None, ..ClassicGroup::after(Generation(0), now) }
    }

    /// A group of consumers that nobody has joined yet, whose generations follow this one.
    pub fn after(generation: Generation, now: Now) -> Self {
        ClassicGroup {
            state: State::Empty,
            since_ms: now.wall_ms,
            generation,
            protocol_type: Some(Arc::from(PROTOCOL_TYPE)),
            protocol: None,
            members: Members::default(),
            told: BTreeMap::new(),
            sync_until: None,
        }
    }

    /// Kafka's name of the state that the group is in.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::Empty => "Empty",
            State::PreparingRebalance { .. } => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }

    /// What the group is for; none where nobody ever said.
    pub fn protocol_type(&self) -> Option<&Arc<str>> {
        self.protocol_type.as_ref()
    }

    /// Since when it is in its state, by the wall clock.
    pub fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// The topics that its members read, where they are consumers and all of them are known.
    pub fn subscribed_topics(&self) -> Option<Vec<Arc<str>>> {
        let (State::Stable, Some(PROTOCOL_TYPE)) = (self.state, self.protocol_type.as_deref()) else {
            return None;
        };
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for (_, member) in self.members.iter() {
            topics.extend(ConsumerSubscription::topics(member.metadata_for(protocol))?);
        }
        Some(topics.into_iter().collect())
    }

    /// Nothing of it needs to be kept: it has no members, and never had.
    pub fn is_unused(&self) -> bool {
        self.state == State::Empty && self.generation == Generation(0) && self.told.is_empty()
    }

    /// It has no members; it may be deleted, and administrators may change its offsets.
    pub fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    /// A member says that it is there.
    ///
    /// # Errors
    /// What the member is to do instead of going on.
    pub fn heartbeat(
        &mut self,
        member: &MemberId,
        instance: Option<&InstanceId>,
        generation: Generation,
        now: Now,
    ) -> Result<(), MemberError> {
        self.check_generation(member, instance, generation)?;
        self.members.touch(member, now.moment);
        match self.state {
            State::PreparingRebalance { .. } => Err(MemberError::RebalanceInProgress),
            State::Empty | State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// Whether offsets may be committed in this member's name, or in nobody's. A commit says that the member is there.
    ///
    /// # Errors
    /// They may not.
    pub fn check_commit(
        &mut self,
        member: Option<&MemberId>,
        instance: Option<&InstanceId>,
        generation: Generation,
        now: Now,
    ) -> Result<(), MemberError> {
        if self.is_empty() && generation < Generation(0) {
            return Ok(());
        }
        let Some(member) = member else { return Err(MemberError::UnknownMember) };
        self.check_generation(member, instance, generation)?;
        // The member has not been told yet what it has, so it cannot say how far it is with it.
        if self.state == State::CompletingRebalance {
            return Err(MemberError::RebalanceInProgress);
        }
        self.members.touch(member, now.moment);
        Ok(())
    }

    /// Members leave, or an administrator removes them by their instance ids. Answers stand in the order of who is named.
    pub fn leave(
        &mut self,
        leaving: &[(Option<MemberId>, Option<InstanceId>)],
        now: Now,
        outcome: &mut Outcome<T>,
    ) -> Vec<Result<(), MemberError>> {
        let left: Vec<_> = leaving
            .iter()
            .map(|(member, instance)| self.leave_one(member.as_ref(), instance.as_ref(), outcome))
            .collect();
        if left.iter().any(Result::is_ok) {
            self.after_removal("members left", now, outcome);
        }
        self.check_invariants();
        left
    }

    /// Members that wait, when there is nothing any more that they could wait for.
    pub fn into_waiting(self) -> impl Iterator<Item = T> {
        self.members.into_iter().flat_map(|(_, member)| member.joining.into_iter().chain(member.syncing))
    }

    fn leave_one(
        &mut self,
        member: Option<&MemberId>,
        instance: Option<&InstanceId>,
        outcome: &mut Outcome<T>,
    ) -> Result<(), MemberError> {
        let member = match (member, instance) {
            (Some(member), _) if self.told.remove(member).is_some() => return Ok(()),
            (Some(member), instance) => {
                self.members.check(member, instance)?;
                member.clone()
            }
            (None, Some(instance)) => self.members.of_instance(instance).ok_or(MemberError::UnknownMember)?,
            (None, None) => return Err(MemberError::UnknownMember),
        };
        self.remove(&member, outcome);
        Ok(())
    }

    fn check_generation(
        &self,
        member: &MemberId,
        instance: Option<&InstanceId>,
        generation: Generation,
    ) -> Result<(), MemberError> {
        self.members.check(member, instance)?;
        let known = self.members.get(member).and_then(|member| member.knows).unwrap_or(self.generation);
        if generation == known { Ok(()) } else { Err(MemberError::IllegalGeneration(known)) }
    }

    /// What it waits for is answered: the client asks again, should it still be there.
    fn remove(&mut self, member: &MemberId, outcome: &mut Outcome<T>) {
        if let Some(removed) = self.members.remove(member) {
            let unknown = MemberError::UnknownMember;
            outcome.joins.extend(removed.joining.map(|ticket| (ticket, Err(unknown.clone()))));
            outcome.syncs.extend(removed.syncing.map(|ticket| (ticket, Err(unknown))));
        }
    }

    fn after_removal(&mut self, why: &str, now: Now, outcome: &mut Outcome<T>) {
        match self.state {
            State::Empty => {}
            State::PreparingRebalance { .. } => self.complete_join_if_all_are_here(now, outcome),
            State::CompletingRebalance | State::Stable => self.prepare_rebalance(why, now, outcome),
        }
    }

    fn enter(&mut self, state: State, now: Now) {
        if mem::discriminant(&self.state) != mem::discriminant(&state) {
            self.since_ms = now.wall_ms;
        }
        self.state = state;
    }

    /// What must hold between any two calls.
    fn check_invariants(&self) {
        debug_assert_eq!(
            self.members.is_empty(),
            self.members.leader().is_none(),
            "who assigns is one of the members"
        );
        match self.state {
            State::Empty => debug_assert!(self.members.is_empty(), "an empty group has no members"),
            // The last may have left while the first were waited for.
            State::PreparingRebalance { .. } => debug_assert!(self.members.none_syncs()),
            State::CompletingRebalance => {
                debug_assert!(!self.members.is_empty() && self.members.none_joins())
            }
            State::Stable => {
                debug_assert!(
                    !self.members.is_empty() && self.members.none_joins() && self.members.none_syncs()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
