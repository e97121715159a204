//! A producer: sends batches at its rate and retries by the rules that real clients go by.
//!
//! One batch is on its way at a time. What a broker surely did not write is sent again; what it may have
//! written is sent again too, and counted: an idempotent producer relies on the broker to tell, a plain one
//! may double it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;
use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    InitProducerIdRequest, ProduceRequest, ProducerId, TopicName, produce_response::PartitionProduceResponse,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};

use super::connection::{CallError, Line, back_off};
use super::{Client, ProducerSettings, payload};
use crate::history::{Outcome, Place, Rejection, Send, Trade, Value};
use crate::scenario::AckMode;
use crate::world::streams::Stream;

pub(super) fn start<B: Backend>(client: Client<B>, settings: ProducerSettings, stream: Stream) {
    let line = Line::new(&client);
    let places = client.field.places.len();
    let producer = Producer {
        client: client.clone(),
        settings,
        stream,
        line,
        identity: None,
        sequences: vec![0; places],
        next_number: 0,
    };
    client.begin("producer", producer.run());
}

struct Producer<B: Backend> {
    client: Client<B>,
    settings: ProducerSettings,
    stream: Stream,
    line: Line<B>,
    /// Producer id and epoch, for an idempotent one.
    identity: Option<(i64, i16)>,
    /// Next sequence of each place.
    sequences: Vec<i32>,
    next_number: u64,
}

/// What one attempt came to.
enum Attempt {
    Acked(Option<i64>),
    /// Surely not written; trying again may help.
    NotWritten,
    MaybeWritten,
    /// The broker says that this producer's numbers are wrong.
    Rejected(String),
    /// Trying again does not help.
    Refused(String),
}

impl<B: Backend> Producer<B> {
    async fn run(mut self) {
        let backend = self.client.backend.clone();
        let mut next_at = self.client.now() + self.stream.below(200_000_000);
        while next_at < self.client.field.schedule.produce_until {
            let now = self.client.now();
            if next_at > now {
                backend.sleep(Duration::from_nanos(next_at - now)).await;
            }
            let count = u32::try_from(self.stream.between(1, u64::from(self.settings.batch))).unwrap_or(1);
            let index = self.stream.below(self.client.field.places.len() as u64) as usize;
            let gap = (f64::from(count) / self.settings.rate * 1e9) as u64;
            // Whoever fell behind does not catch up: a client that waits for answers sends less.
            next_at =
                next_at.max(self.client.now().saturating_sub(gap)) + gap / 2 + self.stream.below(gap + 1);
            self.send(index, count).await;
        }
    }

    async fn send(&mut self, index: usize, count: u32) {
        let place = self.client.field.places[index].clone();
        let first = self.next_number;
        self.next_number += u64::from(count);
        let at = {
            let mut notes = self.client.field.notes.write();
            notes.sends.push(Send {
                producer: self.settings.number,
                idempotent: self.settings.idempotent,
                acks: self.settings.acks,
                place: place.clone(),
                first,
                count,
                began: self.client.now(),
                unknown_attempts: 0,
                timestamp_ms: self.client.backend.wall_ms(),
                outcome: Outcome::Unknown,
            });
            notes.sends.len() - 1
        };
        let mut failures = 0;
        while self.client.now() < self.client.field.schedule.give_up {
            if self.settings.idempotent && self.identity.is_none() && !self.get_identity().await {
                failures += 1;
                back_off(&self.client.backend, failures).await;
                continue;
            }
            let attempt = self.attempt(&place, index, first, count).await;
            if self.settled(attempt, at, index, count) {
                return;
            }
            failures += 1;
            back_off(&self.client.backend, failures).await;
        }
    }

    /// Writes down what an attempt came to; true when there is nothing more to try.
    fn settled(&mut self, attempt: Attempt, at: usize, index: usize, count: u32) -> bool {
        let now = self.client.now();
        let mut notes = self.client.field.notes.write();
        let send = &mut notes.sends[at];
        match attempt {
            Attempt::Acked(base) => {
                send.outcome = Outcome::Acked { at: now, base };
                if self.settings.acks != AckMode::None {
                    notes.add("acked records", u64::from(count));
                }
                self.sequences[index] = self.sequences[index].wrapping_add(count as i32);
                true
            }
            Attempt::NotWritten => false,
            Attempt::MaybeWritten => {
                send.unknown_attempts += 1;
                notes.count("unknown-outcomes");
                if self.settings.idempotent {
                    notes.count("idempotent retry of an unknown outcome");
                }
                false
            }
            Attempt::Rejected(error) => {
                // It starts over under a new id; whether this batch was written is anybody's guess.
                send.idempotent = false;
                send.unknown_attempts += 1;
                let place = send.place.clone();
                let producer = self.settings.number;
                notes.rejections.push(Rejection { producer, place, at: now, error });
                self.identity = None;
                false
            }
            Attempt::Refused(error) => {
                if send.unknown_attempts == 0 {
                    send.outcome = Outcome::Refused { at: now, error };
                }
                // Whether its sequence numbers are used up is not known: start over.
                self.identity = None;
                true
            }
        }
    }

    /// Asks for a producer id; all sequences begin at zero under it.
    async fn get_identity(&mut self) -> bool {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let within = self.settings.request_timeout.max(Duration::from_secs(10));
        let answer =
            self.line.call(Trade::Change, &request, 4, within, |a| not_timed_out(a.error_code)).await;
        match answer {
            Ok(answer) if answer.error_code == 0 => {
                self.identity = Some((answer.producer_id.0, answer.producer_epoch));
                self.sequences.fill(0);
                true
            }
            _ => false,
        }
    }

    async fn attempt(&mut self, place: &Place, index: usize, first: u64, count: u32) -> Attempt {
        let acks = match self.settings.acks {
            AckMode::None => 0,
            AckMode::Leader => 1,
            AckMode::All => -1,
        };
        let records = match self.records(index, first, count) {
            Ok(records) => records,
            Err(error) => return Attempt::Refused(error),
        };
        let timeout_ms = i32::try_from(self.settings.request_timeout.as_millis()).unwrap_or(i32::MAX);
        let data = PartitionProduceData::default().with_index(place.partition).with_records(Some(records));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(place.topic.to_string())))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(acks)
            .with_timeout_ms(timeout_ms)
            .with_topic_data(vec![topic]);
        if acks == 0 {
            return match self.line.fire(&request, 9).await {
                Ok(()) => Attempt::Acked(None),
                Err(error) if error.never_sent() => Attempt::NotWritten,
                Err(_) => Attempt::MaybeWritten,
            };
        }
        let answer = self
            .line
            .call(Trade::Produce, &request, 9, self.settings.request_timeout, |answer| {
                answer
                    .responses
                    .iter()
                    .flat_map(|topic| &topic.partition_responses)
                    .all(|partition| not_timed_out(partition.error_code))
            })
            .await;
        match answer {
            Ok(answer) => {
                let partition = answer
                    .responses
                    .iter()
                    .flat_map(|topic| &topic.partition_responses)
                    .find(|partition| partition.index == place.partition);
                match partition {
                    Some(partition) => self.judge(partition),
                    None => Attempt::MaybeWritten,
                }
            }
            Err(CallError::Connect(_)) => Attempt::NotWritten,
            Err(_) => Attempt::MaybeWritten,
        }
    }

    fn judge(&self, partition: &PartitionProduceResponse) -> Attempt {
        use ResponseError::*;
        let Some(error) = ResponseError::try_from_code(partition.error_code) else {
            let base = (partition.base_offset >= 0).then_some(partition.base_offset);
            return Attempt::Acked(base);
        };
        match error {
            NotLeaderOrFollower
            | LeaderNotAvailable
            | UnknownTopicOrPartition
            | NotEnoughReplicas
            | NotController => Attempt::NotWritten,
            KafkaStorageError => {
                self.client.field.notes.write().count("refused while the storage stood still");
                Attempt::NotWritten
            }
            DuplicateSequenceNumber => Attempt::Acked(None),
            OutOfOrderSequenceNumber | UnknownProducerId | InvalidProducerEpoch
                if self.settings.idempotent =>
            {
                Attempt::Rejected(format!("{error:?}"))
            }
            CorruptMessage
            | MessageTooLarge
            | InvalidRecord
            | InvalidTopicException
            | UnsupportedForMessageFormat
            | InvalidRequiredAcks
            | UnsupportedVersion
            | InvalidRequest
            | TopicAuthorizationFailed => Attempt::Refused(format!("{error:?}")),
            _ => Attempt::MaybeWritten,
        }
    }

    fn records(&self, index: usize, first: u64, count: u32) -> Result<Bytes, String> {
        let (producer_id, producer_epoch) = self.identity.unwrap_or((NO_PRODUCER_ID, NO_PRODUCER_EPOCH));
        let base = if self.identity.is_some() { self.sequences[index] } else { -1 };
        let timestamp = self.client.backend.wall_ms();
        let records: Vec<Record> = (0..count)
            .map(|i| {
                let value = Value { producer: self.settings.number, number: first + u64::from(i) };
                Record {
                    transactional: false,
                    control: false,
                    delete_horizon: false,
                    partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
                    producer_id,
                    producer_epoch,
                    timestamp_type: TimestampType::Creation,
                    offset: i64::from(i),
                    sequence: base.wrapping_add(i as i32),
                    timestamp,
                    key: None,
                    value: Some(payload::encode(value, self.settings.size)),
                    headers: IndexMap::new(),
                }
            })
            .collect();
        let mut batch = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut batch, &records, &options).map_err(|error| error.to_string())?;
        Ok(batch.freeze())
    }
}

/// Whether an answer settles something, one way or the other.
pub(super) fn not_timed_out(error_code: i16) -> bool {
    error_code != ResponseError::RequestTimedOut.code()
        && error_code != ResponseError::NotEnoughReplicasAfterAppend.code()
}
