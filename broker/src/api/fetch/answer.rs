//! The answer to a fetch: what was gathered, what each partition looks like, and who leads where that is another.

use std::collections::BTreeMap;

use bytes::Bytes;
use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::{
    FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{ApiKey, BrokerId, TopicName};

use super::gathering::{Fetch, Slot, key};
use crate::budget::Share;
use crate::context::Context;
use crate::fetch_sessions::{Topic, Wanted};
use crate::log::batch::Batches;
use crate::metrics::Volume;
use crate::routing::{Leader, RoutingView};
use crate::wire::{self, text};

const LEADERS_SINCE: i16 = 12;
const ENDPOINTS_SINCE: i16 = 16;
const PREFERRED_REPLICA_SINCE: i16 = 11;

/// A fetch's answer: the response with markers for the records, the records, and the room that is taken for them.
pub struct Fetched {
    /// The answer without its records.
    pub response: FetchResponse,
    /// The records of each partition of the answer, in order: whole batches, in the buffers they were read
    /// into.
    pub records: Vec<Vec<Bytes>>,
    /// What the records take, given back when they are written.
    pub room: Option<Share>,
}

impl<B: Backend> Fetch<B> {
    /// An answer to `told` of its partitions, in the order that they have. Counts what is given and which errors are told.
    pub fn into_fetched(self, context: &Context<B>, version: i16, told: impl Fn(usize) -> bool) -> Fetched {
        let routing = RoutingView::now(context);
        let mut endpoints: Vec<NodeEndpoint> = Vec::new();
        let mut topics: Vec<FetchableTopicResponse> = Vec::new();
        // By their topics: partitions of one need not stand together.
        let mut places: BTreeMap<Topic, usize> = BTreeMap::new();
        // Of each topic, in the order of its partitions: as they are written.
        let mut records: Vec<Vec<Vec<Bytes>>> = Vec::new();
        for (_, mut slot) in self.slots.into_iter().enumerate().filter(|(nth, _)| told(*nth)) {
            let Wanted { topic, index, .. } = slot.wanted.clone();
            let leader = slot.error.filter(|error| tells_leader(error.code)).and_then(|error| {
                error.leader.or_else(|| routing.leader(routing.topic(key(&topic)).ok()?, index))
            });
            if let Some(leader) = leader
                && version >= ENDPOINTS_SINCE
                && !endpoints.iter().any(|known| known.node_id.0 == leader.id.0)
                && let Some(broker) = routing.image.brokers.get(&leader.id)
                && let Some(endpoint) = broker.client_endpoint()
            {
                endpoints.push(
                    NodeEndpoint::default()
                        .with_node_id(BrokerId(leader.id.0))
                        .with_host(text(&endpoint.host))
                        .with_port(endpoint.port.into())
                        .with_rack(None),
                );
            }
            if let Some(error) = &slot.error {
                context.requests.count_error(ApiKey::Fetch as i16, error.code.code());
            }
            let batches = std::mem::take(&mut slot.batches);
            let has_records = !batches.is_empty();
            if has_records && let Some(partition) = &slot.partition {
                partition.counters().gave(volume(&batches));
            }
            let data = partition_data(slot, has_records, version, self.read_committed, leader);
            let place = match places.get(&topic) {
                Some(place) => {
                    topics[*place].partitions.push(data);
                    *place
                }
                None => {
                    let response = FetchableTopicResponse::default().with_partitions(vec![data]);
                    topics.push(match &topic {
                        Topic::Id(id) => response.with_topic_id(id.0),
                        Topic::Name(name) => response.with_topic(TopicName(text(name))),
                    });
                    records.push(Vec::new());
                    places.insert(topic, topics.len() - 1);
                    topics.len() - 1
                }
            };
            if has_records {
                records[place].push(batches);
            }
        }
        let response = FetchResponse::default().with_responses(topics).with_node_endpoints(endpoints);
        Fetched { response, records: records.into_iter().flatten().collect(), room: self.room }
    }
}

/// What chunks of whole batches hold.
fn volume(chunks: &[Bytes]) -> Volume {
    let mut volume = Volume::default();
    for chunk in chunks {
        volume.bytes += chunk.len() as u64;
        let batches = Batches::new(chunk).map_while(Result::ok);
        volume.records += batches.map(|(_, header)| u64::from(header.records.unsigned_abs())).sum::<u64>();
    }
    volume
}

fn tells_leader(code: ResponseError) -> bool {
    matches!(
        code,
        ResponseError::NotLeaderOrFollower
            | ResponseError::FencedLeaderEpoch
            | ResponseError::UnknownLeaderEpoch
    )
}

fn partition_data<B: Backend>(
    slot: Slot<B>,
    has_records: bool,
    version: i16,
    read_committed: bool,
    leader: Option<Leader>,
) -> PartitionData {
    let mut data = PartitionData::default()
        .with_partition_index(slot.wanted.index)
        .with_aborted_transactions(read_committed.then(Vec::new))
        // Never null: some clients cannot take that.
        .with_records(Some(if has_records { wire::records::marker() } else { Bytes::new() }));
    if version >= PREFERRED_REPLICA_SINCE {
        data.preferred_read_replica = BrokerId(slot.preferred.map_or(-1, |broker| broker.0));
    }
    let told = slot.outcome().told;
    data.high_watermark = told.high_watermark.0;
    data.log_start_offset = told.log_start.0;
    match slot.error {
        None => data.last_stable_offset = slot.view.last_stable.0,
        Some(error) => data.error_code = error.code.code(),
    }
    if let Some(leader) = leader
        && version >= LEADERS_SINCE
    {
        data.current_leader = LeaderIdAndEpoch::default()
            .with_leader_id(BrokerId(leader.id.0))
            .with_leader_epoch(leader.epoch.0);
    }
    data
}
