//! A journal whose submissions are made otherwise: what the planted bugs of what is written have in common.

use std::sync::Arc;

use broker::ids::{Lsn, PartitionId};
use broker::journal::{Journal, JournalEntry, JournalHandle, JournalStatus, SubmitError, Waiting};
use broker::parts::{OpenJournal, Parts};
use io_backend::Deadline;
use io_backend::progress::Progress;

use crate::world::SimBackend;

/// How entries are submitted to the journal under it.
pub(crate) type Submit =
    Box<dyn Fn(&JournalHandle, Vec<JournalEntry>, &Arc<Progress>) -> Result<Lsn, SubmitError> + Send + Sync>;

/// The same where nothing is kept from one submission to the next.
pub(super) type SubmitFn = fn(&JournalHandle, Vec<JournalEntry>, &Arc<Progress>) -> Result<Lsn, SubmitError>;

/// Puts a journal that submits like this over that of the records.
pub(super) fn replace(parts: &mut Parts<SimBackend>, submit: SubmitFn) {
    over(&mut parts.journal, move |_| Box::new(submit));
}

/// Puts one over Raft's.
pub(super) fn replace_rafts(parts: &mut Parts<SimBackend>, submit: SubmitFn) {
    over(&mut parts.raft_journal, move |_| Box::new(submit));
}

/// Puts one over it that is made when it is opened.
pub(crate) fn over(
    opens: &mut OpenJournal<SimBackend>,
    submits: impl FnOnce(&SimBackend) -> Submit + Send + 'static,
) {
    let inner = std::mem::replace(opens, Box::new(broker::journal::open));
    *opens = Box::new(move |context| {
        let backend = context.backend.clone();
        let opening = inner(context);
        Box::pin(async move {
            let mut opened = opening.await?;
            opened.journal = Arc::new(Altered(opened.journal, submits(&backend)));
            Ok(opened)
        })
    });
}

struct Altered(JournalHandle, Submit);

impl Journal for Altered {
    fn submit(&self, entries: Vec<JournalEntry>, progress: &Arc<Progress>) -> Result<Lsn, SubmitError> {
        self.1(&self.0, entries, progress)
    }

    fn wait_for_capacity(&self, partition: PartitionId, bytes: usize, deadline: Deadline) -> Waiting {
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

    fn until_busy(&self, deadline: Deadline) -> Waiting {
        self.0.until_busy(deadline)
    }

    fn until_unreleased(&self, bytes: u64, deadline: Deadline) -> Waiting {
        self.0.until_unreleased(bytes, deadline)
    }

    fn close(&self, deadline: Deadline) -> Waiting {
        self.0.close(deadline)
    }
}
