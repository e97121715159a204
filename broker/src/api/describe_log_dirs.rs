//! DescribeLogDirs: how much of the data directory partitions take, and what its volume has left.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use io_backend::{Backend, Deadline, Disk};
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{ApiKey, DescribeLogDirsRequest, TopicName};

use super::authorization::{Needs, Operation};
use super::declaration::{Answer, Api, Call, Declaration, Versions};

use crate::ids::PartitionId;
use crate::limits;
use crate::partition::PartitionHandle;
use crate::routing::{RoutingView, TopicKey};
use crate::wire::shape::{Bounds, I32S, Kind, Shape, always, plain};
use crate::wire::text;

/// DescribeLogDirs, key 35 (KIP-113; the volume: KIP-827).
impl Api for DescribeLogDirsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::DescribeLogDirs,
        versions: Versions::of(1, 4),
        bounds: Bounds::of_partitions(&REQUEST),
        needs: Needs::OnCluster(Operation::Describe),
    };
    type Response = DescribeLogDirsResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<DescribeLogDirsResponse> {
        let (context, version) = (&*call.context, call.head.version);
        let routing = RoutingView::now(context);
        let open = context.replicas.open().get();
        let mut asked: Vec<(Arc<str>, PartitionHandle<B>)> = Vec::new();
        match self.topics {
            None => {
                for partition in open.values() {
                    if let Some(topic) = routing.image.topic_by_id(partition.id().topic) {
                        asked.push((topic.name.clone(), partition.clone()));
                    }
                }
            }
            Some(topics) => {
                // What is not here is left out, as Kafka does.
                for wanted in topics {
                    let Ok(topic) = routing.topic(TopicKey::Name(wanted.topic.as_str())) else { continue };
                    let here = wanted.partitions.iter().filter_map(|index| {
                        let partition = open.get(&PartitionId { topic: topic.id, index: *index })?;
                        Some((topic.name.clone(), partition.clone()))
                    });
                    asked.extend(here);
                }
            }
        }
        let deadline = Deadline::after(&context.backend, limits::ASK_DEADLINE);
        let mut sizes = futures::stream::iter(asked)
            .map(|(topic, partition)| async move {
                let bytes = partition.bytes(deadline).await.ok()?;
                Some((topic, partition.id().index, bytes))
            })
            .buffered(limits::PARTITIONS_ASKED_AT_ONCE);
        let mut topics: BTreeMap<Arc<str>, BTreeMap<i32, u64>> = BTreeMap::new();
        while let Some(size) = sizes.next().await {
            // One that was deleted meanwhile, or does not answer, is left out.
            if let Some((topic, index, bytes)) = size {
                topics.entry(topic).or_default().insert(index, bytes);
            }
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partition = |(index, bytes): (i32, u64)| {
                DescribeLogDirsPartition::default()
                    .with_partition_index(index)
                    .with_partition_size(signed(bytes))
            };
            DescribeLogDirsTopic::default()
                .with_name(TopicName(text(&name)))
                .with_partitions(partitions.into_iter().map(partition).collect())
        });
        let directory = &context.config.data_dir;
        let mut result = DescribeLogDirsResult::default()
            .with_log_dir(text(directory.to_string_lossy()))
            .with_topics(topics.collect());
        if version >= SPACE_SINCE {
            let space = context.backend.disk().space(directory, deadline).await.ok();
            result.total_bytes = space.map_or(UNKNOWN, |space| signed(space.total));
            result.usable_bytes = space.map_or(UNKNOWN, |space| signed(space.usable));
        }
        DescribeLogDirsResponse::default().with_results(vec![result]).into()
    }

    fn errors(response: &DescribeLogDirsResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
        response.results.iter().for_each(|result| each(result.error_code));
    }
}

static REQUEST: Shape = plain(&[always(Kind::Many(&Kind::Struct(&TOPIC)))]);
static TOPIC: Shape = plain(&[always(Kind::Text), always(I32S)]);

/// What of a volume nobody can tell.
const UNKNOWN: i64 = -1;
const SPACE_SINCE: i16 = 4;

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
