//! What time does to a group: members that are silent, and phases that end.

use super::*;

impl<T> ClassicGroup<T> {
    /// When [`Self::handle_time`] has something to do, at the earliest. A heartbeat only moves it further away.
    pub fn next_deadline(&self) -> Option<Moment> {
        let phase = match self.state {
            State::PreparingRebalance { until, .. } => Some(until),
            State::Empty | State::CompletingRebalance | State::Stable => self.sync_until,
        };
        let members = self.members.iter().filter_map(|(_, member)| member.expires());
        self.told.values().copied().chain(members).chain(phase).min()
    }

    /// Does what is due.
    pub fn handle_time(&mut self, now: Now, outcome: &mut Outcome<T>) {
        self.expire_members(now, outcome);
        if self.sync_until.is_some_and(|until| until <= now.moment) {
            self.handle_sync_time(now, outcome);
        }
        if let State::PreparingRebalance { until, .. } = self.state
            && until <= now.moment
        {
            self.handle_join_time(now, outcome);
        }
        self.check_invariants();
    }

    fn expire_members(&mut self, now: Now, outcome: &mut Outcome<T>) {
        let told = self.told.len();
        self.told.retain(|_, until| *until > now.moment);
        let is_over = |member: &Member<T>| member.expires().is_some_and(|at| at <= now.moment);
        let silent: Vec<_> =
            self.members.iter().filter(|(_, member)| is_over(member)).map(|(id, _)| id.clone()).collect();
        for id in &silent {
            self.remove(id, outcome);
        }
        if !silent.is_empty() {
            self.after_removal("members were silent for too long", now, outcome);
        } else if self.told.len() < told {
            self.complete_join_if_all_are_here(now, outcome);
        }
    }

    /// Who was told of the generation and did not ask for its assignment is no member of it.
    fn handle_sync_time(&mut self, now: Now, outcome: &mut Outcome<T>) {
        let missing: Vec<_> =
            self.members.iter().filter(|(_, member)| !member.has_synced).map(|(id, _)| id.clone()).collect();
        for id in &missing {
            self.remove(id, outcome);
        }
        self.prepare_rebalance("members did not ask for their assignments", now, outcome);
    }
}
