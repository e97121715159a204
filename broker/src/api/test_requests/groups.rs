//! What is asked of groups.

use super::*;

fn group() -> GroupId {
    GroupId(text())
}

pub(super) fn offset_commit(version: i16) -> OffsetCommitRequest {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};

    let mut partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(7)
        .with_committed_metadata(Some(text()));
    if version >= 6 {
        partition.committed_leader_epoch = 3;
    }
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name())
        .with_partitions(vec![partition.clone(), partition.with_committed_metadata(None)]);
    let mut request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(2)
        .with_member_id(text())
        .with_topics(twice(topic));
    if version >= 7 {
        request.group_instance_id = Some(text());
    }
    if version <= 4 {
        request.retention_time_ms = 1_000;
    }
    request
}

pub(super) fn offset_fetch(version: i16) -> OffsetFetchRequest {
    use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};

    let mut request = OffsetFetchRequest::default();
    if version <= 7 {
        let topic =
            OffsetFetchRequestTopic::default().with_name(topic_name()).with_partition_indexes(vec![0, 1]);
        request = request.with_group_id(group()).with_topics(Some(twice(topic)));
    } else {
        let topic =
            OffsetFetchRequestTopics::default().with_name(topic_name()).with_partition_indexes(vec![0, 1]);
        let mut of =
            OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(twice(topic)));
        if version >= 9 {
            of = of.with_member_id(Some(text())).with_member_epoch(4);
        }
        request.groups = vec![of.clone(), of.with_topics(None)];
    }
    if version >= 7 {
        request.require_stable = true;
    }
    request
}

pub(super) fn join_group(version: i16) -> JoinGroupRequest {
    use join_group_request::JoinGroupRequestProtocol;

    let protocol =
        JoinGroupRequestProtocol::default().with_name(text()).with_metadata(Bytes::from_static(b"abc"));
    let mut request = JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(10_000)
        .with_member_id(text())
        .with_protocol_type(text())
        .with_protocols(twice(protocol));
    if version >= 1 {
        request.rebalance_timeout_ms = 20_000;
    }
    if version >= 5 {
        request.group_instance_id = Some(text());
    }
    if version >= 8 {
        request.reason = Some(text());
    }
    request
}

pub(super) fn sync_group(version: i16) -> SyncGroupRequest {
    use sync_group_request::SyncGroupRequestAssignment;

    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(text())
        .with_assignment(Bytes::from_static(b"abc"));
    let mut request = SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(3)
        .with_member_id(text())
        .with_assignments(twice(assignment));
    if version >= 3 {
        request.group_instance_id = Some(text());
    }
    if version >= 5 {
        request = request.with_protocol_type(Some(text())).with_protocol_name(Some(text()));
    }
    request
}

pub(super) fn heartbeat(version: i16) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(group())
        .with_generation_id(3)
        .with_member_id(text())
        .with_group_instance_id((version >= 3).then(text))
}

pub(super) fn leave_group(version: i16) -> LeaveGroupRequest {
    use leave_group_request::MemberIdentity;

    let request = LeaveGroupRequest::default().with_group_id(group());
    if version <= 2 {
        return request.with_member_id(text());
    }
    let mut member = MemberIdentity::default().with_member_id(text()).with_group_instance_id(Some(text()));
    if version >= 5 {
        member.reason = Some(text());
    }
    request.with_members(twice(member))
}

pub(super) fn describe_groups(version: i16) -> DescribeGroupsRequest {
    let request = DescribeGroupsRequest::default().with_groups(twice(group()));
    request.with_include_authorized_operations(version >= 3)
}

pub(super) fn list_groups(version: i16) -> ListGroupsRequest {
    let mut request = ListGroupsRequest::default();
    if version >= 4 {
        request.states_filter = twice(text());
    }
    if version >= 5 {
        request.types_filter = twice(text());
    }
    request
}

pub(super) fn delete_groups() -> DeleteGroupsRequest {
    DeleteGroupsRequest::default().with_groups_names(twice(group()))
}

pub(super) fn offset_delete() -> OffsetDeleteRequest {
    use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};

    let partition = OffsetDeleteRequestPartition::default().with_partition_index(1);
    let topic = OffsetDeleteRequestTopic::default().with_name(topic_name()).with_partitions(twice(partition));
    OffsetDeleteRequest::default().with_group_id(group()).with_topics(twice(topic))
}

pub(super) fn consumer_group_heartbeat(version: i16) -> ConsumerGroupHeartbeatRequest {
    use consumer_group_heartbeat_request::TopicPartitions;

    let owned = TopicPartitions::default().with_topic_id(Uuid::from_u128(7)).with_partitions(vec![1, 2]);
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(text())
        .with_member_epoch(4)
        .with_instance_id(Some(text()))
        .with_rack_id(Some(text()))
        .with_rebalance_timeout_ms(5_000)
        .with_subscribed_topic_names(Some(twice(topic_name())))
        .with_server_assignor(Some(text()))
        .with_topic_partitions(Some(twice(owned)));
    request.with_subscribed_topic_regex((version >= 1).then(text))
}

pub(super) fn consumer_group_describe() -> ConsumerGroupDescribeRequest {
    ConsumerGroupDescribeRequest::default()
        .with_group_ids(twice(group()))
        .with_include_authorized_operations(true)
}
