//! How a member comes from what it has to what it is to have: it gives up first, and then is given what nobody else has. Pure.

use super::super::assignor::Assignment;
use crate::ids::TopicId;

/// Of a group, of what was decided for it, or of a member; 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub i32);

impl Epoch {
    pub(super) fn next(self) -> Epoch {
        Epoch(self.0.checked_add(1).unwrap_or(1))
    }
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeldState {
    /// It has what it is to have in its epoch.
    #[default]
    Stable,
    /// It is to give up what it still has, before its epoch can rise.
    Unrevoked,
    /// Others have yet to give up what it is to have.
    Unreleased,
}

/// What a member has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The epoch that it has come to; none before it has come to any.
    pub epoch: Epoch,
    /// The one before: its answer may have been lost.
    pub previous: Epoch,
    /// Where it stands.
    pub state: HeldState,
    /// What it was told to have.
    pub assigned: Assignment,
    /// What it is to give up, and has not said that it has.
    pub revoking: Assignment,
}

impl Held {
    pub(super) fn is_nothing(&self) -> bool {
        self.assigned.is_empty() && self.revoking.is_empty()
    }

    fn at(&self, epoch: Epoch, state: HeldState, assigned: Assignment, revoking: Assignment) -> Held {
        let previous = if epoch == self.epoch { self.previous } else { self.epoch };
        Held { epoch, previous, state, assigned, revoking }
    }
}

/// The next step of a member that has `held`, by its own word `owned` where it says, towards `target`. `is_free` says of a partition that
/// no other member has it.
pub(super) fn step(
    held: &Held,
    target_epoch: Epoch,
    target: &Assignment,
    owned: Option<&Assignment>,
    is_free: impl Fn(TopicId, i32) -> bool,
) -> Held {
    let has_still = |given_up: &Assignment| owned.is_none_or(|owned| meet(owned, given_up));
    match held.state {
        HeldState::Stable if held.epoch == target_epoch => return held.clone(),
        HeldState::Unrevoked if has_still(&held.revoking) => return held.clone(),
        HeldState::Stable | HeldState::Unrevoked | HeldState::Unreleased => {}
    }
    let mut assigned = common(&held.assigned, target);
    let revoking = without(&held.assigned, target);
    if !revoking.is_empty() && has_still(&revoking) {
        return held.at(held.epoch, HeldState::Unrevoked, assigned, revoking);
    }
    let mut waits = false;
    for (topic, partitions) in without(target, &held.assigned) {
        let (free, taken): (Vec<_>, Vec<_>) =
            partitions.into_iter().partition(|partition| is_free(topic, *partition));
        waits |= !taken.is_empty();
        if !free.is_empty() {
            assigned.entry(topic).or_default().extend(free);
        }
    }
    let state = if waits { HeldState::Unreleased } else { HeldState::Stable };
    held.at(target_epoch, state, assigned, Assignment::new())
}

fn common(these: &Assignment, those: &Assignment) -> Assignment {
    let both = these.iter().filter_map(|(topic, partitions)| {
        let both = partitions & those.get(topic)?;
        (!both.is_empty()).then_some((*topic, both))
    });
    both.collect()
}

fn without(these: &Assignment, those: &Assignment) -> Assignment {
    let left = these.iter().filter_map(|(topic, partitions)| {
        let left = those.get(topic).map_or_else(|| partitions.clone(), |others| partitions - others);
        (!left.is_empty()).then_some((*topic, left))
    });
    left.collect()
}

fn meet(these: &Assignment, those: &Assignment) -> bool {
    these
        .iter()
        .any(|(topic, partitions)| those.get(topic).is_some_and(|others| !partitions.is_disjoint(others)))
}

/// Whether all of these are among those.
pub(super) fn is_within(these: &Assignment, those: &Assignment) -> bool {
    without(these, those).is_empty()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn of(partitions: &[i32]) -> Assignment {
        let topic = TopicId(Uuid::from_u128(1));
        if partitions.is_empty() {
            Assignment::new()
        } else {
            [(topic, partitions.iter().copied().collect())].into()
        }
    }

    fn held(epoch: i32, state: HeldState, assigned: &[i32], revoking: &[i32]) -> Held {
        Held {
            epoch: Epoch(epoch),
            previous: Epoch(epoch - 1),
            state,
            assigned: of(assigned),
            revoking: of(revoking),
        }
    }

    use HeldState::{Stable, Unreleased, Unrevoked};

    #[test]
    fn a_member_gives_up_before_it_is_given_and_is_given_what_is_free() {
        /// What there is; target; what the member says it has; what others have; what there is then.
        type Case<'a> = (Held, &'a [i32], Option<&'a [i32]>, &'a [i32], Held);
        let epoch_5 = |state, assigned: &[i32], revoking: &[i32]| Held {
            epoch: Epoch(5),
            previous: Epoch(4),
            ..held(5, state, assigned, revoking)
        };
        let cases: [Case<'_>; 10] = [
            // Nothing has changed.
            (held(5, Stable, &[1, 2], &[]), &[1, 2], None, &[], held(5, Stable, &[1, 2], &[])),
            // The same in a later epoch.
            (held(4, Stable, &[1, 2], &[]), &[1, 2], None, &[], epoch_5(Stable, &[1, 2], &[])),
            // More, and nobody has it.
            (held(4, Stable, &[1], &[]), &[1, 2], None, &[], epoch_5(Stable, &[1, 2], &[])),
            // More, and another has some of it.
            (held(4, Stable, &[1], &[]), &[1, 2, 3], None, &[3], epoch_5(Unreleased, &[1, 2], &[])),
            // Less: the epoch stays until it says that it has given up.
            (held(4, Stable, &[1, 2], &[]), &[1], None, &[], held(4, Unrevoked, &[1], &[2])),
            (held(4, Unrevoked, &[1], &[2]), &[1], Some(&[1, 2]), &[], held(4, Unrevoked, &[1], &[2])),
            (held(4, Unrevoked, &[1], &[2]), &[1], None, &[], held(4, Unrevoked, &[1], &[2])),
            (held(4, Unrevoked, &[1], &[2]), &[1, 3], Some(&[1]), &[], epoch_5(Stable, &[1, 3], &[])),
            // It waits, and the other gives up.
            (epoch_5(Unreleased, &[1, 2], &[]), &[1, 2, 3], None, &[], epoch_5(Stable, &[1, 2, 3], &[])),
            // It had given up already what is not to be its any more.
            (held(4, Stable, &[1, 2], &[]), &[1], Some(&[1]), &[], epoch_5(Stable, &[1], &[])),
        ];
        for (nth, (before, target, owned, taken, after)) in cases.into_iter().enumerate() {
            let owned = owned.map(of);
            let next = step(&before, Epoch(5), &of(target), owned.as_ref(), |_, partition| {
                !taken.contains(&partition)
            });
            assert_eq!(next, after, "case {nth}");
        }
    }
}
