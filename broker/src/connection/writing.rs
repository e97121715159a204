//! What goes: answers in pieces, charged while they wait for the client to read them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use io_backend::Backend;
use tracing::error;

use super::{ClientStream, Connection, End};
use crate::api::Finished;
use crate::budget::Holds;
use crate::limits::{READ_BUFFER_BYTES, WRITE_BUFFER_BYTES};
use crate::wire;

impl<B: Backend, S: ClientStream> Connection<'_, B, S> {
    pub(super) fn put(&mut self, finished: Finished) {
        let (response, room, throttle) = match finished {
            Finished::Answer { response, room, throttle } => (response, room, throttle),
            Finished::Silent => return,
            Finished::Close(why) => {
                self.queue.clear();
                self.ending = Some(End::Unanswerable(why));
                return;
            }
        };
        if self.out.is_empty() {
            self.wrote_at = self.context.backend.now();
            self.out_since = self.wrote_at;
            self.out_written = 0;
        }
        match (&mut self.out_room, room) {
            (Some(all), Some(room)) => all.merge(room),
            (none, Some(room)) => *none = Some(room),
            (_, None) => {}
        }
        let before = self.out.len();
        if let Err(what) = wire::encode(&response, &mut self.out) {
            error!(peer = %self.session.peer, head = ?response.head, "a response could not be encoded: {what}");
            self.queue.clear();
            self.ending = Some(End::Unanswerable(format!("its answer could not be encoded: {what}")));
        }
        self.context.requests.count_response(response.head.key, self.out.len() - before);
        if !throttle.is_zero() {
            let backend = &self.context.backend;
            let until = backend.now() + throttle;
            self.muted = Some((until, Box::pin(backend.timer(until))));
        }
        self.charge_out();
    }

    /// Brings what is charged for answers to what is to be written; a few small ones are not charged.
    fn charge_out(&mut self) {
        let bytes = self.out.len();
        let charged = if bytes > READ_BUFFER_BYTES { bytes } else { 0 };
        match &mut self.out_room {
            Some(room) => room.set(charged),
            None if charged > 0 => {
                self.out_room = Some(self.context.budget.answer_bytes.take_anyway(charged))
            }
            None => {}
        }
        if charged == 0 {
            self.out_room = None;
        }
        if bytes > WRITE_BUFFER_BYTES {
            let holds = Holds { bytes, since: self.wrote_at, waits: false };
            self.unread = Some(self.context.budget.unread.note(self.unread, &self.control, holds));
        } else if let Some(number) = self.unread.take() {
            self.context.budget.unread.leave(number);
        }
    }

    /// Writes what there is; whether anything was written.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let before = self.out.len();
        while !self.out.is_empty() {
            match self.out.poll_write(&mut self.stream, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.unflushed = true;
                    self.wrote_at = self.context.backend.now();
                    self.out_written += written;
                    self.charge_out();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if self.out.len() < before => return Poll::Ready(Ok(true)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
            return Poll::Ready(Ok(true));
        }
        Poll::Ready(Ok(false))
    }
}
