//! Fetches without a session: what is asked for, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::batch::{self, FetchedRecord};
use super::client::Client;
use super::connection::{CallError, Terms};
use super::lines::Lines;
use crate::history::wire_name;
use crate::history::{At, Damage, Place, Trade, Value};

/// The broker is granted this beyond the wait: a read from a slow disk.
const WITHIN: Duration = Duration::from_secs(12);
const PARTITION_BYTES: i32 = 256 << 10;
/// Since this version a fetch names the epoch of the leader that it is meant for.
pub(super) const NAMES_EPOCHS: i16 = 9;
/// The version that names topics by their ids.
const BY_ID: i16 = 13;

/// What a fetch asks for beside its partitions.
#[derive(Clone, Copy, Debug)]
pub(super) struct FetchTerms {
    pub(super) wait: Duration,
    pub(super) min_bytes: i32,
    pub(super) partition_bytes: i32,
    pub(super) version: i16,
}

impl FetchTerms {
    /// Whatever there is, soon.
    pub(super) fn soon() -> FetchTerms {
        FetchTerms {
            wait: Duration::from_millis(500),
            min_bytes: 1,
            partition_bytes: PARTITION_BYTES,
            version: 12,
        }
    }

    pub(super) fn terms(&self) -> Terms {
        Terms { wait: self.wait, within: WITHIN }
    }
}

/// What a fetch brought of one partition.
pub(super) struct Fetched {
    /// Of the place among all that the caller knows.
    pub(super) index: usize,
    pub(super) from: i64,
    pub(super) error: Option<ResponseError>,
    pub(super) high_watermark: i64,
    pub(super) log_start: i64,
    pub(super) records: Vec<(i64, Value)>,
    /// The leader epochs of the records, each with the first of them that has it.
    pub(super) epochs: Vec<(i64, i32)>,
    /// The broker's times of the records, none where the producer's counts; each with the first of them that has it.
    pub(super) append_times: Vec<(i64, Option<i64>)>,
    pub(super) damages: Vec<String>,
}

/// Topics by their ids.
pub(super) type Ids = BTreeMap<String, Uuid>;

/// A request for some of `places`, from `(index, offset)` on, of leaders of the epochs that are named.
pub(super) fn request(
    places: &[Place],
    from: &[(usize, i64)],
    terms: FetchTerms,
    ids: Option<&Ids>,
    leader_epoch: impl Fn(&Place) -> Option<i32>,
) -> FetchRequest {
    let mut topics: Vec<(&Place, FetchTopic)> = Vec::new();
    for (index, offset) in from {
        let place = &places[*index];
        let partition = FetchPartition::default()
            .with_partition(place.partition)
            .with_fetch_offset(*offset)
            .with_current_leader_epoch(leader_epoch(place).unwrap_or(-1))
            .with_partition_max_bytes(terms.partition_bytes);
        match topics.last_mut() {
            Some((last, topic)) if last.topic == place.topic => topic.partitions.push(partition),
            _ => {
                let name = wire_name(&place.topic);
                let topic = match ids {
                    Some(ids) => {
                        FetchTopic::default().with_topic_id(ids.get(name).copied().unwrap_or_default())
                    }
                    None => {
                        FetchTopic::default().with_topic(TopicName(StrBytes::from_string(name.to_owned())))
                    }
                };
                topics.push((place, topic.with_partitions(vec![partition])));
            }
        }
    }
    FetchRequest::default()
        .with_max_wait_ms(i32::try_from(terms.wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(terms.min_bytes)
        .with_max_bytes(terms.partition_bytes.saturating_mul(4))
        .with_session_epoch(-1)
        .with_topics(topics.into_iter().map(|(_, topic)| topic).collect())
}

pub(super) fn version(terms: FetchTerms, ids: Option<&Ids>) -> i16 {
    if ids.is_some() { BY_ID } else { terms.version }
}

/// What came of `from`. An error of the whole is told of the first partition.
pub(super) fn sort_out(
    answer: FetchResponse,
    places: &[Place],
    from: &[(usize, i64)],
    ids: Option<&Ids>,
) -> Vec<Fetched> {
    let mut all = Vec::new();
    if let (Some(error), Some((index, offset))) =
        (ResponseError::try_from_code(answer.error_code), from.first())
    {
        all.push(Fetched {
            index: *index,
            from: *offset,
            error: Some(error),
            high_watermark: -1,
            log_start: -1,
            records: Vec::new(),
            epochs: Vec::new(),
            append_times: Vec::new(),
            damages: Vec::new(),
        });
    }
    for topic in answer.responses {
        let is_it = |place: &Place| match ids {
            Some(ids) => ids.get(wire_name(&place.topic)) == Some(&topic.topic_id),
            None => *topic.topic.0 == *wire_name(&place.topic),
        };
        for partition in topic.partitions {
            let asked = from.iter().find(|(index, _)| {
                let place = &places[*index];
                place.partition == partition.partition_index && is_it(place)
            });
            if let Some((index, offset)) = asked {
                all.push(one(partition, *index, *offset));
            }
        }
    }
    all
}

fn one(partition: PartitionData, index: usize, from: i64) -> Fetched {
    let mut fetched = Fetched {
        index,
        from,
        error: ResponseError::try_from_code(partition.error_code),
        high_watermark: partition.high_watermark,
        log_start: partition.log_start_offset,
        records: Vec::new(),
        epochs: Vec::new(),
        append_times: Vec::new(),
        damages: Vec::new(),
    };
    let bytes = partition.records.unwrap_or_default();
    let Fetched { records, epochs, append_times, damages, .. } = &mut fetched;
    let read = batch::decode(&bytes, from, |record| {
        let FetchedRecord { offset, leader_epoch, append_time_ms, value } = record;
        if epochs.last().is_none_or(|(_, last)| *last != leader_epoch) {
            epochs.push((offset, leader_epoch));
        }
        if append_times.last().is_none_or(|(_, last)| *last != append_time_ms) {
            append_times.push((offset, append_time_ms));
        }
        match value {
            Ok(value) => records.push((offset, value)),
            Err(what) => damages.push(format!("offset {offset} holds {what}")),
        }
    });
    if let Err(what) = read {
        damages.push(what);
    }
    fetched
}

impl Fetched {
    /// The broker's time of a record that was fetched.
    pub(super) fn append_time_ms(&self, offset: i64) -> Option<i64> {
        self.append_times.iter().rev().find(|(first, _)| *first <= offset).and_then(|(_, time)| *time)
    }

    /// Notes what is wrong with what was served; whether anything is.
    pub(super) fn note_damages<B: Backend>(&mut self, client: &Client<B>, place: &Place) -> bool {
        let mut notes = client.field.notes.write();
        let at = client.now();
        let found = !self.damages.is_empty();
        for what in self.damages.drain(..) {
            notes.damages.push(Damage { place: place.clone(), at, what });
        }
        found
    }
}

/// Fetches, of each node what it leads, and waits for the answers.
pub(super) async fn fetch<B: Backend>(
    client: &Client<B>,
    line: &mut Lines<B>,
    places: &[Place],
    from: &[(usize, i64)],
    terms: FetchTerms,
) -> Result<Vec<Fetched>, CallError> {
    let mut all = Vec::new();
    for (node, from) in line.by_leader(places, from).await? {
        let request = request(places, &from, terms, None, |place| line.leader_epoch(place));
        let sent = client.now();
        let answer =
            line.call_node(node, Trade::Consume, &request, terms.version, terms.terms(), |_| true).await?;
        let fetched = sort_out(answer, places, &from, None);
        complain(client, line, &fetched, places, sent);
        all.extend(fetched);
    }
    Ok(all)
}

pub(super) fn complain<B: Backend>(
    client: &Client<B>,
    line: &mut Lines<B>,
    fetched: &[Fetched],
    places: &[Place],
    sent: At,
) {
    for one in fetched {
        // Where records are deleted, whoever is behind begins again.
        let falls_out = client.field.deletes && one.error == Some(ResponseError::OffsetOutOfRange);
        if let Some(error) = one.error.filter(|_| !falls_out) {
            line.told_of(Trade::Consume, &places[one.index], error.code(), sent);
        }
    }
}

/// How long a question may take beside which nothing is listened to: who has several nodes has answers of others to read meanwhile.
pub(super) fn aside_within<B: Backend>(client: &Client<B>, alone: Duration) -> Duration {
    if client.field.nodes > 1 { Duration::from_secs(2) } else { alone }
}

/// The ids of the topics of `places`; those that cannot be told are missing.
pub(super) async fn topic_ids<B: Backend>(
    client: &Client<B>,
    line: &mut Lines<B>,
    places: &[Place],
) -> Result<Ids, CallError> {
    let mut names: Vec<&str> = places.iter().map(|place| wire_name(&place.topic)).collect();
    names.dedup();
    let topics = names
        .into_iter()
        .map(|name| {
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))))
        })
        .collect();
    let request = MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(false);
    let sent = client.now();
    let within = aside_within(client, Duration::from_secs(10));
    let answer = line.call(Trade::Look, &request, 12, within, |_| true).await?;
    let mut ids = Ids::new();
    for topic in answer.topics {
        let is_it =
            |place: &&Place| topic.name.as_ref().is_some_and(|name| *name.0 == *wire_name(&place.topic));
        client.complain(Trade::Look, places.iter().find(is_it), topic.error_code, sent);
        if let (0, Some(name)) = (topic.error_code, topic.name) {
            ids.insert(name.to_string(), topic.topic_id);
        }
    }
    Ok(ids)
}
