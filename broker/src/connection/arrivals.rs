//! When the bytes came that wait to be taken: a request that stands behind others has its deadline from when it came.
//!
//! Nobody knows since when something stands in the socket. What is found there when reading goes on counts from when
//! reading stopped.

use std::collections::VecDeque;
use std::time::Duration;

use io_backend::Moment;

/// What comes within this counts as one, and so does what comes within an eighth of the time for which the first has
/// stood there: a client that sends byte after byte leaves few marks.
const GRAIN: Duration = Duration::from_millis(10);
const SHARE: u32 = 8;

/// Of a connection's input, in the order of its bytes.
#[derive(Default)]
pub(super) struct Arrivals {
    read: u64,
    taken: u64,
    /// Bytes up to here had come by then; the last may lie beyond what is read.
    marks: VecDeque<(u64, Moment)>,
    /// Since when nothing is read though more may come.
    stopped: Option<Moment>,
}

impl Arrivals {
    /// Bytes of which the first request was still in want: it is not whole before they came.
    pub(super) fn complete(&mut self, bytes: usize, now: Moment) {
        while self.marks.front().is_some_and(|(end, _)| *end <= self.read) {
            self.marks.pop_front();
        }
        self.more(bytes, now);
    }

    /// Bytes behind a request that is not taken yet.
    pub(super) fn more(&mut self, bytes: usize, now: Moment) {
        self.read += bytes as u64;
        self.mark(self.read, now);
    }

    pub(super) fn stop(&mut self, now: Moment) {
        self.stopped.get_or_insert(now);
    }

    /// Reading goes on; `unread` tells how many bytes stand there.
    pub(super) fn resume(&mut self, unread: impl FnOnce() -> usize) {
        if let Some(stopped) = self.stopped.take() {
            self.mark(self.read + unread() as u64, stopped);
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

    fn mark(&mut self, upto: u64, at: Moment) {
        let grain = self.marks.front().map_or(GRAIN, |(_, first)| GRAIN.max(at.since(*first) / SHARE));
        match self.marks.back_mut() {
            Some((end, _)) if *end >= upto => {}
            Some((end, last)) if at.since(*last) < grain => *end = upto,
            _ => self.marks.push_back((upto, at)),
        }
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
    fn what_stood_in_the_socket_came_when_reading_stopped() {
        let mut arrivals = Arrivals::default();
        arrivals.more(10, ms(100));
        arrivals.stop(ms(200));
        arrivals.stop(ms(900));
        assert_eq!(arrivals.take(10), Some(ms(100)));
        arrivals.resume(|| 30);
        arrivals.resume(|| unreachable!("it has not stopped"));
        arrivals.complete(10, ms(3_000));
        arrivals.more(10, ms(3_000));
        assert_eq!(arrivals.take(20), Some(ms(200)));
        // Stopped again in the middle of what stood there: what came meanwhile is later.
        arrivals.stop(ms(3_100));
        arrivals.resume(|| 20);
        arrivals.complete(25, ms(6_000));
        assert_eq!(arrivals.take(10), Some(ms(200)));
        assert_eq!(arrivals.take(10), Some(ms(3_100)));
        assert_eq!(arrivals.take(5), Some(ms(6_000)), "this was not there then");
    }

    #[test]
    fn a_slow_client_leaves_few_marks() {
        let mut arrivals = Arrivals::default();
        for at in 0..1_000 {
            arrivals.complete(1, ms(at * 1_000));
        }
        assert_eq!(arrivals.marks.len(), 1);
        // Ten minutes of them behind a request that is not answered; each is known to within an eighth.
        for at in 0..60_000 {
            arrivals.more(1, ms(1_000_000 + at * 10));
        }
        assert!(arrivals.marks.len() < 100, "{} marks", arrivals.marks.len());
        assert_eq!(arrivals.take(1_000), Some(ms(999_000)));
        let mut taken = 0;
        for byte in [1, 100, 10_000, 50_000, 60_000] {
            let came = ms(1_000_000 + (byte - 1) * 10);
            let told = arrivals.take((byte - taken) as usize).unwrap();
            taken = byte;
            assert!(told <= came && came.since(told) <= came.since(ms(999_000)) / SHARE, "{byte}: {told:?}");
        }
    }
}
