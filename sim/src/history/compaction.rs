//! What was written to compacted topics under which key, and what whoever read them whole found there.

use std::collections::{BTreeMap, BTreeSet};

use super::lookup::Lookup;
use super::place::Place;
use super::progress_monitor::At;
use super::value::Value;

/// A record of a compacted topic: the value says who sent it and which of its own it was, so later ones of a key have
/// higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyedRecord {
    pub key: u32,
    pub value: Value,
    /// It has no value: its key is to be forgotten.
    pub tombstone: bool,
}

/// When a partition was read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReadWhen {
    /// While others wrote, and things broke.
    Meanwhile,
    /// Nothing was broken any more, nobody wrote, and there had been time to compact.
    Settled,
    /// After all nodes were ended and started again.
    Last,
}

/// A partition from its first offset to its high watermark.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeRead {
    pub reader: u32,
    pub round: u32,
    pub when: ReadWhen,
    pub place: Place,
    /// The first fetch was sent then, and the last one answered.
    pub began: At,
    pub ended: At,
    /// Behind the last offset: the high watermark was no higher when the last fetch was answered.
    pub end: i64,
    /// The nodes that served it.
    pub nodes: BTreeSet<u32>,
    /// In the order in which they came.
    pub records: Vec<(i64, KeyedRecord)>,
}

/// All of that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compaction {
    /// Of all batches that were sent to compacted topics: their records, by whose they are.
    pub writes: BTreeMap<Value, KeyedRecord>,
    pub reads: Vec<WholeRead>,
    /// Records without a key that were acknowledged.
    pub keyless_acked: Vec<(Place, At)>,
    /// Look-ups by time.
    pub lookups: Vec<Lookup>,
    /// How long a tombstone stays at least, and how many records may be left of a topic when all is quiet, as far as the
    /// scenario says.
    pub delete_retention: At,
    /// How old a record has to be to go whatever its key is; none goes for its age where this is not said.
    pub retention: Option<At>,
    pub left_max: Option<u64>,
}

impl Compaction {
    /// Whether records may be deleted, for their age or on request: `cleanup.policy` is `compact,delete`.
    pub fn deletes(&self) -> bool {
        self.retention.is_some()
    }
}
