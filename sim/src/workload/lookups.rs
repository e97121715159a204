//! A client that looks up offsets: the first, the next, that of the newest time, that of a time at which something was
//! sent, and the end of a leader epoch. As real clients do it names the leader epoch it was told; sometimes on purpose
//! one that is behind or ahead.

use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, OffsetForLeaderEpochRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::client::Client;
use super::connection::{CallError, Terms, back_off};
use super::lines::Lines;
use crate::history::wire_name;
use crate::history::{
    At, EpochAnswer, EpochEnd, EpochQuestion, Lookup, LookupQuery, Place, Teller, Trade, timestamp_of,
};
use crate::streams::Stream;

/// A search by time reads from the disk.
pub(super) const WITHIN: Duration = Duration::from_secs(12);
/// The first version that knows the newest time.
const VERSION: i16 = 7;
const EPOCH_END_VERSION: i16 = 4;
/// No epoch gets there.
const AHEAD: i32 = 1_000_000;

pub(super) fn start<B: Backend>(client: Client<B>, every: Duration, stream: Stream) {
    let looker = Looker { line: Lines::new(&client), client: client.clone(), stream };
    client.begin("look-ups", looker.run(every));
}

/// The leader epoch that a question names, and the one the client was told, by the node that it asks: another one may know
/// of a later epoch before the leader of this one does.
#[derive(Clone, Copy)]
pub(super) struct Epoch {
    node: u32,
    told: i32,
    named: i32,
}

/// What a look-up asks for; with an epoch it names one.
pub(super) struct Question<'a> {
    pub(super) place: &'a Place,
    pub(super) query: LookupQuery,
    pub(super) epoch: Option<Epoch>,
}

struct Looker<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
    stream: Stream,
}

impl<B: Backend> Looker<B> {
    async fn run(mut self, every: Duration) {
        let backend = self.client.backend.clone();
        let mut failures = 0;
        while self.client.next_turn(every).await {
            match self.look().await {
                Ok(()) => failures = 0,
                Err(_) => {
                    failures += 1;
                    back_off(&backend, failures).await;
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), CallError> {
        let (place, query) = self.draw();
        let epoch = match self.stream.below(3) {
            0 => None,
            _ => self.epoch(&place).await?,
        };
        match epoch {
            Some(epoch) if self.stream.below(3) == 0 => self.epoch_end(&place, epoch).await,
            _ => {
                let question = Question { place: &place, query, epoch };
                let found = find(&self.client, &mut self.line, question, WITHIN).await?;
                self.client.field.notes.write().lookups.extend(found);
                Ok(())
            }
        }
    }

    fn draw(&mut self) -> (Place, LookupQuery) {
        let places = &self.client.field.places;
        let place = places[self.stream.below(places.len() as u64) as usize].clone();
        let query = match self.stream.below(6) {
            0 => LookupQuery::Earliest,
            1 => LookupQuery::Latest,
            2 => LookupQuery::MaxTimestamp,
            _ => {
                let notes = self.client.field.notes.write();
                let sends = notes.sends.len() as u64;
                let Some(send) = notes.sends.get(self.stream.below(sends) as usize) else {
                    return (place, LookupQuery::Earliest);
                };
                let index = self.stream.below(u64::from(send.count)) as usize;
                let timestamp = LookupQuery::Timestamp(timestamp_of(send.timestamp_ms, index));
                let is_ours = places.contains(&send.place);
                return (if is_ours { send.place.clone() } else { place }, timestamp);
            }
        };
        (place, query)
    }

    /// Asks the partition's leader for its epoch, and draws which one to name.
    async fn epoch(&mut self, place: &Place) -> Result<Option<Epoch>, CallError> {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(place)));
        let request =
            MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let sent = self.client.now();
        let node = self.line.node_of(place).await?;
        let terms = Terms::within(WITHIN);
        let answer = self.line.call_node(node, Trade::Look, &request, 9, terms, |_| true).await?;
        let mut told = None;
        for topic in answer.topics {
            self.client.complain(Trade::Look, Some(place), topic.error_code, sent);
            let found =
                topic.partitions.iter().find(|partition| partition.partition_index == place.partition);
            told = found.map(|partition| partition.leader_epoch).filter(|epoch| *epoch >= 0);
        }
        let Some(told) = told else { return Ok(None) };
        let named = match self.stream.below(4) {
            0 if told > 0 => self.stream.below(told as u64) as i32,
            1 => told.saturating_add(AHEAD),
            _ => told,
        };
        Ok(Some(Epoch { node, told, named }))
    }

    async fn epoch_end(&mut self, place: &Place, epoch: Epoch) -> Result<(), CallError> {
        let asked = self.stream.below(epoch.told as u64 + 1) as i32;
        let partition = OffsetForLeaderPartition::default()
            .with_partition(place.partition)
            .with_current_leader_epoch(epoch.named)
            .with_leader_epoch(asked);
        let topic =
            OffsetForLeaderTopic::default().with_topic(topic_name(place)).with_partitions(vec![partition]);
        let request =
            OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let sent = self.client.now();
        let terms = Terms::within(WITHIN);
        let version = EPOCH_END_VERSION;
        let node = epoch.node;
        let answer = self.line.call_node(node, Trade::Look, &request, version, terms, |_| true).await?;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            if told(&self.client, &mut self.line, place, Some(epoch), partition.error_code, sent) {
                self.client.field.notes.write().epoch_ends.push(EpochEnd {
                    client: self.client.name.clone(),
                    place: place.clone(),
                    sent,
                    told: epoch.told,
                    asked,
                    epoch: partition.leader_epoch,
                    end: partition.end_offset,
                });
            }
        }
        Ok(())
    }
}

pub(super) fn topic_name(place: &Place) -> TopicName {
    TopicName(StrBytes::from_string(wire_name(&place.topic).to_owned()))
}

/// Notes what a question came to; whether it was served.
fn told<B: Backend>(
    client: &Client<B>,
    line: &mut Lines<B>,
    place: &Place,
    epoch: Option<Epoch>,
    code: i16,
    sent: At,
) -> bool {
    let error = ResponseError::try_from_code(code);
    let answer = match error {
        None => Some(EpochAnswer::Served),
        Some(ResponseError::FencedLeaderEpoch) => Some(EpochAnswer::Fenced),
        Some(ResponseError::UnknownLeaderEpoch) => Some(EpochAnswer::Unknown),
        Some(_) => None,
    };
    if let (Some(Epoch { told, named, .. }), Some(answer)) = (epoch, answer) {
        let place = place.clone();
        let question = EpochQuestion { client: client.name.clone(), place, sent, told, named, answer };
        client.field.notes.write().epoch_questions.push(question);
    }
    let on_purpose = answer.is_some() && epoch.is_some_and(|epoch| epoch.named != epoch.told);
    if on_purpose {
        line.told(code);
    } else {
        line.told_of(Trade::Look, place, code, sent);
    }
    error.is_none()
}

/// Looks up one offset, without naming an epoch, and notes the answer.
pub(super) async fn look_up<B: Backend>(
    client: &Client<B>,
    line: &mut Lines<B>,
    place: &Place,
    query: LookupQuery,
    within: Duration,
) -> Result<(), CallError> {
    let found = find(client, line, Question { place, query, epoch: None }, within).await?;
    client.field.notes.write().lookups.extend(found);
    Ok(())
}

/// The look-up that was answered; none when it was refused.
pub(super) async fn find<B: Backend>(
    client: &Client<B>,
    line: &mut Lines<B>,
    question: Question<'_>,
    within: Duration,
) -> Result<Option<Lookup>, CallError> {
    let Question { place, query, epoch } = question;
    let timestamp = match query {
        LookupQuery::Latest => -1,
        LookupQuery::Earliest => -2,
        LookupQuery::MaxTimestamp => -3,
        LookupQuery::Timestamp(timestamp) => timestamp,
    };
    let partition = ListOffsetsPartition::default()
        .with_partition_index(place.partition)
        .with_current_leader_epoch(epoch.map_or(-1, |epoch| epoch.named))
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(topic_name(place)).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let sent = client.now();
    let terms = Terms::within(within);
    let node = match epoch {
        Some(epoch) => epoch.node,
        None => line.node_of(place).await?,
    };
    let answer = line.call_node(node, Trade::Look, &request, VERSION, terms, |_| true).await?;
    let partition = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
    let served = partition.filter(|partition| told(client, line, place, epoch, partition.error_code, sent));
    // Who reads a compacted topic judges by keys where it begins.
    if let (Some(partition), LookupQuery::Earliest) = (served, query)
        && !client.field.compacted.contains(place)
    {
        client.note_log_start(place, partition.offset, Teller::Node(node), sent);
    }
    Ok(served.map(|partition| Lookup {
        client: client.name.clone(),
        place: place.clone(),
        query,
        sent,
        at: client.now(),
        offset: partition.offset,
        timestamp: partition.timestamp,
    }))
}
