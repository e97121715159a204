use kafka_protocol::messages::create_partitions_request::CreatePartitionsAssignment;
use kafka_protocol::messages::{BrokerId as WireId, TopicName};

use super::*;
use crate::ids::AssignmentId;
use crate::metadata::testing;
use crate::wire::text;

/// Brokers 1 and 2, and a topic of two partitions with a replica each.
fn image() -> MetadataImage {
    let topic = testing::new_topic(9, "p", &[&[1], &[2]]);
    testing::after(&testing::cluster(2), &testing::create(vec![topic])).0
}

fn asked(name: &'static str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitionsTopic {
    let assigned = |ids: &&[i32]| {
        CreatePartitionsAssignment::default().with_broker_ids(ids.iter().copied().map(WireId).collect())
    };
    CreatePartitionsTopic::default()
        .with_name(TopicName(text(name)))
        .with_count(count)
        .with_assignments(assignments.map(|all| all.iter().map(assigned).collect()))
}

/// As a request of this topic alone would be answered.
fn outcome(asked: &CreatePartitionsTopic) -> Result<Arc<TopicImage>, Refusal> {
    let image = image();
    let topics = vec![plan(&image, asked, PARTITIONS_PER_REQUEST_MAX)?];
    of_topics(apply(&image, 9, &MetadataCommand::CreatePartitions { topics, own_assignment: true }).1)
        .remove(0)
}

#[test]
fn new_partitions_take_their_turns_behind_those_that_are_there() {
    let topic = outcome(&asked("p", 5, None)).unwrap();
    let leaders: Vec<i32> = topic.partitions.iter().map(|p| p.leader.unwrap().0).collect();
    assert_eq!(leaders, [1, 2, 1, 2, 1]);
    let given = [0, 4].map(|index: usize| topic.partitions[index].replicas[0].assignment);
    assert_eq!(given, [AssignmentId(topic.created_at), AssignmentId(9)]);
    let topic = outcome(&asked("p", 4, Some(&[&[2], &[2]]))).unwrap();
    let leaders: Vec<i32> = topic.partitions.iter().map(|p| p.leader.unwrap().0).collect();
    assert_eq!(leaders, [1, 2, 2, 2]);
    assert_eq!(topic.created_at, 5);
}

#[test]
fn what_cannot_be_is_said_in_kafkas_words() {
    use ResponseError::{InvalidPartitions, InvalidReplicaAssignment, UnknownTopicOrPartition};
    let not_an_increase = "The topic p currently has 2 partition(s); 1 would not be an increase.";
    let table: [(CreatePartitionsTopic, ResponseError, &str); 11] = [
        (asked("p", 1, None), InvalidPartitions, not_an_increase),
        (asked("p", 0, None), InvalidPartitions, "0 would not be an increase."),
        (asked("p", -1, None), InvalidPartitions, "-1 would not be an increase."),
        (asked("p", 2, None), InvalidPartitions, "Topic already has 2 partition(s)."),
        (asked("p", 20_000, None), InvalidPartitions, "20000 is above the limit of 10000"),
        (
            asked("p", 4, Some(&[&[1]])),
            InvalidReplicaAssignment,
            "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
        ),
        (
            asked("p", 3, Some(&[&[9]])),
            InvalidReplicaAssignment,
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        ),
        (
            asked("p", 3, Some(&[&[1, 1]])),
            InvalidReplicaAssignment,
            "The manual partition assignment includes the broker 1 more than once.",
        ),
        (
            asked("p", 3, Some(&[&[]])),
            InvalidReplicaAssignment,
            "The manual partition assignment includes an empty replica list.",
        ),
        (
            asked("p", 3, Some(&[&[1, 2]])),
            InvalidReplicaAssignment,
            "2 replica(s), but this is not consistent",
        ),
        (asked("nope", 3, None), UnknownTopicOrPartition, "there is no such topic"),
    ];
    for (asked, code, part) in table {
        let (found, why) = outcome(&asked).unwrap_err();
        assert_eq!(found, code, "{why}");
        assert!(why.contains(part), "{why}");
    }
}

#[test]
fn a_count_that_was_overtaken_creates_nothing() {
    let image = image();
    let topics = vec![plan(&image, &asked("p", 3, None), 100).unwrap()];
    let command = MetadataCommand::CreatePartitions { topics, own_assignment: true };
    let (image, _) = apply(&image, 9, &command);
    let (after, outcome) = apply(&image, 10, &command);
    assert_eq!(
        of_topics(outcome)[0].as_ref().map_err(|(code, _)| *code),
        Err(ResponseError::InvalidPartitions)
    );
    assert_eq!(after.topics, image.topics);
}
