//! The two ends of what a follower has asked a leader for. Pure.
//!
//! What is asked for stays asked for until it is answered, or forgotten; what was answered is asked for again. So a fetch says only
//! what changed, and one of partitions without traffic says nothing. Both number what the follower says: where something was
//! lost the session is over, and the next one begins with everything.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use io_backend::Moment;

use super::protocol::{Answer, Answered, Fetch, Position, SessionId, SyncedUpTo};
use crate::ids::{BrokerEpoch, LeaderEpoch, PartitionId};
use crate::partition::{Durable, LogState};

/// The end of the follower.
#[derive(Debug)]
pub struct FollowerSession {
    id: SessionId,
    next: u64,
    /// Asked for, and not answered.
    asked: BTreeSet<PartitionId>,
    /// What the next fetch says.
    asks: BTreeMap<PartitionId, Position>,
    forgets: BTreeSet<PartitionId>,
    /// Since when there is something in `asks`.
    asks_since: Option<Moment>,
    /// The latest fetch that is not answered.
    unanswered: Option<u64>,
    /// Answers that have come.
    answers: u64,
}

impl FollowerSession {
    /// Begins, with nothing asked for.
    pub fn begin(id: SessionId) -> FollowerSession {
        FollowerSession {
            id,
            next: 0,
            asked: BTreeSet::new(),
            asks: BTreeMap::new(),
            forgets: BTreeSet::new(),
            asks_since: None,
            unanswered: None,
            answers: 0,
        }
    }

    /// Which one it is.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Asks for what follows this position, instead of what was asked for before.
    pub fn ask(&mut self, partition: PartitionId, position: Position, now: Moment) {
        self.forgets.remove(&partition);
        self.asks.insert(partition, position);
        self.asks_since.get_or_insert(now);
    }

    /// Wants nothing more of it.
    pub fn forget(&mut self, partition: PartitionId) {
        self.asks.remove(&partition);
        if self.asks.is_empty() {
            // Nobody waits for what was taken back.
            self.asks_since = None;
        }
        if self.asked.contains(&partition) {
            self.forgets.insert(partition);
        }
    }

    /// Whether anything was said in it.
    pub fn has_begun(&self) -> bool {
        self.next > 0
    }

    /// Whether the next fetch has something to say.
    pub fn has_news(&self) -> bool {
        !self.asks.is_empty() || !self.forgets.is_empty()
    }

    /// Since when something waits to be asked for, with more.
    pub fn asks_since(&self) -> Option<Moment> {
        self.asks_since
    }

    /// Whether a fetch is to be answered.
    pub fn waits(&self) -> bool {
        self.unanswered.is_some()
    }

    /// The next fetch.
    pub fn fetch(&mut self, broker_epoch: BrokerEpoch, takes_records: bool) -> Fetch {
        let forgotten = std::mem::take(&mut self.forgets);
        self.asked.retain(|partition| !forgotten.contains(partition));
        let forgotten = forgotten.into_iter().collect();
        let asked: Vec<(PartitionId, Position)> = std::mem::take(&mut self.asks).into_iter().collect();
        self.asks_since = None;
        self.asked.extend(asked.iter().map(|(partition, _)| *partition));
        let sequence = self.number();
        self.unanswered = Some(sequence);
        Fetch { session: self.id, sequence, takes_records, broker_epoch, asked, forgotten }
    }

    /// What is told of syncs that completed. What waits to be asked for says it, too: the later message counts.
    pub fn synced(
        &mut self,
        reports: Vec<(PartitionId, LeaderEpoch, Durable)>,
        takes_records: bool,
    ) -> SyncedUpTo {
        for (partition, epoch, durable) in &reports {
            if let Some(position) = self.asks.get_mut(partition)
                && position.epoch == *epoch
            {
                position.durable = durable.within(position.offset);
            }
        }
        SyncedUpTo { session: self.id, sequence: self.number(), takes_records, reports }
    }

    /// Whether the answer is of this session. What it answers is not asked for any more.
    ///
    /// # Errors
    ///
    /// One before it has not come: the leader takes for answered what is still waited for here.
    pub fn handle_answer(&mut self, answer: &Answer) -> Result<bool, Lost> {
        if answer.session != self.id {
            return Ok(false);
        }
        if answer.number != self.answers {
            return Err(Lost);
        }
        self.answers += 1;
        if self.unanswered.is_some_and(|sequence| sequence <= answer.sequence) {
            self.unanswered = None;
        }
        for (partition, ..) in &answer.partitions {
            self.asked.remove(partition);
        }
        Ok(true)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

/// Something of a session was lost on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// What a follower has asked for of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub position: Position,
    /// Nobody has compared it with the leader's log yet.
    pub fresh: bool,
}

impl Asked {
    /// Whether there may be something to answer, where the leader's log stands there.
    fn is_answered_by(&self, state: Option<LogState>) -> bool {
        let Some(state) = state.filter(|state| state.leading && state.epoch == self.position.epoch) else {
            return false;
        };
        self.fresh || state.log_end > self.position.offset || state.marks().is_news_after(self.position.told)
    }
}

/// The end of the leader.
#[derive(Debug)]
pub struct LeaderSession {
    id: SessionId,
    next: u64,
    asked: BTreeMap<PartitionId, Asked>,
    /// Of these there may be something to answer.
    due: BTreeSet<PartitionId>,
    /// Who was given records last: the others come first.
    after: Option<PartitionId>,
    /// The latest fetch, while it is not answered.
    owed: Option<u64>,
    /// Answers that were given.
    answers: u64,
}

impl LeaderSession {
    /// Begins with the first fetch of a follower, which says everything; nothing where it is another.
    pub fn begin(fetch: &Fetch) -> Option<LeaderSession> {
        let session = LeaderSession {
            id: fetch.session,
            next: 0,
            asked: BTreeMap::new(),
            due: BTreeSet::new(),
            after: None,
            owed: None,
            answers: 0,
        };
        (fetch.sequence == 0).then_some(session)
    }

    /// Which one it is.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Takes what a fetch says; `state` tells where a log stands.
    ///
    /// # Errors
    ///
    /// Something that the follower had said before has not come.
    pub fn handle_fetch(
        &mut self,
        fetch: &Fetch,
        state: impl Fn(PartitionId) -> Option<LogState>,
    ) -> Result<(), Lost> {
        self.handle_number(fetch.sequence)?;
        self.owed = Some(fetch.sequence);
        for partition in &fetch.forgotten {
            self.asked.remove(partition);
            self.due.remove(partition);
        }
        for (partition, position) in &fetch.asked {
            self.asked.insert(*partition, Asked { position: *position, fresh: true });
            self.due.remove(partition);
            self.handle_moved(*partition, state(*partition));
        }
        Ok(())
    }

    /// Takes the number of a report.
    ///
    /// # Errors
    ///
    /// Something that the follower had said before has not come.
    pub fn handle_synced(&mut self, synced: &SyncedUpTo) -> Result<(), Lost> {
        self.handle_number(synced.sequence)
    }

    fn handle_number(&mut self, sequence: u64) -> Result<(), Lost> {
        if sequence != self.next {
            return Err(Lost);
        }
        self.next += 1;
        Ok(())
    }

    /// The log of a partition stands there now.
    pub fn handle_moved(&mut self, partition: PartitionId, state: Option<LogState>) {
        if self.asked.get(&partition).is_some_and(|asked| asked.is_answered_by(state)) {
            self.due.insert(partition);
        }
    }

    /// Whether there may be something to answer.
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// All of which there may be something to answer, whose turn it is first. They are not due any more.
    pub fn take_due(&mut self) -> Vec<(PartitionId, Asked)> {
        let due = std::mem::take(&mut self.due);
        let from = self.after.map_or(Bound::Unbounded, Bound::Excluded);
        let first = due.range((from, Bound::Unbounded));
        let then = self.after.map(|after| due.range(..=after)).into_iter().flatten();
        first.chain(then).filter_map(|id| Some((*id, *self.asked.get(id)?))).collect()
    }

    /// The position that was asked from is in the leader's log. What is answered otherwise is asked for still.
    pub fn handle_compared(&mut self, partition: PartitionId, asked: &Asked) {
        if let Some(now) = self.asked.get_mut(&partition)
            && now == asked
        {
            now.fresh = false;
        }
    }

    /// There was no room for it in the answer.
    pub fn handle_left(&mut self, partition: PartitionId) {
        if self.asked.contains_key(&partition) {
            self.due.insert(partition);
        }
    }

    /// Whether what was found for this is still what is asked for.
    pub fn is_asked(&self, partition: PartitionId, position: &Position) -> bool {
        self.asked.get(&partition).is_some_and(|asked| asked.position == *position)
    }

    /// Whether a fetch waits for an answer.
    pub fn owes(&self) -> bool {
        self.owed.is_some()
    }

    /// Answers the latest fetch, with what was found; `last` of these was given records last. The fetch must be owed.
    pub fn answer(&mut self, partitions: Vec<Answered>, last: Option<PartitionId>) -> Answer {
        let sequence = self.owed.take().expect("who answers looks whether a fetch waits");
        self.after = last.or(self.after);
        for (partition, ..) in &partitions {
            self.asked.remove(partition);
            self.due.remove(partition);
        }
        let number = self.answers;
        self.answers += 1;
        Answer { session: self.id, sequence, number, partitions }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
