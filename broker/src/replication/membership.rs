//! The task `in sync`: asks the controller for other ISRs of the partitions that this node leads.
//!
//! One request is on its way at a time, for all partitions. It names the version of the partition that was seen, so that a late
//! copy does nothing, and takes effect from the image alone. Whoever is to be added counts for the high watermark from before it is
//! asked for: the controller may have it in the ISR, and elect it, before this node hears of it. That ends with the version alone.
//! A refusal does not end it: an earlier copy, which was not answered, may find the follower fit again. So where an addition came to
//! nothing, and is not to be asked for again, the ISR is asked for as it is, which gives the partition another version.
//!
//! It ticks while there is something to wait for, and looks at those partitions alone; when all followers are in sync and have all
//! it sleeps, until a log, the image, or who follows moves.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::panic::Location;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use io_backend::published::Watcher;
use io_backend::{Backend, Deadline, Moment, WaitKind, within};

use super::context::ReplicationContext;
use super::counts::{count_lags, count_partitions};
use super::isr::{InSyncWatch, Led, Wish};
use super::progress::ProgressTable;
use super::unresolved::Unresolved;
use crate::ids::{BrokerId, LeaderEpoch, PartitionEpoch, PartitionId};
use crate::limits;
use crate::metadata::{
    AlteredPartition, BrokerProcess, MetadataCommand, MetadataImage, Outcome, PartitionImage,
};
use crate::partition::LogListener;

/// Changes of ISRs that are decided together and have a line each in the log.
const TOLD_ONE_BY_ONE: usize = 8;

pub(super) struct Membership<B: Backend> {
    context: Arc<ReplicationContext<B>>,
    table: ProgressTable,
    watch: InSyncWatch,
    tick: Duration,
    listener: LogListener,
    image: Watcher<MetadataImage>,
    begun: Watcher<u64>,
    /// What was looked at last.
    seen: Option<(Arc<MetadataImage>, Arc<u64>)>,
    /// What this process is to lead and others follow, in which epoch and at which version.
    given: BTreeMap<PartitionId, (LeaderEpoch, PartitionEpoch)>,
    /// Those of them of which there is news, or in which somebody lacks something.
    unsettled: BTreeSet<PartitionId>,
    unresolved: Unresolved,
}

/// One change, and what it is made from.
struct Proposed {
    altered: AlteredPartition,
    leave: Vec<BrokerId>,
    join: Vec<BrokerId>,
}

impl<B: Backend> Membership<B> {
    pub(super) fn new(context: Arc<ReplicationContext<B>>, table: ProgressTable) -> Membership<B> {
        let tick = (context.lag_max / 8).clamp(limits::IN_SYNC_TICK_MIN, limits::IN_SYNC_TICK_MAX);
        let watch = InSyncWatch::new(tick, context.lag_max);
        Membership {
            listener: context.signal.listener(),
            image: context.images.watcher(),
            begun: table.begun().watcher(),
            context,
            table,
            watch,
            tick,
            seen: None,
            given: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            unresolved: Unresolved::default(),
        }
    }

    pub(super) async fn run(mut self) {
        let context = self.context.clone();
        let backend = &context.backend;
        let mut last: Option<Moment> = None;
        count_lags(&context, &[]);
        loop {
            if self.unsettled.is_empty() {
                last = None;
            }
            let image = self.news().await;
            let led = self.led(&image);
            count_lags(&context, &led);
            let now = backend.now();
            let elapsed = last.replace(now).map_or(Duration::ZERO, |last| now.since(last));
            let wishes = self.watch.handle_tick(elapsed, &led);
            let version_of = |id| Some(image.partition(id)?.partition_epoch);
            let wished = self.unresolved.with_open(wishes, version_of);
            let proposed = self.eligible(wished, &image).await;
            for some in proposed.chunks(limits::IN_SYNC_PROPOSED_AT_ONCE) {
                self.propose(some).await;
            }
            self.unsettled = led.iter().filter(|led| !led.is_settled()).map(|led| led.partition).collect();
            backend.sleep(self.tick).await;
        }
    }

    /// Takes what there is of news; where nothing is unsettled, once there is some. The image then.
    async fn news(&mut self) -> Arc<MetadataImage> {
        let context = self.context.clone();
        let backend = &context.backend;
        let idle = Deadline::Unbounded("who is in sync stays so until a log, the image or a follower moves");
        let mut image = None;
        let ready = poll_fn(|cx| {
            let now = self.poll_news(cx);
            let is_unsettled = !self.unsettled.is_empty();
            image = Some(now);
            if is_unsettled { Poll::Ready(()) } else { Poll::Pending }
        });
        let wait =
            backend.registry().waiting(backend, WaitKind::Change, "who is in sync", Location::caller());
        let _ = within(backend, idle, wait.bounded_by(idle).during(ready)).await;
        image.unwrap_or_else(|| context.images.get())
    }

    /// Adds to what is unsettled what there is news of.
    fn poll_news(&mut self, cx: &Context<'_>) -> Arc<MetadataImage> {
        let (image, begun) = (self.image.watch(cx.waker()), self.begun.watch(cx.waker()));
        let (same_image, same_followers) = match &self.seen {
            Some((seen, followers)) => (Arc::ptr_eq(seen, &image), Arc::ptr_eq(followers, &begun)),
            None => (false, false),
        };
        self.seen = Some((image.clone(), begun));
        if !same_image {
            count_partitions(&self.context, &image);
            self.look_at(&image);
        }
        if !same_followers {
            self.unsettled.extend(self.given.keys());
        }
        let mut moved = Vec::new();
        while self.listener.poll_moved(cx, &mut moved).is_ready() {}
        self.unsettled.extend(moved.into_iter().map(|(partition, _)| partition));
        image
    }

    /// What this process is given by another image.
    fn look_at(&mut self, image: &MetadataImage) {
        let mut given = BTreeMap::new();
        for topic in image.topics.values() {
            for (index, partition) in (0..).zip(&topic.partitions).filter(|(_, one)| self.is_given(one)) {
                let id = PartitionId { topic: topic.id, index };
                given.insert(id, (partition.leader_epoch, partition.partition_epoch));
            }
        }
        for (id, now) in &given {
            match self.given.get(id) {
                Some(before) if before == now => continue,
                Some(_) => {}
                None => self.listener.watch(*id),
            }
            self.unsettled.insert(*id);
        }
        for id in self.given.keys().filter(|id| !given.contains_key(id)) {
            self.listener.unwatch(*id);
            // What it lacked is not said of it any more.
            self.unsettled.insert(*id);
        }
        self.given = given;
    }

    fn is_given(&self, partition: &PartitionImage) -> bool {
        partition.leader == Some(self.context.node)
            && partition.leader_broker_epoch == self.context.broker_epoch
            && partition.replicas.len() > 1
    }

    /// What is unsettled of what this node leads and others follow.
    fn led(&self, image: &MetadataImage) -> Vec<Led> {
        let context = &self.context;
        let of_one = |id: &PartitionId| {
            let partition = image.partition(*id).filter(|partition| self.is_given(partition))?;
            let state = context.signal.state(*id)?;
            if !state.leading || state.epoch != partition.leader_epoch {
                return None;
            }
            let others = partition.replica_brokers().filter(|broker| *broker != context.node);
            let of = |broker| {
                let synced = self.table.synced(broker, *id, state.epoch).map(|(_, synced)| synced);
                (broker, partition.isr.contains(&broker), synced)
            };
            Some(Led {
                partition: *id,
                epoch: state.epoch,
                log_end: state.log_end,
                high_watermark: state.high_watermark,
                followers: others.map(of).collect(),
            })
        };
        self.unsettled.iter().filter_map(of_one).collect()
    }

    /// Changes that the controller would not refuse, as far as is known here; who is to be added counts from now on.
    async fn eligible(&self, wishes: Vec<Wish>, image: &MetadataImage) -> Vec<Proposed> {
        let mut all = Vec::new();
        for wish in wishes {
            if let Some(partition) = image.partition(wish.partition)
                && let Some(proposed) = self.change(wish, partition, image).await
            {
                all.push(proposed);
            }
        }
        all
    }

    async fn change(
        &self,
        wish: Wish,
        partition: &PartitionImage,
        image: &MetadataImage,
    ) -> Option<Proposed> {
        let Wish { partition: id, leave, join } = wish;
        let context = &self.context;
        let (epoch, version) = (partition.leader_epoch, partition.partition_epoch);
        let handle = context.open.get().get(&id).cloned()?;
        let mut joining = join;
        joining.retain(|broker| self.is_caught_up(id, epoch, *broker, image));
        if !joining.is_empty() {
            joining = handle.add_to_in_sync(epoch, version, joining, context.soon()).await.ok()??;
        }
        if leave.is_empty() && joining.is_empty() && !self.unresolved.has(id) {
            return None;
        }
        let stays = partition.isr.iter().copied().filter(|member| !leave.contains(member));
        let of = |broker| Some(BrokerProcess { broker, epoch: image.brokers.get(&broker)?.epoch });
        let isr = stays.chain(joining.iter().copied()).map(of).collect::<Option<Vec<_>>>()?;
        let altered = AlteredPartition { partition: id, leader_epoch: epoch, partition_epoch: version, isr };
        Some(Proposed { altered, leave, join: joining })
    }

    /// Whether the follower's process that has caught up, and takes records, is the one that the image has, and active there.
    fn is_caught_up(
        &self,
        id: PartitionId,
        epoch: LeaderEpoch,
        broker: BrokerId,
        image: &MetadataImage,
    ) -> bool {
        let known = self.table.may_join(broker, id, epoch);
        image.brokers.get(&broker).is_some_and(|image| image.is_active() && known == Some(image.epoch))
    }

    async fn propose(&mut self, proposed: &[Proposed]) {
        let context = &self.context;
        let leader = BrokerProcess { broker: context.node, epoch: context.broker_epoch };
        let partitions = proposed.iter().map(|one| one.altered.clone()).collect();
        let soon = Deadline::after(&context.backend, limits::IN_SYNC_PROPOSE_DEADLINE);
        let asked = (context.propose)(MetadataCommand::AlterPartition { leader, partitions }, soon).await;
        let outcomes = match asked {
            Ok(Outcome::Partitions(outcomes)) => outcomes,
            Ok(_) => Vec::new(),
            Err(error) => {
                tracing::debug!("the controller has not decided about {} ISRs: {error}", proposed.len());
                Vec::new()
            }
        };
        let mut changed = Vec::new();
        for (nth, one) in proposed.iter().enumerate() {
            let AlteredPartition { partition, partition_epoch, .. } = one.altered;
            match outcomes.get(nth) {
                Some(Ok(now)) => {
                    self.context.metrics.replication_isr_expands.inc_by(one.join.len() as u64);
                    self.context.metrics.replication_isr_shrinks.inc_by(one.leave.len() as u64);
                    changed.push((one, now));
                    self.unresolved.decided(partition);
                    continue;
                }
                Some(Err(error)) => tracing::debug!(%partition, "the ISR stays as it is: {error}"),
                None => {}
            }
            self.unresolved.left_open(partition, partition_epoch, &one.join);
        }
        tell(&changed);
    }
}

/// A line for each of a few, and one for all of many.
fn tell(changed: &[(&Proposed, &PartitionImage)]) {
    if changed.len() > TOLD_ONE_BY_ONE {
        let brokers = |of: fn(&Proposed) -> &Vec<BrokerId>| -> BTreeSet<BrokerId> {
            changed.iter().flat_map(|(one, _)| of(one)).copied().collect()
        };
        let (left, joined) = (brokers(|one| &one.leave), brokers(|one| &one.join));
        tracing::info!(partitions = changed.len(), ?left, ?joined, "ISRs have changed");
    }
    for (one, now) in changed {
        let (partition, isr, left, joined) = (one.altered.partition, &now.isr, &one.leave, &one.join);
        if changed.len() > TOLD_ONE_BY_ONE {
            tracing::debug!(%partition, ?isr, ?left, ?joined, "the ISR has changed");
        } else {
            tracing::info!(%partition, ?isr, ?left, ?joined, "the ISR has changed");
        }
    }
}
