//! Who has which partition of a consumer group (KIP-848), and when: as far as members and what they were told can show.
//!
//! A member begins to have a partition when it is told so. It ends that by saying that it has given it up, by beginning anew or going,
//! or by being told that it is no member. Whatever it is answered as a member in between shows that the coordinator has it as the owner.

use std::collections::BTreeMap;

use crate::history::groups::{Beat, Groups, Told};
use crate::history::{At, Place};

#[derive(Debug, PartialEq)]
pub(super) struct Tenure<'a> {
    pub(super) group: &'a str,
    pub(super) member: &'a str,
    pub(super) place: &'a Place,
    /// When it sent the question to which the partition was the answer.
    pub(super) asked: At,
    /// When it was told.
    pub(super) told: At,
    /// When it began to give it up. [`At::MAX`]: never, as far as anybody knows.
    pub(super) until: At,
    /// When it sent what was answered as to a member, in order: the coordinator has heard of it then or later.
    pub(super) heard: Vec<At>,
}

/// All of them, in the order in which they began.
pub(super) fn tenures(groups: &Groups) -> Vec<Tenure<'_>> {
    let mut open: BTreeMap<(&str, &str), Vec<Tenure<'_>>> = BTreeMap::new();
    let mut all = Vec::new();
    for beat in &groups.beats {
        let of_member = open.entry((&beat.group, &beat.member)).or_default();
        if let Some(keeps) = &beat.keeps {
            end(of_member, &mut all, beat.sent, |tenure| !keeps.contains(tenure.place));
        }
        match &beat.told {
            Told::Member { at, given, .. } => {
                of_member.iter_mut().for_each(|tenure| tenure.heard.push(beat.sent));
                for place in given.iter().flatten() {
                    if !of_member.iter().any(|tenure| tenure.place == place) {
                        of_member.push(begun(beat, place, *at));
                    }
                }
            }
            Told::GoOn { session } => {
                of_member.iter_mut().for_each(|tenure| tenure.go_on(beat.sent, *session))
            }
            Told::Out(at) => end(of_member, &mut all, *at, |_| true),
            Told::Nothing => {}
        }
    }
    all.extend(open.into_values().flatten());
    all.sort_by_key(|tenure| tenure.told);
    all
}

fn begun<'a>(beat: &'a Beat, place: &'a Place, told: At) -> Tenure<'a> {
    Tenure {
        group: &beat.group,
        member: &beat.member,
        place,
        asked: beat.sent,
        told,
        until: At::MAX,
        heard: vec![beat.sent],
    }
}

fn end<'a>(
    open: &mut Vec<Tenure<'a>>,
    all: &mut Vec<Tenure<'a>>,
    at: At,
    is_over: impl Fn(&Tenure<'_>) -> bool,
) {
    let (over, rest) = std::mem::take(open).into_iter().partition(is_over);
    *open = rest;
    let over: Vec<Tenure<'a>> = over;
    all.extend(over.into_iter().map(|tenure| Tenure { until: at, ..tenure }));
}

impl Tenure<'_> {
    /// Who has been silent for as long as a session may be none by now.
    fn go_on(&mut self, sent: At, session: At) {
        let is_fresh = self.heard.last().is_some_and(|last| sent < last + session);
        self.heard.extend(is_fresh.then_some(sent));
    }

    /// When it was last told to be a member, while it had the partition: the coordinator had it as the owner then or later.
    pub(super) fn sure_until(&self) -> At {
        self.heard.last().copied().unwrap_or(self.asked).max(self.told)
    }

    /// When it was last heard of, of what it sent by `at`.
    pub(super) fn heard_by(&self, at: At) -> At {
        self.heard.iter().copied().filter(|sent| *sent <= at).max().unwrap_or(self.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::super::group_stories::*;
    use super::*;

    #[test]
    fn a_partition_is_a_members_from_when_it_is_told_until_it_says_otherwise() {
        let spans = |beats: Vec<Beat>| -> Vec<(At, At, Vec<At>)> {
            let groups = Groups { beats, ..Groups::default() };
            tenures(&groups).into_iter().map(|of| (of.told, of.until, of.heard)).collect()
        };
        let has = || given("a", 1, 1, Some(true));
        assert_eq!(spans(vec![has(), given("a", 5, 1, None)]), [(2, At::MAX, vec![1, 5])]);
        // Told to give it up it has it until it has.
        let told = given("a", 5, 1, Some(false));
        assert_eq!(spans(vec![has(), told.clone()]), [(2, At::MAX, vec![1, 5])]);
        assert_eq!(spans(vec![has(), told, releasing(silent("a", 7))]), [(2, 7, vec![1, 5])]);
        assert_eq!(spans(vec![has(), out("a", 5)]), [(2, 6, vec![1])]);
        let goes_on = |sent| Beat { told: Told::GoOn { session: 10 }, ..silent("a", sent) };
        assert_eq!(
            spans(vec![has(), goes_on(10), goes_on(20)]),
            [(2, At::MAX, vec![1, 10])],
            "it may be none"
        );
        let again = releasing(given("a", 7, 2, Some(true)));
        assert_eq!(spans(vec![has(), again]), [(2, 7, vec![1]), (8, At::MAX, vec![7])]);
    }
}
