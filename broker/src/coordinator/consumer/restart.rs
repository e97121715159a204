//! What is kept of a consumer group while it lives, and how one goes on from that.

use super::*;

impl Changed {
    /// Nothing of it is kept any more.
    pub fn tombstone(self) -> ConsumerRecord {
        match self {
            Changed::Group => ConsumerRecord::Group(None),
            Changed::Member(id) => ConsumerRecord::Member(id, None),
            Changed::TargetEpoch => ConsumerRecord::TargetEpoch(None),
            Changed::Target(id) => ConsumerRecord::Target(id, None),
            Changed::Held(id) => ConsumerRecord::Held(id, None),
        }
    }
}

impl ConsumerGroup {
    /// What is kept of a part of it, as it is now.
    pub fn record(&self, of: &Changed) -> ConsumerRecord {
        match of {
            Changed::Group => ConsumerRecord::Group(Some((self.epoch, self.topics_hash))),
            Changed::Member(id) => {
                ConsumerRecord::Member(id.clone(), self.members.get(id).map(|member| member.said.clone()))
            }
            Changed::TargetEpoch => ConsumerRecord::TargetEpoch(Some(self.target_epoch)),
            Changed::Target(id) => ConsumerRecord::Target(id.clone(), self.target.get(id).cloned()),
            Changed::Held(id) => {
                let held = self.members.get(id).map(|member| (member.held.clone(), member.is_away));
                ConsumerRecord::Held(id.clone(), held)
            }
        }
    }

    /// A group goes on as it was kept; its members have one session time-out to be heard of, and the time to give up from now on.
    pub fn restored(stored: StoredConsumerGroup, settings: &Settings, now: Moment) -> Self {
        let (epoch, topics_hash) = stored.epoch.unwrap_or_default();
        let mut held = stored.held;
        let mut group = ConsumerGroup {
            epoch,
            topics_hash,
            target_epoch: stored.target_epoch,
            target: stored.target,
            ..ConsumerGroup::default()
        };
        for (id, member) in stored.members {
            let (held, is_away) = held.remove(&id).unwrap_or_default();
            if let Some(instance) = &member.instance {
                group.by_instance.insert(instance.clone(), id.clone());
            }
            let has = held.assigned.iter().chain(&held.revoking);
            let has = has.flat_map(|(topic, all)| all.iter().map(|partition| (*topic, *partition)));
            group.holders.extend(has.map(|partition| (partition, id.clone())));
            let gives_up = held.state == HeldState::Unrevoked;
            let session_timeout =
                member.classic.as_ref().map_or(settings.session_timeout, |classic| classic.session_timeout);
            let mut restored = Member {
                said: member,
                held,
                is_away,
                reads: BTreeSet::new(),
                alive_until: now + session_timeout,
                give_up_until: None,
                answer_until: None,
            };
            restored.give_up_until = gives_up.then(|| now + restored.rebalance_timeout());
            group.members.insert(id, restored);
        }
        group.check_invariants();
        group
    }
}
