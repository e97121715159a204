//! A node's own connection to a peer (`peer link[N]`): made, made again, and what is sent on it.
//!
//! One task for each peer. Messages go one way on it; what comes back is how much of them was read. While something is
//! on its way that is waited for with a deadline, so that a peer that is gone without a word is noticed; an idle link has no timer.

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use io_backend::stream::Stream;
use io_backend::{Backend, Deadline, Network, WaitKind, within};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tracing::{info, warn};

use super::frame::{self, FrameError, FrameKind, HEAD_BYTES, LENGTH_BYTES, Next};
use super::greeting::greet;
use super::handshake::Handshake;
use super::hello::{PeerIdentity, Refusal};
use super::outbox::{Outbox, Task};
use super::patience::{Backoff, Unreceived};
use super::roster::Nudge;
use super::shared::{Ended, Shared};
use crate::config::PeerAddress;
use crate::ids::BrokerId;
use crate::limits::{
    PEER_CONNECT_DEADLINE, PEER_HANDSHAKE_DEADLINE, PEER_HELLO_BYTES_MAX, READ_BUFFER_BYTES,
};

/// Keeps a peer connected for as long as the node runs.
pub async fn run<B: Backend>(shared: Arc<Shared<B>>, peer: PeerAddress, outbox: Arc<Outbox>) {
    let mut backoff = Backoff::default();
    let of = format!("link {}", peer.id);
    loop {
        let mut lasted = Duration::ZERO;
        let Err(ended) = attempt(&shared, &peer, &outbox, &of, &mut lasted).await;
        shared.ended(peer.id, &ended);
        if shared.is_news(&of, &ended) {
            warn!(peer = %peer.id, address = %peer.address, "no link to this node: {ended}. It is tried again");
        }
        shared.backend.sleep(backoff.pause(lasted, shared.backend.random_u64())).await;
    }
}

/// Connects, and sends what there is until the link is over. `lasted` is how long it then was one.
async fn attempt<B: Backend>(
    shared: &Shared<B>,
    peer: &PeerAddress,
    outbox: &Outbox,
    of: &str,
    lasted: &mut Duration,
) -> Result<std::convert::Infallible, Ended> {
    let backend = &shared.backend;
    let soon = Deadline::after(backend, PEER_CONNECT_DEADLINE);
    let mut stream = backend.network().connect(&peer.address, soon).await.map_err(Ended::Connect)?;
    outbox.forget_nudge();
    let (handshake, first) = Handshake::initiate(shared.hello(peer.id), shared.secret.clone());
    let soon = Deadline::after(backend, PEER_HANDSHAKE_DEADLINE);
    let mut linked = None;
    let mut judge = |identity: &PeerIdentity| {
        shared.link(*identity)?;
        linked = Some(Linked { shared, node: peer.id });
        Ok::<(), Refusal>(())
    };
    let identity = greet(shared, &mut stream, handshake, Some(first), &mut judge, soon).await?;
    info!(peer = %peer.id, address = %peer.address, "linked to {identity}");
    super::shared::lock(&shared.told).forget(of);
    let since = backend.now();
    let mut sending = Sending {
        shared,
        outbox,
        stream,
        input: BytesMut::new(),
        out: BytesMut::new(),
        unflushed: false,
        unreceived: Unreceived::default(),
    };
    let Err(ended) = sending.run(&peer.id.to_string().into()).await;
    *lasted = backend.now().since(since);
    drop(linked);
    Err(ended)
}

/// Takes the peer out of those that are reached, however the link ends.
struct Linked<'a, B: Backend> {
    shared: &'a Shared<B>,
    node: BrokerId,
}

impl<B: Backend> Drop for Linked<'_, B> {
    fn drop(&mut self) {
        self.shared.unlink(self.node);
    }
}

struct Sending<'a, B: Backend> {
    shared: &'a Shared<B>,
    outbox: &'a Outbox,
    stream: Stream<B>,
    /// What comes back, not taken yet.
    input: BytesMut,
    /// What is to be written: at most one frame.
    out: BytesMut,
    unflushed: bool,
    unreceived: Unreceived,
}

impl<B: Backend> Sending<'_, B> {
    async fn run(&mut self, peer: &Arc<str>) -> Result<std::convert::Infallible, Ended> {
        let backend = &self.shared.backend;
        loop {
            let (deadline, kind, what) = match self.unreceived.until() {
                Some(until) => (Deadline::At(until), WaitKind::NetworkRead, "what was sent to be received"),
                None => {
                    let idle =
                        Deadline::Unbounded("a link with nothing on its way waits for something to send");
                    (idle, WaitKind::Receive, "something to send to a peer")
                }
            };
            let wait = backend.registry().waiting(backend, kind, what, Location::caller());
            let turn = wait.on(peer.clone()).bounded_by(deadline).during(poll_fn(|cx| self.poll(cx)));
            match within(backend, deadline, turn).await {
                Ok(moved) => moved?,
                Err(_) => return Err(Ended::Silent),
            }
        }
    }

    /// Ready when something moved, or it is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let mut moved = false;
        if let Poll::Ready(read) = self.poll_read(cx) {
            read?;
            moved = true;
        }
        if self.out.is_empty()
            && !self.unflushed
            && let Poll::Ready(task) = self.outbox.poll_task(cx)
        {
            self.begin(task)?;
            moved = true;
        }
        if let Poll::Ready(written) = self.poll_write(cx) {
            moved |= written?;
        }
        if moved { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn begin(&mut self, task: Task) -> Result<(), Ended> {
        let kind = match task {
            Task::Nudge(Nudge::Reconnect) => return Err(Ended::Replaced),
            Task::Nudge(Nudge::Probe) => {
                self.out.extend_from_slice(&frame::encode(FrameKind::Probe, &[]));
                FrameKind::Probe
            }
            Task::Messages(kind, messages) => {
                frame::put_messages(&mut self.out, kind, &messages);
                FrameKind::Messages(kind)
            }
        };
        self.shared.count_out(kind, self.out.len());
        self.unreceived.sent(self.out.len(), self.shared.backend.now());
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        self.input.reserve(LENGTH_BYTES + PEER_HELLO_BYTES_MAX);
        let read = {
            let reading = pin!(self.stream.read_buf(&mut self.input));
            std::task::ready!(reading.poll(cx))?
        };
        if read == 0 {
            return Poll::Ready(Err(Ended::Closed));
        }
        while let Next::Frame(kind, size) = frame::next(&self.input, PEER_HELLO_BYTES_MAX)? {
            let payload = &self.input[HEAD_BYTES..LENGTH_BYTES + size];
            match kind {
                FrameKind::Received => {
                    let in_all = frame::read_received(payload)?;
                    if !self.unreceived.received(in_all, self.shared.backend.now()) {
                        return Poll::Ready(Err(FrameError::Damaged("received").into()));
                    }
                }
                FrameKind::Refused => {
                    let why = super::hello::Refusal::decode(payload)?;
                    return Poll::Ready(Err(Ended::RefusedByPeer(why)));
                }
                other => return Poll::Ready(Err(FrameError::OutOfTurn(other.name()).into())),
            }
            self.shared.count_in(kind, LENGTH_BYTES + size);
            self.input.advance(LENGTH_BYTES + size);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what there is; whether anything was written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Ended>> {
        let mut wrote = false;
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Ended::Closed)),
                Poll::Ready(Ok(written)) => {
                    self.out.advance(written);
                    (wrote, self.unflushed) = (true, true);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending if wrote => return Poll::Ready(Ok(true)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.unflushed {
            std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
            if self.out.capacity() > READ_BUFFER_BYTES {
                self.out = BytesMut::new();
            }
            wrote = true;
        }
        Poll::Ready(Ok(wrote))
    }
}
