//! SyncGroup: who leads the group says what each is assigned, and each is told its own.

use super::*;

impl<T> ClassicGroup<T> {
    /// A member asks for its assignment; one that leads brings those of all.
    pub fn sync(&mut self, sync: Sync<T>, now: Now, outcome: &mut Outcome<T>) {
        match self.check_sync(&sync) {
            Err(error) => outcome.syncs.push((sync.ticket, Err(error))),
            Ok(()) => self.take_sync(sync, now, outcome),
        }
        self.check_invariants();
    }

    fn check_sync(&self, sync: &Sync<T>) -> Result<(), MemberError> {
        self.check_generation(&sync.member, sync.instance.as_ref(), sync.generation)?;
        // Before what it was told is looked at: a group that has changed its protocol may choose another way of assigning.
        match self.state {
            State::Empty => return Err(MemberError::UnknownMember),
            State::PreparingRebalance { .. } => return Err(MemberError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => {}
        }
        let differs = |said: &Option<Arc<str>>, ours: &Option<Arc<str>>| {
            said.is_some() && ours.is_some() && said != ours
        };
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(MemberError::InconsistentProtocol);
        }
        let assigned: usize = sync.assignments.iter().map(|(_, assignment)| assignment.len()).sum();
        if assigned > limits::GROUP_RECORD_HALF_BYTES {
            return Err(MemberError::TooLarge);
        }
        Ok(())
    }

    fn take_sync(&mut self, sync: Sync<T>, now: Now, outcome: &mut Outcome<T>) {
        let leads = self.members.leads(&sync.member);
        let Some(member) = self.members.get_mut(&sync.member) else { return };
        member.has_synced = true;
        if let Some(before) = member.syncing.replace(sync.ticket) {
            outcome.syncs.push((before, Err(MemberError::RebalanceInProgress)));
        }
        if self.state == State::CompletingRebalance && leads {
            for (id, assignment) in sync.assignments {
                if let Some(member) = self.members.get_mut(&id) {
                    member.assignment = assignment;
                }
            }
            self.enter(State::Stable, now);
            outcome.changed = true;
        }
        if self.state == State::Stable {
            self.tell_assignments(now, outcome);
        }
        if self.members.iter().all(|(_, member)| member.has_synced) {
            self.sync_until = None;
        }
    }

    fn tell_assignments(&mut self, now: Now, outcome: &mut Outcome<T>) {
        for (_, member) in self.members.iter_mut() {
            let Some(ticket) = member.syncing.take() else { continue };
            // While it waited it was not expected to be heard of.
            member.touch(now.moment);
            let synced = Synced {
                protocol_type: self.protocol_type.clone(),
                protocol: self.protocol.clone(),
                assignment: member.assignment.clone(),
            };
            outcome.syncs.push((ticket, Ok(synced)));
        }
    }
}
