//! A client that looks up offsets: the first, the next, that of the newest time, and that of a time at which
//! something was sent.

use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::connection::{CallError, Line, back_off};
use super::{Client, wire_name};
use crate::history::{Lookup, LookupQuery, Place, Trade};
use crate::world::streams::Stream;

/// A search by time reads from the disk.
const WITHIN: Duration = Duration::from_secs(12);
/// The first version that knows the newest time.
const VERSION: i16 = 7;

pub(super) fn start<B: Backend>(client: Client<B>, every: Duration, stream: Stream) {
    let looker = Looker { line: Line::new(&client), client: client.clone(), stream };
    client.begin("look-ups", looker.run(every));
}

struct Looker<B: Backend> {
    client: Client<B>,
    line: Line<B>,
    stream: Stream,
}

impl<B: Backend> Looker<B> {
    async fn run(mut self, every: Duration) {
        let backend = self.client.backend.clone();
        let mut failures = 0;
        loop {
            backend.sleep(every).await;
            if self.client.now() >= self.client.field.schedule.produce_until {
                return;
            }
            let (place, query) = self.draw();
            match look_up(&self.client, &mut self.line, &place, query, WITHIN).await {
                Ok(()) => failures = 0,
                Err(_) => {
                    failures += 1;
                    back_off(&backend, failures).await;
                }
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
                let timestamp = LookupQuery::Timestamp(send.timestamp_ms);
                let is_ours = places.contains(&send.place);
                return (if is_ours { send.place.clone() } else { place }, timestamp);
            }
        };
        (place, query)
    }
}

/// Looks up one offset and notes the answer.
pub(super) async fn look_up<B: Backend>(
    client: &Client<B>,
    line: &mut Line<B>,
    place: &Place,
    query: LookupQuery,
    within: Duration,
) -> Result<(), CallError> {
    let timestamp = match query {
        LookupQuery::Latest => -1,
        LookupQuery::Earliest => -2,
        LookupQuery::MaxTimestamp => -3,
        LookupQuery::Timestamp(timestamp) => timestamp,
    };
    let partition =
        ListOffsetsPartition::default().with_partition_index(place.partition).with_timestamp(timestamp);
    let name = TopicName(StrBytes::from_string(wire_name(&place.topic).to_owned()));
    let topic = ListOffsetsTopic::default().with_name(name).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(kafka_protocol::messages::BrokerId(-1))
        .with_topics(vec![topic]);
    let sent = client.now();
    let answer = line.call(Trade::Look, &request, VERSION, within, |_| true).await?;
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        client.complain(Trade::Look, Some(place), partition.error_code, sent);
        if partition.error_code == 0 {
            client.field.notes.write().lookups.push(Lookup {
                client: client.name.clone(),
                place: place.clone(),
                query,
                sent,
                at: client.now(),
                offset: partition.offset,
                timestamp: partition.timestamp,
            });
        }
    }
    Ok(())
}
