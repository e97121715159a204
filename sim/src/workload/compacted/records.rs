//! Batches of records with keys, as keepers send them, and what is read of them after they were compacted.
//!
//! A value says whose it is as everywhere else; a tombstone has none, and says it in a header.

use std::hash::Hasher;

use bytes::{BufMut, Bytes, BytesMut};
use twox_hash::XxHash3_64;

use crate::checker::kept_records::KeptRecord;
use crate::history::compaction::KeyedRecord;
use crate::history::{Value, timestamp_of};
use crate::scenario::Compression as Codec;
use crate::workload::batch::{
    Fields, HEADER_BYTES, Head, PlainRecord, RECORD_BYTES_MAX, Stamp, decode_plain, put_varint, seal,
};
use crate::workload::{codec, payload};

const KEY: &str = "key-";
/// The header that says whose a tombstone is.
const TOMBSTONE_OF: &[u8] = b"tombstone-of";

/// What a keeper wants to send as one batch.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    pub(super) records: Vec<KeyedRecord>,
    /// Bytes of each record's value; tombstones have none.
    pub(super) size: usize,
    /// Create time of the first record.
    pub(super) timestamp_ms: i64,
    pub(super) codec: Codec,
}

impl Keyed {
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.records.len()).unwrap_or(u32::MAX)
    }

    /// What it takes however it is packed.
    pub(super) fn bytes_max(&self) -> u64 {
        let records = self.records.len() * (payload::bytes(self.size) + RECORD_BYTES_MAX);
        (2 * (HEADER_BYTES + records)) as u64
    }

    /// What it takes at least: its values do not shrink.
    pub(super) fn bytes_min(&self) -> u64 {
        let values = self.records.iter().filter(|record| !record.tombstone).count();
        (values * payload::bytes(self.size)) as u64
    }

    /// Of how many records, from the first, a disk sees the number.
    pub(super) fn visible(&self) -> u32 {
        let Ok(bytes) = self.encode(None) else { return 0 };
        let shows = |record: &&KeyedRecord| {
            let mark = mark(record.value);
            bytes.windows(mark.len()).any(|window| window == &mark[..])
        };
        self.records.iter().take_while(shows).count() as u32
    }

    pub(super) fn encode(&self, stamp: Option<Stamp>) -> Result<Bytes, String> {
        let mut records = BytesMut::new();
        for (index, record) in self.records.iter().enumerate() {
            self.put(index, record, &mut records);
        }
        let packed = codec::pack(self.codec, &records, &[])?;
        let times = (0..self.records.len()).map(|index| timestamp_of(self.timestamp_ms, index));
        let head = Head {
            records: self.records.len(),
            timestamp_ms: self.timestamp_ms,
            newest_ms: times.max().unwrap_or(self.timestamp_ms),
            codec: self.codec,
        };
        Ok(seal(&head, &packed, stamp))
    }

    fn put(&self, index: usize, record: &KeyedRecord, into: &mut BytesMut) {
        let mut body = BytesMut::new();
        body.put_u8(0);
        put_varint(&mut body, timestamp_of(self.timestamp_ms, index) - self.timestamp_ms);
        put_varint(&mut body, index as i64);
        put_bytes(key(record.key).as_bytes(), &mut body);
        if record.tombstone {
            put_varint(&mut body, -1);
            put_varint(&mut body, 1);
            put_bytes(TOMBSTONE_OF, &mut body);
            put_bytes(&mark(record.value), &mut body);
        } else {
            let mut value = BytesMut::new();
            payload::put(record.value, payload::bytes(self.size), &mut value);
            put_bytes(&value, &mut body);
            put_varint(&mut body, 0);
        }
        put_bytes(&body, into);
    }
}

fn key(number: u32) -> String {
    format!("{KEY}{number}")
}

fn mark(value: Value) -> BytesMut {
    let mut mark = BytesMut::new();
    payload::put_head(value, &mut mark);
    mark
}

/// Bytes behind their length.
fn put_bytes(bytes: &[u8], into: &mut BytesMut) {
    put_varint(into, bytes.len() as i64);
    into.put_slice(bytes);
}

/// What was fetched of a compacted topic.
#[derive(Debug, PartialEq)]
pub(super) struct Fetched {
    pub(super) records: Vec<(i64, KeyedRecord)>,
    /// Behind the last batch, whatever is left of its records.
    pub(super) end: i64,
    pub(super) damages: Vec<String>,
    /// A batch could not be opened, and nothing behind it can be read.
    pub(super) is_cut_off: bool,
}

/// The records at or above `from`.
pub(super) fn decode(bytes: &[u8], from: i64) -> Fetched {
    let mut fetched = Fetched { records: Vec::new(), end: from, damages: Vec::new(), is_cut_off: false };
    let Fetched { records, end, damages, is_cut_off } = &mut fetched;
    let read = decode_plain(bytes, from, end, |record| {
        let offset = record.offset;
        match record.fields().and_then(|fields| keyed(&fields)) {
            Ok(record) => records.push((offset, record)),
            Err(what) => damages.push(format!("offset {offset} holds {what}")),
        }
    });
    *is_cut_off = read.is_err();
    damages.extend(read.err());
    fetched
}

fn keyed(fields: &Fields<'_>) -> Result<KeyedRecord, String> {
    let key = fields.key.ok_or("a record without a key")?;
    let key = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(KEY)?.parse().ok());
    let key = key.ok_or_else(|| format!("a record of the key {:02x?}", fields.key))?;
    match (fields.value, fields.headers.as_slice()) {
        (Some(value), []) => Ok(KeyedRecord { key, value: payload::decode(value)?, tombstone: false }),
        (None, [(TOMBSTONE_OF, Some(mark))]) => {
            Ok(KeyedRecord { key, value: payload::decode(mark)?, tombstone: true })
        }
        _ => Err(format!("a record of key {key} with other headers")),
    }
}

/// The records of whole batches, whoever's they are, for a comparison.
///
/// # Errors
///
/// A batch is not there to its end, or does not open.
pub fn open_batches(bytes: &[u8]) -> Result<Vec<KeptRecord>, String> {
    let mut records = Vec::new();
    let mut end = 0;
    decode_plain(bytes, i64::MIN, &mut end, |record| records.push(kept(record)))?;
    records.into_iter().collect()
}

fn kept(record: PlainRecord<'_>) -> Result<KeptRecord, String> {
    let (offset, timestamp_ms) = (record.offset, record.timestamp_ms);
    let fields = record.fields()?;
    let mut hasher = XxHash3_64::new();
    // Writing the time and the lengths with the bytes tells apart what ends where.
    hasher.write(format!("{timestamp_ms} {:?} {:?}", fields.value, fields.headers).as_bytes());
    Ok(KeptRecord {
        offset,
        key: fields.key.map(<[u8]>::to_vec),
        tombstone: fields.value.is_none(),
        digest: hasher.finish(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: u32, number: u64, tombstone: bool) -> KeyedRecord {
        KeyedRecord { key, value: Value { producer: 9_000, number }, tombstone }
    }

    fn batch(codec: Codec) -> Keyed {
        let records = vec![record(3, 0, false), record(11, 1, true), record(4, 2, false)];
        Keyed { records, size: 100, timestamp_ms: 1_000, codec }
    }

    /// At this base offset, with this many offsets more behind its last record.
    fn moved(bytes: &[u8], base: i64, more: i32) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        let last = i32::from_be_bytes(bytes[23..27].try_into().unwrap()) + more;
        bytes[23..27].copy_from_slice(&last.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        for codec in codec::ALL {
            let batch = batch(codec);
            let fetched = decode(&batch.encode(Some((7, 1, 3))).unwrap(), 1);
            let wanted: Vec<_> = (0..).zip(batch.records.clone()).skip(1).collect();
            assert_eq!((fetched.records, fetched.end), (wanted, 3), "{codec:?}");
            assert_eq!(fetched.damages, Vec::<String>::new());
        }
        assert_eq!(batch(Codec::None).visible(), 3, "a tombstone has its mark, too");
    }

    #[test]
    fn batches_may_have_fewer_records_than_offsets_and_none() {
        for codec in [Codec::None, Codec::Zstd] {
            let few = moved(&batch(codec).encode(None).unwrap(), 40, 9);
            let mut none = moved(&few[..HEADER_BYTES], 52, 0);
            none[8..12].copy_from_slice(&((HEADER_BYTES - 12) as i32).to_be_bytes());
            none[57..61].fill(0);
            let none = moved(&none, 52, 0);
            let fetched = decode(&[few, none].concat(), 41);
            let offsets: Vec<i64> = fetched.records.iter().map(|(offset, _)| *offset).collect();
            assert_eq!((offsets, fetched.end), (vec![41, 42], 64), "{codec:?} {:?}", fetched.damages);
        }
    }

    #[test]
    fn another_key_a_changed_value_and_none_are_told() {
        let sent = batch(Codec::None).encode(None).unwrap();
        let changed = |at: usize| {
            let mut bytes = sent.to_vec();
            bytes[at] ^= 1;
            decode(&moved(&bytes, 0, 0), 0)
        };
        let at = |what: &[u8]| sent.windows(what.len()).position(|window| window == what).unwrap();
        assert_eq!(changed(at(b"key-3")).damages.len(), 1, "no key of ours");
        assert_ne!(changed(at(b"key-3") + 4).records[0].1.key, 3);
        assert_eq!(changed(at(b"CHRONIKR") + 40).damages.len(), 1);
    }

    #[test]
    fn for_a_comparison_records_are_what_they_hold_however_they_are_packed() {
        let open = |codec| open_batches(&moved(&batch(codec).encode(None).unwrap(), 5, 0)).unwrap();
        let plain = open(Codec::None);
        assert_eq!(plain, open(Codec::Lz4));
        let shown: Vec<_> = plain.iter().map(|record| (record.offset, record.tombstone)).collect();
        assert_eq!(shown, [(5, false), (6, true), (7, false)]);
        let later = Keyed { timestamp_ms: 1_001, ..batch(Codec::None) };
        assert_ne!(plain[0].digest, open_batches(&later.encode(None).unwrap()).unwrap()[0].digest);
        assert!(open_batches(&batch(Codec::None).encode(None).unwrap()[..70]).is_err());
    }
}
