//! ListPartitionReassignments: which partitions are on their way to other brokers.

use io_backend::Backend;
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{
    ApiKey, BrokerId, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
};

use super::authorization::{Needs, Operation};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::ids;
use crate::metadata::{MetadataImage, PartitionImage, TopicImage};
use crate::wire::shape::{Bounds, I32, I32S, Kind, Shape, always, plain};
use crate::wire::text;

/// ListPartitionReassignments, key 46 (KIP-455).
impl Api for ListPartitionReassignmentsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::ListPartitionReassignments,
        versions: Versions::of(0, 0),
        bounds: Bounds::of_partitions(&REQUEST),
        needs: Needs::OnCluster(Operation::Describe),
    };
    type Response = ListPartitionReassignmentsResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<ListPartitionReassignmentsResponse> {
        let image = call.context.metadata.shown();
        ListPartitionReassignmentsResponse::default()
            .with_error_message(None)
            .with_topics(ongoing(&image, &self))
            .into()
    }

    fn errors(response: &ListPartitionReassignmentsResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }
}

static REQUEST: Shape = plain(&[always(I32), always(Kind::Many(&Kind::Struct(&TOPIC)))]);
static TOPIC: Shape = plain(&[always(Kind::Text), always(I32S)]);

/// What is not reassigned, or not there, is left out, as Kafka does.
fn ongoing(
    image: &MetadataImage,
    asked: &ListPartitionReassignmentsRequest,
) -> Vec<OngoingTopicReassignment> {
    let told = |topic: &TopicImage, wanted: &dyn Fn(i32) -> bool| {
        let reassigned =
            (0..).zip(&topic.partitions).filter(|(index, one)| one.is_reassigned() && wanted(*index));
        let partitions: Vec<_> =
            reassigned.map(|(index, partition)| partition_of(index, partition)).collect();
        (!partitions.is_empty()).then(|| {
            let name = TopicName(text(&topic.name));
            OngoingTopicReassignment::default().with_name(name).with_partitions(partitions)
        })
    };
    match &asked.topics {
        None => image.topics.values().filter_map(|topic| told(topic, &|_| true)).collect(),
        Some(topics) => topics
            .iter()
            .filter_map(|asked| {
                let topic = image.topics.get(asked.name.as_str())?;
                told(topic, &|index| asked.partition_indexes.contains(&index))
            })
            .collect(),
    }
}

fn partition_of(index: i32, partition: &PartitionImage) -> OngoingPartitionReassignment {
    let brokers =
        |ids: &mut dyn Iterator<Item = ids::BrokerId>| ids.map(|id| BrokerId(id.0)).collect::<Vec<_>>();
    OngoingPartitionReassignment::default()
        .with_partition_index(index)
        .with_replicas(brokers(&mut partition.replica_brokers()))
        .with_adding_replicas(brokers(&mut partition.adding.iter().copied()))
        .with_removing_replicas(brokers(&mut partition.removing.iter().copied()))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;

    use super::*;
    use crate::metadata::testing::{after, cluster_with, id};
    use crate::metadata::{MetadataCommand, PartitionReassignment};

    #[test]
    fn only_what_is_reassigned_is_told() {
        let image = cluster_with(4, &[&[1, 2], &[2, 3]]);
        let target = Some([2, 4].map(ids::BrokerId).to_vec());
        let reassignments = vec![PartitionReassignment { partition: id(2, 0), replicas: target }];
        let image = after(&image, &MetadataCommand::AlterPartitionReassignments { reassignments }).0;
        let all = ListPartitionReassignmentsRequest::default().with_topics(None);
        let told = ongoing(&image, &all);
        assert_eq!(told.len(), 1);
        let partition = &told[0].partitions[0];
        let numbers = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(told[0].name.as_str(), "t2");
        assert_eq!(numbers(&partition.replicas), [2, 4, 3]);
        assert_eq!(
            (numbers(&partition.adding_replicas), numbers(&partition.removing_replicas)),
            (vec![4], vec![3])
        );

        let named = |name: &'static str, indexes: &[i32]| {
            let topic = ListPartitionReassignmentsTopics::default()
                .with_name(TopicName(crate::wire::StrBytes::from_static_str(name)))
                .with_partition_indexes(indexes.to_vec());
            ongoing(&image, &ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic])))
                .len()
        };
        assert_eq!(
            [named("t2", &[0]), named("t2", &[1]), named("t1", &[0]), named("t9", &[0])],
            [1, 0, 0, 0]
        );
    }
}
