//! Records and the batches that they travel in.

use std::io::Read;

use broker::log::codec;
use broker::log::encoder::{self, Method};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record, RecordBatchDecoder,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

/// In the header of a batch: its length, counted from behind it, how far its last offset is from its first, and how many records it has.
const LENGTH_AT: usize = 8;
const AFTER_LENGTH: usize = 12;
const LAST_DELTA_AT: usize = 23;
const COUNT_AT: usize = 57;
/// No batch opens to more, and none has more records: a node that says so is not believed.
const OPENED_BYTES_MAX: u64 = 256 << 20;
const COUNT_MAX: i32 = 1 << 24;

/// The `nth` record of a batch that is to be sent; the node gives it its offset.
pub fn record(nth: usize, timestamp: i64, key: Option<Bytes>, value: Option<Bytes>) -> Record {
    let nth = i32::try_from(nth).unwrap_or(i32::MAX);
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(nth),
        // So that the batch's first is -1: it has none.
        sequence: nth - 1,
        timestamp,
        key,
        value,
        headers: IndexMap::new(),
    }
}

pub fn encode(records: &[Record], compression: Compression) -> Result<Bytes, String> {
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    let close = |records: &mut BytesMut, into: &mut BytesMut, compression: Compression| {
        into.put_slice(&compress(records, compression)?);
        Ok(())
    };
    RecordBatchEncoder::encode_with_custom_compression(&mut batch, records, &options, Some(close))
        .map_err(|error| format!("{error:#}"))?;
    Ok(batch.freeze())
}

fn compress(records: &[u8], compression: Compression) -> std::io::Result<Vec<u8>> {
    encoder::compress(Method::of(compression as i16), records)
}

/// What a fetch brought.
#[derive(Debug, Default, PartialEq)]
pub struct Decoded {
    pub records: Vec<Record>,
    /// The offset after the last batch, which may have none of its records left.
    pub next: Option<i64>,
}

/// All whole batches; the last may have been cut where the fetch's bytes ended. Control records are not told.
pub fn decode(mut bytes: Bytes) -> Result<Decoded, String> {
    let mut all = Decoded::default();
    while let Some(mut batch) = next_batch(&mut bytes)? {
        all.next = batch.get(..LAST_DELTA_AT + 4).and_then(|header| {
            let base = i64::from_be_bytes(header[..8].try_into().ok()?);
            let delta = i32::from_be_bytes(header[LAST_DELTA_AT..].try_into().ok()?);
            base.checked_add(i64::from(delta))?.checked_add(1)
        });
        let open = |records: &mut Bytes, compression: Compression| {
            let mut opened = Vec::new();
            codec::open(compression as i16, records)?.take(OPENED_BYTES_MAX).read_to_end(&mut opened)?;
            Ok(Bytes::from(opened))
        };
        let set = RecordBatchDecoder::decode_with_custom_compression(&mut batch, Some(open))
            .map_err(|error| format!("{error:#}"))?;
        all.records.extend(set.records.into_iter().filter(|record| !record.control));
    }
    Ok(all)
}

fn next_batch(bytes: &mut Bytes) -> Result<Option<Bytes>, String> {
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(i32::from_be_bytes(bytes.try_into().ok()?))
    };
    let Some(length) = number(LENGTH_AT) else { return Ok(None) };
    let length = usize::try_from(length).map_err(|_| format!("a batch has the length {length}"))?;
    if bytes.len() < AFTER_LENGTH + length {
        return Ok(None);
    }
    match number(COUNT_AT) {
        Some(0..=COUNT_MAX) => Ok(Some(bytes.split_to(AFTER_LENGTH + length))),
        count => Err(format!("a batch has {count:?} records")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Record> {
        let value = |n: usize| Bytes::from(format!("value {n}, again and again and again"));
        (0..50).map(|n| record(n, 1_000 + n as i64, (n % 2 == 0).then(|| value(n)), Some(value(n)))).collect()
    }

    #[test]
    fn what_is_encoded_in_any_codec_is_decoded_and_a_cut_batch_is_left() {
        use Compression as C;
        for compression in [C::None, C::Gzip, C::Snappy, C::Lz4, C::Zstd] {
            let batch = encode(&some(), compression).unwrap();
            let mut two = BytesMut::from(&batch[..]);
            two.extend_from_slice(&batch[..batch.len() - 1]);
            let decoded = decode(two.freeze()).unwrap();
            assert_eq!(decoded, Decoded { records: some(), next: Some(50) }, "{compression:?}");
        }
    }

    #[test]
    fn a_batch_of_no_producer_says_so() {
        let batch = encode(&some(), Compression::None).unwrap();
        assert_eq!(batch[43..57], [0xff; 14], "producer id, epoch and sequence are -1");
    }

    #[test]
    fn damage_is_an_error() {
        let mut batch = encode(&some(), Compression::None).unwrap().to_vec();
        batch[100] ^= 1;
        assert!(decode(batch.clone().into()).unwrap_err().contains("redundancy"));
        batch[LENGTH_AT] = 0xff;
        assert!(decode(batch.into()).unwrap_err().contains("length"));
    }
}
