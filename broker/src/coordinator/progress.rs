//! How far groups are, for who looks without asking: a copy that each coordinator publishes, about a second old at most.

use std::sync::Arc;
use std::time::Duration;

use io_backend::{Moment, Published};

use super::ids::GroupId;
use super::shard::Shard;
use crate::ids::Offset;
use crate::limits;

/// A copy is made no more often.
const EVERY: Duration = Duration::from_secs(1);

/// How far the groups of one partition of `__consumer_offsets` are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// In the order of groups, topics and partitions; [`limits::GROUP_PROGRESS_MAX`] at most.
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

/// When a coordinator publishes it.
pub(super) struct Shown {
    published: Published<Progress>,
    due: Option<Moment>,
}

impl Shown {
    pub(super) fn of(published: Published<Progress>) -> Shown {
        Shown { published, due: None }
    }

    /// Something was committed, or is forgotten.
    pub(super) fn changed(&mut self, now: Moment) {
        self.due.get_or_insert(now + EVERY);
    }

    /// When there is something to publish.
    pub(super) fn due(&self) -> Option<Moment> {
        self.due
    }

    /// Publishes what is due.
    pub(super) fn show<T>(&mut self, shard: &Shard<T>, now: Moment) {
        if self.due.is_some_and(|due| due <= now) {
            self.show_now(shard);
        }
    }

    /// Publishes what there is.
    pub(super) fn show_now<T>(&mut self, shard: &Shard<T>) {
        self.due = None;
        self.published.publish(shard.progress(limits::GROUP_PROGRESS_MAX));
    }

    /// Another node tells of the groups from now on.
    pub(super) fn nothing(&mut self) {
        self.due = None;
        if !self.published.get().committed.is_empty() {
            self.published.publish(Progress::default());
        }
    }
}
