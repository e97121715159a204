//! InitProducerId: numbers for idempotent producers, from blocks that the metadata group gives to this node.

use std::sync::Arc;

use io_backend::{Backend, Deadline, Level, Lock};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use tracing::warn;

use super::changes;
use super::coordinator::TRANSACTIONS;
use crate::ids;
use crate::limits;
use crate::metadata::{MetadataCommand, Outcome};
use crate::node::Context;
use crate::server::Front;

/// Ids asked for at once, as Kafka does: one proposal for a thousand producers.
const BLOCK: i64 = 1_000;
const LEVEL: Level = Level(100);

/// The block in use. Ids that a stop leaves unused are never given out.
pub struct ProducerIds<B: Backend> {
    block: Lock<B, Block>,
}

#[derive(Default)]
struct Block {
    next: i64,
    end: i64,
}

impl<B: Backend> ProducerIds<B> {
    pub fn new(backend: &B) -> ProducerIds<B> {
        ProducerIds { block: Lock::new(backend, "producer ids", LEVEL, Block::default()) }
    }

    async fn next(&self, context: &Context<B>) -> Result<ids::ProducerId, ResponseError> {
        let deadline = Deadline::after(&context.backend, limits::PROPOSE_DEADLINE);
        let mut block =
            self.block.lock(deadline).await.map_err(|_| ResponseError::CoordinatorNotAvailable)?;
        if block.next == block.end {
            let command = MetadataCommand::AllocateProducerIds { broker: context.node, count: BLOCK };
            match changes::propose(context, command, deadline).await {
                Ok(Outcome::ProducerIds { first, count }) if count > 0 => {
                    *block = Block { next: first.0, end: first.0 + count };
                }
                Ok(other) => {
                    warn!(?other, "the metadata group gave no producer ids");
                    return Err(ResponseError::UnknownServerError);
                }
                Err(error) => {
                    warn!(%error, "no producer ids");
                    // Not the controller's business for this client: it asks again.
                    return Err(match error.code() {
                        ResponseError::NotController => ResponseError::CoordinatorNotAvailable,
                        other => other,
                    });
                }
            }
        }
        let id = block.next;
        block.next += 1;
        Ok(ids::ProducerId(id))
    }
}

pub async fn handle<B: Backend>(
    front: Arc<Front<B>>,
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
    match front.producer_ids.next(&front.context).await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id.0)).with_producer_epoch(0),
        Err(code) => refused(code),
    }
}
