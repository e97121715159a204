//! TCP through tokio, without Nagle's delay.

use std::io;
use std::os::fd::AsRawFd;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::core::{Core, Job};
use super::sockets::{Sockets, Watched};
use super::system;
use crate::network::{Listener, Network, Unread};
use crate::registry::WaitKind;
use crate::time::Deadline;

/// TCP.
#[derive(Clone)]
pub struct RealNetwork {
    core: Arc<Core>,
}

impl RealNetwork {
    pub(super) fn new(core: Arc<Core>) -> RealNetwork {
        RealNetwork { core }
    }
}

impl Network for RealNetwork {
    type Listener = RealListener;

    async fn listen(&self, address: &str) -> io::Result<RealListener> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?.to_string();
        let watched = self.core.sockets.watch(&listener);
        Ok(RealListener { _watched: watched, listener, core: self.core.clone(), address: address.into() })
    }

    #[track_caller]
    fn connect(
        &self,
        address: &str,
        deadline: Deadline,
    ) -> impl Future<Output = io::Result<RealStream>> + Send {
        let site = Location::caller();
        async move {
            let job = Job { kind: WaitKind::Connect, what: "connect", target: address.into(), site };
            let connected = self.core.wait(&job, deadline, TcpStream::connect(address)).await;
            let stream = connected.unwrap_or_else(|_| {
                let text = format!("connect to {address}: deadline passed");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            })?;
            RealStream::new(&self.core.sockets, stream)
        }
    }
}

/// A listening TCP socket.
pub struct RealListener {
    _watched: Watched,
    listener: TcpListener,
    core: Arc<Core>,
    address: Arc<str>,
}

impl Listener for RealListener {
    type Stream = RealStream;

    #[track_caller]
    fn accept(&self) -> impl Future<Output = io::Result<(RealStream, String)>> + Send {
        let site = Location::caller();
        async move {
            let job = Job { kind: WaitKind::Accept, what: "connection", target: self.address.clone(), site };
            let idle = Deadline::Unbounded("clients come when they come; aborting the task ends it");
            let accepted = self.core.wait(&job, idle, self.listener.accept()).await;
            let (stream, peer) = accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            Ok((RealStream::new(&self.core.sockets, stream)?, peer.to_string()))
        }
    }

    fn local_address(&self) -> String {
        self.address.to_string()
    }
}

/// A TCP connection, with keep-alive and without Nagle's delay.
pub struct RealStream {
    _watched: Watched,
    stream: TcpStream,
}

impl RealStream {
    fn new(sockets: &Arc<Sockets>, stream: TcpStream) -> io::Result<RealStream> {
        stream.set_nodelay(true)?;
        system::keep_alive(stream.as_raw_fd())?;
        Ok(RealStream { _watched: sockets.watch(&stream), stream })
    }
}

impl Unread for RealStream {
    fn unread(&self) -> usize {
        system::unread(self.stream.as_raw_fd())
    }

    fn poll_unread(&self, cx: &mut Context<'_>) -> Poll<()> {
        // A stream that fails is read for its error.
        self.stream.poll_read_ready(cx).map(drop)
    }
}

impl AsyncRead for RealStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for RealStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
