//! The records inside a batch, as far as a search by time must look at them: offsets and timestamps.
//!
//! They are looked at in steps, each of which takes about a millisecond at most: the batch of a client may open to
//! far more than it weighs. A batch that cannot be opened, is not worth it, or holds what no record can be, is answered
//! with its first record, so the client reads at most one batch too much and never misses a record.

use super::batch::{BatchHeader, HEADER_BYTES};
use super::codec::{OPENED_BYTES_MAX, Pieces};
use crate::ids::Offset;

/// The longest beginning of a record: its length, attributes, and two variable numbers.
const START_BYTES_MAX: usize = 31;

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is not found yet, and there is more to look at.
    More,
    /// The record that answers, with its timestamp, if there is one.
    Done(Option<(Offset, i64)>),
}

/// What a search is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// The first record that is not older than this timestamp.
    Since(i64),
    /// The first record with the largest timestamp.
    Newest,
}

/// Looks for a record from `from` on.
pub struct RecordSearch<'a> {
    header: &'a BatchHeader,
    aim: Aim,
    from: Offset,
    /// `None`: nothing is to be opened.
    opened: Option<Pieces<'a>>,
    opened_bytes: usize,
    /// What is opened and not looked at.
    buffer: Vec<u8>,
    at: usize,
    /// Bytes of the current record that are still to come, and are of no interest.
    skip: usize,
    records_left: i32,
    ended: bool,
    /// The newest so far.
    newest: Option<(Offset, i64)>,
}

impl<'a> RecordSearch<'a> {
    /// Begins with the batch of this header; nothing is opened yet.
    pub fn new(header: &'a BatchHeader, batch: &'a [u8], aim: Aim, from: Offset) -> RecordSearch<'a> {
        let opened = match header.log_append_time() || header.end() <= from {
            true => None,
            false => Pieces::of(header.compression(), batch.get(HEADER_BYTES..).unwrap_or_default()).ok(),
        };
        RecordSearch {
            header,
            aim,
            from,
            opened,
            opened_bytes: 0,
            buffer: Vec::new(),
            at: 0,
            skip: 0,
            records_left: header.records,
            ended: false,
            newest: None,
        }
    }

    /// Looks on, for about a millisecond at most.
    pub fn step(&mut self) -> Step {
        if self.header.end() <= self.from {
            return Step::Done(None);
        }
        if self.header.log_append_time() {
            let first = self.header.base_offset.max(self.from);
            let timestamp = self.header.max_timestamp;
            return Step::Done(self.is_late_enough(timestamp).then_some((first, timestamp)));
        }
        if !self.open_more() {
            return Step::Done(self.first_of_all());
        }
        while self.records_left > 0 {
            let skipped = self.skip.min(self.buffer.len() - self.at);
            self.at += skipped;
            self.skip -= skipped;
            let rest = &self.buffer[self.at..];
            if !self.ended && (self.skip > 0 || rest.len() < START_BYTES_MAX) {
                return Step::More;
            }
            let Some((record, start_bytes, body_bytes)) = record_start(rest) else {
                return Step::Done(self.first_of_all());
            };
            let deltas = 0..self.header.end().0 - self.header.base_offset.0;
            if !deltas.contains(&record.offset_delta)
                || self.skip > 0
                || (self.ended && start_bytes + body_bytes > rest.len())
            {
                return Step::Done(self.first_of_all());
            }
            self.at += start_bytes;
            self.skip = body_bytes;
            self.records_left -= 1;
            let offset = self.header.base_offset.plus(record.offset_delta);
            let timestamp = self.header.base_timestamp.wrapping_add(record.timestamp_delta);
            if offset < self.from || !self.is_late_enough(timestamp) {
                continue;
            }
            match self.aim {
                Aim::Since(_) => return Step::Done(Some((offset, timestamp))),
                Aim::Newest => self.newest = Some((offset, timestamp)),
            }
        }
        Step::Done(self.newest)
    }

    fn is_late_enough(&self, timestamp: i64) -> bool {
        match self.aim {
            Aim::Since(wanted) => timestamp >= wanted,
            Aim::Newest => self.newest.is_none_or(|(_, newest)| timestamp > newest),
        }
    }

    /// Opens the next piece; false where that cannot be done.
    fn open_more(&mut self) -> bool {
        let Some(opened) = &mut self.opened else { return false };
        self.buffer.drain(..self.at);
        self.at = 0;
        let before = self.buffer.len();
        let Ok(ended) = opened.next(&mut self.buffer) else { return false };
        self.opened_bytes += self.buffer.len() - before;
        self.ended = ended;
        self.header.compression() == 0 || self.opened_bytes <= OPENED_BYTES_MAX
    }

    /// The answer where the records cannot be looked at.
    fn first_of_all(&self) -> Option<(Offset, i64)> {
        let header = self.header;
        let first = header.base_offset.max(self.from);
        match self.aim {
            Aim::Since(wanted) if header.max_timestamp < wanted => None,
            Aim::Since(wanted) if header.base_timestamp >= wanted => Some((first, header.base_timestamp)),
            Aim::Since(_) | Aim::Newest => Some((first, header.max_timestamp)),
        }
    }
}

struct RecordStart {
    timestamp_delta: i64,
    offset_delta: i64,
}

/// The beginning of a record, how many bytes that is, and how many of the record follow.
fn record_start(bytes: &[u8]) -> Option<(RecordStart, usize, usize)> {
    let mut rest = bytes;
    let length = usize::try_from(take_varint(&mut rest)?).ok()?;
    let before = rest.len();
    rest = rest.get(1..)?;
    let start =
        RecordStart { timestamp_delta: take_varint(&mut rest)?, offset_delta: take_varint(&mut rest)? };
    let body = length.checked_sub(before - rest.len())?;
    Some((start, bytes.len() - rest.len(), body))
}

/// A zigzag variable-length integer.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = bytes.split_first()?;
        *bytes = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::test_batches::BatchSpec;

    fn first_at_or_after(
        header: &BatchHeader,
        batch: &[u8],
        wanted: i64,
        from: Offset,
    ) -> Option<(Offset, i64)> {
        found(RecordSearch::new(header, batch, Aim::Since(wanted), from))
    }

    fn found(mut search: RecordSearch<'_>) -> Option<(Offset, i64)> {
        loop {
            if let Step::Done(found) = search.step() {
                return found;
            }
        }
    }

    /// The same batch, its records compressed with gzip.
    fn compressed(batch: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, &batch[HEADER_BYTES..]).unwrap();
        let mut out = batch[..HEADER_BYTES].to_vec();
        out[22] |= 1;
        out.extend(gzip.finish().unwrap());
        let length = (out.len() - 12) as i32;
        out[8..12].copy_from_slice(&length.to_be_bytes());
        out
    }

    #[test]
    fn records_are_found_however_many_steps_it_takes() {
        for value_bytes in [10, 1_000, 70_000] {
            let plain =
                BatchSpec::records(500).at(100).timestamp(1000).step(10).value_bytes(value_bytes).build();
            for batch in [plain.to_vec(), compressed(&plain)] {
                let header = BatchHeader::read(&batch).unwrap();
                for n in [0, 1, 250, 499] {
                    let found = first_at_or_after(&header, &batch, 1000 + n * 10, Offset(0));
                    let expected = match plain.len() > OPENED_BYTES_MAX && header.compression() > 0 && n > 400
                    {
                        true => (Offset(100), header.max_timestamp),
                        false => (Offset(100 + n), 1000 + n * 10),
                    };
                    assert_eq!(found, Some(expected), "{value_bytes} bytes, record {n}");
                }
                let mut search = RecordSearch::new(&header, &batch, Aim::Since(1000 + 4990), Offset(0));
                if value_bytes == 70_000 {
                    assert_eq!(search.step(), Step::More, "a step opens a piece");
                    assert!(search.buffer.len() <= crate::log::codec::PIECE_BYTES);
                }
            }
        }
    }

    #[test]
    fn the_record_is_found_by_looking_at_the_records() {
        let batch = BatchSpec::records(5).at(100).timestamp(1000).step(10).build();
        let header = BatchHeader::read(&batch).unwrap();
        let first =
            |wanted, from| first_at_or_after(&header, &batch, wanted, Offset(from)).map(|(o, t)| (o.0, t));
        assert_eq!(first(0, 0), Some((100, 1000)));
        assert_eq!(first(1001, 0), Some((101, 1010)));
        assert_eq!(first(1040, 0), Some((104, 1040)));
        assert_eq!(first(1041, 0), None);
        assert_eq!(first(1000, 103), Some((103, 1030)), "records before the log's start do not count");
        assert_eq!(first(0, 105), None);
    }

    #[test]
    fn the_newest_record_is_the_first_of_those_that_are_not_deleted() {
        let falling = BatchSpec::records(5).at(100).timestamp(1000).step(-10).build();
        let even = BatchSpec::records(5).at(100).timestamp(1000).step(0).build();
        let newest = |batch: &[u8], from| {
            let header = BatchHeader::read(batch).unwrap();
            found(RecordSearch::new(&header, batch, Aim::Newest, Offset(from))).map(|(o, t)| (o.0, t))
        };
        assert_eq!(newest(&falling, 0), Some((100, 1000)));
        assert_eq!(newest(&falling, 103), Some((103, 970)));
        assert_eq!((newest(&even, 0), newest(&even, 102)), (Some((100, 1000)), Some((102, 1000))));
        assert_eq!(newest(&falling, 105), None);
        assert_eq!(newest(&falling[..HEADER_BYTES], 103), Some((103, 1000)), "the header answers");
    }

    #[test]
    fn where_records_are_cut_or_senseless_the_header_answers() {
        let batch = BatchSpec::records(3).at(100).timestamp(1000).step(10).build();
        let header = BatchHeader::read(&batch).unwrap();
        let by_header = Some((Offset(100), header.max_timestamp));
        for cut in HEADER_BYTES..batch.len() {
            assert_eq!(first_at_or_after(&header, &batch[..cut], 1020, Offset(0)), by_header, "cut at {cut}");
        }
        let first_bytes = batch[HEADER_BYTES..].len() / 3;
        for (what, at, value) in [
            ("no number ends", 0, 0xff),
            ("an offset beyond the batch", HEADER_BYTES + first_bytes + 3, 0x7e),
            ("an offset before the batch", HEADER_BYTES + first_bytes + 3, 0x01),
        ] {
            let mut wild = batch.to_vec();
            match at {
                0 => wild[HEADER_BYTES..].fill(value),
                _ => wild[at] = value,
            }
            assert_eq!(first_at_or_after(&header, &wild, 1005, Offset(0)), by_header, "{what}");
            assert_eq!(
                first_at_or_after(&header, &wild, 1021, Offset(0)),
                None,
                "{what}: all of it is older"
            );
        }
    }
}
