//! One direction of a connection: what is on its way, what has arrived, and how much room the sender has.
//!
//! Pure: it knows no clock. Room counts bytes from the write until the other side has read them, so a peer
//! that does not read blocks its writer.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::{Buf, Bytes};

/// Bytes that may be written and not yet read: a send buffer and a receive buffer.
pub const WINDOW: usize = 256 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    Data(Bytes),
    Fin,
    Reset,
}

#[derive(Default)]
pub struct Pipe {
    on_the_way: VecDeque<(u64, Segment)>,
    /// Bytes on the way or arrived and not read.
    unread: usize,
    arrived: VecDeque<Bytes>,
    pub fin_arrived: bool,
    pub fin_sent: bool,
    /// The reader has closed its end.
    pub reader_gone: bool,
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
    last_arrival: u64,
    /// When the link has passed on all that was sent so far; for slow links.
    pub busy_until: u64,
    /// A delivery is under way.
    pub scheduled: bool,
}

impl Pipe {
    pub fn room(&self) -> usize {
        WINDOW.saturating_sub(self.unread)
    }

    /// Puts a segment on its way, behind all others. Returns when it arrives.
    pub fn send(&mut self, segment: Segment, arrives: u64) -> u64 {
        let arrives = arrives.max(self.last_arrival);
        self.last_arrival = arrives;
        if let Segment::Data(data) = &segment {
            self.unread += data.len();
        }
        self.on_the_way.push_back((arrives, segment));
        arrives
    }

    /// When the next segment arrives.
    pub fn next_arrival(&self) -> Option<u64> {
        self.on_the_way.front().map(|(at, _)| *at)
    }

    pub fn take_arrived(&mut self, now: u64) -> Option<Segment> {
        if self.next_arrival()? > now {
            return None;
        }
        self.on_the_way.pop_front().map(|(_, segment)| segment)
    }

    pub fn arrive(&mut self, data: Bytes) {
        self.arrived.push_back(data);
    }

    /// Bytes that have arrived and are not read.
    pub fn readable(&self) -> usize {
        self.arrived.iter().map(Bytes::len).sum()
    }

    pub fn has_unread(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// The next bytes, at most `most`.
    pub fn read(&mut self, most: usize) -> Option<Bytes> {
        let first = self.arrived.front_mut()?;
        let taken = if first.len() <= most {
            self.arrived.pop_front()?
        } else {
            let taken = first.slice(..most);
            first.advance(most);
            taken
        };
        self.unread -= taken.len();
        Some(taken)
    }

    /// Nothing more gets through; what has arrived can no longer be read.
    pub fn clear(&mut self) {
        self.on_the_way.clear();
        self.arrived.clear();
        self.unread = 0;
    }

    /// Drops what is on the way.
    pub fn clear_way(&mut self) {
        for (_, segment) in self.on_the_way.drain(..) {
            if let Segment::Data(data) = segment {
                self.unread -= data.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_arrive_in_the_order_in_which_they_were_sent() {
        let mut pipe = Pipe::default();
        pipe.send(Segment::Data(Bytes::from_static(b"a")), 100);
        let second = pipe.send(Segment::Data(Bytes::from_static(b"b")), 50);
        assert_eq!(second, 100, "not before the one sent earlier");
        assert_eq!(pipe.take_arrived(99), None);
        assert_eq!(pipe.take_arrived(100), Some(Segment::Data(Bytes::from_static(b"a"))));
    }

    #[test]
    fn room_comes_back_only_when_the_other_side_reads() {
        let mut pipe = Pipe::default();
        pipe.send(Segment::Data(Bytes::from(vec![0; WINDOW])), 1);
        assert_eq!(pipe.room(), 0);
        let Some(Segment::Data(data)) = pipe.take_arrived(1) else { panic!("no data") };
        pipe.arrive(data);
        assert_eq!(pipe.room(), 0);
        assert_eq!(pipe.read(1000).map(|bytes| bytes.len()), Some(1000));
        assert_eq!(pipe.room(), 1000);
    }
}
