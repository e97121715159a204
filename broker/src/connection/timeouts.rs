//! How long a client is waited for that reads too little, sends too little, or asks nothing.

use std::future::Future;
use std::task::{Context, Poll, ready};

use io_backend::{Backend, Moment};

use super::{ClientStream, Connection, End, frame};
use crate::limits::{ROOM_TIMEOUT, WRITE_BUFFER_BYTES, WRITE_DEADLINE};

impl<B: Backend, S: ClientStream> Connection<'_, B, S> {
    /// Ends the connection when the other side stands still in the middle of something, or is too slow. Called when
    /// there is nothing else to do.
    pub(super) fn poll_timeouts(&mut self, idle: bool, cx: &mut Context<'_>) -> Poll<End> {
        if idle && self.out.is_empty() {
            self.control.idle(self.asked_at.max(self.wrote_at));
        }
        loop {
            // A timer that is there already may stay: what it finds when it wakes is as it is then.
            let Some((until, end)) = self.next_timeout(idle) else { return Poll::Pending };
            let backend = &self.context.backend;
            if backend.now() >= until {
                match end {
                    Some(end) => return Poll::Ready(end),
                    // Its turn in the line has not come: those who hold the room are looked at again.
                    None => cx.waker().wake_by_ref(),
                }
                self.timeout = None;
                return Poll::Pending;
            }
            // One that was made for an earlier state of affairs is early enough; what it finds then is as it is.
            let (_, timer) = match self.timeout.take() {
                Some(made) if made.0 <= until => self.timeout.insert(made),
                _ => self.timeout.insert((until, Box::pin(backend.timer(until)))),
            };
            ready!(timer.as_mut().poll(cx));
            self.timeout = None;
        }
    }

    /// When patience ends, and what happens then; without an end for the connection, it looks for room again.
    fn next_timeout(&mut self, idle: bool) -> Option<(Moment, Option<End>)> {
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
            let timeout = self.context.config.server.idle_timeout;
            let since = self.asked_at.max(self.wrote_at);
            return idle.then_some((since + timeout, Some(End::Idle(timeout))));
        }
        let now = self.context.backend.now();
        if !self.awaits_bytes {
            // While requests are not read, for their number or the node's load, the client cannot help it.
            self.read_at = now;
            let since = self.waits_for_room?;
            let tries = now.since(since).as_millis() / ROOM_TIMEOUT.as_millis();
            return Some((since + ROOM_TIMEOUT * (tries as u32 + 1), None));
        }
        self.awaited.get_or_insert(now);
        let left = frame::time_for(self.input.len()).saturating_sub(self.waited);
        Some(((self.read_at + WRITE_DEADLINE).min(now + left), Some(End::SlowRequest)))
    }
}
