//! Several drivers in one process for tests: journals worked by hand, and a wire from which a test takes messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use io_backend::channel;
use io_backend::real::RealBackend;
use prometheus_client::metrics::gauge::Gauge;
use raft::eraftpb::{Message, MessageType};

use super::*;
use crate::budget::Account;
use crate::raft::memory_journal::MemoryJournal;
use crate::raft::{GroupView, MemberChange, MembersProposal, Place, Proposal, Proposer};

/// What is committed at each index, as whoever applied it first saw it.
type Truth = Arc<Mutex<BTreeMap<u64, Vec<u8>>>>;

/// Remembers each entry with its index, and compares with what others found there.
pub(super) struct Entries {
    pub(super) applied: Vec<(u64, Vec<u8>)>,
    truth: Truth,
    pub(super) leader: Option<u64>,
}

impl Entries {
    fn check(&self, index: u64, data: &[u8]) {
        let mut truth = self.truth.lock().unwrap();
        let before = truth.entry(index).or_insert_with(|| data.to_vec());
        assert_eq!(before, data, "committed entries never differ: entry {index}");
    }

    pub(super) fn words(&self) -> Vec<String> {
        let words = self.applied.iter().filter(|(_, data)| !data.is_empty());
        words.map(|(_, data)| String::from_utf8(data.clone()).unwrap()).collect()
    }
}

impl StateMachine for Entries {
    type Answer = u64;

    fn apply(&mut self, place: Place, data: &[u8]) -> Result<Option<u64>, String> {
        let index = place.index;
        let next = self.applied.last().map_or(index, |(last, _)| last + 1);
        assert_eq!(index, next, "entries are applied without a gap");
        self.check(index, data);
        self.applied.push((index, data.to_vec()));
        Ok((!data.is_empty()).then_some(index))
    }

    fn publish(&mut self, group: GroupView<'_>) {
        self.leader = group.leader;
    }

    fn snapshot(&self) -> Vec<u8> {
        let line = |(index, data): &(u64, Vec<u8>)| format!("{index} {}\n", String::from_utf8_lossy(data));
        self.applied.iter().map(line).collect::<String>().into_bytes()
    }

    fn restore(&mut self, data: &[u8]) -> Result<(), String> {
        let text = String::from_utf8(data.to_vec()).map_err(|error| error.to_string())?;
        let entries = text.lines().map(|line| {
            let (index, data) = line.split_once(' ').unwrap();
            (index.parse().unwrap(), data.as_bytes().to_vec())
        });
        let restored: Vec<(u64, Vec<u8>)> = entries.collect();
        let known = self.applied.len().min(restored.len());
        assert_eq!(self.applied[..known], restored[..known], "a snapshot holds what was applied");
        self.applied = restored;
        self.applied.iter().for_each(|(index, data)| self.check(*index, data));
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<Message>>>);

impl Transport for Wire {
    fn send(&self, messages: Vec<Message>) {
        self.0.lock().unwrap().extend(messages);
    }
}

pub(super) struct Node {
    pub(super) begin: Begin,
    pub(super) journal: Arc<MemoryJournal>,
    pub(super) driver: Driver<RealBackend, Entries>,
    pub(super) mailbox: io_backend::Sender<RealBackend, RaftInput<u64>>,
    pub(super) peers: io_backend::Sender<RealBackend, GroupInput>,
}

pub(super) type Answer<A> = io_backend::Reply<RealBackend, Result<A, Refusal>>;

pub(super) struct Group {
    pub(super) backend: RealBackend,
    pub(super) nodes: BTreeMap<u64, Node>,
    wire: Wire,
    truth: Truth,
    /// Who cannot hear whom: from, to.
    pub(super) cut: BTreeSet<(u64, u64)>,
    /// Entries that a journal takes at once.
    pub(super) submission_max: usize,
    /// Entries of a journal file: what is released goes by files.
    pub(super) file_entries: u64,
    pub(super) snapshot_every_entries: u64,
    /// What was delivered, of each kind.
    pub(super) delivered: BTreeMap<String, usize>,
    leaders: BTreeMap<u64, u64>,
    /// For whom a member voted in a term, as others heard of it.
    votes: BTreeMap<(u64, u64), u64>,
}

pub(super) fn with_group(test: impl AsyncFnOnce(Group)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let disk = io_backend::real::DiskChoice::Threads;
        let (backend, _) = RealBackend::start(disk, scratch.path()).unwrap();
        let group = Group {
            backend,
            nodes: BTreeMap::new(),
            wire: Wire::default(),
            truth: Truth::default(),
            cut: BTreeSet::new(),
            submission_max: 1_000,
            file_entries: 4,
            snapshot_every_entries: 1_000_000,
            delivered: BTreeMap::new(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
        };
        test(group).await;
    });
}

impl Group {
    pub(super) fn found(&mut self, voters: &[u64]) {
        for id in voters {
            self.start(*id, Begin::Found { voters: voters.to_vec() }, MemoryJournal::new());
        }
    }

    pub(super) fn start(&mut self, id: u64, begin: Begin, journal: Arc<MemoryJournal>) {
        journal.by_hand();
        journal.bound(self.submission_max, self.file_entries);
        let (mailbox, receiver) = channel(&self.backend, "raft", 100);
        let (peers, of_the_group) = channel(&self.backend, "raft group", 1_000);
        let driver = Driver::open(RaftContext {
            backend: self.backend.clone(),
            id,
            begin: begin.clone(),
            machine: Entries { applied: Vec::new(), truth: self.truth.clone(), leader: None },
            recovered: journal.entries(),
            journal: journal.clone(),
            mailbox: receiver,
            peers: Some(of_the_group),
            transport: Box::new(self.wire.clone()),
            metrics: Arc::default(),
            snapshot_piece_bytes: 32,
            snapshot_every_entries: self.snapshot_every_entries,
            proposals_in_flight_max: 100,
            submission_max: SubmissionMax { entries: self.submission_max, bytes: 1 << 20 },
        });
        let driver = driver.unwrap_or_else(|error| panic!("{id} does not start: {error}"));
        self.nodes.insert(id, Node { begin, journal, driver, mailbox, peers });
        self.step(id);
    }

    /// What was not durable is gone.
    pub(super) fn restart(&mut self, id: u64) {
        let Node { begin, journal, .. } = self.nodes.remove(&id).unwrap();
        self.start(id, begin, journal.reopened());
    }

    pub(super) fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    pub(super) fn driver(&mut self, id: u64) -> &mut Driver<RealBackend, Entries> {
        &mut self.node(id).driver
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// Has a member do all that it can, and looks at what it does.
    pub(super) fn step(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.driver.step().unwrap_or_else(|error| panic!("{id}: {error}"));
        if node.driver.leads() {
            let term = node.driver.raft.raft.term;
            let leader = *self.leaders.entry(term).or_insert(id);
            assert_eq!(leader, id, "one leader in term {term}");
        }
        let sent = self.wire.0.lock().unwrap().clone();
        for message in sent.iter().filter(|message| message.from == id) {
            let candidate = match message.get_msg_type() {
                MessageType::MsgRequestVote => id,
                MessageType::MsgRequestVoteResponse if !message.reject => message.to,
                _ => continue,
            };
            let vote = *self.votes.entry((id, message.term)).or_insert(candidate);
            assert_eq!(vote, candidate, "{id} votes once in term {}", message.term);
        }
    }

    pub(super) fn sync(&mut self, id: u64) {
        self.node(id).journal.sync();
        self.step(id);
    }

    /// Time passes for one member, which would campaign after so many ticks of silence.
    pub(super) fn tick(&mut self, id: u64, patience: usize) {
        let driver = self.driver(id);
        driver.raft.raft.set_randomized_election_timeout(patience);
        driver.tick();
        self.step(id);
    }

    pub(super) fn tell(&mut self, id: u64, input: GroupInput) {
        self.driver(id).handle(Event::Inputs { of_the_group: vec![input], asked: Vec::new() });
        self.step(id);
    }

    pub(super) fn on_the_wire(&self) -> Vec<(u64, u64, MessageType)> {
        let wire = self.wire.0.lock().unwrap();
        wire.iter().map(|message| (message.from, message.to, message.get_msg_type())).collect()
    }

    /// Takes a message off the wire.
    pub(super) fn take(&mut self, at: usize) -> Message {
        self.wire.0.lock().unwrap().remove(at)
    }

    pub(super) fn put_back(&mut self, message: Message) {
        self.wire.0.lock().unwrap().push(message);
    }

    /// Takes a message to whom it is for, or loses it.
    pub(super) fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from, message.to);
        if self.cut.contains(&(from, to)) || !self.nodes.contains_key(&to) {
            return self.lose(message);
        }
        let kind = message.get_msg_type();
        *self.delivered.entry(format!("{kind:?}")).or_default() += 1;
        self.tell(to, GroupInput::Messages(vec![message]));
        if kind == MessageType::MsgSnapshot && self.nodes.contains_key(&from) {
            self.tell(from, GroupInput::SnapshotSent { peer: to, ok: true });
        }
    }

    /// It does not arrive, and who sent it is told.
    pub(super) fn lose(&mut self, message: Message) {
        if !self.nodes.contains_key(&message.from) {
            return;
        }
        match message.get_msg_type() {
            MessageType::MsgSnapshot => {
                self.tell(message.from, GroupInput::SnapshotSent { peer: message.to, ok: false });
            }
            _ => self.tell(message.from, GroupInput::Unreachable(message.to)),
        }
    }

    pub(super) fn lose_messages_of(&mut self, id: u64) {
        for at in (0..self.on_the_wire().len()).rev() {
            let (from, to, _) = self.on_the_wire()[at];
            if from == id || to == id {
                let message = self.take(at);
                self.lose(message);
            }
        }
    }

    /// All that is said is heard, and nothing else happens: no disk, no time.
    pub(super) fn deliver_all(&mut self) {
        for _ in 0..100_000 {
            if self.on_the_wire().is_empty() {
                return;
            }
            let message = self.take(0);
            self.deliver(message);
        }
        panic!("they talk for ever: {:?}", self.on_the_wire());
    }

    /// Disks work and messages come until nothing is left to do.
    pub(super) fn settle(&mut self) {
        loop {
            self.deliver_all();
            self.ids().into_iter().for_each(|id| self.sync(id));
            let in_flight = self.nodes.values().any(|node| node.journal.entries_in_flight() > 0);
            if self.on_the_wire().is_empty() && !in_flight {
                return;
            }
        }
    }

    /// Time passes for all, and `first` campaigns first where nobody leads.
    pub(super) fn pass(&mut self, ticks: usize, first: u64) {
        for _ in 0..ticks {
            for id in self.ids() {
                self.tick(id, if id == first { 10 } else { 19 });
            }
            self.settle();
        }
    }

    pub(super) fn elect(&mut self, id: u64) {
        self.settle();
        self.pass(15, id);
        assert_eq!(self.leader(), Some(id));
    }

    /// Who leads in the latest term.
    pub(super) fn leader(&self) -> Option<u64> {
        let leaders = self.nodes.iter().filter(|(_, node)| node.driver.leads());
        leaders.max_by_key(|(_, node)| node.driver.raft.raft.term).map(|(id, _)| *id)
    }

    pub(super) fn propose(&mut self, id: u64, word: &str) -> Answer<u64> {
        let (replier, reply) = self.node(id).mailbox.reply("decision");
        self.propose_for(id, word, Proposer::ForOutcome(replier));
        reply
    }

    /// Asks only where it stands.
    pub(super) fn place(&mut self, id: u64, word: &str) -> Answer<Place> {
        let (replier, reply) = self.node(id).mailbox.reply("place");
        self.propose_for(id, word, Proposer::ForPlace(replier));
        reply
    }

    fn propose_for(&mut self, id: u64, word: &str, proposer: Proposer<u64>) {
        let share = Account::new(0, Gauge::default()).take_anyway(0);
        let proposal = Proposal { data: word.into(), until: None, proposer, share };
        self.node(id)
            .driver
            .handle(Event::Inputs { of_the_group: Vec::new(), asked: vec![RaftInput::Propose(proposal)] });
        self.step(id);
    }

    pub(super) fn change(&mut self, id: u64, change: MemberChange) -> Answer<()> {
        let node = self.node(id);
        let (replier, reply) = node.mailbox.reply("decision");
        let proposal = MembersProposal { change, until: None, replier };
        node.driver.handle(Event::Inputs {
            of_the_group: Vec::new(),
            asked: vec![RaftInput::ChangeMembers(proposal)],
        });
        self.step(id);
        reply
    }

    pub(super) fn confirm(&mut self, id: u64, at_once: bool) -> io_backend::Reply<RealBackend, ()> {
        let (replier, reply) = self.node(id).mailbox.reply("confirmation");
        self.tell(id, GroupInput::Confirm { at_once, replier });
        reply
    }

    pub(super) fn words(&self, id: u64) -> Vec<String> {
        self.nodes[&id].driver.machine.words()
    }

    pub(super) fn isolate(&mut self, id: u64) {
        for other in self.ids() {
            self.cut.extend([(id, other), (other, id)]);
        }
    }

    pub(super) fn soon(&self) -> Deadline {
        Deadline::after(&self.backend, Duration::from_secs(30))
    }
}

pub(super) fn words(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("word-{number}")).collect()
}

/// Has these decided, one step each.
pub(super) fn propose_all(group: &mut Group, leader: u64, words: &[String]) {
    for word in words {
        drop(group.propose(leader, word));
        group.settle();
    }
}

pub(super) fn members(group: &mut Group, id: u64) -> (Vec<u64>, Vec<u64>) {
    let conf = group.driver(id).raft.store().conf.clone();
    let sorted = |mut ids: Vec<u64>| {
        ids.sort_unstable();
        ids
    };
    (sorted(conf.voters), sorted(conf.learners))
}
