//! How the exhibits write entries: length, CRC, then the entry. Plain on purpose; none of the defects is here.

use broker::ids::{Incarnation, LeaderEpoch, Lsn, Offset, PartitionId, TopicId};
use broker::journal::{EntryKind, JournalEntry, RecoveredEntry};
use bytes::{Buf, BufMut, Bytes};
use uuid::Uuid;

const KINDS: [EntryKind; 12] = [
    EntryKind::Batch,
    EntryKind::Truncate,
    EntryKind::EpochStart,
    EntryKind::LogStart,
    EntryKind::ReplicaCreate,
    EntryKind::ReplicaDelete,
    EntryKind::Checkpoint,
    EntryKind::TruncateFully,
    EntryKind::RaftEntry,
    EntryKind::RaftHardState,
    EntryKind::RaftConfState,
    EntryKind::RaftSnapshot,
];
const FIXED: usize = 8 + 1 + 16 + 4 + 8 + 4 + 8;

pub(super) fn encode(lsn: Lsn, entry: &JournalEntry) -> Vec<u8> {
    let mut body = Vec::with_capacity(FIXED + entry.payload.len());
    body.put_u64(lsn.0);
    body.put_u8(entry.kind as u8);
    body.put_slice(entry.partition.topic.0.as_bytes());
    body.put_i32(entry.partition.index);
    body.put_u64(entry.replica.0);
    body.put_i32(entry.leader_epoch.0);
    body.put_i64(entry.base_offset.0);
    body.put_slice(&entry.payload);
    let mut frame = Vec::with_capacity(8 + body.len());
    frame.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    frame.put_u32(crc32c::crc32c(&body));
    frame.extend(body);
    frame
}

/// All entries from the beginning up to the first that is not whole.
pub(super) fn decode_all(mut bytes: Bytes) -> Vec<RecoveredEntry> {
    let mut entries = Vec::new();
    while let Some(entry) = decode(&mut bytes) {
        entries.push(entry);
    }
    entries
}

/// Where the first entry that is not whole begins: what is appended goes there.
pub(super) fn whole_bytes(bytes: &Bytes) -> u64 {
    let mut rest = bytes.clone();
    let mut end = 0;
    while decode(&mut rest).is_some() {
        end = bytes.len() - rest.len();
    }
    end as u64
}

fn decode(bytes: &mut Bytes) -> Option<RecoveredEntry> {
    if bytes.len() < 8 {
        return None;
    }
    let length = bytes.get_u32() as usize;
    let crc = bytes.get_u32();
    if length < FIXED || bytes.len() < length {
        return None;
    }
    let mut body = bytes.split_to(length);
    if crc32c::crc32c(&body) != crc {
        return None;
    }
    let lsn = Lsn(body.get_u64());
    let number = body.get_u8();
    let kind = KINDS.into_iter().find(|kind| *kind as u8 == number)?;
    let topic = TopicId(Uuid::from_slice(&body.split_to(16)).ok()?);
    let partition = PartitionId { topic, index: body.get_i32() };
    let entry = JournalEntry {
        kind,
        partition,
        replica: Incarnation(body.get_u64()),
        leader_epoch: LeaderEpoch(body.get_i32()),
        base_offset: Offset(body.get_i64()),
        payload: body,
    };
    Some(RecoveredEntry { lsn, entry })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(payload: &'static [u8]) -> JournalEntry {
        JournalEntry {
            kind: EntryKind::Batch,
            partition: PartitionId::NODE,
            replica: Incarnation(3),
            leader_epoch: LeaderEpoch(1),
            base_offset: Offset(77),
            payload: Bytes::from_static(payload),
        }
    }

    #[test]
    fn what_is_written_reads_back_up_to_the_first_damage() {
        let mut bytes = encode(Lsn(1), &entry(b"one"));
        let second = bytes.len();
        bytes.extend(encode(Lsn(2), &entry(b"two")));
        let read = decode_all(Bytes::from(bytes.clone()));
        assert_eq!(
            read.iter().map(|e| (e.lsn, &e.entry.payload[..])).collect::<Vec<_>>(),
            [(Lsn(1), &b"one"[..]), (Lsn(2), &b"two"[..])]
        );
        assert_eq!(read[0].entry, entry(b"one"));
        assert_eq!(whole_bytes(&Bytes::from(bytes.clone())), bytes.len() as u64);
        bytes[second + 12] ^= 1;
        assert_eq!(whole_bytes(&Bytes::from(bytes.clone())), second as u64);
        assert_eq!(decode_all(Bytes::from(bytes)).len(), 1);
    }
}
