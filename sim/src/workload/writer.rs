//! Plain batches of clients that do not retry by themselves: written down before they leave, settled when it is known
//! what became of them.

use bytes::Bytes;
use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;

use super::batch::{Stamp, Wanted};
use super::client::Client;
use crate::history::wire_name;
use crate::history::{AckMode, Outcome, Place, Send};
use crate::scenario::Compression;

pub(super) struct Writer<B: Backend> {
    client: Client<B>,
    producer: u32,
    next_number: u64,
    /// Its client goes away without waiting.
    abandons: bool,
}

/// A batch that was written down.
pub(super) struct Written {
    /// Its place in the history.
    pub(super) id: usize,
    pub(super) place: Place,
    pub(super) wanted: Wanted,
    /// Among the places that consumers read.
    lane: Option<usize>,
}

impl<B: Backend> Writer<B> {
    pub(super) fn new(client: &Client<B>, producer: u32, abandons: bool) -> Writer<B> {
        Writer { client: client.clone(), producer, next_number: 0, abandons }
    }

    /// The number of its next record.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    pub(super) fn begin(&mut self, place: &Place, sizes: Vec<usize>, codec: Compression) -> Written {
        let wanted = Wanted {
            producer: self.producer,
            first: self.next_number,
            sizes,
            timestamp_ms: self.client.backend.wall_ms(),
            codec,
            keyed: false,
        };
        self.next_number += u64::from(wanted.count());
        let field = &self.client.field;
        let lane = field.places.iter().position(|known| known == place);
        let mut notes = field.notes.write();
        notes.sends.push(Send {
            producer: self.producer,
            idempotent: false,
            acks: AckMode::All,
            place: place.clone(),
            first: wanted.first,
            count: wanted.count(),
            began: self.client.now(),
            sent: None,
            unknown_attempts: 0,
            timestamp_ms: wanted.timestamp_ms,
            bytes: wanted.bytes_max(),
            bytes_min: wanted.bytes_min(),
            visible: wanted.visible(),
            pipelined: self.abandons,
            abandoned: self.abandons,
            outcome: Outcome::Unknown,
        });
        let id = notes.sends.len() - 1;
        if lane.is_some() {
            field.owed.began();
        }
        Written { id, place: place.clone(), wanted, lane }
    }

    /// It is known to be there.
    pub(super) fn acked(&self, written: &Written, base: Option<i64>) {
        let now = self.client.now();
        let mut notes = self.client.field.notes.write();
        let count = written.wanted.count();
        notes.sends[written.id].outcome = Outcome::Acked { at: now, base };
        notes.add("acked records", u64::from(count));
        drop(notes);
        if let Some(lane) = written.lane {
            self.client.field.owed.settled(base.map(|base| (lane, base + i64::from(count))));
        }
    }

    /// An attempt may have been written.
    pub(super) fn unknown(&self, written: &Written) {
        self.client.field.notes.write().sends[written.id].unknown_attempts += 1;
    }

    /// Nobody asks for it any more.
    pub(super) fn given_up(&self, written: &Written) {
        self.client.field.notes.write().sends[written.id].abandoned = true;
        if written.lane.is_some() {
            self.client.field.owed.settled(None);
        }
    }
}

impl Written {
    pub(super) fn encode(&self, stamp: Option<Stamp>) -> Bytes {
        self.wanted.encode(stamp).unwrap_or_default()
    }

    /// What an answer says about it: the base offset, or the error.
    pub(super) fn told(&self, response: &ProduceResponse) -> Result<i64, Option<ResponseError>> {
        let partition = self.answer_in(response).ok_or(None)?;
        match ResponseError::try_from_code(partition.error_code) {
            None => Ok(partition.base_offset),
            Some(error) => Err(Some(error)),
        }
    }

    /// The broker's time in an answer, -1 where the producer's counts.
    pub(super) fn append_time_ms(&self, response: &ProduceResponse) -> i64 {
        self.answer_in(response).map_or(-1, |partition| partition.log_append_time_ms)
    }

    fn answer_in<'a>(&self, response: &'a ProduceResponse) -> Option<&'a PartitionProduceResponse> {
        response
            .responses
            .iter()
            .filter(|topic| *topic.name.0 == *wire_name(&self.place.topic))
            .flat_map(|topic| &topic.partition_responses)
            .find(|partition| partition.index == self.place.partition)
    }
}
