//! The Raft log in memory, as the `raft` crate wants to read it, and how it is found in the journal.
//!
//! The log is short (a snapshot cuts it), so it is held whole; the journal is only read at a start. A hard state
//! is put in line before the entries of its group, so a torn group never leaves entries of a term unheard
//! of; and wherever the journal ends, its last hard state has no commit index beyond the log as it stands there.
//! The configuration is that of the snapshot: its changes since then are entries of the log, and count again
//! when they are applied again.

use std::cell::Cell;
use std::collections::VecDeque;

use io_backend::invariants;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};

use super::entries::parse;
use super::pieces::Pieces;
use crate::ids::Lsn;
use crate::journal::{EntryKind, RecoveredEntry};

/// What the journal of a Raft group holds cannot be a Raft log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Raft journal is damaged at entry {lsn}: {what}")]
pub struct RaftRecoveryError {
    pub lsn: Lsn,
    pub what: String,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) hard: HardState,
    /// As of what is applied; of nobody on a node that waits for a group.
    pub(super) conf: ConfState,
    /// The last snapshot; index and term zero when there is none.
    pub(super) snapshot: Snapshot,
    /// Follow the snapshot without a gap.
    pub(super) entries: VecDeque<Entry>,
    /// Where each entry stands in the journal; shorter than `entries` by what has not been submitted.
    pub(super) lsns: VecDeque<Lsn>,
    /// A member needs a snapshot, and the last is none that it could use.
    snapshot_wanted: Cell<bool>,
}

impl Store {
    /// The empty log of a group with this voter.
    pub(super) fn alone(voter: u64) -> Store {
        let mut store = Store::default();
        store.conf.set_voters(vec![voter]);
        store
    }

    /// The log of a group that begins with this snapshot.
    pub(super) fn founded(snapshot: Snapshot) -> Store {
        let metadata = snapshot.get_metadata();
        let hard = HardState { term: metadata.term, commit: metadata.index, ..HardState::default() };
        Store { hard, conf: metadata.get_conf_state().clone(), snapshot, ..Store::default() }
    }

    /// The log that the journal holds; `None` when nothing in it was ever said to anybody.
    pub(super) fn recover(recovered: Vec<RecoveredEntry>) -> Result<Option<Store>, RaftRecoveryError> {
        let Some(last_lsn) = recovered.last().map(|entry| entry.lsn) else {
            return Ok(None);
        };
        let mut configured = Configured::No;
        let mut store = Store::default();
        if let Some((snapshot, without_configuration)) = last_snapshot(&recovered)? {
            if !without_configuration {
                store.conf = snapshot.get_metadata().get_conf_state().clone();
                configured = Configured::BySnapshot;
            }
            store.snapshot = snapshot;
        }
        let mut recovery =
            Recovery { store, configured, heard: false, loose: None, pieces: Pieces::default() };
        for RecoveredEntry { lsn, entry } in recovered {
            recovery.take(lsn, entry).map_err(|what| RaftRecoveryError { lsn, what })?;
        }
        recovery.finish(last_lsn)
    }

    fn check_invariants(&self) {
        if !invariants::are_checked() {
            return;
        }
        let indexes = self.entries.iter().map(|entry| entry.index);
        assert!(indexes.eq(self.first()..=self.last()), "the Raft log follows its snapshot without a gap");
        let terms = || self.entries.iter().map(|entry| entry.term);
        let before = self.snapshot.get_metadata().term;
        assert!(terms().is_sorted() && terms().next().is_none_or(|term| term >= before), "terms never fall");
        assert!(self.lsns.len() <= self.entries.len(), "only entries that are there stand in the journal");
        assert!(
            self.lsns.iter().is_sorted_by(|one, two| one < two),
            "entries stand in the journal in their order"
        );
    }

    /// As long as nothing of a step is half taken in.
    pub(super) fn check_hard_state(&self) {
        assert!(self.hard.commit <= self.last(), "what is committed is in the log");
        assert!(
            self.hard.commit >= self.snapshot.get_metadata().index,
            "only what is committed is in a snapshot"
        );
        assert!(self.last_term() <= self.hard.term, "no entry is of a term unheard of");
    }

    pub(super) fn last(&self) -> u64 {
        self.entries.back().map_or(self.snapshot.get_metadata().index, |entry| entry.index)
    }

    fn last_term(&self) -> u64 {
        self.entries.back().map_or(self.snapshot.get_metadata().term, |entry| entry.term)
    }

    fn first(&self) -> u64 {
        self.snapshot.get_metadata().index + 1
    }

    fn position(&self, index: u64) -> usize {
        (index - self.first()) as usize
    }

    /// Whether it is in a group, and not waiting for one.
    pub(super) fn has_group(&self) -> bool {
        !self.conf.voters.is_empty()
    }

    /// Whether the members change with what is known to be committed behind this index.
    pub(super) fn members_change_behind(&self, index: u64) -> bool {
        let committed = self.entries.iter().filter(|entry| entry.index > index);
        let mut committed = committed.take_while(|entry| entry.index <= self.hard.commit);
        committed.any(|entry| entry.get_entry_type() != EntryType::EntryNormal)
    }

    /// Takes entries in, replacing what stood there and after.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.snapshot.get_metadata().index && first.index <= self.last() + 1,
            "entry {} does not continue the Raft log {}..={}",
            first.index,
            self.first(),
            self.last()
        );
        self.cut_from(first.index);
        self.entries.extend(entries.iter().cloned());
        self.check_invariants();
    }

    fn cut_from(&mut self, index: u64) {
        let keep = self.position(index);
        self.entries.truncate(keep);
        self.lsns.truncate(keep);
    }

    /// The entries up to and with this one have been submitted, the last of them as `lsn`.
    pub(super) fn submitted(&mut self, entries: &[(u64, u64)], last: Lsn) {
        for (behind, (index, term)) in entries.iter().rev().enumerate().rev() {
            let lsn = Lsn(last.0 - behind as u64);
            let there = *index >= self.first() && *index <= self.last();
            if there && self.entries[self.position(*index)].term == *term {
                let position = self.position(*index);
                self.lsns.truncate(position);
                assert_eq!(self.lsns.len(), position, "entries are submitted in order");
                self.lsns.push_back(lsn);
            }
        }
        self.check_invariants();
    }

    /// Puts a snapshot of everything up to its index in the place of the entries.
    pub(super) fn compact(&mut self, snapshot: Snapshot) {
        let through = snapshot.get_metadata().index;
        assert!(through >= self.first() - 1 && through <= self.last(), "a snapshot lies within the log");
        let cut = self.position(through + 1);
        self.entries.drain(..cut);
        self.lsns.drain(..cut.min(self.lsns.len()));
        self.snapshot = snapshot;
        self.check_invariants();
    }

    /// Puts a leader's snapshot in the place of the whole log.
    pub(super) fn replace(&mut self, snapshot: Snapshot) {
        assert!(snapshot.get_metadata().index >= self.first() - 1, "a snapshot never takes back another");
        self.entries.clear();
        self.lsns.clear();
        self.conf = snapshot.get_metadata().get_conf_state().clone();
        self.snapshot = snapshot;
    }

    /// Where the first entry that no snapshot holds stands in the journal, if it has been submitted.
    pub(super) fn first_lsn(&self) -> Option<Lsn> {
        self.lsns.front().copied()
    }

    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.snapshot.get_metadata().index {
            return Some(self.snapshot.get_metadata().term);
        }
        (index >= self.first())
            .then(|| self.entries.get(self.position(index)).map(|entry| entry.term))
            .flatten()
    }

    /// Whether a member waits for a newer snapshot than the last. Asked once, it is forgotten.
    pub(super) fn take_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.take()
    }
}

/// The last snapshot that is whole, and whether it is without its configuration.
/// The entries that a log holds on disk, the latest first, whether or not they are known to be committed: how far the group has
/// committed is written down later than what it commits.
pub(crate) fn logged(recovered: &[RecoveredEntry]) -> impl Iterator<Item = Entry> {
    let entries = recovered.iter().rev().filter(|recovered| recovered.entry.kind == EntryKind::RaftEntry);
    let parsed = entries.filter_map(|recovered| parse::<Entry>(&recovered.entry.payload).ok());
    parsed.filter(|entry| entry.entry_type == EntryType::EntryNormal && !entry.data.is_empty())
}

fn last_snapshot(recovered: &[RecoveredEntry]) -> Result<Option<(Snapshot, bool)>, RaftRecoveryError> {
    let mut pieces = Pieces::default();
    let mut last = None;
    for RecoveredEntry { lsn, entry } in recovered {
        if entry.kind == EntryKind::RaftSnapshot {
            let found = pieces.take(&entry.payload).map_err(|what| RaftRecoveryError { lsn: *lsn, what })?;
            last = found.map(|found| (found.snapshot, found.without_configuration)).or(last);
        }
    }
    Ok(last)
}

#[derive(PartialEq)]
enum Configured {
    No,
    /// By an entry of its own, of which the last counts.
    ByEntry,
    BySnapshot,
}

/// The journal read from its first entry on, with the last snapshot known.
struct Recovery {
    store: Store,
    configured: Configured,
    /// There was a hard state: terms and votes were told to others.
    heard: bool,
    /// The first entry that continues nothing. Files are released whole, so what stands at the front of a journal
    /// may have lost what it followed; then it was overwritten later, or a snapshot took its place. Still loose
    /// at the end, it is damage.
    loose: Option<(Lsn, String)>,
    pieces: Pieces,
}

impl Recovery {
    fn take(&mut self, lsn: Lsn, entry: crate::journal::JournalEntry) -> Result<(), String> {
        match entry.kind {
            EntryKind::RaftEntry => self.take_entry(parse(&entry.payload)?, lsn),
            EntryKind::RaftHardState => {
                let hard: HardState = parse(&entry.payload)?;
                if hard.commit > self.store.last() {
                    return Err(format!(
                        "entries up to {} were committed and the log ends at {}",
                        hard.commit,
                        self.store.last()
                    ));
                }
                if hard.term < self.store.hard.term {
                    return Err(format!("term {} follows term {}", hard.term, self.store.hard.term));
                }
                self.store.hard = hard;
                self.heard = true;
            }
            EntryKind::RaftConfState => {
                let conf = parse(&entry.payload)?;
                if self.configured != Configured::BySnapshot {
                    self.store.conf = conf;
                    self.configured = Configured::ByEntry;
                }
            }
            EntryKind::RaftSnapshot => {
                if self.pieces.take(&entry.payload)?.is_some_and(|found| found.replaces_the_log) {
                    self.store.entries.clear();
                    self.store.lsns.clear();
                    self.loose = None;
                }
            }
            other => return Err(format!("an entry of kind {other:?} does not belong there")),
        }
        Ok(())
    }

    fn take_entry(&mut self, entry: Entry, lsn: Lsn) {
        let store = &mut self.store;
        if entry.index <= store.snapshot.get_metadata().index {
            return;
        }
        if entry.index > store.last() + 1 {
            let what = format!("entry {} of the Raft log follows entry {}", entry.index, store.last());
            self.loose.get_or_insert((lsn, what));
            return;
        }
        // Whatever was loose stood behind this one.
        self.loose = None;
        store.cut_from(entry.index);
        store.entries.push_back(entry);
        store.lsns.push_back(lsn);
    }

    fn finish(self, last: Lsn) -> Result<Option<Store>, RaftRecoveryError> {
        let Recovery { mut store, configured, heard, loose, .. } = self;
        if let Some((lsn, what)) = loose {
            return Err(RaftRecoveryError { lsn, what });
        }
        let damaged = |what: String| RaftRecoveryError { lsn: last, what };
        if configured == Configured::No {
            if !store.entries.is_empty() || store.hard.commit > 0 {
                return Err(damaged("no configuration of the group".to_owned()));
            }
            // Torn pieces of a first snapshot alone were never heard of by anybody.
            return Ok(heard.then_some(store));
        }
        if heard && store.last_term() > store.hard.term {
            return Err(damaged(format!(
                "the log ends with term {} and nothing later than term {} was heard of",
                store.last_term(),
                store.hard.term
            )));
        }
        store.hard.term = store.hard.term.max(store.last_term());
        // A commit index is only written along with something else.
        store.hard.commit = store.hard.commit.max(store.snapshot.get_metadata().index);
        Ok(Some(store))
    }
}

impl raft::Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let range = self.position(low)..self.position(high);
        let mut entries: Vec<Entry> = self.entries.range(range).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_of(index).ok_or(raft::Error::Store(match index < self.first() {
            true => StorageError::Compacted,
            false => StorageError::Unavailable,
        }))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// The last snapshot, for a member that is in its configuration, a learner as a learner: any other could not
    /// use it. `raft` asks again with the member's next answer to a heartbeat.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let metadata = self.snapshot.get_metadata();
        let conf = metadata.get_conf_state();
        let votes = conf.voters.contains(&to) && !self.conf.learners.contains(&to);
        if metadata.index < request_index.max(1) || !(votes || conf.learners.contains(&to)) {
            self.snapshot_wanted.set(true);
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.snapshot.clone())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
