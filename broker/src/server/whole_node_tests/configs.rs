//! Configurations and partitions that change while a whole node runs.

use std::time::Duration;

use io_backend::{Backend, Clock};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::super::test_node::{Client, with_whole_node};
use super::asked;
use crate::log::test_batches::BatchSpec;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;
const SET: i8 = 0;
const DELETE: i8 = 1;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn create(client: &mut Client, configs: &[(&str, Option<&str>)]) -> (i16, Uuid) {
    let config = |(name, value): &(&str, Option<&str>)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(value.map(text))
    };
    let topic = CreatableTopic::default()
        .with_name(TopicName(text("orders")))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(configs.iter().map(config).collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(20_000);
    match asked(client, ApiKey::CreateTopics, 7, request.into()).await {
        ResponseKind::CreateTopics(response) => (response.topics[0].error_code, response.topics[0].topic_id),
        other => panic!("{other:?}"),
    }
}

async fn alter(client: &mut Client, (kind, resource): (i8, &str), name: &str, value: Option<&str>) -> i16 {
    let config = AlterableConfig::default()
        .with_name(text(name))
        .with_config_operation(if value.is_some() { SET } else { DELETE })
        .with_value(value.map(text));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    match asked(client, ApiKey::IncrementalAlterConfigs, 1, request.into()).await {
        ResponseKind::IncrementalAlterConfigs(response) => response.responses[0].error_code,
        other => panic!("{other:?}"),
    }
}

/// Value and source.
async fn described(client: &mut Client, (kind, resource): (i8, &str), name: &str) -> (String, i8) {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configuration_keys(Some(vec![text(name)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    match asked(client, ApiKey::DescribeConfigs, 4, request.into()).await {
        ResponseKind::DescribeConfigs(response) => {
            let config = &response.results[0].configs[0];
            (config.value.clone().unwrap_or_default().to_string(), config.config_source)
        }
        other => panic!("{other:?}"),
    }
}

async fn produce(client: &mut Client, topic: Uuid, index: i32, batch: BatchSpec) -> PartitionProduceResponse {
    let data = PartitionProduceData::default().with_index(index).with_records(Some(batch.build()));
    let topic = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![topic]);
    match asked(client, ApiKey::Produce, 13, request.into()).await {
        ResponseKind::Produce(mut response) => response.responses.remove(0).partition_responses.remove(0),
        other => panic!("{other:?}"),
    }
}

fn test(test: impl AsyncFnOnce(&mut Client, Uuid, &dyn Fn() -> i64)) {
    with_whole_node(
        |_| {},
        async |door, _node| {
            let mut client = door.connect().await;
            let (code, topic) = create(&mut client, &[]).await;
            assert_eq!(code, 0);
            test(&mut client, topic, &|| door.backend().wall_ms()).await;
        },
    );
}

#[test]
fn the_largest_batch_changes_for_the_next_produce_by_topic_and_by_broker() {
    test(async |client, topic, _| {
        let large = BatchSpec::records(1).value_bytes(5_000);
        assert_eq!(produce(client, topic, 0, large).await.error_code, 0);
        assert_eq!(alter(client, (BROKER, ""), "message.max.bytes", Some("2000")).await, 0);
        assert_eq!(produce(client, topic, 0, large).await.error_code, 10);
        assert_eq!(described(client, (TOPIC, "orders"), "max.message.bytes").await, ("2000".into(), 3));
        assert_eq!(alter(client, (BROKER, "1"), "message.max.bytes", Some("6000")).await, 0);
        assert_eq!(produce(client, topic, 0, large).await.error_code, 0);
        assert_eq!(described(client, (BROKER, "1"), "message.max.bytes").await, ("6000".into(), 2));
        assert_eq!(alter(client, (TOPIC, "orders"), "max.message.bytes", Some("3000")).await, 0);
        assert_eq!(produce(client, topic, 0, large).await.error_code, 10);
        assert_eq!(alter(client, (TOPIC, "orders"), "max.message.bytes", None).await, 0);
        assert_eq!(produce(client, topic, 0, large).await.error_code, 0);
    });
}

#[test]
fn records_have_times_within_what_their_topic_takes() {
    test(async |client, topic, now| {
        let minutes = |minutes: i64| BatchSpec::records(2).timestamp(now() + minutes * 60_000);
        assert_eq!(produce(client, topic, 0, minutes(50)).await.error_code, 0);
        assert_eq!(produce(client, topic, 0, minutes(70)).await.error_code, 32);
        assert_eq!(produce(client, topic, 0, minutes(-5)).await.error_code, 0);
        let behind = "message.timestamp.before.max.ms";
        assert_eq!(alter(client, (TOPIC, "orders"), behind, Some("60000")).await, 0);
        assert_eq!(produce(client, topic, 0, minutes(-5)).await.error_code, 32);
    });
}

#[test]
fn a_partition_that_is_open_follows_its_topic_and_the_broker() {
    with_whole_node(
        |_| {},
        async |door, _node| {
            let mut client = door.connect().await;
            let (_, topic) = create(&mut client, &[]).await;
            let stamped = async |client: &mut Client, wanted: bool| {
                let until = door.backend().now() + Duration::from_secs(30);
                loop {
                    let time = produce(client, topic, 0, BatchSpec::records(1)).await.log_append_time_ms;
                    if (time >= 0) == wanted {
                        return;
                    }
                    assert!(door.backend().now() < until, "{time}");
                }
            };
            stamped(&mut client, false).await;
            let (stamp, of_broker) = ("message.timestamp.type", "log.message.timestamp.type");
            assert_eq!(alter(&mut client, (BROKER, "1"), of_broker, Some("LogAppendTime")).await, 0);
            stamped(&mut client, true).await;
            assert_eq!(alter(&mut client, (TOPIC, "orders"), stamp, Some("CreateTime")).await, 0);
            stamped(&mut client, false).await;
            assert_eq!(alter(&mut client, (TOPIC, "orders"), stamp, None).await, 0);
            stamped(&mut client, true).await;
        },
    );
}

#[test]
fn a_new_partition_takes_records_as_soon_as_it_is_answered() {
    test(async |client, topic, _| {
        let grown = CreatePartitionsTopic::default()
            .with_name(TopicName(text("orders")))
            .with_count(3)
            .with_assignments(None);
        let mut request = CreatePartitionsRequest::default()
            .with_topics(vec![grown])
            .with_timeout_ms(20_000)
            .with_validate_only(true);
        for wanted in [0, 0, 37] {
            match asked(client, ApiKey::CreatePartitions, 3, request.clone().into()).await {
                ResponseKind::CreatePartitions(response) => {
                    assert_eq!(response.results[0].error_code, wanted, "{response:?}");
                }
                other => panic!("{other:?}"),
            }
            request.validate_only = false;
        }
        assert_eq!(produce(client, topic, 2, BatchSpec::records(1)).await.error_code, 0);
        assert_eq!(produce(client, topic, 3, BatchSpec::records(1)).await.error_code, 3);
    });
}

#[test]
fn what_is_refused_changes_nothing_and_what_is_only_checked_neither() {
    test(async |client, _, _| {
        let topic = (TOPIC, "orders");
        assert_eq!(alter(client, topic, "retention.ms", Some("soon")).await, 40);
        assert_eq!(alter(client, topic, "nope", Some("1")).await, 40);
        assert_eq!(alter(client, (TOPIC, "gone"), "retention.ms", Some("1")).await, 3);
        assert_eq!(alter(client, (TOPIC, ""), "retention.ms", Some("1")).await, 42);
        assert_eq!(alter(client, (BROKER, "7"), "log.retention.ms", Some("1")).await, 42);
        assert_eq!(alter(client, (BROKER, "1"), "num.partitions", Some("1")).await, 42);
        assert_eq!(alter(client, (8, "1"), "root", Some("INFO")).await, 42);
        let config = AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("5")));
        let resource = |configs| {
            AlterConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(text("orders"))
                .with_configs(configs)
        };
        for (resources, validate_only, wanted) in [
            (vec![resource(vec![config.clone()])], true, 0),
            (vec![resource(vec![config.clone(), config.clone()])], false, 42),
            (vec![resource(vec![config.clone()]), resource(vec![config.clone()])], false, 42),
            (vec![resource(vec![config.clone().with_value(None)])], false, 42),
            (vec![resource(vec![config.clone().with_config_operation(2)])], false, 40),
        ] {
            let request = IncrementalAlterConfigsRequest::default()
                .with_resources(resources)
                .with_validate_only(validate_only);
            match asked(client, ApiKey::IncrementalAlterConfigs, 1, request.into()).await {
                ResponseKind::IncrementalAlterConfigs(response) => {
                    assert_eq!(response.responses[0].error_code, wanted, "{response:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(described(client, topic, "retention.ms").await, ("604800000".into(), 5));
    });
}

#[test]
fn the_older_way_of_altering_replaces_all() {
    test(async |client, _, _| {
        use kafka_protocol::messages::alter_configs_request as older;
        let topic = (TOPIC, "orders");
        assert_eq!(alter(client, topic, "retention.ms", Some("5000")).await, 0);
        let config =
            older::AlterableConfig::default().with_name(text("segment.ms")).with_value(Some(text("7")));
        let resource = older::AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text("orders"))
            .with_configs(vec![config]);
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        match asked(client, ApiKey::AlterConfigs, 2, request.into()).await {
            ResponseKind::AlterConfigs(response) => assert_eq!(response.responses[0].error_code, 0),
            other => panic!("{other:?}"),
        }
        assert_eq!(described(client, topic, "segment.ms").await, ("7".into(), 1));
        assert_eq!(described(client, topic, "retention.ms").await, ("604800000".into(), 5));
    });
}

#[test]
fn a_group_has_a_heartbeat_interval_of_its_own_from_its_next_heartbeat_on() {
    test(async |client, _, _| {
        let name = "consumer.heartbeat.interval.ms";
        let group = (GROUP, "g");
        assert_eq!(described(client, group, name).await, ("5000".into(), 5));
        let mut member = String::new();
        let mut beat = async |client: &mut Client, epoch: i32| loop {
            let request = ConsumerGroupHeartbeatRequest::default()
                .with_group_id(GroupId(text("g")))
                .with_member_id(text(&member))
                .with_member_epoch(epoch)
                .with_rebalance_timeout_ms(if epoch == 0 { 60_000 } else { -1 })
                .with_subscribed_topic_names((epoch == 0).then(|| vec![TopicName(text("orders"))]))
                .with_topic_partitions((epoch == 0).then(Vec::new));
            match asked(client, ApiKey::ConsumerGroupHeartbeat, 0, request.into()).await {
                // The coordinator is being made, or loads.
                ResponseKind::ConsumerGroupHeartbeat(told) if [14, 15, 16].contains(&told.error_code) => {
                    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
                    asked(client, ApiKey::FindCoordinator, 4, find.into()).await;
                }
                ResponseKind::ConsumerGroupHeartbeat(told) => {
                    assert_eq!(told.error_code, 0, "{:?}", told.error_message);
                    member = told.member_id.as_deref().unwrap_or(&member).to_owned();
                    break (told.member_epoch, told.heartbeat_interval_ms);
                }
                other => panic!("{other:?}"),
            }
        };
        let (epoch, interval) = beat(client, 0).await;
        assert_eq!(interval, 5_000);
        for (value, code) in [("4999", 40), ("15001", 40), ("soon", 40), ("7000", 0)] {
            assert_eq!(alter(client, group, name, Some(value)).await, code, "{value}");
        }
        assert_eq!(alter(client, group, "share.isolation.level", Some("read_committed")).await, 40);
        assert_eq!(alter(client, (GROUP, ""), name, Some("7000")).await, 42);
        assert_eq!(described(client, group, name).await, ("7000".into(), 8));
        assert_eq!(described(client, (GROUP, "other"), name).await, ("5000".into(), 5));
        assert_eq!(beat(client, epoch).await, (epoch, 7_000));
        assert_eq!(alter(client, group, name, None).await, 0);
        assert_eq!(beat(client, epoch).await, (epoch, 5_000));
    });
}

#[test]
fn resources_are_listed_by_their_kinds() {
    test(async |client, _, _| {
        let listed = async |client: &mut Client, kinds: &[i8]| {
            let request = ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec());
            match asked(client, ApiKey::ListConfigResources, 1, request.into()).await {
                ResponseKind::ListConfigResources(response) => {
                    let one = response.config_resources.into_iter();
                    let named = one.map(|one| format!("{}:{}", one.resource_type, one.resource_name));
                    (response.error_code, named.collect::<Vec<_>>().join(" "))
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(listed(client, &[]).await, (0, "4:1 2:orders".into()));
        assert_eq!(listed(client, &[TOPIC]).await, (0, "2:orders".into()));
        assert_eq!(listed(client, &[GROUP]).await, (0, String::new()));
        assert_eq!(listed(client, &[3]).await.0, 35);
        assert_eq!(alter(client, (GROUP, "g"), "consumer.heartbeat.interval.ms", Some("6000")).await, 0);
        assert_eq!(listed(client, &[GROUP]).await, (0, "32:g".into()));
    });
}

#[test]
fn a_null_configuration_and_a_topic_named_twice_are_refused() {
    with_whole_node(
        |_| {},
        async |door, _node| {
            let mut client = door.connect().await;
            assert_eq!(create(&mut client, &[("retention.ms", None)]).await.0, 40);
            let (code, id) = create(&mut client, &[("retention.ms", Some("-1"))]).await;
            assert_eq!(code, 0);
            let named = |name: Option<&str>, id: Uuid| {
                DeleteTopicState::default()
                    .with_name(name.map(|name| TopicName(text(name))))
                    .with_topic_id(id)
            };
            let nil = Uuid::nil();
            for (topics, wanted) in [
                (vec![named(Some("orders"), id)], vec![42]),
                (vec![named(None, nil)], vec![42]),
                (vec![named(Some("orders"), nil), named(Some("orders"), nil)], vec![42, 42]),
                (vec![named(Some("orders"), nil), named(None, id)], vec![42, 42]),
                (vec![named(None, id), named(Some("gone"), nil)], vec![0, 3]),
            ] {
                let request = DeleteTopicsRequest::default().with_topics(topics).with_timeout_ms(20_000);
                match asked(&mut client, ApiKey::DeleteTopics, 6, request.into()).await {
                    ResponseKind::DeleteTopics(response) => {
                        let codes: Vec<i16> = response.responses.iter().map(|one| one.error_code).collect();
                        assert_eq!(codes, wanted);
                    }
                    other => panic!("{other:?}"),
                }
            }
        },
    );
}
