//! Clients that go away in the middle of whatever they do: with requests unanswered, with a frame half sent, with a
//! long poll waiting. What they were acknowledged counts; the rest is unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use io_backend::Backend;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::metadata_request::MetadataRequest;

use super::batch::{HEADER_BYTES, RECORD_BYTES_MAX, Wanted};
use super::client::{Client, numbers};
use super::connection::{Answer, Connection, Terms, frame};
use super::fetcher::{self, FetchTerms};
use super::producer::produce_request;
use super::shape::Limits;
use super::writer::{Writer, Written};
use crate::history::{AckMode, Trade};
use crate::scenario::Compression;
use crate::streams::Stream;

const PRODUCE: i16 = 9;
const REQUESTS_MAX: u64 = 4;
/// What a batch of one that does not make the largest has, at most.
const USUAL_BYTES: u64 = 6_000;

pub(super) fn start<B: Backend>(
    client: Client<B>,
    number: u32,
    limits: Limits,
    within: Duration,
    stream: Stream,
) {
    let writer = Writer::new(&client, numbers::LEAVERS + number, true);
    let leaver = Leaver { writer, client: client.clone(), limits, within, stream };
    client.begin("leaver", leaver.run());
}

struct Leaver<B: Backend> {
    client: Client<B>,
    writer: Writer<B>,
    limits: Limits,
    within: Duration,
    stream: Stream,
}

impl<B: Backend> Leaver<B> {
    async fn run(mut self) {
        loop {
            let pause = Duration::from_millis(self.stream.between(50, 3_000));
            if !self.client.next_turn(pause).await {
                return;
            }
            if let Ok(connection) = Connection::open(&self.client, 1).await {
                if self.client.now() >= self.client.field.schedule.produce_until {
                    return;
                }
                self.visit(connection).await;
            }
        }
    }

    async fn visit(&mut self, mut connection: Connection<B>) {
        let mut sent: BTreeMap<i32, Vec<Written>> = BTreeMap::new();
        for _ in 0..self.stream.between(1, REQUESTS_MAX) {
            let asked = match self.stream.below(4) {
                0 => self.poll(&mut connection),
                1 => {
                    let request = MetadataRequest::default().with_topics(None);
                    let terms = Terms::within(Duration::from_secs(10));
                    connection.ask(Trade::Look, &request, 9, terms)
                }
                _ => {
                    let batches = self.begin_batches();
                    let request = self.request(&batches);
                    let asked = connection.ask(Trade::Produce, &request, PRODUCE, Terms::within(self.within));
                    sent.insert(asked.as_ref().copied().unwrap_or(-1), batches);
                    asked
                }
            };
            if asked.is_err() {
                break;
            }
        }
        let rest = if self.stream.coin() { self.half_a_frame() } else { BytesMut::new() };
        let stay = if self.stream.coin() { self.stream.below(5_000) } else { self.stream.below(1_500_000) };
        let until = self.client.now() + stay * 1_000;
        self.client.field.notes.write().count("a client left in the middle");
        for answer in connection.leave(&rest, until).await {
            if let Some(batches) = sent.remove(&answer.asked.number) {
                self.settle(&answer, batches);
            }
        }
        for batch in sent.into_values().flatten() {
            self.writer.unknown(&batch);
            self.writer.given_up(&batch);
        }
    }

    fn settle(&self, answer: &Answer, batches: Vec<Written>) {
        let response = answer.read::<ProduceRequest>(PRODUCE);
        for batch in batches {
            match response.as_ref().map_err(|_| None).and_then(|response| batch.told(response)) {
                Ok(base) => self.writer.acked(&batch, Some(base)),
                Err(error) => {
                    if let Some(error) = error {
                        let (sent, heard) = (answer.asked.sent, answer.heard);
                        let place = Some(&batch.place);
                        self.client.complain_of(Trade::Produce, place, error.code(), sent, heard);
                    }
                    self.writer.unknown(&batch);
                    self.writer.given_up(&batch);
                }
            }
        }
    }

    fn poll(&mut self, connection: &mut Connection<B>) -> Result<i32, super::CallError> {
        let places = &self.client.field.places;
        let from: Vec<(usize, i64)> = (0..places.len()).map(|index| (index, i64::from(index == 0))).collect();
        let wait = Duration::from_millis(self.stream.below(30_001));
        let terms = FetchTerms { wait, min_bytes: 1 << 20, ..FetchTerms::soon() };
        let request = fetcher::request(places, &from, terms, None, |_| None);
        connection.ask(Trade::Consume, &request, terms.version, terms.terms())
    }

    fn sizes(&mut self) -> Vec<usize> {
        let room = (self.limits.batch_bytes - HEADER_BYTES) as u64;
        let room = if self.stream.below(8) == 0 { room } else { self.stream.below(USUAL_BYTES.min(room)) };
        let size = self.stream.between(32, 4_000) as usize;
        let count = (room as usize / (size + RECORD_BYTES_MAX)).max(1);
        vec![size.min(self.limits.batch_bytes / 2); count]
    }

    /// For one or two partitions; one partition is named once in a request.
    fn begin_batches(&mut self) -> Vec<Written> {
        let places = self.client.field.places.clone();
        let first = self.stream.below(places.len() as u64) as usize;
        let count = (self.stream.between(1, 2) as usize).min(places.len());
        (0..count)
            .map(|step| {
                let sizes = self.sizes();
                self.writer.begin(&places[(first + step) % places.len()], sizes, Compression::None)
            })
            .collect()
    }

    fn request(&self, batches: &[Written]) -> ProduceRequest {
        let timeout_ms = i32::try_from(self.within.as_millis()).unwrap_or(i32::MAX);
        let all = batches.iter().map(|batch| (batch.place.clone(), batch.encode(None))).collect();
        produce_request(all, AckMode::All, timeout_ms)
    }

    /// A produce request that nobody can take for whole, so that nothing of it has to be accounted for.
    fn half_a_frame(&mut self) -> BytesMut {
        let sizes = self.sizes();
        let wanted =
            Wanted { producer: 0, first: 0, sizes, timestamp_ms: 0, codec: Compression::None, keyed: false };
        let place = self.client.field.places[0].clone();
        let batch = wanted.encode(None).unwrap_or_default();
        let request = produce_request(vec![(place, batch)], AckMode::All, 1_000);
        let mut whole = BytesMut::new();
        let _ = frame(&self.client.name, 0, &request, PRODUCE, &mut whole);
        let keep = self.stream.below(whole.len().max(1) as u64) as usize;
        whole.truncate(keep);
        whole
    }
}
