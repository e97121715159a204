//! OffsetFetch: how far groups are.

use std::collections::BTreeSet;
use std::sync::Arc;

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{ApiKey, OffsetFetchRequest, OffsetFetchResponse, TopicName};

use super::super::authorization::{Needs, Operation};
use super::super::declaration::{AskedInLine, Call, Declaration, Pending, Versions, pending};
use super::{answer, any_named, ask, code_of, member};
use crate::coordinator::consumer::Epoch;
use crate::coordinator::coordinators::Asked;
use crate::coordinator::messages::CoordinatorInput;
use crate::coordinator::offsets::Committed;
use crate::coordinator::shard::CommittedOffsets;
use crate::error_codes;
use crate::wire::shape::{Bounds, I8, I32, I32S, Kind, Shape, always, plain, since, until};
use crate::wire::text;

/// Since when several groups are asked about in one request (KIP-709).
const SEVERAL_SINCE: i16 = 8;
/// Since when an error of the whole group has a place of its own.
const ERROR_SINCE: i16 = 2;
/// Since when the epoch of the last record is told.
const EPOCH_SINCE: i16 = 5;
/// A group is nowhere in the partition.
const NOWHERE: i64 = -1;

/// OffsetFetch, key 9.
impl AskedInLine for OffsetFetchRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::OffsetFetch,
        versions: Versions::of(1, 9),
        bounds: Bounds::of_partitions(&REQUEST),
        needs: Needs::OnGroups(Operation::Describe),
    };
    type Response = OffsetFetchResponse;

    async fn ask<B: Backend>(self, call: Call<B>) -> Pending<OffsetFetchResponse> {
        let version = call.head.version;
        let groups = if version < SEVERAL_SINCE { vec![of_one(self)] } else { self.groups };
        pending(async move {
            let mut answers = Vec::new();
            let mut seen = BTreeSet::new();
            for group in groups.into_iter().filter(|group| seen.insert(group.group_id.clone())) {
                let offsets = match question(&call, &group).await {
                    Ok(asked) => answer(&call, asked).await.map_err(code),
                    Err(code) => Err(code),
                };
                let mut answer = told(group, offsets);
                if version >= ERROR_SINCE && answer.error_code != error_codes::NONE {
                    answer.topics.clear();
                }
                answers.push(answer);
            }
            match version < SEVERAL_SINCE {
                true => in_old_form(version, answers.pop().unwrap_or_default()).into(),
                false => OffsetFetchResponse::default().with_groups(answers).into(),
            }
        })
    }

    fn errors(response: &OffsetFetchResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
        response.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| each(one.error_code));
        response.groups.iter().for_each(|group| each(group.error_code));
    }
}

static REQUEST: Shape = plain(&[
    until(7, Kind::Text),
    until(7, Kind::Many(&Kind::Struct(&TOPIC))),
    since(8, Kind::Many(&Kind::Struct(&GROUP))),
    since(7, I8),
]);
static GROUP: Shape = plain(&[
    always(Kind::Text),
    since(9, Kind::Text),
    since(9, I32),
    always(Kind::Many(&Kind::Struct(&TOPIC))),
]);
static TOPIC: Shape = plain(&[always(Kind::Text), always(I32S)]);

/// A request of old, in the form of those that followed.
fn of_one(request: OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic.name)
                .with_partition_indexes(topic.partition_indexes)
        });
        topics.collect()
    });
    OffsetFetchRequestGroup::default().with_group_id(request.group_id).with_topics(topics)
}

async fn question<B: Backend>(
    call: &Call<B>,
    request: &OffsetFetchRequestGroup,
) -> Result<Asked<B, CommittedOffsets>, ResponseError> {
    let group = any_named(&request.group_id)?;
    let of = request.topics.as_ref().map(|topics| {
        let of = topics.iter().flat_map(|topic| {
            let name: Arc<str> = Arc::from(topic.name.as_str());
            topic.partition_indexes.iter().map(move |index| (name.clone(), *index))
        });
        of.collect()
    });
    let by = match &request.member_id {
        Some(id) if request.member_epoch >= 0 => Some((member(id)?, Epoch(request.member_epoch))),
        _ => None,
    };
    let asked = group.clone();
    let input = |reply| CoordinatorInput::Offsets { group, by, of, reply };
    Ok(ask(&call.context, &asked, "how far a group is", input).await)
}

/// Consumers before 3.9 do not know that the coordinator may be away, and look for it anew where it is another one.
fn code(code: ResponseError) -> ResponseError {
    match code {
        ResponseError::CoordinatorNotAvailable => ResponseError::NotCoordinator,
        code => code,
    }
}

fn told(
    request: OffsetFetchRequestGroup,
    offsets: Result<CommittedOffsets, ResponseError>,
) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default().with_error_code(code_of(&offsets));
    let response = response.with_group_id(request.group_id);
    let Ok(offsets) = offsets else {
        let topics = request.topics.into_iter().flatten().map(|topic| {
            let refused = |index| partition(index, None).with_error_code(response.error_code);
            let partitions = topic.partition_indexes.into_iter().map(refused);
            OffsetFetchResponseTopics::default().with_partitions(partitions.collect()).with_name(topic.name)
        });
        let topics = topics.collect();
        return response.with_topics(topics);
    };
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    let mut of: Option<Arc<str>> = None;
    for (name, index, committed) in offsets {
        if of.as_ref() != Some(&name) {
            let topic = OffsetFetchResponseTopics::default().with_name(TopicName(text(&name)));
            topics.push(topic);
            of = Some(name);
        }
        if let Some(topic) = topics.last_mut() {
            topic.partitions.push(partition(index, committed));
        }
    }
    response.with_topics(topics)
}

fn partition(index: i32, committed: Option<Committed>) -> OffsetFetchResponsePartitions {
    let partition = OffsetFetchResponsePartitions::default().with_partition_index(index);
    match committed {
        None => partition.with_committed_offset(NOWHERE).with_metadata(Some(text(""))),
        Some(committed) => partition
            .with_committed_offset(committed.offset.0)
            .with_committed_leader_epoch(committed.leader_epoch.0)
            .with_metadata(Some(text(committed.metadata))),
    }
}

fn in_old_form(version: i16, group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let topics = group.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|one| {
            let partition = OffsetFetchResponsePartition::default()
                .with_partition_index(one.partition_index)
                .with_committed_offset(one.committed_offset)
                .with_metadata(one.metadata)
                .with_error_code(one.error_code);
            match version {
                EPOCH_SINCE.. => partition.with_committed_leader_epoch(one.committed_leader_epoch),
                _ => partition,
            }
        });
        OffsetFetchResponseTopic::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    match version {
        ERROR_SINCE.. => response.with_error_code(group.error_code),
        _ => response,
    }
}
