//! ListConfigResources: what has configurations.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ApiKey, ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::authorization::{Needs, Operation};
use super::config_changes::ResourceType;
use super::declaration::{Answer, Api, Call, Declaration, Versions};
#[cfg(test)]
use super::test_requests;
use crate::context::Context;
use crate::wire::shape::{Bounds, I8, Kind, Shape, plain, since};
use crate::wire::text;
#[cfg(test)]
use bytes::BytesMut;

/// ListConfigResources, key 74 (KIP-1142).
pub struct ListConfigResources;

impl Api for ListConfigResources {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::ListConfigResources,
        versions: Versions::of(0, 1),
        bounds: Bounds::of_resources(&REQUEST),
        needs: Needs::OnCluster(Operation::DescribeConfigs),
    };
    type Request = ListConfigResourcesRequest;
    type Response = ListConfigResourcesResponse;

    async fn handle<B: Backend>(
        call: Call<B>,
        request: ListConfigResourcesRequest,
    ) -> Answer<ListConfigResourcesResponse> {
        handle(&call.context, call.head.version, request).into()
    }

    fn errors(response: &ListConfigResourcesResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }

    #[cfg(test)]
    fn filled(version: i16) -> BytesMut {
        test_requests::bytes(version, |version| {
            let kinds = if version >= 1 { vec![2, 4] } else { Vec::new() };
            ListConfigResourcesRequest::default().with_resource_types(kinds)
        })
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
    let image = context.metadata.image();
    let mut resources = Vec::new();
    if is_wanted(ResourceType::Broker) {
        resources.extend(image.brokers.keys().map(|id| (ResourceType::Broker, id.to_string())));
    }
    if is_wanted(ResourceType::Topic) {
        resources.extend(image.topics.keys().map(|name| (ResourceType::Topic, name.to_string())));
    }
    let listed = resources.into_iter().map(|(kind, name)| {
        ConfigResource::default().with_resource_type(kind.code()).with_resource_name(text(name))
    });
    ListConfigResourcesResponse::default().with_config_resources(listed.collect())
}
