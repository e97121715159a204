//! For tests: of every API a request of any version that is served, with two of everything that it can have several of.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

mod groups;

/// A request of this version, in bytes as a client sends them.
pub fn filled(key: ApiKey, version: i16) -> BytesMut {
    let mut bytes = BytesMut::new();
    if let Err(error) = request(key, version).encode(&mut bytes, version) {
        panic!("{key:?}, version {version}: {error:#}");
    }
    bytes
}

fn request(key: ApiKey, version: i16) -> RequestKind {
    match key {
        ApiKey::Produce => produce(version).into(),
        ApiKey::Fetch => fetch(version).into(),
        ApiKey::ListOffsets => list_offsets().into(),
        ApiKey::Metadata => metadata().into(),
        ApiKey::OffsetCommit => groups::offset_commit(version).into(),
        ApiKey::OffsetFetch => groups::offset_fetch(version).into(),
        ApiKey::JoinGroup => groups::join_group(version).into(),
        ApiKey::Heartbeat => groups::heartbeat(version).into(),
        ApiKey::LeaveGroup => groups::leave_group(version).into(),
        ApiKey::SyncGroup => groups::sync_group(version).into(),
        ApiKey::DescribeGroups => groups::describe_groups(version).into(),
        ApiKey::ListGroups => groups::list_groups(version).into(),
        ApiKey::DeleteGroups => groups::delete_groups().into(),
        ApiKey::OffsetDelete => groups::offset_delete().into(),
        ApiKey::ConsumerGroupHeartbeat => groups::consumer_group_heartbeat(version).into(),
        ApiKey::ConsumerGroupDescribe => groups::consumer_group_describe().into(),
        ApiKey::FindCoordinator => find_coordinator(version).into(),
        ApiKey::ApiVersions => api_versions(version).into(),
        ApiKey::CreateTopics => create_topics().into(),
        ApiKey::DeleteTopics => delete_topics(version).into(),
        ApiKey::DeleteRecords => delete_records().into(),
        ApiKey::InitProducerId => init_producer_id().into(),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch().into(),
        ApiKey::DescribeConfigs => describe_configs().into(),
        ApiKey::AlterConfigs => alter_configs().into(),
        ApiKey::DescribeLogDirs => describe_log_dirs().into(),
        ApiKey::CreatePartitions => create_partitions().into(),
        ApiKey::IncrementalAlterConfigs => incremental_alter_configs().into(),
        ApiKey::DescribeCluster => DescribeClusterRequest::default().into(),
        ApiKey::ListConfigResources => list_config_resources(version).into(),
        ApiKey::ElectLeaders => elect_leaders(version).into(),
        ApiKey::AlterPartitionReassignments => alter_partition_reassignments().into(),
        ApiKey::ListPartitionReassignments => list_partition_reassignments().into(),
        ApiKey::DescribeQuorum => describe_quorum().into(),
        ApiKey::UnregisterBroker => UnregisterBrokerRequest::default().into(),
        ApiKey::AddRaftVoter => add_raft_voter().into(),
        ApiKey::RemoveRaftVoter => RemoveRaftVoterRequest::default().with_cluster_id(Some(text())).into(),
        ApiKey::DescribeTopicPartitions => describe_topic_partitions().into(),
        other => panic!("no request of {other:?} is filled here"),
    }
}

fn text() -> StrBytes {
    StrBytes::from_static_str("text")
}

fn topic_name() -> TopicName {
    TopicName(StrBytes::from_static_str("orders"))
}

fn twice<T: Clone>(one: T) -> Vec<T> {
    vec![one.clone(), one]
}

/// The first version of produce and fetch whose topics have ids instead of names.
const TOPIC_IDS_SINCE: i16 = 13;

fn name_before_ids(version: i16) -> TopicName {
    if version >= TOPIC_IDS_SINCE { TopicName::default() } else { topic_name() }
}

fn id_since_ids(version: i16) -> Uuid {
    if version >= TOPIC_IDS_SINCE { Uuid::from_u128(7) } else { Uuid::nil() }
}

fn produce(version: i16) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};

    let records = Some(Bytes::from_static(b"abc"));
    let data = PartitionProduceData::default().with_index(3).with_records(records);
    let topic = TopicProduceData::default()
        .with_name(name_before_ids(version))
        .with_topic_id(id_since_ids(version))
        .with_partition_data(vec![data.clone(), data.with_records(None)]);
    ProduceRequest::default()
        .with_acks(-1)
        .with_transactional_id(Some(TransactionalId(text())))
        .with_topic_data(twice(topic))
}

fn fetch(version: i16) -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};

    let mut partition = FetchPartition::default().with_fetch_offset(9);
    if version >= 17 {
        partition.replica_directory_id = Uuid::from_u128(9);
    }
    if version >= 18 {
        partition.high_watermark = 12;
    }
    let topic = FetchTopic::default()
        .with_topic(name_before_ids(version))
        .with_topic_id(id_since_ids(version))
        .with_partitions(twice(partition));
    let mut request = FetchRequest::default().with_topics(twice(topic));
    if version >= 7 {
        let gone = ForgottenTopic::default()
            .with_topic(name_before_ids(version))
            .with_topic_id(id_since_ids(version))
            .with_partitions(vec![1, 2]);
        request.forgotten_topics_data = twice(gone);
    }
    if version >= 11 {
        request.rack_id = text();
    }
    if version >= 12 {
        request.cluster_id = Some(text());
    }
    if version >= 15 {
        request.replica_id = BrokerId(-1);
        request.replica_state = ReplicaState::default().with_replica_id(BrokerId(4)).with_replica_epoch(5);
    }
    request
}

fn list_offsets() -> ListOffsetsRequest {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

    let partitions = twice(ListOffsetsPartition::default().with_timestamp(-1));
    let topic = ListOffsetsTopic::default().with_name(topic_name()).with_partitions(partitions);
    ListOffsetsRequest::default().with_topics(twice(topic))
}

fn metadata() -> MetadataRequest {
    let topic = metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name()));
    MetadataRequest::default().with_topics(Some(twice(topic))).with_allow_auto_topic_creation(true)
}

fn find_coordinator(version: i16) -> FindCoordinatorRequest {
    match version {
        4.. => FindCoordinatorRequest::default().with_coordinator_keys(twice(text())),
        _ => FindCoordinatorRequest::default().with_key(text()),
    }
}

fn api_versions(version: i16) -> ApiVersionsRequest {
    match version {
        3.. => ApiVersionsRequest::default()
            .with_client_software_name(text())
            .with_client_software_version(text()),
        _ => ApiVersionsRequest::default(),
    }
}

fn create_topics() -> CreateTopicsRequest {
    use create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};

    let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
    let config = CreatableTopicConfig::default().with_name(text()).with_value(Some(text()));
    let topic = CreatableTopic::default()
        .with_name(topic_name())
        .with_assignments(twice(assignment))
        .with_configs(vec![config.clone(), config.with_value(None)]);
    CreateTopicsRequest::default().with_topics(twice(topic))
}

fn delete_topics(version: i16) -> DeleteTopicsRequest {
    if version < 6 {
        return DeleteTopicsRequest::default().with_topic_names(twice(topic_name()));
    }
    let topic = delete_topics_request::DeleteTopicState::default().with_name(Some(topic_name()));
    DeleteTopicsRequest::default().with_topics(vec![topic.clone(), topic.with_name(None)])
}

fn delete_records() -> DeleteRecordsRequest {
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};

    let partitions = twice(DeleteRecordsPartition::default().with_partition_index(1).with_offset(9));
    let topic = DeleteRecordsTopic::default().with_name(topic_name()).with_partitions(partitions);
    DeleteRecordsRequest::default().with_topics(twice(topic))
}

fn init_producer_id() -> InitProducerIdRequest {
    InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text())))
}

fn offset_for_leader_epoch() -> OffsetForLeaderEpochRequest {
    use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};

    let partitions = twice(OffsetForLeaderPartition::default().with_partition(1));
    let topic = OffsetForLeaderTopic::default().with_topic(topic_name()).with_partitions(partitions);
    OffsetForLeaderEpochRequest::default().with_topics(twice(topic))
}

fn describe_configs() -> DescribeConfigsRequest {
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_name(text())
        .with_configuration_keys(Some(twice(text())));
    DescribeConfigsRequest::default()
        .with_resources(vec![resource.clone(), resource.with_configuration_keys(None)])
}

fn alter_configs() -> AlterConfigsRequest {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};

    let config = AlterableConfig::default().with_name(text()).with_value(Some(text()));
    let configs = vec![config.clone(), config.with_value(None)];
    let resource = AlterConfigsResource::default().with_resource_name(text()).with_configs(configs);
    AlterConfigsRequest::default().with_resources(twice(resource))
}

fn describe_log_dirs() -> DescribeLogDirsRequest {
    let topic = describe_log_dirs_request::DescribableLogDirTopic::default()
        .with_topic(topic_name())
        .with_partitions(vec![1, 2]);
    DescribeLogDirsRequest::default().with_topics(Some(twice(topic)))
}

fn create_partitions() -> CreatePartitionsRequest {
    use create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};

    let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
    let topic =
        CreatePartitionsTopic::default().with_name(topic_name()).with_assignments(Some(twice(assignment)));
    CreatePartitionsRequest::default().with_topics(vec![topic.clone(), topic.with_assignments(None)])
}

fn incremental_alter_configs() -> IncrementalAlterConfigsRequest {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};

    let config = AlterableConfig::default().with_name(text()).with_value(Some(text()));
    let configs = vec![config.clone(), config.with_value(None)];
    let resource = AlterConfigsResource::default().with_resource_name(text()).with_configs(configs);
    IncrementalAlterConfigsRequest::default().with_resources(twice(resource))
}

fn list_config_resources(version: i16) -> ListConfigResourcesRequest {
    let kinds = if version >= 1 { vec![2, 4] } else { Vec::new() };
    ListConfigResourcesRequest::default().with_resource_types(kinds)
}

fn describe_topic_partitions() -> DescribeTopicPartitionsRequest {
    use describe_topic_partitions_request::{Cursor, TopicRequest};

    let topic = TopicRequest::default().with_name(topic_name());
    DescribeTopicPartitionsRequest::default()
        .with_topics(twice(topic))
        .with_cursor(Some(Cursor::default().with_topic_name(topic_name())))
}

fn elect_leaders(version: i16) -> ElectLeadersRequest {
    let topic = elect_leaders_request::TopicPartitions::default()
        .with_topic(topic_name())
        .with_partitions(vec![1, 2]);
    ElectLeadersRequest::default()
        .with_election_type(i8::from(version >= 1))
        .with_topic_partitions(Some(twice(topic)))
}

fn alter_partition_reassignments() -> AlterPartitionReassignmentsRequest {
    use alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};

    let partition = ReassignablePartition::default().with_replicas(Some(vec![BrokerId(1), BrokerId(2)]));
    let topic = ReassignableTopic::default()
        .with_name(topic_name())
        .with_partitions(vec![partition.clone(), partition.with_replicas(None)]);
    AlterPartitionReassignmentsRequest::default().with_topics(twice(topic))
}

fn list_partition_reassignments() -> ListPartitionReassignmentsRequest {
    let topic = list_partition_reassignments_request::ListPartitionReassignmentsTopics::default()
        .with_name(topic_name())
        .with_partition_indexes(vec![1, 2]);
    ListPartitionReassignmentsRequest::default().with_topics(Some(twice(topic)))
}

fn describe_quorum() -> DescribeQuorumRequest {
    use describe_quorum_request::{PartitionData, TopicData};

    let topic = TopicData::default()
        .with_topic_name(topic_name())
        .with_partitions(twice(PartitionData::default().with_partition_index(1)));
    DescribeQuorumRequest::default().with_topics(twice(topic))
}

fn add_raft_voter() -> AddRaftVoterRequest {
    let listener = add_raft_voter_request::Listener::default().with_name(text()).with_host(text());
    AddRaftVoterRequest::default().with_cluster_id(Some(text())).with_listeners(twice(listener))
}
