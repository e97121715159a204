//! The replicas of this node: follows the metadata image, opens, promotes and deletes partitions.
//!
//! One task, `replicas`, owns which partitions are open; everyone else reads what it publishes, once
//! per batch of changes. Opening goes on in bounded parallel; the beginnings and epoch starts of all
//! partitions of a new topic share journal groups. The task `checkpoint` beside it moves the journal into
//! segments. A replica is known by topic id and incarnation: entries and files of a deleted life find nobody.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};
use im::OrdMap;
use io_backend::progress::Progress;
use io_backend::{
    Backend, Deadline, Disk, DiskError, ExitStatus, Moment, Published, Receiver, Replier, Sender, channel,
};

use crate::admin::metrics::Metrics;
use crate::config::Config;
use crate::ids::{BrokerId, Incarnation, LeaderEpoch, Lsn, PartitionId};
use crate::journal::{EntryKind, JournalHandle, RecoveredEntry, SubmitError};
use crate::limits;
use crate::metadata::{MetadataHandle, MetadataImage};
use crate::partition::PartitionHandle;

mod checkpoint;
mod open;
mod reconcile;
mod recover;

pub use checkpoint::CheckpointFailed;
use checkpoint::{CheckpointInput, Checkpointer, Pin, Pins};
pub use reconcile::{ReplicaId, Wanted};
pub use recover::{CheckpointError, RecoveredReplica, RecoveredReplicas, split};

/// Where the partitions of a data directory stand.
pub const PARTITIONS_DIRECTORY: &str = "partitions";

/// The first pause before what failed is tried again; doubled with each further failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// The partitions that this node has; cloneable.
pub struct Replicas<B: Backend> {
    pub(crate) open: Published<OrdMap<PartitionId, PartitionHandle<B>>>,
}

impl<B: Backend> Clone for Replicas<B> {
    fn clone(&self) -> Self {
        Replicas { open: self.open.clone() }
    }
}

impl<B: Backend> Replicas<B> {
    pub fn get(&self, id: PartitionId) -> Option<PartitionHandle<B>> {
        self.open.get().get(&id).cloned()
    }

    /// All open partitions, and a way to wait for more.
    pub fn open(&self) -> &Published<OrdMap<PartitionId, PartitionHandle<B>>> {
        &self.open
    }
}

pub type OpenReplicas<B> = Arc<OrdMap<PartitionId, PartitionHandle<B>>>;

/// What the replicas of a node need.
pub struct ReplicasContext<B: Backend> {
    pub backend: B,
    pub config: Arc<Config>,
    pub metrics: Arc<Metrics>,
    pub node: BrokerId,
    pub incarnation: Incarnation,
    pub metadata: MetadataHandle<B>,
    /// The journal of all partitions.
    pub journal: JournalHandle,
}

pub struct StartedReplicas<B: Backend> {
    pub replicas: Replicas<B>,
    pub control: ReplicasControl<B>,
}

/// For the node that started them.
pub struct ReplicasControl<B: Backend> {
    mailbox: Sender<B, ReplicasInput>,
    checkpoints: Sender<B, CheckpointInput>,
}

enum ReplicasInput {
    /// Checkpoints, then closes every partition.
    Close(Deadline, Replier<()>),
}

/// Why replicas do not start.
#[derive(Debug, thiserror::Error)]
pub enum ReplicasStartError {
    #[error("{0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("{0}")]
    Disk(#[from] DiskError),
    #[error(
        "the journal knows nothing of {partition}, whose records are in {directory}: it cannot say which of them are \
         whole and acknowledged. Restore the journal with the rest of the data directory from a backup; or, to give \
         these records up, move {directory} away"
    )]
    JournalLost { partition: String, directory: PathBuf },
}

impl ReplicasStartError {
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
    let recovered = split(recovered)?.replicas;
    refuse_lost_journal(&context, &recovered, deadline).await?;
    let marks = recovered.iter().filter_map(|(id, replica)| Some((id.partition, replica.mark?))).collect();
    let replicas = Replicas { open: Published::new("open replicas", OrdMap::new()) };
    let pins = Published::new("replicas that are not open", Pins::default());
    let (mailbox, receiver) = channel(&backend, "replicas", 1);
    let (checkpoints, checkpoint_receiver) = channel(&backend, "checkpoint", 1);
    let mut owner = Owner {
        context: context.clone(),
        replicas: replicas.clone(),
        pins: pins.clone(),
        mailbox: receiver,
        checkpoints: checkpoints.clone(),
        open: BTreeMap::new(),
        recovered,
        seen: 0,
        retry: None,
        failures: 0,
    };
    owner.reconcile().await;
    owner.remove_orphans(deadline).await?;
    backend.spawn("replicas", owner.run());
    let checkpointer = Checkpointer {
        backend: backend.clone(),
        journal: context.journal.clone(),
        replicas: replicas.clone(),
        pins,
        mailbox: checkpoint_receiver,
        marks,
        directory,
        entry_bytes: limits::CHECKPOINT_ENTRY_BYTES.min(context.config.journal_settings().file_bytes / 4),
        every_bytes: context.config.journal.checkpoint_bytes,
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
            return Err(ReplicasStartError::JournalLost {
                partition: format!("{topic}-{}", id.partition.index),
                directory: directory.join(&entry.name),
            });
        }
    }
    Ok(())
}

impl<B: Backend> ReplicasControl<B> {
    /// Brings everything durable into segments now.
    pub async fn checkpoint(&self, deadline: Deadline) -> Result<(), CheckpointFailed> {
        ask_for_checkpoint(&self.checkpoints, deadline).await
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

async fn ask_for_checkpoint<B: Backend>(
    checkpoints: &Sender<B, CheckpointInput>,
    deadline: Deadline,
) -> Result<(), CheckpointFailed> {
    let (replier, reply) = checkpoints.reply("checkpoint");
    let asked = checkpoints.send(CheckpointInput::Now(replier), deadline).await;
    asked.map_err(|_| CheckpointFailed::NotDurable)?;
    reply.wait(deadline).await.unwrap_or(Err(CheckpointFailed::NotDurable))
}

impl<B: Backend> ReplicasContext<B> {
    pub(crate) fn directory(&self) -> PathBuf {
        self.config.data_dir.join(PARTITIONS_DIRECTORY)
    }

    fn soon(&self) -> Deadline {
        Deadline::after(&self.backend, limits::ASK_DEADLINE)
    }
}

struct OpenReplica<B: Backend> {
    partition: PartitionHandle<B>,
    /// Under which epoch it leads.
    led: Option<LeaderEpoch>,
}

struct Owner<B: Backend> {
    context: Arc<ReplicasContext<B>>,
    replicas: Replicas<B>,
    pins: Published<Pins>,
    mailbox: Receiver<B, ReplicasInput>,
    checkpoints: Sender<B, CheckpointInput>,
    open: BTreeMap<ReplicaId, OpenReplica<B>>,
    /// Of replicas that are not open yet.
    recovered: BTreeMap<ReplicaId, RecoveredReplica>,
    /// Index of the image that was last compared with.
    seen: u64,
    /// When what failed is tried again.
    retry: Option<Moment>,
    failures: u32,
}

impl<B: Backend> Owner<B> {
    async fn run(mut self) {
        loop {
            match self.next_input().await {
                Some(ReplicasInput::Close(deadline, replier)) => {
                    self.close(deadline).await;
                    replier.answer(());
                    return;
                }
                None => self.reconcile().await,
            }
        }
    }

    /// `None`: the image has changed, or what failed is to be tried again.
    async fn next_input(&mut self) -> Option<ReplicasInput> {
        const MAILBOX: Deadline = Deadline::Unbounded("the replicas follow the metadata image");
        let context = self.context.clone();
        let seen = self.seen;
        let until = self.retry.map_or(MAILBOX, Deadline::At);
        let images = context.metadata.images();
        let changed = pin!(images.until(&context.backend, until, move |image| image.index > seen));
        let asked = pin!(self.mailbox.receive(MAILBOX));
        match select(asked, changed).await {
            Either::Left((Ok(input), _)) => Some(input),
            // Whoever started us has gone without a word: what is open stays open until the process ends.
            Either::Left((Err(_), changed)) => {
                let _ = changed.await;
                None
            }
            Either::Right(_) => None,
        }
    }

    /// Brings what is open to what the image says.
    async fn reconcile(&mut self) {
        let image = self.context.metadata.image();
        self.seen = image.index;
        self.retry = None;
        self.recovered.retain(|id, _| reconcile::is_wanted(&image, *id, self.context.node));
        let plan = self.plan(&image);
        let mut failed = 0;
        self.delete(plan.delete).await;
        failed += self.open(plan.open).await;
        failed += self.lead(plan.lead).await;
        self.publish();
        self.publish_pins(&[]);
        if failed == 0 {
            self.failures = 0;
            return;
        }
        let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(6)).min(RETRY_LAST);
        self.failures += 1;
        self.retry = Some(self.context.backend.now() + pause);
        tracing::warn!(
            failed,
            pause_s = pause.as_secs(),
            "not all partitions serve; trying again after a pause"
        );
    }

    fn plan(&self, image: &MetadataImage) -> reconcile::Plan {
        let open = self.open.iter().map(|(id, replica)| (*id, replica.led)).collect();
        reconcile::reconcile(image, &open, self.context.node, self.context.incarnation)
    }

    async fn delete(&mut self, ids: Vec<ReplicaId>) {
        if ids.is_empty() {
            return;
        }
        let gone: Vec<_> = ids.iter().filter_map(|id| Some((*id, self.open.remove(id)?))).collect();
        // Nobody finds it any more before its files go.
        self.publish();
        if let Err(error) = self.journal_lives(EntryKind::ReplicaDelete, &ids) {
            // The image says so, too, and is what counts at the next start.
            tracing::debug!(error = %error, "deletion of replicas not journaled");
        }
        let deadline = self.context.soon();
        let context = &self.context;
        futures::stream::iter(gone)
            .map(|(id, replica)| {
                let directory = context.directory().join(id.directory());
                let backend = context.backend.clone();
                async move {
                    replica.partition.close(true, deadline).await;
                    if let Err(error) = backend.disk().remove_dir_all(&directory, deadline).await {
                        tracing::warn!(error = %error, "files of a deleted partition stay until the next start");
                    }
                }
            })
            .buffer_unordered(limits::REPLICAS_OPENED_AT_ONCE)
            .collect::<Vec<()>>()
            .await;
    }

    /// Puts the beginnings or ends of these in line. Nobody waits for them: what follows of a new replica
    /// stands behind them, and an end is in the image.
    fn journal_lives(&self, kind: EntryKind, ids: &[ReplicaId]) -> Result<(), SubmitError> {
        let at_once = self.context.config.journal_settings().queue_entries.div_ceil(4).max(1);
        for ids in ids.chunks(at_once) {
            let entries = ids.iter().map(|id| recover::life_entry(kind, *id)).collect();
            self.context.journal.submit(entries, &Arc::new(Progress::default()))?;
        }
        Ok(())
    }

    /// Opens these; returns how many could not be.
    async fn open(&mut self, wanted: Vec<Wanted>) -> usize {
        if wanted.is_empty() {
            return 0;
        }
        let new: Vec<ReplicaId> =
            wanted.iter().map(|wanted| wanted.id).filter(|id| !self.recovered.contains_key(id)).collect();
        self.publish_pins(&wanted.iter().map(|wanted| wanted.id).collect::<Vec<_>>());
        let begun =
            new.iter().map(|id| recover::life_entry(EntryKind::ReplicaCreate, *id)).collect::<Vec<_>>();
        if !begun.is_empty()
            && let Err(error) = self.context.journal.submit(begun, &Arc::new(Progress::default()))
        {
            tracing::warn!(error = %error, partitions = wanted.len(), "partitions not opened");
            return wanted.len();
        }
        let deadline = Deadline::after(&self.context.backend, limits::OPEN_DEADLINE);
        let opening: Vec<_> = wanted
            .into_iter()
            .map(|wanted| {
                let recovered = self.recovered.get(&wanted.id).cloned().unwrap_or_default();
                (self.context.clone(), wanted, recovered)
            })
            .collect();
        let opened: Vec<_> = futures::stream::iter(opening)
            .map(|(context, wanted, recovered)| async move {
                let (id, name) = (wanted.id, wanted.topic.name.clone());
                (id, name, open::open_replica(context, wanted, recovered, deadline).await)
            })
            .buffer_unordered(limits::REPLICAS_OPENED_AT_ONCE)
            .collect()
            .await;
        let mut failed = 0;
        for (id, topic, result) in opened {
            match result {
                Ok(partition) => {
                    self.recovered.remove(&id);
                    self.open.insert(id, OpenReplica { partition, led: None });
                }
                Err(error) => {
                    failed += 1;
                    let index = id.partition.index;
                    tracing::error!(%topic, index, error = %error, "partition not opened");
                }
            }
        }
        failed
    }

    /// Begins to lead these; returns how many could not.
    async fn lead(&mut self, granted: Vec<(ReplicaId, LeaderEpoch)>) -> usize {
        let deadline = self.context.soon();
        let leading: Vec<_> = granted
            .into_iter()
            .filter_map(|(id, epoch)| Some((id, epoch, self.open.get(&id)?.partition.clone())))
            .collect();
        let led: Vec<_> = futures::stream::iter(leading)
            .map(|(id, epoch, partition)| async move { (id, epoch, partition.lead(epoch, deadline).await) })
            .buffer_unordered(limits::LEADERSHIPS_AT_ONCE)
            .collect()
            .await;
        let mut failed = 0;
        for (id, epoch, result) in led {
            match (result, self.open.get_mut(&id)) {
                (Ok(()), Some(replica)) => replica.led = Some(epoch),
                (Ok(()), None) => {}
                (Err(error), _) => {
                    failed += 1;
                    tracing::warn!(partition = %id.partition, %epoch, error = %error, "leadership did not begin");
                }
            }
        }
        failed
    }

    /// Shows what is open, if that changed.
    fn publish(&self) {
        let before = self.replicas.open.get();
        let same =
            before.len() == self.open.len() && self.open.keys().all(|id| before.contains_key(&id.partition));
        if !same {
            let open = self.open.iter().map(|(id, replica)| (id.partition, replica.partition.clone()));
            self.replicas.open.publish(open.collect());
        }
    }

    /// Says what the journal must keep for replicas that are not open, those about to be opened included.
    fn publish_pins(&self, opening: &[ReplicaId]) {
        let mut pins = BTreeMap::new();
        for (id, recovered) in &self.recovered {
            pins.insert(*id, Pin { mark: recovered.mark, needed_from: recovered.needed_from() });
        }
        let from_now = Lsn(self.context.journal.status().submitted.0 + 1);
        for id in opening {
            let pin = pins.entry(*id).or_insert(Pin { mark: None, needed_from: None });
            pin.needed_from.get_or_insert(from_now);
        }
        let pins = Pins(pins);
        if *self.pins.get() != pins {
            self.pins.publish(pins);
        }
    }

    /// Removes what an interrupted deletion left behind.
    async fn remove_orphans(&self, deadline: Deadline) -> Result<(), DiskError> {
        let disk = self.context.backend.disk();
        let directory = self.context.directory();
        let image = self.context.metadata.image();
        for entry in disk.read_dir(&directory, deadline).await? {
            let Some(id) = ReplicaId::from_directory(&entry.name) else { continue };
            if !reconcile::is_wanted(&image, id, self.context.node) {
                tracing::info!(partition = %id.partition, "removing the files of a partition that was deleted");
                disk.remove_dir_all(&directory.join(&entry.name), deadline).await?;
            }
        }
        Ok(())
    }

    async fn close(&mut self, deadline: Deadline) {
        if let Err(error) = ask_for_checkpoint(&self.checkpoints, deadline).await {
            tracing::warn!(error = %error, "no checkpoint at the end; the next start replays the journal");
        }
        let open: Vec<_> = std::mem::take(&mut self.open).into_values().collect();
        self.publish();
        futures::stream::iter(open)
            .map(|replica| async move { replica.partition.close(false, deadline).await })
            .buffer_unordered(limits::LEADERSHIPS_AT_ONCE)
            .collect::<Vec<()>>()
            .await;
    }
}

#[cfg(test)]
mod tests;
