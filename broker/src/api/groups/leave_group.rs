//! LeaveGroup: members of a classic group go, or an administrator removes them.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{ApiKey, LeaveGroupRequest, LeaveGroupResponse};

use super::super::authorization::{Needs, Operation};
use super::super::declaration::{AskedInLine, Call, Declaration, Pending, Versions, pending};
use super::{answer, ask, instance, member, named};
use crate::coordinator::classic::MemberError;
use crate::coordinator::coordinators::Asked;
use crate::coordinator::messages::CoordinatorInput;
use crate::error_codes;
use crate::wire::shape::{Bounds, Kind, Shape, always, plain, since, until};

/// Since when several leave in one request, each with an error of its own.
const SEVERAL_SINCE: i16 = 3;

/// LeaveGroup, key 13 (several at once, by the ids of their operators: KIP-345; why: KIP-800).
impl AskedInLine for LeaveGroupRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::LeaveGroup,
        versions: Versions::of(0, 5),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnGroups(Operation::Read),
    };
    type Response = LeaveGroupResponse;

    async fn ask<B: Backend>(mut self, call: Call<B>) -> Pending<LeaveGroupResponse> {
        if call.head.version < SEVERAL_SINCE {
            self.members = vec![MemberIdentity::default().with_member_id(self.member_id.clone())];
        }
        let asked = question(&call, &self).await;
        pending(async move {
            let left = match asked {
                Ok(asked) => answer(&call, asked).await,
                Err(code) => Err(code),
            };
            response(call.head.version, self.members, left).into()
        })
    }

    fn errors(response: &LeaveGroupResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
        response.members.iter().for_each(|one| each(one.error_code));
    }
}

static REQUEST: Shape =
    plain(&[always(Kind::Text), until(2, Kind::Text), since(3, Kind::Many(&Kind::Struct(&MEMBER)))]);
static MEMBER: Shape = plain(&[always(Kind::Text), always(Kind::Text), since(5, Kind::Text)]);

type Left = Vec<Result<(), MemberError>>;

async fn question<B: Backend>(
    call: &Call<B>,
    request: &LeaveGroupRequest,
) -> Result<Asked<B, Left>, ResponseError> {
    let group = named(&request.group_id)?;
    let mut leaving = Vec::with_capacity(request.members.len());
    for one in &request.members {
        let id = match one.member_id.is_empty() {
            true => None,
            false => Some(member(&one.member_id)?),
        };
        leaving.push((id, instance(one.group_instance_id.as_ref())?));
    }
    let of = group.clone();
    let input = |reply| CoordinatorInput::Leave { group, leaving, reply };
    Ok(ask(&call.context, &of, "members to leave a group", input).await)
}

fn response(
    version: i16,
    members: Vec<MemberIdentity>,
    left: Result<Left, ResponseError>,
) -> LeaveGroupResponse {
    let left = match left {
        Ok(left) => left,
        Err(code) => return LeaveGroupResponse::default().with_error_code(code.code()),
    };
    let codes = left.iter().map(|left| match left {
        Ok(()) => error_codes::NONE,
        Err(error) => error_codes::member(error).code(),
    });
    if version < SEVERAL_SINCE {
        return LeaveGroupResponse::default().with_error_code(codes.sum());
    }
    let members = members.into_iter().zip(codes).map(|(member, code)| {
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(code)
    });
    LeaveGroupResponse::default().with_members(members.collect())
}
