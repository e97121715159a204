//! Tells of durability when entries are queued and not when they are synced.

use std::sync::Arc;

use broker::ids::{Lsn, PartitionId};
use broker::journal::{Journal, JournalEntry, JournalHandle, JournalStatus, SubmitError};
use broker::parts::Parts;
use futures::future::BoxFuture;
use io_backend::Deadline;
use io_backend::progress::Progress;
use io_backend::time::TimedOut;

use crate::world::SimBackend;

pub(super) fn plant(parts: &mut Parts<SimBackend>) {
    let inner = std::mem::replace(&mut parts.journal, Box::new(broker::journal::open));
    parts.journal = Box::new(move |context| {
        let opening = inner(context);
        Box::pin(async move {
            let mut opened = opening.await?;
            opened.journal = Arc::new(EarlyAck(opened.journal));
            Ok(opened)
        })
    });
}

struct EarlyAck(JournalHandle);

impl Journal for EarlyAck {
    fn submit(&self, entries: Vec<JournalEntry>, progress: &Arc<Progress>) -> Result<Lsn, SubmitError> {
        let last = self.0.submit(entries, progress)?;
        progress.reach(last.0);
        Ok(last)
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
