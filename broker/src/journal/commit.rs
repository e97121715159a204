//! The commit loop: carries out what the [`CommitState`] decides, one group at a time.
//!
//! A dedicated loop, since a synced write blocks its thread. It sleeps while nothing is queued, commits at
//! once when something is, and what arrives meanwhile is the next group. It has no timers unless a linger is configured,
//! which a full group ends, and no deadlines: the age of its operation in the registry is watched instead.

use std::collections::VecDeque;
use std::panic::Location;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use io_backend::{Backend, DedicatedDisk, DedicatedFile, DedicatedLoop, Disk, DiskError};
use tracing::{debug, error, warn};

use super::EntryKind;
use super::commit_state::{CommitState, Holds, Placement, WriteOutcome, WriteVerdict};
use super::files::file_path;
use super::format::{GROUP_HEADER_BYTES, GroupEncoder, GroupPlace};
use super::shared::{CommitFailure, JournalShared, NextFile, Work};
use super::submission_queue::{Amount, Submission};
use crate::ids::Lsn;
use crate::metrics::Metrics;

/// How soon a file is opened again for which there was no descriptor.
const DESCRIPTOR_RETRY: Duration = Duration::from_millis(100);

pub struct CommitLoop<B: Backend> {
    pub name: &'static str,
    pub directory: PathBuf,
    pub queue: Arc<JournalShared<B>>,
    pub machine: CommitState,
    /// What one group may hold, its own header not counted.
    pub group_bound: Amount,
    pub linger: Duration,
    /// Only the data journal's commits are measured.
    pub metrics: Option<Arc<Metrics>>,
}

type DedicatedOf<B> = <<B as Backend>::Disk as Disk>::Dedicated;
type FileOf<B> = <DedicatedOf<B> as DedicatedDisk>::File;

impl<B: Backend> DedicatedLoop<B> for CommitLoop<B> {
    async fn run(self, disk: DedicatedOf<B>) {
        self.queue.loop_began(Location::caller());
        let queue = self.queue.clone();
        let mut writer = Writer { settings: self, disk, file: None, buffer: Vec::new() };
        let mut group = VecDeque::new();
        loop {
            match queue.work().await {
                Work::Commit => {
                    let CommitLoop { group_bound, linger, .. } = writer.settings;
                    if !linger.is_zero() {
                        queue.linger(group_bound, linger).await;
                    }
                    queue.take_group(writer.settings.group_bound, &mut group);
                    if !writer.commit(&mut group).await {
                        break;
                    }
                }
                Work::Close => {
                    writer.seal().await;
                    break;
                }
            }
        }
        queue.loop_ended();
    }
}

struct Writer<B: Backend> {
    settings: CommitLoop<B>,
    disk: DedicatedOf<B>,
    file: Option<FileOf<B>>,
    buffer: Vec<u8>,
}

impl<B: Backend> Writer<B> {
    /// Writes a group and tells its outcome. False when the journal failed.
    async fn commit(&mut self, group: &mut VecDeque<Submission>) -> bool {
        let queue = self.settings.queue.clone();
        let bytes = group.iter().map(|submission| submission.bytes).sum::<usize>() + GROUP_HEADER_BYTES;
        let records = |submission: &Submission| submission.entries.iter().any(|e| e.kind == EntryKind::Batch);
        let holds = if group.iter().any(records) { Holds::Records } else { Holds::NoRecords };
        let place = match self.place(bytes, holds).await {
            Ok(place) => place,
            Err(CommitFailure::Stopped) => {
                queue.fail(group, CommitFailure::Stopped);
                return false;
            }
            Err(failure) => {
                queue.fail(group, failure);
                return true;
            }
        };
        let active = self.settings.machine.active().expect("a group that has its place has a file");
        let generation = active.file.generation;
        let last_lsn = group.back().expect("a group that has its place has entries").last_lsn();
        let mut encoder = GroupEncoder::new(std::mem::take(&mut self.buffer), generation);
        let mut entries = 0;
        for submission in group.iter() {
            for (lsn, entry) in (submission.first_lsn.0..).zip(&submission.entries) {
                encoder.push(Lsn(lsn), entry);
                entries += 1;
            }
        }
        let encoded = encoder.finish(&place);
        let written = encoded.len();
        let began = queue.backend.now();
        let verdict = self.write(&place, encoded, last_lsn).await;
        let took = queue.backend.now().since(began);
        match verdict {
            Ok(()) => queue.complete(group, written as u64, self.settings.machine.room()),
            Err(failure) => {
                queue.fail(group, failure);
                return failure != CommitFailure::Stopped;
            }
        }
        if let Some(metrics) = &self.settings.metrics {
            metrics.wal_commit_batch_size.observe(f64::from(entries));
            metrics.wal_commit_duration_ms.observe(took.as_secs_f64() * 1e3);
        }
        debug!(
            event = "WAL_COMMIT",
            journal = self.settings.name,
            group = place.number,
            entries,
            bytes = written,
            durable_up_to = last_lsn.0,
            duration_us = took.as_micros() as u64,
        );
        true
    }

    /// On a clean stop: a last group without entries proves that what came before it was durable, so that
    /// damage to it is told from a torn tail.
    async fn seal(&mut self) {
        let machine = &self.settings.machine;
        let (Some(active), last_lsn) = (machine.active(), machine.durable()) else { return };
        if !machine.has_unproven_group() {
            return;
        }
        let Ok(place) = self.place(GROUP_HEADER_BYTES, Holds::NoRecords).await else { return };
        let generation = self.settings.machine.active().map_or(active.file.generation, |a| a.file.generation);
        let encoded = GroupEncoder::new(std::mem::take(&mut self.buffer), generation).finish(&place);
        let _ = self.write(&place, encoded, last_lsn).await;
    }

    async fn write(
        &mut self,
        place: &GroupPlace,
        encoded: Vec<u8>,
        last_lsn: Lsn,
    ) -> Result<(), CommitFailure> {
        let Some(file) = &self.file else { return Err(CommitFailure::Stopped) };
        self.settings.machine.handle_started(encoded.len(), last_lsn);
        let (result, buffer) = file.write_durable(place.position, encoded).await;
        self.buffer = buffer;
        if self.buffer.capacity() > 2 * self.settings.group_bound.bytes {
            self.buffer = Vec::new();
        }
        let outcome = match &result {
            Ok(()) => WriteOutcome::Durable,
            Err(error) if error.is_full() => WriteOutcome::Full,
            Err(_) => WriteOutcome::Failed,
        };
        let verdict = self.settings.machine.handle_written(outcome);
        let Err(error) = result else { return Ok(()) };
        self.file = None;
        match verdict {
            WriteVerdict::MovedOn(sealed) => {
                warn!(
                    journal = self.settings.name,
                    group = place.number,
                    "{error}: the group was not taken; the journal goes on in a new file"
                );
                self.settings.queue.sealed(sealed);
                Err(CommitFailure::MovedOn)
            }
            WriteVerdict::Stopped | WriteVerdict::Durable => {
                self.stopped(&error);
                Err(CommitFailure::Stopped)
            }
        }
    }

    /// Where a group of so many bytes goes; opens the file.
    async fn place(&mut self, bytes: usize, holds: Holds) -> Result<GroupPlace, CommitFailure> {
        loop {
            match self.settings.machine.handle_group(bytes, holds) {
                Placement::Here(place) => {
                    if self.file.is_none() {
                        self.open().await?;
                    }
                    return Ok(place);
                }
                Placement::NextFile => {
                    let full = self.settings.machine.full();
                    match self.settings.queue.next_file(full).await {
                        NextFile::Ready(file) => {
                            self.file = None;
                            self.settings.machine.handle_file(file);
                        }
                        NextFile::NoSpace => {
                            warn!(
                                journal = self.settings.name,
                                "no room for another journal file: nothing is taken until there is"
                            );
                            return Err(CommitFailure::NoSpace);
                        }
                    }
                }
            }
        }
    }

    async fn open(&mut self) -> Result<(), CommitFailure> {
        let Some(active) = self.settings.machine.active() else { return Err(CommitFailure::Stopped) };
        let path = file_path(&self.settings.directory, active.file.slot);
        let mut told = false;
        loop {
            match self.disk.open(&path).await {
                Ok(file) => {
                    self.file = Some(file);
                    self.settings.queue.descriptors_lack(false);
                    return Ok(());
                }
                // Nothing was written: the file is as good as before, and others close theirs.
                Err(error) if error.lacks_descriptors() => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(
                            journal = self.settings.name,
                            "{error}: commits wait until a descriptor is free"
                        );
                    }
                    self.settings.queue.descriptors_lack(true);
                    self.settings.queue.backend.sleep(DESCRIPTOR_RETRY).await;
                }
                Err(error) => {
                    self.stopped(&error);
                    return Err(CommitFailure::Stopped);
                }
            }
        }
    }

    fn stopped(&self, error: &DiskError) {
        error!(
            journal = self.settings.name,
            "{error}: the journal takes nothing more; check the disk, then start the node again"
        );
    }
}
