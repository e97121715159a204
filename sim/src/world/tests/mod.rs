//! Worlds as a whole: determinism, time, processes, disk and network under faults.

mod aimed;
mod descriptors;
mod device;
mod disk;
mod memory;
mod network;
mod process;
mod stopping;

use super::*;
use crate::fault::{Fault, FaultKind, Span};
use bytes::Bytes;
use io_backend::{Backend, Clock, Deadline, Disk, File, Moment, OpenHow};
use std::future::Future;
use std::path::Path;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn soon(backend: &SimBackend) -> Deadline {
    Deadline::after(backend, Duration::from_secs(5))
}

fn fault(kind: FaultKind, at: Duration, length: Duration) -> Fault {
    Fault::new(kind).on(1).window(at, length)
}

/// A small program that uses everything: a file, timers, a channel, the network.
async fn busy_node(backend: SimBackend) {
    let disk = backend.disk().clone();
    disk.create_dir_all(Path::new("data"), soon(&backend)).await.unwrap();
    disk.sync_dir(Path::new("data"), soon(&backend)).await.unwrap();
    let file = disk.open(Path::new("data/journal"), OpenHow::OrCreate, soon(&backend)).await.unwrap();
    let (sender, mut receiver) = io_backend::channel::<SimBackend, u64>(&backend, "numbers", 4);
    for task in 0..3 {
        let (backend, sender) = (backend.clone(), sender.clone());
        backend.clone().spawn("producer", async move {
            loop {
                backend.sleep(Duration::from_micros(backend.random_u64() % 5_000)).await;
                if sender.send(task, soon(&backend)).await.is_err() {
                    return;
                }
            }
        });
    }
    let mut at = 0;
    while let Ok(number) = receiver.receive(soon(&backend)).await {
        let data = Bytes::from(vec![number as u8; 100]);
        if file.write_at(at, data, soon(&backend)).await.is_ok() && file.sync(soon(&backend)).await.is_ok() {
            at += 100;
        }
    }
}

fn busy_run(seed: u64) -> Outcome<()> {
    World::run(seed, Options { keep: trace::Keep::All, ..Options::default() }, |world| async move {
        world.node(1).start(busy_node);
        world.inject(&fault(FaultKind::PowerLoss, 200 * MS, 50 * MS));
        let mut slow = fault(FaultKind::DiskSlow, 500 * MS, 100 * MS);
        slow.delay = Some(Span::millis(3));
        world.inject(&slow);
        world.sleep(Duration::from_secs(1)).await;
    })
}

/// Runs `main` in a world of this seed and gives what it returns.
fn lived<T, F>(seed: u64, main: impl FnOnce(World) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let outcome = World::run(seed, Options::default(), main);
    outcome.result.unwrap_or_else(|stop| panic!("seed {seed}: {stop}"))
}

/// Runs `work` as a task of the backend's process and waits for what it gives.
async fn on<T: Send + 'static>(backend: &SimBackend, work: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, mut receiver) = io_backend::channel(backend, "result", 1);
    backend.spawn("work", async move {
        let _ = sender.try_send(work.await);
    });
    receiver.receive(Deadline::Unbounded("the world has a limit")).await.unwrap()
}

#[test]
fn a_seed_run_twice_is_the_same_run_and_two_seeds_differ() {
    let (one, two, other) = (busy_run(1), busy_run(1), busy_run(2));
    assert_eq!(one.result, Ok(()));
    let parting = trace::first_divergence(&one.last_events, &two.last_events);
    assert!(parting.is_none(), "{parting:?}");
    assert_eq!((one.trace_hash, one.events), (two.trace_hash, two.events));
    assert_ne!(one.trace_hash, other.trace_hash);
    assert!(one.events > 1_000, "{}", one.events);
    assert!(one.fault_hits.iter().all(|hits| hits.hits > 0), "{:?}", one.fault_hits);
}

#[test]
fn timers_fire_in_order_and_dropped_ones_do_not() {
    let outcome = World::run(1, Options::default(), |world| async move {
        let backend = world.client("client-1");
        let (sender, mut receiver) = io_backend::channel::<SimBackend, u64>(&backend, "fired", 16);
        for ms in [30u32, 10, 20] {
            let (backend, sender) = (backend.clone(), sender.clone());
            backend.clone().spawn("timer", async move {
                backend.timer(Moment::ZERO + ms * MS).await;
                let _ = sender.try_send(u64::from(ms));
            });
        }
        let aborted = sender.clone();
        let waits = backend.clone();
        let task = backend.spawn("aborted", async move {
            waits.sleep(15 * MS).await;
            let _ = aborted.try_send(15);
        });
        world.sleep(12 * MS).await;
        task.abort();
        world.sleep(100 * MS).await;
        let mut fired = Vec::new();
        receiver.try_receive_many(&mut fired, 16);
        fired
    });
    assert_eq!(outcome.result, Ok(vec![10, 20, 30]));
}
