use std::collections::BTreeMap;

use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::ids::{AssignmentId, BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, StorageId, TopicId};
use crate::limits;
use crate::metadata::snapshot::{decode_command, decode_image, encode_command, encode_image};
use crate::metadata::testing::{create, image_of, new_topic, old_broker, partition};
use crate::metadata::{
    AlteredConfigs, BrokerRegistration, CLIENT_LISTENER, ConfigChange, ConfigOperation, ConfigResource,
    Endpoint, NewPartitions, NewTopic, PartitionImage, RegistrationError, Replica, TopicError, TopicImage,
};

fn register(id: i32, incarnation: u64, storage: u128) -> MetadataCommand {
    MetadataCommand::RegisterBroker(old_broker(id, incarnation, storage))
}

fn topic_results(outcome: Outcome) -> Vec<Result<Arc<TopicImage>, TopicError>> {
    match outcome {
        Outcome::Topics(results) => results,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_topic_is_made_whole_in_one_command() {
    let image = image_of(&[
        register(1, 5, 1),
        register(2, 3, 2),
        create(vec![new_topic(9, "orders", &[&[1, 2], &[2, 1]])]),
    ]);
    let topic = image.topics.get("orders").unwrap();
    assert_eq!((topic.created_at, topic.partitions.len()), (3, 2));
    assert_eq!(image.topic_by_id(topic.id).unwrap().name, topic.name);
    let replica = |id: u8| Replica {
        broker: BrokerId(id.into()),
        storage: StorageId(Uuid::from_u128(id.into())),
        assignment: AssignmentId(3),
    };
    assert_eq!(
        partition(&image, 9, 1),
        PartitionImage {
            leader: Some(BrokerId(2)),
            leader_broker_epoch: BrokerEpoch(2),
            replicas: [2, 1].map(replica).to_vec(),
            isr: vec![BrokerId(2), BrokerId(1)],
            ..PartitionImage::default()
        }
    );
}

#[test]
fn what_cannot_be_a_topic_is_refused_with_the_reason_and_changes_nothing() {
    let before = image_of(&[
        register(1, 1, 1),
        create(vec![new_topic(1, "taken", &[&[1]]), new_topic(2, "a.b", &[&[1]])]),
    ]);
    let long = "x".repeat(250);
    let table: Vec<(NewTopic, &str)> = vec![
        (new_topic(7, "taken", &[&[1]]), "already exists"),
        (new_topic(1, "same-id", &[&[1]]), "already exists"),
        (new_topic(7, "a_b", &[&[1]]), "collides with existing topics: a.b"),
        (new_topic(7, "", &[&[1]]), "empty string"),
        (new_topic(7, ".", &[&[1]]), "'.' or '..'"),
        (new_topic(7, "..", &[&[1]]), "'.' or '..'"),
        (new_topic(7, &long, &[&[1]]), "max allowed length 249"),
        (new_topic(7, "white space", &[&[1]]), "ASCII alphanumerics"),
        (new_topic(7, "größe", &[&[1]]), "ASCII alphanumerics"),
        (new_topic(7, "none", &[]), "larger than 0"),
        (new_topic(7, "empty", &[&[]]), "has no replica"),
        (new_topic(7, "uneven", &[&[1], &[1, 2]]), "Inconsistent replication factor"),
        (new_topic(7, "twice", &[&[1, 1]]), "names a broker twice"),
        (new_topic(7, "unknown", &[&[4]]), "broker 4, which is not registered"),
    ];
    for (topic, part) in table {
        let name = topic.name.clone();
        let (after, outcome) = apply(&before, 3, &create(vec![topic]));
        let error = topic_results(outcome).remove(0).unwrap_err();
        assert!(error.to_string().contains(part), "{name}: {error}");
        assert_eq!(after, MetadataImage { index: 3, ..before.clone() }, "{name}");
    }
}

#[test]
fn the_longest_name_and_the_most_partitions_are_legal() {
    let image = image_of(&[register(1, 1, 1)]);
    let longest = "x".repeat(limits::TOPIC_NAME_BYTES_MAX);
    let most = vec![vec![BrokerId(1)]; limits::TOPIC_PARTITIONS_MAX];
    let too_many = vec![vec![BrokerId(1)]; limits::TOPIC_PARTITIONS_MAX + 1];
    let topics = vec![
        NewTopic { assignments: most, ..new_topic(1, &longest, &[]) },
        NewTopic { assignments: too_many, ..new_topic(2, "more", &[]) },
    ];
    let results = topic_results(apply(&image, 2, &create(topics)).1);
    assert!(results[0].is_ok());
    assert!(matches!(&results[1], Err(TopicError::InvalidPartitions(_))));
}

#[test]
fn one_bad_topic_does_not_spoil_the_others_and_a_name_twice_is_taken_once() {
    let image = image_of(&[register(1, 1, 1)]);
    let topics =
        vec![new_topic(1, "good", &[&[1]]), new_topic(2, "bad name", &[&[1]]), new_topic(3, "good", &[&[1]])];
    let (after, outcome) = apply(&image, 2, &create(topics));
    let results = topic_results(outcome);
    assert!(results[0].is_ok() && results[1].is_err());
    assert_eq!(results[2], Err(TopicError::AlreadyExists("good".into())));
    assert_eq!(after.topics.len(), 1);
}

#[test]
fn validating_answers_as_creating_would_and_changes_nothing() {
    let image = image_of(&[register(1, 1, 1)]);
    let topics = vec![new_topic(1, "t", &[&[1]]), new_topic(2, "t", &[&[1]])];
    let (after, outcome) = apply(&image, 2, &MetadataCommand::CreateTopics { topics, validate_only: true });
    let results = topic_results(outcome);
    assert!(results[0].is_ok() && results[1].is_err());
    assert!(after.topics.is_empty() && after.topic_names.is_empty());
}

#[test]
fn a_deleted_topic_is_gone_by_name_and_id_and_its_name_is_free() {
    let before = image_of(&[register(1, 1, 1), create(vec![new_topic(1, "a.b", &[&[1]])])]);
    let delete = MetadataCommand::DeleteTopics {
        topics: vec![TopicId(Uuid::from_u128(1)), TopicId(Uuid::from_u128(2))],
    };
    let (image, outcome) = apply(&before, 3, &delete);
    let results = topic_results(outcome);
    assert_eq!(&*results[0].as_ref().unwrap().name, "a.b");
    assert_eq!(results[1], Err(TopicError::Unknown));
    assert!(image.topics.is_empty() && image.topic_names.is_empty() && image.folded_names.is_empty());
    let (image, outcome) = apply(&image, 4, &create(vec![new_topic(3, "a_b", &[&[1]])]));
    assert_eq!(topic_results(outcome)[0].as_ref().unwrap().created_at, 4);
    assert_eq!(image.topics.len(), 1);
}

#[test]
fn a_new_process_leads_only_under_a_new_epoch() {
    let before = image_of(&[
        register(1, 1, 1),
        register(2, 1, 2),
        create(vec![new_topic(1, "t", &[&[1, 2], &[2, 1]])]),
    ]);
    let (image, _) = apply(&before, 4, &register(1, 2, 1));
    let led = partition(&image, 1, 0);
    assert_eq!((led.leader_epoch, led.leader_broker_epoch), (LeaderEpoch(1), BrokerEpoch(4)));
    assert_eq!(led.partition_epoch, PartitionEpoch(1));
    assert_eq!(partition(&image, 1, 1), partition(&before, 1, 1), "what it follows is not touched");
}

#[test]
fn a_registration_said_again_or_late_grants_nothing() {
    let before = image_of(&[register(1, 2, 1), create(vec![new_topic(1, "t", &[&[1]])])]);
    let elsewhere = Endpoint { name: CLIENT_LISTENER.into(), host: "localhost".into(), port: 9999 };
    let moved = BrokerRegistration { listeners: vec![elsewhere.clone()], ..old_broker(1, 2, 1) };
    let (again, outcome) = apply(&before, 3, &MetadataCommand::RegisterBroker(moved));
    assert_eq!(outcome, Outcome::Registered(Ok(BrokerEpoch(1))));
    assert_eq!(again.brokers[&BrokerId(1)].client_endpoint(), Some(&elsewhere));
    assert_eq!(again.topics, before.topics);
    let (late, outcome) = apply(&before, 3, &register(1, 1, 1));
    assert!(matches!(outcome, Outcome::Registered(Err(RegistrationError::Copy { .. }))));
    assert_eq!(late, MetadataImage { index: 3, ..before });
}

#[test]
fn a_wiped_disk_keeps_no_seat_and_hands_leadership_to_an_in_sync_replica() {
    let before = image_of(&[
        register(1, 1, 1),
        register(2, 6, 2),
        create(vec![new_topic(1, "t", &[&[1, 2], &[2, 1]]), new_topic(2, "u", &[&[1]])]),
    ]);
    let (image, _) = apply(&before, 4, &register(1, 2, 77));
    let handed_over = partition(&image, 1, 0);
    assert_eq!(handed_over.leader, Some(BrokerId(2)));
    assert_eq!((handed_over.leader_epoch, handed_over.leader_broker_epoch), (LeaderEpoch(1), BrokerEpoch(2)));
    assert_eq!(handed_over.isr, [BrokerId(2)]);
    let followed = partition(&image, 1, 1);
    assert_eq!((followed.leader_epoch, followed.isr), (LeaderEpoch(0), vec![BrokerId(2)]));
    let alone = partition(&image, 2, 0);
    assert_eq!(
        (alone.leader, alone.isr),
        (None, vec![]),
        "what only it had is gone, and nobody may pretend otherwise"
    );
    let (image, _) = apply(&image, 5, &register(1, 3, 77));
    assert_eq!(partition(&image, 2, 0).leader, None, "another start does not bring it back");
}

#[test]
fn blocks_of_producer_ids_never_overlap() {
    let mut image = MetadataImage::default();
    let mut next = 0;
    for (index, (asked, given)) in
        (1..).zip([(1_000, 1_000), (1, 1), (0, 1), (-5, 1), (i64::MAX, limits::PRODUCER_ID_BLOCK_MAX)])
    {
        let command = MetadataCommand::AllocateProducerIds { broker: BrokerId(1), count: asked };
        let (after, outcome) = apply(&image, index, &command);
        assert_eq!(outcome, Outcome::ProducerIds { first: ProducerId(next), count: given });
        next += given;
        image = after;
    }
    assert_eq!(image.next_producer_id, ProducerId(next));
}

#[test]
fn an_image_shares_what_did_not_change() {
    let before = image_of(&[register(1, 1, 1), create(vec![new_topic(1, "t", &[&[1]])])]);
    let (after, _) = apply(&before, 3, &create(vec![new_topic(2, "u", &[&[1]])]));
    assert!(Arc::ptr_eq(&before.topics["t"], &after.topics["t"]));
}

#[test]
fn an_image_survives_being_written_down() {
    let configured = NewTopic {
        configs: BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]),
        ..new_topic(2, "with.dots", &[&[2, 1]])
    };
    let image = image_of(&[
        register(1, 4, 1),
        register(2, 1, 2),
        create(vec![new_topic(1, "t", &[&[1, 2], &[2, 1]]), configured]),
        MetadataCommand::AllocateProducerIds { broker: BrokerId(1), count: 1_000 },
        register(1, 5, 11),
    ]);
    let led = MetadataImage { controller: Some(BrokerId(1)), ..image.clone() };
    assert_eq!(decode_image(&encode_image(&led)).unwrap(), image, "all but the controller");
}

#[test]
fn the_bytes_of_an_image_are_what_they_were() {
    let image = image_of(&[register(1, 4, 1), create(vec![new_topic(1, "t", &[&[1]])])]);
    let bytes = encode_image(&image);
    assert_eq!(bytes[0], 3);
    assert_eq!(
        std::str::from_utf8(&bytes[1..]).unwrap(),
        r#"{"index":2,"cluster_id":"cluster","next_producer_id":0,"brokers":[{"id":1,"incarnation":4,"incarnation_id":null,"previous_epoch":null,"storage":"00000000-0000-0000-0000-000000000001","listeners":[{"name":"PLAINTEXT","host":"localhost","port":9092}],"rack":null,"epoch":1,"served_epoch":1,"fenced":false,"in_controlled_shutdown":false}],"topics":[{"id":"00000000-0000-0000-0000-000000000001","name":"t","created_at":2,"configs":{},"partitions":[[1,1,0,0,[[1,2,null]],[1],null]]}]}"#
    );
}

#[test]
fn an_image_of_the_first_version_is_of_one_node_whose_replicas_are_called_after_their_topic() {
    let first = b"\x01{\"index\":7,\"cluster_id\":\"cluster\",\"next_producer_id\":0,\"brokers\":[{\"id\":1,\"incarnation\":4,\"storage\":\"00000000-0000-0000-0000-000000000001\",\"host\":\"localhost\",\"port\":9092}],\"topics\":[{\"id\":\"00000000-0000-0000-0000-000000000001\",\"name\":\"t\",\"created_at\":2,\"configs\":{},\"partitions\":[[1,4,3,[1],[1]]]}]}";
    let image = decode_image(first).unwrap();
    assert_eq!(image.brokers[&BrokerId(1)].registration, old_broker(1, 4, 1));
    let found = partition(&image, 1, 0);
    let (broker, storage) = (BrokerId(1), StorageId(Uuid::from_u128(1)));
    assert_eq!(found.replicas, [Replica { broker, storage, assignment: AssignmentId(2) }]);
    assert_eq!((found.leader, found.leader_epoch), (Some(broker), LeaderEpoch(3)));
    // The next start is another process, and alone: it leads on, under an epoch of its own.
    let next = MetadataCommand::RegisterBroker(crate::metadata::testing::broker(1, 5, 1, 77));
    let (image, outcome) = apply(&image, 8, &next);
    assert_eq!(outcome, Outcome::Registered(Ok(BrokerEpoch(8))));
    let led = partition(&image, 1, 0);
    assert_eq!(
        (led.leader, led.leader_epoch, led.leader_broker_epoch),
        (Some(broker), LeaderEpoch(4), BrokerEpoch(8))
    );
    assert_eq!(led.replicas, found.replicas);
}

#[test]
fn old_commands_do_what_they_did() {
    let old: [&[u8]; 3] = [
        b"\x01{\"command\":\"register-broker\",\"id\":1,\"incarnation\":1,\"storage\":\"00000000-0000-0000-0000-000000000001\",\"host\":\"localhost\",\"port\":9092}",
        b"\x01{\"command\":\"create-topics\",\"topics\":[{\"id\":\"00000000-0000-0000-0000-000000000001\",\"name\":\"t\",\"assignments\":[[1]],\"configs\":{}}],\"validate_only\":false}",
        b"\x02{\"command\":\"create-partitions\",\"topics\":[{\"topic\":\"00000000-0000-0000-0000-000000000001\",\"total\":2,\"assignments\":[[1]]}]}",
    ];
    let commands = old.map(|bytes| decode_command(bytes).unwrap());
    assert_eq!(commands[0], register(1, 1, 1));
    assert_eq!(encode_command(&commands[1]), old[1], "what needs nothing newer is written as it was");
    assert_eq!(encode_command(&commands[2]), old[2]);
    let image = image_of(&commands);
    let added = partition(&image, 1, 1);
    assert_eq!(added.replicas[0].assignment, AssignmentId(2), "so its directory is called");
    assert!(!image.brokers[&BrokerId(1)].fenced);
}

#[test]
fn commands_survive_being_written_down_and_others_are_refused() {
    for command in [
        register(1, 4, 1),
        create(vec![new_topic(1, "t", &[&[1, 2]])]),
        MetadataCommand::DeleteTopics { topics: vec![TopicId(Uuid::from_u128(1))] },
        MetadataCommand::AllocateProducerIds { broker: BrokerId(1), count: 5 },
        alter(ConfigResource::Topic(TopicId(Uuid::from_u128(1))), &[("a", ConfigOperation::Delete)]),
        alter(ConfigResource::AllBrokers, &[("a", set("1"))]),
        MetadataCommand::CreatePartitions {
            topics: vec![NewPartitions {
                topic: TopicId(Uuid::from_u128(1)),
                total: 3,
                assignments: vec![vec![BrokerId(1)]],
            }],
            own_assignment: true,
        },
    ] {
        assert_eq!(decode_command(&encode_command(&command)).unwrap(), command);
    }
    let table: [(&[u8], &str); 5] = [
        (b"", "no version"),
        (b"\0{}", "no version"),
        (b"\x05{}", "start a newer chronik"),
        (b"\x01{\"command\":\"dance\"}", "unknown variant `dance`"),
        (b"\x01{\"command\":\"delete-topics\"", "EOF"),
    ];
    for (bytes, part) in table {
        let error = decode_command(bytes).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

fn set(value: &str) -> ConfigOperation {
    ConfigOperation::Set(value.to_owned())
}

fn alter(resource: ConfigResource, operations: &[(&str, ConfigOperation)]) -> MetadataCommand {
    let operations = operations.iter().map(|(name, operation)| ((*name).to_owned(), operation.clone()));
    let change = ConfigChange::Alter(operations.collect());
    MetadataCommand::AlterConfigs { resources: vec![AlteredConfigs { resource, change }] }
}

fn configs_results(outcome: Outcome) -> Vec<Result<(), TopicError>> {
    match outcome {
        Outcome::Configs(results) => results,
        other => panic!("{other:?}"),
    }
}

#[test]
fn configurations_of_a_topic_change_and_its_partitions_do_not() {
    let topic = ConfigResource::Topic(TopicId(Uuid::from_u128(1)));
    let before = image_of(&[register(1, 1, 1), create(vec![new_topic(1, "t", &[&[1]])])]);
    let (image, outcome) =
        apply(&before, 3, &alter(topic.clone(), &[("retention.ms", set("5")), ("flush.ms", set("1"))]));
    assert_eq!(configs_results(outcome), [Ok(())]);
    let (image, _) = apply(
        &image,
        4,
        &alter(topic.clone(), &[("flush.ms", ConfigOperation::Delete), ("a", ConfigOperation::Delete)]),
    );
    let changed = &image.topics["t"];
    assert_eq!(changed.configs, BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]));
    assert_eq!(changed.partitions, before.topics["t"].partitions);
    let (same, _) = apply(&image, 5, &alter(topic.clone(), &[("retention.ms", set("5"))]));
    assert!(Arc::ptr_eq(&same.topics["t"], changed), "what says the same changes nothing");
    let change = ConfigChange::Replace(BTreeMap::from([("segment.ms".to_owned(), "7".to_owned())]));
    let replace =
        MetadataCommand::AlterConfigs { resources: vec![AlteredConfigs { resource: topic, change }] };
    let (image, _) = apply(&image, 6, &replace);
    assert_eq!(image.topics["t"].configs, BTreeMap::from([("segment.ms".to_owned(), "7".to_owned())]));
    let gone = ConfigResource::Topic(TopicId(Uuid::from_u128(2)));
    assert_eq!(
        configs_results(apply(&image, 7, &alter(gone, &[("a", set("1"))])).1),
        [Err(TopicError::Unknown)]
    );
}

#[test]
fn configurations_of_brokers_are_kept_for_all_and_for_each() {
    let before = image_of(&[register(1, 1, 1)]);
    let (image, _) = apply(&before, 2, &alter(ConfigResource::AllBrokers, &[("a", set("1"))]));
    let one = ConfigResource::Broker(BrokerId(1));
    let (image, _) = apply(&image, 3, &alter(one.clone(), &[("a", set("2"))]));
    let of = |value: &str| BTreeMap::from([("a".to_owned(), value.to_owned())]);
    assert_eq!(image.broker_configs.of_all, of("1"));
    assert_eq!(image.broker_configs.of_one, BTreeMap::from([(BrokerId(1), of("2"))]));
    let (image, _) = apply(&image, 4, &alter(one, &[("a", ConfigOperation::Delete)]));
    assert!(image.broker_configs.of_one.is_empty());
    let (image, _) = apply(&image, 5, &alter(ConfigResource::AllBrokers, &[("a", ConfigOperation::Delete)]));
    assert_eq!(image, MetadataImage { index: 5, ..before });
    let unknown = alter(ConfigResource::Broker(BrokerId(9)), &[("a", set("1"))]);
    assert!(configs_results(apply(&image, 6, &unknown).1)[0].is_err());
}

#[test]
fn an_image_keeps_configurations_of_brokers_and_the_first_version_had_none() {
    let image = image_of(&[
        register(1, 1, 1),
        alter(ConfigResource::AllBrokers, &[("log.retention.ms", set("5"))]),
        alter(ConfigResource::Broker(BrokerId(1)), &[("message.max.bytes", set("6"))]),
    ]);
    let bytes = encode_image(&image);
    assert_eq!(bytes[0], 3);
    assert!(std::str::from_utf8(&bytes[1..]).unwrap().ends_with(
        r#""topics":[],"broker_configs":{"of_all":{"log.retention.ms":"5"},"of_one":{"1":{"message.max.bytes":"6"}}}}"#
    ));
    assert_eq!(decode_image(&bytes).unwrap(), image);
    let first =
        b"\x01{\"index\":2,\"cluster_id\":\"cluster\",\"next_producer_id\":0,\"brokers\":[],\"topics\":[]}";
    let read = decode_image(first).unwrap();
    assert_eq!((read.index, &*read.broker_configs), (2, &crate::metadata::BrokerConfigs::default()));
    assert_eq!(encode_command(&alter(ConfigResource::AllBrokers, &[]))[0], 2);
    assert_eq!(encode_command(&register(1, 1, 1))[0], 3);
}

#[test]
fn a_group_has_configurations_whether_it_is_there_or_not_and_images_without_any_are_as_they_were() {
    let before = image_of(&[register(1, 1, 1)]);
    let group = |id: &str| ConfigResource::Group(id.into());
    let of_group = alter(group("g"), &[("consumer.session.timeout.ms", set("50000"))]);
    let (image, outcome) = apply(&before, 2, &of_group);
    assert_eq!(configs_results(outcome), [Ok(())]);
    let own = BTreeMap::from([("consumer.session.timeout.ms".to_owned(), "50000".to_owned())]);
    assert_eq!((image.group_configs("g"), image.group_configs("other")), (Some(&own), None));
    let bytes = encode_image(&image);
    assert_eq!((bytes[0], encode_command(&of_group)[0]), (4, 4));
    assert_eq!(decode_image(&bytes).unwrap(), image);
    assert_eq!(decode_command(&encode_command(&of_group)).unwrap(), of_group);
    let gone = alter(group("g"), &[("consumer.session.timeout.ms", ConfigOperation::Delete)]);
    let (image, _) = apply(&image, 3, &gone);
    assert_eq!(image, MetadataImage { index: 3, ..before });
    assert_eq!(encode_image(&image)[0], 3);
}

#[test]
fn only_so_many_groups_have_configurations() {
    let mut image = image_of(&[register(1, 1, 1)]);
    let own = Arc::new(BTreeMap::from([("a".to_owned(), "1".to_owned())]));
    image.group_configs = (0..limits::CONFIGURED_GROUPS_MAX)
        .map(|number| (Arc::from(format!("g{number}")), own.clone()))
        .collect();
    let to = |id: &str| alter(ConfigResource::Group(id.into()), &[("a", set("2"))]);
    assert!(configs_results(apply(&image, 2, &to("one-more")).1)[0].is_err());
    let (changed, outcome) = apply(&image, 2, &to("g7"));
    assert_eq!(configs_results(outcome), [Ok(())]);
    assert_eq!(changed.group_configs("g7").unwrap()["a"], "2");
}
