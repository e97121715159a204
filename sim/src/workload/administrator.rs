//! A client that changes configurations of its topic and of the broker, adds partitions to the topic and writes to them at
//! once, and asks every now and then what is set. What it was told is judged by `checker::configs`.

use std::sync::Arc;
use std::time::Duration;

use broker::limits::PROPOSE_DEADLINE;
use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::client::{Client, numbers};
use super::connection::{CallError, Terms, back_off};
use super::lines::Lines;
use super::producer::{not_timed_out, produce_request, settles};
use super::writer::Writer;
use crate::history::{AckMode, At, Change, ConfigChange, ConfigKey, ConfigSeen, Place, Trade};
use crate::scenario::Compression;
use crate::streams::Stream;

const TOPIC: &str = "configured";
const PARTITIONS_MAX: i32 = 12;
/// Kafka's numbers.
const OF_TOPIC: i8 = 2;
const OF_BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
/// Of the values: far more than a run lasts, and each another.
const VALUES_FROM: u64 = 1_000_000_000;
/// One change of so many goes back to the default.
const DELETED_ONE_IN: u64 = 5;

/// What it changes; none of it shows within a run but in the answers.
const KEYS: &[(i8, &str, &str)] = &[
    (OF_TOPIC, TOPIC, "retention.ms"),
    (OF_TOPIC, TOPIC, "segment.ms"),
    (OF_TOPIC, TOPIC, "file.delete.delay.ms"),
    (OF_TOPIC, TOPIC, "message.timestamp.before.max.ms"),
    (OF_BROKER, "", "log.message.timestamp.before.max.ms"),
    (OF_BROKER, "", "log.segment.delete.delay.ms"),
    // A broker's own are changed and told on that broker: of one among others they are left alone.
    (OF_BROKER, "1", "log.message.timestamp.before.max.ms"),
];

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn start<B: Backend>(client: Client<B>, every: Duration, within: Duration, stream: Stream) {
    let administrator = Administrator {
        line: Lines::new(&client),
        writer: Writer::new(&client, numbers::ADMINISTRATOR, false),
        client: client.clone(),
        topic: client.field.lives.begin(TOPIC),
        partitions: 1,
        values: 0,
        within,
        stream,
    };
    client.begin("administrator", administrator.run(every));
}

struct Administrator<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
    writer: Writer<B>,
    topic: Arc<str>,
    partitions: i32,
    /// So many values were set.
    values: u64,
    within: Duration,
    stream: Stream,
}

/// What became of an attempt.
enum Attempt {
    Done,
    /// It may have taken effect, or take it later.
    Unknown,
    Refused(ResponseError),
}

impl Attempt {
    /// By its answer and the error code in it.
    fn of<A>(answer: &Result<A, CallError>, code: Option<i16>) -> Attempt {
        match (answer, code) {
            (Err(error), _) if error.never_sent() => Attempt::Refused(ResponseError::NetworkException),
            (Err(_), _) | (Ok(_), None) => Attempt::Unknown,
            (Ok(_), Some(code)) => match ResponseError::try_from_code(code) {
                None => Attempt::Done,
                Some(_) if !not_timed_out(code) => Attempt::Unknown,
                Some(error) => Attempt::Refused(error),
            },
        }
    }
}

impl<B: Backend> Administrator<B> {
    async fn run(mut self, every: Duration) {
        if !self.create().await {
            return;
        }
        while self.client.next_turn(every).await {
            match self.stream.below(8) {
                0 if self.partitions < PARTITIONS_MAX => self.grow().await,
                0 | 1 => self.look().await,
                _ => self.change().await,
            }
        }
    }

    fn is_over(&self) -> bool {
        self.client.now() >= self.client.field.schedule.give_up
    }

    fn keys(&self) -> &'static [(i8, &'static str, &'static str)] {
        match self.client.field.nodes {
            1 => KEYS,
            _ => KEYS.split_last().map_or(KEYS, |(_, of_any)| of_any),
        }
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.within.as_millis()).unwrap_or(i32::MAX)
    }

    async fn create(&mut self) -> bool {
        let topic = self.client.field.creatable(TOPIC, self.partitions);
        let request =
            CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(self.timeout_ms());
        let exists = ResponseError::TopicAlreadyExists;
        let mut failures = 0;
        while !self.is_over() {
            let sent = self.client.now();
            let decided = |answer: &CreateTopicsResponse| {
                answer.topics.iter().all(|topic| not_timed_out(topic.error_code))
            };
            let answer = self.line.call(Trade::Change, &request, 5, self.within, decided).await;
            let code = answer.as_ref().ok().and_then(|answer| Some(answer.topics.first()?.error_code));
            self.client.complain(Trade::Change, None, code.unwrap_or(0), sent);
            match Attempt::of(&answer, code) {
                Attempt::Refused(error) if error != exists => {}
                Attempt::Unknown => {}
                Attempt::Done | Attempt::Refused(_) => {
                    self.client.field.lives.created(TOPIC, self.partitions);
                    let mut notes = self.client.field.notes.write();
                    notes.topics.insert(self.topic.to_string(), self.client.now());
                    return true;
                }
            }
            failures += 1;
            back_off(&self.client.backend, failures).await;
        }
        false
    }

    /// Sets a configuration, or has it go back to its default.
    async fn change(&mut self) {
        let began = self.client.now();
        let made = self.change_until_done().await.then(|| self.client.now());
        self.note(began, made);
    }

    fn note(&self, began: At, made: Option<At>) {
        let change = Change { node: self.line.asks(), began, made };
        self.client.field.notes.write().changes.push(change);
    }

    /// False: it is not done when it is over.
    async fn change_until_done(&mut self) -> bool {
        let keys = self.keys();
        let (kind, resource, name) = keys[self.stream.below(keys.len() as u64) as usize];
        let value = (self.stream.below(DELETED_ONE_IN) > 0).then(|| {
            self.values += 1;
            (VALUES_FROM + self.values).to_string()
        });
        let config = AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(if value.is_some() { SET } else { DELETE })
            .with_value(value.as_deref().map(text));
        let altered = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(resource))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![altered]);
        let id = {
            let mut notes = self.client.field.notes.write();
            notes.config_changes.push(ConfigChange {
                key: ConfigKey { kind, resource: resource.to_owned(), name },
                value,
                sent: self.client.now(),
                unknown_attempts: 0,
                acked: None,
            });
            notes.config_changes.len() - 1
        };
        let mut failures = 0;
        while !self.is_over() {
            let sent = self.client.now();
            let decided = |answer: &IncrementalAlterConfigsResponse| {
                answer.responses.iter().all(|resource| not_timed_out(resource.error_code))
            };
            // The request says nothing of how long it may take: the broker has its own bound.
            let terms = Terms { wait: PROPOSE_DEADLINE, within: self.within };
            let answer = self.line.call_on(Trade::Change, &request, 1, terms, decided).await;
            let code = answer.as_ref().ok().and_then(|answer| Some(answer.responses.first()?.error_code));
            self.client.complain(Trade::Change, None, code.unwrap_or(0), sent);
            let now = self.client.now();
            let notes = || self.client.field.notes.write();
            match Attempt::of(&answer, code) {
                Attempt::Done => {
                    notes().config_changes[id].acked = Some(now);
                    notes().count("configurations changed");
                    return true;
                }
                Attempt::Unknown => notes().config_changes[id].unknown_attempts += 1,
                Attempt::Refused(_) => {}
            }
            failures += 1;
            back_off(&self.client.backend, failures).await;
        }
        false
    }

    /// Asks what is set.
    async fn look(&mut self) {
        let key = |(kind, resource, name): &(i8, &str, &'static str)| ConfigKey {
            kind: *kind,
            resource: (*resource).to_owned(),
            name,
        };
        let keys: Vec<ConfigKey> = self.keys().iter().map(key).collect();
        ask(&self.client, &mut self.line, &keys, self.within).await;
    }

    /// One partition more, which is written to at once.
    async fn grow(&mut self) {
        let grown = CreatePartitionsTopic::default()
            .with_name(TopicName(text(TOPIC)))
            .with_count(self.partitions + 1)
            .with_assignments(None);
        let request =
            CreatePartitionsRequest::default().with_topics(vec![grown]).with_timeout_ms(self.timeout_ms());
        let began = self.client.now();
        let mut failures = 0;
        let mut unknown = false;
        while !self.is_over() {
            let sent = self.client.now();
            let decided = |answer: &CreatePartitionsResponse| {
                answer.results.iter().all(|topic| not_timed_out(topic.error_code))
            };
            let answer = self.line.call(Trade::Change, &request, 3, self.within, decided).await;
            let code = answer.as_ref().ok().and_then(|answer| Some(answer.results.first()?.error_code));
            let attempt = Attempt::of(&answer, code);
            let has_it = matches!(attempt, Attempt::Refused(ResponseError::InvalidPartitions)) && unknown;
            if has_it || matches!(attempt, Attempt::Done) {
                self.note(began, Some(self.client.now()));
                self.partitions += 1;
                self.client.field.lives.created(TOPIC, self.partitions);
                let place = Place { topic: self.topic.clone(), partition: self.partitions - 1 };
                {
                    let mut notes = self.client.field.notes.write();
                    notes.count("partitions added");
                    notes.added.insert(place.clone(), self.client.now());
                }
                self.write(&place).await;
                return;
            }
            self.client.complain(Trade::Change, None, code.unwrap_or(0), sent);
            unknown |= matches!(attempt, Attempt::Unknown);
            failures += 1;
            back_off(&self.client.backend, failures).await;
        }
    }

    /// Until it is acknowledged or there is no time left.
    async fn write(&mut self, place: &Place) {
        let batch = self.writer.begin(place, vec![64], Compression::None);
        let request =
            produce_request(vec![(place.clone(), batch.encode(None))], AckMode::All, self.timeout_ms());
        let terms = Terms::within(self.within);
        let mut failures = 0;
        while !self.is_over() {
            let sent = self.client.now();
            let answer = self.line.call_leader(place, Trade::Produce, &request, 9, terms, settles).await;
            let told = answer.as_ref().map(|answer| batch.told(answer));
            match told {
                Ok(Ok(base)) => return self.writer.acked(&batch, Some(base)),
                Ok(Err(Some(error))) => {
                    self.line.told_of(Trade::Produce, place, error.code(), sent);
                    if super::producer::told_by(Some(error)) == super::retries::Told::Unknown {
                        self.writer.unknown(&batch);
                    }
                }
                Ok(Err(None)) => self.writer.unknown(&batch),
                Err(error) if error.never_sent() => {}
                Err(_) => self.writer.unknown(&batch),
            }
            failures += 1;
            back_off(&self.client.backend, failures).await;
        }
    }
}

/// Asks once what is set of these, and writes it down; whether there was an answer.
pub(super) async fn ask<B: Backend>(
    client: &Client<B>,
    line: &mut Lines<B>,
    keys: &[ConfigKey],
    within: Duration,
) -> bool {
    let mut resources: Vec<(i8, &str)> = keys.iter().map(|key| (key.kind, key.resource.as_str())).collect();
    resources.sort_unstable();
    resources.dedup();
    let wanted = resources.iter().map(|(kind, resource)| {
        DescribeConfigsResource::default()
            .with_resource_type(*kind)
            .with_resource_name(text(resource))
            .with_configuration_keys(None)
    });
    let request = DescribeConfigsRequest::default().with_resources(wanted.collect());
    let sent = client.now();
    let Ok(answer) = line.call(Trade::Look, &request, 4, within, |_| true).await else { return false };
    let codes = answer.results.iter().map(|result| result.error_code);
    if let Some(code) = codes.clone().find(|code| *code != 0) {
        client.complain(Trade::Look, None, code, sent);
        return false;
    }
    let at = client.now();
    let mut notes = client.field.notes.write();
    for key in keys {
        let value = set(&answer, key);
        notes.configs_seen.push(ConfigSeen {
            client: client.name.clone(),
            key: key.clone(),
            value,
            sent,
            at,
        });
    }
    true
}

/// What an answer says is set of that resource itself.
fn set(answer: &DescribeConfigsResponse, key: &ConfigKey) -> Option<String> {
    let own = match (key.kind, key.resource.as_str()) {
        (OF_TOPIC, _) => 1,
        (_, "") => 3,
        _ => 2,
    };
    let is_it = |resource: &&str, kind: i8| *resource == key.resource && kind == key.kind;
    let result =
        answer.results.iter().find(|result| is_it(&result.resource_name.as_str(), result.resource_type))?;
    let config = result.configs.iter().find(|config| config.name.as_str() == key.name)?;
    (config.config_source == own).then(|| config.value.as_ref().map(ToString::to_string)).flatten()
}
