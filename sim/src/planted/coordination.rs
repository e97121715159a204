//! Slips in coordinating groups: between those who ask and who answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::parts::groups::{Committer, CoordinatorInput, Epoch, Generation, GroupId, Joining, MemberId};
use broker::parts::{Hear, Parts};
use io_backend::Replier;

use crate::world::{SimBackend, lock};

/// No member is silent for so long in a run.
const SESSION: Duration = Duration::from_secs(600);

/// A commit is acknowledged when it is asked for.
pub(super) fn plant_early_commit(parts: &mut Parts<SimBackend>) {
    parts.groups = Arc::new(|input| match input {
        CoordinatorInput::Commit { group, by, offsets, reply } => {
            reply.answer(Ok(()));
            CoordinatorInput::Commit { group, by, offsets, reply: Replier::to_nobody() }
        }
        other => other,
    });
}

/// A commit of a generation that is over is taken for one of a member of the current one.
pub(super) fn plant_unchecked_generation(parts: &mut Parts<SimBackend>) {
    let current: Mutex<BTreeMap<GroupId, (Generation, MemberId)>> = Mutex::default();
    let hear: Hear = Arc::new(move |input| match input {
        CoordinatorInput::Sync { group, sync } => {
            lock(&current).insert(group.clone(), (sync.generation, sync.member.clone()));
            CoordinatorInput::Sync { group, sync }
        }
        CoordinatorInput::Commit { group, by, offsets, reply } => {
            let known = lock(&current).get(&group).cloned();
            let by = match known {
                Some((generation, member)) if by.generation < generation => {
                    Committer { member: Some(member), instance: None, generation }
                }
                _ => by,
            };
            CoordinatorInput::Commit { group, by, offsets, reply }
        }
        other => other,
    });
    parts.groups = hear;
}

/// Sessions of members do not end.
pub(super) fn plant_endless_sessions(parts: &mut Parts<SimBackend>) {
    parts.groups = Arc::new(|input| match input {
        CoordinatorInput::Join { group, mut join, fresh } => {
            join.session_timeout = SESSION;
            CoordinatorInput::Join { group, join, fresh }
        }
        other => other,
    });
}

/// A commit of a member of a consumer group whose epoch is behind others' is taken for one of them.
pub(super) fn plant_unchecked_member_epoch(parts: &mut Parts<SimBackend>) {
    let newest: Mutex<BTreeMap<GroupId, (Epoch, MemberId)>> = Mutex::default();
    parts.groups = Arc::new(move |input| match input {
        CoordinatorInput::ConsumerHeartbeat { group, beat, reply } => {
            if let Joining::Member(epoch) = beat.epoch {
                let mut newest = lock(&newest);
                let known = newest.entry(group.clone()).or_insert((epoch, beat.member.clone()));
                if epoch >= known.0 {
                    *known = (epoch, beat.member.clone());
                }
            }
            CoordinatorInput::ConsumerHeartbeat { group, beat, reply }
        }
        CoordinatorInput::Commit { group, by, offsets, reply } => {
            let known = lock(&newest).get(&group).cloned();
            let by = match known {
                Some((epoch, member)) if by.generation.0 < epoch.0 => {
                    Committer { member: Some(member), instance: None, generation: Generation(epoch.0) }
                }
                _ => by,
            };
            CoordinatorInput::Commit { group, by, offsets, reply }
        }
        other => other,
    });
}

/// A member of a consumer group that is to give up a partition is given no time for it: the next one has it at once.
pub(super) fn plant_no_time_to_give_up(parts: &mut Parts<SimBackend>) {
    parts.groups = Arc::new(|input| match input {
        CoordinatorInput::ConsumerHeartbeat { group, mut beat, reply } => {
            beat.rebalance_timeout = beat.rebalance_timeout.map(|_| Duration::ZERO);
            CoordinatorInput::ConsumerHeartbeat { group, beat, reply }
        }
        other => other,
    });
}
