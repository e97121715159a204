//! What the controller decides while it leads the metadata group: who is heard, whose storage stands still, and which
//! commands follow. A state machine without I/O; the driver gives it heartbeats, ticks and images, and proposes what it
//! says. It keeps nothing that outlives it: another controller begins with all sessions new.
//!
//! Three capacities are told apart. A broker that is *heard* is not fenced. One whose storage takes writes *may lead*; one
//! whose storage has stood still is on probation for a while after it does again, which bars leadership and nothing else. Whether
//! it may vote is Raft's affair. Nobody moves where nobody better is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use io_backend::Moment;
use serde::{Deserialize, Serialize};

use super::command::{BrokerProcess, MetadataCommand};
use super::elections;
use super::image::MetadataImage;
use super::outcome::BrokerError;
use crate::ids::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionId};

/// Times by which the controller judges.
#[derive(Clone, Copy, Debug)]
pub struct ControllerSettings {
    /// How often there is a tick.
    pub tick: Duration,
    /// A broker that has not been heard for so long is fenced (`broker.session.timeout.ms`).
    pub session_timeout: Duration,
    /// One at whose address nobody listens is fenced after so long: its process has ended. It is longer than a heartbeat is on its
    /// way, for who is heard is not fenced. A connection that breaks, or on which nothing comes, says nothing: that one may serve as
    /// long as its session lasts.
    pub gone_timeout: Duration,
    /// A storage has to take writes for so long before its broker is given leaderships again.
    pub probation: Duration,
    /// A partition that commits nothing for so long, while one that has everything does not reach the leader, moves.
    pub cut_off_after: Duration,
    /// How often leaders go back to the first of their replicas; `None`: never by themselves.
    pub rebalance_every: Option<Duration>,
}

impl Default for ControllerSettings {
    fn default() -> ControllerSettings {
        ControllerSettings {
            tick: Duration::from_millis(100),
            session_timeout: Duration::from_secs(2),
            gone_timeout: Duration::from_millis(500),
            probation: Duration::from_secs(15),
            cut_off_after: Duration::from_secs(2),
            rebalance_every: Some(Duration::from_secs(300)),
        }
    }
}

/// What is decided but not seen in the image is said again after this.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a broker says of itself, again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Who speaks.
    pub process: BrokerProcess,
    /// Index of the image that it has.
    pub image_index: u64,
    /// Its journal of records takes writes: it neither stands still nor has failed nor is full.
    pub may_lead: bool,
    /// It wants to stop.
    pub wants_shutdown: bool,
    /// Epochs that it was granted a second ago or earlier, and has not begun.
    pub not_begun: Vec<(PartitionId, LeaderEpoch)>,
    /// Leaders that it does not reach.
    pub unreachable: BTreeSet<BrokerId>,
}

/// What a broker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// It leads nothing and is in no ISR.
    pub fenced: bool,
    /// It leads nothing any more that anybody else could.
    pub may_stop: bool,
    /// Something that it led was taken from it by this entry: with an older image it does not know what it leads.
    pub revoked_at: u64,
    /// It has said that its storage takes no records, or that it wants to stop, and something that it leads moves to others: that is not
    /// in the controller's image yet. Releases before did not say so.
    #[serde(default)]
    pub is_relieved: bool,
    /// After how much silence the controller fences it; it may count on no more. Releases before did not say so.
    #[serde(default)]
    pub session_timeout: Option<Duration>,
}

struct Session {
    epoch: BrokerEpoch,
    heard: Moment,
    /// Since it was last heard: never more than has passed, so that a broker notices the end of its session first.
    silent: Duration,
    /// Its fence is proposed, and not in the image yet.
    is_being_fenced: bool,
    /// It is proposed that others lead what it does, and not in the image yet.
    is_being_relieved: bool,
    may_lead: bool,
    /// What is left of its probation.
    probation: Duration,
    wants_shutdown: bool,
    not_begun: Vec<(PartitionId, LeaderEpoch)>,
    /// Leaders that it does not reach, and for how long.
    unreachable: BTreeMap<BrokerId, Duration>,
    image_index: u64,
    revoked_at: u64,
}

impl Session {
    fn new(epoch: BrokerEpoch, now: Moment) -> Session {
        Session {
            epoch,
            heard: now,
            silent: Duration::ZERO,
            is_being_fenced: false,
            is_being_relieved: false,
            may_lead: true,
            probation: Duration::ZERO,
            wants_shutdown: false,
            not_begun: Vec::new(),
            unreachable: BTreeMap::new(),
            image_index: 0,
            revoked_at: 0,
        }
    }
}

/// What a command is about, so that it is not said again before it can have taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Fence(BrokerId),
    Unfence(BrokerId),
    Shutdown(BrokerId),
    Stalled(BrokerId),
    NotBegun(BrokerId),
    CutOff,
}

/// See the module.
pub struct Controller {
    settings: ControllerSettings,
    image: Arc<MetadataImage>,
    sessions: BTreeMap<BrokerId, Session>,
    /// Brokers whose processes have ended.
    gone: BTreeSet<BrokerId>,
    /// Partitions that commit nothing for want of in-sync replicas, and for how long.
    short: BTreeMap<PartitionId, Duration>,
    last_tick: Moment,
    since_rebalance: Duration,
    said: BTreeMap<About, Moment>,
}

impl Controller {
    /// Begins to lead, with the image of that moment: everybody counts as just heard. What was taken from whom before is not
    /// known: who has an older image may not know what it leads.
    pub fn new(settings: ControllerSettings, image: Arc<MetadataImage>, now: Moment) -> Controller {
        let mut controller = Controller {
            settings,
            image: Arc::default(),
            sessions: BTreeMap::new(),
            gone: BTreeSet::new(),
            short: BTreeMap::new(),
            last_tick: now,
            since_rebalance: Duration::ZERO,
            said: BTreeMap::new(),
        };
        controller.take_over(now, image);
        let begun_at = controller.image.index;
        controller.sessions.values_mut().for_each(|session| session.revoked_at = begun_at);
        controller
    }

    /// The brokers whose processes have ended, as their connections say. Of all others silence is a slow network or a slow process.
    pub fn handle_gone(&mut self, now: Moment, gone: BTreeSet<BrokerId>) -> Vec<MetadataCommand> {
        self.gone = gone;
        self.decide(now)
    }

    /// A broker speaks.
    ///
    /// # Errors
    ///
    /// The process is not the latest of a registered broker. Nothing is decided then.
    pub fn handle_heartbeat(
        &mut self,
        now: Moment,
        heartbeat: Heartbeat,
    ) -> Result<(HeartbeatAnswer, Vec<MetadataCommand>), BrokerError> {
        let id = heartbeat.process.broker;
        let broker = self.image.brokers.get(&id).ok_or(BrokerError::NotRegistered(id))?;
        if broker.epoch != heartbeat.process.epoch {
            return Err(BrokerError::StaleEpoch { expected: broker.epoch, found: heartbeat.process.epoch });
        }
        let epoch = broker.epoch;
        let probation = self.settings.probation;
        let session = self.sessions.entry(id).or_insert_with(|| Session::new(epoch, now));
        (session.heard, session.silent) = (now, Duration::ZERO);
        session.image_index = heartbeat.image_index;
        session.wants_shutdown |= heartbeat.wants_shutdown;
        // Who could not take over from others before now can.
        let is_back = heartbeat.may_lead && !session.may_lead;
        session.may_lead = heartbeat.may_lead;
        if !heartbeat.may_lead {
            session.probation = probation;
        }
        session.not_begun = heartbeat.not_begun;
        session.unreachable.retain(|leader, _| heartbeat.unreachable.contains(leader));
        for leader in heartbeat.unreachable {
            session.unreachable.entry(leader).or_default();
        }
        if is_back {
            self.said.retain(|about, _| !matches!(about, About::Stalled(_)));
        }
        let commands = self.decide(now);
        Ok((self.answer_to(id), commands))
    }

    /// What a broker with a session is told now.
    fn answer_to(&self, id: BrokerId) -> HeartbeatAnswer {
        let (session, broker) = (&self.sessions[&id], &self.image.brokers[&id]);
        let wants_shutdown = session.wants_shutdown;
        let may_stop = wants_shutdown
            && broker.in_controlled_shutdown
            && elections::away_from(&self.image, id, &self.stalled(), &[]).is_none();
        let will_stop = wants_shutdown && !broker.in_controlled_shutdown;
        HeartbeatAnswer {
            fenced: broker.fenced || session.is_being_fenced,
            may_stop,
            revoked_at: session.revoked_at,
            is_relieved: session.is_being_relieved
                || will_stop && elections::takes_from(&self.image, id, &self.stalled()),
            session_timeout: Some(self.settings.session_timeout),
        }
    }

    /// Time has passed. To be called when all heartbeats that wait have been handled: what was not looked at is not
    /// silence. Time in which there was no tick, because the process or the clock stood still, counts as two ticks at most.
    pub fn handle_tick(&mut self, now: Moment) -> Vec<MetadataCommand> {
        let passed = now.since(self.last_tick).min(2 * self.settings.tick);
        self.last_tick = now;
        for session in self.sessions.values_mut() {
            session.silent += now.since(session.heard).min(passed);
            if session.may_lead {
                session.probation = session.probation.saturating_sub(passed);
            }
            session.unreachable.values_mut().for_each(|unreachable| *unreachable += passed);
        }
        self.short.values_mut().for_each(|short| *short += passed);
        self.since_rebalance += passed;
        let mut commands = self.decide(now);
        if self.settings.rebalance_every.is_some_and(|every| self.since_rebalance >= every) {
            self.since_rebalance = Duration::ZERO;
            commands.extend(elections::preferred(&self.image, &self.barred()));
        }
        commands
    }

    /// A later image.
    pub fn handle_image(&mut self, now: Moment, image: Arc<MetadataImage>) -> Vec<MetadataCommand> {
        self.take_over(now, image);
        self.decide(now)
    }

    fn take_over(&mut self, now: Moment, image: Arc<MetadataImage>) {
        let before = std::mem::replace(&mut self.image, image);
        let image = self.image.clone();
        self.sessions
            .retain(|id, session| image.brokers.get(id).is_some_and(|broker| broker.epoch == session.epoch));
        for (id, broker) in &image.brokers {
            let session = self.sessions.entry(*id).or_insert_with(|| Session::new(broker.epoch, now));
            session.is_being_fenced &= !broker.fenced;
        }
        for topic in image.topics.values() {
            let known = before.topics.get(&topic.name);
            if known.is_some_and(|known| Arc::ptr_eq(known, topic))
                && Arc::ptr_eq(&before.broker_configs, &image.broker_configs)
            {
                continue;
            }
            let minimum = image.min_insync_replicas_set(topic);
            for (index, partition) in (0..).zip(&topic.partitions) {
                let id = PartitionId { topic: topic.id, index };
                match partition.isr.len() < partition.min_insync_replicas(minimum) {
                    true => drop(self.short.entry(id).or_default()),
                    false => drop(self.short.remove(&id)),
                }
                let led = before.partition(id).and_then(|before| before.leader);
                if let Some(led) = led.filter(|led| partition.leader != Some(*led))
                    && let Some(session) = self.sessions.get_mut(&led)
                {
                    session.revoked_at = image.index;
                }
            }
        }
        self.short.retain(|id, _| image.partition(*id).is_some());
    }

    /// Who is given nothing to lead: storages that do not take writes, or have not for long enough again.
    fn barred(&self) -> Vec<BrokerId> {
        let barred = |session: &Session| !session.may_lead || !session.probation.is_zero();
        self.sessions.iter().filter(|(_, session)| barred(session)).map(|(id, _)| *id).collect()
    }

    fn stalled(&self) -> Vec<BrokerId> {
        self.sessions.iter().filter(|(_, session)| !session.may_lead).map(|(id, _)| *id).collect()
    }

    fn decide(&mut self, now: Moment) -> Vec<MetadataCommand> {
        let (barred, stalled) = (self.barred(), self.stalled());
        let image = self.image.clone();
        let mut decided: Vec<(About, MetadataCommand)> = Vec::new();
        for (id, session) in &mut self.sessions {
            let Some(broker) = image.brokers.get(id) else { continue };
            let process = BrokerProcess { broker: *id, epoch: broker.epoch };
            let timeout = match self.gone.contains(id) {
                true => self.settings.gone_timeout,
                false => self.settings.session_timeout,
            };
            let silent = session.silent >= timeout;
            // Alone there is nobody to move anything to. Whoever is heard again meanwhile is fenced all the same: the proposal may be
            // in the log, and is decided whenever that is.
            let is_due = session.is_being_fenced || silent && !broker.fenced;
            session.is_being_fenced = is_due && image.brokers.len() > 1;
            if session.is_being_fenced {
                decided.push((About::Fence(*id), MetadataCommand::FenceBroker(process)));
                continue;
            }
            if silent {
                continue;
            }
            // Its image has its own registration, and all that came before.
            if broker.fenced && session.image_index >= broker.epoch.0 {
                decided.push((About::Unfence(*id), MetadataCommand::UnfenceBroker(process)));
            }
            if session.wants_shutdown && !broker.in_controlled_shutdown {
                decided.push((About::Shutdown(*id), MetadataCommand::ControlledShutdown(process)));
            }
            // Whose storage takes records again meanwhile is relieved all the same, for the same reason.
            if !session.may_lead || session.is_being_relieved {
                // A storage on probation is better than one that stands still.
                let moves = elections::away_from(&image, *id, &stalled, &barred);
                session.is_being_relieved = elections::takes_from(&image, *id, &stalled);
                decided.extend(moves.map(|moves| (About::Stalled(*id), moves)));
            }
            if !session.not_begun.is_empty() {
                let next = elections::next_in_turn(&image, *id, &session.not_begun, &barred);
                decided.extend(next.map(|next| (About::NotBegun(*id), next)));
            }
        }
        let cut_off_after = self.settings.cut_off_after;
        let cut_off = |one: BrokerId, leader: BrokerId| {
            let unreachable = self.sessions.get(&one).and_then(|session| session.unreachable.get(&leader));
            unreachable.is_some_and(|unreachable| *unreachable >= cut_off_after)
        };
        // Of a leader that is not heard the session has to end: nobody tells it that it is replaced.
        let heard_within = self.settings.gone_timeout;
        let is_heard =
            |leader: &BrokerId| self.sessions.get(leader).is_some_and(|of| of.silent < heard_within);
        let cut_off = |one: BrokerId, leader: BrokerId| is_heard(&leader) && cut_off(one, leader);
        let short = self.short.iter().filter(|(_, short)| **short >= cut_off_after).map(|(id, _)| *id);
        let moves = elections::from_cut_off_leaders(&image, short, cut_off, &barred);
        decided.extend(moves.map(|moves| (About::CutOff, moves)));
        self.not_said_lately(now, decided)
    }

    fn not_said_lately(
        &mut self,
        now: Moment,
        decided: Vec<(About, MetadataCommand)>,
    ) -> Vec<MetadataCommand> {
        self.said.retain(|_, said| now.since(*said) < SAID_AGAIN_AFTER);
        let mut commands = Vec::new();
        for (about, command) in decided {
            if let std::collections::btree_map::Entry::Vacant(place) = self.said.entry(about) {
                place.insert(now);
                commands.push(command);
            }
        }
        commands
    }
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
