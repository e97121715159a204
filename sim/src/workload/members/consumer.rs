//! A member of a consumer group (KIP-848): the coordinator says what it reads. What it is not to have any more it gives up first (it
//! stops reading, commits, and says so), and then it takes what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;

use super::super::connection::CallError;
use super::super::fetcher::{self, Ids};
use super::consumer_protocol::{Beaten, OWN_ID_SINCE, Partitions, Subscription};
use super::coordinator::{HEARTBEAT_EVERY, positions_as};
use super::progress;
use super::reading::{Reading, Refusal, refusal};
use crate::history::groups::Told;
use crate::history::{At, Place, wire_name};
use crate::streams::Stream;

/// Epochs with a meaning of their own.
pub(super) const JOINS: i32 = 0;
const LEAVES: i32 = -1;
const COMES_BACK: i32 = -2;
/// All topics of the field, and no others.
const PATTERN: &str = "t[0-9]+";

/// What such a member knows beside what it reads.
pub(super) struct Consumer {
    version: i16,
    assignor: Option<&'static str>,
    by_pattern: bool,
    ids: Ids,
    /// It was given these, and does not know yet where the group is in them.
    unread: BTreeSet<usize>,
    /// What it has is not what it last said that it has.
    has_changed: bool,
    /// It is not known what of its last words was heard.
    tells_all: bool,
    pub(super) interval: Duration,
}

impl Consumer {
    pub(super) fn drawn(stream: &mut Stream) -> Consumer {
        let version = if stream.coin() { OWN_ID_SINCE } else { OWN_ID_SINCE - 1 };
        Consumer {
            version,
            assignor: [None, Some("uniform"), Some("range")][stream.below(3) as usize],
            by_pattern: version >= OWN_ID_SINCE && stream.coin(),
            ids: Ids::new(),
            unread: BTreeSet::new(),
            has_changed: false,
            tells_all: true,
            interval: HEARTBEAT_EVERY,
        }
    }

    /// It is to say something before its interval is over.
    pub(super) fn is_urgent(&self) -> bool {
        self.has_changed
    }

    /// It begins anew: it has nothing.
    pub(super) async fn join<B: Backend>(
        &mut self,
        reading: &mut Reading<B>,
    ) -> Result<Result<(), Refusal>, CallError> {
        let places = reading.client.field.places.clone();
        let topics = progress::topics(&places).len();
        if self.ids.len() < topics {
            self.ids = fetcher::topic_ids(&reading.client, &mut reading.lines, &places).await?;
        }
        if self.ids.len() < topics {
            // What it is given it could not name.
            reading.lines.turn_away();
            return Ok(Err(Refusal::Unavailable));
        }
        if reading.name.id.is_empty() && self.version >= OWN_ID_SINCE {
            reading.name.id = format!("member-{}-{:016x}", reading.number, reading.stream.u64());
        }
        reading.wish();
        reading.epoch = JOINS;
        reading.positions.clear();
        reading.has_uncommitted = false;
        self.unread.clear();
        self.has_changed = false;
        self.tells_all = true;
        let joined = self.beat(reading).await?;
        if joined.is_ok() {
            reading.end_wish();
            reading.client.field.notes.write().count("consumer groups joined");
        }
        Ok(joined)
    }

    /// Says how it is, and does what it is told.
    pub(super) async fn beat<B: Backend>(
        &mut self,
        reading: &mut Reading<B>,
    ) -> Result<Result<(), Refusal>, CallError> {
        let places = reading.client.field.places.clone();
        let joins = reading.epoch == JOINS;
        let has: BTreeSet<usize> = reading.positions.keys().chain(&self.unread).copied().collect();
        let says = joins || self.tells_all || self.has_changed;
        let topics = progress::topics(&places);
        let subscription = (joins || self.tells_all).then(|| Subscription {
            topics: &topics,
            pattern: self.by_pattern.then_some(PATTERN),
            assignor: self.assignor,
        });
        let owned = says.then(|| self.on_the_wire(&places, &has));
        let keeps = says.then(|| has.iter().map(|index| places[*index].clone()).collect());
        let sent = reading.client.now();
        let epoch = (self.version, reading.epoch);
        let answered = reading.coordinator.beat(&mut reading.name, epoch, subscription, owned).await;
        let told = self.told(&answered, &places, reading.client.now());
        let given = match &told {
            Told::Member { given, .. } => given.clone(),
            Told::GoOn { .. } | Told::Out(_) | Told::Nothing => None,
        };
        reading.note_beat(keeps, sent, told);
        let beaten = match answered {
            Ok(Ok(beaten)) => beaten,
            Ok(Err(error)) => {
                self.tells_all = true;
                return Ok(Err(refusal(error)));
            }
            Err(error) => {
                self.tells_all = true;
                return Err(error);
            }
        };
        self.tells_all = false;
        self.has_changed &= !says;
        self.interval = beaten.interval;
        reading.epoch = beaten.epoch;
        if let Some(given) = given {
            let given = (0..places.len()).filter(|index| given.contains(&places[*index])).collect();
            self.take(reading, &has, &given).await;
        }
        self.begin_reading(reading).await
    }

    /// First it gives up what is not its any more.
    async fn take<B: Backend>(
        &mut self,
        reading: &mut Reading<B>,
        has: &BTreeSet<usize>,
        given: &BTreeSet<usize>,
    ) {
        if has.iter().any(|index| !given.contains(index)) {
            if reading.has_uncommitted {
                // What it has read is not to be read again by whoever gets it.
                reading.commit().await;
            }
            reading.positions.retain(|index, _| given.contains(index));
            self.unread.retain(|index| given.contains(index));
            self.has_changed = true;
            reading.client.field.notes.write().count("partitions given up to other members");
        }
        let new: Vec<usize> = given.difference(has).copied().collect();
        self.has_changed |= !new.is_empty();
        self.unread.extend(new);
    }

    /// Where the group is in what it was given.
    async fn begin_reading<B: Backend>(
        &mut self,
        reading: &mut Reading<B>,
    ) -> Result<Result<(), Refusal>, CallError> {
        if self.unread.is_empty() {
            return Ok(Ok(()));
        }
        let field = reading.client.field.clone();
        let places: Vec<Place> = self.unread.iter().map(|index| field.places[*index].clone()).collect();
        let by = Some((&reading.name, reading.epoch));
        let positions = match positions_as(&reading.client, &mut reading.coordinator, &places, by).await? {
            Ok(positions) => positions,
            Err(error) => return Ok(Err(refusal(error))),
        };
        // It may be led back, to where the group is.
        reading.round += 1;
        let position = |index: usize| positions.get(&field.places[index]).copied().unwrap_or(-1).max(0);
        let begun = std::mem::take(&mut self.unread).into_iter().map(|index| (index, position(index)));
        reading.positions.extend(begun);
        Ok(Ok(()))
    }

    /// It goes. A static one that says so comes back.
    pub(super) async fn leave<B: Backend>(&mut self, reading: &mut Reading<B>, comes_back: bool) {
        if reading.name.id.is_empty() {
            return;
        }
        let is_static = reading.name.instance.is_some();
        let epoch = if comes_back && is_static { COMES_BACK } else { LEAVES };
        let sent = reading.client.now();
        let left = reading.coordinator.beat(&mut reading.name, (self.version, epoch), None, None).await;
        let told = match left {
            Ok(Ok(_)) => Told::Out(reading.client.now()),
            Ok(Err(_)) | Err(_) => Told::Nothing,
        };
        reading.note_beat(Some(Vec::new()), sent, told);
        reading.coordinator.forget_member();
    }

    fn on_the_wire(&self, places: &[Place], has: &BTreeSet<usize>) -> Partitions {
        let mut topics: BTreeMap<_, Vec<i32>> = BTreeMap::new();
        for place in has.iter().map(|index| &places[*index]) {
            if let Some(id) = self.ids.get(wire_name(&place.topic)) {
                topics.entry(*id).or_default().push(place.partition);
            }
        }
        topics.into_iter().collect()
    }

    fn told(
        &self,
        answered: &Result<Result<Beaten, ResponseError>, CallError>,
        places: &[Place],
        at: At,
    ) -> Told {
        match answered {
            Ok(Ok(beaten)) => {
                let is_given = |place: &&Place, given: &Partitions| {
                    let id = self.ids.get(wire_name(&place.topic));
                    given.iter().any(|(of, all)| Some(of) == id && all.contains(&place.partition))
                };
                let given = beaten
                    .given
                    .as_ref()
                    .map(|given| places.iter().filter(|place| is_given(place, given)).cloned().collect());
                Told::Member { at, epoch: beaten.epoch, given }
            }
            Ok(Err(error)) if refusal(*error) == Refusal::Gone => Told::Out(at),
            Ok(Err(_)) | Err(_) => Told::Nothing,
        }
    }
}
