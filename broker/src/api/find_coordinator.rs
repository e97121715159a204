//! FindCoordinator: which node a group's members are to ask.
//!
//! Whoever asks first has the topic created that groups are kept on. Transactions do not exist here yet: that answer is final, for a
//! producer must not wait for what never comes.

use std::sync::Arc;

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use kafka_protocol::messages::{ApiKey, BrokerId, FindCoordinatorRequest};

use super::authorization::{Needs, Operation};
use super::changes::Refusal;
use super::create_topics::{create, new_topic_id, plan_offsets};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::context::Context;
use crate::coordinator::OFFSETS_TOPIC;
use crate::coordinator::coordinators::partition_of;
use crate::coordinator::ids::GroupId;
use crate::limits;
use crate::metadata::{MetadataImage, TopicImage};
use crate::routing::until_led;
use crate::wire::shape::{Bounds, I8, Kind, Shape, TEXTS, plain, since, until};
use crate::wire::{StrBytes, text};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// Since when several keys are asked for at once (KIP-699).
const SEVERAL_SINCE: i16 = 4;
/// Since when an error has a message.
const MESSAGE_SINCE: i16 = 1;

/// Also said by InitProducerId.
pub const TRANSACTIONS: &str = "transactions are not supported by this broker yet";

/// FindCoordinator, key 10.
impl Api for FindCoordinatorRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::FindCoordinator,
        versions: Versions::of(0, 6),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnGroups(Operation::Describe),
    };
    type Response = FindCoordinatorResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<FindCoordinatorResponse> {
        let version = call.head.version;
        let several = version >= SEVERAL_SINCE;
        let keys = if several { self.coordinator_keys } else { vec![self.key] };
        let found: Vec<Coordinator> = match self.key_type {
            GROUP => {
                let topic = offsets_topic(&call.context).await;
                let image = call.context.metadata.shown();
                keys.into_iter().map(|key| coordinator(&image, key, &topic)).collect()
            }
            TRANSACTION => {
                let why = (ResponseError::UnsupportedVersion, TRANSACTIONS.to_owned());
                keys.into_iter().map(|key| nobody(key, &why)).collect()
            }
            _ => {
                let why = (ResponseError::InvalidRequest, "this type of coordinator is not known".to_owned());
                keys.into_iter().map(|key| nobody(key, &why)).collect()
            }
        };
        match several {
            true => FindCoordinatorResponse::default().with_coordinators(found).into(),
            false => in_old_form(version, found.into_iter().next().unwrap_or_default()).into(),
        }
    }

    fn errors(response: &FindCoordinatorResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
        response.coordinators.iter().for_each(|one| each(one.error_code));
    }
}

static REQUEST: Shape = plain(&[until(3, Kind::Text), since(1, I8), since(4, TEXTS)]);

/// The topic that keeps groups; created if it is not there.
async fn offsets_topic<B: Backend>(context: &Context<B>) -> Result<Arc<TopicImage>, Refusal> {
    let known = |image: &MetadataImage| image.topics.get(OFFSETS_TOPIC).cloned();
    let image = context.metadata.shown();
    if let Some(topic) = known(&image) {
        return Ok(topic);
    }
    let plan = plan_offsets(&image, &context.config, new_topic_id(&context.backend))?;
    let deadline = context.backend.now() + limits::ASK_DEADLINE;
    let created = create(context, vec![plan], false, Deadline::At(deadline)).await.pop();
    let created = match created {
        Some(Ok(topic)) => Ok(topic),
        Some(Err(why)) => known(&context.metadata.shown()).ok_or(why),
        None => Err((ResponseError::CoordinatorNotAvailable, "the topic was not created".to_owned())),
    };
    if let Ok(topic) = &created {
        until_led(context, std::slice::from_ref(topic), deadline).await;
    } else if let (Err((_, why)), Some(times)) = (&created, context.lines.not_created.next()) {
        tracing::warn!(
            topic = OFFSETS_TOPIC,
            times,
            "no group is coordinated, for their topic was not created: {why}"
        );
    }
    created
}

/// Where a group is coordinated: where its partition is led.
fn coordinator(
    image: &MetadataImage,
    key: StrBytes,
    topic: &Result<Arc<TopicImage>, Refusal>,
) -> Coordinator {
    let topic = match topic {
        Ok(topic) => image.topics.get(&topic.name).unwrap_or(topic),
        Err((_, why)) => return nobody(key, &(ResponseError::CoordinatorNotAvailable, why.clone())),
    };
    if key.len() > limits::GROUP_TEXT_BYTES_MAX {
        return nobody(key, &(ResponseError::InvalidGroupId, "the group's name is too long".to_owned()));
    }
    let index = partition_of(&GroupId(Arc::from(key.as_str())), topic.partitions.len());
    let partition = index.and_then(|index| topic.partitions.get(usize::try_from(index).ok()?));
    let leader = partition.and_then(|partition| partition.leader).filter(|leader| image.is_alive(*leader));
    let endpoint = leader.and_then(|leader| image.brokers.get(&leader)?.client_endpoint());
    match leader.zip(endpoint) {
        Some((leader, endpoint)) => Coordinator::default()
            .with_key(key)
            .with_node_id(BrokerId(leader.0))
            .with_host(text(&endpoint.host))
            .with_port(i32::from(endpoint.port)),
        None => {
            let why = "nobody leads the partition that keeps the group".to_owned();
            nobody(key, &(ResponseError::CoordinatorNotAvailable, why))
        }
    }
}

fn nobody(key: StrBytes, (code, why): &Refusal) -> Coordinator {
    Coordinator::default()
        .with_key(key)
        .with_node_id(BrokerId(-1))
        .with_port(-1)
        .with_error_code(code.code())
        .with_error_message(Some(text(why)))
}

fn in_old_form(version: i16, found: Coordinator) -> FindCoordinatorResponse {
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(found.error_message.filter(|_| version >= MESSAGE_SINCE))
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}
