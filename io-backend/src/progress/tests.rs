use std::task::Context;

use crate::progress::Progress;
use crate::testing::Wakes;

#[test]
fn progress_only_grows() {
    let progress = Progress::at(5);
    progress.reach(9);
    progress.reach(7);
    assert_eq!(progress.reached(), 9);
}

#[test]
fn every_kind_of_change_wakes_the_waiter() {
    let progress = Progress::default();
    let (woken, waker) = Wakes::new();
    for change in [|p: &Progress| p.reach(1), |p: &Progress| p.fail_from(2)] {
        progress.register(&Context::from_waker(&waker));
        let before = woken.count();
        change(&progress);
        assert_eq!(woken.count(), before + 1);
        change(&progress);
        assert_eq!(woken.count(), before + 1, "who is not registered is not woken");
    }
}

#[test]
fn the_first_failure_stands_until_it_is_cleared() {
    let progress = Progress::default();
    assert_eq!(progress.failed_from(), None);
    progress.fail_from(0);
    progress.fail_from(8);
    assert_eq!(progress.failed_from(), Some(0));
    progress.clear_failure();
    progress.fail_from(8);
    assert_eq!(progress.failed_from(), Some(8));
}
