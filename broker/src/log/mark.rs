//! The mark: what a checkpoint says of one partition, and its bytes.
//!
//! A mark names no file. Which files it vouches for follows from their names: those of its generation and older, and of these
//! what [`super::segment::live`] leaves. So a mark has one size, however many segments there are.
//!
//! ```text
//! topic id 16 bytes | partition i32 | replica u64 | lsn u64 | log start i64 | log end i64
//! since version 2:  | high watermark i64 | generation u32 | truncations u32                 (big endian)
//! ```

use bytes::{Buf, BufMut};
use uuid::Uuid;

use crate::ids::{Incarnation, Lsn, Offset, PartitionId, TopicId};

/// What a checkpoint says of one partition: everything up to `lsn` is in its segments, which end at
/// `log_end`, and no segment is needed that ends at `log_start` or before. Replay begins after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CheckpointMark {
    /// Whose segments.
    pub partition: PartitionId,
    /// Which life of its replica.
    pub replica: Incarnation,
    /// The journal's last entry that has gone into them.
    pub lsn: Lsn,
    /// The first offset that can be read: Kafka's log start offset.
    pub log_start: Offset,
    /// The offset after the last record in them.
    pub log_end: Offset,
    /// Kafka's high watermark then: what lies behind it in the segments may yet be truncated.
    pub high_watermark: Offset,
    /// Files of later generations are not vouched for.
    pub generation: u32,
    /// How often the replica was truncated by then.
    pub truncations: u32,
}

/// Bytes of a mark in a record of version 1, which knew no truncation below a checkpoint.
const BYTES_1: usize = 16 + 4 + 8 + 8 + 8 + 8;

impl CheckpointMark {
    /// Bytes of a mark.
    pub const BYTES: usize = BYTES_1 + 8 + 4 + 4;

    /// Bytes of a mark in a record of this version.
    pub fn bytes_of(version: u8) -> usize {
        if version == 1 { BYTES_1 } else { Self::BYTES }
    }

    /// Writes the bytes of this version.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_slice(self.partition.topic.0.as_bytes());
        out.put_i32(self.partition.index);
        out.put_u64(self.replica.0);
        out.put_u64(self.lsn.0);
        out.put_i64(self.log_start.0);
        out.put_i64(self.log_end.0);
        out.put_i64(self.high_watermark.0);
        out.put_u32(self.generation);
        out.put_u32(self.truncations);
    }

    /// Reads a mark of a record of this version, all of which is there. Of version 1 everything was committed.
    pub fn take(bytes: &mut impl Buf, version: u8) -> CheckpointMark {
        let mark = CheckpointMark {
            partition: PartitionId {
                topic: TopicId(Uuid::from_u128(bytes.get_u128())),
                index: bytes.get_i32(),
            },
            replica: Incarnation(bytes.get_u64()),
            lsn: Lsn(bytes.get_u64()),
            log_start: Offset(bytes.get_i64()),
            log_end: Offset(bytes.get_i64()),
            high_watermark: Offset::ZERO,
            generation: 0,
            truncations: 0,
        };
        match version {
            1 => CheckpointMark { high_watermark: mark.log_end, ..mark },
            _ => CheckpointMark {
                high_watermark: Offset(bytes.get_i64()),
                generation: bytes.get_u32(),
                truncations: bytes.get_u32(),
                ..mark
            },
        }
    }
}

#[cfg(test)]
impl CheckpointMark {
    /// Of a log whose records are all committed.
    pub fn of(partition: PartitionId, replica: Incarnation, lsn: u64, log_start: i64, log_end: i64) -> Self {
        let (log_start, log_end) = (Offset(log_start), Offset(log_end));
        let high_watermark = log_end;
        let lsn = Lsn(lsn);
        CheckpointMark {
            partition,
            replica,
            lsn,
            log_start,
            log_end,
            high_watermark,
            generation: 0,
            truncations: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> CheckpointMark {
        let partition = PartitionId { topic: TopicId(Uuid::from_u128(0xab)), index: 2 };
        let mark = CheckpointMark::of(partition, Incarnation(3), 4, 3, 40);
        CheckpointMark { high_watermark: Offset(30), generation: 5, truncations: 6, ..mark }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut bytes = Vec::new();
        mark().put(&mut bytes);
        assert_eq!(bytes.len(), CheckpointMark::BYTES);
        assert_eq!(CheckpointMark::take(&mut &bytes[..], 2), mark());
    }

    #[test]
    fn of_the_first_version_everything_was_committed() {
        let mut bytes = Vec::new();
        mark().put(&mut bytes);
        let read = CheckpointMark::take(&mut &bytes[..CheckpointMark::bytes_of(1)], 1);
        assert_eq!(
            read,
            CheckpointMark { high_watermark: Offset(40), generation: 0, truncations: 0, ..mark() }
        );
    }
}
