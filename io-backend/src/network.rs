//! The network: byte streams between named endpoints.
//!
//! Streams are tokio's `AsyncRead + AsyncWrite`; [`read`], [`write_all`] and friends give each wait
//! its deadline and its registry entry, so the broker never awaits a stream directly.
//! A peer that goes away is seen as an end of stream or an error; a peer that is silent is not seen at
//! all, which is why every wait has a deadline.

use std::future::Future;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::Backend;
use crate::registry::WaitKind;
use crate::time::{Deadline, within};

pub trait Network: Clone + Send + Sync + 'static {
    type Listener: Listener;

    /// Listens on `HOST:PORT`; port 0 picks a free one.
    fn listen(&self, address: &str) -> impl Future<Output = io::Result<Self::Listener>> + Send;
    /// Connects, or fails with `TimedOut` at the deadline.
    #[track_caller]
    fn connect(
        &self,
        address: &str,
        deadline: Deadline,
    ) -> impl Future<Output = io::Result<<Self::Listener as Listener>::Stream>> + Send;
}

pub trait Listener: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unread + Unpin + Send + 'static;

    /// The next connection, and a text that names its peer. Errors are of this one attempt
    /// (no descriptor free, say): the caller pauses and goes on.
    #[track_caller]
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, String)>> + Send;
    /// The address it really listens on, `HOST:PORT`.
    fn local_address(&self) -> String;
}

/// What came on a stream and was not read.
pub trait Unread {
    /// In bytes; as of now, for more may come at any time.
    fn unread(&self) -> usize;
}

/// The stream type of a backend.
pub type Stream<B> = <<<B as Backend>::Network as Network>::Listener as Listener>::Stream;

/// Reads some bytes into `buffer`'s spare room (it must have some); 0 is the end of the stream.
#[track_caller]
pub fn read<'a, B: Backend, S: AsyncRead + Unpin>(
    backend: &'a B,
    stream: &'a mut S,
    buffer: &'a mut bytes::BytesMut,
    what: &'static str,
    deadline: Deadline,
) -> impl Future<Output = io::Result<usize>> + 'a {
    let site = std::panic::Location::caller();
    async move {
        let wait =
            backend.registry().waiting(backend, WaitKind::NetworkRead, what, site).bounded_by(deadline);
        within(backend, deadline, wait.during(stream.read_buf(buffer)))
            .await
            .unwrap_or_else(|_| Err(timed_out("read", what)))
    }
}

/// Writes all of `data` and flushes.
#[track_caller]
pub fn write_all<'a, B: Backend, S: AsyncWrite + Unpin>(
    backend: &'a B,
    stream: &'a mut S,
    data: &'a [u8],
    what: &'static str,
    deadline: Deadline,
) -> impl Future<Output = io::Result<()>> + 'a {
    let site = std::panic::Location::caller();
    async move {
        let wait =
            backend.registry().waiting(backend, WaitKind::NetworkWrite, what, site).bounded_by(deadline);
        let writing = async {
            stream.write_all(data).await?;
            stream.flush().await
        };
        within(backend, deadline, wait.during(writing))
            .await
            .unwrap_or_else(|_| Err(timed_out("write", what)))
    }
}

fn timed_out(operation: &str, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{operation} of {what}: deadline passed"))
}
