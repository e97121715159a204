//! A client that deletes records (DeleteRecords): mostly up to an offset that it knows to be there, now and then all that
//! is there. Of a compacted topic that is not deleted from it is refused.

use std::sync::Arc;
use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use kafka_protocol::messages::{DeleteRecordsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::client::Client;
use super::connection::{Terms, back_off};
use super::lines::Lines;
use super::producer::not_timed_out;
use crate::history::{AckMode, Deleted, Deletion, Outcome, Place, Teller, Trade, wire_name};
use crate::streams::Stream;

const VERSION: i16 = 2;
/// One in so many asks for everything up to the high watermark.
const ALL_ONE_IN: u64 = 8;

/// One that deletes from these partitions.
pub(super) fn start<B: Backend>(client: Client<B>, places: Arc<Vec<Place>>, every: Duration, stream: Stream) {
    let deleter = Deleter { line: Lines::new(&client), client: client.clone(), places, stream };
    client.begin("deleter", deleter.run(every));
}

struct Deleter<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
    places: Arc<Vec<Place>>,
    stream: Stream,
}

impl<B: Backend> Deleter<B> {
    async fn run(mut self, every: Duration) {
        let backend = self.client.backend.clone();
        let mut failures = 0;
        while self.client.next_turn(every).await {
            let Some((place, before)) = self.draw() else { continue };
            if self.delete(place, before).await {
                failures = 0;
            } else {
                failures += 1;
                back_off(&backend, failures).await;
            }
        }
    }

    /// Up to somewhere in a batch that was acknowledged, or to its end.
    fn draw(&mut self) -> Option<(Place, Option<i64>)> {
        let all = self.stream.below(ALL_ONE_IN) == 0;
        let which = self.stream.below(1 << 32);
        let within = self.stream.below(1 << 32);
        let notes = self.client.field.notes.write();
        // The later ones rarely: consumers are to have something to read.
        let sends = (notes.sends.len() as u64 * 3).div_ceil(4);
        let send = notes.sends.get(usize::try_from(which.checked_rem(sends)?).ok()?)?;
        let Outcome::Acked { base: Some(base), .. } = send.outcome else { return None };
        // What the leader alone has acknowledged may be gone with it, and then there is no such offset.
        let is_promised = send.acks == AckMode::All || self.client.field.nodes == 1;
        if !self.places.contains(&send.place) || !is_promised {
            return None;
        }
        let before = base + i64::try_from(within % (u64::from(send.count) + 1)).ok()?;
        Some((send.place.clone(), (!all).then_some(before)))
    }

    /// Whether it was answered.
    async fn delete(&mut self, place: Place, before: Option<i64>) -> bool {
        let within = Duration::from_millis(self.stream.between(500, 5_000));
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(place.partition)
            .with_offset(before.unwrap_or(-1));
        let topic = DeleteRecordsTopic::default()
            .with_name(TopicName(StrBytes::from_string(wire_name(&place.topic).to_owned())))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(i32::try_from(within.as_millis()).unwrap_or(i32::MAX));
        let sent = self.client.now();
        let deletion = Deletion {
            client: self.client.name.clone(),
            place: place.clone(),
            before,
            sent,
            answered: None,
            told: Deleted::Unknown,
        };
        let nth = {
            let mut notes = self.client.field.notes.write();
            notes.deletions.push(deletion);
            notes.deletions.len() - 1
        };
        let decided = |answer: &DeleteRecordsResponse| {
            answer.topics.iter().flat_map(|topic| &topic.partitions).all(|one| not_timed_out(one.error_code))
        };
        let terms = Terms::within(within);
        let is_compacted = self.client.field.compacted.contains(&place);
        let is_kept_from_it = is_compacted && !self.client.field.notes.write().compaction.deletes();
        // What is refused by a rule says nothing of whether writes are taken.
        let trade = if is_kept_from_it { Trade::Look } else { Trade::Produce };
        let answer = self.line.call_leader(&place, trade, &request, VERSION, terms, decided).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if error.never_sent() {
                    self.client.field.notes.write().deletions[nth].told = Deleted::Refused;
                }
                return false;
            }
        };
        let Some(result) = answer.topics.iter().flat_map(|topic| &topic.partitions).next() else {
            return false;
        };
        let at = self.client.now();
        let (low, code) = (result.low_watermark, result.error_code);
        if is_kept_from_it && code == ResponseError::PolicyViolation.code() {
            self.line.told(code);
            self.client.field.notes.write().count("deletion from a topic that is compacted only refused");
        } else {
            self.line.told_of(trade, &place, code, sent);
        }
        let mut notes = self.client.field.notes.write();
        let deletion = &mut notes.deletions[nth];
        deletion.answered = Some(at);
        deletion.told = match ResponseError::try_from_code(code) {
            None => Deleted::From(low),
            Some(ResponseError::RequestTimedOut) => Deleted::Unknown,
            Some(_) => Deleted::Refused,
        };
        if deletion.told == Deleted::From(low) {
            notes.count("records deleted on request");
            drop(notes);
            // Who reads a compacted topic judges by keys where it begins.
            if !is_compacted {
                self.client.note_log_start(&place, low, Teller::AllInSync, sent);
            }
        }
        true
    }
}
