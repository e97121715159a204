//! ConsumerGroupDescribe: consumer groups, and who is in them.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment as WireAssignment, DescribedGroup, Member, TopicPartitions,
};
use kafka_protocol::messages::{
    ApiKey, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId as WireGroupId, TopicName,
};

use super::super::authorization::{GROUP_OPERATIONS, Needs, OPERATIONS_OMITTED, Operation};
use super::super::declaration::{AskedInLine, Call, Declaration, Pending, Versions, pending};
use super::{answer, any_named, ask, not_described, once_each};
use crate::coordinator::assignor::{Assignment, Assignor};
use crate::coordinator::consumer::{ConsumerDescription, DescribedConsumer};
use crate::coordinator::coordinators::Asked;
use crate::coordinator::messages::CoordinatorInput;
use crate::coordinator::shard::NotDescribed;
use crate::metadata::MetadataImage;
use crate::wire::shape::{Bounds, I8, Shape, TEXTS, always, plain};
use crate::wire::text;

/// Since when it is said by which protocol a member speaks.
const MEMBER_TYPE_SINCE: i16 = 1;
/// By which protocol it speaks.
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;

/// ConsumerGroupDescribe, key 69 (KIP-848).
impl AskedInLine for ConsumerGroupDescribeRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::ConsumerGroupDescribe,
        versions: Versions::of(0, 1),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnGroups(Operation::Describe),
    };
    type Response = ConsumerGroupDescribeResponse;

    async fn ask<B: Backend>(self, call: Call<B>) -> Pending<ConsumerGroupDescribeResponse> {
        let operations =
            if self.include_authorized_operations { GROUP_OPERATIONS } else { OPERATIONS_OMITTED };
        pending(async move {
            let mut groups = Vec::new();
            for group in once_each(self.group_ids) {
                let described = match question(&call, &group).await {
                    Ok(asked) => answer(&call, asked).await,
                    Err(code) => Err(code),
                };
                let told = told(&call, group, described);
                groups.push(told.with_authorized_operations(operations));
            }
            ConsumerGroupDescribeResponse::default().with_groups(groups).into()
        })
    }

    fn errors(response: &ConsumerGroupDescribeResponse, each: &mut dyn FnMut(i16)) {
        response.groups.iter().for_each(|group| each(group.error_code));
    }
}

static REQUEST: Shape = plain(&[always(TEXTS), always(I8)]);

type Described = Result<ConsumerDescription, NotDescribed>;

async fn question<B: Backend>(
    call: &Call<B>,
    group: &WireGroupId,
) -> Result<Asked<B, Described>, ResponseError> {
    let group = any_named(group)?;
    let of = group.clone();
    let input = |reply| CoordinatorInput::DescribeConsumer { group, reply };
    Ok(ask(&call.context, &of, "a group to be described", input).await)
}

fn told<B: Backend>(
    call: &Call<B>,
    group: WireGroupId,
    described: Result<Described, ResponseError>,
) -> DescribedGroup {
    let told = DescribedGroup::default();
    match described {
        Err(code) => told.with_error_code(code.code()).with_group_id(group),
        Ok(Err(why)) => {
            let why = text(not_described(&group, why, "consumer"));
            let told = told.with_error_code(ResponseError::GroupIdNotFound.code());
            told.with_error_message(Some(why)).with_group_state(text("Dead")).with_group_id(group)
        }
        Ok(Ok(described)) => {
            let image = call.context.metadata.shown();
            let version = call.head.version;
            let members = described.members.into_iter().map(|one| member(&image, version, one));
            told.with_group_state(text(described.state))
                .with_group_epoch(described.epoch.0)
                .with_assignment_epoch(described.target_epoch.0)
                .with_assignor_name(text(described.assignor.unwrap_or(Assignor::Uniform).name()))
                .with_members(members.collect())
                .with_group_id(group)
        }
    }
}

fn member(image: &MetadataImage, version: i16, member: DescribedConsumer) -> Member {
    let DescribedConsumer { id, said, epoch, assigned, target } = member;
    let kind = if said.classic.is_some() { CLASSIC } else { CONSUMER };
    let names = said.subscription.names.iter().map(|name| TopicName(text(name)));
    let told = Member::default()
        .with_member_id(text(id.0))
        .with_instance_id(said.instance.map(|id| text(id.0)))
        .with_rack_id(said.rack.map(text))
        .with_member_epoch(epoch.0)
        .with_client_id(text(said.client.id))
        .with_client_host(text(said.client.host))
        .with_subscribed_topic_names(names.collect())
        .with_subscribed_topic_regex(said.subscription.pattern.map(text))
        .with_assignment(assignment(image, assigned))
        .with_target_assignment(assignment(image, target));
    if version >= MEMBER_TYPE_SINCE { told.with_member_type(kind) } else { told }
}

/// Of topics that are there: those that were deleted have no name any more.
fn assignment(image: &MetadataImage, assigned: Assignment) -> WireAssignment {
    let topics = assigned.into_iter().filter_map(|(topic, partitions)| {
        let name = image.topic_names.get(&topic)?;
        let told = TopicPartitions::default()
            .with_topic_id(topic.0)
            .with_topic_name(TopicName(text(name)))
            .with_partitions(partitions.into_iter().collect());
        Some(told)
    });
    WireAssignment::default().with_topic_partitions(topics.collect())
}
