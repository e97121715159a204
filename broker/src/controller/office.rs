//! The task `controller`: has the [`Controller`] decide while this node leads the metadata, and proposes what it decides.
//!
//! It takes in the image first, so that who has registered just now is known, then who has ended, then all heartbeats that
//! wait, and only then lets time pass: what was not looked at is not silence. Proposals wait beside it: a group that does not
//! decide holds up no heartbeat. What came to nothing the controller says again.
//!
//! A heartbeat is answered when most of the voters have confirmed, after it came, that this node leads. A controller that was paused or
//! is cut off would answer else while another one gives away what the asking broker leads; so whoever has an answer to what it
//! sent at some moment knows that no other controller had begun by then, and each gives all brokers a whole session.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::panic::Location;
use std::sync::Arc;
use std::task::Poll;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use io_backend::{Backend, Deadline, Moment, Receiver, Replier, WaitKind, within};

use super::message::{self, HeartbeatReply};
use super::{ControllerContext, ControllerInput};
use crate::ids::{BrokerEpoch, BrokerId};
use crate::limits;
use crate::metadata::controller::{Controller, ControllerSettings, Heartbeat, HeartbeatAnswer};
use crate::metadata::{MetadataCommand, MetadataImage};
use crate::peers::asks::Question;

pub(super) struct Driver<B: Backend> {
    context: ControllerContext<B>,
    settings: ControllerSettings,
    inbox: Receiver<B, ControllerInput>,
    /// While this node is the controller.
    office: Option<Office>,
    /// Commands that the group has not decided.
    proposed: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Answers for which the voters are asked, and then whether they confirm that this node leads.
    confirming: FuturesUnordered<BoxFuture<'static, (Vec<Answer>, bool)>>,
}

/// What is said of a heartbeat, and to whom.
struct Answer {
    to: Addressee,
    reply: HeartbeatReply,
}

/// What comes of a heartbeat.
struct Judged {
    answer: Answer,
    /// The broker was not told that yet, or waits for it with what it leads.
    is_news: bool,
    commands: Vec<MetadataCommand>,
}

enum Addressee {
    Other(Question),
    Own(Replier<HeartbeatReply>),
}

/// What a controller has from when it begins to lead until it does no more.
struct Office {
    controller: Controller,
    term: u64,
    image: Arc<MetadataImage>,
    gone: BTreeSet<BrokerId>,
    /// What each broker was told last, which process of it, and whether its storage took records then.
    told: BTreeMap<BrokerId, (BrokerEpoch, bool, HeartbeatAnswer)>,
    tick_at: Moment,
}

impl<B: Backend> Driver<B> {
    pub(super) fn new(
        context: ControllerContext<B>,
        settings: ControllerSettings,
        inbox: Receiver<B, ControllerInput>,
    ) -> Driver<B> {
        Driver {
            context,
            settings,
            inbox,
            office: None,
            proposed: FuturesUnordered::new(),
            confirming: FuturesUnordered::new(),
        }
    }

    pub(super) async fn run(mut self) {
        while let Some(inputs) = self.next_inputs().await {
            let now = self.context.backend.now();
            self.look_after_office(now);
            let mut commands = self.follow(now);
            let (mut answers, mut is_news) = (Vec::new(), false);
            for input in inputs {
                let Some(judged) = self.hear(now, input) else { continue };
                commands.extend(judged.commands);
                is_news |= judged.is_news;
                // What grants nothing is said at once.
                match judged.answer.reply {
                    HeartbeatReply::Heard(_) => answers.push(judged.answer),
                    HeartbeatReply::NotController { .. } | HeartbeatReply::Refused { .. } => {
                        self.say(judged.answer);
                    }
                }
            }
            commands.extend(self.let_time_pass(now));
            commands.into_iter().for_each(|command| self.propose(command));
            self.confirm(answers, is_news);
        }
    }

    /// Waits for something to do, and takes the heartbeats that wait. `None`: nobody is left who could say anything.
    async fn next_inputs(&mut self) -> Option<Vec<ControllerInput>> {
        const NO_OFFICE: Deadline =
            Deadline::Unbounded("a node that does not lead the metadata is not the controller");
        let Driver { context, inbox, office, proposed, confirming, .. } = self;
        let backend = &context.backend;
        let deadline = office.as_ref().map_or(NO_OFFICE, |office| Deadline::At(office.tick_at));
        let (members, images) = (context.metadata.members(), context.metadata.images());
        let gone = context.asks.peers().gone();
        let (mut members, mut images, mut gone) = (members.watcher(), images.watcher(), gone.watcher());
        let mut inputs = Vec::new();
        let mut confirmed = Vec::new();
        let waiting = poll_fn(|cx| {
            while let Poll::Ready(Some(())) = proposed.poll_next_unpin(cx) {}
            let acting = members.watch(cx.waker());
            let mut changed = acting.acts.then_some(acting.term) != office.as_ref().map(|office| office.term);
            if let Some(office) = office.as_ref() {
                changed |= !Arc::ptr_eq(&images.watch(cx.waker()), &office.image);
                changed |= *gone.watch(cx.waker()) != office.gone;
            }
            while let Poll::Ready(Some(answers)) = confirming.poll_next_unpin(cx) {
                confirmed.push(answers);
            }
            changed |= !confirmed.is_empty();
            match inbox.poll_receive_many(cx, &mut inputs, limits::HEARTBEATS_WAITING_MAX) {
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Ready(Some(_)) => Poll::Ready(Some(())),
                Poll::Pending if changed => Poll::Ready(Some(())),
                Poll::Pending => Poll::Pending,
            }
        });
        let wait = backend.registry().waiting(backend, WaitKind::Receive, "heartbeats", Location::caller());
        let heard = within(backend, deadline, wait.bounded_by(deadline).during(waiting)).await;
        confirmed.into_iter().for_each(|(answers, leads)| self.answer(answers, leads));
        match heard {
            Ok(None) => None,
            // At the deadline it is time for a tick.
            Ok(Some(())) | Err(_) => Some(inputs),
        }
    }

    fn say(&self, Answer { to, reply }: Answer) {
        match to {
            Addressee::Other(question) => {
                self.context.asks.answer(&question, &message::encode_reply(&reply));
            }
            Addressee::Own(replier) => replier.answer(reply),
        }
    }

    /// Has the voters asked for answers before they are said; at once where somebody is told something new.
    fn confirm(&mut self, answers: Vec<Answer>, at_once: bool) {
        if answers.is_empty() {
            return;
        }
        let metadata = self.context.metadata.clone();
        let deadline = Deadline::after(&self.context.backend, limits::HEARTBEAT_DEADLINE);
        self.confirming.push(Box::pin(async move {
            let leads = metadata.confirm_lead(at_once, deadline).await;
            (answers, leads)
        }));
    }

    /// Says what waited for the voters.
    fn answer(&self, answers: Vec<Answer>, leads: bool) {
        let leader = self.context.metadata.members().get().leader;
        for Answer { to, reply } in answers {
            let reply = if leads { reply } else { HeartbeatReply::NotController { leader } };
            self.say(Answer { to, reply });
        }
    }

    /// Begins to be the controller, or ceases to be it.
    fn look_after_office(&mut self, now: Moment) {
        let members = self.context.metadata.members().get();
        let term = members.acts.then_some(members.term);
        if term == self.office.as_ref().map(|office| office.term) {
            return;
        }
        if self.office.take().is_some() {
            tracing::info!(leader = ?members.leader, "this node is not the controller any more");
        }
        self.context.metrics.active_controller.set(i64::from(term.is_some()));
        if let Some(term) = term {
            let image = self.context.metadata.image();
            tracing::info!(term, image = image.index, "this node is the controller");
            let controller = Controller::new(self.settings, image.clone(), now);
            let tick_at = now + self.settings.tick;
            // The image and who has ended are taken in by who looks after them: none is known yet.
            let (gone, told) = (BTreeSet::new(), BTreeMap::new());
            self.office = Some(Office { controller, term, image, gone, told, tick_at });
        }
    }

    /// Takes in a later image, and who has ended.
    fn follow(&mut self, now: Moment) -> Vec<MetadataCommand> {
        let Some(office) = &mut self.office else { return Vec::new() };
        let mut commands = Vec::new();
        let image = self.context.metadata.image();
        if !Arc::ptr_eq(&image, &office.image) {
            let is_later = image.index > office.image.index;
            office.image = image.clone();
            if is_later {
                commands.extend(office.controller.handle_image(now, image));
            }
        }
        let gone = self.context.asks.peers().gone().get();
        if *gone != office.gone {
            office.gone = BTreeSet::clone(&gone);
            commands.extend(office.controller.handle_gone(now, BTreeSet::clone(&gone)));
        }
        let fenced = office.image.brokers.values().filter(|broker| broker.fenced).count();
        self.context.metrics.fenced_brokers.set(fenced as i64);
        commands
    }

    /// Judges a heartbeat; what is none is not answered.
    fn hear(&mut self, now: Moment, input: ControllerInput) -> Option<Judged> {
        let (to, heartbeat) = match input {
            ControllerInput::Asked(question) => {
                let Some(heartbeat) = decode(&question) else {
                    tracing::debug!(from = %question.from, "what is no heartbeat of its own is not answered");
                    return None;
                };
                (Addressee::Other(question), heartbeat)
            }
            ControllerInput::Own(heartbeat, replier) => (Addressee::Own(replier), heartbeat),
        };
        let Some(office) = &mut self.office else {
            let leader = self.context.metadata.members().get().leader;
            let answer = Answer { to, reply: HeartbeatReply::NotController { leader } };
            return Some(Judged { answer, is_news: false, commands: Vec::new() });
        };
        let (process, may_lead) = (heartbeat.process, heartbeat.may_lead);
        let (reply, is_news, commands) = match office.controller.handle_heartbeat(now, heartbeat) {
            Ok((answer, commands)) => {
                let told = (process.epoch, may_lead, answer);
                let is_news = office.told.insert(process.broker, told) != Some(told);
                (HeartbeatReply::Heard(answer), is_news, commands)
            }
            Err(why) => (HeartbeatReply::Refused { why: why.to_string() }, false, Vec::new()),
        };
        Some(Judged { answer: Answer { to, reply }, is_news, commands })
    }

    /// However long it has been, it is one tick later.
    fn let_time_pass(&mut self, now: Moment) -> Vec<MetadataCommand> {
        match &mut self.office {
            Some(office) if office.tick_at <= now => {
                office.tick_at = now + self.settings.tick;
                office.controller.handle_tick(now)
            }
            _ => Vec::new(),
        }
    }

    /// What finds no place, or is not decided in time, is said again by the controller where it still holds.
    fn propose(&mut self, command: MetadataCommand) {
        if self.proposed.len() >= limits::CONTROLLER_PROPOSALS_AT_ONCE {
            return;
        }
        self.tell(&command);
        let metadata = self.context.metadata.clone();
        let deadline = Deadline::after(&self.context.backend, limits::CONTROLLER_PROPOSE_DEADLINE);
        self.proposed.push(Box::pin(async move {
            if let Err(why) = metadata.propose_here(&command, deadline).await {
                tracing::warn!(%why, "what the controller decided is not taken: it is said again where it still holds");
            }
        }));
    }

    fn tell(&self, command: &MetadataCommand) {
        match command {
            MetadataCommand::FenceBroker(process) => {
                tracing::warn!(broker = %process.broker, "is not heard: fenced, and what it leads moves");
            }
            MetadataCommand::UnfenceBroker(process) => {
                tracing::info!(broker = %process.broker, "is heard, and its metadata are current: unfenced");
            }
            MetadataCommand::ControlledShutdown(process) => {
                tracing::info!(broker = %process.broker, "wants to stop: what it leads moves");
            }
            MetadataCommand::MoveLeaders { from, .. } => {
                self.context.metrics.hand_overs.inc();
                tracing::warn!(broker = %from.broker, "takes no records: what it leads moves");
            }
            MetadataCommand::ElectLeaders { elections, .. } => {
                tracing::info!(partitions = elections.len(), "leaders are elected");
            }
            _ => {}
        }
    }
}

/// What a node says of itself, and not in another's name.
fn decode(question: &Question) -> Option<Heartbeat> {
    message::decode(&question.body).filter(|said| said.process.broker == question.from.node)
}
