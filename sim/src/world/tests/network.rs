//! Connections under faults.

use super::*;
use io_backend::{Listener, Network};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A node that answers every byte with itself.
async fn echo(backend: SimBackend) {
    let listener = backend.network().listen("0.0.0.0:9092").await.unwrap();
    while let Ok((mut stream, _)) = listener.accept().await {
        backend.spawn("connection", async move {
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A world with the echo node, and a client with a connection to it.
async fn connected(world: &World) -> (SimBackend, SimStream) {
    world.node(1).start(echo);
    world.sleep(MS).await;
    let client = world.client("client-1");
    let stream = client.network().connect("node1:9092", soon(&client)).await.unwrap();
    (client, stream)
}

/// The time an exchange of one byte takes, or the error.
async fn exchange(world: &World, stream: &mut SimStream) -> std::io::Result<Duration> {
    let began = world.now();
    stream.write_all(b"x").await?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    Ok(world.now() - began)
}

#[test]
fn an_exchange_takes_two_latencies() {
    lived(1, |world| async move {
        let (_client, mut stream) = connected(&world).await;
        let took = exchange(&world, &mut stream).await.unwrap();
        assert!((80_000..3_000_000).contains(&took.as_nanos()), "{took:?}");
    });
}

#[test]
fn a_partition_holds_traffic_back_and_loses_none_of_it() {
    lived(2, |world| async move {
        let (_client, mut stream) = connected(&world).await;
        let id = world.inject(&fault(FaultKind::Partition, world.now(), Duration::from_secs(60)));
        world.sleep(MS).await;
        let took = exchange(&world, &mut stream).await.unwrap();
        assert!(took > Duration::from_secs(59) && took < Duration::from_millis(60_500), "{took:?}");
        assert!(world.fault_hits()[id.0].hits > 0);
        assert!(exchange(&world, &mut stream).await.unwrap() < 5 * MS);
    });
}

#[test]
fn a_connect_through_a_partition_hangs_until_its_deadline_or_the_end_of_the_partition() {
    lived(3, |world| async move {
        let (client, _stream) = connected(&world).await;
        world.inject(&fault(FaultKind::Partition, world.now(), Duration::from_secs(10)));
        world.sleep(MS).await;
        let impatient = Deadline::after(&client, Duration::from_secs(1));
        let error = client.network().connect("node1:9092", impatient).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let patient = Deadline::after(&client, Duration::from_secs(30));
        assert!(client.network().connect("10.0.0.1:9092", patient).await.is_ok());
        assert!(world.now() < Duration::from_secs(11));
    });
}

#[test]
fn a_reset_is_seen_and_a_silence_is_not() {
    lived(4, |world| async move {
        let (client, mut stream) = connected(&world).await;
        world.inject(&fault(FaultKind::Reset, world.now(), Duration::ZERO));
        world.sleep(MS).await;
        assert_eq!(exchange(&world, &mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

        let mut stream = client.network().connect("node1:9092", soon(&client)).await.unwrap();
        world.inject(&fault(FaultKind::Silence, world.now(), Duration::ZERO));
        world.sleep(MS).await;
        stream.write_all(b"x").await.unwrap();
        let mut byte = [0];
        let silent = io_backend::within(
            &client,
            Deadline::after(&client, Duration::from_secs(600)),
            stream.read_exact(&mut byte),
        );
        assert!(silent.await.is_err(), "a silent peer says nothing");
        let mut other = client.network().connect("node1:9092", soon(&client)).await.unwrap();
        assert!(exchange(&world, &mut other).await.is_ok(), "a new connection works");
        assert!(world.fault_hits().iter().all(|hits| hits.hits == 1), "{:?}", world.fault_hits());
    });
}

#[test]
fn a_peer_that_never_reads_blocks_its_writer() {
    let written = lived(5, |world| async move {
        world.node(1).start(|backend| async move {
            let listener = backend.network().listen("0.0.0.0:9092").await.unwrap();
            let _held = listener.accept().await;
            std::future::pending::<()>().await;
        });
        world.sleep(MS).await;
        let client = world.client("client-1");
        let mut stream = client.network().connect("node1:9092", soon(&client)).await.unwrap();
        let written = Arc::new(AtomicUsize::new(0));
        let counted = written.clone();
        client.spawn("writer", async move {
            while stream.write_all(&[0; 1_000]).await.is_ok() {
                counted.fetch_add(1_000, Ordering::Relaxed);
            }
        });
        world.sleep(Duration::from_secs(100)).await;
        written.load(Ordering::Relaxed)
    });
    assert!((100_000..1_000_000).contains(&written), "{written}");
}

#[test]
fn a_killed_process_closes_its_connections_and_refuses_new_ones() {
    lived(6, |world| async move {
        let (client, mut stream) = connected(&world).await;
        assert!(world.node(1).kill());
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).await.unwrap(), 0, "an end of stream");
        let error = client.network().connect("node1:9092", soon(&client)).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(world.node(1).connections().open, 1);
        drop(stream);
        assert_eq!(world.node(1).connections().open, 0);
    });
}

#[test]
fn a_machine_without_power_is_silent_and_resets_old_connections_when_it_is_back() {
    lived(7, |world| async move {
        let (_client, mut stream) = connected(&world).await;
        let at = world.now();
        world.inject(&fault(FaultKind::PowerLoss, at, Duration::from_secs(30)));
        world.sleep(MS).await;
        stream.write_all(b"x").await.unwrap();
        let mut byte = [0];
        let error = stream.read(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(world.now() - at >= Duration::from_secs(30), "not before the machine is back");
    });
}

#[test]
fn loss_and_slow_links_only_take_time() {
    lived(8, |world| async move {
        let (_client, mut stream) = connected(&world).await;
        let mut loss = fault(FaultKind::Loss, world.now(), Duration::from_secs(1));
        loss.count = Some(1);
        world.inject(&loss);
        let took = exchange(&world, &mut stream).await.unwrap();
        assert!(took > 200 * MS && took < 210 * MS, "{took:?}");
        let mut slow = fault(FaultKind::SlowLink, world.now(), Duration::from_secs(100));
        slow.bytes_per_s = Some(1_000);
        world.inject(&slow);
        let began = world.now();
        stream.write_all(&[7; 5_000]).await.unwrap();
        let mut bytes = [0; 5_000];
        stream.read_exact(&mut bytes).await.unwrap();
        assert!(world.now() - began > Duration::from_secs(5), "{:?}", world.now() - began);
        assert_eq!(bytes, [7; 5_000]);
    });
}

#[test]
fn two_listeners_cannot_share_a_port_and_a_dropped_one_frees_it() {
    lived(9, |world| async move {
        let node = world.client("node1");
        let first = node.network().listen("node1:9092").await.unwrap();
        assert_eq!(node.network().listen("0.0.0.0:9092").await.err().unwrap().kind(), ErrorKind::AddrInUse);
        drop(first);
        assert!(node.network().listen("0.0.0.0:9092").await.is_ok());
        assert!(node.network().listen("client-1:9092").await.is_err(), "another machine's address");
    });
}

#[test]
fn a_read_is_sometimes_given_less_than_there_is_and_nothing_is_lost() {
    lived(8, |world| async move {
        let (_client, mut stream) = connected(&world).await;
        let sent: Vec<u8> = (0..200_u8).cycle().take(1_000).collect();
        let mut short = 0;
        for _ in 0..100 {
            stream.write_all(&sent).await.unwrap();
            let mut read: Vec<u8> = Vec::new();
            while read.len() < sent.len() {
                world.sleep(5 * MS).await;
                let mut buffer = [0; 2_000];
                let some = stream.read(&mut buffer).await.unwrap();
                short += usize::from(read.len() + some < sent.len());
                read.extend(&buffer[..some]);
            }
            assert!(read == sent);
        }
        assert!((1..60).contains(&short), "{short} short reads");
    });
}

#[test]
fn a_flapping_link_lets_traffic_through_in_between() {
    lived(9, |world| async move {
        let (_client, mut stream) = connected(&world).await;
        let mut flapping = fault(FaultKind::Flapping, world.now(), Duration::from_secs(60));
        flapping.delay = Some(Span::millis(1_000));
        world.inject(&flapping);
        let mut slow = 0;
        let mut done = 0;
        while world.now() < Duration::from_secs(20) {
            let took = exchange(&world, &mut stream).await.unwrap();
            assert!(took < Duration::from_millis(2_500), "{took:?}");
            slow += u32::from(took > 500 * MS);
            done += 1;
            world.sleep(50 * MS).await;
        }
        assert!(slow >= 5 && done > slow * 5, "{slow} of {done} were held up");
        assert!(world.fault_hits()[0].hits > 0);
    });
}
