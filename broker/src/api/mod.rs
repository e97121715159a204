//! What clients can ask for, a file for each, and the table of all of them.
//!
//! The table is what ApiVersions tells, what bytes are decoded by, what is counted by name, and who handles what. An API is
//! added by a file of its own, in which its request implements [`declaration::Api`], and a row here.

use bytes::Bytes;
use io_backend::Backend;
use kafka_protocol::messages::{
    AddRaftVoterRequest, AlterConfigsRequest, AlterPartitionReassignmentsRequest, ApiKey,
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, CreatePartitionsRequest,
    CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest,
    DescribeQuorumRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest, FindCoordinatorRequest,
    HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest,
    LeaveGroupRequest, ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest,
    ListPartitionReassignmentsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, OffsetForLeaderEpochRequest, RemoveRaftVoterRequest, SyncGroupRequest,
    UnregisterBrokerRequest,
};

use crate::wire::WireError;

pub mod authorization;
pub mod declaration;
#[cfg(test)]
pub(crate) mod test_requests;

mod changes;
mod config_entries;
mod config_changes;
pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod api_versions;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_log_dirs;
pub mod create_topics;
pub mod create_partitions;
pub mod describe_quorum;
pub mod elect_leaders;
pub mod fetch;
pub mod find_coordinator;
mod groups;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod list_config_resources;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod metadata;
pub mod describe_topic_partitions;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod raft_voters;
pub mod unregister_broker;

pub use declaration::{Answer, Asked, Call, Finished, Pending};

use declaration::Row;

/// The table for one backend.
struct Table<B>(std::marker::PhantomData<B>);

impl<B: Backend> Table<B> {
    /// In order of API key, as clients print it.
    const ROWS: &'static [Row<B>] = &[
        Row { declaration: produce::DECLARATION, ask: produce::ask },
        Row { declaration: fetch::DECLARATION, ask: fetch::ask },
        Row::of::<ListOffsetsRequest>(),
        Row::of::<MetadataRequest>(),
        Row::in_line::<OffsetCommitRequest>(),
        Row::in_line::<OffsetFetchRequest>(),
        Row::of::<FindCoordinatorRequest>(),
        Row::in_line::<JoinGroupRequest>(),
        Row::in_line::<HeartbeatRequest>(),
        Row::in_line::<LeaveGroupRequest>(),
        Row::in_line::<SyncGroupRequest>(),
        Row::in_line::<DescribeGroupsRequest>(),
        Row::in_line::<ListGroupsRequest>(),
        Row {
            declaration: api_versions::DECLARATION,
            ask: |call, body| api_versions::ask(call, body, rows()),
        },
        Row::of::<CreateTopicsRequest>(),
        Row::of::<DeleteTopicsRequest>(),
        Row::of::<DeleteRecordsRequest>(),
        Row::of::<InitProducerIdRequest>(),
        Row::of::<OffsetForLeaderEpochRequest>(),
        Row::of::<DescribeConfigsRequest>(),
        Row::of::<AlterConfigsRequest>(),
        Row::of::<DescribeLogDirsRequest>(),
        Row::of::<CreatePartitionsRequest>(),
        Row::in_line::<DeleteGroupsRequest>(),
        Row::of::<ElectLeadersRequest>(),
        Row::of::<IncrementalAlterConfigsRequest>(),
        Row::of::<AlterPartitionReassignmentsRequest>(),
        Row::of::<ListPartitionReassignmentsRequest>(),
        Row::in_line::<OffsetDeleteRequest>(),
        Row::of::<DescribeQuorumRequest>(),
        Row::of::<DescribeClusterRequest>(),
        Row::of::<UnregisterBrokerRequest>(),
        Row::in_line::<ConsumerGroupHeartbeatRequest>(),
        Row::in_line::<ConsumerGroupDescribeRequest>(),
        Row::of::<ListConfigResourcesRequest>(),
        Row::of::<DescribeTopicPartitionsRequest>(),
        Row::of::<AddRaftVoterRequest>(),
        Row::of::<RemoveRaftVoterRequest>(),
    ];

    /// For each key where its row stands, and one more than any where it has none.
    const AT: [u8; KEYS] = {
        let mut at = [u8::MAX; KEYS];
        let mut nth = 0;
        while nth < Self::ROWS.len() {
            at[Self::ROWS[nth].declaration.key as usize] = nth as u8;
            nth += 1;
        }
        at
    };
}

/// More than the largest key.
const KEYS: usize = 128;

/// The table, in the order in which clients print it.
pub fn rows<B: Backend>() -> &'static [Row<B>] {
    Table::<B>::ROWS
}

fn row<B: Backend>(key: i16) -> Option<&'static Row<B>> {
    let at = *Table::<B>::AT.get(usize::try_from(key).ok()?)?;
    rows().get(usize::from(at))
}

/// Keys and names of all APIs, for what is counted by API.
pub fn names<B: Backend>() -> impl Iterator<Item = (i16, String)> {
    rows::<B>().iter().map(|row| (row.declaration.key as i16, format!("{:?}", row.declaration.key)))
}

/// Whether requests of this key and version are served; the key then.
pub fn served<B: Backend>(key: i16, version: i16) -> Option<ApiKey> {
    let declaration = &row::<B>(key)?.declaration;
    declaration.versions.contain(version).then_some(declaration.key)
}

/// From what follows the header of a request to a request of its API.
///
/// # Errors
/// The bytes are no request of their key and version, or that is not served and has no answer.
pub fn ask<B: Backend>(call: Call<B>, body: Bytes) -> Result<Asked, WireError> {
    let head = call.head;
    match row::<B>(head.key) {
        Some(row) if row.declaration.versions.contain(head.version) => (row.ask)(call, body),
        _ => api_versions::unserved(head, rows::<B>()).map(Asked::Done),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod table_tests;
