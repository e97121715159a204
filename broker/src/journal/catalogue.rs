//! Which file is what: sealed, spare, released, and what is to be done about it next.
//!
//! Pure. Invariants: sequences in use are consecutive; a file is used again or removed only when all its
//! entries are released, and removed only when a durable header says that it is not needed; a
//! file that failed once is never written again; the file being written is in nobody's list.

use std::collections::{BTreeSet, VecDeque};

use io_backend::invariants;

use super::commit_state::{Prepared, Sealed};
use crate::ids::Lsn;
use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileWork {
    /// Give a released file a new life.
    Recycle {
        from: Sealed,
        plan: Plan,
    },
    Create(Plan),
    Remove(Sealed),
}

/// What the header of a file to be prepared will say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub slot: u32,
    pub sequence: u64,
    pub oldest_sequence: u64,
    pub file_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct Catalogue {
    file_bytes: u64,
    /// In order of sequence.
    sealed: VecDeque<Sealed>,
    spares: VecDeque<Prepared>,
    next_sequence: u64,
    next_slot: u32,
    /// Of the file being written, or the next one to be.
    current_sequence: u64,
    released_before: Lsn,
    /// Files before this one are not needed, says a durable header.
    said_oldest: u64,
}

/// What recovery found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub sealed: VecDeque<Sealed>,
    pub spares: VecDeque<Prepared>,
    /// Sequence of the file to go on with, if there is one.
    pub active: Option<u64>,
    pub last_sequence: u64,
    pub last_slot: u32,
    pub said_oldest: u64,
}

impl Catalogue {
    pub fn new(file_bytes: u64, found: Found) -> Catalogue {
        let next_sequence = found.last_sequence + 1;
        let waiting = found.spares.front().map_or(next_sequence, |spare| spare.sequence);
        let catalogue = Catalogue {
            file_bytes,
            sealed: found.sealed,
            spares: found.spares,
            next_sequence,
            next_slot: found.last_slot + 1,
            current_sequence: found.active.unwrap_or(waiting),
            // LSNs begin with 1: a file that holds none is released.
            released_before: Lsn(1),
            said_oldest: found.said_oldest,
        };
        catalogue.check_invariants();
        catalogue
    }

    fn check_invariants(&self) {
        if !invariants::are_checked() {
            return;
        }
        let sealed = self.sealed.iter().map(|file| (file.sequence, file.slot));
        let spares = self.spares.iter().map(|file| (file.sequence, file.slot));
        let files: Vec<(u64, u32)> = sealed.chain(spares).collect();
        assert!(
            files.is_sorted_by(|one, two| one.0 < two.0),
            "files are in order of sequence, spares last: {files:?}"
        );
        assert!(files.last().is_none_or(|last| last.0 < self.next_sequence), "no sequence is given twice");
        let slots: BTreeSet<u32> = files.iter().map(|(_, slot)| *slot).collect();
        assert_eq!(slots.len(), files.len(), "each file has a slot of its own: {files:?}");
        assert!(slots.last().is_none_or(|last| *last < self.next_slot), "a new slot is free");
    }

    pub fn has_spare(&self) -> bool {
        !self.spares.is_empty()
    }

    pub fn take_spare(&mut self) -> Option<Prepared> {
        let spare = self.spares.pop_front()?;
        self.current_sequence = spare.sequence;
        self.check_invariants();
        Some(spare)
    }

    pub fn handle_sealed(&mut self, file: Sealed) {
        self.sealed.push_back(file);
        self.current_sequence = file.sequence + 1;
        self.check_invariants();
    }

    pub fn handle_released(&mut self, before: Lsn) {
        self.released_before = self.released_before.max(before);
    }

    /// What to do now; one thing at a time.
    pub fn next_work(&mut self) -> Option<FileWork> {
        if self.spares.is_empty() {
            return Some(self.prepare());
        }
        self.surplus().map(FileWork::Remove)
    }

    fn prepare(&mut self) -> FileWork {
        let reusable = |file: &Sealed| file.trusted && file.file_bytes == self.file_bytes;
        let released = self.released();
        let found = self.sealed.iter().take(released).position(reusable);
        let from = found.and_then(|at| self.sealed.remove(at));
        let slot = match from {
            Some(file) => file.slot,
            None => {
                self.next_slot += 1;
                self.next_slot - 1
            }
        };
        let plan = Plan {
            slot,
            sequence: self.next_sequence,
            oldest_sequence: self.oldest_needed(),
            file_bytes: self.file_bytes,
        };
        match from {
            Some(from) => FileWork::Recycle { from, plan },
            None => FileWork::Create(plan),
        }
    }

    pub fn handle_prepared(&mut self, file: Prepared, plan: &Plan) {
        self.next_sequence = file.sequence + 1;
        self.said_oldest = self.said_oldest.max(plan.oldest_sequence);
        self.spares.push_back(file);
        self.check_invariants();
    }

    /// A file whose new life did not begin: what its header says now is not known. It waits for removal.
    pub fn handle_recycling_failed(&mut self, from: Sealed) {
        let at = self.sealed.iter().position(|file| file.sequence > from.sequence);
        self.sealed.insert(at.unwrap_or(self.sealed.len()), Sealed { trusted: false, ..from });
        self.check_invariants();
    }

    pub fn handle_removed(&mut self, file: Sealed) {
        self.sealed.retain(|other| other.sequence != file.sequence);
        self.check_invariants();
    }

    /// How many sealed files, the oldest, hold nothing that is needed.
    fn released(&self) -> usize {
        self.sealed.iter().take_while(|file| file.last_lsn < self.released_before).count()
    }

    fn oldest_needed(&self) -> u64 {
        self.sealed.get(self.released()).map_or(self.current_sequence, |file| file.sequence)
    }

    fn surplus(&self) -> Option<Sealed> {
        let released = self.released();
        let usable = |file: &&Sealed| file.trusted && file.file_bytes == self.file_bytes;
        let extra = self
            .sealed
            .iter()
            .take(released)
            .filter(usable)
            .count()
            .saturating_sub(limits::JOURNAL_RELEASED_FILES_MAX);
        let mut removable = self.sealed.iter().take(released).filter(|f| f.sequence < self.said_oldest);
        removable.find(|file| !usable(file) || extra > 0).copied()
    }
}
