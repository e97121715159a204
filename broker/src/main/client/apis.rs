//! The requests that are sent, the versions of each that are known here, and what a second time of each would do.

use kafka_protocol::messages::{
    ApiVersionsRequest, ConsumerGroupDescribeRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeQuorumRequest, FetchRequest,
    FindCoordinatorRequest, IncrementalAlterConfigsRequest, ListGroupsRequest, ListOffsetsRequest,
    ListPartitionReassignmentsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, ProduceRequest,
};
use kafka_protocol::protocol::Request;

/// A request of which some versions are known.
pub trait Known: Request {
    const NAME: &'static str;
    const FIRST: i16;
    const LAST: i16;
    /// Whether a second one leaves all as one does: it is then sent again when its connection ends without an answer.
    const REPEATABLE: bool;
}

macro_rules! known {
    ($($request:ident $first:literal ..= $last:literal $repeatable:literal;)*) => {
        $(impl Known for $request {
            const NAME: &'static str = stringify!($request);
            const FIRST: i16 = $first;
            const LAST: i16 = $last;
            const REPEATABLE: bool = $repeatable;
        })*
    };
}

// Produce, Fetch and OffsetCommit end where topics have ids in place of names; others begin where what is shown is told.
known! {
    ApiVersionsRequest 0..=0 true;
    ProduceRequest 3..=12 true;
    FetchRequest 4..=12 true;
    ListOffsetsRequest 4..=10 true;
    MetadataRequest 9..=13 true;
    OffsetCommitRequest 2..=9 true;
    OffsetFetchRequest 8..=9 true;
    FindCoordinatorRequest 4..=6 true;
    DescribeGroupsRequest 4..=6 true;
    ListGroupsRequest 4..=5 true;
    CreateTopicsRequest 5..=7 false;
    DeleteTopicsRequest 1..=5 false;
    DeleteRecordsRequest 0..=2 true;
    DescribeConfigsRequest 1..=4 true;
    CreatePartitionsRequest 0..=3 false;
    DeleteGroupsRequest 0..=2 false;
    IncrementalAlterConfigsRequest 0..=1 true;
    ListPartitionReassignmentsRequest 0..=0 true;
    OffsetDeleteRequest 0..=0 true;
    DescribeQuorumRequest 0..=2 true;
    DescribeClusterRequest 0..=2 true;
    ConsumerGroupDescribeRequest 0..=1 true;
}

/// The newest version that both sides know.
pub fn agreed<R: Known>(served: Option<(i16, i16)>) -> Option<i16> {
    let (first, last) = served?;
    let version = last.min(R::LAST);
    (version >= first.max(R::FIRST)).then_some(version)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Message;

    use super::*;

    #[test]
    fn the_newest_version_that_both_know_is_spoken() {
        assert_eq!(agreed::<MetadataRequest>(Some((0, 12))), Some(12));
        assert_eq!(agreed::<MetadataRequest>(Some((0, 99))), Some(13));
        assert_eq!(agreed::<MetadataRequest>(Some((0, 8))), None, "too old");
        assert_eq!(agreed::<FetchRequest>(Some((13, 17))), None, "too new");
        assert_eq!(agreed::<MetadataRequest>(None), None, "not served");
    }

    #[test]
    fn the_codec_has_the_versions_that_are_known() {
        fn has<R: Known>() {
            let codec = <R as Message>::VERSIONS;
            assert!(codec.min <= R::FIRST && R::LAST <= codec.max, "{}", R::NAME);
        }
        has::<ProduceRequest>();
        has::<FetchRequest>();
        has::<ListOffsetsRequest>();
        has::<MetadataRequest>();
        has::<OffsetCommitRequest>();
        has::<OffsetFetchRequest>();
        has::<FindCoordinatorRequest>();
        has::<DescribeGroupsRequest>();
        has::<ListGroupsRequest>();
        has::<CreateTopicsRequest>();
        has::<DeleteTopicsRequest>();
        has::<DescribeConfigsRequest>();
        has::<DescribeQuorumRequest>();
        has::<DescribeClusterRequest>();
        has::<ConsumerGroupDescribeRequest>();
    }
}
