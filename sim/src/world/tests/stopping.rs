//! Tasks and threads that stop, and runs that would never end.

use super::*;
use io_backend::task::give_way;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn a_stopped_task_is_not_polled_and_the_others_are() {
    lived(1, |world| async move {
        let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let backend = world.client("node1");
        for which in 0..2 {
            let (own, counts) = (backend.clone(), counts.clone());
            let name = io_backend::TaskName::of("worker", which.to_string());
            backend.spawn(name, async move {
                loop {
                    own.sleep(MS).await;
                    counts[which].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut stop = fault(FaultKind::TaskStopped, 10 * MS, 50 * MS);
        stop.task = Some("worker[1]".to_owned());
        world.inject(&stop);
        world.sleep(59 * MS).await;
        let (free, stopped) = (counts[0].load(Ordering::Relaxed), counts[1].load(Ordering::Relaxed));
        assert!(free > 50 && stopped < 11, "{free} and {stopped}");
        world.sleep(20 * MS).await;
        assert!(counts[1].load(Ordering::Relaxed) > stopped + 10);
        assert!(world.fault_hits()[0].hits > 0);
    });
}

/// Two workers on one simulated thread, one of which blocks it with a call that never comes back.
#[test]
fn a_blocking_call_stops_its_thread_and_is_named() {
    lived(2, |world| async move {
        let backend = world.client("node1");
        let ring = backend.on_threads("ring", 1);
        let ticks = Arc::new(AtomicU64::new(0));
        let (own, counted) = (ring.clone(), ticks.clone());
        ring.spawn("submit", async move {
            loop {
                own.sleep(MS).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let own = ring.clone();
        ring.spawn("receive", async move {
            own.sleep(10 * MS).await;
            own.blocking(own.sleep(50 * MS)).await;
            own.blocking(std::future::pending::<()>()).await;
        });
        world.sleep(40 * MS).await;
        let blocked = ticks.load(Ordering::Relaxed);
        assert!((8..=10).contains(&blocked), "{blocked}");
        world.sleep(Duration::from_secs(1)).await;
        assert!(ticks.load(Ordering::Relaxed) <= blocked + 2);
        let told = waits::explain(&world.snapshots());
        assert_eq!(told.component.as_deref(), Some("node1, threads ring"), "{told:?}");
        assert!(told.lines[0].contains("blocked by task receive; 1 task"), "{told:?}");
    });
}

#[test]
fn a_fault_can_block_the_thread_of_a_task() {
    lived(3, |world| async move {
        let backend = world.client("node1").on_threads("one", 1);
        let ticks = Arc::new(AtomicU64::new(0));
        for role in ["blocker", "victim"] {
            let (own, counted) = (backend.clone(), ticks.clone());
            backend.spawn(role, async move {
                loop {
                    own.sleep(MS).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut block = fault(FaultKind::ThreadBlocked, 10 * MS, 50 * MS);
        block.task = Some("blocker".to_owned());
        world.inject(&block);
        world.sleep(11 * MS).await;
        let before = ticks.load(Ordering::Relaxed);
        world.sleep(40 * MS).await;
        assert_eq!(ticks.load(Ordering::Relaxed), before);
        world.sleep(30 * MS).await;
        assert!(ticks.load(Ordering::Relaxed) > before + 20);
    });
}

#[test]
fn a_panic_is_the_end_of_the_run_with_its_message_and_place() {
    let outcome = World::run(4, Options::default(), |world| async move {
        world.node(1).start(|_| async { panic!("the offset went backwards") });
        world.sleep(Duration::from_secs(1)).await;
    });
    match outcome.result {
        Err(Stop::Crash { machine, task, message }) => {
            assert_eq!((machine.as_str(), task.as_str()), ("node1", "main"));
            assert!(message.contains("the offset went backwards") && message.contains("stopping.rs:"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_task_that_never_yields_is_named() {
    let options = Options { wall_guard: 200 * MS, ..Options::default() };
    let outcome = World::run(5, options, |world| async move {
        let backend = world.client("node1");
        let own = backend.clone();
        backend.spawn("busy-worker", async move {
            loop {
                std::hint::black_box(own.now());
            }
        });
        world.sleep(Duration::from_secs(1)).await;
    });
    assert_eq!(outcome.result, Err(Stop::NeverYields { task: "busy-worker of node1".to_owned() }));
}

#[test]
fn tasks_that_run_without_a_pause_end_the_run() {
    let options = Options { polls_without_idle: 1_000, ..Options::default() };
    let outcome = World::run(6, options, |world| async move {
        let backend = world.client("node1");
        backend.spawn("spinner", async {
            loop {
                give_way().await;
            }
        });
        world.sleep(Duration::from_secs(1)).await;
    });
    assert_eq!(outcome.result, Err(Stop::Busy { task: "spinner of node1".to_owned(), polls: 1_000 }));
}

/// A client that asks again at once whatever it is told, and a server that has an answer at once: nobody is ever
/// late, and nothing ever comes of it.
#[test]
fn a_run_that_goes_round_and_round_ends_and_says_who_spun() {
    let round = |seed| {
        let options = Options { events_max: 200_000, ..Options::default() };
        World::run(seed, options, |world| async move {
            let backend = world.client("node1");
            let (sender, mut receiver) = io_backend::channel::<SimBackend, u64>(&backend, "fetches", 1);
            let (asks, waits, calm) = (backend.clone(), backend.clone(), backend.clone());
            backend.spawn("fetcher", async move {
                while sender.send(0, Deadline::Unbounded("a test")).await.is_ok() {
                    asks.sleep(Duration::from_micros(10)).await;
                }
            });
            backend.spawn("answerer", async move { while receiver.receive(soon(&waits)).await.is_ok() {} });
            backend.spawn("calm", async move {
                loop {
                    calm.sleep(Duration::from_secs(1)).await;
                }
            });
            world.sleep(Duration::from_secs(3_600)).await;
        })
    };
    let outcome = round(10);
    let Err(Stop::Livelock { events: 200_000, spinners }) = &outcome.result else {
        panic!("{:?}", outcome.result)
    };
    let names: Vec<&str> = spinners.iter().map(|spinner| &*spinner.task).collect();
    assert!(
        names.starts_with(&["answerer", "fetcher"]) || names.starts_with(&["fetcher", "answerer"]),
        "{names:?}"
    );
    assert!(spinners[0].polls > 1_000, "{spinners:?}");
    assert!(spinners.iter().any(|spinner| spinner.waits.is_some()), "{spinners:?}");
    let told = outcome.explanation.as_ref().expect("a stop is explained");
    assert!(!told.lines.is_empty());
    let again = round(10);
    assert_eq!((again.result, again.trace_hash), (outcome.result.clone(), outcome.trace_hash));
}

#[test]
fn a_run_that_takes_too_long_in_real_time_is_given_up_and_says_so() {
    let options = Options { wall_time_max: Duration::from_secs(1), ..Options::default() };
    let outcome = World::run(11, options, |world| async move {
        let backend = world.client("node1");
        let own = backend.clone();
        backend.spawn("ticker", async move {
            loop {
                own.sleep(Duration::from_micros(1)).await;
            }
        });
        world.sleep(Duration::from_secs(30 * 24 * 3_600)).await;
    });
    let Err(stop @ Stop::GivenUp { .. }) = outcome.result else { panic!("{:?}", outcome.result) };
    assert!(stop.to_string().contains("task ticker of node1"), "{stop}");
}

#[test]
fn a_world_in_which_nobody_waits_for_anything_stops() {
    let outcome = World::run(7, Options::default(), |_| std::future::pending::<()>());
    assert_eq!(outcome.result, Err(Stop::NothingLeft));
    assert!(outcome.explanation.is_some_and(|told| told.lines == ["no node runs"]));
}

#[test]
fn a_world_ends_at_its_time_limit_and_time_moves_while_tasks_yield() {
    let options = Options { time_limit: Duration::from_secs(5), ..Options::default() };
    let outcome = World::run(8, options, |world| async move {
        world.sleep(Duration::from_secs(10)).await;
    });
    assert_eq!(outcome.result, Err(Stop::OutOfTime));
    let outcome = World::run(9, Options::default(), |world| async move {
        let backend = world.client("node1");
        backend.spawn("spinner", async {
            loop {
                give_way().await;
            }
        });
        world.sleep(MS).await;
    });
    assert_eq!(outcome.result, Ok(()));
}
