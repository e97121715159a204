//! Fetch: reads what partitions have, and waits for more while that is less than the client wants.
//!
//! In a session (KIP-227) a client asks for what it has changed only, and is told what is new only; which partitions that
//! comes to is for [`crate::fetch_sessions`] to say. What is waited for is the same, and an answer may be empty.
//! A fetch that waits is not worked on and holds no request's place: only what it takes in memory, in an account of
//! its own. Where that is full, or others wait behind it that find no room there, it is answered with what there is.

use std::time::Duration;

use bytes::Bytes;
use io_backend::{Backend, Moment};
use kafka_protocol::messages::fetch_request::FetchRequest;
use kafka_protocol::messages::fetch_response::FetchResponse;
use kafka_protocol::messages::{ApiKey, TopicName};

use super::authorization::{Needs, Operation};
use super::declaration::{Asked, Call, Declaration, Versions};
use crate::budget::{Held, RequestClass, Share};
use crate::context::Context;
use crate::error_codes;
use crate::fetch_sessions::{
    self, Continued, Course, NO_SESSION, Outcome, SessionError, Terms, Topic, Wanted,
};
use crate::ids::{Offset, TopicId};
use crate::limits::{self, FETCH_BYTES_MAX};
use crate::routing;
use crate::session::{Control, Session};
use crate::wire::WireError;
use crate::wire::shape::{
    Bounds, I8, I32, I32S, I64, Kind, Shape, Tag, UUID, always, between, plain, since, until,
};

mod gathering;
mod answer;

pub use answer::Fetched;

use gathering::{Fetch, Reader, Slot};

/// The first version whose topics are named by id.
const TOPIC_IDS_SINCE: i16 = 13;
/// The first version whose clients say where they stand, and read from followers as well (KIP-392).
const FOLLOWERS_SINCE: i16 = 11;

/// A fetch of more partitions does not look at them at every change.
const LOOKED_AT_ONCE: usize = 500;
const PAUSE_PER_PARTITION: Duration = Duration::from_micros(2);
/// Who waits for room to look at its partitions does not stand in the way of those who wait for less.
const LOOKED_FOR_ROOM_EVERY: Duration = Duration::from_millis(20);

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
    let backend = &context.backend;
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let until = backend.now() + wait.min(context.config.server.fetch_wait_max);
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(FETCH_BYTES_MAX);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes);
    let is_sent_near = context.config.server.rack_aware_fetch && !request.rack_id.is_empty();
    let reader = Reader {
        read_committed: request.isolation_level == 1,
        of_followers: version >= FOLLOWERS_SINCE,
        rack: is_sent_near.then(|| request.rack_id.clone()),
    };
    let course = match context.fetch_sessions.begin(asked(version, request), backend.now()) {
        Ok(course) => course,
        Err(error) => return refused(context, NO_SESSION, error),
    };
    // Each time that it is worked on, it counts anew.
    held.request = None;
    let (wanted, begins, continued) = match course {
        Course::Alone(wanted) => (wanted, false, None),
        Course::Begins(wanted) => (wanted, true, None),
        Course::Continues(continued) => {
            if continued.partitions > LOOKED_AT_ONCE
                && !has_room(context, &mut held, continued.partitions, until, control).await
            {
                return Fetched::nothing().of_session(continued.id);
            }
            match continued.wanted() {
                Ok(wanted) => (wanted, false, Some(continued)),
                Err(error) => return refused(context, continued.id, error),
            }
        }
    };
    let mut fetch = Fetch::new(context, wanted, &reader, max_bytes).await;
    held.charge_at_least(fetch.waiting_bytes());
    let budget = &context.budget;
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
        if !fetch.until_more(context, until, control, continued.as_ref().map(Continued::overtaken)).await {
            break;
        }
        fetch.gather(context, |slot| slot.has_news()).await;
        let partitions = fetch.slots.len();
        if partitions > LOOKED_AT_ONCE && !fetch.is_enough(min_bytes) {
            // Looking at all of them at each change of each would be a way to keep a node busy.
            let pause = PAUSE_PER_PARTITION * u32::try_from(partitions).unwrap_or(u32::MAX);
            backend.sleep(pause.min(until.since(backend.now()))).await;
        }
    }
    let overtaken = continued.as_ref().filter(|continued| continued.is_overtaken());
    if let Some(overtaken) = overtaken {
        return refused(context, overtaken.id, SessionError::Epoch);
    }
    if fetch.has_let_go {
        fetch.begin_again();
        fetch.gather(context, |_| true).await;
    }
    if let Some(continued) = continued {
        let outcomes: Vec<Outcome> = fetch.slots.iter().map(Slot::outcome).collect();
        return match continued.conclude(&outcomes) {
            Ok(told) => fetch.into_fetched(context, version, |nth| told[nth]).of_session(continued.id),
            Err(error) => refused(context, continued.id, error),
        };
    }
    let id = if begins {
        let answered = fetch.slots.iter().map(|slot| (slot.wanted.clone(), slot.outcome().told));
        let by_id = version >= TOPIC_IDS_SINCE;
        context.fetch_sessions.create(by_id, answered, backend.now(), || backend.random_u64())
    } else {
        NO_SESSION
    };
    fetch.into_fetched(context, version, |_| true).of_session(id)
}

/// A short request may ask for very many partitions of its session. Who finds no room to look at them in its time is told nothing, which
/// says that nothing is new.
async fn has_room<B: Backend>(
    context: &Context<B>,
    held: &mut Held,
    partitions: usize,
    until: Moment,
    control: &Control,
) -> bool {
    let bytes = held.waiting_amount(true) + gathering::waiting_bytes::<B>(partitions);
    // What it said is in its session.
    held.bytes = None;
    loop {
        let more = bytes.saturating_sub(held.waiting.as_ref().map_or(0, Share::amount));
        if more == 0 {
            return true;
        }
        if let Some(room) = context.budget.waiting_bytes.try_take(RequestClass::Essential, more) {
            match &mut held.waiting {
                Some(waiting) => waiting.merge(room),
                none => *none = Some(room),
            }
            return true;
        }
        let now = context.backend.now();
        if now >= until || control.is_hurried() {
            return false;
        }
        context.backend.sleep(LOOKED_FOR_ROOM_EVERY.min(until.since(now))).await;
    }
}

/// What a request says to its session.
fn asked(version: i16, request: FetchRequest) -> fetch_sessions::Asked {
    let by_id = version >= TOPIC_IDS_SINCE;
    let topic = |name: &TopicName, id| match by_id {
        true => Topic::Id(TopicId(id)),
        false => Topic::Name(name.as_str().into()),
    };
    let mut wanted = Vec::new();
    for asked in &request.topics {
        let topic = topic(&asked.topic, asked.topic_id);
        wanted.extend(asked.partitions.iter().map(|asked| Wanted {
            topic: topic.clone(),
            index: asked.partition,
            terms: Terms {
                from: Offset(asked.fetch_offset),
                max_bytes: asked.partition_max_bytes,
                leader_epoch: routing::epoch(asked.current_leader_epoch),
            },
        }));
    }
    let mut forgotten = Vec::new();
    for asked in &request.forgotten_topics_data {
        let topic = topic(&asked.topic, asked.topic_id);
        forgotten.extend(asked.partitions.iter().map(|index| (topic.clone(), *index)));
    }
    let (id, mut epoch) = (request.session_id, request.session_epoch);
    // What no topic can be called is told as unknown, and kept nowhere.
    let is_kept = |wanted: &Wanted| match &wanted.topic {
        Topic::Id(_) => true,
        Topic::Name(name) => name.len() <= limits::TOPIC_NAME_BYTES_MAX,
    };
    if !wanted.iter().all(is_kept) {
        epoch = fetch_sessions::WITHOUT;
    }
    fetch_sessions::Asked { id, epoch, by_id, wanted, forgotten }
}

fn refused<B: Backend>(context: &Context<B>, id: i32, error: SessionError) -> Fetched {
    let code = error_codes::fetch_session(error).code();
    context.requests.count_error(DECLARATION.key as i16, code);
    let response = FetchResponse::default().with_error_code(code);
    Fetched { response, records: Vec::new(), room: None }.of_session(id)
}

impl Fetched {
    /// Nothing is new.
    fn nothing() -> Fetched {
        Fetched { response: FetchResponse::default(), records: Vec::new(), room: None }
    }

    fn of_session(mut self, id: i32) -> Fetched {
        self.response.session_id = id;
        self
    }
}
