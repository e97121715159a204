//! The network: byte streams between named endpoints.
//!
//! Streams are tokio's `AsyncRead + AsyncWrite`; what [`stream`](crate::stream) offers gives each wait
//! its deadline and its registry entry, so the broker never awaits a stream directly.
//! A peer that goes away is seen as an end of stream or an error; a peer that is silent is not seen at
//! all, which is why every wait has a deadline.

use std::future::Future;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::time::Deadline;

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
