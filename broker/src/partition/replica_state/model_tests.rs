//! Three replicas of a partition, a controller and clients as a model: everything that can happen to them in any order, with
//! disks that lose what was not synced, messages that come late, twice or never, and leaders that do not know it.
//!
//! What must hold: what was acknowledged to acks=all is in the log of whoever leads next, once, where it was said to be;
//! logs are alike up to both high watermarks; and an offset has one content in an epoch.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};

use super::model_replica_tests::{Asked, Content, Log, Node, OnDisk, Random, batches};
use super::tests::{LATE, at};
use super::*;
use crate::ids::{BrokerId, PartitionEpoch, ProducerId};
use crate::log::batch::{Batches, ProducerStamp};
use crate::log::producers::Sequenced;
use crate::log::test_batches::BatchSpec;
use crate::partition::Durable;

mod checks;

const NODES: usize = 3;
const PRODUCERS: usize = 4;

#[derive(Clone, Debug)]
enum Message {
    Fetch { from: usize, to: usize, epoch: i32, position: (LeaderEpoch, Offset) },
    Records { to: usize, epoch: i32, bytes: Bytes, marks: LeaderMarks },
    Diverging { to: usize, epoch: i32, asked: (LeaderEpoch, Offset), told: (LeaderEpoch, Offset) },
    Synced { from: usize, to: usize, epoch: i32, offset: Offset },
}

#[derive(Default)]
struct Producer {
    sequence: i32,
    /// The batch that it tries until it is acknowledged.
    trying: Option<Content>,
}

struct Controller {
    epoch: i32,
    /// Another one with each change.
    version: PartitionEpoch,
    leader: Option<usize>,
    isr: BTreeSet<usize>,
}

impl Controller {
    fn change(&mut self) {
        self.version.0 += 1;
    }
}

struct Model {
    random: Random,
    nodes: Vec<Node>,
    controller: Controller,
    messages: Vec<Message>,
    /// Additions to the ISR that were asked for at a version, and not decided in time: they may be yet.
    late: Vec<(PartitionEpoch, usize)>,
    producers: Vec<Producer>,
    clock: Content,
    min: usize,
    settling: bool,
    /// By content, where it was acknowledged.
    acked: BTreeMap<Content, i64>,
    /// What followers were given, by epoch of the batch and offset.
    published: BTreeMap<(i32, i64), Content>,
    probes: BTreeMap<&'static str, usize>,
    /// A failing seed is run once more, and tells what happens.
    tells: bool,
}

fn broker(node: usize) -> BrokerId {
    BrokerId(node as i32)
}

impl Model {
    fn new(seed: u64, tells: bool) -> Model {
        let mut random = Random(seed);
        let min = 1 + random.below(2);
        Model {
            random,
            nodes: (0..NODES).map(|_| Node::new()).collect(),
            controller: Controller {
                epoch: 0,
                version: PartitionEpoch(0),
                leader: Some(0),
                isr: (0..NODES).collect(),
            },
            late: Vec::new(),
            messages: Vec::new(),
            producers: (0..PRODUCERS).map(|_| Producer::default()).collect(),
            clock: 0,
            min,
            settling: false,
            acked: BTreeMap::new(),
            published: BTreeMap::new(),
            probes: BTreeMap::new(),
            tells,
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{}", what());
        }
    }

    fn probe(&mut self, what: &'static str) {
        *self.probes.entry(what).or_default() += 1;
    }

    fn now(&self) -> Now {
        Now { moment: at(0), wall_ms: 0 }
    }

    fn in_sync(&self, leader: usize) -> InSync {
        let others = (0..NODES).filter(|node| *node != leader);
        let members = self.controller.isr.iter().filter(|node| **node != leader);
        let in_sync = InSync::new(others.map(broker), members.map(|node| broker(*node)), self.min);
        in_sync.at(self.controller.version)
    }

    fn submit(&mut self, node: usize, answers: &mut Answers<Asked>) {
        let now = self.now();
        let mut refused = !self.settling && self.random.one_in(40);
        loop {
            let Node { machine: Some(machine), journal, next_lsn, .. } = &mut self.nodes[node] else {
                return;
            };
            if !machine.has_queued() {
                return;
            }
            let Some(entries) = machine.stage(now, answers) else { continue };
            if std::mem::take(&mut refused) {
                machine.handle_refused(SubmitError::Stalled, answers);
                continue;
            }
            for entry in entries {
                journal.push((Lsn(*next_lsn), entry, OnDisk::InFlight));
                *next_lsn += 1;
            }
            machine.handle_submitted(Lsn(*next_lsn - 1), answers);
        }
    }

    /// Carries out what the machine says.
    fn carry_out(&mut self, node: usize, mut answers: Answers<Asked>) {
        self.submit(node, &mut answers);
        self.say(|| {
            let Node { machine: Some(machine), segments, .. } = &self.nodes[node] else { return String::new() };
            let ReplicaState { leadership, log_end, synced, high_watermark, in_flight, .. } = machine;
            let in_segments = segments.last().map_or(0, |last| last.end.0);
            let flight: Vec<_> = in_flight.iter().map(|entry| (entry.lsn.0, entry.what)).collect();
            format!(
                "  node {node} {leadership:?} end {log_end} synced {synced} hw {high_watermark} segments {in_segments} cut {:?} \
                 in flight {flight:?} answers {:?}",
                answers.cut, answers.appends
            )
        });
        if let Some(to) = answers.cut {
            Node::cut(&mut self.nodes[node].segments, to);
            self.probe("cut below what was durable");
        }
        if let Some(epoch) = answers.resigned {
            assert!(self.controller.epoch >= epoch.0);
            self.probe("resigned after a failure");
            if self.controller.epoch == epoch.0 {
                self.elect(None);
            }
        }
        for (asked, answer) in answers.appends {
            let Asked::Producer { nth, content, epoch } = asked else { continue };
            let producer = &mut self.producers[nth];
            match answer {
                Ok(appended) => {
                    let before = self.acked.insert(content, appended.base_offset.0);
                    assert!(
                        before.is_none_or(|before| before == appended.base_offset.0),
                        "one place for {content}"
                    );
                    if producer.trying == Some(content) {
                        producer.trying = None;
                        producer.sequence += 1;
                    }
                    if epoch < self.controller.epoch {
                        self.probe("acknowledged by a leader that is none any more");
                    }
                }
                // A leader that does not know that it is none any more may not know what came since.
                Err(AppendError::OutOfOrderSequence { expected, found, .. })
                    if epoch == self.controller.epoch =>
                {
                    panic!(
                        "producer {nth}: {found} where {expected} is due in epoch {epoch}, acked {:?}",
                        self.acked
                    )
                }
                Err(_) => {}
            }
        }
    }

    /// A new epoch, led by somebody in sync who runs.
    fn elect(&mut self, but: Option<usize>) {
        let running = |node: &usize| self.nodes[*node].machine.is_some() && Some(*node) != but;
        let able: Vec<usize> = self.controller.isr.iter().copied().filter(running).collect();
        self.controller.epoch += 1;
        self.controller.change();
        self.say(|| format!("epoch {}: {able:?} of {:?}", self.controller.epoch, self.controller.isr));
        self.controller.leader = (!able.is_empty()).then(|| able[self.random.below(able.len())]);
    }

    /// A node hears of the image as it is.
    fn tell(&mut self, node: usize) {
        let (epoch, leads) = (self.controller.epoch, self.controller.leader == Some(node));
        let in_sync = self.in_sync(node);
        let Node { machine: Some(machine), told, .. } = &mut self.nodes[node] else { return };
        let mut answers = Answers::default();
        let idle = leads && machine.leadership == Leadership::No;
        if *told != Some((epoch, leads)) || idle {
            *told = Some((epoch, leads));
            match leads {
                true => machine.handle_lead(LeaderEpoch(epoch), in_sync, &mut answers),
                false if self.controller.leader.is_some() => {
                    machine.handle_follow(LeaderEpoch(epoch), &mut answers)
                }
                false => machine.handle_resign(&mut answers),
            }
        } else if leads {
            machine.handle_in_sync(LeaderEpoch(epoch), |known| known.change_to(in_sync), &mut answers);
        }
        self.carry_out(node, answers);
        if leads {
            self.check_leader(node);
        }
    }

    fn produce(&mut self) {
        let nth = self.random.below(PRODUCERS);
        // A client may not have heard of the last move.
        let node = match self.controller.leader {
            Some(leader) if !self.random.one_in(4) => leader,
            _ => self.random.below(NODES),
        };
        let Some((epoch, true)) = self.nodes[node].told else { return };
        let plain = self.random.one_in(4);
        let (acks, asked, spec) = if plain {
            self.clock += 1;
            (
                Acks::Leader,
                Asked::Nobody,
                BatchSpec::records(1 + (self.clock % 3) as i32).timestamp(self.clock),
            )
        } else {
            let producer = &mut self.producers[nth];
            let content = *producer.trying.get_or_insert_with(|| {
                self.clock += 1;
                self.clock
            });
            let spec = BatchSpec::records(1).producer(nth as i64, 0, producer.sequence).timestamp(content);
            (Acks::All, Asked::Producer { nth, content, epoch }, spec)
        };
        let Some(machine) = &mut self.nodes[node].machine else { return };
        machine.enqueue(Append { batches: vec![spec.checked()], acks, deadline: LATE, ticket: asked });
        self.carry_out(node, Answers::default());
    }

    /// A node's disk gets on, or a part of what is in flight fails.
    fn disk(&mut self, node: usize) {
        let in_flight: Vec<Lsn> = self.nodes[node]
            .journal
            .iter()
            .filter(|(_, _, state)| *state == OnDisk::InFlight)
            .map(|(lsn, ..)| *lsn)
            .collect();
        if in_flight.is_empty() {
            return;
        }
        let done = 1 + self.random.below(in_flight.len());
        let fails = self.random.one_in(25);
        let reached = match fails {
            true => done
                .checked_sub(1 + self.random.below(done))
                .and_then(|nth| nth.checked_sub(1))
                .map(|nth| in_flight[nth]),
            false => Some(in_flight[done - 1]),
        };
        let reached = reached.unwrap_or(Lsn(in_flight[0].0 - 1));
        let Node { machine: Some(machine), journal, .. } = &mut self.nodes[node] else { return };
        for (lsn, _, state) in journal.iter_mut().filter(|(_, _, state)| *state == OnDisk::InFlight) {
            if *lsn <= reached {
                *state = OnDisk::Durable;
            } else if fails {
                *state = OnDisk::Failed;
            }
        }
        let mut answers = Answers::default();
        let before = machine.synced();
        machine.handle_progress(reached, fails.then_some(Lsn(reached.0 + 1)), &mut answers);
        let synced = machine.synced();
        if fails {
            self.probe("failed group");
        }
        self.carry_out(node, answers);
        if let Some((epoch, false)) = self.nodes[node].told
            && (synced != before || self.random.one_in(3))
            && let Some(to) = self.controller.leader
        {
            self.messages.push(Message::Synced { from: node, to, epoch, offset: synced });
        }
    }

    fn fetch(&mut self, node: usize) {
        let Node { machine: Some(machine), told: Some((epoch, false)), .. } = &self.nodes[node] else {
            return;
        };
        let (position, offset) = (machine.fetch_position(), machine.synced());
        let Some(to) = self.controller.leader else { return };
        let (from, epoch) = (node, *epoch);
        self.messages.push(Message::Fetch { from, to, epoch, position });
        self.messages.push(Message::Synced { from, to, epoch, offset });
    }

    fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let nth = if self.random.one_in(3) { self.random.below(self.messages.len()) } else { 0 };
        let message = match self.random.one_in(15) {
            true => self.messages[nth].clone(),
            false => self.messages.remove(nth),
        };
        if self.random.one_in(12) {
            return;
        }
        self.say(|| format!("{message:?}"));
        let mut answers = Answers::default();
        match message {
            Message::Fetch { from, to, epoch, position: (last_epoch, offset) } => {
                let Some(machine) = &mut self.nodes[to].machine else { return };
                let view = machine.view();
                if !view.leading || view.leader_epoch.0 != epoch {
                    return;
                }
                if let Some(told) = machine.diverging(last_epoch, offset) {
                    self.probe("diverging");
                    self.messages.push(Message::Diverging {
                        to: from,
                        epoch,
                        asked: (last_epoch, offset),
                        told,
                    });
                    return;
                }
                if offset > view.log_end {
                    return;
                }
                let change = |in_sync: &mut InSync| in_sync.fetched(broker(from), offset);
                machine.handle_in_sync(LeaderEpoch(epoch), change, &mut answers);
                let marks = machine.marks();
                let segments = self.nodes[to].segments.iter();
                let in_segments = self.nodes[to].segments.last().map_or(Offset::ZERO, |last| last.end);
                let machine = self.nodes[to].machine.as_ref().expect("looked at above");
                let tail = machine.tail().chunks().filter(|chunk| chunk.end > in_segments);
                let mut bytes = BytesMut::new();
                for chunk in segments.chain(tail).filter(|chunk| chunk.end > offset) {
                    let headers = Batches::new(&chunk.bytes).map_while(Result::ok);
                    for (at, header) in headers.filter(|(_, header)| header.base_offset >= offset) {
                        bytes.extend_from_slice(&chunk.bytes[at..at + header.bytes]);
                    }
                    if bytes.len() > 400 {
                        break;
                    }
                }
                for (epoch, offset, content) in batches(&bytes) {
                    let before = self.published.insert((epoch, offset), content);
                    let same = before.is_none_or(|before| before == content);
                    assert!(same, "offset {offset} has two contents in epoch {epoch}");
                }
                self.messages.push(Message::Records { to: from, epoch, bytes: bytes.freeze(), marks });
                self.carry_out(to, answers);
            }
            Message::Records { to, epoch, bytes, marks } => {
                let Some(machine) = &mut self.nodes[to].machine else { return };
                let took = machine.handle_fetched(LeaderEpoch(epoch), bytes, marks, &mut answers);
                assert!(
                    !matches!(took, Err(FollowError::Committed { .. } | FollowError::Damaged(_))),
                    "{took:?}"
                );
                self.carry_out(to, answers);
            }
            Message::Diverging { to, epoch, asked, told } => {
                let Some(machine) = &mut self.nodes[to].machine else { return };
                let done = machine.handle_diverging(LeaderEpoch(epoch), asked, told, &mut answers);
                assert!(!matches!(done, Err(FollowError::Committed { .. })), "node {to}: {done:?}");
                self.carry_out(to, answers);
            }
            Message::Synced { from, to, epoch, offset } => {
                let Some(machine) = &mut self.nodes[to].machine else { return };
                let durable = Durable { synced: offset, log_start: Offset::ZERO };
                let change = |in_sync: &mut InSync| in_sync.reported(broker(from), durable);
                machine.handle_in_sync(LeaderEpoch(epoch), change, &mut answers);
                self.carry_out(to, answers);
            }
        }
    }

    /// The leader has somebody put out of the ISR, or into it.
    fn change_isr(&mut self) {
        let Some(leader) = self.controller.leader else { return };
        let epoch = LeaderEpoch(self.controller.epoch);
        let other = (leader + 1 + self.random.below(NODES - 1)) % NODES;
        let Node { machine: Some(machine), told: Some((told, true)), .. } = &mut self.nodes[leader] else {
            return;
        };
        if *told != epoch.0 {
            return;
        }
        if self.controller.isr.contains(&other) {
            if self.random.one_in(3) {
                self.controller.isr.remove(&other);
                self.controller.change();
                self.say(|| format!("{other} leaves the ISR"));
                self.probe("left the ISR");
            }
            return;
        }
        let version = self.controller.version;
        let mut answers = Answers::default();
        if self.late.contains(&(version, other)) && self.random.one_in(2) {
            // Nobody has answered: whoever is to come in does not, by asking for the ISR as it is.
            self.controller.change();
            self.probe("an addition was given up");
        } else if machine.handle_joining(epoch, version, vec![broker(other)], &mut answers)
            == Some(vec![broker(other)])
        {
            // It counts before it is asked for: whoever is elected meanwhile may be it.
            match !self.settling && !self.random.one_in(3) {
                true => self.late.push((version, other)),
                false => self.decide_addition(version, other),
            }
        }
        self.carry_out(leader, answers);
    }

    fn decide_addition(&mut self, version: PartitionEpoch, node: usize) {
        if self.controller.version == version {
            self.controller.change();
            self.controller.isr.insert(node);
            self.say(|| format!("{node} comes into the ISR"));
            self.probe("came into the ISR");
        }
    }

    /// What was asked of the controller is decided long after.
    fn decide_late(&mut self) {
        if self.late.is_empty() {
            return;
        }
        // The last one more often than the others, which are of versions that are over.
        let nth = self.random.below(2 * self.late.len()).min(self.late.len() - 1);
        let (version, node) = self.late.remove(nth);
        self.probe(if version == self.controller.version { "added late" } else { "added too late" });
        self.decide_addition(version, node);
    }

    fn step(&mut self) {
        let node = self.random.below(NODES);
        match self.random.below(100) {
            0..25 => self.produce(),
            25..45 => self.disk(node),
            45..60 => self.fetch(node),
            60..80 => self.deliver(),
            80..85 => self.tell(node),
            85..92 => self.change_isr(),
            92..94 => self.decide_late(),
            94..96 => {
                if self.nodes[node].checkpoint() {
                    self.probe("checkpoint");
                }
            }
            96..97 if self.nodes[node].machine.is_some() => {
                let mut random = Random(self.random.next());
                self.nodes[node].crash(&mut random);
                self.say(|| format!("node {node} crashes"));
                self.probe("crash");
            }
            97..98 => self.elect(None),
            _ => {
                if self.nodes[node].machine.is_none() {
                    self.nodes[node].restart();
                    self.say(|| format!("node {node} starts"));
                    if self.controller.leader == Some(node) || self.controller.leader.is_none() {
                        // A new process leads only under an epoch that was granted to it.
                        self.elect(None);
                    }
                } else if self.controller.leader.is_some_and(|leader| self.nodes[leader].machine.is_none()) {
                    self.elect(None);
                }
            }
        }
    }

    /// Nothing breaks any more: everybody gets to the same end.
    fn settle(&mut self) {
        self.settling = true;
        for node in 0..NODES {
            if self.nodes[node].machine.is_none() {
                self.nodes[node].restart();
            }
        }
        self.elect(None);
        let leader = self.controller.leader.expect("all run, and somebody is in sync");
        for _ in 0..400 {
            for node in 0..NODES {
                self.tell(node);
                let last = self.nodes[node].journal.iter_mut().map(|(lsn, _, state)| {
                    if *state == OnDisk::InFlight {
                        *state = OnDisk::Durable;
                    }
                    *lsn
                });
                let reached = last.max().unwrap_or(Lsn(0));
                let mut answers = Answers::default();
                if let Some(machine) = &mut self.nodes[node].machine {
                    machine.handle_progress(reached, None, &mut answers);
                }
                self.carry_out(node, answers);
                self.fetch(node);
            }
            while !self.messages.is_empty() {
                self.deliver();
            }
            self.change_isr();
        }
        self.check_settled(leader);
    }
}

fn run(seed: u64, steps: usize, tells: bool) -> BTreeMap<&'static str, usize> {
    let mut model = Model::new(seed, tells);
    for _ in 0..steps {
        model.step();
        model.check_prefixes();
        model.check_held_by_all();
    }
    model.settle();
    *model.probes.entry("acknowledged").or_default() += model.acked.len();
    model.probes
}

#[test]
fn what_is_acknowledged_stays_whoever_leads() {
    let mut probes: BTreeMap<&'static str, usize> = BTreeMap::new();
    for seed in 0..100 {
        let told = std::panic::catch_unwind(|| run(seed, 1_500, false));
        let told = told.unwrap_or_else(|_| {
            println!("seed {seed}, told:");
            run(seed, 1_500, true)
        });
        told.into_iter().for_each(|(what, times)| *probes.entry(what).or_default() += times);
    }
    for what in [
        "acknowledged",
        "crash",
        "checkpoint",
        "diverging",
        "cut below what was durable",
        "told to be held by all",
        "failed group",
        "left the ISR",
        "came into the ISR",
        "added late",
        "added too late",
        "an addition was given up",
        "resigned after a failure",
    ] {
        assert!(probes.get(what).is_some_and(|times| *times > 10), "{what} was hardly seen: {probes:?}");
    }
}
