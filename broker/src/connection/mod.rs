//! One connection: bytes in, requests started in the order they came, answers out in the same order.
//!
//! One task does both directions, and owns everything here. A request is *started* (a produce takes its
//! place in its partitions' lines) as soon as it is read, while earlier ones still wait for their answers;
//! answers are *finished* one after the other and all that are ready leave in one write. Only the
//! first unanswered request is polled, so one connection holds at most one fetched response in memory.
//!
//! What a client does not read stays in its own buffer: above a bound nothing more is finished, above a
//! number of started requests nothing more is read. Nobody else notices.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use io_backend::network::Stream;
use io_backend::registry::InFlight as Waiting;
use io_backend::{Backend, Moment, WaitKind};
use tokio::io::{AsyncReadExt, AsyncWrite as _};
use tracing::{debug, error, warn};

use crate::budget::{Class, Permit, Place, Share};
use crate::dispatch::{self, Finished, Started};
use crate::limits::{READ_BUFFER_BYTES, WRITE_BUFFER_BYTES, WRITE_DEADLINE};
use crate::server::{Closing, Control, Front};
use crate::wire::outgoing::Outgoing;
use crate::wire::{self, Incoming, WireError};

pub mod frame;

use frame::{FrameError, Next, SIZE_BYTES};

/// A buffer that has grown beyond this is given back once it is empty.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;
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
    #[error("the client has read nothing for {WRITE_DEADLINE:?} although an answer waits")]
    SlowReader,
    #[error("the client has sent nothing for {WRITE_DEADLINE:?} in the middle of a request")]
    SlowRequest,
    /// Kafka's way to say that an unacknowledged produce went wrong.
    #[error("{0}")]
    Unanswerable(String),
    #[error("the node stops")]
    NodeStops,
}

/// Serves one client until it leaves, misbehaves, or the node stops.
pub async fn run<B: Backend>(front: Arc<Front<B>>, stream: Stream<B>, peer: Arc<str>, control: Arc<Control>) {
    let end = {
        let mut connection = Connection::new(&front, stream, peer.clone(), control);
        let mut starting = pin!(nothing_yet(|(incoming, at)| dispatch::start(&front, incoming, at)));
        let mut finishing = pin!(nothing_yet(|(started, permit)| dispatch::finish(&front, started, permit)));
        poll_fn(|cx| {
            let polled = connection.poll(
                cx,
                starting.as_mut(),
                finishing.as_mut(),
                |incoming, at| dispatch::start(&front, incoming, at),
                |started, permit| dispatch::finish(&front, started, permit),
            );
            connection.note_wait(polled.is_pending() && starting.is_none() && finishing.is_none());
            polled
        })
        .await
    };
    match end {
        End::ClosedByClient | End::NodeStops | End::Truncated | End::Network(_) => {
            debug!(%peer, "closed: {end}")
        }
        end => warn!(%peer, "closed: {end}"),
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
    /// Room for the request that is being read, or waiting for it.
    bytes: Option<Share>,
    bytes_place: Place,
    request_place: Place,
    /// Started and not finished, in order.
    queue: VecDeque<(Started<B>, Permit)>,
    starting_permit: Option<Permit>,
    out: Outgoing,
    unflushed: bool,
    /// Set: nothing more is read, and this is why it is over once all is answered.
    ending: Option<End>,
    /// It is for the client to go on.
    awaits_bytes: bool,
    read_at: Moment,
    wrote_at: Moment,
    /// Runs while a request is incomplete or an answer unwritten.
    patience: Option<Pin<Box<B::Timer>>>,
    waiting: Option<Waiting>,
}

impl<'a, B: Backend> Connection<'a, B> {
    fn new(front: &'a Arc<Front<B>>, stream: Stream<B>, peer: Arc<str>, control: Arc<Control>) -> Self {
        Connection {
            front,
            stream,
            peer,
            control,
            input: BytesMut::with_capacity(READ_BUFFER_BYTES),
            bytes: None,
            bytes_place: Place::default(),
            request_place: Place::default(),
            queue: VecDeque::new(),
            starting_permit: None,
            out: Outgoing::default(),
            unflushed: false,
            ending: None,
            awaits_bytes: false,
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
        finish: impl Fn(Started<B>, Permit) -> F,
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
            Closing::Now => return Poll::Ready(End::NodeStops),
        }
        self.awaits_bytes = false;
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;

            while self.out.len() < WRITE_BUFFER_BYTES {
                if finishing.is_none() {
                    let Some((started, permit)) = self.queue.pop_front() else { break };
                    finishing.set(Some(finish(started, permit)));
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
                if let Some(permit) = self.starting_permit.take() {
                    self.queue.push_back((started, permit));
                }
                moved = true;
            }

            let queued = self.queue.len() + usize::from(finishing.is_some());
            if self.ending.is_none()
                && starting.is_none()
                && queued < self.front.context.config.server.responses_queued
            {
                match self.poll_request(cx) {
                    Poll::Ready(Ok((incoming, permit))) => {
                        self.starting_permit = Some(permit);
                        starting.set(Some(start(incoming, self.front.context.backend.now())));
                        // It may be done at once; then its answer may share a write.
                        continue;
                    }
                    Poll::Ready(Err(end)) => {
                        self.ending = Some(end);
                        moved = true;
                    }
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
                return self.poll_patience(cx);
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

    /// The next request, and its share of what the node may have in flight.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Incoming, Permit), End>> {
        loop {
            let next = frame::next(&self.input, self.front.context.config.server.request_bytes)?;
            match next {
                Next::Frame(size) => {
                    if self.bytes.is_none() {
                        self.bytes = Some(std::task::ready!(self.poll_bytes(size, cx)));
                    }
                    let request = std::task::ready!(self.poll_enter(cx));
                    let Some(bytes) = self.bytes.take() else { continue };
                    let incoming = wire::decode(self.take_frame(size).freeze())?;
                    return Poll::Ready(Ok((incoming, Permit { request, bytes })));
                }
                // A small request is let in when it is complete, so that clients which stop in the middle of
                // one take nobody's place; a large one before there is memory for it.
                Next::Partial(size) if size > READ_BUFFER_BYTES && self.bytes.is_none() => {
                    self.bytes = Some(std::task::ready!(self.poll_bytes(size, cx)));
                }
                Next::Partial(_) | Next::Size => {
                    std::task::ready!(self.poll_read(cx, next))?;
                }
            }
        }
    }

    fn poll_bytes(&mut self, size: usize, cx: &Context<'_>) -> Poll<Share> {
        let class = self.class();
        self.front.budget.request_bytes.poll_take(&mut self.bytes_place, class, size, cx)
    }

    fn poll_enter(&mut self, cx: &Context<'_>) -> Poll<Share> {
        let class = self.class();
        self.front.budget.requests.poll_take(&mut self.request_place, class, 1, cx)
    }

    /// Produces wait for the disk: whoever asks something else is answered while they stand still.
    fn class(&self) -> Class {
        if frame::is_produce(&self.input) { Class::Common } else { Class::Essential }
    }

    fn take_frame(&mut self, size: usize) -> BytesMut {
        let mut framed = self.input.split_to(SIZE_BYTES + size);
        if size > BUFFER_BYTES_KEPT {
            // The rest begins a buffer of its own: the large one goes when the request is done.
            let mut fresh = BytesMut::with_capacity(READ_BUFFER_BYTES.max(self.input.len()));
            fresh.extend_from_slice(&self.input);
            self.input = fresh;
        }
        framed.split_off(SIZE_BYTES)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, next: Next) -> Poll<Result<(), End>> {
        let spare = self.input.capacity() - self.input.len();
        let wanted = frame::room_wanted(next, self.input.len());
        if spare < wanted {
            self.input.reserve(wanted.max(READ_BUFFER_BYTES.saturating_sub(self.input.len())));
        }
        let read = {
            let reading = pin!(self.stream.read_buf(&mut self.input));
            let polled = reading.poll(cx);
            self.awaits_bytes = polled.is_pending();
            std::task::ready!(polled)
        };
        self.waiting = None;
        match read {
            Ok(0) if self.input.is_empty() => Poll::Ready(Err(End::ClosedByClient)),
            Ok(0) => Poll::Ready(Err(End::Truncated)),
            Ok(_) => {
                self.read_at = self.front.context.backend.now();
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(End::Network(error))),
        }
    }

    fn put(&mut self, finished: Finished) {
        let response = match finished {
            Finished::Answer(response) => response,
            Finished::Silent => return,
            Finished::Close(why) => {
                self.queue.clear();
                self.ending = Some(End::Unanswerable(why));
                return;
            }
        };
        if self.out.is_empty() {
            self.wrote_at = self.front.context.backend.now();
        }
        if let Err(what) = wire::encode(&response, &mut self.out) {
            error!(peer = %self.peer, head = ?response.head, "a response could not be encoded: {what}");
            // Two fields of fixed size: this cannot fail.
            let _ = wire::encode(&wire::internal_error(response.head), &mut self.out);
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

    /// Ends the connection when the other side stands still in the middle of something. Called when there is
    /// nothing else to do.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let unread = (!self.out.is_empty() || self.unflushed).then_some(self.wrote_at);
            // While requests are not read, for their number or the node's load, the client cannot help it.
            let incomplete = !self.input.is_empty() && self.ending.is_none() && unread.is_none();
            let backend = &self.front.context.backend;
            if incomplete && !self.awaits_bytes {
                self.read_at = backend.now();
            }
            let Some(since) = unread.or(incomplete.then_some(self.read_at)) else {
                self.patience = None;
                return Poll::Pending;
            };
            let until = since + WRITE_DEADLINE;
            if backend.now() >= until {
                return Poll::Ready(if unread.is_some() { End::SlowReader } else { End::SlowRequest });
            }
            let timer = self.patience.get_or_insert_with(|| Box::pin(backend.timer(until)));
            std::task::ready!(timer.as_mut().poll(cx));
            // It was made for an earlier state of affairs, perhaps.
            self.patience = None;
        }
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
