//! InitProducerId: numbers for idempotent producers.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use tracing::warn;

use super::authorization::{Needs, Operation};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use super::find_coordinator::TRANSACTIONS;
use crate::context::Context;
use crate::error_codes;
use crate::wire::shape::{Bounds, I16, I32, I64, Kind, Shape, always, plain, since};

/// InitProducerId, key 22 (KIP-98).
impl Api for InitProducerIdRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::InitProducerId,
        versions: Versions::of(0, 5),
        bounds: Bounds::of_resources(&REQUEST),
        needs: Needs::OnCluster(Operation::IdempotentWrite),
    };
    type Response = InitProducerIdResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<InitProducerIdResponse> {
        handle(&call.context, self).await.into()
    }

    fn errors(response: &InitProducerIdResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }
}

static REQUEST: Shape = plain(&[always(Kind::Text), always(I32), since(3, I64), since(3, I16)]);

async fn handle<B: Backend>(context: &Context<B>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refused = |code: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(code.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if let Some(id) = &request.transactional_id {
        if let Some(times) = context.lines.transactional.next() {
            warn!(transactional_id = %id.as_str(), times, "{TRANSACTIONS}");
        }
        return refused(ResponseError::UnsupportedVersion);
    }
    match context.producer_ids.next().await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id.0)).with_producer_epoch(0),
        Err(error) => {
            if let Some(times) = context.lines.without_id.next() {
                warn!(%error, times, "no producer id");
            }
            refused(error_codes::producer_id(&error))
        }
    }
}
