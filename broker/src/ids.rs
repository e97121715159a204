//! Names for numbers: no bare integer crosses a module border.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// A node of the cluster, Kafka's broker id.
    BrokerId(i32)
);
number!(
    /// Position of a record in a partition.
    Offset(i64)
);
number!(
    /// Kafka's leader epoch: rises with each grant of leadership.
    LeaderEpoch(i32)
);
number!(
    /// Position of an entry in a journal, node-wide, never reused. The first entry has 1.
    Lsn(u64)
);
number!(
    /// Number of a process start of a node, rising.
    Incarnation(u64)
);
number!(ProducerId(i64));

impl Offset {
    pub const ZERO: Offset = Offset(0);

    pub fn plus(self, records: i64) -> Offset {
        Offset(self.0 + records)
    }
}

impl LeaderEpoch {
    pub const NONE: LeaderEpoch = LeaderEpoch(-1);
}

/// Identity of a topic; a name may be reused, an id never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(pub Uuid);

impl TopicId {
    pub const NIL: TopicId = TopicId(Uuid::nil());
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

/// Identity of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StorageId(pub Uuid);

/// A partition by identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    pub topic: TopicId,
    pub index: i32,
}

impl PartitionId {
    /// For journal entries that belong to the node and not to a partition.
    pub const NODE: PartitionId = PartitionId { topic: TopicId::NIL, index: -1 };
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}
