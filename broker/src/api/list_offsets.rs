//! ListOffsets: where a partition begins and ends, and where a time is in it.

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ApiKey, ListOffsetsRequest};

use super::authorization::{Needs, Operation};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::error_codes;
use crate::ids::LeaderEpoch;
use crate::limits;
use crate::metadata::TopicImage;
use crate::partition::{OffsetFound, OffsetQuery, ReadError};
use crate::routing::{RoutingError, RoutingView, TopicKey, epoch, until_known};
use crate::wire::shape::{Bounds, I8, I32, I64, Kind, Shape, always, plain, since};

/// Timestamps with a meaning of their own.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// KIP-405: the earliest on local disks, which is all there is.
const EARLIEST_LOCAL: i64 = -4;
/// KIP-1005: the latest in remote storage, which there is not.
const LATEST_TIERED: i64 = -5;
/// The first versions that know them.
const MAX_TIMESTAMP_SINCE: i16 = 7;
const EARLIEST_LOCAL_SINCE: i16 = 8;
const LATEST_TIERED_SINCE: i16 = 9;
/// Clients know OFFSET_NOT_AVAILABLE from here on.
const NOT_AVAILABLE_SINCE: i16 = 5;

const NOTHING: OffsetFound =
    OffsetFound { offset: crate::ids::Offset(-1), timestamp: -1, leader_epoch: LeaderEpoch::NONE };

/// ListOffsets, key 2 (by time: KIP-79; the largest time: KIP-734).
impl Api for ListOffsetsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::ListOffsets,
        versions: Versions::of(1, 10),
        bounds: Bounds::of_partitions(&REQUEST),
        needs: Needs::OnTopics(Operation::Describe),
    };
    type Response = ListOffsetsResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<ListOffsetsResponse> {
        let topics = &self.topics;
        until_known(&call.context, |image| {
            topics.iter().all(|topic| image.topics.contains_key(topic.name.as_str()))
        })
        .await;
        let routing = RoutingView::now(&call.context);
        let read_committed = self.isolation_level == 1;
        let deadline = Deadline::after(&call.context.backend, limits::ASK_DEADLINE);
        let mut topics = Vec::with_capacity(self.topics.len());
        for topic in self.topics {
            let found = routing.topic(TopicKey::Name(topic.name.as_str()));
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let index = partition.partition_index;
                let answer = match found {
                    Ok(topic) => {
                        one(&routing, call.head.version, topic, &partition, read_committed, deadline).await
                    }
                    Err(code) => Err(code.into()),
                };
                let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
                partitions.push(match answer {
                    Ok(found) => response
                        .with_offset(found.offset.0)
                        .with_timestamp(found.timestamp)
                        .with_leader_epoch(if call.head.version >= 4 { found.leader_epoch.0 } else { -1 }),
                    Err(unroutable) => response.with_error_code(unroutable.code.code()),
                });
            }
            topics
                .push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
        }
        ListOffsetsResponse::default().with_topics(topics).into()
    }

    fn errors(response: &ListOffsetsResponse, each: &mut dyn FnMut(i16)) {
        response.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| each(one.error_code));
    }
}

static REQUEST: Shape =
    plain(&[always(I32), since(2, I8), always(Kind::Many(&Kind::Struct(&TOPIC))), since(10, I32)]);
static TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Many(&Kind::Struct(&PARTITION)))]);
static PARTITION: Shape = plain(&[always(I32), since(4, I32), always(I64)]);

async fn one<B: Backend>(
    routing: &RoutingView<B>,
    version: i16,
    topic: &TopicImage,
    asked: &ListOffsetsPartition,
    read_committed: bool,
    deadline: Deadline,
) -> Result<OffsetFound, RoutingError> {
    let partition = routing.partition(topic, asked.partition_index)?;
    let query = match asked.timestamp {
        LATEST => OffsetQuery::Latest { read_committed },
        EARLIEST => OffsetQuery::Earliest,
        EARLIEST_LOCAL if version >= EARLIEST_LOCAL_SINCE => OffsetQuery::Earliest,
        MAX_TIMESTAMP if version >= MAX_TIMESTAMP_SINCE => OffsetQuery::MaxTimestamp,
        LATEST_TIERED if version >= LATEST_TIERED_SINCE => return Ok(NOTHING),
        timestamp if timestamp >= 0 => OffsetQuery::Timestamp(timestamp),
        _ => return Err(ResponseError::UnsupportedVersion.into()),
    };
    match partition.offset(query, epoch(asked.current_leader_epoch), deadline).await {
        Ok(found) => Ok(found.unwrap_or(NOTHING)),
        Err(ReadError::NotYetKnown) if version < NOT_AVAILABLE_SINCE => {
            Err(ResponseError::LeaderNotAvailable.into())
        }
        Err(error) => Err(error_codes::read(&error).into()),
    }
}
