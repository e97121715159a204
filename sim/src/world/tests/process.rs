//! Processes: kill, pause, exit, supervision, clocks.

use super::*;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use io_backend::{ExitStatus, Level, Lock, SyncPoint};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A program that counts how often it ticks, every 10 ms.
fn ticking(
    count: &Arc<AtomicU64>,
) -> impl Fn(SimBackend) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + use<> {
    let count = count.clone();
    move |backend| {
        let count = count.clone();
        Box::pin(async move {
            loop {
                backend.sleep(10 * MS).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    }
}

struct OnDrop(Arc<AtomicU64>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_kill_drops_every_task_at_once() {
    lived(1, |world| async move {
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = dropped.clone();
        world.node(1).start(move |backend| {
            let counted = counted.clone();
            async move {
                for _ in 0..10 {
                    let held = OnDrop(counted.clone());
                    let own = backend.clone();
                    backend.spawn("holder", async move {
                        let _held = held;
                        own.sleep(Duration::from_secs(1_000)).await;
                    });
                }
                std::future::pending::<()>().await;
            }
        });
        world.sleep(MS).await;
        assert_eq!(world.node(1).counts().unwrap().tasks, 11);
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        assert!(world.node(1).kill());
        assert_eq!(dropped.load(Ordering::Relaxed), 10);
        assert!(!world.node(1).is_running() && !world.node(1).kill());
    });
}

#[test]
fn a_task_that_exits_its_own_process_ends_it_with_status_and_reason() {
    let outcome = World::run(2, Options::default(), |world| async move {
        world.node(1).start(|backend| async move {
            let own = backend.clone();
            backend.spawn("watchdog", async move {
                own.sleep(5 * MS).await;
                own.exit(ExitStatus::StorageNotTrusted, "fdatasync hangs");
            });
            std::future::pending::<()>().await;
        });
        world.node(1).supervise(Some(20 * MS));
        world.sleep(MS).await;
        world.node(1).ended().await;
        assert!(world.now() < 10 * MS);
        world.sleep(21 * MS).await;
        assert_eq!(world.node(1).incarnation(), Some(2), "its supervisor started it again");
    });
    assert_eq!(outcome.result, Ok(()));
    let cause = &outcome.endings[0].cause;
    assert_eq!(*cause, Cause::Exited(ExitStatus::StorageNotTrusted, "fdatasync hangs".to_owned()));
}

#[test]
fn a_paused_process_does_nothing_and_ages() {
    lived(3, |world| async move {
        let ticks = Arc::new(AtomicU64::new(0));
        world.node(1).start(ticking(&ticks));
        world.inject(&fault(FaultKind::Pause, Duration::from_millis(1_005), Duration::from_secs(10)));
        world.sleep(Duration::from_millis(11_000)).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 100);
        let now = world.node(1).backend().unwrap().now();
        assert!(now.since(Moment::ZERO) >= Duration::from_secs(11), "its clock went on");
        world.sleep(Duration::from_secs(1)).await;
        assert!(ticks.load(Ordering::Relaxed) > 190);
    });
}

#[test]
fn a_killed_machine_comes_back_after_its_downtime() {
    lived(4, |world| async move {
        let ticks = Arc::new(AtomicU64::new(0));
        world.node(1).start(ticking(&ticks));
        world.inject(&fault(FaultKind::Kill, Duration::from_secs(1), Duration::from_secs(2)));
        world.sleep(Duration::from_secs(2)).await;
        assert!(!world.node(1).is_running());
        world.sleep(Duration::from_secs(2)).await;
        assert_eq!(world.node(1).incarnation(), Some(2));
        assert_eq!(world.endings().len(), 1);
        assert_eq!(world.fault_hits()[0].hits, 1);
    });
}

#[test]
fn a_restart_lets_the_process_stop_by_itself_first() {
    lived(5, |world| async move {
        world.node(1).start(|backend| async move {
            backend.stop_requested().await;
            backend.sleep(100 * MS).await;
        });
        world.inject(&fault(FaultKind::Restart, Duration::from_secs(1), Duration::ZERO));
        world.sleep(Duration::from_millis(1_050)).await;
        assert_eq!(world.node(1).incarnation(), Some(1));
        world.sleep(Duration::from_millis(100)).await;
        assert_eq!(world.node(1).incarnation(), Some(2));
        assert!(matches!(world.endings()[0].cause, Cause::Exited(ExitStatus::Clean, _)));
    });
}

#[test]
fn an_unkillable_process_stands_still_with_open_sockets_until_its_window_ends() {
    use io_backend::Network;
    lived(6, |world| async move {
        let ticks = Arc::new(AtomicU64::new(0));
        let (counted, own_ticks) = (ticks.clone(), ticking(&ticks));
        drop(counted);
        world.node(1).start(move |backend| {
            let ticking = own_ticks(backend.clone());
            async move {
                let _listener = backend.network().listen("0.0.0.0:9092").await;
                ticking.await;
            }
        });
        world.inject(&fault(FaultKind::Unkillable, Duration::ZERO, Duration::from_secs(10)));
        world.sleep(Duration::from_secs(1)).await;
        world.node(1).kill();
        let frozen = ticks.load(Ordering::Relaxed);
        world.sleep(Duration::from_secs(1)).await;
        assert_eq!(ticks.load(Ordering::Relaxed), frozen);
        let client = world.client("client-1");
        let accepted = client.network().connect("node1:9092", soon(&client)).await;
        assert!(accepted.is_ok(), "its listener is still open");
        world.sleep(Duration::from_secs(10)).await;
        assert!(!world.node(1).is_running());
    });
}

#[test]
fn who_was_killed_while_it_was_beyond_killing_is_started_again_unless_it_is_retired() {
    for retired in [false, true] {
        lived(6, move |world| async move {
            world.node(1).start(|_| std::future::pending::<()>());
            world.inject(&fault(FaultKind::Unkillable, Duration::ZERO, 800 * MS));
            world.inject(&fault(FaultKind::Kill, 100 * MS, 50 * MS));
            world.sleep(500 * MS).await;
            if retired {
                world.node(1).retire();
            }
            world.sleep(500 * MS).await;
            assert_eq!(world.node(1).is_running(), !retired);
            world.node(1).start_again();
            assert!(world.node(1).is_running());
        });
    }
}

#[test]
fn a_jump_of_the_clock_fires_what_it_passes_over() {
    lived(7, |world| async move {
        let ticks = Arc::new(AtomicU64::new(0));
        let counted = ticks.clone();
        world.node(1).start(move |backend| {
            let counted = counted.clone();
            async move {
                backend.sleep(Duration::from_secs(3600)).await;
                counted.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<()>().await;
            }
        });
        let mut jump = fault(FaultKind::ClockJump, Duration::from_secs(1), Duration::ZERO);
        jump.by = Some("2h".parse().unwrap());
        world.inject(&jump);
        world.sleep(Duration::from_millis(1_001)).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_drifting_clock_ticks_at_its_own_rate() {
    lived(8, |world| async move {
        let ticks = Arc::new(AtomicU64::new(0));
        world.node(1).start(ticking(&ticks));
        let mut drift = fault(FaultKind::ClockDrift, Duration::ZERO, Duration::from_secs(10));
        drift.drift_ppm = Some(-500_000);
        world.inject(&drift);
        world.sleep(Duration::from_secs(10)).await;
        let slow = ticks.load(Ordering::Relaxed);
        assert!((498..=500).contains(&slow), "{slow}");
        world.sleep(Duration::from_secs(10)).await;
        let then = ticks.load(Ordering::Relaxed) - slow;
        assert!((995..=1_001).contains(&then), "{then}");
    });
}

#[test]
fn a_skewed_wall_clock_is_off_in_its_window_only() {
    lived(9, |world| async move {
        let backend = world.client("node1");
        let mut skew = fault(FaultKind::ClockSkew, Duration::from_secs(1), Duration::from_secs(1));
        skew.by = Some("-1h".parse().unwrap());
        world.inject(&skew);
        let before = backend.wall_ms();
        world.sleep(Duration::from_millis(1_500)).await;
        assert_eq!(backend.wall_ms(), before + 1_500 - 3_600_000);
        world.sleep(Duration::from_millis(1_000)).await;
        assert_eq!(backend.wall_ms(), before + 2_500);
    });
}

#[test]
fn a_delayed_lock_and_a_full_channel_behave_as_if_others_used_them() {
    lived(10, |world| async move {
        let backend = world.client("node1");
        let mut slow = fault(FaultKind::LockDelay, Duration::ZERO, Duration::from_secs(1));
        slow.lock = Some("state".to_owned());
        slow.delay = Some(Span::millis(30));
        world.inject(&slow);
        let mut full = fault(FaultKind::ChannelFull, Duration::ZERO, Duration::from_secs(1));
        full.channel = Some("queue".to_owned());
        world.inject(&full);
        world.sleep(MS).await;
        assert_eq!(backend.interference(SyncPoint::Lock("other")), io_backend::Interference::None);
        let own = backend.clone();
        on(&backend, async move {
            let lock = Lock::new(&own, "state", Level(1), ());
            assert!(lock.try_lock().is_none());
            let began = own.now();
            let guard = lock.lock(soon(&own)).await.unwrap();
            assert!(own.now().since(began) >= 30 * MS);
            drop(guard);
            let (sender, _receiver) = io_backend::channel::<SimBackend, u8>(&own, "queue", 10);
            assert!(sender.try_send(1).is_err());
            sender.send(2, soon(&own)).await.unwrap();
            assert!(own.now().since(Moment::ZERO) >= Duration::from_secs(1), "not before the window ends");
        })
        .await;
        assert!(world.fault_hits().iter().all(|hits| hits.hits > 0));
    });
}

#[test]
fn whoever_waits_for_a_full_channel_inside_a_group_looks_again_when_the_fault_ends() {
    lived(10, |world| async move {
        let backend = world.client("node1");
        let mut full = fault(FaultKind::ChannelFull, Duration::ZERO, Duration::from_secs(1));
        full.channel = Some("queue".to_owned());
        world.inject(&full);
        world.sleep(MS).await;
        let own = backend.clone();
        on(&backend, async move {
            let (sender, mut receiver) = io_backend::channel::<SimBackend, u8>(&own, "queue", 10);
            // A group polls a member only when the member's own waker was called.
            let mut group = FuturesUnordered::from_iter((0..3).map(|number| sender.send(number, soon(&own))));
            while let Some(sent) = group.next().await {
                sent.unwrap();
            }
            assert!(own.now().since(Moment::ZERO) < Duration::from_secs(1) + MS);
            let mut received = Vec::new();
            while received.len() < 3 {
                received.push(receiver.receive(soon(&own)).await.unwrap());
            }
            received.sort_unstable();
            assert_eq!(received, [0, 1, 2]);
        })
        .await;
    });
}

#[test]
fn a_world_that_is_over_leaves_nothing_behind() {
    let kernel = lived(11, |world| async move {
        world.node(1).start(|backend: SimBackend| async move {
            let own = backend.clone();
            backend.spawn("busy", busy_node(own.clone()));
            let stopping = std::pin::pin!(own.stop_requested());
            let failing = std::pin::pin!(own.sleep(300 * MS));
            futures::future::select(stopping, failing).await;
            own.exit(ExitStatus::StorageNotTrusted, "stuck");
        });
        world.node(1).supervise(Some(10 * MS));
        world.inject(&fault(FaultKind::Kill, 100 * MS, Duration::ZERO));
        world.inject(&fault(FaultKind::PowerLoss, 200 * MS, 50 * MS));
        world.inject(&fault(FaultKind::Unkillable, 350 * MS, Duration::from_secs(2)));
        world.sleep(Duration::from_secs(1)).await;
        Arc::downgrade(&world.kernel)
    });
    assert!(kernel.upgrade().is_none(), "{} hold it", kernel.strong_count());
}
