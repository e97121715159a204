//! Who runs when a run does not come to an end: polls by task, counted only once its budget is nearly used up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// So many names are told apart.
const NAMES_MAX: usize = 10_000;
/// So many are told.
const TOLD: usize = 5;

/// A task that ran a lot, and what it waits for when it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spinner {
    pub machine: Arc<str>,
    pub task: Arc<str>,
    pub polls: u64,
    pub waits: Option<String>,
}

impl fmt::Display for Spinner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} of {}, {} polls", self.task, self.machine, self.polls)?;
        match &self.waits {
            Some(waits) => write!(f, ", waiting for {waits}"),
            None => Ok(()),
        }
    }
}

/// Polls by machine and task name: tasks of one name that follow one another count together.
#[derive(Default)]
pub struct Spins {
    polls: BTreeMap<(Arc<str>, Arc<str>), u64>,
}

impl Spins {
    pub fn count(&mut self, machine: &Arc<str>, task: &Arc<str>) {
        let key = (machine.clone(), task.clone());
        if let Some(polls) = self.polls.get_mut(&key) {
            *polls += 1;
        } else if self.polls.len() < NAMES_MAX {
            self.polls.insert(key, 1);
        }
    }

    pub fn clear(&mut self) {
        self.polls.clear();
    }

    /// Those with the most polls, in order.
    pub fn most(&self) -> Vec<Spinner> {
        let mut all: Vec<_> = self.polls.iter().collect();
        all.sort_by_key(|(_, polls)| std::cmp::Reverse(**polls));
        all.into_iter()
            .take(TOLD)
            .map(|((machine, task), polls)| Spinner {
                machine: machine.clone(),
                task: task.clone(),
                polls: *polls,
                waits: None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_that_ran_most_come_first_and_equal_ones_in_order_of_name() {
        let mut spins = Spins::default();
        let machine: Arc<str> = Arc::from("node1");
        for (task, polls) in [("idle", 1), ("b", 5), ("a", 5), ("c", 9), ("d", 2), ("e", 3)] {
            for _ in 0..polls {
                spins.count(&machine, &Arc::from(task));
            }
        }
        let told: Vec<(String, u64)> =
            spins.most().into_iter().map(|spinner| (spinner.task.to_string(), spinner.polls)).collect();
        let expected = [("c", 9), ("a", 5), ("b", 5), ("e", 3), ("d", 2)].map(|(t, p)| (t.to_owned(), p));
        assert_eq!(told, expected);
    }
}
