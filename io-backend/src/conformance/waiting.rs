//! Channels, replies, locks and published states, as they behave on this backend's tasks and timers.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::claim::{Broken, Outcome, ensure, eventually, in_ms, poll_once, soon};
use crate::Backend;
use crate::channel::{ReceiveError, ReplyError, SendError, channel};
use crate::lock::{Level, Lock};
use crate::published::Published;
use crate::registry::WaitKind;

pub(super) async fn messages_arrive_in_order<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (sender, mut receiver) = channel(backend, "numbers", 3);
    let deadline = soon(backend);
    drop(backend.spawn("counter", async move {
        for number in 0..200 {
            if sender.send(number, deadline).await.is_err() {
                return;
            }
        }
    }));
    let mut received = Vec::new();
    while received.len() < 200 {
        receiver.receive_many(&mut received, 2, soon(backend)).await?;
    }
    ensure!(received == (0..200).collect::<Vec<_>>(), "received {received:?}");
    let end = receiver.receive(soon(backend)).await;
    ensure!(end == Err(ReceiveError::Closed), "after the last sender: {end:?}");
    Ok(())
}

pub(super) async fn a_full_channel_makes_its_senders_wait<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (sender, mut receiver) = channel(backend, "of two", 2);
    for number in 0..2 {
        ensure!(sender.try_send(number) == Ok(()), "there is room for {number}");
    }
    ensure!(sender.try_send(2) == Err(SendError::Full(2)), "a third message fits into two places");
    let before = backend.now();
    let late = sender.send(2, in_ms(backend, 5)).await;
    ensure!(late == Err(SendError::TimedOut(2)), "a send into a full channel: {late:?}");
    ensure!(backend.now().since(before) >= Duration::from_millis(5), "it gave up early");
    let (second, deadline) = (sender.clone(), soon(backend));
    drop(backend.spawn("patient", async move {
        let _ = second.send(3, deadline).await;
    }));
    backend.sleep(Duration::from_millis(2)).await;
    let mut received = Vec::new();
    while received.len() < 3 {
        received.push(receiver.receive(soon(backend)).await?);
    }
    ensure!(received == [0, 1, 3], "received {received:?}");
    Ok(())
}

pub(super) async fn a_closed_channel_says_so<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (sender, receiver) = channel(backend, "closing", 1);
    ensure!(sender.try_send(1) == Ok(()), "there is room");
    let (blocked, deadline) = (sender.clone(), soon(backend));
    let (told, mut tells) = channel(backend, "told", 1);
    drop(backend.spawn("blocked", async move {
        let _ = told.try_send(blocked.send(2, deadline).await);
    }));
    backend.sleep(Duration::from_millis(2)).await;
    drop(receiver);
    let ended = tells.receive(soon(backend)).await?;
    ensure!(ended == Err(SendError::Closed(2)), "a waiting sender is told {ended:?}");
    ensure!(sender.try_send(3) == Err(SendError::Closed(3)), "a closed channel takes messages");
    Ok(())
}

pub(super) async fn a_wait_for_a_message_names_its_channel<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (sender, mut receiver) = crate::channel::<B, ()>(backend, "conformance mailbox", 1);
    let shown = || {
        let entries = backend.registry().snapshot();
        entries.into_iter().find(|e| e.target.as_deref() == Some("conformance mailbox"))
    };
    ensure!(shown().is_none(), "a wait that has not begun is shown");
    {
        let mut waiting = pin!(receiver.receive(soon(backend)));
        ensure!(poll_once(waiting.as_mut()).is_none(), "an empty channel gave a message");
        let Some(entry) = shown() else { return Err(Broken("the wait is not shown".into())) };
        ensure!(entry.kind == WaitKind::Receive && entry.bounded, "it is shown as {entry:?}");
        ensure!(entry.site.file().ends_with("waiting.rs"), "its line is {}", entry.site);
    }
    ensure!(shown().is_none(), "a wait that was given up is still shown");
    drop(sender);
    Ok(())
}

pub(super) async fn a_reply_is_answered_dropped_or_late<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (sender, mut receiver) = channel(backend, "questions", 4);
    let (deadline, own) = (soon(backend), backend.clone());
    drop(backend.spawn("oracle", async move {
        while let Ok((question, replier)) = receiver.receive(deadline).await {
            let replier: crate::Replier<u32> = replier;
            match question {
                0 => drop(replier),
                1 => own.sleep(Duration::from_millis(20)).await,
                other => replier.answer(other * 2),
            }
        }
    }));
    let mut answers = Vec::new();
    for question in [21, 0, 1, 4] {
        let (replier, reply) = sender.reply("oracle's answer");
        let sent = sender.try_send((question, replier));
        ensure!(sent.is_ok(), "the question is not sent");
        let deadline = if question == 1 { in_ms(backend, 3) } else { soon(backend) };
        answers.push(reply.wait(deadline).await);
    }
    let expected = [Ok(42), Err(ReplyError::Dropped), Err(ReplyError::TimedOut), Ok(8)];
    ensure!(answers == expected, "answered {answers:?}");
    Ok(())
}

pub(super) async fn a_lock_admits_one_at_a_time<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    const TASKS: usize = 8;
    const ROUNDS: usize = 20;
    let counter = Arc::new(Lock::new(backend, "counter", Level(1), 0));
    let (told, mut tells) = channel(backend, "done", TASKS);
    for _ in 0..TASKS {
        let (counter, told, own) = (counter.clone(), told.clone(), backend.clone());
        drop(backend.spawn("adder", async move {
            for round in 0..ROUNDS {
                let Ok(mut guard) = counter.lock(soon(&own)).await else { return };
                let before = *guard;
                if round % 5 == 0 {
                    own.sleep(Duration::from_millis(1)).await;
                }
                *guard = before + 1;
            }
            let _ = told.try_send(());
        }));
    }
    for _ in 0..TASKS {
        tells.receive(soon(backend)).await?;
    }
    let total = *counter.lock(soon(backend)).await?;
    ensure!(total == TASKS * ROUNDS, "counted {total} of {}", TASKS * ROUNDS);
    Ok(())
}

pub(super) async fn a_wait_for_a_lock_ends_at_its_deadline<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let held = Arc::new(Lock::new(backend, "conformance lock", Level(1), ()));
    let (told, mut tells) = channel(backend, "told", 1);
    let guard = held.try_lock().ok_or_else(|| Broken("a free lock is refused".into()))?;
    let (other, own) = (held.clone(), backend.clone());
    drop(backend.spawn("contender", async move {
        let outcome = other.lock(in_ms(&own, 200)).await.map(|_| ());
        let _ = told.try_send((outcome, other.try_lock().is_some()));
    }));
    let told_or_shown = || {
        let entries = backend.registry().snapshot();
        let ours = |e: &&crate::registry::Entry| e.target.as_deref() == Some("conformance lock");
        entries.iter().find(ours).map(|e| e.resource.as_ref().is_some_and(|r| r.holder().is_some()))
    };
    eventually(backend, "the contender's wait is shown", || told_or_shown().is_some()).await?;
    ensure!(told_or_shown() != Some(false), "the wait does not name who holds the lock");
    let (outcome, second) = tells.receive(soon(backend)).await?;
    ensure!(outcome == Err(crate::TimedOut), "a wait for a held lock: {outcome:?}");
    ensure!(!second, "a held lock was given away");
    drop(guard);
    held.lock(soon(backend)).await?;
    Ok(())
}

pub(super) async fn a_published_change_is_seen<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let state = Published::new("number", 0);
    let (publisher, own) = (state.clone(), backend.clone());
    drop(backend.spawn("publisher", async move {
        for number in 1..=3 {
            own.sleep(Duration::from_millis(1)).await;
            publisher.publish(number);
        }
    }));
    let seen = state.until(backend, soon(backend), |number| *number >= 3).await?;
    ensure!(*seen == 3 && *state.get() == 3, "saw {seen}");
    let never = state.until(backend, in_ms(backend, 3), |number| *number > 3).await;
    ensure!(never.is_err(), "saw a value that was never published");
    Ok(())
}
