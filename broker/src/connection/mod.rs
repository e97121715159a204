//! One connection: bytes in, requests started in the order they came, answers out in the same order.
//!
//! One task does both directions, and owns everything here. A request is *started* (a produce takes its
//! place in its partitions' lines) as soon as it is read, while earlier ones still wait for their answers;
//! answers are *finished* one after the other and all that are ready leave in one write. Only the
//! first unanswered request is polled, so one connection holds at most one fetched response in memory, and
//! what stands behind it holds no request's place in the node.
//!
//! What a client does not read stays in its own buffer: above a bound nothing more is finished, above a
//! number of started requests nothing more is read. Nobody else notices.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use io_backend::network::Stream;
use io_backend::registry::InFlight as Waiting;
use io_backend::{Backend, Moment, WaitKind};
use tokio::io::{AsyncReadExt, AsyncWrite as _};
use tracing::{debug, error, warn};

use crate::budget::{Class, Held, Holds, Place, Share};
use crate::dispatch::{self, Finished, Started};
use crate::limits::{
    READ_BUFFER_BYTES, ROOM_PATIENCE, SMALL_REQUEST_BYTES, WRITE_BUFFER_BYTES, WRITE_DEADLINE,
};
use crate::server::{Closing, Control, Front};
use crate::wire::outgoing::Outgoing;
use crate::wire::{self, Incoming, WireError};

pub mod frame;

use frame::{FrameError, Next, SIZE_BYTES};

/// So many connections that are closed for their clients' doing have a line each, then only some.
const LINES_AT_FIRST: u64 = 100;
/// Rounds without waiting, after which other tasks get their turn.
const ROUNDS_MAX: usize = 64;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client closed it")]
    ClosedByClient,
    #[error("the client went away in the middle of a request")]
    Truncated,
    #[error("the network: {0}")]
    Network(io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Request(#[from] WireError),
    #[error(
        "the client has read nothing for {WRITE_DEADLINE:?} although an answer waits, or too little for too long"
    )]
    SlowReader,
    #[error(
        "the client has sent nothing for {WRITE_DEADLINE:?} in the middle of a request, or too little for too long"
    )]
    SlowRequest,
    #[error("it got no further and held memory that others wait for (memory.bytes)")]
    ForRoom,
    #[error("nothing was asked on it, and somebody else needed its place (server.connections)")]
    ForNewcomer,
    #[error("nothing was asked on it for {0:?} (server.idle_timeout)")]
    Idle(Duration),
    /// Kafka's way to say that an unacknowledged produce went wrong.
    #[error("{0}")]
    Unanswerable(String),
    #[error("the node stops")]
    NodeStops,
}

/// Serves one client until it leaves, misbehaves, or the node stops.
pub async fn run<B: Backend>(front: Arc<Front<B>>, stream: Stream<B>, peer: Arc<str>, control: Arc<Control>) {
    let end = {
        let mut connection = Connection::new(&front, stream, peer.clone(), control.clone());
        let own = control.clone();
        let start = |incoming, at| dispatch::start(&front, incoming, at, &own);
        let finish = |started, held| dispatch::finish(&front, started, held, &own);
        let mut starting = pin!(nothing_yet(|(incoming, at)| start(incoming, at)));
        let mut finishing = pin!(nothing_yet(|(started, held)| finish(started, held)));
        poll_fn(|cx| {
            let polled = connection.poll(cx, starting.as_mut(), finishing.as_mut(), start, finish);
            connection.note_wait(polled.is_pending() && starting.is_none() && finishing.is_none());
            polled
        })
        .await
    };
    match end {
        End::ClosedByClient | End::NodeStops | End::Truncated | End::Network(_) | End::Idle(_) => {
            debug!(%peer, "closed: {end}")
        }
        // A flood of bad clients must not become a flood of lines.
        end => match front.closed.fetch_add(1, Ordering::Relaxed) + 1 {
            closed if closed <= LINES_AT_FIRST || closed.is_power_of_two() => {
                warn!(%peer, closed, "closed: {end}")
            }
            _ => debug!(%peer, "closed: {end}"),
        },
    }
}

/// An empty slot for the futures that `make` makes, so that none of them is boxed.
fn nothing_yet<A, F>(make: impl FnOnce(A) -> F) -> Option<F> {
    let _ = make;
    None
}

struct Connection<'a, B: Backend> {
    front: &'a Arc<Front<B>>,
    stream: Stream<B>,
    peer: Arc<str>,
    control: Arc<Control>,
    input: BytesMut,
    /// Room for what has come of the request that is being read, or waiting for more of it.
    bytes: Option<Share>,
    bytes_place: Place,
    /// Since when it waits for room.
    waits_for_room: Option<Moment>,
    /// Its number among those whose large requests are not whole.
    arriving: Option<u64>,
    /// How long the client has been waited for in this request, before `awaited`.
    waited: Duration,
    awaited: Option<Moment>,
    request_place: Place,
    /// Started and not finished, in order.
    queue: VecDeque<(Started<B>, Held)>,
    starting_held: Held,
    out: Outgoing,
    /// What is charged for it.
    out_room: Option<Share>,
    /// Since when there has been something in it, and how much of that was written.
    out_since: Moment,
    out_written: usize,
    /// Its number among those whose large answers are not written.
    unread: Option<u64>,
    unflushed: bool,
    /// Set: nothing more is read, and this is why it is over once all is answered.
    ending: Option<End>,
    /// The client has closed its side; what is in `input` came before.
    closed: bool,
    /// It is for the client to go on.
    awaits_bytes: bool,
    /// When the last request came, or the connection.
    asked_at: Moment,
    read_at: Moment,
    wrote_at: Moment,
    /// Runs while a request is incomplete or an answer unwritten.
    patience: Option<(Moment, Pin<Box<B::Timer>>)>,
    waiting: Option<Waiting>,
}

impl<'a, B: Backend> Connection<'a, B> {
    fn new(front: &'a Arc<Front<B>>, stream: Stream<B>, peer: Arc<str>, control: Arc<Control>) -> Self {
        Connection {
            front,
            stream,
            peer,
            control,
            input: BytesMut::new(),
            bytes: None,
            bytes_place: Place::default(),
            waits_for_room: None,
            arriving: None,
            waited: Duration::ZERO,
            awaited: None,
            request_place: Place::default(),
            queue: VecDeque::new(),
            starting_held: Held::default(),
            out: Outgoing::default(),
            out_room: None,
            out_since: Moment::ZERO,
            out_written: 0,
            unread: None,
            unflushed: false,
            ending: None,
            closed: false,
            awaits_bytes: false,
            asked_at: front.context.backend.now(),
            read_at: Moment::ZERO,
            wrote_at: Moment::ZERO,
            patience: None,
            waiting: None,
        }
    }

    fn poll<S, F>(
        &mut self,
        cx: &mut Context<'_>,
        mut starting: Pin<&mut Option<S>>,
        mut finishing: Pin<&mut Option<F>>,
        start: impl Fn(Incoming, Moment) -> S,
        finish: impl Fn(Started<B>, Held) -> F,
    ) -> Poll<End>
    where
        S: Future<Output = Started<B>>,
        F: Future<Output = Finished>,
    {
        match self.control.closing(cx.waker()) {
            Closing::No => {}
            Closing::WhenAnswered => {
                self.ending.get_or_insert(End::NodeStops);
            }
            Closing::ForRoom => return Poll::Ready(End::ForRoom),
            Closing::ForNewcomer => return Poll::Ready(End::ForNewcomer),
            Closing::Now => return Poll::Ready(End::NodeStops),
        }
        if let Some(why) = self.control.unacknowledged_failure() {
            return Poll::Ready(End::Unanswerable(format!("a produce with acks=0 failed: {why}")));
        }
        if let Some(since) = self.awaited.take() {
            self.waited += self.front.context.backend.now().since(since);
        }
        self.awaits_bytes = false;
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;

            while self.out.len() < WRITE_BUFFER_BYTES {
                if finishing.is_none() {
                    let Some((started, held)) = self.queue.pop_front() else { break };
                    self.control.hurry(self.closed || self.ending.is_some() || self.must_hurry());
                    finishing.set(Some(finish(started, held)));
                }
                let Some(first) = finishing.as_mut().as_pin_mut() else { break };
                let Poll::Ready(finished) = first.poll(cx) else { break };
                finishing.set(None);
                self.put(finished);
                moved = true;
            }

            if let Some(request) = starting.as_mut().as_pin_mut()
                && let Poll::Ready(started) = request.poll(cx)
            {
                starting.set(None);
                self.enqueue(started, finishing.is_some());
                moved = true;
            }

            let queued = self.queue.len() + usize::from(finishing.is_some());
            if self.ending.is_none()
                && starting.is_none()
                && queued < self.front.context.config.server.responses_queued
            {
                match self.poll_request(cx) {
                    Poll::Ready(Ok((incoming, held))) => {
                        self.starting_held = held;
                        self.asked_at = self.front.context.backend.now();
                        self.control.asked();
                        starting.set(Some(start(incoming, self.asked_at)));
                        // It may be done at once; then its answer may share a write.
                        continue;
                    }
                    Poll::Ready(Err(end)) => {
                        self.ending = Some(end);
                        // Nobody is there, or nobody to be trusted, for whom to wait for anything.
                        self.control.hurry(true);
                        moved = true;
                    }
                    Poll::Pending => {}
                }
            }
            if self.ending.is_none() && !self.awaits_bytes {
                match self.poll_look_ahead(cx) {
                    Poll::Ready(Ok(())) => moved = true,
                    // Nobody is left to be answered, and what has been started in a partition goes on.
                    Poll::Ready(Err(error)) => return Poll::Ready(End::Network(error)),
                    Poll::Pending => {}
                }
            }

            match self.poll_write(cx) {
                Poll::Ready(Ok(wrote)) => moved |= wrote,
                Poll::Ready(Err(error)) => return Poll::Ready(End::Network(error)),
                Poll::Pending => {}
            }

            if self.is_over(starting.is_none() && finishing.is_none())
                && let Some(end) = self.ending.take()
            {
                return Poll::Ready(end);
            }
            if !moved {
                let idle = starting.is_none() && finishing.is_none() && self.queue.is_empty();
                return self.poll_patience(idle, cx);
            }
        }
        // Still busy: others get their turn, and the client what is ready.
        cx.waker().wake_by_ref();
        match self.poll_write(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(End::Network(error)),
            _ => Poll::Pending,
        }
    }

    fn is_over(&self, idle: bool) -> bool {
        self.ending.is_some() && idle && self.queue.is_empty() && self.out.is_empty() && !self.unflushed
    }

    /// The next request, with its bytes charged. Others than produces are counted when they are worked on.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Incoming, Held), End>> {
        loop {
            let next = frame::next(&self.input, self.front.context.config.server.request_bytes)?;
            match next {
                Next::Frame(size) => {
                    let amount = match frame::is_produce(&self.input) {
                        true => SIZE_BYTES + size,
                        false => {
                            crate::budget::decoded_bytes(size, self.front.context.config.server.request_bytes)
                        }
                    };
                    std::task::ready!(self.poll_bytes(size, amount, cx));
                    self.leave_arriving();
                    let request = std::task::ready!(self.poll_enter(cx));
                    let mut held = Held { request, bytes: self.bytes.take(), waiting: None };
                    let produce = frame::is_produce(&self.input);
                    let mut frame = self.take_frame(size).freeze();
                    if let Some(share) = held.bytes.take_if(|_| produce) {
                        // Its batches hold what they take until the partitions have copied them, whatever
                        // becomes of this connection.
                        frame = crate::budget::charged(frame, share);
                    }
                    return Poll::Ready(Ok((wire::decode(frame)?, held)));
                }
                // What fits the read buffer is charged when it is whole; of what is larger, what comes as it comes.
                // What is only announced takes nobody's place.
                Next::Partial(size) => {
                    let mut room = READ_BUFFER_BYTES;
                    if size > READ_BUFFER_BYTES {
                        room = frame::room_wanted(size, self.input.len());
                        std::task::ready!(self.poll_bytes(size, self.input.len() + room, cx));
                    }
                    std::task::ready!(self.poll_read(cx, room))?;
                }
                Next::Size => std::task::ready!(self.poll_read(cx, READ_BUFFER_BYTES))?,
            }
        }
    }

    /// Brings what is charged for a request of `size` to `amount`.
    fn poll_bytes(&mut self, size: usize, amount: usize, cx: &Context<'_>) -> Poll<()> {
        let charged = self.bytes.as_ref().map_or(0, Share::amount);
        if charged < amount {
            let class = if size > SMALL_REQUEST_BYTES { Class::Large } else { self.class() };
            let account = &self.front.budget.request_bytes;
            let Poll::Ready(more) = account.poll_take(&mut self.bytes_place, class, amount - charged, cx)
            else {
                return self.wait_for_room();
            };
            self.waits_for_room = None;
            match &mut self.bytes {
                Some(bytes) => bytes.merge(more),
                None => self.bytes = Some(more),
            }
        }
        if size > SMALL_REQUEST_BYTES {
            self.note_arriving(self.read_at, false);
        }
        Poll::Ready(())
    }

    /// There is no room. Who holds some and gets no further is cut off for it, at once or after a while.
    fn wait_for_room(&mut self) -> Poll<()> {
        let now = self.front.context.backend.now();
        let since = *self.waits_for_room.get_or_insert(now);
        if self.bytes.is_some() {
            self.note_arriving(since, true);
        }
        let long = now.since(since) >= ROOM_PATIENCE;
        self.front.budget.arriving.make_room(now, long);
        Poll::Pending
    }

    fn note_arriving(&mut self, since: Moment, waits: bool) {
        let holds = Holds { bytes: self.bytes.as_ref().map_or(0, Share::amount), since, waits };
        self.arriving = Some(self.front.budget.arriving.note(self.arriving, &self.control, holds));
    }

    fn leave_arriving(&mut self) {
        if let Some(number) = self.arriving.take() {
            self.front.budget.arriving.leave(number);
        }
    }

    /// A produce counts among the requests from its start on, everything else when it is worked on.
    fn poll_enter(&mut self, cx: &Context<'_>) -> Poll<Option<Share>> {
        if !frame::is_produce(&self.input) {
            return Poll::Ready(None);
        }
        let class = self.class();
        self.front.budget.requests.poll_take(&mut self.request_place, class, 1, cx).map(Some)
    }

    /// Produces wait for the disk: whoever asks something else is answered while they stand still.
    fn class(&self) -> Class {
        if frame::is_produce(&self.input) { Class::Common } else { Class::Essential }
    }

    fn take_frame(&mut self, size: usize) -> BytesMut {
        self.waited = Duration::ZERO;
        let mut framed = self.input.split_to(SIZE_BYTES + size);
        if size > READ_BUFFER_BYTES {
            // The rest begins a buffer of its own: the large one goes when the request is done.
            self.input = BytesMut::from(&self.input[..]);
        }
        framed.split_off(SIZE_BYTES)
    }

    /// Reads at most `room` bytes, which is what is charged or what a connection has anyway.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Result<(), End>> {
        self.input.reserve(room);
        if self.closed {
            return Poll::Ready(Err(self.end_of_stream()));
        }
        let read = {
            let mut into = (&mut self.input).limit(room);
            let reading = pin!(self.stream.read_buf(&mut into));
            let polled = reading.poll(cx);
            self.awaits_bytes = polled.is_pending();
            if polled.is_pending() && self.input.is_empty() {
                // An idle connection keeps no buffer.
                self.input = BytesMut::new();
            }
            std::task::ready!(polled)
        };
        self.waiting = None;
        match read {
            Ok(0) => Poll::Ready(Err(self.end_of_stream())),
            Ok(_) => {
                self.read_at = self.front.context.backend.now();
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(End::Network(error))),
        }
    }

    fn end_of_stream(&self) -> End {
        if self.input.is_empty() { End::ClosedByClient } else { End::Truncated }
    }

    /// While no request is taken: notices that the client is gone. What it has asked for is then answered
    /// without waiting for anything, if only into a connection that takes it no more.
    fn poll_look_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed || self.input.len() >= READ_BUFFER_BYTES {
            // More stands behind than is looked at: its end would not be seen.
            self.control.hurry(true);
            return Poll::Pending;
        }
        self.input.reserve(READ_BUFFER_BYTES - self.input.len());
        let read = {
            let reading = pin!(self.stream.read_buf(&mut self.input));
            std::task::ready!(reading.poll(cx))?
        };
        if read == 0 {
            self.closed = true;
        }
        if self.closed || self.input.len() >= READ_BUFFER_BYTES {
            self.control.hurry(true);
        }
        Poll::Ready(Ok(()))
    }

    /// A request that was started stands behind others, or is the next to be finished.
    fn enqueue(&mut self, started: Started<B>, others_first: bool) {
        let mut held = std::mem::take(&mut self.starting_held);
        if others_first || !self.queue.is_empty() {
            let produce = started.is_produce();
            let account = &self.front.budget.waiting_bytes;
            match account.try_take(Class::Essential, held.waiting_amount(produce)) {
                Some(waiting) => {
                    held.waiting = Some(waiting);
                    held.request = None;
                    if !produce {
                        held.bytes = None;
                    }
                }
                // It keeps what it holds, so whoever is before it must not wait for long.
                None => self.control.hurry(true),
            }
        }
        self.queue.push_back((started, held));
    }

    /// Whether what stands in the queue holds more than it may for long.
    fn must_hurry(&self) -> bool {
        self.queue.iter().any(|(_, held)| held.waiting.is_none())
    }

    fn put(&mut self, finished: Finished) {
        let (response, room) = match finished {
            Finished::Answer(response, room) => (response, room),
            Finished::Silent => return,
            Finished::Close(why) => {
                self.queue.clear();
                self.ending = Some(End::Unanswerable(why));
                return;
            }
        };
        if self.out.is_empty() {
            self.wrote_at = self.front.context.backend.now();
            self.out_since = self.wrote_at;
            self.out_written = 0;
        }
        match (&mut self.out_room, room) {
            (Some(all), Some(room)) => all.merge(room),
            (none, Some(room)) => *none = Some(room),
            (_, None) => {}
        }
        if let Err(what) = wire::encode(&response, &mut self.out) {
            error!(peer = %self.peer, head = ?response.head, "a response could not be encoded: {what}");
            // Two fields of fixed size: this cannot fail.
            let _ = wire::encode(&wire::internal_error(response.head), &mut self.out);
        }
        self.charge_out();
    }

    /// Brings what is charged for answers to what is to be written; a few small ones are not charged.
    fn charge_out(&mut self) {
        let bytes = self.out.len();
        let charged = if bytes > READ_BUFFER_BYTES { bytes } else { 0 };
        match &mut self.out_room {
            Some(room) => room.set(charged),
            None if charged > 0 => self.out_room = Some(self.front.budget.answer_bytes.take_anyway(charged)),
            None => {}
        }
        if charged == 0 {
            self.out_room = None;
        }
        if bytes > WRITE_BUFFER_BYTES {
            let holds = Holds { bytes, since: self.wrote_at, waits: false };
            self.unread = Some(self.front.budget.unread.note(self.unread, &self.control, holds));
        } else if let Some(number) = self.unread.take() {
            self.front.budget.unread.leave(number);
        }
    }

    /// Writes what there is; whether anything was written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let before = self.out.len();
        while !self.out.is_empty() {
            match self.out.poll_write(&mut self.stream, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.unflushed = true;
                    self.wrote_at = self.front.context.backend.now();
                    self.out_written += written;
                    self.charge_out();
                    self.front.context.metrics.bytes_out.inc_by(written as u64);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if self.out.len() < before => return Poll::Ready(Ok(true)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.unflushed {
            std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
            return Poll::Ready(Ok(true));
        }
        Poll::Ready(Ok(false))
    }

    /// Ends the connection when the other side stands still in the middle of something, or is too slow. Called when
    /// there is nothing else to do.
    fn poll_patience(&mut self, idle: bool, cx: &mut Context<'_>) -> Poll<End> {
        if idle && self.out.is_empty() {
            self.control.idle(self.asked_at.max(self.wrote_at));
        }
        loop {
            // A timer that is there already may stay: what it finds when it wakes is as it is then.
            let Some((until, end)) = self.patience_ends(idle) else { return Poll::Pending };
            let backend = &self.front.context.backend;
            if backend.now() >= until {
                match end {
                    Some(end) => return Poll::Ready(end),
                    // Its turn in the line has not come: those who hold the room are looked at again.
                    None => cx.waker().wake_by_ref(),
                }
                self.patience = None;
                return Poll::Pending;
            }
            // One that was made for an earlier state of affairs is early enough; what it finds then is as it is.
            let (_, timer) = match self.patience.take() {
                Some(made) if made.0 <= until => self.patience.insert(made),
                _ => self.patience.insert((until, Box::pin(backend.timer(until)))),
            };
            std::task::ready!(timer.as_mut().poll(cx));
            self.patience = None;
        }
    }

    /// When patience ends, and what happens then; without an end for the connection, it looks for room again.
    fn patience_ends(&mut self, idle: bool) -> Option<(Moment, Option<End>)> {
        if !self.out.is_empty() || self.unflushed {
            let mut until = self.wrote_at + WRITE_DEADLINE;
            if self.out.len() > WRITE_BUFFER_BYTES {
                until = until.min(self.out_since + frame::time_for(self.out_written));
            }
            return Some((until, Some(End::SlowReader)));
        }
        if self.ending.is_some() {
            return None;
        }
        if self.input.is_empty() {
            let timeout = self.front.context.config.server.idle_timeout;
            let since = self.asked_at.max(self.wrote_at);
            return idle.then_some((since + timeout, Some(End::Idle(timeout))));
        }
        let now = self.front.context.backend.now();
        if !self.awaits_bytes {
            // While requests are not read, for their number or the node's load, the client cannot help it.
            self.read_at = now;
            let since = self.waits_for_room?;
            let tries = now.since(since).as_millis() / ROOM_PATIENCE.as_millis();
            return Some((since + ROOM_PATIENCE * (tries as u32 + 1), None));
        }
        self.awaited.get_or_insert(now);
        let left = frame::time_for(self.input.len()).saturating_sub(self.waited);
        Some(((self.read_at + WRITE_DEADLINE).min(now + left), Some(End::SlowRequest)))
    }

    /// Keeps the registry's entry of what this task itself waits for. Requests that are started or being
    /// finished have entries of their own.
    fn note_wait(&mut self, waits: bool) {
        if !waits {
            self.waiting = None;
            return;
        }
        let (kind, what) = if !self.out.is_empty() {
            (WaitKind::NetworkWrite, "a response")
        } else {
            (WaitKind::NetworkRead, "a request")
        };
        if self.waiting.is_none() {
            let backend = &self.front.context.backend;
            let bounded = self.patience.is_some();
            let peer = self.peer.clone();
            let site = Location::caller();
            let waiting = backend.registry().wait_at(backend.now(), kind, what, peer, site, bounded);
            self.waiting = Some(waiting);
        }
    }
}

impl<B: Backend> Drop for Connection<'_, B> {
    fn drop(&mut self) {
        self.leave_arriving();
        if let Some(number) = self.unread.take() {
            self.front.budget.unread.leave(number);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
