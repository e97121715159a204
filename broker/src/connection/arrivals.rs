//! When the bytes came that wait to be taken: a request that stands behind others has its deadline from when it came.
//!
//! Nobody knows since when something stands in the socket. What is read after reading stopped counts from then, until
//! the socket has been found empty or has given more than it holds.

use std::collections::VecDeque;
use std::time::Duration;

use io_backend::Moment;

/// What comes within this counts as one.
const GRAIN: Duration = Duration::from_millis(10);
/// What both ends of a connection keep of what was sent: the usual largest buffers, 6 and 4 MiB.
const SOCKET_BYTES: u64 = 10 << 20;

/// Of a connection's input, in the order of its bytes.
#[derive(Default)]
pub(super) struct Arrivals {
    came: u64,
    taken: u64,
    /// Bytes up to here had come by then.
    marks: VecDeque<(u64, Moment)>,
    /// Reading stopped then, and bytes up to there may have stood in the socket.
    stopped: Option<(Moment, u64)>,
}

impl Arrivals {
    /// Bytes of which the first request was still in want: it is not whole before they came.
    pub(super) fn complete(&mut self, bytes: usize, now: Moment) {
        self.marks.clear();
        self.more(bytes, now);
    }

    /// More may have come than is read.
    pub(super) fn stop(&mut self, now: Moment) {
        self.stopped.get_or_insert((now, self.came + SOCKET_BYTES));
    }

    /// All that has come is read.
    pub(super) fn drained(&mut self) {
        self.stopped = None;
    }

    /// Bytes behind a request that is not taken yet.
    pub(super) fn more(&mut self, bytes: usize, now: Moment) {
        self.came += bytes as u64;
        self.stopped = self.stopped.filter(|(_, until)| self.came <= *until);
        let at = self.stopped.map_or(now, |(stopped, _)| stopped);
        match self.marks.back_mut() {
            Some((end, first)) if at.since(*first) < GRAIN => *end = self.came,
            _ => self.marks.push_back((self.came, at)),
        }
    }

    /// Takes so many bytes; when the last of them came.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Moment> {
        self.taken += bytes as u64;
        while self.marks.front().is_some_and(|(end, _)| *end < self.taken) {
            self.marks.pop_front();
        }
        self.marks.front().map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_request_came_with_its_last_byte_however_long_it_stands_there() {
        let mut arrivals = Arrivals::default();
        arrivals.complete(10, ms(0));
        arrivals.complete(10, ms(100));
        arrivals.more(20, ms(200));
        arrivals.more(10, ms(300));
        arrivals.more(5, ms(305));
        assert_eq!(arrivals.take(15), Some(ms(100)), "its first bytes came before");
        assert_eq!(arrivals.take(10), Some(ms(200)), "the first of these came with the request before");
        assert_eq!(arrivals.take(15), Some(ms(200)));
        assert_eq!(arrivals.take(15), Some(ms(300)), "within a grain");
        arrivals.complete(7, ms(900));
        assert_eq!(arrivals.take(7), Some(ms(900)));
    }

    #[test]
    fn what_may_have_stood_in_the_socket_came_when_reading_stopped() {
        let mut arrivals = Arrivals::default();
        arrivals.more(10, ms(100));
        arrivals.stop(ms(200));
        arrivals.stop(ms(900));
        assert_eq!(arrivals.take(10), Some(ms(100)));
        arrivals.complete(10, ms(3_000));
        arrivals.more(10, ms(3_000));
        assert_eq!(arrivals.take(20), Some(ms(200)));
        arrivals.drained();
        arrivals.complete(10, ms(3_001));
        assert_eq!(arrivals.take(10), Some(ms(3_001)), "the socket was empty");
        arrivals.stop(ms(3_100));
        arrivals.complete(SOCKET_BYTES as usize, ms(4_000));
        assert_eq!(arrivals.take(SOCKET_BYTES as usize), Some(ms(3_100)));
        arrivals.complete(1, ms(4_000));
        assert_eq!(arrivals.take(1), Some(ms(4_000)), "this was not there then");
    }

    #[test]
    fn a_slow_client_leaves_few_marks() {
        let mut arrivals = Arrivals::default();
        for at in 0..1_000 {
            arrivals.complete(1, ms(at * 1_000));
        }
        assert_eq!(arrivals.marks.len(), 1);
        for at in 0..1_000 {
            arrivals.more(1, ms(1_000_000 + at));
        }
        assert_eq!(arrivals.marks.len(), 101);
    }
}
