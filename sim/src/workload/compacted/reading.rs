//! Reading a compacted topic whole: each partition from its first offset to where nothing more comes.

use std::collections::BTreeSet;
use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;

use super::records;
use crate::history::compaction::{ReadWhen, WholeRead};
use crate::history::{At, Damage, LookupQuery, Outcome, Place, Trade, timestamp_of};
use crate::scenario::Compacted;
use crate::streams::Stream;
use crate::workload::client::Client;
use crate::workload::connection::{back_off, ns};
use crate::workload::fetcher::{self, FetchTerms};
use crate::workload::lines::Lines;
use crate::workload::lookups::{self, Question};

/// A leader that begins its epoch tells an older high watermark until its followers have told it what they have.
const HIGH_WATERMARK_WITHIN: Duration = Duration::from_secs(15);
/// Who has come to the end and knows of more asks again after this.
const PAUSE: Duration = Duration::from_millis(50);
/// What is taken at a time: little, so that much may happen meanwhile, or all.
const FETCH_BYTES: [i32; 3] = [16 << 10, 64 << 10, 512 << 10];
/// A read that is not over by then is begun anew.
const MEANWHILE_WITHIN: Duration = Duration::from_secs(10);

/// Who reads, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) reader: u32,
    pub(crate) round: u32,
    pub(crate) when: ReadWhen,
    pub(crate) fetch_bytes: i32,
    /// Between two fetches.
    pub(crate) pause: Duration,
    pub(crate) until: At,
}

impl Reading {
    /// All, and soon.
    pub(crate) fn last(until: At) -> Reading {
        let (when, fetch_bytes) = (ReadWhen::Last, 512 << 10);
        Reading { reader: 0, round: 0, when, fetch_bytes, pause: Duration::ZERO, until }
    }
}

pub(super) fn start<B: Backend>(client: Client<B>, load: &Compacted, number: u32, stream: Stream) {
    let reader =
        Reader { line: Lines::new(&client), load: load.clone(), number, client: client.clone(), stream };
    client.begin("reader of a compacted topic", reader.run());
}

struct Reader<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
    load: Compacted,
    number: u32,
    stream: Stream,
}

impl<B: Backend> Reader<B> {
    async fn run(mut self) {
        let schedule = self.client.field.schedule;
        let mut round = 0;
        loop {
            let every = self.load.read_every.0;
            let pause = every.mul_f64(self.stream.below(2_000) as f64 / 1_000.0);
            if !self.client.next_turn(pause).await {
                break;
            }
            round += 1;
            let fetch_bytes = FETCH_BYTES[self.stream.below(FETCH_BYTES.len() as u64) as usize];
            let pause = Duration::from_millis(self.stream.below(3) * 10);
            let until = (self.client.now() + ns(MEANWHILE_WITHIN)).min(schedule.give_up);
            let (reader, when) = (self.number, ReadWhen::Meanwhile);
            self.read(Reading { reader, round, when, fetch_bytes, pause, until }).await;
        }
        let settled = schedule.healed.max(schedule.produce_until) + ns(self.load.settled_after.0);
        let left = settled.saturating_sub(self.client.now());
        self.client.backend.sleep(Duration::from_nanos(left)).await;
        let (reader, until) = (self.number, schedule.give_up);
        self.read(Reading { reader, round: round + 1, when: ReadWhen::Settled, ..Reading::last(until) })
            .await;
    }

    async fn read(&mut self, reading: Reading) {
        for place in self.client.field.compacted.clone().iter() {
            whole(&self.client, &mut self.line, place, reading).await;
            self.look_up(place).await;
        }
    }

    /// The first record since a moment at which one was sent.
    async fn look_up(&mut self, place: &Place) {
        let Some(since) = self.drawn_time(place) else { return };
        let question = Question { place, query: LookupQuery::Timestamp(since), epoch: None };
        if let Ok(found) = lookups::find(&self.client, &mut self.line, question, lookups::WITHIN).await {
            self.client.field.notes.write().compaction.lookups.extend(found);
        }
    }

    fn drawn_time(&mut self, place: &Place) -> Option<i64> {
        let which = self.stream.below(1 << 32);
        let notes = self.client.field.notes.write();
        let sends = notes.sends.len() as u64;
        let drawn = usize::try_from(which.checked_rem(sends)?).ok()?;
        // Every other batch goes to a partition of this topic, or nearly.
        let send = notes.sends[drawn..].iter().find(|send| send.place == *place)?;
        Some(timestamp_of(send.timestamp_ms, 0))
    }
}

/// Reads a partition whole and notes what it found; whether it came to its end in time.
pub(crate) async fn whole<B: Backend>(
    client: &Client<B>,
    line: &mut Lines<B>,
    place: &Place,
    reading: Reading,
) -> bool {
    let mut began = client.now();
    // In the end all that was acknowledged is waited for; before, it comes when it comes.
    let (owed, owed_until) = match reading.when {
        ReadWhen::Meanwhile => (0, began),
        ReadWhen::Settled | ReadWhen::Last => {
            (acknowledged_end(client, place), began + ns(HIGH_WATERMARK_WITHIN))
        }
    };
    let (mut found, mut nodes) = (Vec::new(), BTreeSet::new());
    let (mut position, mut highest, mut failures) = (0, 0, 0);
    while client.now() < reading.until {
        let fetched = match fetch(client, line, place, position, reading.fetch_bytes).await {
            Ok(fetched) => fetched,
            Err(again) => {
                if again == Again::FromItsStart
                    && let Some(start) = first_offset(client, line, place).await
                {
                    // What was found before has gone, or may have.
                    (position, began) = (start, client.now());
                    found.clear();
                    nodes.clear();
                    client.field.notes.write().count("compacted topic's start moved under its reader");
                    continue;
                }
                failures += 1;
                back_off(&client.backend, failures).await;
                continue;
            }
        };
        failures = 0;
        let Part { node, high_watermark, records } = fetched;
        nodes.insert(node);
        if !records.damages.is_empty() {
            let at = client.now();
            let damage = |what| Damage { place: place.clone(), at, what };
            client.field.notes.write().damages.extend(records.damages.into_iter().map(damage));
            // It is told, and there is no end to come to.
            if records.is_cut_off {
                return true;
            }
        }
        highest = high_watermark.max(highest);
        let came = records.end > position;
        position = position.max(records.end);
        found.extend(records.records);
        // Only an answer that brings nothing is of later than all that was not found before.
        if !came && position >= highest && (position >= owed || client.now() >= owed_until) {
            let Reading { reader, round, when, .. } = reading;
            let (place, ended) = (place.clone(), client.now());
            let read =
                WholeRead { reader, round, when, place, began, ended, end: position, nodes, records: found };
            client.field.notes.write().compaction.reads.push(read);
            return true;
        }
        let pause = if came { reading.pause } else { PAUSE };
        client.backend.sleep(pause).await;
    }
    false
}

/// What one fetch brought.
struct Part {
    node: u32,
    high_watermark: i64,
    records: records::Fetched,
}

/// What a fetch that brought nothing says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Later,
    /// What it asked for is deleted.
    FromItsStart,
}

async fn first_offset<B: Backend>(client: &Client<B>, line: &mut Lines<B>, place: &Place) -> Option<i64> {
    let question = Question { place, query: LookupQuery::Earliest, epoch: None };
    let found = lookups::find(client, line, question, FetchTerms::soon().terms().within).await;
    Some(found.ok()??.offset)
}

async fn fetch<B: Backend>(
    client: &Client<B>,
    line: &mut Lines<B>,
    place: &Place,
    position: i64,
    partition_bytes: i32,
) -> Result<Part, Again> {
    let terms = FetchTerms { wait: Duration::ZERO, partition_bytes, ..FetchTerms::soon() };
    let node = line.node_of(place).await.map_err(|_| Again::Later)?;
    let places = std::slice::from_ref(place);
    let request = fetcher::request(places, &[(0, position)], terms, None, |place| line.leader_epoch(place));
    let sent = client.now();
    let answer = line.call_node(node, Trade::Consume, &request, terms.version, terms.terms(), |_| true).await;
    let answer = answer.map_err(|_| Again::Later)?;
    if ResponseError::try_from_code(answer.error_code).is_some() {
        line.told_of(Trade::Consume, place, answer.error_code, sent);
        return Err(Again::Later);
    }
    let mut partitions = answer.responses.into_iter().flat_map(|topic| topic.partitions);
    let partition = partitions.find(|partition| partition.partition_index == place.partition);
    let partition = partition.ok_or(Again::Later)?;
    let is_below = partition.error_code == ResponseError::OffsetOutOfRange.code();
    if is_below && client.field.notes.write().compaction.deletes() {
        return Err(Again::FromItsStart);
    }
    if partition.error_code != 0 {
        line.told_of(Trade::Consume, place, partition.error_code, sent);
        return Err(Again::Later);
    }
    let bytes = partition.records.unwrap_or_default();
    let high_watermark = partition.high_watermark;
    Ok(Part { node, high_watermark, records: records::decode(&bytes, position) })
}

/// Behind the last record that was acknowledged there.
fn acknowledged_end<B: Backend>(client: &Client<B>, place: &Place) -> i64 {
    let notes = client.field.notes.write();
    let ends = notes.sends.iter().filter(|send| send.place == *place).filter_map(|send| match send.outcome {
        Outcome::Acked { base: Some(base), .. } => Some(base + i64::from(send.count)),
        _ => None,
    });
    ends.max().unwrap_or(0)
}
