//! Where the next group goes, and what the outcome of a write means: pure decisions of the commit loop.
//!
//! Invariants: one group is in flight at a time; a file whose write or sync failed is never written again;
//! group numbers rise by one with each durable group; LSNs are the queue's and pass through unchanged.

use io_backend::invariants;

use super::format::{GroupPlace, HEADER_BYTES, PAGE_BYTES, padded};
use crate::ids::Lsn;
use crate::limits;

/// A file ready to take groups: prefilled, its header durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Number in the file's name.
    pub slot: u32,
    pub sequence: u64,
    pub generation: u64,
    pub file_bytes: u64,
}

impl Prepared {
    pub fn sealed(self, last_lsn: Lsn, trusted: bool) -> Sealed {
        Sealed { slot: self.slot, sequence: self.sequence, file_bytes: self.file_bytes, last_lsn, trusted }
    }
}

/// A file that takes no more groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub slot: u32,
    pub sequence: u64,
    pub file_bytes: u64,
    /// No entry in it is newer.
    pub last_lsn: Lsn,
    /// False after a failed write or sync: it is not used again, only removed.
    pub trusted: bool,
}

/// What follows a failed write or sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The next group goes to a new file.
    MoveOn,
    /// The journal takes nothing more.
    Stop,
}

/// Where the file at hand stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    pub file: Prepared,
    /// The next group begins here.
    pub position: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Write it here.
    Here(GroupPlace),
    /// A new file is needed first.
    NextFile,
}

/// What a group holds, and so how much of a file it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Records,
    /// Nothing that a client sent: epochs, checkpoint records, metadata. It may take most of what is kept back of a
    /// file for the time when the disk is full and there is no next one.
    NoRecords,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    Durable,
    /// For want of space: no reason to distrust the disk, but the file is given up all the same, since
    /// whether it was the write or the sync that found no space is not told apart.
    Full,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteVerdict {
    /// The group is durable.
    Durable,
    /// The group and what waits behind it failed; the file is sealed and the next group needs a new one.
    MovedOn(Sealed),
    /// The journal failed.
    Stopped,
}

/// Of a file of so many bytes, what records may not take.
pub fn kept_back(file_bytes: u64) -> u64 {
    let page = PAGE_BYTES as u64;
    (file_bytes / 32).next_multiple_of(page).max(4 * page)
}

#[derive(Clone, Debug)]
pub struct CommitState {
    failure_policy: FailurePolicy,
    active: Option<Active>,
    next_number: u64,
    /// The last LSN in a durable group, and the file of that group.
    durable: Lsn,
    durable_file: u64,
    /// Nothing written later says yet that the last group was durable.
    unproven: bool,
    in_flight: Option<GroupInFlight>,
    failures: u32,
}

#[derive(Clone, Copy, Debug)]
struct GroupInFlight {
    bytes: u64,
    last_lsn: Lsn,
}

/// What recovery found, for the machine to go on from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResumePoint {
    pub active: Option<Active>,
    pub next_number: u64,
    pub durable: Lsn,
    pub durable_file: u64,
}

impl ResumePoint {
    /// Where a group goes that begins at `active`, and what it says of those before it.
    pub fn place(&self, active: &Active) -> GroupPlace {
        GroupPlace {
            number: self.next_number.max(1),
            durable_up_to: self.durable,
            position: active.position,
            previous_file: self.durable_file,
        }
    }
}

impl CommitState {
    pub fn new(failure_policy: FailurePolicy, start: ResumePoint) -> CommitState {
        let machine = CommitState {
            failure_policy,
            active: start.active,
            next_number: start.next_number.max(1),
            durable: start.durable,
            durable_file: start.durable_file,
            unproven: false,
            in_flight: None,
            failures: 0,
        };
        machine.check_invariants();
        machine
    }

    fn check_invariants(&self) {
        if !invariants::are_checked() {
            return;
        }
        assert!(self.next_number > 0, "group numbers begin with 1");
        assert!(!self.unproven || self.durable > Lsn(0), "an unproven group has entries");
        let Some(Active { file, position }) = self.active else {
            assert!(self.in_flight.is_none(), "a group is written to a file");
            return;
        };
        assert!(position >= HEADER_BYTES as u64, "groups stand below the header");
        assert!(file.sequence >= self.durable_file, "groups go to no file before that of the last one");
        let end = position + self.in_flight.map_or(0, |group| group.bytes);
        assert!(end <= file.file_bytes, "a group at {position} up to {end} leaves its file");
        assert!(self.in_flight.is_none_or(|group| group.last_lsn >= self.durable), "LSNs rise");
    }

    pub fn active(&self) -> Option<Active> {
        self.active
    }

    pub fn durable(&self) -> Lsn {
        self.durable
    }

    pub fn has_unproven_group(&self) -> bool {
        self.unproven
    }

    /// What a file has left for groups, that which is kept back included.
    pub fn room(&self) -> u64 {
        self.active.map_or(0, |active| active.file.file_bytes - active.position)
    }

    /// A group of `bytes` (unpadded, header included) wants to be written.
    pub fn handle_group(&self, bytes: usize, holds: Holds) -> Placement {
        let Some(active) = self.active else { return Placement::NextFile };
        let end = active.position + padded(bytes) as u64;
        let all = kept_back(active.file.file_bytes);
        let kept_back = match holds {
            // A file that is empty takes whatever fits it.
            _ if active.position == HEADER_BYTES as u64 => 0,
            Holds::Records => all,
            // The rest is for the groups with which processes start.
            Holds::NoRecords => all / 4,
        };
        if end + kept_back > active.file.file_bytes {
            return Placement::NextFile;
        }
        Placement::Here(GroupPlace {
            number: self.next_number,
            durable_up_to: self.durable,
            position: active.position,
            previous_file: self.durable_file,
        })
    }

    /// The file at hand, as it is when a new one takes its place.
    pub fn full(&self) -> Option<Sealed> {
        self.active.map(|active| active.file.sealed(self.durable, true))
    }

    /// The new file that was asked for.
    pub fn handle_file(&mut self, file: Prepared) {
        assert!(self.in_flight.is_none(), "a file is left only between groups");
        self.active = Some(Active { file, position: HEADER_BYTES as u64 });
        self.check_invariants();
    }

    /// The group is handed to the disk: `bytes` padded, ending with `last_lsn`.
    pub fn handle_started(&mut self, bytes: usize, last_lsn: Lsn) {
        assert!(self.in_flight.is_none(), "one group is in flight at a time");
        assert!(self.active.is_some(), "a group is written to a file");
        assert!(last_lsn >= self.durable, "LSNs rise");
        self.in_flight = Some(GroupInFlight { bytes: bytes as u64, last_lsn });
        self.check_invariants();
    }

    /// The disk has answered.
    pub fn handle_written(&mut self, outcome: WriteOutcome) -> WriteVerdict {
        let flown = self.in_flight.take().expect("an answer follows a start");
        let mut active = self.active.take().expect("a group is written to a file");
        if outcome == WriteOutcome::Durable {
            active.position += flown.bytes;
            self.active = Some(active);
            self.next_number += 1;
            self.unproven = flown.last_lsn > self.durable;
            self.durable = flown.last_lsn;
            self.durable_file = active.file.sequence;
            self.failures = 0;
            self.check_invariants();
            return WriteVerdict::Durable;
        }
        if outcome == WriteOutcome::Failed {
            self.failures += 1;
            if self.failure_policy == FailurePolicy::Stop || self.failures >= limits::JOURNAL_FAILURES_MAX {
                return WriteVerdict::Stopped;
            }
        }
        // The failed group's last LSN counts: its bytes may be there.
        WriteVerdict::MovedOn(active.file.sealed(flown.last_lsn, false))
    }
}
