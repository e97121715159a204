//! A segment: a file `<base offset, 20 digits>.log` of whole batches, with its two index files.
//!
//! [`Segment`] is what readers see: the synced beginning of the file, and where to jump into it. It never
//! changes; a checkpoint that writes on makes a new one that shares the file. [`Scan`] reads the
//! headers of a stretch of the file and yields what an index needs to know of it.

use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use io_backend::{Backend, Deadline, DiskError, File, Moment};

use super::batch::{BatchHeader, Damage, HEADER_BYTES};
use super::index::{IndexPoint, SparseIndex};
use crate::ids::Offset;

/// How much of a segment is read at once while it is scanned.
const SCAN_BYTES: usize = 256 * 1024;

/// A stretch of a partition's log in one file, as readers see it. Cheap to clone: the file is shared.
#[derive(Clone, Debug)]
pub struct Segment<F> {
    /// The offset that its first record has or had.
    pub base: Offset,
    /// What its files are called.
    pub name: SegmentName,
    /// To read from.
    pub file: F,
    /// Synced bytes; what lies beyond is nobody's. Of a file that was cut, those from before count too.
    pub bytes: u64,
    /// What its synced batches add up to. Of a file that was cut, only the end is what it was cut to.
    pub state: Summary,
    /// Where to jump into it.
    pub index: SparseIndex,
    /// Entries in each of the index files.
    pub index_entries: u64,
    /// When this process began to write it, or opened it.
    pub begun: Begun,
    /// It is never written again: a sync of it failed or did not end, or it was cut.
    pub spent: bool,
}

/// A moment by both clocks: the file's age, and where its records have no times theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// By the clock that only goes forward.
    pub moment: Moment,
    /// By the clock on the wall, in milliseconds since 1970.
    pub wall_ms: i64,
}

impl Begun {
    /// This moment.
    pub fn now(backend: &impl Backend) -> Begun {
        Begun { moment: backend.now(), wall_ms: backend.wall_ms() }
    }
}

/// What is known of the batches of a segment from its beginning to some point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The offset after the last record.
    pub end: Offset,
    /// Largest timestamp of the first batch: the segment's age counts from it. -1 where there is none, or where it is of
    /// no interest any more.
    pub first_timestamp: i64,
    /// Largest timestamp, -1 where there is none, and the base offset of the first batch that has it.
    pub max_timestamp: i64,
    /// The base offset of the batch that has `max_timestamp`; the segment's where there is none.
    pub max_timestamp_at: Offset,
    /// Position of the last entry of the index files.
    pub indexed_at: u64,
}

impl Summary {
    /// No batch, in a segment that begins at `base`.
    pub fn empty(base: Offset) -> Summary {
        Summary { end: base, first_timestamp: -1, max_timestamp: -1, max_timestamp_at: base, indexed_at: 0 }
    }

    /// Takes in the batch at `position`; returns the index entry that points to it, if one is due.
    pub fn add(
        &mut self,
        base: Offset,
        position: u64,
        header: &BatchHeader,
        interval: u64,
    ) -> Option<IndexPoint> {
        let due = position > 0 && position - self.indexed_at >= interval;
        let relative = |offset: Offset| u32::try_from(offset.0 - base.0).unwrap_or(u32::MAX);
        let point = due.then(|| IndexPoint {
            offset: relative(header.base_offset),
            position: u32::try_from(position).unwrap_or(u32::MAX),
            max_timestamp: self.max_timestamp,
            max_timestamp_offset: relative(self.max_timestamp_at),
        });
        if due {
            self.indexed_at = position;
        }
        if position == 0 {
            self.first_timestamp = header.max_timestamp;
        }
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_at = header.base_offset;
        }
        self.end = header.end();
        point
    }
}

impl<F: File> Segment<F> {
    /// A segment without a byte.
    pub fn empty(name: SegmentName, file: F, begun: Begun) -> Segment<F> {
        Segment {
            base: name.base,
            name,
            file,
            bytes: 0,
            state: Summary::empty(name.base),
            index: SparseIndex::default(),
            index_entries: 0,
            begun,
            spent: false,
        }
    }

    /// The offset after its last synced record.
    pub fn end(&self) -> Offset {
        self.state.end
    }

    /// What retention goes by: the largest time of its records, or when it was found where they have none.
    pub fn newest_ms(&self) -> i64 {
        match self.state.max_timestamp {
            newest if newest >= 0 => newest,
            _ => self.begun.wall_ms,
        }
    }

    /// Where to begin to read so that the batch that holds `offset` is met.
    pub fn position_before(&self, offset: Offset) -> (u64, Offset) {
        let relative = u32::try_from(offset.0.saturating_sub(self.base.0).max(0)).unwrap_or(u32::MAX);
        self.jump(self.index.before_offset(relative))
    }

    /// Where to begin to read so that the first batch not older than `timestamp` is met.
    pub fn position_before_timestamp(&self, timestamp: i64) -> (u64, Offset) {
        self.jump(self.index.before_timestamp(timestamp))
    }

    /// The largest timestamp of what lies from `start` on and before a position, as far as the index knows, and where to begin to read
    /// so that with it all before `until` is met.
    pub fn newest_before(&self, start: Offset, until: Offset) -> (i64, u64, Offset) {
        let relative = u32::try_from(until.0.saturating_sub(self.base.0).max(0)).unwrap_or(u32::MAX);
        let is_told = |point: &&IndexPoint| self.base.plus(i64::from(point.max_timestamp_offset)) >= start;
        match self.index.before_offset(relative).filter(is_told) {
            Some(point) => {
                let (position, at) = self.jump(Some(point));
                (point.max_timestamp, position, at)
            }
            None => {
                let (position, at) = self.position_before(start);
                (-1, position, at)
            }
        }
    }

    fn jump(&self, point: Option<&IndexPoint>) -> (u64, Offset) {
        point.map_or((0, self.base), |p| (u64::from(p.position), self.base.plus(i64::from(p.offset))))
    }
}

/// Names a segment's files: `<base offset, 20 digits>`, then `.g<generation>` from the second generation on, and
/// `.g<generation>.c<nth>-<end offset>` of what was cleaned. A generation ends where what is written next does not follow from
/// the files that are there: a truncation cut them, or an attempt to write them failed, so an operation on them may still be in
/// flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// The base offset of the segment.
    pub base: Offset,
    /// How many generations of files the partition had before.
    pub generation: u32,
    /// Within the first generation, `.<attempt>` in the name: releases before generations counted failed attempts there.
    pub attempt: u32,
    /// Of what was cleaned.
    pub cleaned: Option<CleanedName>,
}

/// What the name of a cleaned segment says beyond that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CleanedName {
    /// Which cleaning of the partition made it; a later one had what earlier ones made.
    pub nth: u32,
    /// The offset after its last one: it stands for all that others hold up to there.
    pub end: Offset,
}

/// Of these files those that count, rising in offset. A file stands for the log from its base on, whatever older generations
/// have there; of several attempts at one offset the last is the segment. What was cleaned takes the place of all that it was
/// made of, of which some may still be there.
pub fn live(names: Vec<SegmentName>) -> Vec<SegmentName> {
    let (mut cleaned, mut written): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| name.cleaned.is_some());
    written.sort_unstable_by_key(|name| (name.generation, name.base, name.attempt));
    let mut live: Vec<SegmentName> = Vec::with_capacity(written.len() + cleaned.len());
    for name in written {
        let before = live.partition_point(|other| other.base < name.base);
        live.truncate(before);
        live.push(name);
    }
    // The latest first: where an earlier one is not a part of it, what that was made of was still there.
    cleaned.sort_unstable_by_key(|name| std::cmp::Reverse(name.cleaned.map(|cleaned| cleaned.nth)));
    let mut taken: Vec<(Offset, Offset)> = Vec::new();
    for name in cleaned {
        let Some(CleanedName { end, .. }) = name.cleaned else { continue };
        let is_taken = taken.iter().any(|(from, to)| name.base < *to && *from < end);
        // Only what is committed is cleaned, and that is not truncated: where a later generation begins before its end, it is
        // of another log.
        let is_of_another = live
            .iter()
            .any(|other| other.cleaned.is_none() && other.base < end && other.generation > name.generation);
        if !is_taken && !is_of_another {
            taken.push((name.base, end));
            live.retain(|other| !(name.base..end).contains(&other.base));
            let at = live.partition_point(|other| other.base < name.base);
            live.insert(at, name);
        }
    }
    live
}

impl SegmentName {
    /// Of a file that a checkpoint writes.
    pub fn written(base: Offset, generation: u32) -> SegmentName {
        SegmentName { base, generation, attempt: 0, cleaned: None }
    }

    /// The name of its file of this kind: `log`, `index` or `timeindex`.
    pub fn file(self, extension: &str) -> String {
        let SegmentName { base: Offset(base), generation, attempt, cleaned } = self;
        match (cleaned, generation, attempt) {
            (Some(CleanedName { nth, end }), ..) => {
                format!("{base:020}.g{generation}.c{nth}-{:020}.{extension}", end.0)
            }
            (None, 0, 0) => format!("{base:020}.{extension}"),
            (None, 0, attempt) => format!("{base:020}.{attempt}.{extension}"),
            (None, generation, _) => format!("{base:020}.g{generation}.{extension}"),
        }
    }

    /// The name of a `.log` file, if it is one.
    pub fn parse(name: &str) -> Option<SegmentName> {
        let stem = name.strip_suffix(".log")?;
        let mut parts = stem.split('.');
        let base = Offset(parts.next()?.parse().ok()?);
        let (generation, attempt) = match parts.next() {
            None => (0, 0),
            Some(which) => match which.strip_prefix('g') {
                Some(generation) => (generation.parse().ok()?, 0),
                None => (0, which.parse().ok()?),
            },
        };
        let cleaned = match parts.next() {
            None => None,
            Some(which) => {
                let (nth, end) = which.strip_prefix('c')?.split_once('-')?;
                Some(CleanedName { nth: nth.parse().ok()?, end: Offset(end.parse().ok()?) })
            }
        };
        let name = SegmentName { base, generation, attempt, cleaned };
        (name.file("log").strip_suffix(".log") == Some(stem)).then_some(name)
    }
}

/// A segment holds bytes that it should not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at byte {position} (offset {offset}): {damage}", path.display())]
pub struct SegmentDamage {
    /// The segment's file.
    pub path: PathBuf,
    /// Where in it, in bytes.
    pub position: u64,
    /// What should have been there.
    pub offset: Offset,
    /// What was found there.
    pub damage: Damage,
}

impl SegmentDamage {
    /// Whether the reader may only have been led astray, having jumped to `position`: there is no batch where
    /// its index said. Bytes that have rotted are told apart by their checksum.
    pub fn is_misled_at(&self, position: u64) -> bool {
        position > 0 && self.position == position && !matches!(self.damage, Damage::Checksum { .. })
    }
}

/// Why a segment cannot be walked on.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The file cannot be read, or not within the deadline.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There are bytes that are no batch, or not the next one.
    #[error(transparent)]
    Damaged(#[from] SegmentDamage),
}

/// Walks the batches of a file by their headers.
pub struct Scan<'a, F> {
    file: &'a F,
    position: u64,
    /// The offset that must come next.
    next: Offset,
    /// Bytes read ahead, from `position` on.
    ahead: Bytes,
    len: u64,
}

impl<'a, F: File> Scan<'a, F> {
    /// From the batch at `position`, which must begin at offset `next`, to byte `len`.
    pub fn new(file: &'a F, position: u64, next: Offset, len: u64) -> Scan<'a, F> {
        Scan { file, position, next, ahead: Bytes::new(), len }
    }

    /// Where the next batch begins, in bytes; the end of the stretch when all is read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next header and its position; `None` at the end of the bytes. The batch is wholly there.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or what stands at [`Scan::position`] is not the next batch, wholly there. The
    /// scan stays where it is.
    pub async fn next_batch(&mut self, deadline: Deadline) -> Result<Option<(u64, BatchHeader)>, ScanError> {
        if self.position >= self.len {
            return Ok(None);
        }
        if self.ahead.len() < HEADER_BYTES {
            let len = (self.len - self.position).min(SCAN_BYTES as u64);
            self.ahead = self.file.read_at(self.position, len as usize, deadline).await?;
        }
        let at = self.position;
        let header = BatchHeader::read(&self.ahead).map_err(|damage| self.damaged(damage))?;
        if header.base_offset != self.next {
            let damage = Damage::Offset { expected: self.next, found: header.base_offset };
            return Err(self.damaged(damage).into());
        }
        if at + header.bytes as u64 > self.len {
            return Err(self.damaged(Damage::Short).into());
        }
        self.position += header.bytes as u64;
        self.next = header.end();
        if header.bytes <= self.ahead.len() {
            self.ahead.advance(header.bytes);
        } else {
            self.ahead = Bytes::new();
        }
        Ok(Some((at, header)))
    }

    fn damaged(&self, damage: Damage) -> SegmentDamage {
        damage_at(self.file.path(), self.position, self.next, damage)
    }
}

/// What was found in the file `path` at byte `position`, where `offset` should have been.
pub fn damage_at(path: &Path, position: u64, offset: Offset, damage: Damage) -> SegmentDamage {
    SegmentDamage { path: path.to_path_buf(), position, offset, damage }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(base: i64, generation: u32) -> SegmentName {
        SegmentName::written(Offset(base), generation)
    }

    fn cleaned(nth: u32, base: i64, end: i64, generation: u32) -> SegmentName {
        SegmentName { cleaned: Some(CleanedName { nth, end: Offset(end) }), ..written(base, generation) }
    }

    #[test]
    fn names_are_read_back_and_others_are_none() {
        let attempt = SegmentName { attempt: 2, ..written(3, 0) };
        for name in [written(0, 0), attempt, written(7, 4), cleaned(12, 5, 900, 0), cleaned(1, 0, 9, 3)] {
            assert_eq!(SegmentName::parse(&name.file("log")), Some(name), "{}", name.file("log"));
        }
        assert_eq!(
            cleaned(12, 5, 900, 3).file("index"),
            "00000000000000000005.g3.c12-00000000000000000900.index"
        );
        for other in
            ["5.log", "x.log", "00000000000000000005.g3.c12.log", "00000000000000000005.c1-2.log", "a.new"]
        {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_was_cleaned_takes_the_place_of_what_it_was_made_of_whatever_of_that_is_there() {
        let one = cleaned(1, 0, 20, 0);
        let all = [written(0, 0), written(10, 0), written(20, 0), one];
        assert_eq!(live(all.to_vec()), [one, written(20, 0)]);
        assert_eq!(live(vec![one, written(20, 0)]), [one, written(20, 0)]);
        assert_eq!(live(vec![written(10, 0), one, written(20, 0)]), [one, written(20, 0)]);
        let two = cleaned(2, 0, 30, 0);
        assert_eq!(live(vec![one, written(20, 0), two, written(30, 1)]), [two, written(30, 1)]);
    }

    #[test]
    fn a_cleaning_that_did_not_count_is_not_taken_for_a_later_one() {
        // The first was never put in its place: what the second one was made of was still there, and of that only a part is cleaned.
        let first = cleaned(1, 0, 30, 0);
        let second = cleaned(2, 0, 10, 0);
        let sources = [written(0, 0), written(10, 0), written(20, 0), written(30, 0)];
        let all: Vec<SegmentName> = sources.into_iter().chain([first, second]).collect();
        assert_eq!(live(all), [second, written(10, 0), written(20, 0), written(30, 0)]);
    }

    #[test]
    fn a_log_that_went_on_elsewhere_is_not_covered_by_what_was_cleaned_before() {
        let old = cleaned(1, 20, 40, 0);
        assert_eq!(live(vec![written(0, 0), old, written(10, 1)]), [written(0, 0), written(10, 1)]);
    }
}
