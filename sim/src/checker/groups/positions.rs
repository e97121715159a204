//! How far groups are told to be: as of a register that several write.

use std::collections::BTreeMap;

use reports::{Verdict, Violation};

use super::over::Over;
use crate::checker::Findings;
use crate::history::groups::{Committed, GroupCommit, GroupPosition};
use crate::history::{At, History, Place, seconds};

/// What is told of how far a group is was committed, and nothing that was acknowledged is forgotten. `calm` says from when on nothing that
/// was on its way at some time still is.
pub fn positions(history: &History, calm: &dyn Fn(At) -> At) -> Vec<Violation> {
    let mut findings = Findings::of("wrong-group-position", Verdict::Safety);
    let over = Over::of(&history.groups);
    let mut commits: BTreeMap<(&str, &Place), Vec<(&GroupCommit, At)>> = BTreeMap::new();
    for commit in &history.groups.commits {
        let settled = over.settled(commit, calm);
        commits.entry((&commit.group, &commit.place)).or_default().push((commit, settled));
    }
    for position in &history.groups.positions {
        let commits = commits.get(&(&*position.group, &position.place)).map_or(&[][..], Vec::as_slice);
        if let Some(what) = wrong(position, commits) {
            findings.add(format!(
                "{} asked at {} how far {} is in {} and was told {}: {what}",
                position.client,
                seconds(position.sent),
                position.group,
                position.place,
                position.offset
            ));
        }
    }
    findings.all()
}

/// What is read was written before or meanwhile, and is not surely written over. Commits come with when they are settled.
fn wrong(position: &GroupPosition, commits: &[(&GroupCommit, At)]) -> Option<String> {
    let acked = |commit: &GroupCommit| match commit.told {
        Committed::Acked(at) => Some(at),
        Committed::Refused | Committed::Doubtful(_) | Committed::Unanswered(_) => None,
    };
    // The last of those that surely were before the question.
    let before = commits.iter().filter(|(commit, _)| acked(commit).is_some_and(|at| at < position.sent));
    let newest = before.map(|(commit, _)| *commit).max_by_key(|commit| commit.sent);
    if position.offset < 0 {
        return newest.map(|commit| format!("{} had been acknowledged", commit.offset));
    }
    let may_be = |(commit, _): &&(&GroupCommit, At)| {
        commit.offset == position.offset && commit.sent < position.at && commit.told != Committed::Refused
    };
    let mut candidates = commits.iter().filter(may_be).peekable();
    if candidates.peek().is_none() {
        return Some("nobody had committed that".into());
    }
    if candidates.any(|(_, settled)| newest.is_none_or(|newest| *settled >= newest.sent)) {
        return None;
    }
    newest.map(|commit| format!("{} had been acknowledged since", commit.offset))
}

#[cfg(test)]
mod tests {
    use super::super::group_stories::*;
    use super::*;
    use crate::history::groups::Beat;
    use Committed::{Acked, Doubtful, Refused, Unanswered};

    fn found(history: &History) -> usize {
        // Nothing is on its way for longer than 100.
        positions(history, &|at| at + 100).len()
    }

    #[test]
    fn a_position_is_the_last_that_was_committed_or_one_that_may_have_been() {
        let cases: [(Vec<GroupCommit>, GroupPosition, usize); 14] = [
            (vec![], position(-1, 10, 11), 0),
            (vec![], position(3, 10, 11), 1),
            (vec![commit(1, 5, 2, Acked(4))], position(5, 10, 11), 0),
            (vec![commit(1, 5, 2, Acked(4))], position(-1, 10, 11), 1),
            (vec![commit(1, 5, 2, Acked(4)), commit(1, 7, 6, Acked(8))], position(5, 10, 11), 1),
            // Not known to be over before the question.
            (vec![commit(1, 5, 2, Acked(4)), commit(1, 7, 6, Acked(12))], position(5, 10, 13), 0),
            (vec![commit(1, 5, 2, Unanswered(3)), commit(1, 7, 6, Acked(8))], position(5, 10, 11), 0),
            // Once another generation has begun it cannot come any more.
            (vec![commit(1, 5, 2, Unanswered(3)), commit(2, 7, 60, Acked(61))], position(5, 70, 71), 1),
            (vec![commit(1, 5, 2, Refused)], position(5, 10, 11), 1),
            (vec![commit(1, 5, 2, Unanswered(3))], position(-1, 10, 11), 0),
            (vec![commit(1, 5, 12, Acked(13))], position(5, 10, 11), 1),
            // What was answered, however, comes before whatever is sent later; and nothing is on its way for ever.
            (vec![commit(1, 5, 2, Doubtful(3)), commit(1, 7, 6, Acked(8))], position(5, 10, 11), 1),
            (vec![commit(1, 5, 2, Doubtful(7)), commit(1, 7, 6, Acked(8))], position(5, 10, 11), 0),
            (vec![commit(2, 5, 60, Unanswered(61)), commit(2, 7, 162, Acked(163))], position(5, 170, 171), 1),
        ];
        for (nth, (commits, asked, wanted)) in cases.into_iter().enumerate() {
            let mut history = History::default();
            history.groups.commits = commits;
            history.groups.positions.push(asked);
            history.groups.assigned = vec![assigned(1, "m1", 1), assigned(2, "m2", 50)];
            assert_eq!(found(&history), wanted, "case {nth}");
        }
    }

    #[test]
    fn what_a_member_of_a_consumer_group_may_have_committed_counts_until_its_epoch_is_over() {
        let of = |beats: Vec<Beat>| {
            let mut history = History::default();
            history.groups.beats = [vec![given("a", 1, 1, Some(true))], beats].concat();
            history.groups.commits =
                vec![commit_of("a", 1, 5, 3, Unanswered(4)), commit_of("b", 9, 7, 20, Acked(21))];
            history.groups.positions.push(position(5, 30, 31));
            found(&history)
        };
        assert_eq!(of(vec![given("a", 8, 1, None)]), 0);
        assert_eq!(of(vec![given("a", 8, 2, None)]), 1, "it is in another epoch");
        assert_eq!(of(vec![out("a", 8)]), 1, "it is no member");
        assert_eq!(of(vec![given("b", 8, 9, Some(true))]), 1, "another has the partition");
        assert_eq!(of(vec![silent("a", 8), given("b", 8, 9, Some(false))]), 0);
    }
}
