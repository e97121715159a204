//! InitProducerId: numbers for idempotent producers.

use std::sync::Arc;

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use tracing::warn;

use super::find_coordinator::TRANSACTIONS;
use crate::context::Context;
use crate::error_codes;

pub async fn handle<B: Backend>(
    context: Arc<Context<B>>,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |code: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(code.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if let Some(id) = &request.transactional_id {
        warn!(transactional_id = %id.as_str(), "{TRANSACTIONS}");
        return refused(ResponseError::UnsupportedVersion);
    }
    match context.producer_ids.next().await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id.0)).with_producer_epoch(0),
        Err(error) => {
            warn!(%error, "no producer id");
            refused(error_codes::producer_id(&error))
        }
    }
}
