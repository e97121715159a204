//! What Raft remembers, as journal entries: each the protobuf message it is.

use bytes::Bytes;
use protobuf::Message;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};

use crate::ids::{Incarnation, LeaderEpoch, Offset, PartitionId};
use crate::journal::{EntryKind, JournalEntry};

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
pub(super) fn journal_entry(kind: EntryKind, index: u64, term: u64, payload: Bytes) -> JournalEntry {
    JournalEntry {
        kind,
        partition: PartitionId::NODE,
        replica: Incarnation(0),
        leader_epoch: LeaderEpoch(i32::try_from(term).unwrap_or(i32::MAX)),
        base_offset: Offset(i64::try_from(index).unwrap_or(i64::MAX)),
        payload,
    }
}

pub(super) fn snapshot(index: u64, term: u64, conf: ConfState, data: Bytes) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.mut_metadata().index = index;
    snapshot.mut_metadata().term = term;
    snapshot.mut_metadata().set_conf_state(conf);
    snapshot.data = data;
    snapshot
}

pub(super) fn encode(message: &impl Message) -> Bytes {
    // Every field of these messages is optional: nothing that a message of ours could lack.
    Bytes::from(message.write_to_bytes().expect("writing protobuf into memory"))
}

pub(super) fn parse<M: Message>(payload: &Bytes) -> Result<M, String> {
    M::parse_from_carllerche_bytes(payload).map_err(|error| format!("not a Raft message: {error}"))
}
