//! What requests need authorized, in Kafka's terms: an operation on a kind of resource.
//!
//! There is one principal, which may do everything; the declarations are what an authorizer will be asked.

/// Kafka's `AclOperation`, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Fetch, and reading group offsets.
    Read = 3,
    /// Produce.
    Write = 4,
    /// Create topics.
    Create = 5,
    /// Delete topics, groups or records.
    Delete = 6,
    /// Change partitions and assignments.
    Alter = 7,
    /// Look at what is there.
    Describe = 8,
    /// What brokers ask of brokers.
    ClusterAction = 9,
    /// Look at configurations.
    DescribeConfigs = 10,
    /// Change configurations.
    AlterConfigs = 11,
    /// Take a producer id. Kafka does not ask for it any more where writing to a topic is allowed (KIP-679).
    IdempotentWrite = 12,
}

use Operation::{
    Alter, AlterConfigs, ClusterAction, Create, Delete, Describe, DescribeConfigs, IdempotentWrite, Read,
    Write,
};

/// On what an operation has to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Everybody may ask, who he is being unknown: ApiVersions.
    Nothing,
    /// On the cluster as a whole.
    OnCluster(Operation),
    /// On each topic that the request names.
    OnTopics(Operation),
    /// On each group that the request names.
    OnGroups(Operation),
    /// On each resource that the request names, by its kind.
    OnResources(Operation),
}

/// Operations as clients are told them: a bit per number.
const fn bits(operations: &[Operation]) -> i32 {
    let mut bits = 0;
    let mut nth = 0;
    while nth < operations.len() {
        bits |= 1 << operations[nth] as u8;
        nth += 1;
    }
    bits
}

/// What everybody may do on the cluster.
pub const CLUSTER_OPERATIONS: i32 =
    bits(&[Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite]);
/// What everybody may do on a topic.
pub const TOPIC_OPERATIONS: i32 =
    bits(&[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs]);
/// What everybody may do with a group.
pub const GROUP_OPERATIONS: i32 = bits(&[Read, Delete, Describe, DescribeConfigs, AlterConfigs]);
/// Nobody asked.
pub const OPERATIONS_OMITTED: i32 = i32::MIN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_operations_are_those_that_kafka_tells_without_an_authorizer() {
        assert_eq!((CLUSTER_OPERATIONS, TOPIC_OPERATIONS), (8_096, 3_576));
    }
}
