//! Which member of a group gets which partitions, where the coordinator decides that (KIP-848). Pure.
//!
//! Whatever an assignor says: each partition that anybody subscribes to has one member, who subscribes to its topic; nobody gets another.

use std::collections::BTreeMap;

use super::ids::MemberId;

mod spec;
mod range;
mod uniform;

pub use spec::{Assignment, GroupSpec, MemberSpec};

/// A way of assigning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// As many partitions for each as for any other, and as few moves as that takes.
    Uniform,
    /// Of each topic a range for each, in the order of their names: members get the same numbers of all topics that have as many.
    Range,
}

impl Assignor {
    /// All, in the order of preference of who does not say.
    pub const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

    /// As clients and operators call it.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Assignor> {
        Assignor::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// What each member is to have.
    pub fn assign(self, group: &GroupSpec) -> BTreeMap<MemberId, Assignment> {
        match self {
            Assignor::Uniform => uniform::assign(group),
            Assignor::Range => range::assign(group),
        }
    }
}

#[cfg(test)]
mod tests;
