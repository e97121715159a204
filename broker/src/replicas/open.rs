//! Opening one replica: where its directory is and what its partition is told.

use std::sync::Arc;

use io_backend::{Backend, Deadline};

use super::ReplicasContext;
use super::reconcile::Wanted;
use super::recover::RecoveredReplica;
use crate::log::LogSettings;
use crate::metadata::configs::{TimestampType, TopicSettings};
use crate::partition::{self, OpenPartition, PartitionHandle, PartitionOpenError};

pub(super) async fn open_replica<B: Backend>(
    context: Arc<ReplicasContext<B>>,
    wanted: Wanted,
    recovered: RecoveredReplica,
    deadline: Deadline,
) -> Result<PartitionHandle<B>, PartitionOpenError> {
    let id = wanted.id.partition;
    let topic = TopicSettings::resolve(&wanted.topic.configs, &context.config);
    partition::open(OpenPartition {
        backend: context.backend.clone(),
        id,
        name: format!("{}-{}", wanted.topic.name, id.index).into(),
        replica: wanted.id.replica,
        settings: LogSettings {
            segment_bytes: topic.segment_bytes,
            segment_age: topic.segment_age,
            index_interval_bytes: topic.index_interval_bytes as u64,
            log_append_time: topic.timestamps == TimestampType::LogAppendTime,
        },
        directory: context.directory().join(wanted.id.directory()),
        journal: context.journal.clone(),
        mark: recovered.mark,
        recovered: recovered.entries,
        deadline,
    })
    .await
}
