//! Clients that send batches which nobody can open: the header and the checksum are right, the records are not. They have
//! a topic of their own, and look up offsets among what they have sent.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use io_backend::Backend;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::super::batch::{HEADER_BYTES, Wanted};
use super::super::client::{Client, numbers};
use super::super::codec;
use super::super::connection::{CallError, Terms};
use super::super::lines::Lines;
use super::super::producer::produce_request;
use crate::history::{AckMode, At, Place, Trade, seconds};
use crate::probe::Probe;
use crate::scenario::Compression;
use crate::streams::Stream;

const EVERY: Duration = Duration::from_millis(200);
const WITHIN: Duration = Duration::from_secs(12);

pub(super) fn start<B: Backend>(client: Client<B>, index: u32, window: (At, At), stream: Stream) {
    let poisoner = Poisoner {
        line: Lines::new(&client),
        client: client.clone(),
        producer: numbers::POISONERS + index,
        place: Place { topic: format!("poison-{index}").into(), partition: 0 },
        sent: 0,
        unreadable: Vec::new(),
        stream,
    };
    client.begin("hostile", poisoner.run(window));
}

/// A batch that was taken and of which a broker knows nothing but its header.
struct Unreadable {
    /// After its last record.
    end: i64,
    newest_ms: i64,
}

struct Poisoner<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
    producer: u32,
    place: Place,
    sent: u64,
    unreadable: Vec<Unreadable>,
    stream: Stream,
}

impl<B: Backend> Poisoner<B> {
    async fn run(mut self, (from, until): (At, At)) {
        let backend = self.client.backend.clone();
        backend.sleep(Duration::from_nanos(from.saturating_sub(self.client.now()))).await;
        while self.client.now() < until {
            // What it is told is of no interest, but for what it can rely on. Nobody owes it an acknowledgement, so that
            // even what it writes is a matter of looking.
            let _ = match self.stream.below(3) {
                0 if self.sent > 0 => self.look_up().await,
                _ => self.poison().await,
            };
            backend.sleep(EVERY).await;
        }
    }

    async fn poison(&mut self) -> Result<(), CallError> {
        if self.sent == 0 {
            self.create().await?;
        }
        let records = self.stream.between(1, 5);
        let wanted = Wanted {
            producer: self.producer,
            first: self.sent,
            sizes: (0..records).map(|_| self.stream.between(20, 300) as usize).collect(),
            timestamp_ms: self.client.backend.wall_ms(),
            codec: [
                Compression::None,
                Compression::Gzip,
                Compression::Snappy,
                Compression::SnappyFramed,
                Compression::Lz4,
                Compression::Zstd,
            ][self.stream.below(6) as usize],
            keyed: self.stream.coin(),
        };
        self.sent += records;
        let Ok(batch) = wanted.encode(None) else { return Ok(()) };
        let (batch, is_unreadable) = self.spoilt(&batch, wanted.codec);
        let request = produce_request(vec![(self.place.clone(), batch)], AckMode::All, 5_000);
        let answer = self
            .line
            .call_leader(&self.place, Trade::Look, &request, 9, Terms::within(WITHIN), |_| true)
            .await?;
        self.client.field.notes.write().count(Probe::UnreadableBatch.name());
        let partitions = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
        for taken in partitions.filter(|partition| partition.error_code == 0) {
            if is_unreadable {
                let end = taken.base_offset + i64::try_from(records).unwrap_or(0);
                self.unreadable.push(Unreadable { end, newest_ms: wanted.newest_ms() });
            }
        }
        Ok(())
    }

    /// The batch with other records, under a checksum that is right; whether they are sure not to be read to their end.
    fn spoilt(&mut self, batch: &Bytes, codec: Compression) -> (Bytes, bool) {
        let mut bytes = BytesMut::from(&batch[..]);
        let kind = self.stream.below(6);
        let behind = (bytes.len() - HEADER_BYTES) as u64;
        match kind {
            0 | 1 => {
                for byte in &mut bytes[HEADER_BYTES..] {
                    *byte = self.stream.below(256) as u8;
                }
            }
            2 => {
                let at = HEADER_BYTES + self.stream.below(behind) as usize;
                bytes[at] ^= 1 << self.stream.below(8);
            }
            3 => {
                let keep = HEADER_BYTES + 1 + self.stream.below(behind - 1) as usize;
                bytes.truncate(keep);
            }
            // What is packed is sound, and no record.
            4 => {
                let packed = codec::pack(codec, &[0xff; 100], &[]).unwrap_or_default();
                bytes.truncate(HEADER_BYTES);
                bytes.extend_from_slice(&packed);
            }
            // A length of the first record beyond all there is.
            _ => bytes[HEADER_BYTES..HEADER_BYTES + 5].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0x0f]),
        }
        let length = i32::try_from(bytes.len() - 12).unwrap_or(i32::MAX);
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        // Noise may look like records, and a bit may be one of a value.
        let is_unreadable = kind > 2 || kind < 2 && codec != Compression::None;
        (bytes.freeze(), is_unreadable)
    }

    /// Whoever cannot open a batch goes by its header, and leads nobody past it.
    async fn look_up(&mut self) -> Result<(), CallError> {
        let now = self.client.backend.wall_ms();
        let wanted = now - i64::try_from(self.stream.below(20_000)).unwrap_or(0);
        let partition = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(wanted.max(0));
        let topic = ListOffsetsTopic::default().with_name(self.name()).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let sent = self.client.now();
        let answer = self.line.call(Trade::Look, &request, 7, WITHIN, |_| true).await?;
        let first =
            self.unreadable.iter().filter(|batch| batch.newest_ms >= wanted).map(|batch| batch.end).min();
        for found in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            if found.error_code != 0 {
                continue;
            }
            let what = match first {
                Some(end) if !(0..end).contains(&found.offset) => {
                    format!("a batch that cannot be opened ends at {end}, and by its header is not older")
                }
                _ if found.offset >= 0 && found.timestamp < wanted => "that is older".to_owned(),
                _ => continue,
            };
            self.client.field.notes.write().misled.push(format!(
                "{} asked {} at {} for the first record since {wanted} and was told offset {} and time {}: {what}",
                self.client.name,
                self.place,
                seconds(sent),
                found.offset,
                found.timestamp
            ));
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<(), CallError> {
        let topic = CreatableTopic::default()
            .with_name(self.name())
            .with_num_partitions(1)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
        self.line.call(Trade::Look, &request, 5, WITHIN, |_| true).await.map(|_| ())
    }

    fn name(&self) -> TopicName {
        TopicName(StrBytes::from_string(self.place.topic.to_string()))
    }
}
