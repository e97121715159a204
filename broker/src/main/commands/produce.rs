//! `chronik produce`
//!
//! Lines are sent in batches, and at once where no whole line waits behind them. A batch that a node refuses for a while, or whose answer is
//! lost, is sent again within `--timeout`: without a producer's id, its records may then be there twice.

#![allow(clippy::disallowed_types, reason = "the command line reads a file by itself, and has no backend")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::records::Compression;
use serde_json::json;

use super::arguments::{Connect, duration};
use super::input::{Input, Next};
use super::lines::{Line, partition_of};
use super::output::{say, warn};
use crate::client::clock::now_ms;
use crate::client::cluster::{Answer, topic_name};
use crate::client::failure::check;
use crate::client::{Client, Deadline, Failure, Topic, records};

/// Of one batch; nodes take no more than a mebibyte by default.
const BATCH_BYTES: usize = 512 << 10;
const BATCH_RECORDS: usize = 5_000;

#[derive(Args)]
pub struct Produce {
    topic: String,
    #[command(flatten)]
    connect: Connect,
    /// Read lines from this in place of standard input
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// What stands between a line's key and its value [default: lines have no key]
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// All to this partition [default: by the key as Kafka's clients do; without a key each batch to another]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Who has to have a record before it counts as written
    #[arg(long, value_enum, default_value_t = Acks::All)]
    acks: Acks,
    #[arg(long, value_enum, default_value_t = Codec::None)]
    compression: Codec,
    /// For how long each batch is tried
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Acks {
    /// All replicas that are in sync
    All,
    /// The leader
    #[value(name = "1")]
    Leader,
    /// Nobody: it is sent, and no answer is waited for
    #[value(name = "0")]
    Nobody,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Acks {
    fn wire(self) -> i16 {
        match self {
            Acks::All => -1,
            Acks::Leader => 1,
            Acks::Nobody => 0,
        }
    }
}

impl Codec {
    fn wire(self) -> Compression {
        match self {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

impl Produce {
    pub fn run(&self) -> Result<(), Failure> {
        let mut client = Client::new(&self.connect.bootstrap, self.timeout);
        let topic = self.topic(&mut client)?;
        let partitions = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        if let Some(partition) = self.partition.filter(|partition| topic.partition(*partition).is_none()) {
            return Err(Failure::Usage(format!(
                "topic {} has no partition {partition}: it has {partitions}, from 0 on",
                self.topic
            )));
        }
        let input = self.input()?;
        let mut writer = Writer {
            produce: self,
            client,
            partitions,
            // Short inputs are spread as well.
            sticky: u32::try_from(now_ms().rem_euclid(i64::from(partitions.max(1)))).unwrap_or(0),
            waiting: BTreeMap::new(),
            bytes: 0,
            count: 0,
            written: 0,
        };
        let mut done = writer.write(input);
        let (written, topic) = (writer.written, &self.topic);
        if done.is_ok() && !self.connect.json {
            let how = if self.acks == Acks::Nobody { "sent to" } else { "written to" };
            done = say(&format!("{written} records {how} topic {topic}\n"));
        }
        if done.is_err() {
            warn(&format!("{written} records had been written to topic {topic} before"));
        }
        done
    }

    fn input(&self) -> Result<Input, Failure> {
        let (name, opened) = match &self.file {
            None => ("standard input".to_owned(), Input::open(io::stdin())),
            Some(path) => (path.display().to_string(), File::open(path).and_then(Input::open)),
        };
        opened.map_err(|error| Failure::Input(format!("cannot read {name}: {error}")))
    }

    fn topic(&self, client: &mut Client) -> Result<Topic, Failure> {
        let doing = format!("produce to topic {}", self.topic);
        let names = [self.topic.clone()];
        let topics = client.patiently(|client| client.metadata(&doing, Some(&names)))?;
        topics.into_iter().next().ok_or_else(|| Failure::Refused {
            what: doing,
            code: ResponseError::UnknownTopicOrPartition,
            message: String::new(),
            node: "the metadata".into(),
        })
    }
}

/// Gathers lines and sends them.
struct Writer<'a> {
    produce: &'a Produce,
    client: Client,
    partitions: u32,
    /// Where records without a key go until the batch is sent.
    sticky: u32,
    /// By partition, in the order in which they were read.
    waiting: BTreeMap<i32, Vec<Line>>,
    bytes: usize,
    count: usize,
    written: u64,
}

impl Writer<'_> {
    fn write(&mut self, mut input: Input) -> Result<(), Failure> {
        loop {
            match input.next() {
                Next::Line(number, text) => {
                    match Line::of(number, &text, self.produce.key_separator.as_deref()) {
                        Ok(line) => self.take(line)?,
                        Err(why) => return self.send().and(Err(Failure::Input(why))),
                    }
                }
                // Who types sees at once what became of it.
                Next::Pause => self.send()?,
                Next::End => return self.send(),
                // What was read before is sent.
                Next::Broken(why) => return self.send().and(Err(Failure::Input(why))),
            }
        }
    }

    fn take(&mut self, line: Line) -> Result<(), Failure> {
        if self.bytes + line.size() > BATCH_BYTES || self.count == BATCH_RECORDS {
            self.send()?;
        }
        let by_key = || line.key.as_ref().map(|key| partition_of(key, self.partitions));
        let partition = self
            .produce
            .partition
            .unwrap_or_else(|| i32::try_from(by_key().unwrap_or(self.sticky)).unwrap_or_default());
        (self.bytes, self.count) = (self.bytes + line.size(), self.count + 1);
        self.waiting.entry(partition).or_default().push(line);
        Ok(())
    }

    /// All that waits, until it is written or the time is over.
    fn send(&mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        (self.bytes, self.count) = (0, 0);
        self.sticky = (self.sticky + 1) % self.partitions.max(1);
        self.client.deadline = Deadline::after(self.produce.timeout);
        while !waiting.is_empty() {
            let mut told = Vec::new();
            let failure = self.attempt(&mut waiting, &mut told).err();
            self.written += told.len() as u64;
            if self.produce.connect.json {
                told.sort_by_key(|(line, ..)| *line);
                let rows = told.into_iter().map(|(line, partition, offset)| {
                    let row = json!({
                        "line": line, "topic": self.produce.topic, "partition": partition, "offset": offset,
                    });
                    format!("{row}\n")
                });
                say(&rows.collect::<String>())?;
            }
            match failure {
                None => {}
                Some(failure) if failure.is_passing() => self.client.wait_after(failure)?,
                Some(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Each partition once, to who leads it; what is written is taken out of what waits. The last that was refused is the error.
    #[allow(
        clippy::type_complexity,
        reason = "a line's number, its partition, and its offset where one was told"
    )]
    fn attempt(
        &mut self,
        waiting: &mut BTreeMap<i32, Vec<Line>>,
        told: &mut Vec<(u64, i32, Option<i64>)>,
    ) -> Result<(), Failure> {
        let produce = self.produce;
        let doing = format!("produce to topic {}", produce.topic);
        let names = [produce.topic.clone()];
        let topics = self.client.metadata(&doing, Some(&names))?;
        let mut result = Ok(());
        let partitions: Vec<i32> = waiting.keys().copied().collect();
        for partition in partitions {
            let what = format!("{doing}, partition {partition}");
            let known = topics.iter().find_map(|topic| topic.partition(partition));
            let code = match known {
                None => ResponseError::UnknownTopicOrPartition,
                Some(_) => ResponseError::LeaderNotAvailable,
            };
            let Some(leader) = known.and_then(|known| known.leader) else {
                result = check(code.code(), &what, None, "the metadata");
                continue;
            };
            let lines = waiting.get(&partition).map_or(&[][..], |lines| lines);
            match send_to(&mut self.client, produce, leader, partition, lines, &what) {
                Ok(base) => {
                    let offset = |nth: usize| Some(base? + i64::try_from(nth).ok()?);
                    let lines = waiting.remove(&partition).unwrap_or_default();
                    told.extend(
                        lines.iter().enumerate().map(|(nth, line)| (line.number, partition, offset(nth))),
                    );
                }
                Err(failure) if failure.is_passing() => result = Err(failure),
                Err(failure) => return Err(in_lines(failure, lines)),
            }
        }
        result
    }
}

/// The offset of the first, where the node tells it.
fn send_to(
    client: &mut Client,
    produce: &Produce,
    leader: i32,
    partition: i32,
    lines: &[Line],
    what: &str,
) -> Result<Option<i64>, Failure> {
    let now = now_ms();
    let made = lines
        .iter()
        .enumerate()
        .map(|(nth, line)| records::record(nth, now, line.key.clone(), Some(line.value.clone())))
        .collect::<Vec<_>>();
    let batch = records::encode(&made, produce.compression.wire())
        .map_err(|why| Failure::Input(format!("{what}: the records cannot be written as a batch: {why}")))?;
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic =
        TopicProduceData::default().with_name(topic_name(&produce.topic)).with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(produce.acks.wire())
        .with_timeout_ms(client.timeout_ms())
        .with_topic_data(vec![topic]);
    if produce.acks == Acks::Nobody {
        let deadline = client.deadline;
        client.connection(leader, what)?.send(what, &request, &deadline)?;
        return Ok(None);
    }
    let Answer { message, node } = client.ask_node(leader, what, &request)?;
    let told = message.responses.into_iter().flat_map(|topic| topic.partition_responses).next();
    let told = told.ok_or_else(|| Failure::Malformed {
        doing: what.to_owned(),
        node: node.clone(),
        why: "it says nothing about the partition".into(),
    })?;
    check(told.error_code, what, told.error_message.as_deref(), &node)?;
    Ok(Some(told.base_offset).filter(|base| *base >= 0))
}

/// A refusal names the lines that it is about.
fn in_lines(failure: Failure, lines: &[Line]) -> Failure {
    match (failure, lines) {
        (Failure::Refused { what, code, message, node }, [first, .., last]) => {
            let what = format!("{what}, lines {} to {}", first.number, last.number);
            Failure::Refused { what, code, message, node }
        }
        (Failure::Refused { what, code, message, node }, [line]) => {
            Failure::Refused { what: format!("{what}, line {}", line.number), code, message, node }
        }
        (failure, _) => failure,
    }
}
