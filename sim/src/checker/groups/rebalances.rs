//! Whether members are told what they read in time, and no partition is left without a reader.

use std::collections::BTreeSet;

use reports::{Verdict, Violation};

use super::tenures::tenures;
use crate::checker::Findings;
use crate::checker::circumstances::Times;
use crate::history::groups::{Groups, Told, Wish};
use crate::history::{At, History, Place, seconds};

/// What was broken may be felt for so long afterwards.
const AFTERWARDS: At = 5_000_000_000;

/// The longest time that a member had to wait to be told what it reads, of those that no trouble meets: for other members,
/// that is.
pub fn longest_rebalance(history: &History, trouble: &Times) -> Option<At> {
    let is_clear = |wish: &&Wish| !trouble.meet(wish.began.saturating_sub(AFTERWARDS), wish.until);
    history.groups.wishes.iter().filter(is_clear).map(|wish| wish.until - wish.began).max()
}

/// In each time that is clear and long enough, each member that asks is told what it reads within `connected_for + within`, and each partition of a
/// consumer group that has members all the while has one that reads it.
pub fn assigned_when_clear(
    history: &History,
    clear: &[(At, At)],
    connected_for: At,
    within: At,
) -> Vec<Violation> {
    let mut findings = Findings::of("assigned-when-clear", Verdict::Freeze);
    let step = connected_for.saturating_add(within).max(1);
    let tenures = tenures(&history.groups);
    let mut told = BTreeSet::new();
    for (from, to) in clear {
        for from in (*from..*to).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            let due = from.saturating_add(step);
            if due > *to {
                continue;
            }
            let open = |wish: &&Wish| wish.began < from.saturating_add(connected_for) && wish.until > due;
            for wish in history.groups.wishes.iter().filter(open) {
                findings.add(format!(
                    "member {} of {} waits since {} to be told what it reads; nothing is broken since {}, and by {} it was not",
                    wish.member,
                    wish.group,
                    seconds(wish.began),
                    seconds(from),
                    seconds(due)
                ));
            }
            let is_owned = |group: &str, place: &Place| {
                let meets = |of: &super::tenures::Tenure<'_>| of.told <= due && of.until >= from;
                tenures.iter().any(|of| of.group == group && of.place == place && meets(of))
            };
            for (group, place, ..) in &history.groups.ends {
                let lasts = has_members(&history.groups, group, from.saturating_add(connected_for), due);
                if lasts && !is_owned(group, place) && told.insert((group, place)) {
                    findings.add(format!(
                        "no member of {group} has {place}; nothing is broken since {}, and it is {}",
                        seconds(from),
                        seconds(due)
                    ));
                }
            }
        }
    }
    findings.all()
}

/// Whether a member of this consumer group was there before and after.
fn has_members(groups: &Groups, group: &str, before: At, after: At) -> bool {
    let mut early = BTreeSet::new();
    groups.beats.iter().filter(|beat| *beat.group == *group).any(|beat| match &beat.told {
        Told::Member { at, .. } if *at <= before => {
            early.insert(&beat.member);
            false
        }
        Told::Member { .. } => beat.sent >= after && early.contains(&beat.member),
        Told::Out(_) | Told::Nothing => false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::group_stories::*;
    use super::*;
    use crate::checker::stories::place;

    fn wish(began: At, until: At) -> Wish {
        Wish { group: "g".into(), member: 1, began, until }
    }

    #[test]
    fn who_waits_for_long_though_nothing_is_broken_is_told() {
        let found = |wish: Wish| {
            let mut history = History::default();
            history.groups.wishes.push(wish);
            assigned_when_clear(&history, &[(100, 200)], 10, 30).len()
        };
        assert_eq!(found(wish(105, 140)), 0);
        assert_eq!(found(wish(105, 141)), 1);
        assert_eq!(found(wish(50, 150)), 1);
        assert_eq!(found(wish(50, 130)), 0, "it left");
        assert_eq!(found(wish(195, 300)), 0, "something is broken again");
    }

    #[test]
    fn a_partition_that_nobody_is_given_is_told_where_there_are_members() {
        let found = |beats: Vec<crate::history::groups::Beat>| {
            let mut history = History::default();
            history.groups.beats = beats;
            history.groups.ends.push(("g".into(), place(), 5, true));
            assigned_when_clear(&history, &[(100, 200)], 10, 30).len()
        };
        let idle = |sent| given("a", sent, 1, None);
        assert_eq!(found(vec![idle(90), idle(190)]), 1);
        assert_eq!(found(vec![given("a", 90, 1, Some(true)), idle(190)]), 0);
        assert_eq!(found(vec![idle(90), given("b", 120, 1, Some(true)), idle(170)]), 0);
        assert_eq!(found(vec![idle(90)]), 0, "nobody stays");
    }

    #[test]
    fn the_longest_rebalance_is_one_that_nothing_broken_meets() {
        const S: At = 1_000_000_000;
        let mut history = History::default();
        history.groups.wishes = vec![wish(S, 3 * S), wish(20 * S, 29 * S)];
        assert_eq!(longest_rebalance(&history, &Times::default()), Some(9 * S));
        assert_eq!(longest_rebalance(&history, &Times::of([(16 * S, 17 * S)])), Some(2 * S));
    }
}
