//! A group whose members speak both protocols, come, go, and are told of the same partitions.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::super::super::assignor::Assignment;
use super::super::super::consumer_protocol::{NamedPartitions, read_assignment, write_assignment};
use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    /// It gives up all it has before it joins.
    Eager,
    /// It keeps what it has until it is assigned without it.
    Cooperative,
    Consumer,
}

#[derive(Debug)]
struct Client {
    speaks: Speaks,
    /// As it was told.
    id: Option<MemberId>,
    epoch: i32,
    protocol: Option<Arc<str>>,
    has: BTreeSet<i32>,
    next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Join,
    /// It waits to be told that all have joined, or what it is assigned.
    Wait,
    Sync,
    Beat,
}

impl Client {
    fn of(speaks: Speaks) -> Client {
        Client { speaks, id: None, epoch: 0, protocol: None, has: BTreeSet::new(), next: Next::Join }
    }

    fn begin_anew(&mut self) {
        *self = Client::of(self.speaks);
    }

    fn protocol_name(&self) -> &'static str {
        if self.speaks == Speaks::Eager { "range" } else { "cooperative-sticky" }
    }
}

struct Mixed {
    bench: Bench,
    clients: BTreeMap<u32, Client>,
    /// Members that lead, with those that they are to assign to.
    led: BTreeMap<u32, Vec<(MemberId, Bytes)>>,
    /// How often the group went over to the consumer protocol, and back.
    changes: (u64, u64),
}

fn named(partitions: &BTreeSet<i32>) -> NamedPartitions {
    [(text("read"), partitions.clone())].into_iter().filter(|(_, all)| !all.is_empty()).collect()
}

/// A subscription to "read" of version 1.
fn subscribed(has: &BTreeSet<i32>) -> Bytes {
    let owned = write_assignment(0, &named(has));
    let owned = &owned[2..owned.len() - 4];
    [&b"\x00\x01\x00\x00\x00\x01\x00\x04read\xff\xff\xff\xff"[..], owned].concat().into()
}

fn numbers(assignment: &Assignment) -> BTreeSet<i32> {
    assignment.values().flatten().copied().collect()
}

/// What a leader says, which gives nobody what another has still.
fn assigned(members: &[(MemberId, Bytes)]) -> Vec<(MemberId, Bytes)> {
    let has = |metadata: &Bytes| {
        let said = super::super::super::consumer_protocol::ConsumerSubscription::read(metadata.clone());
        said.expect("a client's own").owned.into_values().flatten().collect::<BTreeSet<i32>>()
    };
    let owners: BTreeMap<i32, &MemberId> =
        members.iter().flat_map(|(id, said)| has(said).into_iter().map(move |one| (one, id))).collect();
    let to = |partition: i32| &members[partition as usize % members.len()].0;
    let of = |id: &MemberId| {
        (0..7).filter(|one| to(*one) == id && owners.get(one).is_none_or(|owner| *owner == id)).collect()
    };
    members.iter().map(|(id, _)| (id.clone(), write_assignment(1, &named(&of(id))))).collect()
}

impl Mixed {
    fn of(clients: &[Speaks], migration: MigrationPolicy) -> Mixed {
        let mut bench = Bench::new();
        bench.settings = settings(migration);
        let clients = (0..).zip(clients).map(|(nth, speaks)| (nth, Client::of(*speaks))).collect();
        Mixed { bench, clients, led: BTreeMap::new(), changes: (0, 0) }
    }

    /// A client does what is next for it, and all that are answered hear it.
    fn step(&mut self, nth: u32) {
        let client = self.clients.get_mut(&nth).expect("one of them");
        match (client.speaks, client.next) {
            (Speaks::Consumer, _) => self.beat(nth),
            (_, Next::Join) => self.join(nth),
            (_, Next::Wait) => {}
            (_, Next::Sync) => self.sync(nth),
            (_, Next::Beat) => {
                let (id, generation) = (client.id.clone().expect("told"), Generation(client.epoch));
                let heard = self.bench.call(|shard, rules, now| {
                    shard.heartbeat(&group("g"), &id, None, generation, rules, now)
                });
                match heard {
                    Ok(()) => {}
                    Err(error) => self.refused(nth, &error),
                }
            }
        }
        self.check();
    }

    fn beat(&mut self, nth: u32) {
        let client = &self.clients[&nth];
        let id = MemberId(text(&format!("consumer-{nth}")));
        let joins = client.epoch == 0;
        let topic = TopicId(uuid::Uuid::from_u128(1));
        let owned: Assignment =
            [(topic, client.has.clone())].into_iter().filter(|(_, all)| !all.is_empty()).collect();
        let beat = Heartbeat {
            member: id.clone(),
            epoch: if joins { Joining::Join } else { Joining::Member(Epoch(client.epoch)) },
            instance: None,
            rack: None,
            client: MemberClient::default(),
            rebalance_timeout: joins.then_some(Duration::from_secs(60)),
            subscription: joins.then(|| [text("read")].into()),
            pattern: None,
            assignor: None,
            owned: Some(owned),
        };
        let beaten =
            self.bench.call_with(|shard, rules, now| shard.consumer_heartbeat(&group("g"), beat, rules, now));
        let (beaten, effects) = beaten;
        self.hear(effects);
        let client = self.clients.get_mut(&nth).expect("one of them");
        match beaten {
            Ok(beat) => {
                client.id = Some(id);
                client.epoch = beat.epoch.0;
                if let Some(assignment) = beat.assignment {
                    client.has = numbers(&assignment);
                }
            }
            Err(_) => client.begin_anew(),
        }
    }

    fn join(&mut self, nth: u32) {
        let client = self.clients.get_mut(&nth).expect("one of them");
        if client.speaks == Speaks::Eager {
            client.has.clear();
        }
        client.next = Next::Wait;
        let join = Join {
            member: client.id.clone(),
            instance: None,
            client: super::super::super::classic::Client { id: text("client"), host: text("/127.0.0.1") },
            session_timeout: Duration::from_secs(30),
            rebalance_timeout: Duration::from_secs(60),
            protocol_type: text("consumer"),
            // Both, so that eager ones and others have one in common.
            protocols: [client.protocol_name(), "both"]
                .map(|name| Protocol { name: text(name), metadata: subscribed(&client.has) })
                .into(),
            takes_id_first: true,
            can_skip_assignment: true,
            ticket: nth,
        };
        let fresh = MemberId(text(&format!("classic-{nth}")));
        let ((), effects) =
            self.bench.call_with(|shard, rules, now| shard.join(&group("g"), join, fresh, rules, now));
        self.hear(effects);
    }

    fn sync(&mut self, nth: u32) {
        let client = self.clients.get_mut(&nth).expect("one of them");
        client.next = Next::Wait;
        let sync = Sync {
            member: client.id.clone().expect("told"),
            instance: None,
            generation: Generation(client.epoch),
            protocol_type: Some(text("consumer")),
            protocol: client.protocol.clone(),
            assignments: self.led.remove(&nth).map(|members| assigned(&members)).unwrap_or_default(),
            ticket: nth,
        };
        let ((), effects) =
            self.bench.call_with(|shard, rules, now| shard.sync(&group("g"), sync, rules, now));
        self.hear(effects);
    }

    fn refused(&mut self, nth: u32, error: &MemberError) {
        let client = self.clients.get_mut(&nth).expect("one of them");
        match error {
            MemberError::RebalanceInProgress => client.next = Next::Join,
            MemberError::IdRequired(id) => (client.id, client.next) = (Some(id.clone()), Next::Join),
            _ => client.begin_anew(),
        }
    }

    fn hear(&mut self, effects: Effects<u32>) {
        self.changes = (self.changes.0 + effects.upgrades, self.changes.1 + effects.downgrades);
        for (nth, joined) in effects.joins {
            match joined {
                Ok(joined) => {
                    let client = self.clients.get_mut(&nth).expect("one of them");
                    (client.id, client.epoch) = (Some(joined.member), joined.generation.0);
                    client.protocol = joined.protocol;
                    client.next = Next::Sync;
                    let led = joined.members.into_iter().map(|(id, _, said)| (id, said));
                    self.led.insert(nth, led.collect::<Vec<_>>());
                    self.led.retain(|_, members| !members.is_empty());
                }
                Err(error) => self.refused(nth, &error),
            }
        }
        for (nth, synced) in effects.syncs {
            match synced {
                Ok(synced) => {
                    let told = read_assignment(synced.assignment).expect("of a coordinator or a client");
                    let told: BTreeSet<i32> = told.into_values().flatten().collect();
                    let client = self.clients.get_mut(&nth).expect("one of them");
                    let gives_up = client.has.iter().any(|one| !told.contains(one));
                    client.has = told;
                    client.next = if gives_up { Next::Join } else { Next::Beat };
                }
                // Clients end for that. (Of a join it may be so: what a member knows that has not joined since a restart is forgotten.)
                Err(MemberError::InconsistentProtocol) => panic!("{nth} says what it was told"),
                Err(error) => self.refused(nth, &error),
            }
        }
    }

    /// Time goes by; who is out by then hears of it, as it would before it reads on.
    fn pass(&mut self, seconds: u64) {
        let until = self.bench.seconds + seconds;
        while let Some(due) = self.bench.shard.next_deadline().filter(|due| *due <= at(until).moment) {
            self.bench.seconds = self.bench.seconds.max(due.0 / 1_000_000_000);
            let ((), effects) = self.bench.call_with(|shard, rules, now| shard.handle_time(rules, now));
            self.hear(effects);
        }
        self.bench.seconds = until;
        self.forget_strangers();
    }

    fn forget_strangers(&mut self) {
        let known = self.members();
        // Who waits is told, and who was told an id only is nowhere yet.
        let believes = |client: &Client| client.next != Next::Wait && client.epoch > 0;
        for client in self.clients.values_mut().filter(|client| believes(client)) {
            if client.id.as_ref().is_some_and(|id| !known.contains(id)) {
                client.begin_anew();
            }
        }
    }

    fn members(&self) -> BTreeSet<MemberId> {
        let shard = &self.bench.shard;
        let classic = shard.describe(&group("g")).map(|group| group.members).unwrap_or_default();
        let consumers = shard.describe_consumer(&group("g")).map(|group| group.members).unwrap_or_default();
        let classic = classic.into_iter().map(|member| member.id);
        classic.chain(consumers.into_iter().map(|member| member.id)).collect()
    }

    fn leave(&mut self, nth: u32) {
        let client = self.clients.get_mut(&nth).expect("one of them");
        let (speaks, id) = (client.speaks, client.id.clone());
        client.begin_anew();
        let Some(id) = id else { return };
        let ((), effects) = self.bench.call_with(|shard, rules, now| match speaks {
            Speaks::Consumer => {
                let _ = shard.consumer_leave(&group("g"), &id, None, false, rules, now);
            }
            Speaks::Eager | Speaks::Cooperative => {
                shard.leave(&group("g"), &[(Some(id), None)], now);
            }
        });
        self.hear(effects);
    }

    /// Another node takes over. Who waits asks again.
    fn reload(&mut self) {
        self.bench.reload();
        self.led.clear();
        for client in self.clients.values_mut().filter(|client| client.next == Next::Wait) {
            client.next = Next::Join;
        }
        self.forget_strangers();
    }

    fn check(&self) {
        let mut read = BTreeMap::new();
        for (nth, client) in &self.clients {
            for partition in &client.has {
                let other = read.insert(*partition, nth);
                assert_eq!(other, None, "{partition} is read by {nth} too: {:#?}", self.clients);
            }
        }
    }

    fn settle(&mut self, clients: &[u32]) {
        for _ in 0..40 {
            clients.iter().for_each(|nth| self.step(*nth));
            self.pass(2);
        }
    }

    fn read(&self) -> Vec<usize> {
        self.clients.values().map(|client| client.has.len()).collect()
    }

    fn kind(&self) -> GroupKind {
        self.bench.shard.list()[0].kind
    }
}

use MigrationPolicy::{Bidirectional, Disabled, Downgrade, Upgrade};
use Speaks::{Consumer, Cooperative, Eager};

#[test]
fn a_group_goes_over_member_by_member_and_back() {
    for classic in [Eager, Cooperative] {
        let mut mixed = Mixed::of(&[classic, classic, Consumer, Consumer], Bidirectional);
        mixed.settle(&[0, 1]);
        assert_eq!((mixed.kind(), mixed.read()), (GroupKind::Classic, vec![4, 3, 0, 0]));
        mixed.settle(&[0, 1, 2]);
        assert_eq!(mixed.kind(), GroupKind::Consumer, "the first that speaks it changes the group");
        assert!(mixed.read()[..3].iter().all(|read| [2, 3].contains(read)), "{:?}", mixed.read());
        mixed.leave(0);
        mixed.settle(&[1, 2, 3]);
        mixed.leave(1);
        mixed.settle(&[2, 3]);
        assert_eq!(mixed.read()[..2], [0, 0]);
        assert_eq!(mixed.read().iter().sum::<usize>(), 7);
        mixed.settle(&[0, 2, 3]);
        mixed.leave(2);
        assert_eq!(mixed.kind(), GroupKind::Consumer, "one is left that speaks it");
        mixed.leave(3);
        assert_eq!(mixed.kind(), GroupKind::Classic);
        mixed.settle(&[0]);
        assert_eq!(mixed.read(), [7, 0, 0, 0]);
        assert_eq!(mixed.changes, (1, 1), "each change counts once");
    }
}

#[test]
fn a_policy_says_which_way_a_group_goes() {
    for (policy, up, down) in [
        (Disabled, false, false),
        (Upgrade, true, false),
        (Downgrade, false, true),
        (Bidirectional, true, true),
    ] {
        let mut mixed = Mixed::of(&[Cooperative, Consumer], policy);
        mixed.settle(&[0]);
        mixed.settle(&[0, 1]);
        assert_eq!(mixed.kind() == GroupKind::Consumer, up, "{policy:?}");
        let mut mixed = Mixed::of(&[Cooperative, Consumer], policy);
        mixed.settle(&[1]);
        mixed.settle(&[0, 1]);
        assert_eq!(
            mixed.read().iter().filter(|read| **read > 0).count(),
            2,
            "{policy:?}: both may be in one"
        );
        mixed.leave(1);
        assert_eq!(mixed.kind() == GroupKind::Classic, down, "{policy:?}");
        mixed.settle(&[0]);
        assert_eq!(mixed.read(), [7, 0], "{policy:?}");
    }
}

#[test]
fn who_is_told_to_join_and_does_not_is_out() {
    let mut mixed = Mixed::of(&[Cooperative, Consumer], Bidirectional);
    mixed.settle(&[0]);
    mixed.step(1);
    // It says that it is there, and nothing else.
    for _ in 0..31 {
        let idle = mixed.clients.get_mut(&0).expect("one of them");
        if idle.id.is_some() {
            idle.next = Next::Beat;
            mixed.step(0);
        }
        mixed.step(1);
        mixed.pass(2);
    }
    mixed.settle(&[1]);
    assert_eq!(mixed.read(), [0, 7]);
}

#[test]
fn a_group_that_was_about_to_be_assigned_anew_is_so_elsewhere() {
    let mut mixed = Mixed::of(&[Cooperative, Consumer], Bidirectional);
    mixed.settle(&[0]);
    mixed.settle(&[0, 1]);
    mixed.leave(1);
    assert_eq!(mixed.kind(), GroupKind::Classic);
    mixed.reload();
    mixed.settle(&[0]);
    assert_eq!(mixed.read(), [7, 0], "what the other had is read");
}

#[test]
fn who_says_nothing_that_a_coordinator_could_read_is_not_taken_over() {
    let mut mixed = Mixed::of(&[Consumer], Bidirectional);
    mixed.bench = Bench::with_member();
    mixed.bench.settings = settings(Bidirectional);
    // "all" is what another kind of client calls an assignment.
    mixed.step(0);
    assert_eq!((mixed.kind(), mixed.read()), (GroupKind::Classic, vec![0]));
}

/// A member that speaks the classic protocol joins by hand, and its answer.
fn joined(mixed: &mut Mixed, but: impl FnOnce(&mut Join<u32>)) -> Result<Joined, MemberError> {
    let mut join = Join {
        member: None,
        instance: Some(InstanceId(text("i"))),
        client: super::super::super::classic::Client { id: text("client"), host: text("/127.0.0.1") },
        session_timeout: Duration::from_secs(30),
        rebalance_timeout: Duration::from_secs(60),
        protocol_type: text("consumer"),
        protocols: vec![Protocol { name: text("both"), metadata: subscribed(&BTreeSet::new()) }],
        takes_id_first: true,
        can_skip_assignment: true,
        ticket: 99,
    };
    but(&mut join);
    let fresh = MemberId(text(&format!("i-{}", mixed.bench.log.len())));
    let ((), mut effects) =
        mixed.bench.call_with(|shard, rules, now| shard.join(&group("g"), join, fresh, rules, now));
    effects.joins.pop().expect("it is answered at once").1
}

/// What a static member of the classic protocol has in a consumer group.
fn synced(mixed: &mut Mixed, joined: &Joined) -> Result<usize, MemberError> {
    let sync = Sync {
        member: joined.member.clone(),
        instance: Some(InstanceId(text("i"))),
        generation: joined.generation,
        protocol_type: Some(text("consumer")),
        protocol: joined.protocol.clone(),
        assignments: Vec::new(),
        ticket: 99,
    };
    let ((), mut effects) =
        mixed.bench.call_with(|shard, rules, now| shard.sync(&group("g"), sync, rules, now));
    let told = effects.syncs.pop().expect("it is answered at once").1?;
    Ok(read_assignment(told.assignment).expect("of a coordinator").into_values().flatten().count())
}

#[test]
fn a_static_member_that_is_started_again_has_what_it_had_and_nobody_else_hears_of_it() {
    let mut mixed = Mixed::of(&[Consumer], Bidirectional);
    mixed.step(0);
    let first = joined(&mut mixed, |_| {}).expect("room");
    for _ in 0..3 {
        mixed.step(0);
    }
    let again = joined(&mut mixed, |_| {}).expect("the same instance");
    assert_ne!(first.member, again.member);
    assert_eq!(synced(&mut mixed, &again), Ok(3));
    let epoch = mixed.clients[&0].epoch;
    mixed.step(0);
    assert_eq!(
        (mixed.clients[&0].epoch, mixed.clients[&0].has.len()),
        (epoch, 4),
        "nothing is assigned anew"
    );
    assert_eq!(synced(&mut mixed, &first), Err(MemberError::FencedInstance));
}

#[test]
fn a_group_whose_assignors_tell_their_members_more_than_partitions_is_left_alone() {
    for (assignor, kind) in [("stream", GroupKind::Classic), ("cooperative-sticky", GroupKind::Consumer)] {
        let mut mixed = Mixed::of(&[Consumer], Bidirectional);
        assign_with_user_data(&mut mixed, assignor);
        mixed.step(0);
        assert_eq!(mixed.kind(), kind, "{assignor}");
    }
}

fn assign_with_user_data(mixed: &mut Mixed, assignor: &str) {
    mixed.bench = Bench::new();
    mixed.bench.settings = settings(Bidirectional);
    let metadata = subscribed(&BTreeSet::new());
    mixed.bench.join("a", |join| join.protocols = vec![Protocol { name: text(assignor), metadata }]);
    mixed.bench.pass(0);
    let assignment = [&write_assignment(1, &NamedPartitions::new())[..6], b"\x00\x00\x00\x01x"].concat();
    let sync = Sync {
        member: id("a"),
        instance: None,
        generation: Generation(1),
        protocol_type: None,
        protocol: None,
        assignments: vec![(id("a"), assignment.into())],
        ticket: 2,
    };
    mixed.bench.call(|shard, rules, now| shard.sync(&group("g"), sync, rules, now));
}

#[test]
fn who_asks_for_no_time_has_some_and_who_claims_what_it_had_begins_anew() {
    let mut mixed = Mixed::of(&[Consumer], Bidirectional);
    mixed.step(0);
    let hasty = joined(&mut mixed, |join| join.rebalance_timeout = Duration::ZERO).expect("room");
    mixed.pass(0);
    assert_eq!(synced(&mut mixed, &hasty), Ok(0), "it is there still");
    let claims = joined(&mut mixed, |join| {
        (join.instance, join.member) = (None, Some(id("gone")));
        join.protocols[0].metadata = subscribed(&[1].into());
    });
    assert_eq!(claims.map(|_| ()), Err(MemberError::UnknownMember));
}

#[test]
fn generations_go_on_where_a_join_comes_to_nothing() {
    let mut mixed = Mixed::of(&[Consumer], Bidirectional);
    mixed.step(0);
    mixed.leave(0);
    let before = mixed.bench.shard.describe_consumer(&group("g")).expect("a consumer group").epoch;
    let refused = joined(&mut mixed, |join| join.instance = None);
    assert!(matches!(refused, Err(MemberError::IdRequired(_))));
    mixed.reload();
    assert_eq!(mixed.kind(), GroupKind::Classic);
    mixed.step(0);
    assert!(mixed.clients[&0].epoch > before.0, "{} after {before:?}", mixed.clients[&0].epoch);
}

/// Whatever comes and goes, on however many nodes: no partition is read by two, and in the end each is read by one.
#[test]
fn any_order_of_both_ends_with_each_partition_read_by_one() {
    let speaks = [Eager, Cooperative, Consumer, Cooperative, Consumer, Eager];
    let mut kinds = BTreeSet::new();
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let clients: Vec<_> = (0..random.random_range(2..=6)).map(|nth| speaks[nth]).collect();
        let count = u32::try_from(clients.len()).expect("few");
        let mut mixed = Mixed::of(&clients, Bidirectional);
        for _ in 0..150 {
            let nth = random.random_range(0..count);
            match random.random_range(0..20) {
                0..15 => mixed.step(nth),
                15 => mixed.leave(nth),
                16 => {
                    // It is started again.
                    let client = mixed.clients.get_mut(&nth).expect("one of them");
                    if client.next != Next::Wait {
                        client.begin_anew();
                    }
                }
                17 => mixed.reload(),
                _ => mixed.pass(random.random_range(0..20)),
            }
            mixed.check();
            kinds.extend(mixed.bench.shard.list().first().map(|group| group.kind.name()));
        }
        mixed.settle(&(0..count).collect::<Vec<_>>());
        mixed.settle(&(0..count).collect::<Vec<_>>());
        let read = mixed.read();
        assert_eq!(read.iter().sum::<usize>(), 7, "seed {seed}: {read:?} {:#?}", mixed.clients);
    }
    assert_eq!(kinds.len(), 2, "groups went over");
}
