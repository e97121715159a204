//! What clients ask of groups: each question goes to who coordinates the group, in the order in which its connection brought it.
//!
//! A question takes its place in the coordinator's mailbox when it is started, so members that share a connection do not wait for one
//! another: all of a connection's questions that have come are asked, and answered one after the other. Who asks about many groups asks one
//! after the other when its turn has come, and holds one answer at a time beside its own. What the questions say is copied
//! out of their frames, since groups keep it for long.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use io_backend::{Backend, Deadline, Replier};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::GroupId as WireGroupId;
use uuid::Uuid;

use super::declaration::Call;
use crate::context::Context;
use crate::coordinator::OFFSETS_TOPIC;
use crate::coordinator::coordinators::{self, Asked};
use crate::coordinator::ids::{GroupId, InstanceId, MemberId};
use crate::coordinator::messages::{Answered, CoordinatorError, CoordinatorInput};
use crate::coordinator::shard::NotDescribed;
use crate::error_codes;
use crate::ids::PartitionId;
use crate::limits;
use crate::routing::RoutingView;
use crate::session::Session;
use crate::wire::StrBytes;

mod join_group;
mod sync_group;
mod heartbeat;
mod leave_group;
mod offset_commit;
mod offset_fetch;
mod offset_delete;
mod list_groups;
mod describe_groups;
mod delete_groups;
mod consumer_group_heartbeat;
mod consumer_group_describe;

/// A text of a request as groups keep it.
fn kept(text: &StrBytes) -> Arc<str> {
    Arc::from(text.as_str())
}

/// Bytes of a request as groups keep them.
fn kept_bytes(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The name of a group that members can be in: not empty, and not longer than is kept.
fn named(group: &WireGroupId) -> Result<GroupId, ResponseError> {
    match group.is_empty() {
        true => Err(ResponseError::InvalidGroupId),
        false => any_named(group),
    }
}

/// The name of a group. The empty name is that of offsets without a group, as clients of old commit them.
fn any_named(group: &WireGroupId) -> Result<GroupId, ResponseError> {
    match is_short(group) {
        true => Ok(GroupId(kept(group))),
        false => Err(ResponseError::InvalidGroupId),
    }
}

/// Whether a text is not longer than is kept.
fn is_short(text: &StrBytes) -> bool {
    text.len() <= limits::GROUP_TEXT_BYTES_MAX
}

/// A member's id; one that is too long is nobody's.
fn member(id: &StrBytes) -> Result<MemberId, ResponseError> {
    match is_short(id) {
        true => Ok(member_id(id)),
        false => Err(ResponseError::UnknownMemberId),
    }
}

fn member_id(id: &StrBytes) -> MemberId {
    MemberId(kept(id))
}

/// A static member's id, where it says one.
fn instance(id: Option<&StrBytes>) -> Result<Option<InstanceId>, ResponseError> {
    match id {
        None => Ok(None),
        Some(id) if id.is_empty() || !is_short(id) => Err(ResponseError::InvalidRequest),
        Some(id) => Ok(Some(InstanceId(kept(id)))),
    }
}

/// So much of what a client calls itself stands in the ids of its members.
const CLIENT_ID_IN_MEMBER_ID: usize = 256;

/// An id that no member has had, with what its operator or its client calls it, as Kafka makes them.
fn fresh_id<B: Backend>(call: &Call<B>, instance: Option<&InstanceId>) -> MemberId {
    let backend = &call.context.backend;
    let random = Uuid::from_u64_pair(backend.random_u64(), backend.random_u64());
    let random = uuid::Builder::from_random_bytes(random.into_bytes()).into_uuid();
    let named = instance.map_or(&*call.session.client_id, |instance| &*instance.0);
    let end = named.floor_char_boundary(CLIENT_ID_IN_MEMBER_ID);
    MemberId(format!("{}-{random}", &named[..end]).into())
}

/// Where a client is, as Kafka shows it.
fn host_of(session: &Session) -> Arc<str> {
    let (host, _) = session.peer.rsplit_once(':').unwrap_or((&session.peer, ""));
    format!("/{host}").into()
}

/// The partition that keeps a group, if this node coordinates it.
fn coordinated<B: Backend>(context: &Context<B>, group: &GroupId) -> Result<PartitionId, CoordinatorError> {
    let view = RoutingView::now(context);
    let topic = view.image.topics.get(OFFSETS_TOPIC).ok_or(CoordinatorError::NotCoordinator)?;
    let index =
        coordinators::partition_of(group, topic.partitions.len()).ok_or(CoordinatorError::NotCoordinator)?;
    view.partition(topic, index).map_err(|_| CoordinatorError::NotCoordinator)?;
    Ok(PartitionId { topic: topic.id, index })
}

/// Each group once: one that is named again and again would make an answer of any size.
fn once_each(mut groups: Vec<WireGroupId>) -> Vec<WireGroupId> {
    let mut seen = BTreeSet::new();
    groups.retain(|group| seen.insert(group.clone()));
    groups
}

/// Kafka's code of an outcome.
fn code_of<A>(outcome: &Result<A, ResponseError>) -> i16 {
    outcome.as_ref().err().map_or(error_codes::NONE, ResponseError::code)
}

/// Why nothing is told of a group, in Kafka's words; `kind` is what it would have to be.
fn not_described(group: &WireGroupId, why: NotDescribed, kind: &str) -> String {
    match why {
        NotDescribed::NotFound => format!("Group {} not found.", group.as_str()),
        NotDescribed::OtherKind => format!("Group {} is not a {kind} group.", group.as_str()),
    }
}

/// Asks whoever coordinates the group.
async fn ask<B: Backend, A: Send>(
    context: &Context<B>,
    group: &GroupId,
    what: &'static str,
    input: impl FnOnce(Replier<Answered<A>>) -> CoordinatorInput,
) -> Asked<B, A> {
    match coordinated(context, group) {
        Ok(partition) => {
            let deadline = Deadline::after(&context.backend, limits::ASK_DEADLINE);
            context.coordinators.ask(partition, what, input, deadline).await
        }
        Err(error) => Asked::refused(error),
    }
}

/// What the coordinator says. It comes when it is durable, so not at once.
async fn answer<B: Backend, A: Send>(call: &Call<B>, asked: Asked<B, A>) -> Result<A, ResponseError> {
    let deadline = Deadline::after(&call.context.backend, limits::ASK_DEADLINE);
    asked.wait(deadline).await.map_err(|error| error_codes::coordinator(&error))
}

/// What the coordinator says when the other members have done what is waited for. Where the node stops, or its room is needed, the
/// member is to ask again: it is in the group, and its next request takes the place of this one.
async fn until_others<B: Backend, A: Send>(call: &Call<B>, asked: Asked<B, A>) -> Answered<A> {
    const BY_ITS_GROUP: Deadline = Deadline::Unbounded("a group answers its members by their time-outs");
    let (context, control) = (&*call.context, &*call.session.control);
    let mut stopping = pin!(context.stopping.until(&context.backend, BY_ITS_GROUP, |stopping| *stopping));
    let mut waiting = pin!(asked.wait(BY_ITS_GROUP));
    let answered = poll_fn(|cx| {
        if let Poll::Ready(answered) = waiting.as_mut().poll(cx) {
            return Poll::Ready(answered);
        }
        if stopping.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(CoordinatorError::NotCoordinator));
        }
        if control.is_hurried() { Poll::Ready(Err(CoordinatorError::Loading)) } else { Poll::Pending }
    });
    answered.await
}
