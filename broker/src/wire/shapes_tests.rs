//! The shapes against the codec: every version of every request, filled with something in every array.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::super::shape::{ShapeError, walk};
use super::super::versions::SERVED;
use super::*;

fn name(version: i16, ids_since: i16) -> TopicName {
    if version >= ids_since { TopicName::default() } else { TopicName(StrBytes::from_static_str("orders")) }
}

fn id(version: i16, ids_since: i16) -> Uuid {
    if version >= ids_since { Uuid::from_u128(7) } else { Uuid::nil() }
}

fn text() -> StrBytes {
    StrBytes::from_static_str("text")
}

/// A request of this version with two of everything.
pub(crate) fn filled(key: ApiKey, version: i16) -> RequestKind {
    let twice = |n: i32| vec![n, n + 1];
    match key {
        ApiKey::Produce => {
            let data =
                PartitionProduceData::default().with_index(3).with_records(Some(Bytes::from_static(b"abc")));
            let topic = TopicProduceData::default()
                .with_name(name(version, 13))
                .with_topic_id(id(version, 13))
                .with_partition_data(vec![data.clone(), data.with_records(None)]);
            ProduceRequest::default()
                .with_acks(-1)
                .with_transactional_id(Some(TransactionalId(text())))
                .with_topic_data(vec![topic.clone(), topic])
                .into()
        }
        ApiKey::Fetch => {
            let mut partition = FetchPartition::default().with_fetch_offset(9);
            if version >= 17 {
                partition.replica_directory_id = Uuid::from_u128(9);
            }
            if version >= 18 {
                partition.high_watermark = 12;
            }
            let topic = FetchTopic::default()
                .with_topic(name(version, 13))
                .with_topic_id(id(version, 13))
                .with_partitions(vec![partition.clone(), partition]);
            let mut request = FetchRequest::default().with_topics(vec![topic.clone(), topic]);
            if version >= 7 {
                let gone = ForgottenTopic::default()
                    .with_topic(name(version, 13))
                    .with_topic_id(id(version, 13))
                    .with_partitions(twice(1));
                request.forgotten_topics_data = vec![gone.clone(), gone];
            }
            if version >= 11 {
                request.rack_id = text();
            }
            if version >= 12 {
                request.cluster_id = Some(text());
            }
            if version >= 15 {
                request.replica_id = BrokerId(-1);
                request.replica_state =
                    ReplicaState::default().with_replica_id(BrokerId(4)).with_replica_epoch(5);
            }
            request.into()
        }
        ApiKey::ListOffsets => {
            let partition = ListOffsetsPartition::default().with_timestamp(-1);
            let topic = ListOffsetsTopic::default()
                .with_name(TopicName(text()))
                .with_partitions(vec![partition.clone(), partition]);
            ListOffsetsRequest::default().with_topics(vec![topic.clone(), topic]).into()
        }
        ApiKey::Metadata => {
            let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text())));
            MetadataRequest::default()
                .with_topics(Some(vec![topic.clone(), topic]))
                .with_allow_auto_topic_creation(true)
                .into()
        }
        ApiKey::FindCoordinator if version >= 4 => {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![text(), text()]).into()
        }
        ApiKey::FindCoordinator => FindCoordinatorRequest::default().with_key(text()).into(),
        ApiKey::ApiVersions if version >= 3 => ApiVersionsRequest::default()
            .with_client_software_name(text())
            .with_client_software_version(text())
            .into(),
        ApiKey::ApiVersions => ApiVersionsRequest::default().into(),
        ApiKey::CreateTopics => {
            let assignment =
                CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
            let config = CreatableTopicConfig::default().with_name(text()).with_value(Some(text()));
            let topic = CreatableTopic::default()
                .with_name(TopicName(text()))
                .with_assignments(vec![assignment.clone(), assignment])
                .with_configs(vec![config.clone(), config.with_value(None)]);
            CreateTopicsRequest::default().with_topics(vec![topic.clone(), topic]).into()
        }
        ApiKey::DeleteTopics if version >= 6 => {
            let topic = DeleteTopicState::default().with_name(Some(TopicName(text())));
            DeleteTopicsRequest::default().with_topics(vec![topic.clone(), topic.with_name(None)]).into()
        }
        ApiKey::DeleteTopics => {
            DeleteTopicsRequest::default().with_topic_names(vec![TopicName(text()), TopicName(text())]).into()
        }
        ApiKey::InitProducerId => {
            InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text()))).into()
        }
        ApiKey::OffsetForLeaderEpoch => {
            let partition = OffsetForLeaderPartition::default().with_partition(1);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(TopicName(text()))
                .with_partitions(vec![partition.clone(), partition]);
            OffsetForLeaderEpochRequest::default().with_topics(vec![topic.clone(), topic]).into()
        }
        ApiKey::DescribeConfigs => {
            let resource = DescribeConfigsResource::default()
                .with_resource_name(text())
                .with_configuration_keys(Some(vec![text(), text()]));
            DescribeConfigsRequest::default()
                .with_resources(vec![resource.clone(), resource.with_configuration_keys(None)])
                .into()
        }
        ApiKey::DescribeCluster => DescribeClusterRequest::default().into(),
        other => panic!("{other:?} is served and not tested"),
    }
}

fn each_version(mut check: impl FnMut(ApiKey, i16, bool, &[u8])) {
    for api in SERVED {
        for version in api.min..=api.max {
            let mut bytes = BytesMut::new();
            let request = filled(api.key, version);
            if let Err(error) = request.encode(&mut bytes, version) {
                panic!("{:?} {version}: {error:#}", api.key);
            }
            check(api.key, version, api.key.request_header_version(version) >= 2, &bytes);
        }
    }
}

#[test]
fn every_served_request_has_the_shape_that_the_codec_writes() {
    each_version(|key, version, flexible, bytes| {
        let Some(shape) = of(key) else { panic!("{key:?} has no shape") };
        assert_eq!(walk(shape, version, flexible, bytes), Ok(bytes.len()), "{key:?} {version}");
    });
}

#[test]
fn a_request_that_was_cut_is_never_walked_to_its_end() {
    each_version(|key, version, flexible, bytes| {
        let Some(shape) = of(key) else { return };
        for len in 0..bytes.len() {
            assert!(walk(shape, version, flexible, &bytes[..len]).is_err(), "{key:?} {version} cut to {len}");
        }
    });
}

#[test]
fn whatever_is_walked_to_an_end_the_codec_can_be_given() {
    // Every byte set to values that make lengths huge or negative: the codec must neither panic nor
    // reserve what did not come.
    each_version(|key, version, flexible, bytes| {
        let Some(shape) = of(key) else { return };
        for at in 0..bytes.len() {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.to_vec();
                changed[at] = value;
                if walk(shape, version, flexible, &changed).is_ok() {
                    let _ = RequestKind::decode(key, &mut Bytes::from(changed), version);
                }
            }
        }
    });
}

#[test]
fn an_array_that_announces_more_than_came_is_refused_before_anything_is_reserved() {
    let Some(shape) = of(ApiKey::Metadata) else { return };
    let mut bytes = i32::MAX.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0; 20]);
    assert_eq!(walk(shape, 1, false, &bytes), Err(ShapeError::ArrayTooLong(i32::MAX as u64, 20)));
    assert_eq!(
        walk(shape, 9, true, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
        Err(ShapeError::ArrayTooLong(0xffff_fffe, 1))
    );
    let many = vec![0u8; OF_PARTITIONS * 3];
    let mut bytes = ((OF_PARTITIONS + 1) as i32).to_be_bytes().to_vec();
    bytes.extend(many);
    assert_eq!(walk(shape, 1, false, &bytes), Err(ShapeError::TooManyElements(OF_PARTITIONS)));
}

#[test]
fn null_arrays_are_legal_and_other_negative_lengths_are_not() {
    let Some(shape) = of(ApiKey::Metadata) else { return };
    assert_eq!(walk(shape, 1, false, &(-1i32).to_be_bytes()), Ok(4));
    assert_eq!(walk(shape, 1, false, &(-2i32).to_be_bytes()), Err(ShapeError::NegativeLength(-2)));
}

#[test]
fn a_tagged_field_that_lies_about_its_size_is_refused() {
    let Some(shape) = of(ApiKey::Fetch) else { return };
    // Fetch 12 without topics, then the cluster id (tag 0) of three letters that says it has nine bytes.
    let mut bytes = vec![0u8; 4 + 4 + 4 + 4 + 1 + 4 + 4];
    bytes.extend_from_slice(&[1, 1, 1]);
    let tags = bytes.len();
    bytes.extend_from_slice(&[1, 0, 9, 4, b'a', b'b', b'c', 0, 0, 0, 0, 0]);
    assert_eq!(walk(shape, 12, true, &bytes), Err(ShapeError::TagSize(9, 4)));
    bytes[tags + 2] = 4;
    assert_eq!(walk(shape, 12, true, &bytes), Ok(tags + 7));
}
