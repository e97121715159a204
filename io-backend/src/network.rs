//! The network: byte streams between named endpoints.
//!
//! Streams are tokio's `AsyncRead + AsyncWrite`; what [`stream`](crate::stream) offers gives each wait
//! its deadline and its registry entry, so the broker never awaits a stream directly.
//! A peer that goes away is seen as an end of stream or an error; a peer that is silent is not seen at
//! all, which is why every wait has a deadline.

use std::future::Future;
use std::io;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::time::Deadline;

/// The network of one node.
pub trait Network: Clone + Send + Sync + 'static {
    /// What listening gives.
    type Listener: Listener;

    /// Listens on `HOST:PORT`; port 0 picks a free one.
    ///
    /// # Errors
    /// `AddrInUse` when someone listens there, `AddrNotAvailable` and others when it is no address of this
    /// machine.
    fn listen(&self, address: &str) -> impl Future<Output = io::Result<Self::Listener>> + Send;
    /// Connects, or fails with `TimedOut` at the deadline.
    ///
    /// # Errors
    /// `TimedOut` at the deadline, `ConnectionRefused` when nobody listens there, and whatever else the
    /// system says.
    #[track_caller]
    fn connect(
        &self,
        address: &str,
        deadline: Deadline,
    ) -> impl Future<Output = io::Result<<Self::Listener as Listener>::Stream>> + Send;
}

/// Takes connections at one address, until it is dropped.
pub trait Listener: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unread + Unpin + Send + 'static;

    /// The next connection, and a text that names its peer. Errors are of this one attempt
    /// (no descriptor free, say): the caller pauses and goes on.
    ///
    /// # Errors
    /// The system's reason why this one connection was not taken.
    #[track_caller]
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, String)>> + Send;
    /// The address it really listens on, `HOST:PORT`.
    fn local_address(&self) -> String;
}

/// What came on a stream and was not read.
pub trait Unread {
    /// In bytes; as of now, for more may come at any time.
    fn unread(&self) -> usize;
    /// Pending while there is surely nothing, and then whoever asked last is woken when that changes: who looks here first needs no buffer
    /// for nothing.
    fn poll_unread(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}
