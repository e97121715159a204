//! One produce request and its expected answer as bytes that are patched, not encoded again.
//!
//! The generator shares its cores with the broker, so each connection encodes its request once and from
//! then on changes only correlation id, timestamps, the record's identity and the CRC over it. The answer to
//! a success differs from the last one in two fields; anything else goes the slow way through the decoder.
//! Offsets into the frames are found by encoding with markers, so no layout is written down here.

use std::ops::Range;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

use crate::topic::topic_name;
use crate::wire::encode_frame;

/// Newest version that names topics; version 13 wants ids, which would cost a lookup and gain nothing here.
pub const PRODUCE_VERSION_MAX: i16 = 12;

/// Who a record is: written into the first bytes of its value, found again by `verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub run: u64,
    pub connection: u32,
    pub sequence: u64,
}

impl Identity {
    pub const BYTES: usize = 20;

    pub fn write(&self, out: &mut [u8]) {
        out[..8].copy_from_slice(&self.run.to_be_bytes());
        out[8..12].copy_from_slice(&self.connection.to_be_bytes());
        out[12..20].copy_from_slice(&self.sequence.to_be_bytes());
    }

    pub fn read(value: &[u8]) -> Option<Self> {
        Some(Self {
            run: u64::from_be_bytes(value.get(..8)?.try_into().ok()?),
            connection: u32::from_be_bytes(value.get(8..12)?.try_into().ok()?),
            sequence: u64::from_be_bytes(value.get(12..20)?.try_into().ok()?),
        })
    }
}

/// What a produce request of this load always says.
#[derive(Clone, Debug)]
pub struct ProduceShape {
    pub topic: String,
    pub partition: i32,
    pub acks: i16,
    pub size: usize,
    pub version: i16,
    pub timeout_ms: i32,
}

/// A produce request of one record, ready to be stamped and sent.
pub struct RequestFrame {
    bytes: BytesMut,
    correlation: Range<usize>,
    batch: usize,
    identity: usize,
    run: u64,
    connection: u32,
}

// Kafka's v2 batch header: CRC-32C at 17 covers everything from 21 on; the two timestamps stand at 27 and 35.
const CRC: usize = 17;
const CRC_COVERS_FROM: usize = 21;
const FIRST_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;

impl RequestFrame {
    pub fn new(shape: &ProduceShape, run: u64, connection: u32) -> Result<Self> {
        if shape.size < Identity::BYTES {
            bail!(
                "--size {} is too small: each record carries {} bytes that identify it",
                shape.size,
                Identity::BYTES
            );
        }
        let mut value = filler(shape.size, run ^ u64::from(connection));
        let marker = Identity { run, connection, sequence: u64::MAX };
        marker.write(&mut value);
        let record = Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset: 0,
            sequence: -1,
            timestamp: 0,
            key: None,
            value: Some(Bytes::from(value.clone())),
            headers: IndexMap::new(),
        };
        let mut batch = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut batch, [&record], &options)?;
        let request = ProduceRequest::default()
            .with_acks(shape.acks)
            .with_timeout_ms(shape.timeout_ms)
            .with_topic_data(vec![
                TopicProduceData::default().with_name(topic_name(&shape.topic)).with_partition_data(vec![
                    PartitionProduceData::default()
                        .with_index(shape.partition)
                        .with_records(Some(batch.clone().freeze())),
                ]),
            ]);
        let bytes = encode_frame(&request, shape.version, 0)?;
        let batch_at = position(&bytes, &batch).context("batch not found in its own request")?;
        let identity = position(&bytes, &value[..Identity::BYTES]).context("value not found")?;
        // What stands behind the batch are the (empty) tagged fields; the CRC ends with the batch.
        let mut frame = Self { bytes, correlation: 8..12, batch: batch_at, identity, run, connection };
        frame.stamp(0, 0, 0);
        Ok(frame)
    }

    fn batch_end(&self) -> usize {
        let length = &self.bytes[self.batch + 8..self.batch + 12];
        self.batch + 12 + i32::from_be_bytes(length.try_into().expect("four bytes")) as usize
    }

    /// Makes this the request with that correlation id, carrying that record.
    pub fn stamp(&mut self, correlation_id: i32, sequence: u64, timestamp_ms: i64) -> &[u8] {
        let identity = Identity { run: self.run, connection: self.connection, sequence };
        let (batch, end) = (self.batch, self.batch_end());
        let bytes = &mut self.bytes;
        bytes[self.correlation.clone()].copy_from_slice(&correlation_id.to_be_bytes());
        bytes[batch + FIRST_TIMESTAMP..][..8].copy_from_slice(&timestamp_ms.to_be_bytes());
        bytes[batch + MAX_TIMESTAMP..][..8].copy_from_slice(&timestamp_ms.to_be_bytes());
        identity.write(&mut bytes[self.identity..]);
        let crc = crc32c::crc32c(&bytes[batch + CRC_COVERS_FROM..end]);
        bytes[batch + CRC..][..4].copy_from_slice(&crc.to_be_bytes());
        bytes
    }
}

/// What a produce request was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Acknowledged { base_offset: i64 },
    Refused { code: i16 },
}

/// The answer a success has, without length prefix, to compare incoming ones with.
pub struct AnswerFrame {
    bytes: Vec<u8>,
    base_offset: Range<usize>,
    version: i16,
}

impl AnswerFrame {
    pub fn new(shape: &ProduceShape) -> Result<Self> {
        const MARKER: i64 = 0x5a5a_a5a5_5a5a_a5a5;
        let answer = ProduceResponse::default().with_responses(vec![
            TopicProduceResponse::default().with_name(topic_name(&shape.topic)).with_partition_responses(
                vec![
                    PartitionProduceResponse::default()
                        .with_index(shape.partition)
                        .with_base_offset(MARKER)
                        .with_log_append_time_ms(-1)
                        .with_log_start_offset(0),
                ],
            ),
        ]);
        let mut bytes = BytesMut::new();
        ResponseHeader::default()
            .encode(&mut bytes, <ProduceResponse as HeaderVersion>::header_version(shape.version))?;
        answer.encode(&mut bytes, shape.version)?;
        let at = position(&bytes, &MARKER.to_be_bytes()).context("offset not found")?;
        Ok(Self { bytes: bytes.to_vec(), base_offset: at..at + 8, version: shape.version })
    }

    /// Reads an answer; errors mean that it is not an answer to our request at all.
    pub fn read(&mut self, frame: &[u8], correlation_id: i32) -> Result<Answer> {
        let got = frame.get(..4).context("answer shorter than its header")?;
        if got != correlation_id.to_be_bytes() {
            bail!("correlation id {} answered to {correlation_id}", i32::from_be_bytes(got.try_into()?));
        }
        let Range { start, end } = self.base_offset.clone();
        if frame.len() == self.bytes.len()
            && frame[4..start] == self.bytes[4..start]
            && frame[end..] == self.bytes[end..]
        {
            let base_offset = i64::from_be_bytes(frame[start..end].try_into()?);
            return Ok(Answer::Acknowledged { base_offset });
        }
        self.decode(frame)
    }

    fn decode(&mut self, frame: &[u8]) -> Result<Answer> {
        let mut body = Bytes::copy_from_slice(frame);
        let header_version = <ProduceResponse as HeaderVersion>::header_version(self.version);
        ResponseHeader::decode(&mut body, header_version)?;
        let answer = ProduceResponse::decode(&mut body, self.version)?;
        let partition = answer
            .responses
            .first()
            .and_then(|topic| topic.partition_responses.first())
            .context("produce answered without the partition")?;
        if partition.error_code != 0 {
            return Ok(Answer::Refused { code: partition.error_code });
        }
        // A broker that fills in other constants than Kafka does: learn them if the offset stands where expected.
        let offset = partition.base_offset.to_be_bytes();
        if frame.get(self.base_offset.clone()) == Some(&offset[..]) {
            self.bytes = frame.to_vec();
        }
        Ok(Answer::Acknowledged { base_offset: partition.base_offset })
    }
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Printable bytes that do not compress to nothing.
fn filler(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b'a' + (state >> 32) as u8 % 26
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::RequestHeader;
    use kafka_protocol::records::RecordBatchDecoder;

    fn shape(version: i16) -> ProduceShape {
        ProduceShape {
            topic: "orders".into(),
            partition: 2,
            acks: -1,
            size: 100,
            version,
            timeout_ms: 30_000,
        }
    }

    #[test]
    fn a_stamped_request_decodes_to_the_record_it_was_stamped_with() {
        for version in [3, 8, 9, 12] {
            let mut frame = RequestFrame::new(&shape(version), 77, 5).unwrap();
            let stamped = frame.stamp(4711, 123, 1_700_000_000_000).to_vec();
            let mut body = Bytes::from(stamped).split_off(4);
            let header_version = ProduceRequest::header_version(version);
            let header = RequestHeader::decode(&mut body, header_version).unwrap();
            assert_eq!(header.correlation_id, 4711);
            let request = ProduceRequest::decode(&mut body, version).unwrap();
            let data = &request.topic_data[0].partition_data[0];
            let mut records = data.records.clone().unwrap();
            // The decoder checks the CRC.
            let set = RecordBatchDecoder::decode(&mut records).unwrap();
            assert_eq!(set.records.len(), 1);
            assert_eq!(set.records[0].timestamp, 1_700_000_000_000);
            let value = set.records[0].value.clone().unwrap();
            assert_eq!(value.len(), 100);
            let identity = Identity { run: 77, connection: 5, sequence: 123 };
            assert_eq!(Identity::read(&value), Some(identity));
        }
    }

    fn answer(version: i16, correlation_id: i32, partition: PartitionProduceResponse) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        ResponseHeader::default()
            .with_correlation_id(correlation_id)
            .encode(&mut bytes, ProduceResponse::header_version(version))
            .unwrap();
        ProduceResponse::default()
            .with_responses(vec![
                TopicProduceResponse::default()
                    .with_name(topic_name("orders"))
                    .with_partition_responses(vec![partition]),
            ])
            .encode(&mut bytes, version)
            .unwrap();
        bytes.to_vec()
    }

    #[test]
    fn successes_refusals_and_strangers_are_told_apart() {
        for version in [3, 8, 9, 12] {
            let mut expected = AnswerFrame::new(&shape(version)).unwrap();
            let good = PartitionProduceResponse::default().with_index(2).with_base_offset(42);
            let plain = answer(version, 7, good.clone().with_log_append_time_ms(-1));
            let acknowledged = Answer::Acknowledged { base_offset: 42 };
            assert_eq!(expected.read(&plain, 7).unwrap(), acknowledged);
            assert!(expected.read(&plain, 8).is_err());
            let other_constants = answer(version, 7, good.with_log_start_offset(9));
            assert_eq!(expected.read(&other_constants, 7).unwrap(), acknowledged);
            assert_eq!(expected.read(&other_constants, 7).unwrap(), acknowledged);
            let refused = PartitionProduceResponse::default().with_index(2).with_error_code(56);
            let refused = answer(version, 7, refused);
            let code = Answer::Refused { code: 56 };
            assert_eq!(expected.read(&refused, 7).unwrap(), code);
            assert!(expected.read(&[0, 0], 7).is_err());
        }
    }
}
