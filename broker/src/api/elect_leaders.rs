//! ElectLeaders: has the preferred replicas lead again, or somebody where nobody does.

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ApiKey, ElectLeadersRequest, ElectLeadersResponse, TopicName};

use super::authorization::{Needs, Operation};
use super::changes::{Refusal, code_and_message, of_partitions, outcomes, patience, propose};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::ids::PartitionId;
use crate::metadata::{ElectionKind, MetadataCommand, MetadataImage, PartitionElection};
use crate::wire::shape::{Bounds, I8, I32, I32S, Kind, Shape, always, plain, since};
use crate::wire::text;

/// Kafka's kinds of elections.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// ElectLeaders, key 43 (KIP-183; unclean ones: KIP-460).
impl Api for ElectLeadersRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::ElectLeaders,
        versions: Versions::of(0, 2),
        bounds: Bounds::of_partitions(&REQUEST),
        needs: Needs::OnCluster(Operation::Alter),
    };
    type Response = ElectLeadersResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<ElectLeadersResponse> {
        let context = &call.context;
        let kind = match self.election_type {
            PREFERRED => ElectionKind::Preferred,
            UNCLEAN => ElectionKind::Unclean,
            _ => {
                let mut response = ElectLeadersResponse::default();
                if call.head.version >= 1 {
                    response.error_code = ResponseError::InvalidRequest.code();
                }
                return response.into();
            }
        };
        let image = context.metadata.shown();
        let of_all = self.topic_partitions.is_none();
        let asked = match &self.topic_partitions {
            None => every_partition(&image, kind),
            Some(topics) => topics.iter().map(|one| (one.topic.clone(), one.partitions.clone())).collect(),
        };
        let plans: Vec<Result<PartitionElection, Refusal>> = asked
            .iter()
            .flat_map(|(topic, indexes)| indexes.iter().map(move |index| (topic.as_str(), *index)))
            .map(|(topic, index)| {
                let partition = find(&image, topic, index)?;
                Ok(PartitionElection { partition, kind, partition_epoch: None })
            })
            .collect();
        let elections: Vec<PartitionElection> = plans.iter().flatten().cloned().collect();
        let count = elections.len();
        let command = MetadataCommand::ElectLeaders { elections, barred: Vec::new() };
        let deadline = Deadline::after(&context.backend, patience(self.timeout_ms));
        let decided = propose(context, command, count, deadline, of_partitions).await;
        let mut outcomes = outcomes(plans, decided).into_iter();
        let mut results = Vec::with_capacity(asked.len());
        for (topic, indexes) in asked {
            let partitions = indexes.iter().zip(&mut outcomes).filter_map(|(index, outcome)| {
                let (code, message) = code_and_message(outcome);
                // Of those that nobody has named, only what was to be done.
                let is_told = !of_all || code != ResponseError::ElectionNotNeeded.code();
                let result = PartitionResult::default()
                    .with_partition_id(*index)
                    .with_error_code(code)
                    .with_error_message(message);
                is_told.then_some(result)
            });
            let partitions: Vec<PartitionResult> = partitions.collect();
            if !of_all || !partitions.is_empty() {
                let result = ReplicaElectionResult::default().with_topic(topic);
                results.push(result.with_partition_result(partitions));
            }
        }
        ElectLeadersResponse::default().with_replica_election_results(results).into()
    }

    fn errors(response: &ElectLeadersResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
        let results = response.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
        results.for_each(|one| each(one.error_code));
    }
}

static REQUEST: Shape = plain(&[since(1, I8), always(Kind::Many(&Kind::Struct(&TOPIC))), always(I32)]);
static TOPIC: Shape = plain(&[always(Kind::Text), always(I32S)]);

/// Those of all topics for which there is something to do, so that the command names no others.
fn every_partition(image: &MetadataImage, kind: ElectionKind) -> Vec<(TopicName, Vec<i32>)> {
    let topics = image.topics.values().map(|topic| {
        let indexes = (0..).zip(&topic.partitions).filter(|(_, partition)| match kind {
            ElectionKind::Preferred => partition.leader != partition.replica_brokers().next(),
            _ => partition.leader.is_none(),
        });
        (TopicName(text(&topic.name)), indexes.map(|(index, _)| index).collect::<Vec<i32>>())
    });
    topics.filter(|(_, indexes)| !indexes.is_empty()).collect()
}

fn find(image: &MetadataImage, name: &str, index: i32) -> Result<PartitionId, Refusal> {
    let unknown = |why: String| (ResponseError::UnknownTopicOrPartition, why);
    let topic = image.topics.get(name).ok_or_else(|| unknown(format!("No such topic as {name}")))?;
    let id = PartitionId { topic: topic.id, index };
    image.partition(id).map(|_| id).ok_or_else(|| unknown(format!("No such partition as {name}-{index}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BrokerId;
    use crate::metadata::testing::{after, cluster_with, process};

    #[test]
    fn where_nothing_is_named_only_what_can_be_done_is() {
        let image = cluster_with(3, &[&[1, 2], &[2, 3], &[3]]);
        assert_eq!(every_partition(&image, ElectionKind::Preferred), []);
        let fence = |image: &MetadataImage, broker| {
            after(image, &MetadataCommand::FenceBroker(process(image, broker))).0
        };
        let image = fence(&fence(&image, 1), 3);
        let names = |kind| {
            let all = every_partition(&image, kind);
            all.into_iter().map(|(name, indexes)| (name.to_string(), indexes)).collect::<Vec<_>>()
        };
        assert_eq!(image.topics["t1"].partitions[0].leader, Some(BrokerId(2)));
        assert_eq!(names(ElectionKind::Preferred), [("t1".to_owned(), vec![0]), ("t3".to_owned(), vec![0])]);
        assert_eq!(names(ElectionKind::Unclean), [("t3".to_owned(), vec![0])]);
        assert_eq!(find(&image, "t1", 1).unwrap_err().1, "No such partition as t1-1");
        assert_eq!(find(&image, "t9", 0).unwrap_err().1, "No such topic as t9");
    }
}
