//! Connections that other nodes make: accepted (`cluster listener`), and read (`peer connection[ADDRESS]`).
//!
//! Who has not proved itself has a place among few, a small buffer and little time. A peer has one connection at a time,
//! the latest. What comes on it is charged to the peer's account, and handed over frame by frame; while the handler has no room,
//! that connection is not read, and no other is concerned. That it was read is said soon and not each time: a busy peer would be
//! written to, and woken, as often as it writes.

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use io_backend::published::Watcher;
use io_backend::stream::{self, Stream};
use io_backend::{Backend, Deadline, Listener, Moment, Published, TaskName, WaitKind};
use tracing::{debug, info, warn};

use super::frame::{self, FrameError, FrameKind, HEAD_BYTES, LENGTH_BYTES, MessageKind, Next};
use super::greeting::greet;
use super::handshake::Handshake;
use super::hello::{PeerIdentity, Refusal};
use super::roster::ConnectionNumber;
use super::shared::{Ended, Frame, ListenerOf, Shared, Taken, lock};
use crate::budget::{RequestClass, Share, charged};
use crate::ids::BrokerId;
use crate::limits::{
    PEER_FRAME_BYTES_MAX, PEER_FRAME_DEADLINE, PEER_HANDSHAKE_DEADLINE, PEER_READ_SAID_BYTES,
    PEER_READ_SAID_WITHIN, PEER_SILENT_DEADLINE, PEER_STRANGERS_MAX, READ_BUFFER_BYTES,
};
use crate::lines::Lines;

/// Pause after a failed accept: descriptors may be short for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Whom a connection is from before it is said.
const NOBODY: BrokerId = BrokerId(-1);

/// Accepts for as long as the node runs.
pub async fn accept<B: Backend>(shared: Arc<Shared<B>>, listener: ListenerOf<B>) {
    let failures = Lines::default();
    loop {
        match listener.accept().await {
            Ok((stream, address)) => welcome(&shared, stream, &address),
            Err(error) => {
                if let Some(times) = failures.next() {
                    warn!(%error, times, "a connection of a node could not be accepted; trying again in {ACCEPT_PAUSE:?}");
                }
                shared.backend.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn welcome<B: Backend>(shared: &Arc<Shared<B>>, stream: Stream<B>, address: &str) {
    let host: Arc<str> = address.rsplit_once(':').map_or(address, |(host, _)| host).into();
    let (joined, refused) = {
        let mut strangers = lock(&shared.strangers);
        (strangers.join(&host, PEER_STRANGERS_MAX), strangers.refused())
    };
    if !joined {
        // A flood of connections must not become a flood of lines.
        if refused.is_power_of_two() {
            warn!(%address, refused, "refused: too many connections to the cluster listener have not proved anything");
        }
        return;
    }
    let stranger = Stranger { shared: shared.clone(), host };
    // Before it runs: the node may stop until then.
    let (number, closing) = shared.begin_connection();
    let task = connection(shared.clone(), stream, stranger, number, closing);
    drop(shared.backend.spawn(TaskName::of("peer connection", address), task));
}

/// A place among those that have not proved anything.
struct Stranger<B: Backend> {
    shared: Arc<Shared<B>>,
    host: Arc<str>,
}

impl<B: Backend> Drop for Stranger<B> {
    fn drop(&mut self) {
        lock(&self.shared.strangers).leave(&self.host);
    }
}

async fn connection<B: Backend>(
    shared: Arc<Shared<B>>,
    mut stream: Stream<B>,
    stranger: Stranger<B>,
    number: ConnectionNumber,
    closing: Published<bool>,
) {
    let mut member = Member { shared: &shared, number, node: None };
    let host = stranger.host.clone();
    let serving = serve(&shared, &mut stream, stranger, &mut member);
    let ended = unless_closed(&mut closing.watcher(), serving).await.unwrap_or(Err(Ended::Replaced));
    let Err(ended) = ended;
    let node = member.node;
    let of = node.map_or_else(|| format!("from {host}"), |node| format!("of {node}"));
    drop(member);
    let is_usual = matches!(ended, Ended::Closed | Ended::Network(_) | Ended::Replaced);
    let is_told = shared.is_news(&of, &ended) && !is_usual;
    // Strangers say something new as often as they like.
    let strangers = if is_told && node.is_none() { shared.strange.next() } else { None };
    match (is_told, node, strangers) {
        (true, Some(_), _) => {
            warn!(address = %host, "a connection to the cluster listener is over: {ended}");
        }
        (true, None, Some(times)) => {
            warn!(address = %host, times, "a connection to the cluster listener is over: {ended}");
        }
        _ => debug!(%of, "a node's connection is over: {ended}"),
    }
}

/// A peer's membership while this connection is its latest; and the place that the connection has at all.
struct Member<'a, B: Backend> {
    shared: &'a Shared<B>,
    number: ConnectionNumber,
    node: Option<BrokerId>,
}

impl<B: Backend> Drop for Member<'_, B> {
    fn drop(&mut self) {
        if let Some(node) = self.node {
            self.shared.left(node, self.number);
        }
        lock(&self.shared.closings).of.remove(&self.number);
    }
}

async fn serve<B: Backend>(
    shared: &Shared<B>,
    stream: &mut Stream<B>,
    stranger: Stranger<B>,
    member: &mut Member<'_, B>,
) -> Result<std::convert::Infallible, Ended> {
    let handshake = Handshake::accept(shared.hello(NOBODY), shared.secret.clone());
    let soon = Deadline::after(&shared.backend, PEER_HANDSHAKE_DEADLINE);
    let mut judge = |identity: &PeerIdentity| {
        shared.admit(member.number, *identity)?;
        member.node = Some(identity.node);
        Ok::<(), Refusal>(())
    };
    let identity = greet(shared, stream, handshake, None, &mut judge, soon).await?;
    info!("{identity} is connected");
    lock(&shared.told).forget(&format!("from {}", stranger.host));
    drop(stranger);
    let number = member.number;
    let mut reading = Reading {
        shared,
        stream,
        identity,
        number,
        input: BytesMut::new(),
        read: 0,
        unsaid: None,
        share: None,
    };
    reading.run().await
}

/// `None`: the connection is to end.
async fn unless_closed<T>(closing: &mut Watcher<bool>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if *closing.watch(cx.waker()) {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

struct Reading<'a, B: Backend> {
    shared: &'a Shared<B>,
    stream: &'a mut Stream<B>,
    identity: PeerIdentity,
    number: ConnectionNumber,
    input: BytesMut,
    /// Bytes since the handshake.
    read: u64,
    /// By when the peer is to be told of that, and how many bytes it has not been told of.
    unsaid: Option<(Moment, usize)>,
    /// Room for the frame that is being read.
    share: Option<Share>,
}

impl<B: Backend> Reading<'_, B> {
    async fn run(&mut self) -> Result<std::convert::Infallible, Ended> {
        loop {
            match frame::next(&self.input, PEER_FRAME_BYTES_MAX)? {
                Next::Frame(kind, size) => {
                    self.charge(LENGTH_BYTES + size).await?;
                    self.take(kind, size).await?;
                }
                // Of what is larger than a buffer nothing more is read before there is room for all of it: a peer that has
                // proved itself sends what it announces.
                Next::Partial(size) if size > READ_BUFFER_BYTES => {
                    self.charge(LENGTH_BYTES + size).await?;
                    self.read(LENGTH_BYTES + size - self.input.len()).await?;
                }
                Next::Partial(_) | Next::Head => self.read(READ_BUFFER_BYTES).await?,
            }
        }
    }

    /// Has `amount` charged for the frame that is being read. It is the peer's own account: who has no room is held up by
    /// nobody but himself, and a frame that is larger than all of it comes when nothing else is there.
    async fn charge(&mut self, amount: usize) -> Result<(), Ended> {
        if self.share.is_none()
            && let Some(account) = self.shared.received_bytes.get(&self.identity.node)
        {
            self.share = Some(match account.try_take(RequestClass::Essential, amount) {
                Some(share) => share,
                None => {
                    self.say_read().await?;
                    let room = account.take(RequestClass::Essential, amount);
                    self.shared.bounded(WaitKind::Change, "room for what a peer sends", room).await?
                }
            });
        }
        Ok(())
    }

    async fn read(&mut self, room: usize) -> Result<(), Ended> {
        let backend = &self.shared.backend;
        let deadline = match self.input.is_empty() {
            true => Deadline::Unbounded(
                "a peer speaks when it has something to say; its newer connection, TCP or the node's stop end this one",
            ),
            false => Deadline::after(backend, PEER_FRAME_DEADLINE),
        };
        self.input.reserve(room);
        let read = loop {
            let said_by = self.unsaid.map(|(by, _)| by);
            let until = said_by.map_or(deadline, |by| deadline.earlier(Deadline::At(by)));
            match stream::read(backend, self.stream, &mut self.input, "frames of a peer", until).await {
                Err(error)
                    if error.kind() == ErrorKind::TimedOut
                        && said_by.is_some_and(|by| by <= backend.now()) =>
                {
                    self.say_read().await?;
                }
                read => break read?,
            }
        };
        if read == 0 {
            return Err(Ended::Closed);
        }
        let now = backend.now();
        lock(&self.shared.roster).heard(self.identity.node, self.number, now);
        self.read += read as u64;
        let (by, bytes) = self.unsaid.unwrap_or((now + PEER_READ_SAID_WITHIN, 0));
        self.unsaid = Some((by, bytes + read));
        if by <= now || bytes + read >= PEER_READ_SAID_BYTES {
            self.say_read().await?;
        }
        Ok(())
    }

    /// Tells the peer how much was read, unless it knows.
    async fn say_read(&mut self) -> Result<(), Ended> {
        if self.unsaid.take().is_none() {
            return Ok(());
        }
        let soon = Deadline::after(&self.shared.backend, PEER_SILENT_DEADLINE);
        self.shared.send(self.stream, FrameKind::Received, &frame::received(self.read), soon).await
    }

    /// Takes a whole frame from the front of what has come.
    async fn take(&mut self, kind: FrameKind, size: usize) -> Result<(), Ended> {
        self.shared.count_in(kind, LENGTH_BYTES + size);
        let framed = self.input.split_to(LENGTH_BYTES + size).freeze();
        if size > READ_BUFFER_BYTES {
            // The rest begins a buffer of its own: the large one goes with the messages in it.
            self.input = BytesMut::from(&self.input[..]);
        }
        let share = self.share.take();
        match kind {
            FrameKind::Messages(kind) => {
                let framed = match share {
                    Some(share) => charged(framed, share),
                    None => framed,
                };
                self.hand_over(kind, frame::messages(kind, framed.slice(HEAD_BYTES..))?).await
            }
            FrameKind::Probe => Ok(()),
            FrameKind::Refused => Err(Ended::RefusedByPeer(Refusal::decode(&framed[HEAD_BYTES..])?)),
            other => Err(FrameError::OutOfTurn(other.name()).into()),
        }
    }

    async fn hand_over(&mut self, kind: MessageKind, messages: Vec<bytes::Bytes>) -> Result<(), Ended> {
        match self.shared.handler.received(&self.identity, Frame { kind, messages }) {
            Taken::Now => Ok(()),
            Taken::Later(taken) => {
                self.say_read().await?;
                self.shared.bounded(WaitKind::Send, "what a peer sent to be taken", taken).await
            }
        }
    }
}
