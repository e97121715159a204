//! The task `coordinator[__consumer_offsets-<n>]`: answers for the groups of one partition, while this node leads it.
//!
//! It loads what the partition has, up to where the log ends once this node leads, decides by the [`Shard`], appends what that says, and gives answers when what they rest on is committed. It waits for nothing alone: questions, time, the log and the
//! leadership are looked at together. Who asks while it loads, or while another node leads, is told so at once.
//!
//! An append that fails takes all with it: what was decided since rests on what is not there. The shard is dropped, who waits is
//! told to ask again, and what there is is loaded anew.

use std::future::poll_fn;
use std::panic::Location;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use io_backend::published::Watcher;
use io_backend::{Backend, Deadline, Moment, Published, Receiver, Replier, WaitKind, within};
use prometheus_client::metrics::gauge::Gauge;

use super::batches;
use super::image_topics::ImageTopics;
use super::loading;
use super::messages::{CoordinatorError, CoordinatorInput, Waiting};
use super::outbox::{Held, Outbox};
use super::progress::Progress;
use super::settings::GroupSettings;
use super::shard::{Effects, Rules, Shard};
use super::shown::Shown;
use crate::ids::LeaderEpoch;
use crate::limits;
use crate::metadata::MetadataImage;
use crate::metrics::Metrics;
use crate::partition::replica_state::Now;
use crate::partition::{Acks, AppendError, Appended, PartitionHandle, PartitionView};

/// Before a partition that could not be loaded, or did not take a record, is loaded again; twice as long each time that this fails.
const LOAD_AGAIN: Duration = Duration::from_millis(500);
const LOAD_AGAIN_MAX: Duration = Duration::from_secs(5);
/// What is appended at once: what comes meanwhile goes into the next append.
const APPEND_BYTES: usize = 1 << 20;
/// Above this nothing more is decided: who asks waits in the mailbox.
const UNDECIDED_ABOVE: usize = 8 << 20;

type Load = BoxFuture<'static, Result<Shard<Waiting>, loading::LoadError>>;

pub(super) struct Driver<B: Backend> {
    backend: B,
    partition: PartitionHandle<B>,
    views: Watcher<PartitionView>,
    mailbox: Receiver<B, CoordinatorInput>,
    settings: Published<GroupSettings>,
    images: Published<MetadataImage>,
    metrics: Arc<Metrics>,
    topics: ImageTopics,
    shown: Shown,
    duty: Duty,
    /// Loads and appends that came to nothing since the last append that was kept.
    failed: u32,
}

/// What this node has to do with the partition.
enum Duty {
    /// Another node leads it.
    Away,
    /// It leads, and what went wrong may do so again at once.
    Pausing {
        epoch: LeaderEpoch,
        until: Moment,
    },
    Loading {
        epoch: LeaderEpoch,
        load: Load,
    },
    Serving(Box<Serving>),
}

struct Serving {
    epoch: LeaderEpoch,
    shard: Shard<Waiting>,
    outbox: Outbox,
    append: Option<BoxFuture<'static, Result<Appended, AppendError>>>,
    /// When it is looked for what may be forgotten.
    forget_at: Moment,
    _counted: Counted,
}

/// Counted by a gauge for as long as it lives.
struct Counted(Gauge);

impl Counted {
    fn by(gauge: &Gauge) -> Counted {
        gauge.inc();
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Why the driver woke up.
#[derive(Default)]
struct Woken {
    view: PartitionView,
    loaded: Option<Result<Shard<Waiting>, loading::LoadError>>,
    appended: Option<Result<Appended, AppendError>>,
    /// The mailbox was not looked into.
    was_closed: bool,
    abandoned: bool,
}

impl<B: Backend> Driver<B> {
    pub(super) fn new(
        backend: B,
        partition: PartitionHandle<B>,
        mailbox: Receiver<B, CoordinatorInput>,
        settings: Published<GroupSettings>,
        images: Published<MetadataImage>,
        metrics: Arc<Metrics>,
        progress: Published<Progress>,
    ) -> Driver<B> {
        let views = partition.views().watcher();
        let topics = ImageTopics::of(&images);
        Driver {
            backend,
            partition,
            views,
            mailbox,
            settings,
            images,
            metrics,
            topics,
            shown: Shown::of(progress),
            duty: Duty::Away,
            failed: 0,
        }
    }

    /// Ends when nobody can ask any more.
    pub(super) async fn run(mut self) {
        self.mailbox.claim();
        let mut inputs = Vec::new();
        loop {
            let woken = self.wait(&mut inputs).await;
            // First what came of the epoch that it was begun in: another one may have begun since.
            self.take_loaded(woken.loaded);
            self.take_appended(woken.appended);
            self.follow(woken.view);
            let mut held = Vec::new();
            for input in inputs.drain(..) {
                self.handle(input, &mut held);
            }
            // Who cannot be heard is not silent.
            if !woken.was_closed {
                self.handle_time(&mut held);
            }
            self.decided(held);
            self.append();
            if woken.abandoned {
                return;
            }
        }
    }

    fn now(&self) -> Now {
        Now { moment: self.backend.now(), wall_ms: self.backend.wall_ms() }
    }

    async fn wait(&mut self, inputs: &mut Vec<CoordinatorInput>) -> Woken {
        let backend = self.backend.clone();
        const IDLE: Deadline = Deadline::Unbounded("a coordinator waits to be asked, and for its partition");
        let deadline = self.next_deadline().map_or(IDLE, Deadline::At);
        let waiting = backend
            .registry()
            .waiting(&backend, WaitKind::Receive, "questions about groups", Location::caller())
            .on(self.partition.name().clone())
            .bounded_by(deadline);
        let epoch = self.duty.epoch();
        let ready = poll_fn(|cx| {
            let mut woken = Woken { view: *self.views.watch(cx.waker()), ..Woken::default() };
            if epoch != led_in(&woken.view) {
                // What was decided in another epoch is not appended in this one.
                return Poll::Ready(woken);
            }
            let mut ready = self.duty.poll(cx, &mut woken);
            woken.was_closed = self.duty.has_much_to_keep();
            if woken.was_closed {
                return if ready { Poll::Ready(woken) } else { Poll::Pending };
            }
            match self.mailbox.poll_receive_many(cx, inputs, limits::COORDINATOR_MAILBOX) {
                Poll::Ready(Some(_)) => ready = true,
                Poll::Ready(None) => {
                    woken.abandoned = true;
                    ready = true;
                }
                Poll::Pending => {}
            }
            if ready { Poll::Ready(woken) } else { Poll::Pending }
        });
        match within(&backend, deadline, waiting.during(ready)).await {
            Ok(woken) => woken,
            Err(_) => Woken { view: *self.partition.views().get(), ..Woken::default() },
        }
    }

    fn next_deadline(&self) -> Option<Moment> {
        let due = self.duty.next_deadline()?;
        Some(self.shown.due().map_or(due, |shown| shown.min(due)))
    }

    /// Takes up the leadership, or gives up what there was under another.
    fn follow(&mut self, view: PartitionView) {
        let leads = led_in(&view);
        match (leads, self.duty.epoch()) {
            (now, before) if now == before => {
                if let (Some(epoch), Duty::Pausing { until, .. }) = (now, &self.duty)
                    && *until <= self.backend.now()
                {
                    self.load(epoch);
                }
            }
            (Some(epoch), _) => {
                self.lay_down(&CoordinatorError::NotCoordinator);
                self.load(epoch);
            }
            (None, _) => self.lay_down(&CoordinatorError::NotCoordinator),
        }
    }

    fn load(&mut self, epoch: LeaderEpoch) {
        let load = Box::pin(loading::load(self.backend.clone(), self.partition.clone(), epoch));
        self.duty = Duty::Loading { epoch, load };
    }

    /// Who waits is told why it waits in vain.
    fn lay_down(&mut self, why: &CoordinatorError) {
        if let Duty::Serving(serving) = std::mem::replace(&mut self.duty, Duty::Away) {
            self.shown.nothing();
            let Serving { shard, outbox, .. } = *serving;
            outbox.refuse(why);
            for waiting in shard.into_waiting() {
                waiting.refuse(why.clone());
            }
        }
    }

    fn pause(&mut self, epoch: LeaderEpoch) {
        self.lay_down(&CoordinatorError::NotKept);
        let pause = LOAD_AGAIN.saturating_mul(1 << self.failed.min(10)).min(LOAD_AGAIN_MAX);
        self.duty = Duty::Pausing { epoch, until: self.backend.now() + pause };
    }

    fn take_loaded(&mut self, loaded: Option<Result<Shard<Waiting>, loading::LoadError>>) {
        let (Some(loaded), Duty::Loading { epoch, .. }) = (loaded, &self.duty) else { return };
        let epoch = *epoch;
        match loaded {
            Ok(mut shard) => {
                self.metrics.group_loads.inc();
                let (settings, image) = (self.settings.get(), self.images.get());
                let rules = Rules { topics: &self.topics, settings: &settings, image: &image };
                shard.begin(&rules, self.now());
                // While nobody coordinated, topics may have been deleted.
                shard.handle_topics_deleted(&image);
                self.shown.show_now(&shard);
                let forget_at = self.backend.now() + self.settings.get().retention_check_interval;
                self.duty = Duty::Serving(Box::new(Serving {
                    epoch,
                    shard,
                    outbox: Outbox::default(),
                    append: None,
                    forget_at,
                    _counted: Counted::by(&self.metrics.group_coordinators),
                }));
            }
            Err(error) => {
                tracing::warn!(partition = %self.partition.name(), %error, "groups are not loaded; tried again");
                self.pause(epoch);
                self.failed += 1;
                self.metrics.group_loads_failed.inc();
            }
        }
    }

    fn take_appended(&mut self, appended: Option<Result<Appended, AppendError>>) {
        let (Some(result), Duty::Serving(serving)) = (appended, &mut self.duty) else { return };
        serving.append = None;
        match result {
            Ok(_) => {
                serving.outbox.keep();
                self.failed = 0;
            }
            Err(error) => {
                let epoch = serving.epoch;
                self.metrics.group_appends_failed.inc();
                tracing::warn!(
                    partition = %self.partition.name(), %error,
                    "what groups decided was not kept; they go on from what was"
                );
                self.pause(epoch);
                self.failed += 1;
            }
        }
    }

    fn handle_time(&mut self, held: &mut Vec<Held>) {
        let now = self.now();
        let (settings, image) = (self.settings.get(), self.images.get());
        self.topics.follow(&image);
        let Duty::Serving(serving) = &mut self.duty else { return };
        let rules = Rules { topics: &self.topics, settings: &settings, image: &image };
        serving.shard.handle_time(&rules, now);
        held.extend(self.shown.show(&serving.shard, now.moment));
        if serving.forget_at <= now.moment {
            serving.forget_at = now.moment + settings.retention_check_interval;
            let retention_ms = i64::try_from(settings.offsets_retention.as_millis()).unwrap_or(i64::MAX);
            serving.shard.forget(retention_ms, now);
            // Should nobody have been able to say so.
            serving.shard.handle_topics_deleted(&image);
        }
    }

    fn handle(&mut self, input: CoordinatorInput, held: &mut Vec<Held>) {
        let now = self.now();
        let serving = match &mut self.duty {
            Duty::Away => return input.refuse(CoordinatorError::NotCoordinator),
            Duty::Loading { .. } | Duty::Pausing { .. } => return input.refuse(CoordinatorError::Loading),
            Duty::Serving(serving) => serving,
        };
        let shard = &mut serving.shard;
        let (settings, image) = (self.settings.get(), self.images.get());
        self.topics.follow(&image);
        let rules = &Rules { topics: &self.topics, settings: &settings, image: &image };
        match input {
            CoordinatorInput::Join { group, join, fresh } => {
                shard.join(&group, *join, fresh, rules, now);
            }
            CoordinatorInput::Sync { group, sync } => shard.sync(&group, *sync, rules, now),
            CoordinatorInput::Heartbeat { group, member, instance, generation, reply } => {
                let answer = shard.heartbeat(&group, &member, instance.as_ref(), generation, rules, now);
                hold(held, reply, answer.map_err(CoordinatorError::Member));
            }
            CoordinatorInput::Leave { group, leaving, reply } => {
                let answer = shard.leave(&group, &leaving, now);
                hold(held, reply, Ok(answer));
            }
            CoordinatorInput::Commit { group, by, offsets, reply } => {
                let answer = shard.commit(&group, &by, offsets, now);
                hold(held, reply, answer.map_err(CoordinatorError::from));
            }
            CoordinatorInput::Offsets { group, by, of, reply } => {
                let asked = by.map_or(Ok(()), |(member, epoch)| shard.check_fetch(&group, &member, epoch));
                let offsets = asked.map(|()| shard.committed(&group, of));
                hold(held, reply, offsets.map_err(CoordinatorError::Consumer));
            }
            CoordinatorInput::ConsumerHeartbeat { group, beat, reply } => {
                let answer = shard.consumer_heartbeat(&group, *beat, rules, now);
                hold(held, reply, answer.map_err(CoordinatorError::Consumer));
            }
            CoordinatorInput::ConsumerLeave { group, member, instance, comes_back, reply } => {
                let answer = shard.consumer_leave(&group, &member, instance.as_ref(), comes_back, rules, now);
                hold(held, reply, answer.map_err(CoordinatorError::Consumer));
            }
            CoordinatorInput::Delete { group, reply } => {
                let answer = shard.delete(&group);
                hold(held, reply, answer.map_err(CoordinatorError::Delete));
            }
            CoordinatorInput::DeleteOffsets { group, of, reply } => {
                let answer = shard.delete_offsets(&group, &of);
                hold(held, reply, answer.map_err(CoordinatorError::Delete));
            }
            CoordinatorInput::List { reply } => hold(held, reply, Ok(shard.list())),
            CoordinatorInput::Describe { group, reply } => hold(held, reply, Ok(shard.describe(&group))),
            CoordinatorInput::DescribeConsumer { group, reply } => {
                hold(held, reply, Ok(shard.describe_consumer(&group)));
            }
            CoordinatorInput::TopicDeleted { topic, seen_ms } => shard.handle_topic_deleted(&topic, seen_ms),
        }
    }

    /// What was decided since is to be kept next. Answers wait for that, and for what is being appended: they may rest on it.
    fn decided(&mut self, mut held: Vec<Held>) {
        let Duty::Serving(serving) = &mut self.duty else { return };
        let Effects { records, joins, syncs, upgrades, downgrades } = serving.shard.take_effects();
        self.metrics.group_upgrades.inc_by(upgrades);
        self.metrics.group_downgrades.inc_by(downgrades);
        if !records.is_empty() {
            self.shown.changed(self.backend.now());
        }
        for (waiting, answer) in joins {
            if let Waiting::Join(reply) = waiting {
                hold(&mut held, reply, answer.map_err(CoordinatorError::Member));
            }
        }
        for (waiting, answer) in syncs {
            if let Waiting::Sync(reply) = waiting {
                hold(&mut held, reply, answer.map_err(CoordinatorError::Member));
            }
        }
        serving.outbox.put(records, held);
        serving.outbox.answer();
    }

    /// Begins the next append, once the last one is done: all that was decided meanwhile goes into it.
    fn append(&mut self) {
        let Duty::Serving(serving) = &mut self.duty else { return };
        if serving.append.is_some() {
            return;
        }
        let records = serving.outbox.take(APPEND_BYTES);
        if records.is_empty() {
            return;
        }
        match batches::encode(records, self.backend.wall_ms()) {
            Ok(batches) => {
                let partition = self.partition.clone();
                let deadline = Deadline::after(&self.backend, self.settings.get().commit_timeout);
                serving.append = Some(Box::pin(async move {
                    partition.append(batches, Acks::All, deadline).await?.wait().await
                }));
            }
            Err(error) => {
                let epoch = serving.epoch;
                self.metrics.group_appends_failed.inc();
                tracing::warn!(partition = %self.partition.name(), %error, "what groups decided cannot be kept");
                self.pause(epoch);
                self.failed += 1;
            }
        }
    }
}

/// The epoch in which this node leads, if it does.
fn led_in(view: &PartitionView) -> Option<LeaderEpoch> {
    view.leading.then_some(view.leader_epoch)
}

fn hold<A: Send + 'static>(
    held: &mut Vec<Held>,
    reply: Replier<Result<A, CoordinatorError>>,
    answer: Result<A, CoordinatorError>,
) {
    held.push(Box::new(move |kept| reply.answer(kept.and(answer))));
}

impl Duty {
    fn epoch(&self) -> Option<LeaderEpoch> {
        match self {
            Duty::Away => None,
            Duty::Pausing { epoch, .. } | Duty::Loading { epoch, .. } => Some(*epoch),
            Duty::Serving(serving) => Some(serving.epoch),
        }
    }

    fn has_much_to_keep(&self) -> bool {
        matches!(self, Duty::Serving(serving) if serving.outbox.waiting_bytes() > UNDECIDED_ABOVE)
    }

    fn next_deadline(&self) -> Option<Moment> {
        match self {
            Duty::Away | Duty::Loading { .. } => None,
            Duty::Pausing { until, .. } => Some(*until),
            Duty::Serving(_) if self.has_much_to_keep() => None,
            Duty::Serving(serving) => Some(
                serving.shard.next_deadline().map_or(serving.forget_at, |due| due.min(serving.forget_at)),
            ),
        }
    }

    /// Whether something that it waits for has come.
    fn poll(&mut self, cx: &mut Context<'_>, woken: &mut Woken) -> bool {
        match self {
            Duty::Away | Duty::Pausing { .. } => false,
            Duty::Loading { load, .. } => match load.as_mut().poll(cx) {
                Poll::Ready(loaded) => {
                    woken.loaded = Some(loaded);
                    true
                }
                Poll::Pending => false,
            },
            Duty::Serving(serving) => {
                let Some(append) = &mut serving.append else { return false };
                match append.as_mut().poll(cx) {
                    Poll::Ready(appended) => {
                        woken.appended = Some(appended);
                        true
                    }
                    Poll::Pending => false,
                }
            }
        }
    }
}
