//! Entries of a replica that does not open, copied out of the journal so that the journal can let them go.
//!
//! One file per replica, `rescued/<directory of the replica>.entries` in the data directory: beside the
//! partition's own directory, which people replace when they mend it. Written to a side file, synced, renamed, the
//! directory synced; only then does the journal hear that these entries are not needed. The replica opens from this
//! file and what the journal has after it; the file goes when a recorded checkpoint covers all of it.
//!
//! ```text
//! magic "CHRRESC2" | topic u128 | partition i32 | replica u64 | last lsn u64 | entries u64
//!     | checkpointed u8 | its lsn u64 | log start i64 | log end i64
//!     | high watermark i64 | generation u32 | truncations u32 | crc-32c u32
//! entry: payload bytes u32 | lsn u64 | kind u8 | leader epoch i32 | base offset i64 | crc-32c u32 | payload
//! ```
//! An entry's checksum covers its payload, too. `CHRRESC1` lacks the last line of the header.      (big endian)

use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use io_backend::{Backend, Deadline, Disk, DiskError, File, OpenHow};
use uuid::Uuid;

use super::reconcile::ReplicaId;
use super::recover::{RecoveredReplica, Rescued};
use crate::formats::{RESCUED, RESCUED_1};
use crate::ids::{Incarnation, LeaderEpoch, Lsn, Offset, PartitionId, TopicId};
use crate::journal::{EntryKind, JournalEntry, RecoveredEntry};
use crate::limits;
use crate::log::CheckpointMark;

const EXTENSION: &str = ".entries";
const HEADER_BYTES_1: usize = 8 + 16 + 4 + 8 + 8 + 8 + 1 + 8 + 8 + 8 + 4;
const HEADER_BYTES: usize = HEADER_BYTES_1 + 8 + 4 + 4;
const ENTRY_HEADER_BYTES: usize = 4 + 8 + 1 + 4 + 8 + 4;

/// Why rescued entries cannot be written or read back.
#[derive(Debug, thiserror::Error)]
pub enum RescueError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(
        "{path}: {what}. It holds acknowledged records that are nowhere else: restore the file from a copy, or move it \
         away to give them up"
    )]
    Damaged { path: PathBuf, what: String },
}

fn damaged(path: &Path, what: impl Into<String>) -> RescueError {
    RescueError::Damaged { path: path.to_owned(), what: what.into() }
}

fn kind_of(number: u8) -> Option<EntryKind> {
    use EntryKind::*;
    [Batch, Truncate, EpochStart, LogStart, TruncateFully].into_iter().find(|kind| *kind as u8 == number)
}

/// Writes the entries of a replica behind those that an earlier file of it holds, as one file in the place of that.
pub async fn write<B: Backend>(
    backend: &B,
    directory: &Path,
    id: ReplicaId,
    replica: &RecoveredReplica,
    deadline: Deadline,
) -> Result<Option<Rescued>, RescueError> {
    let RecoveredReplica { mark, entries, rescued } = replica;
    let before = match rescued {
        Some(earlier) => read(backend, earlier, id, deadline).await?,
        None => Vec::new(),
    };
    let all = || before.iter().chain(entries);
    let Some(last_lsn) = all().last().map(|entry| entry.lsn) else { return Ok(None) };
    let disk = backend.disk();
    disk.create_dir_all(directory, deadline).await?;
    if let Some(parent) = directory.parent() {
        disk.sync_dir(parent, deadline).await?;
    }
    let path = directory.join(format!("{}{EXTENSION}", id.directory()));
    let side = directory.join(format!("{}{EXTENSION}.new", id.directory()));
    let file = disk.open(&side, OpenHow::OrCreate, deadline).await?;
    file.set_len(0, deadline).await?;
    let mut buffer = header(id, last_lsn, all().count() as u64, *mark);
    let mut position = 0;
    for entry in all() {
        encode(entry, &mut buffer);
        if buffer.len() >= limits::WRITE_BACK_BYTES {
            let piece = buffer.split().freeze();
            let len = piece.len() as u64;
            file.write_at(position, piece, deadline).await?;
            position += len;
        }
    }
    file.write_at(position, buffer.freeze(), deadline).await?;
    file.sync(deadline).await?;
    drop(file);
    disk.rename(&side, &path, deadline).await?;
    disk.sync_dir(directory, deadline).await?;
    Ok(Some(Rescued { path, last_lsn, mark: *mark, whole: true }))
}

/// All entries of a file, in LSN order.
pub async fn read<B: Backend>(
    backend: &B,
    rescued: &Rescued,
    id: ReplicaId,
    deadline: Deadline,
) -> Result<Vec<RecoveredEntry>, RescueError> {
    let path = &rescued.path;
    let file = backend.disk().open(path, OpenHow::ReadOnly, deadline).await?;
    let len = usize::try_from(file.len(deadline).await?).unwrap_or(usize::MAX);
    let mut bytes = file.read_at(0, len, deadline).await?;
    let Header { id: found, entries: count, bytes: header_bytes, .. } = decode_header(path, &bytes)?;
    if found != id {
        return Err(damaged(path, format!("it holds entries of {}", found.directory())));
    }
    bytes.advance(header_bytes);
    let mut entries = Vec::new();
    for nth in 0..count {
        let entry = decode(&mut bytes, id);
        entries.push(entry.ok_or_else(|| damaged(path, format!("entry {nth} of {count} is not whole")))?);
    }
    Ok(entries)
}

/// The files that are there, by their headers; what an interrupted rescue left beside them is removed.
pub async fn found<B: Backend>(
    backend: &B,
    directory: &Path,
    deadline: Deadline,
) -> Result<Vec<(ReplicaId, Rescued)>, RescueError> {
    let disk = backend.disk();
    let entries = match disk.read_dir(directory, deadline).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = directory.join(&entry.name);
        if entry.name.ends_with(".new") {
            // Should it stay, the next rescue overwrites it.
            let _ = disk.remove_file(&path, deadline).await;
        } else if let Some(name) = entry.name.strip_suffix(EXTENSION)
            && let Some(named) = ReplicaId::from_directory(name)
        {
            let file = disk.open(&path, OpenHow::ReadOnly, deadline).await?;
            let header = file.read_at(0, HEADER_BYTES, deadline).await?;
            let rescued = match decode_header(&path, &header) {
                Ok(Header { last_lsn, mark, .. }) => Rescued { path, last_lsn, mark, whole: true },
                Err(_) => Rescued { path, last_lsn: Lsn(0), mark: None, whole: false },
            };
            all.push((named, rescued));
        }
    }
    Ok(all)
}

/// Not needed any more; one that stays is met again at the next start.
pub async fn remove<B: Backend>(backend: &B, rescued: &Rescued, deadline: Deadline) -> Result<(), DiskError> {
    match backend.disk().remove_file(&rescued.path, deadline).await {
        // People move these away to give them up.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        removed => removed?,
    }
    match rescued.path.parent() {
        Some(directory) => backend.disk().sync_dir(directory, deadline).await,
        None => Ok(()),
    }
}

struct Header {
    id: ReplicaId,
    last_lsn: Lsn,
    entries: u64,
    mark: Option<CheckpointMark>,
    /// Of the header itself.
    bytes: usize,
}

fn header(id: ReplicaId, last_lsn: Lsn, entries: u64, mark: Option<CheckpointMark>) -> BytesMut {
    let mut out = BytesMut::with_capacity(limits::WRITE_BACK_BYTES);
    out.put_slice(RESCUED);
    out.put_slice(id.partition.topic.0.as_bytes());
    out.put_i32(id.partition.index);
    out.put_u64(id.replica.0);
    out.put_u64(last_lsn.0);
    out.put_u64(entries);
    out.put_u8(u8::from(mark.is_some()));
    out.put_u64(mark.map_or(0, |mark| mark.lsn.0));
    out.put_i64(mark.map_or(0, |mark| mark.log_start.0));
    out.put_i64(mark.map_or(0, |mark| mark.log_end.0));
    out.put_i64(mark.map_or(0, |mark| mark.high_watermark.0));
    out.put_u32(mark.map_or(0, |mark| mark.generation));
    out.put_u32(mark.map_or(0, |mark| mark.truncations));
    out.put_u32(crc32c::crc32c(&out));
    out
}

fn decode_header(path: &Path, bytes: &[u8]) -> Result<Header, RescueError> {
    let first = bytes.starts_with(RESCUED_1);
    let header_bytes = if first { HEADER_BYTES_1 } else { HEADER_BYTES };
    let (mut body, mut crc) = bytes
        .get(..header_bytes)
        .ok_or_else(|| damaged(path, "it has no whole header"))?
        .split_at(header_bytes - 4);
    if !(first || body.starts_with(RESCUED)) || crc.get_u32() != crc32c::crc32c(body) {
        return Err(damaged(path, "its header is damaged"));
    }
    body.advance(RESCUED.len());
    let partition = PartitionId { topic: TopicId(Uuid::from_u128(body.get_u128())), index: body.get_i32() };
    let id = ReplicaId { partition, replica: Incarnation(body.get_u64()) };
    let (last_lsn, entries) = (Lsn(body.get_u64()), body.get_u64());
    let checkpointed = body.get_u8() != 0;
    let (lsn, log_start, log_end) = (Lsn(body.get_u64()), Offset(body.get_i64()), Offset(body.get_i64()));
    let (high_watermark, generation, truncations) = match first {
        true => (log_end, 0, 0),
        false => (Offset(body.get_i64()), body.get_u32(), body.get_u32()),
    };
    let replica = id.replica;
    let mark = CheckpointMark {
        partition,
        replica,
        lsn,
        log_start,
        log_end,
        high_watermark,
        generation,
        truncations,
    };
    Ok(Header { id, last_lsn, entries, mark: checkpointed.then_some(mark), bytes: header_bytes })
}

fn encode(RecoveredEntry { lsn, entry }: &RecoveredEntry, out: &mut BytesMut) {
    let at = out.len();
    out.put_u32(u32::try_from(entry.payload.len()).expect("an entry fits a journal file"));
    out.put_u64(lsn.0);
    out.put_u8(entry.kind as u8);
    out.put_i32(entry.leader_epoch.0);
    out.put_i64(entry.base_offset.0);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[at..]), &entry.payload);
    out.put_u32(crc);
    out.put_slice(&entry.payload);
}

/// The next entry, if it is whole.
fn decode(bytes: &mut Bytes, id: ReplicaId) -> Option<RecoveredEntry> {
    if bytes.len() < ENTRY_HEADER_BYTES {
        return None;
    }
    let mut head = bytes.split_to(ENTRY_HEADER_BYTES);
    let covered = crc32c::crc32c(&head[..ENTRY_HEADER_BYTES - 4]);
    let payload_bytes = head.get_u32() as usize;
    let lsn = Lsn(head.get_u64());
    let kind = kind_of(head.get_u8())?;
    let (leader_epoch, base_offset) = (LeaderEpoch(head.get_i32()), Offset(head.get_i64()));
    if bytes.len() < payload_bytes {
        return None;
    }
    let payload = bytes.split_to(payload_bytes);
    if crc32c::crc32c_append(covered, &payload) != head.get_u32() {
        return None;
    }
    let ReplicaId { partition, replica } = id;
    let entry = JournalEntry { kind, partition, replica, leader_epoch, base_offset, payload };
    Some(RecoveredEntry { lsn, entry })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journal::fake::Fake;

    fn id() -> ReplicaId {
        let topic = TopicId(Uuid::from_u128(7));
        ReplicaId { partition: PartitionId { topic, index: 2 }, replica: Incarnation(5) }
    }

    fn entries(lsns: std::ops::Range<u64>) -> Vec<RecoveredEntry> {
        let entry = |lsn: u64| JournalEntry {
            kind: if lsn.is_multiple_of(3) { EntryKind::EpochStart } else { EntryKind::Batch },
            partition: id().partition,
            replica: id().replica,
            leader_epoch: LeaderEpoch(4),
            base_offset: Offset(lsn as i64 * 10),
            payload: Bytes::from(vec![lsn as u8; 700 * (lsn as usize % 4)]),
        };
        lsns.map(|lsn| RecoveredEntry { lsn: Lsn(lsn), entry: entry(lsn) }).collect()
    }

    fn directory() -> PathBuf {
        "/data/rescued".into()
    }

    async fn rescue(fake: &Fake, earlier: Option<&Rescued>, lsns: std::ops::Range<u64>) -> Rescued {
        let soon = Deadline::after(fake, Duration::from_secs(9));
        let mark = CheckpointMark::of(id().partition, id().replica, 0, 3, 9);
        let mark = CheckpointMark { high_watermark: Offset(7), generation: 2, truncations: 1, ..mark };
        let replica =
            RecoveredReplica { mark: Some(mark), entries: entries(lsns), rescued: earlier.cloned() };
        let rescued = write(fake, &directory(), id(), &replica, soon).await.unwrap().unwrap();
        assert_eq!(rescued.mark, Some(mark));
        rescued
    }

    #[test]
    fn what_is_rescued_outlives_a_power_loss_and_later_entries_are_added_behind_it() {
        let fake = Fake::new();
        let written = fake.run(async {
            let first = rescue(&fake, None, 1..5).await;
            rescue(&fake, Some(&first), 8..20).await
        });
        fake.lose_power(|_, _| false);
        fake.run(async {
            let soon = Deadline::after(&fake, Duration::from_secs(9));
            let all = found(&fake, &directory(), soon).await.unwrap();
            let [(found, rescued)] = &all[..] else { panic!("{all:?}") };
            assert_eq!((*found, rescued.last_lsn), (id(), Lsn(19)));
            assert_eq!(*rescued, written);
            let read = read(&fake, rescued, id(), soon).await.unwrap();
            assert_eq!(read, [entries(1..5), entries(8..20)].concat());
        });
    }

    #[test]
    fn no_damaged_byte_passes_for_an_entry() {
        let fake = Fake::new();
        let rescued = fake.run(rescue(&fake, None, 1..5));
        let len = fake.world().files[&rescued.path].now.len();
        for at in (0..len).step_by(7) {
            fake.damage(&rescued.path, |bytes| bytes[at] ^= 0x10);
            let soon = Deadline::after(&fake, Duration::from_secs(9));
            let error = fake.run(read(&fake, &rescued, id(), soon)).unwrap_err().to_string();
            assert!(error.contains("restore the file from a copy"), "byte {at}: {error}");
            fake.damage(&rescued.path, |bytes| bytes[at] ^= 0x10);
        }
        fake.damage(&rescued.path, |bytes| bytes.truncate(len - 1));
        let soon = Deadline::after(&fake, Duration::from_secs(9));
        assert!(fake.run(read(&fake, &rescued, id(), soon)).is_err());
        fake.damage(&rescued.path, |bytes| bytes[20] ^= 1);
        let found = fake.run(found(&fake, &directory(), soon)).unwrap();
        assert!(found.len() == 1 && found[0].0 == id() && !found[0].1.whole, "the others start: {found:?}");
    }
}
