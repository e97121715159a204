//! A batch on its way to its partition here: checked, admitted, queued; and what became of it.

use std::sync::Arc;

use io_backend::{Backend, Deadline, within};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use tracing::debug;

use super::opening::{self, NotOpened};
use crate::admission::Admit;
use crate::context::Context;
use crate::error_codes;
use crate::ids::PartitionId;
use crate::journal::SubmitError;
use crate::log::batch::CheckedBatch;
use crate::log::inner;
use crate::log::validate::{self, BatchError, TimeLimits};
use crate::metadata::TopicImage;
use crate::metadata::configs::{TimestampType, TopicSettings};
use crate::metrics::Counted;
use crate::partition::{Acks, AppendError, Appended, Destination, PendingAppend, Unacknowledged};
use crate::routing::{Leader, RoutingError, RoutingView, TopicKey};

/// An append that is not answered.
pub struct InLine<B: Backend> {
    append: PendingAppend<B>,
    _counted: Counted,
}

impl<B: Backend> InLine<B> {
    /// What became of it.
    pub async fn wait(self, context: &Context<B>) -> Result<Appended, Refusal> {
        self.append.wait().await.map_err(|error| after_append(context, error))
    }
}

/// Why a partition's batch was not appended, or not known to be.
#[derive(Debug)]
pub struct Refusal {
    /// What the client is told.
    pub code: ResponseError,
    /// Who leads, if that is why.
    pub leader: Option<Leader>,
    /// In words.
    pub why: Option<String>,
}

impl From<ResponseError> for Refusal {
    fn from(code: ResponseError) -> Refusal {
        Refusal { code, leader: None, why: None }
    }
}

impl From<RoutingError> for Refusal {
    fn from(unroutable: RoutingError) -> Refusal {
        Refusal { code: unroutable.code, leader: unroutable.leader, why: None }
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Refusal {
        Refusal { code: error_codes::batch(&error), leader: None, why: Some(error.to_string()) }
    }
}

impl From<NotOpened> for Refusal {
    fn from(error: NotOpened) -> Refusal {
        match error {
            NotOpened::Wrong(error) => error.into(),
            NotOpened::NoRoom => {
                Refusal { why: Some(error.to_string()), ..ResponseError::KafkaStorageError.into() }
            }
        }
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Refusal {
        Refusal { code: error_codes::append(&error), leader: None, why: Some(error.to_string()) }
    }
}

/// How a batch is to be taken.
pub struct Wanted {
    /// When it is answered.
    pub acks: Acks,
    /// Who hears of a failure where nothing is answered.
    pub told: Option<Arc<dyn Unacknowledged>>,
    /// Its producer's first batch went through the node that passes it on and may not have come to its partition.
    pub behind_refused_first: bool,
}

/// Queues a batch at its partition, if this node leads it.
pub async fn append<B: Backend>(
    context: &Context<B>,
    routing: &RoutingView<B>,
    topic: &TopicImage,
    data: &PartitionProduceData,
    version: i16,
    wanted: Wanted,
    deadline: Deadline,
) -> Result<InLine<B>, Refusal> {
    let Wanted { acks, told, behind_refused_first } = wanted;
    let settings = TopicSettings::resolve(&topic.configs, &context.metadata.config());
    let batch = validate::check_outside(data.records.as_ref(), version, settings.max_batch_bytes);
    let partition = routing.partition(topic, data.index);
    debug!(
        event = "LEADERSHIP_CHECK",
        topic = %topic.name,
        partition = data.index,
        leading = partition.is_ok(),
    );
    let partition = match partition {
        Ok(partition) => partition,
        Err(unroutable) => {
            // Whoever is thought to lead: this node may serve again before the next batch of the same connection is looked at.
            if let Ok(batch) = batch {
                let id = PartitionId { topic: topic.id, index: data.index };
                context.first_refused.refused(id, batch.producer, context.backend.now());
            }
            return Err(unroutable.into());
        }
    };
    let batch = batch?;
    let replicas = usize::try_from(data.index).ok().and_then(|index| topic.partitions.get(index));
    let config = context.metadata.config();
    let min_insync = routing.image.min_insync_replicas_set(topic).or(config.min_insync_replicas());
    if acks == Acks::All
        && replicas.is_some_and(|partition| partition.isr.len() < partition.min_insync_replicas(min_insync))
    {
        context.first_refused.refused(partition.id(), batch.producer, context.backend.now());
        return Err(ResponseError::NotEnoughReplicas.into());
    }
    let (id, producer) = (partition.id(), batch.producer);
    let inside = inner::Wanted {
        keys: settings.compaction.is_some(),
        method: settings.compression,
        bytes_max: settings.max_batch_bytes,
    };
    let looked_at = match inside.is_anything(&batch) {
        false => validate::walked(batch).map_err(NotOpened::from),
        // Boxed: what is opened here would be kept in every append that waits.
        true => Box::pin(opening::look(context, batch, inside, deadline)).await,
    };
    if let Err(NotOpened::NoRoom) = looked_at {
        context.first_refused.refused(id, producer, context.backend.now());
    }
    let mut batch = looked_at?;
    check_times(context, &settings, &batch)?;
    let to = Destination { partition: id, topic: &topic.name };
    let bytes = batch.bytes.len();
    batch.behind_refused_first =
        behind_refused_first || context.first_refused.is_before(to, producer, context.backend.now());
    let appended = async {
        admit(context, id, bytes, deadline).await?;
        match told {
            Some(told) => partition.append_unacknowledged(vec![batch], told, deadline).await,
            None => partition.append(vec![batch], acks, deadline).await,
        }
    };
    let pending = match appended.await {
        Ok(pending) => pending,
        Err(error) => {
            context.first_refused.refused(id, producer, context.backend.now());
            return Err(after_append(context, error));
        }
    };
    context.first_refused.came_through(to, producer);
    let _counted = Counted::among(&context.metrics.produce_partition_concurrency);
    Ok(InLine { append: pending, _counted })
}

/// Whether its records have times that its topic takes.
fn check_times<B: Backend>(
    context: &Context<B>,
    settings: &TopicSettings,
    batch: &CheckedBatch,
) -> Result<(), BatchError> {
    if settings.timestamps == TimestampType::LogAppendTime {
        return Ok(());
    }
    let limits = TimeLimits {
        now_ms: context.backend.wall_ms(),
        before_max: settings.timestamp_before_max,
        after_max: settings.timestamp_after_max,
    };
    validate::check_times(batch, &limits)
}

async fn admit<B: Backend>(
    context: &Context<B>,
    partition: PartitionId,
    bytes: usize,
    deadline: Deadline,
) -> Result<(), AppendError> {
    match context.admission.admit(partition, bytes) {
        Admit::Now => Ok(()),
        Admit::Refused(error) => Err(AppendError::Storage(error)),
        Admit::Wait(admitted) => match within(&context.backend, deadline, admitted).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(AppendError::Storage(error)),
            // It never came to a partition's line.
            Err(_) => Err(AppendError::Storage(SubmitError::Stalled)),
        },
    }
}

/// The partition's owner may know of a newer leader than the image did when the request came.
fn after_append<B: Backend>(context: &Context<B>, error: AppendError) -> Refusal {
    let leader = match error {
        AppendError::NotLeader(id) => {
            let routing = RoutingView::now(context);
            routing.topic(TopicKey::Id(id.topic)).ok().and_then(|topic| routing.leader(topic, id.index))
        }
        _ => None,
    };
    Refusal { leader, ..error.into() }
}
