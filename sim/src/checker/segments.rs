//! What lies on a disk when its node has stopped politely: segments within their bounds, and indexes that say what is
//! in them. Nobody needs an index to be right about records, so no reader would ever tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use broker::ids::Offset;
use broker::log::batch::{BatchHeader, HEADER_BYTES};
use broker::log::index::{self, IndexPoint, OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use broker::log::segment::{SegmentName, live};
use reports::{Verdict, Violation};

use super::Findings;
use crate::world::Pages;

/// A segment with its indexes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SegmentFiles {
    pub path: PathBuf,
    pub base: i64,
    pub log: Pages,
    pub index: Pages,
    pub timeindex: Pages,
}

impl SegmentFiles {
    /// What the name of its directory begins with: before the number of the replica.
    pub fn directory(&self) -> Option<&str> {
        let name = self.path.parent()?.file_name()?.to_str()?;
        name.rsplit_once('.').map(|(partition, _)| partition)
    }
}

/// What the node was told, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SegmentBounds {
    pub segment: u64,
    pub index_interval: u64,
}

/// The segments in the order of their paths. Of a partition's those follow one another that stand for its log: a log that was
/// truncated goes on in files of another generation, and what they replace stays until the next start. What lies before the start
/// of its log, one of `starts`, nobody reads, and some of it may never have been written there.
pub fn segments(
    files: &[SegmentFiles],
    starts: &BTreeMap<&str, i64>,
    bounds: SegmentBounds,
) -> Vec<Violation> {
    let mut findings = Findings::of("segment-files", Verdict::Safety);
    for files in files.chunk_by(|a, b| a.path.parent() == b.path.parent()) {
        let named: Vec<(SegmentName, &SegmentFiles)> =
            files.iter().filter_map(|file| Some((name(file)?, file))).collect();
        let names = live(named.iter().map(|(name, _)| *name).collect());
        for (at, name) in names.iter().enumerate() {
            let next = names.get(at + 1);
            let end = next.map(|next| End { at: next.base.0, is_cut: next.generation > name.generation });
            let Some((_, file)) = named.iter().find(|(known, _)| known == name) else { continue };
            let start = file.directory().and_then(|directory| starts.get(directory)).copied().unwrap_or(0);
            if end.is_some_and(|end| end.at <= start) {
                continue;
            }
            if let Some(what) = wrong(file, end, bounds) {
                findings.add(format!("{}: {what}", file.path.display()));
            }
        }
    }
    findings.all()
}

/// Whether cleaning made it of others.
pub fn is_cleaned(file: &SegmentFiles) -> bool {
    name(file).is_some_and(|name| name.cleaned.is_some())
}

fn name(file: &SegmentFiles) -> Option<SegmentName> {
    SegmentName::parse(file.path.file_name()?.to_str()?)
}

/// Where a segment ends, for the next one begins there.
#[derive(Clone, Copy)]
struct End {
    at: i64,
    /// Once it had more, which its files may still have.
    is_cut: bool,
}

/// What lies in the directories of partitions when all is quiet. By their paths.
pub fn retained(files: &[(PathBuf, u64)], most: Option<u64>, bounds: SegmentBounds) -> Vec<Violation> {
    let mut findings = Findings::of("retained-files", Verdict::Budget);
    let names: BTreeSet<&Path> = files.iter().map(|(path, _)| &**path).collect();
    let mut sizes: BTreeMap<&Path, u64> = BTreeMap::new();
    let mut is_cleaning = false;
    for (path, bytes) in files {
        let is = |extension: &str| path.extension().is_some_and(|known| known == extension);
        let has = |extension: &str| names.contains(&*path.with_extension(extension));
        if (is("index") || is("timeindex")) && !has("log") && !has("log.new") {
            findings.add(format!("{} is left of a segment that is gone", path.display()));
        }
        // One cleaning may be under way when the node stops: the next start removes what it has made.
        let mut is_being_cleaned = || {
            let named = path.file_stem().and_then(|log| SegmentName::parse(log.to_str()?));
            named.is_some_and(|name| name.cleaned.is_some()) && !std::mem::replace(&mut is_cleaning, true)
        };
        if is("new") && !is_being_cleaned() {
            findings.add(format!("{} was never put in its place", path.display()));
        }
        if is("log")
            && let Some(directory) = path.parent()
        {
            *sizes.entry(directory).or_default() += bytes;
        }
    }
    // What is written on, and what is as large as may be before it goes.
    if let Some(most) = most.map(|most| most + 2 * bounds.segment) {
        for (directory, bytes) in sizes.into_iter().filter(|(_, bytes)| *bytes > most) {
            findings
                .add(format!("{} has {bytes} bytes of records, and should have {most}", directory.display()));
        }
    }
    findings.all()
}

fn wrong(segment: &SegmentFiles, end: Option<End>, bounds: SegmentBounds) -> Option<String> {
    let ends = end.map(|end| end.at);
    let contents = walk(segment, ends, bounds.index_interval);
    if contents.batches > 1 && contents.bytes > bounds.segment {
        return Some(format!("{} bytes, and a segment has {} at most", contents.bytes, bounds.segment));
    }
    if let Some(ends) = ends.filter(|ends| *ends != contents.end) {
        return Some(format!("it ends at offset {}, and the next one begins at {ends}", contents.end));
    }
    let all = |pages: &Pages| pages.read(0, usize::try_from(pages.len()).unwrap_or(usize::MAX));
    let (offsets, times) = (all(&segment.index), all(&segment.timeindex));
    let mut points = index::decode(Offset(segment.base), &offsets, &times, segment.log.len());
    if (offsets.len(), times.len()) != (points.len() * OFFSET_ENTRY_BYTES, points.len() * TIME_ENTRY_BYTES) {
        return Some(format!(
            "its indexes have {} and {} bytes, and only {} entries that make sense",
            offsets.len(),
            times.len(),
            points.len()
        ));
    }
    if let Some(End { at, is_cut: true }) = end {
        points.retain(|point| segment.base + i64::from(point.offset) < at);
    }
    let count = points.len();
    if let Some((at, point)) =
        points.into_iter().enumerate().find(|(at, p)| contents.points.get(*at) != Some(p))
    {
        return Some(format!(
            "entry {at} of its indexes is {point:?} instead of {:?}",
            contents.points.get(at)
        ));
    }
    // Behind the last segment's last batch there may be something of an earlier life, which looks as if it were one.
    (ends.is_some() && count != contents.points.len())
        .then(|| format!("its indexes have {count} entries instead of {}", contents.points.len()))
}

/// What the batches of a segment add up to.
#[derive(Debug, Default)]
struct Contents {
    batches: u64,
    bytes: u64,
    end: i64,
    points: Vec<IndexPoint>,
}

fn walk(segment: &SegmentFiles, ends: Option<i64>, interval: u64) -> Contents {
    let mut contents = Contents { end: segment.base, ..Contents::default() };
    let mut indexed_at = 0;
    let mut newest = (-1, 0);
    let relative = |offset: i64| u32::try_from(offset - segment.base).unwrap_or(u32::MAX);
    while ends.is_none_or(|ends| contents.end < ends) {
        let position = contents.bytes;
        let Ok(header) = BatchHeader::read(&segment.log.read(position, HEADER_BYTES)) else { break };
        if header.base_offset.0 != contents.end || position + header.bytes as u64 > segment.log.len() {
            break;
        }
        if position >= indexed_at + interval && position > 0 {
            contents.points.push(IndexPoint {
                offset: relative(header.base_offset.0),
                position: u32::try_from(position).unwrap_or(u32::MAX),
                max_timestamp: newest.0,
                max_timestamp_offset: newest.1,
            });
            indexed_at = position;
        }
        if header.max_timestamp > newest.0 {
            newest = (header.max_timestamp, relative(header.base_offset.0));
        }
        contents.batches += 1;
        contents.bytes += header.bytes as u64;
        contents.end = header.end().0;
    }
    contents
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    const BOUNDS: SegmentBounds = SegmentBounds { segment: 1_000, index_interval: 150 };

    /// A batch of one record, `bytes` long.
    fn batch(offset: i64, bytes: usize, timestamp: i64) -> Vec<u8> {
        let mut batch = vec![0; bytes];
        batch[..8].copy_from_slice(&offset.to_be_bytes());
        batch[8..12].copy_from_slice(&(bytes as i32 - 12).to_be_bytes());
        batch[16] = 2;
        batch[35..43].copy_from_slice(&timestamp.to_be_bytes());
        batch[57..61].copy_from_slice(&1i32.to_be_bytes());
        batch
    }

    fn pages(bytes: &[u8]) -> Pages {
        let mut pages = Pages::default();
        pages.write(0, bytes);
        pages
    }

    /// Batches of 100 bytes from `base` on, with these entries in its indexes.
    fn segment(base: i64, batches: i64, points: &[IndexPoint]) -> SegmentFiles {
        let log: Vec<u8> = (base..base + batches).flat_map(|n| batch(n, 100, 1_000 - n)).collect();
        let (mut offsets, mut times) = (BytesMut::new(), BytesMut::new());
        for point in points {
            index::encode(point, Offset(base), &mut offsets, &mut times);
        }
        SegmentFiles {
            path: format!("/data/t-0.9/{base:020}.log").into(),
            base,
            log: pages(&log),
            index: pages(&offsets),
            timeindex: pages(&times),
        }
    }

    fn point(offset: u32, base: i64) -> IndexPoint {
        IndexPoint { offset, position: offset * 100, max_timestamp: 1_000 - base, max_timestamp_offset: 0 }
    }

    fn found(files: &[SegmentFiles]) -> usize {
        found_from(0, files)
    }

    /// Where the log of `t-0` starts there.
    fn found_from(start: i64, files: &[SegmentFiles]) -> usize {
        segments(files, &BTreeMap::from([("t-0", start)]), BOUNDS).len()
    }

    #[test]
    fn indexes_that_say_what_is_there_are_fine() {
        let first = segment(0, 5, &[point(2, 0), point(4, 0)]);
        let second = segment(5, 4, &[point(2, 5)]);
        assert_eq!(found(&[first, second]), 0);
        assert_eq!(found(&[segment(0, 1, &[]), segment(1, 0, &[])]), 0);
    }

    #[test]
    fn entries_too_many_too_few_or_of_something_else_are_found() {
        let last = || segment(5, 1, &[]);
        let wrong = |points: &[IndexPoint]| found(&[segment(0, 5, points), last()]);
        assert_eq!(wrong(&[point(2, 0)]), 1, "one is missing");
        assert_eq!(wrong(&[point(1, 0), point(2, 0), point(4, 0)]), 1, "too many");
        assert_eq!(wrong(&[point(2, 0), IndexPoint { position: 399, ..point(4, 0) }]), 1);
        assert_eq!(wrong(&[point(2, 0), IndexPoint { max_timestamp: 1_001, ..point(4, 0) }]), 1);
        let mut torn = segment(0, 5, &[point(2, 0), point(4, 0)]);
        torn.index.set_len(23);
        assert_eq!(found(&[torn, last()]), 1);
    }

    #[test]
    fn segments_that_are_too_large_or_do_not_follow_one_another_are_found() {
        let points: Vec<_> = (1..6).map(|n| point(2 * n, 0)).collect();
        assert_eq!(found(&[segment(0, 11, &points[..5])]), 1, "eleven times a hundred");
        let apart = [segment(0, 2, &[]), segment(3, 1, &[])];
        assert_eq!(found(&apart), 1, "2 is missing");
        assert_eq!([2, 3].map(|start| found_from(start, &apart)), [1, 0], "2 was deleted");
        let mut elsewhere = segment(3, 1, &[]);
        elsewhere.path = "/data/t-1.9/00000000000000000003.log".into();
        assert_eq!(found(&[segment(0, 2, &[]), elsewhere]), 0);
    }

    #[test]
    fn a_log_that_was_cut_goes_on_in_files_of_another_generation() {
        let of = |generation: u64, mut file: SegmentFiles| {
            file.path = format!("/data/t-0.9/{:020}.g{generation}.log", file.base).into();
            file
        };
        let cut = |points: &[IndexPoint]| segment(0, 5, points);
        let all = [point(2, 0), point(4, 0)];
        let went_on = || of(1, segment(3, 2, &[]));
        assert_eq!(found(&[cut(&all), went_on()]), 0, "an entry behind the cut stays");
        assert_eq!(found(&[cut(&all), went_on(), segment(5, 9, &[])]), 0, "a file behind the cut stays");
        assert_eq!(found(&[cut(&all[1..]), went_on()]), 1, "one before the cut is missing");
        assert_eq!(found(&[cut(&all), of(1, segment(6, 2, &[]))]), 1, "5 is missing");
        assert_eq!(found(&[cut(&all), went_on(), of(1, segment(6, 1, &[]))]), 1, "5 is missing");
    }

    #[test]
    fn files_beyond_what_is_kept_and_files_of_nobody_are_found() {
        let found = |files: &[(&str, u64)], most| {
            let files: Vec<_> =
                files.iter().map(|(name, bytes)| (format!("/data/t-0/{name}").into(), *bytes)).collect();
            retained(&files, most, BOUNDS).len()
        };
        let sound = [("00.log", 1_000), ("00.index", 12), ("00.timeindex", 16), ("00.snapshot", 9)];
        assert_eq!(found(&sound, Some(500)), 0);
        assert_eq!(found(&[("00.log", 2_501)], Some(500)), 1);
        assert_eq!(found(&[("00.log", 2_501)], None), 0);
        assert_eq!(found(&[("00.log", 1_300), ("01.log", 1_300)], Some(500)), 1);
        assert_eq!(found(&[("00.index", 1), ("01.snapshot.0.new", 1)], None), 2);
    }

    #[test]
    fn what_an_earlier_life_left_behind_the_last_batch_is_not_asked_for() {
        assert_eq!(found(&[segment(0, 5, &[point(2, 0)])]), 0);
        let mut debris = segment(0, 5, &[point(2, 0), point(4, 0)]);
        debris.log.write(500, &[0xff; 70]);
        assert_eq!(found(&[debris, segment(5, 1, &[])]), 0);
    }
}
