//! A checkpoint of one partition: brings what is durable in the journal into segments.
//!
//! Runs as a task of its own (`checkpoint[<name>]`) on a copy of what the owner has, so appends and reads go
//! on. Order of durability: segment synced, indexes written, snapshot synced, directory synced; only then is
//! the mark returned that allows the journal to let go. Until the owner has the result, readers are
//! served from the tail.
//!
//! What ends at the log's start or before is not written on: the next batch begins a new file, and so does one that does not
//! follow the last segment, for what was between them was deleted before it came into a file.
//!
//! A file whose sync failed, or on which an operation did not end in time, is left as it is: its synced
//! beginning stays, and the next attempt writes the rest, still in the tail, to a new file.
//!
//! A truncation cuts what is in files without touching them ([`LogFiles::cut`]): an earlier mark may still need all of them.
//! What follows goes to files of the next generation, which count once a mark vouches for it. A checkpoint that was at
//! work meanwhile has copied records that are gone, so what it made counts for nothing ([`LogFiles::discard`]).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use io_backend::invariants;
use io_backend::task::give_way;
use io_backend::{Backend, Deadline, Disk, DiskError, File, OpenHow};

use super::batch::Batches;
use super::open_files::OpenFiles;
use super::segment::{Begun, Segment, SegmentName};
use super::snapshot::{self, Snapshot};
use super::tail::Chunk;
use super::writing::{FileOf, Writing};
use super::{CheckpointMark, LogSettings};
use crate::ids::{Lsn, Offset};
use crate::limits;

/// The segments of a partition, rising in offset.
pub type Segments<B> = Vec<Arc<Segment<FileOf<B>>>>;

/// Snapshot files that are kept.
const SNAPSHOTS_KEPT: usize = 2;
/// Others run whenever so much was copied, where a batch counts for this beside its bytes: many partitions are checkpointed at the
/// same time, and whoever appends waits for a turn of each of them at every step on his way.
const TURN_BYTES: usize = 128 << 10;
const TURN_OF_BATCH_BYTES: usize = 1 << 10;

/// What the files of a partition hold, as its owner knows them.
pub struct LogFiles<B: Backend> {
    /// The partition's own; only it has files there.
    pub directory: PathBuf,
    /// The node's open segment files.
    pub open_files: OpenFiles<B>,
    /// Rising in offset, without holes but before the log's start.
    pub segments: Segments<B>,
    /// LSNs of the snapshot files, rising.
    pub snapshots: Vec<Lsn>,
    /// Of the files that are written now; it rises where they do not follow from those that are there.
    pub generation: u32,
    /// How often segments of the partition were cleaned, as the names of files count it.
    pub cleanings: u32,
    /// Attempts in a row, since the last one that succeeded, in which an operation did not complete in time.
    pub given_up_in_row: u32,
    /// The directory is there, and durably so.
    pub directory_made: bool,
}

impl<B: Backend> Clone for LogFiles<B> {
    fn clone(&self) -> Self {
        LogFiles {
            directory: self.directory.clone(),
            open_files: self.open_files.clone(),
            segments: self.segments.clone(),
            snapshots: self.snapshots.clone(),
            generation: self.generation,
            cleanings: self.cleanings,
            given_up_in_row: self.given_up_in_row,
            directory_made: self.directory_made,
        }
    }
}

impl<B: Backend> LogFiles<B> {
    /// No file, in a directory that need not be there.
    pub fn none(directory: PathBuf, open_files: OpenFiles<B>) -> LogFiles<B> {
        LogFiles {
            directory,
            open_files,
            segments: Vec::new(),
            snapshots: Vec::new(),
            generation: 0,
            cleanings: 0,
            given_up_in_row: 0,
            directory_made: false,
        }
    }
}

impl<B: Backend> LogFiles<B> {
    /// The offset after the last record in files; `None` where there is no file.
    pub fn end(&self) -> Option<Offset> {
        self.segments.last().map(|last| last.end())
    }

    /// The log ends at `to`, between two batches: what files hold behind it does not count any more. The next start removes
    /// the files that are needed by no mark then.
    pub fn cut(&mut self, to: Offset) {
        if self.end().is_some_and(|end| end > to) {
            self.go_on_from(to);
        }
    }

    /// The log goes on from `at`, and not from what files hold: what they hold before that stays, until nobody needs it.
    pub fn go_on_from(&mut self, at: Offset) {
        self.segments.retain(|segment| segment.base < at);
        self.next_generation();
        if let Some(last) = self.segments.last_mut() {
            let last = Arc::make_mut(last);
            last.state.end = last.state.end.min(at);
        }
        self.check_invariants();
    }

    /// A checkpoint that began with these files ended as `ended`, and the log was truncated meanwhile.
    pub fn discard(&mut self, ended: LogFiles<B>) {
        self.generation = self.generation.max(ended.generation);
        self.next_generation();
        self.snapshots = ended.snapshots;
        self.given_up_in_row = ended.given_up_in_row;
        self.directory_made |= ended.directory_made;
        self.check_invariants();
    }

    /// A checkpoint that began with these files ended as `ended`, and nothing was truncated meanwhile. How often segments were
    /// cleaned it does not know: a name that was given once is not given again.
    pub fn go_on_with(&mut self, ended: LogFiles<B>) {
        let cleanings = self.cleanings.max(ended.cleanings);
        *self = LogFiles { cleanings, ..ended };
    }

    /// Puts what was cleaned in the place of the segments that it was made of, which are given back; `None` where one of them is
    /// not there any more, or is the last, which is written on.
    pub fn replace(&mut self, sources: &[SegmentName], with: Segment<FileOf<B>>) -> Option<Segments<B>> {
        assert!(!sources.contains(&with.name), "what was cleaned has a name of its own");
        let first = self.segments.iter().position(|segment| Some(&segment.name) == sources.first())?;
        let behind = first + sources.len();
        let found = self.segments.get(first..behind)?;
        let is_whole = found.iter().map(|segment| &segment.name).eq(sources)
            && found.last().map(|last| last.end()) == Some(with.end());
        if !is_whole || behind == self.segments.len() {
            return None;
        }
        let replaced = self.segments.splice(first..behind, [Arc::new(with)]).collect();
        self.check_invariants();
        Some(replaced)
    }

    /// What is written next goes to a file of its own, and takes the place of whatever is there from its base on.
    fn next_generation(&mut self) {
        self.generation += 1;
        if let Some(last) = self.segments.last_mut() {
            Arc::make_mut(last).spent = true;
        }
    }

    /// To be called by whoever changes what files there are.
    pub fn check_invariants(&self) {
        if invariants::are_checked() {
            let rise = self.segments.iter().is_sorted_by(|one, two| one.end() <= two.base);
            assert!(rise, "segments rise in offset");
            assert!(self.snapshots.iter().is_sorted_by(|one, two| one < two), "snapshots rise in LSN");
        }
    }
}

/// What a checkpoint is to do.
pub struct Checkpoint<B: Backend> {
    /// What disk and time come from.
    pub backend: B,
    /// When segments end, and how dense their indexes are.
    pub settings: LogSettings,
    /// The files to go on with.
    pub files: LogFiles<B>,
    /// What is durable and not in segments yet.
    pub chunks: Vec<Chunk>,
    /// Absent when nothing has changed since the last one.
    pub snapshot: Option<Snapshot>,
    /// What to vouch for when all is durable.
    pub mark: CheckpointMark,
    /// For the whole of it; an operation under way then is given up, with its file.
    pub deadline: Deadline,
}

/// What became of it: the files as they are now, and the mark if all of it is durable.
pub struct Checkpointed<B: Backend> {
    /// What readers use from now on, whether all went well or not.
    pub files: LogFiles<B>,
    /// The mark to be recorded; or what went wrong, in which case the marks before it hold.
    pub outcome: Result<CheckpointMark, DiskError>,
}

impl<B: Backend> Checkpoint<B> {
    /// Writes, in the order of durability that the module tells.
    pub async fn run(self) -> Checkpointed<B> {
        let Checkpoint { backend, settings, mut files, chunks, snapshot, mark, deadline } = self;
        let mut work =
            Work { backend: &backend, settings, files: &files, deadline, made: Vec::new(), spent: false };
        let written = work.write_segments(&chunks, mark.log_start).await;
        let (mut made, spent) = (work.made, work.spent);
        let outcome = match written {
            Ok(segments) => {
                let before = std::mem::replace(&mut files.segments, segments);
                match finish(&backend, &mut files, &mut made, snapshot, deadline).await {
                    Ok(()) => Ok(mark),
                    Err(error) => {
                        files.segments = before;
                        Err(error)
                    }
                }
            }
            Err(error) => Err(error),
        };
        files.given_up_in_row = match &outcome {
            Ok(_) => 0,
            Err(error) => files.given_up_in_row.saturating_add(u32::from(error.timed_out())),
        };
        if outcome.is_err() {
            let mut left = spent;
            for path in made {
                let soon = Deadline::after(&backend, limits::DISK_DEADLINE).earlier(deadline);
                if let Err(error) = backend.disk().remove_file(&path, soon).await {
                    // A restart removes it; until then nothing may be written on before it that it could seem to follow.
                    left |= error.kind() != std::io::ErrorKind::NotFound;
                    if error.timed_out() {
                        break;
                    }
                }
            }
            match left {
                true => files.next_generation(),
                false => files.generation += 1,
            }
        }
        files.check_invariants();
        Checkpointed { files, outcome }
    }
}

/// How long one operation is waited for: one that never completes must not hold the round, and with it the journal of the
/// whole node, and the next attempt goes to other files. Where that fails again and again, the disk is only slow.
fn operation_timeout<B: Backend>(files: &LogFiles<B>) -> Duration {
    limits::DISK_DEADLINE * (1 << files.given_up_in_row.saturating_sub(2).min(4))
}

/// What follows when all segments are synced.
async fn finish<B: Backend>(
    backend: &B,
    files: &mut LogFiles<B>,
    made: &mut Vec<PathBuf>,
    snapshot: Option<Snapshot>,
    deadline: Deadline,
) -> Result<(), DiskError> {
    let disk = backend.disk();
    let deadline = Deadline::after(backend, operation_timeout(files)).earlier(deadline);
    let files_made = !made.is_empty();
    if snapshot.is_some() || files_made {
        make_directory::<B>(disk, files, deadline).await?;
    }
    if let Some(snapshot) = &snapshot {
        write_snapshot::<B>(disk, files, snapshot, made, deadline).await?;
    }
    if snapshot.is_some() || files_made {
        disk.sync_dir(&files.directory, deadline).await?;
    }
    if let Some(snapshot) = snapshot {
        files.snapshots.retain(|lsn| *lsn != snapshot.lsn);
        files.snapshots.push(snapshot.lsn);
        while files.snapshots.len() > SNAPSHOTS_KEPT {
            let old = files.snapshots.remove(0);
            // A restart removes what stays.
            let _ = disk.remove_file(&files.directory.join(snapshot::file_name(old)), deadline).await;
        }
    }
    Ok(())
}

async fn make_directory<B: Backend>(
    disk: &B::Disk,
    files: &mut LogFiles<B>,
    deadline: Deadline,
) -> Result<(), DiskError> {
    if files.directory_made {
        return Ok(());
    }
    disk.create_dir_all(&files.directory, deadline).await?;
    if let Some(parent) = files.directory.parent() {
        disk.sync_dir(parent, deadline).await?;
    }
    files.directory_made = true;
    Ok(())
}

/// Written aside, under a name that no failed attempt has used, and put in place when it is synced.
async fn write_snapshot<B: Backend>(
    disk: &B::Disk,
    files: &LogFiles<B>,
    snapshot: &Snapshot,
    made: &mut Vec<PathBuf>,
    deadline: Deadline,
) -> Result<(), DiskError> {
    let name = snapshot::file_name(snapshot.lsn);
    let side = files.directory.join(format!("{name}.{}.new", files.generation));
    made.push(side.clone());
    let file = files.open_files.open(&side, OpenHow::CreateNew, deadline).await?;
    file.write_at(0, snapshot.encode(), deadline).await?;
    file.sync(deadline).await?;
    disk.rename(&side, &files.directory.join(name), deadline).await
}

/// A checkpoint at work on the segments.
struct Work<'a, B: Backend> {
    backend: &'a B,
    settings: LogSettings,
    files: &'a LogFiles<B>,
    deadline: Deadline,
    /// Files made by this attempt.
    made: Vec<PathBuf>,
    /// The last of the existing segments must not be written again.
    spent: bool,
}

impl<B: Backend> Work<'_, B> {
    /// The bound on the next operation.
    fn soon(&self) -> Deadline {
        Deadline::after(self.backend, operation_timeout(self.files)).earlier(self.deadline)
    }

    /// Writes and syncs; returns what the segments are then.
    async fn write_segments(
        &mut self,
        chunks: &[Chunk],
        log_start: Offset,
    ) -> Result<Segments<B>, DiskError> {
        let mut segments = self.files.segments.clone();
        let mut current: Option<Writing<B>> = None;
        if let Some(next) = chunks.first()
            && let Some(last) = segments.last()
            && !last.spent
            && last.end() == next.base
            && last.end() > log_start
        {
            let path = self.files.directory.join(last.name.file("log"));
            let opened = self.files.open_files.open(&path, OpenHow::Existing, self.soon()).await;
            if let Err(error) = &opened {
                // Whatever it is: what is still in the tail can go to a file of its own.
                self.spent |= !error.lacks_descriptors();
            }
            let file = opened?;
            current = Some(Writing::on((**last).clone(), file));
            segments.pop();
        }
        let now = self.backend.now();
        let mut turn = 0;
        for chunk in chunks {
            for batch in Batches::new(&chunk.bytes) {
                let (at, header) = batch.map_err(|damage| {
                    let what = format!("the batch at offset {} in memory is damaged: {damage}", chunk.base);
                    DiskError::new("write back", &self.files.directory, std::io::Error::other(what))
                })?;
                let writing = match current.take() {
                    Some(writing) if !writing.must_roll(&header, &self.settings, now) => writing,
                    full => {
                        if let Some(full) = full {
                            segments.push(Arc::new(self.seal(full).await?));
                        }
                        self.begin(header.base_offset).await?
                    }
                };
                let writing = current.insert(writing);
                let interval = self.settings.index_interval_bytes;
                writing.put(&header, &chunk.bytes[at..at + header.bytes], interval);
                turn += header.bytes + TURN_OF_BATCH_BYTES;
                if writing.is_write_due() {
                    self.flush(writing).await?;
                } else if turn >= TURN_BYTES {
                    turn = 0;
                    give_way().await;
                }
            }
        }
        if let Some(last) = current {
            segments.push(Arc::new(self.seal(last).await?));
        }
        Ok(segments)
    }

    async fn begin(&mut self, base: Offset) -> Result<Writing<B>, DiskError> {
        let disk = self.backend.disk();
        let name = SegmentName::written(base, self.files.generation);
        let path = self.files.directory.join(name.file("log"));
        if !self.files.directory_made {
            disk.create_dir_all(&self.files.directory, self.soon()).await?;
        }
        self.made.push(path.clone());
        let file = self.files.open_files.open(&path, OpenHow::CreateNew, self.soon()).await?;
        let read = self.files.open_files.file(path);
        Ok(Writing::on(Segment::empty(name, read, Begun::now(self.backend)), file))
    }

    /// Writes what is buffered; now and then syncs, so that no sync has much to do.
    async fn flush(&mut self, writing: &mut Writing<B>) -> Result<(), DiskError> {
        let written = writing.write(self.soon()).await;
        if let Err(error) = &written {
            // Where space is short the same file may go on later; any other error is the file's own.
            self.spent |= writing.existing && !error.is_full();
        }
        written?;
        if writing.is_sync_due() {
            self.sync(writing).await?;
        }
        Ok(())
    }

    async fn sync(&mut self, writing: &mut Writing<B>) -> Result<(), DiskError> {
        let synced = writing.sync(self.soon()).await;
        self.spent |= writing.existing && synced.is_err();
        synced
    }

    /// Everything of the segment is written and synced, and its indexes are behind it.
    async fn seal(&mut self, mut writing: Writing<B>) -> Result<Segment<FileOf<B>>, DiskError> {
        if writing.has_buffered() {
            self.flush(&mut writing).await?;
        }
        if !writing.is_synced() {
            self.sync(&mut writing).await?;
        }
        writing.finish(&self.files.open_files, &self.files.directory, || self.soon()).await
    }
}
