//! CreatePartitions: more partitions of topics that are there.
//!
//! All topics of a request are one proposal. The answer waits until this node leads what it is to lead.

use std::sync::Arc;

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{ApiKey, CreatePartitionsRequest, CreatePartitionsResponse};

use super::authorization::{Needs, Operation};
use super::changes::{Refusal, code_and_message, of_topics, outcomes, patience, propose, refused};
use super::create_topics::{
    Creating, PARTITIONS_PER_REQUEST_MAX, duplicates, is_internal, no_room_on_this_node, spread, within_room,
};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::ids::BrokerId;
use crate::limits;
use crate::metadata::apply::apply;
use crate::metadata::{MetadataCommand, MetadataImage, NewPartitions, TopicError, TopicImage};
use crate::routing::{until_known, until_led};
use crate::wire::shape::{Bounds, I8, I32, I32S, Kind, Shape, always, plain};

/// CreatePartitions, key 37 (KIP-195).
impl Api for CreatePartitionsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::CreatePartitions,
        versions: Versions::of(0, 3),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnTopics(Operation::Alter),
    };
    type Response = CreatePartitionsResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<CreatePartitionsResponse> {
        let context = &call.context;
        let topics = &self.topics;
        until_known(context, |image| {
            topics.iter().all(|topic| image.topics.contains_key(topic.name.as_str()))
        })
        .await;
        let image = context.metadata.shown();
        let duplicates = duplicates(self.topics.iter().map(|topic| topic.name.as_str()));
        let creating = Creating::of(&context.creating);
        let existing: usize = image.topics.values().map(|topic| topic.partitions.len()).sum();
        let max = context.config.topics.partitions_max;
        let mut room = PARTITIONS_PER_REQUEST_MAX;
        let plans: Vec<Result<NewPartitions, Refusal>> = self
            .topics
            .iter()
            .map(|topic| {
                if duplicates.contains(topic.name.as_str()) {
                    return Err((ResponseError::InvalidRequest, "Duplicate topic name.".into()));
                }
                let plan = plan(&image, topic, room)?;
                if !creating.admit(existing, plan.assignments.len(), max) {
                    return Err((ResponseError::PolicyViolation, no_room_on_this_node(max)));
                }
                room = room.saturating_sub(plan.assignments.len());
                Ok(plan)
            })
            .collect();

        let deadline = context.backend.now() + patience(self.timeout_ms);
        let topics: Vec<NewPartitions> = plans.iter().flatten().cloned().collect();
        let count = topics.len();
        let command = MetadataCommand::CreatePartitions { topics, own_assignment: true };
        let decided = match self.validate_only {
            true => of_topics(apply(&image, image.index, &command).1),
            false => propose(context, command, count, Deadline::At(deadline), of_topics).await,
        };
        let outcomes = outcomes(plans, decided);
        if !self.validate_only {
            let grown: Vec<Arc<TopicImage>> = outcomes.iter().flatten().cloned().collect();
            until_led(context, &grown, deadline).await;
        }
        let results = self.topics.into_iter().zip(outcomes).map(|(topic, outcome)| {
            let (code, message) = code_and_message(outcome);
            CreatePartitionsTopicResult::default()
                .with_name(topic.name)
                .with_error_code(code)
                .with_error_message(message)
        });
        CreatePartitionsResponse::default().with_results(results.collect()).into()
    }

    fn errors(response: &CreatePartitionsResponse, each: &mut dyn FnMut(i16)) {
        response.results.iter().for_each(|topic| each(topic.error_code));
    }
}

static REQUEST: Shape = plain(&[always(Kind::Many(&Kind::Struct(&TOPIC))), always(I32), always(I8)]);
static TOPIC: Shape =
    plain(&[always(Kind::Text), always(I32), always(Kind::Many(&Kind::Struct(&ASSIGNMENT)))]);
static ASSIGNMENT: Shape = plain(&[always(I32S)]);

/// In Kafka's words where it cannot be.
fn plan(image: &MetadataImage, asked: &CreatePartitionsTopic, room: usize) -> Result<NewPartitions, Refusal> {
    let name = asked.name.as_str();
    let topic = image.topics.get(name).ok_or_else(|| refused(TopicError::Unknown))?;
    if is_internal(name) {
        let why = format!("The partitions of {name} say where each group is kept: their number stays.");
        return Err((ResponseError::PolicyViolation, why));
    }
    let existing = topic.partitions.len();
    let invalid = |why: String| Err((ResponseError::InvalidPartitions, why));
    let total = match usize::try_from(asked.count) {
        Ok(total) if total > existing => total,
        Ok(total) if total == existing => {
            return invalid(format!("Topic already has {existing} partition(s)."));
        }
        _ => {
            return invalid(format!(
                "The topic {name} currently has {existing} partition(s); {} would not be an increase.",
                asked.count
            ));
        }
    };
    let more = total - existing;
    if total > limits::TOPIC_PARTITIONS_MAX {
        let max = limits::TOPIC_PARTITIONS_MAX;
        return invalid(format!("Number of partitions {total} is above the limit of {max} for one topic."));
    }
    within_room(more, room)?;
    let assignments = match &asked.assignments {
        Some(assignments) => {
            assignments.iter().map(|one| one.broker_ids.iter().map(|id| BrokerId(id.0)).collect()).collect()
        }
        None => {
            let brokers: Vec<BrokerId> = image.brokers.keys().copied().collect();
            let first = topic.partitions.first();
            let replication = first.map_or(1, |partition| partition.replicas.len());
            // Goes on where the topic's last partition ended.
            let begun = first.and_then(|partition| partition.replicas.first());
            let begun =
                begun.and_then(|leader| brokers.iter().position(|id| *id == leader.broker)).unwrap_or(0);
            spread(image, begun + existing, more, replication)?
        }
    };
    Ok(NewPartitions { topic: topic.id, total, assignments })
}

#[cfg(test)]
#[path = "create_partitions_tests.rs"]
mod tests;
