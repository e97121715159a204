//! Keeps nothing of where logs start: an entry that says so is written as one that says nothing, and checkpoint records say
//! that every log starts at its very beginning.

use std::sync::Arc;

use broker::ids::{Lsn, PartitionId};
use broker::journal::{EntryKind, Journal, JournalEntry, JournalHandle, JournalStatus, SubmitError};
use broker::parts::Parts;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use io_backend::Deadline;
use io_backend::progress::Progress;
use io_backend::time::TimedOut;

use crate::world::SimBackend;

/// The form of a checkpoint record: what stands before the marks, a mark, and where in it the log's start is.
const HEADER_BYTES: usize = 5;
const MARK_BYTES: usize = 52;
const LOG_START_AT: usize = 36;

pub(super) fn plant(parts: &mut Parts<SimBackend>) {
    let inner = std::mem::replace(&mut parts.journal, Box::new(broker::journal::open));
    parts.journal = Box::new(move |context| {
        let opening = inner(context);
        Box::pin(async move {
            let mut opened = opening.await?;
            opened.journal = Arc::new(NoStarts(opened.journal));
            Ok(opened)
        })
    });
}

struct NoStarts(JournalHandle);

/// A checkpoint record as it would be if every log started at its very beginning.
pub(super) fn without_starts(payload: &Bytes) -> Bytes {
    let mut payload = BytesMut::from(&payload[..]);
    for mark in payload[HEADER_BYTES..].chunks_exact_mut(MARK_BYTES) {
        mark[LOG_START_AT..LOG_START_AT + 8].fill(0);
    }
    payload.freeze()
}

impl Journal for NoStarts {
    fn submit(&self, mut entries: Vec<JournalEntry>, progress: &Arc<Progress>) -> Result<Lsn, SubmitError> {
        for entry in &mut entries {
            match entry.kind {
                EntryKind::LogStart => entry.kind = EntryKind::ReplicaCreate,
                EntryKind::Checkpoint => entry.payload = without_starts(&entry.payload),
                _ => {}
            }
        }
        self.0.submit(entries, progress)
    }

    fn wait_for_capacity(
        &self,
        partition: PartitionId,
        bytes: usize,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<(), TimedOut>> {
        self.0.wait_for_capacity(partition, bytes, deadline)
    }

    fn release_before(&self, lsn: Lsn) {
        self.0.release_before(lsn);
    }

    fn status(&self) -> JournalStatus {
        self.0.status()
    }

    fn set_refusing(&self, why: Option<SubmitError>) {
        self.0.set_refusing(why);
    }

    fn until_busy(&self, deadline: Deadline) -> BoxFuture<'static, Result<(), TimedOut>> {
        self.0.until_busy(deadline)
    }

    fn until_unreleased(&self, bytes: u64, deadline: Deadline) -> BoxFuture<'static, Result<(), TimedOut>> {
        self.0.until_unreleased(bytes, deadline)
    }

    fn close(&self, deadline: Deadline) -> BoxFuture<'static, Result<(), TimedOut>> {
        self.0.close(deadline)
    }
}
