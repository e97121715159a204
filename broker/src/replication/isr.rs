//! Who is in sync: who is to leave an ISR, and who may come into one. Pure.
//!
//! A follower is in sync as long as its disk comes, within the lag time, to where the leader's log ended: what it has and has not
//! synced does not count. Time is counted by ticks, at most two of them at each, so that a process that stood still does not take
//! the others for slow.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{BrokerId, LeaderEpoch, Offset, PartitionId};

/// A partition that this node leads, as of a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    pub partition: PartitionId,
    pub epoch: LeaderEpoch,
    pub log_end: Offset,
    pub high_watermark: Offset,
    /// The other replicas: whether it is in the ISR, and up to where its disk has everything, where that is known in this epoch.
    pub followers: Vec<(BrokerId, bool, Option<Offset>)>,
}

impl Led {
    /// All followers are in sync and have all that the leader has: before something is heard of it, there is nothing to do.
    pub fn is_settled(&self) -> bool {
        self.followers
            .iter()
            .all(|(_, in_sync, synced)| *in_sync && synced.is_some_and(|synced| synced >= self.log_end))
    }
}

/// What is to become of an ISR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub partition: PartitionId,
    /// These leave it.
    pub leave: Vec<BrokerId>,
    /// These may come into it, if the partition says so.
    pub join: Vec<BrokerId>,
}

/// A member of an ISR that has not synced all.
#[derive(Clone, Copy, Debug)]
struct Behind {
    epoch: LeaderEpoch,
    /// Where the leader's log ended when its age began.
    goal: Offset,
    age: Duration,
}

/// Followers that are in sync and behind.
#[derive(Debug)]
pub struct InSyncWatch {
    tick: Duration,
    lag_max: Duration,
    behind: BTreeMap<(PartitionId, BrokerId), Behind>,
}

impl InSyncWatch {
    /// To be told of time at each tick.
    pub fn new(tick: Duration, lag_max: Duration) -> InSyncWatch {
        InSyncWatch { tick, lag_max, behind: BTreeMap::new() }
    }

    /// So much time has passed since the last tick. Says for which partitions something is to change; those that are settled
    /// need not be told.
    pub fn handle_tick(&mut self, elapsed: Duration, led: &[Led]) -> Vec<Wish> {
        let elapsed = elapsed.min(2 * self.tick);
        let before = std::mem::take(&mut self.behind);
        let mut wishes = Vec::new();
        for led in led {
            let mut wish = Wish { partition: led.partition, leave: Vec::new(), join: Vec::new() };
            for (follower, in_sync, synced) in &led.followers {
                match in_sync {
                    true => {
                        let of = (led.partition, *follower);
                        let Some(behind) = behind(before.get(&of), led, *synced, elapsed) else { continue };
                        if behind.age >= self.lag_max {
                            wish.leave.push(*follower);
                        }
                        self.behind.insert(of, behind);
                    }
                    false if synced.is_some_and(|synced| synced >= led.high_watermark) => {
                        wish.join.push(*follower);
                    }
                    false => {}
                }
            }
            if !wish.leave.is_empty() || !wish.join.is_empty() {
                wishes.push(wish);
            }
        }
        wishes
    }
}

fn behind(before: Option<&Behind>, led: &Led, synced: Option<Offset>, elapsed: Duration) -> Option<Behind> {
    if synced.is_some_and(|synced| synced >= led.log_end) {
        return None;
    }
    let begins = Behind { epoch: led.epoch, goal: led.log_end, age: Duration::ZERO };
    let Some(before) = before.filter(|before| before.epoch == led.epoch) else { return Some(begins) };
    // It has come to where the log ended then: what it lacks is younger.
    if synced.is_some_and(|synced| synced >= before.goal) {
        return Some(begins);
    }
    Some(Behind { age: before.age + elapsed, ..*before })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TopicId;

    const TICK: Duration = Duration::from_millis(250);
    const P: PartitionId = PartitionId { topic: TopicId::NIL, index: 0 };

    fn led(epoch: i32, log_end: i64, followers: &[(i32, bool, Option<i64>)]) -> Led {
        let of =
            |(id, in_sync, synced): &(i32, bool, Option<i64>)| (BrokerId(*id), *in_sync, synced.map(Offset));
        Led {
            partition: P,
            epoch: LeaderEpoch(epoch),
            log_end: Offset(log_end),
            high_watermark: Offset(50),
            followers: followers.iter().map(of).collect(),
        }
    }

    fn watch() -> InSyncWatch {
        InSyncWatch::new(TICK, Duration::from_secs(1))
    }

    /// The first tick, from one on, at which somebody leaves; each is given the epoch, the log's end and what is synced.
    fn leaves(ticks: impl Iterator<Item = (i32, i64, Option<i64>)>) -> Option<usize> {
        let mut watch = watch();
        let mut ticks = ticks.map(|(epoch, end, synced)| led(epoch, end, &[(2, true, synced)]));
        ticks.position(|led| !watch.handle_tick(TICK, &[led]).is_empty()).map(|nth| nth + 1)
    }

    #[test]
    fn who_does_not_come_to_where_the_log_ended_within_the_lag_time_leaves() {
        assert_eq!(leaves((0..50).map(|_| (1, 100, Some(90)))), Some(5), "it has stopped");
        assert_eq!(leaves((0..50).map(|_| (1, 100, None))), Some(5), "it was not heard of in this epoch");
        assert_eq!(leaves((0..50).map(|n| (1, 100 + 10 * n, Some(90 + n)))), Some(5), "it is slower");
        assert_eq!(
            leaves((0..50).map(|n| (1, 100 + 10 * n, Some(80 + 10 * n)))),
            None,
            "it is behind by two ticks"
        );
        assert_eq!(leaves((0..50).map(|_| (1, 100, Some(100)))), None, "nothing is to be done");
        assert_eq!(leaves((0..50).map(|n| (n / 4, 100, None))), None, "each epoch begins anew");
    }

    #[test]
    fn a_process_that_stood_still_takes_nobody_for_slow() {
        let mut watch = watch();
        let behind = [led(1, 100, &[(2, true, Some(90))])];
        assert_eq!(watch.handle_tick(TICK, &behind), []);
        assert_eq!(watch.handle_tick(Duration::from_secs(3600), &behind), []);
        assert_eq!(watch.handle_tick(TICK, &behind), []);
        let wish = Wish { partition: P, leave: vec![BrokerId(2)], join: vec![] };
        for _ in 0..2 {
            // Until the image says so.
            assert_eq!(watch.handle_tick(TICK, &behind), std::slice::from_ref(&wish));
        }
    }

    #[test]
    fn a_partition_is_settled_when_all_are_in_sync_and_have_all() {
        for (followers, settled) in [
            (vec![(2, true, Some(100)), (3, true, Some(100))], true),
            (vec![(2, true, Some(100)), (3, true, Some(99))], false),
            (vec![(2, true, Some(100)), (3, true, None)], false),
            (vec![(2, true, Some(100)), (3, false, Some(100))], false),
        ] {
            assert_eq!(led(1, 100, &followers).is_settled(), settled, "{followers:?}");
        }
    }

    #[test]
    fn who_has_what_is_committed_on_its_disk_may_join() {
        let of =
            |synced| watch().handle_tick(TICK, &[led(1, 100, &[(2, true, Some(100)), (3, false, synced)])]);
        assert_eq!(of(None), []);
        assert_eq!(of(Some(49)), []);
        assert_eq!(of(Some(50)), [Wish { partition: P, leave: vec![], join: vec![BrokerId(3)] }]);
    }
}
