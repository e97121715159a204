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

/// A member of a consumer group (KIP-848) said how it is, and was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Beat {
    pub group: Arc<str>,
    /// Its id.
    pub member: Arc<str>,
    /// What it has and goes on to have, where it said so: all else it has given up. Nothing, of who joins or goes.
    pub keeps: Option<Vec<Place>>,
    pub sent: At,
    pub told: Told,
}

/// What a member of a consumer group was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// It is one, in this epoch; and what it has, where that was said.
    Member { at: At, epoch: i32, given: Option<Vec<Place>> },
    /// It is to go on: it is one, or nobody knows yet, for its coordinator has only begun. The classic protocol does not tell these apart.
    GoOn {
        /// After how much silence it is none.
        session: At,
    },
    /// It is none, or not in the epoch that it named.
    Out(At),
    /// There was no answer, or one that says nothing of it.
    Nothing,
}

/// A member wanted to be told what it is to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    pub group: Arc<str>,
    /// Its number among all that read.
    pub member: u32,
    /// When it first asked, and then again and again.
    pub began: At,
    /// When it was told, or left.
    pub until: At,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    Acked(At),
    /// It surely did not take effect, and will not.
    Refused,
    /// Its coordinator answered at that time that it does not know: whatever is committed afterwards comes after it.
    Doubtful(At),
    /// There was no answer up to that time: it may still be on its way.
    Unanswered(At),
}

/// A member said how far the group is in a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupCommit {
    pub group: Arc<str>,
    /// Of a classic group; the member's epoch, of a consumer group.
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
    /// In the order in which they were concluded; those of one member in the order in which they were sent.
    pub beats: Vec<Beat>,
    pub wishes: Vec<Wish>,
    pub commits: Vec<GroupCommit>,
    pub positions: Vec<GroupPosition>,
    pub reads: Vec<GroupRead>,
    /// Where each group was in the end, as far as its members acknowledged it, and whether that is all that it was to read.
    pub ends: Vec<(Arc<str>, Place, i64, bool)>,
    /// Groups of which nobody told how far they are when all had come to rest, and the partition that keeps each.
    pub untold: Vec<(Arc<str>, Place)>,
}
