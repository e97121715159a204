//! A keeper: writes to its own keys of a compacted topic, a batch at a time, and knows what became of each before it
//! goes on. An idempotent one asks until it is told; any other takes what it was not told for lost, and writes the key anew.

use std::collections::BTreeMap;
use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::records::Keyed;
use crate::history::compaction::KeyedRecord;
use crate::history::{AckMode, Outcome, Place, Rejection, Send, Trade, Value};
use crate::scenario::{Compacted, Compression};
use crate::streams::Stream;
use crate::workload::batch::{Stamp, Wanted};
use crate::workload::client::Client;
use crate::workload::codec;
use crate::workload::connection::{Terms, back_off};
use crate::workload::lines::Lines;
use crate::workload::producer::{init_producer_id, not_timed_out, produce_request, settles, told_by};
use crate::workload::retries::Told;

/// Of Produce.
const VERSION: i16 = 9;
/// One keeper of so many is not idempotent.
const PLAIN_ONE_IN: u32 = 3;
/// Instead of one batch in so many a record without a key is sent, which is refused.
const KEYLESS_ONE_IN: u64 = 30;
/// One record in so many is of a key that is rarely written: what is last of it is there for long, and compacted.
const RARE_ONE_IN: u64 = 50;
/// One key of so many is written often.
const OFTEN_ONE_IN: usize = 3;
const WITHIN: Duration = Duration::from_secs(3);

pub(super) fn start<B: Backend>(
    client: Client<B>,
    load: &Compacted,
    producer: u32,
    nth: u32,
    mut stream: Stream,
) {
    let partitions = u32::try_from(client.field.compacted.len()).unwrap_or(1).max(1);
    let mut keys: Vec<Vec<u32>> = vec![Vec::new(); partitions as usize];
    for key in (0..load.keys).filter(|key| key / partitions % load.keepers == nth) {
        keys[(key % partitions) as usize].push(key);
    }
    let keeper = Keeper {
        line: Lines::new(&client),
        load: load.clone(),
        producer,
        keys,
        idempotent: nth % PLAIN_ONE_IN != 1,
        codec: codec::ALL[stream.below(codec::ALL.len() as u64) as usize],
        identity: None,
        sequences: BTreeMap::new(),
        next_number: 0,
        client: client.clone(),
        stream,
    };
    client.begin("keeper", keeper.run());
}

struct Keeper<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
    load: Compacted,
    producer: u32,
    /// By partition.
    keys: Vec<Vec<u32>>,
    idempotent: bool,
    codec: Compression,
    identity: Option<(i64, i16)>,
    /// The next sequence in each partition, under this identity.
    sequences: BTreeMap<i32, i32>,
    next_number: u64,
    stream: Stream,
}

impl<B: Backend> Keeper<B> {
    async fn run(mut self) {
        // Half of the largest batch and a half is what a batch has on the average.
        let mean = (f64::from(self.load.batch) + 1.0) / 2.0;
        let pause = Duration::from_secs_f64(mean / self.load.rate);
        while self.client.next_turn(pause).await {
            let partition = self.stream.below(self.keys.len() as u64) as usize;
            let place = self.client.field.compacted[partition].clone();
            if self.keys[partition].is_empty() || !self.is_led(&place).await {
                continue;
            }
            if self.stream.below(KEYLESS_ONE_IN) == 0 {
                self.write_keyless(&place).await;
                continue;
            }
            if self.idempotent && self.identity.is_none() && !self.get_identity().await {
                continue;
            }
            let batch = self.draw(partition);
            self.write(&place, &batch).await;
        }
    }

    fn is_over(&self) -> bool {
        self.client.now() >= self.client.field.schedule.give_up
    }

    /// Waits until somebody leads the partition: nobody is owed anything of a topic that is not there yet.
    async fn is_led(&mut self, place: &Place) -> bool {
        let mut failures = 0;
        while !self.is_over() {
            if self.line.node_of(place).await.is_ok() {
                return true;
            }
            failures += 1;
            back_off(&self.client.backend, failures).await;
        }
        false
    }

    async fn get_identity(&mut self) -> bool {
        let request = init_producer_id();
        let sent = self.client.now();
        let within = Duration::from_secs(10);
        let decided =
            |answer: &kafka_protocol::messages::InitProducerIdResponse| not_timed_out(answer.error_code);
        let answer = self.line.call(Trade::Change, &request, 4, within, decided).await;
        let Ok(answer) = answer else { return false };
        self.client.complain(Trade::Change, None, answer.error_code, sent);
        if answer.error_code != 0 {
            return false;
        }
        self.identity = Some((answer.producer_id.0, answer.producer_epoch));
        self.sequences.clear();
        true
    }

    /// Records of several keys, each once.
    fn draw(&mut self, partition: usize) -> Keyed {
        let mut often = self.keys[partition].clone();
        let mut rarely = often.split_off(often.len().div_ceil(OFTEN_ONE_IN));
        let mut records = Vec::new();
        for _ in 0..self.stream.between(1, u64::from(self.load.batch)) {
            let is_rare = self.stream.below(RARE_ONE_IN) == 0;
            let keys = if is_rare && !rarely.is_empty() { &mut rarely } else { &mut often };
            if keys.is_empty() {
                break;
            }
            let key = keys.swap_remove(self.stream.below(keys.len() as u64) as usize);
            let one_in = self.load.tombstone_one_in;
            let tombstone = one_in > 0 && self.stream.below(one_in) == 0;
            let value = Value { producer: self.producer, number: self.next_number };
            self.next_number += 1;
            records.push(KeyedRecord { key, value, tombstone });
        }
        let size = self.stream.between(32.min(self.load.size as u64), self.load.size as u64) as usize;
        Keyed { records, size, timestamp_ms: self.client.backend.wall_ms(), codec: self.codec }
    }

    fn note_begun(&self, place: &Place, batch: &Keyed) -> usize {
        let now = self.client.now();
        let mut notes = self.client.field.notes.write();
        let records = batch.records.iter().map(|record| (record.value, *record));
        notes.compaction.writes.extend(records);
        notes.sends.push(Send {
            producer: self.producer,
            idempotent: self.idempotent,
            acks: AckMode::All,
            place: place.clone(),
            first: batch.records.first().map_or(0, |record| record.value.number),
            count: batch.count(),
            began: now,
            sent: Some(now),
            unknown_attempts: 0,
            timestamp_ms: batch.timestamp_ms,
            bytes: batch.bytes_max(),
            bytes_min: batch.bytes_min(),
            visible: batch.visible(),
            pipelined: false,
            abandoned: false,
            outcome: Outcome::Unknown,
        });
        notes.sends.len() - 1
    }

    /// Until it is known what became of it, as far as this keeper wants to know.
    async fn write(&mut self, place: &Place, batch: &Keyed) {
        let id = self.note_begun(place, batch);
        let sequence = self.sequences.get(&place.partition).copied().unwrap_or(0);
        let stamp = self.identity.map(|(producer, epoch)| (producer, epoch, sequence));
        let mut failures = 0;
        while !self.is_over() {
            let (told, base, error) = self.attempt(place, batch, stamp).await;
            match told {
                Told::Written => {
                    let next = sequence.wrapping_add(batch.count() as i32) & i32::MAX;
                    self.sequences.insert(place.partition, next);
                    let mut notes = self.client.field.notes.write();
                    notes.sends[id].outcome = Outcome::Acked { at: self.client.now(), base };
                    notes.add("acked records", u64::from(batch.count()));
                    return;
                }
                Told::NotWritten => {}
                Told::Unknown => {
                    let mut notes = self.client.field.notes.write();
                    notes.sends[id].unknown_attempts += 1;
                    if !self.idempotent {
                        break;
                    }
                    notes.count("idempotent retry of an unknown outcome");
                }
                Told::OutOfOrder | Told::Disowned => {
                    let mut notes = self.client.field.notes.write();
                    notes.sends[id].unknown_attempts += 1;
                    let (producer, at) = (self.producer, self.client.now());
                    notes.rejections.push(Rejection { producer, place: place.clone(), at, error });
                    break;
                }
                Told::Refused => {
                    let mut notes = self.client.field.notes.write();
                    if notes.sends[id].unknown_attempts == 0 {
                        notes.sends[id].outcome = Outcome::Refused { at: self.client.now(), error };
                    }
                    break;
                }
            }
            failures += 1;
            back_off(&self.client.backend, failures).await;
        }
        self.client.field.notes.write().sends[id].abandoned = true;
        // What comes next would leave this one out.
        self.identity = None;
    }

    /// What came of it: the base offset, or the name of the error.
    async fn attempt(
        &mut self,
        place: &Place,
        batch: &Keyed,
        stamp: Option<Stamp>,
    ) -> (Told, Option<i64>, String) {
        let bytes = match batch.encode(stamp) {
            Ok(bytes) => bytes,
            Err(error) => return (Told::Refused, None, error),
        };
        let timeout_ms = i32::try_from(WITHIN.as_millis()).unwrap_or(i32::MAX);
        let request = produce_request(vec![(place.clone(), bytes)], AckMode::All, timeout_ms);
        let (sent, terms) = (self.client.now(), Terms::within(WITHIN));
        let answer = self.line.call_leader(place, Trade::Produce, &request, VERSION, terms, settles).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.never_sent() => return (Told::NotWritten, None, String::new()),
            Err(_) => return (Told::Unknown, None, String::new()),
        };
        let Some(partition) = answer_about(place, &answer) else {
            return (Told::Unknown, None, String::new());
        };
        let error = ResponseError::try_from_code(partition.error_code);
        self.line.told_of(Trade::Produce, place, partition.error_code, sent);
        let base = (error.is_none() && partition.base_offset >= 0).then_some(partition.base_offset);
        (told_by(error), base, error.map(|error| format!("{error:?}")).unwrap_or_default())
    }

    /// A record without a key, which a compacted topic does not take.
    async fn write_keyless(&mut self, place: &Place) {
        let timestamp_ms = self.client.backend.wall_ms();
        let (producer, codec) = (self.producer, self.codec);
        let first = self.next_number;
        self.next_number += 1;
        let wanted = Wanted { producer, first, sizes: vec![64], timestamp_ms, codec, keyed: false };
        let Ok(bytes) = wanted.encode(None) else { return };
        let timeout_ms = i32::try_from(WITHIN.as_millis()).unwrap_or(i32::MAX);
        let request = produce_request(vec![(place.clone(), bytes)], AckMode::All, timeout_ms);
        let terms = Terms::within(WITHIN);
        let answer = self.line.call_leader(place, Trade::Produce, &request, VERSION, terms, settles).await;
        let Some(code) =
            answer.ok().as_ref().and_then(|answer| Some(answer_about(place, answer)?.error_code))
        else {
            return;
        };
        let mut notes = self.client.field.notes.write();
        match ResponseError::try_from_code(code) {
            None => notes.compaction.keyless_acked.push((place.clone(), self.client.now())),
            Some(ResponseError::InvalidRecord) => notes.count("record without a key refused"),
            // It came to where nobody looks at records.
            Some(_) => {
                drop(notes);
                self.line.told(code);
            }
        }
    }
}

fn answer_about<'a>(place: &Place, answer: &'a ProduceResponse) -> Option<&'a PartitionProduceResponse> {
    let name = TopicName(StrBytes::from_string(place.topic.to_string()));
    let topics = answer.responses.iter().filter(|topic| topic.name == name);
    topics.flat_map(|topic| &topic.partition_responses).find(|partition| partition.index == place.partition)
}
