use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::Deadline;
use crate::mutex::lock;
use crate::published::Published;
use crate::testing::{Wakes, poll_with, run, soon};
use crate::{Backend, Clock};

#[test]
fn a_value_that_is_wanted_already_is_returned_at_once() {
    run(async |backend| {
        let state = Published::new("number", 3);
        let seen = state.until(&backend, Deadline::At(backend.now()), |number| *number > 2).await;
        assert_eq!(seen.as_deref(), Ok(&3));
        assert_eq!(state.version(), 0);
    });
}

#[test]
fn every_change_wakes_every_waiter_and_only_the_wanted_one_ends_the_wait() {
    run(async |backend| {
        let state = Published::new("number", 0);
        let (woken, waker) = Wakes::new();
        let mut two = pin!(state.until(&backend, soon(&backend), |number| *number >= 2));
        let mut one = pin!(state.until(&backend, soon(&backend), |number| *number >= 1));
        assert!(poll_with(two.as_mut(), &waker).is_pending());
        assert!(poll_with(one.as_mut(), &waker).is_pending());
        state.clone().publish(1);
        assert_eq!(woken.count(), 2);
        assert!(poll_with(two.as_mut(), &waker).is_pending());
        assert_eq!(poll_with(one, &waker).map(|seen| seen.map(|n| *n)), Poll::Ready(Ok(1)));
        state.publish(2);
        assert_eq!(poll_with(two, &waker).map(|seen| seen.map(|n| *n)), Poll::Ready(Ok(2)));
        assert_eq!(state.version(), 2);
    });
}

#[test]
fn waiters_that_give_up_leave_nothing_behind() {
    run(async |backend| {
        let state = Published::new("idle", 0);
        for _ in 0..50 {
            let mut waiting = pin!(state.until(&backend, soon(&backend), |number| *number > 0));
            assert!(poll_with(waiting.as_mut(), Waker::noop()).is_pending());
            assert!(poll_with(waiting.as_mut(), &Wakes::new().1).is_pending());
        }
        let deadline = Deadline::after(&backend, Duration::from_millis(2));
        assert!(state.until(&backend, deadline, |number| *number > 0).await.is_err());
        assert_eq!(lock(&state.shared).waiting.len(), 0);
        assert!(backend.registry().is_empty());
    });
}

#[test]
fn a_reader_may_read_the_state_while_it_decides() {
    run(async |backend| {
        let state = Published::new("number", 1);
        let seen = state.until(&backend, soon(&backend), |number| *state.get() == *number).await;
        assert_eq!(seen.as_deref(), Ok(&1));
    });
}

#[test]
fn no_change_is_missed_between_looking_and_waiting() {
    run(async |backend| {
        let state = Published::new("number", 0_u32);
        let publisher = state.clone();
        drop(backend.spawn("publisher", async move {
            for number in 1..=20_000 {
                publisher.publish(number);
            }
        }));
        let mut seen = 0;
        while seen < 20_000 {
            let next = state.until(&backend, soon(&backend), |number| *number > seen).await;
            seen = *next.expect("the next number comes in time");
        }
    });
}
