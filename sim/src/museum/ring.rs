//! The old ring writer: one file, one thread that takes commands from a channel and drives the ring.
//!
//! Two of its defects are exhibits. It kept the position in the file in a variable that began at zero for every
//! write. And it waited for its next command in a blocking recv(): alone, an operation was seen through before that;
//! when the next command came meanwhile, the thread turned to it and then stood in recv(), and nobody looked any more
//! at what the ring had completed of the first.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use broker::ids::{Lsn, PartitionId};
use broker::journal::{
    Journal, JournalContext, JournalEntry, JournalOpenError, JournalStatus, OpenedJournal, SubmitError,
    Waiting,
};
use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use io_backend::disk::DiskResult;
use io_backend::progress::Progress;
use io_backend::{Backend, Deadline, Disk, File, OpenHow, Receiver, Sender, channel};

use super::frame;
use super::ledger::{Ledger, Submission};
use super::legacy_wal::{never, read_all};
use crate::world::{SimBackend, SimFile};

const OPEN_WITHIN: Duration = Duration::from_secs(60);
const NO_DEADLINE: Deadline = Deadline::Unbounded("the ring writer had no time-outs");
const COMMANDS: usize = 1_024;

/// Which of the two defects is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    OffsetReset,
    BlockingRecv,
}

pub(super) struct RingJournal {
    backend: SimBackend,
    ledger: Arc<Ledger>,
    commands: Sender<SimBackend, Submission>,
}

pub(super) async fn open(
    context: JournalContext<SimBackend>,
    defect: Defect,
) -> Result<OpenedJournal, JournalOpenError> {
    let backend = context.backend;
    let deadline = Deadline::after(&backend, OPEN_WITHIN);
    let mut entries = read_all(&backend, &context.directory, deadline).await?;
    // Whatever lies behind the last write belongs to earlier ones: read as the old code did, in file order.
    if defect == Defect::BlockingRecv {
        entries.sort_by_key(|recovered| recovered.lsn);
    } else {
        let newest = entries.first().map(|recovered| recovered.lsn);
        let mut last = newest;
        entries.retain(|recovered| {
            let follows = last.is_some_and(|last| recovered.lsn >= last);
            last = last.max(Some(recovered.lsn));
            follows
        });
    }
    let last = entries.iter().map(|recovered| recovered.lsn).max().unwrap_or(Lsn(0));
    let path = context.directory.join("ring.log");
    let file = backend.disk().open(&path, OpenHow::OrCreate, deadline).await?;
    backend.disk().sync_dir(&context.directory, deadline).await?;
    let length = usize::try_from(file.len(deadline).await?).unwrap_or(usize::MAX);
    let end = frame::whole_bytes(&file.read_at(0, length, deadline).await?);
    let ledger = Arc::new(Ledger::after(&backend, last));
    let (commands, receiver) = channel(&backend, "ring commands", COMMANDS);
    let thread = backend.on_threads("ring", 1);
    let ring = Ring {
        backend: thread.clone(),
        ledger: ledger.clone(),
        file,
        position: if defect == Defect::OffsetReset { 0 } else { end },
        defect,
        overdue: 0,
    };
    let _detached = thread.spawn("ring", ring.run(receiver));
    let journal = Arc::new(RingJournal { backend, ledger, commands });
    Ok(OpenedJournal { journal, entries, torn_tail: None })
}

/// The loop on the ring's thread.
struct Ring {
    backend: SimBackend,
    ledger: Arc<Ledger>,
    file: SimFile,
    position: u64,
    defect: Defect,
    /// Operations that were started and are not looked at any more.
    overdue: usize,
}

impl Ring {
    async fn run(mut self, mut commands: Receiver<SimBackend, Submission>) {
        let mut next = None;
        loop {
            let submission = match (next.take(), self.defect) {
                (Some(submission), _) => submission,
                (None, Defect::BlockingRecv) => {
                    match self.backend.blocking(commands.receive(NO_DEADLINE)).await {
                        Ok(submission) => submission,
                        Err(_) => return,
                    }
                }
                (None, Defect::OffsetReset) => match commands.receive(NO_DEADLINE).await {
                    Ok(submission) => submission,
                    Err(_) => return,
                },
            };
            match self.defect {
                Defect::OffsetReset => {
                    // The position begins at zero for every write: this one lies on top of all before it.
                    if self.write(self.position, &submission).await.is_ok() {
                        self.ledger.done(&submission);
                    }
                }
                Defect::BlockingRecv => next = self.start(submission, &mut commands).await,
            }
        }
    }

    fn write(
        &self,
        position: u64,
        submission: &Submission,
    ) -> impl Future<Output = DiskResult<()>> + Send + 'static {
        let (file, bytes) = (self.file.clone(), Bytes::from(submission.bytes.clone()));
        async move {
            file.write_at(position, bytes, NO_DEADLINE).await?;
            file.sync(NO_DEADLINE).await
        }
    }

    /// Starts the operation and sees it through, unless the next command comes before it is done.
    async fn start(
        &mut self,
        submission: Submission,
        commands: &mut Receiver<SimBackend, Submission>,
    ) -> Option<Submission> {
        let operation: BoxFuture<'static, DiskResult<()>> = Box::pin(self.write(self.position, &submission));
        self.position += submission.bytes.len() as u64;
        let next = pin!(commands.receive(NO_DEADLINE));
        match self.backend.blocking(select(operation, next)).await {
            Either::Left((done, _)) => {
                // Completions are taken in order: behind an overdue one nothing is seen.
                if done.is_ok() && self.overdue == 0 {
                    self.ledger.done(&submission);
                }
                None
            }
            Either::Right((next, operation)) => {
                self.overdue += 1;
                let ledger = self.ledger.clone();
                // Whoever is to see it complete needs this thread, which is in recv() from now on.
                let _detached = self.backend.spawn("ring-completion", async move {
                    if operation.await.is_ok() {
                        ledger.done(&submission);
                    }
                });
                next.ok()
            }
        }
    }
}

impl Journal for RingJournal {
    fn submit(&self, entries: Vec<JournalEntry>, progress: &Arc<Progress>) -> Result<Lsn, SubmitError> {
        if entries.is_empty() {
            return Ok(self.ledger.status().submitted);
        }
        if self.ledger.is_closed() {
            return Err(SubmitError::Closed);
        }
        if self.commands.len() >= COMMANDS {
            return Err(SubmitError::Full);
        }
        let submission = self.ledger.submit(&entries, progress);
        let last = submission.last;
        match self.commands.try_send(submission) {
            Ok(()) => Ok(last),
            Err(_) => Err(SubmitError::Full),
        }
    }

    fn wait_for_capacity(&self, _: PartitionId, _: usize, _: Deadline) -> Waiting {
        Box::pin(async { Ok(()) })
    }

    fn release_before(&self, _: Lsn) {
        self.ledger.release();
    }

    fn status(&self) -> JournalStatus {
        self.ledger.status()
    }

    fn set_refusing(&self, _: Option<SubmitError>) {}

    fn until_busy(&self, deadline: Deadline) -> Waiting {
        never(self.backend.clone(), deadline)
    }

    fn until_unreleased(&self, bytes: u64, deadline: Deadline) -> Waiting {
        Box::pin(self.ledger.clone().until_unreleased(bytes, deadline))
    }

    fn close(&self, deadline: Deadline) -> Waiting {
        Box::pin(self.ledger.clone().close(deadline))
    }
}
