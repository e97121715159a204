//! Fetch: reads what partitions have, and waits for more while that is less than the client wants.
//!
//! Sessions are declined: the answer carries session id 0, which clients take for "send everything each time".
//! A fetch that waits is not worked on and holds no request's place: only what it takes in memory, in an account of
//! its own. Where that is full, or others wait behind it that find no room there, it is answered with what there is.

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use io_backend::published::Watcher;
use io_backend::{Backend, Deadline, Moment, WaitKind, within};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest};
use kafka_protocol::messages::fetch_response::{
    FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{ApiKey, BrokerId, TopicName};
use uuid::Uuid;

use super::authorization::{Needs, Operation};
use super::declaration::{Asked, Call, Declaration, Versions};
use crate::budget::{Held, RequestClass, Share};
use crate::context::Context;
use crate::error_codes;
use crate::ids::{LeaderEpoch, Offset, TopicId};
use crate::limits::{DISK_DEADLINE, FETCH_BYTES_MAX};
use crate::log::batch::Batches;
use crate::metrics::Volume;
use crate::partition::{PartitionHandle, PartitionView, ReadError, ReadRequest};
use crate::routing::{Leader, RoutingError, RoutingView, TopicKey};
use crate::session::{Control, Session};
use crate::wire::shape::{
    Bounds, I8, I32, I32S, I64, Kind, Shape, Tag, UUID, always, between, plain, since, until,
};
use crate::wire::{self, WireError, text};

/// A fetch of more partitions does not look at them at every change.
const LOOKED_AT_ONCE: usize = 500;
const PAUSE_PER_PARTITION: Duration = Duration::from_micros(2);

const TOPIC_IDS_SINCE: i16 = 13;
const LEADERS_SINCE: i16 = 12;
const ENDPOINTS_SINCE: i16 = 16;
const PREFERRED_REPLICA_SINCE: i16 = 11;

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

/// A fetch's answer: the response with markers for the records, the records, and the room that is taken for them.
pub struct Fetched {
    /// The answer without its records.
    pub response: FetchResponse,
    /// The records of each partition of the answer, in order: whole batches, in the buffers they were read
    /// into.
    pub records: Vec<Vec<Bytes>>,
    /// What the records take, given back when they are written.
    pub room: Option<Share>,
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

/// A fetch under way.
struct Fetch<B: Backend> {
    topics: Vec<Topic<B>>,
    read_committed: bool,
    bytes: usize,
    max_bytes: usize,
    failed: bool,
    /// Room for what is gathered, and for the next read.
    room: Option<Share>,
    /// There is no more room: what is there must do.
    short: bool,
    /// What was gathered was counted and let go of.
    has_let_go: bool,
}

struct Topic<B: Backend> {
    name: TopicName,
    id: Uuid,
    slots: Vec<Slot<B>>,
}

/// One partition of the fetch and what has been gathered for it.
struct Slot<B: Backend> {
    index: i32,
    partition: Option<PartitionHandle<B>>,
    from: Offset,
    next: Offset,
    max_bytes: usize,
    current_epoch: Option<LeaderEpoch>,
    read_committed: bool,
    view: PartitionView,
    batches: Vec<Bytes>,
    bytes: usize,
    error: Option<RoutingError>,
}

impl<B: Backend> Slot<B> {
    fn new(
        routing: &RoutingView<B>,
        key: TopicKey<'_>,
        asked: &FetchPartition,
        read_committed: bool,
    ) -> Slot<B> {
        let found = routing.topic(key).map_err(RoutingError::from);
        let found = found.and_then(|topic| routing.partition(topic, asked.partition));
        let (partition, error) = match found {
            Ok(partition) => (Some(partition.clone()), None),
            Err(error) => (None, Some(error)),
        };
        Slot {
            index: asked.partition,
            partition,
            from: Offset(asked.fetch_offset),
            next: Offset(asked.fetch_offset),
            max_bytes: usize::try_from(asked.partition_max_bytes).unwrap_or(0),
            current_epoch: (asked.current_leader_epoch >= 0)
                .then_some(LeaderEpoch(asked.current_leader_epoch)),
            read_committed,
            view: PartitionView::default(),
            batches: Vec::new(),
            bytes: 0,
            error,
        }
    }

    /// What a reader may see of a view, and whether it may.
    fn visible(&self, view: &PartitionView) -> (Offset, Offset, bool, LeaderEpoch) {
        let end = if self.read_committed { view.last_stable } else { view.high_watermark };
        (view.log_start, end, view.leading, view.leader_epoch)
    }

    /// Whether reading could give anything but what has been gathered.
    fn is_beyond(&self, view: &PartitionView) -> bool {
        let (_, end, leading, epoch) = self.visible(view);
        end != self.next || !leading || self.current_epoch.is_some_and(|current| current != epoch)
    }

    /// Whether the partition looks other than it did when it was last read.
    fn has_changed(&self, view: &PartitionView) -> bool {
        self.visible(view) != self.visible(&self.view)
    }

    fn has_news(&self) -> bool {
        self.error.is_none()
            && self.partition.as_ref().is_some_and(|one| self.has_changed(&one.views().get()))
    }

    /// Looks at the partition: how many bytes a read could give, of at most `room`.
    fn wanted(&mut self, room: usize) -> usize {
        let Some(partition) = &self.partition else { return 0 };
        self.view = *partition.views().get();
        let room = room.min(self.max_bytes.saturating_sub(self.bytes));
        if self.is_beyond(&self.view) { room } else { 0 }
    }

    async fn gather(&mut self, room: usize, at_least_one: bool, deadline: Deadline) -> Result<(), ReadError> {
        let Some(partition) = &self.partition else { return Ok(()) };
        let request = ReadRequest {
            from: self.next,
            max_bytes: room,
            at_least_one,
            read_committed: self.read_committed,
            current_epoch: self.current_epoch,
        };
        let outcome = partition.read(request, deadline).await?;
        self.view = outcome.view;
        self.bytes += outcome.batches.iter().map(Bytes::len).sum::<usize>();
        if let Some(next) = outcome.batches.last().and_then(|last| offset_after(last)) {
            self.next = next;
        }
        self.batches.extend(outcome.batches);
        Ok(())
    }
}

/// What chunks of whole batches hold.
fn volume(chunks: &[Bytes]) -> Volume {
    let mut volume = Volume::default();
    for chunk in chunks {
        volume.bytes += chunk.len() as u64;
        let batches = Batches::new(chunk).map_while(Result::ok);
        volume.records += batches.map(|(_, header)| u64::from(header.records.unsigned_abs())).sum::<u64>();
    }
    volume
}

/// The offset after a chunk of one or more whole batches.
fn offset_after(chunk: &[u8]) -> Option<Offset> {
    let mut rest = chunk;
    let mut after = None;
    while let Some(header) = rest.first_chunk::<27>() {
        let base = i64::from_be_bytes(*header.first_chunk()?);
        let len = usize::try_from(i32::from_be_bytes(*header[8..].first_chunk()?)).ok()?;
        let last_delta = i32::from_be_bytes(*header[23..].first_chunk()?);
        after = Some(Offset(base + i64::from(last_delta) + 1));
        rest = rest.get(12 + len..)?;
    }
    after
}

impl<B: Backend> Fetch<B> {
    fn new(context: &Context<B>, version: i16, request: FetchRequest, max_bytes: usize) -> Fetch<B> {
        let routing = RoutingView::now(context);
        let read_committed = request.isolation_level == 1;
        let topics = request.topics.into_iter().map(|topic| {
            let key = match version >= TOPIC_IDS_SINCE {
                true => TopicKey::Id(TopicId(topic.topic_id)),
                false => TopicKey::Name(topic.topic.as_str()),
            };
            let slots = topic.partitions.iter().map(|asked| Slot::new(&routing, key, asked, read_committed));
            let slots: Vec<Slot<B>> = slots.collect();
            Topic { id: topic.topic_id, slots, name: topic.topic }
        });
        let topics: Vec<Topic<B>> = topics.collect();
        let failed = topics.iter().flat_map(|topic| &topic.slots).any(|slot| slot.error.is_some());
        Fetch {
            topics,
            read_committed,
            bytes: 0,
            max_bytes,
            failed,
            room: None,
            short: false,
            has_let_go: false,
        }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot<B>> {
        self.topics.iter().flat_map(|topic| &topic.slots)
    }

    /// An error is news that should not wait.
    fn is_enough(&self, min_bytes: usize) -> bool {
        self.failed
            || self.short
            || self.bytes >= min_bytes
            || self.bytes >= self.max_bytes
            || self.slots().next().is_none()
    }

    async fn gather(&mut self, context: &Context<B>, of_interest: impl Fn(&Slot<B>) -> bool) {
        let (backend, budget) = (&context.backend, &context.budget);
        let mut working = Some(budget.requests.take(RequestClass::Essential, 1).await);
        let began = backend.now();
        let deadline = Deadline::At(began + DISK_DEADLINE);
        let least = context.metadata.config().topics.max_batch_bytes;
        for slot in self.topics.iter_mut().flat_map(|topic| &mut topic.slots) {
            if slot.error.is_some() || !of_interest(slot) {
                continue;
            }
            if self.short {
                slot.wanted(0);
                continue;
            }
            // The first batch is given even where it is larger than the client's limit, or it never got past.
            let room = match self.bytes {
                0 => self.max_bytes.max(1),
                bytes => self.max_bytes.saturating_sub(bytes),
            };
            if self.bytes == 0 {
                slot.max_bytes = slot.max_bytes.max(1);
            }
            let wanted = slot.wanted(room);
            if wanted == 0 {
                continue;
            }
            let gathered = self.room.as_ref().map_or(0, Share::amount);
            let mut more = budget.some_for_answer(least.min(wanted), wanted);
            if more.is_none() && gathered == 0 && !self.failed {
                // One batch is given, when its turn comes: without it the client never got past. The reading has the
                // other half of the time.
                drop(working.take());
                let until = began + DISK_DEADLINE / 2;
                more = budget.room_for_answer(backend, RequestClass::Common, least.min(wanted), until).await;
                working = Some(budget.requests.take(RequestClass::Essential, 1).await);
            }
            let Some(more) = more else {
                self.short = true;
                continue;
            };
            let granted = more.amount();
            match &mut self.room {
                Some(room) => room.merge(more),
                none => *none = Some(more),
            }
            let before = slot.bytes;
            let outcome = slot.gather(granted, self.bytes == 0, deadline).await;
            let read = slot.bytes - before;
            self.bytes += read;
            if let Some(room) = &mut self.room {
                room.set(gathered + read);
            }
            if let Err(error) = outcome {
                self.failed = true;
                // What was read before the error is good; the client meets the error next time.
                if slot.batches.is_empty() {
                    slot.error = Some(error_codes::read(&error).into());
                }
            }
        }
        drop(working);
    }

    /// Keeps the count of what has been gathered and nothing of it: who waits holds no answer.
    fn let_go(&mut self) {
        self.has_let_go |= self.bytes > 0;
        self.room = None;
        for slot in self.topics.iter_mut().flat_map(|topic| &mut topic.slots) {
            slot.batches = Vec::new();
        }
    }

    /// What was counted is to be gathered once more, for the answer.
    fn begin_again(&mut self) {
        self.let_go();
        self.bytes = 0;
        for slot in self.topics.iter_mut().flat_map(|topic| &mut topic.slots) {
            slot.bytes = 0;
            slot.next = slot.from;
        }
    }

    /// Waits until a partition has more, leads no longer, or is under a new epoch; false when time is up,
    /// the node stops, or the connection is in a hurry.
    async fn until_more(&self, context: &Context<B>, until: Moment, control: &Control) -> bool {
        let backend = &context.backend;
        let bounded = Deadline::Unbounded("the fetch that waits has a deadline");
        let mut stopping = pin!(context.stopping.until(backend, bounded, |stopping| *stopping));
        let waiting: Vec<&Slot<B>> = self.slots().filter(|slot| slot.bytes < slot.max_bytes).collect();
        let mut watchers: Vec<Option<Watcher<PartitionView>>> =
            waiting.iter().map(|slot| Some(slot.partition.as_ref()?.views().watcher())).collect();
        let any = poll_fn(|cx| {
            if control.is_hurried() || stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            for (slot, watcher) in waiting.iter().zip(&mut watchers) {
                if let Some(watcher) = watcher
                    && slot.has_changed(&watcher.watch(cx.waker()))
                {
                    return Poll::Ready(true);
                }
            }
            Poll::Pending
        });
        let site = Location::caller();
        let wait = backend.registry().waiting(backend, WaitKind::Change, "records to fetch", site);
        let any = wait.bounded_by(Deadline::At(until)).during(any);
        within(backend, Deadline::At(until), any).await.unwrap_or(false)
    }

    fn into_fetched(self, context: &Context<B>, version: i16) -> Fetched {
        let routing = RoutingView::now(context);
        let mut endpoints: Vec<NodeEndpoint> = Vec::new();
        let mut topics = Vec::with_capacity(self.topics.len());
        let mut records = Vec::new();
        for topic in self.topics {
            let key = match version >= TOPIC_IDS_SINCE {
                true => TopicKey::Id(TopicId(topic.id)),
                false => TopicKey::Name(topic.name.as_str()),
            };
            let image = routing.topic(key).ok();
            let mut partitions = Vec::with_capacity(topic.slots.len());
            for mut slot in topic.slots {
                let leader = slot
                    .error
                    .filter(|error| tells_leader(error.code))
                    .and_then(|error| error.leader.or_else(|| routing.leader(image?, slot.index)));
                if let Some(leader) = leader
                    && version >= ENDPOINTS_SINCE
                    && !endpoints.iter().any(|known| known.node_id.0 == leader.id.0)
                    && let Some(broker) = routing.image.brokers.get(&leader.id)
                {
                    endpoints.push(
                        NodeEndpoint::default()
                            .with_node_id(BrokerId(leader.id.0))
                            .with_host(text(&broker.host))
                            .with_port(broker.port.into())
                            .with_rack(None),
                    );
                }
                if let Some(error) = &slot.error {
                    context.requests.count_error(DECLARATION.key as i16, error.code.code());
                }
                let batches = std::mem::take(&mut slot.batches);
                let has_records = !batches.is_empty();
                if has_records {
                    if let Some(partition) = &slot.partition {
                        partition.counters().gave(volume(&batches));
                    }
                    records.push(batches);
                }
                partitions.push(partition_data(slot, has_records, version, self.read_committed, leader));
            }
            let response = FetchableTopicResponse::default().with_partitions(partitions);
            topics.push(match version >= TOPIC_IDS_SINCE {
                true => response.with_topic_id(topic.id),
                false => response.with_topic(topic.name),
            });
        }
        let response = FetchResponse::default().with_responses(topics).with_node_endpoints(endpoints);
        Fetched { response, records, room: self.room }
    }
}

fn tells_leader(code: ResponseError) -> bool {
    matches!(
        code,
        ResponseError::NotLeaderOrFollower
            | ResponseError::FencedLeaderEpoch
            | ResponseError::UnknownLeaderEpoch
    )
}

fn partition_data<B: Backend>(
    slot: Slot<B>,
    has_records: bool,
    version: i16,
    read_committed: bool,
    leader: Option<Leader>,
) -> PartitionData {
    let mut data = PartitionData::default()
        .with_partition_index(slot.index)
        .with_aborted_transactions(read_committed.then(Vec::new))
        // Never null: some clients cannot take that.
        .with_records(Some(if has_records { wire::records::marker() } else { Bytes::new() }));
    if version >= PREFERRED_REPLICA_SINCE {
        data.preferred_read_replica = BrokerId(-1);
    }
    match slot.error {
        None => {
            data.high_watermark = slot.view.high_watermark.0;
            data.last_stable_offset = slot.view.last_stable.0;
            data.log_start_offset = slot.view.log_start.0;
        }
        Some(error) => {
            data.error_code = error.code.code();
            data.high_watermark = -1;
        }
    }
    if let Some(leader) = leader
        && version >= LEADERS_SINCE
    {
        data.current_leader = LeaderIdAndEpoch::default()
            .with_leader_id(BrokerId(leader.id.0))
            .with_leader_epoch(leader.epoch.0);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base: i64, last_delta: i32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; len];
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[8..12].copy_from_slice(&(len as i32 - 12).to_be_bytes());
        bytes[23..27].copy_from_slice(&last_delta.to_be_bytes());
        bytes
    }

    #[test]
    fn the_next_offset_follows_the_last_batch_of_a_chunk() {
        assert_eq!(offset_after(&batch(7, 2, 61)), Some(Offset(10)));
        let two = [batch(7, 2, 61), batch(10, 0, 70)].concat();
        assert_eq!(offset_after(&two), Some(Offset(11)));
        assert_eq!(offset_after(&two[..61]), Some(Offset(10)));
        assert_eq!(offset_after(&[]), None);
    }

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
