//! Preparing files ahead of the commit loop: filling them with zeros, giving released ones a new life,
//! removing what is not needed.
//!
//! Runs as the task `journal-files`, beside the commit loop and never in its way. A header is written last,
//! when everything below it is durable: a file with a header is whole. It touches no file that the
//! commit loop may write.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use io_backend::{Backend, Deadline, Disk, DiskError, File, OpenHow};
use tracing::warn;

use super::catalogue::{FileWork, Plan};
use super::commit_state::Prepared;
use super::format::{FileHeader, HEADER_BYTES, HeaderBlock, decode_header, encode_header};
use super::shared::JournalShared;
use crate::ids::Lsn;

/// Zeros are written, and synced, in pieces of this size: a large sync would hold up the commits beside it.
const FILL_BYTES: usize = 4 << 20;
/// After a failure, the time until the next try.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const EXTENSION: &str = "journal";

pub fn file_path(directory: &Path, slot: u32) -> PathBuf {
    directory.join(format!("{slot:06}.{EXTENSION}"))
}

/// The slot in a file's name, if it is a journal file's.
pub fn slot_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    (digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Whose files, and where.
#[derive(Clone)]
pub struct JournalDir<B: Backend> {
    pub backend: B,
    pub directory: PathBuf,
    /// As in the headers.
    pub name: [u8; 16],
    /// Bound on each operation, where somebody waits for it.
    pub operation_timeout: Option<Duration>,
}

impl<B: Backend> JournalDir<B> {
    /// Commits wait for what happens here, so that nothing else may take its room.
    pub fn disk(&self) -> B::Disk {
        self.backend.disk().preparing()
    }

    pub fn deadline(&self) -> Deadline {
        match self.operation_timeout {
            Some(operation_timeout) => Deadline::after(&self.backend, operation_timeout),
            None => Deadline::Unbounded(
                "nobody waits for a file prepared ahead; a second try beside a stuck one would double the harm",
            ),
        }
    }

    /// Makes a file of zeros, then its header; durable in the directory, too. Of one that is not wanted any more no more
    /// is written: without a header it is nothing.
    pub async fn create(
        &self,
        plan: &Plan,
        first_lsn: Lsn,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<Prepared>, DiskError> {
        let path = file_path(&self.directory, plan.slot);
        let file = self.disk().open(&path, OpenHow::OrCreate, self.deadline()).await?;
        let zeros = Bytes::from(vec![0; FILL_BYTES.min(plan.file_bytes as usize)]);
        let mut position = 0;
        while position < plan.file_bytes {
            if !is_wanted() {
                return Ok(None);
            }
            let piece = zeros.len().min((plan.file_bytes - position) as usize);
            file.write_at(position, zeros.slice(..piece), self.deadline()).await?;
            file.sync(self.deadline()).await?;
            position += piece as u64;
        }
        let prepared = self.begin_life(&file, plan, first_lsn, 1).await?;
        self.disk().sync_dir(&self.directory, self.deadline()).await?;
        Ok(Some(prepared))
    }

    /// Gives a released file a new life: what it held reads as empty from then on.
    pub async fn recycle(&self, plan: &Plan, first_lsn: Lsn) -> Result<Prepared, DiskError> {
        let path = file_path(&self.directory, plan.slot);
        let file = self.disk().open(&path, OpenHow::Existing, self.deadline()).await?;
        let block = file.read_at(0, HEADER_BYTES, self.deadline()).await?;
        let lives = match decode_header(&block) {
            HeaderBlock::Good(header) => header.lives,
            // Not ours to judge here: its content is released. It is not taken for zeros, that is all.
            _ => 1,
        };
        self.begin_life(&file, plan, first_lsn, lives.saturating_add(1)).await
    }

    async fn begin_life(
        &self,
        file: &<B::Disk as Disk>::File,
        plan: &Plan,
        first_lsn: Lsn,
        lives: u32,
    ) -> Result<Prepared, DiskError> {
        let header = FileHeader {
            sequence: plan.sequence,
            generation: self.backend.random_u64(),
            first_lsn,
            oldest_sequence: plan.oldest_sequence,
            file_bytes: plan.file_bytes,
            lives,
            name: self.name,
        };
        file.write_at(0, encode_header(&header).into(), self.deadline()).await?;
        file.sync(self.deadline()).await?;
        Ok(Prepared {
            slot: plan.slot,
            sequence: plan.sequence,
            generation: header.generation,
            file_bytes: plan.file_bytes,
        })
    }

    pub async fn remove(&self, slot: u32) -> Result<(), DiskError> {
        let path = file_path(&self.directory, slot);
        self.disk().remove_file(&path, self.deadline()).await?;
        self.disk().sync_dir(&self.directory, self.deadline()).await
    }
}

/// The task `journal-files`: does one thing after the other, until the journal ends.
pub async fn keep_prepared<B: Backend>(dir: JournalDir<B>, queue: Arc<JournalShared<B>>) {
    while let Some(work) = queue.file_work().await {
        let outcome = match work {
            FileWork::Create(plan) => {
                let made = dir.create(&plan, queue.next_lsn(), || !queue.has_ended()).await;
                if made.is_err() {
                    // Whatever part of it is there takes room. Should it stay: without a header it is nothing.
                    let _ = dir.remove(plan.slot).await;
                }
                made.map(|made| made.into_iter().for_each(|file| queue.prepared(file, &plan)))
            }
            FileWork::Recycle { plan, .. } => {
                let made = dir.recycle(&plan, queue.next_lsn()).await;
                made.map(|file| queue.prepared(file, &plan))
            }
            FileWork::Remove(file) => {
                // One that is not removed now is met again at the next start.
                queue.removed(file);
                dir.remove(file.slot).await
            }
        };
        if let Err(error) = outcome {
            warn!("{error}: preparing a journal file failed; next try in {RETRY_AFTER:?}");
            queue.preparation_failed(work, error.is_full());
            pause(&dir.backend, &queue).await;
        }
    }
    queue.files_ended();
}

/// Waits a while, or until the journal ends.
async fn pause<B: Backend>(backend: &B, queue: &JournalShared<B>) {
    let _ = queue.until_ended(Deadline::after(backend, RETRY_AFTER)).await;
}
