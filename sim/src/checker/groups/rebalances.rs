//! Whether members are told what they read in time, and their groups get on.

use std::collections::{BTreeMap, BTreeSet};

use reports::{Verdict, Violation};

use crate::checker::Findings;
use crate::checker::circumstances::Times;
use crate::history::groups::{Committed, Groups, Wish};
use crate::history::{AckMode, At, History, Outcome, Place, seconds};

/// What was broken may be felt for so long afterwards.
const AFTERWARDS: At = 5_000_000_000;

/// The longest time that a member had to wait to be told what it reads, of those that no trouble meets: for other members,
/// that is.
pub fn longest_rebalance(history: &History, trouble: &Times) -> Option<At> {
    let is_clear = |wish: &&Wish| !trouble.meet(wish.began.saturating_sub(AFTERWARDS), wish.until);
    history.groups.wishes.iter().filter(is_clear).map(|wish| wish.until - wish.began).max()
}

/// In each time that is clear and long enough, each member that asks is told what it reads within `connected_for + within`, and by then its group has
/// committed what was acknowledged when the time began: who has a partition and does not read it keeps it from all others.
pub fn assigned_when_clear(
    history: &History,
    clear: &[(At, At)],
    connected_for: At,
    within: At,
) -> Vec<Violation> {
    let mut findings = Findings::of("assigned-when-clear", Verdict::Freeze);
    let step = connected_for.saturating_add(within).max(1);
    let committed = committed(&history.groups);
    let mut told = BTreeSet::new();
    let times = clear.iter().flat_map(|(from, to)| {
        (*from..*to).step_by(usize::try_from(step).unwrap_or(usize::MAX)).map(move |from| (from, *to))
    });
    for (from, to) in times {
        let (begun, due) = (from.saturating_add(connected_for), from.saturating_add(step));
        if due > to {
            continue;
        }
        let open = |wish: &&Wish| wish.began < begun && wish.until > due;
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
        let acknowledged = acknowledged(history, from, begun);
        for (group, place, ..) in &history.groups.ends {
            let Some(end) = acknowledged.get(place) else { continue };
            let commits = committed.get(&(&**group, place)).map_or(&[][..], Vec::as_slice);
            let is_behind = !commits.iter().any(|(sent, offset)| *sent <= due && offset >= end);
            if is_behind && told.insert((group, place)) {
                findings.add(format!(
                    "{group} had not committed offset {end} of {place} by {}, which was acknowledged by {}; nothing is broken since {}",
                    seconds(due),
                    seconds(begun),
                    seconds(from)
                ));
            }
        }
    }
    findings.all()
}

/// What each group may have committed of each partition, and when.
fn committed(groups: &Groups) -> BTreeMap<(&str, &Place), Vec<(At, i64)>> {
    let mut committed: BTreeMap<(&str, &Place), Vec<(At, i64)>> = BTreeMap::new();
    for commit in groups.commits.iter().filter(|commit| commit.told != Committed::Refused) {
        committed.entry((&commit.group, &commit.place)).or_default().push((commit.sent, commit.offset));
    }
    committed
}

/// Behind the last record of each partition that was acknowledged in that time, for good.
fn acknowledged(history: &History, from: At, to: At) -> BTreeMap<&Place, i64> {
    let mut ends: BTreeMap<&Place, i64> = BTreeMap::new();
    for send in history.sends.iter().filter(|send| send.acks == AckMode::All) {
        if let Outcome::Acked { at, base: Some(base) } = send.outcome
            && (from..=to).contains(&at)
        {
            let end = ends.entry(&send.place).or_default();
            *end = (*end).max(base + i64::from(send.count));
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::super::group_stories::*;
    use super::*;
    use crate::checker::stories::{acked, place};

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
    fn a_group_that_does_not_get_on_though_nothing_is_broken_is_told() {
        let found = |at: At, sent: At, offset| {
            let mut send = acked(0, 7);
            send.outcome = Outcome::Acked { at, base: Some(7) };
            let mut history = History { sends: vec![send], ..History::default() };
            history.groups.ends.push(("g".into(), place(), 8, true));
            history.groups.commits.push(commit(1, offset, sent, Committed::Acked(sent + 1)));
            assigned_when_clear(&history, &[(100, 200)], 10, 30).len()
        };
        assert_eq!((found(105, 140, 8), found(105, 141, 8), found(105, 140, 7)), (0, 1, 1));
        assert_eq!(found(120, 190, 7), 0, "it was acknowledged too late for that");
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
