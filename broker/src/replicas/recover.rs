//! What the journal says of the replicas: checkpoint records, and each replica's entries after its mark.
//!
//! A checkpoint record is version, count, and for each replica its mark ([`CheckpointMark`]). One checkpoint may be several
//! records; of a replica the last mark counts. Entries belong to a replica by identity, so those of a deleted life find nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::reconcile::ReplicaId;
use crate::data_dir;
use crate::formats::CHECKPOINT_RECORD;
use crate::ids::{Incarnation, LeaderEpoch, Lsn, Offset, PartitionId};
use crate::journal::{EntryKind, JournalEntry, RecoveredEntry};
use crate::log::CheckpointMark;

const HEADER_BYTES: usize = 5;

/// A whole file of rescued entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescued {
    pub path: PathBuf,
    pub last_lsn: Lsn,
    /// The checkpoint that these entries follow, if there was one.
    pub mark: Option<CheckpointMark>,
    /// Its header can be read. Where it cannot the replica does not open, and nothing else is known of the file.
    pub whole: bool,
}

/// What one replica recovers from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredReplica {
    /// Where its segments stand; absent when it was never checkpointed.
    pub mark: Option<CheckpointMark>,
    /// Its entries after the mark and after those that were rescued, in order.
    pub entries: Vec<RecoveredEntry>,
    /// Where entries before those are kept, for it did not open.
    pub rescued: Option<Rescued>,
}

impl RecoveredReplica {
    /// The first LSN that is needed to recover it again.
    pub fn needed_from(&self) -> Option<Lsn> {
        self.entries.first().map(|entry| entry.lsn)
    }

    /// Takes in what an earlier process, or this one, copied out of the journal. False when the mark covers it.
    pub fn handle_rescued(&mut self, rescued: Rescued) -> bool {
        if !rescued.whole {
            // What the journal still has stays there.
            self.rescued = Some(rescued);
            return true;
        }
        if self.mark.is_some_and(|mark| rescued.last_lsn <= mark.lsn) {
            return false;
        }
        // The journal repeats the mark; should it have gone without doing so, the file has it.
        self.mark = self.mark.or(rescued.mark);
        self.entries.retain(|entry| entry.lsn > rescued.last_lsn);
        self.entries.shrink_to_fit();
        self.rescued = Some(rescued);
        true
    }
}

/// The journal's entries, by replica.
#[derive(Debug, Default)]
pub struct RecoveredReplicas {
    /// Each replica that the journal says anything of, and has not been deleted.
    pub replicas: BTreeMap<ReplicaId, RecoveredReplica>,
}

/// An entry of the journal has a sound checksum, and does not belong there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A checkpoint record says nothing that this binary can read.
    #[error(
        "the journal's checkpoint record {lsn} cannot be read: {what}. Restore the data directory from a backup, or \
         start the version of chronik that wrote it"
    )]
    Checkpoint {
        /// The record.
        lsn: Lsn,
        /// What is wrong with it.
        what: String,
    },
    /// The entry is one of Raft's, which have a journal of their own.
    #[error(
        "entry {lsn} of the journal of records is a {kind:?}, which belongs into Raft's journal: files of the two \
         directories, {} and {}, were mixed up. Restore the data directory from a backup",
        data_dir::JOURNAL,
        data_dir::RAFT
    )]
    OfRaft {
        /// The entry.
        lsn: Lsn,
        /// What it is.
        kind: EntryKind,
    },
}

/// Splits what the journal holds into what each replica needs.
///
/// # Errors
///
/// A checkpoint record cannot be read, or the journal holds entries that belong into Raft's.
pub fn split(entries: Vec<RecoveredEntry>) -> Result<RecoveredReplicas, SplitError> {
    let mut replicas: BTreeMap<ReplicaId, RecoveredReplica> = BTreeMap::new();
    let mut deleted = BTreeSet::new();
    for recovered in entries {
        let RecoveredEntry { lsn, entry } = &recovered;
        let id = ReplicaId { partition: entry.partition, replica: entry.replica };
        match entry.kind {
            EntryKind::Checkpoint => {
                let marks =
                    decode(&entry.payload).map_err(|what| SplitError::Checkpoint { lsn: *lsn, what })?;
                for mark in marks {
                    let id = ReplicaId { partition: mark.partition, replica: mark.replica };
                    if !deleted.contains(&id) {
                        replicas.entry(id).or_default().mark = Some(mark);
                    }
                }
            }
            EntryKind::ReplicaDelete => {
                replicas.remove(&id);
                deleted.insert(id);
            }
            EntryKind::ReplicaCreate
            | EntryKind::Batch
            | EntryKind::Truncate
            | EntryKind::EpochStart
            | EntryKind::LogStart
            | EntryKind::TruncateFully => {
                if deleted.contains(&id) {
                    continue;
                }
                let replica = replicas.entry(id).or_default();
                if entry.kind != EntryKind::ReplicaCreate {
                    replica.entries.push(recovered);
                }
            }
            EntryKind::RaftEntry
            | EntryKind::RaftHardState
            | EntryKind::RaftConfState
            | EntryKind::RaftSnapshot => {
                return Err(SplitError::OfRaft { lsn: *lsn, kind: entry.kind });
            }
        }
    }
    for replica in replicas.values_mut() {
        if let Some(mark) = replica.mark {
            replica.entries.retain(|entry| entry.lsn > mark.lsn);
        }
    }
    Ok(RecoveredReplicas { replicas })
}

/// Marks as journal entries of at most `entry_bytes` each.
pub fn checkpoint_entries(marks: &[CheckpointMark], entry_bytes: usize) -> Vec<JournalEntry> {
    let per_entry = (entry_bytes.saturating_sub(HEADER_BYTES) / CheckpointMark::BYTES).max(1);
    marks
        .chunks(per_entry)
        .map(|marks| node_entry(EntryKind::Checkpoint, PartitionId::NODE, Incarnation(0), encode(marks)))
        .collect()
}

/// The beginning or the end of a replica's life.
pub fn life_entry(kind: EntryKind, id: ReplicaId) -> JournalEntry {
    node_entry(kind, id.partition, id.replica, Bytes::new())
}

fn node_entry(kind: EntryKind, partition: PartitionId, replica: Incarnation, payload: Bytes) -> JournalEntry {
    JournalEntry {
        kind,
        partition,
        replica,
        leader_epoch: LeaderEpoch::NONE,
        base_offset: Offset::ZERO,
        payload,
    }
}

fn encode(marks: &[CheckpointMark]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + marks.len() * CheckpointMark::BYTES);
    bytes.put_u8(CHECKPOINT_RECORD);
    bytes.put_u32(u32::try_from(marks.len()).expect("a record of at most some thousand marks"));
    marks.iter().for_each(|mark| mark.put(&mut bytes));
    bytes.freeze()
}

fn decode(payload: &Bytes) -> Result<Vec<CheckpointMark>, String> {
    let mut bytes = payload.clone();
    if bytes.len() < HEADER_BYTES {
        return Err(format!("it has only {} bytes", bytes.len()));
    }
    let version = bytes.get_u8();
    if !(1..=CHECKPOINT_RECORD).contains(&version) {
        return Err(format!("its version is {version}, this binary reads up to version {CHECKPOINT_RECORD}"));
    }
    let count = bytes.get_u32() as usize;
    if bytes.len() != count.saturating_mul(CheckpointMark::bytes_of(version)) {
        return Err(format!("it should hold {count} marks and has {} bytes for them", bytes.len()));
    }
    Ok((0..count).map(|_| CheckpointMark::take(&mut bytes, version)).collect())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::TopicId;

    fn id(topic: u128, index: i32, replica: u64) -> ReplicaId {
        let partition = PartitionId { topic: TopicId(Uuid::from_u128(topic)), index };
        ReplicaId { partition, replica: Incarnation(replica) }
    }

    fn mark(id: ReplicaId, lsn: u64) -> CheckpointMark {
        CheckpointMark::of(id.partition, id.replica, lsn, 3, lsn as i64 * 10)
    }

    fn of(kind: EntryKind, id: ReplicaId) -> JournalEntry {
        life_entry(kind, id)
    }

    fn checkpoint(marks: &[CheckpointMark]) -> JournalEntry {
        checkpoint_entries(marks, 1 << 20).remove(0)
    }

    /// Splits these entries, which have the LSNs from one on: of each replica its mark's LSN and its entries'.
    fn split_of(entries: Vec<JournalEntry>) -> Vec<(ReplicaId, Option<u64>, Vec<u64>)> {
        let recovered =
            (1..).map(Lsn).zip(entries).map(|(lsn, entry)| RecoveredEntry { lsn, entry }).collect();
        let replicas = split(recovered).unwrap().replicas;
        let facts = |(id, replica): (ReplicaId, RecoveredReplica)| {
            (id, replica.mark.map(|mark| mark.lsn.0), replica.entries.iter().map(|e| e.lsn.0).collect())
        };
        replicas.into_iter().map(facts).collect()
    }

    #[test]
    fn each_replica_gets_its_own_entries_after_its_last_mark() {
        let (a, b) = (id(1, 0, 5), id(1, 1, 5));
        let entries = vec![
            of(EntryKind::ReplicaCreate, a),
            of(EntryKind::EpochStart, a),
            of(EntryKind::Batch, b),
            of(EntryKind::Batch, a),
            checkpoint(&[mark(a, 2), mark(b, 3)]),
            of(EntryKind::Batch, b),
            checkpoint(&[mark(a, 4)]),
            of(EntryKind::LogStart, a),
        ];
        assert_eq!(split_of(entries), [(a, Some(4), vec![8]), (b, Some(3), vec![6])]);
    }

    #[test]
    fn a_deleted_replica_and_its_late_entries_are_gone_and_its_next_life_is_another() {
        let (old, new) = (id(1, 0, 5), id(1, 0, 9));
        let entries = vec![
            of(EntryKind::Batch, old),
            of(EntryKind::ReplicaDelete, old),
            of(EntryKind::Batch, old),
            checkpoint(&[mark(old, 3)]),
            of(EntryKind::ReplicaCreate, new),
            of(EntryKind::Batch, new),
        ];
        assert_eq!(split_of(entries), [(new, None, vec![6])]);
    }

    #[test]
    fn marks_survive_being_written_in_one_record_or_many() {
        let marks: Vec<CheckpointMark> =
            (0..100).map(|n| mark(id(n, n as i32, n as u64), n as u64 + 1)).collect();
        for entry_bytes in [0, 120, 240, 1 << 20] {
            let entries = checkpoint_entries(&marks, entry_bytes);
            let largest = entries.iter().map(|entry| entry.payload.len()).max().unwrap();
            assert!(largest <= entry_bytes.max(HEADER_BYTES + CheckpointMark::BYTES));
            let read: Vec<_> = entries.iter().flat_map(|entry| decode(&entry.payload).unwrap()).collect();
            assert_eq!(read, marks, "{entry_bytes}");
        }
    }

    #[test]
    fn the_bytes_of_a_record_are_what_they_were() {
        let bytes = encode(&[mark(id(0xab, 2, 3), 4)]);
        let expected = "0200000001000000000000000000000000000000ab000000020000000000000003\
                        000000000000000400000000000000030000000000000028\
                        00000000000000280000000000000000";
        assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
    }

    #[test]
    fn a_record_of_the_first_version_is_read() {
        let id = id(0xab, 2, 3);
        let mut old = encode(&[mark(id, 4)])[..HEADER_BYTES + CheckpointMark::bytes_of(1)].to_vec();
        old[0] = 1;
        assert_eq!(decode(&old.into()), Ok(vec![mark(id, 4)]));
    }

    #[test]
    fn an_entry_of_rafts_journal_is_called_that_and_no_damaged_record() {
        for kind in [
            EntryKind::RaftEntry,
            EntryKind::RaftHardState,
            EntryKind::RaftConfState,
            EntryKind::RaftSnapshot,
        ] {
            let entry = node_entry(kind, PartitionId::NODE, Incarnation(0), Bytes::new());
            let error = split(vec![RecoveredEntry { lsn: Lsn(9), entry }]).unwrap_err();
            assert_eq!(error, SplitError::OfRaft { lsn: Lsn(9), kind });
            let text = error.to_string();
            assert!(text.contains("entry 9") && text.contains("mixed up"), "{text}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_says_what_is_wrong() {
        let good = encode(&[mark(id(1, 2, 3), 4)]);
        let newer = [&[3], &good[1..]].concat();
        let table: [(&[u8], &str); 4] = [
            (&good[..3], "only 3 bytes"),
            (&good[..50], "should hold 1 marks and has 45 bytes"),
            (&newer, "version is 3"),
            (&[1, 0xff, 0xff, 0xff, 0xff], "should hold 4294967295 marks"),
        ];
        for (payload, part) in table {
            let entry = node_entry(
                EntryKind::Checkpoint,
                PartitionId::NODE,
                Incarnation(0),
                Bytes::copy_from_slice(payload),
            );
            let error = split(vec![RecoveredEntry { lsn: Lsn(9), entry }]).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("record 9"), "{error}");
        }
    }
}
