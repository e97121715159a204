//! Short histories of groups, for the tests of their checkers.

use std::sync::Arc;

use crate::checker::stories::place;
use crate::history::At;
use crate::history::groups::{Assigned, Beat, Committed, GroupCommit, GroupPosition, Told};

/// Of member `m<generation>` of the group `g`.
pub(super) fn commit(generation: i32, offset: i64, sent: At, told: Committed) -> GroupCommit {
    commit_of(&format!("m{generation}"), generation, offset, sent, told)
}

pub(super) fn commit_of(member: &str, epoch: i32, offset: i64, sent: At, told: Committed) -> GroupCommit {
    let group = Arc::from("g");
    GroupCommit { group, generation: epoch, member: member.into(), place: place(), offset, sent, told }
}

pub(super) fn assigned(generation: i32, member: &str, at: At) -> Assigned {
    Assigned { group: "g".into(), generation, member: member.into(), places: vec![place()], at }
}

pub(super) fn position(offset: i64, sent: At, at: At) -> GroupPosition {
    GroupPosition { client: "c".into(), group: "g".into(), place: place(), offset, sent, at }
}

/// A member of the consumer group `g` is told its epoch, a moment after it asked, and that it has the partition or, with `false`, nothing.
pub(super) fn given(member: &str, sent: At, epoch: i32, has: Option<bool>) -> Beat {
    let given = has.map(|has| if has { vec![place()] } else { Vec::new() });
    Beat { told: Told::Member { at: sent + 1, epoch, given }, ..silent(member, sent) }
}

/// ... says that it has nothing.
pub(super) fn releasing(beat: Beat) -> Beat {
    Beat { keeps: Some(Vec::new()), ..beat }
}

/// ... is told that it is none.
pub(super) fn out(member: &str, sent: At) -> Beat {
    Beat { told: Told::Out(sent + 1), ..silent(member, sent) }
}

/// ... is not answered.
pub(super) fn silent(member: &str, sent: At) -> Beat {
    Beat { group: "g".into(), member: member.into(), keeps: None, sent, told: Told::Nothing }
}
