//! Leaders whose link broke a moment ago: the controller most likely has others lead what they led before long.
//!
//! A client that has lost its connection to a leader asks at once who leads. Told of the same one, it would ask again only after
//! a second or more; told that none is known now, it asks again at once, as Kafka's clients do. The link may be what broke, and
//! not the node: so it is told for a second, and not longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use io_backend::Moment;

use crate::ids::BrokerId;

/// Longer than it takes to fence a node whose process has ended.
const LASTS: Duration = Duration::from_secs(1);

/// When the links to others were lost; clones are of the same.
#[derive(Clone, Default)]
pub struct Doubts {
    lost: Arc<Mutex<BTreeMap<BrokerId, Moment>>>,
}

impl Doubts {
    /// A link is lost, or another one is made.
    pub fn set(&self, node: BrokerId, lost: Option<Moment>) {
        match lost {
            Some(at) => drop(self.lock().insert(node, at)),
            None => drop(self.lock().remove(&node)),
        }
    }

    /// Whose link was lost a moment ago.
    pub fn now(&self, now: Moment) -> BTreeSet<BrokerId> {
        let lost = self.lock();
        lost.iter().filter(|(_, at)| now.since(**at) < LASTS).map(|(node, _)| *node).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BrokerId, Moment>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_link_is_doubted_for_a_second_or_until_there_is_another() {
        let doubts = Doubts::default();
        let at = |millis: u64| Moment(millis * 1_000_000);
        let (one, two) = (BrokerId(1), BrokerId(2));
        doubts.set(one, Some(at(500)));
        doubts.set(two, Some(at(900)));
        assert_eq!(doubts.now(at(1_400)), [one, two].into());
        assert_eq!(doubts.now(at(1_600)), [two].into());
        doubts.set(two, None);
        assert_eq!(doubts.now(at(1_600)), [].into());
    }
}
