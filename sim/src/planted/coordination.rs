//! Slips in coordinating groups: between those who ask and who answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::parts::groups::{Committer, CoordinatorInput, Generation, GroupId, MemberId};
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
