//! Whether a group gets to every record, and tells how far it is in the end.

use std::collections::{BTreeMap, BTreeSet};

use reports::{Verdict, Violation};

use crate::checker::Findings;
use crate::history::{History, Place};

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

/// When all has come to rest, who coordinates a group tells how far it is.
pub fn untold(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("group-untold", Verdict::Freeze);
    for (group, place) in &history.groups.untold {
        findings.add(format!(
            "nobody told how far {group} is, which is kept in {place}, long after the last fault"
        ));
    }
    findings.all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::place;
    use crate::history::groups::GroupRead;

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

    #[test]
    fn a_group_of_which_nobody_tells_is_told() {
        let mut history = History::default();
        assert_eq!(untold(&history), []);
        history.groups.untold.push(("g".into(), place()));
        assert_eq!(untold(&history).len(), 1);
    }
}
