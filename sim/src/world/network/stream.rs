//! The stream that a process reads and writes: one end of a connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use io_backend::network::Unread;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Connection, Connections};
use super::pipe::Segment;
use super::rewriting::{Rewrites, Rewriting};
use crate::world::alloc;
use crate::world::descriptors::Descriptor;
use crate::world::lock;

/// One end of a connection.
pub struct SimStream {
    socket: Socket,
    rewriting: Option<Rewriting>,
}

struct Socket {
    net: Arc<Connections>,
    connection: Arc<Connection>,
    end: usize,
    /// None while nobody has accepted it.
    _descriptor: Option<Descriptor>,
}

impl SimStream {
    pub(super) fn new(
        net: &Arc<Connections>,
        connection: Arc<Connection>,
        end: usize,
        descriptor: Option<Descriptor>,
    ) -> SimStream {
        let socket = Socket { net: net.clone(), connection, end, _descriptor: descriptor };
        SimStream { socket, rewriting: None }
    }

    pub(super) fn rewritten(self, rewrites: Option<Rewrites>) -> SimStream {
        SimStream { rewriting: rewrites.map(Rewriting::new), ..self }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let SimStream { socket, rewriting } = self;
        match rewriting {
            Some(rewriting) => rewriting.poll_drain(cx, |cx, bytes| socket.poll_send(cx, bytes)),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let silently = self.net.is_vanishing(&self.connection.ends[self.end]);
        self.connection.close(&self.net, self.end, silently);
    }
}

fn broken(kind: io::ErrorKind) -> io::Error {
    let text = match kind {
        io::ErrorKind::ConnectionReset => "connection reset by peer",
        io::ErrorKind::TimedOut => "connection timed out",
        _ => "broken pipe",
    };
    io::Error::new(kind, text)
}

impl Socket {
    fn poll_receive(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.connection.state);
        if let Some(kind) = state.error[self.end] {
            return Poll::Ready(Err(broken(kind)));
        }
        let pipe = &mut state.pipes[1 - self.end];
        let most = self.net.fabric.portion(pipe.readable().min(buf.remaining()));
        let mut read = 0;
        while read < most
            && let Some(bytes) = pipe.read(most - read)
        {
            buf.put_slice(&bytes);
            read += bytes.len();
        }
        if read > 0 {
            let writer = pipe.writer.take();
            drop(state);
            if let Some(writer) = writer {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
        if pipe.fin_arrived || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_send(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.connection.state);
        if let Some(kind) = state.error[self.end] {
            return Poll::Ready(Err(broken(kind)));
        }
        let pipe = &mut state.pipes[self.end];
        if pipe.fin_sent {
            return Poll::Ready(Err(broken(io::ErrorKind::BrokenPipe)));
        }
        let taken = pipe.room().min(data.len());
        if taken == 0 && !data.is_empty() {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        if taken > 0 {
            let _world = alloc::as_world();
            let segment = Segment::Data(Bytes::copy_from_slice(&data[..taken]));
            self.connection.send(&self.net, self.end, segment);
        }
        Poll::Ready(Ok(taken))
    }

    fn close(&self) {
        let first = {
            let mut state = lock(&self.connection.state);
            state.error[self.end].is_none() && !std::mem::replace(&mut state.pipes[self.end].fin_sent, true)
        };
        if first {
            self.connection.send(&self.net, self.end, Segment::Fin);
        }
    }
}

impl Unread for SimStream {
    fn unread(&self) -> usize {
        lock(&self.socket.connection.state).pipes[1 - self.socket.end].readable()
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.socket.poll_receive(cx, buf))?;
        if let Some(rewriting) = &mut self.rewriting {
            rewriting.received(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let SimStream { socket, rewriting } = &mut *self;
        match rewriting {
            Some(rewriting) => rewriting.poll_write(cx, data, |cx, bytes| socket.poll_send(cx, bytes)),
            None => socket.poll_send(cx, data),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_drain(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        self.socket.close();
        Poll::Ready(Ok(()))
    }
}
