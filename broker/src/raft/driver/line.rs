//! What waits for the journal, in order: the line of what a step has to get durable, and what follows from it.
//!
//! A message that says something of a term, a vote or the log stands behind what makes it true, and leaves when
//! all before it is durable. A step that needs nothing durable has its place too: behind what stands before it.

use std::collections::VecDeque;

use raft::eraftpb::{Message, Snapshot};

use crate::ids::Lsn;
use crate::journal::{JournalEntry, entry_bytes};
use crate::limits;

/// What the journal takes in one submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubmissionMax {
    pub(crate) entries: usize,
    /// As they are written.
    pub(crate) bytes: usize,
}

/// What a step has to get durable, or a part of that.
#[derive(Default)]
pub(super) struct Persisting {
    /// Of the step that is durable with it, as `raft` numbers them.
    pub(super) ready: Option<u64>,
    pub(super) entries: Vec<JournalEntry>,
    /// Index and term of the Raft entries among them, which stand last.
    pub(super) log: Vec<(u64, u64)>,
    /// Set when submitted.
    pub(super) lsn: Option<Lsn>,
    /// The commit index in its hard state; zero without one.
    pub(super) commit: u64,
    /// A term or a vote is in it that was not durable before.
    pub(super) promises: bool,
    /// They leave when it is durable.
    pub(super) messages: Vec<Message>,
    pub(super) then: Option<Then>,
}

/// What is to be done when it is durable.
pub(super) enum Then {
    /// A snapshot taken here, of which these are the last of so many journal entries.
    Compact(Snapshot, usize),
    /// A leader's snapshot; so many journal entries from its first piece on.
    Restore(Snapshot, usize),
}

impl Persisting {
    /// In parts that the journal takes. What has to wait for all of it stands with the last.
    fn parts(mut self, max: SubmissionMax) -> Vec<Persisting> {
        let whole = std::mem::take(&mut self.entries);
        let mut parts: Vec<Vec<JournalEntry>> = Vec::new();
        let mut bytes = 0;
        for entry in whole {
            let own = entry_bytes(entry.payload.len());
            bytes += own;
            match parts.last_mut() {
                Some(part) if part.len() < max.entries && bytes <= max.bytes => part.push(entry),
                _ => {
                    bytes = own;
                    parts.push(vec![entry]);
                }
            }
        }
        let Some(last) = parts.pop() else { return vec![self] };
        let mut log = std::mem::take(&mut self.log);
        let mut split = Vec::with_capacity(parts.len() + 1);
        let mut behind: usize = parts.iter().map(Vec::len).sum::<usize>() + last.len();
        for entries in parts {
            behind -= entries.len();
            let rest = log.split_off(log.len().saturating_sub(behind));
            let log = std::mem::replace(&mut log, rest);
            // The hard state is the first entry of a step.
            let (commit, promises) = (std::mem::take(&mut self.commit), std::mem::take(&mut self.promises));
            split.push(Persisting { entries, log, commit, promises, ..Persisting::default() });
        }
        split.push(Persisting { entries: last, log, ..self });
        split
    }
}

pub(super) struct Line {
    waiting: VecDeque<Persisting>,
    max: SubmissionMax,
    messages: usize,
    bytes: usize,
    /// What has left the front.
    left: u64,
}

impl Line {
    pub(super) fn new(max: SubmissionMax) -> Line {
        Line { waiting: VecDeque::new(), max, messages: 0, bytes: 0, left: 0 }
    }

    /// Puts something at the end. Gives back messages for which there is no room: Raft says them again.
    pub(super) fn push(&mut self, mut persisting: Persisting) -> Vec<Message> {
        let messages = std::mem::take(&mut persisting.messages);
        match self.waiting.back_mut() {
            // A follower whose disk stands still hears heartbeats all the while.
            Some(back)
                if persisting.entries.is_empty() && persisting.then.is_none() && back.then.is_none() =>
            {
                back.ready = persisting.ready.or(back.ready);
            }
            _ => {
                for part in persisting.parts(self.max) {
                    self.bytes += bytes_of(&part);
                    self.waiting.push_back(part);
                }
            }
        }
        self.hold(messages)
    }

    /// Has messages wait for all that is in line; gives back those for which there is no room.
    pub(super) fn hold(&mut self, mut messages: Vec<Message>) -> Vec<Message> {
        let room = limits::RAFT_MESSAGES_HELD_MAX - self.messages;
        let refused = messages.split_off(messages.len().min(room));
        self.messages += messages.len();
        match self.waiting.back_mut() {
            Some(back) => back.messages.extend(messages),
            None => self.waiting.push_back(Persisting { messages, ..Persisting::default() }),
        }
        refused
    }

    /// The first, if everything up to and with `durable` is durable.
    pub(super) fn pop_durable(&mut self, durable: Lsn) -> Option<Persisting> {
        let front = self.waiting.pop_front_if(|front| front.lsn.is_some_and(|lsn| lsn <= durable))?;
        self.messages -= front.messages.len();
        self.bytes -= bytes_of(&front);
        self.left += 1;
        Some(front)
    }

    /// What is to be submitted next.
    pub(super) fn next_to_submit(&mut self) -> Option<&mut Persisting> {
        self.waiting.iter_mut().find(|persisting| persisting.lsn.is_none())
    }

    /// The LSN that is waited for first.
    pub(super) fn awaited(&self) -> Option<Lsn> {
        self.waiting.front().and_then(|front| front.lsn)
    }

    /// Names what stands in front, for who wants to see whether it moves; `None` when nothing waits.
    pub(super) fn front(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then_some(self.left)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A term or a vote is not durable yet: nothing that is said in it may be heard.
    pub(super) fn promises(&self) -> bool {
        self.waiting.iter().any(|persisting| persisting.promises)
    }

    pub(super) fn has_log(&self) -> bool {
        self.waiting.iter().any(|persisting| !persisting.log.is_empty())
    }

    /// A leader's snapshot is on its way to the disk.
    pub(super) fn restores(&self) -> bool {
        self.waiting.iter().any(|persisting| matches!(persisting.then, Some(Then::Restore(..))))
    }

    /// The commit index that is durable when all of it is.
    pub(super) fn commit(&self) -> u64 {
        self.waiting.iter().map(|persisting| persisting.commit).max().unwrap_or(0)
    }

    /// More of others' entries would be too much to hold.
    pub(super) fn is_long(&self) -> bool {
        self.bytes >= limits::RAFT_BYTES_IN_LINE_MAX
    }

    pub(super) fn check_invariants(&self) {
        let submitted = self.waiting.iter().map_while(|persisting| persisting.lsn);
        assert!(submitted.clone().is_sorted(), "what is in line is submitted in order");
        let unsubmitted = self.waiting.iter().filter(|persisting| persisting.lsn.is_none()).count();
        assert_eq!(submitted.count() + unsubmitted, self.waiting.len(), "nobody overtakes in the line");
        let messages: usize = self.waiting.iter().map(|persisting| persisting.messages.len()).sum();
        assert_eq!(messages, self.messages, "the messages in line are counted");
        let steps = self.waiting.iter().filter_map(|persisting| persisting.ready);
        assert!(steps.is_sorted_by(|one, two| one < two), "steps are durable in their order");
    }
}

fn bytes_of(persisting: &Persisting) -> usize {
    persisting.entries.iter().map(|entry| entry.payload.len()).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::journal::EntryKind;
    use crate::raft::entries::journal_entry;

    fn entry(kind: EntryKind, bytes: usize) -> JournalEntry {
        journal_entry(kind, 0, 0, Bytes::from(vec![0; bytes]))
    }

    /// `bytes` of payload in three frames.
    fn line(entries: usize, bytes: usize) -> Line {
        Line::new(SubmissionMax { entries, bytes: bytes + 3 * entry_bytes(0) })
    }

    /// A hard state and entries of these sizes.
    fn step(ready: u64, sizes: &[usize]) -> Persisting {
        let hard = [entry(EntryKind::RaftHardState, 5)].into_iter();
        Persisting {
            ready: Some(ready),
            entries: hard.chain(sizes.iter().map(|size| entry(EntryKind::RaftEntry, *size))).collect(),
            log: (1..).zip(sizes).map(|(index, _)| (index, 1)).collect(),
            commit: 7,
            promises: true,
            messages: vec![Message::default()],
            ..Persisting::default()
        }
    }

    #[test]
    fn a_large_step_goes_in_parts_and_is_done_with_the_last() {
        let table = [
            ("it fits", (10, 1_000), vec![10, 10], vec![3]),
            ("too many entries", (2, 1_000), vec![10, 10, 10, 10], vec![2, 2, 1]),
            ("too many bytes", (10, 25), vec![10, 10, 10, 10], vec![3, 2]),
            ("one is larger than the rest may be", (10, 25), vec![10, 100, 10], vec![2, 1, 1]),
            ("nothing but the hard state", (10, 25), vec![], vec![1]),
        ];
        for (case, (entries, bytes), sizes, expected) in table {
            let mut line = line(entries, bytes);
            assert!(line.push(step(4, &sizes)).is_empty());
            line.check_invariants();
            let mut parts = Vec::new();
            let mut log = Vec::new();
            while let Some(part) = line.next_to_submit() {
                part.lsn = Some(Lsn(1 + parts.len() as u64));
                parts.push(part.entries.len());
                let raft_entries =
                    part.entries.iter().filter(|entry| entry.kind == EntryKind::RaftEntry).count();
                assert_eq!(part.log.len(), raft_entries, "{case}");
                log.extend(part.log.iter().map(|(index, _)| *index));
            }
            assert_eq!(parts, expected, "{case}");
            assert!(log.into_iter().eq(1..=sizes.len() as u64), "{case}");
            assert_eq!((line.commit(), line.promises()), (7, true), "{case}");
            for number in 1..parts.len() as u64 {
                let part = line.pop_durable(Lsn(number)).unwrap();
                assert_eq!((part.ready, part.messages.len()), (None, 0), "{case}");
            }
            let last = line.pop_durable(Lsn(parts.len() as u64)).unwrap();
            assert_eq!((last.ready, last.messages.len()), (Some(4), 1), "{case}");
        }
    }

    #[test]
    fn steps_without_entries_wait_behind_what_stands_before_them() {
        let mut line = line(10, 1_000);
        line.push(step(1, &[10]));
        line.next_to_submit().unwrap().lsn = Some(Lsn(2));
        for ready in 2..1_000 {
            line.push(Persisting {
                ready: Some(ready),
                messages: vec![Message::default()],
                ..Default::default()
            });
        }
        assert!(line.next_to_submit().is_none(), "they take no place of their own");
        assert!(line.pop_durable(Lsn(1)).is_none());
        let all = line.pop_durable(Lsn(2)).unwrap();
        assert_eq!((all.ready, all.messages.len()), (Some(999), 999));
        assert!(line.is_empty());
        line.check_invariants();
    }

    #[test]
    fn messages_that_wait_are_bounded() {
        let mut line = line(10, 1_000);
        line.push(step(1, &[10]));
        let more = vec![Message::default(); limits::RAFT_MESSAGES_HELD_MAX + 4];
        assert_eq!(line.hold(more).len(), 5);
        line.check_invariants();
    }
}
