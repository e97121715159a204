//! DescribeTopicPartitions (KIP-966): topics by name, in order, and their partitions, a page at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use io_backend::Backend;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};

use super::authorization::{Needs, Operation, TOPIC_OPERATIONS};
use super::create_topics::is_internal;
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use super::metadata;
use crate::ids;
use crate::metadata::{MetadataImage, PartitionImage, TopicImage};
use crate::wire::shape::{Bounds, I32, Kind, Shape, always, plain};
use crate::wire::text;

/// Kafka's `max.request.partition.size.limit`: partitions in one answer at most.
const PAGE_PARTITIONS_MAX: usize = 2_000;

/// DescribeTopicPartitions, key 75 (KIP-966).
impl Api for DescribeTopicPartitionsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::DescribeTopicPartitions,
        versions: Versions::of(0, 0),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnTopics(Operation::Describe),
    };
    type Response = DescribeTopicPartitionsResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<DescribeTopicPartitionsResponse> {
        page(&call.context.metadata.shown(), self).into()
    }

    fn errors(response: &DescribeTopicPartitionsResponse, each: &mut dyn FnMut(i16)) {
        for topic in &response.topics {
            each(topic.error_code);
            topic.partitions.iter().for_each(|one| each(one.error_code));
        }
    }
}

static REQUEST: Shape =
    plain(&[always(Kind::Many(&Kind::Struct(&TOPIC))), always(I32), always(Kind::Nullable(&CURSOR))]);
static TOPIC: Shape = plain(&[always(Kind::Text)]);
static CURSOR: Shape = plain(&[always(Kind::Text), always(I32)]);

/// What is told from the cursor on, up to the limit; then where the next page begins.
fn page(image: &MetadataImage, request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PAGE_PARTITIONS_MAX);
    let (from, first) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), usize::try_from(cursor.partition_index).unwrap_or(0)),
        None => ("", 0),
    };
    let mut topics = Vec::new();
    let mut left = limit;
    for name in wanted(image, &request.topics, from) {
        let Some(topic) = image.topics.get(name) else {
            topics.push(unknown(name));
            continue;
        };
        if left == 0 {
            return ended_at(topics, name, 0);
        }
        let skipped = if name == from { first } else { 0 };
        let described = (0..).zip(&topic.partitions).skip(skipped).take(left);
        let partitions: Vec<_> = described.map(|(index, one)| partition(image, index, one)).collect();
        left -= partitions.len();
        let next = skipped + partitions.len();
        topics.push(known(topic, partitions));
        if next < topic.partitions.len() {
            return ended_at(topics, name, next);
        }
    }
    DescribeTopicPartitionsResponse::default().with_topics(topics)
}

/// Names from `from` on, in order and each once; without any in the request, those of all topics.
fn wanted<'a>(image: &'a MetadataImage, asked: &'a [TopicRequest], from: &str) -> BTreeSet<&'a str> {
    let all = image.topics.keys().filter(|_| asked.is_empty()).map(|name| &**name);
    asked.iter().map(|topic| topic.name.as_str()).chain(all).filter(|name| *name >= from).collect()
}

fn ended_at(
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    topic: &str,
    partition: usize,
) -> DescribeTopicPartitionsResponse {
    let cursor = Cursor::default()
        .with_topic_name(TopicName(text(topic)))
        .with_partition_index(i32::try_from(partition).unwrap_or(i32::MAX));
    DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(Some(cursor))
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(metadata::no_such_topic(name).code())
        .with_name(Some(TopicName(text(name))))
}

fn known(
    topic: &Arc<TopicImage>,
    partitions: Vec<DescribeTopicPartitionsResponsePartition>,
) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(text(&topic.name))))
        .with_is_internal(is_internal(&topic.name))
        .with_topic_id(topic.id.0)
        .with_partitions(partitions)
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}

fn partition(
    image: &MetadataImage,
    index: i32,
    partition: &PartitionImage,
) -> DescribeTopicPartitionsResponsePartition {
    let told = metadata::partition(image, &BTreeSet::new(), index, partition);
    let nodes = |ids: &[ids::BrokerId]| ids.iter().map(|id| BrokerId(id.0)).collect();
    // Kafka keeps who led last in the last known ELR.
    let last_known: Vec<ids::BrokerId> = partition.last_known_leader.into_iter().collect();
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(told.error_code)
        .with_partition_index(told.partition_index)
        .with_leader_id(told.leader_id)
        .with_leader_epoch(told.leader_epoch)
        .with_replica_nodes(told.replica_nodes)
        .with_isr_nodes(told.isr_nodes)
        .with_offline_replicas(told.offline_replicas)
        .with_eligible_leader_replicas(Some(nodes(&partition.elr)))
        .with_last_known_elr(Some(nodes(&last_known)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kafka_protocol::messages::describe_topic_partitions_request;
    use uuid::Uuid;

    use super::*;
    use crate::ids::{AssignmentId, StorageId, TopicId};
    use crate::metadata::Replica;

    fn image(topics: &[(&str, usize)]) -> MetadataImage {
        let mut image = MetadataImage::default();
        let replica =
            Replica { broker: ids::BrokerId(1), storage: StorageId::default(), assignment: AssignmentId(1) };
        for (nth, (name, partitions)) in (1..).zip(topics) {
            let one = PartitionImage {
                replicas: vec![replica],
                isr: vec![ids::BrokerId(1)],
                ..PartitionImage::default()
            };
            image.insert_topic(Arc::new(TopicImage {
                id: TopicId(Uuid::from_u128(nth)),
                name: (*name).into(),
                partitions: vec![one; *partitions],
                configs: BTreeMap::new(),
                created_at: 1,
            }));
        }
        image
    }

    /// Names with their partitions and codes, and the cursor.
    type Page = (Vec<(String, Vec<i32>, i16)>, Option<(String, i32)>);

    fn told(image: &MetadataImage, names: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> Page {
        let name = |name: &str| TopicName(text(name));
        let topics = names.iter().map(|one| TopicRequest::default().with_name(name(one))).collect();
        let cursor = cursor.map(|(topic, index)| {
            describe_topic_partitions_request::Cursor::default()
                .with_topic_name(name(topic))
                .with_partition_index(index)
        });
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(topics)
            .with_response_partition_limit(limit)
            .with_cursor(cursor);
        let response = page(image, request);
        let topics = response.topics.into_iter().map(|topic| {
            let name = topic.name.map_or(String::new(), |name| name.to_string());
            (name, topic.partitions.iter().map(|one| one.partition_index).collect(), topic.error_code)
        });
        let cursor = response.next_cursor.map(|next| (next.topic_name.to_string(), next.partition_index));
        (topics.collect(), cursor)
    }

    #[test]
    fn pages_add_up_to_everything() {
        let image = image(&[("b", 5), ("a", 2), ("c", 1)]);
        for limit in 1..10 {
            let mut cursor: Option<(String, i32)> = None;
            let mut all = Vec::new();
            loop {
                let from = cursor.as_ref().map(|(topic, index)| (topic.as_str(), *index));
                let (topics, next) = told(&image, &[], limit, from);
                assert!(
                    topics.iter().map(|(_, partitions, _)| partitions.len()).sum::<usize>() <= limit as usize
                );
                all.extend(topics.into_iter().flat_map(|(name, partitions, _)| {
                    partitions.into_iter().map(move |index| format!("{name}{index}"))
                }));
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(all, ["a0", "a1", "b0", "b1", "b2", "b3", "b4", "c0"], "{limit} at a time");
        }
    }

    #[test]
    fn what_is_named_is_told_in_order_and_once_and_what_is_not_there_with_its_code() {
        let image = image(&[("b", 1), ("a", 1)]);
        let (topics, cursor) = told(&image, &["b", "nowhere", "a", "b", "or ders"], 10, None);
        let told: Vec<(&str, i16)> = topics.iter().map(|(name, _, code)| (&**name, *code)).collect();
        assert_eq!(told, [("a", 0), ("b", 0), ("nowhere", 3), ("or ders", 17)]);
        assert_eq!(cursor, None);
    }

    #[test]
    fn a_cursor_at_a_topic_that_has_gone_goes_on_behind_it() {
        let image = image(&[("a", 1), ("c", 2)]);
        assert_eq!(told(&image, &[], 10, Some(("b", 7))), (vec![("c".into(), vec![0, 1], 0)], None));
    }
}
