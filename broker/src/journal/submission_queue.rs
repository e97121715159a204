//! The line in front of the journal: who may join it, and what of it becomes the next group.
//!
//! Pure. Bounded by entries and by bytes; a partition may take as much as it leaves free, so one that
//! produces without pause gets half of the line, two get a third each, and there is always room for
//! one that has nothing in it yet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use io_backend::invariants;
use io_backend::progress::Progress;

use super::format::entry_bytes;
use super::{JournalEntry, SubmitError};
use crate::ids::{Lsn, PartitionId};

/// Entries that were queued together; their LSNs are consecutive.
#[derive(Debug)]
pub struct Submission {
    pub first_lsn: Lsn,
    pub entries: Vec<JournalEntry>,
    /// As encoded.
    pub bytes: usize,
    pub progress: Arc<Progress>,
}

impl Submission {
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + self.entries.len() as u64 - 1)
    }
}

/// How much: of a line, a share, a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub entries: usize,
    pub bytes: usize,
}

impl Amount {
    pub fn of(entries: &[JournalEntry]) -> Amount {
        let bytes = entries.iter().map(|entry| entry_bytes(entry.payload.len())).sum();
        Amount { entries: entries.len(), bytes }
    }

    fn plus(self, more: Amount) -> Amount {
        Amount { entries: self.entries + more.entries, bytes: self.bytes + more.bytes }
    }

    /// Nothing where there is less than that.
    fn minus(self, less: Amount) -> Amount {
        Amount {
            entries: self.entries.saturating_sub(less.entries),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }

    pub fn fits(self, bound: Amount) -> bool {
        self.entries <= bound.entries && self.bytes <= bound.bytes
    }
}

#[derive(Debug)]
pub struct SubmissionQueue {
    bound: Amount,
    waiting: VecDeque<Submission>,
    held: Amount,
    shares: BTreeMap<PartitionId, Amount>,
}

impl SubmissionQueue {
    pub fn new(bound: Amount) -> SubmissionQueue {
        SubmissionQueue { bound, waiting: VecDeque::new(), held: Amount::default(), shares: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn held(&self) -> Amount {
        self.held
    }

    /// Whether waiting for more is of no use: a group of `bound` would be full, or half of the line is taken, which is all
    /// that one partition gets.
    pub fn fills(&self, bound: Amount) -> bool {
        let enough = |held, group: usize, line: usize| held >= group.min(line / 2);
        enough(self.held.entries, bound.entries, self.bound.entries)
            || enough(self.held.bytes, bound.bytes, self.bound.bytes)
    }

    /// Whether these entries may join.
    pub fn admit(&self, entries: &[JournalEntry], amount: Amount) -> Result<(), SubmitError> {
        if !amount.fits(self.bound) {
            return Err(SubmitError::TooLarge(amount.bytes));
        }
        if !self.held.plus(amount).fits(self.bound) {
            return Err(SubmitError::Full);
        }
        for run in entries.chunk_by(|a, b| a.partition == b.partition) {
            let wanted = if run.len() == entries.len() { amount } else { Amount::of(run) };
            self.admit_one(run[0].partition, wanted)?;
        }
        Ok(())
    }

    /// As much of this as there is room for when nothing is queued: what is more has to come in parts.
    pub fn at_most(&self, wanted: Amount) -> Amount {
        Amount { entries: wanted.entries.min(self.bound.entries), bytes: wanted.bytes.min(self.bound.bytes) }
    }

    /// Whether so much of one partition may join.
    pub fn admit_one(&self, partition: PartitionId, wanted: Amount) -> Result<(), SubmitError> {
        let total = self.held.plus(wanted);
        if !total.fits(self.bound) {
            return Err(SubmitError::Full);
        }
        // What belongs to the node (checkpoints, Raft) is not many producers' and has no share.
        let Some(own) = self.shares.get(&partition).filter(|_| partition != PartitionId::NODE) else {
            return Ok(());
        };
        match own.plus(wanted).fits(self.bound.minus(total)) {
            true => Ok(()),
            false => Err(SubmitError::ShareExhausted),
        }
    }

    pub fn join(&mut self, submission: Submission) {
        assert!(!submission.entries.is_empty(), "who joins the line has entries");
        if let Some(last) = self.waiting.back() {
            assert!(last.last_lsn() < submission.first_lsn, "the line is in the order of LSNs");
        }
        let amount = Amount { entries: submission.entries.len(), bytes: submission.bytes };
        self.held = self.held.plus(amount);
        for run in submission.entries.chunk_by(|a, b| a.partition == b.partition) {
            let taken = if run.len() == amount.entries { amount } else { Amount::of(run) };
            let share = self.shares.entry(run[0].partition).or_default();
            *share = share.plus(taken);
        }
        self.waiting.push_back(submission);
        self.check_invariants();
    }

    /// The sums are looked through only while the line is short: a long one would be looked through for each that joins.
    fn check_invariants(&self) {
        const SHORT: usize = 64;
        if !invariants::are_checked() || self.waiting.len() > SHORT {
            return;
        }
        let mut held = Amount::default();
        let mut shares: BTreeMap<PartitionId, usize> = BTreeMap::new();
        for submission in &self.waiting {
            held = held.plus(Amount { entries: submission.entries.len(), bytes: submission.bytes });
            for entry in &submission.entries {
                *shares.entry(entry.partition).or_default() += 1;
            }
        }
        assert_eq!(self.held, held, "the line holds what waits in it");
        let entries = self.shares.iter().map(|(partition, share)| (*partition, share.entries));
        assert!(entries.eq(shares), "each partition's share is what it has in line");
    }

    /// Moves the next group into `group` (empty): from the front, at least one entry, within the bound
    /// from there on.
    pub fn take(&mut self, bound: Amount, group: &mut VecDeque<Submission>) {
        if self.held.fits(bound) {
            std::mem::swap(&mut self.waiting, group);
            self.held = Amount::default();
            self.shares.clear();
            self.check_invariants();
            return;
        }
        let mut taken = Amount::default();
        while let Some(mut first) = self.waiting.pop_front() {
            let amount = Amount { entries: first.entries.len(), bytes: first.bytes };
            if taken.plus(amount).fits(bound) {
                taken = taken.plus(amount);
                self.leave(&first);
                group.push_back(first);
                continue;
            }
            if let Some(part) = split(&mut first, bound.minus(taken), group.is_empty()) {
                self.leave(&part);
                group.push_back(part);
            }
            if !first.entries.is_empty() {
                self.waiting.push_front(first);
            }
            self.check_invariants();
            return;
        }
    }

    /// Everything, for nobody will write it.
    pub fn take_all(&mut self) -> VecDeque<Submission> {
        self.held = Amount::default();
        self.shares.clear();
        std::mem::take(&mut self.waiting)
    }

    fn leave(&mut self, submission: &Submission) {
        let amount = Amount { entries: submission.entries.len(), bytes: submission.bytes };
        assert!(amount.fits(self.held), "what leaves the line was in it");
        self.held = self.held.minus(amount);
        for run in submission.entries.chunk_by(|a, b| a.partition == b.partition) {
            let partition = run[0].partition;
            let share = self.shares.get(&partition).expect("who has entries in line has a share");
            let left = share.minus(Amount::of(run));
            if left.entries == 0 {
                self.shares.remove(&partition);
            } else {
                self.shares.insert(partition, left);
            }
        }
    }
}

/// Takes as many entries off the front as fit in `room`, at least one if `force`.
fn split(submission: &mut Submission, room: Amount, force: bool) -> Option<Submission> {
    let mut count = 0;
    let mut bytes = 0;
    for entry in &submission.entries {
        let more = entry_bytes(entry.payload.len());
        let fits = Amount { entries: count + 1, bytes: bytes + more }.fits(room);
        let forced = force && count == 0;
        if !fits && !forced {
            break;
        }
        count += 1;
        bytes += more;
    }
    if count == 0 {
        return None;
    }
    let rest = submission.entries.split_off(count);
    let first_lsn = submission.first_lsn;
    submission.first_lsn = Lsn(first_lsn.0 + count as u64);
    submission.bytes -= bytes;
    let entries = std::mem::replace(&mut submission.entries, rest);
    Some(Submission { first_lsn, entries, bytes, progress: submission.progress.clone() })
}
