//! FindCoordinator: groups and transactions do not exist here yet, and that is what is said.
//!
//! For a group the answer is the retriable one, so that consumers which only want a group's name and assign
//! partitions themselves go on. For a transaction it is final: a producer must not wait for what never comes.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use kafka_protocol::messages::{ApiKey, BrokerId, FindCoordinatorRequest};

use super::authorization::{Needs, Operation};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::wire::shape::{Bounds, I8, Kind, Shape, TEXTS, plain, since, until};
use crate::wire::{StrBytes, text};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// What is said, by type of key.
fn verdict(key_type: i8) -> (ResponseError, &'static str) {
    match key_type {
        GROUP => (
            ResponseError::CoordinatorNotAvailable,
            "consumer groups are not supported by this broker yet: assign partitions instead of subscribing",
        ),
        TRANSACTION => (ResponseError::UnsupportedVersion, TRANSACTIONS),
        _ => (ResponseError::InvalidRequest, "this type of coordinator is not known"),
    }
}

/// Also said by InitProducerId.
pub const TRANSACTIONS: &str = "transactions are not supported by this broker yet";

/// FindCoordinator, key 10 (several keys at once: KIP-699).
impl Api for FindCoordinatorRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::FindCoordinator,
        versions: Versions::of(0, 6),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnGroups(Operation::Describe),
    };
    type Response = FindCoordinatorResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<FindCoordinatorResponse> {
        handle(call.head.version, self).into()
    }

    fn errors(response: &FindCoordinatorResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
        response.coordinators.iter().for_each(|one| each(one.error_code));
    }
}

static REQUEST: Shape = plain(&[until(3, Kind::Text), since(1, I8), since(4, TEXTS)]);

fn handle(version: i16, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let (code, message) = verdict(request.key_type);
    let nobody = BrokerId(-1);
    if version <= 3 {
        let message = (version >= 1).then(|| StrBytes::from_static_str(message));
        return FindCoordinatorResponse::default()
            .with_error_code(code.code())
            .with_error_message(message)
            .with_node_id(nobody)
            .with_port(-1);
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        Coordinator::default()
            .with_key(key)
            .with_node_id(nobody)
            .with_port(-1)
            .with_error_code(code.code())
            .with_error_message(Some(text(message)))
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}
