//! Record batches, byte by byte: what producers send, and what every byte of a fetched one has to be.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec;
use super::payload::{self, HEADER_NAME, KEY_BYTES};
use crate::history::{Value, timestamp_of};
use crate::scenario::Compression as Codec;

/// Bytes before the records.
pub(super) const HEADER_BYTES: usize = 61;
/// What a record takes beside its value, at most: lengths and deltas, a key, two headers.
pub(super) const RECORD_BYTES_MAX: usize = 128;
/// The attribute of a batch whose largest time is the broker's.
const APPEND_TIME: i16 = 1 << 3;
/// gzip's room for what is not compressed, in marks.
const MARKS_MAX: usize = 4_000;

/// Producer id, epoch and first sequence.
pub(super) type Stamp = (i64, i16, i32);

/// What a producer wants to send as one batch.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) producer: u32,
    pub(super) first: u64,
    /// Bytes of each record's value.
    pub(super) sizes: Vec<usize>,
    /// Create time of the first record.
    pub(super) timestamp_ms: i64,
    pub(super) codec: Codec,
    /// Whether records have keys and headers.
    pub(super) keyed: bool,
}

impl Wanted {
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.sizes.len()).unwrap_or(u32::MAX)
    }

    /// What it takes however it is packed; codecs add little to what does not shrink.
    pub(super) fn bytes_max(&self) -> u64 {
        let records: usize = self.sizes.iter().map(|size| payload::bytes(*size) + RECORD_BYTES_MAX).sum();
        (2 * (HEADER_BYTES + records)) as u64
    }

    /// What it takes at least: its values do not shrink.
    pub(super) fn bytes_min(&self) -> u64 {
        self.sizes.iter().map(|size| payload::bytes(*size) as u64).sum()
    }

    /// Of how many records, from the first, a disk sees the number although they may be compressed.
    ///
    /// Snappy and lz4 keep bytes that they have not met before as they are, so the first mark shows as a rule. gzip gets
    /// the marks in its extra field. zstd hides all.
    pub(super) fn visible(&self) -> u32 {
        let looked_at = match self.codec {
            Codec::None => return self.count(),
            Codec::Gzip => self.count().min(MARKS_MAX as u32),
            Codec::Snappy | Codec::SnappyFramed | Codec::Lz4 => self.count().min(1),
            Codec::Zstd => 0,
        };
        let Ok(bytes) = self.encode(None) else { return 0 };
        let shows = |index: &u32| {
            let mut mark = BytesMut::new();
            payload::put_head(self.value(*index as usize), &mut mark);
            bytes.windows(mark.len()).any(|window| *window == *mark)
        };
        // gzip's stand in its head, one behind the other.
        match self.codec {
            Codec::Gzip => looked_at,
            _ => (0..looked_at).take_while(shows).count() as u32,
        }
    }

    fn value(&self, index: usize) -> Value {
        Value { producer: self.producer, number: self.first + index as u64 }
    }

    pub(super) fn encode(&self, stamp: Option<Stamp>) -> Result<Bytes, String> {
        let mut records = BytesMut::new();
        for (index, size) in self.sizes.iter().enumerate() {
            self.put_record(index, *size, &mut records);
        }
        let packed = match self.codec {
            Codec::None => records.to_vec(),
            codec => codec::pack(codec, &records, &self.marks())?,
        };
        let head = Head {
            records: self.sizes.len(),
            timestamp_ms: self.timestamp_ms,
            newest_ms: self.newest_ms(),
            codec: self.codec,
        };
        Ok(seal(&head, &packed, stamp))
    }

    /// The largest create time.
    pub(super) fn newest_ms(&self) -> i64 {
        let all = (0..self.sizes.len()).map(|index| timestamp_of(self.timestamp_ms, index));
        all.max().unwrap_or(self.timestamp_ms)
    }

    fn marks(&self) -> BytesMut {
        let mut marks = BytesMut::new();
        if self.codec == Codec::Gzip {
            for index in 0..self.sizes.len().min(MARKS_MAX) {
                payload::put_head(self.value(index), &mut marks);
            }
        }
        marks
    }

    fn put_record(&self, index: usize, size: usize, records: &mut BytesMut) {
        let value = self.value(index);
        let size = payload::bytes(size);
        let headers = if self.keyed { payload::headers(value) } else { 0 };
        let key_bytes = if self.keyed { KEY_BYTES } else { 0 };
        let mut head = BytesMut::new();
        head.put_u8(0);
        put_varint(&mut head, timestamp_of(self.timestamp_ms, index) - self.timestamp_ms);
        put_varint(&mut head, index as i64);
        put_varint(&mut head, if self.keyed { key_bytes as i64 } else { -1 });
        let mut middle = BytesMut::new();
        put_varint(&mut middle, size as i64);
        let mut tail = BytesMut::new();
        put_varint(&mut tail, headers as i64);
        for _ in 0..headers {
            put_varint(&mut tail, HEADER_NAME.len() as i64);
            tail.put_slice(HEADER_NAME);
            put_varint(&mut tail, KEY_BYTES as i64);
            tail.put_slice(&payload::key(value));
        }
        put_varint(records, (head.len() + key_bytes + middle.len() + size + tail.len()) as i64);
        records.put_slice(&head);
        if self.keyed {
            records.put_slice(&payload::key(value));
        }
        records.put_slice(&middle);
        payload::put(value, size, records);
        records.put_slice(&tail);
    }
}

/// What a batch says of its records.
pub(super) struct Head {
    pub(super) records: usize,
    /// Create time of the first record, and the largest.
    pub(super) timestamp_ms: i64,
    pub(super) newest_ms: i64,
    pub(super) codec: Codec,
}

/// The batch of records that are packed already.
pub(super) fn seal(head: &Head, packed: &[u8], stamp: Option<Stamp>) -> Bytes {
    let (id, epoch, sequence) = stamp.unwrap_or((-1, -1, -1));
    let last = i32::try_from(head.records).unwrap_or(i32::MAX) - 1;
    let mut batch = BytesMut::with_capacity(HEADER_BYTES + packed.len());
    batch.put_i64(0);
    batch.put_i32(i32::try_from(packed.len() + HEADER_BYTES - 12).unwrap_or(i32::MAX));
    batch.put_i32(-1);
    batch.put_i8(2);
    batch.put_u32(0);
    batch.put_i16(codec::attribute(head.codec));
    batch.put_i32(last);
    batch.put_i64(head.timestamp_ms);
    batch.put_i64(head.newest_ms);
    batch.put_i64(id);
    batch.put_i16(epoch);
    batch.put_i32(sequence);
    batch.put_i32(last + 1);
    batch.put_slice(packed);
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

/// A record of a fetched batch.
pub(super) struct FetchedRecord {
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    /// The broker's time, where it takes the place of the producer's.
    pub(super) append_time_ms: Option<i64>,
    /// Whose it is, or what is wrong with it.
    pub(super) value: Result<Value, String>,
}

/// A record of a fetched batch whose key, value and headers were not looked at.
pub(super) struct PlainRecord<'a> {
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) append_time_ms: Option<i64>,
    pub(super) timestamp_ms: i64,
    rest: Cursor<'a>,
}

/// What a record consists of.
pub(super) struct Fields<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

impl<'a> PlainRecord<'a> {
    pub(super) fn fields(mut self) -> Result<Fields<'a>, String> {
        self.rest.fields()
    }
}

/// Goes through fetched batches. `each` gets every record at or above `from`. An error is about a whole batch, and
/// nothing behind it can be read.
pub(super) fn decode(bytes: &[u8], from: i64, mut each: impl FnMut(FetchedRecord)) -> Result<(), String> {
    let mut end = from;
    decode_plain(bytes, from, &mut end, |record| {
        let PlainRecord { offset, leader_epoch, append_time_ms, .. } = record;
        let value = record.fields().and_then(|fields| fields.sent_value());
        each(FetchedRecord { offset, leader_epoch, append_time_ms, value });
    })
}

/// The same, of any records. `end` becomes the offset behind the last batch, which may have fewer records than offsets
/// where its topic is compacted, and none.
pub(super) fn decode_plain(
    mut bytes: &[u8],
    from: i64,
    end: &mut i64,
    mut each: impl FnMut(PlainRecord<'_>),
) -> Result<(), String> {
    while !bytes.is_empty() {
        let length = bytes
            .get(8..12)
            .and_then(|length| usize::try_from(i32::from_be_bytes(length.try_into().ok()?)).ok())
            .ok_or("a batch without a length")?;
        let (batch, behind) =
            bytes.split_at_checked(12 + length).ok_or("a batch that is not there to its end")?;
        *end = decode_one(batch, from, &mut each)?;
        bytes = behind;
    }
    Ok(())
}

fn decode_one(batch: &[u8], from: i64, each: &mut impl FnMut(PlainRecord<'_>)) -> Result<i64, String> {
    let mut header = Cursor(batch.get(..HEADER_BYTES).ok_or("a batch without a header")?);
    let base = header.i64()?;
    let (_length, leader_epoch) = (header.i32()?, header.i32()?);
    let magic = header.u8()?;
    if magic != 2 {
        return Err(format!("a batch of format {magic} at offset {base}"));
    }
    let crc = header.i32()? as u32;
    if crc != crc32c::crc32c(&batch[21..]) {
        return Err(format!("a batch at offset {base} whose checksum is wrong"));
    }
    let attributes = header.i16()?;
    let (last_delta, base_timestamp) = (header.i32()?, header.i64()?);
    let append_time_ms = Some(header.i64()?).filter(|_| attributes & APPEND_TIME != 0);
    header.skip(8 + 2 + 4)?;
    let count = header.i32()?;
    let packed = &batch[HEADER_BYTES..];
    let unpacked;
    let mut records = match attributes & 7 {
        // Nothing was packed of no records, whatever the attributes were once.
        _ if packed.is_empty() => Cursor(packed),
        0 => Cursor(packed),
        codec => {
            unpacked = codec::unpack(codec, packed)
                .map_err(|error| format!("a batch at offset {base} that does not unpack: {error}"))?;
            Cursor(&unpacked)
        }
    };
    for _ in 0..count {
        let length = records.length()?;
        let mut rest = Cursor(records.take(length)?);
        rest.u8()?;
        let timestamp_ms = base_timestamp.saturating_add(rest.varint()?);
        // A batch begins where it begins: what lies before the position is not asked for.
        let offset = base.saturating_add(rest.varint()?);
        if offset >= from {
            each(PlainRecord { offset, leader_epoch, append_time_ms, timestamp_ms, rest });
        }
    }
    if records.0.is_empty() {
        Ok(base.saturating_add(i64::from(last_delta) + 1))
    } else {
        Err(format!("a batch at offset {base} with more than its records"))
    }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("a record that is not there to its end")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or("a number that is not there to its end")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn i16(&mut self) -> Result<i16, String> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, String> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, String> {
        self.array().map(i64::from_be_bytes)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), String> {
        self.take(bytes).map(|_| ())
    }

    fn varint(&mut self) -> Result<i64, String> {
        let mut zigzag = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            zigzag |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
            }
        }
        Err("a number without an end".into())
    }

    fn length(&mut self) -> Result<usize, String> {
        usize::try_from(self.varint()?).map_err(|_| "a length below zero".into())
    }

    /// Bytes behind their length, which is -1 where there are none.
    fn bytes(&mut self) -> Result<Option<&'a [u8]>, String> {
        match self.varint()? {
            -1 => Ok(None),
            length => {
                self.take(usize::try_from(length).map_err(|_| "a length below zero".to_owned())?).map(Some)
            }
        }
    }

    /// Of a record, behind its offset.
    fn fields(&mut self) -> Result<Fields<'a>, String> {
        let (key, value) = (self.bytes()?, self.bytes()?);
        let mut headers = Vec::new();
        for _ in 0..self.varint()? {
            let length = self.length()?;
            headers.push((self.take(length)?, self.bytes()?));
        }
        Ok(Fields { key, value, headers })
    }
}

impl Fields<'_> {
    /// Whose value it is; key and headers, where it has them, have to follow from it.
    fn sent_value(&self) -> Result<Value, String> {
        let value = payload::decode(self.value.ok_or("no value")?)?;
        if self.key.is_some_and(|key| key != payload::key(value)) {
            return Err(format!("{value} with another key"));
        }
        let fits = |(name, content): &(&[u8], Option<&[u8]>)| {
            *name == HEADER_NAME && *content == Some(&payload::key(value)[..])
        };
        match self.headers.iter().all(fits) {
            true => Ok(value),
            false => Err(format!("{value} with another header")),
        }
    }
}

pub(super) fn put_varint(into: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        into.put_u8(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    into.put_u8(zigzag as u8);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;

    fn wanted(codec: Codec, keyed: bool) -> Wanted {
        Wanted { producer: 2, first: 40, sizes: vec![32, 500, 33], timestamp_ms: 1_000, codec, keyed }
    }

    fn read(bytes: &[u8], from: i64) -> Vec<(i64, Result<Value, String>)> {
        let mut all = Vec::new();
        decode(bytes, from, |record| all.push((record.offset, record.value))).unwrap();
        all
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        for codec in codec::ALL {
            for keyed in [false, true] {
                let wanted = wanted(codec, keyed);
                let bytes = wanted.encode(Some((7, 1, 3))).unwrap();
                let expected: Vec<_> = (0..3).map(|i| (i as i64, Ok(wanted.value(i)))).collect();
                assert_eq!(read(&bytes, 0), expected, "{codec:?}");
                assert_eq!(read(&bytes, 2), expected[2..], "{codec:?}");
            }
        }
    }

    #[test]
    fn others_read_it_as_we_do() {
        let mut bytes = wanted(Codec::None, true).encode(Some((7, 1, 3))).unwrap();
        let set = RecordBatchDecoder::decode(&mut bytes).unwrap();
        assert_eq!(set.records.len(), 3);
        assert_eq!(
            (set.records[1].producer_id, set.records[1].sequence, set.records[1].timestamp),
            (7, 4, 1_007)
        );
        let value = Value { producer: 2, number: 41 };
        assert_eq!(set.records[1].key.as_deref(), Some(&payload::key(value)[..]));
        assert_eq!(payload::decode(set.records[1].value.as_deref().unwrap()), Ok(value));
        assert_eq!(set.records[1].headers.len(), 1, "41 % 3 headers of one name");
    }

    #[test]
    fn a_mark_shows_where_we_say_that_it_does() {
        for codec in codec::ALL {
            for (first, keyed) in
                [(0, true), (0, false), (5, true), (255, false), (256, false), (70_000, true)]
            {
                let wanted = Wanted { first, ..wanted(codec, keyed) };
                let bytes = wanted.encode(None).unwrap();
                let expected = match codec {
                    Codec::None | Codec::Gzip => 3,
                    Codec::Zstd => 0,
                    _ => 1,
                };
                assert_eq!(wanted.visible(), expected, "{codec:?}");
                for index in 0..wanted.visible() as usize {
                    let mut mark = BytesMut::new();
                    payload::put_head(wanted.value(index), &mut mark);
                    let shows = bytes.windows(mark.len()).any(|window| window == &mark[..]);
                    assert!(shows, "{codec:?}, record {index} of {first}");
                }
            }
        }
    }

    #[test]
    fn a_changed_byte_is_found_by_the_checksum_and_behind_it_by_the_value() {
        let whole = wanted(Codec::None, true).encode(None).unwrap();
        let mut changed = whole.to_vec();
        changed[200] ^= 1;
        assert!(decode(&changed, 0, |_| {}).is_err());
        let crc = crc32c::crc32c(&changed[21..]);
        changed[17..21].copy_from_slice(&crc.to_be_bytes());
        assert!(read(&changed, 0).iter().any(|(_, value)| value.is_err()));
        assert!(decode(&whole[..whole.len() - 1], 0, |_| {}).is_err());
    }
}
