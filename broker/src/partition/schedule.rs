//! When somebody has to look at which partition, for retention or to clean it: told by the partitions' owners, waited for by one
//! task for each of the two.
//!
//! An owner says when the first of what it holds may go; the task sleeps until the earliest of these. So nobody looks at
//! partitions in which nothing can go, and a node in which nothing can go has no timer. Every critical section is a few
//! moves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use io_backend::Published;

use crate::ids::PartitionId;

/// When something of a partition may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// As soon as somebody looks.
    Now,
    /// By the wall clock, as the times of records are.
    AtMs(i64),
}

/// Cloneable: all clones are the same schedule.
#[derive(Clone)]
pub struct DueSchedule {
    state: Arc<Mutex<State>>,
    /// Rises when something is due earlier than whoever waits knows.
    changes: Published<u64>,
}

#[derive(Default)]
struct State {
    dues: BTreeMap<PartitionId, Due>,
    /// The earliest that the waiting task knows.
    known: Option<Due>,
    changes: u64,
}

impl DueSchedule {
    /// `name`: what is waited for.
    pub fn new(name: &'static str) -> DueSchedule {
        DueSchedule { state: Arc::default(), changes: Published::new(name, 0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the partition is to be looked at next, in the place of what was said before; `None`: nothing of it can go.
    pub fn set(&self, partition: PartitionId, due: Option<Due>) {
        let mut state = self.state();
        match due {
            Some(due) => state.dues.insert(partition, due),
            None => state.dues.remove(&partition),
        };
        let earlier = due.filter(|due| state.known.is_none_or(|known| *due < known));
        if let Some(due) = earlier {
            state.known = Some(due);
            state.changes += 1;
            // Under the lock, so that the last one told is the last one.
            self.changes.publish(state.changes);
        }
    }

    /// Everything that is due or will be, and the version to wait for a change of.
    pub fn dues(&self) -> (Vec<(PartitionId, Due)>, u64) {
        let mut state = self.state();
        state.known = state.dues.values().min().copied();
        (state.dues.iter().map(|(id, due)| (*id, *due)).collect(), state.changes)
    }

    /// Its version, for who waits.
    pub fn changes(&self) -> &Published<u64> {
        &self.changes
    }
}

/// What the owners of a node's partitions tell.
#[derive(Clone)]
pub struct Schedules {
    /// When something of a log may go.
    pub retention: DueSchedule,
    /// When a compacted log is to be cleaned.
    pub cleaning: DueSchedule,
}

impl Default for Schedules {
    fn default() -> Schedules {
        Schedules {
            retention: DueSchedule::new("what retention waits for"),
            cleaning: DueSchedule::new("what the cleaner waits for"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TopicId;

    fn id(index: i32) -> PartitionId {
        PartitionId { topic: TopicId::NIL, index }
    }

    #[test]
    fn who_waits_is_woken_for_what_is_earlier_than_it_knows_and_for_nothing_else() {
        let schedule = DueSchedule::new("test");
        let woken = |due, index| {
            let before = *schedule.changes().get();
            schedule.set(id(index), due);
            *schedule.changes().get() != before
        };
        assert!(woken(Some(Due::AtMs(50)), 1));
        assert!(!woken(Some(Due::AtMs(60)), 2));
        assert!(woken(Some(Due::AtMs(40)), 3));
        assert!(!woken(None, 3));
        assert_eq!(schedule.dues().0, [(id(1), Due::AtMs(50)), (id(2), Due::AtMs(60))]);
        assert!(woken(Some(Due::AtMs(45)), 2), "what was earlier is gone, and whoever waits knows");
        assert!(woken(Some(Due::Now), 1));
        assert!(!woken(Some(Due::Now), 2));
    }
}
