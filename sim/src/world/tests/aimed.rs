//! Faults aimed at states, operations that never complete, and what the trace tells of contents.

use super::*;
use crate::fault::{Extent, Operation};
use io_backend::{DedicatedDisk, DedicatedFile, DedicatedLoop, Listener, Network};

const JOURNAL: &str = "data/journal/1.journal";

fn aimed(kind: FaultKind, when: &str, nth: Option<u64>, length: Duration) -> Fault {
    Fault { when: Some(when.parse().unwrap()), nth, ..fault(kind, Duration::ZERO, length) }
}

async fn prepared(backend: &SimBackend, path: &str) -> SimFile {
    let disk = backend.disk();
    let parent = Path::new(path).parent().unwrap();
    disk.create_dir_all(parent, soon(backend)).await.unwrap();
    let file = disk.open(Path::new(path), OpenHow::OrCreate, soon(backend)).await.unwrap();
    disk.sync_dir(parent, soon(backend)).await.unwrap();
    file
}

/// Writes a durable block every 10 ms.
struct Commits(SimBackend);

impl DedicatedLoop<SimBackend> for Commits {
    async fn run(self, disk: SimDedicatedDisk) {
        let file = disk.open(Path::new(JOURNAL)).await.unwrap();
        for number in 1.. {
            self.0.sleep(10 * MS).await;
            let _ = file.write_durable(512 * number, vec![number as u8; 512]).await;
        }
    }
}

async fn committing(backend: SimBackend) {
    let file = prepared(&backend, JOURNAL).await;
    file.set_len(1 << 16, soon(&backend)).await.unwrap();
    file.sync(soon(&backend)).await.unwrap();
    drop(backend.spawn_dedicated("commit", Commits(backend.clone())));
    let listener = backend.network().listen("node1:9092").await.unwrap();
    let _ = listener.accept().await;
    std::future::pending::<()>().await;
}

fn durable_block(world: &World, number: u64) -> bool {
    let bytes = world.node(1).disk().durable_bytes(Path::new(JOURNAL)).unwrap();
    bytes[512 * number as usize] == number as u8
}

#[test]
fn the_power_goes_while_the_third_group_is_in_flight() {
    lived(1, |world| async move {
        world.node(1).start(committing);
        let id =
            world.inject(&aimed(FaultKind::PowerLoss, "group-in-flight", Some(3), Duration::from_secs(9)));
        world.sleep(100 * MS).await;
        let hits = &world.fault_hits()[id.0];
        assert!(!world.node(1).is_running());
        assert!((30_000_000..32_000_000).contains(&hits.from), "{hits:?}");
        assert_eq!(hits.hits, 1);
        assert!(durable_block(&world, 2));
        assert_eq!(world.node(1).disk().syncs().len(), 3, "of the preparation and of two groups");
    });
}

#[test]
fn a_lost_group_is_missing_only_where_a_later_one_shows_it() {
    lived(1, |world| async move {
        world.node(1).start(committing);
        for nth in [2, 4] {
            let lost = aimed(FaultKind::LostWrite, "group-in-flight", Some(nth), 5 * MS);
            world.inject(&Fault { count: Some(1), ..lost });
        }
        world.sleep(45 * MS).await;
        let there = || [1, 2, 3, 4].map(|number| durable_block(&world, number));
        assert_eq!(there(), [true, false, true, false]);
        assert!(world.node(1).kill());
        assert_eq!(
            there(),
            [true, false, true, true],
            "the fourth reads like one that was never acknowledged"
        );
    });
}

#[test]
fn a_stall_aimed_at_a_group_holds_that_very_group() {
    lived(2, |world| async move {
        world.node(1).start(committing);
        let id = world.inject(&aimed(FaultKind::DiskStall, "group-in-flight", None, Duration::from_secs(2)));
        world.sleep(Duration::from_secs(1)).await;
        assert!(!durable_block(&world, 1));
        world.sleep(Duration::from_secs(2)).await;
        assert!(durable_block(&world, 1) && durable_block(&world, 2));
        let hits = &world.fault_hits()[id.0];
        assert_eq!(hits.until - hits.from, 2_000_000_000);
        assert!(hits.hits > 0);
    });
}

#[test]
fn a_recovery_ends_where_clients_are_accepted() {
    let died_at = |nth| {
        lived(3, move |world| async move {
            world.node(1).start(committing);
            world.inject(&aimed(FaultKind::Kill, "recovery", Some(nth), 5 * MS));
            world.sleep(50 * MS).await;
            world.node(1).incarnation().unwrap()
        })
    };
    assert_eq!((died_at(1), died_at(5)), (2, 2), "killed while it started, and started again");
    assert_eq!(died_at(7), 1, "it asks no more than six things of its disk before");
}

#[test]
fn what_did_not_meet_its_state_does_not_come_after_the_healing() {
    lived(4, |world| async move {
        world.node(1).start(committing);
        world.inject(&aimed(FaultKind::Kill, "write:20", None, MS));
        world.sleep(100 * MS).await;
        world.heal_all();
        world.sleep(Duration::from_secs(1)).await;
        assert_eq!(world.node(1).incarnation(), Some(1));
        let hits = &world.fault_hits()[0];
        assert_eq!((hits.from, hits.until, hits.hits), (u64::MAX, u64::MAX, 0));
    });
}

#[test]
fn an_operation_that_is_never_to_complete_outlives_the_healing_and_not_its_process() {
    lived(5, |world| async move {
        let node = world.node(1);
        node.start(|backend| async move {
            let file = prepared(&backend, "data/p/0.log").await;
            let listener = backend.network().listen("node1:9092").await.unwrap();
            backend.spawn("kafka", async move { drop(listener.accept().await) });
            loop {
                let _ = file.sync(Deadline::after(&backend, 10 * MS)).await;
                backend.sleep(10 * MS).await;
            }
        });
        let mut hangs = fault(FaultKind::DiskStall, 50 * MS, MS);
        (hangs.for_, hangs.count, hangs.operation) = (Extent::Forever, Some(1), Some(Operation::Sync));
        world.inject(&hangs);
        world.sleep(Duration::from_secs(1)).await;
        let hung = || {
            let old = |entry: &io_backend::registry::Entry| entry.operation && entry.since.0 < 100_000_000;
            node.backend().unwrap().registry().snapshot().into_iter().filter(old).count()
        };
        assert_eq!(hung(), 1);
        world.heal_all();
        world.sleep(Duration::from_secs(1)).await;
        assert_eq!(hung(), 1);
        let syncs = node.disk().counts().syncs;
        node.restart();
        world.sleep(Duration::from_secs(1)).await;
        assert_eq!(hung(), 0);
        assert!(node.disk().counts().syncs > syncs);
    });
}

/// One byte of a file, one of a segment on the network.
async fn tells(world: World, written: u8, sent: u8) {
    let node = world.client("node1");
    let own = node.clone();
    on(&node, async move {
        let file = prepared(&own, "data/a").await;
        file.write_at(0, Bytes::from(vec![written]), soon(&own)).await.unwrap();
    })
    .await;
    let listener = node.network().listen("node1:9092").await.unwrap();
    let client = world.client("client-1");
    let mut stream = client.network().connect("node1:9092", soon(&client)).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[sent]).await.unwrap();
    world.sleep(MS).await;
    drop(listener);
}

#[test]
fn the_hash_of_a_run_is_of_contents_too() {
    let hash = |written, sent| {
        let run = World::run(6, Options::default(), move |world| tells(world, written, sent));
        assert_eq!(run.result, Ok(()));
        (run.trace_hash, run.events)
    };
    let one = hash(1, 1);
    assert_eq!(one, hash(1, 1));
    for other in [hash(2, 1), hash(1, 2)] {
        assert_eq!(one.1, other.1, "the same events");
        assert_ne!(one.0, other.0, "with another content");
    }
}
