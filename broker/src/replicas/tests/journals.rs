//! A journal that does some things otherwise than the one under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use io_backend::Deadline;
use io_backend::progress::Progress;

use crate::ids::{Lsn, PartitionId};
use crate::journal::{EntryKind, Journal, JournalEntry, JournalHandle, JournalStatus, SubmitError, Waiting};

type Before = Box<dyn Fn(&JournalHandle, &[JournalEntry]) + Send + Sync>;

/// What it does otherwise.
#[derive(Default)]
pub(super) struct Alterations {
    /// It never has room for this one's beginning of an epoch.
    pub(super) no_room_for: Option<PartitionId>,
    /// What comes into the journal before these entries.
    pub(super) before: Option<Before>,
    /// It says that its disk is full.
    pub(super) full: Arc<AtomicBool>,
    /// How far it was let go of.
    pub(super) released_before: Arc<AtomicU64>,
}

impl Alterations {
    pub(super) fn no_room_for(partition: PartitionId) -> Alterations {
        Alterations { no_room_for: Some(partition), ..Alterations::default() }
    }
}

pub(super) struct Altered {
    under: JournalHandle,
    by: Alterations,
}

impl Altered {
    pub(super) fn over(under: JournalHandle, by: Alterations) -> JournalHandle {
        Arc::new(Altered { under, by })
    }
}

impl Journal for Altered {
    fn submit(&self, entries: Vec<JournalEntry>, progress: &Arc<Progress>) -> Result<Lsn, SubmitError> {
        let begins = |entry: &JournalEntry| {
            entry.kind == EntryKind::EpochStart && self.by.no_room_for == Some(entry.partition)
        };
        if entries.iter().any(begins) {
            return Err(SubmitError::Full);
        }
        if let Some(before) = &self.by.before {
            before(&self.under, &entries);
        }
        self.under.submit(entries, progress)
    }

    fn wait_for_capacity(&self, partition: PartitionId, bytes: usize, deadline: Deadline) -> Waiting {
        if self.by.no_room_for == Some(partition) {
            return Box::pin(std::future::pending());
        }
        self.under.wait_for_capacity(partition, bytes, deadline)
    }

    fn release_before(&self, lsn: Lsn) {
        self.by.released_before.fetch_max(lsn.0, Ordering::SeqCst);
        self.under.release_before(lsn);
    }

    fn status(&self) -> JournalStatus {
        let status = self.under.status();
        JournalStatus { disk_full: status.disk_full || self.by.full.load(Ordering::SeqCst), ..status }
    }

    fn set_refusing(&self, why: Option<SubmitError>) {
        self.under.set_refusing(why);
    }

    fn until_busy(&self, deadline: Deadline) -> Waiting {
        self.under.until_busy(deadline)
    }

    fn until_unreleased(&self, bytes: u64, deadline: Deadline) -> Waiting {
        self.under.until_unreleased(bytes, deadline)
    }

    fn close(&self, deadline: Deadline) -> Waiting {
        self.under.close(deadline)
    }
}
