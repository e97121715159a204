//! A journal in memory whose disk the test works by hand: syncs happen when the test says so.

use std::sync::{Arc, Mutex};

use io_backend::Deadline;
use io_backend::progress::Progress;

use crate::ids::{Lsn, PartitionId};
use crate::journal::{Journal, JournalEntry, JournalStatus, RecoveredEntry, SubmitError, Waiting};

#[derive(Default)]
pub(crate) struct MemoryJournal {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: Vec<RecoveredEntry>,
    /// LSN of the last entry of each submission.
    submissions: Vec<(Lsn, Arc<Progress>)>,
    submitted: u64,
    durable: u64,
    released: u64,
    by_hand: bool,
    refuses: Option<SubmitError>,
    disk_full: bool,
    /// Entries that are taken at once; zero for any number.
    submission_max: usize,
    /// Entries of a file: what is released goes by files. Zero is taken for one.
    file_entries: u64,
    largest: usize,
}

impl MemoryJournal {
    /// Durable at once.
    pub(crate) fn new() -> Arc<MemoryJournal> {
        Arc::default()
    }

    /// Holding these, durably.
    pub(crate) fn of(entries: Vec<RecoveredEntry>) -> Arc<MemoryJournal> {
        let last = entries.last().map_or(0, |entry| entry.lsn.0);
        let state = State { entries, submitted: last, durable: last, ..State::default() };
        Arc::new(MemoryJournal { state: Mutex::new(state) })
    }

    pub(crate) fn by_hand(&self) {
        self.state.lock().unwrap().by_hand = true;
    }

    pub(crate) fn refuse(&self, refuses: Option<SubmitError>) {
        self.state.lock().unwrap().refuses = refuses;
    }

    /// Says so, and takes entries all the same.
    pub(crate) fn fill(&self, disk_full: bool) {
        self.state.lock().unwrap().disk_full = disk_full;
    }

    /// Takes no more entries than this at once, and lets go of so many together.
    pub(crate) fn bound(&self, submission_max: usize, file_entries: u64) {
        let mut state = self.state.lock().unwrap();
        (state.submission_max, state.file_entries) = (submission_max, file_entries);
    }

    /// Entries of the largest submission.
    pub(crate) fn largest_submission(&self) -> usize {
        self.state.lock().unwrap().largest
    }

    /// Everything submitted is durable now.
    pub(crate) fn sync(&self) {
        let submitted = self.state.lock().unwrap().submitted;
        self.sync_entries(submitted);
    }

    /// So many more entries are durable now, wherever a submission ends.
    pub(crate) fn sync_entries(&self, entries: u64) {
        let mut state = self.state.lock().unwrap();
        state.durable = state.submitted.min(state.durable.saturating_add(entries));
        let durable = state.durable;
        for (lsn, progress) in &state.submissions {
            progress.reach(lsn.0.min(durable));
        }
        state.submissions.retain(|(lsn, _)| lsn.0 > durable);
    }

    /// Entries that are submitted and not durable.
    pub(crate) fn entries_in_flight(&self) -> u64 {
        let state = self.state.lock().unwrap();
        state.submitted - state.durable
    }

    pub(crate) fn fail(&self) {
        let mut state = self.state.lock().unwrap();
        let from = state.durable + 1;
        state.submissions.drain(..).for_each(|(_, progress)| progress.fail_from(from));
    }

    /// Submissions that are not durable.
    pub(crate) fn pending(&self) -> usize {
        self.state.lock().unwrap().submissions.len()
    }

    pub(crate) fn entries(&self) -> Vec<RecoveredEntry> {
        self.state.lock().unwrap().entries.clone()
    }

    /// What a start after a crash finds: durable and not released.
    pub(crate) fn survivors(&self) -> Vec<RecoveredEntry> {
        let state = self.state.lock().unwrap();
        let released = state.released - state.released % state.file_entries.max(1);
        let kept = |entry: &&RecoveredEntry| entry.lsn.0 <= state.durable && entry.lsn.0 >= released;
        state.entries.iter().filter(kept).cloned().collect()
    }

    pub(crate) fn released(&self) -> Lsn {
        Lsn(self.state.lock().unwrap().released)
    }

    /// A journal that goes on where `self` ended, with what survived.
    pub(crate) fn reopened(&self) -> Arc<MemoryJournal> {
        let entries = self.survivors();
        let last = self.state.lock().unwrap().submitted;
        let state = State { entries, submitted: last, durable: last, ..State::default() };
        Arc::new(MemoryJournal { state: Mutex::new(state) })
    }
}

impl Journal for MemoryJournal {
    fn submit(&self, entries: Vec<JournalEntry>, progress: &Arc<Progress>) -> Result<Lsn, SubmitError> {
        let mut state = self.state.lock().unwrap();
        if let Some(refusal) = state.refuses {
            return Err(refusal);
        }
        if state.submission_max > 0 && entries.len() > state.submission_max {
            return Err(SubmitError::TooLarge(entries.len()));
        }
        state.largest = state.largest.max(entries.len());
        for entry in entries {
            state.submitted += 1;
            let lsn = Lsn(state.submitted);
            state.entries.push(RecoveredEntry { lsn, entry });
        }
        let last = Lsn(state.submitted);
        if state.by_hand {
            state.submissions.push((last, progress.clone()));
        } else {
            state.durable = last.0;
            progress.reach(last.0);
        }
        Ok(last)
    }

    fn wait_for_capacity(&self, _: PartitionId, _: usize, _: Deadline) -> Waiting {
        Box::pin(async { Ok(()) })
    }

    fn release_before(&self, lsn: Lsn) {
        let mut state = self.state.lock().unwrap();
        state.released = state.released.max(lsn.0);
    }

    fn status(&self) -> JournalStatus {
        let state = self.state.lock().unwrap();
        JournalStatus {
            durable: Lsn(state.durable),
            submitted: Lsn(state.submitted),
            queued_entries: state.submissions.len(),
            disk_full: state.disk_full,
            ..JournalStatus::default()
        }
    }

    fn set_refusing(&self, _: Option<SubmitError>) {}

    fn until_unreleased(&self, _: u64, _: Deadline) -> Waiting {
        Box::pin(std::future::pending())
    }

    fn until_busy(&self, _: Deadline) -> Waiting {
        Box::pin(std::future::pending())
    }

    fn close(&self, _: Deadline) -> Waiting {
        Box::pin(async { Ok(()) })
    }
}
