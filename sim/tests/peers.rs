//! Three nodes that talk to one another while their network and processes break.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::config::{PeerAddress, Secret};
use broker::ids::{BrokerId, Incarnation, IncarnationId, StorageId};
use broker::metrics::Metrics;
use broker::peers::{Frame, MessageKind, PeerHandler, PeerIdentity, Peers, PeersContext, Taken};
use bytes::{Buf, BufMut, BytesMut};
use io_backend::{Backend, Clock, Network, Published};
use sim::fault::{Fault, FaultKind, Span};
use sim::world::{Options, SimBackend, World};
use uuid::Uuid;

const NODES: u32 = 3;
/// Faults end here.
const HEALED: Duration = Duration::from_secs(40);
/// A link that is silent is given up after 2 s; the pause, the connect and the handshake have 2 s each.
const BOUND: Duration = Duration::from_secs(8);
const BYTES: usize = 4 << 20;

/// A node, and which start of it.
type Process = (i32, u64);

/// What the nodes have seen, and how they are reached, for who looks on.
#[derive(Default)]
struct Seen {
    starts: BTreeMap<u32, u64>,
    peers: BTreeMap<u32, Peers<SimBackend>>,
    /// By receiving and sending process: the last number, and how many.
    last: BTreeMap<(Process, Process), (u64, u64)>,
    wrong: Vec<String>,
    /// By receiver and sender: when a message last came, and when that was sent.
    latest: BTreeMap<(i32, i32), Duration>,
}

struct Handler {
    own: PeerIdentity,
    seen: Arc<Mutex<Seen>>,
    backend: SimBackend,
}

fn process(identity: &PeerIdentity) -> Process {
    (identity.node.0, identity.incarnation.0)
}

impl PeerHandler for Handler {
    fn received(&self, from: &PeerIdentity, frame: Frame) -> Taken {
        let mut seen = self.seen.lock().unwrap();
        for mut message in frame.messages {
            let (number, sent) = (message.get_u64(), Duration::from_nanos(message.get_u64()));
            let last = seen.last.entry((process(&self.own), process(from))).or_default();
            let before = *last;
            *last = (number, last.1 + 1);
            if number <= before.0 {
                seen.wrong.push(format!("{from}: {number} after {} at {}", before.0, self.own));
            }
            seen.latest.insert((self.own.node.0, from.node.0), sent);
        }
        drop(seen);
        match self.backend.random_u64() % 50 {
            0 => Taken::Later(Box::pin(self.backend.sleep(Duration::from_millis(100)))),
            _ => Taken::Now,
        }
    }
}

/// A process: says something to each of the others, again and again.
async fn talk(backend: SimBackend, node: u32, seen: Arc<Mutex<Seen>>, kernel: Arc<sim::world::Kernel>) {
    let start = {
        let mut seen = seen.lock().unwrap();
        let starts = seen.starts.entry(node).or_default();
        *starts += 1;
        *starts
    };
    let own = PeerIdentity {
        node: BrokerId(node as i32),
        storage: StorageId(Uuid::from_u128(u128::from(node))),
        incarnation: Incarnation(start),
        incarnation_id: IncarnationId(Uuid::from_u128(u128::from(backend.random_u64()))),
    };
    let listener = backend.network().listen("0.0.0.0:9093").await.unwrap();
    let address = |node: u32| PeerAddress { id: BrokerId(node as i32), address: format!("node{node}:9093") };
    let peers = Peers::start(PeersContext {
        backend: backend.clone(),
        metrics: Arc::new(Metrics::default()),
        own,
        cluster_id: Published::new("cluster id", "one".to_owned()),
        peers: (1..=NODES).map(address).collect(),
        secret: Some(Secret::new("correct horse battery").unwrap()),
        bytes: BYTES,
        listener,
        handler: Arc::new(Handler { own, seen: seen.clone(), backend: backend.clone() }),
    });
    seen.lock().unwrap().peers.insert(node, peers.clone());
    for number in 1_u64.. {
        for to in peers.all().collect::<Vec<_>>() {
            let size = match backend.random_u64() % 100 {
                0 => 150_000,
                1..10 => 9_000,
                _ => 100,
            };
            let mut message = BytesMut::with_capacity(16 + size);
            message.put_u64(number);
            message.put_u64(kernel.elapsed().as_nanos() as u64);
            message.put_bytes(7, size);
            peers.send(to, MessageKind::Raft, message.freeze()).unwrap();
            let (messages, bytes) = peers.queued(to);
            assert!(messages <= 4_096 && bytes <= BYTES / 2, "{messages} messages, {bytes} bytes");
        }
        backend.sleep(Duration::from_millis(20)).await;
    }
}

/// What breaks, of this seed: on each node something every few seconds.
fn faults(seed: u64) -> Vec<Fault> {
    let kinds = [
        FaultKind::Partition,
        FaultKind::Reset,
        FaultKind::Silence,
        FaultKind::SlowLink,
        FaultKind::Loss,
        FaultKind::Delay,
        FaultKind::Flapping,
        FaultKind::ConnectHangs,
        FaultKind::Kill,
        FaultKind::PowerLoss,
        FaultKind::Pause,
        FaultKind::OneWay,
    ];
    let mut found = Vec::new();
    for (index, at) in (2..HEALED.as_secs()).step_by(3).enumerate() {
        let draw = seed.wrapping_mul(7).wrapping_add(index as u64 * 5);
        let kind = kinds[draw as usize % kinds.len()];
        let node = u32::try_from((draw / 3) % u64::from(NODES)).unwrap() + 1;
        let length = Duration::from_millis(500 + (draw * 977) % 6_000);
        let length =
            if matches!(kind, FaultKind::Reset | FaultKind::Silence) { Duration::ZERO } else { length };
        let mut fault = Fault::new(kind).on(node).window(Duration::from_secs(at), length);
        match kind {
            FaultKind::SlowLink => fault.bytes_per_s = Some(20_000),
            FaultKind::Loss => fault.per_mille = Some(200),
            FaultKind::Delay | FaultKind::Flapping => fault.delay = Some(Span::millis(700)),
            FaultKind::ConnectHangs => fault.per_mille = Some(500),
            _ => {}
        }
        fault.check().unwrap_or_else(|error| panic!("{error}"));
        found.push(fault);
    }
    found
}

#[derive(Debug, PartialEq)]
struct End {
    /// Messages that came.
    came: u64,
    memory_peak: u64,
    trouble: Vec<String>,
}

fn run(seed: u64) -> (End, u64, u64) {
    let outcome = World::run(seed, Options::default(), move |world| async move {
        let seen = Arc::<Mutex<Seen>>::default();
        for node in 1..=NODES {
            let (seen, kernel) = (seen.clone(), world.kernel().clone());
            world.node(node).start(move |backend| talk(backend, node, seen.clone(), kernel.clone()));
        }
        for fault in faults(seed) {
            world.inject(&fault);
        }
        world.sleep_until(HEALED).await;
        world.heal_all();
        for node in 1..=NODES {
            world.node(node).start_again();
        }
        world.sleep(BOUND).await;
        let healed = world.now();
        world.sleep(Duration::from_secs(1)).await;
        let mut trouble = Vec::new();
        let mut seen = seen.lock().unwrap();
        for to in 1..=NODES as i32 {
            for from in (1..=NODES as i32).filter(|from| *from != to) {
                if seen.latest.get(&(to, from)).is_none_or(|sent| *sent < healed) {
                    trouble.push(format!("nothing of late came from {from} to {to}"));
                }
            }
        }
        for (node, peers) in &seen.peers {
            let reachable = peers.reachable().get();
            for (other, identity) in reachable.iter() {
                if Some(&identity.incarnation.0) != seen.starts.get(&(other.0 as u32)) {
                    trouble.push(format!("{node} is linked to {identity}, which is gone"));
                }
            }
            if reachable.len() != NODES as usize - 1 {
                trouble.push(format!("{node} reaches {reachable:?}"));
            }
        }
        trouble.append(&mut seen.wrong);
        seen.peers.clear();
        let came = seen.last.values().map(|(_, count)| count).sum();
        let peaks = (1..=NODES).filter_map(|node| world.node(node).counts()).map(|counts| counts.memory_peak);
        End { came, memory_peak: peaks.max().unwrap_or(0), trouble }
    });
    let end = outcome.result.unwrap_or_else(|stop| panic!("seed {seed}: {stop}\n{:?}", outcome.explanation));
    let hits = outcome.fault_hits.iter().filter(|hits| hits.hits > 0).count() as u64;
    (end, hits, outcome.trace_hash)
}

#[test]
fn links_are_up_again_within_a_bound_whatever_broke_and_nothing_comes_twice_or_out_of_order() {
    let mut hits = 0;
    for seed in 1..=8 {
        let (end, hit, _) = run(seed);
        println!("seed {seed}: {} messages, {} bytes at most, {hit} faults", end.came, end.memory_peak);
        assert!(end.trouble.is_empty(), "seed {seed}: {:#?}", end.trouble);
        assert!(end.came > 2_000, "seed {seed}: {}", end.came);
        assert!(end.memory_peak < 24 << 20, "seed {seed}: {}", end.memory_peak);
        hits += hit;
    }
    assert!(hits > 60, "{hits} faults touched something");
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(run(1), run(1));
}
