//! OffsetCommit: a group says how far it is.

use std::sync::Arc;

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{ApiKey, OffsetCommitRequest, OffsetCommitResponse};

use super::super::authorization::{Needs, Operation};
use super::super::declaration::{AskedInLine, Call, Declaration, Pending, Versions, pending};
use super::{answer, any_named, ask, instance, kept, member};
use crate::coordinator::coordinators::Asked;
use crate::coordinator::ids::Generation;
use crate::coordinator::messages::CoordinatorInput;
use crate::coordinator::offsets::Committed;
use crate::coordinator::shard::Committer;
use crate::error_codes;
use crate::ids::{LeaderEpoch, Offset};
use crate::metadata::MetadataImage;
use crate::routing::until_known;
use crate::wire::shape::{Bounds, I32, I64, Kind, Shape, always, between, plain, since};

/// Such a client leaves it to the broker how long the offsets are kept.
const AS_CONFIGURED: i64 = -1;
/// Clients that do not say the epoch of their last record.
const EPOCH_SINCE: i16 = 6;

/// OffsetCommit, key 8.
impl AskedInLine for OffsetCommitRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::OffsetCommit,
        versions: Versions::of(2, 9),
        bounds: Bounds::of_partitions(&REQUEST),
        needs: Needs::OnGroups(Operation::Read),
    };
    type Response = OffsetCommitResponse;

    async fn ask<B: Backend>(self, call: Call<B>) -> Pending<OffsetCommitResponse> {
        let topics = &self.topics;
        until_known(&call.context, |image| {
            topics.iter().all(|topic| image.topics.contains_key(topic.name.as_str()))
        })
        .await;
        let (offsets, refused) = split(&call, &self);
        let asked = match offsets.is_empty() && !self.topics.is_empty() {
            true => Ok(None),
            false => question(&call, &self, offsets).await.map(Some),
        };
        pending(async move {
            let committed = match asked {
                Ok(Some(asked)) => answer(&call, asked).await,
                Ok(None) => Ok(()),
                Err(code) => Err(code),
            };
            response(self, &refused, committed).into()
        })
    }

    fn errors(response: &OffsetCommitResponse, each: &mut dyn FnMut(i16)) {
        response.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| each(one.error_code));
    }
}

static REQUEST: Shape = plain(&[
    always(Kind::Text),
    always(I32),
    always(Kind::Text),
    since(7, Kind::Text),
    between(2, 4, I64),
    always(Kind::Many(&Kind::Struct(&TOPIC))),
]);
static TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Many(&Kind::Struct(&PARTITION)))]);
static PARTITION: Shape = plain(&[always(I32), always(I64), since(6, I32), always(Kind::Text)]);

type Offsets = Vec<(Arc<str>, i32, Committed)>;

/// What may be committed and, for each partition in its order, why it may not.
fn split<B: Backend>(call: &Call<B>, request: &OffsetCommitRequest) -> (Offsets, Vec<Option<ResponseError>>) {
    // That by which the coordinator judges which topics are gone.
    let image = call.context.metadata.image();
    let metadata_bytes_max = call.context.config.offsets.metadata_bytes_max;
    let committed_ms = call.context.backend.wall_ms();
    let expires_ms = (request.retention_time_ms != AS_CONFIGURED)
        .then(|| committed_ms.saturating_add(request.retention_time_ms.max(0)));
    let (mut offsets, mut refused) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        let name = kept(&topic.name);
        for partition in &topic.partitions {
            let why = refusal(&image, &name, partition, metadata_bytes_max);
            refused.push(why);
            if why.is_none() {
                let committed = Committed {
                    offset: Offset(partition.committed_offset),
                    leader_epoch: match call.head.version {
                        EPOCH_SINCE.. => LeaderEpoch(partition.committed_leader_epoch),
                        _ => LeaderEpoch::NONE,
                    },
                    metadata: partition.committed_metadata.as_ref().map_or_else(|| Arc::from(""), kept),
                    committed_ms,
                    expires_ms,
                };
                offsets.push((name.clone(), partition.partition_index, committed));
            }
        }
    }
    (offsets, refused)
}

fn refusal(
    image: &MetadataImage,
    topic: &str,
    partition: &OffsetCommitRequestPartition,
    metadata_bytes_max: usize,
) -> Option<ResponseError> {
    let index = usize::try_from(partition.partition_index).ok();
    let is_known =
        image.topics.get(topic).zip(index).is_some_and(|(topic, index)| index < topic.partitions.len());
    let metadata_bytes = partition.committed_metadata.as_ref().map_or(0, |metadata| metadata.len());
    match (is_known, metadata_bytes > metadata_bytes_max) {
        (false, _) => Some(ResponseError::UnknownTopicOrPartition),
        (true, true) => Some(ResponseError::OffsetMetadataTooLarge),
        (true, false) => None,
    }
}

async fn question<B: Backend>(
    call: &Call<B>,
    request: &OffsetCommitRequest,
    offsets: Offsets,
) -> Result<Asked<B, ()>, ResponseError> {
    let group = any_named(&request.group_id)?;
    let by = Committer {
        member: match request.member_id.is_empty() {
            true => None,
            false => Some(member(&request.member_id)?),
        },
        instance: instance(request.group_instance_id.as_ref())?,
        generation: Generation(request.generation_id_or_member_epoch),
    };
    let of = group.clone();
    let input = |reply| CoordinatorInput::Commit { group, by, offsets, reply };
    Ok(ask(&call.context, &of, "a group's offsets to be committed", input).await)
}

fn response(
    request: OffsetCommitRequest,
    refused: &[Option<ResponseError>],
    committed: Result<(), ResponseError>,
) -> OffsetCommitResponse {
    let mut refused = refused.iter().copied();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(&mut refused).map(|(partition, why)| {
            let code = why.or(committed.err()).map_or(error_codes::NONE, |code| code.code());
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        OffsetCommitResponseTopic::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}
