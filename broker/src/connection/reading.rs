//! What comes: requests are read as far as there is room for them, and what is not read stays with the client.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use io_backend::{Backend, Moment};
use tokio::io::AsyncReadExt;

use super::frame::{self, Next, SIZE_BYTES};
use super::{ClientStream, Connection, End};
use crate::api::{self, Asked, Call};
use crate::budget::{self, Held, Holds, RequestClass, Share, Waiter};
use crate::limits::{READ_BUFFER_BYTES, ROOM_TIMEOUT, SMALL_REQUEST_BYTES};
use crate::wire::{RequestHead, WireError, read_head};

impl<B: Backend, S: ClientStream> Connection<'_, B, S> {
    /// The next request, with its bytes charged. Others than produces are counted when they are worked on.
    pub(super) fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(RequestHead, Asked, Held), End>> {
        loop {
            let next = frame::next(&self.input, self.context.config.server.request_bytes)?;
            match next {
                Next::Frame(size) => {
                    let amount = match frame::is_produce(&self.input) {
                        true => SIZE_BYTES + size,
                        false => budget::decoded_bytes(size, self.context.config.server.request_bytes),
                    };
                    ready!(self.poll_bytes(size, amount, cx));
                    self.bytes_waiter = Waiter::default();
                    self.leave_arriving();
                    let request = ready!(self.poll_enter(cx));
                    let mut held = Held { request, bytes: self.bytes.take(), waiting: None };
                    let produce = frame::is_produce(&self.input);
                    let mut frame = self.take_frame(size).freeze();
                    if let Some(share) = held.bytes.take_if(|_| produce) {
                        // Its batches hold what they take until the partitions have copied them, whatever
                        // becomes of this connection.
                        frame = budget::charged(frame, share);
                    }
                    let (head, asked) = self.decode(frame)?;
                    return Poll::Ready(Ok((head, asked, held)));
                }
                // What fits the read buffer is charged when it is whole; of what is larger, what comes as it comes.
                // What is only announced takes nobody's waiter.
                Next::Partial(size) => {
                    let mut room = READ_BUFFER_BYTES;
                    if size > READ_BUFFER_BYTES {
                        room = frame::room_wanted(size, self.input.len());
                        ready!(self.poll_bytes(size, self.input.len() + room, cx));
                    }
                    ready!(self.poll_read(cx, room))?;
                }
                Next::Size => ready!(self.poll_read(cx, READ_BUFFER_BYTES))?,
            }
        }
    }

    /// From a frame (without its size) to a request of its API.
    pub(super) fn decode(&mut self, mut frame: Bytes) -> Result<(RequestHead, Asked), WireError> {
        let bytes = SIZE_BYTES + frame.len();
        let head = read_head(&mut frame)?;
        self.context.requests.count_request(head.key, bytes);
        if let Some(key) = api::served::<B>(head.key, head.version) {
            let client_id = head.read_client_id(key, &mut frame)?.unwrap_or_default();
            self.note_client_id(&client_id);
        }
        let call = Call { context: self.context.clone(), session: self.session.clone(), head };
        Ok((head, api::ask(call, frame)?))
    }

    /// A client says the same in each of its requests.
    fn note_client_id(&mut self, client_id: &[u8]) {
        if self.session.client_id.as_bytes() != client_id {
            self.session = Arc::new(self.session.with_client_id(&String::from_utf8_lossy(client_id)));
        }
    }

    /// Brings what is charged for a request of `size` to `amount`.
    fn poll_bytes(&mut self, size: usize, amount: usize, cx: &Context<'_>) -> Poll<()> {
        let charged = self.bytes.as_ref().map_or(0, Share::amount);
        if charged < amount {
            let class = if size > SMALL_REQUEST_BYTES { RequestClass::Large } else { self.class() };
            let account = &self.context.budget.request_bytes;
            let Poll::Ready(more) = account.poll_take(&mut self.bytes_waiter, class, amount - charged, cx)
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
        let now = self.context.backend.now();
        let since = *self.waits_for_room.get_or_insert(now);
        if self.bytes.is_some() {
            self.note_arriving(since, true);
        }
        let long = now.since(since) >= ROOM_TIMEOUT;
        self.context.budget.arriving.make_room(now, long);
        Poll::Pending
    }

    fn note_arriving(&mut self, since: Moment, waits: bool) {
        let holds = Holds { bytes: self.bytes.as_ref().map_or(0, Share::amount), since, waits };
        self.arriving = Some(self.context.budget.arriving.note(self.arriving, &self.control, holds));
    }

    pub(super) fn leave_arriving(&mut self) {
        if let Some(number) = self.arriving.take() {
            self.context.budget.arriving.leave(number);
        }
    }

    /// A produce counts among the requests from its start on, everything else when it is worked on.
    fn poll_enter(&mut self, cx: &Context<'_>) -> Poll<Option<Share>> {
        if !frame::is_produce(&self.input) {
            return Poll::Ready(None);
        }
        let class = self.class();
        let share = ready!(self.context.budget.requests.poll_take(&mut self.request_waiter, class, 1, cx));
        self.request_waiter = Waiter::default();
        Poll::Ready(Some(share))
    }

    /// Produces wait for the disk: whoever asks something else is answered while they stand still.
    fn class(&self) -> RequestClass {
        if frame::is_produce(&self.input) { RequestClass::Common } else { RequestClass::Essential }
    }

    fn take_frame(&mut self, size: usize) -> BytesMut {
        self.waited = Duration::ZERO;
        self.asked_at = self.arrivals.take(SIZE_BYTES + size).unwrap_or(self.read_at);
        let mut framed = self.input.split_to(SIZE_BYTES + size);
        if size > READ_BUFFER_BYTES {
            // The rest begins a buffer of its own: the large one goes when the request is done.
            self.input = BytesMut::from(&self.input[..]);
        }
        framed.split_off(SIZE_BYTES)
    }

    /// Reads at most `room` bytes, which is what is charged or what a connection has anyway.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Result<(), End>> {
        if self.closed {
            return Poll::Ready(Err(self.end_of_stream()));
        }
        self.arrivals.resume(|| self.stream.unread());
        self.awaits_bytes = self.stream.poll_unread(cx).is_pending();
        if self.awaits_bytes {
            self.leave_idle_buffer();
            return Poll::Pending;
        }
        self.input.reserve(room);
        let read = {
            let mut into = (&mut self.input).limit(room);
            let reading = pin!(self.stream.read_buf(&mut into));
            let polled = reading.poll(cx);
            self.awaits_bytes = polled.is_pending();
            if polled.is_pending() {
                self.leave_idle_buffer();
            }
            ready!(polled)
        };
        self.waiting = None;
        match read {
            Ok(0) => Poll::Ready(Err(self.end_of_stream())),
            Ok(bytes) => {
                self.read_at = self.context.backend.now();
                self.arrivals.complete(bytes, self.read_at);
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(End::Network(error))),
        }
    }

    /// An idle connection keeps no buffer.
    fn leave_idle_buffer(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    fn end_of_stream(&self) -> End {
        if self.input.is_empty() { End::ClosedByClient } else { End::Truncated }
    }

    /// While no request is taken: notices that the client is gone. What it has asked for is then answered
    /// without waiting for anything, if only into a connection that takes it no more.
    pub(super) fn poll_look_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed || self.input.len() >= READ_BUFFER_BYTES {
            // More stands behind than is looked at: its end would not be seen.
            self.control.hurry(true);
            self.arrivals.stop(self.context.backend.now());
            return Poll::Pending;
        }
        self.arrivals.resume(|| self.stream.unread());
        ready!(self.stream.poll_unread(cx));
        self.input.reserve(READ_BUFFER_BYTES - self.input.len());
        let read = {
            let reading = pin!(self.stream.read_buf(&mut self.input));
            ready!(reading.poll(cx))?
        };
        if read == 0 {
            self.closed = true;
        } else {
            self.arrivals.more(read, self.context.backend.now());
        }
        if self.closed || self.input.len() >= READ_BUFFER_BYTES {
            self.control.hurry(true);
        }
        Poll::Ready(Ok(()))
    }
}
