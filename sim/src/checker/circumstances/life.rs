//! The life of one process of a node, as its program and the world saw it.

use crate::history::At;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    pub node: String,
    pub incarnation: u64,
    pub began: At,
    /// Since when clients can connect.
    pub serving: Option<At>,
    /// A journal that it opened ended in a group that had not been written to its end.
    pub torn_tail: bool,
    /// Batches that it took from the journal because no checkpoint covered them.
    pub replayed: usize,
    /// Entries of Raft's log that it read behind the last snapshot.
    pub raft_replayed: usize,
    /// When it was asked, politely, to stop.
    pub asked_to_stop: Option<At>,
    /// When its stop had come to an end.
    pub stopped: Option<At>,
    /// What was in flight when it had stopped, or, while it had not, when somebody last looked.
    pub in_flight: Vec<String>,
    /// What failed on the files of its journals.
    pub journal_failures: JournalFailures,
    /// Absent while it lives.
    pub end: Option<(At, End)>,
}

/// Counts of operations that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalFailures {
    /// Openings, writes and syncs of the metadata's journal.
    pub raft: u32,
    /// Writes and syncs of the records' journal, the most in a row: with no group written in between.
    pub contents: u32,
    /// Openings of its files.
    pub opens: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Killed,
    PowerLost,
    /// By itself, with this status, and why.
    Exited(i32, String),
}

impl Life {
    pub fn ended_at(&self) -> At {
        self.end.as_ref().map_or(At::MAX, |(at, _)| *at)
    }
}
