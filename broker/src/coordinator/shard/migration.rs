//! Groups that change from one protocol to the other while members are in them (KIP-848).

use super::super::classic::{ClassicGroup, Join, MemberError, one_record_holds};
use super::super::consumer::{self, ConsumerError, ConsumerGroup, Heartbeat};
use super::super::ids::{GroupId, MemberId};
use super::{Members, Rules, Shard};
use crate::partition::replica_state::Now;

impl<T> Shard<T> {
    /// A member of the classic protocol joins a group that has members of the consumer protocol.
    pub(super) fn join_consumers(
        &mut self,
        id: &GroupId,
        join: Join<T>,
        fresh: MemberId,
        rules: &Rules<'_>,
        now: Now,
    ) {
        let settings = (&rules.of_consumer_group(id), &rules.settings.classic);
        let joined = self.change_consumer(id, |group, outcome| {
            Some(group.join(&join, fresh, rules.topics, settings, now.moment, outcome))
        });
        self.effects.joins.push((join.ticket, joined.unwrap_or(Err(MemberError::UnknownMember))));
        // It may have taken the place of the last that spoke the consumer protocol.
        self.downgrade(id, rules, now);
    }

    /// The first member of the consumer protocol comes to a classic group that has members: they stay, and the coordinator assigns from
    /// now on.
    ///
    /// # Errors
    /// The group stays as it is.
    pub(super) fn upgrade(
        &mut self,
        id: &GroupId,
        beat: &Heartbeat,
        settings: &consumer::Settings,
        rules: &Rules<'_>,
        now: Now,
    ) -> Result<(), ConsumerError> {
        let Some(Members::Classic(group)) = self.groups.get(id).map(|group| &group.members) else {
            return Ok(());
        };
        if !rules.settings.migration.upgrades() {
            return Err(ConsumerError::OtherKind);
        }
        let members = group.migrating().ok_or(ConsumerError::OtherKind)?;
        let generation = group.generation();
        let upgraded = ConsumerGroup::of_migrating(members, generation, rules.topics, settings, now.moment);
        let upgraded = upgraded.ok_or(ConsumerError::OtherKind)?;
        upgraded.check(beat, settings)?;
        tracing::info!(group = %id.0, members = upgraded.members().count(), "the group goes on as a consumer group");
        self.become_other(id, Members::Consumer(upgraded), now);
        self.effects.upgrades += 1;
        self.change_consumer(id, |group, outcome| outcome.changed.extend(group.all()));
        Ok(())
    }

    /// Where only members of the classic protocol are left, they assign among themselves again.
    pub(super) fn downgrade(&mut self, id: &GroupId, rules: &Rules<'_>, now: Now) {
        let Some(Members::Consumer(group)) = self.groups.get(id).map(|group| &group.members) else { return };
        // Where they are too many for a classic group, or say too much, this stays what it is: it serves them as well.
        if !rules.settings.migration.downgrades()
            || !group.is_classic_alone(rules.settings.classic.members_max)
            || !one_record_holds(group.classic_protocols())
        {
            return;
        }
        let Some((members, generation)) = group.migrating(rules.topics) else { return };
        let Some(classic) = ClassicGroup::of_migrating(members, generation, now) else { return };
        tracing::info!(group = %id.0, "the group goes on as a classic group");
        self.become_other(id, Members::Classic(classic), now);
        self.effects.downgrades += 1;
        self.change(id, |group, outcome| group.begin_anew(now, outcome));
    }
}
