//! A network on which every fetch is answered at once, with nothing in it: what a broker looks like from outside
//! that has the records and does not give them.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use io_backend::network::Unread;
use io_backend::{Deadline, Listener, Network};
use kafka_protocol::messages::{FetchResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::world::{SimListener, SimNetwork, SimStream};

const FETCH: i16 = 1;
/// Rewritten bytes that may wait to be sent before more are taken.
const WAITING_MAX: usize = 1 << 20;

#[derive(Clone)]
pub struct LyingNetwork {
    pub(super) inner: SimNetwork,
    pub(super) empties_fetches: bool,
}

impl Network for LyingNetwork {
    type Listener = LyingListener;

    async fn listen(&self, address: &str) -> io::Result<LyingListener> {
        let inner = self.inner.listen(address).await?;
        Ok(LyingListener { inner, empties_fetches: self.empties_fetches })
    }

    async fn connect(&self, address: &str, deadline: Deadline) -> io::Result<LyingStream> {
        Ok(LyingStream::new(self.inner.connect(address, deadline).await?, false))
    }
}

pub struct LyingListener {
    inner: SimListener,
    empties_fetches: bool,
}

impl Listener for LyingListener {
    type Stream = LyingStream;

    async fn accept(&self) -> io::Result<(LyingStream, String)> {
        let (stream, peer) = self.inner.accept().await?;
        Ok((LyingStream::new(stream, self.empties_fetches), peer))
    }

    fn local_address(&self) -> String {
        self.inner.local_address()
    }
}

pub struct LyingStream {
    inner: SimStream,
    /// None passes everything on as it is.
    rewriting: Option<Rewriting>,
}

#[derive(Default)]
struct Rewriting {
    /// Versions of fetches that are not answered yet, by correlation id.
    fetches: BTreeMap<i32, i16>,
    requests: BytesMut,
    answers: BytesMut,
    waiting: BytesMut,
}

impl LyingStream {
    fn new(inner: SimStream, rewrites: bool) -> LyingStream {
        LyingStream { inner, rewriting: rewrites.then(Rewriting::default) }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(rewriting) = &mut self.rewriting else { return Poll::Ready(Ok(())) };
        while !rewriting.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &rewriting.waiting))?;
            rewriting.waiting.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl Rewriting {
    fn asked(&mut self, bytes: &[u8]) {
        self.requests.extend_from_slice(bytes);
        while let Some(mut request) = frame(&mut self.requests) {
            if request.len() < 8 {
                continue;
            }
            let (key, version, correlation) = (request.get_i16(), request.get_i16(), request.get_i32());
            if key == FETCH {
                self.fetches.insert(correlation, version);
            }
        }
    }

    fn answered(&mut self, bytes: &[u8]) {
        self.answers.extend_from_slice(bytes);
        while let Some(answer) = frame(&mut self.answers) {
            let correlation = answer.get(..4).map(|mut id| id.get_i32()).unwrap_or_default();
            let version = self.fetches.remove(&correlation);
            let rewritten = version.and_then(|version| emptied(answer.clone(), version)).unwrap_or(answer);
            self.waiting.extend_from_slice(&u32::try_from(rewritten.len()).unwrap_or_default().to_be_bytes());
            self.waiting.extend_from_slice(&rewritten);
        }
    }
}

/// The next whole frame, without its length.
fn frame(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(*buffer.first_chunk()?) as usize;
    if buffer.len() < 4 + length {
        return None;
    }
    buffer.advance(4);
    Some(buffer.split_to(length).freeze())
}

/// The same answer without its records.
fn emptied(mut answer: Bytes, version: i16) -> Option<Bytes> {
    let header_version = i16::from(version >= 12);
    let header = ResponseHeader::decode(&mut answer, header_version).ok()?;
    let mut response = FetchResponse::decode(&mut answer, version).ok()?;
    for topic in &mut response.responses {
        for partition in &mut topic.partitions {
            partition.records = Some(Bytes::new());
        }
    }
    let mut out = BytesMut::new();
    header.encode(&mut out, header_version).ok()?;
    response.encode(&mut out, version).ok()?;
    Some(out.freeze())
}

impl Unread for LyingStream {
    fn unread(&self) -> usize {
        self.inner.unread()
    }
}

impl AsyncRead for LyingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        if let Some(rewriting) = &mut self.rewriting {
            rewriting.asked(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LyingStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.rewriting.is_none() {
            return Pin::new(&mut self.inner).poll_write(cx, bytes);
        }
        let drained = self.poll_drain(cx)?;
        let Some(rewriting) = &mut self.rewriting else { return Poll::Ready(Ok(0)) };
        if drained.is_pending() && rewriting.waiting.len() > WAITING_MAX {
            return Poll::Pending;
        }
        rewriting.answered(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};

    #[test]
    fn only_answers_to_fetches_lose_their_records() {
        let partition = PartitionData::default().with_records(Some(Bytes::from_static(b"records")));
        let topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
        let response = FetchResponse::default().with_responses(vec![topic]);
        let mut answer = BytesMut::new();
        ResponseHeader::default().with_correlation_id(7).encode(&mut answer, 1).unwrap();
        response.encode(&mut answer, 12).unwrap();
        let mut framed = BytesMut::from(&u32::try_from(answer.len()).unwrap().to_be_bytes()[..]);
        framed.extend_from_slice(&answer);

        let mut other = Rewriting::default();
        other.answered(&framed);
        assert_eq!(other.waiting, framed, "nobody fetched");

        let mut rewriting = Rewriting::default();
        let request = [0, 0, 0, 8, 0, 1, 0, 12, 0, 0, 0, 7];
        rewriting.asked(&request[..5]);
        rewriting.asked(&request[5..]);
        rewriting.answered(&framed[..9]);
        rewriting.answered(&framed[9..]);
        let mut told = frame(&mut rewriting.waiting).unwrap();
        ResponseHeader::decode(&mut told, 1).unwrap();
        let told = FetchResponse::decode(&mut told, 12).unwrap();
        assert_eq!(told.responses[0].partitions[0].records, Some(Bytes::new()));
    }
}
