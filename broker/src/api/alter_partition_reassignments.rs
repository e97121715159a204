//! AlterPartitionReassignments: has other brokers keep partitions, or leaves it at those that do.

use std::collections::BTreeSet;

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ApiKey,
};

use super::authorization::{Needs, Operation};
use super::changes::{Refusal, code_and_message, of_partitions, outcomes, patience, propose};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::ids::{BrokerId, PartitionId};
use crate::metadata::{MetadataCommand, MetadataImage, PartitionReassignment};
use crate::wire::shape::{Bounds, I8, I32, I32S, Kind, Shape, always, plain, since};

/// AlterPartitionReassignments, key 45 (KIP-455; the number of replicas: KIP-860).
impl Api for AlterPartitionReassignmentsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::AlterPartitionReassignments,
        versions: Versions::of(0, 1),
        bounds: Bounds::of_partitions(&REQUEST),
        needs: Needs::OnCluster(Operation::Alter),
    };
    type Response = AlterPartitionReassignmentsResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<AlterPartitionReassignmentsResponse> {
        let context = &call.context;
        let image = context.metadata.shown();
        let mut seen = BTreeSet::new();
        let plans: Vec<Result<PartitionReassignment, Refusal>> = self
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic.name.as_str(), partition)))
            .map(|(topic, partition)| {
                let plan = plan(&image, topic, partition, self.allow_replication_factor_change)?;
                match seen.insert(plan.partition) {
                    true => Ok(plan),
                    false => Err((ResponseError::InvalidRequest, "Duplicate partition.".to_owned())),
                }
            })
            .collect();
        let reassignments: Vec<PartitionReassignment> = plans.iter().flatten().cloned().collect();
        let count = reassignments.len();
        let command = MetadataCommand::AlterPartitionReassignments { reassignments };
        let deadline = Deadline::after(&context.backend, patience(self.timeout_ms));
        let decided = propose(context, command, count, deadline, of_partitions).await;
        let mut outcomes = outcomes(plans, decided).into_iter();
        let responses = self.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().zip(&mut outcomes).map(|(partition, outcome)| {
                let (code, message) = code_and_message(outcome);
                ReassignablePartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code)
                    .with_error_message(message)
            });
            let partitions = partitions.collect();
            ReassignableTopicResponse::default().with_name(topic.name).with_partitions(partitions)
        });
        let mut response = AlterPartitionReassignmentsResponse::default()
            .with_error_message(None)
            .with_responses(responses.collect());
        if call.head.version >= 1 {
            response.allow_replication_factor_change = self.allow_replication_factor_change;
        }
        response.into()
    }

    fn errors(response: &AlterPartitionReassignmentsResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
        response.responses.iter().flat_map(|topic| &topic.partitions).for_each(|one| each(one.error_code));
    }
}

static REQUEST: Shape = plain(&[always(I32), since(1, I8), always(Kind::Many(&Kind::Struct(&TOPIC)))]);
static TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Many(&Kind::Struct(&PARTITION)))]);
static PARTITION: Shape = plain(&[always(I32), always(I32S)]);

/// In Kafka's words where it cannot be. Who the replicas may be, the metadata group says.
fn plan(
    image: &MetadataImage,
    topic: &str,
    asked: &ReassignablePartition,
    allow_other_count: bool,
) -> Result<PartitionReassignment, Refusal> {
    let unknown = |why: String| (ResponseError::UnknownTopicOrPartition, why);
    let found = image.topics.get(topic);
    let found = found.ok_or_else(|| unknown("Unable to find a topic with the specified name.".to_owned()))?;
    let id = PartitionId { topic: found.id, index: asked.partition_index };
    let partition = image.partition(id).ok_or_else(|| {
        unknown(format!("Unable to find partition {topic}:{index}.", index = asked.partition_index))
    })?;
    let replicas: Option<Vec<BrokerId>> =
        asked.replicas.as_ref().map(|ids| ids.iter().map(|id| BrokerId(id.0)).collect());
    // Without those of a reassignment that goes on and that is to end with fewer.
    let count = partition.replicas.len() - partition.removing.len();
    if let Some(target) = &replicas
        && !allow_other_count
        && target.len() != count
    {
        let why = format!("The replication factor is changed from {count} to {}", target.len());
        return Err((ResponseError::InvalidReplicationFactor, why));
    }
    Ok(PartitionReassignment { partition: id, replicas })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::{cluster_with, id};

    #[test]
    fn what_is_not_there_and_another_number_of_replicas_are_refused() {
        let mut image = cluster_with(3, &[&[1, 2]]);
        let refusal = |image: &MetadataImage, topic, index, replicas: Option<&[i32]>, allow| {
            let brokers =
                replicas.map(|ids| ids.iter().map(|id| kafka_protocol::messages::BrokerId(*id)).collect());
            let asked = ReassignablePartition::default().with_partition_index(index).with_replicas(brokers);
            plan(image, topic, &asked, allow).map(|plan| plan.partition).map_err(|(code, _)| code)
        };
        let unknown = Err(ResponseError::UnknownTopicOrPartition);
        let other_count = Err(ResponseError::InvalidReplicationFactor);
        assert_eq!(refusal(&image, "t9", 0, None, true), unknown);
        assert_eq!(refusal(&image, "t1", 1, None, true), unknown);
        assert_eq!(refusal(&image, "t1", -1, None, true), unknown);
        assert_eq!(refusal(&image, "t1", 0, None, false), Ok(id(1, 0)));
        assert_eq!(refusal(&image, "t1", 0, Some(&[2, 3]), false), Ok(id(1, 0)));
        assert_eq!(refusal(&image, "t1", 0, Some(&[1, 2, 3]), false), other_count);
        assert_eq!(refusal(&image, "t1", 0, Some(&[1, 2, 3]), true), Ok(id(1, 0)));
        // From 1, 2 to 2, 3: three replicas, until 1 goes.
        let reassignment =
            PartitionReassignment { partition: id(1, 0), replicas: Some(vec![BrokerId(2), BrokerId(3)]) };
        let command = MetadataCommand::AlterPartitionReassignments { reassignments: vec![reassignment] };
        image = crate::metadata::testing::after(&image, &command).0;
        assert_eq!(refusal(&image, "t1", 0, Some(&[1, 3]), false), Ok(id(1, 0)));
        assert_eq!(refusal(&image, "t1", 0, Some(&[1, 2, 3]), false), other_count);
    }
}
