//! OffsetDelete: an administrator has a group forget how far it is in some partitions.

use std::sync::Arc;

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{ApiKey, OffsetDeleteRequest, OffsetDeleteResponse};

use super::super::authorization::{Needs, Operation};
use super::super::declaration::{AskedInLine, Call, Declaration, Pending, Versions, pending};
use super::{answer, any_named, ask};
use crate::coordinator::coordinators::Asked;
use crate::coordinator::messages::CoordinatorInput;
use crate::coordinator::shard::OffsetsStay;
use crate::error_codes;
use crate::metadata::MetadataImage;
use crate::wire::shape::{Bounds, I32, Kind, Shape, always, plain};

/// OffsetDelete, key 47 (KIP-496).
impl AskedInLine for OffsetDeleteRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::OffsetDelete,
        versions: Versions::of(0, 0),
        bounds: Bounds::of_partitions(&REQUEST),
        needs: Needs::OnGroups(Operation::Delete),
    };
    type Response = OffsetDeleteResponse;

    async fn ask<B: Backend>(self, call: Call<B>) -> Pending<OffsetDeleteResponse> {
        let asked = question(&call, &self).await;
        pending(async move {
            let deleted = match asked {
                Ok(asked) => answer(&call, asked).await,
                Err(code) => Err(code),
            };
            response(&call.context.metadata.shown(), self, deleted).into()
        })
    }

    fn errors(response: &OffsetDeleteResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
        response.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| each(one.error_code));
    }
}

static REQUEST: Shape = plain(&[always(Kind::Text), always(Kind::Many(&Kind::Struct(&TOPIC)))]);
static TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Many(&I32))]);

type Deleted = Vec<Result<(), OffsetsStay>>;

async fn question<B: Backend>(
    call: &Call<B>,
    request: &OffsetDeleteRequest,
) -> Result<Asked<B, Deleted>, ResponseError> {
    let group = any_named(&request.group_id)?;
    let of = request.topics.iter().flat_map(|topic| {
        let name: Arc<str> = Arc::from(topic.name.as_str());
        topic.partitions.iter().map(move |partition| (name.clone(), partition.partition_index))
    });
    let (of, asked) = (of.collect(), group.clone());
    let input = |reply| CoordinatorInput::DeleteOffsets { group, of, reply };
    Ok(ask(&call.context, &asked, "offsets of a group to be forgotten", input).await)
}

fn response(
    image: &MetadataImage,
    request: OffsetDeleteRequest,
    deleted: Result<Deleted, ResponseError>,
) -> OffsetDeleteResponse {
    let deleted = match deleted {
        Ok(deleted) => deleted,
        Err(code) => return OffsetDeleteResponse::default().with_error_code(code.code()),
    };
    let mut deleted = deleted.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = image.topics.get(topic.name.as_str()).map_or(0, |topic| topic.partitions.len());
        let one = |(asked, deleted): (i32, Result<(), OffsetsStay>)| {
            let is_known = usize::try_from(asked).is_ok_and(|asked| asked < partitions);
            let code = match deleted {
                Err(OffsetsStay::Subscribed) => ResponseError::GroupSubscribedToTopic.code(),
                Ok(()) if !is_known => ResponseError::UnknownTopicOrPartition.code(),
                Ok(()) => error_codes::NONE,
            };
            OffsetDeleteResponsePartition::default().with_partition_index(asked).with_error_code(code)
        };
        let asked = topic.partitions.iter().map(|partition| partition.partition_index);
        let partitions = asked.zip(&mut deleted).map(one).collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
