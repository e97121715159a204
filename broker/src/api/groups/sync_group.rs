//! SyncGroup: a member of a classic group asks for its assignment; who leads the group brings those of all.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, SyncGroupRequest, SyncGroupResponse};

use super::super::authorization::{Needs, Operation};
use super::super::declaration::{AskedInLine, Call, Declaration, Pending, Versions, pending};
use super::{ask, instance, is_short, kept, kept_bytes, member, named, until_others};
use crate::coordinator::classic::{Sync, Synced};
use crate::coordinator::coordinators::Asked;
use crate::coordinator::ids::Generation;
use crate::coordinator::messages::{CoordinatorError, CoordinatorInput, Waiting};
use crate::error_codes;
use crate::wire::shape::{Bounds, I32, Kind, Shape, always, plain, since};
use crate::wire::text;

/// Since when members say, and are told, what the group is for and how it assigns (KIP-559).
const PROTOCOL_SINCE: i16 = 5;

/// SyncGroup, key 14.
impl AskedInLine for SyncGroupRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::SyncGroup,
        versions: Versions::of(0, 5),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnGroups(Operation::Read),
    };
    type Response = SyncGroupResponse;

    async fn ask<B: Backend>(self, call: Call<B>) -> Pending<SyncGroupResponse> {
        let asked = question(&call, &self).await;
        pending(async move {
            let synced = match asked {
                Ok(asked) => until_others(&call, asked).await.map_err(|error| code(&error)),
                Err(code) => Err(code),
            };
            response(call.head.version, synced).into()
        })
    }

    fn errors(response: &SyncGroupResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }
}

static REQUEST: Shape = plain(&[
    always(Kind::Text),
    always(I32),
    always(Kind::Text),
    since(3, Kind::Text),
    since(5, Kind::Text),
    since(5, Kind::Text),
    always(Kind::Many(&Kind::Struct(&ASSIGNMENT))),
]);
static ASSIGNMENT: Shape = plain(&[always(Kind::Text), always(Kind::Blob)]);

async fn question<B: Backend>(
    call: &Call<B>,
    request: &SyncGroupRequest,
) -> Result<Asked<B, Synced>, ResponseError> {
    let says_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if call.head.version >= PROTOCOL_SINCE && !says_protocol {
        return Err(ResponseError::InconsistentGroupProtocol);
    }
    let said = |name: Option<&_>| name.filter(|name| is_short(name)).map(kept);
    let group = named(&request.group_id)?;
    let (member, instance) = (member(&request.member_id)?, instance(request.group_instance_id.as_ref())?);
    // One that is too long is nobody's.
    let assignments = request.assignments.iter().filter(|one| is_short(&one.member_id));
    let assignments =
        assignments.map(|one| (super::member_id(&one.member_id), kept_bytes(&one.assignment))).collect();
    let sync = |reply| Sync {
        member,
        instance,
        generation: Generation(request.generation_id),
        protocol_type: said(request.protocol_type.as_ref()),
        protocol: said(request.protocol_name.as_ref()),
        assignments,
        ticket: Waiting::Sync(reply),
    };
    let of = group.clone();
    let input = |reply| CoordinatorInput::Sync { group, sync: Box::new(sync(reply)) };
    Ok(ask(&call.context, &of, "the assignment of a group", input).await)
}

/// Clients know no other code for a coordinator that has yet to load: they join again.
fn code(error: &CoordinatorError) -> ResponseError {
    match error {
        CoordinatorError::Loading => ResponseError::RebalanceInProgress,
        error => error_codes::coordinator(error),
    }
}

fn response(version: i16, synced: Result<Synced, ResponseError>) -> SyncGroupResponse {
    match synced {
        Err(code) => SyncGroupResponse::default().with_error_code(code.code()),
        Ok(synced) if version < PROTOCOL_SINCE => {
            SyncGroupResponse::default().with_assignment(synced.assignment)
        }
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(synced.protocol_type.map(text))
            .with_protocol_name(synced.protocol.map(text))
            .with_assignment(synced.assignment),
    }
}
