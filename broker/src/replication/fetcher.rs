//! The task `fetcher[N]`: follows the leaders on node N, all partitions in one fetch.
//!
//! One fetch is on its way at a time, but for one that adds to it. What comes is given to the owners of the partitions, all at
//! once; when they have told where each stands then, the next fetch asks. A partition that makes trouble is left out for
//! a while, and holds up no other. How far the syncs are is said as they complete, beside the fetches.
//!
//! A session ends with the link, with the leader's process, and when an answer does not come: the next one says all again.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::Location;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use imbl::OrdMap;
use io_backend::published::Watcher;
use io_backend::{Backend, Deadline, Moment, Receiver, WaitKind, within};

use super::context::{ReplicationContext, Told};
use super::followed::{Followed, Phase};
use super::protocol::{Answer, FetchError, Message, Refused, SessionId};
use super::session::{FollowerSession, Lost};
use crate::ids::{BrokerId, LeaderEpoch, Offset, PartitionId};
use crate::limits;
use crate::metadata::MetadataImage;
use crate::partition::{
    Fetched, FollowError, LeaderMarks, LogListener, LogState, PartitionHandle, ReadError,
};
use crate::peers::{PeerIdentity, Reachable};
use crate::stall::capacities::Fitness;

pub(super) struct Fetcher<B: Backend> {
    context: Arc<ReplicationContext<B>>,
    leader: BrokerId,
    name: Arc<str>,
    mailbox: Receiver<B, Told>,
    listener: LogListener,
    watchers: Watchers<B>,
    seen: Seen<B>,
    partitions: BTreeMap<PartitionId, Followed<B>>,
    /// Owners that are asked where their partition stands.
    asks: FuturesUnordered<BoxFuture<'static, Stands>>,
    /// While node N is linked.
    session: Option<FollowerSession>,
    /// When the fetch that is on its way counts as lost.
    answer_due: Option<Moment>,
    /// No session is begun before.
    retry: Option<Moment>,
    /// Whether this node takes records has changed, and was not said.
    says_fitness: bool,
}

struct Watchers<B: Backend> {
    image: Watcher<MetadataImage>,
    open: Watcher<OrdMap<PartitionId, PartitionHandle<B>>>,
    reachable: Watcher<Reachable>,
    fitness: Watcher<Fitness>,
}

/// What was looked at last.
struct Seen<B: Backend> {
    image: Option<Arc<MetadataImage>>,
    open: Option<Arc<OrdMap<PartitionId, PartitionHandle<B>>>>,
    reachable: Option<Arc<Reachable>>,
    process: Option<PeerIdentity>,
    fitness: Option<Arc<Fitness>>,
}

/// What an owner has answered.
struct Stands {
    partition: PartitionId,
    epoch: LeaderEpoch,
    at: Result<(LeaderEpoch, Offset), Trouble>,
    /// Where it was given something of the leader's.
    given: Option<Given>,
}

/// What an owner was given.
#[derive(Clone, Copy)]
struct Given {
    /// From this position on.
    asked: (LeaderEpoch, Offset),
    /// It moves on from there by that.
    moves: bool,
    /// What the leader said beside records.
    marks: Option<LeaderMarks>,
}

enum Trouble {
    /// The owner did not answer, or is gone.
    Owner(ReadError),
    /// It did not take what came.
    NotTaken(FollowError),
}

const NOT_KEPT: &str = "its journal has not kept what was fetched: that is fetched again";

#[derive(Default)]
struct Woken {
    told: Vec<Told>,
    moved: Vec<(PartitionId, Option<LogState>)>,
    stands: Vec<Stands>,
    changed: bool,
    abandoned: bool,
}

impl<B: Backend> Seen<B> {
    /// Whether the node may be elected, as far as it knows: then its log goes for nobody.
    fn may_lead(&self, node: BrokerId, partition: PartitionId) -> bool {
        let of = self.image.as_ref().and_then(|image| image.partition(partition));
        of.is_some_and(|of| of.isr.contains(&node) || of.elr.contains(&node))
    }
}

impl<B: Backend> Fetcher<B> {
    pub(super) fn new(
        context: Arc<ReplicationContext<B>>,
        leader: BrokerId,
        mailbox: Receiver<B, Told>,
    ) -> Fetcher<B> {
        let watchers = Watchers {
            image: context.images.watcher(),
            open: context.open.watcher(),
            reachable: context.peers.reachable().watcher(),
            fitness: context.capacities.published().watcher(),
        };
        Fetcher {
            listener: context.signal.listener(),
            name: format!("node {leader}").into(),
            context,
            leader,
            mailbox,
            watchers,
            seen: Seen { image: None, open: None, reachable: None, process: None, fitness: None },
            partitions: BTreeMap::new(),
            asks: FuturesUnordered::new(),
            session: None,
            answer_due: None,
            retry: None,
            says_fitness: false,
        }
    }

    pub(super) async fn run(mut self) {
        self.mailbox.claim();
        loop {
            let woken = self.wait().await;
            if woken.abandoned {
                return;
            }
            if woken.changed {
                self.look_around();
            }
            for told in woken.told {
                match told {
                    Told::Answer(answer) => self.handle_answer(answer),
                    Told::Refused(session, why) => self.handle_refused(session, why),
                }
            }
            for stands in woken.stands {
                self.handle_stands(stands);
            }
            self.report(woken.moved);
            self.handle_time();
            self.fetch();
        }
    }

    async fn wait(&mut self) -> Woken {
        let context = self.context.clone();
        let backend = &context.backend;
        let (deadline, name) = (self.next_deadline(), self.name.clone());
        let mut woken = Woken::default();
        let ready = poll_fn(|cx| {
            woken.changed = self.poll_seen(cx.waker());
            let mut ready = woken.changed;
            ready |= self.listener.poll_moved(cx, &mut woken.moved).is_ready();
            match self.mailbox.poll_receive_many(cx, &mut woken.told, limits::REPLICATION_TOLD_MAX) {
                Poll::Ready(Some(_)) => ready = true,
                Poll::Ready(None) => (ready, woken.abandoned) = (true, true),
                Poll::Pending => {}
            }
            while !self.asks.is_empty()
                && let Poll::Ready(Some(stands)) = self.asks.poll_next_unpin(cx)
            {
                woken.stands.push(stands);
                ready = true;
            }
            if ready { Poll::Ready(()) } else { Poll::Pending }
        });
        let wait =
            backend.registry().waiting(backend, WaitKind::Receive, "answers of a leader", Location::caller());
        let waiting = wait.on(name).bounded_by(deadline).during(ready);
        let _ = within(backend, deadline, waiting).await;
        woken
    }

    /// Whether image, open partitions, links or the storage's fitness have changed since they were looked at.
    fn poll_seen(&mut self, waker: &std::task::Waker) -> bool {
        fn is_new<T>(seen: &mut Option<Arc<T>>, now: Arc<T>) -> bool {
            let new = seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &now));
            *seen = Some(now);
            new
        }
        let image = is_new(&mut self.seen.image, self.watchers.image.watch(waker));
        let open = is_new(&mut self.seen.open, self.watchers.open.watch(waker));
        let reachable = is_new(&mut self.seen.reachable, self.watchers.reachable.watch(waker));
        let fitness = is_new(&mut self.seen.fitness, self.watchers.fitness.watch(waker));
        self.says_fitness |= fitness;
        image || open || reachable || fitness
    }

    fn next_deadline(&self) -> Deadline {
        let idle = Deadline::Unbounded("a fetcher with nothing to follow waits for the image");
        let asks_since = self.session.as_ref().and_then(FollowerSession::asks_since);
        let asks = asks_since.map(|since| since + limits::REPLICATION_GATHER);
        let paused = match self.session {
            Some(_) => self.partitions.values().filter_map(Followed::paused_until).min(),
            None => None,
        };
        let timers = [self.answer_due, asks, paused, self.retry];
        timers.into_iter().flatten().min().map_or(idle, Deadline::At)
    }

    /// Brings what is followed to what image, open partitions and links are now.
    fn look_around(&mut self) {
        let process = self.seen.reachable.as_ref().and_then(|peers| peers.get(&self.leader).copied());
        if process != self.seen.process {
            self.seen.process = process;
            self.end_session();
            self.retry = process.map(|_| self.context.backend.now());
        }
        let (Some(image), Some(open)) = (self.seen.image.clone(), self.seen.open.clone()) else { return };
        let mut led = BTreeMap::new();
        for topic in image.topics.values() {
            for (index, partition) in (0..).zip(&topic.partitions) {
                let id = PartitionId { topic: topic.id, index };
                if partition.leader == Some(self.leader)
                    && partition.replica(self.context.node).is_some()
                    && let Some(handle) = open.get(&id)
                {
                    led.insert(id, (partition.leader_epoch, handle));
                }
            }
        }
        let over: Vec<PartitionId> =
            self.partitions.keys().filter(|id| !led.contains_key(id)).copied().collect();
        for id in over {
            self.listener.unwatch(id);
            self.partitions.remove(&id);
            self.forget(id);
        }
        for (id, (epoch, handle)) in led {
            let same = |followed: &Followed<B>| followed.epoch == epoch && followed.handle.is_same(handle);
            if !self.partitions.get(&id).is_some_and(same) {
                self.listener.watch(id);
                self.forget(id);
                self.partitions.insert(id, Followed::new(epoch, handle.clone()));
                self.ask_position(id);
            }
        }
    }

    fn forget(&mut self, partition: PartitionId) {
        if let Some(session) = &mut self.session {
            session.forget(partition);
        }
    }

    fn end_session(&mut self) {
        self.session = None;
        self.answer_due = None;
    }

    /// Asks an owner where it stands as a follower in the epoch.
    fn ask_position(&mut self, partition: PartitionId) {
        let Some(followed) = self.partitions.get_mut(&partition) else { return };
        followed.phase = Phase::Asked;
        let (handle, epoch, soon) = (followed.handle.clone(), followed.epoch, self.context.soon());
        self.asks.push(Box::pin(async move {
            let at = handle.follow(epoch, soon).await.map_err(Trouble::Owner);
            Stands { partition, epoch, at, given: None }
        }));
    }

    fn handle_answer(&mut self, answer: Answer) {
        let Some(session) = &mut self.session else { return };
        match session.handle_answer(&answer) {
            Ok(true) => {}
            Ok(false) => return,
            Err(Lost) => {
                tracing::debug!(leader = %self.leader, "an answer was lost: another session begins");
                self.end_session();
                self.retry = Some(self.context.backend.now());
                return;
            }
        }
        if !session.waits() {
            self.answer_due = None;
        }
        for (partition, epoch, outcome) in answer.partitions {
            let Some(followed) = self.partitions.get_mut(&partition) else { continue };
            if followed.epoch != epoch {
                continue;
            }
            let Phase::At(asked) = followed.phase else { continue };
            match outcome {
                Ok(Fetched::BeginsLater { at }) if self.seen.may_lead(self.context.node, partition) => {
                    self.pause(
                        partition,
                        &format!("it may lead, and the leader has nothing before offset {at}"),
                    );
                }
                Ok(fetched) => {
                    followed.phase = Phase::Asked;
                    let (handle, epoch, soon) =
                        (followed.handle.clone(), followed.epoch, self.context.soon());
                    let (moves, marks) = match &fetched {
                        Fetched::Records { batches, marks, .. } => (!batches.is_empty(), Some(*marks)),
                        Fetched::BeginsLater { .. } => (true, None),
                        Fetched::Diverging { .. } => (false, None),
                    };
                    self.asks.push(Box::pin(async move {
                        let taken = handle.fetched(epoch, asked, copied(fetched), soon).await;
                        let at = match taken {
                            Ok(taken) => taken.map_err(Trouble::NotTaken),
                            Err(error) => Err(Trouble::Owner(error)),
                        };
                        Stands { partition, epoch, at, given: Some(Given { asked, moves, marks }) }
                    }));
                }
                Err(error) => self.handle_error(partition, error),
            }
        }
    }

    fn handle_error(&mut self, partition: PartitionId, error: FetchError) {
        self.pause(partition, &error.to_string());
    }

    fn handle_refused(&mut self, id: SessionId, why: Refused) {
        if self.session.as_ref().is_none_or(|session| session.id() != id) {
            return;
        }
        self.end_session();
        self.retry = Some(match why {
            Refused::UnknownSession => self.context.backend.now(),
            // One of the two has not heard yet who this process is.
            Refused::OtherProcess => self.context.backend.now() + limits::REPLICATION_PAUSE_MIN,
        });
    }

    fn handle_stands(&mut self, stands: Stands) {
        let Stands { partition, epoch, at, given } = stands;
        let Some(followed) = self.partitions.get_mut(&partition).filter(|one| one.epoch == epoch) else {
            return;
        };
        match at {
            Ok(at) if given.is_some_and(|given| given.moves && given.asked == at) => {
                self.pause(partition, "its journal has not taken it yet");
            }
            Ok(at) => {
                if let Some(given) = given {
                    followed.recovered(partition);
                    given.marks.into_iter().for_each(|marks| followed.heard(marks));
                }
                followed.phase = Phase::At(at);
                self.say(partition);
            }
            Err(Trouble::NotTaken(error)) => self.pause(partition, &error.to_string()),
            Err(Trouble::Owner(error)) => self.pause(partition, &error.to_string()),
        }
    }

    /// Leaves a partition out for a while: longer, the more often in a row.
    fn pause(&mut self, partition: PartitionId, why: &str) {
        let now = self.context.backend.now();
        if let Some(followed) = self.partitions.get_mut(&partition) {
            followed.pause(partition, self.leader, now, why);
        }
        self.forget(partition);
    }

    /// The next fetch asks from where the partition stands.
    fn say(&mut self, partition: PartitionId) {
        let Some(followed) = self.partitions.get_mut(&partition) else { return };
        let state = self.context.signal.state(partition);
        if followed.is_taken_back(state) {
            return self.pause(partition, NOT_KEPT);
        }
        let Some(session) = &mut self.session else { return };
        if let Some(position) = followed.position(state) {
            session.ask(partition, position, self.context.backend.now());
        }
    }

    /// Says what has come onto this node's disk, and whether this node takes records where that has changed: what begins says it anyway.
    fn report(&mut self, moved: Vec<(PartitionId, Option<LogState>)>) {
        let says_fitness = std::mem::take(&mut self.says_fitness);
        let Some(session) = &mut self.session else { return };
        let mut reports = Vec::new();
        let mut taken_back = Vec::new();
        for (partition, state) in moved {
            let Some(followed) = self.partitions.get_mut(&partition) else { continue };
            if followed.is_taken_back(self.context.signal.state(partition)) {
                taken_back.push(partition);
            }
            if let Some(durable) = followed.report(state) {
                reports.push((partition, followed.epoch, durable));
            }
        }
        let takes_records = self.context.capacities.get().may_lead;
        if !reports.is_empty() || (says_fitness && session.has_begun()) {
            let said = session.synced(reports, takes_records);
            self.context.send(self.leader, &Message::Synced(said));
        }
        for partition in taken_back {
            self.pause(partition, NOT_KEPT);
        }
    }

    fn handle_time(&mut self) {
        let now = self.context.backend.now();
        if self.answer_due.is_some_and(|due| due <= now) {
            tracing::debug!(leader = %self.leader, "a fetch was not answered in time: another session begins");
            self.end_session();
            self.retry = Some(now);
        }
        if self.session.is_none()
            && self.seen.process.is_some()
            && self.retry.is_some_and(|retry| retry <= now)
        {
            self.retry = None;
            self.session = Some(FollowerSession::begin(SessionId(self.context.backend.random_u64())));
            let all: Vec<PartitionId> = self.partitions.keys().copied().collect();
            all.into_iter().for_each(|partition| self.say(partition));
        }
        let over: Vec<PartitionId> = self
            .partitions
            .iter()
            .filter(|(_, followed)| followed.paused_until().is_some_and(|until| until <= now))
            .map(|(partition, _)| *partition)
            .collect();
        for partition in over {
            self.ask_position(partition);
        }
    }

    /// Sends what there is to ask, when those that were answered last have all said where they stand, or took too long.
    fn fetch(&mut self) {
        let Some(session) = &mut self.session else { return };
        if self.partitions.is_empty() && !session.has_news() {
            // Nothing is followed: the leader keeps what it knows, and nobody waits.
            return;
        }
        let now = self.context.backend.now();
        let is_late = session.asks_since().is_some_and(|since| since + limits::REPLICATION_GATHER <= now);
        let all_stand = self.asks.is_empty();
        let due = match session.has_news() {
            true => all_stand || is_late,
            false => all_stand && !session.waits(),
        };
        if !due {
            return;
        }
        let fetch = session.fetch(self.context.broker_epoch, self.context.capacities.get().may_lead);
        self.answer_due = Some(now + limits::REPLICATION_WAIT + limits::REPLICATION_ANSWER_PATIENCE);
        self.context.metrics.replication_fetches_sent.inc();
        self.context.send(self.leader, &Message::Fetch(fetch));
    }
}

/// What came in one message with others, in memory of its own: it stays as long as the partition keeps it.
fn copied(fetched: Fetched) -> Fetched {
    match fetched {
        Fetched::Records { batches, marks } => {
            let batches = batches.iter().map(|batch| Bytes::copy_from_slice(batch)).collect();
            Fetched::Records { batches, marks }
        }
        other => other,
    }
}
