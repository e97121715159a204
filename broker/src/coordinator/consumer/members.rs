//! A member of a consumer group: what it said of itself, and what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use io_backend::Moment;

use super::super::assignor::{Assignment, Assignor};
use super::super::ids::InstanceId;
use super::reconcile::{Epoch, Held, is_within};
use super::requests::{Heartbeat, MemberClient};
use super::topics::Topics;
use crate::ids::TopicId;

/// What a member reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Names of topics, of those that there are and others.
    pub names: BTreeSet<Arc<str>>,
    /// An expression for more of them.
    pub pattern: Option<Arc<str>>,
}

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it is called by its operator, of a static member.
    pub instance: Option<InstanceId>,
    /// Where it stands.
    pub rack: Option<Arc<str>>,
    /// Who it is to people.
    pub client: MemberClient,
    /// How long it may need to give up a partition.
    pub rebalance_timeout: Duration,
    /// What it reads.
    pub subscription: Subscription,
    /// How it wants to be assigned.
    pub assignor: Option<Assignor>,
    /// What it has.
    pub held: Held,
    /// A static member that said that it comes back.
    pub is_away: bool,
    /// The topics that it reads, of those that there are, as of the group's epoch.
    pub(super) reads: BTreeSet<TopicId>,
    pub(super) alive_until: Moment,
    pub(super) give_up_until: Option<Moment>,
}

/// What a heartbeat has changed.
pub(super) struct Updated {
    /// What is kept of the member.
    pub record: bool,
    /// What it reads, or how it wants that to be assigned.
    pub subscription: bool,
}

impl Member {
    pub(super) fn new(beat: &Heartbeat) -> Member {
        Member {
            instance: beat.instance.clone(),
            rack: None,
            client: MemberClient::default(),
            rebalance_timeout: Duration::ZERO,
            subscription: Subscription::default(),
            assignor: None,
            held: Held::default(),
            is_away: false,
            reads: BTreeSet::new(),
            alive_until: Moment::ZERO,
            give_up_until: None,
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

    pub(super) fn next_deadline(&self) -> Moment {
        self.give_up_until.map_or(self.alive_until, |until| until.min(self.alive_until))
    }

    /// Takes over what it says.
    pub(super) fn update(&mut self, beat: &Heartbeat) -> Updated {
        let before = self.clone();
        self.client = beat.client.clone();
        if beat.rack.is_some() {
            self.rack.clone_from(&beat.rack);
        }
        self.rebalance_timeout = beat.rebalance_timeout.unwrap_or(self.rebalance_timeout);
        if let Some(names) = &beat.subscription {
            self.subscription.names.clone_from(names);
        }
        if let Some(pattern) = &beat.pattern {
            self.subscription.pattern = (!pattern.is_empty()).then(|| pattern.clone());
        }
        self.assignor = beat.assignor.or(self.assignor);
        let subscription = self.subscription != before.subscription || self.assignor != before.assignor;
        let record = subscription
            || self.client != before.client
            || self.rack != before.rack
            || self.rebalance_timeout != before.rebalance_timeout;
        Updated { record, subscription }
    }
}

impl Subscription {
    /// The topics among those that there are, with their numbers of partitions.
    pub(super) fn resolve(&self, topics: &dyn Topics) -> BTreeMap<TopicId, i32> {
        let named = self.names.iter().filter_map(|name| topics.of_name(name));
        let matched = self.pattern.iter().filter_map(|pattern| regex::Regex::new(pattern).ok());
        named.chain(matched.flat_map(|pattern| topics.matching(&pattern))).collect()
    }
}
