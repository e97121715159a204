//! Which messages of peers are listened to, decided.
//!
//! The `raft` crate takes its peers at their word, and gives up where one of them is mistaken about this node: what it
//! could not go on after is not let through. A node without a group hears only what brings it into one.

use raft::eraftpb::{Message, MessageType};

use super::capacity::Capacity;

pub(super) struct Listener {
    pub(super) id: u64,
    /// Index of the last entry of its log.
    pub(super) last: u64,
    /// What a heartbeat may tell anew.
    pub(super) known: Known,
    pub(super) has_group: bool,
    /// It has no vote, and what it acknowledges counts for nothing.
    pub(super) learns: bool,
    pub(super) capacity: Capacity,
    /// A leader's snapshot is on its way to the disk.
    pub(super) restores: bool,
    /// As many entries as it may hold wait for the journal.
    pub(super) is_full: bool,
}

/// Who leads in which term, and what is committed, as far as a member knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) leader: u64,
    pub(super) term: u64,
    pub(super) committed: u64,
}

/// Why a message is dropped. All of them are said again, where they are still true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unheard {
    NotForUs,
    /// No message that members send one another.
    NoneOfTheGroup,
    /// It asks for what this node may not give now.
    MayNot,
    /// It is said for an answer, which waits behind the disk as the one before does: each step more takes memory.
    NothingNew,
    /// It would have to be held until the disk has taken what came before.
    Full,
    /// It speaks of a log that this node does not have: it was wiped, or is taken for another.
    MistakenIdentity,
    Malformed,
}

/// A learner may have less than its leader believes: its directory was lost, and it has begun again with a snapshot of before. It
/// hears heartbeats for what it has, and answers them, for a leader that is not answered sends nothing more.
pub(super) fn bound(message: &mut Message, listener: &Listener) {
    if message.get_msg_type() == MessageType::MsgHeartbeat && listener.has_group && listener.learns {
        message.commit = message.commit.min(listener.last);
    }
}

pub(super) fn hear(message: &Message, listener: &Listener) -> Result<(), Unheard> {
    if message.to != listener.id || message.from == listener.id || message.from == raft::INVALID_ID {
        return Err(Unheard::NotForUs);
    }
    if message.term == 0 {
        // The crate takes it for one of this node's own.
        return Err(Unheard::NoneOfTheGroup);
    }
    match message.get_msg_type() {
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote if !listener.capacity.votes => {
            Err(Unheard::MayNot)
        }
        MessageType::MsgTimeoutNow if !listener.capacity.campaigns => Err(Unheard::MayNot),
        MessageType::MsgHeartbeat if message.commit > listener.last => Err(Unheard::MistakenIdentity),
        MessageType::MsgHeartbeat if listener.is_stalled() && !listener.known.is_news(message) => {
            Err(Unheard::NothingNew)
        }
        MessageType::MsgAppend => hear_entries(message, listener),
        MessageType::MsgSnapshot => hear_snapshot(message, listener),
        MessageType::MsgRequestVote
        | MessageType::MsgRequestPreVote
        | MessageType::MsgTimeoutNow
        | MessageType::MsgHeartbeat
        | MessageType::MsgAppendResponse
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVoteResponse => Ok(()),
        _ => Err(Unheard::NoneOfTheGroup),
    }
}

impl Listener {
    fn is_stalled(&self) -> bool {
        self.has_group && !self.capacity.votes
    }
}

impl Known {
    fn is_news(&self, heartbeat: &Message) -> bool {
        let same = heartbeat.from == self.leader && heartbeat.term == self.term;
        !same || heartbeat.commit > self.committed
    }
}

fn hear_entries(message: &Message, listener: &Listener) -> Result<(), Unheard> {
    if !message.entries.iter().map(|entry| entry.index).eq((message.index + 1..).take(message.entries.len()))
    {
        return Err(Unheard::Malformed);
    }
    if !listener.has_group && message.index == 0 {
        // The log alone does not say who its first members were.
        return Err(Unheard::MayNot);
    }
    match listener.is_full && !message.entries.is_empty() {
        true => Err(Unheard::Full),
        false => Ok(()),
    }
}

fn hear_snapshot(message: &Message, listener: &Listener) -> Result<(), Unheard> {
    if listener.restores || listener.is_full {
        return Err(Unheard::Full);
    }
    let conf = message.get_snapshot().get_metadata().get_conf_state();
    if !listener.has_group && !conf.learners.contains(&listener.id) {
        // Others count on the votes of a voter, and this node has forgotten any that it gave. It is to be
        // removed and to come as a learner.
        return Err(Unheard::MistakenIdentity);
    }
    match message.get_snapshot().get_metadata().index {
        0 => Err(Unheard::Malformed),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use MessageType::*;
    use raft::eraftpb::Entry;

    use super::*;
    use crate::raft::capacity::Leader;

    fn message(kind: MessageType) -> Message {
        let mut message = Message { from: 1, to: 2, term: 5, index: 3, commit: 3, ..Message::default() };
        message.set_msg_type(kind);
        message
    }

    fn append(index: u64, entries: &[u64]) -> Message {
        let entry = |index: &u64| Entry { index: *index, term: 5, ..Entry::default() };
        let mut message = Message { index, ..message(MsgAppend) };
        message.set_entries(entries.iter().map(entry).collect());
        message
    }

    fn snapshot(voters: &[u64], learners: &[u64]) -> Message {
        let mut message = message(MsgSnapshot);
        let metadata = message.mut_snapshot().mut_metadata();
        metadata.index = 3;
        metadata.mut_conf_state().set_voters(voters.to_vec());
        metadata.mut_conf_state().set_learners(learners.to_vec());
        message
    }

    fn member() -> Listener {
        Listener {
            id: 2,
            last: 3,
            known: Known { leader: 1, term: 5, committed: 3 },
            has_group: true,
            learns: false,
            capacity: Capacity { votes: true, campaigns: true, leader: Leader::Stays },
            restores: false,
            is_full: false,
        }
    }

    #[test]
    fn a_learner_hears_of_no_more_than_it_has_and_nobody_else_is_told_less() {
        let learner = Listener { learns: true, ..member() };
        let empty = Listener { has_group: false, last: 0, ..member() };
        for (listener, commit) in [(learner, 3), (member(), 9), (empty, 9)] {
            let mut heartbeat = Message { commit: 9, ..message(MsgHeartbeat) };
            bound(&mut heartbeat, &listener);
            assert_eq!(heartbeat.commit, commit);
            let mut entries = Message { commit: 9, ..append(3, &[4]) };
            bound(&mut entries, &listener);
            assert_eq!(entries.commit, 9);
        }
    }

    #[test]
    fn what_is_heard() {
        use Unheard::*;
        let may = |votes, campaigns| Capacity { votes, campaigns, leader: Leader::Stays };
        let without_group =
            || Listener { has_group: false, capacity: may(false, false), last: 0, ..member() };
        let stalled = || Listener { capacity: may(false, false), ..member() };
        let restoring = || Listener { restores: true, capacity: may(true, false), ..member() };
        let full = || Listener { is_full: true, ..member() };
        let less = Known { committed: 2, ..member().known };
        let table = [
            (message(MsgAppendResponse), member(), Ok(())),
            (Message { to: 3, ..message(MsgHeartbeat) }, member(), Err(NotForUs)),
            (Message { from: 2, ..message(MsgHeartbeat) }, member(), Err(NotForUs)),
            (Message { from: 0, ..message(MsgHeartbeat) }, member(), Err(NotForUs)),
            (Message { term: 0, ..message(MsgHeartbeat) }, member(), Err(NoneOfTheGroup)),
            (message(MsgPropose), member(), Err(NoneOfTheGroup)),
            (message(MsgHup), member(), Err(NoneOfTheGroup)),
            (message(MsgHeartbeat), member(), Ok(())),
            (Message { commit: 4, ..message(MsgHeartbeat) }, member(), Err(MistakenIdentity)),
            (append(3, &[4, 5]), member(), Ok(())),
            (append(3, &[4, 6]), member(), Err(Malformed)),
            (append(3, &[3]), member(), Err(Malformed)),
            (append(3, &[4]), full(), Err(Full)),
            (append(3, &[]), full(), Ok(())),
            (snapshot(&[1, 2], &[]), member(), Ok(())),
            (snapshot(&[1, 2], &[]), restoring(), Err(Full)),
            (snapshot(&[1, 2], &[]), full(), Err(Full)),
            (message(MsgRequestVote), stalled(), Err(MayNot)),
            (message(MsgRequestPreVote), stalled(), Err(MayNot)),
            (message(MsgTimeoutNow), stalled(), Err(MayNot)),
            (append(3, &[4]), stalled(), Ok(())),
            (message(MsgHeartbeat), stalled(), Err(NothingNew)),
            (Message { term: 6, ..message(MsgHeartbeat) }, stalled(), Ok(())),
            (Message { from: 3, ..message(MsgHeartbeat) }, stalled(), Ok(())),
            (message(MsgHeartbeat), Listener { last: 4, known: less, ..stalled() }, Ok(())),
            (message(MsgRequestVote), restoring(), Ok(())),
            (message(MsgTimeoutNow), restoring(), Err(MayNot)),
            (message(MsgRequestVote), without_group(), Err(MayNot)),
            (append(0, &[1]), without_group(), Err(MayNot)),
            (append(3, &[4]), without_group(), Ok(())),
            (message(MsgHeartbeat), without_group(), Err(MistakenIdentity)),
            (snapshot(&[1], &[2]), without_group(), Ok(())),
            (snapshot(&[1, 2], &[]), without_group(), Err(MistakenIdentity)),
        ];
        for (number, (message, listener, expected)) in table.into_iter().enumerate() {
            assert_eq!(hear(&message, &listener), expected, "{number}: {:?}", message.get_msg_type());
        }
    }
}
