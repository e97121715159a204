//! The groups of a partition, and what their driver is given to keep of them.

use std::time::Duration;

use bytes::Bytes;

use super::super::classic::{Client, Protocol, Settings};
use super::super::consumer::MemberClient;
use super::super::settings::GroupSettings;
use super::*;
use crate::config::{Config, MigrationPolicy};
use crate::ids::{LeaderEpoch, Offset, TopicId};

mod looking;
mod migration;

struct Bench {
    shard: Shard<u32>,
    settings: GroupSettings,
    seconds: u64,
    /// All that was to be kept.
    log: Vec<CoordinatorRecord>,
    answered: Vec<u32>,
}

fn text(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

fn id(name: &str) -> MemberId {
    MemberId(text(name))
}

fn at(seconds: u64) -> Now {
    Now { moment: Moment(seconds * 1_000_000_000), wall_ms: i64::try_from(seconds * 1_000).expect("small") }
}

fn subscription(topic: &str) -> Bytes {
    let length = u8::try_from(topic.len()).expect("short");
    [&[0, 1, 0, 0, 0, 1, 0, length][..], topic.as_bytes()].concat().into()
}

fn settings(migration: MigrationPolicy) -> GroupSettings {
    let classic = Settings {
        session_timeout: Duration::from_secs(6)..=Duration::from_secs(1_800),
        initial_rebalance_delay: Duration::ZERO,
        members_max: 100,
    };
    GroupSettings { classic, migration, ..GroupSettings::of(&Config::default()) }
}

const ADMIN: Committer = Committer { member: None, instance: None, generation: Generation::NONE };

impl Bench {
    fn new() -> Self {
        Bench {
            shard: Shard::default(),
            settings: settings(MigrationPolicy::Disabled),
            seconds: 0,
            log: Vec::new(),
            answered: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        at(self.seconds)
    }

    fn call<R>(&mut self, call: impl FnOnce(&mut Shard<u32>, &Rules<'_>, Now) -> R) -> R {
        self.call_with(call).0
    }

    fn call_with<R>(
        &mut self,
        call: impl FnOnce(&mut Shard<u32>, &Rules<'_>, Now) -> R,
    ) -> (R, Effects<u32>) {
        let now = self.now();
        let image = MetadataImage::default();
        let rules = Rules { topics: &Read, settings: &self.settings, image: &image };
        let answer = call(&mut self.shard, &rules, now);
        (answer, self.take())
    }

    fn take(&mut self) -> Effects<u32> {
        let mut effects = self.shard.take_effects();
        self.log.append(&mut effects.records);
        self.answered.extend(effects.joins.iter().map(|(ticket, _)| *ticket));
        self.answered.extend(effects.syncs.iter().map(|(ticket, _)| *ticket));
        effects
    }

    fn pass(&mut self, seconds: u64) {
        let until = self.seconds + seconds;
        while let Some(due) = self.shard.next_deadline().filter(|due| *due <= at(until).moment) {
            self.seconds = self.seconds.max(due.0 / 1_000_000_000);
            self.call(|shard, rules, now| shard.handle_time(rules, now));
        }
        self.seconds = until;
    }

    fn join(&mut self, name: &str, but: impl FnOnce(&mut Join<u32>)) {
        let mut join = Join {
            member: None,
            instance: None,
            client: Client { id: text("client"), host: text("/127.0.0.1") },
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(60),
            protocol_type: text("consumer"),
            protocols: vec![Protocol { name: text("range"), metadata: subscription("read") }],
            takes_id_first: false,
            can_skip_assignment: true,
            ticket: 1,
        };
        but(&mut join);
        self.call(|shard, rules, now| shard.join(&group("g"), join, id(name), rules, now));
    }

    /// The group "g" has one member, "a", in generation 1.
    fn with_member() -> Self {
        let mut bench = Bench::new();
        bench.join("a", |_| {});
        bench.pass(0);
        let sync = Sync {
            member: id("a"),
            instance: None,
            generation: Generation(1),
            protocol_type: None,
            protocol: None,
            assignments: vec![(id("a"), Bytes::from_static(b"all"))],
            ticket: 2,
        };
        bench.call(|shard, rules, now| shard.sync(&group("g"), sync, rules, now));
        assert_eq!(bench.answered, [1, 2]);
        bench
    }

    fn commit(&mut self, name: &str, by: &Committer, topic: &str, offset: i64) -> Result<(), GroupError> {
        let committed = Committed {
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(0),
            metadata: text(""),
            committed_ms: self.now().wall_ms,
            expires_ms: None,
        };
        let committing = self.shard.commit(&group(name), by, vec![(text(topic), 0, committed)], self.now());
        self.take();
        committing
    }

    fn offset(&self, name: &str, topic: &str) -> Option<i64> {
        let committed = self.shard.committed(&group(name), Some(vec![(text(topic), 0)]));
        committed[0].2.as_ref().map(|committed| committed.offset.0)
    }

    fn heartbeat(&mut self) -> Result<(), MemberError> {
        self.call(|shard, rules, now| shard.heartbeat(&group("g"), &id("a"), None, Generation(1), rules, now))
    }

    /// Another node takes over, from what was kept.
    fn reload(&mut self) {
        self.shard = Shard::default();
        for record in &self.log {
            self.shard.load(record.clone(), at(self.seconds));
        }
        self.call(|shard, rules, now| shard.begin(rules, now));
    }

    fn groups(&self) -> Vec<&str> {
        self.shard.groups.keys().map(|id| &*id.0).collect()
    }
}

#[test]
fn what_was_kept_is_what_goes_on_elsewhere() {
    let mut bench = Bench::with_member();
    let member = Committer { member: Some(id("a")), instance: None, generation: Generation(1) };
    bench.commit("g", &member, "read", 7).expect("a member");
    bench.commit("alone", &ADMIN, "t", 3).expect("nobody's group");
    bench.commit("g", &member, "read", 8).expect("a member");
    bench.reload();
    assert_eq!(bench.groups(), ["alone", "g"]);
    assert_eq!((bench.offset("g", "read"), bench.offset("alone", "t")), (Some(8), Some(3)));
    assert_eq!(bench.heartbeat(), Ok(()), "nobody has to join again");
    bench.pass(10);
    assert_eq!(bench.heartbeat(), Err(MemberError::UnknownMember), "and nobody is a member for ever");
}

#[test]
fn a_heartbeat_moves_the_end_of_a_session() {
    let mut bench = Bench::with_member();
    for _ in 0..10 {
        bench.pass(9);
        assert_eq!(bench.heartbeat(), Ok(()));
    }
    bench.pass(10);
    assert_eq!(bench.heartbeat(), Err(MemberError::UnknownMember));
}

#[test]
fn who_only_asks_leaves_nothing_behind() {
    let mut bench = Bench::new();
    bench.join("a", |join| join.member = Some(id("x")));
    bench.join("a", |join| join.protocols.clear());
    bench.join("a", |join| join.takes_id_first = true);
    bench.commit("h", &Committer { generation: Generation(1), ..ADMIN }, "t", 1).expect_err("no member");
    bench.shard.leave(&group("h"), &[(Some(id("x")), None)], at(0));
    assert_eq!(bench.groups(), ["g"], "one was told an id");
    bench.pass(10);
    assert!(bench.groups().is_empty() && bench.log.is_empty());
}

#[test]
fn progress_is_told_in_the_order_of_groups_and_counts_what_it_leaves_out() {
    let mut bench = Bench::new();
    for (name, topic, offset) in [("b", "x", 4), ("a", "y", 3), ("a", "x", 2)] {
        bench.commit(name, &ADMIN, topic, offset).unwrap();
    }
    let told = |most: usize| {
        let progress = bench.shard.progress(most);
        let committed = progress.committed.iter();
        let told =
            committed.map(|one| format!("{} {}-{} {}", one.group.0, one.topic, one.partition, one.offset.0));
        (told.collect::<Vec<_>>().join(", "), progress.left_out)
    };
    assert_eq!(told(9), ("a x-0 2, a y-0 3, b x-0 4".into(), 0));
    assert_eq!(told(2), ("a x-0 2, a y-0 3".into(), 1));
}

#[test]
fn a_refused_commit_changes_nothing() {
    let mut bench = Bench::with_member();
    let stale = Committer { member: Some(id("a")), instance: None, generation: Generation(0) };
    assert!(bench.commit("g", &stale, "read", 7).is_err());
    assert!(bench.commit("g", &ADMIN, "read", 7).is_err(), "an administrator waits until nobody is a member");
    assert_eq!(bench.offset("g", "read"), None);
    assert_eq!(bench.log.len(), 1, "the group alone is kept");
}

#[test]
fn a_deleted_group_is_gone_for_whoever_reads_the_records() {
    let mut bench = Bench::with_member();
    assert_eq!(bench.shard.delete(&group("g")), Err(DeleteError::NotEmpty));
    assert_eq!(bench.shard.delete(&group("x")), Err(DeleteError::NotFound));
    let member = Committer { member: Some(id("a")), instance: None, generation: Generation(1) };
    bench.commit("g", &member, "read", 7).expect("a member");
    bench.pass(10);
    bench.shard.delete(&group("g")).expect("empty");
    bench.take();
    bench.reload();
    assert!(bench.groups().is_empty());
}

#[test]
fn offsets_of_a_deleted_topic_go_with_it() {
    let mut bench = Bench::new();
    for topic in ["t", "u"] {
        bench.commit("g", &ADMIN, topic, 1).expect("nobody's group");
    }
    // Somebody was quick to make another one, and is further in that already.
    bench.shard.handle_topic_deleted(&text("t"), -1);
    assert!(bench.offset("g", "t").is_some());
    bench.shard.handle_topic_deleted(&text("t"), bench.now().wall_ms);
    bench.take();
    bench.reload();
    assert_eq!((bench.offset("g", "t"), bench.offset("g", "u")), (None, Some(1)));
}

#[test]
fn a_group_is_forgotten_when_nobody_came_back_for_long() {
    let mut bench = Bench::with_member();
    let member = Committer { member: Some(id("a")), instance: None, generation: Generation(1) };
    for topic in ["read", "not read any more"] {
        bench.commit("g", &member, topic, 7).expect("a member");
    }
    bench.heartbeat().expect("alive");
    let week = 7 * 24 * 3_600;
    // Nothing is due before: the member is there all the time.
    bench.seconds += week;
    bench.shard.forget(week as i64 * 1_000, bench.now());
    bench.take();
    assert_eq!((bench.offset("g", "read"), bench.offset("g", "not read any more")), (Some(7), None));
    bench.pass(0);
    let empty = bench.seconds;
    for (seconds, groups) in [(week - 1, &["g"][..]), (week, &[])] {
        bench.seconds = empty + seconds;
        bench.shard.forget(week as i64 * 1_000, bench.now());
        bench.take();
        assert_eq!(bench.groups(), groups);
    }
    bench.reload();
    assert!(bench.groups().is_empty());
}

/// One topic, "read", of seven partitions.
struct Read;

impl Topics for Read {
    fn version(&self) -> u64 {
        1
    }

    fn of_name(&self, name: &str) -> Option<(TopicId, i32)> {
        (name == "read").then_some((TopicId(uuid::Uuid::from_u128(1)), 7))
    }

    fn name_of(&self, topic: TopicId) -> Option<Arc<str>> {
        self.of_name("read").filter(|(id, _)| *id == topic).map(|_| text("read"))
    }

    fn matching(&self, _: &regex::Regex) -> Vec<(TopicId, i32)> {
        Vec::new()
    }
}

impl Bench {
    fn beat(&mut self, name: &str, epoch: Joining) -> Result<Beat, ConsumerError> {
        let beat = Heartbeat {
            member: id(name),
            epoch,
            instance: None,
            rack: None,
            client: MemberClient::default(),
            rebalance_timeout: Some(Duration::from_secs(20)),
            subscription: Some([text("read")].into()),
            pattern: None,
            assignor: None,
            owned: Some(Default::default()),
        };
        self.call(|shard, rules, now| shard.consumer_heartbeat(&group("g"), beat, rules, now))
    }
}

#[test]
fn a_consumer_group_goes_on_elsewhere_and_is_forgotten_when_it_is_deleted() {
    let mut bench = Bench::new();
    let beat = bench.beat("a", Joining::Join).expect("room");
    let member = Committer { member: Some(id("a")), instance: None, generation: Generation(beat.epoch.0) };
    bench.commit("g", &member, "read", 7).expect("a member");
    let stale = Committer { generation: Generation(0), ..member.clone() };
    assert_eq!(bench.commit("g", &stale, "read", 8), Err(ConsumerError::StaleEpoch.into()));
    bench.reload();
    assert_eq!(bench.offset("g", "read"), Some(7));
    let kept = bench.log.len();
    let beat = bench.beat("a", Joining::Member(beat.epoch)).expect("a member still");
    assert_eq!(beat.assignment.map(|assignment| assignment.len()), Some(1));
    assert_eq!(bench.log.len(), kept, "nothing is new");
    assert_eq!(bench.shard.delete(&group("g")), Err(DeleteError::NotEmpty));
    bench.pass(45);
    assert_eq!(bench.beat("a", Joining::Member(beat.epoch)), Err(ConsumerError::UnknownMember));
    bench.shard.delete(&group("g")).expect("empty");
    bench.take();
    bench.reload();
    assert!(bench.groups().is_empty());
    // As a cleaned log has it, from which tombstones have gone: nothing is left that makes a group again.
    let last: BTreeMap<_, _> = bench.log.iter().map(CoordinatorRecord::encode).collect();
    assert!(last.values().all(Option::is_none), "{last:?}");
}

#[test]
fn a_group_becomes_one_of_another_kind_when_nobody_is_in_it() {
    let mut bench = Bench::with_member();
    assert_eq!(bench.beat("b", Joining::Join), Err(ConsumerError::OtherKind));
    bench.pass(10);
    bench.commit("g", &ADMIN, "read", 7).expect("nobody is in it");
    bench.beat("b", Joining::Join).expect("room");
    bench.reload();
    assert_eq!(bench.offset("g", "read"), Some(7), "how far it is stays");
    bench.pass(45);
    bench.join("a", |_| {});
    bench.pass(0);
    bench.reload();
    assert_eq!(bench.groups(), ["g"]);
}
