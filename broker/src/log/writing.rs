//! A segment file that grows: whole batches through a buffer, synced now and then, and the indexes of what was put.
//!
//! Whoever writes one decides what an error means; the steps and their order are here.

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use io_backend::{Backend, Deadline, Disk, DiskError, File, Moment, OpenHow};

use super::LogSettings;
use super::batch::BatchHeader;
use super::index::{self, OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use super::open_files::{OpenFiles, SegmentFile};
use super::segment::{Segment, SegmentName};
use crate::limits;

/// A segment's file as readers have it: opened on demand, closed when others need the descriptor.
pub type FileOf<B> = SegmentFile<B>;
/// A file as the disk gives it.
pub type RawFileOf<B> = <<B as Backend>::Disk as Disk>::File;

/// A segment that grows.
pub struct Writing<B: Backend> {
    segment: Segment<FileOf<B>>,
    /// What it is written through, from the first write to the sync: an error in between is this descriptor's.
    file: RawFileOf<B>,
    /// It was there before this attempt.
    pub existing: bool,
    buffer: BytesMut,
    /// Bytes of the file that are written, and that are synced.
    written: u64,
    synced: u64,
    offsets: BytesMut,
    times: BytesMut,
}

impl<B: Backend> Writing<B> {
    /// Goes on behind what the segment has; `file` is that of its name.
    pub fn on(segment: Segment<FileOf<B>>, file: RawFileOf<B>) -> Writing<B> {
        Writing {
            file,
            existing: segment.bytes > 0,
            buffer: BytesMut::new(),
            written: segment.bytes,
            synced: segment.bytes,
            offsets: BytesMut::new(),
            times: BytesMut::new(),
            segment,
        }
    }

    /// Of the file, when what is buffered is written.
    pub fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Whether the batch belongs in the next file.
    pub fn must_roll(&self, header: &BatchHeader, settings: &LogSettings, now: Moment) -> bool {
        let grown = self.bytes() + header.bytes as u64;
        let span = header.end().0 - self.segment.base.0;
        self.bytes() > 0
            && (grown > settings.segment_bytes.min(u64::from(u32::MAX))
                || span > i64::from(i32::MAX)
                || self.is_aged(header, settings.segment_age, now))
    }

    /// As Kafka has it: by the times of records, or it would depend on when they are brought here.
    fn is_aged(&self, header: &BatchHeader, age: Duration, now: Moment) -> bool {
        match self.segment.state.first_timestamp {
            first if first >= 0 => {
                let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                header.max_timestamp.saturating_sub(first) > age_ms
            }
            _ => now.since(self.segment.begun.moment) >= age,
        }
    }

    /// Takes a batch in; `interval` is the bytes between two entries of an index.
    pub fn put(&mut self, header: &BatchHeader, batch: &[u8], interval: u64) {
        let position = self.bytes();
        let segment = &mut self.segment;
        if let Some(point) = segment.state.add(segment.base, position, header, interval) {
            segment.index.push(point, interval);
            index::encode(&point, segment.base, &mut self.offsets, &mut self.times);
        }
        self.buffer.extend_from_slice(batch);
    }

    /// So much is buffered that it is to be written.
    pub fn is_write_due(&self) -> bool {
        self.buffer.len() >= limits::WRITE_BACK_BYTES
    }

    /// Something is buffered.
    pub fn has_buffered(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// The disk's; what was buffered is gone from here.
    pub async fn write(&mut self, deadline: Deadline) -> Result<(), DiskError> {
        let piece: Bytes = self.buffer.split().freeze();
        let len = piece.len() as u64;
        self.file.write_at(self.written, piece, deadline).await?;
        self.written += len;
        Ok(())
    }

    /// So much is written that it is to be synced, so that no sync has much to do.
    pub fn is_sync_due(&self) -> bool {
        self.written - self.synced >= limits::WRITE_BACK_SYNC_BYTES as u64
    }

    /// Everything that is written is synced.
    pub fn is_synced(&self) -> bool {
        self.synced == self.written
    }

    /// Syncs what is written.
    ///
    /// # Errors
    /// The disk's: what was written since the last sync may or may not be there.
    pub async fn sync(&mut self, deadline: Deadline) -> Result<(), DiskError> {
        self.file.sync(deadline).await?;
        self.synced = self.written;
        Ok(())
    }

    /// Writes the indexes of what is written and synced; the segment as readers have it.
    ///
    /// # Errors
    /// There were not descriptors enough. Any other error only ends the segment here.
    pub async fn finish(
        self,
        open_files: &OpenFiles<B>,
        directory: &Path,
        soon: impl Fn() -> Deadline,
    ) -> Result<Segment<FileOf<B>>, DiskError> {
        assert!(self.is_synced() && self.buffer.is_empty(), "what readers see is synced");
        let Writing { mut segment, offsets, times, written, .. } = self;
        segment.bytes = written;
        let entries = (offsets.len() / OFFSET_ENTRY_BYTES) as u64;
        if entries > 0 {
            let before = segment.index_entries;
            let both = [
                ("index", before * OFFSET_ENTRY_BYTES as u64, offsets.freeze()),
                ("timeindex", before * TIME_ENTRY_BYTES as u64, times.freeze()),
            ];
            for (extension, position, entries) in both {
                match write_index(open_files, directory, segment.name, extension, position, entries, &soon)
                    .await
                {
                    Ok(()) => {}
                    // Nothing is wrong with the file: the whole attempt is made again.
                    Err(error) if error.lacks_descriptors() => return Err(error),
                    // An index only saves time and is rebuilt when the log is opened; a bad block under it must not keep
                    // the journal of the whole node from being released. No more points go behind the gap.
                    Err(error) => {
                        tracing::warn!(error = %error, "an index is not written; its segment ends here");
                        segment.spent = true;
                        return Ok(segment);
                    }
                }
            }
            segment.index_entries += entries;
        }
        Ok(segment)
    }
}

/// Not synced: what a crash takes of it is rebuilt.
async fn write_index<B: Backend>(
    open_files: &OpenFiles<B>,
    directory: &Path,
    name: SegmentName,
    extension: &str,
    position: u64,
    entries: Bytes,
    soon: &impl Fn() -> Deadline,
) -> Result<(), DiskError> {
    let path = directory.join(name.file(extension));
    let file = open_files.open(&path, OpenHow::OrCreate, soon()).await?;
    file.write_at(position, entries, soon()).await
}
