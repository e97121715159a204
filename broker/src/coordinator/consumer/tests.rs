//! A group, heartbeat by heartbeat: time is seconds, partitions are numbers of one topic.

use uuid::Uuid;

use super::*;

struct Known(BTreeMap<&'static str, (TopicId, i32)>);

impl Topics for Known {
    fn version(&self) -> u64 {
        // As good as a number that is counted.
        u64::from_be_bytes(hash_of(&self.0.values().copied().collect()).to_be_bytes())
    }

    fn of_name(&self, name: &str) -> Option<(TopicId, i32)> {
        self.0.get(name).copied()
    }

    fn name_of(&self, topic: TopicId) -> Option<Arc<str>> {
        self.0.iter().find(|(_, (id, _))| *id == topic).map(|(name, _)| Arc::from(*name))
    }

    fn matching(&self, pattern: &regex::Regex) -> Vec<(TopicId, i32)> {
        self.0.iter().filter(|(name, _)| pattern.is_match(name)).map(|(_, topic)| *topic).collect()
    }
}

const TOPIC: TopicId = TopicId(Uuid::from_u128(1));
const OTHER: TopicId = TopicId(Uuid::from_u128(2));

struct Bench {
    group: ConsumerGroup,
    topics: Known,
    settings: Settings,
    seconds: u64,
    changed: BTreeSet<Changed>,
    /// What each client has, as it was told.
    clients: BTreeMap<&'static str, (Epoch, Assignment)>,
}

fn id(name: &str) -> MemberId {
    MemberId(Arc::from(name))
}

fn instance(name: &str) -> InstanceId {
    InstanceId(Arc::from(name))
}

fn at(seconds: u64) -> Moment {
    Moment(seconds * 1_000_000_000)
}

impl Bench {
    fn new(partitions: i32) -> Self {
        Bench {
            group: ConsumerGroup::default(),
            topics: Known([("t", (TOPIC, partitions))].into()),
            settings: Settings {
                session_timeout: Duration::from_secs(45),
                heartbeat_interval: Duration::from_secs(5),
                members_max: 5,
                assignor: Assignor::Uniform,
            },
            seconds: 0,
            changed: BTreeSet::new(),
            clients: BTreeMap::new(),
        }
    }

    fn say(
        &mut self,
        name: &str,
        epoch: Joining,
        but: impl FnOnce(&mut Heartbeat),
    ) -> Result<Beat, ConsumerError> {
        let mut beat = Heartbeat {
            member: id(name),
            epoch,
            instance: None,
            rack: None,
            client: MemberClient::default(),
            rebalance_timeout: None,
            subscription: None,
            pattern: None,
            assignor: None,
            owned: None,
        };
        if epoch == Joining::Join {
            beat.rebalance_timeout = Some(Duration::from_secs(20));
            beat.subscription = Some([Arc::from("t")].into());
            beat.owned = Some(Assignment::new());
        }
        but(&mut beat);
        let mut outcome = Outcome::default();
        let said = self.group.heartbeat(beat, &self.topics, &self.settings, at(self.seconds), &mut outcome);
        self.changed.append(&mut outcome.changed);
        said
    }

    /// A client that does as it is told: joins, gives up, reads.
    fn beat(&mut self, name: &'static str) {
        let (epoch, has) = self.clients.get(name).cloned().unwrap_or_default();
        let said = match self.clients.contains_key(name) {
            true => self.say(name, Joining::Member(epoch), |beat| beat.owned = Some(has.clone())),
            false => self.say(name, Joining::Join, |_| {}),
        };
        match said {
            Ok(beat) => {
                self.clients.insert(name, (beat.epoch, beat.assignment.unwrap_or(has)));
            }
            Err(_) => {
                self.clients.remove(name);
            }
        }
        self.check_clients();
    }

    /// No partition is read by two.
    fn check_clients(&self) {
        let mut readers = BTreeMap::new();
        for (name, (_, has)) in &self.clients {
            for (topic, partitions) in has {
                for partition in partitions {
                    let other = readers.insert((*topic, *partition), name);
                    assert_eq!(other, None, "{topic}-{partition} is read by {name} too");
                }
            }
        }
    }

    fn all_beat(&mut self, names: &[&'static str]) {
        names.iter().for_each(|name| self.beat(name));
    }

    fn has(&self, name: &str) -> Vec<i32> {
        self.clients.get(name).and_then(|(_, has)| has.get(&TOPIC)).into_iter().flatten().copied().collect()
    }

    fn pass(&mut self, seconds: u64) {
        self.seconds += seconds;
        let mut outcome = Outcome::default();
        self.group.handle_time(at(self.seconds), &mut outcome);
        self.changed.append(&mut outcome.changed);
    }
}

#[test]
fn the_first_member_gets_all_at_once() {
    let mut bench = Bench::new(4);
    let beat = bench.say("a", Joining::Join, |_| {}).expect("room");
    assert_eq!(beat.epoch, Epoch(1));
    assert_eq!(beat.assignment, Some([(TOPIC, (0..4).collect())].into()));
    assert_eq!(bench.group.state_name(), "Stable");
    let all = [
        Changed::Group,
        Changed::Member(id("a")),
        Changed::TargetEpoch,
        Changed::Target(id("a")),
        Changed::Held(id("a")),
    ];
    assert_eq!(bench.changed, all.into());
    bench.changed.clear();
    let beat = bench.say("a", Joining::Member(Epoch(1)), |_| {}).expect("a member");
    assert_eq!(
        (beat.assignment, bench.changed.len()),
        (None, 0),
        "what is as it was is neither told nor kept again"
    );
}

#[test]
fn partitions_move_one_member_at_a_time_and_are_never_read_by_two() {
    let mut bench = Bench::new(6);
    bench.beat("a");
    bench.beat("b");
    assert_eq!((bench.has("a").len(), bench.has("b").len()), (6, 0), "nothing is free yet");
    assert_eq!(bench.group.state_name(), "Reconciling");
    bench.beat("a");
    assert_eq!(bench.has("a").len(), 3, "it is told what to keep");
    bench.beat("b");
    assert_eq!(bench.has("b").len(), 0, "what another is still to give up is not free");
    bench.beat("a");
    bench.beat("b");
    assert_eq!((bench.has("a").len(), bench.has("b").len()), (3, 3));
    assert_eq!(bench.group.state_name(), "Stable");
}

#[test]
fn who_leaves_is_replaced_at_once() {
    let mut bench = Bench::new(6);
    for _ in 0..3 {
        bench.all_beat(&["a", "b"]);
    }
    let mut outcome = Outcome::default();
    bench.group.leave(&id("a"), None, false, &mut outcome).expect("a member");
    bench.clients.remove("a");
    bench.beat("b");
    assert_eq!(bench.has("b").len(), 6);
}

#[test]
fn a_silent_member_is_out() {
    let mut bench = Bench::new(6);
    for _ in 0..3 {
        bench.all_beat(&["a", "b"]);
    }
    bench.pass(40);
    bench.beat("b");
    bench.pass(5);
    assert_eq!(bench.say("a", Joining::Member(Epoch(2)), |_| {}), Err(ConsumerError::UnknownMember));
    bench.clients.remove("a");
    bench.beat("b");
    assert_eq!(bench.has("b").len(), 6);
}

#[test]
fn who_does_not_give_up_in_time_is_out() {
    let mut bench = Bench::new(6);
    bench.all_beat(&["a", "b"]);
    for _ in 0..4 {
        // It is heard of, and does not say what it has.
        bench.say("a", Joining::Member(Epoch(1)), |_| {}).expect("a member");
        bench.beat("b");
        bench.pass(5);
    }
    assert_eq!(bench.say("a", Joining::Member(Epoch(1)), |_| {}), Err(ConsumerError::UnknownMember));
    bench.clients.remove("a");
    bench.beat("b");
    assert_eq!(bench.has("b").len(), 6);
}

#[test]
fn an_answer_that_was_lost_is_given_again_to_who_has_no_more_than_it_should() {
    let mut bench = Bench::new(6);
    for _ in 0..3 {
        bench.all_beat(&["a", "b"]);
    }
    bench.beat("c");
    let (before, has) = bench.clients["b"].clone();
    bench.beat("b");
    bench.beat("b");
    let (now, _) = bench.clients["b"].clone();
    assert!(now > before);
    let kept: Assignment = [(TOPIC, has[&TOPIC].iter().copied().take(1).collect())].into();
    let again = bench.say("b", Joining::Member(before), |beat| beat.owned = Some(kept));
    assert_eq!(again.expect("the same member").epoch, now);
    let with_more =
        bench.say("b", Joining::Member(before), |beat| beat.owned = Some([(TOPIC, (0..6).collect())].into()));
    assert_eq!(with_more, Err(ConsumerError::FencedEpoch));
    for epoch in [Epoch(now.0 + 1), Epoch(0)] {
        assert_eq!(bench.say("b", Joining::Member(epoch), |_| {}), Err(ConsumerError::FencedEpoch));
    }
}

#[test]
fn who_was_fenced_begins_anew_with_nothing() {
    let mut bench = Bench::new(6);
    for _ in 0..3 {
        bench.all_beat(&["a", "b"]);
    }
    bench.clients.remove("a");
    bench.beat("a");
    assert_eq!(bench.has("a").len(), 3);
}

#[test]
fn topics_that_come_grow_and_go_are_followed() {
    let mut bench = Bench::new(2);
    bench.beat("a");
    bench.topics.0.insert("t", (TOPIC, 3));
    bench.beat("a");
    assert_eq!(bench.has("a").len(), 3);
    bench.topics.0.clear();
    bench.beat("a");
    bench.beat("a");
    assert_eq!(bench.has("a").len(), 0);
    bench.topics.0.insert("t", (OTHER, 1));
    bench.beat("a");
    assert_eq!(bench.clients["a"].1, [(OTHER, [0].into())].into(), "another topic of the same name");
}

#[test]
fn names_may_be_given_by_an_expression() {
    let mut bench = Bench::new(2);
    bench.topics.0.insert("u", (OTHER, 1));
    let beat = bench.say("a", Joining::Join, |beat| {
        beat.subscription = Some(BTreeSet::new());
        beat.pattern = Some(Arc::from("^[tu]$"));
    });
    assert_eq!(beat.expect("room").assignment.map(|assignment| assignment.len()), Some(2));
    let beat = bench.say("a", Joining::Member(Epoch(1)), |beat| beat.pattern = Some(Arc::from("")));
    assert_eq!(beat.expect("a member").assignment, Some(Assignment::new()));
}

#[test]
fn a_static_member_that_comes_back_gets_what_it_had() {
    let mut bench = Bench::new(6);
    bench.say("a-1", Joining::Join, |beat| beat.instance = Some(instance("a"))).expect("room");
    let taken = bench.say("a-2", Joining::Join, |beat| beat.instance = Some(instance("a")));
    assert_eq!(taken, Err(ConsumerError::UnreleasedInstance));
    let mut outcome = Outcome::default();
    bench.group.leave(&id("a-1"), Some(&instance("a")), true, &mut outcome).expect("a member");
    let back = bench.say("a-2", Joining::Join, |beat| beat.instance = Some(instance("a"))).expect("released");
    assert_eq!(back.assignment, Some([(TOPIC, (0..6).collect())].into()));
    let fenced = bench.say("a-1", Joining::Member(Epoch(1)), |beat| beat.instance = Some(instance("a")));
    assert_eq!(fenced, Err(ConsumerError::FencedInstance));
    assert_eq!(bench.group.members().count(), 1);
}

#[test]
fn a_group_goes_on_as_it_was_kept() {
    let mut bench = Bench::new(6);
    for _ in 0..3 {
        bench.all_beat(&["a", "b"]);
    }
    bench.beat("c");
    bench.beat("a");
    let mut stored = StoredConsumerGroup::default();
    for changed in &bench.changed {
        bench.group.record(changed).load(&mut stored);
    }
    let epoch = bench.group.epoch();
    bench.group = ConsumerGroup::restored(stored, &bench.settings, at(bench.seconds));
    for _ in 0..3 {
        bench.all_beat(&["a", "b", "c"]);
    }
    assert_eq!(bench.group.epoch(), epoch, "nothing is to be assigned anew");
    assert_eq!((bench.has("a").len(), bench.has("b").len(), bench.has("c").len()), (2, 2, 2));
    bench.pass(45);
    assert!(bench.group.is_empty(), "nobody is a member for ever");
}

#[test]
fn commits_are_of_the_members_own_epoch() {
    let mut bench = Bench::new(6);
    bench.beat("a");
    let check = |bench: &Bench, name, epoch| bench.group.check_commit(&id(name), None, Epoch(epoch));
    assert_eq!(check(&bench, "a", 1), Ok(()));
    assert_eq!(check(&bench, "a", 0), Err(ConsumerError::StaleEpoch));
    assert_eq!(check(&bench, "b", 1), Err(ConsumerError::UnknownMember));
}

#[test]
fn a_full_group_takes_nobody_more() {
    let mut bench = Bench::new(6);
    bench.all_beat(&["a", "b", "c", "d", "e"]);
    assert_eq!(bench.say("f", Joining::Join, |_| {}), Err(ConsumerError::Full));
    bench.beat("a");
    assert!(bench.clients.contains_key("a"));
}

/// Whatever comes and goes: no partition is read by two, and in the end each is read by one.
#[test]
fn any_order_of_members_ends_with_each_partition_read_by_one() {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bench = Bench::new(7);
        for _ in 0..100 {
            let name = NAMES[random.random_range(0..NAMES.len())];
            match random.random_range(0..10) {
                0..7 => bench.beat(name),
                7 => {
                    let mut outcome = Outcome::default();
                    let _ = bench.group.leave(&id(name), None, false, &mut outcome);
                    bench.clients.remove(name);
                }
                8 => {
                    // It loses its state, and begins anew.
                    bench.clients.remove(name);
                    bench.beat(name);
                }
                _ => {
                    bench.pass(random.random_range(0..30));
                    let known: BTreeSet<_> = bench.group.members().map(|(id, _)| id.0.to_string()).collect();
                    bench.clients.retain(|name, _| known.contains(*name));
                }
            }
        }
        for _ in 0..10 {
            bench.all_beat(&NAMES);
        }
        let read: usize = NAMES.iter().map(|name| bench.has(name).len()).sum();
        assert_eq!((read, bench.group.state_name()), (7, "Stable"), "seed {seed}");
    }
}
