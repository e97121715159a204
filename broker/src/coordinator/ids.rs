//! Names for groups, their members and generations.

use std::sync::Arc;

/// A group's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupId(pub Arc<str>);

/// Identity of a member, given by the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub Arc<str>);

/// Identity of a static member (`group.instance.id`), given by its operator: whoever comes with it takes over from the one before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub Arc<str>);

/// Number of a group's memberships, rising: each join phase that ends begins the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub i32);

impl Generation {
    /// Kafka's generation of who is no member: an administrator, or a consumer that assigns itself.
    pub const NONE: Generation = Generation(-1);

    /// That of the next join phase.
    pub fn next(self) -> Generation {
        Generation(self.0.checked_add(1).unwrap_or(1))
    }
}
