use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::channel::channel;
use crate::reply::{Replier, ReplyError};
use crate::testing::{Wakes, poll_with, run, soon};
use crate::{Backend, Clock, Deadline, WaitKind};

#[test]
fn an_answer_wakes_the_waiter_once() {
    run(async |backend| {
        let (sender, _receiver) = channel::<_, ()>(&backend, "owner", 1);
        let (replier, reply) = sender.reply("answer");
        let (woken, waker) = Wakes::new();
        let mut waiting = pin!(reply.wait(soon(&backend)));
        assert!(poll_with(waiting.as_mut(), &waker).is_pending());
        assert!(poll_with(waiting.as_mut(), &waker).is_pending());
        replier.answer(42);
        assert_eq!(woken.count(), 1);
        assert_eq!(poll_with(waiting, &waker), Poll::Ready(Ok(42)));
    });
}

#[test]
fn an_answer_may_come_before_anybody_waits() {
    run(async |backend| {
        let (sender, _receiver) = channel::<_, ()>(&backend, "owner", 1);
        let (replier, reply) = sender.reply("answer");
        replier.answer(42);
        assert_eq!(reply.wait(Deadline::At(backend.now())).await, Ok(42));
    });
}

#[test]
fn a_replier_that_is_dropped_says_so() {
    run(async |backend| {
        let (sender, receiver) = channel(&backend, "owner", 1);
        let (replier, reply) = sender.reply::<u8>("answer");
        assert!(sender.try_send(replier).is_ok());
        let (woken, waker) = Wakes::new();
        let mut waiting = pin!(reply.wait(soon(&backend)));
        assert!(poll_with(waiting.as_mut(), &waker).is_pending());
        // The owner goes, and its mailbox with everything in it.
        drop(receiver);
        assert_eq!(woken.count(), 1);
        assert_eq!(poll_with(waiting, &waker), Poll::Ready(Err(ReplyError::Dropped)));
    });
}

#[test]
fn an_answer_after_the_deadline_is_dropped_quietly() {
    run(async |backend| {
        let (sender, _receiver) = channel::<_, ()>(&backend, "owner", 1);
        let (replier, reply): (Replier<u8>, _) = sender.reply("answer");
        let late = reply.wait(Deadline::after(&backend, Duration::from_millis(2))).await;
        assert_eq!(late, Err(ReplyError::TimedOut));
        replier.answer(1);
        assert!(backend.registry().is_empty());
    });
}

#[test]
fn a_wait_for_an_answer_says_what_it_is_and_who_owes_it() {
    run(async |backend| {
        let (sender, _receiver) = channel::<_, ()>(&backend, "owner", 1);
        let (_replier, reply) = sender.reply::<u8>("durable append");
        let (_, waker) = Wakes::new();
        let mut waiting = pin!(reply.wait(soon(&backend)));
        assert!(poll_with(waiting.as_mut(), &waker).is_pending());
        let [entry] = &backend.registry().snapshot()[..] else { panic!("one wait, one entry") };
        assert_eq!((entry.kind, entry.what), (WaitKind::Reply, "durable append"));
        assert_eq!(entry.target.as_deref(), Some("owner"));
        assert_eq!(entry.resource.as_ref().map(|resource| &*resource.name), Some("owner"));
    });
}
