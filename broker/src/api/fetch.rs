//! Fetch: reads what partitions have, and waits for more while that is less than the client wants.
//!
//! Sessions are declined: the answer carries session id 0, which clients take for "send everything each time".
//! A fetch that waits is not worked on and holds no request's place: only what it takes in memory, in an account of
//! its own. Where that is full, or others wait behind it that find no room there, it is answered with what there is.

use std::time::Duration;

use bytes::Bytes;
use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::fetch_request::FetchRequest;
use kafka_protocol::messages::fetch_response::FetchResponse;

use super::authorization::{Needs, Operation};
use super::declaration::{Asked, Call, Declaration, Versions};
use crate::budget::{Held, RequestClass};
use crate::context::Context;
use crate::limits::FETCH_BYTES_MAX;
use crate::session::Session;
use crate::wire::WireError;
use crate::wire::shape::{
    Bounds, I8, I32, I32S, I64, Kind, Shape, Tag, UUID, always, between, plain, since, until,
};

mod gathering;
mod answer;

pub use answer::Fetched;

use gathering::Fetch;

/// A fetch of more partitions does not look at them at every change.
const LOOKED_AT_ONCE: usize = 500;
const PAUSE_PER_PARTITION: Duration = Duration::from_micros(2);

/// Fetch, from version 4 on: topics by id from version 13 (KIP-516).
pub const DECLARATION: Declaration = Declaration {
    key: ApiKey::Fetch,
    versions: Versions::of(4, 18),
    bounds: Bounds::of_partitions(&REQUEST),
    needs: Needs::OnTopics(Operation::Read),
};

static REQUEST: Shape = Shape {
    fields: &[
        until(14, I32),
        always(I32),
        always(I32),
        always(I32),
        always(I8),
        since(7, I32),
        since(7, I32),
        always(Kind::Many(&Kind::Struct(&TOPIC))),
        since(7, Kind::Many(&Kind::Struct(&FORGOTTEN_TOPIC))),
        since(11, Kind::Text),
    ],
    tags: &[Tag { tag: 0, kind: Kind::Text }, Tag { tag: 1, kind: Kind::Struct(&REPLICA_STATE) }],
};
static TOPIC: Shape =
    plain(&[until(12, Kind::Text), since(13, UUID), always(Kind::Many(&Kind::Struct(&PARTITION)))]);
static PARTITION: Shape = Shape {
    fields: &[always(I32), since(9, I32), always(I64), since(12, I32), since(5, I64), always(I32)],
    tags: &[Tag { tag: 0, kind: UUID }, Tag { tag: 1, kind: I64 }],
};
static FORGOTTEN_TOPIC: Shape = plain(&[between(7, 12, Kind::Text), since(13, UUID), always(I32S)]);
static REPLICA_STATE: Shape = plain(&[always(I32), always(I64)]);

/// Decodes; what is asked for is looked for when the request's turn has come.
///
/// # Errors
///
/// It is malformed.
pub fn ask<B: Backend>(call: Call<B>, body: Bytes) -> Result<Asked, WireError> {
    Ok(Asked::Fetch(Box::new(DECLARATION.decode(call.head.version, body)?)))
}

/// Answers: at once where there is enough, otherwise when there is, by the client's deadline.
pub async fn handle<B: Backend>(
    context: &Context<B>,
    session: &Session,
    version: i16,
    request: FetchRequest,
    mut held: Held,
) -> Fetched {
    let control = &session.control;
    if let Some(code) = session_error(request.session_id, request.session_epoch) {
        let response = FetchResponse::default().with_error_code(code.code());
        context.requests.count_error(DECLARATION.key as i16, code.code());
        return Fetched { response, records: Vec::new(), room: None };
    }
    let backend = &context.backend;
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let until = backend.now() + wait.min(context.config.server.fetch_wait_max);
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(FETCH_BYTES_MAX);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes);
    let mut fetch = Fetch::new(context, version, request, max_bytes);

    let budget = &context.budget;
    // Each time that it is worked on, it counts anew.
    held.request = None;
    fetch.gather(context, |_| true).await;
    while !fetch.is_enough(min_bytes) && backend.now() < until && !control.is_hurried() {
        if held.waiting.is_none() {
            let Some(waiting) =
                budget.waiting_bytes.try_take(RequestClass::Essential, held.waiting_amount(false))
            else {
                break;
            };
            held.waiting = Some(waiting);
        }
        held.bytes = None;
        fetch.let_go();
        if !fetch.until_more(context, until, control).await {
            break;
        }
        fetch.gather(context, |slot| slot.has_news()).await;
        let partitions = fetch.slots().count();
        if partitions > LOOKED_AT_ONCE && !fetch.is_enough(min_bytes) {
            // Looking at all of them at each change of each would be a way to keep a node busy.
            let pause = PAUSE_PER_PARTITION * u32::try_from(partitions).unwrap_or(u32::MAX);
            backend.sleep(pause.min(until.since(backend.now()))).await;
        }
    }
    if fetch.has_let_go {
        fetch.begin_again();
        fetch.gather(context, |_| true).await;
    }
    fetch.into_fetched(context, version)
}

/// No session exists: a client that names one is told so, and begins anew without.
fn session_error(id: i32, epoch: i32) -> Option<ResponseError> {
    match (id, epoch) {
        // Both ask for everything, whichever session they end: -1 without a new one, 0 with one, which is declined.
        (_, -1 | 0) => None,
        _ => Some(ResponseError::FetchSessionIdNotFound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_declined_and_never_pretended() {
        let table = [
            ((0, -1), None),
            ((0, 0), None),
            ((0, 1), Some(ResponseError::FetchSessionIdNotFound)),
            ((5, 0), None),
            ((5, 3), Some(ResponseError::FetchSessionIdNotFound)),
            ((5, -1), None),
        ];
        for ((id, epoch), expected) in table {
            assert_eq!(session_error(id, epoch), expected, "session {id}, epoch {epoch}");
        }
    }
}
