//! How far groups are, for who looks without asking.

use std::sync::Arc;

use super::ids::GroupId;
use crate::ids::Offset;

/// How far the groups of one partition of `__consumer_offsets` are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// In the order of groups, topics and partitions; [`crate::limits::GROUP_PROGRESS_MAX`] at most.
    pub committed: Vec<GroupProgress>,
    /// Those that are not in it.
    pub left_out: usize,
}

/// How far a group is in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupProgress {
    /// Which group.
    pub group: GroupId,
    /// In which topic.
    pub topic: Arc<str>,
    /// In which of its partitions.
    pub partition: i32,
    /// The next record that it wants.
    pub offset: Offset,
}
