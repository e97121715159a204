//! OffsetForLeaderEpoch (KIP-101): where an epoch ends.

use std::sync::Arc;

use io_backend::{Backend, Deadline};
use kafka_protocol::messages::OffsetForLeaderEpochRequest;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

use crate::context::Context;
use crate::error_codes;
use crate::ids::{LeaderEpoch, Offset};
use crate::limits;
use crate::metadata::TopicImage;
use crate::routing::{Located, NotHere, TopicKey, epoch};

pub async fn handle<B: Backend>(
    context: Arc<Context<B>>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let located = Located::now(&context);
    let deadline = Deadline::after(&context.backend, limits::ASK_DEADLINE);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = located.topic(TopicKey::Name(topic.topic.as_str()));
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let end = match found {
                Ok(topic) => epoch_end(&located, topic, &partition, deadline).await,
                Err(code) => Err(code.into()),
            };
            let response = EpochEndOffset::default().with_partition(partition.partition);
            partitions.push(match end {
                Ok((epoch, end)) => response.with_leader_epoch(epoch.0).with_end_offset(end.0),
                Err(not_here) => response.with_error_code(not_here.code.code()),
            });
        }
        topics
            .push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

async fn epoch_end<B: Backend>(
    located: &Located<B>,
    topic: &TopicImage,
    asked: &OffsetForLeaderPartition,
    deadline: Deadline,
) -> Result<(LeaderEpoch, Offset), NotHere> {
    let partition = located.partition(topic, asked.partition)?;
    partition
        .epoch_end(LeaderEpoch(asked.leader_epoch), epoch(asked.current_leader_epoch), deadline)
        .await
        .map_err(|error| error_codes::read(&error).into())
}
