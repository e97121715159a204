//! Starting the replicas of a node, and asking them for the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use io_backend::{Backend, Deadline, Disk, DiskError, ExitStatus, Published, Sender, channel};

use super::checkpoint::{
    CheckpointFailed, CheckpointInput, Checkpointer, Pins, Recorded, ask_for_checkpoint,
};
use super::owner::{JournalLost, Owner, ReplicasInput};
use super::reconcile::{self, ReplicaId};
use super::recover::{RecoveredReplica, SplitError, split};
use super::rescue::{self, RescueError};
use super::{Replicas, ReplicasContext};
use crate::journal::RecoveredEntry;
use crate::limits;

pub struct StartedReplicas<B: Backend> {
    pub replicas: Replicas<B>,
    pub control: ReplicasControl<B>,
}

/// For the node that started them.
pub struct ReplicasControl<B: Backend> {
    mailbox: Sender<B, ReplicasInput>,
    checkpoints: Sender<B, CheckpointInput>,
}

/// Why replicas do not start.
#[derive(Debug, thiserror::Error)]
pub enum ReplicasStartError {
    /// The journal has an entry that it cannot have.
    #[error("{0}")]
    Journal(#[from] SplitError),
    /// A directory cannot be read or made, or not within the deadline.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// A file with entries that were set aside for a partition cannot be read.
    #[error("{0}")]
    Rescued(#[from] RescueError),
    /// A partition has segments, and the journal has never heard of it.
    #[error("{0}")]
    JournalLost(#[from] JournalLost),
}

impl ReplicasStartError {
    /// What the process ends with.
    pub fn exit_status(&self) -> ExitStatus {
        ExitStatus::DataDirectory
    }
}

/// To be called when this process is registered in the image, or it leads nothing yet.
/// Opens what the image has for this node, with what the journal holds of it, and follows the image from then
/// on. When it returns, every partition that could be opened is, and leads where it may.
pub async fn start<B: Backend>(
    context: ReplicasContext<B>,
    recovered: Vec<RecoveredEntry>,
    deadline: Deadline,
) -> Result<StartedReplicas<B>, ReplicasStartError> {
    let context = Arc::new(context);
    let backend = context.backend.clone();
    let directory = context.directory();
    backend.disk().create_dir_all(&directory, deadline).await?;
    backend.disk().sync_dir(&context.config.data_dir, deadline).await?;
    let mut recovered = split(recovered)?.replicas;
    for (id, rescued) in rescue::found(&backend, &context.rescued_directory(), deadline).await? {
        let gone = reconcile::is_gone(&context.metadata.image(), id, context.node);
        if gone || !recovered.entry(id).or_default().handle_rescued(rescued.clone()) {
            // Of a partition that was deleted, or in its segments by now. Should it stay: the next start is here again.
            let _ = rescue::remove(&backend, &rescued, deadline).await;
        }
    }
    refuse_lost_journal(&context, &recovered, deadline).await?;
    let marks = recovered.iter().filter_map(|(id, replica)| Some((id.partition, replica.mark?))).collect();
    let replicas = Replicas::default();
    let pins = Published::new("replicas that are not open", Pins::default());
    let (mailbox, receiver) = channel(&backend, "replicas", 1);
    let (checkpoints, checkpoint_receiver) = channel(&backend, "checkpoint", 1);
    let mut owner =
        Owner::new(context.clone(), replicas.clone(), pins.clone(), receiver, checkpoints.clone(), recovered);
    owner.reconcile().await;
    owner.settle().await;
    owner.remove_orphans(deadline).await?;
    backend.spawn("replicas", owner.run());
    let checkpointer = Checkpointer {
        backend: backend.clone(),
        journal: context.journal.clone(),
        replicas: replicas.clone(),
        metadata: context.metadata.clone(),
        node: context.node,
        pins,
        mailbox: checkpoint_receiver,
        marks,
        recorded: Recorded::default(),
        failing: BTreeSet::new(),
        told: None,
        directory,
        entry_bytes: limits::CHECKPOINT_ENTRY_BYTES.min(context.config.journal_settings().file_bytes / 4),
        every_bytes: context.config.journal.checkpoint_bytes,
        unreleased_max: context.config.journal_settings().unreleased_bytes_max,
    };
    backend.spawn("checkpoint", checkpointer.run());
    Ok(StartedReplicas { replicas, control: ReplicasControl { mailbox, checkpoints } })
}

/// A partition has a directory only after a checkpoint, of which the journal keeps the record. Segments that it
/// says nothing of are taken for leftovers and cut, so a journal that was lost must not be taken for an empty one.
async fn refuse_lost_journal<B: Backend>(
    context: &ReplicasContext<B>,
    recovered: &BTreeMap<ReplicaId, RecoveredReplica>,
    deadline: Deadline,
) -> Result<(), ReplicasStartError> {
    let image = context.metadata.image();
    let directory = context.directory();
    for entry in context.backend.disk().read_dir(&directory, deadline).await? {
        let Some(id) = ReplicaId::from_directory(&entry.name) else { continue };
        if reconcile::is_wanted(&image, id, context.node) && !recovered.contains_key(&id) {
            let topic = image.topic_by_id(id.partition.topic).map_or("?", |topic| &*topic.name);
            let partition = format!("{topic}-{}", id.partition.index);
            return Err(JournalLost { partition, directory: directory.join(&entry.name) }.into());
        }
    }
    Ok(())
}

impl<B: Backend> ReplicasControl<B> {
    /// Brings everything durable into segments now.
    #[allow(
        dead_code,
        reason = "for whoever cannot wait for the next round; the node only closes, which ends with one"
    )]
    pub async fn checkpoint(&self, deadline: Deadline) -> Result<(), CheckpointFailed> {
        ask_for_checkpoint(&self.checkpoints, deadline).await.map(drop)
    }

    /// Checkpoints and closes every partition. The journal is still open after that.
    pub async fn close(self, deadline: Deadline) {
        let (replier, reply) = self.mailbox.reply("end of the replicas");
        let asked = self.mailbox.send(ReplicasInput::Close(deadline, replier), deadline).await;
        if asked.is_err() || reply.wait(deadline).await.is_err() {
            tracing::warn!("the replicas did not close in time; the next start replays the journal");
        }
    }
}
