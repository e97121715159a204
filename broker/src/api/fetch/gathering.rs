//! A fetch under way: what has been gathered of each of its partitions, and the wait until there is more.

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use io_backend::published::Watcher;
use io_backend::task::give_way;
use io_backend::{Backend, Deadline, Moment, WaitKind, within};
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::budget::{RequestClass, Share};
use crate::context::Context;
use crate::error_codes;
use crate::fetch_sessions::{Outcome, Overtaken, Told, Topic, Wanted};
use crate::ids::{BrokerId, LeaderEpoch, Offset};
use crate::limits::DISK_DEADLINE;
use crate::partition::{PartitionHandle, PartitionView, ReadError, ReadRequest};
use crate::routing::{RoutingError, RoutingView, TopicKey, nearest};
use crate::session::Control;

/// What the list of those who wait for a change of a partition takes for each, and its place there.
const WATCHED_BYTES: usize = 96;

/// What a fetch of so many partitions takes in memory while it waits.
pub fn waiting_bytes<B: Backend>(partitions: usize) -> usize {
    partitions * (size_of::<Slot<B>>() + WATCHED_BYTES)
}

/// So many partitions are looked up before others have their turn.
const LOOKED_UP_AT_ONCE: usize = 500;

/// What a partition of a fetch is looked for by.
pub fn key(topic: &Topic) -> TopicKey<'_> {
    match topic {
        Topic::Id(id) => TopicKey::Id(*id),
        Topic::Name(name) => TopicKey::Name(name),
    }
}

/// A fetch under way.
pub struct Fetch<B: Backend> {
    /// In the order in which they are looked at, and answered.
    pub slots: Vec<Slot<B>>,
    pub read_committed: bool,
    bytes: usize,
    max_bytes: usize,
    /// Something is told that should not wait: an error, or who had better be asked.
    at_once: bool,
    /// Room for what is gathered, and for the next read.
    pub room: Option<Share>,
    /// There is no more room: what is there must do.
    short: bool,
    /// What was gathered was counted and let go of.
    pub has_let_go: bool,
}

/// One partition of the fetch and what has been gathered for it.
pub struct Slot<B: Backend> {
    pub wanted: Wanted,
    pub partition: Option<PartitionHandle<B>>,
    next: Offset,
    max_bytes: usize,
    read_committed: bool,
    pub view: PartitionView,
    pub batches: Vec<Bytes>,
    bytes: usize,
    pub error: Option<RoutingError>,
    of_followers: bool,
    /// Who had better be asked: nothing is read here then.
    pub preferred: Option<BrokerId>,
}

/// What a consumer says of itself that counts for all partitions that it asks for.
pub struct Reader {
    pub read_committed: bool,
    /// It reads from followers as well.
    pub of_followers: bool,
    /// Where it stands, if it is to be sent to who stands there too.
    pub rack: Option<StrBytes>,
}

impl<B: Backend> Slot<B> {
    fn new(routing: &RoutingView<B>, wanted: Wanted, reader: &Reader) -> Slot<B> {
        let Reader { read_committed, of_followers, rack } = reader;
        let found = routing.topic(key(&wanted.topic)).map_err(RoutingError::from);
        let found = found.and_then(|topic| {
            let partition = match of_followers {
                true => routing.readable(topic, wanted.index)?,
                false => routing.partition(topic, wanted.index)?,
            };
            let leads = || partition.views().get().leading;
            let rack = rack.as_deref().filter(|_| leads());
            let preferred = rack.and_then(|rack| nearest(&routing.image, topic, wanted.index, rack));
            Ok((partition.clone(), preferred))
        });
        let (partition, preferred, error) = match found {
            Ok((partition, preferred)) => (Some(partition), preferred, None),
            Err(error) => (None, None, Some(error)),
        };
        Slot {
            partition,
            next: wanted.terms.from,
            max_bytes: usize::try_from(wanted.terms.max_bytes).unwrap_or(0),
            wanted,
            read_committed: *read_committed,
            view: PartitionView::default(),
            batches: Vec::new(),
            bytes: 0,
            error,
            of_followers: *of_followers,
            preferred,
        }
    }

    /// What the client is told beside records, and whether that may wait.
    pub fn outcome(&self) -> Outcome {
        let told = match self.error {
            None => Told { high_watermark: self.view.high_watermark, log_start: self.view.log_start },
            Some(_) => Told::NOTHING,
        };
        let is_urgent = self.error.is_some() || self.preferred.is_some();
        Outcome { told, has_records: !self.batches.is_empty(), is_urgent }
    }

    /// There is no such topic here, or no such partition of it, as far as is known.
    fn is_unknown(&self) -> bool {
        let code = self.error.as_ref().map(|error| error.code);
        matches!(code, Some(ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId))
    }

    /// What a reader may see of a view, and whether it may.
    fn visible(&self, view: &PartitionView) -> (Offset, Offset, bool, LeaderEpoch) {
        let end = if self.read_committed { view.last_stable } else { view.high_watermark };
        (view.log_start, end, self.serves(view), view.leader_epoch)
    }

    fn serves(&self, view: &PartitionView) -> bool {
        view.leading || (self.of_followers && view.following)
    }

    /// Whether reading could give anything but what has been gathered.
    fn is_beyond(&self, view: &PartitionView) -> bool {
        let (_, end, serves, epoch) = self.visible(view);
        end != self.next || !serves || self.wanted.terms.leader_epoch.is_some_and(|current| current != epoch)
    }

    /// Whether the partition looks other than it did when it was last read.
    fn has_changed(&self, view: &PartitionView) -> bool {
        self.visible(view) != self.visible(&self.view)
    }

    pub fn has_news(&self) -> bool {
        self.error.is_none()
            && self.partition.as_ref().is_some_and(|one| self.has_changed(&one.views().get()))
    }

    /// Looks at the partition: how many bytes a read could give, of at most `room`.
    fn wanted(&mut self, room: usize) -> usize {
        let Some(partition) = &self.partition else { return 0 };
        self.view = *partition.views().get();
        if self.wanted.terms.leader_epoch.is_some_and(|current| current != self.view.leader_epoch) {
            // It is told of that, and not sent elsewhere.
            self.preferred = None;
        }
        if self.preferred.is_some() {
            return 0;
        }
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
            current_epoch: self.wanted.terms.leader_epoch,
        };
        let outcome = partition.read(request, deadline).await?;
        if !self.serves(&outcome.view) {
            return Err(ReadError::NotLeader);
        }
        self.view = outcome.view;
        self.bytes += outcome.batches.iter().map(Bytes::len).sum::<usize>();
        if let Some(next) = outcome.batches.last().and_then(|last| offset_after(last)) {
            self.next = next;
        }
        self.batches.extend(outcome.batches);
        Ok(())
    }
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
    pub async fn new(
        context: &Context<B>,
        wanted: Vec<Wanted>,
        reader: &Reader,
        max_bytes: usize,
    ) -> Fetch<B> {
        let routing = RoutingView::now(context);
        let mut slots: Vec<Slot<B>> = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            if slots.len() % LOOKED_UP_AT_ONCE == LOOKED_UP_AT_ONCE - 1 {
                give_way().await;
            }
            slots.push(Slot::new(&routing, wanted, reader));
        }
        // As with Kafka, what is not known keeps nobody from waiting for the rest.
        let known = || slots.iter().filter(|slot| !slot.is_unknown());
        let at_once = known().any(|slot| slot.outcome().is_urgent) || known().next().is_none();
        Fetch {
            slots,
            read_committed: reader.read_committed,
            bytes: 0,
            max_bytes,
            at_once,
            room: None,
            short: false,
            has_let_go: false,
        }
    }

    /// What it takes in memory while it waits.
    pub fn waiting_bytes(&self) -> usize {
        waiting_bytes::<B>(self.slots.len())
    }

    pub fn is_enough(&self, min_bytes: usize) -> bool {
        self.at_once
            || self.short
            || self.bytes >= min_bytes
            || self.bytes >= self.max_bytes
            || self.slots.is_empty()
    }

    pub async fn gather(&mut self, context: &Context<B>, of_interest: impl Fn(&Slot<B>) -> bool) {
        let (backend, budget) = (&context.backend, &context.budget);
        let mut working = Some(budget.requests.take(RequestClass::Essential, 1).await);
        let began = backend.now();
        let deadline = Deadline::At(began + DISK_DEADLINE);
        let least = context.metadata.config().topics.max_batch_bytes;
        for slot in &mut self.slots {
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
            if more.is_none() && gathered == 0 && !self.at_once {
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
                self.at_once = true;
                // What was read before the error is good; the client meets the error next time.
                if slot.batches.is_empty() {
                    slot.error = Some(error_codes::read(&error).into());
                }
            }
        }
        drop(working);
    }

    /// Keeps the count of what has been gathered and nothing of it: who waits holds no answer.
    pub fn let_go(&mut self) {
        self.has_let_go |= self.bytes > 0;
        self.room = None;
        for slot in &mut self.slots {
            slot.batches = Vec::new();
        }
    }

    /// What was counted is to be gathered once more, for the answer.
    pub fn begin_again(&mut self) {
        self.let_go();
        self.bytes = 0;
        for slot in &mut self.slots {
            slot.bytes = 0;
            slot.next = slot.wanted.terms.from;
        }
    }

    /// Waits until a partition has more, leads no longer, or is under a new epoch; false when time is up,
    /// the node stops, the connection is in a hurry, or a later request of its session has come.
    pub async fn until_more(
        &self,
        context: &Context<B>,
        until: Moment,
        control: &Control,
        mut overtaken: Option<Overtaken>,
    ) -> bool {
        let backend = &context.backend;
        let bounded = Deadline::Unbounded("the fetch that waits has a deadline");
        let mut stopping = pin!(context.stopping.until(backend, bounded, |stopping| *stopping));
        let waiting: Vec<&Slot<B>> = self.slots.iter().filter(|slot| slot.bytes < slot.max_bytes).collect();
        let mut watchers: Vec<Option<Watcher<PartitionView>>> =
            waiting.iter().map(|slot| Some(slot.partition.as_ref()?.views().watcher())).collect();
        let any = poll_fn(|cx| {
            if control.is_hurried() || stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            if overtaken.as_mut().is_some_and(|overtaken| overtaken.watch(cx.waker())) {
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
}
