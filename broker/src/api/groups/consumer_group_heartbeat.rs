//! ConsumerGroupHeartbeat: a member of a consumer group joins, says how it is, or goes, and hears what it is to have.

use std::time::Duration;

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_response::{
    Assignment as WireAssignment, TopicPartitions,
};
use kafka_protocol::messages::{ApiKey, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::super::authorization::{Needs, Operation};
use super::super::declaration::{AskedInLine, Call, Declaration, Pending, Versions, pending};
use super::{ask, fresh_id, host_of, instance, is_short, kept, member, named};
use crate::coordinator::assignor::{Assignment, Assignor};
use crate::coordinator::consumer::{Beat, Epoch, Heartbeat, Joining, MemberClient};
use crate::coordinator::coordinators::Asked;
use crate::coordinator::ids::{GroupId, InstanceId, MemberId};
use crate::coordinator::messages::CoordinatorInput;
use crate::error_codes;
use crate::ids::TopicId;
use crate::limits;
use crate::wire::shape::{Bounds, I32, I32S, Kind, Shape, TEXTS, UUID, always, plain, since};
use crate::wire::text;

/// Since when members give themselves their ids, and may read what an expression matches.
const OWN_ID_SINCE: i16 = 1;
/// Epochs with a meaning of their own.
const JOINS: i32 = 0;
const LEAVES: i32 = -1;
const COMES_BACK: i32 = -2;
/// As it said before.
const AS_BEFORE: i32 = -1;

/// ConsumerGroupHeartbeat, key 68 (KIP-848).
impl AskedInLine for ConsumerGroupHeartbeatRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::ConsumerGroupHeartbeat,
        versions: Versions::of(0, 1),
        bounds: Bounds::of_partitions(&REQUEST),
        needs: Needs::OnGroups(Operation::Read),
    };
    type Response = ConsumerGroupHeartbeatResponse;

    async fn ask<B: Backend>(self, call: Call<B>) -> Pending<ConsumerGroupHeartbeatResponse> {
        let question = question(&call, self).await;
        pending(async move {
            let deadline = Deadline::after(&call.context.backend, limits::ASK_DEADLINE);
            let answered = match question {
                Err(refusal) => Err(refusal),
                Ok(Question { member, epoch, asked }) => match asked {
                    Whose::Beat(asked) => asked.wait(deadline).await.map(|beat| beaten(member, beat)),
                    Whose::Leave(asked) => asked.wait(deadline).await.map(|()| left(member, epoch)),
                }
                .map_err(|error| (error_codes::coordinator(&error), error.to_string())),
            };
            let response = answered.unwrap_or_else(|(code, why)| refused(code, why));
            response.into()
        })
    }

    fn errors(response: &ConsumerGroupHeartbeatResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }
}

static REQUEST: Shape = plain(&[
    always(Kind::Text),
    always(Kind::Text),
    always(I32),
    always(Kind::Text),
    always(Kind::Text),
    always(I32),
    always(TEXTS),
    since(1, Kind::Text),
    always(Kind::Text),
    always(Kind::Many(&Kind::Struct(&TOPIC))),
]);
static TOPIC: Shape = plain(&[always(UUID), always(I32S)]);

/// What was asked, in whose name.
struct Question<B: Backend> {
    member: MemberId,
    epoch: i32,
    asked: Whose<B>,
}

enum Whose<B: Backend> {
    Beat(Asked<B, Beat>),
    Leave(Asked<B, ()>),
}

type Refusal = (ResponseError, String);

fn invalid<T>(why: &str) -> Result<T, Refusal> {
    Err((ResponseError::InvalidRequest, why.to_owned()))
}

fn with_reason(code: ResponseError) -> Refusal {
    (code, format!("{code:?}"))
}

async fn question<B: Backend>(
    call: &Call<B>,
    request: ConsumerGroupHeartbeatRequest,
) -> Result<Question<B>, Refusal> {
    let group = named(&request.group_id).map_err(with_reason)?;
    let instance = instance(request.instance_id.as_ref()).map_err(with_reason)?;
    let member = match request.member_id.is_empty() {
        false => member(&request.member_id).map_err(with_reason)?,
        true if call.head.version < OWN_ID_SINCE && request.member_epoch == JOINS => fresh_id(call, None),
        true => return invalid("MemberId can't be empty."),
    };
    let epoch = request.member_epoch;
    let of = group.clone();
    let asked = match epoch {
        LEAVES | COMES_BACK => {
            if epoch == COMES_BACK && instance.is_none() {
                return invalid("InstanceId can't be null.");
            }
            let member = member.clone();
            let comes_back = epoch == COMES_BACK;
            let input =
                |reply| CoordinatorInput::ConsumerLeave { group, member, instance, comes_back, reply };
            Whose::Leave(ask(&call.context, &of, "a member to leave a group", input).await)
        }
        ..COMES_BACK => return invalid("MemberEpoch is invalid."),
        _ => {
            let beat = heartbeat(call, &request, member.clone(), instance)?;
            Whose::Beat(beat_of(call, group, of, beat).await)
        }
    };
    Ok(Question { member, epoch, asked })
}

async fn beat_of<B: Backend>(call: &Call<B>, group: GroupId, of: GroupId, beat: Heartbeat) -> Asked<B, Beat> {
    let input = |reply| CoordinatorInput::ConsumerHeartbeat { group, beat: Box::new(beat), reply };
    ask(&call.context, &of, "a heartbeat of a group's member", input).await
}

fn heartbeat<B: Backend>(
    call: &Call<B>,
    request: &ConsumerGroupHeartbeatRequest,
    member: MemberId,
    instance: Option<InstanceId>,
) -> Result<Heartbeat, Refusal> {
    let joins = request.member_epoch == JOINS;
    let reads = request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some();
    if joins && request.rebalance_timeout_ms == AS_BEFORE {
        return invalid("RebalanceTimeoutMs must be provided in first request.");
    }
    if joins && request.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty()) {
        return invalid("TopicPartitions must be empty when (re-)joining.");
    }
    if joins && !reads {
        return invalid(
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
        );
    }
    let texts = request.subscribed_topic_names.iter().flatten().map(|name| &name.0);
    let texts = texts.chain(&request.subscribed_topic_regex).chain(&request.rack_id);
    if !texts.chain(&request.server_assignor).all(is_short)
        || call.session.client_id.len() > limits::GROUP_TEXT_BYTES_MAX
    {
        return invalid("A text is too long.");
    }
    let names = request.subscribed_topic_names.iter().flatten();
    if names.map(|name| name.len()).sum::<usize>() > limits::GROUP_RECORD_HALF_BYTES {
        return invalid("SubscribedTopicNames are more than can be kept.");
    }
    let assignor = match &request.server_assignor {
        None => None,
        Some(name) => match Assignor::of_name(name) {
            Some(assignor) => Some(assignor),
            None => {
                let names = Assignor::ALL.map(Assignor::name).join(", ");
                let why = format!(
                    "ServerAssignor {} is not supported. Supported assignors: {names}.",
                    name.as_str()
                );
                return Err((ResponseError::UnsupportedAssignor, why));
            }
        },
    };
    let rebalance_timeout = match request.rebalance_timeout_ms {
        AS_BEFORE => None,
        ms => match u64::try_from(ms) {
            Ok(ms) => Some(Duration::from_millis(ms)),
            Err(_) => return invalid("RebalanceTimeoutMs is invalid."),
        },
    };
    let names = request.subscribed_topic_names.as_ref();
    Ok(Heartbeat {
        member,
        epoch: if joins { Joining::Join } else { Joining::Member(Epoch(request.member_epoch)) },
        instance,
        rack: request.rack_id.as_ref().filter(|rack| !rack.is_empty()).map(kept),
        client: MemberClient { id: call.session.client_id.clone(), host: host_of(&call.session) },
        rebalance_timeout,
        subscription: names.map(|names| names.iter().map(|name| kept(&name.0)).collect()),
        pattern: request.subscribed_topic_regex.as_ref().map(kept),
        assignor,
        owned: request.topic_partitions.as_ref().map(|owned| {
            let topics = owned
                .iter()
                .map(|topic| (TopicId(topic.topic_id), topic.partitions.iter().copied().collect()));
            topics.collect::<Assignment>()
        }),
    })
}

fn beaten(member: MemberId, beat: Beat) -> ConsumerGroupHeartbeatResponse {
    let assignment = beat.assignment.map(|assigned| {
        let topics = assigned.into_iter().map(|(topic, partitions)| {
            TopicPartitions::default()
                .with_topic_id(topic.0)
                .with_partitions(partitions.into_iter().collect())
        });
        WireAssignment::default().with_topic_partitions(topics.collect())
    });
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(text(member.0)))
        .with_member_epoch(beat.epoch.0)
        .with_heartbeat_interval_ms(i32::try_from(beat.interval.as_millis()).unwrap_or(i32::MAX))
        .with_assignment(assignment)
}

fn left(member: MemberId, epoch: i32) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse::default().with_member_id(Some(text(member.0))).with_member_epoch(epoch)
}

fn refused(code: ResponseError, why: String) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse::default().with_error_code(code.code()).with_error_message(Some(text(why)))
}
