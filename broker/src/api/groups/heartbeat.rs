//! Heartbeat: a member says that it is there, and hears whether it is to join again.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, HeartbeatRequest, HeartbeatResponse};

use super::super::authorization::{Needs, Operation};
use super::super::declaration::{AskedInLine, Call, Declaration, Pending, Versions, pending};
use super::{answer, ask, code_of, instance, member, named};
use crate::coordinator::coordinators::Asked;
use crate::coordinator::ids::Generation;
use crate::coordinator::messages::CoordinatorInput;
use crate::wire::shape::{Bounds, I32, Kind, Shape, always, plain, since};

/// Heartbeat, key 12.
impl AskedInLine for HeartbeatRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::Heartbeat,
        versions: Versions::of(0, 4),
        bounds: Bounds::of_resources(&REQUEST),
        needs: Needs::OnGroups(Operation::Read),
    };
    type Response = HeartbeatResponse;

    async fn ask<B: Backend>(self, call: Call<B>) -> Pending<HeartbeatResponse> {
        let asked = question(&call, &self).await;
        pending(async move {
            let answered = match asked {
                Ok(asked) => answer(&call, asked).await,
                Err(code) => Err(code),
            };
            // Whether it is a member is not known yet, and clients know no code for that: it is to go on.
            let answered = answered.or_else(|code| match code {
                ResponseError::CoordinatorLoadInProgress => Ok(()),
                code => Err(code),
            });
            HeartbeatResponse::default().with_error_code(code_of(&answered)).into()
        })
    }

    fn errors(response: &HeartbeatResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }
}

static REQUEST: Shape = plain(&[always(Kind::Text), always(I32), always(Kind::Text), since(3, Kind::Text)]);

async fn question<B: Backend>(
    call: &Call<B>,
    request: &HeartbeatRequest,
) -> Result<Asked<B, ()>, ResponseError> {
    let group = named(&request.group_id)?;
    let (member, instance) = (member(&request.member_id)?, instance(request.group_instance_id.as_ref())?);
    let generation = Generation(request.generation_id);
    let of = group.clone();
    let input = |reply| CoordinatorInput::Heartbeat { group, member, instance, generation, reply };
    Ok(ask(&call.context, &of, "a heartbeat of a group's member", input).await)
}
