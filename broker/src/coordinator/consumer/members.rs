//! A member of a consumer group: what it said of itself, and what it has.

use std::collections::BTreeSet;
use std::time::Duration;

use io_backend::Moment;

use super::super::assignor::Assignment;
use super::super::ids::InstanceId;
use super::reconcile::{Epoch, Held, is_within};
use super::requests::Heartbeat;
use super::stored::StoredMember;
use crate::ids::TopicId;
use crate::limits;

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it said of itself.
    pub said: StoredMember,
    /// What it has.
    pub held: Held,
    /// A static member that said that it comes back.
    pub is_away: bool,
    /// The topics that it reads, of those that there are, as of the group's epoch.
    pub(super) reads: BTreeSet<TopicId>,
    pub(super) alive_until: Moment,
    pub(super) give_up_until: Option<Moment>,
    /// Of the classic protocol: until when it is to join, or to ask for its assignment.
    pub(super) answer_until: Option<Moment>,
}

/// What a heartbeat has changed.
pub(super) struct Updated {
    /// What is kept of the member.
    pub record: bool,
    /// What it reads, or how it wants that to be assigned.
    pub subscription: bool,
}

impl Member {
    pub(super) fn new(instance: Option<&InstanceId>) -> Member {
        Member {
            said: StoredMember { instance: instance.cloned(), ..StoredMember::default() },
            held: Held::default(),
            is_away: false,
            reads: BTreeSet::new(),
            alive_until: Moment::ZERO,
            give_up_until: None,
            answer_until: None,
        }
    }

    /// Whether a member in this epoch may be told to go on: it is the one that is known, or the one before where the answer with the
    /// later one was lost, as what the member has shows.
    pub(super) fn may_say(&self, epoch: Epoch, owned: Option<&Assignment>) -> bool {
        epoch == self.held.epoch
            || (epoch == self.held.previous
                && epoch < self.held.epoch
                && owned.is_some_and(|owned| is_within(owned, &self.held.assigned)))
    }

    /// It is heard of: one of the classic protocol, which says itself for how long it may be silent.
    pub(super) fn hear(&mut self, now: Moment) {
        if let Some(classic) = &self.said.classic {
            self.alive_until = now + classic.session_timeout;
        }
    }

    /// How long it may take to give something up, or to come back to a rebalance.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        let said = self.said.rebalance_timeout;
        if self.said.classic.is_some() { said.max(limits::REBALANCE_TIMEOUT_MIN) } else { said }
    }

    /// It is told to join; it has its time for that from the first time on.
    pub(super) fn ask_to_join(&mut self, now: Moment) {
        self.answer_until.get_or_insert(now + self.rebalance_timeout());
    }

    pub(super) fn next_deadline(&self) -> Moment {
        [self.give_up_until, self.answer_until].into_iter().flatten().fold(self.alive_until, Moment::min)
    }

    /// Takes over what it says.
    pub(super) fn update(&mut self, beat: &Heartbeat) -> Updated {
        let said = &mut self.said;
        let before = said.clone();
        said.client = beat.client.clone();
        if beat.rack.is_some() {
            said.rack.clone_from(&beat.rack);
        }
        said.rebalance_timeout = beat.rebalance_timeout.unwrap_or(said.rebalance_timeout);
        if let Some(names) = &beat.subscription {
            said.subscription.names.clone_from(names);
        }
        if let Some(pattern) = &beat.pattern {
            said.subscription.pattern = (!pattern.is_empty()).then(|| pattern.clone());
        }
        said.assignor = beat.assignor.or(said.assignor);
        said.classic = None;
        let subscription = said.subscription != before.subscription || said.assignor != before.assignor;
        Updated { record: *said != before, subscription }
    }
}
