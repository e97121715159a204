//! Several nodes over real sockets.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use io_backend::real::{DiskChoice, RealBackend};
use io_backend::stream::{self, Stream};
use io_backend::{Clock, Deadline, Listener, Network};
use uuid::Uuid;

use super::frame::{FrameKind, HEAD_BYTES, Next};
use super::handshake::{Handshake, Step};
use super::hello::{Hello, NONCE_BYTES, Refusal};
use super::*;
use crate::ids::{Incarnation, IncarnationId, StorageId};
use crate::metrics::ReasonLabel;

/// Keeps what comes, and takes nothing more of some nodes while it is told so.
struct Recorder {
    backend: RealBackend,
    seen: Mutex<Vec<(PeerIdentity, Bytes)>>,
    held_up: Published<Vec<BrokerId>>,
}

impl PeerHandler for Recorder {
    fn received(&self, from: &PeerIdentity, frame: Frame) -> Taken {
        let mut seen = lock(&self.seen);
        seen.extend(frame.messages.into_iter().map(|message| (*from, message)));
        let node = from.node;
        if !self.held_up.get().contains(&node) {
            return Taken::Now;
        }
        let (backend, held_up) = (self.backend.clone(), self.held_up.clone());
        Taken::Later(Box::pin(async move {
            let soon = Deadline::after(&backend, Duration::from_secs(60));
            let _ = held_up.until(&backend, soon, |held_up| !held_up.contains(&node)).await;
        }))
    }
}

impl Recorder {
    fn from(&self, node: i32) -> Vec<Bytes> {
        let seen = lock(&self.seen);
        seen.iter().filter(|(from, _)| from.node.0 == node).map(|(_, message)| message.clone()).collect()
    }
}

struct Node {
    peers: Peers<RealBackend>,
    recorder: Arc<Recorder>,
    metrics: Arc<Metrics>,
}

impl Node {
    fn send(&self, to: i32, message: &[u8]) {
        self.peers.send(BrokerId(to), MessageKind::Raft, Bytes::copy_from_slice(message)).unwrap();
    }

    fn reaches(&self, node: i32) -> Option<PeerIdentity> {
        self.peers.reachable().get().get(&BrokerId(node)).copied()
    }

    fn refused(&self, why: Refusal) -> u64 {
        self.metrics.peer_handshakes_refused.get_or_create(&ReasonLabel { reason: why.reason() }).get()
    }
}

fn identity(node: i32, incarnation: u64) -> PeerIdentity {
    PeerIdentity {
        node: BrokerId(node),
        storage: StorageId(Uuid::from_u128(node as u128)),
        incarnation: Incarnation(incarnation),
        incarnation_id: IncarnationId(Uuid::from_u128(u128::from(incarnation) << 32 | node as u128)),
    }
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text).unwrap())
}

fn shared_secret() -> Option<Secret> {
    secret("correct horse battery")
}

struct Place {
    backend: RealBackend,
    addresses: Vec<PeerAddress>,
}

impl Place {
    async fn listen(&self, node: i32) -> ListenerOf<RealBackend> {
        self.backend.network().listen(&self.addresses[node as usize - 1].address).await.unwrap()
    }

    fn start(&self, own: PeerIdentity, secret: Option<Secret>, listener: ListenerOf<RealBackend>) -> Node {
        let recorder = Arc::new(Recorder {
            backend: self.backend.clone(),
            seen: Mutex::default(),
            held_up: Published::new("held up", Vec::new()),
        });
        let metrics = Arc::<Metrics>::default();
        let peers = Peers::start(PeersContext {
            backend: self.backend.clone(),
            metrics: metrics.clone(),
            own,
            cluster_id: Published::new("cluster id", String::new()),
            peers: self.addresses.clone(),
            secret,
            bytes: 64 << 20,
            listener,
            handler: recorder.clone(),
        });
        Node { peers, recorder, metrics }
    }

    async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let until = self.backend.now() + Duration::from_secs(30);
        while !done() {
            assert!(self.backend.now() < until, "{what}");
            self.backend.sleep(Duration::from_millis(1)).await;
        }
    }

    fn soon(&self) -> Deadline {
        Deadline::after(&self.backend, Duration::from_secs(30))
    }

    async fn connect(&self, node: i32) -> Stream<RealBackend> {
        self.backend.network().connect(&self.addresses[node as usize - 1].address, self.soon()).await.unwrap()
    }

    /// The next frame; `None` when the other closed the connection.
    async fn frame(
        &self,
        stream: &mut Stream<RealBackend>,
        input: &mut BytesMut,
    ) -> Option<(FrameKind, Bytes)> {
        loop {
            if let Next::Frame(kind, size) = frame::next(input, 1 << 20).unwrap() {
                let mut framed = input.split_to(frame::LENGTH_BYTES + size);
                framed.advance(HEAD_BYTES);
                return Some((kind, framed.freeze()));
            }
            input.reserve(1_024);
            match stream::read(&self.backend, stream, input, "test", self.soon()).await {
                Ok(1..) => {}
                Ok(0) => return None,
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => panic!("{error}"),
                Err(_) => return None,
            }
        }
    }

    async fn write(&self, stream: &mut Stream<RealBackend>, bytes: &[u8]) {
        stream::write_all(&self.backend, stream, bytes, "test", self.soon()).await.unwrap();
    }

    /// One side of a handshake, carried out by hand.
    async fn greet(
        &self,
        stream: &mut Stream<RealBackend>,
        (mut handshake, first): (Handshake, Option<Bytes>),
    ) -> Result<PeerIdentity, Refusal> {
        if let Some(first) = first {
            self.write(stream, &first).await;
        }
        let mut input = BytesMut::new();
        loop {
            let (kind, payload) = self.frame(stream, &mut input).await.expect("an answer");
            match handshake.received(kind, &payload, &mut |_| Ok(())) {
                Step::Answer(answer) => self.write(stream, &answer).await,
                Step::Peer(identity, welcome) => {
                    if let Some(welcome) = welcome {
                        self.write(stream, &welcome).await;
                    }
                    return Ok(identity);
                }
                Step::Refuse(why, _) => panic!("this side refuses: {why}"),
                Step::Refused(why) => return Err(why),
            }
        }
    }

    async fn connect_as(
        &self,
        own: PeerIdentity,
        to: i32,
        secret: Option<Secret>,
    ) -> Result<Stream<RealBackend>, Refusal> {
        let mut stream = self.connect(to).await;
        let (handshake, first) = Handshake::initiate(hello(own, to), secret);
        self.greet(&mut stream, (handshake, Some(first))).await?;
        Ok(stream)
    }
}

fn hello(identity: PeerIdentity, expects: i32) -> Hello {
    Hello { identity, expects: BrokerId(expects), cluster: String::new(), nonce: [7; NONCE_BYTES] }
}

/// Runs `test` with so many addresses, each of which somebody listens on until it is given away.
fn with_places(nodes: i32, test: impl AsyncFnOnce(&Place, Vec<ListenerOf<RealBackend>>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (backend, _) = RealBackend::start(DiskChoice::Threads, home.path()).unwrap();
        let (mut addresses, mut listeners) = (Vec::new(), Vec::new());
        for node in 1..=nodes {
            let listener = backend.network().listen("127.0.0.1:0").await.unwrap();
            addresses.push(PeerAddress { id: BrokerId(node), address: listener.local_address() });
            listeners.push(listener);
        }
        test(&Place { backend, addresses }, listeners).await;
    });
}

fn three_nodes(test: impl AsyncFnOnce(&Place, [Node; 3])) {
    with_places(3, async |place, listeners| {
        let nodes: Vec<Node> = (1..)
            .zip(listeners)
            .map(|(node, listener)| place.start(identity(node, 1), shared_secret(), listener))
            .collect();
        let Ok(nodes) = <[Node; 3]>::try_from(nodes) else { panic!("three") };
        place
            .until("all are linked", || nodes.iter().all(|node| node.peers.reachable().get().len() == 2))
            .await;
        test(place, nodes).await;
    });
}

#[test]
fn nodes_of_one_secret_reach_one_another_and_what_they_say_comes_in_order() {
    three_nodes(async |place, nodes| {
        assert_eq!(nodes[0].reaches(2), Some(identity(2, 1)));
        assert_eq!(nodes[0].metrics.peers_connected.get(), 2);
        let said: Vec<Vec<u8>> = (0..1_000_u32)
            .map(|number| {
                let mut message = number.to_be_bytes().to_vec();
                message.resize(4 + (number as usize * 7) % 500, 1);
                message
            })
            .chain([vec![9; 1 << 20], vec![8; 70_000], vec![]])
            .collect();
        for (from, node) in (1..).zip(&nodes) {
            for to in (1..=3).filter(|to| *to != from) {
                for message in &said {
                    node.send(to, message);
                }
            }
        }
        for to in 1..=3_i32 {
            for from in (1..=3).filter(|from| *from != to) {
                let recorder = &nodes[to as usize - 1].recorder;
                place.until("all comes", || recorder.from(from).len() == said.len()).await;
                assert!(recorder.from(from) == said, "from {from} to {to}");
            }
        }
        let too_large = Bytes::from(vec![0; PEER_MESSAGE_BYTES_MAX + 1]);
        let refused = nodes[0].peers.send(BrokerId(2), MessageKind::Raft, too_large);
        assert_eq!(refused, Err(PeerSendError::TooLarge(PEER_MESSAGE_BYTES_MAX + 1)));
        let refused = nodes[0].peers.send(BrokerId(1), MessageKind::Raft, Bytes::new());
        assert_eq!(refused, Err(PeerSendError::UnknownPeer(BrokerId(1))));
        assert!(nodes.iter().all(|node| node.metrics.peer_bytes.get() >= 0));
        for node in &nodes {
            lock(&node.recorder.seen).clear();
            place.until("what came is given back", || node.metrics.peer_bytes.get() == 0).await;
        }
    });
}

#[test]
fn nodes_with_different_secrets_refuse_one_another_and_say_so() {
    with_places(2, async |place, listeners| {
        let mut listeners = listeners.into_iter();
        let one = place.start(identity(1, 1), shared_secret(), listeners.next().unwrap());
        let two = place.start(identity(2, 1), secret("another secret here"), listeners.next().unwrap());
        place
            .until("both refuse", || {
                one.refused(Refusal::WrongSecret) > 1 && two.refused(Refusal::WrongSecret) > 1
            })
            .await;
        assert_eq!((one.reaches(2), two.reaches(1)), (None, None));
        let nobody = place.connect_as(identity(2, 1), 1, None).await;
        assert_eq!(nobody.err(), Some(Refusal::WrongSecret), "whoever has none is told as well");
    });
}

#[test]
fn a_newer_connection_of_a_peer_replaces_the_older_and_an_older_start_is_refused() {
    with_places(2, async |place, listeners| {
        let mut listeners = listeners.into_iter();
        let node = place.start(identity(1, 1), shared_secret(), listeners.next().unwrap());
        let connect = async |own| place.connect_as(own, 1, shared_secret()).await;
        let mut first = connect(identity(2, 5)).await.unwrap();
        let mut second = connect(identity(2, 5)).await.unwrap();
        assert_eq!(place.frame(&mut first, &mut BytesMut::new()).await, None, "the first is over");
        let mut message = BytesMut::new();
        frame::put_messages(&mut message, MessageKind::Raft, &[Bytes::from_static(b"still there")]);
        place.write(&mut second, &message).await;
        let received = place.frame(&mut second, &mut BytesMut::new()).await.unwrap();
        assert_eq!(
            received,
            (FrameKind::Received, Bytes::copy_from_slice(&(message.len() as u64).to_be_bytes()))
        );
        place.until("it comes", || node.recorder.from(2) == [&b"still there"[..]]).await;
        let later = connect(identity(2, 6)).await;
        assert!(later.is_ok());
        assert_eq!(place.frame(&mut second, &mut BytesMut::new()).await, None, "it was of an older start");
        let two = BrokerId(2);
        assert_eq!(connect(identity(2, 5)).await.err(), Some(Refusal::Stale(two)));
        let mut copy = identity(2, 6);
        copy.incarnation_id = IncarnationId(Uuid::from_u128(1));
        assert_eq!(connect(copy).await.err(), Some(Refusal::Stale(two)));
        let mut other = identity(2, 1);
        other.storage = StorageId(Uuid::from_u128(99));
        assert_eq!(connect(other).await.err(), Some(Refusal::Duplicate(two)), "the known one was just heard");
        assert_eq!(connect(identity(1, 9)).await.err(), Some(Refusal::Duplicate(BrokerId(1))));
        assert_eq!(connect(identity(4, 1)).await.err(), Some(Refusal::UnknownNode(BrokerId(4))));
        let lost = place.connect(1).await;
        let mut lost = lost;
        let (handshake, hello) = Handshake::initiate(hello(identity(2, 7), 3), shared_secret());
        let told = place.greet(&mut lost, (handshake, Some(hello))).await;
        assert_eq!(told.err(), Some(Refusal::OtherNode(BrokerId(1))));
        assert_eq!(node.refused(Refusal::Stale(two)), 2);
    });
}

#[test]
fn a_node_that_was_away_is_linked_again_and_what_waited_for_it_comes() {
    three_nodes(async |place, nodes| {
        let [one, two, _three] = nodes;
        two.peers.stop();
        place.until("it is missed", || one.reaches(2).is_none()).await;
        one.send(2, b"meanwhile");
        drop(two);
        let again = place.start(identity(2, 2), shared_secret(), place.listen(2).await);
        place.until("it is back", || one.reaches(2) == Some(identity(2, 2))).await;
        place.until("what waited comes", || again.recorder.from(1) == [&b"meanwhile"[..]]).await;
        again.send(1, b"back");
        place.until("it is heard", || one.recorder.from(2) == [&b"back"[..]]).await;
    });
}

#[test]
fn a_slow_handler_holds_up_the_connection_that_it_is_slow_for_and_no_other() {
    three_nodes(async |place, nodes| {
        nodes[0].recorder.held_up.publish(vec![BrokerId(2)]);
        nodes[1].send(1, b"first");
        place.until("the first comes", || nodes[0].recorder.from(2).len() == 1).await;
        nodes[1].send(1, b"second");
        for number in 0..100_u8 {
            nodes[2].send(1, &[number]);
        }
        place.until("the others are heard", || nodes[0].recorder.from(3).len() == 100).await;
        assert_eq!(nodes[0].recorder.from(2).len(), 1);
        nodes[0].recorder.held_up.publish(Vec::new());
        place.until("the second comes", || nodes[0].recorder.from(2).len() == 2).await;
    });
}

#[test]
fn what_waits_for_a_peer_that_does_not_read_is_bounded_and_the_newest_is_kept() {
    with_places(2, async |place, listeners| {
        let mut listeners = listeners.into_iter();
        let node = place.start(identity(1, 1), shared_secret(), listeners.next().unwrap());
        let silent = listeners.next().unwrap();
        let (mut stream, _) = silent.accept().await.unwrap();
        let handshake = Handshake::accept(hello(identity(2, 1), -1), shared_secret());
        assert_eq!(place.greet(&mut stream, (handshake, None)).await, Ok(identity(1, 1)));
        place.until("it is linked", || node.reaches(2).is_some()).await;
        for number in 0..200_u32 {
            let mut message = vec![0; 200_000];
            message[..4].copy_from_slice(&number.to_be_bytes());
            node.send(2, &message);
        }
        let (messages, bytes) = node.peers.queued(BrokerId(2));
        assert!((1..=41).contains(&messages) && bytes <= 8 << 20, "{messages} messages, {bytes} bytes");
        let dropped = node.metrics.peer_messages_dropped.get_or_create(&FrameLabel { kind: "raft" }).get();
        assert!(dropped >= 159, "{dropped}");
        place.until("it is given up", || node.reaches(2).is_none()).await;
    });
}

#[test]
fn strangers_are_told_apart_from_peers_and_cost_little() {
    with_places(2, async |place, listeners| {
        let mut listeners = listeners.into_iter();
        let node = place.start(identity(1, 1), shared_secret(), listeners.next().unwrap());
        let mut browser = place.connect(1).await;
        place.write(&mut browser, b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut answer = BytesMut::with_capacity(1_024);
        while stream::read(&place.backend, &mut browser, &mut answer, "test", place.soon())
            .await
            .is_ok_and(|read| read > 0)
        {
            answer.reserve(1_024);
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 400 ") && answer.ends_with(b"on the admin port\n"),
            "{answer:?}"
        );
        let table: [&[u8]; 4] =
            [&[0, 0, 0, 20, 0, 18, 0, 4, 0, 0, 0, 0], &[0xff; 64], &[0, 0, 0, 1, 16], &[0, 0, 0, 3, 1, 9, 9]];
        for bytes in table {
            let mut stranger = place.connect(1).await;
            place.write(&mut stranger, bytes).await;
            let mut input = BytesMut::new();
            let (kind, payload) = place.frame(&mut stranger, &mut input).await.unwrap();
            assert_eq!(
                (kind, Refusal::decode(&payload)),
                (FrameKind::Refused, Ok(Refusal::NotAPeer)),
                "{bytes:?}"
            );
            assert_eq!(place.frame(&mut stranger, &mut input).await, None, "{bytes:?}");
        }
        assert_eq!(node.refused(Refusal::NotAPeer), 5);
        // Those who say nothing take half of the places, and give them back in time.
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(place.connect(1).await);
        }
        let patient = place.connect_as(identity(2, 1), 1, shared_secret());
        place.until("some are turned away", || lock(&node.peers.shared.strangers).refused() >= 20).await;
        drop(patient);
        place.until("their time is over", || lock(&node.peers.shared.closings).of.is_empty()).await;
        assert!(place.connect_as(identity(2, 1), 1, shared_secret()).await.is_ok());
    });
}

#[test]
fn what_was_read_is_said_soon_and_not_each_time() {
    with_places(2, async |place, mut listeners| {
        let one = place.start(identity(1, 1), shared_secret(), listeners.remove(0));
        let mut stream = place.connect_as(identity(2, 1), 1, shared_secret()).await.expect("a peer");
        let (probe, mut input) = (frame::encode(FrameKind::Probe, &[]), BytesMut::new());
        let mut said = Vec::new();
        for _ in 0..2 {
            for _ in 0..100 {
                place.write(&mut stream, &probe).await;
                place.backend.sleep(Duration::from_micros(100)).await;
            }
            let sent = (said.len() as u64, said.last().copied().unwrap_or(0) + 100 * probe.len() as u64);
            while said.last() != Some(&sent.1) {
                let (kind, payload) = place.frame(&mut stream, &mut input).await.expect("it goes on");
                assert_eq!(kind, FrameKind::Received);
                said.push(frame::read_received(&payload).unwrap());
            }
            let times = said.len() as u64 - sent.0;
            assert!(times < 20, "100 frames, and said {times} times that they were read");
        }
        drop(one);
    });
}
