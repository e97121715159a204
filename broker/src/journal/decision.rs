//! What recovery makes of what it finds: two tables of labelled cases, decided without touching a file.
//!
//! The first judges a file by its header block, the second the place in a file where the sound groups end.
//! What makes damage a torn tail is that nothing durable can have been there: one group is in flight at a time,
//! so a later group, in this file or in a later one, proves by its "durable up to" what came before it.
//! In doubt the node stops: cutting is for tails, never for the middle. Each row has its cause in words, which is what
//! people are told.

use super::format::HeaderBlock;

/// What a file's first blocks look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFacts {
    pub header: Header,
    /// The file has all the bytes that its header promises.
    pub whole: bool,
    /// Something stands where the first group would be.
    pub body: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Good,
    /// Sound, but of another journal.
    Other,
    Zero,
    Foreign,
    Newer,
    Damaged,
}

impl From<&HeaderBlock> for Header {
    fn from(block: &HeaderBlock) -> Header {
        match block {
            HeaderBlock::Good(_) => Header::Good,
            HeaderBlock::Zero => Header::Zero,
            HeaderBlock::Foreign => Header::Foreign,
            HeaderBlock::Newer(_) => Header::Newer,
            HeaderBlock::Damaged => Header::Damaged,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileVerdict {
    /// Part of the journal, if its sequence is needed.
    Use,
    /// Its preparation never ended: it held nothing.
    Unprepared,
    /// Its header promises more than is there.
    Shortened,
    /// The header is gone, and groups may be below it.
    HeaderLost,
    HeaderDamaged,
    Foreign,
    OtherJournal,
    Newer,
}

impl FileVerdict {
    /// What was found, in words; whose file it is follows.
    pub fn cause(self) -> &'static str {
        match self {
            FileVerdict::Use => "its header is sound, and all that it promises is there",
            FileVerdict::Unprepared => {
                "it is blank from its initial: its preparation never ended, so it held nothing"
            }
            FileVerdict::Shortened => "the file is shorter than its header says",
            FileVerdict::HeaderLost => "the file's header is gone, and something is below it",
            FileVerdict::HeaderDamaged => "the file's header is damaged",
            FileVerdict::Foreign => "it does not begin like one; move it elsewhere",
            FileVerdict::OtherJournal => {
                "it belongs to another journal of the node; move it back to that directory"
            }
            FileVerdict::Newer => "its header is of a format that this version does not know",
        }
    }
}

pub fn classify_file(facts: HeaderFacts) -> FileVerdict {
    match facts {
        HeaderFacts { header: Header::Good, whole: true, .. } => FileVerdict::Use,
        HeaderFacts { header: Header::Good, whole: false, .. } => FileVerdict::Shortened,
        HeaderFacts { header: Header::Other, .. } => FileVerdict::OtherJournal,
        HeaderFacts { header: Header::Zero, body: false, .. } => FileVerdict::Unprepared,
        HeaderFacts { header: Header::Zero, body: true, .. } => FileVerdict::HeaderLost,
        HeaderFacts { header: Header::Foreign, .. } => FileVerdict::Foreign,
        HeaderFacts { header: Header::Newer, .. } => FileVerdict::Newer,
        HeaderFacts { header: Header::Damaged, .. } => FileVerdict::HeaderDamaged,
    }
}

/// Where the sound groups of a file end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TailState {
    /// No room for another group.
    FileEnd,
    /// No group of this life, and as far as can be told nothing of one.
    Blank,
    /// No group, but bytes in a file that was zeros: a group whose header is missing.
    Debris,
    /// A group's header, whose entries are damaged.
    TornGroup,
    /// A sound group that does not follow the one before it.
    OutOfOrder,
    /// An entry of a kind that this version does not know.
    UnknownKind,
}

/// What comes after that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LaterEvidence {
    Nothing,
    /// A group further on in the same file.
    SameFile,
    /// A group in a later file, written when more was durable than is found up to here.
    ProvesMore,
    /// A group in a later file, written when exactly what is found up to here was durable.
    ProvesThis,
    /// A group in a later file, written when less was durable than is found up to here: what exceeds it
    /// failed, was reported as failed, and is not taken back.
    ProvesLess,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailVerdict {
    /// The journal ends here.
    End,
    /// The journal ends here; what follows is a group that was being written, and is wiped.
    CutTornTail,
    /// Go on in the next file.
    NextFile,
    /// Drop the groups that failed, then go on in the next file.
    DropFailedGroups,
    Corrupt(Corruption),
}

/// Why the node must not start on this journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    DamagedGroup,
    MissingGroup,
    GroupOutOfOrder,
    UnknownEntryKind,
}

/// A row of the second table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub verdict: TailVerdict,
    /// Why that follows from what was found.
    pub cause: &'static str,
}

pub fn classify_tail(spot: TailState, later: LaterEvidence) -> End {
    use TailVerdict::*;
    let (verdict, cause) = match (spot, later) {
        (TailState::UnknownKind, _) => (
            Corrupt(Corruption::UnknownEntryKind),
            "an entry is sound, but of a kind that this version does not know",
        ),
        (TailState::OutOfOrder, _) => (
            Corrupt(Corruption::GroupOutOfOrder),
            "a group of entries is sound and does not follow the one before it",
        ),
        (TailState::FileEnd, LaterEvidence::Nothing) => {
            (End, "the file is full, and nothing was written after it")
        }
        (TailState::Blank, LaterEvidence::Nothing) => {
            (End, "the file is blank from here on, and nothing was written after it")
        }
        (TailState::Debris, LaterEvidence::Nothing) => (
            CutTornTail,
            "bytes without a group's header stand at the very end: the group was being written, so it was never \
             acknowledged",
        ),
        (TailState::TornGroup, LaterEvidence::Nothing) => (
            CutTornTail,
            "the very last group is damaged: it was being written, so it was never acknowledged",
        ),
        (TailState::TornGroup, LaterEvidence::SameFile) => (
            Corrupt(Corruption::DamagedGroup),
            "a group of entries is damaged, and a later one in the same file proves that it was synced",
        ),
        (TailState::TornGroup, LaterEvidence::ProvesMore) => (
            Corrupt(Corruption::DamagedGroup),
            "a group of entries is damaged, and one in a later file proves that it was synced",
        ),
        (_, LaterEvidence::SameFile) => (
            Corrupt(Corruption::MissingGroup),
            "a group of entries is missing, and a later one in the same file proves that it was synced",
        ),
        (_, LaterEvidence::ProvesMore) => (
            Corrupt(Corruption::MissingGroup),
            "a group of entries is missing, and one in a later file proves that it was synced",
        ),
        (TailState::FileEnd | TailState::Blank, LaterEvidence::ProvesThis) => {
            (NextFile, "the journal goes on in a later file exactly where this one ends")
        }
        // A file is given up when a write to it fails: whatever the last one left is not needed.
        (_, LaterEvidence::ProvesThis) => (
            NextFile,
            "the journal goes on in a later file exactly there: what this one has behind it had failed",
        ),
        (_, LaterEvidence::ProvesLess) => (
            DropFailedGroups,
            "a later file was begun when less was durable: what exceeds that had failed, and was said to have",
        ),
    };
    self::End { verdict, cause }
}
