//! Reading and writing a stream: each wait with its deadline and its entry in the registry.

use std::future::Future;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::backend::Backend;
use crate::network::{Listener, Network};
use crate::registry::WaitKind;
use crate::time::{Deadline, within};

/// The stream type of a backend.
pub type Stream<B> = <<<B as Backend>::Network as Network>::Listener as Listener>::Stream;

/// Reads some bytes into `buffer`'s spare room (it must have some); 0 is the end of the stream.
///
/// # Errors
/// `TimedOut` at the deadline, with nothing read; otherwise the stream's own error.
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
///
/// # Errors
/// `TimedOut` at the deadline, with some first part written; otherwise the stream's own error.
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
