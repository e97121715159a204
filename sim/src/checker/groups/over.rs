//! From when on what a member may have said cannot take effect any more.

use std::collections::BTreeMap;

use super::tenures::{Tenure, tenures};
use crate::history::groups::{Committed, GroupCommit, Groups, Told};
use crate::history::{At, Place};

/// What shows that generations of classic groups, and epochs of members of consumer groups, are over.
pub(super) struct Over<'a> {
    /// When somebody was first told what it owns in each generation of each classic group. That a generation was joined says nothing: until
    /// its assignments are kept, a coordinator that loads the group anew goes on with the one before.
    generations: BTreeMap<(&'a str, i32), At>,
    /// Of each member of a consumer group, up to which epoch nothing counts any more, and since when that is known.
    epochs: BTreeMap<(&'a str, &'a str), Vec<(i32, At)>>,
    /// By group and partition.
    tenures: BTreeMap<(&'a str, &'a Place), Vec<Tenure<'a>>>,
}

impl<'a> Over<'a> {
    pub(super) fn of(groups: &'a Groups) -> Over<'a> {
        let mut generations: BTreeMap<(&str, i32), At> = BTreeMap::new();
        for one in &groups.assigned {
            let known = generations.entry((&one.group, one.generation)).or_insert(one.at);
            *known = (*known).min(one.at);
        }
        let mut last: BTreeMap<(&str, &str), i32> = BTreeMap::new();
        let mut epochs: BTreeMap<(&str, &str), Vec<(i32, At)>> = BTreeMap::new();
        for beat in &groups.beats {
            let member = (&*beat.group, &*beat.member);
            let known = last.entry(member).or_insert(0);
            match &beat.told {
                Told::Member { at, epoch, .. } => {
                    *known = *epoch;
                    epochs.entry(member).or_default().push((epoch - 1, *at));
                }
                Told::Out(at) => epochs.entry(member).or_default().push((*known, *at)),
                Told::GoOn { .. } | Told::Nothing => {}
            }
        }
        let mut by_place: BTreeMap<(&str, &Place), Vec<Tenure<'_>>> = BTreeMap::new();
        for tenure in tenures(groups) {
            by_place.entry((tenure.group, tenure.place)).or_default().push(tenure);
        }
        Over { generations, epochs, tenures: by_place }
    }

    /// When it is known that the coordinator takes no commit any more of who sent this one, as whom it sent it; and by what.
    pub(super) fn since(&self, commit: &GroupCommit) -> Option<(At, String)> {
        let (group, member) = (&*commit.group, &*commit.member);
        let later = self.generations.range((group, commit.generation + 1)..);
        let later = later.take_while(|((of, _), _)| *of == group);
        let generation = later.map(|((_, of), at)| (*at, format!("generation {of} was known")));
        let epochs = self.epochs.get(&(group, member)).into_iter().flatten();
        let epochs = epochs.filter(|(upto, _)| *upto >= commit.generation);
        let epochs = epochs.map(|(_, at)| (*at, "the member had been told that this is over".to_owned()));
        generation.chain(epochs).chain(self.passed_on(commit)).min_by_key(|(at, _)| *at)
    }

    /// Another member was told that it has the partition, after this one had been: so this one has been removed, or has come to a later
    /// epoch by giving up the partition.
    fn passed_on(&self, commit: &GroupCommit) -> Option<(At, String)> {
        let of_place = self.tenures.get(&(&*commit.group, &commit.place))?;
        let own = of_place.iter().rfind(|of| *of.member == *commit.member && of.told <= commit.sent)?;
        let other = of_place.iter().find(|of| *of.member != *commit.member && of.asked > own.told)?;
        Some((other.told, format!("{} was told to have {}", other.member, other.place)))
    }

    /// By when a commit has taken effect, if it ever does. `calm` says from when on nothing that was on its way at some time still is.
    pub(super) fn settled(&self, commit: &GroupCommit, calm: &dyn Fn(At) -> At) -> At {
        match commit.told {
            Committed::Acked(at) | Committed::Doubtful(at) => at,
            Committed::Refused => commit.sent,
            Committed::Unanswered(at) => self.since(commit).map_or(At::MAX, |(over, _)| over).min(calm(at)),
        }
    }
}
