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
number!(
    /// Kafka's broker epoch: the Raft index at which a process start of a broker was registered. 0 for those that
    /// registered before there were any.
    BrokerEpoch(u64)
);
number!(
    /// Version of a partition in the metadata: rises with each change of it, for compare-and-swap.
    PartitionEpoch(i32)
);
number!(
    /// Identity of a replica on its broker: the Raft index at which the broker was given it. Never given twice.
    AssignmentId(u64)
);
number!(
    /// Kafka's producer id, given to an idempotent producer by InitProducerId; -1 where a producer has none.
    ProducerId(i64)
);

impl Offset {
    /// The offset of the first record that a partition ever had.
    pub const ZERO: Offset = Offset(0);

    /// The offset that lies so many records behind this one.
    pub fn plus(self, records: i64) -> Offset {
        Offset(self.0 + records)
    }
}

impl LeaderEpoch {
    /// Kafka's epoch of who names none: no leader has been granted one yet, or a client does not know it.
    pub const NONE: LeaderEpoch = LeaderEpoch(-1);
}

/// Identity of a topic; a name may be reused, an id never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(pub Uuid);

impl TopicId {
    /// Kafka's zero id, which stands for no topic: no topic has it.
    pub const NIL: TopicId = TopicId(Uuid::nil());
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

/// Kafka's incarnation id: drawn by each process when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncarnationId(pub Uuid);

/// Identity of a data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StorageId(pub Uuid);

/// A partition by identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The topic that it belongs to; [`TopicId::NIL`] in [`PartitionId::NODE`] only.
    pub topic: TopicId,
    /// Kafka's partition number, from 0; -1 in [`PartitionId::NODE`] only.
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
