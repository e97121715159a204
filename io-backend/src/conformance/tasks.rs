//! Time, chance and tasks.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use super::claim::{Outcome, ensure, eventually, soon};
use crate::Backend;
use crate::backend::{Interference, SyncPoint};
use crate::channel::channel;
use crate::task::{self, TaskName};
use crate::time::{Deadline, within};

pub(super) async fn a_timer_is_never_early<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    for us in [0, 1, 300, 1_000, 1_500, 5_000, 20_000] {
        let asked = Duration::from_micros(us);
        let before = backend.now();
        backend.sleep(asked).await;
        let slept = backend.now().since(before);
        ensure!(slept >= asked, "asked for {asked:?}, slept {slept:?}");
    }
    // A moment that has passed.
    backend.timer(backend.now()).await;
    let passed = within(backend, Deadline::At(backend.now()), std::future::ready(7)).await;
    ensure!(passed == Ok(7), "what is ready at once came too late: {passed:?}");
    let before = backend.now();
    let late =
        within(backend, Deadline::At(before + Duration::from_millis(5)), std::future::pending::<()>()).await;
    ensure!(late.is_err(), "a wait for nothing came to an end");
    ensure!(backend.now().since(before) >= Duration::from_millis(5), "the deadline passed early");
    Ok(())
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

pub(super) async fn a_dropped_timer_wakes_nobody<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (kept, dropped) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let mut timer = Box::pin(backend.sleep(Duration::from_millis(5)));
    let other = backend.sleep(Duration::from_millis(5));
    let mut other = pin!(other);
    for (timer, wakes) in [(timer.as_mut(), &dropped), (other.as_mut(), &kept)] {
        let waker = Waker::from(wakes.clone());
        ensure!(timer.poll(&mut Context::from_waker(&waker)).is_pending(), "5 ms are over at once");
    }
    drop(timer);
    backend.sleep(Duration::from_millis(30)).await;
    ensure!(kept.0.load(Ordering::SeqCst) > 0, "a timer did not wake its task");
    ensure!(dropped.0.load(Ordering::SeqCst) == 0, "a dropped timer woke its task");
    Ok(())
}

pub(super) async fn the_clock_does_not_go_back<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let mut before = backend.now();
    for _ in 0..1_000 {
        let now = backend.now();
        ensure!(now >= before, "{before:?}, then {now:?}");
        before = now;
    }
    Ok(())
}

pub(super) async fn draws_differ<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let mut draws: Vec<u64> = (0..64).map(|_| backend.random_u64()).collect();
    draws.sort_unstable();
    draws.dedup();
    ensure!(draws.len() == 64, "64 draws of 64 bits gave {} numbers", draws.len());
    Ok(())
}

pub(super) async fn a_task_runs_also_without_its_handle<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (sender, mut receiver) = channel(backend, "from the task", 1);
    let own = backend.clone();
    drop(backend.spawn("detached", async move {
        own.sleep(Duration::from_millis(1)).await;
        let _ = sender.try_send(42);
    }));
    let told = receiver.receive(soon(backend)).await?;
    ensure!(told == 42, "told {told}");
    Ok(())
}

pub(super) async fn an_aborted_task_ends<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (sender, receiver) = crate::channel::<B, ()>(backend, "held by the task", 1);
    let handle = backend.spawn("endless", async move {
        let _held = receiver;
        std::future::pending::<()>().await;
    });
    backend.sleep(Duration::from_millis(1)).await;
    ensure!(!handle.is_finished(), "an endless task is finished");
    handle.abort();
    eventually(backend, "the task drops what it holds", || sender.is_closed()).await?;
    let handle = backend.spawn("short", async {});
    eventually(backend, "a task that returned is finished", || handle.is_finished()).await
}

pub(super) async fn a_task_knows_its_name<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (sender, mut receiver) = channel(backend, "names", 2);
    for instance in ["one", "two"] {
        let (sender, own) = (sender.clone(), backend.clone());
        drop(backend.spawn(TaskName::of("worker", instance), async move {
            let first = task::current();
            own.sleep(Duration::from_millis(1)).await;
            let _ = sender.try_send((instance, first, task::current()));
        }));
    }
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (instance, first, then) = receiver.receive(soon(backend)).await?;
        let (Some(first), Some(then)) = (first, then) else {
            return Err(super::claim::Broken("a task does not know that it is one".into()));
        };
        ensure!(first.name == TaskName::of("worker", instance), "it is called {}", first.name);
        ensure!(first.id == then.id, "its number changed at an await");
        ids.push(first.id);
    }
    ensure!(ids[0] != ids[1], "two tasks have the number {:?}", ids[0]);
    Ok(())
}

pub(super) async fn nobody_presses_on_a_seam<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    for seam in [SyncPoint::Lock("some lock"), SyncPoint::Channel("some channel")] {
        let pressure = backend.interference(seam);
        ensure!(pressure == Interference::None, "{seam:?} suffers {pressure:?}");
    }
    Ok(())
}
