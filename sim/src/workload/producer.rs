//! A producer: sends batches at its rate, several at a time, and retries by the rules that real clients go by
//! ([`super::retries`]).
//!
//! What a broker surely did not write is sent again; what it may have written is sent again too, and counted: an
//! idempotent producer relies on the broker to tell, a plain one may double it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    InitProducerIdRequest, ProduceRequest, ProduceResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::batch::Wanted;
use super::client::Client;
use super::connection::{Answer, Terms, back_off, ns};
use super::lines::{Heard, Lines};
use super::retries::{Flight, Next, Retries, Told};
use super::shape::ProducerShape;
use crate::history::wire_name;
use crate::history::{AckMode, At, Deleted, History, Outcome, Place, Rejection, Send, Trade};
use crate::streams::Stream;

const VERSION: i16 = 9;
/// Batches that wait beyond those on the wire before nothing new is begun.
const BEHIND_MAX: usize = 2;

pub(super) fn start<B: Backend>(client: Client<B>, shape: ProducerShape, stream: Stream) {
    let lanes = client.field.places.len();
    let retries = Retries::new(lanes, shape.idempotent);
    let producer = Producer {
        line: Lines::new(&client).through(shape.through),
        retries: if shape.in_flight > 1 { retries } else { retries.one_at_a_time() },
        identity: None,
        wanted: BTreeMap::new(),
        asked: BTreeMap::new(),
        next_number: 0,
        client: client.clone(),
        shape,
        stream,
    };
    client.begin("producer", producer.run());
}

struct Producer<B: Backend> {
    client: Client<B>,
    shape: ProducerShape,
    stream: Stream,
    line: Lines<B>,
    retries: Retries,
    /// Producer id and epoch, for an idempotent one.
    identity: Option<(i64, i16)>,
    /// What is not done with, by its place in the history.
    wanted: BTreeMap<usize, Wanted>,
    /// What each request on the wire is about, by whom it was sent to and its number.
    asked: BTreeMap<(u32, i32), Vec<Flight>>,
    next_number: u64,
}

impl<B: Backend> Producer<B> {
    async fn run(mut self) {
        let backend = self.client.backend.clone();
        let schedule = self.client.field.schedule;
        let mut next_at = self.client.now() + self.stream.below(200_000_000);
        let mut failures = 0;
        let mut renew_at = self.renewal();
        loop {
            let now = self.client.now();
            if now >= renew_at && self.retries.open() == 0 {
                self.retries.renew();
                renew_at = self.renewal();
            }
            let producing = next_at < schedule.produce_until;
            if now >= schedule.give_up || (!producing && self.retries.open() == 0) {
                break;
            }
            if producing && now >= next_at && self.has_room() {
                // Whoever fell behind does not catch up: a client that waits for answers sends less.
                let gap = self.begin_batches();
                next_at = next_at.max(now.saturating_sub(gap)) + gap / 2 + self.stream.below(gap + 1);
                continue;
            }
            if self.retries.wants_identity() && self.retries.open() > 0 {
                if self.get_identity().await {
                    failures = 0;
                } else {
                    failures += 1;
                    back_off(&backend, failures).await;
                }
                continue;
            }
            if self.send().await {
                continue;
            }
            let mut wake = schedule.give_up;
            if producing && self.has_room() {
                wake = wake.min(next_at);
            }
            wake = wake.min(self.sends_from().unwrap_or(At::MAX));
            let wake = wake.max(now + 1_000);
            if self.line.is_waiting() {
                self.listen(wake).await;
            } else {
                backend.sleep(Duration::from_nanos(wake - now)).await;
            }
        }
        let left = self.retries.open();
        for _ in 0..left {
            self.client.field.owed.settled(None);
        }
    }

    /// From when on something can be sent, or asked for.
    fn sends_from(&self) -> Option<At> {
        let places = &self.client.field.places;
        let asks = self.line.asks_from();
        self.retries.wakes_at(|lane| match self.line.leader(&places[lane]) {
            Some(node) if !self.retries.goes_to(lane, node) => None,
            Some(node) => self.line.takes_from(node, self.shape.in_flight),
            None => asks,
        })
    }

    /// When it begins anew.
    fn renewal(&self) -> At {
        let every = self.shape.renew_every.filter(|_| self.shape.idempotent);
        every.map_or(At::MAX, |every| self.client.now() + ns(every))
    }

    fn has_room(&self) -> bool {
        self.retries.moving() < self.open_max()
    }

    fn open_max(&self) -> usize {
        let on_the_wire = self.shape.in_flight * self.shape.partitions_per_request;
        on_the_wire + if on_the_wire > 1 { BEHIND_MAX } else { 0 }
    }

    /// Wants some more to be sent; how long that is meant to last at its rate, in nanoseconds.
    fn begin_batches(&mut self) -> At {
        let mut records = 0;
        for _ in
            0..u64::from(self.shape.burst) * self.stream.between(1, self.shape.partitions_per_request as u64)
        {
            let lane = self.stream.below(self.client.field.places.len() as u64) as usize;
            if self.retries.takes(lane, self.open_max()) {
                records += self.begin_batch(lane);
            }
            if !self.has_room() {
                break;
            }
        }
        (f64::from(records.max(1)) / self.shape.rate * 1e9) as At
    }

    fn begin_batch(&mut self, lane: usize) -> u32 {
        let wanted = Wanted {
            producer: self.shape.number,
            first: self.next_number,
            sizes: self.shape.sizes(&mut self.stream),
            timestamp_ms: self.client.backend.wall_ms(),
            codec: self.shape.codec,
            keyed: self.shape.keyed,
        };
        let count = wanted.count();
        self.next_number += u64::from(count);
        let mut notes = self.client.field.notes.write();
        notes.sends.push(Send {
            producer: self.shape.number,
            idempotent: self.shape.idempotent,
            acks: self.shape.acks,
            place: self.client.field.places[lane].clone(),
            first: wanted.first,
            count,
            began: self.client.now(),
            sent: None,
            unknown_attempts: 0,
            timestamp_ms: wanted.timestamp_ms,
            bytes: wanted.bytes_max(),
            bytes_min: wanted.bytes_min(),
            visible: wanted.visible(),
            pipelined: self.shape.in_flight > 1,
            abandoned: false,
            outcome: Outcome::Unknown,
        });
        let id = notes.sends.len() - 1;
        drop(notes);
        self.client.field.owed.began();
        self.retries.add(lane, id, count);
        self.wanted.insert(id, wanted);
        count
    }

    /// Sends a request if there is something to send to some node and room for it on the wire.
    async fn send(&mut self) -> bool {
        let places = &self.client.field.places;
        if self.retries.has_for(self.client.now(), |lane| self.line.leader(&places[lane]).is_none()) {
            self.line.doubt();
        }
        for node in self.line.nodes() {
            if self.send_to(node).await {
                return true;
            }
        }
        false
    }

    async fn send_to(&mut self, node: u32) -> bool {
        if self.line.pending(node) >= self.shape.in_flight {
            return false;
        }
        let now = self.client.now();
        let places = self.client.field.places.clone();
        let goes_there =
            |lane: usize| self.line.leader(&places[lane]) == Some(node) && self.retries.goes_to(lane, node);
        let its: Vec<bool> = (0..places.len()).map(goes_there).collect();
        if !self.retries.has_for(now, |lane| its[lane]) || !self.line.is_ready(node) {
            return false;
        }
        let mut flights = self.retries.next(now, self.shape.partitions_per_request, node, |lane| its[lane]);
        let Some(request) = self.request(&mut flights) else { return true };
        if self.shape.acks == AckMode::None {
            let told = match self.line.fire(node, &request, VERSION).await {
                Ok(()) => Told::Written,
                Err(error) if error.never_sent() => Told::NotWritten,
                Err(_) => Told::Unknown,
            };
            for flight in flights {
                self.settle(flight, told, None, "");
            }
            return true;
        }
        let terms = Terms::within(self.shape.request_timeout);
        let asked = match self.line.connected(node).await {
            Ok(connection) => connection.ask(Trade::Produce, &request, VERSION, terms),
            Err(error) => Err(error),
        };
        match asked {
            Ok(number) => {
                self.note_sent(&flights);
                self.asked.insert((node, number), flights);
            }
            // There is no connection, so nothing else is on its way there either.
            Err(_) => {
                self.line.doubt();
                for flight in flights {
                    self.settle(flight, Told::NotWritten, None, "");
                }
            }
        }
        true
    }

    fn note_sent(&self, flights: &[Flight]) {
        let now = self.client.now();
        let mut notes = self.client.field.notes.write();
        for flight in flights {
            notes.sends[flight.id].sent.get_or_insert(now);
        }
    }

    /// All in one request, as far as they fit; those that do not are queued again.
    fn request(&mut self, flights: &mut Vec<Flight>) -> Option<ProduceRequest> {
        let mut batches: Vec<(Place, Bytes)> = Vec::new();
        let mut bytes = 0;
        let mut kept = Vec::new();
        for flight in std::mem::take(flights) {
            let stamp =
                self.identity.zip(flight.sequence).map(|((id, epoch), sequence)| (id, epoch, sequence));
            let Some(wanted) = self.wanted.get(&flight.id) else { continue };
            match wanted.encode(stamp) {
                Ok(batch) if kept.is_empty() || bytes + batch.len() + 4096 < self.shape.request_bytes => {
                    bytes += batch.len();
                    batches.push((self.client.field.places[flight.lane].clone(), batch));
                    kept.push(flight);
                }
                Ok(_) => {
                    self.settle(flight, Told::NotWritten, None, "");
                }
                Err(error) => {
                    self.settle(flight, Told::Refused, None, &error);
                }
            }
        }
        *flights = kept;
        let timeout_ms = i32::try_from(self.shape.request_timeout.as_millis()).unwrap_or(i32::MAX);
        (!flights.is_empty()).then(|| produce_request(batches, self.shape.acks, timeout_ms))
    }

    /// Waits for an answer, until `until`.
    async fn listen(&mut self, until: At) {
        match self.line.hear(until).await {
            Heard::Nothing => {}
            Heard::Answer(node, answer) => self.read(node, answer),
            Heard::Lost(node) => self.lost(node),
        }
    }

    fn lost(&mut self, node: u32) {
        self.line.close(node);
        self.asked.retain(|(asked, _), _| *asked != node);
        let unknown = self.retries.lost(node, self.client.now(), self.client.backend.random_u64());
        let mut notes = self.client.field.notes.write();
        for id in unknown {
            notes.sends[id].unknown_attempts += 1;
            notes.count("unknown-outcomes");
            if self.shape.idempotent {
                notes.count("idempotent retry of an unknown outcome");
            }
        }
    }

    fn read(&mut self, node: u32, answer: Answer) {
        let flights = self.asked.remove(&(node, answer.asked.number)).unwrap_or_default();
        let response = answer.read::<ProduceRequest>(VERSION);
        if let Some(connection) = self.line.open(node) {
            connection.conclude(&answer.asked, response.as_ref().is_ok_and(settles));
        }
        let Ok(response) = response else { return self.lost(node) };
        for flight in flights {
            let place = self.client.field.places[flight.lane].clone();
            let told = response
                .responses
                .iter()
                .filter(|topic| *topic.name.0 == *wire_name(&place.topic))
                .flat_map(|topic| &topic.partition_responses)
                .find(|partition| partition.index == place.partition);
            let Some(partition) = told else {
                self.settle(flight, Told::Unknown, None, "");
                continue;
            };
            let error = ResponseError::try_from_code(partition.error_code);
            if error == Some(ResponseError::KafkaStorageError) {
                self.client.field.notes.write().count("refused while the storage stood still");
            }
            let base = (error.is_none() && partition.base_offset >= 0).then_some(partition.base_offset);
            let name = error.map(|e| format!("{e:?}")).unwrap_or_default();
            if self.settle(flight, told_by(error), base, &name) {
                self.line.told_of(Trade::Produce, &place, partition.error_code, answer.asked.sent);
            }
        }
    }

    /// Writes down what an attempt came to, and what follows. Whether an error needs a cause.
    fn settle(&mut self, flight: Flight, told: Told, base: Option<i64>, error: &str) -> bool {
        let now = self.client.now();
        let next = self.retries.told(flight, told, now, self.client.backend.random_u64());
        if !self.retries.is_identified() {
            self.identity = None;
        }
        let mut notes = self.client.field.notes.write();
        let idempotent = self.shape.idempotent;
        let place = notes.sends[flight.id].place.clone();
        let is_forgotten = self.client.field.nodes > 1 && is_forgotten(&notes, &place);
        let send = &mut notes.sends[flight.id];
        match (next, told) {
            (Next::Over, Told::Written) => {
                send.outcome = Outcome::Acked { at: now, base };
                let count = send.count;
                if self.shape.acks != AckMode::None {
                    notes.add("acked records", u64::from(count));
                }
                drop(notes);
                let end = base.map(|base| (flight.lane, base + i64::from(count)));
                let field = &self.client.field;
                field.owed.settled(end.filter(|_| field.promises(self.shape.acks)));
                self.wanted.remove(&flight.id);
            }
            (Next::Over, _) => {
                if send.unknown_attempts == 0 {
                    send.outcome = Outcome::Refused { at: now, error: error.to_owned() };
                }
                drop(notes);
                self.client.field.owed.settled(None);
                self.wanted.remove(&flight.id);
            }
            (Next::Blamed, _) => {
                // It starts over under a new id; whether this batch was written is anybody's guess.
                send.idempotent = false;
                send.unknown_attempts += 1;
                if is_forgotten {
                    notes.count("producer blamed by who may have begun anew");
                    return false;
                }
                let producer = self.shape.number;
                notes.rejections.push(Rejection { producer, place, at: now, error: error.to_owned() });
            }
            (Next::Again, Told::Unknown) => {
                send.unknown_attempts += 1;
                notes.count("unknown-outcomes");
                if idempotent {
                    notes.count("idempotent retry of an unknown outcome");
                }
            }
            (Next::Again, Told::OutOfOrder) => notes.count("sequence gap behind a failure"),
            (Next::Again, _) => {}
        }
        // A gap behind a batch that is to come again is of the producer's own making.
        (next, told) != (Next::Again, Told::OutOfOrder)
    }

    /// Gets a producer id, or raises the epoch of the one it has, as clients do by themselves; all sequences begin at
    /// zero under it.
    async fn get_identity(&mut self) -> bool {
        let raised = self.identity.and_then(|(id, epoch)| Some((id, epoch.checked_add(1)?)));
        if raised.is_some() && self.stream.below(2) == 0 {
            self.identify(raised);
            self.client.field.notes.write().count("producer epoch raised");
            return true;
        }
        let within = self.shape.request_timeout.max(Duration::from_secs(10));
        let sent = self.client.now();
        let request = init_producer_id();
        let answer = self
            .line
            .call(Trade::Change, &request, 4, within, |answer| not_timed_out(answer.error_code))
            .await;
        let Ok(answer) = answer else { return false };
        self.client.complain(Trade::Change, None, answer.error_code, sent);
        if answer.error_code != 0 {
            return false;
        }
        self.identify(Some((answer.producer_id.0, answer.producer_epoch)));
        true
    }

    fn identify(&mut self, identity: Option<(i64, i16)>) {
        self.identity = identity;
        let doubtful = self.retries.identified();
        let mut notes = self.client.field.notes.write();
        for id in doubtful {
            notes.sends[id].idempotent = false;
        }
    }
}

pub(super) fn init_producer_id() -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}

/// A request with a batch for each place.
pub(super) fn produce_request(
    batches: Vec<(Place, Bytes)>,
    acks: AckMode,
    timeout_ms: i32,
) -> ProduceRequest {
    let mut topics: Vec<TopicProduceData> = Vec::new();
    for (place, batch) in batches {
        let name = wire_name(&place.topic);
        let data = PartitionProduceData::default().with_index(place.partition).with_records(Some(batch));
        match topics.iter_mut().find(|topic| *topic.name.0 == *name) {
            Some(topic) => topic.partition_data.push(data),
            None => topics.push(
                TopicProduceData::default()
                    .with_name(TopicName(StrBytes::from_string(name.to_owned())))
                    .with_partition_data(vec![data]),
            ),
        }
    }
    let acks = match acks {
        AckMode::None => 0,
        AckMode::Leader => 1,
        AckMode::All => -1,
    };
    ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(acks)
        .with_timeout_ms(timeout_ms)
        .with_topic_data(topics)
}

/// What an error says about the batch.
pub(super) fn told_by(error: Option<ResponseError>) -> Told {
    use ResponseError::*;
    let Some(error) = error else { return Told::Written };
    match error {
        NotLeaderOrFollower
        | LeaderNotAvailable
        | UnknownTopicOrPartition
        | NotEnoughReplicas
        | NotController
        | KafkaStorageError => Told::NotWritten,
        DuplicateSequenceNumber => Told::Written,
        OutOfOrderSequenceNumber => Told::OutOfOrder,
        UnknownProducerId | InvalidProducerEpoch => Told::Disowned,
        CorruptMessage
        | MessageTooLarge
        | InvalidRecord
        | InvalidTimestamp
        | InvalidTopicException
        | UnsupportedForMessageFormat
        | UnsupportedCompressionType
        | InvalidRequiredAcks
        | UnsupportedVersion
        | InvalidRequest
        | TopicAuthorizationFailed => Told::Refused,
        _ => Told::Unknown,
    }
}

/// Whether an answer settles something about all that was asked.
pub(super) fn settles(response: &ProduceResponse) -> bool {
    response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses)
        .all(|partition| not_timed_out(partition.error_code))
}

/// Whether a replica may have begun anew behind what the producer of this has sent: then it knows of what was sent since, and of
/// nothing before, and takes what follows a batch that it has not had.
fn is_forgotten(history: &History, place: &Place) -> bool {
    history.deletions.iter().any(|one| one.place == *place && one.told != Deleted::Refused)
}

/// Whether an answer settles something, one way or the other.
pub(super) fn not_timed_out(error_code: i16) -> bool {
    error_code != ResponseError::RequestTimedOut.code()
        && error_code != ResponseError::NotEnoughReplicasAfterAppend.code()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_one_topic_share_its_name() {
        let place = |topic: &str, partition| Place { topic: topic.into(), partition };
        let batches = vec![
            (place("a", 0), Bytes::new()),
            (place("b#2", 0), Bytes::new()),
            (place("a", 1), Bytes::new()),
        ];
        let request = produce_request(batches, AckMode::All, 1_000);
        let names: Vec<_> = request.topic_data.iter().map(|topic| topic.name.to_string()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(request.topic_data[0].partition_data.len(), 2);
    }

    #[test]
    fn only_what_was_surely_not_written_is_taken_for_that() {
        for (error, told) in [
            (ResponseError::KafkaStorageError, Told::NotWritten),
            (ResponseError::RequestTimedOut, Told::Unknown),
            (ResponseError::UnknownServerError, Told::Unknown),
            (ResponseError::OutOfOrderSequenceNumber, Told::OutOfOrder),
            (ResponseError::MessageTooLarge, Told::Refused),
        ] {
            assert_eq!(told_by(Some(error)), told, "{error:?}");
        }
    }
}
