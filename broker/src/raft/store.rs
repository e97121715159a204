//! The Raft log in memory, as the `raft` crate wants to read it, and how it stands in the journal.
//!
//! The log is short (a snapshot cuts it), so it is held whole; the journal is only read at a start. Kinds
//! in the journal: each Raft entry, hard state and configuration state as the protobuf message it is, a
//! snapshot in pieces (version, index, term, number and count of pieces, bytes). A hard state is put in
//! line before the entries of its group, so a torn group never leaves entries of a term unheard of.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use io_backend::invariants;
use protobuf::Message;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};

use crate::formats::RAFT_SNAPSHOT;
use crate::ids::{Incarnation, LeaderEpoch, Lsn, Offset, PartitionId};
use crate::journal::{EntryKind, JournalEntry, RecoveredEntry};

const SNAPSHOT_HEADER_BYTES: usize = 1 + 8 + 8 + 4 + 4;

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
    pub(super) conf: ConfState,
    /// The last snapshot; index and term zero when there is none.
    pub(super) snapshot: Snapshot,
    /// Follow the snapshot without a gap.
    entries: VecDeque<Entry>,
    /// Where each entry stands in the journal; shorter than `entries` by what has not been submitted.
    lsns: VecDeque<Lsn>,
}

impl Store {
    /// The empty log of a group of these voters.
    pub(super) fn bootstrap(voters: Vec<u64>) -> Store {
        let mut store = Store::default();
        store.conf.set_voters(voters);
        store
    }

    /// The log that the journal holds; `None` when the journal is empty.
    pub(super) fn recover(recovered: Vec<RecoveredEntry>) -> Result<Option<Store>, RaftRecoveryError> {
        let Some(last_lsn) = recovered.last().map(|entry| entry.lsn) else {
            return Ok(None);
        };
        let mut store = Store { snapshot: last_snapshot(&recovered)?, ..Store::default() };
        let mut configured = false;
        for RecoveredEntry { lsn, entry } in recovered {
            let damaged = |what: String| RaftRecoveryError { lsn, what };
            match entry.kind {
                EntryKind::RaftEntry => {
                    let entry = parse::<Entry>(&entry.payload).map_err(damaged)?;
                    store.recover_entry(entry, lsn).map_err(damaged)?;
                }
                EntryKind::RaftHardState => store.hard = parse(&entry.payload).map_err(damaged)?,
                EntryKind::RaftConfState => {
                    store.conf = parse(&entry.payload).map_err(damaged)?;
                    configured = true;
                }
                EntryKind::RaftSnapshot => {}
                other => return Err(damaged(format!("an entry of kind {other:?} does not belong there"))),
            }
        }
        let damaged = |what: String| RaftRecoveryError { lsn: last_lsn, what };
        if !configured {
            return Err(damaged("no configuration of the group".to_owned()));
        }
        if store.hard.commit > store.last() {
            return Err(damaged(format!(
                "entries up to {} were committed and the log ends at {}",
                store.hard.commit,
                store.last()
            )));
        }
        // A commit index is only written along with something else.
        store.hard.commit = store.hard.commit.max(store.snapshot.get_metadata().index);
        Ok(Some(store))
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

    fn recover_entry(&mut self, entry: Entry, lsn: Lsn) -> Result<(), String> {
        if entry.index <= self.snapshot.get_metadata().index {
            return Ok(());
        }
        if entry.index > self.last() + 1 {
            return Err(format!("entry {} of the Raft log follows entry {}", entry.index, self.last()));
        }
        self.cut_from(entry.index);
        self.entries.push_back(entry);
        self.lsns.push_back(lsn);
        Ok(())
    }

    pub(super) fn last(&self) -> u64 {
        self.entries.back().map_or(self.snapshot.get_metadata().index, |entry| entry.index)
    }

    fn first(&self) -> u64 {
        self.snapshot.get_metadata().index + 1
    }

    fn position(&self, index: u64) -> usize {
        (index - self.first()) as usize
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

    /// Puts a snapshot of everything up to `index` in the place of the entries.
    pub(super) fn compact(&mut self, snapshot: Snapshot) {
        let through = snapshot.get_metadata().index;
        assert!(through >= self.first() - 1 && through <= self.last(), "a snapshot lies within the log");
        let cut = self.position(through + 1);
        self.entries.drain(..cut);
        self.lsns.drain(..cut.min(self.lsns.len()));
        self.snapshot = snapshot;
        self.check_invariants();
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
}

fn last_snapshot(recovered: &[RecoveredEntry]) -> Result<Snapshot, RaftRecoveryError> {
    let mut last = Snapshot::default();
    let mut pieces: Vec<SnapshotPiece> = Vec::new();
    for RecoveredEntry { lsn, entry } in recovered {
        if entry.kind != EntryKind::RaftSnapshot {
            continue;
        }
        let piece =
            SnapshotPiece::decode(&entry.payload).map_err(|what| RaftRecoveryError { lsn: *lsn, what })?;
        if piece.number == 0 {
            pieces.clear();
        }
        // The first pieces may stand in a file that has been released, or the last in a torn group.
        let continues =
            pieces.first().is_none_or(|first| (first.index, first.term) == (piece.index, piece.term));
        if piece.number as usize != pieces.len() || !continues {
            pieces.clear();
            continue;
        }
        let (complete, index, term) = (piece.number + 1 == piece.count, piece.index, piece.term);
        pieces.push(piece);
        if complete {
            let mut data = BytesMut::new();
            pieces.drain(..).for_each(|piece| data.put(piece.bytes));
            last = snapshot(index, term, ConfState::default(), data.freeze());
        }
    }
    Ok(last)
}

pub(super) fn snapshot(index: u64, term: u64, conf: ConfState, data: Bytes) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.mut_metadata().index = index;
    snapshot.mut_metadata().term = term;
    snapshot.mut_metadata().set_conf_state(conf);
    snapshot.data = data;
    snapshot
}

struct SnapshotPiece {
    index: u64,
    term: u64,
    number: u32,
    count: u32,
    bytes: Bytes,
}

impl SnapshotPiece {
    fn decode(payload: &Bytes) -> Result<SnapshotPiece, String> {
        if payload.len() < SNAPSHOT_HEADER_BYTES {
            return Err(format!("a piece of a snapshot of only {} bytes", payload.len()));
        }
        if payload[0] != RAFT_SNAPSHOT {
            return Err(format!(
                "a snapshot of version {}, this binary reads version {RAFT_SNAPSHOT}: start a newer chronik",
                payload[0]
            ));
        }
        let u64_at = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| payload[at + i]));
        let u32_at = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| payload[at + i]));
        Ok(SnapshotPiece {
            index: u64_at(1),
            term: u64_at(9),
            number: u32_at(17),
            count: u32_at(21),
            bytes: payload.slice(SNAPSHOT_HEADER_BYTES..),
        })
    }
}

/// A snapshot as journal entries, each with at most `piece_bytes` of it.
pub(super) fn snapshot_entries(snapshot: &Snapshot, piece_bytes: usize) -> Vec<JournalEntry> {
    let metadata = snapshot.get_metadata();
    let count = snapshot.data.len().div_ceil(piece_bytes).max(1);
    let piece = |number: usize| {
        let from = number * piece_bytes;
        let to = snapshot.data.len().min(from + piece_bytes);
        let mut payload = BytesMut::with_capacity(SNAPSHOT_HEADER_BYTES + to - from);
        payload.put_u8(RAFT_SNAPSHOT);
        payload.put_u64(metadata.index);
        payload.put_u64(metadata.term);
        payload.put_u32(number as u32);
        payload.put_u32(count as u32);
        payload.put_slice(&snapshot.data[from..to]);
        journal_entry(EntryKind::RaftSnapshot, metadata.index, metadata.term, payload.freeze())
    };
    (0..count).map(piece).collect()
}

pub(super) fn hard_state_entry(hard: &HardState) -> JournalEntry {
    journal_entry(EntryKind::RaftHardState, hard.commit, hard.term, encode(hard))
}

pub(super) fn conf_state_entry(conf: &ConfState) -> JournalEntry {
    journal_entry(EntryKind::RaftConfState, 0, 0, encode(conf))
}

pub(super) fn log_entry(entry: &Entry) -> JournalEntry {
    journal_entry(EntryKind::RaftEntry, entry.index, entry.term, encode(entry))
}

/// Index and term stand in the frame only for people who look into a journal.
fn journal_entry(kind: EntryKind, index: u64, term: u64, payload: Bytes) -> JournalEntry {
    JournalEntry {
        kind,
        partition: PartitionId::NODE,
        replica: Incarnation(0),
        leader_epoch: LeaderEpoch(i32::try_from(term).unwrap_or(i32::MAX)),
        base_offset: Offset(i64::try_from(index).unwrap_or(i64::MAX)),
        payload,
    }
}

fn encode(message: &impl Message) -> Bytes {
    // Every field of these messages is optional: nothing that a message of ours could lack.
    Bytes::from(message.write_to_bytes().expect("writing protobuf into memory"))
}

fn parse<M: Message>(payload: &Bytes) -> Result<M, String> {
    M::parse_from_carllerche_bytes(payload).map_err(|error| format!("not a Raft message: {error}"))
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

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.snapshot.get_metadata().index < request_index.max(1) {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.snapshot.clone())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
