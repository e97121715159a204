//! Members of consumer groups, of both protocols: they join, are told what to read or say so, read, and commit how far they are.
//!
//! As members do, some leave, some vanish without a word, some are paused for longer than their session lasts and go on as if
//! nothing had happened, and some are static: they come back under the name that their operator gave them. The program of a member
//! is one task: what it asks the coordinator goes over a connection of its own.

mod progress;
mod coordinator;
mod classic_protocol;
mod consumer_protocol;
mod reading;
mod classic;
mod consumer;

use std::collections::BTreeMap;
use std::time::Duration;

use io_backend::Backend;

pub(super) use coordinator::{Coordinator, kept_in, positions_of};
pub use coordinator::{HEARTBEAT_EVERY, OFFSETS_PARTITIONS, OFFSETS_TOPIC, SESSION};
pub(super) use progress::GroupProgress;

use super::client::Client;
use super::connection::{CallError, back_off, ns};
use super::lines::Lines;
use crate::scenario::GroupProtocol;
use crate::streams::Stream;
use consumer::Consumer;
use coordinator::MemberName;
use reading::{Reading, Refusal};

/// A member of a group does something unusual once in so many turns.
const UNUSUAL_ONE_IN: u64 = 60;
/// For so long a member stays away that left or vanished, beyond its session.
const AWAY: Duration = Duration::from_secs(2);
/// For so long a static member's process is down that is started anew.
const RESTART: Duration = Duration::from_millis(800);
/// One member of so many is static.
const STATIC_ONE_IN: u32 = 3;

/// `goes_for_good`: when all is well again it vanishes, and the others have to do without it.
pub(super) fn start<B: Backend>(
    client: Client<B>,
    progress: &GroupProgress,
    protocol: GroupProtocol,
    number: u32,
    goes_for_good: bool,
    mut stream: Stream,
) {
    let instance = (number % STATIC_ONE_IN == 2).then(|| format!("static-{number}"));
    let speaks = Speaks::drawn(protocol, &mut stream);
    let reading = Reading {
        lines: Lines::new(&client),
        coordinator: Coordinator::new(&client, progress.group.clone()),
        progress: progress.clone(),
        speaks_classic: matches!(speaks, Speaks::Classic),
        is_mixed: protocol == GroupProtocol::Mixed,
        number,
        name: MemberName { id: String::new(), instance },
        epoch: -1,
        positions: BTreeMap::new(),
        has_uncommitted: false,
        round: 0,
        wishes_since: None,
        client: client.clone(),
        stream,
    };
    client.begin("member", Member { reading, protocol, speaks, goes_for_good }.run());
}

struct Member<B: Backend> {
    reading: Reading<B>,
    protocol: GroupProtocol,
    speaks: Speaks,
    goes_for_good: bool,
}

enum Speaks {
    Classic,
    Consumer(Box<Consumer>),
}

/// What a member does next.
enum Next {
    /// It joins, as who it was.
    Join,
    /// It is told that it is no member, and joins as its protocol has it.
    Rejoin,
    /// It joins as nobody, after a pause.
    Anew(Duration),
    /// All is read.
    Leave,
    /// It is gone, and nobody is told.
    Vanish,
}

impl Speaks {
    fn drawn(protocol: GroupProtocol, stream: &mut Stream) -> Speaks {
        let is_classic = match protocol {
            GroupProtocol::Classic => true,
            GroupProtocol::Consumer => false,
            GroupProtocol::Mixed => stream.coin(),
        };
        if is_classic { Speaks::Classic } else { Speaks::Consumer(Box::new(Consumer::drawn(stream))) }
    }

    /// Until the member is told what to read.
    async fn join<B: Backend>(&mut self, reading: &mut Reading<B>) -> Result<Result<(), Refusal>, CallError> {
        match self {
            Speaks::Classic => classic::join(reading).await,
            Speaks::Consumer(consumer) => consumer.join(reading).await,
        }
    }

    async fn beat<B: Backend>(&mut self, reading: &mut Reading<B>) -> Result<Result<(), Refusal>, CallError> {
        match self {
            Speaks::Classic => classic::beat(reading).await,
            Speaks::Consumer(consumer) => consumer.beat(reading).await,
        }
    }

    async fn leave<B: Backend>(&mut self, reading: &mut Reading<B>, comes_back: bool) {
        match self {
            // Who does not hear of it misses the member for as long as a session.
            Speaks::Classic => classic::leave(reading).await,
            Speaks::Consumer(consumer) => consumer.leave(reading, comes_back).await,
        }
    }

    fn interval(&self) -> Duration {
        match self {
            Speaks::Classic => HEARTBEAT_EVERY,
            Speaks::Consumer(consumer) if consumer.is_urgent() => Duration::ZERO,
            Speaks::Consumer(consumer) => consumer.interval,
        }
    }

    /// What it is to do that is to join again, or to hear in which epoch it is.
    fn rebalanced(&self) -> Option<Next> {
        matches!(self, Speaks::Classic).then_some(Next::Join)
    }
}

impl<B: Backend> Member<B> {
    async fn run(mut self) {
        let backend = self.reading.client.backend.clone();
        let mut failures = 0;
        while !self.reading.is_over() {
            match self.join_and_read().await {
                Ok(Next::Join) => failures = 0,
                Ok(Next::Rejoin) => {
                    failures = 0;
                    self.reading.coordinator.forget_member();
                    if let Speaks::Classic = self.speaks {
                        self.reading.name.id.clear();
                        self.reading.epoch = -1;
                    }
                }
                Ok(Next::Anew(pause)) => {
                    failures = 0;
                    self.reading.coordinator.forget_member();
                    let before = std::mem::take(&mut self.reading.name.id);
                    self.reading.epoch = -1;
                    backend.sleep(pause).await;
                    self.reading.note_successor(before);
                    if self.reading.is_mixed {
                        self.speak_anew();
                    }
                }
                Ok(Next::Leave) => break,
                Ok(Next::Vanish) => {
                    self.count("members that vanished");
                    return;
                }
                Err(_) => {
                    failures += 1;
                    back_off(&backend, failures).await;
                }
            }
        }
        let Member { mut reading, mut speaks, .. } = self;
        reading.end_wish();
        reading.progress.end(&reading.client);
        speaks.leave(&mut reading, false).await;
    }

    /// As when a program is replaced by its next version, or by the last one.
    fn speak_anew(&mut self) {
        self.speaks = Speaks::drawn(self.protocol, &mut self.reading.stream);
        let speaks_classic = matches!(self.speaks, Speaks::Classic);
        if speaks_classic != self.reading.speaks_classic {
            self.count("members that changed their protocol");
        }
        self.reading.speaks_classic = speaks_classic;
    }

    fn count(&self, name: &'static str) {
        self.reading.client.field.notes.write().count(name);
    }

    async fn join_and_read(&mut self) -> Result<Next, CallError> {
        match self.speaks.join(&mut self.reading).await? {
            Ok(()) => self.read().await,
            Err(Refusal::Gone) => Ok(Next::Rejoin),
            Err(Refusal::Rebalance) => match self.speaks.rebalanced() {
                Some(next) => Ok(next),
                None => self.read().await,
            },
            Err(Refusal::Unavailable) => Err(CallError::Unreadable("no coordinator".into())),
        }
    }

    async fn read(&mut self) -> Result<Next, CallError> {
        let backend = self.reading.client.backend.clone();
        let mut beat_at = self.reading.client.now() + ns(self.speaks.interval());
        let mut failures = 0;
        loop {
            if self.reading.is_over() {
                return Ok(Next::Leave);
            }
            if self.goes_for_good && self.reading.is_quiet() {
                return Ok(Next::Vanish);
            }
            if self.reading.client.now() >= beat_at {
                match self.speaks.beat(&mut self.reading).await {
                    Ok(Ok(())) => failures = 0,
                    Ok(Err(Refusal::Rebalance)) => {
                        if let Some(next) = self.speaks.rebalanced() {
                            return Ok(next);
                        }
                    }
                    Ok(Err(Refusal::Gone)) => return Ok(Next::Rejoin),
                    Ok(Err(Refusal::Unavailable)) | Err(_) => failures += 1,
                }
                beat_at = self.reading.client.now() + ns(self.speaks.interval());
            }
            match self.reading.fetch().await {
                Ok(0) if !self.reading.has_uncommitted => {}
                Ok(1..) if self.reading.stream.coin() => {}
                Ok(_) => {
                    if let Some(Refusal::Gone) = self.reading.commit().await {
                        return Ok(Next::Rejoin);
                    }
                }
                Err(_) => failures += 1,
            }
            if failures > 0 {
                back_off(&backend, failures).await;
            }
            if let Some(next) = self.do_something_unusual().await {
                return Ok(next);
            }
        }
    }

    /// As operators and machines make members do.
    async fn do_something_unusual(&mut self) -> Option<Next> {
        let Member { reading, speaks, .. } = self;
        if reading.is_quiet() || reading.stream.below(UNUSUAL_ONE_IN) != 0 {
            return None;
        }
        let backend = reading.client.backend.clone();
        match reading.stream.below(4) {
            0 => {
                speaks.leave(reading, true).await;
                self.count("members that left");
                Some(Next::Anew(AWAY))
            }
            1 => {
                reading.coordinator.close();
                self.count("members that vanished");
                Some(Next::Anew(SESSION + AWAY))
            }
            2 => {
                self.count("members that were paused");
                backend.sleep(SESSION + AWAY).await;
                // It does not know better.
                self.reading.commit().await;
                None
            }
            _ => {
                reading.commit().await;
                if let (Speaks::Consumer(consumer), true) = (&mut *speaks, reading.name.instance.is_some()) {
                    consumer.leave(reading, true).await;
                    return Some(Next::Anew(RESTART));
                }
                Some(Next::Join)
            }
        }
    }
}
