//! The task `replicas`: what is open, and how it comes to what the metadata image says.
//!
//! It wakes when the image changes or when it is told to close; after a failure also after a pause, to try again.
//! Whatever is about to be opened pins its entries first, and is unpinned only when a checkpoint can see it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{Either, select};
use futures::{FutureExt, StreamExt};
use io_backend::{
    Backend, Deadline, Disk, DiskError, Moment, Published, Receiver, Replier, Sender, TaskHandle,
};

use super::checkpoint::{CheckpointInput, Pin, Pins, ask_for_checkpoint};
use super::cleaner::Cleaner;
use super::reconcile::{self, ReplicaId, Role};
use super::recover::{RecoveredReplica, Rescued};
use super::retention::Retention;
use super::roles::{Roles, Taken};
use super::{NotLed, NotOpen, Replicas, ReplicasContext, lives, open, rescue};
use crate::config::Config;
use crate::ids::Lsn;
use crate::limits;
use crate::log::open_files::OpenFiles;
use crate::metadata::{MetadataImage, TopicImage};
use crate::partition::{PartitionHandle, Schedules};

mod opening;

/// The first pause before what failed is tried again; doubled with each further failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// Before the partitions are closed: what goes on without an end is for the next start.
const CHECKPOINTS_AT_THE_END_MAX: usize = 4;

pub(super) enum ReplicasInput {
    /// Checkpoints, then closes every partition.
    Close(Deadline, Replier<()>),
}

/// What the task does next.
enum Next {
    Input(ReplicasInput),
    /// The image has changed, or what failed is to be tried again.
    Reconcile,
    Taken(Vec<Taken>),
}

/// A partition has segments, and the journal has never heard of it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal knows nothing of {partition}, whose records are in {directory}: it cannot say which of them are \
     whole and acknowledged. Restore the journal with the rest of the data directory from a backup; or, to give \
     these records up, move {directory} away"
)]
pub struct JournalLost {
    pub(super) partition: String,
    pub(super) directory: PathBuf,
}

struct OpenReplica<B: Backend> {
    partition: PartitionHandle<B>,
    /// As its partition knows it.
    topic: Arc<TopicImage>,
    /// What its partition's settings were made from, beside the topic.
    config: Arc<Config>,
    /// What it was told to be, and is.
    role: Option<Role>,
}

pub(super) struct Owner<B: Backend> {
    context: Arc<ReplicasContext<B>>,
    replicas: Replicas<B>,
    /// The segment files of all of them.
    open_files: OpenFiles<B>,
    schedules: Schedules,
    /// The tasks that delete what is old, and clean what is compacted.
    beside: Vec<TaskHandle>,
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
    /// How many that last were, as the log says.
    told_failed: usize,
    /// Partitions that did not open at the last try.
    not_open: NotOpen,
    /// How many that were.
    not_opened: usize,
    /// Those of them that nothing is wrong with but what they all need.
    not_begun: Option<NotLed>,
    /// What open partitions were told to be, and are not yet.
    roles: Roles,
    /// Those that have not become it at the last try, and why.
    failing: BTreeMap<ReplicaId, String>,
    /// Not all have taken their settings over.
    not_configured: bool,
    /// Files whose entries are in partitions that have opened.
    mended: Vec<Rescued>,
    /// Directories of which neither the image nor the journal says anything yet: the image may lag.
    unknown: BTreeSet<ReplicaId>,
    /// Topics that something is counted of.
    counted: BTreeSet<Arc<str>>,
}

impl<B: Backend> Owner<B> {
    pub(super) fn new(
        context: Arc<ReplicasContext<B>>,
        replicas: Replicas<B>,
        pins: Published<Pins>,
        mailbox: Receiver<B, ReplicasInput>,
        checkpoints: Sender<B, CheckpointInput>,
        recovered: BTreeMap<ReplicaId, RecoveredReplica>,
    ) -> Owner<B> {
        Owner {
            open_files: OpenFiles::new(context.backend.clone(), context.config.log.open_files),
            context,
            replicas,
            schedules: Schedules::default(),
            beside: Vec::new(),
            pins,
            mailbox,
            checkpoints,
            open: BTreeMap::new(),
            recovered,
            seen: 0,
            retry: None,
            failures: 0,
            told_failed: 0,
            not_open: NotOpen::new(),
            not_opened: 0,
            not_begun: None,
            roles: Roles::default(),
            failing: BTreeMap::new(),
            not_configured: false,
            mended: Vec::new(),
            unknown: BTreeSet::new(),
            counted: BTreeSet::new(),
        }
    }

    /// The task `replicas`, and `retention` and `cleaner` beside it.
    pub(super) async fn run(mut self) {
        let Schedules { retention, cleaning } = self.schedules.clone();
        let (context, replicas, checkpoints) = (&self.context, &self.replicas, &self.checkpoints);
        let retention = Retention::new(context.clone(), replicas.clone(), checkpoints.clone(), retention);
        let cleaner = Cleaner::new(context.clone(), replicas.clone(), checkpoints.clone(), cleaning);
        self.beside.push(self.context.backend.spawn("retention", retention.run()));
        self.beside.push(self.context.backend.spawn("cleaner", cleaner.run()));
        loop {
            match self.next_input().await {
                Next::Input(ReplicasInput::Close(deadline, replier)) => {
                    self.close(deadline).await;
                    replier.answer(());
                    return;
                }
                Next::Reconcile => self.reconcile().await,
                Next::Taken(taken) => self.handle_taken(taken),
            }
        }
    }

    async fn next_input(&mut self) -> Next {
        const MAILBOX: Deadline = Deadline::Unbounded("the replicas follow the metadata image");
        let context = self.context.clone();
        let seen = self.seen;
        let until = self.retry.map_or(MAILBOX, Deadline::At);
        let images = context.metadata.images();
        let changed = images.until(&context.backend, until, move |image| image.index > seen);
        let changed = pin!(changed.map(|_| Next::Reconcile));
        let (roles, mailbox) = (&mut self.roles, &mut self.mailbox);
        let taken = poll_fn(|cx| roles.poll_taken(cx).map(Next::Taken));
        let news = select(taken, changed).map(|either| either.factor_first().0);
        let asked = pin!(mailbox.receive(MAILBOX));
        match select(asked, pin!(news)).await {
            Either::Left((Ok(input), _)) => Next::Input(input),
            // Whoever started us has gone without a word: what is open stays open until the process ends.
            Either::Left((Err(_), news)) => news.await,
            Either::Right((next, _)) => next,
        }
    }

    /// Brings what is open to what the image says.
    pub(super) async fn reconcile(&mut self) {
        let image = self.context.metadata.image();
        self.seen = image.index;
        self.retry = None;
        let plan = self.plan(&image);
        let is_open = |(id, _): &(ReplicaId, Role)| self.open.contains_key(id);
        let (now, when_open): (Vec<_>, Vec<_>) = plan.roles.into_iter().partition(is_open);
        self.tell_roles(now).await;
        let mut gone = plan.delete;
        let is_gone = |id: &&ReplicaId| reconcile::is_gone(&image, **id, self.context.node);
        gone.extend(self.recovered.keys().chain(&self.unknown).filter(is_gone));
        self.delete(gone).await;
        self.forget_counts(&image);
        self.not_configured = !self.configure(&image).await;
        self.not_open.clear();
        self.not_begun = None;
        self.not_opened = self.open(plan.open).await;
        self.tell_roles(when_open).await;
        // Those first that need no pin any more, for a checkpoint sees them.
        self.publish();
        self.publish_pins(&[]);
        self.forget_rescued();
        self.settle_up();
    }

    /// Says how it stands, and when what failed is tried again.
    fn settle_up(&mut self) {
        self.publish();
        let failed = self.not_opened + self.failing.len();
        if self.told_failed != failed {
            match failed {
                0 => tracing::info!("all partitions serve"),
                _ => tracing::warn!(
                    failed,
                    "not all partitions serve; what failed is tried again every few seconds"
                ),
            }
            self.told_failed = failed;
        }
        if failed == 0 && !self.not_configured {
            if self.roles.is_empty() {
                self.failures = 0;
            }
        } else if self.retry.is_none() {
            let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(6)).min(RETRY_LAST);
            self.failures += 1;
            self.retry = Some(self.context.backend.now() + pause);
        }
    }

    fn plan(&self, image: &MetadataImage) -> reconcile::Plan {
        let told = |id: &ReplicaId, replica| self.roles.told(*id).or(replica);
        let open = self.open.iter().map(|(id, replica)| (*id, told(id, replica.role.as_ref()))).collect();
        let min_insync = self.context.metadata.config().min_insync_replicas();
        reconcile::reconcile(image, &open, self.context.node, self.context.broker_epoch, min_insync)
    }

    /// Tells open partitions how their topics are kept from now on; whether all have taken it over.
    async fn configure(&mut self, image: &MetadataImage) -> bool {
        let (deadline, config) = (self.context.soon(), self.context.metadata.config());
        let mut all = true;
        for (id, replica) in &mut self.open {
            let Some(topic) = image.topic_by_id(id.partition.topic) else { continue };
            if Arc::ptr_eq(topic, &replica.topic) && Arc::ptr_eq(&config, &replica.config) {
                continue;
            }
            let settings = open::log_settings(topic, &config);
            if settings != open::log_settings(&replica.topic, &replica.config)
                && let Err(error) = replica.partition.configure(settings, deadline).await
            {
                tracing::warn!(partition = %id.partition, error = %error, "new settings are not taken over yet");
                all = false;
                continue;
            }
            replica.topic = topic.clone();
            replica.config = config.clone();
        }
        all
    }

    /// Open, never opened, or found in the journal by a start that comes after the end of their topic.
    async fn delete(&mut self, ids: Vec<ReplicaId>) {
        if ids.is_empty() {
            return;
        }
        let gone: Vec<_> =
            ids.iter().map(|id| (*id, self.open.remove(id), self.recovered.remove(id))).collect();
        self.unknown.retain(|id| !ids.contains(id));
        for id in &ids {
            self.roles.forget(*id);
            self.failing.remove(id);
        }
        // Nobody finds it any more before its files go.
        self.publish();
        if let Err(error) = lives::end(&self.context, &ids) {
            // The image says so, too, and is what counts at the next start.
            tracing::debug!(error = %error, "deletion of replicas not journaled");
        }
        let deadline = self.context.soon();
        let context = &self.context;
        futures::stream::iter(gone)
            .map(|(id, open, recovered)| {
                let directory = context.directory().join(id.directory());
                let backend = context.backend.clone();
                async move {
                    if let Some(replica) = open {
                        replica.partition.close(true, deadline).await;
                    }
                    let mut removed = backend.disk().remove_dir_all(&directory, deadline).await;
                    if let Some(rescued) = recovered.and_then(|replica| replica.rescued) {
                        removed = removed.and(rescue::remove(&backend, &rescued, deadline).await);
                    }
                    if let Err(error) = removed {
                        tracing::warn!(error = %error, "files of a deleted partition stay until the next start");
                    }
                }
            })
            .buffer_unordered(limits::REPLICAS_OPENED_AT_ONCE)
            .collect::<Vec<()>>()
            .await;
    }

    /// A topic's counts end with the topic, whether or not a partition of it ever opened.
    fn forget_counts(&mut self, image: &MetadataImage) {
        for topic in self.counted.extract_if(.., |topic| !image.topics.contains_key(topic)) {
            self.context.metrics.forget_topic(&topic);
        }
    }

    /// Tells open partitions what they are from now on: when this returns they have been, and some have answered.
    async fn tell_roles(&mut self, roles: Vec<(ReplicaId, Role)>) {
        let deadline = self.context.soon();
        for (id, role) in roles {
            let Some(replica) = self.open.get(&id) else { continue };
            let led = replica.role.as_ref().and_then(Role::leads_in);
            self.roles.tell(id, replica.partition.clone(), role, led, deadline);
        }
        if let Poll::Ready(taken) = poll_fn(|cx| Poll::Ready(self.roles.poll_taken(cx))).await {
            self.note_taken(taken);
        }
    }

    fn handle_taken(&mut self, taken: Vec<Taken>) {
        self.note_taken(taken);
        self.settle_up();
    }

    /// What became of roles that partitions were told.
    fn note_taken(&mut self, taken: Vec<Taken>) {
        for Taken { id, role, result, held } in taken {
            let Some(replica) = self.open.get_mut(&id) else { continue };
            if held {
                // Once for each that has answered: what failed meanwhile and is told again with it may fail at once again.
                self.retry = Some(self.context.backend.now());
            }
            match result {
                Ok(()) => {
                    replica.role = Some(role);
                    self.failing.remove(&id);
                }
                Err(error) => {
                    tracing::warn!(partition = %id.partition, ?role, error = %error, "a replica has not taken its role");
                    let goes_on =
                        |before: &Role| before.leads_in().is_some() && before.leads_in() == role.leads_in();
                    // What it is instead is not known, but where it leads on and has not heard who is in sync.
                    replica.role.take_if(|before| !goes_on(before));
                    self.failing.insert(id, error.to_string());
                }
            }
        }
    }

    /// Waits until all have become what they were told, or have failed to.
    pub(super) async fn settle(&mut self) {
        while !self.roles.is_empty() {
            let taken = poll_fn(|cx| self.roles.poll_taken(cx)).await;
            self.handle_taken(taken);
        }
    }

    /// Partitions that could not begin to serve.
    fn not_led(&self) -> Option<NotLed> {
        let failing = self.failing.values().next().map(|why| NotLed { partitions: 0, why: why.clone() });
        let not_led = self.not_begun.clone().or(failing)?;
        Some(NotLed { partitions: not_led.partitions + self.failing.len(), ..not_led })
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
        if *self.replicas.not_open.get() != self.not_open {
            self.replicas.not_open.publish(self.not_open.clone());
        }
        let not_led = self.not_led();
        if *self.replicas.not_led.get() != not_led {
            self.replicas.not_led.publish(not_led);
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
        let pins = Pins { replicas: pins, closing: false };
        if *self.pins.get() != pins {
            self.pins.publish(pins);
        }
    }

    /// Removes what an interrupted deletion left behind.
    pub(super) async fn remove_orphans(&mut self, deadline: Deadline) -> Result<(), DiskError> {
        let disk = self.context.backend.disk();
        let directory = self.context.directory();
        let image = self.context.metadata.image();
        for entry in disk.read_dir(&directory, deadline).await? {
            let Some(id) = ReplicaId::from_directory(&entry.name) else { continue };
            if reconcile::is_gone(&image, id, self.context.node) {
                tracing::info!(partition = %id.partition, "removing the files of a partition that was deleted");
                disk.remove_dir_all(&directory.join(&entry.name), deadline).await?;
            } else if !reconcile::is_wanted(&image, id, self.context.node)
                && !self.recovered.contains_key(&id)
            {
                self.unknown.insert(id);
            }
        }
        Ok(())
    }

    async fn close(&mut self, deadline: Deadline) {
        for beside in self.beside.drain(..) {
            beside.abort();
        }
        // A checkpoint holds what was durable when it began. What nobody waits for any more is so by its end; who has only just heard
        // that he is to lead begins in the middle of it.
        for _ in 0..CHECKPOINTS_AT_THE_END_MAX {
            match ask_for_checkpoint(&self.checkpoints, deadline).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = %error, "no checkpoint at the end; the next start replays the journal");
                    break;
                }
            }
        }
        // Before they are gone: a round of checkpoints must not take them for replicas that never began.
        self.pins.publish(Pins { closing: true, ..(*self.pins.get()).clone() });
        let open: Vec<_> = std::mem::take(&mut self.open).into_values().collect();
        self.publish();
        futures::stream::iter(open)
            .map(|replica| async move { replica.partition.close(false, deadline).await })
            .buffer_unordered(limits::LEADERSHIPS_AT_ONCE)
            .collect::<Vec<()>>()
            .await;
    }
}
