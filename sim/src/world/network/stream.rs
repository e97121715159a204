//! The stream that a process reads and writes: one end of a connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use io_backend::network::Unread;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Connection, Connections};
use super::pipe::Segment;
use crate::world::alloc;
use crate::world::descriptors::Descriptor;
use crate::world::lock;

/// One end of a connection.
pub struct SimStream {
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
        SimStream { net: net.clone(), connection, end, _descriptor: descriptor }
    }
}

impl Drop for SimStream {
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

impl Unread for SimStream {
    fn unread(&self) -> usize {
        lock(&self.connection.state).pipes[1 - self.end].readable()
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
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

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let first = {
            let mut state = lock(&self.connection.state);
            state.error[self.end].is_none() && !std::mem::replace(&mut state.pipes[self.end].fin_sent, true)
        };
        if first {
            self.connection.send(&self.net, self.end, Segment::Fin);
        }
        Poll::Ready(Ok(()))
    }
}
