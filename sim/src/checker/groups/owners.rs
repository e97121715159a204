//! Who owns a partition of a group: one at a time.
//!
//! In a classic group all begin a generation together, and in it each partition has one owner. In a consumer group (KIP-848) members follow one
//! by one: a partition is given to a member when the one before has said that it gave it up, has gone, or was silent for too long.

use std::collections::BTreeMap;

use reports::{Verdict, Violation};

use super::over::Over;
use super::tenures::{Tenure, tenures};
use crate::checker::Findings;
use crate::history::groups::{Assigned, Committed};
use crate::history::{At, History, Place, seconds};

/// No two own a partition at a time, and who is of a generation or an epoch that is over commits no more.
pub fn owners(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("two-owners", Verdict::Safety);
    let mut owners: BTreeMap<(&str, i32, &Place), &Assigned> = BTreeMap::new();
    for assigned in &history.groups.assigned {
        for place in &assigned.places {
            let owner = owners.entry((&assigned.group, assigned.generation, place)).or_insert(assigned);
            // A static member that comes back has another id, and what it had before.
            if owner.member != assigned.member && !is_same_static(&owner.member, &assigned.member) {
                findings.add(format!(
                    "{} and {} both own {place} in generation {} of {}",
                    owner.member, assigned.member, assigned.generation, assigned.group
                ));
            }
        }
    }
    for (one, other) in pairs(&tenures(&history.groups)).filter(|(one, other)| meet(one, other)) {
        findings.add(format!(
            "{} was told at {} that it has {} of {}, and {} at {}, while {} had it up to {} at least",
            one.member,
            seconds(one.told),
            one.place,
            one.group,
            other.member,
            seconds(other.told),
            one.member,
            seconds(one.sure_until())
        ));
    }
    let over = Over::of(&history.groups);
    for commit in &history.groups.commits {
        let Committed::Acked(at) = commit.told else { continue };
        if let Some((since, why)) = over.since(commit).filter(|(since, _)| *since < commit.sent) {
            findings.add(format!(
                "{} of generation or epoch {} of {} committed offset {} of {} at {}, and was acknowledged at {}, though {why} at {}",
                commit.member,
                commit.generation,
                commit.group,
                commit.offset,
                commit.place,
                seconds(commit.sent),
                seconds(at),
                seconds(since)
            ));
        }
    }
    findings.all()
}

/// Nobody is given what another has that was heard of within its `session`, and has not given it up. That holds by the clocks of
/// coordinators, where these run as they should.
pub fn taken_too_soon(history: &History, session: At) -> Vec<Violation> {
    let mut findings = Findings::of("two-owners", Verdict::Safety);
    for (one, other) in pairs(&tenures(&history.groups)) {
        let heard = one.heard_by(other.told);
        let is_silent = other.told >= heard.saturating_add(session);
        if one.told < other.asked && other.told < one.until && !is_silent {
            findings.add(format!(
                "{} was told at {} that it has {} of {}, which {} has, was heard of at {} and has not given up",
                other.member,
                seconds(other.told),
                other.place,
                other.group,
                one.member,
                seconds(heard)
            ));
        }
    }
    findings.all()
}

/// Of the same partition and of different members, each in the order in which they began.
fn pairs<'a, 'b>(all: &'b [Tenure<'a>]) -> impl Iterator<Item = (&'b Tenure<'a>, &'b Tenure<'a>)> {
    let mut of_place: BTreeMap<(&str, &Place), Vec<&'b Tenure<'a>>> = BTreeMap::new();
    for tenure in all {
        of_place.entry((tenure.group, tenure.place)).or_default().push(tenure);
    }
    of_place.into_values().flat_map(|of| {
        let pair = |(nth, one): (usize, &&'b Tenure<'a>)| {
            let (one, later) = (*one, of[nth + 1..].to_vec());
            later.into_iter().filter(move |other| other.member != one.member).map(move |other| (one, other))
        };
        of.iter().enumerate().flat_map(pair).collect::<Vec<_>>()
    })
}

/// Whether both surely had it at a time: one of them was told so between two moments at which the other was the owner, or each was
/// confirmed after the other was told.
fn meet(one: &Tenure<'_>, other: &Tenure<'_>) -> bool {
    let is_between = other.asked > one.told && other.told < one.sure_until();
    is_between || one.told.max(other.told) < one.sure_until().min(other.sure_until())
}

/// Ids of static members begin with what their operators call them.
fn is_same_static(one: &str, other: &str) -> bool {
    const RANDOM: usize = "-00000000-0000-0000-0000-000000000000".len();
    let named = |id: &str| id.len().checked_sub(RANDOM).map(|end| id[..end].to_owned());
    named(one).is_some_and(|name| name.starts_with("static-") && Some(name) == named(other))
}

#[cfg(test)]
mod tests {
    use super::super::group_stories::*;
    use super::*;
    use crate::history::groups::Beat;

    #[test]
    fn two_owners_are_told_and_so_is_a_commit_of_a_generation_that_is_over() {
        let mut history = History::default();
        history.groups.assigned = vec![assigned(1, "a", 1), assigned(1, "a", 2), assigned(2, "b", 50)];
        history.groups.commits = vec![
            commit(1, 5, 49, Committed::Acked(60)),
            commit(1, 5, 51, Committed::Refused),
            commit(2, 5, 51, Committed::Acked(52)),
        ];
        assert_eq!(owners(&history), []);
        history.groups.commits.push(commit(1, 5, 51, Committed::Acked(52)));
        history.groups.assigned.push(assigned(2, "c", 60));
        assert_eq!(owners(&history).len(), 2);
        let id = |name: &str, nth: u8| format!("{name}-00000000-0000-0000-0000-00000000000{nth}");
        assert!(is_same_static(&id("static-1", 1), &id("static-1", 2)));
        assert!(!is_same_static(&id("static-1", 1), &id("static-2", 2)));
        assert!(!is_same_static(&id("c", 1), &id("c", 2)));
    }

    fn of(beats: &[Beat]) -> History {
        let mut history = History::default();
        history.groups.beats = beats.to_vec();
        history
    }

    #[test]
    fn in_a_consumer_group_who_is_still_the_owner_shares_with_nobody() {
        let a = given("a", 1, 1, Some(true));
        let b = given("b", 10, 2, Some(true));
        let cases: [(&[Beat], usize); 6] = [
            // It was silent, and is told so.
            (&[a.clone(), b.clone(), out("a", 20)], 0),
            (&[a.clone(), b.clone(), given("a", 20, 1, None)], 1),
            // It is told to give up what another one has already.
            (&[a.clone(), b.clone(), given("a", 20, 2, Some(false))], 1),
            (&[a.clone(), releasing(silent("a", 9)), b.clone(), given("a", 20, 2, None)], 0),
            (&[a.clone(), releasing(given("a", 9, 3, Some(false))), b.clone()], 0),
            // Both were told at about the same time, and both are confirmed.
            (&[given("a", 9, 1, Some(true)), b.clone(), given("a", 20, 1, None), given("b", 20, 2, None)], 1),
        ];
        for (nth, (beats, count)) in cases.into_iter().enumerate() {
            assert_eq!(owners(&of(beats)).len(), count, "case {nth}");
        }
    }

    #[test]
    fn in_a_consumer_group_nothing_is_taken_from_who_was_heard_of() {
        let a = given("a", 1, 1, Some(true));
        let found = |beats: &[Beat]| taken_too_soon(&of(beats), 20).len();
        assert_eq!(found(&[a.clone(), given("b", 10, 2, Some(true))]), 1);
        assert_eq!(found(&[a.clone(), given("b", 20, 2, Some(true))]), 0, "its session is over");
        assert_eq!(found(&[a.clone(), given("a", 5, 1, None), given("b", 20, 2, Some(true))]), 1);
        assert_eq!(found(&[a.clone(), releasing(silent("a", 5)), given("b", 10, 2, Some(true))]), 0);
    }

    #[test]
    fn who_is_out_of_a_consumer_group_commits_no_more() {
        let mut history = of(&[given("a", 1, 1, Some(true)), given("b", 10, 2, Some(true))]);
        history.groups.commits = vec![
            commit_of("a", 1, 5, 9, Committed::Acked(30)),
            commit_of("a", 1, 5, 20, Committed::Refused),
            commit_of("b", 2, 5, 20, Committed::Acked(21)),
        ];
        assert_eq!(owners(&history), []);
        history.groups.commits.push(commit_of("a", 1, 5, 20, Committed::Acked(30)));
        assert_eq!(owners(&history).len(), 1);
    }
}
