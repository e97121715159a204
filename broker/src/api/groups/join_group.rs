//! JoinGroup: a member comes to a classic group, and hears of it when all others have come.

use std::time::Duration;

use io_backend::{Backend, Replier};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{ApiKey, JoinGroupRequest, JoinGroupResponse};

use super::super::authorization::{Needs, Operation};
use super::super::declaration::{AskedInLine, Call, Declaration, Pending, Versions, pending};
use super::{ask, fresh_id, host_of, instance, is_short, kept, kept_bytes, member, named, until_others};
use crate::coordinator::classic::{Client, Join, Joined, MemberError, Protocol};
use crate::coordinator::coordinators::Asked;
use crate::coordinator::ids::Generation;
use crate::coordinator::messages::{Answered, CoordinatorError, CoordinatorInput, Waiting};
use crate::error_codes;
use crate::limits;
use crate::wire::shape::{Bounds, I32, Kind, Shape, always, plain, since};
use crate::wire::{StrBytes, text};

/// From here on a new member is told its id first, and asks again with it (KIP-394).
const ID_FIRST_SINCE: i16 = 4;
/// Since when it is told what the group is for; before that a name that is not there is empty, and not null.
const PROTOCOL_TYPE_SINCE: i16 = 7;
/// Since when a member understands that it leads and has nothing to assign.
const SKIP_ASSIGNMENT_SINCE: i16 = 9;
/// Since when others are told of a static member's own id.
const INSTANCE_SINCE: i16 = 5;
/// JoinGroup, key 11 (static members: KIP-345; ids first: KIP-394; why: KIP-800).
impl AskedInLine for JoinGroupRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::JoinGroup,
        versions: Versions::of(0, 9),
        bounds: Bounds::of_resources(&REQUEST),
        needs: Needs::OnGroups(Operation::Read),
    };
    type Response = JoinGroupResponse;

    async fn ask<B: Backend>(self, call: Call<B>) -> Pending<JoinGroupResponse> {
        let asked = question(&call, &self).await;
        pending(async move {
            let version = call.head.version;
            let refused = |code, member| refused(version, code, member);
            let response = match asked {
                Err(code) => refused(code, self.member_id),
                Ok(asked) => match until_others(&call, asked).await {
                    Ok(joined) => joined_response(version, joined),
                    Err(CoordinatorError::Member(MemberError::IdRequired(id))) => {
                        refused(ResponseError::MemberIdRequired, text(id.0))
                    }
                    Err(error) => refused(error_codes::coordinator(&error), self.member_id),
                },
            };
            response.into()
        })
    }

    fn errors(response: &JoinGroupResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }
}

static REQUEST: Shape = plain(&[
    always(Kind::Text),
    always(I32),
    since(1, I32),
    always(Kind::Text),
    since(5, Kind::Text),
    always(Kind::Text),
    always(Kind::Many(&Kind::Struct(&PROTOCOL))),
    since(8, Kind::Text),
]);
static PROTOCOL: Shape = plain(&[always(Kind::Text), always(Kind::Blob)]);

async fn question<B: Backend>(
    call: &Call<B>,
    request: &JoinGroupRequest,
) -> Result<Asked<B, Joined>, ResponseError> {
    let version = call.head.version;
    let group = named(&request.group_id)?;
    let instance = instance(request.group_instance_id.as_ref())?;
    let member = match request.member_id.is_empty() {
        true => None,
        false => Some(member(&request.member_id)?),
    };
    let are_short = request.protocols.iter().all(|protocol| is_short(&protocol.name));
    if !is_short(&request.protocol_type)
        || !are_short
        || call.session.client_id.len() > limits::GROUP_TEXT_BYTES_MAX
    {
        return Err(ResponseError::InvalidRequest);
    }
    let session_timeout = timeout(request.session_timeout_ms)?;
    let rebalance_timeout = match version {
        0 => session_timeout,
        _ => timeout(request.rebalance_timeout_ms)?,
    };
    let fresh = fresh_id(call, instance.as_ref());
    let protocols = request
        .protocols
        .iter()
        .map(|protocol| Protocol { name: kept(&protocol.name), metadata: kept_bytes(&protocol.metadata) });
    let join = |reply: Replier<Answered<Joined>>| Join {
        member,
        takes_id_first: version >= ID_FIRST_SINCE && instance.is_none(),
        instance,
        client: Client { id: call.session.client_id.clone(), host: host_of(&call.session) },
        session_timeout,
        rebalance_timeout,
        protocol_type: kept(&request.protocol_type),
        protocols: protocols.collect(),
        can_skip_assignment: version >= SKIP_ASSIGNMENT_SINCE,
        ticket: Waiting::Join(reply),
    };
    let of = group.clone();
    let input = |reply| CoordinatorInput::Join { group, join: Box::new(join(reply)), fresh };
    Ok(ask(&call.context, &of, "the members of a group to join", input).await)
}

/// A time-out below zero is none that a group could go by.
fn timeout(ms: i32) -> Result<Duration, ResponseError> {
    u64::try_from(ms).map(Duration::from_millis).map_err(|_| ResponseError::InvalidSessionTimeout)
}

fn joined_response(version: i16, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|(id, instance, metadata)| {
        JoinGroupResponseMember::default()
            .with_member_id(text(id.0))
            .with_group_instance_id(instance.filter(|_| version >= INSTANCE_SINCE).map(|id| text(id.0)))
            .with_metadata(metadata)
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation.0)
        .with_protocol_type(joined.protocol_type.filter(|_| version >= PROTOCOL_TYPE_SINCE).map(text))
        .with_protocol_name(joined.protocol.map(text).or_else(|| no_name(version)))
        .with_leader(joined.leader.map(|id| text(id.0)).unwrap_or_default())
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(joined.member.0))
        .with_members(members.collect())
}

fn refused(version: i16, code: ResponseError, member: StrBytes) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(code.code())
        .with_generation_id(Generation::NONE.0)
        .with_protocol_name(no_name(version))
        .with_member_id(member)
}

fn no_name(version: i16) -> Option<StrBytes> {
    (version < PROTOCOL_TYPE_SINCE).then(StrBytes::default)
}
