//! How long a peer is waited for: between attempts to connect, and for what was sent to be received. Pure.

use std::time::Duration;

use io_backend::Moment;

use crate::limits::{PEER_BACKOFF_MAX, PEER_BACKOFF_MIN, PEER_SILENT_DEADLINE};

/// The pause before the next attempt.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { next: PEER_BACKOFF_MIN }
    }
}

impl Backoff {
    /// After an attempt that failed, or a link that lasted so long. From half of a pause to the whole of it, as `random`
    /// says: nodes that lost one another at once do not come back at once.
    pub fn pause(&mut self, lasted: Duration, random: u64) -> Duration {
        if lasted >= PEER_BACKOFF_MAX {
            self.next = PEER_BACKOFF_MIN;
        }
        let pause = self.next;
        self.next = (pause * 2).min(PEER_BACKOFF_MAX);
        let half = pause / 2;
        half + Duration::from_nanos(random % (half.as_nanos() as u64 + 1))
    }
}

/// What was sent on a connection and is not received yet.
///
/// A peer that is gone without a word takes bytes as long as the kernel's buffers do. What it says it has read is all that
/// counts; while nothing is on its way nothing is waited for.
#[derive(Debug, Default)]
pub struct Unreceived {
    sent: u64,
    received: u64,
    /// When there last was any progress, or reason to expect some.
    since: Moment,
}

impl Unreceived {
    /// So much more is on its way.
    pub fn sent(&mut self, bytes: usize, now: Moment) {
        if self.sent == self.received {
            self.since = now;
        }
        self.sent += bytes as u64;
    }

    /// The peer says that it has read so much in all; false: it cannot have.
    #[must_use]
    pub fn received(&mut self, in_all: u64, now: Moment) -> bool {
        if in_all > self.sent || in_all < self.received {
            return false;
        }
        if in_all > self.received {
            self.received = in_all;
            self.since = now;
        }
        true
    }

    /// When patience ends; `None`: nothing is on its way.
    pub fn until(&self) -> Option<Moment> {
        (self.sent > self.received).then(|| self.since + PEER_SILENT_DEADLINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew_behind_a_link_that_lasted() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..7).map(|_| backoff.pause(Duration::ZERO, 0).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff.pause(PEER_BACKOFF_MAX, 0).as_millis(), 50);
        assert_eq!(
            backoff.pause(Duration::from_millis(1_999), 0).as_millis(),
            100,
            "a short one changes nothing"
        );
    }

    #[test]
    fn a_pause_lies_between_its_half_and_its_whole() {
        for random in [0, 1, 49_999_999, 50_000_000, 50_000_001, u64::MAX] {
            let pause = Backoff::default().pause(Duration::ZERO, random);
            assert!((PEER_BACKOFF_MIN / 2..=PEER_BACKOFF_MIN).contains(&pause), "{random}: {pause:?}");
        }
    }

    #[test]
    fn a_peer_is_waited_for_while_something_is_on_its_way_and_it_takes_none_of_it() {
        let mut unreceived = Unreceived::default();
        assert_eq!(unreceived.until(), None);
        unreceived.sent(100, at(1_000));
        let patience = |from: u64| Some(at(from) + PEER_SILENT_DEADLINE);
        assert_eq!(unreceived.until(), patience(1_000));
        unreceived.sent(50, at(1_500));
        assert_eq!(unreceived.until(), patience(1_000), "sending more is no progress");
        assert!(unreceived.received(10, at(2_000)));
        assert_eq!(unreceived.until(), patience(2_000));
        assert!(unreceived.received(10, at(2_500)));
        assert_eq!(unreceived.until(), patience(2_000), "said again is no progress");
        assert!(unreceived.received(150, at(3_000)));
        assert_eq!(unreceived.until(), None);
        unreceived.sent(1, at(60_000));
        assert_eq!(unreceived.until(), patience(60_000), "idle time does not count");
        assert!(!unreceived.received(152, at(60_001)) && !unreceived.received(149, at(60_001)));
    }
}
