//! The records inside a batch, as far as a search by time must look at them: offsets and timestamps.
//!
//! A compressed batch that cannot be opened is answered with its first record, so the client reads at
//! most one batch too much and never misses a record.

use std::borrow::Cow;

use super::batch::{BatchHeader, HEADER_BYTES};
use super::codec;
use crate::ids::Offset;

/// The first record from `from` on that is not older than `wanted`, with its timestamp.
pub fn first_at_or_after(
    header: &BatchHeader,
    batch: &[u8],
    wanted: i64,
    from: Offset,
) -> Option<(Offset, i64)> {
    if header.end() <= from {
        return None;
    }
    let first = header.base_offset.max(from);
    if header.log_append_time() {
        return (header.max_timestamp >= wanted).then_some((first, header.max_timestamp));
    }
    let records = batch.get(HEADER_BYTES..)?;
    let opened = match header.compression() {
        0 => Cow::Borrowed(records),
        codec => match codec::open(codec, records) {
            Some(opened) => Cow::Owned(opened),
            None => {
                let timestamp = if header.base_timestamp >= wanted {
                    header.base_timestamp
                } else {
                    header.max_timestamp
                };
                return (header.max_timestamp >= wanted).then_some((first, timestamp));
            }
        },
    };
    let mut rest = opened.as_ref();
    for _ in 0..header.records {
        let record = take_record(&mut rest)?;
        let offset = header.base_offset.plus(record.offset_delta);
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        if offset >= from && timestamp >= wanted {
            return Some((offset, timestamp));
        }
    }
    None
}

struct RecordStart {
    timestamp_delta: i64,
    offset_delta: i64,
}

/// Reads the beginning of a record and skips the rest of it.
fn take_record(rest: &mut &[u8]) -> Option<RecordStart> {
    let length = usize::try_from(take_varint(rest)?).ok()?;
    let (mut body, after) = rest.split_at_checked(length)?;
    *rest = after;
    body = body.get(1..)?;
    Some(RecordStart { timestamp_delta: take_varint(&mut body)?, offset_delta: take_varint(&mut body)? })
}

/// A zigzag variable-length integer.
fn take_varint(bytes: &mut &[u8]) -> Option<i64> {
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
    fn records_that_are_cut_or_senseless_are_not_found_and_nothing_panics() {
        let batch = BatchSpec::records(3).step(10).build();
        let header = BatchHeader::read(&batch).unwrap();
        for cut in 0..batch.len() {
            let _ = first_at_or_after(&header, &batch[..cut], 1020, Offset(0));
        }
        let mut wild = batch.to_vec();
        wild[HEADER_BYTES..].fill(0xff);
        assert_eq!(first_at_or_after(&header, &wild, 0, Offset(0)), None);
    }
}
