//! `chronik consume`
//!
//! Without `--follow` it ends where the partitions ended when it began, so that what is written meanwhile does not keep it; partitions
//! are read beside one another, and only the records of one are in order. With it, partitions that the topic is given later are read as well.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, StdoutLock, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};
use kafka_protocol::records::Record;
use serde_json::{Map, Value, json};

use super::arguments::{Connect, From, duration, from};
use super::output::warn;
use crate::client::cluster::{Answer, topic_name};
use crate::client::failure::check;
use crate::client::offsets::{EARLIEST, LATEST};
use crate::client::{Client, Deadline, Failure, Topic, TopicPartition, records};

/// A node is asked for so much at once, and waits so long for a record to come.
const FETCH_BYTES: i32 = 8 << 20;
const PARTITION_BYTES: i32 = 1 << 20;
const WAIT: Duration = Duration::from_millis(500);
/// While others lead partitions as well: they are asked one after the other.
const WAIT_BESIDE_OTHERS: Duration = Duration::from_millis(50);
/// For one round, where there is no end to how long it may be idle.
const ROUND: Duration = Duration::from_secs(30);
/// How often somebody who follows a topic looks whether it has more partitions, and for how long others wait for where these begin.
const LOOK: Duration = Duration::from_secs(3);
const LOOK_LONGEST: Duration = Duration::from_millis(500);
/// For what a node says when it has waited for as long as it was asked to.
const ANSWER: Duration = Duration::from_secs(1);
/// Without `--follow`, what is there has to come.
const IDLE: Duration = Duration::from_secs(15);

#[derive(Args)]
pub struct Consume {
    topic: String,
    #[command(flatten)]
    connect: Connect,
    /// Where to begin: earliest, latest, an offset, or a time in UTC (2026-01-31T18:30:00Z, or @ and milliseconds)
    #[arg(long, default_value = "earliest", value_parser = from)]
    from: From,
    /// Only this partition; may be given several times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    /// End after so many
    #[arg(long, value_name = "N")]
    max_records: Option<u64>,
    /// Wait for more at the end
    #[arg(long)]
    follow: bool,
    /// End when nothing came for so long [default: 15s, and never with --follow]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// The key as well, before the value, with a tab between them
    #[arg(long)]
    with_key: bool,
}

/// How far a partition has been read.
#[derive(Clone, Copy)]
struct Position {
    next: i64,
    /// Where it ended at first; None to go on for ever.
    end: Option<i64>,
}

impl Position {
    fn is_read(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }
}

struct Reader<'a> {
    consume: &'a Consume,
    client: Client,
    positions: BTreeMap<i32, Position>,
    /// Who leads each, as was told last; asked for again when it is empty.
    leaders: BTreeMap<i32, i32>,
    out: BufWriter<StdoutLock<'static>>,
    told: u64,
    round: usize,
    /// When it is looked for partitions that were added; None where nobody wants them.
    look: Option<Deadline>,
}

impl Consume {
    pub fn run(&self) -> Result<(), Failure> {
        let mut client = Client::new(&self.connect.bootstrap, self.timeout.unwrap_or(IDLE));
        let doing = format!("consume topic {}", self.topic);
        let names = [self.topic.clone()];
        let topics = client.patiently(|client| client.metadata(&doing, Some(&names)))?;
        let mut positions = BTreeMap::new();
        for topic in &topics {
            positions.extend(self.positions(&mut client, topic)?);
        }
        let out = BufWriter::new(io::stdout().lock());
        let leaders = BTreeMap::new();
        let look = (self.follow && self.partition.is_empty()).then(|| Deadline::after(LOOK));
        let mut reader = Reader { consume: self, client, positions, leaders, out, told: 0, round: 0, look };
        let done = reader.read(&doing);
        // What was read is told, whatever came after it.
        reader.out.flush().map_err(Failure::Output).and(done)
    }

    fn positions(&self, client: &mut Client, topic: &Topic) -> Result<BTreeMap<i32, Position>, Failure> {
        let wanted: BTreeSet<i32> = match self.partition.is_empty() {
            true => topic.partitions.iter().map(|one| one.partition).collect(),
            false => self.partition.iter().copied().collect(),
        };
        if let Some(none) = wanted.iter().find(|partition| topic.partition(**partition).is_none()) {
            return Err(Failure::Usage(format!(
                "topic {} has no partition {none}: it has {}, from 0 on",
                topic.name,
                topic.partitions.len()
            )));
        }
        let at = |partition: i32| TopicPartition { topic: topic.name.clone(), partition };
        let all: BTreeSet<TopicPartition> = wanted.iter().map(|partition| at(*partition)).collect();
        let latest = client.offsets(&all, LATEST)?.whole()?;
        let first = match self.from {
            From::Earliest => client.offsets(&all, EARLIEST)?.whole()?,
            From::Time(time) => client.offsets(&all, time)?.whole()?,
            From::Latest => latest.clone(),
            From::Offset(offset) => all.iter().map(|of| (of.clone(), offset)).collect(),
        };
        if let From::Offset(offset) = self.from {
            self.has(offset, &client.offsets(&all, EARLIEST)?.whole()?, &latest)?;
        }
        let position = |partition: i32| {
            let end = latest.get(&at(partition)).copied().unwrap_or_default();
            let next = first.get(&at(partition)).copied().unwrap_or(end);
            (partition, Position { next, end: (!self.follow).then_some(end) })
        };
        Ok(wanted.into_iter().map(position).collect())
    }

    fn has(
        &self,
        offset: i64,
        earliest: &BTreeMap<TopicPartition, i64>,
        latest: &BTreeMap<TopicPartition, i64>,
    ) -> Result<(), Failure> {
        for (of, last) in latest {
            let first = earliest.get(of).copied().unwrap_or_default();
            if !(first..=*last).contains(&offset) {
                return Err(Failure::Input(format!(
                    "consume topic {}: partition {} has the offsets {first} to {last}, not {offset}; --partition reads one alone",
                    of.topic, of.partition
                )));
            }
        }
        Ok(())
    }

    fn idle_longest(&self) -> Option<Duration> {
        self.timeout.or((!self.follow).then_some(IDLE))
    }
}

impl Reader<'_> {
    fn read(&mut self, doing: &str) -> Result<(), Failure> {
        let idle_longest = self.consume.idle_longest();
        let mut idle = Deadline::after(idle_longest.unwrap_or(Duration::MAX));
        let mut last: Option<Failure> = None;
        while !self.is_done() {
            // Each leader in turn may keep a fetch until the time is over; its answer is waited for all the same.
            self.client.deadline = Deadline::after(idle.left().min(ROUND) + ANSWER);
            let told = self.told;
            match self.fetch_round(doing, idle.left()) {
                Ok(is_on) => {
                    if is_on {
                        last = None;
                        idle = Deadline::after(idle_longest.unwrap_or(Duration::MAX));
                    }
                }
                Err(failure) if failure.is_passing() => {
                    if last.is_none() && self.consume.follow {
                        warn(&format!("{failure}; it is tried again"));
                    }
                    self.leaders.clear();
                    self.client.settle();
                    last = Some(failure);
                }
                Err(failure) => return Err(failure),
            }
            if self.told > told {
                self.out.flush().map_err(Failure::Output)?;
            }
            if idle.is_over() {
                return self.end_idle(doing, idle.whole, last);
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.consume.max_records == Some(self.told) || self.positions.values().all(Position::is_read)
    }

    /// With `--follow` that is what was asked for; otherwise the end was not reached.
    fn end_idle(&self, doing: &str, waited: Duration, last: Option<Failure>) -> Result<(), Failure> {
        match last {
            None if self.consume.follow => Ok(()),
            last => Err(Failure::TimedOut {
                waited,
                last: Box::new(last.unwrap_or_else(|| {
                    let left = self.positions.iter().filter(|(_, one)| !one.is_read());
                    let left: Vec<String> =
                        left.map(|(partition, one)| format!("{partition} at {}", one.next)).collect();
                    Failure::Input(format!(
                        "{doing}: nothing more came of the partitions {}",
                        left.join(", ")
                    ))
                })),
            }),
        }
    }

    /// Asks each leader once. Whether a partition has been read on; a refusal that passes is the error when all have been asked.
    fn fetch_round(&mut self, doing: &str, patience: Duration) -> Result<bool, Failure> {
        if self.look.is_some_and(|look| look.is_over()) {
            self.look = Some(Deadline::after(LOOK));
            self.find_leaders(doing)?;
            self.take_added();
        }
        if self.leaders.is_empty() {
            self.find_leaders(doing)?;
        }
        let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        let mut refused = None;
        for partition in
            self.positions.iter().filter(|(_, one)| !one.is_read()).map(|(partition, _)| *partition)
        {
            match self.leaders.get(&partition) {
                Some(leader) => by_leader.entry(*leader).or_default().push(partition),
                None => {
                    let what = format!("{doing}, partition {partition}");
                    let code = ResponseError::LeaderNotAvailable.code();
                    refused = check(code, &what, None, "the metadata").err();
                }
            }
        }
        let wait = if by_leader.len() > 1 { WAIT_BESIDE_OTHERS } else { WAIT };
        let mut is_on = false;
        for (leader, mut partitions) in by_leader {
            // What is first in a request fills its answer.
            let first = self.round % partitions.len();
            partitions.rotate_left(first);
            match self.fetch(doing, leader, &partitions, wait.min(patience)) {
                Ok(was_on) => is_on |= was_on,
                Err(failure) if failure.is_passing() => refused = Some(failure),
                Err(failure) => return Err(failure),
            }
            if self.is_done() {
                return Ok(true);
            }
        }
        self.round = self.round.wrapping_add(1);
        match refused {
            Some(failure) if !is_on => Err(failure),
            Some(_) => {
                self.leaders.clear();
                Ok(true)
            }
            None => Ok(is_on),
        }
    }

    fn find_leaders(&mut self, doing: &str) -> Result<(), Failure> {
        let names = [self.consume.topic.clone()];
        for topic in self.client.metadata(doing, Some(&names))? {
            let led = topic.partitions.iter().filter_map(|one| Some((one.partition, one.leader?)));
            self.leaders.extend(led);
        }
        Ok(())
    }

    /// Partitions that have come since are read from their first record on, as soon as their leaders say where that is.
    fn take_added(&mut self) {
        let added = added(&self.consume.topic, &self.leaders, &self.positions);
        if added.is_empty() {
            return;
        }
        // Who reads the others does not wait for one whose leader does not answer, nor end for it: it is looked again.
        let round = self.client.deadline;
        self.client.deadline = Deadline::after(round.left().min(LOOK_LONGEST));
        let found = self.client.offsets(&added, EARLIEST);
        self.client.deadline = round;
        for (of, first) in found.unwrap_or_default().offsets {
            warn(&format!("partition {of} was added, and is read from {first} on"));
            self.positions.insert(of.partition, Position { next: first, end: None });
        }
    }

    fn fetch(
        &mut self,
        doing: &str,
        leader: i32,
        partitions: &[i32],
        wait: Duration,
    ) -> Result<bool, Failure> {
        let asked = partitions.iter().filter_map(|partition| {
            let position = self.positions.get(partition)?;
            Some(
                FetchPartition::default()
                    .with_partition(*partition)
                    .with_current_leader_epoch(-1)
                    .with_fetch_offset(position.next)
                    .with_last_fetched_epoch(-1)
                    .with_log_start_offset(-1)
                    .with_partition_max_bytes(PARTITION_BYTES),
            )
        });
        let topic = FetchTopic::default()
            .with_topic(topic_name(&self.consume.topic))
            .with_partitions(asked.collect());
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let Answer { message, node } = self.client.ask_node(leader, doing, &request)?;
        check(message.error_code, doing, None, &node)?;
        let mut is_on = false;
        let mut refused = Ok(());
        for told in message.responses.into_iter().flat_map(|topic| topic.partitions) {
            let partition = told.partition_index;
            let what = format!("{doing}, partition {partition}");
            match check(told.error_code, &what, None, &node) {
                Ok(()) => {}
                Err(failure) if failure.code() == Some(ResponseError::OffsetOutOfRange) => {
                    self.skip_to_first(partition, failure)?;
                    is_on = true;
                    continue;
                }
                Err(failure) if failure.is_passing() => {
                    refused = Err(failure);
                    continue;
                }
                Err(failure) => return Err(failure),
            }
            let batches = records::decode(told.records.unwrap_or_default()).map_err(|why| {
                Failure::Malformed { doing: what.clone(), node: node.clone(), why: format!("records: {why}") }
            })?;
            is_on |= self.take(partition, batches)?;
        }
        if is_on { Ok(true) } else { refused.map(|()| false) }
    }

    /// What retention took while it was read is gone: that is said, and reading goes on.
    fn skip_to_first(&mut self, partition: i32, failure: Failure) -> Result<(), Failure> {
        let of = TopicPartition { topic: self.consume.topic.clone(), partition };
        let first = self.client.offsets(&BTreeSet::from([of.clone()]), EARLIEST)?.whole()?;
        let position = self.positions.get_mut(&partition);
        let (Some(first), Some(position)) = (first.get(&of), position) else { return Err(failure) };
        if *first <= position.next {
            return Err(failure);
        }
        warn(&format!("partition {of}: the records from {} to before {first} are gone", position.next));
        position.next = *first;
        Ok(())
    }

    /// Tells the records that were asked for; whether the partition has been read on.
    fn take(&mut self, partition: i32, batches: records::Decoded) -> Result<bool, Failure> {
        let Some(position) = self.positions.get(&partition).copied() else { return Ok(false) };
        let end = position.end.unwrap_or(i64::MAX);
        let mut next = position.next;
        for record in batches.records.iter().filter(|record| (position.next..end).contains(&record.offset)) {
            if self.consume.max_records == Some(self.told) {
                break;
            }
            let told = match self.consume.connect.json {
                true => writeln!(self.out, "{}", document(&self.consume.topic, partition, record)),
                false => text(&mut self.out, record, self.consume.with_key),
            };
            told.map_err(Failure::Output)?;
            self.told += 1;
            next = record.offset + 1;
        }
        // Behind the last record there may be some that are not told.
        if self.consume.max_records != Some(self.told) {
            next = next.max(batches.next.unwrap_or(next));
        }
        if let Some(position) = self.positions.get_mut(&partition) {
            position.next = next;
        }
        Ok(next > position.next)
    }
}

/// Those that are led and not read.
fn added(
    topic: &str,
    leaders: &BTreeMap<i32, i32>,
    positions: &BTreeMap<i32, Position>,
) -> BTreeSet<TopicPartition> {
    let new = leaders.keys().filter(|partition| !positions.contains_key(partition));
    new.map(|partition| TopicPartition { topic: topic.to_owned(), partition: *partition }).collect()
}

/// As it is, whatever it is.
fn text(out: &mut impl Write, record: &Record, with_key: bool) -> io::Result<()> {
    let whole = |bytes: &Option<bytes::Bytes>| bytes.clone().unwrap_or_else(|| "null".into());
    if with_key {
        out.write_all(&whole(&record.key))?;
        out.write_all(b"\t")?;
    }
    out.write_all(&whole(&record.value))?;
    out.write_all(b"\n")
}

/// Bytes that are no UTF-8 have a name that says so, and stand there in base64.
fn put(into: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => into.insert(name.to_owned(), Value::Null),
        Some((Ok(text), _)) => into.insert(name.to_owned(), json!(text)),
        Some((Err(_), bytes)) => into.insert(format!("{name}_base64"), json!(STANDARD.encode(bytes))),
    };
}

fn document(topic: &str, partition: i32, record: &Record) -> Value {
    let mut told = Map::new();
    told.insert("topic".into(), json!(topic));
    told.insert("partition".into(), json!(partition));
    told.insert("offset".into(), json!(record.offset));
    told.insert("timestamp".into(), json!(record.timestamp));
    put(&mut told, "key", record.key.as_deref());
    put(&mut told, "value", record.value.as_deref());
    let headers = record.headers.iter().map(|(name, value)| {
        let mut header = Map::from_iter([("name".to_owned(), json!(name.as_str()))]);
        put(&mut header, "value", value.as_deref());
        Value::Object(header)
    });
    told.insert("headers".into(), Value::Array(headers.collect()));
    Value::Object(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> Record {
        records::record(3, 1_700, key.map(Into::into), value.map(Into::into))
    }

    #[test]
    fn bytes_that_are_no_text_are_told_in_base64_under_another_name() {
        let told = |key, value| document("orders", 1, &record(key, value)).to_string();
        assert_eq!(
            told(None, Some(b"v\n")),
            r#"{"headers":[],"key":null,"offset":3,"partition":1,"timestamp":1700,"topic":"orders","value":"v\n"}"#
        );
        let bytes = told(Some(b"\xff\x00"), None);
        assert!(bytes.contains(r#""key_base64":"/wA=""#) && bytes.contains(r#""value":null"#), "{bytes}");
        assert!(!bytes.contains(r#""key":"#), "{bytes}");
    }

    #[test]
    fn text_is_the_value_as_it_is_and_the_key_where_it_is_wanted() {
        let told = |with_key, key, value| {
            let mut out = Vec::new();
            text(&mut out, &record(key, value), with_key).unwrap();
            out
        };
        assert_eq!(told(false, Some(b"k"), Some(b"\xff")), b"\xff\n");
        assert_eq!(told(true, Some(b"k"), Some(b"v")), b"k\tv\n");
        assert_eq!(told(true, None, None), b"null\tnull\n");
    }

    #[test]
    fn partitions_that_are_led_and_not_read_were_added() {
        let read = Position { next: 7, end: None };
        let (leaders, positions) = (BTreeMap::from([(0, 1), (2, 3)]), BTreeMap::from([(0, read), (1, read)]));
        let told: Vec<String> =
            added("orders", &leaders, &positions).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["orders-2"]);
    }

    #[test]
    fn a_partition_is_read_when_its_end_is_reached_and_never_without_one() {
        let at = |next, end| Position { next, end }.is_read();
        assert!(at(5, Some(5)) && at(6, Some(5)) && !at(4, Some(5)) && !at(i64::MAX, None));
    }
}
