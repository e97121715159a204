//! What an operation does to the disk's contents when its time has come, or has been cut short.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::device::{FAILURES_KEPT, JournalFailure, Operation, SYNCS_KEPT, State, Untold};
use super::file::Covered;
use super::names::Inode;
use super::operation::{Handle, Output, SyncRecord, Work};
use super::pages::is_zero;
use crate::fault::PathClass;
use crate::fault::disk::{DiskFailure, WriteFate};
use crate::world::alloc;

impl State {
    /// By how much the work makes the disk fuller.
    pub(super) fn grows(&self, path: &Path, work: &Work) -> u64 {
        let beyond = |inode: &Inode, end: u64| {
            end.saturating_sub(self.image.file(*inode).map_or(0, |file| file.current().len()))
        };
        match work {
            Work::Write { inode, position, data } | Work::WriteDurable { inode, position, data } => {
                beyond(inode, position + data.len() as u64)
            }
            Work::SetLen { inode, len } => beyond(inode, *len),
            Work::Open(io_backend::OpenHow::OrCreate | io_backend::OpenHow::CreateNew)
            | Work::CreateDirAll => u64::from(!self.image.exists(path)),
            _ => 0,
        }
    }

    /// `capacity` is what the disk holds.
    pub(super) fn perform(&mut self, operation: &Operation, capacity: u64, now: u64) -> io::Result<Output> {
        if let Some(failure) = operation.effect.failure {
            return Err(self.fail(operation, failure, capacity, now));
        }
        let path = &*operation.path;
        match &operation.work {
            Work::Read { inode, position, len } => {
                self.counts.reads += 1;
                let _read = alloc::charge_to(operation.process.account);
                let bytes = self.image.file(*inode).map(|file| file.current().read(*position, *len));
                let bytes = Bytes::from(bytes.unwrap_or_default());
                self.counts.read_bytes += bytes.len() as u64;
                Ok(Output::Bytes(bytes))
            }
            Work::Write { inode, position, data } => {
                self.write(*inode, *position, data, operation.effect.write, now);
                Ok(Output::Done)
            }
            Work::WriteDurable { inode, position, data } => {
                self.write(*inode, *position, data, operation.effect.write, now);
                let covers = self.image.file(*inode).map_or(0, |file| file.last_change());
                self.sync(operation, *inode, covers, now);
                self.group_written(operation, *inode, *position, data);
                Ok(Output::Done)
            }
            Work::Sync { inode } => {
                self.sync(operation, *inode, operation.covers, now);
                Ok(Output::Done)
            }
            Work::Len { inode } => {
                Ok(Output::Len(self.image.file(*inode).map_or(0, |file| file.current().len())))
            }
            Work::SetLen { inode, len } => {
                self.image.alter(*inode, |file| file.set_len(*len));
                Ok(Output::Done)
            }
            Work::Open(how) => {
                let descriptor = operation.process.descriptors.file()?;
                let inode = self.image.open(path, *how)?;
                Ok(Output::Opened(Handle { of: operation.device.clone(), inode, _descriptor: descriptor }))
            }
            Work::CreateDirAll => self.image.create_dir_all(path).map(|()| Output::Done),
            Work::ReadDir => self.image.read_dir(path).map(Output::Entries),
            Work::Rename(to) => self.image.rename(path, to).map(|()| Output::Done),
            Work::RemoveFile => self.image.remove_file(path).map(|()| Output::Done),
            Work::RemoveDirAll => self.image.remove_dir_all(path).map(|()| Output::Done),
            Work::SyncDir => {
                if !self.image.names().is_dir(path) {
                    return Err(io::Error::from(io::ErrorKind::NotFound));
                }
                self.image.sync_dir(path, operation.covers);
                let names = self.image.names();
                self.markers.named(|file| names.leads_to(path, file), now);
                Ok(Output::Done)
            }
            Work::LockDir => {
                if !self.image.names().is_dir(path) {
                    return Err(io::Error::from(io::ErrorKind::NotFound));
                }
                if self.locked.contains_key(path) {
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, "the directory is taken"));
                }
                self.locked.insert(path.to_owned(), operation.process.number);
                Ok(Output::Done)
            }
        }
    }

    pub(super) fn write(&mut self, inode: Inode, position: u64, data: &Bytes, fate: WriteFate, now: u64) {
        self.counts.writes += 1;
        self.counts.written_bytes += data.len() as u64;
        match fate {
            WriteFate::Done => {
                self.markers.written(data, now);
                self.image.write(inode, position, cached(data));
            }
            WriteFate::Lost => {}
            WriteFate::Torn => {
                let (stream, data) = (&mut self.stream, cached(data));
                self.image.alter(inode, |file| file.write_torn(position, &data, stream));
            }
            WriteFate::Misdirected => {
                let len = self.image.file(inode).map_or(0, |file| file.current().len());
                let room = len.saturating_sub(data.len() as u64);
                let elsewhere = self.stream.below(room / 512 + 1) * 512;
                self.image.write(inode, elsewhere, cached(data));
            }
        }
    }

    fn group_written(&mut self, operation: &Operation, inode: Inode, position: u64, data: &Bytes) {
        let class = PathClass::of(&operation.path);
        if class == PathClass::Journal {
            self.failed_in_a_row = 0;
        }
        match operation.effect.write {
            _ if !matches!(class, PathClass::Journal | PathClass::Raft) => {}
            WriteFate::Done => self.untold.retain(|untold| untold.class != class),
            _ => self.untold.push(Untold { class, inode, position, data: cached(data) }),
        }
    }

    /// The process has ended: what stands at the end of a journal is there after all.
    pub(super) fn make_good(&mut self) {
        for untold in std::mem::take(&mut self.untold) {
            self.image.alter(untold.inode, |file| file.put_right(untold.position, &untold.data));
        }
    }

    pub(super) fn sync(&mut self, operation: &Operation, inode: Inode, covers: u64, now: u64) {
        self.counts.syncs += 1;
        let covered = self.image.sync(inode, covers);
        let covered = covered.unwrap_or_default();
        self.mark_durable(&operation.path, inode, &covered, now);
        self.remember(operation, true, covered.ranges, now);
    }

    /// What a sync covered is durable if a power loss leaves a name that leads to it.
    fn mark_durable(&mut self, path: &Path, inode: Inode, covered: &Covered, now: u64) {
        if covered.data.is_empty() {
            return;
        }
        let is_named = self.image.names().leads_to(path, inode);
        for data in &covered.data {
            self.markers.synced(data, inode, is_named, now);
        }
    }

    /// An operation that fails has not done nothing: some first part of a write is there, and a sync may have made
    /// a part durable.
    pub(super) fn fail(
        &mut self,
        operation: &Operation,
        failure: DiskFailure,
        capacity: u64,
        now: u64,
    ) -> io::Error {
        // What ends journals is a disk that fails, not one that is full.
        if failure != DiskFailure::Full {
            self.note_failure(operation, now);
        }
        match &operation.work {
            Work::Sync { inode } => self.sync_failed(operation, *inode, operation.covers, now),
            Work::WriteDurable { inode, position, data } if failure == DiskFailure::PagesLost => {
                self.write(*inode, *position, data, WriteFate::Done, now);
                self.sync_failed(operation, *inode, u64::MAX, now);
            }
            Work::Write { inode, position, data } | Work::WriteDurable { inode, position, data } => {
                let left = capacity.saturating_sub(self.image.used());
                let there = self.image.file(*inode).map_or(0, |file| file.current().len());
                let room = (there + left).saturating_sub(*position);
                let most = (data.len() as u64).min(room);
                let reached = self.stream.below(most + 1) as usize;
                self.write_part(*inode, *position, data, reached, now);
            }
            _ => {}
        }
        match failure {
            DiskFailure::Full => io::Error::new(io::ErrorKind::StorageFull, "no space left on device"),
            DiskFailure::Io | DiskFailure::PagesLost => io::Error::from_raw_os_error(libc::EIO),
        }
    }

    fn note_failure(&mut self, operation: &Operation, now: u64) {
        let class = PathClass::of(&operation.path);
        let opens = match operation.work {
            Work::Open(_) => true,
            Work::Write { .. } | Work::WriteDurable { .. } | Work::Sync { .. } => false,
            _ => return,
        };
        if class == PathClass::Journal && !opens {
            self.failed_in_a_row += 1;
        }
        if matches!(class, PathClass::Journal | PathClass::Raft) && self.failures.len() < FAILURES_KEPT {
            let in_a_row = self.failed_in_a_row;
            self.failures.push(JournalFailure { at: now, class, opens, in_a_row });
        }
    }

    fn sync_failed(&mut self, operation: &Operation, inode: Inode, covers: u64, now: u64) {
        let drop_pages = self.stream.coin();
        let stream = &mut self.stream;
        let kept = self.image.alter(inode, |file| file.lose(covers, drop_pages, stream));
        self.mark_durable(&operation.path, inode, &kept.unwrap_or_default(), now);
        self.remember(operation, false, Vec::new(), now);
    }

    fn write_part(&mut self, inode: Inode, position: u64, data: &Bytes, reached: usize, now: u64) {
        if reached > 0 {
            let part = cached(&data[..reached]);
            self.markers.written(&part, now);
            self.image.write(inode, position, part);
        }
    }

    pub(super) fn remember(&mut self, operation: &Operation, ok: bool, ranges: Vec<(u64, u64)>, now: u64) {
        if self.syncs.len() >= SYNCS_KEPT {
            self.syncs.pop_front();
        }
        self.syncs.push_back(SyncRecord {
            path: operation.path.to_path_buf(),
            began: operation.began,
            ended: now,
            ok,
            ranges,
        });
    }

    /// The process of a write in flight has ended: some first part of it has reached the cache.
    pub(super) fn cut_off(&mut self, operation: &Operation, now: u64) {
        if let Work::Write { inode, position, data } | Work::WriteDurable { inode, position, data } =
            &operation.work
            && operation.effect.failure.is_none()
            && operation.effect.stalled_by.is_none()
            && operation.effect.write == WriteFate::Done
        {
            let reached = self.stream.below(data.len() as u64 + 1) as usize;
            self.write_part(*inode, *position, data, reached, now);
        }
    }
}

/// What the page cache keeps of written bytes: a copy of its own, since the writer's buffer is the writer's.
fn cached(data: &[u8]) -> Bytes {
    static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
    match ZEROS.get(..data.len()) {
        Some(zeros) if is_zero(data) => Bytes::from_static(zeros),
        _ => Bytes::copy_from_slice(data),
    }
}
