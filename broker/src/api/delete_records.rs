//! DeleteRecords: has partitions begin at a later offset, and says where they begin then.

use std::time::Duration;

use futures::StreamExt;
use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{ApiKey, DeleteRecordsRequest};

use super::authorization::{Needs, Operation};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::context::Context;
use crate::error_codes;
use crate::ids::Offset;
use crate::limits;
use crate::metadata::TopicImage;
use crate::metadata::configs::TopicSettings;
use crate::routing::{RoutingView, TopicKey};
use crate::wire::shape::{Bounds, I32, I64, Kind, Shape, always, plain};

/// DeleteRecords, key 21 (KIP-107).
impl Api for DeleteRecordsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::DeleteRecords,
        versions: Versions::of(0, 2),
        bounds: Bounds::of_partitions(&REQUEST),
        needs: Needs::OnTopics(Operation::Delete),
    };
    type Response = DeleteRecordsResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<DeleteRecordsResponse> {
        let context = &call.context;
        let routing = &RoutingView::now(context);
        let timeout = Duration::from_millis(u64::try_from(self.timeout_ms).unwrap_or(0));
        let deadline = Deadline::after(&context.backend, timeout.min(context.config.server.produce_deadline));
        let mut results: Vec<DeleteRecordsTopicResult> = Vec::with_capacity(self.topics.len());
        let mut asked = Vec::new();
        for (nth, topic) in self.topics.into_iter().enumerate() {
            results.push(DeleteRecordsTopicResult::default().with_name(topic.name.clone()));
            asked.extend(topic.partitions.into_iter().map(|partition| (nth, topic.name.clone(), partition)));
        }
        let mut answered = futures::stream::iter(asked)
            .map(|(nth, name, partition)| async move {
                let outcome = match routing.topic(TopicKey::Name(name.as_str())) {
                    Ok(topic) => one(context, routing, topic, &partition, deadline).await,
                    Err(code) => Err(code),
                };
                let (low_watermark, code) = match outcome {
                    Ok(start) => (start.0, error_codes::NONE),
                    Err(code) => (NO_LOW_WATERMARK, code.code()),
                };
                let result = DeleteRecordsPartitionResult::default()
                    .with_partition_index(partition.partition_index)
                    .with_low_watermark(low_watermark)
                    .with_error_code(code);
                (nth, result)
            })
            .buffered(limits::PARTITIONS_ASKED_AT_ONCE);
        while let Some((nth, result)) = answered.next().await {
            results[nth].partitions.push(result);
        }
        DeleteRecordsResponse::default().with_topics(results).into()
    }

    fn errors(response: &DeleteRecordsResponse, each: &mut dyn FnMut(i16)) {
        response.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| each(one.error_code));
    }
}

static REQUEST: Shape = plain(&[always(Kind::Many(&Kind::Struct(&TOPIC))), always(I32)]);
static TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Many(&Kind::Struct(&PARTITION)))]);
static PARTITION: Shape = plain(&[always(I32), always(I64)]);

/// All that is there: up to the high watermark.
const HIGH_WATERMARK: i64 = -1;
/// What is answered where nothing was deleted.
const NO_LOW_WATERMARK: i64 = -1;

async fn one<B: Backend>(
    context: &Context<B>,
    routing: &RoutingView<B>,
    topic: &TopicImage,
    asked: &DeleteRecordsPartition,
    deadline: Deadline,
) -> Result<Offset, ResponseError> {
    let partition = routing.partition(topic, asked.partition_index).map_err(|unroutable| unroutable.code)?;
    if !TopicSettings::resolve(&topic.configs, &context.metadata.config()).deletes {
        return Err(ResponseError::PolicyViolation);
    }
    let before = (asked.offset != HIGH_WATERMARK).then_some(Offset(asked.offset));
    partition.delete_records(before, deadline).await.map_err(|error| error_codes::delete_records(&error))
}
