//! The two indexes of a segment: `.index` (offset -> position) and `.timeindex` (time -> offset).
//!
//! Both are written behind a synced segment and never needed for correctness: whatever of them is missing,
//! short, torn or from another life is found out and rebuilt from the segment. The nth entries of both
//! files describe the same batch; each entry carries its own checksum, mixed with the segment's base
//! offset, so the valid beginning of a file is plain to see.
//!
//! ```text
//! .index      offset - base: u32 | position: u32 | crc: u32                        (12 bytes, big endian)
//! .timeindex  largest timestamp before: i64 | its batch's offset - base: u32 | crc: u32        (16 bytes)
//! ```

use bytes::{Buf, BufMut, BytesMut};

use crate::ids::Offset;

/// Size of an entry of an `.index` file, its checksum included.
pub const OFFSET_ENTRY_BYTES: usize = 12;
/// Size of an entry of a `.timeindex` file, its checksum included.
pub const TIME_ENTRY_BYTES: usize = 16;
/// Memory holds one of so many entries of the files.
const THINNING: u64 = 8;

/// A batch that can be jumped to, and what stands before it in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexPoint {
    /// Base offset of the batch at `position`, relative to the segment's.
    pub offset: u32,
    /// Where the batch begins in the segment, in bytes.
    pub position: u32,
    /// Largest timestamp of all batches before it; -1 where there is none.
    pub max_timestamp: i64,
    /// The first batch that has it, relative to the segment's base offset.
    pub max_timestamp_offset: u32,
}

/// What memory holds of both indexes: points far enough apart to be cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseIndex {
    points: Vec<IndexPoint>,
}

impl SparseIndex {
    /// Keeps the point if it is far enough from the last one kept.
    pub fn push(&mut self, point: IndexPoint, interval_bytes: u64) {
        let far = |last: &IndexPoint| u64::from(point.position - last.position) >= interval_bytes * THINNING;
        if self.points.last().is_none_or(far) {
            self.points.push(point);
        }
    }

    /// The last point whose batch begins at or before `offset`.
    pub fn before_offset(&self, offset: u32) -> Option<&IndexPoint> {
        let after = self.points.partition_point(|point| point.offset <= offset);
        self.points.get(after.checked_sub(1)?)
    }

    /// The last point before which everything is older than `timestamp`.
    pub fn before_timestamp(&self, timestamp: i64) -> Option<&IndexPoint> {
        let after = self.points.partition_point(|point| point.max_timestamp < timestamp);
        self.points.get(after.checked_sub(1)?)
    }

    /// The last point kept; `None` where the segment is short.
    pub fn last(&self) -> Option<&IndexPoint> {
        self.points.last()
    }

    /// The points kept, rising.
    pub fn points(&self) -> &[IndexPoint] {
        &self.points
    }
}

fn checksum(entry: &[u8], base: Offset) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&base.0.to_be_bytes()), entry)
}

/// Appends one point to what is to be written to each file.
pub fn encode(point: &IndexPoint, base: Offset, offsets: &mut BytesMut, times: &mut BytesMut) {
    let at = offsets.len();
    offsets.put_u32(point.offset);
    offsets.put_u32(point.position);
    offsets.put_u32(checksum(&offsets[at..], base));
    let at = times.len();
    times.put_i64(point.max_timestamp);
    times.put_u32(point.max_timestamp_offset);
    times.put_u32(checksum(&times[at..], base));
}

/// The points that both files agree to hold, up to the first damage, for a segment whose valid bytes end at
/// `len`.
pub fn decode(base: Offset, mut offsets: &[u8], mut times: &[u8], len: u64) -> Vec<IndexPoint> {
    let mut points: Vec<IndexPoint> = Vec::new();
    while offsets.len() >= OFFSET_ENTRY_BYTES && times.len() >= TIME_ENTRY_BYTES {
        let sound = checksum(&offsets[..8], base) == (&offsets[8..]).get_u32()
            && checksum(&times[..12], base) == (&times[12..]).get_u32();
        let point = IndexPoint {
            offset: offsets.get_u32(),
            position: offsets.get_u32(),
            max_timestamp: times.get_i64(),
            max_timestamp_offset: times.get_u32(),
        };
        offsets.advance(4);
        times.advance(4);
        let follows = points.last().is_none_or(|last| {
            last.offset < point.offset
                && last.position < point.position
                && last.max_timestamp <= point.max_timestamp
        });
        if !sound || !follows || u64::from(point.position) >= len {
            break;
        }
        points.push(point);
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Vec<IndexPoint> {
        let point = |n: u32| IndexPoint {
            offset: n * 10,
            position: n * 100,
            max_timestamp: i64::from(n) * 1000,
            max_timestamp_offset: n * 10 - 5,
        };
        (1..5).map(point).collect()
    }

    fn encoded(base: Offset) -> (BytesMut, BytesMut) {
        let (mut offsets, mut times) = (BytesMut::new(), BytesMut::new());
        points().iter().for_each(|point| encode(point, base, &mut offsets, &mut times));
        (offsets, times)
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (offsets, times) = encoded(Offset(7));
        assert_eq!(decode(Offset(7), &offsets, &times, 1000), points());
    }

    #[test]
    fn reading_ends_at_the_first_damage() {
        let (good_offsets, good_times) = encoded(Offset(7));
        let read = |o: &[u8], t: &[u8], len| decode(Offset(7), o, t, len).len();
        let flip = |bytes: &BytesMut, at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            bytes
        };
        assert_eq!(read(&flip(&good_offsets, 13), &good_times, 1000), 1, "a flipped bit");
        assert_eq!(read(&good_offsets, &flip(&good_times, 2 * 16), 1000), 2, "a flipped bit in the other");
        assert_eq!(read(&good_offsets[..30], &good_times, 1000), 2, "a torn entry");
        assert_eq!(read(&good_offsets, &good_times[..15], 1000), 0, "a file that is nearly empty");
        assert_eq!(read(&good_offsets, &good_times, 300), 2, "positions beyond the end");
        assert_eq!(decode(Offset(8), &good_offsets, &good_times, 1000), [], "another segment's file");
        assert_eq!(read(&[0; 24], &[0; 32], 1000), 0, "zeros");
    }

    #[test]
    fn lookups_find_the_last_point_before() {
        let mut index = SparseIndex::default();
        points().into_iter().for_each(|point| index.push(point, 1));
        let position = |p: Option<&IndexPoint>| p.map(|p| p.position);
        assert_eq!(position(index.before_offset(9)), None);
        assert_eq!(position(index.before_offset(10)), Some(100));
        assert_eq!(position(index.before_offset(39)), Some(300));
        assert_eq!(position(index.before_timestamp(1000)), None);
        assert_eq!(position(index.before_timestamp(1001)), Some(100));
    }

    #[test]
    fn memory_keeps_fewer_points_than_the_file() {
        let mut index = SparseIndex::default();
        points().into_iter().for_each(|point| index.push(point, 20));
        assert_eq!(index.points().iter().map(|p| p.position).collect::<Vec<_>>(), [100, 300]);
    }
}
