use std::future::{pending, ready};
use std::time::Duration;

use crate::Clock;
use crate::testing::run;
use crate::time::{Deadline, Moment, TimedOut, within};

#[test]
fn moments_do_not_wrap() {
    let late = Moment(u64::MAX - 1);
    assert_eq!(late + Duration::from_secs(1), Moment(u64::MAX));
    assert_eq!(Moment(5) - Duration::from_secs(1), Moment::ZERO);
    assert_eq!(Moment(5).since(late), Duration::ZERO);
    assert_eq!(late + Duration::MAX, Moment(u64::MAX));
}

#[test]
fn the_earlier_deadline_is_the_bounded_one() {
    let (early, late, never) =
        (Deadline::At(Moment(1)), Deadline::At(Moment(2)), Deadline::Unbounded("test"));
    for (one, other, expected) in
        [(early, late, early), (late, early, early), (late, never, late), (never, late, late)]
    {
        assert_eq!(one.earlier(other), expected);
    }
    assert_eq!(never.earlier(never), never);
}

#[test]
fn a_result_that_is_there_wins_over_a_deadline_that_has_passed() {
    run(async |backend| {
        let passed = Deadline::At(Moment::ZERO);
        assert_eq!(within(&backend, passed, ready(1)).await, Ok(1));
        assert_eq!(within(&backend, passed, pending::<u8>()).await, Err(TimedOut));
        assert_eq!(within(&backend, Deadline::Unbounded("test"), ready(1)).await, Ok(1));
    });
}

#[test]
fn a_deadline_beyond_all_time_is_no_error() {
    run(async |backend| {
        let never = Deadline::At(Moment(u64::MAX));
        let slow = backend.sleep(Duration::from_millis(1));
        assert_eq!(within(&backend, never, slow).await, Ok(()));
    });
}
