//! UnregisterBroker: forgets a broker that does not come back.

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::authorization::{Needs, Operation};
use super::changes::{Refusal, code_and_message};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::context::Context;
use crate::error_codes;
use crate::ids::BrokerId;
use crate::limits;
use crate::metadata::{BrokerError, MetadataCommand, MetadataImage, Outcome};
use crate::wire::shape::{Bounds, I32, Shape, always, plain};

/// UnregisterBroker, key 64 (KIP-631).
impl Api for UnregisterBrokerRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::UnregisterBroker,
        versions: Versions::of(0, 0),
        bounds: Bounds::of_resources(&REQUEST),
        needs: Needs::OnCluster(Operation::Alter),
    };
    type Response = UnregisterBrokerResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<UnregisterBrokerResponse> {
        let (code, message) = code_and_message(unregister(&call.context, BrokerId(self.broker_id.0)).await);
        UnregisterBrokerResponse::default().with_error_code(code).with_error_message(message).into()
    }

    fn errors(response: &UnregisterBrokerResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }
}

static REQUEST: Shape = plain(&[always(I32)]);

async fn unregister<B: Backend>(context: &Context<B>, broker: BrokerId) -> Result<(), Refusal> {
    may_go(&context.metadata.shown(), broker)?;
    let deadline = Deadline::after(&context.backend, limits::PROPOSE_DEADLINE);
    let command = MetadataCommand::UnregisterBroker { broker };
    match context.changes.propose(command, deadline).await {
        Ok(Outcome::Broker(outcome)) => outcome.map_err(refused),
        Ok(_) => Err((ResponseError::UnknownServerError, "the outcome is not known".to_owned())),
        Err(error) => Err((error_codes::change(&error), error.to_string())),
    }
}

fn refused(error: BrokerError) -> Refusal {
    (error_codes::broker(&error), error.to_string())
}

/// One that runs would register again, and its partitions would have been without it meanwhile for nothing.
fn may_go(image: &MetadataImage, broker: BrokerId) -> Result<(), Refusal> {
    match image.brokers.get(&broker) {
        None => Err(refused(BrokerError::NotRegistered(broker))),
        Some(known) if !known.fenced => {
            let why = format!("Broker {broker} is not fenced: stop it first.");
            Err((ResponseError::InvalidRequest, why))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::cluster;

    #[test]
    fn only_who_is_fenced_is_forgotten() {
        let mut image = cluster(2);
        image.brokers[&BrokerId(2)].fenced = true;
        let code = |broker| may_go(&image, BrokerId(broker)).map_err(|(code, _)| code);
        assert_eq!(code(1), Err(ResponseError::InvalidRequest));
        assert_eq!(code(2), Ok(()));
        assert_eq!(code(3), Err(ResponseError::BrokerIdNotRegistered));
    }
}
