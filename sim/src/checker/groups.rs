//! Groups: who may say how far one is, what is told of that, and whether a group gets to every record.

use std::collections::{BTreeMap, BTreeSet};

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::groups::{Assigned, Committed, GroupCommit, GroupPosition, Groups};
use crate::history::{At, History, Place, seconds};

/// What is told of how far a group is was committed, and nothing that was acknowledged is forgotten.
pub fn positions(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("wrong-group-position", Verdict::Safety);
    let mut commits: BTreeMap<(&str, &Place), Vec<&GroupCommit>> = BTreeMap::new();
    for commit in &history.groups.commits {
        commits.entry((&commit.group, &commit.place)).or_default().push(commit);
    }
    let began = generations(&history.groups);
    for position in &history.groups.positions {
        let commits = commits.get(&(&*position.group, &position.place)).map_or(&[][..], Vec::as_slice);
        if let Some(what) = wrong(position, commits, &began) {
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

/// When somebody was first told what it owns in each generation of each group. That a generation was joined says
/// nothing: until its assignments are kept, a coordinator that loads the group anew goes on with the one before.
fn generations(groups: &Groups) -> BTreeMap<(&str, i32), At> {
    let mut began: BTreeMap<(&str, i32), At> = BTreeMap::new();
    for one in &groups.assigned {
        let known = began.entry((&one.group, one.generation)).or_insert(one.at);
        *known = (*known).min(one.at);
    }
    began
}

/// By when a commit has taken effect, if it ever does: one that nobody knows of cannot once a later generation has begun.
fn settled(commit: &GroupCommit, began: &BTreeMap<(&str, i32), At>) -> At {
    match commit.told {
        Committed::Acked(at) => at,
        Committed::Refused => commit.sent,
        Committed::Unknown => {
            let group = &*commit.group;
            let later = began.range((group, commit.generation + 1)..).take_while(|((of, _), _)| *of == group);
            later.map(|(_, at)| *at).min().unwrap_or(At::MAX)
        }
    }
}

/// As of a register that several write: what is read was written before or meanwhile, and is not surely written over.
fn wrong(
    position: &GroupPosition,
    commits: &[&GroupCommit],
    began: &BTreeMap<(&str, i32), At>,
) -> Option<String> {
    let acked = |commit: &GroupCommit| match commit.told {
        Committed::Acked(at) => Some(at),
        Committed::Refused | Committed::Unknown => None,
    };
    // The last of those that surely were before the question.
    let before = commits.iter().filter(|commit| acked(commit).is_some_and(|at| at < position.sent));
    let newest = before.max_by_key(|commit| commit.sent);
    if position.offset < 0 {
        return newest.map(|commit| format!("{} had been acknowledged", commit.offset));
    }
    let may_be = |commit: &&&GroupCommit| {
        commit.offset == position.offset && commit.sent < position.at && commit.told != Committed::Refused
    };
    let mut candidates = commits.iter().filter(may_be).peekable();
    if candidates.peek().is_none() {
        return Some("nobody had committed that".into());
    }
    let stands = |commit: &&GroupCommit| newest.is_none_or(|newest| settled(commit, began) >= newest.sent);
    if candidates.any(stands) {
        return None;
    }
    newest.map(|commit| format!("{} had been acknowledged since", commit.offset))
}

/// In one generation a partition has one owner, and who is of an earlier generation may commit no more when a later one has begun.
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
    let began = generations(&history.groups);
    for commit in &history.groups.commits {
        let Committed::Acked(at) = commit.told else { continue };
        let group = &*commit.group;
        let mut later = began.range((group, commit.generation + 1)..).take_while(|((of, _), _)| *of == group);
        let before = later.find(|(_, began)| **began < commit.sent);
        if let Some(((_, generation), since)) = before {
            findings.add(format!(
                "{} of generation {} of {group} committed offset {} of {}, and was acknowledged at {}, though generation \
                 {generation} was known since {}",
                commit.member,
                commit.generation,
                commit.offset,
                commit.place,
                seconds(at),
                seconds(*since)
            ));
        }
    }
    findings.all()
}

/// Ids of static members begin with what their operators call them.
fn is_same_static(one: &str, other: &str) -> bool {
    const RANDOM: usize = "-00000000-0000-0000-0000-000000000000".len();
    let named = |id: &str| id.len().checked_sub(RANDOM).map(|end| id[..end].to_owned());
    named(one).is_some_and(|name| name.starts_with("static-") && Some(name) == named(other))
}

/// A group that has all the time reads every acknowledged record, and says so.
pub fn progress(history: &History) -> Vec<Violation> {
    let mut behind = Findings::of("group-behind", Verdict::Freeze);
    let mut missed = Findings::of("group-skip", Verdict::Safety);
    let mut ends: BTreeMap<(&str, &Place), (i64, bool)> = BTreeMap::new();
    for (group, place, offset, has_all) in &history.groups.ends {
        let end = ends.entry((group, place)).or_default();
        *end = (end.0.max(*offset), end.1 | has_all);
    }
    let told: BTreeSet<&str> =
        ends.iter().filter(|(_, (_, has_all))| !has_all).map(|((group, _), _)| *group).collect();
    for group in told {
        let at: Vec<String> = ends
            .iter()
            .filter(|((of, _), _)| *of == group)
            .map(|((_, place), (offset, _))| format!("{place} at {offset}"))
            .collect();
        behind.add(format!("{group} did not get to the end: it is in {}", at.join(", ")));
    }
    let mut reads: BTreeMap<(&str, &Place), Vec<(i64, i64)>> = BTreeMap::new();
    for read in &history.groups.reads {
        reads.entry((&read.group, &read.place)).or_default().push((read.from, read.until));
    }
    for ((group, place), (end, _)) in ends {
        let mut read = reads.remove(&(group, place)).unwrap_or_default();
        read.sort_unstable();
        let start = history.start_of(place);
        let covered = read.iter().fold(start, |covered, (from, until)| match *from <= covered {
            true => covered.max(*until),
            false => covered,
        });
        if covered < end {
            missed.add(format!(
                "{group} is at offset {end} of {place}, and no member of it read offset {covered}"
            ));
        }
    }
    let mut all = behind.all();
    all.extend(missed.all());
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::checker::stories::place;
    use crate::history::groups::GroupRead;

    fn commit(generation: i32, offset: i64, sent: At, told: Committed) -> GroupCommit {
        let (group, member) = (Arc::from("g"), Arc::from(format!("m{generation}")));
        GroupCommit { group, generation, member, place: place(), offset, sent, told }
    }

    fn assigned(generation: i32, member: &str, at: At) -> Assigned {
        Assigned { group: "g".into(), generation, member: member.into(), places: vec![place()], at }
    }

    fn told(offset: i64, sent: At, at: At) -> GroupPosition {
        GroupPosition { client: "c".into(), group: "g".into(), place: place(), offset, sent, at }
    }

    fn history(commits: Vec<GroupCommit>, asked: GroupPosition) -> History {
        let mut history = History::default();
        history.groups.commits = commits;
        history.groups.positions.push(asked);
        history.groups.assigned = vec![assigned(1, "m1", 1), assigned(2, "m2", 50)];
        history
    }

    #[test]
    fn a_position_is_the_last_that_was_committed_or_one_that_may_have_been() {
        use Committed::{Acked, Refused, Unknown};
        let cases: [(Vec<GroupCommit>, GroupPosition, usize); 11] = [
            (vec![], told(-1, 10, 11), 0),
            (vec![], told(3, 10, 11), 1),
            (vec![commit(1, 5, 2, Acked(4))], told(5, 10, 11), 0),
            (vec![commit(1, 5, 2, Acked(4))], told(-1, 10, 11), 1),
            (vec![commit(1, 5, 2, Acked(4)), commit(1, 7, 6, Acked(8))], told(5, 10, 11), 1),
            // Not known to be over before the question.
            (vec![commit(1, 5, 2, Acked(4)), commit(1, 7, 6, Acked(12))], told(5, 10, 13), 0),
            (vec![commit(1, 5, 2, Unknown), commit(1, 7, 6, Acked(8))], told(5, 10, 11), 0),
            // Once another generation has begun it cannot come any more.
            (vec![commit(1, 5, 2, Unknown), commit(2, 7, 60, Acked(61))], told(5, 70, 71), 1),
            (vec![commit(1, 5, 2, Refused)], told(5, 10, 11), 1),
            (vec![commit(1, 5, 2, Unknown)], told(-1, 10, 11), 0),
            (vec![commit(1, 5, 12, Acked(13))], told(5, 10, 11), 1),
        ];
        for (nth, (commits, asked, wanted)) in cases.into_iter().enumerate() {
            assert_eq!(positions(&history(commits, asked)).len(), wanted, "case {nth}");
        }
    }

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

    #[test]
    fn a_group_that_stays_behind_is_told_and_so_is_a_record_that_nobody_read() {
        let mut history = History::default();
        history.groups.ends = vec![("g".into(), place(), 7, false), ("g".into(), place(), 9, true)];
        let read = |from, until| GroupRead { group: "g".into(), place: place(), from, until };
        history.groups.reads = vec![read(4, 9), read(0, 5)];
        assert_eq!(progress(&history), []);
        history.groups.reads.pop();
        assert_eq!(progress(&history).len(), 1);
        history.groups.reads.push(read(0, 5));
        history.groups.ends.pop();
        assert_eq!(progress(&history).len(), 1);
    }
}
