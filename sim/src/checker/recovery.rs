//! Liveness: whenever nothing has been broken for a while, every producer gets an acknowledgement soon.

use std::collections::{BTreeMap, BTreeSet};

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{AckMode, At, History, Outcome, Place, seconds};

/// What was owed to producers and when: the longest time from the end of trouble to the first acknowledgement
/// is kept for the report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovery {
    pub violations: Vec<Violation>,
    pub slowest: Option<At>,
}

/// When something was wanted, and when it was got.
type Wish = (At, Option<At>);

/// In each time that is clear for its partition and long enough, each producer and partition with a request on its way is
/// acknowledged something within `connected_for + within`; and again, for as long as the time is clear.
pub fn acknowledged_when_clear(
    history: &History,
    clear: impl Fn(i32) -> Vec<(At, At)>,
    connected_for: At,
    within: At,
) -> Recovery {
    let mut findings = Findings::of("acknowledged-when-clear", Verdict::Freeze);
    let mut slowest = None;
    // Per producer and partition: when something was wanted and when it was got, in order. That a producer gets through
    // to one partition says nothing about another.
    let mut wishes: BTreeMap<(u32, &Place), Vec<Wish>> = BTreeMap::new();
    for send in history.sends.iter().filter(|send| send.acks != AckMode::None && !send.abandoned) {
        let settled = match &send.outcome {
            Outcome::Acked { at, .. } => Some(*at),
            Outcome::Unknown => None,
            // It was told, for good.
            Outcome::Refused { .. } => continue,
        };
        wishes.entry((send.producer, &send.place)).or_default().push((send.began, settled));
    }
    let partitions: BTreeSet<i32> = wishes.keys().map(|(_, place)| place.partition).collect();
    let step = connected_for + within;
    let mut found = BTreeSet::new();
    let times = partitions.iter().flat_map(|partition| {
        let again = move |(from, to): (At, At)| {
            (from..to).step_by(step.max(1) as usize).map(move |from| (*partition, from, to))
        };
        clear(*partition).into_iter().flat_map(again)
    });
    for (partition, from, to) in times {
        let due = from + connected_for + within;
        if due > to {
            continue;
        }
        for ((producer, place), wishes) in
            wishes.iter().filter(|((_, place), _)| place.partition == partition)
        {
            // Only what was wanted before the time ran out, and not settled before the trouble ended.
            let mut open = wishes
                .iter()
                .filter(|(began, got)| *began < from + connected_for && got.is_none_or(|got| got >= from))
                .peekable();
            let Some((began, _)) = open.peek().copied() else { continue };
            let first = open.filter_map(|(_, got)| *got).min();
            match first {
                Some(got) if got <= due => {
                    let took = got.saturating_sub(from.max(*began));
                    slowest = slowest.max(Some(took));
                }
                _ if !found.insert((*producer, *place)) => {}
                _ => findings.add(format!(
                    "producer {producer} waits for {place} since {}; nothing is broken since {}, and by {} nothing was acknowledged{}",
                    seconds(*began),
                    seconds(from),
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
        acknowledged_when_clear(&history, |_| vec![(100, 200)], 10, 20)
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
    fn an_acknowledgement_of_one_partition_does_not_speak_for_another() {
        let elsewhere = Place { topic: "orders".into(), partition: 1 };
        let other = crate::history::Send { place: elsewhere, ..send(50, None) };
        let recovery = check(vec![send(50, Some(112)), other]);
        assert!(recovery.violations.len() == 1 && recovery.violations[0].what.contains("orders-1"));
    }

    #[test]
    fn trouble_of_one_partition_excuses_no_other() {
        let elsewhere = Place { topic: "orders".into(), partition: 1 };
        let history = History {
            sends: vec![send(50, None), crate::history::Send { place: elsewhere, ..send(50, None) }],
            ..History::default()
        };
        let clear = |partition| if partition == 1 { vec![(100, 200)] } else { Vec::new() };
        let found = acknowledged_when_clear(&history, clear, 10, 20).violations;
        assert!(found.len() == 1 && found[0].what.contains("orders-1"), "{found:?}");
    }

    #[test]
    fn who_wants_nothing_is_owed_nothing() {
        assert_eq!(check(vec![send(50, Some(60))]).violations, []);
        assert_eq!(check(vec![send(175, None)]).violations, []);
        assert_eq!(check(vec![send(150, None)]).violations.len(), 1, "long after the trouble");
    }
}
