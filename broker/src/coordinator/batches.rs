//! Records of `__consumer_offsets` in Kafka's batches: what is appended, and what a load reads back.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record,
    RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use super::outbox::Encoded;
use super::records::CoordinatorRecord;
use crate::limits;
use crate::log::batch::CheckedBatch;
use crate::log::validate::{self, BatchError};

/// The version of Produce by whose rules our own batches are checked; they use nothing that differs.
const VERSION: i16 = 9;

/// A batch is closed before the record with which it would get larger than this; one that is larger by itself stands alone.
const BATCH_BYTES: usize = 256 * 1024;

/// Batches of these, dated `now_ms`, in their order.
///
/// # Errors
/// A record alone is larger than a batch may be.
pub fn encode(records: Vec<Encoded>, now_ms: i64) -> Result<Vec<CheckedBatch>, BatchError> {
    let mut batches = Vec::new();
    let mut open = Vec::new();
    let mut bytes = 0;
    for (key, value) in records {
        let more = key.len() + value.as_ref().map_or(0, Bytes::len);
        if bytes + more > BATCH_BYTES && !open.is_empty() {
            batches.push(close(&mut open)?);
            bytes = 0;
        }
        bytes += more;
        open.push(of(key, value, i32::try_from(open.len()).expect("a batch is small"), now_ms));
    }
    if !open.is_empty() {
        batches.push(close(&mut open)?);
    }
    Ok(batches)
}

fn close(records: &mut Vec<Record>) -> Result<CheckedBatch, BatchError> {
    let records = std::mem::take(records);
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("records of texts and bytes");
    validate::check(Some(&bytes.freeze()), VERSION, limits::BATCH_BYTES_MAX)
}

fn of(key: Bytes, value: Option<Bytes>, nth: i32, now_ms: i64) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(nth),
        // The codec puts those into one batch whose sequences follow as their offsets do.
        sequence: NO_SEQUENCE + nth,
        timestamp: now_ms,
        key: Some(key),
        value,
        headers: IndexMap::new(),
    }
}

/// What a load reads: the records in these bytes, which are whole batches whose checksums hold. Kinds that are not known are left out.
///
/// # Errors
/// No coordinator of this version or an earlier one wrote them; why is for people.
pub fn decode(mut bytes: Bytes) -> Result<Vec<CoordinatorRecord>, String> {
    let sets = RecordBatchDecoder::decode_all(&mut bytes).map_err(|error| error.to_string())?;
    let mut records = Vec::new();
    for record in sets.into_iter().flat_map(|set| set.records) {
        let key = record.key.ok_or("a record without a key")?;
        let decoded = CoordinatorRecord::decode(key, record.value).map_err(|error| error.to_string())?;
        records.extend(decoded);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::ids::GroupId;
    use super::super::offsets::Committed;
    use super::*;
    use crate::ids::{LeaderEpoch, Offset};

    #[test]
    fn what_is_appended_is_read_back_in_its_order() {
        let record = |partition| CoordinatorRecord::Offset {
            group: GroupId(Arc::from("g")),
            topic: Arc::from("t"),
            partition,
            committed: (partition % 2 == 0).then(|| Committed {
                offset: Offset(7),
                leader_epoch: LeaderEpoch(0),
                metadata: Arc::from("m".repeat(1_000)),
                committed_ms: 5,
                expires_ms: None,
            }),
        };
        let records: Vec<_> = (0..2_000).map(record).collect();
        let batches = encode(records.iter().map(CoordinatorRecord::encode).collect(), 1_700_000_000_000)
            .expect("none is large");
        assert!(batches.len() > 2, "a megabyte is not one batch");
        let read = batches.into_iter().flat_map(|batch| decode(batch.bytes).expect("our own"));
        let read: Vec<_> = read.collect();
        assert_eq!(read, records);
    }
}
