use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::channel::{ReceiveError, SendError, channel};
use crate::testing::{Wakes, poll_with, run, soon};
use crate::{Backend, Clock, Deadline, WaitKind};

#[test]
fn room_goes_to_those_in_the_line_before_newcomers() {
    run(async |backend| {
        let (sender, mut receiver) = channel(&backend, "one", 1);
        sender.try_send(0).unwrap();
        let (first_woken, first_waker) = Wakes::new();
        let (second_woken, second_waker) = Wakes::new();
        let mut first = pin!(sender.send(1, soon(&backend)));
        let mut second = pin!(sender.send(2, soon(&backend)));
        assert!(poll_with(first.as_mut(), &first_waker).is_pending());
        assert!(poll_with(second.as_mut(), &second_waker).is_pending());

        assert_eq!(receiver.receive(soon(&backend)).await, Ok(0));
        assert_eq!((first_woken.count(), second_woken.count()), (1, 0), "one place, one wake-up");
        assert_eq!(sender.try_send(3), Err(SendError::Full(3)), "the place is the first one's");
        assert!(poll_with(second.as_mut(), &second_waker).is_pending(), "and not the second one's");
        assert_eq!(poll_with(first.as_mut(), &first_waker), Poll::Ready(Ok(())));

        assert_eq!(receiver.receive(soon(&backend)).await, Ok(1));
        assert_eq!(poll_with(second.as_mut(), &second_waker), Poll::Ready(Ok(())));
        assert_eq!(receiver.receive(soon(&backend)).await, Ok(2));
        assert_eq!(sender.try_send(4), Ok(()), "with nobody in the line a newcomer is served");
    });
}

#[test]
fn a_sender_that_gives_up_passes_its_turn_on() {
    run(async |backend| {
        let (sender, mut receiver) = channel(&backend, "one", 1);
        sender.try_send(0).unwrap();
        let (woken, waker) = Wakes::new();
        let mut behind = Box::pin(sender.send(2, soon(&backend)));
        {
            let mut leaving = pin!(sender.send(1, soon(&backend)));
            assert!(poll_with(leaving.as_mut(), Waker::noop()).is_pending());
            assert!(poll_with(behind.as_mut(), &waker).is_pending());
            assert_eq!(receiver.receive(soon(&backend)).await, Ok(0));
            assert_eq!(woken.count(), 0, "the turn is the leaving one's");
        }
        assert_eq!(woken.count(), 1);
        assert_eq!(poll_with(behind.as_mut(), &waker), Poll::Ready(Ok(())));
    });
}

#[test]
fn no_wake_up_is_lost_however_sending_and_receiving_interleave() {
    const SENDERS: usize = 6;
    const EACH: usize = 3_000;
    run(async |backend| {
        let (sender, mut receiver) = channel(&backend, "narrow", 2);
        for own in 0..SENDERS {
            let (sender, deadline) = (sender.clone(), soon(&backend));
            drop(backend.spawn("sender", async move {
                for number in 0..EACH {
                    sender.send((own, number), deadline).await.expect("there is room in time");
                }
            }));
        }
        drop(sender);
        let mut next = [0; SENDERS];
        let mut batch = Vec::new();
        loop {
            match receiver.receive_many(&mut batch, 3, soon(&backend)).await {
                Ok(_) => {}
                Err(end) => break assert_eq!(end, ReceiveError::Closed),
            }
            for (own, number) in batch.drain(..) {
                assert_eq!(number, next[own], "messages of sender {own} out of order");
                next[own] += 1;
            }
        }
        assert_eq!(next, [EACH; SENDERS]);
    });
}

#[test]
fn a_message_either_arrives_or_comes_back() {
    const SENDERS: usize = 4;
    const EACH: usize = 2_000;
    run(async |backend| {
        let (sender, mut receiver) = channel(&backend, "impatient", 1);
        let (told, mut tells) = channel(&backend, "told", SENDERS);
        for own in 0..SENDERS {
            let (sender, told, backend) = (sender.clone(), told.clone(), backend.clone());
            drop(backend.clone().spawn("sender", async move {
                let mut back = 0;
                for number in 0..EACH {
                    // Short enough to pass while in the line, now and then.
                    let deadline = Deadline::after(&backend, Duration::from_micros(number as u64 % 7));
                    match sender.send((own, number), deadline).await {
                        Ok(()) => {}
                        Err(SendError::TimedOut(message)) => {
                            assert_eq!(message, (own, number));
                            back += 1;
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
                told.try_send(back).unwrap();
            }));
        }
        drop((sender, told));
        let mut arrived = 0;
        while receiver.receive(soon(&backend)).await.is_ok() {
            arrived += 1;
        }
        let mut back = 0;
        for _ in 0..SENDERS {
            back += tells.receive(soon(&backend)).await.unwrap();
        }
        assert_eq!(arrived + back, SENDERS * EACH);
    });
}

#[test]
fn what_was_sent_before_the_last_sender_went_is_still_received() {
    run(async |backend| {
        let (sender, mut receiver) = channel(&backend, "closing", 2);
        let second = sender.clone();
        sender.try_send(1).unwrap();
        drop(sender);
        second.try_send(2).unwrap();
        drop(second);
        assert_eq!(receiver.receive(soon(&backend)).await, Ok(1));
        assert_eq!(receiver.receive(soon(&backend)).await, Ok(2));
        assert_eq!(receiver.receive(soon(&backend)).await, Err(ReceiveError::Closed));
    });
}

#[test]
fn the_last_sender_to_go_wakes_a_waiting_receiver() {
    run(async |backend| {
        let (sender, mut receiver) = channel::<_, ()>(&backend, "closing", 1);
        let (woken, waker) = Wakes::new();
        let mut waiting = pin!(receiver.receive(soon(&backend)));
        assert!(poll_with(waiting.as_mut(), &waker).is_pending());
        drop(sender);
        assert_eq!(woken.count(), 1);
        assert_eq!(poll_with(waiting, &waker), Poll::Ready(Err(ReceiveError::Closed)));
    });
}

#[test]
fn a_waiting_sender_gets_its_message_back_when_the_receiver_goes() {
    run(async |backend| {
        let (sender, receiver) = channel(&backend, "closing", 1);
        sender.try_send(0).unwrap();
        let (woken, waker) = Wakes::new();
        let mut waiting = pin!(sender.send(1, soon(&backend)));
        assert!(poll_with(waiting.as_mut(), &waker).is_pending());
        drop(receiver);
        assert_eq!(woken.count(), 1);
        assert_eq!(poll_with(waiting, &waker), Poll::Ready(Err(SendError::Closed(1))));
        assert!(sender.is_closed());
    });
}

#[test]
fn a_receive_that_passes_its_deadline_loses_no_message() {
    run(async |backend| {
        let (sender, mut receiver) = channel(&backend, "late", 1);
        let early = receiver.receive(Deadline::after(&backend, Duration::from_millis(2))).await;
        assert_eq!(early, Err(ReceiveError::TimedOut));
        sender.try_send(7).unwrap();
        assert_eq!(receiver.receive(Deadline::At(backend.now())).await, Ok(7), "what is there, is there");
    });
}

#[test]
fn a_wait_for_room_names_the_receiver_as_the_one_to_end_it() {
    run(async |backend| {
        let (sender, mut receiver) = channel(&backend, "mailbox", 1);
        sender.try_send(0).unwrap();
        let idle = Deadline::Unbounded("test");
        let (own, woken) = (backend.clone(), Wakes::new());
        drop(backend.spawn("owner", async move {
            let _ = receiver.receive(idle).await;
            // Holds on to the receiver and reads no more.
            own.sleep(Duration::from_secs(30)).await;
        }));
        crate::testing::eventually(&backend, || sender.is_empty()).await;
        sender.try_send(1).unwrap();
        let mut waiting = pin!(sender.send(2, soon(&backend)));
        assert!(poll_with(waiting.as_mut(), &woken.1).is_pending());
        let entries = backend.registry().snapshot();
        let entry = entries.iter().find(|e| e.kind == WaitKind::Send).expect("the wait is an entry");
        assert_eq!(entry.target.as_deref(), Some("mailbox"));
        assert!(entry.bounded && !entry.operation);
        assert!(entry.site.file().ends_with("channel/tests.rs"));
        let holder = entry.resource.as_ref().and_then(|resource| resource.holder());
        let holder = holder.and_then(|holder| holder.task).expect("the receiver is a task");
        assert_eq!(holder.name.role, "owner");
    });
}

#[test]
fn an_owner_whose_channel_is_never_empty_gives_way() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let backend = crate::real::RealBackend::with_disk(crate::real::DiskKind::Threads).unwrap();
        let (sender, mut receiver) = channel(&backend, "busy", 1);
        let (told, mut tells) = channel(&backend, "others", 1);
        drop(backend.spawn("other", async move { told.try_send(()).unwrap() }));
        let mut batch = Vec::new();
        for round in 0..10_000 {
            sender.try_send(round).unwrap();
            receiver.receive_many(&mut batch, 1, soon(&backend)).await.unwrap();
        }
        assert_eq!(tells.try_receive_many(&mut Vec::new(), 1), 1, "nobody else ran in 10,000 rounds");
    });
}

#[test]
fn room_that_comes_just_before_lining_up_is_not_overlooked() {
    run(async |backend| {
        let (sender, mut receiver) = channel(&backend, "one", 1);
        sender.try_send(0).unwrap();
        // Found full; and before the sender stands in the line, the receiver has emptied the channel.
        assert_eq!(receiver.receive(soon(&backend)).await, Ok(0));
        let mut place = super::Waiter { shared: &sender.shared, number: None };
        assert!(matches!(place.line_up(Waker::noop(), false), super::LinedUp::RoomAfterAll));
        drop(receiver);
        assert!(matches!(place.line_up(Waker::noop(), false), super::LinedUp::Closed));
    });
}
