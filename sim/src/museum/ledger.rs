//! What all exhibits have in common: giving out LSNs, knowing what is durable, and telling the broker.
//!
//! An exhibit differs in how and when it writes; that it counts correctly is not in question.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use broker::ids::Lsn;
use broker::journal::{JournalEntry, JournalStatus};
use io_backend::progress::Progress;
use io_backend::time::TimedOut;
use io_backend::{Deadline, Published};

use super::frame;
use crate::world::{SimBackend, lock};

/// Entries of one submission, ready to be written.
pub(super) struct Submission {
    pub(super) last: Lsn,
    pub(super) bytes: Vec<u8>,
    pub(super) progress: Arc<Progress>,
}

struct Counts {
    submitted: u64,
    /// Submissions that are not durable yet: first LSN and bytes by last LSN.
    open: BTreeMap<u64, (u64, usize)>,
    written_bytes: u64,
    released_bytes: u64,
    closed: bool,
}

pub(super) struct Ledger {
    backend: SimBackend,
    counts: Mutex<Counts>,
    unreleased: Published<u64>,
    durable: Published<u64>,
}

impl Ledger {
    /// Goes on after the last LSN that recovery found.
    pub(super) fn after(backend: &SimBackend, last: Lsn) -> Ledger {
        Ledger {
            backend: backend.clone(),
            counts: Mutex::new(Counts {
                submitted: last.0,
                open: BTreeMap::new(),
                written_bytes: 0,
                released_bytes: 0,
                closed: false,
            }),
            unreleased: Published::new("unreleased bytes", 0),
            durable: Published::new("durable", last.0),
        }
    }

    pub(super) fn submit(&self, entries: &[JournalEntry], progress: &Arc<Progress>) -> Submission {
        let mut counts = lock(&self.counts);
        let mut bytes = Vec::new();
        let first = counts.submitted + 1;
        for entry in entries {
            counts.submitted += 1;
            bytes.extend(frame::encode(Lsn(counts.submitted), entry));
        }
        let last = counts.submitted;
        counts.open.insert(last, (first, bytes.len()));
        Submission { last: Lsn(last), bytes, progress: progress.clone() }
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.counts).closed
    }

    /// A submission is durable: tells whoever waits for it.
    pub(super) fn done(&self, submission: &Submission) {
        let (durable, unreleased) = {
            let mut counts = lock(&self.counts);
            let bytes = counts.open.remove(&submission.last.0).map_or(0, |(_, bytes)| bytes);
            counts.written_bytes += bytes as u64;
            let durable = counts.open.values().map(|(first, _)| first - 1).min().unwrap_or(counts.submitted);
            (durable, counts.written_bytes - counts.released_bytes)
        };
        submission.progress.reach(submission.last.0);
        self.durable.publish(durable.max(*self.durable.get()));
        self.unreleased.publish(unreleased);
    }

    /// Files are never used again here; only the count that starts checkpoints is.
    pub(super) fn release(&self) {
        let mut counts = lock(&self.counts);
        counts.released_bytes = counts.written_bytes;
        drop(counts);
        self.unreleased.publish(0);
    }

    pub(super) fn status(&self) -> JournalStatus {
        let counts = lock(&self.counts);
        JournalStatus {
            durable: Lsn(*self.durable.get()),
            submitted: Lsn(counts.submitted),
            queued_entries: counts.open.len(),
            queued_bytes: counts.open.values().map(|(_, bytes)| bytes).sum(),
            unreleased_bytes: counts.written_bytes - counts.released_bytes,
            ..JournalStatus::default()
        }
    }

    pub(super) async fn until_unreleased(
        self: Arc<Self>,
        bytes: u64,
        deadline: Deadline,
    ) -> Result<(), TimedOut> {
        self.unreleased.until(&self.backend, deadline, |unreleased| *unreleased > bytes).await.map(|_| ())
    }

    pub(super) async fn close(self: Arc<Self>, deadline: Deadline) -> Result<(), TimedOut> {
        let submitted = {
            let mut counts = lock(&self.counts);
            counts.closed = true;
            if counts.open.is_empty() {
                return Ok(());
            }
            counts.submitted
        };
        self.durable.until(&self.backend, deadline, |durable| *durable >= submitted).await.map(|_| ())
    }
}
