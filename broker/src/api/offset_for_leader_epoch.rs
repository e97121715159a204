//! OffsetForLeaderEpoch (KIP-101): where an epoch ends.

use io_backend::{Backend, Deadline};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{ApiKey, OffsetForLeaderEpochRequest};

use super::authorization::{Needs, Operation};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::error_codes;
use crate::ids::{LeaderEpoch, Offset};
use crate::limits;
use crate::metadata::TopicImage;
use crate::routing::{RoutingError, RoutingView, TopicKey, epoch};
use crate::wire::shape::{Bounds, I32, Kind, Shape, always, plain, since};

/// OffsetForLeaderEpoch, key 23 (KIP-101, KIP-320).
impl Api for OffsetForLeaderEpochRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::OffsetForLeaderEpoch,
        versions: Versions::of(2, 4),
        bounds: Bounds::of_partitions(&REQUEST),
        needs: Needs::OnTopics(Operation::Describe),
    };
    type Response = OffsetForLeaderEpochResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<OffsetForLeaderEpochResponse> {
        let routing = RoutingView::now(&call.context);
        let deadline = Deadline::after(&call.context.backend, limits::ASK_DEADLINE);
        let mut topics = Vec::with_capacity(self.topics.len());
        for topic in self.topics {
            let found = routing.topic(TopicKey::Name(topic.topic.as_str()));
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let end = match found {
                    Ok(topic) => epoch_end(&routing, topic, &partition, deadline).await,
                    Err(code) => Err(code.into()),
                };
                let response = EpochEndOffset::default().with_partition(partition.partition);
                partitions.push(match end {
                    Ok((epoch, end)) => response.with_leader_epoch(epoch.0).with_end_offset(end.0),
                    Err(unroutable) => response.with_error_code(unroutable.code.code()),
                });
            }
            topics.push(
                OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions),
            );
        }
        OffsetForLeaderEpochResponse::default().with_topics(topics).into()
    }

    fn errors(response: &OffsetForLeaderEpochResponse, each: &mut dyn FnMut(i16)) {
        response.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| each(one.error_code));
    }
}

static REQUEST: Shape = plain(&[since(3, I32), always(Kind::Many(&Kind::Struct(&TOPIC)))]);
static TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Many(&Kind::Struct(&PARTITION)))]);
static PARTITION: Shape = plain(&[always(I32), always(I32), always(I32)]);

async fn epoch_end<B: Backend>(
    routing: &RoutingView<B>,
    topic: &TopicImage,
    asked: &OffsetForLeaderPartition,
    deadline: Deadline,
) -> Result<(LeaderEpoch, Offset), RoutingError> {
    let partition = routing.partition(topic, asked.partition)?;
    partition
        .epoch_end(LeaderEpoch(asked.leader_epoch), epoch(asked.current_leader_epoch), deadline)
        .await
        .map_err(|error| error_codes::read(&error).into())
}
