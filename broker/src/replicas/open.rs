//! Opening one replica: where its directory is and what its partition is told.

use std::sync::Arc;

use io_backend::{Backend, Deadline};

use super::reconcile::Wanted;
use super::recover::RecoveredReplica;
use super::{ReplicasContext, rescue};
use crate::config::Config;
use crate::log::open_files::OpenFiles;
use crate::log::{LogSettings, Retention};
use crate::metadata::TopicImage;
use crate::metadata::configs::{TimestampType, TopicSettings};
use crate::partition::{
    self, EntriesError, LogSignal, OpenPartition, PartitionHandle, PartitionOpenError, Schedules,
};

#[expect(clippy::too_many_arguments, reason = "what a partition is opened with, from several places")]
pub(super) async fn open_replica<B: Backend>(
    context: Arc<ReplicasContext<B>>,
    open_files: OpenFiles<B>,
    schedules: Schedules,
    signal: LogSignal,
    wanted: Wanted,
    config: Arc<Config>,
    recovered: RecoveredReplica,
    deadline: Deadline,
) -> Result<PartitionHandle<B>, PartitionOpenError> {
    let id = wanted.id.partition;
    let name: Arc<str> = format!("{}-{}", wanted.topic.name, id.index).into();
    if let Some(damaged) = recovered.rescued.as_ref().filter(|rescued| !rescued.whole) {
        // Before anything is taken over or removed: without what is in it nobody knows what the directory is worth.
        let read = rescue::read(&context.backend, damaged, wanted.id, deadline).await;
        read.map_err(|error| PartitionOpenError::Entries { name: name.clone(), error: error.into() })?;
    }
    let (replica, entries, rescued) = (wanted.id, recovered.entries, recovered.rescued);
    let backend = context.backend.clone();
    // Read only when the files are sound.
    let recovered_entries = Box::pin(async move {
        let Some(rescued) = rescued else { return Ok(entries) };
        let mut all =
            rescue::read(&backend, &rescued, replica, deadline).await.map_err(EntriesError::from)?;
        all.extend(entries);
        Ok(all)
    });
    let settings = log_settings(&wanted.topic, &config);
    partition::open(OpenPartition {
        backend: context.backend.clone(),
        id,
        name,
        replica: wanted.id.replica,
        settings,
        waiting_bytes: context.config.partition_waiting_bytes(),
        open_files,
        schedules,
        signal,
        directory: context.directory().join(wanted.id.directory()),
        journal: context.journal.clone(),
        counters: context.metrics.of_topic(&wanted.topic.name),
        mark: recovered.mark,
        recovered: recovered_entries,
        deadline,
    })
    .await
}

/// How the partitions of a topic keep their logs on this node.
pub(super) fn log_settings(topic: &TopicImage, config: &Config) -> LogSettings {
    let settings = TopicSettings::resolve(&topic.configs, config);
    let retention = Retention {
        time: settings.retention,
        bytes: settings.retention_bytes,
        file_delete_delay: settings.file_delete_delay,
    };
    LogSettings {
        segment_bytes: settings.segment_bytes,
        segment_age: settings.segment_age,
        index_interval_bytes: settings.index_interval_bytes as u64,
        log_append_time: settings.timestamps == TimestampType::LogAppendTime,
        retention,
        compaction: settings.compaction,
    }
}
