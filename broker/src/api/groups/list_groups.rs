//! ListGroups: the groups that this node coordinates.

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{ApiKey, GroupId as WireGroupId, ListGroupsRequest, ListGroupsResponse};

use super::super::authorization::{Needs, Operation};
use super::super::declaration::{AskedInLine, Call, Declaration, Pending, Versions, pending};
use super::{StrBytes, answer};
use crate::coordinator::OFFSETS_TOPIC;
use crate::coordinator::messages::CoordinatorInput;
use crate::coordinator::shard::{GroupKind, Listed};
use crate::ids::PartitionId;
use crate::limits;
use crate::routing::RoutingView;
use crate::wire::shape::{Bounds, Shape, TEXTS, plain, since};
use crate::wire::text;

/// Since when the state is told (KIP-518), and the kind (KIP-848).
const STATE_SINCE: i16 = 4;
const KIND_SINCE: i16 = 5;

/// ListGroups, key 16.
impl AskedInLine for ListGroupsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::ListGroups,
        versions: Versions::of(0, 5),
        bounds: Bounds::of_resources(&REQUEST),
        needs: Needs::OnCluster(Operation::Describe),
    };
    type Response = ListGroupsResponse;

    async fn ask<B: Backend>(self, call: Call<B>) -> Pending<ListGroupsResponse> {
        pending(async move {
            let context = &call.context;
            let mut groups = Vec::new();
            for partition in led(&RoutingView::now(context)) {
                let deadline = Deadline::after(&context.backend, limits::ASK_DEADLINE);
                let input = |reply| CoordinatorInput::List { reply };
                let asked = context.coordinators.ask(partition, "groups to be listed", input, deadline).await;
                match answer(&call, asked).await {
                    Ok(listed) => groups.extend(listed),
                    // Another node leads it by now, and tells of its groups.
                    Err(ResponseError::NotCoordinator) => {}
                    Err(code) => return ListGroupsResponse::default().with_error_code(code.code()).into(),
                }
            }
            let wanted = groups.into_iter().filter(|group| self.wants(group));
            let version = call.head.version;
            ListGroupsResponse::default()
                .with_groups(wanted.map(|group| told(version, &group)).collect())
                .into()
        })
    }

    fn errors(response: &ListGroupsResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }
}

static REQUEST: Shape = plain(&[since(4, TEXTS), since(5, TEXTS)]);

trait Wants {
    fn wants(&self, group: &Listed) -> bool;
}

impl Wants for ListGroupsRequest {
    /// No filter lets all through; words are compared as Kafka does, in letters of any size.
    fn wants(&self, group: &Listed) -> bool {
        let lets_through = |filter: &[StrBytes], word: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(word))
        };
        lets_through(&self.states_filter, group.state) && lets_through(&self.types_filter, group.kind.name())
    }
}

/// The partitions of groups that this node leads.
fn led<B: Backend>(view: &RoutingView<B>) -> Vec<PartitionId> {
    let Some(topic) = view.image.topics.get(OFFSETS_TOPIC) else { return Vec::new() };
    let all = (0..).take(topic.partitions.len());
    let led = all.filter(|index| view.partition(topic, *index).is_ok());
    led.map(|index| PartitionId { topic: topic.id, index }).collect()
}

fn told(version: i16, group: &Listed) -> ListedGroup {
    let protocol_type = match group.kind {
        GroupKind::Classic => group.protocol_type.as_deref().unwrap_or_default(),
        GroupKind::Consumer => "consumer",
    };
    let mut told = ListedGroup::default()
        .with_group_id(WireGroupId(text(&group.group.0)))
        .with_protocol_type(text(protocol_type));
    if version >= STATE_SINCE {
        told.group_state = text(group.state);
    }
    if version >= KIND_SINCE {
        told.group_type = text(group.kind.name());
    }
    told
}
