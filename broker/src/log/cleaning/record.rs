//! The records of an opened batch, as far as cleaning looks at them, and how they are put into another.

use bytes::{BufMut, BytesMut};

use crate::log::records::take_varint;

/// A record as it stands in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    attributes: u8,
    /// From the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// From the batch's base offset.
    pub offset_delta: i64,
    /// `None`: it has none.
    pub key: Option<&'a [u8]>,
    /// It has no value: what its key had is deleted.
    pub is_tombstone: bool,
    /// From the length of the key on, to its end.
    rest: &'a [u8],
}

/// The bytes are no records, or not as many as the batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Walks `count` records, which fill `bytes`.
pub fn walk(bytes: &[u8], count: i32) -> impl Iterator<Item = Result<RecordView<'_>, Unreadable>> {
    let mut rest = bytes;
    let mut left = count.max(0);
    std::iter::from_fn(move || match left {
        0 if rest.is_empty() => None,
        0 => {
            rest = &[];
            Some(Err(Unreadable))
        }
        _ => {
            left -= 1;
            let taken = take(&mut rest);
            if taken.is_none() {
                (left, rest) = (0, &[]);
            }
            Some(taken.ok_or(Unreadable))
        }
    })
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<RecordView<'a>> {
    let length = usize::try_from(take_varint(bytes)?).ok()?;
    let (mut record, after) = bytes.split_at_checked(length)?;
    *bytes = after;
    let (attributes, fields) = record.split_first()?;
    record = fields;
    let timestamp_delta = take_varint(&mut record)?;
    let offset_delta = take_varint(&mut record)?;
    let rest = record;
    let key = take_bytes(&mut record)?;
    let value_bytes = take_varint(&mut record)?;
    Some(RecordView {
        attributes: *attributes,
        timestamp_delta,
        offset_delta,
        key,
        is_tombstone: value_bytes < 0,
        rest,
    })
}

/// Bytes, or none (-1).
fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = take_varint(from)?;
    if length < 0 {
        return Some(None);
    }
    let (bytes, after) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = after;
    Some(Some(bytes))
}

impl RecordView<'_> {
    /// What it takes, but for two or three small numbers.
    pub fn bytes(&self) -> usize {
        self.rest.len() + 4
    }

    /// Puts it at other distances from the base of another batch.
    pub fn put(&self, into: &mut BytesMut, timestamp_delta: i64, offset_delta: i64) {
        let length = 1 + varint_bytes(timestamp_delta) + varint_bytes(offset_delta) + self.rest.len();
        put_varint(into, length as i64);
        into.put_u8(self.attributes);
        put_varint(into, timestamp_delta);
        put_varint(into, offset_delta);
        into.put_slice(self.rest);
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn put_varint(into: &mut BytesMut, value: i64) {
    let mut value = zigzag(value);
    while value >= 0x80 {
        into.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    into.put_u8(value as u8);
}

fn varint_bytes(value: i64) -> usize {
    (64 - (zigzag(value) | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::HEADER_BYTES;
    use crate::log::test_batches::BatchSpec;

    #[test]
    fn records_are_the_same_at_other_distances() {
        let batch = BatchSpec::of(&[("a", Some("1")), ("b", None)]).step(3).build();
        let views: Vec<_> = walk(&batch[HEADER_BYTES..], 2).collect::<Result<_, _>>().unwrap();
        assert_eq!(views.iter().map(|view| view.key.unwrap()).collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(views.iter().map(|view| view.is_tombstone).collect::<Vec<_>>(), [false, true]);
        for delta in [0, 1, -1, 63, 64, -64, -65, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut moved = BytesMut::new();
            views[1].put(&mut moved, delta, delta);
            let read = walk(&moved, 1).next().unwrap().unwrap();
            assert_eq!(read, RecordView { timestamp_delta: delta, offset_delta: delta, ..views[1] });
        }
    }

    #[test]
    fn what_is_no_row_of_records_is_told_and_does_not_panic() {
        let batch = BatchSpec::of(&[("a", Some("1")), ("b", None)]).build();
        let good = &batch[HEADER_BYTES..];
        let readable = |bytes: &[u8], count| walk(bytes, count).all(|record| record.is_ok());
        assert!(readable(good, 2));
        assert!(!readable(good, 1), "bytes after the last");
        assert!(!readable(good, 3), "fewer than the batch says");
        for cut in 0..good.len() {
            assert!(!readable(&good[..cut], 2), "cut at {cut}");
        }
        assert!(!readable(&[0xff; 40], 2));
    }
}
