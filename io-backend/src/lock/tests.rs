use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::lock::{Level, Lock};
use crate::real::RealBackend;
use crate::task::Named;
use crate::testing::{Wakes, poll_with, run, some_task, soon};
use crate::{Backend, Deadline, TimedOut, WaitKind};

/// What a task's future panics with.
fn panic_of<F: Future>(future: F) -> Option<String> {
    let mut future = Box::pin(Named::new(some_task("careless"), future));
    let panicked = catch_unwind(AssertUnwindSafe(|| poll_with(future.as_mut(), Waker::noop()).is_ready()));
    panicked.err().map(|panic| *panic.downcast::<String>().expect("a formatted message"))
}

fn two(backend: &RealBackend) -> (Lock<RealBackend, ()>, Lock<RealBackend, ()>) {
    (Lock::new(backend, "low", Level(10), ()), Lock::new(backend, "high", Level(20), ()))
}

#[test]
fn acquiring_a_lower_level_panics_and_names_both_lines() {
    run(async |backend| {
        let (low, high) = two(&backend);
        let held_at = line!() + 2;
        let message = panic_of(async {
            let _held = high.lock(soon(&backend)).await;
            let _ = low.lock(soon(&backend)).await;
        });
        let message = message.expect("an inversion panics");
        for part in [
            "low (level 10)".to_owned(),
            "high (level 20)".to_owned(),
            format!("lock/tests.rs:{held_at}:"),
            format!("lock/tests.rs:{}:", held_at + 1),
        ] {
            assert!(message.contains(&part), "{part:?} is not in {message:?}");
        }
    });
}

#[test]
fn the_same_level_twice_and_try_lock_are_checked_too() {
    run(async |backend| {
        let (_, high) = two(&backend);
        let twin = Lock::new(&backend, "twin", Level(20), ());
        let message = panic_of(async {
            let _held = high.lock(soon(&backend)).await;
            drop(twin.try_lock());
        });
        assert!(message.is_some_and(|text| text.contains("twin")));
    });
}

#[test]
fn ascending_levels_are_fine_and_a_released_lock_no_longer_counts() {
    run(async |backend| {
        let (low, high) = two(&backend);
        let panicked = panic_of(async {
            let held = low.lock(soon(&backend)).await;
            drop(high.lock(soon(&backend)).await);
            drop(held);
            drop(high.lock(soon(&backend)).await);
            drop(low.lock(soon(&backend)).await);
        });
        assert_eq!(panicked, None);
    });
}

#[test]
fn code_outside_tasks_is_not_checked() {
    run(async |backend| {
        let (low, high) = two(&backend);
        let _held = high.try_lock().expect("it is free");
        assert!(low.try_lock().is_some());
    });
}

#[test]
fn levels_follow_the_task_to_another_thread() {
    run(async |backend| {
        let (low, high) = two(&backend);
        let (low, high) = (Arc::new(low), Arc::new(high));
        let (own, free) = (backend.clone(), high.clone());
        let mut task = Box::pin(Named::new(some_task("wanderer"), async move {
            let held = high.lock(soon(&own)).await;
            std::future::poll_fn(pending_once()).await;
            let inversion = catch_unwind(AssertUnwindSafe(|| low.try_lock().is_some()));
            assert!(inversion.is_err(), "the other thread does not know what the task holds");
            drop(held);
            assert!(low.try_lock().is_some(), "what was released on the other thread still counts");
        }));
        assert!(poll_with(task.as_mut(), Waker::noop()).is_pending());
        // Another task on this thread holds nothing.
        let panicked = panic_of(async { drop(free.try_lock()) });
        assert_eq!(panicked, None);
        let done = std::thread::scope(|scope| {
            scope.spawn(|| poll_with(task.as_mut(), Waker::noop()).is_ready()).join()
        });
        assert!(done.expect("no assertion failed"));
    });
}

fn pending_once() -> impl FnMut(&mut std::task::Context<'_>) -> Poll<()> {
    let mut polled = false;
    move |_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }
}

#[test]
fn waiters_are_served_in_order_and_one_that_gives_up_passes_its_turn_on() {
    run(async |backend| {
        let lock = Lock::new(&backend, "queue", Level(1), ());
        let held = lock.try_lock().unwrap();
        let (woken, waker) = Wakes::new();
        let mut second = pin!(lock.lock(soon(&backend)));
        {
            let mut first: Pin<Box<_>> = Box::pin(lock.lock(soon(&backend)));
            assert!(poll_with(first.as_mut(), Waker::noop()).is_pending());
            assert!(poll_with(second.as_mut(), &waker).is_pending());
            drop(held);
            assert!(poll_with(second.as_mut(), &waker).is_pending(), "it is the first one's turn");
            assert_eq!(woken.count(), 0);
        }
        assert_eq!(woken.count(), 1);
        assert!(poll_with(second.as_mut(), &waker).is_ready());
        assert!(lock.try_lock().is_some(), "the guard went with the poll's result");
    });
}

#[test]
fn a_wait_ends_at_its_deadline_and_names_the_holder_with_its_line() {
    run(async |backend| {
        let lock = Lock::new(&backend, "stuck", Level(1), ());
        let held_at = line!() + 1;
        let _held = lock.try_lock().unwrap();
        let mut waiting = pin!(lock.lock(Deadline::after(&backend, Duration::from_millis(5))));
        assert!(poll_with(waiting.as_mut(), Waker::noop()).is_pending());
        let entries = backend.registry().snapshot();
        let entry = entries.iter().find(|e| e.kind == WaitKind::Lock).expect("the wait is an entry");
        let holder = entry.resource.as_ref().and_then(|resource| resource.holder()).expect("it is held");
        assert_eq!(holder.site.line(), held_at);
        assert!(matches!(waiting.await, Err(TimedOut)));
        assert!(backend.registry().is_empty());
    });
}
