//! Checkers: what must be true of a history, whatever happened.
//!
//! Each is a pure function from what clients saw and what the world observed to what is wrong with it, and
//! each has a test in which it rejects a bad history. A checker that finds nothing has a name that says what
//! was looked for, so that a passing run says what it passed.

pub mod answers;
pub mod budgets;
pub mod causes;
pub mod circumstances;
pub mod corruption;
pub mod endings;
pub mod log;
pub mod lookups;
pub mod polls;
pub mod recovery;
pub mod refusals;
pub mod rest;
pub mod sends;
pub mod served;
pub mod syncs;
pub mod unacknowledged;
pub mod visibility;

#[cfg(test)]
pub(crate) mod stories;

use reports::{Verdict, Violation};

/// At most this many findings of one checker are kept: the first tell the story.
const KEPT: usize = 20;

/// What a checker found wrong.
pub(crate) struct Findings {
    checker: &'static str,
    verdict: Verdict,
    found: Vec<Violation>,
    more: usize,
}

impl Findings {
    pub(crate) fn of(checker: &'static str, verdict: Verdict) -> Findings {
        Findings { checker, verdict, found: Vec::new(), more: 0 }
    }

    pub(crate) fn add(&mut self, what: String) {
        if self.found.len() >= KEPT {
            self.more += 1;
            return;
        }
        self.found.push(Violation { checker: self.checker.to_owned(), verdict: self.verdict, what });
    }

    pub(crate) fn all(mut self) -> Vec<Violation> {
        if self.more > 0
            && let Some(last) = self.found.last_mut()
        {
            last.what = format!("{} (and {} more)", last.what, self.more);
        }
        self.found
    }
}

/// The gravest of what was found: a crash explains a loss, a loss outweighs a standstill.
pub fn verdict(violations: &[Violation]) -> Verdict {
    [Verdict::Nondeterminism, Verdict::Crash, Verdict::Safety, Verdict::Freeze, Verdict::Budget]
        .into_iter()
        .find(|verdict| violations.iter().any(|violation| violation.verdict == *verdict))
        .unwrap_or(Verdict::Pass)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_finding_is_the_verdict() {
        let found = |verdict| Violation { checker: "x".into(), verdict, what: String::new() };
        assert_eq!(verdict(&[]), Verdict::Pass);
        assert_eq!(verdict(&[found(Verdict::Budget), found(Verdict::Freeze)]), Verdict::Freeze);
        assert_eq!(verdict(&[found(Verdict::Freeze), found(Verdict::Safety)]), Verdict::Safety);
        assert_eq!(verdict(&[found(Verdict::Safety), found(Verdict::Crash)]), Verdict::Crash);
    }
}
