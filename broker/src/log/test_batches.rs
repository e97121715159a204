//! Record batches for tests, built byte by byte so that they do not depend on the code under test.

use bytes::{BufMut, Bytes, BytesMut};

use super::batch::{CheckedBatch, ProducerStamp};
use crate::ids::{Offset, ProducerId};

/// A batch of `records` records; record i has the timestamp `timestamp + i * step`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchSpec {
    records: i32,
    timestamp: i64,
    step: i64,
    base: Offset,
    producer: Option<(i64, i16, i32)>,
    value_bytes: usize,
    /// Keys and values, instead of records that are alike.
    keyed: Option<&'static [(&'static str, Option<&'static str>)]>,
    /// Each record has its number as its key.
    numbered: bool,
}

impl BatchSpec {
    pub(crate) const fn records(records: i32) -> BatchSpec {
        BatchSpec {
            records,
            timestamp: 1_000,
            step: 0,
            base: Offset(0),
            producer: None,
            value_bytes: 10,
            keyed: None,
            numbered: false,
        }
    }

    /// One record of each key; without a value, a tombstone.
    pub(crate) const fn of(keyed: &'static [(&'static str, Option<&'static str>)]) -> BatchSpec {
        BatchSpec { keyed: Some(keyed), ..BatchSpec::records(keyed.len() as i32) }
    }

    /// Records of so many keys: the same ones each time.
    pub(crate) const fn keyed_many(records: i32) -> BatchSpec {
        BatchSpec { numbered: true, ..BatchSpec::records(records) }
    }

    pub(crate) fn timestamp(self, timestamp: i64) -> BatchSpec {
        BatchSpec { timestamp, ..self }
    }

    pub(crate) fn step(self, step: i64) -> BatchSpec {
        BatchSpec { step, ..self }
    }

    pub(crate) fn at(self, base: i64) -> BatchSpec {
        BatchSpec { base: Offset(base), ..self }
    }

    pub(crate) fn producer(self, id: i64, epoch: i16, sequence: i32) -> BatchSpec {
        BatchSpec { producer: Some((id, epoch, sequence)), ..self }
    }

    pub(crate) fn value_bytes(self, value_bytes: usize) -> BatchSpec {
        BatchSpec { value_bytes, ..self }
    }

    fn max_timestamp(&self) -> i64 {
        self.timestamp + self.step.max(0) * i64::from(self.records - 1)
    }

    pub(crate) fn build(&self) -> Bytes {
        let mut records = BytesMut::new();
        for i in 0..i64::from(self.records) {
            let mut body = BytesMut::new();
            body.put_u8(0);
            varint(&mut body, i * self.step);
            varint(&mut body, i);
            match self.keyed.map(|keyed| keyed[i as usize]) {
                None => {
                    let key = i.to_string();
                    varint(&mut body, if self.numbered { key.len() as i64 } else { -1 });
                    body.put_slice(if self.numbered { key.as_bytes() } else { &[] });
                    varint(&mut body, self.value_bytes as i64);
                    body.put_bytes(b'v', self.value_bytes);
                }
                Some((key, value)) => {
                    varint(&mut body, key.len() as i64);
                    body.put_slice(key.as_bytes());
                    varint(&mut body, value.map_or(-1, |value| value.len() as i64));
                    body.put_slice(value.unwrap_or_default().as_bytes());
                }
            }
            varint(&mut body, 0);
            varint(&mut records, body.len() as i64);
            records.put_slice(&body);
        }
        let (id, epoch, sequence) = self.producer.unwrap_or((-1, -1, -1));
        let mut covered = BytesMut::new();
        covered.put_i16(0);
        covered.put_i32(self.records - 1);
        covered.put_i64(self.timestamp);
        covered.put_i64(self.max_timestamp());
        covered.put_i64(id);
        covered.put_i16(epoch);
        covered.put_i32(sequence);
        covered.put_i32(self.records);
        covered.put_slice(&records);
        let mut batch = BytesMut::new();
        batch.put_i64(self.base.0);
        batch.put_i32(covered.len() as i32 + 9);
        batch.put_i32(-1);
        batch.put_i8(2);
        batch.put_u32(crc32c::crc32c(&covered));
        batch.put_slice(&covered);
        batch.freeze()
    }

    pub(crate) fn checked(&self) -> CheckedBatch {
        let stamp = |(id, epoch, base_sequence)| ProducerStamp { id: ProducerId(id), epoch, base_sequence };
        CheckedBatch {
            bytes: self.build(),
            records: self.records,
            last_offset_delta: self.records - 1,
            base_timestamp: self.timestamp,
            max_timestamp: self.max_timestamp(),
            times: (self.timestamp, self.max_timestamp()),
            producer: self.producer.map(stamp),
            behind_refused_first: false,
            transactional: false,
        }
    }
}

fn varint(into: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        into.put_u8(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    into.put_u8(zigzag as u8);
}
