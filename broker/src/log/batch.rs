//! Kafka's record batch (v2) as bytes: its header, its checksum, and the few bytes a leader rewrites.
//!
//! ```text
//!  0 base offset  8 length  12 leader epoch  16 magic  17 crc  21 attributes  23 last offset delta
//! 27 base timestamp  35 max timestamp  43 producer id  51 producer epoch  53 base sequence
//! 57 records  61 the records themselves
//! ```
//! The checksum covers everything from byte 21: base offset and leader epoch may be rewritten freely.
//! Nothing here trusts its input; bytes that are no batch are told apart by [`Damage`].

use bytes::{BufMut, Bytes, BytesMut};

use crate::formats::RECORD_BATCH;
use crate::ids::{LeaderEpoch, Offset, ProducerId};

/// Length of a batch's header, in bytes; no batch is shorter.
pub const HEADER_BYTES: usize = 61;
/// Bytes before what the length field counts.
const BEFORE_LENGTH: usize = 12;
const CRC_AT: usize = 17;
const COVERED_FROM: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;
const APPEND_TIME_BIT: i16 = 0x08;
const COMPRESSION_BITS: i16 = 0x07;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of its first record; 0 as producers send it.
    pub base_offset: Offset,
    /// Of the whole batch, header included.
    pub bytes: usize,
    /// The epoch in which the leader appended it; of no meaning as producers send it.
    pub leader_epoch: LeaderEpoch,
    /// Kafka's bits: 0-2 compression, 3 time of the append, 4 transactional, 5 control batch, 6 delete
    /// horizon.
    pub attributes: i16,
    /// The last record's offset from `base_offset`: batches that were compacted have fewer records than
    /// offsets.
    pub last_offset_delta: i32,
    /// The time that its records' times count from, in milliseconds since 1970.
    pub base_timestamp: i64,
    /// The latest of its records' times, in milliseconds since 1970, as the producer says; the broker's where
    /// bit 3 is set.
    pub max_timestamp: i64,
    /// Who sent it; -1 without idempotence.
    pub producer_id: ProducerId,
    /// The producer's epoch; -1 without idempotence.
    pub producer_epoch: i16,
    /// The producer's sequence number of the first record; -1 without idempotence.
    pub base_sequence: i32,
    /// Number of records.
    pub records: i32,
}

/// One record batch, checked: its CRC, length, magic, counts and timestamps have been verified, and
/// these facts read from its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBatch {
    /// The whole batch as it was sent, header included; only its largest timestamp may have been put right.
    pub bytes: Bytes,
    /// Number of records; above zero.
    pub records: i32,
    /// The last record's offset from the first one's.
    pub last_offset_delta: i32,
    /// The header's, in milliseconds since 1970; -1 where the producer gave none.
    pub base_timestamp: i64,
    /// The header's, put right where the records can be read; in milliseconds since 1970, -1 where there is none.
    pub max_timestamp: i64,
    /// The earliest and the latest, of its records where they can be read, of its header where they are compressed.
    pub times: (i64, i64),
    /// Who sent it, and as which in its order; `None` without idempotence.
    pub producer: Option<ProducerStamp>,
    /// Its producer's first batch did not come to the partition here and may come again: where nothing is known of the
    /// producer, this one would overtake it.
    pub behind_refused_first: bool,
    /// Whether it belongs to a transaction (bit 4 of the attributes): never, for such a batch is refused.
    pub transactional: bool,
}

/// Where a batch of an idempotent producer stands in the order of what it sends (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer.
    pub id: ProducerId,
    /// Which of its lives: a later one fences earlier ones.
    pub epoch: i16,
    /// The sequence number of the first record; after 2147483647 comes 0.
    pub base_sequence: i32,
}

/// Why bytes are not the batch that should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// There are fewer bytes than the header says, or than a header has.
    #[error("it ends in the middle of a batch")]
    Short,
    /// The format is another, of this magic byte.
    #[error("the magic byte is {0}, not 2")]
    Magic(i8),
    /// The length field says less than a header takes, or the header counts no offset.
    #[error("the batch length {0} cannot be")]
    Length(i32),
    /// It is a batch, and not the one that comes next.
    #[error("the batch is at offset {found}, where {expected} belongs")]
    Offset {
        /// Where the next one begins.
        expected: Offset,
        /// Where this one begins.
        found: Offset,
    },
    /// The bytes are not those that the checksum was made of.
    #[error("the checksum is {found:#010x}, the bytes add up to {computed:#010x}")]
    Checksum {
        /// What the header says.
        found: u32,
        /// What the bytes come to (CRC-32C).
        computed: u32,
    },
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Reads the header that `bytes` begin with; the rest of the batch need not be there.
    ///
    /// # Errors
    ///
    /// The bytes are too short for a header, of another format, or of a length that cannot be: a [`Damage`]
    /// other than `Offset` and `Checksum`, which the caller finds out.
    pub fn read(bytes: &[u8]) -> Result<BatchHeader, Damage> {
        if bytes.len() < HEADER_BYTES {
            return Err(Damage::Short);
        }
        let magic = bytes[16] as i8;
        if magic != RECORD_BATCH {
            return Err(Damage::Magic(magic));
        }
        let length = i32::from_be_bytes(array(bytes, 8));
        let whole = usize::try_from(length).ok().and_then(|l| l.checked_add(BEFORE_LENGTH));
        let last_offset_delta = i32::from_be_bytes(array(bytes, 23));
        let bytes_all = match whole {
            Some(all) if all >= HEADER_BYTES && last_offset_delta >= 0 => all,
            _ => return Err(Damage::Length(length)),
        };
        Ok(BatchHeader {
            base_offset: Offset(i64::from_be_bytes(array(bytes, 0))),
            bytes: bytes_all,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(array(bytes, 12))),
            attributes: i16::from_be_bytes(array(bytes, 21)),
            last_offset_delta,
            base_timestamp: i64::from_be_bytes(array(bytes, 27)),
            max_timestamp: i64::from_be_bytes(array(bytes, MAX_TIMESTAMP_AT)),
            producer_id: ProducerId(i64::from_be_bytes(array(bytes, 43))),
            producer_epoch: i16::from_be_bytes(array(bytes, 51)),
            base_sequence: i32::from_be_bytes(array(bytes, 53)),
            records: i32::from_be_bytes(array(bytes, 57)),
        })
    }

    /// Where the batch stands in the order of its producer, as it says; `None` without idempotence.
    pub fn producer(&self) -> Option<ProducerStamp> {
        let BatchHeader { producer_id: id, producer_epoch: epoch, base_sequence, .. } = *self;
        (id.0 >= 0 && base_sequence >= 0).then_some(ProducerStamp { id, epoch, base_sequence })
    }

    /// The offset after the last record.
    pub fn end(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(self.last_offset_delta) + 1))
    }

    /// 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub fn compression(&self) -> i16 {
        self.attributes & COMPRESSION_BITS
    }

    /// Whether its records carry the broker's time (bit 3 of the attributes).
    pub fn log_append_time(&self) -> bool {
        self.attributes & APPEND_TIME_BIT != 0
    }
}

/// Whether a whole batch is what its producer sent.
///
/// # Errors
///
/// The bytes are too short for a header ([`Damage::Short`]) or not those that the checksum in it was made of
/// ([`Damage::Checksum`]).
pub fn verify(batch: &[u8]) -> Result<(), Damage> {
    if batch.len() < HEADER_BYTES {
        return Err(Damage::Short);
    }
    let found = u32::from_be_bytes(array(batch, CRC_AT));
    let computed = crc32c::crc32c(&batch[COVERED_FROM..]);
    if found == computed { Ok(()) } else { Err(Damage::Checksum { found, computed }) }
}

/// Makes the checksum right for what it covers.
fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[COVERED_FROM..]);
    batch[CRC_AT..][..4].copy_from_slice(&crc.to_be_bytes());
}

/// A copy whose header says another largest timestamp.
pub fn with_max_timestamp(batch: &[u8], max_timestamp: i64) -> Bytes {
    let mut copy = batch.to_vec();
    copy[MAX_TIMESTAMP_AT..][..8].copy_from_slice(&max_timestamp.to_be_bytes());
    seal(&mut copy);
    copy.into()
}

/// A copy whose header has other attributes.
pub fn with_attributes(batch: &[u8], attributes: i16) -> Bytes {
    let mut copy = batch.to_vec();
    copy[COVERED_FROM..][..2].copy_from_slice(&attributes.to_be_bytes());
    seal(&mut copy);
    copy.into()
}

/// Makes a header right for the other records that were put behind it, as they are compressed now.
pub fn close(batch: &mut [u8], codec: i16, max_timestamp: i64) {
    debug_assert!(batch.len() >= HEADER_BYTES, "the header of a checked batch");
    let length = (batch.len() - BEFORE_LENGTH) as i32;
    batch[8..BEFORE_LENGTH].copy_from_slice(&length.to_be_bytes());
    let attributes = i16::from_be_bytes(array(batch, COVERED_FROM)) & !COMPRESSION_BITS | codec;
    batch[COVERED_FROM..][..2].copy_from_slice(&attributes.to_be_bytes());
    batch[MAX_TIMESTAMP_AT..][..8].copy_from_slice(&max_timestamp.to_be_bytes());
    seal(batch);
}

/// Copies a batch with the offset and epoch that the leader gives it.
pub fn stamp(into: &mut BytesMut, batch: &[u8], base: Offset, epoch: LeaderEpoch) {
    debug_assert!(batch.len() >= HEADER_BYTES, "a checked batch has a header");
    into.put_i64(base.0);
    into.put_slice(&batch[8..12]);
    into.put_i32(epoch.0);
    into.put_slice(&batch[16..]);
}

/// The same for topics whose records carry the broker's time, which is covered by the checksum.
pub fn stamp_append_time(into: &mut BytesMut, batch: &[u8], base: Offset, epoch: LeaderEpoch, now_ms: i64) {
    let at = into.len();
    stamp(into, batch, base, epoch);
    let copy = &mut into[at..];
    let attributes = i16::from_be_bytes(array(copy, COVERED_FROM)) | APPEND_TIME_BIT;
    copy[COVERED_FROM..COVERED_FROM + 2].copy_from_slice(&attributes.to_be_bytes());
    copy[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&now_ms.to_be_bytes());
    seal(copy);
}

/// Walks whole batches that stand one behind the other. Ends at the end of the bytes or at the first
/// damage; a batch that is not wholly there is [`Damage::Short`].
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Batches<'a> {
    /// Walks `bytes` from their beginning.
    pub fn new(bytes: &'a [u8]) -> Batches<'a> {
        Batches { bytes, position: 0 }
    }

    /// Where the next batch begins.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<(usize, BatchHeader), Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.position..];
        if rest.is_empty() {
            return None;
        }
        match BatchHeader::read(rest) {
            Ok(header) if header.bytes <= rest.len() => {
                let at = self.position;
                self.position += header.bytes;
                Some(Ok((at, header)))
            }
            Ok(_) => Some(Err(Damage::Short)),
            Err(damage) => Some(Err(damage)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::test_batches::BatchSpec;

    #[test]
    fn stamping_changes_offset_and_epoch_and_leaves_the_checksum_valid() {
        let sent = BatchSpec::records(3).build();
        let mut stamped = BytesMut::new();
        stamp(&mut stamped, &sent, Offset(77), LeaderEpoch(5));
        let header = BatchHeader::read(&stamped).unwrap();
        assert_eq!(
            (header.base_offset, header.leader_epoch, header.end()),
            (Offset(77), LeaderEpoch(5), Offset(80))
        );
        assert_eq!(verify(&stamped), Ok(()));
        assert_eq!(stamped.len(), sent.len());
    }

    #[test]
    fn append_time_replaces_the_max_timestamp_and_renews_the_checksum() {
        let sent = BatchSpec::records(1).timestamp(5).build();
        let mut stamped = BytesMut::new();
        stamp_append_time(&mut stamped, &sent, Offset(1), LeaderEpoch(0), 99);
        let header = BatchHeader::read(&stamped).unwrap();
        assert_eq!((header.max_timestamp, header.log_append_time()), (99, true));
        assert_eq!(verify(&stamped), Ok(()));
    }

    #[test]
    fn bytes_that_are_no_batch_are_told_apart() {
        let good = BatchSpec::records(1).build().to_vec();
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        assert_eq!(BatchHeader::read(&good[..60]), Err(Damage::Short));
        assert_eq!(BatchHeader::read(&with(16, 1)), Err(Damage::Magic(1)));
        assert!(matches!(BatchHeader::read(&with(8, 0x80)), Err(Damage::Length(_))));
        assert!(matches!(BatchHeader::read(&with(23, 0xff)), Err(Damage::Length(_))));
        assert!(matches!(verify(&with(good.len() - 1, 0xAA)), Err(Damage::Checksum { .. })));
        let cut = &good[..good.len() - 1];
        assert_eq!(Batches::new(cut).next(), Some(Err(Damage::Short)));
    }
}
