//! A consumer: reads all partitions from the beginning, waits for more, and now and then starts over.

use std::time::Duration;

use bytes::Bytes;
use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::RecordBatchDecoder;

use super::connection::{CallError, Line, back_off};
use super::{Client, payload};
use crate::history::{Damage, Outcome, Place, Poll, Trade, Value};
use crate::scenario::AckMode;

/// How long the broker may wait for more.
const WAIT: Duration = Duration::from_millis(500);
/// The broker is granted this beyond the wait: a read from a slow disk.
const WITHIN: Duration = Duration::from_secs(12);
const BYTES: i32 = 256 << 10;

pub(super) fn start<B: Backend>(client: Client<B>, number: u32, reread_every: Duration) {
    let consumer = Consumer { fetcher: Fetcher::new(&client), client: client.clone(), number, round: 0 };
    client.begin("consumer", consumer.run(reread_every));
}

struct Consumer<B: Backend> {
    client: Client<B>,
    fetcher: Fetcher<B>,
    number: u32,
    round: u32,
}

impl<B: Backend> Consumer<B> {
    async fn run(mut self, reread_every: Duration) {
        let every = u64::try_from(reread_every.as_nanos()).unwrap_or(u64::MAX);
        let places = self.client.field.places.clone();
        let schedule = self.client.field.schedule;
        let mut positions: Vec<i64> = vec![0; places.len()];
        let mut started = self.client.now();
        let mut failures = 0;
        loop {
            let now = self.client.now();
            if now >= schedule.give_up || (now >= schedule.produce_until && self.has_seen_all(&positions)) {
                break;
            }
            if now.saturating_sub(started) >= every && now < schedule.produce_until {
                self.round += 1;
                started = now;
                positions.fill(0);
                self.client.field.notes.write().count("consumer started over");
            }
            match self.fetcher.fetch(&places, &positions).await {
                Ok(fetched) => {
                    let troubled = fetched.iter().any(|fetch| fetch.error.is_some());
                    for fetch in fetched {
                        self.note(fetch, &mut positions);
                    }
                    failures = if troubled { failures + 1 } else { 0 };
                }
                Err(_) => failures += 1,
            }
            if failures > 0 {
                back_off(&self.client.backend, failures).await;
            }
        }
        let mut notes = self.client.field.notes.write();
        for (place, position) in places.iter().zip(positions) {
            notes.positions.insert((self.number, place.clone()), position);
        }
    }

    fn note(&self, fetch: Fetched, positions: &mut [i64]) {
        let mut notes = self.client.field.notes.write();
        let at = self.client.now();
        if fetch.error == Some(ResponseError::OffsetOutOfRange) {
            let what = format!(
                "consumer {} had read up to offset {}, and that is now out of range",
                self.number, fetch.from
            );
            notes.damages.push(Damage { place: fetch.place, at, what });
            positions[fetch.index] = 0;
            return;
        }
        for what in fetch.damages {
            notes.damages.push(Damage { place: fetch.place.clone(), at, what });
        }
        if let Some((last, _)) = fetch.records.last() {
            positions[fetch.index] = last + 1;
            notes.polls.push(Poll {
                consumer: self.number,
                round: self.round,
                place: fetch.place,
                from: fetch.from,
                at,
                records: fetch.records,
            });
        }
    }

    /// Nothing is on its way any more, and all that was acknowledged has been read.
    fn has_seen_all(&self, positions: &[i64]) -> bool {
        let notes = self.client.field.notes.write();
        let places = &self.client.field.places;
        notes.sends.iter().all(|send| match &send.outcome {
            Outcome::Acked { base: Some(base), .. } => places
                .iter()
                .position(|place| *place == send.place)
                .is_none_or(|index| positions[index] >= base + i64::from(send.count)),
            Outcome::Acked { base: None, .. } => true,
            Outcome::Refused { .. } => true,
            Outcome::Unknown => send.acks == AckMode::None,
        })
    }
}

/// What a fetch brought of one partition.
pub(super) struct Fetched {
    pub(super) index: usize,
    pub(super) place: Place,
    pub(super) from: i64,
    pub(super) error: Option<ResponseError>,
    pub(super) high_watermark: i64,
    pub(super) records: Vec<(i64, Value)>,
    pub(super) damages: Vec<String>,
}

/// Fetches without a session, all partitions at a time.
pub(super) struct Fetcher<B: Backend> {
    line: Line<B>,
}

impl<B: Backend> Fetcher<B> {
    pub(super) fn new(client: &Client<B>) -> Fetcher<B> {
        Fetcher { line: Line::new(client) }
    }

    pub(super) async fn fetch(
        &mut self,
        places: &[Place],
        positions: &[i64],
    ) -> Result<Vec<Fetched>, CallError> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for (place, position) in places.iter().zip(positions) {
            let partition = FetchPartition::default()
                .with_partition(place.partition)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(*position)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(BYTES);
            match topics.last_mut() {
                Some(topic) if *topic.topic.0 == *place.topic => topic.partitions.push(partition),
                _ => topics.push(
                    FetchTopic::default()
                        .with_topic(TopicName(StrBytes::from_string(place.topic.to_string())))
                        .with_partitions(vec![partition]),
                ),
            }
        }
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(i32::try_from(WAIT.as_millis()).unwrap_or(500))
            .with_min_bytes(1)
            .with_max_bytes(BYTES * 4)
            .with_session_epoch(-1)
            .with_topics(topics);
        let answer = self.line.call(Trade::Consume, &request, 12, WITHIN, |_| true).await?;
        Ok(sort_out(answer, places, positions))
    }
}

fn sort_out(answer: FetchResponse, places: &[Place], positions: &[i64]) -> Vec<Fetched> {
    let mut all = Vec::new();
    if let Some(error) = ResponseError::try_from_code(answer.error_code) {
        all.push(Fetched {
            index: 0,
            place: places[0].clone(),
            from: positions[0],
            error: Some(error),
            high_watermark: -1,
            records: Vec::new(),
            damages: Vec::new(),
        });
    }
    for topic in answer.responses {
        for partition in topic.partitions {
            let found = places.iter().position(|place| {
                *place.topic == *topic.topic.0 && place.partition == partition.partition_index
            });
            if let Some(index) = found {
                all.push(one(partition, index, &places[index], positions[index]));
            }
        }
    }
    all
}

fn one(partition: PartitionData, index: usize, place: &Place, from: i64) -> Fetched {
    let mut fetched = Fetched {
        index,
        place: place.clone(),
        from,
        error: ResponseError::try_from_code(partition.error_code),
        high_watermark: partition.high_watermark,
        records: Vec::new(),
        damages: Vec::new(),
    };
    let mut bytes: Bytes = partition.records.unwrap_or_default();
    while !bytes.is_empty() {
        match RecordBatchDecoder::decode(&mut bytes) {
            Ok(set) => {
                // A batch begins where it begins: what lies before the position is not asked for.
                for record in set.records.into_iter().filter(|record| record.offset >= from) {
                    let value = record.value.unwrap_or_default();
                    match payload::decode(&value) {
                        Ok(value) => fetched.records.push((record.offset, value)),
                        Err(what) => fetched.damages.push(format!("offset {} holds {what}", record.offset)),
                    }
                }
            }
            Err(error) => {
                fetched.damages.push(format!("a batch that cannot be read: {error}"));
                break;
            }
        }
    }
    fetched
}
