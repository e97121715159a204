//! Liveness: whenever nothing has been broken for a while, every producer gets an acknowledgement soon.

use std::collections::BTreeMap;

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{At, History, Outcome, Place, seconds};
use crate::scenario::AckMode;

/// Times from the start to `end` in which none of the `broken` windows lies, as (from, to).
pub fn clear_times(broken: &[(At, At)], end: At) -> Vec<(At, At)> {
    let mut broken = broken.to_vec();
    broken.sort_unstable();
    let mut clear = Vec::new();
    let mut from = 0;
    for (begin, over) in broken {
        if begin > from {
            clear.push((from, begin.min(end)));
        }
        from = from.max(over);
    }
    if from < end {
        clear.push((from, end));
    }
    clear
}

/// What was owed to producers and when: the longest time from the end of trouble to the first acknowledgement
/// is kept for the report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovery {
    pub violations: Vec<Violation>,
    pub slowest: Option<At>,
}

/// When something was wanted, when it was got, and where.
type Wish<'a> = (At, Option<At>, &'a Place);

/// In each clear time that is long enough, each producer and partition with a request on its way is
/// acknowledged something within `connected_for + within`.
pub fn acknowledged_when_clear(
    history: &History,
    clear: &[(At, At)],
    connected_for: At,
    within: At,
) -> Recovery {
    let mut findings = Findings::of("acknowledged-when-clear", Verdict::Freeze);
    let mut slowest = None;
    // Per producer: when it wanted something and when it got it, in order.
    let mut wishes: BTreeMap<u32, Vec<Wish<'_>>> = BTreeMap::new();
    for send in history.sends.iter().filter(|send| send.acks != AckMode::None && !send.abandoned) {
        let settled = match &send.outcome {
            Outcome::Acked { at, .. } => Some(*at),
            Outcome::Refused { .. } | Outcome::Unknown => None,
        };
        wishes.entry(send.producer).or_default().push((send.began, settled, &send.place));
    }
    for (from, to) in clear {
        let due = from + connected_for + within;
        if due > *to {
            continue;
        }
        for (producer, wishes) in &wishes {
            // Only what was wanted before the time ran out, and not settled before the trouble ended.
            let mut open = wishes
                .iter()
                .filter(|(began, got, _)| *began < from + connected_for && got.is_none_or(|got| got >= *from))
                .peekable();
            let Some((began, _, place)) = open.peek().copied() else { continue };
            let first = open.filter_map(|(_, got, _)| *got).min();
            match first {
                Some(got) if got <= due => {
                    let took = got.saturating_sub(*from.max(began));
                    slowest = slowest.max(Some(took));
                }
                _ => findings.add(format!(
                    "producer {producer} waits for {place} since {}; nothing is broken since {}, and by {} nothing was acknowledged{}",
                    seconds(*began),
                    seconds(*from),
                    seconds(due),
                    first.map(|got| format!(" (it was at {})", seconds(got))).unwrap_or_default()
                )),
            }
        }
    }
    Recovery { violations: findings.all(), slowest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;

    fn send(began: At, acked_at: Option<At>) -> crate::history::Send {
        let outcome = match acked_at {
            Some(at) => Outcome::Acked { at, base: Some(0) },
            None => Outcome::Unknown,
        };
        crate::history::Send { began, outcome, ..acked(0, 0) }
    }

    fn check(sends: Vec<crate::history::Send>) -> Recovery {
        let history = History { sends, ..History::default() };
        acknowledged_when_clear(&history, &[(100, 200)], 10, 20)
    }

    #[test]
    fn clear_times_are_what_faults_leave() {
        assert_eq!(clear_times(&[(10, 20), (15, 25), (40, 45)], 100), [(0, 10), (25, 40), (45, 100)]);
        assert_eq!(clear_times(&[], 100), [(0, 100)]);
        assert_eq!(clear_times(&[(0, u64::MAX)], 9), []);
    }

    #[test]
    fn an_acknowledgement_soon_after_the_trouble_is_fine() {
        let recovery = check(vec![send(50, Some(112))]);
        assert_eq!((recovery.violations.len(), recovery.slowest), (0, Some(12)));
    }

    #[test]
    fn one_that_comes_late_or_never_is_found() {
        assert_eq!(check(vec![send(50, Some(131))]).violations.len(), 1);
        assert_eq!(check(vec![send(50, None)]).violations.len(), 1);
    }

    #[test]
    fn who_wants_nothing_is_owed_nothing() {
        assert_eq!(check(vec![send(50, Some(60))]).violations, []);
        assert_eq!(check(vec![send(150, None)]).violations, []);
    }
}
