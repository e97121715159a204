//! What members of consumer groups did, and were told.

use std::sync::Arc;

use super::place::Place;
use super::progress_monitor::At;

/// A member of a classic group was told what it is to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Assigned {
    pub group: Arc<str>,
    pub generation: i32,
    /// Its id.
    pub member: Arc<str>,
    pub places: Vec<Place>,
    pub at: At,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    Acked(At),
    /// It surely did not take effect, and will not.
    Refused,
    Unknown,
}

/// A member said how far the group is in a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupCommit {
    pub group: Arc<str>,
    pub generation: i32,
    pub member: Arc<str>,
    pub place: Place,
    pub offset: i64,
    pub sent: At,
    pub told: Committed,
}

/// How far a group is, as somebody was told; -1: nowhere.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupPosition {
    pub client: Arc<str>,
    pub group: Arc<str>,
    pub place: Place,
    pub offset: i64,
    pub sent: At,
    pub at: At,
}

/// A member read these records of a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRead {
    pub group: Arc<str>,
    pub place: Place,
    pub from: i64,
    /// Behind the last.
    pub until: i64,
}

/// All of that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Groups {
    pub assigned: Vec<Assigned>,
    pub commits: Vec<GroupCommit>,
    pub positions: Vec<GroupPosition>,
    pub reads: Vec<GroupRead>,
    /// Where each group was in the end, as far as its members acknowledged it, and whether that is all that it was to read.
    pub ends: Vec<(Arc<str>, Place, i64, bool)>,
}
