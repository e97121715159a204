//! Connections whose bytes somebody between the process and its network has a hand in.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};

/// Rewritten bytes that may wait to be sent before more are taken.
const WAITING_MAX: usize = 1 << 20;

/// Hears what comes in on a connection, and says what goes out in place of what the process writes.
pub trait Rewrite: Send + Sync {
    fn received(&mut self, bytes: &[u8]);
    /// Appends to `out` what is to be sent by now.
    fn written(&mut self, bytes: &[u8], out: &mut BytesMut);
}

/// Makes a [`Rewrite`] for each accepted connection.
pub type Rewrites = fn() -> Box<dyn Rewrite>;

pub(super) struct Rewriting {
    rewrite: Box<dyn Rewrite>,
    waiting: BytesMut,
}

impl Rewriting {
    pub(super) fn new(rewrites: Rewrites) -> Rewriting {
        Rewriting { rewrite: rewrites(), waiting: BytesMut::new() }
    }

    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.rewrite.received(bytes);
    }

    /// Sends what waits through `send`.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        send: impl Fn(&mut Context<'_>, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let sent = ready!(send(cx, &self.waiting))?;
            self.waiting.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what the process writes, unless too much waits already.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        send: impl Fn(&mut Context<'_>, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.poll_drain(cx, send)?.is_pending() && self.waiting.len() > WAITING_MAX {
            return Poll::Pending;
        }
        self.rewrite.written(bytes, &mut self.waiting);
        Poll::Ready(Ok(bytes.len()))
    }
}
