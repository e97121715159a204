//! The bytes of a journal file. All numbers are little-endian; every CRC is CRC-32C.
//!
//! ```text
//! file     | header block, 4096 bytes | group | group | ... | zeros, or bytes of an earlier life |
//! header   0 magic "CHRONIKJ" | 8 version u32 | 12 crc u32 of bytes 0..12 and 16..512 | 16 sequence u64
//!          24 generation u64 | 32 first LSN u64 | 40 oldest sequence u64 | 48 file length u64
//!          56 lives u32 | 60 zero u32 | 64 journal name, 16 bytes, zero padded | zeros to 4096
//! group    0 magic "CKGR" | 4 crc u32 of bytes 0..4 and 8..64 | 8 number u64 | 16 durable up to LSN u64
//!          24 first LSN u64 | 32 last LSN u64 | 40 position in the file u64 | 48 previous file u64
//!          56 bytes of entries u32 | 60 entries u32 | entries | zeros to the next 4096
//! entry    0 payload bytes u32 | 4 crc u32 of bytes 0..4 and 8.. | 8 LSN u64 | 16 kind u8 | 17 zero, 3 bytes
//!          20 partition i32 | 24 topic id, 16 bytes | 40 replica u64 | 48 leader epoch i32
//!          52 base offset i64 | 60 payload
//! ```
//!
//! The CRCs of groups and entries begin with the file's generation, drawn anew for each life of the file:
//! what an earlier life left behind reads as empty. A group is padded to whole 4 KiB pages, so what is in
//! flight never shares a page with what is durable. The header's facts lie in one 512-byte sector, which a disk
//! writes whole or not at all.

use bytes::Bytes;
use uuid::Uuid;

use super::{EntryKind, JournalEntry, RecoveredEntry};
use crate::formats;
use crate::ids::{Incarnation, LeaderEpoch, Lsn, Offset, PartitionId, TopicId};

pub const HEADER_BYTES: usize = 4096;
pub const PAGE_BYTES: usize = 4096;
pub const GROUP_HEADER_BYTES: usize = 64;
pub const ENTRY_HEADER_BYTES: usize = 60;
const HEADER_SECTOR_BYTES: usize = 512;
const NAME_BYTES: usize = 16;

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Order of the files; each life of a file has a new one.
    pub sequence: u64,
    pub generation: u64,
    /// No entry in this file or in a later one is older.
    pub first_lsn: Lsn,
    /// Files with a smaller sequence are not needed any more.
    pub oldest_sequence: u64,
    pub file_bytes: u64,
    /// 1: what follows the last group is zeros.
    pub lives: u32,
    /// Which journal it belongs to.
    pub name: [u8; NAME_BYTES],
}

/// What the first block of a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderBlock {
    Good(FileHeader),
    Zero,
    Foreign,
    Newer(u32),
    Damaged,
}

/// What stands before the entries of one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    pub number: u64,
    /// Everything up to here was durable before this group was written.
    pub durable_up_to: Lsn,
    pub first_lsn: Lsn,
    pub last_lsn: Lsn,
    pub position: u64,
    /// Sequence of the file with the last durable group before this one; 0 for the first of all.
    pub previous_file: u64,
    pub body_bytes: u32,
    pub entries: u32,
}

impl GroupHeader {
    /// Bytes in the file, padding included.
    pub fn file_bytes(&self) -> u64 {
        padded(GROUP_HEADER_BYTES + self.body_bytes as usize) as u64
    }
}

/// Why the entries of a group cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// At this byte of the group.
    Damaged { at: usize },
    /// A sound entry of a kind that only a newer version knows.
    UnknownKind { at: usize, kind: u8 },
}

pub fn journal_name(name: &str) -> [u8; NAME_BYTES] {
    let mut padded = [0; NAME_BYTES];
    let len = name.len().min(NAME_BYTES);
    padded[..len].copy_from_slice(&name.as_bytes()[..len]);
    padded
}

pub fn padded(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES) * PAGE_BYTES
}

/// Bytes of an entry in a group.
pub fn entry_bytes(payload: usize) -> usize {
    ENTRY_HEADER_BYTES + payload
}

/// The largest group, padding included, that a file of this size takes.
pub fn group_bytes_max(file_bytes: u64) -> usize {
    let room = file_bytes.saturating_sub(HEADER_BYTES as u64);
    (usize::try_from(room).unwrap_or(usize::MAX) / PAGE_BYTES) * PAGE_BYTES
}

pub fn encode_header(header: &FileHeader) -> Vec<u8> {
    let mut block = vec![0; HEADER_BYTES];
    block[0..8].copy_from_slice(formats::JOURNAL_FILE);
    block[8..12].copy_from_slice(&formats::JOURNAL.to_le_bytes());
    block[16..24].copy_from_slice(&header.sequence.to_le_bytes());
    block[24..32].copy_from_slice(&header.generation.to_le_bytes());
    block[32..40].copy_from_slice(&header.first_lsn.0.to_le_bytes());
    block[40..48].copy_from_slice(&header.oldest_sequence.to_le_bytes());
    block[48..56].copy_from_slice(&header.file_bytes.to_le_bytes());
    block[56..60].copy_from_slice(&header.lives.to_le_bytes());
    block[64..64 + NAME_BYTES].copy_from_slice(&header.name);
    let crc = header_crc(&block);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    block
}

/// Reads a header block; a short one counts as padded with zeros. The CRC stands where it stands in every
/// version, so damage is told from a newer version.
pub fn decode_header(bytes: &[u8]) -> HeaderBlock {
    let mut sector = [0; HEADER_SECTOR_BYTES];
    let len = bytes.len().min(HEADER_SECTOR_BYTES);
    sector[..len].copy_from_slice(&bytes[..len]);
    if sector.iter().all(|byte| *byte == 0) {
        return HeaderBlock::Zero;
    }
    if &sector[0..8] != formats::JOURNAL_FILE {
        return HeaderBlock::Foreign;
    }
    if u32_at(&sector, 12) != header_crc(&sector) {
        return HeaderBlock::Damaged;
    }
    let version = u32_at(&sector, 8);
    if version > formats::JOURNAL {
        return HeaderBlock::Newer(version);
    }
    let mut name = [0; NAME_BYTES];
    name.copy_from_slice(&sector[64..64 + NAME_BYTES]);
    HeaderBlock::Good(FileHeader {
        sequence: u64_at(&sector, 16),
        generation: u64_at(&sector, 24),
        first_lsn: Lsn(u64_at(&sector, 32)),
        oldest_sequence: u64_at(&sector, 40),
        file_bytes: u64_at(&sector, 48),
        lives: u32_at(&sector, 56),
        name,
    })
}

fn header_crc(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..12]), &block[16..HEADER_SECTOR_BYTES])
}

/// Builds one group at a time in a buffer that is used again and again.
#[derive(Debug)]
pub struct GroupEncoder {
    buffer: Vec<u8>,
    seed: u32,
    entries: u32,
    first_lsn: Option<Lsn>,
    last_lsn: Lsn,
}

/// What a group's header says beside what its entries determine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPlace {
    pub number: u64,
    pub durable_up_to: Lsn,
    pub position: u64,
    pub previous_file: u64,
}

impl GroupEncoder {
    pub fn new(buffer: Vec<u8>, generation: u64) -> GroupEncoder {
        let mut buffer = buffer;
        buffer.clear();
        buffer.resize(GROUP_HEADER_BYTES, 0);
        GroupEncoder { buffer, seed: seed(generation), entries: 0, first_lsn: None, last_lsn: Lsn(0) }
    }

    pub fn push(&mut self, lsn: Lsn, entry: &JournalEntry) {
        let start = self.buffer.len();
        let mut head = [0; ENTRY_HEADER_BYTES];
        // The queue takes no entry that does not fit a file, and files are far below 4 GiB.
        head[0..4].copy_from_slice(&(entry.payload.len() as u32).to_le_bytes());
        head[8..16].copy_from_slice(&lsn.0.to_le_bytes());
        head[16] = entry.kind as u8;
        head[20..24].copy_from_slice(&entry.partition.index.to_le_bytes());
        head[24..40].copy_from_slice(entry.partition.topic.0.as_bytes());
        head[40..48].copy_from_slice(&entry.replica.0.to_le_bytes());
        head[48..52].copy_from_slice(&entry.leader_epoch.0.to_le_bytes());
        head[52..60].copy_from_slice(&entry.base_offset.0.to_le_bytes());
        self.buffer.extend_from_slice(&head);
        self.buffer.extend_from_slice(&entry.payload);
        let crc = framed_crc(self.seed, &self.buffer[start..]);
        self.buffer[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        self.first_lsn.get_or_insert(lsn);
        self.last_lsn = lsn;
        self.entries += 1;
    }

    /// Makes a group without entries cover the LSNs up to this one, which no entry has.
    pub fn cover(&mut self, lsn: Lsn) {
        self.last_lsn = self.last_lsn.max(lsn);
    }

    /// The group's bytes, padded. A group without entries says only that what came before it is durable.
    pub fn finish(mut self, place: &GroupPlace) -> Vec<u8> {
        let body_bytes = self.buffer.len() - GROUP_HEADER_BYTES;
        let header = GroupHeader {
            number: place.number,
            durable_up_to: place.durable_up_to,
            first_lsn: self.first_lsn.unwrap_or(self.last_lsn.max(place.durable_up_to)),
            last_lsn: self.last_lsn.max(place.durable_up_to),
            position: place.position,
            previous_file: place.previous_file,
            body_bytes: body_bytes as u32,
            entries: self.entries,
        };
        let mut head = [0; GROUP_HEADER_BYTES];
        head[0..4].copy_from_slice(formats::JOURNAL_GROUP);
        head[8..16].copy_from_slice(&header.number.to_le_bytes());
        head[16..24].copy_from_slice(&header.durable_up_to.0.to_le_bytes());
        head[24..32].copy_from_slice(&header.first_lsn.0.to_le_bytes());
        head[32..40].copy_from_slice(&header.last_lsn.0.to_le_bytes());
        head[40..48].copy_from_slice(&header.position.to_le_bytes());
        head[48..56].copy_from_slice(&header.previous_file.to_le_bytes());
        head[56..60].copy_from_slice(&header.body_bytes.to_le_bytes());
        head[60..64].copy_from_slice(&header.entries.to_le_bytes());
        let crc = framed_crc(self.seed, &head);
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        self.buffer[..GROUP_HEADER_BYTES].copy_from_slice(&head);
        self.buffer.resize(padded(self.buffer.len()), 0);
        self.buffer
    }
}

/// The group header at `position`, if one of this generation stands there.
pub fn decode_group_header(bytes: &[u8], generation: u64, position: u64) -> Option<GroupHeader> {
    let head = bytes.get(..GROUP_HEADER_BYTES)?;
    if &head[0..4] != formats::JOURNAL_GROUP || u32_at(head, 4) != framed_crc(seed(generation), head) {
        return None;
    }
    let header = GroupHeader {
        number: u64_at(head, 8),
        durable_up_to: Lsn(u64_at(head, 16)),
        first_lsn: Lsn(u64_at(head, 24)),
        last_lsn: Lsn(u64_at(head, 32)),
        position: u64_at(head, 40),
        previous_file: u64_at(head, 48),
        body_bytes: u32_at(head, 56),
        entries: u32_at(head, 60),
    };
    (header.position == position).then_some(header)
}

/// The entries of a group. `group` begins with its header; the payloads are slices of it.
pub fn decode_entries(
    header: &GroupHeader,
    group: &Bytes,
    generation: u64,
) -> Result<Vec<RecoveredEntry>, BodyFault> {
    let seed = seed(generation);
    let end = GROUP_HEADER_BYTES + header.body_bytes as usize;
    let mut at = GROUP_HEADER_BYTES;
    // The count is believed for reserving only as far as the bytes can hold it.
    let plausible = header.body_bytes as usize / ENTRY_HEADER_BYTES;
    let mut entries = Vec::with_capacity((header.entries as usize).min(plausible));
    let mut last = Lsn(0);
    if group.len() < end {
        return Err(BodyFault::Damaged { at: group.len() });
    }
    while at < end {
        let damaged = BodyFault::Damaged { at };
        let head = group.get(at..at + ENTRY_HEADER_BYTES).ok_or(damaged)?;
        let next = at + entry_bytes(u32_at(head, 0) as usize);
        if next > end || u32_at(head, 4) != framed_crc(seed, &group[at..next]) {
            return Err(damaged);
        }
        let lsn = Lsn(u64_at(head, 8));
        if lsn <= last || lsn < header.first_lsn || lsn > header.last_lsn {
            return Err(damaged);
        }
        last = lsn;
        let kind = kind_of(head[16]).ok_or(BodyFault::UnknownKind { at, kind: head[16] })?;
        let mut topic = [0; 16];
        topic.copy_from_slice(&head[24..40]);
        entries.push(RecoveredEntry {
            lsn,
            entry: JournalEntry {
                kind,
                partition: PartitionId {
                    topic: TopicId(Uuid::from_bytes(topic)),
                    index: u32_at(head, 20).cast_signed(),
                },
                replica: Incarnation(u64_at(head, 40)),
                leader_epoch: LeaderEpoch(u32_at(head, 48).cast_signed()),
                base_offset: Offset(u64_at(head, 52).cast_signed()),
                payload: group.slice(at + ENTRY_HEADER_BYTES..next),
            },
        });
        at = next;
    }
    if entries.len() != header.entries as usize || (!entries.is_empty() && last != header.last_lsn) {
        return Err(BodyFault::Damaged { at });
    }
    Ok(entries)
}

fn kind_of(number: u8) -> Option<EntryKind> {
    use EntryKind::*;
    let known = [
        Batch,
        Truncate,
        EpochStart,
        LogStart,
        ReplicaCreate,
        ReplicaDelete,
        Checkpoint,
        TruncateFully,
        RaftEntry,
        RaftHardState,
        RaftConfState,
        RaftSnapshot,
    ];
    known.into_iter().find(|kind| *kind as u8 == number)
}

fn seed(generation: u64) -> u32 {
    crc32c::crc32c(&generation.to_le_bytes())
}

/// Of everything but the CRC itself, which stands at bytes 4..8.
fn framed_crc(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &bytes[..4]), &bytes[8..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}
