//! Record batches as clients send them: checked on the raw bytes, and never believed.
//!
//! Header, CRC-32C and counts of every batch are checked; the records of an uncompressed batch are walked. What is inside a
//! compressed batch is its producer's and its consumer's affair, under the same CRC, unless its topic wants to know
//! (`super::inner`).
//!
//! ```text
//!  0 base offset (8)     8 length (4)         12 leader epoch (4)   16 magic (1)    17 CRC-32C of 21.. (4)
//! 21 attributes (2)     23 last delta (4)     27 base time (8)      35 max time (8)
//! 43 producer id (8)    51 producer epoch (2) 53 base sequence (4)  57 records (4)  61 records...
//! ```

use std::time::Duration;

use bytes::Bytes;

use super::batch::{self, CheckedBatch, HEADER_BYTES, ProducerStamp};
use crate::formats::RECORD_BATCH;
use crate::ids::ProducerId;

/// Base offset and length, which the length does not count.
const FRAME_BYTES: usize = 12;
const CRC_FROM: usize = 21;

const CODEC_BITS: i16 = 0b111;
const ZSTD: i16 = 4;
const LOG_APPEND_TIME_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;

/// A producer that gives no time says this.
const NO_TIMESTAMP: i64 = -1;

/// Produce versions from here on may carry zstd.
const ZSTD_SINCE_VERSION: i16 = 7;

/// What is wrong with the bytes of a partition in a produce request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The field is null or empty.
    #[error("no record batch was sent")]
    Missing,
    /// Larger than `max.message.bytes`, header included.
    #[error("a batch of {size} bytes, {max} are allowed (max.message.bytes)")]
    TooLarge { size: usize, max: usize },
    /// Fewer bytes than a header has.
    #[error("the batch ends after {0} bytes, in the middle of its header")]
    Truncated(usize),
    /// The length field does not fit what was sent.
    #[error("the batch says it has {said} bytes, {found} were sent")]
    Length { said: i64, found: usize },
    /// Bytes follow that the batch's length does not count.
    #[error("one batch for each partition is allowed in a request, more were sent")]
    SeveralBatches,
    /// Formats 0 and 1 are not taken any more, by Kafka 4 neither.
    #[error("message format {0}: only record batches (format 2) are supported")]
    Magic(i8),
    /// The checksum is not that of the bytes.
    #[error("CRC-32C is {found:08x}, the batch says {said:08x}: its bytes were damaged on the way")]
    Crc { said: u32, found: u32 },
    /// A codec that Kafka does not have.
    #[error("compression codec {0} is not known")]
    Codec(i16),
    /// Kafka's clients do not send zstd under a version that old consumers read (KIP-110).
    #[error("zstd needs a newer version of the produce request")]
    CodecTooNew,
    /// Only brokers write control batches.
    #[error("clients do not send control batches")]
    Control,
    /// The batch belongs to a transaction.
    #[error("transactions are not supported by this broker yet")]
    Transactional,
    /// The bit for the time of the append is set by its producer.
    #[error("the broker decides whether it stamps records with its own time, not the producer")]
    TimestampType,
    /// The header's largest timestamp is before its first, or one is below -1.
    #[error("timestamps from {base} to {max}")]
    Timestamp { base: i64, max: i64 },
    /// In Kafka's words.
    #[error(
        "Timestamp {time} of a record is out of range. The timestamp should be within [{from}, {to}] \
         (message.timestamp.before.max.ms, message.timestamp.after.max.ms)"
    )]
    TimestampOutOfRange { time: i64, from: i64, to: i64 },
    /// The header counts no record, or not as many as it has offsets.
    #[error("{records} records up to offset delta {last_delta}")]
    Count { records: i32, last_delta: i32 },
    /// Kafka's own words: of a compacted topic the last record of each key is kept.
    #[error("Compacted topic cannot accept message without key")]
    NoKey,
    /// Only some of producer id, epoch and sequence are set.
    #[error("producer id {id}, epoch {epoch}, sequence {sequence}")]
    Producer { id: i64, epoch: i16, sequence: i32 },
    /// It is compressed, and its topic has to know what is in it.
    #[error("its records (compression codec {codec}) cannot be opened: {why}")]
    Unopenable { codec: i16, why: String },
    /// The same, and it is not opened to its end.
    #[error(
        "its records open to more than {max} bytes, which a topic takes that has to know what is in them"
    )]
    OpensToTooMuch { max: usize },
    /// A record does not have the shape of one, or records do not fill the batch; `record` counts from 0.
    #[error("record {record} is malformed: {what}")]
    Framing { record: i32, what: &'static str },
}

/// Checks the bytes that a request of this version carries for one partition.
pub fn check(records: Option<&Bytes>, version: i16, max_bytes: usize) -> Result<CheckedBatch, BatchError> {
    walked(check_outside(records, version, max_bytes)?)
}

/// Checks a batch without looking at its records, for who looks into it anyway.
pub fn check_outside(
    records: Option<&Bytes>,
    version: i16,
    max_bytes: usize,
) -> Result<CheckedBatch, BatchError> {
    let bytes = records.filter(|bytes| !bytes.is_empty()).ok_or(BatchError::Missing)?;
    let header: &[u8; HEADER_BYTES] = match bytes.first_chunk() {
        Some(header) => header,
        None => return Err(short(bytes)),
    };
    let said = i64::from(int(header, 8)) + FRAME_BYTES as i64;
    let magic = header[16] as i8;
    if magic != RECORD_BATCH {
        return Err(BatchError::Magic(magic));
    }
    match usize::try_from(said) {
        Ok(said) if said == bytes.len() => {}
        Ok(said) if (HEADER_BYTES..bytes.len()).contains(&said) => return Err(BatchError::SeveralBatches),
        _ => return Err(BatchError::Length { said, found: bytes.len() }),
    }
    if bytes.len() > max_bytes {
        return Err(BatchError::TooLarge { size: bytes.len(), max: max_bytes });
    }
    let said = int(header, 17) as u32;
    let found = crc32c::crc32c(&bytes[CRC_FROM..]);
    if said != found {
        return Err(BatchError::Crc { said, found });
    }
    let attributes = short_int(header, 21);
    check_attributes(attributes, version)?;

    let last_offset_delta = int(header, 23);
    let records = int(header, 57);
    if records <= 0 || i64::from(last_offset_delta) + 1 != i64::from(records) {
        return Err(BatchError::Count { records, last_delta: last_offset_delta });
    }
    let (base_timestamp, max_timestamp) = (long(header, 27), long(header, 35));
    // -1: the producer gave none.
    if base_timestamp < -1 || max_timestamp < base_timestamp {
        return Err(BatchError::Timestamp { base: base_timestamp, max: max_timestamp });
    }
    let producer = producer(header)?;
    Ok(CheckedBatch {
        bytes: bytes.clone(),
        records,
        last_offset_delta,
        base_timestamp,
        max_timestamp,
        times: (base_timestamp, max_timestamp),
        producer,
        behind_refused_first: false,
        transactional: false,
    })
}

/// Walks its records, where they are not compressed.
pub fn walked(batch: CheckedBatch) -> Result<CheckedBatch, BatchError> {
    let compressed = i16::from(batch.bytes[22]) & CODEC_BITS != 0;
    if compressed {
        return Ok(batch);
    }
    let (earliest, latest) = walk(&batch.bytes[HEADER_BYTES..], batch.records)?;
    let base = batch.base_timestamp;
    let times = (base.saturating_add(earliest), base.saturating_add(latest));
    let max_timestamp = largest_time(&batch, times);
    let bytes = match max_timestamp == batch.max_timestamp {
        true => batch.bytes.clone(),
        false => batch::with_max_timestamp(&batch.bytes, max_timestamp),
    };
    Ok(CheckedBatch { bytes, max_timestamp, times, ..batch })
}

/// What a search by time and retention go by is what the records say; -1 stays "none".
pub(super) fn largest_time(batch: &CheckedBatch, (_, latest): (i64, i64)) -> i64 {
    match batch.max_timestamp >= 0 {
        true => latest.max(batch.base_timestamp),
        false => batch.max_timestamp,
    }
}

/// How far the times of records may lie from the broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// The broker's clock, in milliseconds since 1970.
    pub now_ms: i64,
    /// How far behind it a record's time may be (`message.timestamp.before.max.ms`); `None`: as far as it
    /// will.
    pub before_max: Option<Duration>,
    /// How far ahead of it (`message.timestamp.after.max.ms`).
    pub after_max: Option<Duration>,
}

/// Whether a batch's records have times that its topic takes.
pub fn check_times(batch: &CheckedBatch, limits: &TimeLimits) -> Result<(), BatchError> {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let from = limits.before_max.map_or(i64::MIN, |before| limits.now_ms.saturating_sub(ms(before)));
    let to = limits.after_max.map_or(i64::MAX, |after| limits.now_ms.saturating_add(ms(after)));
    let (earliest, latest) = batch.times;
    match [earliest, latest].into_iter().find(|time| *time != NO_TIMESTAMP && !(from..=to).contains(time)) {
        Some(time) => Err(BatchError::TimestampOutOfRange { time, from, to }),
        None => Ok(()),
    }
}

/// Too short for a header; an older format may still be told by its magic.
fn short(bytes: &Bytes) -> BatchError {
    match bytes.get(16) {
        Some(magic) if *magic as i8 != RECORD_BATCH => BatchError::Magic(*magic as i8),
        _ => BatchError::Truncated(bytes.len()),
    }
}

fn check_attributes(attributes: i16, version: i16) -> Result<(), BatchError> {
    let codec = attributes & CODEC_BITS;
    if codec > ZSTD {
        return Err(BatchError::Codec(codec));
    }
    if codec == ZSTD && version < ZSTD_SINCE_VERSION {
        return Err(BatchError::CodecTooNew);
    }
    if attributes & CONTROL_BIT != 0 {
        return Err(BatchError::Control);
    }
    if attributes & TRANSACTIONAL_BIT != 0 {
        return Err(BatchError::Transactional);
    }
    if attributes & LOG_APPEND_TIME_BIT != 0 {
        return Err(BatchError::TimestampType);
    }
    Ok(())
}

fn producer(header: &[u8; HEADER_BYTES]) -> Result<Option<ProducerStamp>, BatchError> {
    let (id, epoch, base_sequence) = (long(header, 43), short_int(header, 51), int(header, 53));
    match id {
        -1 => Ok(None),
        id if id >= 0 && epoch >= 0 && base_sequence >= 0 => {
            Ok(Some(ProducerStamp { id: ProducerId(id), epoch, base_sequence }))
        }
        id => Err(BatchError::Producer { id, epoch, sequence: base_sequence }),
    }
}

/// Walks uncompressed records: as many as the header says, in order, and nothing after them. The least and the most that
/// their times differ from the batch's.
fn walk(records: &[u8], count: i32) -> Result<(i64, i64), BatchError> {
    let mut rest = records;
    let (mut earliest, mut latest) = (i64::MAX, i64::MIN);
    for record in 0..count {
        let wrong = |what: &'static str| BatchError::Framing { record, what };
        let len = varint(&mut rest).ok_or(wrong("its length does not end"))?;
        let len = usize::try_from(len).map_err(|_| wrong("a negative length"))?;
        if len > rest.len() {
            return Err(wrong("it is longer than the batch"));
        }
        let (one, after) = rest.split_at(len);
        rest = after;
        let time = walk_one(one, record).map_err(wrong)?;
        (earliest, latest) = (earliest.min(time), latest.max(time));
    }
    match rest.is_empty() {
        true => Ok((earliest, latest)),
        false => Err(BatchError::Framing { record: count, what: "bytes after the last record" }),
    }
}

/// What its time differs from the batch's.
fn walk_one(mut record: &[u8], offset_delta: i32) -> Result<i64, &'static str> {
    let rest = &mut record;
    take(rest, 1).ok_or("no attributes")?;
    let time = varint(rest).ok_or("no timestamp")?;
    if varint(rest).ok_or("no offset")? != i64::from(offset_delta) {
        return Err("its offset does not follow");
    }
    skip_bytes(rest).ok_or("a wrong key length")?;
    skip_bytes(rest).ok_or("a wrong value length")?;
    let headers = varint(rest).ok_or("no number of headers")?;
    if headers < 0 || headers > rest.len() as i64 {
        return Err("an impossible number of headers");
    }
    for _ in 0..headers {
        let key =
            varint(rest).and_then(|len| usize::try_from(len).ok()).ok_or("a wrong header key length")?;
        take(rest, key).ok_or("a header key longer than the record")?;
        skip_bytes(rest).ok_or("a wrong header value length")?;
    }
    if rest.is_empty() { Ok(time) } else { Err("bytes after its end") }
}

/// Bytes or null (-1).
fn skip_bytes(rest: &mut &[u8]) -> Option<()> {
    match varint(rest)? {
        -1 => Some(()),
        len => take(rest, usize::try_from(len).ok()?),
    }
}

fn take(rest: &mut &[u8], len: usize) -> Option<()> {
    *rest = rest.get(len..)?;
    Some(())
}

/// A zigzag number of at most ten bytes.
fn varint(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (i, byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *rest = &rest[i + 1..];
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn field<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&header[at..at + N]);
    field
}

fn short_int(header: &[u8; HEADER_BYTES], at: usize) -> i16 {
    i16::from_be_bytes(field(header, at))
}

fn int(header: &[u8; HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes(field(header, at))
}

fn long(header: &[u8; HEADER_BYTES], at: usize) -> i64 {
    i64::from_be_bytes(field(header, at))
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
