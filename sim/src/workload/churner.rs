//! A client that creates topics, writes to them, reads them back, deletes them and creates them again under the same
//! names. It checks at once what it reads: nothing of a former life, everything acknowledged, and in topics with
//! `LogAppendTime` the time that the acknowledgement told.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopicConfig, CreateTopicsRequest};
use kafka_protocol::messages::{CreateTopicsResponse, DeleteTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::client::{Client, numbers};
use super::connection::{Terms, back_off};
use super::fetcher::{self, FetchTerms};
use super::lines::Lines;
use super::lookups;
use super::producer::{not_timed_out, produce_request, settles, told_by};
use super::retries::Told;
use super::writer::Writer;
use crate::history::{AckMode, At, Damage, LookupQuery, Outcome, Place, Send, Trade, Value};
use crate::scenario::Compression;
use crate::streams::Stream;

/// Names that it uses.
const NAMES: usize = 6;
/// Partitions of a topic; now and then there are many.
const PARTITIONS: [i32; 6] = [1, 1, 2, 3, 8, 32];
/// Partitions of a topic that are written to and read.
const WRITTEN_MAX: i32 = 3;
const RECORDS_MAX: u64 = 4;
/// One topic of so many is created over two connections at once, as by two programs that both miss it.
const RIVALS_ONE_IN: u64 = 3;
/// One topic of so many has `LogAppendTime`.
const STAMPED_ONE_IN: u64 = 3;

pub(super) fn start<B: Backend>(client: Client<B>, every: Duration, within: Duration, stream: Stream) {
    let churner = Churner {
        line: Lines::new(&client),
        rival: Lines::new(&client),
        writer: Writer::new(&client, numbers::CHURNER, false),
        topics: (0..NAMES).map(|number| Topic { name: format!("churn-{number}"), life: None }).collect(),
        appended: Vec::new(),
        created: None,
        client: client.clone(),
        within,
        stream,
    };
    client.begin("churner", churner.run(every));
}

struct Churner<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
    rival: Lines<B>,
    writer: Writer<B>,
    topics: Vec<Topic>,
    /// In topics with `LogAppendTime`.
    appended: Vec<Appended>,
    /// When the creation was answered of a topic to which nothing was written yet.
    created: Option<At>,
    within: Duration,
    stream: Stream,
}

struct Topic {
    name: String,
    /// While it is there.
    life: Option<Life>,
}

#[derive(Clone)]
struct Life {
    /// What it is called in the history.
    topic: Arc<str>,
    partitions: i32,
    /// The first number that was sent to it.
    first: u64,
    /// It has `LogAppendTime`.
    stamped: bool,
}

/// What an acknowledgement said of a batch.
struct Appended {
    place: Place,
    offsets: Range<i64>,
    append_time_ms: i64,
}

/// A record that is to be read, and where.
struct Owed {
    number: u64,
    offset: Option<i64>,
}

fn owed_of(send: &Send) -> Vec<Owed> {
    let base = match send.outcome {
        Outcome::Acked { base, .. } => base,
        _ => None,
    };
    let of = |(nth, value): (i64, Value)| Owed { number: value.number, offset: base.map(|base| base + nth) };
    (0..).zip(send.values()).map(of).collect()
}

impl<B: Backend> Churner<B> {
    async fn run(mut self, every: Duration) {
        while self.client.next_turn(every).await {
            let index = self.stream.below(NAMES as u64) as usize;
            match self.topics[index].life.clone() {
                None => self.create(index).await,
                Some(life) if self.stream.coin() => self.write_and_read(&life).await,
                Some(life) => self.delete(index, &life).await,
            }
        }
    }

    fn is_over(&self) -> bool {
        self.client.now() >= self.client.field.schedule.give_up
    }

    async fn create(&mut self, index: usize) {
        let name = self.topics[index].name.clone();
        let partitions = PARTITIONS[self.stream.below(PARTITIONS.len() as u64) as usize];
        let topic = self.client.field.lives.begin(&name);
        let stamped = self.stream.below(STAMPED_ONE_IN) == 0;
        let mut creatable = self.client.field.creatable(&name, partitions);
        if stamped {
            creatable.configs.push(
                CreatableTopicConfig::default()
                    .with_name(StrBytes::from_static_str("message.timestamp.type"))
                    .with_value(Some(StrBytes::from_static_str("LogAppendTime"))),
            );
        }
        let request = CreateTopicsRequest::default()
            .with_topics(vec![creatable])
            .with_timeout_ms(i32::try_from(self.within.as_millis()).unwrap_or(i32::MAX));
        let has_rival = self.stream.below(RIVALS_ONE_IN) == 0;
        let mut failures = 0;
        let mut unknown = false;
        while !self.is_over() {
            let sent = self.client.now();
            let decided = |answer: &CreateTopicsResponse| {
                answer.topics.iter().all(|topic| not_timed_out(topic.error_code))
            };
            let own = self.line.call(Trade::Change, &request, 5, self.within, decided);
            let answers = if has_rival {
                let other = self.rival.call(Trade::Change, &request, 5, self.within, decided);
                let (own, other) = futures::join!(own, other);
                vec![own, other]
            } else {
                vec![own.await]
            };
            let mut errors = Vec::new();
            for answer in &answers {
                let error = answer.as_ref().ok().and_then(|answer| answer.topics.first());
                let error = error.map(|topic| topic.error_code);
                unknown |= match answer {
                    Err(error) => !error.never_sent(),
                    Ok(_) => error.is_none_or(|error| !not_timed_out(error)),
                };
                self.client.complain(Trade::Change, None, error.unwrap_or(0), sent);
                errors.extend(error);
            }
            if errors.contains(&0) || (unknown && errors.contains(&ResponseError::TopicAlreadyExists.code()))
            {
                self.client.field.lives.created(&name, partitions);
                self.note_created(&topic);
                let life = Life { topic, partitions, first: self.writer.next_number(), stamped };
                self.topics[index].life = Some(life.clone());
                // Else it goes by what it was told of the last topic of that name.
                if self.stream.coin() {
                    self.line.forget(&life.topic);
                    self.created = Some(self.client.now());
                }
                self.write_and_read(&life).await;
                self.created = None;
                return;
            }
            failures += 1;
            back_off(&self.client.backend, failures).await;
        }
    }

    fn note_created(&self, topic: &str) {
        let mut notes = self.client.field.notes.write();
        notes.count("topics churned");
        notes.topics.insert(topic.to_owned(), self.client.now());
    }

    fn note_deleting(&self, topic: &str) {
        let mut notes = self.client.field.notes.write();
        notes.topics.remove(topic);
        notes.deleted.entry(topic.to_owned()).or_insert(self.client.now());
    }

    async fn delete(&mut self, index: usize, life: &Life) {
        let name = self.topics[index].name.clone();
        self.topics[index].life = None;
        self.client.field.lives.ends(&name);
        self.note_deleting(&life.topic);
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![TopicName(StrBytes::from_string(name))])
            .with_timeout_ms(i32::try_from(self.within.as_millis()).unwrap_or(i32::MAX));
        let mut failures = 0;
        let mut unknown = false;
        while !self.is_over() {
            let sent = self.client.now();
            let decided = |answer: &kafka_protocol::messages::DeleteTopicsResponse| {
                answer.responses.iter().all(|topic| not_timed_out(topic.error_code))
            };
            let answer = self.line.call(Trade::Change, &request, 5, self.within, decided).await;
            let error = answer
                .as_ref()
                .ok()
                .and_then(|answer| answer.responses.first())
                .map(|topic| topic.error_code);
            unknown |= match &answer {
                Err(error) => !error.never_sent(),
                Ok(_) => error.is_none_or(|error| !not_timed_out(error)),
            };
            self.client.complain(Trade::Change, None, error.unwrap_or(0), sent);
            if error == Some(0) || (unknown && error == Some(ResponseError::UnknownTopicOrPartition.code())) {
                self.client.field.notes.write().count("topics deleted");
                return;
            }
            failures += 1;
            back_off(&self.client.backend, failures).await;
        }
    }

    async fn write_and_read(&mut self, life: &Life) {
        let written = life.partitions.min(WRITTEN_MAX);
        for partition in 0..written {
            let place = Place { topic: life.topic.clone(), partition };
            if !self.write(&place, life.stamped).await {
                return;
            }
        }
        for partition in 0..written {
            self.read_back(Place { topic: life.topic.clone(), partition }, life).await;
        }
    }

    /// Until it is acknowledged or there is no time left.
    async fn write(&mut self, place: &Place, stamped: bool) -> bool {
        let count = self.stream.between(1, RECORDS_MAX) as usize;
        let batch = self.writer.begin(place, vec![64; count], Compression::None);
        let timeout_ms = i32::try_from(self.within.as_millis()).unwrap_or(i32::MAX);
        let request = produce_request(vec![(place.clone(), batch.encode(None))], AckMode::All, timeout_ms);
        let terms = Terms::within(self.within);
        let mut failures = 0;
        while !self.is_over() {
            let sent = self.client.now();
            let answer = self.line.call_leader(place, Trade::Produce, &request, 9, terms, settles).await;
            let told = match &answer {
                Err(error) if error.never_sent() => Told::NotWritten,
                Err(_) => Told::Unknown,
                Ok(answer) => match batch.told(answer) {
                    Ok(base) => {
                        self.writer.acked(&batch, Some(base));
                        if let Some(created) = self.created.take() {
                            let took = self.client.now() - created;
                            self.client.field.notes.write().first_records.push(took);
                        }
                        let append_time_ms = batch.append_time_ms(answer);
                        if stamped {
                            let offsets = base..base + count as i64;
                            self.appended.push(Appended { place: place.clone(), offsets, append_time_ms });
                        }
                        if stamped != (append_time_ms >= 0) {
                            let what =
                                format!("offset {base} was acknowledged with the time {append_time_ms}");
                            self.note_damage(place, what);
                        }
                        return true;
                    }
                    Err(None) => Told::Unknown,
                    Err(Some(error)) => {
                        self.line.told_of(Trade::Produce, place, error.code(), sent);
                        told_by(Some(error))
                    }
                },
            };
            if told == Told::Unknown {
                self.writer.unknown(&batch);
            }
            failures += 1;
            back_off(&self.client.backend, failures).await;
        }
        false
    }

    /// Reads a partition from its beginning to what was acknowledged to it. A leader of several nodes that has just begun may not know
    /// yet how much of that is committed: there, only what is passed over is missing.
    async fn read_back(&mut self, place: Place, life: &Life) {
        let mut owed: Vec<Owed> = {
            let notes = self.client.field.notes.write();
            let ours = notes
                .sends
                .iter()
                .rev()
                .take_while(|send| send.producer != numbers::CHURNER || send.first >= life.first);
            ours.filter(|send| send.place == place).flat_map(owed_of).collect()
        };
        let places = [place];
        let mut times = Vec::new();
        let mut position = 0;
        let mut failures = 0;
        while !owed.is_empty() && !self.is_over() {
            let terms = FetchTerms { wait: Duration::ZERO, ..FetchTerms::soon() };
            let fetched =
                fetcher::fetch(&self.client, &mut self.line, &places, &[(0, position)], terms).await;
            let mut come = fetched.unwrap_or_default();
            let Some(mut one) = come.pop().filter(|one| one.error.is_none()) else {
                failures += 1;
                back_off(&self.client.backend, failures).await;
                continue;
            };
            for (offset, value) in &one.records {
                if value.producer != numbers::CHURNER || value.number < life.first {
                    one.damages.push(format!("offset {offset} holds {value}, of a topic that was deleted"));
                }
                let time = one.append_time_ms(*offset);
                one.damages.extend(self.wrong_time(&places[0], *offset, time, life.stamped));
                times.extend(time.map(|time| (*offset, time)));
                owed.retain(|one| one.number != value.number);
                position = offset + 1;
            }
            one.note_damages(&self.client, &places[0]);
            let at_the_end = position >= one.high_watermark;
            let knows_all = self.client.field.nodes == 1;
            let is_missing =
                |one: &&Owed| one.offset.is_some_and(|offset| offset < position) || (at_the_end && knows_all);
            if let Some(missing) = owed.iter().find(is_missing) {
                let what = format!("record {} was acknowledged, and is not read", missing.number);
                self.note_damage(&places[0], what);
                return;
            }
            if at_the_end && !owed.is_empty() {
                failures += 1;
                back_off(&self.client.backend, failures).await;
            }
        }
        self.look_up_newest(&places[0], &times).await;
    }

    /// What is wrong with the broker's time of a record that was read.
    fn wrong_time(&self, place: &Place, offset: i64, read: Option<i64>, stamped: bool) -> Option<String> {
        if stamped != read.is_some() {
            return Some(format!("offset {offset} is read with the broker's time {read:?}"));
        }
        let is_it = |batch: &&Appended| batch.place == *place && batch.offsets.contains(&offset);
        let told = self.appended.iter().find(is_it)?.append_time_ms;
        (read != Some(told)).then(|| {
            format!("offset {offset} is read with the broker's time {read:?}, and {told} was acknowledged")
        })
    }

    /// Looks up the time of the last record that was read: the first of those with that time or a later one is found.
    async fn look_up_newest(&mut self, place: &Place, times: &[(i64, i64)]) {
        let Some((_, newest)) = times.last() else { return };
        let expected = times.iter().find(|(_, time)| time >= newest).copied();
        let query = LookupQuery::Timestamp(*newest);
        let question = lookups::Question { place, query, epoch: None };
        let found = lookups::find(&self.client, &mut self.line, question, lookups::WITHIN).await;
        if let Ok(Some(found)) = found.map(|found| found.map(|found| (found.offset, found.timestamp)))
            && Some(found) != expected
        {
            let what = format!("a look-up of the time {newest} finds {found:?} instead of {expected:?}");
            self.note_damage(place, what);
        }
    }

    fn note_damage(&self, place: &Place, what: String) {
        let at = self.client.now();
        self.client.field.notes.write().damages.push(Damage { place: place.clone(), at, what });
    }
}
