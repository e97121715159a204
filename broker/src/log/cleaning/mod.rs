//! Cleaning, Kafka's log compaction: of each key the last record stays, in new segments that take the place of old ones.
//!
//! 1. [`Cleaning::survey`] reads what was never cleaned and remembers where the newest record of each key is, in bounded memory.
//!    What does not fit waits for the next time.
//! 2. [`Cleaning::clean`] writes what stays of a few segments to a file aside, syncs it, gives it its name and syncs the directory.
//!    Its name says which offsets it stands for, so that a start in between takes it in their place, whatever of them is still
//!    there ([`super::segment::live`]).
//! 3. The partition's owner puts it in their place; their files go later, as those of deleted records do.
//!
//! Only segments that a recorded checkpoint vouches for, and whose records are committed, are cleaned: no truncation and no replay
//! ends within one. Batches stay without holes ([`rewrite`]), so everything that reads, replays or replicates a log goes on to take a
//! hole for damage. Rising in offset, one group after the other: a tombstone is marked to go only when what it deletes is gone.

pub mod choice;
pub mod newest;
pub mod record;
pub mod rewrite;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::{Buf, Bytes};
use io_backend::task::give_way;
use io_backend::{Backend, Deadline, Disk, DiskError, File, Moment, OpenHow};

use super::Compaction;
use super::batch::{self, BatchHeader, Damage, HEADER_BYTES};
use super::checkpoint::Segments;
use super::codec::{self, OPENED_BYTES_MAX};
use super::open_files::OpenFiles;
use super::read::ReadFailure;
use super::segment::{Begun, CleanedName, Segment, SegmentDamage, SegmentName, damage_at};
use super::writing::{FileOf, Writing};
use crate::ids::Offset;
use crate::limits;
use newest::Newest;
use rewrite::{Counts, Judge, Opened, Rewriter, Rules, give_way_between};

/// Read at once.
const READ_BYTES: usize = 256 * 1024;
/// A batch is opened in steps of this, between which others run.
const STEP_BYTES: usize = 64 * 1024;

/// What is to be cleaned, as the partition's owner knows it.
pub struct Plan<B: Backend> {
    /// The partition's.
    pub directory: PathBuf,
    /// The node's.
    pub open_files: OpenFiles<B>,
    /// From the first on, as many as may be cleaned.
    pub segments: Segments<B>,
    /// Where the log starts.
    pub log_start: Offset,
    /// All replicas have what lies before on their disks, as far as is known.
    pub held_by_all: Offset,
    /// How often it was truncated.
    pub truncations: u32,
    /// Base offsets of batches that producers are remembered by.
    pub remembered: BTreeSet<Offset>,
    /// The number of this cleaning, which no file has.
    pub nth: u32,
    /// How the partition is cleaned.
    pub rules: Compaction,
    /// A segment is not made larger than this.
    pub segment_bytes: u64,
    /// Bytes between two entries of an index.
    pub index_interval_bytes: u64,
}

/// Why a cleaning ends before it is done. What was not cleaned is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CleaningError {
    /// A segment cannot be read.
    #[error("{0}")]
    Read(#[from] ReadFailure),
    /// A new one cannot be written.
    #[error("{0}")]
    Write(#[from] DiskError),
}

/// A group was not cleaned.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotCleaned {
    /// Why.
    pub error: CleaningError,
    /// Files that may have been made: to be removed.
    pub left: Vec<PathBuf>,
}

/// A segment that was cleaned: durable, under its name.
pub struct Cleaned<B: Backend> {
    /// What it was made of.
    pub sources: Vec<SegmentName>,
    /// As readers will have it.
    pub segment: Segment<FileOf<B>>,
    /// What became of records.
    pub counts: Counts,
}

/// Reads and writes no faster than so many bytes a second, on average.
pub struct Pace {
    bytes_per_s: u64,
    since: Moment,
    bytes: u64,
}

impl Pace {
    /// From now on.
    pub fn new(backend: &impl Backend, bytes_per_s: u64) -> Pace {
        Pace { bytes_per_s: bytes_per_s.max(1), since: backend.now(), bytes: 0 }
    }

    async fn took(&mut self, backend: &impl Backend, bytes: usize) {
        self.bytes += bytes as u64;
        let nanos = u128::from(self.bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
        let due = self.since + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = backend.now();
        if due > now {
            backend.sleep(due.since(now)).await;
        } else {
            // What was not used is not made up for.
            (self.since, self.bytes) = (now, 0);
            give_way().await;
        }
    }
}

/// A cleaning at work.
pub struct Cleaning<'a, B: Backend> {
    /// What disk and time come from.
    pub backend: &'a B,
    /// What to clean.
    pub plan: &'a Plan<B>,
    /// Most memory for keys, in bytes.
    pub keys_bytes: usize,
    /// Decides last.
    pub judge: &'a Judge,
    /// Something before what is cleaned now was left as it is: see [`Rules::left_behind`]. False at first.
    pub left_behind: AtomicBool,
}

impl<B: Backend> Cleaning<'_, B> {
    fn soon(&self) -> Deadline {
        Deadline::after(self.backend, limits::DISK_DEADLINE)
    }

    /// Where the newest record of each key is, of what was never cleaned; and how many of the segments may be cleaned with that.
    ///
    /// # Errors
    /// Something cannot be read.
    pub async fn survey(&self, pace: &mut Pace) -> Result<(Newest, usize), CleaningError> {
        let secret = (self.backend.random_u64(), self.backend.random_u64());
        let mut newest = Newest::new(secret, self.keys_bytes);
        let segments = &self.plan.segments;
        let first_dirty = segments.iter().position(|segment| segment.name.cleaned.is_none());
        for (nth, segment) in segments.iter().enumerate() {
            if segment.name.cleaned.is_some() {
                continue;
            }
            let mut reader = Reader::new(segment);
            while let Some((header, batch)) = reader.next(self.soon()).await? {
                // Of a batch that says otherwise nothing goes, and for it nothing goes.
                if let Some(records) = open(&header, &batch).await
                    && are_in_order(&header, &records).await
                {
                    take_keys(&mut newest, &header, &records).await;
                }
                pace.took(self.backend, header.bytes).await;
            }
            if newest.has_overflowed() {
                // Of a segment that alone has more keys than fit, the others wait for newer records.
                return Ok((newest, if Some(nth) == first_dirty { nth + 1 } else { nth }));
            }
        }
        Ok((newest, segments.len()))
    }

    /// Writes what stays of these segments, which follow one another.
    ///
    /// # Errors
    /// The disk's, or a segment's: nothing has changed.
    pub async fn clean(
        &self,
        newest: &Newest,
        group: &[Arc<Segment<FileOf<B>>>],
        pace: &mut Pace,
    ) -> Result<Option<Cleaned<B>>, NotCleaned> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(None) };
        let plan = self.plan;
        let generation = group.iter().map(|segment| segment.name.generation).max().unwrap_or(0);
        let cleaned = Some(CleanedName { nth: plan.nth, end: last.end() });
        let name = SegmentName { base: first.base, generation, attempt: 0, cleaned };
        let path = plan.directory.join(name.file("log"));
        let side = plan.directory.join(format!("{}.new", name.file("log")));
        let outcome = self.write(newest, group, name, &side, &path, pace).await;
        let indexes = ["index", "timeindex"].map(|extension| plan.directory.join(name.file(extension)));
        let left = || [side.clone(), path.clone()].into_iter().chain(indexes.clone()).collect();
        let (segment, counts) = outcome.map_err(|error| NotCleaned { error, left: left() })?;
        let sources = group.iter().map(|segment| segment.name).collect();
        Ok(Some(Cleaned { sources, segment, counts }))
    }

    async fn write(
        &self,
        newest: &Newest,
        group: &[Arc<Segment<FileOf<B>>>],
        name: SegmentName,
        side: &std::path::Path,
        path: &std::path::Path,
        pace: &mut Pace,
    ) -> Result<(Segment<FileOf<B>>, Counts), CleaningError> {
        let (backend, plan) = (self.backend, self.plan);
        let file = plan.open_files.open(side, OpenHow::CreateNew, self.soon()).await?;
        let empty = Segment::empty(name, plan.open_files.file(path.to_path_buf()), Begun::now(backend));
        let mut writing: Writing<B> = Writing::on(empty, file);
        let now_ms = backend.wall_ms();
        let retained = i64::try_from(plan.rules.delete_retention.as_millis()).unwrap_or(i64::MAX);
        let mut rewriter = Rewriter::new(Rules {
            newest,
            log_start: plan.log_start,
            held_by_all: plan.held_by_all,
            now_ms,
            horizon_ms: now_ms.saturating_add(retained),
            remembered: &plan.remembered,
            judge: self.judge,
            left_behind: &self.left_behind,
        });
        for segment in group {
            let is_clean = segment.name.cleaned.is_some();
            let mut reader = Reader::new(segment);
            while let Some((header, batch)) = reader.next(self.soon()).await? {
                let records = open(&header, &batch).await;
                let records = records.as_deref();
                rewriter.add(&Opened { header: &header, batch: &batch, records, is_clean }).await;
                let put = self.put(&mut writing, &mut rewriter).await?;
                pace.took(backend, header.bytes + put).await;
            }
        }
        rewriter.end().await;
        self.put(&mut writing, &mut rewriter).await?;
        if writing.has_buffered() {
            writing.write(self.soon()).await?;
        }
        writing.sync(self.soon()).await?;
        // Before it has its name: whoever finds that finds its indexes.
        let mut segment = writing.finish(&plan.open_files, &plan.directory, || self.soon()).await?;
        let disk = backend.disk();
        disk.rename(side, path, self.soon()).await?;
        disk.sync_dir(&plan.directory, self.soon()).await?;
        // Its end is in its name.
        segment.spent = true;
        Ok((segment, rewriter.counts))
    }

    /// Writes what is made, or buffers it; how many bytes.
    async fn put(
        &self,
        writing: &mut Writing<B>,
        rewriter: &mut Rewriter<'_>,
    ) -> Result<usize, CleaningError> {
        let mut put = 0;
        for made in rewriter.made() {
            let header = BatchHeader::read(&made).map_err(|damage| {
                let what = format!("a batch that was made cannot be read: {damage}");
                DiskError::new("clean", &self.plan.directory, std::io::Error::other(what))
            })?;
            writing.put(&header, &made, self.plan.index_interval_bytes);
            put += made.len();
            if writing.is_write_due() {
                writing.write(self.soon()).await?;
                if writing.is_sync_due() {
                    writing.sync(self.soon()).await?;
                }
            }
        }
        Ok(put)
    }
}

/// Whether these are as many records as there should be, of rising offsets. Others were let in by a topic that was not compacted: nobody
/// knows what they are to mean.
async fn are_in_order(header: &BatchHeader, records: &[u8]) -> bool {
    let (mut next, mut seen) = (0, 0);
    for record in record::walk(records, header.records) {
        let Ok(record) = record else { return false };
        if !(next..=i64::from(header.last_offset_delta)).contains(&record.offset_delta) {
            return false;
        }
        next = record.offset_delta + 1;
        let before = seen;
        seen += record.bytes();
        give_way_between(before, seen).await;
    }
    true
}

async fn take_keys(newest: &mut Newest, header: &BatchHeader, records: &[u8]) {
    let mut seen = 0;
    for record in record::walk(records, header.records).flatten() {
        if let Some(key) = record.key {
            newest.take(key, header.base_offset.plus(record.offset_delta));
        }
        let before = seen;
        seen += record.bytes();
        give_way_between(before, seen).await;
    }
}

/// The records of a batch as they are when opened; `None`: they cannot be had, or are too much.
async fn open(header: &BatchHeader, batch: &Bytes) -> Option<Bytes> {
    let records = batch.slice(HEADER_BYTES..);
    if header.compression() == 0 {
        return Some(records);
    }
    let mut from = codec::open(header.compression(), &records).ok()?;
    let mut opened = Vec::new();
    loop {
        let before = opened.len();
        std::io::Read::read_to_end(&mut std::io::Read::take(&mut from, STEP_BYTES as u64), &mut opened)
            .ok()?;
        match opened.len() - before {
            step if step < STEP_BYTES => return Some(opened.into()),
            _ if opened.len() > OPENED_BYTES_MAX => return None,
            _ => give_way().await,
        }
    }
}

/// What a batch has from `from` on, for a follower that has all before: see [`rewrite::from`].
pub async fn batch_from(header: &BatchHeader, batch: &Bytes, from: Offset) -> Option<Bytes> {
    let records = open(header, batch).await?;
    rewrite::from(header, &records, from).await
}

/// Reads the whole batches of a segment, one after the other.
struct Reader<'a, F> {
    segment: &'a Segment<F>,
    position: u64,
    next: Offset,
    /// Bytes from `position` on.
    ahead: Bytes,
}

impl<'a, F: File> Reader<'a, F> {
    fn new(segment: &'a Segment<F>) -> Reader<'a, F> {
        Reader { segment, position: 0, next: segment.base, ahead: Bytes::new() }
    }

    /// The next batch, whose checksum holds; `None` at the end of the segment.
    async fn next(&mut self, deadline: Deadline) -> Result<Option<(BatchHeader, Bytes)>, ReadFailure> {
        if self.next >= self.segment.end() {
            return Ok(None);
        }
        self.read_ahead(HEADER_BYTES, deadline).await?;
        let header = BatchHeader::read(&self.ahead).map_err(|damage| self.damaged(damage))?;
        if header.base_offset != self.next {
            let damage = Damage::Offset { expected: self.next, found: header.base_offset };
            return Err(self.damaged(damage).into());
        }
        self.read_ahead(header.bytes, deadline).await?;
        let batch = match self.ahead.len() < header.bytes {
            true => return Err(self.damaged(Damage::Short).into()),
            // A copy: what stays of it does not hold all that was read with it.
            false => Bytes::copy_from_slice(&self.ahead[..header.bytes]),
        };
        batch::verify(&batch).map_err(|damage| self.damaged(damage))?;
        self.ahead.advance(header.bytes);
        self.position += header.bytes as u64;
        self.next = header.end();
        Ok(Some((header, batch)))
    }

    async fn read_ahead(&mut self, bytes: usize, deadline: Deadline) -> Result<(), DiskError> {
        if self.ahead.len() < bytes {
            let left = self.segment.bytes.saturating_sub(self.position);
            let wanted = left.min(bytes.max(READ_BYTES) as u64) as usize;
            self.ahead = self.segment.file.read_at(self.position, wanted, deadline).await?;
        }
        Ok(())
    }

    fn damaged(&self, damage: Damage) -> SegmentDamage {
        damage_at(self.segment.file.path(), self.position, self.next, damage)
    }
}
