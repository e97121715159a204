//! A client's connections to the nodes of a cluster: one to each, made when it is needed, and one more to ask where the
//! partitions are.
//!
//! Who has one node to talk to waits for the connection that it makes; who has several listens to the others meanwhile.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures::future::{pending, select_all};
use io_backend::{Backend, Deadline, Moment, within};
use kafka_protocol::messages::metadata_request::MetadataRequest;
use kafka_protocol::protocol::Request as Api;

use super::client::Client;
use super::connection::{Answer, CONNECT_WITHIN, CallError, Connection, Terms, back_off, ns, pause};
use super::routes::Routes;
use crate::history::{At, Place, Trade};

/// Who has other nodes to turn to does not wait for one for longer.
const TRIES_ANOTHER_AFTER: Duration = Duration::from_secs(3);
const METADATA: i16 = 9;

/// A connection that is made anew when it has ended.
struct Line<B: Backend> {
    client: Client<B>,
    node: u32,
    state: State<B>,
    connect_within: Duration,
    failures: u32,
    /// After failures it is not tried again before this.
    not_before: At,
}

enum State<B: Backend> {
    Closed,
    Connecting(Pin<Box<dyn Future<Output = Result<Connection<B>, CallError>> + Send>>),
    Open(Box<Connection<B>>),
}

/// What came of listening.
pub(super) enum Heard {
    /// Time is up, or only who leads what may have become known.
    Nothing,
    Answer(u32, Answer),
    /// The connection to that node has ended, or was not made.
    Lost(u32),
}

/// What came on one line.
enum Came {
    Nothing,
    Answer(Answer),
    Connected,
    Lost,
}

impl<B: Backend> Line<B> {
    fn new(client: &Client<B>, node: u32, connect_within: Duration) -> Line<B> {
        let client = client.clone();
        Line { client, node, state: State::Closed, connect_within, failures: 0, not_before: 0 }
    }

    /// The connection, made if there is none.
    async fn connected(&mut self) -> Result<&mut Connection<B>, CallError> {
        let opened = match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(connection) => Ok(*connection),
            State::Connecting(connecting) => connecting.await,
            State::Closed => Connection::open_within(&self.client, self.node, self.connect_within).await,
        };
        let connection = opened.map_err(not_connected)?;
        self.state = State::Open(Box::new(connection));
        self.open().ok_or_else(|| CallError::Connect(io::ErrorKind::NotConnected.into()))
    }

    fn begin(&mut self) {
        let (client, node, within) = (self.client.clone(), self.node, self.connect_within);
        let connecting = async move { Connection::open_within(&client, node, within).await };
        self.state = State::Connecting(Box::pin(connecting));
    }

    fn open(&mut self) -> Option<&mut Connection<B>> {
        match &mut self.state {
            State::Open(connection) => Some(connection),
            State::Closed | State::Connecting(_) => None,
        }
    }

    fn pending(&self) -> usize {
        match &self.state {
            State::Open(connection) => connection.pending(),
            State::Closed | State::Connecting(_) => 0,
        }
    }

    fn close(&mut self) {
        self.state = State::Closed;
    }

    fn failed(&mut self) {
        self.close();
        self.failures += 1;
        self.not_before = self.client.now() + ns(pause(self.failures, self.client.backend.random_u64()));
    }

    /// Something happens on it; for as long as nothing can, nothing.
    async fn event(&mut self, until: At) -> Came {
        match &mut self.state {
            State::Closed => pending().await,
            State::Open(connection) if connection.pending() == 0 => pending().await,
            State::Connecting(connecting) => match connecting.await {
                Ok(connection) => {
                    self.failures = 0;
                    self.state = State::Open(Box::new(connection));
                    Came::Connected
                }
                Err(_) => {
                    self.failed();
                    Came::Lost
                }
            },
            State::Open(connection) => match connection.hear(until).await {
                Ok(None) => Came::Nothing,
                Ok(Some(answer)) => Came::Answer(answer),
                Err(_) => {
                    self.close();
                    Came::Lost
                }
            },
        }
    }

    async fn call<R: Api>(
        &mut self,
        trade: Trade,
        request: &R,
        version: i16,
        terms: Terms,
        decided: impl Fn(&R::Response) -> bool,
    ) -> Result<R::Response, CallError> {
        let outcome = self.connected().await?.call(trade, request, version, terms, decided).await;
        if outcome.is_err() {
            self.close();
        }
        outcome
    }
}

pub(super) struct Lines<B: Backend> {
    client: Client<B>,
    /// By node.
    lines: Vec<Line<B>>,
    looking: Line<B>,
    /// What is asked there has its answer by then, or another node is asked.
    look_until: At,
    routes: Routes,
    /// The node that was heard last, by number; 0 is the last one.
    heard: usize,
    /// When a connection was asked for last, to send something.
    used: At,
}

impl<B: Backend> Lines<B> {
    pub(super) fn new(client: &Client<B>) -> Lines<B> {
        let nodes = client.field.nodes;
        let connect_within = if nodes == 1 { CONNECT_WITHIN } else { TRIES_ANOTHER_AFTER };
        let line = |node| Line::new(client, node, connect_within);
        let routes = Routes::new(nodes, client.name.bytes().map(u32::from).sum());
        Lines {
            client: client.clone(),
            lines: (1..=nodes).map(line).collect(),
            looking: line(routes.asks()),
            look_until: 0,
            routes,
            heard: 0,
            used: 0,
        }
    }

    pub(super) fn connecting_within(mut self, connect_within: Duration) -> Lines<B> {
        for line in &mut self.lines {
            line.connect_within = connect_within;
        }
        self
    }

    /// Of a client that reaches this node alone.
    pub(super) fn through(self, node: Option<u32>) -> Lines<B> {
        match node {
            Some(node) => Lines { routes: self.routes.through(node), ..self },
            None => self,
        }
    }

    /// The node that is asked about anything that every node can answer.
    pub(super) fn asks(&self) -> u32 {
        self.routes.asks()
    }

    /// The node that was asked last knows nothing of use.
    pub(super) fn turn_away(&mut self) {
        self.routes.turn_away(self.routes.asks());
    }

    pub(super) fn nodes(&self) -> std::ops::RangeInclusive<u32> {
        1..=self.client.field.nodes
    }

    fn is_only(&self) -> bool {
        self.lines.len() == 1
    }

    fn line(&mut self, node: u32) -> &mut Line<B> {
        &mut self.lines[node as usize - 1]
    }

    pub(super) fn leader(&self, place: &Place) -> Option<u32> {
        self.routes.leader(place)
    }

    /// Goes by nothing that it was told of a topic of that name.
    pub(super) fn forget(&mut self, topic: &str) {
        self.routes.forget(topic);
    }

    /// The epoch of the leader that is known, where there may be another.
    pub(super) fn leader_epoch(&self, place: &Place) -> Option<i32> {
        self.routes.leader_epoch(place)
    }

    /// What was said of a partition in an answer to a request of `sent`, to the node that was thought to lead it.
    pub(super) fn told_of(&mut self, trade: Trade, place: &Place, code: i16, sent: At) {
        let times = (sent, self.client.now());
        self.client.complain_as_routed(trade, Some(place), code, times, self.routes.learned_before(sent));
        self.told(code);
    }

    /// An error code in an answer may say that a partition is elsewhere.
    pub(super) fn told(&mut self, code: i16) {
        self.routes.told(code);
    }

    /// A partition may be elsewhere.
    pub(super) fn doubt(&mut self) {
        self.routes.doubt();
    }

    pub(super) fn pending(&self, node: u32) -> usize {
        self.lines[node as usize - 1].pending()
    }

    /// Whether it is being asked where partitions are: that is to be heard before anything is asked beside which nothing is.
    pub(super) fn is_looking(&self) -> bool {
        !matches!(self.looking.state, State::Closed)
    }

    /// Whether there is anything to listen for.
    pub(super) fn is_waiting(&self) -> bool {
        let waits = |line: &Line<B>| line.pending() > 0 || matches!(line.state, State::Connecting(_));
        self.lines.iter().any(waits) || waits(&self.looking) || self.routes.asks_from().is_some()
    }

    /// From when on a request may go to that node, with fewer than `in_flight` others on their way; none: something else
    /// has to happen first.
    pub(super) fn takes_from(&self, node: u32, in_flight: usize) -> Option<At> {
        let line = &self.lines[node as usize - 1];
        match &line.state {
            State::Connecting(_) => None,
            State::Closed if !self.is_only() => Some(line.not_before),
            State::Open(_) | State::Closed => (line.pending() < in_flight).then_some(0),
        }
    }

    /// When it is to be asked next where partitions are, if that is so and it is not being asked.
    pub(super) fn asks_from(&self) -> Option<At> {
        matches!(self.looking.state, State::Closed).then(|| self.routes.asks_from()).flatten()
    }

    /// Whether a request can go to that node now. If it is one of several, the connection is begun and this one told later.
    pub(super) fn is_ready(&mut self, node: u32) -> bool {
        let (only, now) = (self.is_only(), self.client.now());
        let line = self.line(node);
        match line.state {
            State::Open(_) => true,
            State::Closed if only => true,
            State::Closed if line.not_before <= now => {
                line.begin();
                false
            }
            State::Closed | State::Connecting(_) => false,
        }
    }

    /// The connection to that node, made if there is none.
    pub(super) async fn connected(&mut self, node: u32) -> Result<&mut Connection<B>, CallError> {
        self.used = self.client.now();
        self.line(node).connected().await
    }

    /// The connection to who leads the partition, made if there is none.
    pub(super) async fn leader_connected(&mut self, place: &Place) -> Result<(), CallError> {
        let node = self.node_of(place).await?;
        self.connected(node).await.map(|_| ())
    }

    pub(super) fn open(&mut self, node: u32) -> Option<&mut Connection<B>> {
        self.line(node).open()
    }

    /// Of no use any more.
    pub(super) fn close(&mut self, node: u32) {
        self.line(node).close();
        self.routes.doubt();
    }

    pub(super) fn close_all(&mut self) {
        for node in self.nodes() {
            self.close(node);
        }
    }

    /// Asks where partitions are if that is not known, and listens to all of them.
    pub(super) async fn hear(&mut self, until: At) -> Heard {
        if let [only] = self.lines.as_mut_slice() {
            return match only.open() {
                None => Heard::Nothing,
                Some(connection) => match connection.hear(until).await {
                    Ok(None) => Heard::Nothing,
                    Ok(Some(answer)) => Heard::Answer(1, answer),
                    Err(_) => Heard::Lost(1),
                },
            };
        }
        let now = self.client.now();
        if !self.is_waiting() && self.lines.iter().all(|line| line.not_before <= now) {
            return Heard::Nothing;
        }
        self.look();
        let until = if matches!(self.looking.state, State::Closed) {
            until.min(self.routes.asks_from().unwrap_or(At::MAX))
        } else {
            until.min(self.look_until)
        };
        let until = until.max(self.client.now() + 1_000);
        let backend = self.client.backend.clone();
        // Who leads comes first, or who is answered with errors again and again would not hear where to turn; then the nodes
        // in turn, or of one that always has something to say the others would not be heard.
        let (before, after) = self.lines.split_at_mut(self.heard);
        let all = [&mut self.looking].into_iter().chain(after).chain(before);
        let events: Vec<_> = all.map(|line| Box::pin(line.event(At::MAX))).collect();
        let Ok((came, index, _)) = within(&backend, Deadline::At(Moment(until)), select_all(events)).await
        else {
            return Heard::Nothing;
        };
        if index == 0 {
            self.looked(came);
            return Heard::Nothing;
        }
        self.heard = (self.heard + index) % self.lines.len();
        let node = match self.heard {
            0 => self.lines.len() as u32,
            before => before as u32,
        };
        match came {
            Came::Answer(answer) => Heard::Answer(node, answer),
            Came::Lost => {
                self.routes.doubt();
                self.routes.turn_away(node);
                Heard::Lost(node)
            }
            Came::Connected | Came::Nothing => Heard::Nothing,
        }
    }

    /// Waits before the next attempt. Who has several nodes to turn to learns meanwhile where the partitions are: one that
    /// only ever asks again where it was refused would never get away.
    pub(super) async fn back_off(&mut self, failures: u32) {
        let backend = self.client.backend.clone();
        if self.is_only() {
            return back_off(&backend, failures).await;
        }
        let until = self.client.now() + ns(pause(failures, backend.random_u64()));
        loop {
            self.look();
            let event = self.looking.event(At::MAX);
            match within(&backend, Deadline::At(Moment(until)), event).await {
                Ok(came) => self.looked(came),
                Err(_) => return,
            }
        }
    }

    /// Begins to ask where partitions are, if it is time for that, or turns away from who does not say.
    fn look(&mut self) {
        let now = self.client.now();
        match self.looking.state {
            State::Closed if self.routes.asks_from().is_some_and(|at| at <= now) => {
                self.looking.node = self.routes.asks();
                self.look_until = now + ns(TRIES_ANOTHER_AFTER);
                self.looking.begin();
            }
            State::Connecting(_) | State::Open(_) if now >= self.look_until => {
                self.looking.close();
                self.routes.unanswered(now);
            }
            _ => {}
        }
    }

    /// Something came on the line that asks.
    fn looked(&mut self, came: Came) {
        let now = self.client.now();
        let known = match came {
            Came::Connected => {
                let terms = Terms::within(TRIES_ANOTHER_AFTER);
                let asked = self.looking.open().map(|open| open.ask(Trade::Look, &all(), METADATA, terms));
                if matches!(asked, Some(Ok(_))) {
                    return;
                }
                false
            }
            Came::Answer(answer) => {
                let response = answer.read::<MetadataRequest>(METADATA);
                if let Some(open) = self.looking.open() {
                    open.conclude(&answer.asked, response.is_ok());
                }
                // What was sent at this moment was sent by what was known before.
                let times = (answer.asked.sent, now + At::from(self.used == now));
                response.map(|response| self.routes.learn(self.looking.node, &response, times)).is_ok()
            }
            Came::Nothing => return,
            Came::Lost => false,
        };
        if !known {
            self.routes.unanswered(now);
        }
        self.looking.close();
    }

    /// Asks until it is known who leads the partition, once at most.
    pub(super) async fn node_of(&mut self, place: &Place) -> Result<u32, CallError> {
        let no_leader = || CallError::Connect(io::Error::other("nobody is known to lead it"));
        if self.routes.leader(place).is_none() {
            self.routes.doubt();
        }
        let asks = self.routes.asks_from().is_some_and(|from| from <= self.client.now());
        if !asks {
            return self.routes.leader(place).ok_or_else(no_leader);
        }
        let node = self.routes.asks();
        let (terms, asked) = (Terms::within(TRIES_ANOTHER_AFTER), self.client.now());
        match self.line(node).call(Trade::Look, &all(), METADATA, terms, |_| true).await {
            Ok(answer) => self.routes.learn(node, &answer, (asked, self.client.now())),
            Err(error) => {
                self.routes.unanswered(self.client.now());
                return Err(not_connected(error));
            }
        }
        self.routes.leader(place).ok_or_else(no_leader)
    }

    /// Some of `places`, with offsets in them, by their leaders, as far as those are known.
    pub(super) async fn by_leader(
        &mut self,
        places: &[Place],
        from: &[(usize, i64)],
    ) -> Result<BTreeMap<u32, Vec<(usize, i64)>>, CallError> {
        let mut found: BTreeMap<u32, Vec<(usize, i64)>> = BTreeMap::new();
        for (index, offset) in from {
            match self.node_of(&places[*index]).await {
                Ok(node) => found.entry(node).or_default().push((*index, *offset)),
                Err(error) if found.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// Of any node.
    pub(super) async fn call<R: Api>(
        &mut self,
        trade: Trade,
        request: &R,
        version: i16,
        within: Duration,
        decided: impl Fn(&R::Response) -> bool,
    ) -> Result<R::Response, CallError> {
        self.call_on(trade, request, version, Terms::within(within), decided).await
    }

    pub(super) async fn call_on<R: Api>(
        &mut self,
        trade: Trade,
        request: &R,
        version: i16,
        terms: Terms,
        decided: impl Fn(&R::Response) -> bool,
    ) -> Result<R::Response, CallError> {
        self.call_node(self.routes.asks(), trade, request, version, terms, decided).await
    }

    /// Of the node that leads the partition.
    pub(super) async fn call_leader<R: Api>(
        &mut self,
        place: &Place,
        trade: Trade,
        request: &R,
        version: i16,
        terms: Terms,
        decided: impl Fn(&R::Response) -> bool,
    ) -> Result<R::Response, CallError> {
        let node = self.node_of(place).await?;
        self.call_node(node, trade, request, version, terms, decided).await
    }

    pub(super) async fn call_node<R: Api>(
        &mut self,
        node: u32,
        trade: Trade,
        request: &R,
        version: i16,
        terms: Terms,
        decided: impl Fn(&R::Response) -> bool,
    ) -> Result<R::Response, CallError> {
        let outcome = self.line(node).call(trade, request, version, terms, decided).await;
        if outcome.is_err() {
            self.routes.doubt();
            self.routes.turn_away(node);
        }
        outcome
    }

    /// To that node, which does not answer.
    pub(super) async fn fire<R: Api>(
        &mut self,
        node: u32,
        request: &R,
        version: i16,
    ) -> Result<(), CallError> {
        let outcome = self.line(node).connected().await?.fire(request, version).await;
        if outcome.is_err() {
            self.close(node);
        }
        outcome
    }
}

/// About all topics.
fn all() -> MetadataRequest {
    MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false)
}

/// Whatever went wrong while connecting: the request itself was not sent.
fn not_connected(error: CallError) -> CallError {
    match error {
        CallError::Connect(error) | CallError::Disconnected(error) => CallError::Connect(error),
        CallError::Unanswered => CallError::Connect(io::ErrorKind::TimedOut.into()),
        CallError::Unreadable(what) => CallError::Connect(io::Error::other(what)),
    }
}
