//! What a coordinator publishes of its groups, for who looks without asking: a copy, about a second old at most, of what is kept.

use std::time::Duration;

use io_backend::{Moment, Published};

use super::outbox::Held;
use super::progress::Progress;
use super::shard::Shard;
use crate::limits;

/// A copy is made no more often.
const EVERY: Duration = Duration::from_secs(1);

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

    /// What is due is published as an answer is given: when all that was decided by now is kept.
    pub(super) fn show<T>(&mut self, shard: &Shard<T>, now: Moment) -> Option<Held> {
        self.due.take_if(|due| *due <= now)?;
        let (published, progress) = (self.published.clone(), shard.progress(limits::GROUP_PROGRESS_MAX));
        Some(Box::new(move |kept| {
            if kept.is_ok() {
                published.publish(progress);
            }
        }))
    }

    /// Publishes what there is, all of which is kept.
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
