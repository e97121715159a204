//! DeleteGroups: groups that nobody is in are forgotten, and how far they are.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{ApiKey, DeleteGroupsRequest, DeleteGroupsResponse, GroupId as WireGroupId};

use super::super::authorization::{Needs, Operation};
use super::super::declaration::{AskedInLine, Call, Declaration, Pending, Versions, pending};
use super::{answer, any_named, ask, code_of, once_each};
use crate::coordinator::coordinators::Asked;
use crate::coordinator::messages::CoordinatorInput;
use crate::wire::shape::{Bounds, Shape, TEXTS, always, plain};

/// DeleteGroups, key 42 (KIP-229).
impl AskedInLine for DeleteGroupsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::DeleteGroups,
        versions: Versions::of(0, 2),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnGroups(Operation::Delete),
    };
    type Response = DeleteGroupsResponse;

    async fn ask<B: Backend>(self, call: Call<B>) -> Pending<DeleteGroupsResponse> {
        pending(async move {
            let mut results = Vec::new();
            for group in once_each(self.groups_names) {
                let deleted = match question(&call, &group).await {
                    Ok(asked) => answer(&call, asked).await,
                    Err(code) => Err(code),
                };
                let result = DeletableGroupResult::default().with_error_code(code_of(&deleted));
                results.push(result.with_group_id(group));
            }
            DeleteGroupsResponse::default().with_results(results).into()
        })
    }

    fn errors(response: &DeleteGroupsResponse, each: &mut dyn FnMut(i16)) {
        response.results.iter().for_each(|result| each(result.error_code));
    }
}

static REQUEST: Shape = plain(&[always(TEXTS)]);

async fn question<B: Backend>(call: &Call<B>, group: &WireGroupId) -> Result<Asked<B, ()>, ResponseError> {
    let group = any_named(group)?;
    let of = group.clone();
    let input = |reply| CoordinatorInput::Delete { group, reply };
    Ok(ask(&call.context, &of, "a group to be forgotten", input).await)
}
