//! Metadata: which topics there are and who leads them; creates what is asked for and missing, where
//! that is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{ApiKey, BrokerId, MetadataRequest, TopicName};
use uuid::Uuid;

use super::authorization::{CLUSTER_OPERATIONS, Needs, OPERATIONS_OMITTED, Operation, TOPIC_OPERATIONS};
use super::create_topics;
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::context::Context;
use crate::error_codes;
use crate::ids::{self, TopicId};
use crate::metadata::{BrokerImage, MetadataImage, PartitionImage, TopicImage, apply};
use crate::routing::{until_known, until_led};
use crate::wire::shape::{Bounds, I8, Kind, Shape, UUID, always, between, plain, since};
use crate::wire::text;

/// Topics that are auto-created: a client that waits longer asks again.
const CREATION_DEADLINE: Duration = Duration::from_secs(5);

/// Metadata: brokers, topics, who leads; creates topics that are asked for where that is allowed.
impl Api for MetadataRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::Metadata,
        versions: Versions::of(0, 13),
        bounds: Bounds::of_partitions(&REQUEST),
        needs: Needs::OnTopics(Operation::Describe),
    };
    type Response = MetadataResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<MetadataResponse> {
        let (context, version) = (&*call.context, call.head.version);
        // In version 0 an empty list means all, afterwards null does.
        let wanted = self.topics.filter(|topics| version > 0 || !topics.is_empty()).map(without_duplicates);
        let may_create = context.config.topics.auto_create && (version < 4 || self.allow_auto_topic_creation);
        let mut refusals = Refusals::new();
        if let Some(wanted) = &wanted
            && may_create
        {
            refusals = create_missing(context, wanted).await;
        }

        if let Some(wanted) = &wanted {
            until_known(context, |image| wanted.iter().all(|asked| find(image, asked).is_some())).await;
        }
        let (image, doubted) = (context.metadata.shown(), context.metadata.doubted());
        let lately_fenced = context.metadata.lately_fenced();
        let operations = version >= 8 && self.include_topic_authorized_operations;
        let topics = match wanted {
            None => image
                .topics
                .values()
                .map(|topic| known(&image, &doubted, topic, version, operations))
                .collect(),
            Some(wanted) => wanted
                .into_iter()
                .map(|asked| match find(&image, &asked) {
                    Some(topic) => known(&image, &doubted, topic, version, operations),
                    None => unknown(asked, &refusals, version),
                })
                .collect(),
        };
        let is_told = |broker: &&BrokerImage| !broker.fenced || lately_fenced.contains(&broker.id());
        let brokers = image.brokers.values().filter(is_told).filter_map(|broker| {
            let endpoint = broker.client_endpoint()?;
            let told = MetadataResponseBroker::default()
                .with_node_id(BrokerId(broker.id().0))
                .with_host(text(&endpoint.host))
                .with_port(endpoint.port.into())
                .with_rack(broker.registration.rack.as_deref().map(text));
            Some(told)
        });
        let cluster_operations =
            match self.include_cluster_authorized_operations && (8..=10).contains(&version) {
                true => CLUSTER_OPERATIONS,
                false => OPERATIONS_OMITTED,
            };
        MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_cluster_id(Some(text(&image.cluster_id)))
            .with_controller_id(BrokerId(image.controller.map_or(-1, |id| id.0)))
            .with_topics(topics)
            .with_cluster_authorized_operations(cluster_operations)
            .into()
    }

    fn errors(response: &MetadataResponse, each: &mut dyn FnMut(i16)) {
        for topic in &response.topics {
            each(topic.error_code);
            topic.partitions.iter().for_each(|one| each(one.error_code));
        }
    }
}

static REQUEST: Shape =
    plain(&[always(Kind::Many(&Kind::Struct(&TOPIC))), since(4, I8), between(8, 10, I8), since(8, I8)]);
static TOPIC: Shape = plain(&[since(10, UUID), always(Kind::Text)]);

fn find<'a>(image: &'a MetadataImage, asked: &MetadataRequestTopic) -> Option<&'a Arc<TopicImage>> {
    match &asked.name {
        Some(name) => image.topics.get(name.as_str()),
        None => image.topic_by_id(TopicId(asked.topic_id)),
    }
}

/// Each topic once: a large topic named again and again would make an answer of any size.
fn without_duplicates(mut topics: Vec<MetadataRequestTopic>) -> Vec<MetadataRequestTopic> {
    let mut seen = BTreeSet::new();
    topics.retain(|topic| seen.insert((topic.name.clone(), topic.topic_id)));
    topics
}

/// Names and why they could not be created.
type Refusals = BTreeMap<TopicName, ResponseError>;

async fn create_missing<B: Backend>(context: &Context<B>, wanted: &[MetadataRequestTopic]) -> Refusals {
    let image = context.metadata.shown();
    let mut refusals = Refusals::new();
    let mut plans = Vec::new();
    let mut names: Vec<TopicName> = Vec::new();
    let config = context.metadata.config();
    let mut room = create_topics::PARTITIONS_PER_REQUEST_MAX;
    for name in wanted.iter().filter_map(|topic| topic.name.as_ref()) {
        if image.topics.contains_key(name.as_str()) {
            continue;
        }
        if create_topics::is_reserved(name.as_str()) {
            refusals.insert(name.clone(), ResponseError::InvalidTopicException);
            continue;
        }
        let id = create_topics::new_topic_id(&context.backend);
        match create_topics::plan_by_default(&image, &config, name.as_str(), id) {
            Ok(plan) => {
                if let Err((code, _)) = create_topics::within_room(plan.assignments.len(), room) {
                    refusals.insert(name.clone(), code);
                    continue;
                }
                room -= plan.assignments.len();
                plans.push(plan);
                names.push(name.clone());
            }
            Err((code, _)) => {
                refusals.insert(name.clone(), code);
            }
        }
    }
    if plans.is_empty() {
        return refusals;
    }
    let deadline = context.backend.now() + CREATION_DEADLINE;
    let outcomes = create_topics::create(context, plans, false, Deadline::At(deadline)).await;
    let mut made = Vec::new();
    for (name, outcome) in names.into_iter().zip(outcomes) {
        match outcome {
            Ok(topic) => made.push(topic),
            // Another client that named it was quicker.
            Err((ResponseError::TopicAlreadyExists, _)) => {
                made.extend(context.metadata.shown().topics.get(name.as_str()).cloned());
            }
            Err((
                code @ (ResponseError::InvalidTopicException
                | ResponseError::InvalidReplicaAssignment
                | ResponseError::PolicyViolation),
                _,
            )) => {
                refusals.insert(name, code);
            }
            // It may come to be; the client asks again.
            Err((_, why)) => {
                if let Some(times) = context.lines.not_created.next() {
                    tracing::warn!(topic = %name.as_str(), times, "not created on mention: {why}");
                }
                refusals.insert(name, ResponseError::LeaderNotAvailable);
            }
        }
    }
    until_led(context, &made, deadline).await;
    refusals
}

/// What is said of a name that no topic has.
pub fn no_such_topic(name: &str) -> ResponseError {
    match apply::check_name(name) {
        Ok(()) => ResponseError::UnknownTopicOrPartition,
        Err(error) => error_codes::topic(&error),
    }
}

/// Versions in which a topic that is asked for by id and unknown has no name; before, it must not be null.
const NULL_NAMES_SINCE: i16 = 12;

fn unknown(asked: MetadataRequestTopic, refusals: &Refusals, version: i16) -> MetadataResponseTopic {
    let code = match &asked.name {
        None => ResponseError::UnknownTopicId,
        Some(name) => refusals.get(name).copied().unwrap_or_else(|| no_such_topic(name.as_str())),
    };
    let name = match asked.name {
        None if version >= NULL_NAMES_SINCE => None,
        name => Some(name.unwrap_or_default()),
    };
    MetadataResponseTopic::default()
        .with_error_code(code.code())
        .with_name(name)
        .with_topic_id(asked.topic_id)
}

fn known(
    image: &MetadataImage,
    doubted: &BTreeSet<ids::BrokerId>,
    topic: &TopicImage,
    version: i16,
    operations: bool,
) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.partitions).map(|(index, one)| partition(image, doubted, index, one));
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(&topic.name))))
        .with_topic_id(if version >= 10 { topic.id.0 } else { Uuid::nil() })
        .with_is_internal(version >= 1 && create_topics::is_internal(&topic.name))
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(if operations { TOPIC_OPERATIONS } else { OPERATIONS_OMITTED })
}

/// A partition as this image knows it. A broker that is not alive in the image leads nothing, and is offline; of one whose
/// link broke a moment ago it is not said that it leads.
pub fn partition(
    image: &MetadataImage,
    doubted: &BTreeSet<ids::BrokerId>,
    index: i32,
    partition: &PartitionImage,
) -> MetadataResponsePartition {
    let brokers = |ids: &[ids::BrokerId]| ids.iter().map(|id| BrokerId(id.0)).collect();
    let replicas: Vec<ids::BrokerId> = partition.replica_brokers().collect();
    let offline = replicas.iter().filter(|id| !image.is_alive(**id)).map(|id| BrokerId(id.0));
    let leader = partition.leader.filter(|id| image.is_alive(*id) && !doubted.contains(id));
    let code = if leader.is_some() { 0 } else { ResponseError::LeaderNotAvailable.code() };
    MetadataResponsePartition::default()
        .with_error_code(code)
        .with_partition_index(index)
        .with_leader_id(BrokerId(leader.map_or(-1, |id| id.0)))
        .with_leader_epoch(partition.leader_epoch.0)
        .with_replica_nodes(brokers(&replicas))
        .with_isr_nodes(brokers(&partition.isr))
        .with_offline_replicas(offline.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::StrBytes;

    #[test]
    fn a_topic_that_is_named_twice_is_told_once() {
        let by_name = |name: &'static str| {
            let name = TopicName(StrBytes::from_static_str(name));
            MetadataRequestTopic::default().with_name(Some(name))
        };
        let by_id = MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_u128(7));
        let asked = vec![by_name("a"), by_id.clone(), by_name("b"), by_name("a"), by_id.clone()];
        assert_eq!(without_duplicates(asked), [by_name("a"), by_id, by_name("b")]);
    }

    #[test]
    fn what_is_not_there_is_told_as_kafka_tells_it() {
        let by_name = |name: &str| {
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))))
        };
        let by_id = || MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_u128(7));
        let told = |asked, version| {
            let response = unknown(asked, &Refusals::new(), version);
            (response.error_code, response.name.map(|name| name.to_string()))
        };
        assert_eq!(told(by_name("orders"), 12), (3, Some("orders".into())));
        assert_eq!(told(by_name("or ders"), 12), (17, Some("or ders".into())));
        assert_eq!(told(by_id(), 12), (100, None));
        assert_eq!(told(by_id(), 11), (100, Some(String::new())));
    }
}
