//! What members of both protocols do: they read what they are told to, and say how far they are.

use std::collections::BTreeMap;
use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;

use super::super::client::Client;
use super::super::connection::CallError;
use super::super::fetcher::{self, FetchTerms};
use super::super::lines::Lines;
use super::coordinator::{As, Coordinator, MemberName, Standing, standing};
use super::progress::GroupProgress;
use crate::history::groups::{Beat, Committed, GroupCommit, GroupRead, Told, Wish};
use crate::history::{At, Damage, Place, Poll, Value};
use crate::streams::Stream;

/// A member as far as its protocol is nothing to it.
pub(super) struct Reading<B: Backend> {
    pub(super) client: Client<B>,
    pub(super) stream: Stream,
    pub(super) progress: GroupProgress,
    /// Among all that read.
    pub(super) number: u32,
    pub(super) lines: Lines<B>,
    pub(super) coordinator: Coordinator<B>,
    pub(super) speaks_classic: bool,
    /// Others in its group may speak the other protocol.
    pub(super) is_mixed: bool,
    pub(super) name: MemberName,
    /// The generation of its group, or its own epoch.
    pub(super) epoch: i32,
    /// Where it is in what it is to read: places of the field.
    pub(super) positions: BTreeMap<usize, i64>,
    /// Some of that was not acknowledged to be committed.
    pub(super) has_uncommitted: bool,
    pub(super) round: u32,
    /// Since when it wants to be told what to read.
    pub(super) wishes_since: Option<At>,
}

/// What a member was told instead of what it asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Refusal {
    /// The network, or a coordinator that is not one or not yet: it is looked for again.
    Unavailable,
    /// It is to join again, or to hear in which epoch it is.
    Rebalance,
    /// It is no member.
    Gone,
}

pub(super) fn refusal(error: ResponseError) -> Refusal {
    match error {
        ResponseError::RebalanceInProgress | ResponseError::StaleMemberEpoch => Refusal::Rebalance,
        ResponseError::InconsistentGroupProtocol => Refusal::Gone,
        // Who had the name before is waited for.
        ResponseError::UnreleasedInstanceId => Refusal::Unavailable,
        error if standing(error) == Standing::Lost => Refusal::Gone,
        _ => Refusal::Unavailable,
    }
}

impl<B: Backend> Reading<B> {
    pub(super) fn is_over(&self) -> bool {
        let (now, schedule) = (self.client.now(), self.client.field.schedule);
        now >= schedule.give_up || (now >= schedule.produce_until && self.progress.has_all(&self.client))
    }

    /// Who comes in the name of a static member takes over what that had, and that is no more.
    pub(super) fn note_successor(&mut self, before: String) {
        if self.is_mixed && self.name.instance.is_some() && !before.is_empty() {
            let now = std::mem::replace(&mut self.name.id, before);
            self.note_beat(Some(Vec::new()), self.client.now(), Told::Nothing);
            self.name.id = now;
        }
    }

    /// What a member said and was told, where each is in an epoch of its own.
    pub(super) fn note_beat(&self, keeps: Option<Vec<Place>>, sent: At, told: Told) {
        self.client.field.notes.write().groups.beats.push(Beat {
            group: self.progress.group.clone(),
            member: self.name.id.as_str().into(),
            keeps,
            sent,
            told,
        });
    }

    /// Nothing is broken any more.
    pub(super) fn is_quiet(&self) -> bool {
        self.client.now() >= self.client.field.schedule.healed
    }

    pub(super) fn wish(&mut self) {
        let now = self.client.now();
        self.wishes_since.get_or_insert(now);
    }

    /// It was told, or goes without.
    pub(super) fn end_wish(&mut self) {
        let Some(began) = self.wishes_since.take() else { return };
        let (group, until) = (self.progress.group.clone(), self.client.now());
        self.client.field.notes.write().groups.wishes.push(Wish { group, member: self.number, began, until });
    }

    /// How many records came.
    pub(super) async fn fetch(&mut self) -> Result<usize, CallError> {
        let field = self.client.field.clone();
        if self.positions.is_empty() {
            self.client.backend.sleep(Duration::from_millis(100)).await;
            return Ok(0);
        }
        let from: Vec<(usize, i64)> =
            self.positions.iter().map(|(index, offset)| (*index, *offset)).collect();
        let terms = FetchTerms { wait: Duration::from_millis(200), ..FetchTerms::soon() };
        let fetched = fetcher::fetch(&self.client, &mut self.lines, &field.places, &from, terms).await?;
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

    fn note_read(&self, index: usize, from: i64, until: i64, records: Vec<(i64, Value)>) {
        let (place, at) = (self.client.field.places[index].clone(), self.client.now());
        self.client.field.owed.read(index, until);
        let mut notes = self.client.field.notes.write();
        let group = self.progress.group.clone();
        notes.groups.reads.push(GroupRead { group, place: place.clone(), from, until });
        notes.brought(Poll { consumer: self.number, round: self.round, place, from, again: 0, at, records });
    }

    /// Says how far it is in all that it reads; what it was told, if it was refused.
    pub(super) async fn commit(&mut self) -> Option<Refusal> {
        if self.positions.is_empty() {
            return None;
        }
        let field = self.client.field.clone();
        let offsets: Vec<(Place, i64)> =
            self.positions.iter().map(|(index, offset)| (field.places[*index].clone(), *offset)).collect();
        let sent = self.client.now();
        let by = match self.speaks_classic {
            true => As::Classic(&self.name, self.epoch),
            false => As::Consumer(&self.name, self.epoch),
        };
        let answered = self.coordinator.commit(by, &offsets).await;
        let at = self.client.now();
        let (committed, refused) = match &answered {
            Ok(None) => (Committed::Acked(at), None),
            Ok(Some(error)) => (outcome(*error, at), Some(refusal(*error))),
            Err(error) if error.never_sent() => (Committed::Refused, Some(Refusal::Unavailable)),
            Err(_) => (Committed::Unanswered(at), Some(Refusal::Unavailable)),
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
                generation: self.epoch,
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
fn outcome(error: ResponseError, at: At) -> Committed {
    match (standing(error), error) {
        (Standing::Asked | Standing::Lost, _) | (_, ResponseError::CoordinatorLoadInProgress) => {
            Committed::Refused
        }
        _ => Committed::Doubtful(at),
    }
}
