//! Carries out a handshake on a connection. Until it is over the connection has this one small buffer.

use bytes::{Buf, Bytes, BytesMut};
use io_backend::{Backend, Deadline, stream};
use tokio::io::{AsyncRead, AsyncWrite};

use super::frame::{self, FrameError, FrameKind, HEAD_BYTES, LENGTH_BYTES, Next};
use super::handshake::{Handshake, Judge, Step};
use super::hello::{PeerIdentity, Refusal};
use super::shared::{Ended, Shared};
use crate::limits::PEER_HELLO_BYTES_MAX;

/// What a browser, or a probe of a load balancer, is told.
const TO_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    this port is for the other nodes of the cluster; metrics and health are on the admin port\n";

/// Greets the other side; it has proved to be who it says when this is done.
pub async fn greet<B: Backend, S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared<B>,
    stream: &mut S,
    mut handshake: Handshake,
    first: Option<Bytes>,
    judge: Judge<'_>,
    deadline: Deadline,
) -> Result<PeerIdentity, Ended> {
    let backend = &shared.backend;
    if let Some(first) = first {
        shared.send(stream, FrameKind::Hello, &first, deadline).await?;
    }
    let mut input = BytesMut::with_capacity(LENGTH_BYTES + PEER_HELLO_BYTES_MAX);
    loop {
        let (kind, size) = match frame::next(&input, PEER_HELLO_BYTES_MAX) {
            Ok(Next::Frame(kind, size)) => (kind, size),
            Ok(Next::Head | Next::Partial(_)) => {
                input.reserve(LENGTH_BYTES + PEER_HELLO_BYTES_MAX - input.len());
                match stream::read(backend, stream, &mut input, "a handshake", deadline).await? {
                    0 => return Err(Ended::Closed),
                    _ => continue,
                }
            }
            Err(error) => {
                shared.count_refused(Refusal::NotAPeer);
                if let FrameError::OtherProtocol("HTTP") = error {
                    let told = stream::write_all(backend, stream, TO_HTTP, "a refusal", deadline);
                    let _ = told.await;
                } else {
                    tell(shared, stream, Refusal::NotAPeer, deadline).await;
                }
                return Err(error.into());
            }
        };
        shared.count_in(kind, LENGTH_BYTES + size);
        let step = handshake.received(kind, &input[HEAD_BYTES..LENGTH_BYTES + size], judge);
        input.advance(LENGTH_BYTES + size);
        match step {
            Step::Answer(answer) => shared.send(stream, FrameKind::Proof, &answer, deadline).await?,
            // Nobody may say anything before he knows that he is taken for a peer.
            Step::Peer(..) if !input.is_empty() => {
                return Err(FrameError::OutOfTurn("behind a handshake").into());
            }
            Step::Peer(identity, welcome) => {
                if let Some(welcome) = welcome {
                    shared.send(stream, FrameKind::Welcome, &welcome, deadline).await?;
                }
                return Ok(identity);
            }
            Step::Refuse(why, _) => {
                shared.count_refused(why);
                tell(shared, stream, why, deadline).await;
                return Err(Ended::Refused(why));
            }
            Step::Refused(why) => return Err(Ended::RefusedByPeer(why)),
        }
    }
}

/// Tells the other side why, if it still listens.
async fn tell<B: Backend, S: AsyncWrite + Unpin>(
    shared: &Shared<B>,
    stream: &mut S,
    why: Refusal,
    deadline: Deadline,
) {
    let refusal = frame::encode(FrameKind::Refused, &why.encode());
    let _ = shared.send(stream, FrameKind::Refused, &refusal, deadline).await;
}
