//! Produce: batches are checked and put in their partitions' queues in the order of the connection's
//! requests; the answer is given when each partition has said what became of its batch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use io_backend::{Backend, Deadline, Moment};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ApiKey, BrokerId, TopicName};
use tracing::debug;
use uuid::Uuid;

use super::authorization::{Needs, Operation};
use super::create_topics::is_internal;
use super::declaration::{Asked, Call, Declaration, Finished, Versions};
use crate::context::Context;
use crate::ids::{PartitionId, TopicId};
use crate::limits;
use crate::log::batch::BatchHeader;
use crate::metadata::{MetadataImage, TopicImage};
use crate::partition::{Acks, Appended, Unacknowledged};
use crate::routing::{Leader, RoutingView, TopicKey, until_known, until_these_are_led};
use crate::session::Session;
use crate::stall::Health;
use crate::wire::shape::{Bounds, I16, I32, Kind, Shape, UUID, always, plain, since, until};
use crate::wire::{RequestHead, Response, WireError, text};

mod opening;
mod appending;
pub mod forwarding;

use appending::{InLine, Refusal, Wanted};
use forwarding::{Forwarded, Terms};

/// Produce versions whose topics are named by id.
const TOPIC_IDS_SINCE: i16 = 13;
/// Versions that tell who leads instead (KIP-951).
const LEADERS_SINCE: i16 = 10;
const MESSAGES_SINCE: i16 = 8;

/// A produce request whose batches are queued.
pub struct PendingProduce<B: Backend> {
    acks: Option<Acks>,
    received: Moment,
    topics: Vec<PendingTopic<B>>,
}

struct PendingTopic<B: Backend> {
    name: TopicName,
    id: Uuid,
    partitions: Vec<PendingPartition<B>>,
}

struct PendingPartition<B: Backend> {
    index: i32,
    append: Result<Pending<B>, Refusal>,
}

/// An append that is not answered.
enum Pending<B: Backend> {
    /// It stands in its partition's line.
    Here(InLine<B>),
    /// It is on its way to its leader.
    Elsewhere(Forwarded<B>),
}

impl<B: Backend> Pending<B> {
    async fn wait(self, context: &Context<B>) -> Result<Appended, Refusal> {
        match self {
            Pending::Here(in_line) => in_line.wait(context).await,
            Pending::Elsewhere(forwarded) => forwarded.wait(context).await,
        }
    }
}

/// Produce, from version 3 on: versions 0 to 2 are only advertised.
pub const DECLARATION: Declaration = Declaration {
    key: ApiKey::Produce,
    // Older librdkafka silently gives up compression when version 0 is not on offer; it never sends it.
    versions: Versions { min: 3, max: 13, advertised_min: 0 },
    bounds: Bounds::of_partitions(&REQUEST),
    needs: Needs::OnTopics(Operation::Write),
};

static REQUEST: Shape =
    plain(&[always(Kind::Text), always(I16), always(I32), always(Kind::Many(&Kind::Struct(&TOPIC)))]);
static TOPIC: Shape =
    plain(&[until(12, Kind::Text), since(13, UUID), always(Kind::Many(&Kind::Struct(&PARTITION)))]);
static PARTITION: Shape = plain(&[always(I32), always(Kind::Blob)]);

/// Decodes; the batches are checked when it is started.
///
/// # Errors
///
/// It is malformed.
pub fn ask<B: Backend>(call: Call<B>, body: Bytes) -> Result<Asked, WireError> {
    DECLARATION.decode(call.head.version, body).map(Asked::Produce)
}

/// Queues the batches at their partitions. Waiting here is what holds up a connection that produces too fast.
pub async fn start<B: Backend>(
    context: &Context<B>,
    session: &Session,
    head: RequestHead,
    request: ProduceRequest,
    received: Moment,
) -> PendingProduce<B> {
    debug!(
        event = "PRODUCE_START",
        client_id = %session.client_id,
        correlation = head.correlation,
        acks = request.acks,
        topics = request.topic_data.len(),
        bytes = request.topic_data.iter().flat_map(|t| &t.partition_data).map(size).sum::<usize>(),
    );
    let acks = match request.acks {
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        -1 => Some(Acks::All),
        _ => None,
    };
    let ours = context.config.server.produce_deadline;
    let theirs = u64::try_from(request.timeout_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
    let deadline = Deadline::At(received + theirs.unwrap_or(ours).min(ours));
    let routing = route(context, &request, head.version).await;
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let key = key(&topic, head.version);
        let found = routing.topic(key);
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in &topic.partition_data {
            let append = match (found, acks) {
                (_, None) => Err(ResponseError::InvalidRequiredAcks.into()),
                (Err(code), _) => {
                    refused_as_unknown(context, key, data);
                    Err(code.into())
                }
                (Ok(topic), _) if is_internal(&topic.name) => {
                    Err(ResponseError::InvalidTopicException.into())
                }
                (Ok(topic), Some(acks)) => {
                    let told =
                        (acks == Acks::None).then(|| session.control.clone() as Arc<dyn Unacknowledged>);
                    append(context, &routing, topic, data, head.version, (acks, told), deadline).await
                }
            };
            partitions.push(PendingPartition { index: data.index, append });
        }
        // A copy: a part of the request would keep all of it.
        topics.push(PendingTopic { name: TopicName(text(&*topic.name)), id: topic.topic_id, partitions });
    }
    PendingProduce { acks, received, topics }
}

fn key(topic: &TopicProduceData, version: i16) -> TopicKey<'_> {
    match version >= TOPIC_IDS_SINCE {
        true => TopicKey::Id(TopicId(topic.topic_id)),
        false => TopicKey::Name(topic.name.as_str()),
    }
}

/// Where the batches belong. The client may have heard of a topic, or of a leader, before this node has, or leads there: the batches
/// wait a moment here rather than to be refused, and tried again after a longer one.
async fn route<B: Backend>(context: &Context<B>, request: &ProduceRequest, version: i16) -> RoutingView<B> {
    let topics = &request.topic_data;
    until_known(context, |image| topics.iter().all(|topic| key(topic, version).of(image).is_some())).await;
    let routing = RoutingView::now(context);
    let mut awaited = Vec::new();
    for asked in topics {
        let Ok(topic) = routing.topic(key(asked, version)) else { continue };
        let not_yet_led = |data: &PartitionProduceData| routing.not_yet_led(topic, data.index);
        awaited.extend(asked.partition_data.iter().filter_map(not_yet_led));
    }
    // What is not led for reasons that last is not waited for, with each batch anew.
    let lasts = || {
        context.health.get() != Health::Good
            || !context.replicas.not_open().is_empty()
            || context.replicas.not_led().is_some()
    };
    if awaited.is_empty() || lasts() {
        return routing;
    }
    context.metrics.waits_for_leadership.inc();
    until_these_are_led(context, &awaited, Deadline::after(&context.backend, limits::CATCH_UP_DEADLINE))
        .await;
    RoutingView::now(context)
}

/// This node may know the topic before the next batch of the same connection is looked at.
fn refused_as_unknown<B: Backend>(context: &Context<B>, key: TopicKey<'_>, data: &PartitionProduceData) {
    let header = BatchHeader::read(data.records.as_deref().unwrap_or_default());
    let Some(producer) = header.ok().and_then(|header| header.producer()) else { return };
    let now = context.backend.now();
    match key {
        TopicKey::Id(topic) => {
            let partition = PartitionId { topic, index: data.index };
            context.first_refused.refused(partition, Some(producer), now);
        }
        TopicKey::Name(name) => context.first_refused.refused_by_name(name, data.index, Some(producer), now),
    }
}

fn size(data: &PartitionProduceData) -> usize {
    data.records.as_ref().map_or(0, Bytes::len)
}

async fn append<B: Backend>(
    context: &Context<B>,
    routing: &RoutingView<B>,
    topic: &TopicImage,
    data: &PartitionProduceData,
    version: i16,
    (acks, told): (Acks, Option<Arc<dyn Unacknowledged>>),
    deadline: Deadline,
) -> Result<Pending<B>, Refusal> {
    if let Some(asks) = &context.forward_produce
        && let Some(leader) = routing.leader(topic, data.index).filter(|leader| leader.id != context.node)
    {
        let terms = Terms { version, acks, deadline };
        let forwarded = forwarding::begin(context, asks, leader.id, topic, data, terms);
        let unreached = |_| Refusal { leader: Some(leader), ..ResponseError::NotLeaderOrFollower.into() };
        return forwarded.map(Pending::Elsewhere).map_err(unreached);
    }
    let wanted = Wanted { acks, told, behind_refused_first: false };
    let in_line = appending::append(context, routing, topic, data, version, wanted, deadline).await;
    in_line.map(Pending::Here)
}

/// Waits for what became of each batch, and says so.
pub async fn finish<B: Backend>(
    context: &Context<B>,
    head: RequestHead,
    pending: PendingProduce<B>,
) -> Finished {
    let mut errors = 0usize;
    let mut endpoints = Vec::new();
    let mut first_refusal = None;
    let mut responses = Vec::with_capacity(pending.topics.len());
    for topic in pending.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let outcome = match partition.append {
                Ok(pending) => pending.wait(context).await,
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = &outcome {
                errors += 1;
                if let Some(leader) = refusal.leader
                    && head.version >= LEADERS_SINCE
                {
                    add_endpoint(&mut endpoints, &context.metadata.shown(), leader);
                }
                context.requests.count_error(head.key, refusal.code.code());
                if first_refusal.is_none() {
                    first_refusal = Some((refusal.code, refusal.why.clone()));
                }
            }
            partitions.push(answer(head.version, partition.index, outcome));
        }
        let response = TopicProduceResponse::default().with_partition_responses(partitions);
        responses.push(match head.version >= TOPIC_IDS_SINCE {
            true => response.with_topic_id(topic.id),
            false => response.with_name(topic.name),
        });
    }

    let took = context.backend.now().since(pending.received);
    context.metrics.produce_end_to_end_latency_ms.observe(took.as_secs_f64() * 1e3);
    debug!(
        event = "PRODUCE_COMPLETE",
        correlation = head.correlation,
        errors,
        first = ?first_refusal,
        duration_us = took.as_micros() as u64,
    );
    if pending.acks == Some(Acks::None) {
        // The only way to tell a client that does not listen: it connects again and asks who leads.
        return match first_refusal {
            None => Finished::Silent,
            Some((code, _)) => Finished::Close(format!("a produce with acks=0 failed: {code:?}")),
        };
    }
    let response = ProduceResponse::default().with_responses(responses).with_node_endpoints(endpoints);
    Finished::Answer { response: Response::produced(head, response), room: None, throttle: Duration::ZERO }
}

fn answer(version: i16, index: i32, outcome: Result<Appended, Refusal>) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match outcome {
        Ok(appended) => response
            .with_base_offset(appended.base_offset.0)
            .with_log_append_time_ms(appended.log_append_time_ms)
            .with_log_start_offset(appended.log_start.0),
        Err(refusal) => {
            let mut response = response
                .with_error_code(refusal.code.code())
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(-1);
            if version >= MESSAGES_SINCE {
                response.error_message = refusal.why.map(text);
            }
            if let Some(leader) = refusal.leader
                && version >= LEADERS_SINCE
            {
                response.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(BrokerId(leader.id.0))
                    .with_leader_epoch(leader.epoch.0);
            }
            response
        }
    }
}

fn add_endpoint(endpoints: &mut Vec<NodeEndpoint>, image: &MetadataImage, leader: Leader) {
    let node = BrokerId(leader.id.0);
    if endpoints.iter().any(|known| known.node_id == node) {
        return;
    }
    if let Some(endpoint) = image.brokers.get(&leader.id).and_then(|broker| broker.client_endpoint()) {
        endpoints.push(
            NodeEndpoint::default()
                .with_node_id(node)
                .with_host(text(&endpoint.host))
                .with_port(endpoint.port.into())
                .with_rack(None),
        );
    }
}
