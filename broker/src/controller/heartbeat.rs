//! The task `heartbeat`: tells the controller how this broker is, and everybody here whether the controller counts on it.
//!
//! A disk that stands still does not hold it up: it goes on and says so. What matters is said at once and not at the next
//! beat: that the storage takes no records, that the node wants to stop, that it knows more while what it leads moves, and to another
//! controller all of it.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::panic::Location;
use std::sync::Arc;
use std::task::Poll;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use io_backend::{Backend, Deadline, Moment, Sender, WaitKind, within};

use super::granted::{Begun, Granted};
use super::membership::{Membership, is_unfenced};
use super::message::{self, HeartbeatReply};
use super::session::BrokerSession;
use super::{ControllerContext, ControllerInput, unlinked};
use crate::ids::{BrokerId, LeaderEpoch, PartitionId};
use crate::limits;
use crate::metadata::MetadataImage;
use crate::metadata::controller::Heartbeat;
use crate::peers::asks::Subject;
use crate::replicas::Replicas;

pub(super) struct Beating<B: Backend> {
    context: ControllerContext<B>,
    membership: Membership<B>,
    controller: Sender<B, ControllerInput>,
    replicas: Replicas<B>,
    session: BrokerSession,
    /// Heartbeats that are not answered, with when they were sent.
    asked: FuturesUnordered<BoxFuture<'static, (Moment, Option<HeartbeatReply>)>>,
    /// What was said of what is said at once, and when the rest is due.
    said: Option<News>,
    beat_at: Moment,
    followed: Followed,
    granted: Granted,
    /// The image that was last judged by.
    seen: Arc<MetadataImage>,
    /// What the controller last refused, as the log says.
    told: Option<String>,
}

/// What is said at once.
#[derive(Clone, Debug, PartialEq, Eq)]
struct News {
    controller: Option<BrokerId>,
    may_lead: bool,
    wants_shutdown: bool,
    is_unfenced: bool,
    /// The image that it has, while something of it moves: it leads what is left as soon as all has moved.
    relieved_at: Option<u64>,
}

/// Who leads what this broker follows, as of an image.
#[derive(Default)]
struct Followed {
    index: u64,
    leaders: BTreeSet<BrokerId>,
}

impl Followed {
    fn follow(&mut self, image: &MetadataImage, node: BrokerId) -> &BTreeSet<BrokerId> {
        if self.index != image.index {
            let partitions = image.topics.values().flat_map(|topic| &topic.partitions);
            let followed = partitions.filter(|partition| partition.replica(node).is_some());
            let leaders = followed.filter_map(|partition| partition.leader);
            self.leaders = leaders.filter(|leader| *leader != node).collect();
            self.index = image.index;
        }
        &self.leaders
    }
}

impl<B: Backend> Beating<B> {
    pub(super) fn new(
        context: ControllerContext<B>,
        membership: Membership<B>,
        controller: Sender<B, ControllerInput>,
        replicas: Replicas<B>,
    ) -> Beating<B> {
        let session = BrokerSession::new(context.config.cluster_times.session_timeout);
        let beat_at = context.backend.now();
        Beating {
            context,
            membership,
            controller,
            replicas,
            session,
            asked: FuturesUnordered::new(),
            said: None,
            beat_at,
            followed: Followed::default(),
            granted: Granted::default(),
            seen: Arc::default(),
            told: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            self.say();
            self.judge();
            let answered = self.next_answers().await;
            for (sent, reply) in answered {
                self.take(sent, reply);
            }
        }
    }

    fn news(&self) -> News {
        let image = self.context.metadata.image();
        News {
            controller: self.context.metadata.members().get().leader,
            may_lead: self.membership.health.capacities.get().may_lead,
            wants_shutdown: *self.membership.wants_shutdown.get(),
            is_unfenced: is_unfenced(&image, self.membership.process),
            relieved_at: self.session.is_relieved().then_some(image.index),
        }
    }

    /// Sends a heartbeat, where one is due or has news.
    fn say(&mut self) {
        let now = self.context.backend.now();
        let news = self.news();
        let is_due = self.beat_at <= now || self.said.as_ref() != Some(&news);
        if !is_due || self.asked.len() >= limits::HEARTBEATS_UNANSWERED_MAX {
            if self.beat_at <= now {
                self.beat_at = now + self.context.config.cluster_times.heartbeat_interval;
            }
            return;
        }
        self.beat_at = now + self.context.config.cluster_times.heartbeat_interval;
        self.said = Some(news.clone());
        // Where nobody leads, whoever does next is told at once.
        let Some(controller) = news.controller else { return };
        let image = self.context.metadata.image();
        let unlinked = unlinked(self.context.asks.peers());
        let leaders = self.followed.follow(&image, self.context.node);
        let unreachable = leaders.intersection(&unlinked).copied().collect();
        let heartbeat = Heartbeat {
            process: self.membership.process,
            image_index: image.index,
            may_lead: news.may_lead,
            wants_shutdown: news.wants_shutdown,
            not_begun: self.not_begun(now, &image),
            unreachable,
        };
        self.context.metrics.heartbeats_sent.inc();
        self.session.handle_said(now, heartbeat.may_lead);
        self.ask(now, controller, heartbeat);
    }

    fn ask(&mut self, now: Moment, controller: BrokerId, heartbeat: Heartbeat) {
        let deadline = Deadline::after(&self.context.backend, limits::HEARTBEAT_DEADLINE);
        if controller == self.context.node {
            let (replier, reply) = self.controller.reply("answer of this node's own controller");
            if self.controller.try_send(ControllerInput::Own(heartbeat, replier)).is_err() {
                self.context.metrics.heartbeats_failed.inc();
                return;
            }
            self.asked.push(Box::pin(async move { (now, reply.wait(deadline).await.ok()) }));
            return;
        }
        let asks = self.context.asks.clone();
        self.asked.push(Box::pin(async move {
            let body = message::encode(&heartbeat);
            let answer = asks.ask(controller, Subject::Heartbeat, &body, deadline).await;
            (now, answer.ok().and_then(|body| message::decode_reply(&body)))
        }));
    }

    /// Epochs that this broker was granted and has not begun in time.
    fn not_begun(&mut self, now: Moment, image: &MetadataImage) -> Vec<(PartitionId, LeaderEpoch)> {
        let beat = self.context.config.cluster_times.heartbeat_interval;
        let Beating { granted, replicas, membership, .. } = self;
        let begun = |id| match replicas.signal().state(id) {
            Some(state) if state.leading => Begun::Leads(state.epoch),
            _ if replicas.get(id).is_some() => Begun::Not,
            _ => Begun::NotOpen,
        };
        granted.handle_beat(now, beat, image, membership.process, begun)
    }

    /// Says everywhere here whether this broker may lead.
    fn judge(&mut self) {
        let now = self.context.backend.now();
        self.seen = self.context.metadata.image();
        let held = self.session.held(now, self.seen.index);
        let contact = &self.membership.health.contact;
        match (contact.set(now, held), held.err()) {
            (None, _) => {}
            (Some(None), Some(why)) => {
                tracing::warn!(reason = why.name(), "this node takes and serves no records: {why}");
            }
            (Some(Some(before)), Some(why)) => {
                tracing::info!(
                    reason = why.name(),
                    before = before.why.name(),
                    "this node still takes and serves no records: {why}"
                );
            }
            (Some(before), None) => {
                let after = before.map_or(0, |before| now.since(before.since).as_millis() as u64);
                tracing::info!(after_ms = after, "the controller counts on this node");
            }
        }
        let may_stop = self.session.may_stop();
        if *self.membership.may_stop.get() != may_stop {
            self.membership.may_stop.publish(may_stop);
        }
    }

    fn take(&mut self, sent: Moment, reply: Option<HeartbeatReply>) {
        let refused = match reply {
            Some(HeartbeatReply::Heard(answer)) => {
                self.session.handle_answer(sent, answer);
                self.told = None;
                return;
            }
            Some(HeartbeatReply::Refused { why }) => Some(why),
            Some(HeartbeatReply::NotController { .. }) | None => None,
        };
        self.context.metrics.heartbeats_failed.inc();
        if refused.is_some() && self.told != refused {
            let why = refused.as_deref().unwrap_or_default();
            tracing::error!(
                why,
                "the controller does not take this process for the broker that it says it is"
            );
            self.told = refused;
        }
    }

    /// Waits for something to say or to judge, and returns the answers that have come.
    async fn next_answers(&mut self) -> Vec<(Moment, Option<HeartbeatReply>)> {
        let now = self.context.backend.now();
        let seen = self.seen.clone();
        let wake_at = self.session.ends_at(now).map_or(self.beat_at, |ends_at| ends_at.min(self.beat_at));
        let room = self.asked.len() < limits::HEARTBEATS_UNANSWERED_MAX;
        let backend = self.context.backend.clone();
        let (members, images) = (self.context.metadata.members().clone(), self.context.metadata.images());
        let (mut members, mut images) = (members.watcher(), images.watcher());
        let mut fitness = self.membership.health.capacities.published().watcher();
        let mut stopping = self.membership.wants_shutdown.watcher();
        let mut answers = Vec::new();
        let (said, process) = (self.said.clone(), self.membership.process);
        let is_relieved = self.session.is_relieved();
        let asked = &mut self.asked;
        let waiting = poll_fn(|cx| {
            while let Poll::Ready(Some(answer)) = asked.poll_next_unpin(cx) {
                answers.push(answer);
            }
            let image = images.watch(cx.waker());
            let news = News {
                controller: members.watch(cx.waker()).leader,
                may_lead: fitness.watch(cx.waker()).may_lead,
                wants_shutdown: *stopping.watch(cx.waker()),
                is_unfenced: is_unfenced(&image, process),
                relieved_at: is_relieved.then_some(image.index),
            };
            let has_news = room && said.as_ref() != Some(&news);
            match has_news || !answers.is_empty() || !Arc::ptr_eq(&image, &seen) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        let deadline = Deadline::At(wake_at);
        let wait = backend.registry().waiting(
            &backend,
            WaitKind::Receive,
            "answers to heartbeats",
            Location::caller(),
        );
        // The deadline is the next beat.
        let _ = within(&backend, deadline, wait.bounded_by(deadline).during(waiting)).await;
        answers
    }
}
