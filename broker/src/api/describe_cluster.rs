//! DescribeCluster: who is in the cluster.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};
use kafka_protocol::messages::{ApiKey, BrokerId, DescribeClusterRequest};

use super::authorization::{CLUSTER_OPERATIONS, Needs, OPERATIONS_OMITTED, Operation};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::context::Context;
use crate::wire::shape::{Bounds, I8, Shape, always, plain, since};
use crate::wire::text;

/// KIP-919's endpoint types.
const BROKERS: i8 = 1;

/// DescribeCluster, key 60 (KIP-700).
impl Api for DescribeClusterRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::DescribeCluster,
        versions: Versions::of(0, 2),
        bounds: Bounds::of_resources(&REQUEST),
        needs: Needs::OnCluster(Operation::Describe),
    };
    type Response = DescribeClusterResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<DescribeClusterResponse> {
        handle(&call.context, call.head.version, &self).into()
    }

    fn errors(response: &DescribeClusterResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
    }
}

static REQUEST: Shape = plain(&[always(I8), since(1, I8), since(2, I8)]);

fn handle<B: Backend>(
    context: &Context<B>,
    version: i16,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let mut response = DescribeClusterResponse::default();
    if version >= 1 {
        response.endpoint_type = BROKERS;
        if request.endpoint_type != BROKERS {
            response.error_code = ResponseError::Unknown(MISMATCHED_ENDPOINT_TYPE).code();
            response.error_message = Some(text("this port belongs to a broker, not to a controller"));
            return response;
        }
    }
    let image = context.metadata.shown();
    response.cluster_id = text(&image.cluster_id);
    response.controller_id = BrokerId(image.controller.map_or(-1, |id| id.0));
    response.brokers = image
        .brokers
        .values()
        .filter(|broker| !broker.fenced || request.include_fenced_brokers)
        .filter_map(|broker| {
            let endpoint = broker.client_endpoint()?;
            let mut told = DescribeClusterBroker::default()
                .with_broker_id(BrokerId(broker.id().0))
                .with_host(text(&endpoint.host))
                .with_port(endpoint.port.into())
                .with_rack(broker.registration.rack.as_deref().map(text));
            if version >= 2 {
                told.is_fenced = broker.fenced;
            }
            Some(told)
        })
        .collect();
    response.cluster_authorized_operations =
        if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { OPERATIONS_OMITTED };
    response
}

/// KIP-919; the codec's table of codes ends before it.
const MISMATCHED_ENDPOINT_TYPE: i16 = 114;
