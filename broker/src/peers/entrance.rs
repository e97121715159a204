//! Who may try to prove itself, and of whom has been told what. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

/// So much is remembered of what was told; what is older is told again.
const TOLD_MAX: usize = 256;

/// What was last logged of each, so that it is logged once until it changes.
#[derive(Default)]
pub struct Told {
    last: BTreeMap<String, String>,
}

impl Told {
    /// Whether this is new of them, and from now on it is not.
    pub fn is_new(&mut self, of: &str, what: &str) -> bool {
        if self.last.get(of).is_some_and(|last| last == what) {
            return false;
        }
        if self.last.len() >= TOLD_MAX && !self.last.contains_key(of) {
            self.last.pop_first();
        }
        self.last.insert(of.to_owned(), what.to_owned());
        true
    }

    /// All is well with them: whatever comes next is new.
    pub fn forget(&mut self, of: &str) {
        self.last.remove(of);
    }
}

/// Connections that have not proved anything, in all and by the address that they come from.
#[derive(Default)]
pub struct Strangers {
    by_address: BTreeMap<Arc<str>, usize>,
    all: usize,
    refused: u64,
}

impl Strangers {
    /// Whether there is a place for one more of this address. Half of them stay free for others.
    pub fn join(&mut self, address: &Arc<str>, places: usize) -> bool {
        let of_address = self.by_address.get(address).copied().unwrap_or(0);
        if self.all >= places || of_address >= places / 2 {
            self.refused += 1;
            return false;
        }
        self.all += 1;
        *self.by_address.entry(address.clone()).or_default() += 1;
        true
    }

    /// How many found no place so far.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// One has proved itself, or is gone.
    pub fn leave(&mut self, address: &Arc<str>) {
        if let Some(count) = self.by_address.get_mut(address) {
            self.all -= 1;
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_until_it_changes_and_little_is_remembered() {
        let mut told = Told::default();
        let steps =
            [("a", "x", true), ("a", "x", false), ("b", "x", true), ("a", "y", true), ("a", "x", true)];
        for (of, what, new) in steps {
            assert_eq!(told.is_new(of, what), new, "{of} {what}");
        }
        told.forget("a");
        assert!(told.is_new("a", "x"));
        for number in 0..10 * TOLD_MAX {
            assert!(told.is_new(&number.to_string(), "x"));
        }
        assert!(told.last.len() <= TOLD_MAX);
    }

    #[test]
    fn one_address_does_not_take_all_places() {
        let mut strangers = Strangers::default();
        let addresses: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).to_vec();
        let mut join = |of: usize| strangers.join(&addresses[of], 4);
        assert_eq!(
            [join(0), join(0), join(0), join(1), join(1), join(2)],
            [true, true, false, true, true, false]
        );
        assert_eq!(strangers.refused(), 2);
        strangers.leave(&addresses[0]);
        assert!(strangers.join(&addresses[2], 4));
        for of in [0, 1, 1, 2, 2] {
            strangers.leave(&addresses[of]);
        }
        assert!(strangers.by_address.is_empty() && strangers.all == 0, "leaving twice changes nothing");
    }
}
