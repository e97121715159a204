//! DescribeGroups: classic groups, and who is in them.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{
    ApiKey, DescribeGroupsRequest, DescribeGroupsResponse, GroupId as WireGroupId,
};

use super::super::authorization::{GROUP_OPERATIONS, Needs, OPERATIONS_OMITTED, Operation};
use super::super::declaration::{AskedInLine, Call, Declaration, Pending, Versions, pending};
use super::{answer, any_named, ask, not_described, once_each};
use crate::coordinator::classic::{ClassicDescription, DescribedMember};
use crate::coordinator::coordinators::Asked;
use crate::coordinator::messages::CoordinatorInput;
use crate::coordinator::shard::NotDescribed;
use crate::wire::shape::{Bounds, I8, Shape, TEXTS, always, plain, since};
use crate::wire::text;

/// Since when static members are told of by what their operators call them.
const INSTANCE_SINCE: i16 = 4;
/// Since when a group that is not there is an error (KIP-1043); before that it is one that is dead.
const NOT_FOUND_SINCE: i16 = 6;

/// DescribeGroups, key 15.
impl AskedInLine for DescribeGroupsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::DescribeGroups,
        versions: Versions::of(0, 6),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnGroups(Operation::Describe),
    };
    type Response = DescribeGroupsResponse;

    async fn ask<B: Backend>(self, call: Call<B>) -> Pending<DescribeGroupsResponse> {
        let operations =
            if self.include_authorized_operations { GROUP_OPERATIONS } else { OPERATIONS_OMITTED };
        pending(async move {
            let version = call.head.version;
            let mut groups = Vec::new();
            for group in once_each(self.groups) {
                let described = match question(&call, &group).await {
                    Ok(asked) => answer(&call, asked).await,
                    Err(code) => Err(code),
                };
                let mut told = told(version, group, described);
                if version >= 3 {
                    told.authorized_operations = operations;
                }
                groups.push(told);
            }
            DescribeGroupsResponse::default().with_groups(groups).into()
        })
    }

    fn errors(response: &DescribeGroupsResponse, each: &mut dyn FnMut(i16)) {
        response.groups.iter().for_each(|group| each(group.error_code));
    }
}

static REQUEST: Shape = plain(&[always(TEXTS), since(3, I8)]);

type Described = Result<ClassicDescription, NotDescribed>;

async fn question<B: Backend>(
    call: &Call<B>,
    group: &WireGroupId,
) -> Result<Asked<B, Described>, ResponseError> {
    let group = any_named(group)?;
    let of = group.clone();
    let input = |reply| CoordinatorInput::Describe { group, reply };
    Ok(ask(&call.context, &of, "a group to be described", input).await)
}

fn told(version: i16, group: WireGroupId, described: Result<Described, ResponseError>) -> DescribedGroup {
    let told = DescribedGroup::default();
    match described {
        Err(code) => told.with_error_code(code.code()).with_group_id(group),
        Ok(Err(_)) if version < NOT_FOUND_SINCE => told.with_group_state(text("Dead")).with_group_id(group),
        Ok(Err(why)) => {
            let why = text(not_described(&group, why, "classic"));
            told.with_error_code(ResponseError::GroupIdNotFound.code())
                .with_error_message(Some(why))
                .with_group_state(text("Dead"))
                .with_group_id(group)
        }
        Ok(Ok(described)) => {
            let members = described.members.into_iter().map(|one| member(version, one));
            told.with_group_state(text(described.state))
                .with_protocol_type(text(described.protocol_type.as_deref().unwrap_or_default()))
                .with_protocol_data(text(described.protocol.as_deref().unwrap_or_default()))
                .with_members(members.collect())
                .with_group_id(group)
        }
    }
}

fn member(version: i16, member: DescribedMember) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(text(member.id.0))
        .with_group_instance_id(member.instance.filter(|_| version >= INSTANCE_SINCE).map(|id| text(id.0)))
        .with_client_id(text(member.client.id))
        .with_client_host(text(member.client.host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}
