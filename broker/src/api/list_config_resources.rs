//! ListConfigResources: what has configurations.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ApiKey, ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::authorization::{Needs, Operation};
use super::config_changes::ResourceType;
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::context::Context;
use crate::wire::shape::{Bounds, I8, Kind, Shape, plain, since};
use crate::wire::text;

/// ListConfigResources, key 74 (KIP-1142).
impl Api for ListConfigResourcesRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::ListConfigResources,
        versions: Versions::of(0, 1),
        bounds: Bounds::of_resources(&REQUEST),
        needs: Needs::OnCluster(Operation::DescribeConfigs),
    };
    type Response = ListConfigResourcesResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<ListConfigResourcesResponse> {
        handle(&call.context, call.head.version, self).into()
    }

    fn errors(response: &ListConfigResourcesResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }
}

static REQUEST: Shape = plain(&[since(1, Kind::Many(&I8))]);

fn handle<B: Backend>(
    context: &Context<B>,
    version: i16,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    // Version 0 asks for those of clients' metrics only, of which there are none.
    if version == 0 {
        return ListConfigResourcesResponse::default();
    }
    if request.resource_types.iter().any(|kind| ResourceType::of(*kind).is_none()) {
        return ListConfigResourcesResponse::default()
            .with_error_code(ResponseError::UnsupportedVersion.code());
    }
    let is_wanted = |kind: ResourceType| {
        request.resource_types.is_empty() || request.resource_types.contains(&kind.code())
    };
    let image = context.metadata.shown();
    let mut resources = Vec::new();
    if is_wanted(ResourceType::Broker) {
        resources.extend(image.brokers.keys().map(|id| (ResourceType::Broker, id.to_string())));
    }
    if is_wanted(ResourceType::Topic) {
        resources.extend(image.topics.keys().map(|name| (ResourceType::Topic, name.to_string())));
    }
    if is_wanted(ResourceType::Group) {
        resources.extend(image.group_configs.keys().map(|id| (ResourceType::Group, id.to_string())));
    }
    let listed = resources.into_iter().map(|(kind, name)| {
        ConfigResource::default().with_resource_type(kind.code()).with_resource_name(text(name))
    });
    ListConfigResourcesResponse::default().with_config_resources(listed.collect())
}
