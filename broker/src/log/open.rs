//! Opening a partition's directory: what a checkpoint vouches for is taken over, the rest removed.
//!
//! Segments that end at the mark's log start or before are not needed: what an interrupted deletion left of them, or a
//! power loss brought back, any of their files and whichever of the segments, is removed.
//!
//! Everything after the mark comes from the journal, so segments are cut back to it, whatever a crash
//! left of them. Indexes are loaded as far as they are sound and completed from the segments. The
//! snapshot gives producers and epochs; where none fits the mark they are rebuilt by a walk over the
//! segments. A segment that does not reach up to the mark is damage, and said to be.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use io_backend::{Backend, Deadline, Disk, DiskError, File, OpenHow};

use super::batch::{BatchHeader, HEADER_BYTES};
use super::checkpoint::{LogFiles, Segments};
use super::epochs::EpochHistory;
use super::index::{self, IndexPoint, OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use super::open_files::OpenFiles;
use super::producers::{Producers, RememberedBatch};
use super::segment::{Begun, Scan, ScanError, Segment, SegmentDamage, SegmentName, Summary, live};
use super::snapshot::{self, Snapshot};
use super::writing::FileOf;
use super::{CheckpointMark, LogSettings};
use crate::ids::{Lsn, Offset, ProducerId};

/// Why a partition's directory cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum LogOpenError {
    /// The directory or a file in it cannot be read or written, or not within the deadline.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Bytes before the mark are no batch, or not the next one.
    #[error("{0}. What the checkpoint vouches for is not there: restore the file from a copy")]
    Damaged(#[from] SegmentDamage),
    /// No segment has records that are before the mark and not deleted.
    #[error(
        "{}: records from {from} to {to} are missing, which the checkpoint vouches for: restore the segment from \
         a copy", directory.display()
    )]
    Missing { directory: PathBuf, from: Offset, to: Offset },
}

impl From<ScanError> for LogOpenError {
    fn from(error: ScanError) -> LogOpenError {
        match error {
            ScanError::Disk(error) => LogOpenError::Disk(error),
            ScanError::Damaged(damage) => LogOpenError::Damaged(damage),
        }
    }
}

/// What a replica starts from: its last checkpoint, or nothing.
#[derive(Clone, Debug, Default)]
pub struct RecoveredLog {
    /// Where the log starts.
    pub log_start: Offset,
    /// Where the segments end; the journal goes on from there.
    pub log_end: Offset,
    /// The journal's last entry that is in them.
    pub lsn: Lsn,
    /// Which leader epoch began where, up to there.
    pub epochs: EpochHistory,
    /// What is known of idempotent producers, up to there.
    pub producers: Producers,
    /// Before that records are committed.
    pub high_watermark: Offset,
    /// How often the replica has been truncated.
    pub truncations: u32,
}

/// What was found.
pub struct OpenedLog<B: Backend> {
    /// The files, as a checkpoint goes on with them.
    pub files: LogFiles<B>,
    /// What their contents come to.
    pub recovered: RecoveredLog,
}

/// Takes over what `mark` vouches for; without a mark nothing is.
pub async fn open<B: Backend>(
    backend: &B,
    open_files: &OpenFiles<B>,
    directory: &Path,
    settings: &LogSettings,
    mark: Option<CheckpointMark>,
    deadline: Deadline,
) -> Result<OpenedLog<B>, LogOpenError> {
    let mut files = LogFiles::none(directory.to_path_buf(), open_files.clone());
    let found = match backend.disk().read_dir(directory, deadline).await {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let vouched = mark.map_or(Offset::ZERO, |mark| mark.log_end);
    let marked = mark.map_or(Lsn(0), |mark| mark.lsn);
    let mut names: Vec<SegmentName> = Vec::new();
    let mut snapshots: Vec<Lsn> = Vec::new();
    let mut newest = mark.map_or(0, |mark| mark.generation);
    let mut cleanings = 0;
    for entry in &found {
        if let Some(name) = SegmentName::parse(&entry.name) {
            newest = newest.max(name.generation);
            cleanings = cleanings.max(name.cleaned.map_or(0, |cleaned| cleaned.nth));
            if mark.is_some_and(|mark| name.generation <= mark.generation) && name.base < vouched {
                names.push(name);
            }
        } else if let Some(lsn) = snapshot::parse_file_name(&entry.name)
            && mark.is_some()
            && lsn <= marked
        {
            snapshots.push(lsn);
        }
    }
    names = live(names);
    let start = mark.map_or(Offset::ZERO, |mark| mark.log_start);
    forget_dead(&mut names, start, vouched);
    snapshots.sort_unstable();
    remove_others(backend, directory, found.iter().map(|entry| &*entry.name), &names, &snapshots, deadline)
        .await?;
    files.segments = open_segments(&files, backend, settings, &names, start, vouched, deadline).await?;
    files.generation = newest;
    files.cleanings = cleanings;
    files.check_invariants();
    files.directory_made = mark.is_some() && !found.is_empty();
    let recovered = match mark {
        Some(mark) => found_on(directory, &files, &snapshots, mark, deadline).await?,
        None => RecoveredLog::default(),
    };
    files.snapshots = snapshots;
    Ok(OpenedLog { files, recovered })
}

/// Leaves out segments without a record from `start` on. Only the one that holds `start`, and those behind it, have to
/// follow one another.
fn forget_dead(names: &mut Vec<SegmentName>, start: Offset, vouched: Offset) {
    let dead = match start < vouched {
        true => names.partition_point(|name| name.base <= start).saturating_sub(1),
        false => names.len(),
    };
    names.drain(..dead);
}

async fn remove_others<B: Backend>(
    backend: &B,
    directory: &Path,
    found: impl Iterator<Item = &str>,
    names: &[SegmentName],
    snapshots: &[Lsn],
    deadline: Deadline,
) -> Result<(), DiskError> {
    let mut keep: Vec<String> = snapshots.iter().map(|lsn| snapshot::file_name(*lsn)).collect();
    for name in names {
        keep.extend(["log", "index", "timeindex"].map(|extension| name.file(extension)));
    }
    for name in found {
        if !keep.iter().any(|kept| kept == name) {
            backend.disk().remove_file(&directory.join(name), deadline).await?;
        }
    }
    Ok(())
}

async fn open_segments<B: Backend>(
    files: &LogFiles<B>,
    backend: &B,
    settings: &LogSettings,
    names: &[SegmentName],
    start: Offset,
    vouched: Offset,
    deadline: Deadline,
) -> Result<Segments<B>, LogOpenError> {
    let directory = &files.directory;
    let missing = |from, to| LogOpenError::Missing { directory: directory.clone(), from, to };
    match names.first() {
        None if start < vouched => return Err(missing(start, vouched)),
        Some(first) if first.base > start => return Err(missing(start, first.base)),
        _ => {}
    }
    let mut segments = Segments::<B>::new();
    for (nth, name) in names.iter().enumerate() {
        let ends = names.get(nth + 1).map_or(vouched, |next| next.base);
        let mut segment = open_segment(files, backend, settings, *name, ends, deadline).await?;
        let waits_to_be_cleaned = settings.compaction.is_some() && name.cleaned.is_none();
        if nth + 1 == names.len() || waits_to_be_cleaned {
            // The one that is written on, or is to be cleaned: its age counts from its first batch.
            let header = segment.file.read_at(0, HEADER_BYTES, deadline).await?;
            segment.state.first_timestamp =
                BatchHeader::read(&header).map_or(-1, |first| first.max_timestamp);
        }
        segments.push(Arc::new(segment));
    }
    Ok(segments)
}

/// Opens one segment whose valid part ends at offset `ends`. What lies behind it was never vouched for: nobody reads it,
/// and what is written next covers it.
async fn open_segment<B: Backend>(
    files: &LogFiles<B>,
    backend: &B,
    settings: &LogSettings,
    name: SegmentName,
    ends: Offset,
    deadline: Deadline,
) -> Result<Segment<FileOf<B>>, LogOpenError> {
    let directory = &files.directory;
    let file = files.open_files.file(directory.join(name.file("log")));
    let len = file.len(deadline).await?;
    let offsets = read_index(&files.open_files, &directory.join(name.file("index")), deadline).await?;
    let times = read_index(&files.open_files, &directory.join(name.file("timeindex")), deadline).await?;
    let mut points = index::decode(name.base, &offsets, &times, len);
    let relative_end = u32::try_from(ends.0 - name.base.0).unwrap_or(u32::MAX);
    points.truncate(points.partition_point(|point| point.offset < relative_end));
    let begun = Begun::now(backend);
    let mut segment = Segment::empty(name, file, begun);
    // What was cleaned has its end in its name.
    segment.spent = name.cleaned.is_some();
    let loaded = match complete(&mut segment, points, settings, ends, len, deadline).await {
        // The index leads astray: it is of another life of the file.
        Err(ScanError::Damaged(_)) => {
            segment = Segment { spent: segment.spent, ..Segment::empty(name, segment.file, begun) };
            complete(&mut segment, Vec::new(), settings, ends, len, deadline).await?
        }
        done => done?,
    };
    if segment.end() != ends {
        let to = segment.end();
        return Err(LogOpenError::Missing { directory: directory.clone(), from: to, to: ends });
    }
    match write_index(files, &mut segment, loaded, deadline).await {
        // It only saves time, and what it points to is in memory: reading needs no space.
        Err(error) if error.is_full() => {
            tracing::warn!(error = %error, "an index is not completed; its segment ends here");
            segment.spent = true;
        }
        written => written?,
    }
    Ok(segment)
}

/// What the index files are found to hold, and what is to be added.
struct LoadedIndex {
    sound: u64,
    offsets: BytesMut,
    times: BytesMut,
}

/// Takes in the points and walks what they do not cover, up to offset `ends`.
async fn complete<F: File>(
    segment: &mut Segment<F>,
    points: Vec<IndexPoint>,
    settings: &LogSettings,
    ends: Offset,
    len: u64,
    deadline: Deadline,
) -> Result<LoadedIndex, ScanError> {
    let interval = settings.index_interval_bytes;
    let mut loaded =
        LoadedIndex { sound: points.len() as u64, offsets: BytesMut::new(), times: BytesMut::new() };
    let (mut position, mut next) = (0, segment.base);
    for point in &points {
        segment.index.push(*point, interval);
    }
    if let Some(point) = points.last() {
        position = u64::from(point.position);
        next = segment.base.plus(i64::from(point.offset));
        segment.state = Summary {
            end: next,
            first_timestamp: -1,
            max_timestamp: point.max_timestamp,
            max_timestamp_at: segment.base.plus(i64::from(point.max_timestamp_offset)),
            indexed_at: position,
        };
    }
    let file = segment.file.clone();
    let mut scan = Scan::new(&file, position, next, len);
    while segment.end() < ends
        && let Some((at, header)) = scan.next_batch(deadline).await?
    {
        if let Some(point) = segment.state.add(segment.base, at, &header, interval) {
            segment.index.push(point, interval);
            index::encode(&point, segment.base, &mut loaded.offsets, &mut loaded.times);
        }
        segment.bytes = scan.position();
    }
    Ok(loaded)
}

/// Brings the index files to what memory says: what is unsound is cut, what was missing is added.
async fn write_index<B: Backend>(
    files: &LogFiles<B>,
    segment: &mut Segment<FileOf<B>>,
    loaded: LoadedIndex,
    deadline: Deadline,
) -> Result<(), DiskError> {
    let added = (loaded.offsets.len() / OFFSET_ENTRY_BYTES) as u64;
    segment.index_entries = loaded.sound + added;
    let both = [
        ("index", OFFSET_ENTRY_BYTES as u64, loaded.offsets.freeze()),
        ("timeindex", TIME_ENTRY_BYTES as u64, loaded.times.freeze()),
    ];
    for (extension, entry_bytes, entries) in both {
        let path = files.directory.join(segment.name.file(extension));
        let how = if segment.index_entries > 0 { OpenHow::OrCreate } else { OpenHow::Existing };
        let file = match files.open_files.open(&path, how, deadline).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let len = segment.index_entries * entry_bytes;
        if !entries.is_empty() {
            file.write_at(loaded.sound * entry_bytes, entries, deadline).await?;
        }
        if file.len(deadline).await? != len {
            file.set_len(len, deadline).await?;
        }
    }
    Ok(())
}

/// All of an index file; nothing where there is none.
async fn read_index<B: Backend>(
    open_files: &OpenFiles<B>,
    path: &Path,
    deadline: Deadline,
) -> Result<Bytes, DiskError> {
    match open_files.open(path, OpenHow::ReadOnly, deadline).await {
        Ok(file) => {
            let len = file.len(deadline).await?;
            file.read_at(0, usize::try_from(len).unwrap_or(usize::MAX), deadline).await
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Bytes::new()),
        Err(error) => Err(error),
    }
}

/// What the machine starts from: the latest snapshot that fits the mark, or a walk over the segments.
async fn found_on<B: Backend>(
    directory: &Path,
    files: &LogFiles<B>,
    snapshots: &[Lsn],
    mark: CheckpointMark,
    deadline: Deadline,
) -> Result<RecoveredLog, LogOpenError> {
    for lsn in snapshots.iter().rev() {
        let path = directory.join(snapshot::file_name(*lsn));
        let bytes = read_index(&files.open_files, &path, deadline).await?;
        match Snapshot::decode(&bytes) {
            Some(snapshot)
                if (snapshot.log_end, snapshot.truncations) == (mark.log_end, mark.truncations) =>
            {
                let log_start = snapshot.log_start.max(mark.log_start);
                let mut epochs = EpochHistory::restored(snapshot.epochs);
                epochs.forget_before(log_start);
                return Ok(RecoveredLog {
                    log_start,
                    log_end: mark.log_end,
                    lsn: mark.lsn,
                    epochs,
                    producers: Producers::restored(snapshot.producers),
                    high_watermark: mark.high_watermark.max(log_start),
                    truncations: mark.truncations,
                });
            }
            Some(_) => {}
            None => tracing::warn!(file = %path.display(), "a producer snapshot is damaged and not used"),
        }
    }
    let mut recovered = RecoveredLog {
        log_start: mark.log_start,
        log_end: mark.log_end,
        lsn: mark.lsn,
        high_watermark: mark.high_watermark.max(mark.log_start),
        truncations: mark.truncations,
        ..RecoveredLog::default()
    };
    if mark.log_end > mark.log_start {
        tracing::warn!(
            directory = %directory.display(),
            "no producer snapshot fits the checkpoint: producers are rebuilt from the segments"
        );
    }
    for segment in &files.segments {
        let mut scan = Scan::new(&segment.file, 0, segment.base, segment.bytes);
        while let Some((_, header)) = scan.next_batch(deadline).await? {
            if header.leader_epoch > recovered.epochs.latest() {
                recovered.epochs.begin(header.leader_epoch, header.base_offset);
            }
            if header.producer_id >= ProducerId(0) {
                let batch = RememberedBatch::of(&header);
                let settled = header.end().min(recovered.high_watermark);
                recovered.producers.remember(header.producer_id, batch, settled, None);
            }
        }
    }
    recovered.epochs.forget_before(mark.log_start);
    Ok(recovered)
}
