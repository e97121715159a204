//! A consumer: reads all partitions from the beginning, waits for more as long as it likes, and now and then starts
//! over. Several fetches may be on the wire at a time, each for partitions of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;

use super::client::Client;
use super::connection::{Answer, CallError, ns};
use super::fetch_session::{FetchSession, Standing};
use super::fetcher::{self, FetchTerms, Fetched, Ids};
use super::lines::{Heard, Lines};
use super::lookups::{self, Question};
use super::shape::ConsumerShape;
use crate::history::{
    At, Damage, LookupQuery, Place, Poll, Position, Reset, Teller, Trade, Watermark, wire_name,
};
use crate::streams::Stream;

/// Who does not want the broker to wait comes back after this if there was nothing.
const PAUSE: Duration = Duration::from_millis(100);
/// What a consumer waits at most when the producers are about to fall silent.
const SHORTEST_END: Duration = Duration::from_millis(500);
/// It is noted so often at most that an answer left a partition out.
const IMPLIED_EVERY: Duration = Duration::from_millis(100);
/// How many of a thousand requests of a fetch session are sent on two connections.
const DOUBLED_PER_MILLE: u32 = 10;
/// What it asks of a partition at least once they have.
const LAST_PARTITION_BYTES: i32 = 1 << 20;

pub(super) fn start<B: Backend>(client: Client<B>, shape: ConsumerShape, stream: Stream) {
    let places = client.field.places.len();
    let groups = shape.fetches_in_flight.min(places).max(1);
    let consumer = Consumer {
        line: Lines::new(&client),
        positions: vec![0; places],
        looked: vec![0; places],
        watermarks: vec![(None, -1); places],
        log_starts: BTreeMap::new(),
        implied: vec![0; places],
        fallen: BTreeMap::new(),
        looking: Lines::new(&client),
        groups: (0..groups).map(|group| (group..places).step_by(groups).collect()).collect(),
        asked: BTreeMap::new(),
        ids: None,
        sessions: BTreeMap::new(),
        round: 0,
        client: client.clone(),
        shape,
        stream,
    };
    client.begin("consumer", consumer.run());
}

struct Consumer<B: Backend> {
    client: Client<B>,
    shape: ConsumerShape,
    stream: Stream,
    line: Lines<B>,
    positions: Vec<i64>,
    /// When the last fetch of each place that was answered had been sent.
    looked: Vec<At>,
    /// As last told, with the epoch of the leader that told it, where that is known.
    watermarks: Vec<(Option<i32>, i64)>,
    /// Where each node has told last that a place starts.
    log_starts: BTreeMap<(u32, usize), i64>,
    /// When it was last noted of each place that an answer left it out.
    implied: Vec<At>,
    /// Places whose offset is out of range, with the offset and the node that said so: it is to be asked where they start.
    fallen: BTreeMap<usize, (i64, u32)>,
    /// To ask it on.
    looking: Lines<B>,
    /// Places that are fetched together.
    groups: Vec<Vec<usize>>,
    /// What the requests on the wire are about, by whom they were sent to and number.
    asked: BTreeMap<(u32, i32), Fetching>,
    ids: Option<Arc<Ids>>,
    /// With each node one for each group, where it fetches in sessions.
    sessions: BTreeMap<(u32, usize), FetchSession>,
    round: u32,
}

/// A fetch on the wire.
struct Fetching {
    group: usize,
    /// Places and offsets.
    from: Vec<(usize, i64)>,
    /// Of their leaders, where those are named.
    epochs: Vec<Option<i32>>,
    version: i16,
    ids: Option<Arc<Ids>>,
}

/// What a round of work came to.
enum Came {
    Records,
    Nothing,
    Trouble,
}

impl<B: Backend> Consumer<B> {
    async fn run(mut self) {
        let backend = self.client.backend.clone();
        let every = ns(self.shape.reread_every);
        let schedule = self.client.field.schedule;
        let mut started = self.client.now();
        let mut failures = 0;
        let has_seen_all = loop {
            let now = self.client.now();
            let silent = now >= schedule.produce_until;
            if now >= schedule.give_up {
                break false;
            }
            if silent && self.client.field.owed.is_seen(&self.positions) {
                break true;
            }
            let starts_over = !silent && now.saturating_sub(started) >= every;
            if starts_over && self.asked.is_empty() {
                self.round += 1;
                started = now;
                self.positions.fill(0);
                self.fallen.clear();
                self.client.field.notes.write().count("consumer started over");
            } else if !starts_over && (self.get_up().await.is_err() || self.ask().await.is_err()) {
                self.lose_all();
                failures += 1;
                self.line.back_off(failures).await;
                continue;
            }
            match self.listen(schedule.give_up).await {
                Came::Records => failures = 0,
                Came::Nothing => {
                    failures = 0;
                    if self.shape.long_poll < PAUSE {
                        backend.sleep(PAUSE).await;
                    }
                }
                Came::Trouble => {
                    failures += 1;
                    self.line.back_off(failures).await;
                }
            }
        };
        let mut notes = self.client.field.notes.write();
        for (index, place) in self.client.field.places.iter().enumerate() {
            let owed_until = if has_seen_all { self.looked[index] } else { At::MAX };
            let position = Position { offset: self.positions[index], owed_until };
            notes.positions.insert((self.shape.number, place.clone()), position);
        }
    }

    fn terms(&self) -> FetchTerms {
        let left = self.client.field.schedule.produce_until.saturating_sub(self.client.now());
        // Fetches on one connection wait one after the other: together as long as one would.
        let groups = self.groups.len() as u32;
        let wait = self.shape.long_poll.min(Duration::from_nanos(left).max(SHORTEST_END)) / groups;
        // Nobody insists on more than he is ready to take, or than there will be.
        let min_bytes = if left == 0 { 1 } else { self.shape.min_bytes.min(self.shape.partition_bytes / 2) };
        // Whoever is behind when the others are silent takes more at a time.
        let partition_bytes = match left {
            0 => self.shape.partition_bytes.max(LAST_PARTITION_BYTES),
            _ => self.shape.partition_bytes,
        };
        FetchTerms { wait, min_bytes, partition_bytes, version: self.shape.version }
    }

    /// Sends a fetch for each group that has none on the wire, to each node that leads some of it.
    async fn ask(&mut self) -> Result<(), CallError> {
        let places = self.client.field.places.clone();
        let has_all = |ids: &Arc<Ids>| places.iter().all(|place| ids.contains_key(wire_name(&place.topic)));
        if self.shape.by_id && !self.ids.as_ref().is_some_and(has_all) {
            if !self.asked.is_empty() || self.line.is_looking() {
                return Ok(());
            }
            let ids = fetcher::topic_ids(&self.client, &mut self.line, &places).await?;
            self.ids = Some(Arc::new(ids));
        }
        if places.iter().any(|place| self.line.leader(place).is_none()) {
            self.line.doubt();
        }
        let terms = self.terms();
        for node in self.line.nodes() {
            for group in 0..self.groups.len() {
                self.ask_for(node, group, terms).await?;
            }
        }
        Ok(())
    }

    async fn ask_for(&mut self, node: u32, group: usize, terms: FetchTerms) -> Result<(), CallError> {
        let is_asked =
            |((asked, _), fetching): (&(u32, i32), &Fetching)| (*asked, fetching.group) == (node, group);
        if self.asked.iter().any(is_asked) {
            return Ok(());
        }
        let places = self.client.field.places.clone();
        let mut from: Vec<(usize, i64)> =
            self.groups[group].iter().map(|index| (*index, self.positions[*index])).collect();
        // What was asked of a node that has since stopped leading it is answered there first.
        let elsewhere = |index: usize| {
            self.asked.values().any(|fetching| fetching.from.iter().any(|(asked, _)| *asked == index))
        };
        from.retain(|(index, _)| {
            !self.fallen.contains_key(index)
                && self.line.leader(&places[*index]) == Some(node)
                && !elsewhere(*index)
        });
        if from.is_empty() || !self.line.is_ready(node) {
            return Ok(());
        }
        if self.shape.subsets && from.len() > 1 && self.stream.per_mille(250) {
            let left_out = self.stream.below(from.len() as u64) as usize;
            from.remove(left_out);
        }
        let ids = self.ids.clone();
        let version = fetcher::version(terms, ids.as_deref());
        let (request, epochs) = {
            let names_epochs = version >= fetcher::NAMES_EPOCHS;
            let epoch = |place: &Place| self.line.leader_epoch(place).filter(|_| names_epochs);
            let request = if self.shape.in_sessions {
                let session = self.sessions.entry((node, group)).or_default();
                session.request(&places, &from, terms, ids.as_ref(), epoch)
            } else {
                fetcher::request(&places, &from, terms, ids.as_deref(), epoch)
            };
            (request, from.iter().map(|(index, _)| epoch(&places[*index])).collect())
        };
        let connection = self.line.connected(node).await?;
        let number = connection.ask(Trade::Consume, &request, version, terms.terms())?;
        self.asked.insert((node, number), Fetching { group, from, epochs, version, ids });
        // One that begins a session is never the second.
        if request.session_epoch > 0 && self.stream.per_mille(DOUBLED_PER_MILLE) {
            self.double(node, group, request, version, terms);
        }
        Ok(())
    }

    /// Sends the same request of a session on another connection, as somebody does who has lost count of his own, and
    /// takes no notice of what is answered there.
    fn double(&mut self, node: u32, group: usize, request: FetchRequest, version: i16, terms: FetchTerms) {
        self.sessions.entry((node, group)).or_default().double();
        let mut line = Lines::new(&self.client);
        self.client.begin("fetch on another connection", async move {
            let _ = line.call_node(node, Trade::Consume, &request, version, terms.terms(), |_| true).await;
        });
    }

    /// Begins again at the start of the logs in which it was out of range.
    async fn get_up(&mut self) -> Result<(), CallError> {
        while !self.line.is_looking()
            && let Some((index, (from, node))) =
                self.fallen.first_key_value().map(|(index, told)| (*index, *told))
        {
            let place = self.client.field.places[index].clone();
            let question = Question { place: &place, query: LookupQuery::Earliest, epoch: None };
            let within = fetcher::aside_within(&self.client, lookups::WITHIN);
            let found = lookups::find(&self.client, &mut self.looking, question, within).await?;
            let Some(found) = found else { return Err(CallError::Unreadable("no offset".into())) };
            let (to, of_one) = (found.offset, self.looking.leader(&place) == Some(node));
            let mut notes = self.client.field.notes.write();
            notes.resets.push(Reset { consumer: self.shape.number, place, from, at: found.at, to, of_one });
            notes.count("consumer fell out of range");
            drop(notes);
            self.positions[index] = to;
            self.fallen.remove(&index);
        }
        Ok(())
    }

    async fn listen(&mut self, until: At) -> Came {
        // A node whose connection could not be made is tried again after a pause. When that is over and nothing was asked
        // there, it leads nothing, and there is nothing to come back for.
        let now = self.client.now();
        let retries = |node: u32| self.line.takes_from(node, usize::MAX).filter(|from| *from > now);
        let until = self.line.nodes().filter_map(retries).fold(until, At::min);
        match self.line.hear(until).await {
            Heard::Nothing => Came::Nothing,
            Heard::Answer(node, answer) => self.read(node, answer),
            Heard::Lost(node) => {
                self.lost(node);
                Came::Trouble
            }
        }
    }

    fn lost(&mut self, node: u32) {
        self.line.close(node);
        self.asked.retain(|(asked, _), _| *asked != node);
        for (_, session) in self.sessions.range_mut((node, 0)..=(node, usize::MAX)) {
            session.begin_again();
        }
        // Perhaps another life of the node knows the topics by other ids, which would be wrong of it.
        self.ids = None;
    }

    fn lose_all(&mut self) {
        for node in self.line.nodes() {
            self.lost(node);
        }
    }

    fn read(&mut self, node: u32, answer: Answer) -> Came {
        let Some(fetching) = self.asked.remove(&(node, answer.asked.number)) else { return Came::Nothing };
        let response = answer.read::<FetchRequest>(fetching.version);
        if let Some(connection) = self.line.open(node) {
            connection.conclude(&answer.asked, response.is_ok());
        }
        let Ok(response) = response else {
            self.lost(node);
            return Came::Trouble;
        };
        let places = self.client.field.places.clone();
        let session = self.sessions.get_mut(&(node, fetching.group));
        let standing = session.map(|session| session.answered(&response));
        let lost = match standing {
            Some(Standing::Unknown) => Some("fetch session not known"),
            Some(Standing::Overtaken) => Some("fetch session overtaken on another connection"),
            Some(Standing::Full | Standing::Incremental) | None => None,
        };
        if let Some(what) = lost {
            self.client.field.notes.write().count(what);
            return Came::Nothing;
        }
        let is_fine = response.error_code == 0;
        let fetched = fetcher::sort_out(response, &places, &fetching.from, fetching.ids.as_deref());
        if let Some(standing) = standing.filter(|_| is_fine) {
            self.left_out(node, standing, &fetching, &fetched, answer.asked.sent);
        }
        fetcher::complain(&self.client, &mut self.line, &fetched, &places, answer.asked.sent);
        if fetched.iter().any(|one| one.error.is_some()) {
            self.ids = None;
        }
        let mut came = Came::Nothing;
        for one in fetched {
            let asked = fetching.from.iter().position(|(index, _)| *index == one.index);
            let epoch = asked.and_then(|at| fetching.epochs[at]);
            match (&came, self.note(one, (node, epoch), answer.asked.sent)) {
                (Came::Trouble, _) | (_, Came::Nothing) => {}
                (_, next) => came = next,
            }
        }
        came
    }

    /// Takes note of what an answer of a session does not tell of.
    fn left_out(
        &mut self,
        node: u32,
        standing: Standing,
        fetching: &Fetching,
        fetched: &[Fetched],
        sent: At,
    ) {
        let (at, mut notes) = (self.client.now(), self.client.field.notes.write());
        let mut unchanged = Vec::new();
        for (index, _) in &fetching.from {
            let index = *index;
            let name = wire_name(&self.client.field.places[index].topic);
            let was_named = fetching.ids.as_ref().is_none_or(|ids| ids.contains_key(name));
            if !was_named || fetched.iter().any(|one| one.index == index) {
                continue;
            }
            if standing == Standing::Incremental {
                self.looked[index] = sent;
                notes.count("partition without news left out");
                if sent >= self.implied[index] + ns(IMPLIED_EVERY) {
                    self.implied[index] = sent;
                    unchanged.push(index);
                }
            } else {
                let place = self.client.field.places[index].clone();
                let what = "an answer in full does not tell of it".to_owned();
                notes.damages.push(Damage { place, at, what });
            }
        }
        drop(notes);
        for index in unchanged {
            self.told_again((node, index), fetching, (sent, at));
        }
    }

    /// Whoever leaves a partition out says that it begins and ends where it did when he last told of it.
    fn told_again(&self, (node, index): (u32, usize), fetching: &Fetching, (sent, at): (At, At)) {
        let place = self.client.field.places[index].clone();
        if let Some(start) = self.log_starts.get(&(node, index)) {
            self.client.note_log_start(&place, *start, Teller::Node(node), sent);
        }
        let asked = fetching.from.iter().position(|(asked, _)| *asked == index);
        let epoch = asked.and_then(|asked| fetching.epochs[asked]);
        let (told_by, high_watermark) = self.watermarks[index];
        let teller_is_known = epoch.is_some() || self.client.field.nodes == 1;
        if teller_is_known && told_by == epoch && high_watermark >= 0 {
            let consumer = self.shape.number;
            let watermark = Watermark { consumer, place, epoch, sent, at, high_watermark };
            self.client.field.notes.write().watermarks.push(watermark);
        }
    }

    fn note(&mut self, mut fetch: Fetched, (node, epoch): (u32, Option<i32>), sent: At) -> Came {
        let place = self.client.field.places[fetch.index].clone();
        let at = self.client.now();
        if fetch.error == Some(ResponseError::OffsetOutOfRange) && self.client.field.deletes {
            self.fallen.insert(fetch.index, (fetch.from, node));
            return Came::Nothing;
        }
        if fetch.error == Some(ResponseError::OffsetOutOfRange) {
            let what = format!(
                "consumer {} had read up to offset {}, and that is now out of range",
                self.shape.number, fetch.from
            );
            self.client.field.notes.write().damages.push(Damage { place, at, what });
            self.positions[fetch.index] = 0;
            return Came::Trouble;
        }
        if fetch.error.is_some() {
            return Came::Trouble;
        }
        self.looked[fetch.index] = sent;
        fetch.note_damages(&self.client, &place);
        // Answers before version 5 do not say.
        if fetch.log_start >= 0
            && self.log_starts.insert((node, fetch.index), fetch.log_start) != Some(fetch.log_start)
        {
            self.client.note_log_start(&place, fetch.log_start, Teller::Node(node), sent);
        }
        let mut notes = self.client.field.notes.write();
        // Each leader answers for what it told itself.
        let teller_is_known = epoch.is_some() || self.client.field.nodes == 1;
        if teller_is_known && self.watermarks[fetch.index] != (epoch, fetch.high_watermark) {
            self.watermarks[fetch.index] = (epoch, fetch.high_watermark);
            notes.watermarks.push(Watermark {
                consumer: self.shape.number,
                place: place.clone(),
                epoch,
                sent,
                at,
                high_watermark: fetch.high_watermark,
            });
        }
        let Some((last, _)) = fetch.records.last() else { return Came::Nothing };
        self.positions[fetch.index] = last + 1;
        self.client.field.owed.read(fetch.index, last + 1);
        notes.brought(Poll {
            consumer: self.shape.number,
            round: self.round,
            place,
            from: fetch.from,
            again: 0,
            at,
            records: fetch.records,
        });
        Came::Records
    }
}
