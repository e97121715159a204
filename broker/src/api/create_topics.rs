//! CreateTopics, and the creation of topics that a client merely names.
//!
//! All topics of a request are one proposal. The answer waits until this node leads what it is to lead,
//! so that the client's next request finds the topic.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use kafka_protocol::messages::{ApiKey, CreateTopicsRequest, TopicName};
use uuid::Uuid;

use super::authorization::{Needs, Operation};
use super::changes::{Refusal, of_topics, outcomes, patience, propose, refused};
use super::config_entries::Known;
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::config::Config;
use crate::context::Context;
use crate::coordinator::OFFSETS_TOPIC;
use crate::ids::{BrokerId, TopicId};
use crate::limits;
use crate::metadata::placement::{PlacementError, place};
use crate::metadata::{MetadataCommand, MetadataImage, NewTopic, TopicError, TopicImage, apply};
use crate::routing::until_led;
use crate::wire::shape::{Bounds, I8, I16, I32, I32S, Kind, Shape, always, plain};
use crate::wire::text;

/// Partitions of all topics in one request.
pub const PARTITIONS_PER_REQUEST_MAX: usize = limits::TOPIC_PARTITIONS_MAX;

/// CreateTopics, key 19 (KIP-4; defaults where the client does not say: KIP-464).
impl Api for CreateTopicsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::CreateTopics,
        versions: Versions::of(2, 7),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnTopics(Operation::Create),
    };
    type Response = CreateTopicsResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<CreateTopicsResponse> {
        let (context, version) = (&*call.context, call.head.version);
        let image = context.metadata.shown();
        let duplicates = duplicates(self.topics.iter().map(|topic| topic.name.as_str()));
        let config = context.metadata.config();
        let mut room = PARTITIONS_PER_REQUEST_MAX;
        let plans: Vec<Result<NewTopic, Refusal>> = self
            .topics
            .iter()
            .map(|topic| match duplicates.contains(topic.name.as_str()) {
                true => Err((ResponseError::InvalidRequest, "Duplicate topic name.".into())),
                false => {
                    within_room(partitions(&config, topic), room)?;
                    let plan = plan(&image, &config, topic, new_topic_id(&context.backend));
                    let plan = plan.map_err(|why| exists(&image, topic).unwrap_or(why))?;
                    room = room.saturating_sub(plan.assignments.len());
                    Ok(plan)
                }
            })
            .collect();

        let deadline = context.backend.now() + patience(self.timeout_ms);
        let legal = plans.iter().flatten().cloned().collect();
        let created = create(context, legal, self.validate_only, Deadline::At(deadline)).await;
        let outcomes = outcomes(plans, created);
        if !self.validate_only {
            let made: Vec<Arc<TopicImage>> = outcomes.iter().flatten().cloned().collect();
            until_led(context, &made, deadline).await;
        }
        let results = self
            .topics
            .into_iter()
            .zip(outcomes)
            .map(|(topic, outcome)| result(context, version, topic.name, outcome));
        CreateTopicsResponse::default().with_topics(results.collect()).into()
    }

    fn errors(response: &CreateTopicsResponse, each: &mut dyn FnMut(i16)) {
        response.topics.iter().for_each(|topic| each(topic.error_code));
    }
}

static REQUEST: Shape = plain(&[always(Kind::Many(&Kind::Struct(&TOPIC))), always(I32), always(I8)]);
static TOPIC: Shape = plain(&[
    always(Kind::Text),
    always(I32),
    always(I16),
    always(Kind::Many(&Kind::Struct(&ASSIGNMENT))),
    always(Kind::Many(&Kind::Struct(&CONFIG))),
]);
static ASSIGNMENT: Shape = plain(&[always(I32), always(I32S)]);
static CONFIG: Shape = plain(&[always(Kind::Text), always(Kind::Text)]);

/// As many as the client asks for; what is no number of partitions is refused elsewhere.
fn partitions(config: &Config, topic: &CreatableTopic) -> usize {
    let asked = match topic.num_partitions {
        _ if !topic.assignments.is_empty() => return topic.assignments.len(),
        -1 => config.topics.partitions,
        asked => asked,
    };
    usize::try_from(asked).unwrap_or(0)
}

/// What stands for Kafka's own log of metadata is not to be had, as with Kafka.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Before any of them is assigned: a request has so many partitions in all, however many topics they are in.
pub fn within_room(partitions: usize, room: usize) -> Result<(), Refusal> {
    // The topic's own limit has a message of its own.
    if partitions <= room || partitions > limits::TOPIC_PARTITIONS_MAX {
        return Ok(());
    }
    let why = format!(
        "More than {PARTITIONS_PER_REQUEST_MAX} partitions in one request: create the topics in several."
    );
    Err((ResponseError::PolicyViolation, why))
}

/// Has topics created in one entry; the outcome of each, in order.
pub async fn create<B: Backend>(
    context: &Context<B>,
    topics: Vec<NewTopic>,
    validate_only: bool,
    deadline: Deadline,
) -> Vec<Result<Arc<TopicImage>, Refusal>> {
    let creating = Creating::of(&context.creating);
    let existing: usize = context.metadata.shown().topics.values().map(|topic| topic.partitions.len()).sum();
    let max = context.config.topics.partitions_max;
    let (admitted, refused): (Vec<_>, Vec<_>) = topics
        .into_iter()
        .enumerate()
        .partition(|(_, topic)| creating.admit(existing, topic.assignments.len(), max));
    let (numbers, topics): (Vec<usize>, Vec<NewTopic>) = admitted.into_iter().unzip();
    let why = no_room_on_this_node(max);
    let mut outcomes: BTreeMap<usize, Result<Arc<TopicImage>, Refusal>> =
        refused.into_iter().map(|(n, _)| (n, Err((ResponseError::PolicyViolation, why.clone())))).collect();
    let command = MetadataCommand::CreateTopics { topics, validate_only };
    let decided = propose(context, command, numbers.len(), deadline, of_topics).await;
    outcomes.extend(numbers.into_iter().zip(decided));
    outcomes.into_values().collect()
}

pub(super) fn no_room_on_this_node(max: usize) -> String {
    format!("This node has {max} partitions at most (topics.partitions_max): delete topics, or raise it.")
}

/// Partitions that are being created: those of others are counted too, before the image has them.
pub(super) struct Creating<'a> {
    of_all: &'a AtomicUsize,
    of_this: Cell<usize>,
}

impl Creating<'_> {
    pub(super) fn of(of_all: &AtomicUsize) -> Creating<'_> {
        Creating { of_all, of_this: Cell::new(0) }
    }

    pub(super) fn admit(&self, existing: usize, partitions: usize, max: usize) -> bool {
        let creating = self.of_all.fetch_add(partitions, Ordering::Relaxed);
        let admitted = existing.saturating_add(creating).saturating_add(partitions) <= max;
        match admitted {
            true => self.of_this.set(self.of_this.get() + partitions),
            false => drop(self.of_all.fetch_sub(partitions, Ordering::Relaxed)),
        }
        admitted
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        self.of_all.fetch_sub(self.of_this.get(), Ordering::Relaxed);
    }
}

/// Kafka's own topics: a client that merely mentions one does not create it.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("__")
}

/// Topics that the brokers write themselves: clients read them.
pub fn is_internal(name: &str) -> bool {
    name == OFFSETS_TOPIC
}

/// The topic that keeps groups, on as many of the brokers as there are and it is to be on. It is to be compacted: nothing of it is too old.
pub fn plan_offsets(image: &MetadataImage, config: &Config, id: TopicId) -> Result<NewTopic, Refusal> {
    let partitions = usize::try_from(config.offsets.partitions).unwrap_or(1);
    let replication = usize::try_from(config.offsets.replication_factor).unwrap_or(1);
    let replication = replication.clamp(1, image.brokers.len().max(1));
    let assignments = spread(image, image.topics.len(), partitions, replication)?;
    let configs = [
        ("cleanup.policy".to_owned(), "compact".to_owned()),
        ("segment.bytes".to_owned(), config.offsets.segment_bytes.to_string()),
    ];
    Ok(NewTopic { id, name: OFFSETS_TOPIC.to_owned(), assignments, configs: configs.into() })
}

/// A topic by the node's defaults, for a client that asked for one that is not there.
pub fn plan_by_default(
    image: &MetadataImage,
    config: &Config,
    name: &str,
    id: TopicId,
) -> Result<NewTopic, Refusal> {
    apply::check_name(name).map_err(refused)?;
    let partitions = usize::try_from(config.topics.partitions).unwrap_or(1);
    let replication = default_replication(image, config);
    let assignments = spread(image, image.topics.len(), partitions, replication)?;
    Ok(NewTopic { id, name: name.to_owned(), assignments, configs: BTreeMap::new() })
}

/// What is wrong with a topic that is there already does not matter.
fn exists(image: &MetadataImage, topic: &CreatableTopic) -> Option<Refusal> {
    let name = topic.name.as_str();
    image.topics.contains_key(name).then(|| refused(TopicError::AlreadyExists(name.to_owned())))
}

fn plan(
    image: &MetadataImage,
    config: &Config,
    topic: &CreatableTopic,
    id: TopicId,
) -> Result<NewTopic, Refusal> {
    apply::check_name(topic.name.as_str()).map_err(refused)?;
    if topic.name.as_str() == METADATA_TOPIC {
        let why = format!("Creation of internal topic {METADATA_TOPIC} is prohibited.");
        return Err((ResponseError::InvalidRequest, why));
    }
    // Whether there is one of this name, the group decides: this node's image may lag, and who is told that it exists takes it for
    // created.
    let mut configs = BTreeMap::new();
    for entry in &topic.configs {
        let Some(value) = &entry.value else {
            let why = format!("Null value not supported for topic configs: {}", entry.name);
            return Err(refused(TopicError::InvalidConfig(why)));
        };
        configs.insert(entry.name.to_string(), value.to_string());
    }
    crate::metadata::configs::validate(&configs, config).map_err(refused)?;
    let assignments = match topic.assignments.is_empty() {
        true => assign(image, config, topic)?,
        false => assigned(topic)?,
    };
    Ok(NewTopic { id, name: topic.name.to_string(), assignments, configs })
}

/// Replicas by number.
fn assign(
    image: &MetadataImage,
    config: &Config,
    topic: &CreatableTopic,
) -> Result<Vec<Vec<BrokerId>>, Refusal> {
    let partitions = match topic.num_partitions {
        -1 => config.topics.partitions,
        count => count,
    };
    let partitions = match usize::try_from(partitions) {
        Ok(count) if (1..=limits::TOPIC_PARTITIONS_MAX).contains(&count) => count,
        Ok(0) | Err(_) => {
            let why = "Number of partitions was set to an invalid non-positive value.";
            return Err((ResponseError::InvalidPartitions, why.into()));
        }
        Ok(_) => {
            let max = limits::TOPIC_PARTITIONS_MAX;
            let why = format!(
                "Number of partitions must be from 1 to {max}, or -1 to use the default; it is {partitions}."
            );
            return Err((ResponseError::InvalidPartitions, why));
        }
    };
    let replication = match topic.replication_factor {
        -1 => default_replication(image, config),
        factor => match usize::try_from(factor) {
            Ok(factor) if factor > 0 => factor,
            _ => {
                let why = "Replication factor must be larger than 0, or -1 to use the default value.";
                return Err((ResponseError::InvalidReplicationFactor, why.into()));
            }
        },
    };
    spread(image, image.topics.len(), partitions, replication)
}

/// What is configured, of as many as there are brokers.
fn default_replication(image: &MetadataImage, config: &Config) -> usize {
    let configured = usize::try_from(config.topics.replication_factor).unwrap_or(1);
    configured.clamp(1, image.brokers.len().max(1))
}

/// Replicas as the client names them.
fn assigned(topic: &CreatableTopic) -> Result<Vec<Vec<BrokerId>>, Refusal> {
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let why = "Partitions and replication factor must be -1 where replicas are assigned by hand.";
        return Err((ResponseError::InvalidRequest, why.into()));
    }
    let by_index: BTreeMap<i32, Vec<BrokerId>> = topic
        .assignments
        .iter()
        .map(|one| (one.partition_index, one.broker_ids.iter().map(|id| BrokerId(id.0)).collect()))
        .collect();
    let consecutive = by_index.keys().copied().eq(0..topic.assignments.len() as i32);
    match consecutive {
        true => Ok(by_index.into_values().collect()),
        false => {
            let why = "Assigned partitions must be numbered from 0 without gaps or duplicates.";
            Err((ResponseError::InvalidReplicaAssignment, why.into()))
        }
    }
}

/// Where the replicas of a new topic go: its leaders begin where those of the topics before ended.
pub(super) fn spread(
    image: &MetadataImage,
    first: usize,
    partitions: usize,
    replication: usize,
) -> Result<Vec<Vec<BrokerId>>, Refusal> {
    let refused = |error: PlacementError| (ResponseError::InvalidReplicationFactor, error.to_string());
    place(image, first, partitions, replication).map_err(refused)
}

pub(super) fn duplicates<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

/// A version 4 UUID from the backend's randomness.
pub fn new_topic_id<B: Backend>(backend: &B) -> TopicId {
    topic_id(Uuid::from_u64_pair(backend.random_u64(), backend.random_u64()))
}

fn topic_id(random: Uuid) -> TopicId {
    let mut bytes = random.into_bytes();
    if bytes[0] >> 2 == DASH {
        bytes[0] &= 0x7f;
    }
    TopicId(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// In Kafka's base 64, in which an id that begins so is taken for a flag by command lines.
const DASH: u8 = 62;

fn result<B: Backend>(
    context: &Context<B>,
    version: i16,
    name: TopicName,
    outcome: Result<Arc<TopicImage>, Refusal>,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(name).with_error_message(None);
    match outcome {
        Err((code, why)) => result.with_error_code(code.code()).with_error_message(Some(text(why))),
        Ok(_) if version < 5 => result,
        Ok(topic) => {
            let known = Known::of(context);
            let configs = known.of_topic(&topic.configs, topic.replication()).into_iter().map(|entry| {
                CreatableTopicConfigs::default()
                    .with_config_source(entry.source() as i8)
                    .with_name(text(entry.name))
                    .with_value(entry.value.map(text))
                    .with_read_only(entry.read_only)
            });
            let replication = topic.replication();
            let mut result = result
                .with_num_partitions(topic.partitions.len() as i32)
                .with_replication_factor(replication as i16)
                .with_configs(Some(configs.collect()));
            if version >= 7 {
                result.topic_id = topic.id.0;
            }
            result
        }
    }
}

#[cfg(test)]
#[path = "create_topics_tests.rs"]
mod tests;
