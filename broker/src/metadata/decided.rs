//! What became of proposals that this node sent to the leader: the leader tells the index, and what the entry came to is found
//! when it is applied here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::outcome::Outcome;
use crate::limits::OUTCOMES_KEPT;

/// A proposal that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Of its entry.
    pub index: u64,
    /// What applying it came to.
    pub outcome: Outcome,
}

/// The latest of them, of all nodes; clones are of the same.
#[derive(Clone, Default)]
pub struct Latest {
    kept: Arc<Mutex<VecDeque<Decided>>>,
}

impl Latest {
    /// The next one is applied.
    pub fn push(&self, decided: Decided) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == OUTCOMES_KEPT {
            kept.pop_front();
        }
        kept.push_back(decided);
    }

    /// What the entry at this index came to; `None` where it was part of a snapshot, or is too long ago.
    pub fn of(&self, index: u64) -> Option<Outcome> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.binary_search_by_key(&index, |decided| decided.index).ok()?;
        Some(kept[at].outcome.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept() {
        let latest = Latest::default();
        for index in (1..=3 * OUTCOMES_KEPT as u64).filter(|index| index % 3 != 0) {
            latest.push(Decided { index, outcome: Outcome::Done });
        }
        let last = 3 * OUTCOMES_KEPT as u64 - 1;
        assert_eq!([last, last + 1, 1].map(|index| latest.of(index)), [Some(Outcome::Done), None, None]);
    }
}
