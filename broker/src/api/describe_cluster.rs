//! DescribeCluster: who is in the cluster.

use std::sync::Arc;

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest};

use crate::context::Context;
use crate::wire::text;

/// KIP-919's endpoint types.
const BROKERS: i8 = 1;

/// What an authorizer that allows everything allows on the cluster, a bit per operation.
pub const CLUSTER_OPERATIONS: i32 = 8_096;
/// The same on a topic.
pub const TOPIC_OPERATIONS: i32 = 3_576;
/// Nobody asked.
pub const OPERATIONS_OMITTED: i32 = i32::MIN;

pub async fn handle<B: Backend>(
    context: Arc<Context<B>>,
    version: i16,
    request: DescribeClusterRequest,
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
    let image = context.metadata.image();
    response.cluster_id = text(&image.cluster_id);
    response.controller_id = BrokerId(image.controller.map_or(-1, |id| id.0));
    response.brokers = image
        .brokers
        .values()
        .map(|broker| {
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(broker.id.0))
                .with_host(text(&broker.host))
                .with_port(broker.port.into())
        })
        .collect();
    response.cluster_authorized_operations =
        if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { OPERATIONS_OMITTED };
    response
}

/// KIP-919; the codec's table of codes ends before it.
const MISMATCHED_ENDPOINT_TYPE: i16 = 114;
