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
use std::task::{self, Poll};
use std::time::Duration;

use bytes::BytesMut;
use io_backend::network::Unread;
use io_backend::registry::EntryGuard as Waiting;
use io_backend::{Backend, Moment, WaitKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{debug, warn};

use crate::api::Finished;
use crate::budget::{Held, RequestClass, Share, Waiter};
use crate::context::Context;
use crate::dispatch::{self, Received, Started};
use crate::limits::{WRITE_BUFFER_BYTES, WRITE_DEADLINE};
use crate::session::{Closing, Control, Session};
use crate::wire::WireError;
use crate::wire::outgoing::Outgoing;

mod arrivals;
pub mod frame;
mod timeouts;
mod reading;
mod writing;

use arrivals::Arrivals;
use frame::FrameError;

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

/// What a client is heard and answered on: the backend's stream, or what is put over it.
pub trait ClientStream: AsyncRead + AsyncWrite + Unread + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unread + Unpin + Send> ClientStream for S {}

/// Serves one client until it leaves, misbehaves, or the node stops.
pub async fn run<B: Backend, S: ClientStream>(context: Arc<Context<B>>, stream: S, session: Session) {
    let peer = session.peer.clone();
    let end = {
        let mut connection = Connection::new(&context, stream, session);
        let start = |received| dispatch::start(&context, received);
        let finish = |started, held| dispatch::finish(&context, started, held);
        let mut starting = pin!(nothing_yet(start));
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
        end => match context.lines.closed.next() {
            Some(closed) => warn!(%peer, closed, "closed: {end}"),
            None => debug!(%peer, "closed: {end}"),
        },
    }
}

/// An empty slot for the futures that `make` makes, so that none of them is boxed.
fn nothing_yet<A, F>(make: impl FnOnce(A) -> F) -> Option<F> {
    let _ = make;
    None
}

struct Connection<'a, B: Backend, S> {
    context: &'a Arc<Context<B>>,
    stream: S,
    /// As of the latest request.
    session: Arc<Session>,
    control: Arc<Control>,
    input: BytesMut,
    arrivals: Arrivals,
    /// Room for what has come of the request that is being read, or waiting for more of it.
    bytes: Option<Share>,
    bytes_waiter: Waiter,
    /// Since when it waits for room.
    waits_for_room: Option<Moment>,
    /// Its number among those whose large requests are not whole.
    arriving: Option<u64>,
    /// How long the client has been waited for in this request, before `awaited`.
    waited: Duration,
    awaited: Option<Moment>,
    request_waiter: Waiter,
    /// Started and not finished, in order.
    queue: VecDeque<(Started<B>, Held)>,
    /// As many requests as may be are started, and when they last began to be fewer again.
    queue_is_full: bool,
    queue_had_room: Moment,
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
    /// Until when no request is taken, because an answer said so (a quota was exceeded).
    muted: Option<(Moment, Pin<Box<B::Timer>>)>,
    /// Set: nothing more is read, and this is why it is over once all is answered.
    ending: Option<End>,
    /// The client has closed its side; what is in `input` came before.
    closed: bool,
    /// It is for the client to go on.
    awaits_bytes: bool,
    /// When the last request came, with its last byte, and was to be read; or the connection.
    asked_at: Moment,
    read_at: Moment,
    wrote_at: Moment,
    /// Runs while a request is incomplete or an answer unwritten.
    timeout: Option<(Moment, Pin<Box<B::Timer>>)>,
    waiting: Option<Waiting>,
}

impl<'a, B: Backend, S: ClientStream> Connection<'a, B, S> {
    fn new(context: &'a Arc<Context<B>>, stream: S, session: Session) -> Self {
        Connection {
            context,
            stream,
            control: session.control.clone(),
            session: Arc::new(session),
            input: BytesMut::new(),
            arrivals: Arrivals::default(),
            bytes: None,
            bytes_waiter: Waiter::default(),
            waits_for_room: None,
            arriving: None,
            waited: Duration::ZERO,
            awaited: None,
            request_waiter: Waiter::default(),
            queue: VecDeque::new(),
            queue_is_full: false,
            queue_had_room: Moment::ZERO,
            starting_held: Held::default(),
            out: Outgoing::default(),
            out_room: None,
            out_since: Moment::ZERO,
            out_written: 0,
            unread: None,
            unflushed: false,
            muted: None,
            ending: None,
            closed: false,
            awaits_bytes: false,
            asked_at: context.backend.now(),
            read_at: Moment::ZERO,
            wrote_at: Moment::ZERO,
            timeout: None,
            waiting: None,
        }
    }

    fn poll<G, F>(
        &mut self,
        cx: &mut task::Context<'_>,
        mut starting: Pin<&mut Option<G>>,
        mut finishing: Pin<&mut Option<F>>,
        start: impl Fn(Received) -> G,
        finish: impl Fn(Started<B>, Held) -> F,
    ) -> Poll<End>
    where
        G: Future<Output = Started<B>>,
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
            self.waited += self.context.backend.now().since(since);
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
            let is_full = queued >= self.context.config.server.responses_queued;
            if std::mem::replace(&mut self.queue_is_full, is_full) && !is_full {
                self.queue_had_room = self.context.backend.now();
            }
            if self.ending.is_none() && starting.is_none() && !is_full && !self.is_muted(cx) {
                match self.poll_request(cx) {
                    Poll::Ready(Ok((head, asked, held))) => {
                        self.starting_held = held;
                        // What the client itself asked to wait for, before it, is no time of this request.
                        self.asked_at = self.asked_at.max(self.queue_had_room);
                        self.control.asked();
                        let session = self.session.clone();
                        starting.set(Some(start(Received { head, session, asked, at: self.asked_at })));
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
                return self.poll_timeouts(idle, cx);
            }
        }
        // Still busy: others get their turn, and the client what is ready.
        cx.waker().wake_by_ref();
        match self.poll_write(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(End::Network(error)),
            _ => Poll::Pending,
        }
    }

    /// Whether the client has to wait until its next request is taken.
    fn is_muted(&mut self, cx: &mut task::Context<'_>) -> bool {
        let Some((until, timer)) = &mut self.muted else { return false };
        if timer.as_mut().poll(cx).is_pending() {
            return true;
        }
        // It was not the client that kept this request waiting.
        self.queue_had_room = self.queue_had_room.max(*until);
        self.muted = None;
        false
    }

    fn is_over(&self, idle: bool) -> bool {
        self.ending.is_some() && idle && self.queue.is_empty() && self.out.is_empty() && !self.unflushed
    }

    /// A request that was started stands behind others, or is the next to be finished.
    fn enqueue(&mut self, started: Started<B>, others_first: bool) {
        let mut held = std::mem::take(&mut self.starting_held);
        if others_first || !self.queue.is_empty() {
            let produce = started.is_produce();
            let account = &self.context.budget.waiting_bytes;
            match account.try_take(RequestClass::Essential, held.waiting_amount(produce)) {
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
            let backend = &self.context.backend;
            let bounded = self.timeout.is_some();
            let peer = self.session.peer.clone();
            let site = Location::caller();
            let waiting = backend.registry().wait_at(backend.now(), kind, what, peer, site, bounded);
            self.waiting = Some(waiting);
        }
    }
}

impl<B: Backend, S> Drop for Connection<'_, B, S> {
    fn drop(&mut self) {
        if let Some(number) = self.arriving.take() {
            self.context.budget.arriving.leave(number);
        }
        if let Some(number) = self.unread.take() {
            self.context.budget.unread.leave(number);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
