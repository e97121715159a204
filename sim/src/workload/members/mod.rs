//! Members of consumer groups, of the classic protocol: they join, are told what to read or say so, read, and commit how far they are.
//!
//! As members do, some leave, some vanish without a word, some are paused for longer than their session lasts and go on as if
//! nothing had happened, and some are static: they come back under the name that their operator gave them. The program of a member
//! is one task: what it asks the coordinator goes over a connection of its own.

mod progress;
mod protocol;

use std::collections::BTreeMap;
use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;

pub(super) use progress::GroupProgress;
pub(super) use protocol::{Coordinator, positions_of};
pub use protocol::{OFFSETS_PARTITIONS, OFFSETS_TOPIC};

use super::client::Client;
use super::connection::{CallError, back_off, ns};
use super::fetcher::{self, FetchTerms};
use super::lines::Lines;
use crate::history::groups::{Assigned, Committed, GroupCommit, GroupRead};
use crate::history::{At, Damage, Place, Poll};
use crate::streams::Stream;
use protocol::{HEARTBEAT_EVERY, Joined, MemberName, SESSION};

/// A member of a group does something unusual once in so many turns.
const UNUSUAL_ONE_IN: u64 = 60;
/// For so long a member stays away that left or vanished, beyond its session.
const AWAY: Duration = Duration::from_secs(2);
/// One member of so many is static.
const STATIC_ONE_IN: u32 = 3;

/// `goes_for_good`: when all is well again it vanishes, and the others have to do without it.
pub(super) fn start<B: Backend>(
    client: Client<B>,
    progress: &GroupProgress,
    number: u32,
    goes_for_good: bool,
    stream: Stream,
) {
    let instance = (number % STATIC_ONE_IN == 2).then(|| format!("static-{number}"));
    let member = Member {
        reading: Lines::new(&client),
        coordinator: Coordinator::new(&client, progress.group.clone()),
        progress: progress.clone(),
        number,
        name: MemberName { id: String::new(), instance },
        generation: -1,
        places: Vec::new(),
        positions: BTreeMap::new(),
        has_uncommitted: false,
        round: 0,
        goes_for_good,
        client: client.clone(),
        stream,
    };
    client.begin("member", member.run());
}

struct Member<B: Backend> {
    client: Client<B>,
    stream: Stream,
    progress: GroupProgress,
    /// Among all that read.
    number: u32,
    reading: Lines<B>,
    coordinator: Coordinator<B>,
    name: MemberName,
    generation: i32,
    /// What it is to read: places of the field.
    places: Vec<usize>,
    positions: BTreeMap<usize, i64>,
    /// Some of that was not acknowledged to be committed.
    has_uncommitted: bool,
    round: u32,
    goes_for_good: bool,
}

/// What a member does next.
enum Next {
    /// It joins, as who it was.
    Join,
    /// It joins as nobody, after a pause.
    Anew(Duration),
    /// All is read.
    Leave,
    /// It is gone, and nobody is told.
    Vanish,
}

/// What a member was told instead of what it asked for.
enum Told {
    /// The network, or a coordinator that is not one or not yet: it is looked for again.
    Unavailable,
    /// It is to join again.
    Rebalance,
    /// It is no member.
    Unknown,
}

fn told(error: ResponseError) -> Told {
    match error {
        ResponseError::RebalanceInProgress => Told::Rebalance,
        ResponseError::UnknownMemberId
        | ResponseError::IllegalGeneration
        | ResponseError::FencedInstanceId
        | ResponseError::InconsistentGroupProtocol => Told::Unknown,
        _ => Told::Unavailable,
    }
}

impl<B: Backend> Member<B> {
    async fn run(mut self) {
        let backend = self.client.backend.clone();
        let mut failures = 0;
        while !self.is_over() {
            match self.join_and_read().await {
                Ok(Next::Join) => failures = 0,
                Ok(Next::Anew(pause)) => {
                    failures = 0;
                    self.forget_who_it_is();
                    backend.sleep(pause).await;
                }
                Ok(Next::Leave) => break,
                Ok(Next::Vanish) => {
                    self.client.field.notes.write().count("members that vanished");
                    return;
                }
                Err(_) => {
                    failures += 1;
                    back_off(&backend, failures).await;
                }
            }
        }
        self.progress.end(&self.client);
        // Who is gone may be missed for as long as a session; whoever is left waits for that.
        let _ = self.coordinator.leave(&self.name).await;
    }

    fn is_over(&self) -> bool {
        let (now, schedule) = (self.client.now(), self.client.field.schedule);
        now >= schedule.give_up || (now >= schedule.produce_until && self.progress.has_all(&self.client))
    }

    /// Nothing is broken any more.
    fn is_quiet(&self) -> bool {
        self.client.now() >= self.client.field.schedule.healed
    }

    fn forget_who_it_is(&mut self) {
        self.name.id.clear();
        self.generation = -1;
    }

    async fn join_and_read(&mut self) -> Result<Next, CallError> {
        match self.join().await? {
            Ok(()) => self.read().await,
            Err(Told::Unknown) => Ok(Next::Anew(Duration::ZERO)),
            Err(Told::Rebalance) => Ok(Next::Join),
            Err(Told::Unavailable) => Err(CallError::Unreadable("no coordinator".into())),
        }
    }

    /// Until it is told what to read, and where it is in that.
    async fn join(&mut self) -> Result<Result<(), Told>, CallError> {
        let topics = progress::topics(&self.client.field.places);
        let joined = match self.coordinator.join(&mut self.name, &topics).await? {
            Ok(joined) => joined,
            Err(error) => return Ok(Err(told(error))),
        };
        let Joined { generation, members } = joined;
        let assignments = progress::assign(&self.client.field.places, &members);
        let synced = self.coordinator.sync(&self.name, generation, assignments).await?;
        let places = match synced {
            Ok(places) => places,
            Err(error) => return Ok(Err(told(error))),
        };
        self.generation = generation;
        self.round += 1;
        let at = self.client.now();
        let field = self.client.field.clone();
        self.places =
            (0..field.places.len()).filter(|index| places.contains(&field.places[*index])).collect();
        {
            let mut notes = field.notes.write();
            notes.count("group generations joined");
            notes.groups.assigned.push(Assigned {
                group: self.progress.group.clone(),
                generation,
                member: self.name.id.as_str().into(),
                places: places.clone(),
                at,
            });
        }
        let positions = match positions_of(&self.client, &mut self.coordinator, &places).await? {
            Ok(positions) => positions,
            Err(error) => return Ok(Err(told(error))),
        };
        let position = |index: &usize| positions.get(&field.places[*index]).copied().unwrap_or(-1).max(0);
        self.has_uncommitted = false;
        self.positions = self.places.iter().map(|index| (*index, position(index))).collect();
        Ok(Ok(()))
    }

    async fn read(&mut self) -> Result<Next, CallError> {
        let backend = self.client.backend.clone();
        let mut beat_at = self.client.now() + ns(HEARTBEAT_EVERY);
        let mut failures = 0;
        loop {
            if self.is_over() {
                return Ok(Next::Leave);
            }
            if self.goes_for_good && self.is_quiet() {
                return Ok(Next::Vanish);
            }
            if self.client.now() >= beat_at {
                beat_at = self.client.now() + ns(HEARTBEAT_EVERY);
                match self.coordinator.heartbeat(&self.name, self.generation).await {
                    Ok(Ok(())) => failures = 0,
                    Ok(Err(error)) => match told(error) {
                        Told::Rebalance => {
                            // What it has read so far is not to be read again by whoever gets it.
                            self.commit().await;
                            return Ok(Next::Join);
                        }
                        Told::Unknown => return Ok(Next::Anew(Duration::ZERO)),
                        Told::Unavailable => failures += 1,
                    },
                    Err(_) => failures += 1,
                }
            }
            match self.fetch().await {
                Ok(0) if !self.has_uncommitted => {}
                Ok(1..) if self.stream.coin() => {}
                Ok(_) => {
                    if let Some(Told::Unknown) = self.commit().await {
                        return Ok(Next::Anew(Duration::ZERO));
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
        if self.is_quiet() || self.stream.below(UNUSUAL_ONE_IN) != 0 {
            return None;
        }
        let backend = self.client.backend.clone();
        let count = |name| self.client.field.notes.write().count(name);
        match self.stream.below(4) {
            0 => {
                count("members that left");
                let _ = self.coordinator.leave(&self.name).await;
                Some(Next::Anew(AWAY))
            }
            1 => {
                count("members that vanished");
                self.coordinator.close();
                Some(Next::Anew(SESSION + AWAY))
            }
            2 => {
                count("members that were paused");
                backend.sleep(SESSION + AWAY).await;
                // It does not know better.
                self.commit().await;
                None
            }
            _ => {
                self.commit().await;
                Some(Next::Join)
            }
        }
    }

    /// How many records came.
    async fn fetch(&mut self) -> Result<usize, CallError> {
        let field = self.client.field.clone();
        if self.places.is_empty() {
            self.client.backend.sleep(Duration::from_millis(100)).await;
            return Ok(0);
        }
        let from: Vec<(usize, i64)> =
            self.positions.iter().map(|(index, offset)| (*index, *offset)).collect();
        let terms = FetchTerms { wait: Duration::from_millis(200), ..FetchTerms::soon() };
        let fetched = fetcher::fetch(&self.client, &mut self.reading, &field.places, &from, terms).await?;
        let mut count = 0;
        for mut one in fetched {
            let place = field.places[one.index].clone();
            if one.error == Some(ResponseError::OffsetOutOfRange) {
                let at = self.client.now();
                let what = format!(
                    "group {} is at offset {}, and that is out of range",
                    self.progress.group, one.from
                );
                field.notes.write().damages.push(Damage { place, at, what });
                continue;
            }
            one.note_damages(&self.client, &place);
            let Some((last, _)) = one.records.last() else { continue };
            let until = last + 1;
            count += one.records.len();
            self.positions.insert(one.index, until);
            self.has_uncommitted = true;
            self.note_read(one.index, one.from, until, one.records);
        }
        Ok(count)
    }

    fn note_read(&self, index: usize, from: i64, until: i64, records: Vec<(i64, crate::history::Value)>) {
        let (place, at) = (self.client.field.places[index].clone(), self.client.now());
        self.client.field.owed.read(index, until);
        let mut notes = self.client.field.notes.write();
        let group = self.progress.group.clone();
        notes.groups.reads.push(GroupRead { group, place: place.clone(), from, until });
        notes.brought(Poll { consumer: self.number, round: self.round, place, from, again: 0, at, records });
    }

    /// Says how far it is in all that it reads; what it was told, if it was refused.
    async fn commit(&mut self) -> Option<Told> {
        if self.positions.is_empty() {
            return None;
        }
        let field = self.client.field.clone();
        let offsets: Vec<(Place, i64)> =
            self.positions.iter().map(|(index, offset)| (field.places[*index].clone(), *offset)).collect();
        let sent = self.client.now();
        let answered = self.coordinator.commit(&self.name, self.generation, &offsets).await;
        let at = self.client.now();
        let (committed, refused) = match &answered {
            Ok(None) => (Committed::Acked(at), None),
            Ok(Some(error)) => (outcome(*error), Some(told(*error))),
            Err(error) if error.never_sent() => (Committed::Refused, Some(Told::Unavailable)),
            Err(_) => (Committed::Unknown, Some(Told::Unavailable)),
        };
        self.has_uncommitted &= refused.is_some();
        self.note_commit(&offsets, sent, committed);
        refused
    }

    fn note_commit(&self, offsets: &[(Place, i64)], sent: At, told: Committed) {
        let mut notes = self.client.field.notes.write();
        if let Committed::Acked(_) = told {
            notes.add("group commits", offsets.len() as u64);
        }
        for (place, offset) in offsets {
            notes.groups.commits.push(GroupCommit {
                group: self.progress.group.clone(),
                generation: self.generation,
                member: self.name.id.as_str().into(),
                place: place.clone(),
                offset: *offset,
                sent,
                told,
            });
        }
        drop(notes);
        if let Committed::Acked(_) = told {
            self.progress.committed(&self.client.field.places, offsets);
        }
    }
}

/// What an error says of a commit: only who decides that the member may not leaves no doubt.
fn outcome(error: ResponseError) -> Committed {
    match error {
        ResponseError::RebalanceInProgress
        | ResponseError::UnknownMemberId
        | ResponseError::IllegalGeneration
        | ResponseError::FencedInstanceId
        | ResponseError::CoordinatorLoadInProgress => Committed::Refused,
        _ => Committed::Unknown,
    }
}
