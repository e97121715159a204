//! A group, call by call: tickets are numbers, time is seconds.

use super::*;

/// A group and all that was answered so far.
struct Bench {
    group: ClassicGroup<u32>,
    settings: Settings,
    seconds: u64,
    tickets: u32,
    joins: BTreeMap<u32, Result<Joined, MemberError>>,
    syncs: BTreeMap<u32, Result<Synced, MemberError>>,
    changes: usize,
}

mod sizes;
mod static_members;

fn text(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn id(name: &str) -> MemberId {
    MemberId(text(name))
}

fn instance(name: &str) -> InstanceId {
    InstanceId(text(name))
}

fn protocols(names: &[&str]) -> Vec<Protocol> {
    names
        .iter()
        .map(|name| Protocol { name: text(name), metadata: Bytes::from(format!("by {name}")) })
        .collect()
}

impl Bench {
    fn new() -> Self {
        let seconds = 0;
        Bench {
            group: ClassicGroup::new(at(seconds)),
            settings: Settings {
                session_timeout: Duration::from_secs(6)..=Duration::from_secs(1_800),
                initial_rebalance_delay: Duration::from_secs(3),
                members_max: 4,
            },
            seconds,
            tickets: 0,
            joins: BTreeMap::new(),
            syncs: BTreeMap::new(),
            changes: 0,
        }
    }

    /// With these members in it, each of which knows "range"; the first assigns.
    fn stable(names: &[&str]) -> Self {
        let mut bench = Bench::new();
        for name in names {
            bench.join(name, |_| {});
        }
        bench.pass(10);
        bench.sync_all();
        assert_eq!(bench.group.state_name(), "Stable");
        bench
    }

    fn ticket(&mut self) -> u32 {
        self.tickets += 1;
        self.tickets
    }

    fn note(&mut self, outcome: Outcome<u32>) {
        for (ticket, answer) in outcome.joins {
            assert!(self.joins.insert(ticket, answer).is_none(), "ticket {ticket} is answered twice");
        }
        for (ticket, answer) in outcome.syncs {
            assert!(self.syncs.insert(ticket, answer).is_none(), "ticket {ticket} is answered twice");
        }
        self.changes += usize::from(outcome.changed);
    }

    /// A dynamic member without an id joins, and is called `name`, unless `but` has it otherwise.
    fn join(&mut self, name: &str, but: impl FnOnce(&mut Join<u32>)) -> u32 {
        let ticket = self.ticket();
        let mut join = Join {
            member: None,
            instance: None,
            client: Client { id: text("client"), host: text("/127.0.0.1") },
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(60),
            protocol_type: text("consumer"),
            protocols: protocols(&["range"]),
            takes_id_first: false,
            can_skip_assignment: true,
            ticket,
        };
        but(&mut join);
        let mut outcome = Outcome::default();
        self.group.join(join, id(name), &self.settings, at(self.seconds), &mut outcome);
        self.note(outcome);
        ticket
    }

    fn rejoin(&mut self, name: &str) -> u32 {
        self.join("nobody", |join| join.member = Some(id(name)))
    }

    fn sync_in(&mut self, generation: Generation, name: &str) -> u32 {
        let ticket = self.ticket();
        let assigned = |(id, _): (&MemberId, _)| (id.clone(), Bytes::from(format!("for {}", id.0)));
        let leads = self.group.members.leads(&id(name));
        let assignments = if leads { self.group.members.iter().map(assigned).collect() } else { Vec::new() };
        let sync = Sync {
            member: id(name),
            instance: None,
            generation,
            protocol_type: Some(text("consumer")),
            protocol: Some(text("range")),
            assignments,
            ticket,
        };
        let mut outcome = Outcome::default();
        self.group.sync(sync, at(self.seconds), &mut outcome);
        self.note(outcome);
        ticket
    }

    fn sync(&mut self, name: &str) -> u32 {
        self.sync_in(self.group.generation, name)
    }

    fn sync_all(&mut self) {
        let names: Vec<_> = self.group.members.iter().map(|(id, _)| id.0.clone()).collect();
        for name in names {
            self.sync(&name);
        }
    }

    fn heartbeat(&mut self, name: &str) -> Result<(), MemberError> {
        let generation = self.group.generation;
        self.group.heartbeat(&id(name), None, generation, at(self.seconds))
    }

    fn leave(&mut self, leaving: &[(Option<MemberId>, Option<InstanceId>)]) -> Vec<Result<(), MemberError>> {
        let mut outcome = Outcome::default();
        let left = self.group.leave(leaving, at(self.seconds), &mut outcome);
        self.note(outcome);
        left
    }

    /// Each deadline on the way is kept when it is due.
    fn pass(&mut self, seconds: u64) {
        let until = self.seconds + seconds;
        while let Some(due) = self.group.next_deadline().filter(|due| *due <= at(until).moment) {
            self.seconds = self.seconds.max(due.0 / 1_000_000_000);
            let mut outcome = Outcome::default();
            self.group.handle_time(at(self.seconds), &mut outcome);
            self.note(outcome);
            assert_ne!(self.group.next_deadline(), Some(due), "nothing was done of what is due");
        }
        self.seconds = until;
    }

    fn joined(&self, ticket: u32) -> &Joined {
        self.joins.get(&ticket).expect("an answer").as_ref().expect("a member")
    }

    fn refused(&self, ticket: u32) -> &MemberError {
        let answer = self.joins.get(&ticket).map(|answer| answer.as_ref().map(|_| ()));
        answer
            .or_else(|| self.syncs.get(&ticket).map(|answer| answer.as_ref().map(|_| ())))
            .expect("an answer")
            .expect_err("refused")
    }

    fn assigned(&self, ticket: u32) -> &[u8] {
        &self.syncs.get(&ticket).expect("an answer").as_ref().expect("an assignment").assignment
    }
}

fn at(seconds: u64) -> Now {
    Now { moment: Moment(seconds * 1_000_000_000), wall_ms: i64::try_from(seconds * 1_000).expect("small") }
}

#[test]
fn members_that_come_within_the_initial_delay_begin_one_generation() {
    let mut bench = Bench::new();
    let a = bench.join("a", |_| {});
    bench.pass(2);
    let b = bench.join("b", |_| {});
    bench.pass(3);
    assert!(bench.joins.is_empty(), "the second's coming makes both wait for more");
    bench.pass(1);
    assert_eq!(bench.joined(a).generation, Generation(1));
    assert_eq!(bench.joined(b).generation, Generation(1));
    assert_eq!(bench.joined(a).leader, Some(id("a")));
    assert_eq!(bench.joined(b).leader, Some(id("a")));
    let told: Vec<_> = bench.joined(a).members.iter().map(|(id, _, says)| (&*id.0, &says[..])).collect();
    assert_eq!(told, [("a", &b"by range"[..]), ("b", b"by range")]);
    assert!(bench.joined(b).members.is_empty(), "only who assigns needs the others");
    assert_eq!(bench.changes, 0, "nothing is kept before there is an assignment");
}

#[test]
fn the_initial_delay_ends_with_the_rebalance_timeout() {
    let mut bench = Bench::new();
    let first = bench.join("m0", |join| join.rebalance_timeout = Duration::from_secs(8));
    for second in 1..4 {
        bench.pass(2);
        bench.join(&format!("m{second}"), |join| join.rebalance_timeout = Duration::from_secs(8));
        assert!(!bench.joins.contains_key(&first));
    }
    bench.pass(2);
    assert_eq!(bench.joined(first).members.len(), 4);
}

#[test]
fn each_is_told_its_own_assignment_when_the_leader_has_come() {
    let mut bench = Bench::new();
    bench.join("a", |_| {});
    bench.join("b", |_| {});
    bench.pass(6);
    let b = bench.sync("b");
    assert!(bench.syncs.is_empty());
    let a = bench.sync("a");
    assert_eq!((bench.assigned(a), bench.assigned(b)), (&b"for a"[..], &b"for b"[..]));
    assert_eq!(bench.group.state_name(), "Stable");
    assert_eq!(bench.changes, 1);
    let again = bench.sync("b");
    assert_eq!(bench.assigned(again), b"for b", "an answer that was lost is given again");
}

#[test]
fn a_client_without_an_id_is_told_one_and_blocks_nobody_for_long() {
    let mut bench = Bench::stable(&["a"]);
    let told = bench.join("b", |join| join.takes_id_first = true);
    assert_eq!(bench.refused(told), &MemberError::IdRequired(id("b")));
    assert_eq!(bench.group.state_name(), "Stable", "who has only asked for an id disturbs nobody");
    let a = bench.rejoin("a");
    assert!(!bench.joins.contains_key(&a), "who was told an id is waited for");
    bench.pass(10);
    assert_eq!(bench.joined(a).members.len(), 1, "until its session is over");
}

#[test]
fn a_client_joins_with_the_id_it_was_told() {
    let mut bench = Bench::new();
    bench.join("b", |join| join.takes_id_first = true);
    let b = bench.join("other", |join| join.member = Some(id("b")));
    bench.pass(3);
    assert_eq!(bench.joined(b).member, id("b"));
}

#[test]
fn another_member_has_all_join_again() {
    let mut bench = Bench::stable(&["a", "b"]);
    let c = bench.join("c", |_| {});
    assert_eq!(bench.heartbeat("a"), Err(MemberError::RebalanceInProgress));
    let a = bench.rejoin("a");
    assert!(!bench.joins.contains_key(&c));
    let b = bench.rejoin("b");
    for ticket in [a, b, c] {
        assert_eq!(bench.joined(ticket).generation, Generation(2));
    }
    assert_eq!(bench.joined(a).members.len(), 3);
    assert_eq!(bench.heartbeat("a"), Ok(()));
}

#[test]
fn who_does_not_come_back_within_the_rebalance_timeout_is_out() {
    let mut bench = Bench::stable(&["a", "b"]);
    let c = bench.join("c", |_| {});
    let b = bench.rejoin("b");
    for _ in 0..10 {
        assert_eq!(bench.heartbeat("a"), Err(MemberError::RebalanceInProgress));
        assert!(!bench.joins.contains_key(&b));
        bench.pass(6);
    }
    assert_eq!(bench.joined(b).leader, Some(id("b")), "who assigned is among the missing");
    assert_eq!(bench.joined(c).leader, Some(id("b")));
    assert_eq!(bench.heartbeat("a"), Err(MemberError::UnknownMember));
}

#[test]
fn a_silent_member_is_out_and_the_others_rebalance() {
    let mut bench = Bench::stable(&["a", "b"]);
    bench.pass(9);
    bench.heartbeat("b").expect("alive");
    bench.pass(1);
    assert_eq!(bench.heartbeat("a"), Err(MemberError::UnknownMember));
    assert_eq!(bench.heartbeat("b"), Err(MemberError::RebalanceInProgress));
    let b = bench.rejoin("b");
    assert_eq!(bench.joined(b).leader, Some(id("b")));
    assert_eq!(bench.joined(b).generation, Generation(2));
}

#[test]
fn the_last_to_go_leaves_an_empty_group_whose_generation_goes_on() {
    let mut bench = Bench::stable(&["a"]);
    bench.pass(10);
    assert!(bench.group.is_empty() && !bench.group.is_unused());
    assert_eq!(bench.changes, 2, "that it is empty is kept");
    let a = bench.join("a2", |_| {});
    bench.pass(3);
    assert_eq!(bench.joined(a).generation, Generation(3));
}

#[test]
fn leaving_is_at_once() {
    let mut bench = Bench::stable(&["a", "b"]);
    assert_eq!(
        bench.leave(&[
            (Some(id("a")), None),
            (Some(id("x")), None),
            (None, Some(instance("i"))),
            (None, None)
        ]),
        [
            Ok(()),
            Err(MemberError::UnknownMember),
            Err(MemberError::UnknownMember),
            Err(MemberError::UnknownMember)
        ]
    );
    assert_eq!(bench.group.state_name(), "PreparingRebalance");
    let b = bench.rejoin("b");
    assert_eq!(bench.joined(b).members.len(), 1);
}

#[test]
fn who_leaves_while_it_waits_is_answered() {
    let mut bench = Bench::stable(&["a", "b"]);
    let a = bench.rejoin("a");
    bench.leave(&[(Some(id("a")), None)]);
    assert_eq!(bench.refused(a), &MemberError::UnknownMember);
}

#[test]
fn requests_of_another_generation_or_member_are_refused() {
    let mut bench = Bench::stable(&["a"]);
    let old = bench.sync_in(Generation(0), "a");
    assert_eq!(bench.refused(old), &MemberError::IllegalGeneration(Generation(1)));
    let unknown = bench.sync("x");
    assert_eq!(bench.refused(unknown), &MemberError::UnknownMember);
    let unknown = bench.rejoin("x");
    assert_eq!(bench.refused(unknown), &MemberError::UnknownMember);
}

#[test]
fn joining_again_disturbs_the_others_only_where_something_is_new() {
    let mut bench = Bench::stable(&["a", "b"]);
    let b = bench.rejoin("b");
    assert_eq!(bench.joined(b).generation, Generation(1));
    assert_eq!(bench.group.state_name(), "Stable");
    bench.join("nobody", |join| {
        join.member = Some(id("b"));
        join.protocols = protocols(&["range", "sticky"]);
    });
    assert_eq!(bench.group.state_name(), "PreparingRebalance");
}

#[test]
fn who_assigns_may_ask_for_a_rebalance() {
    let mut bench = Bench::stable(&["a", "b"]);
    bench.rejoin("a");
    assert_eq!(bench.group.state_name(), "PreparingRebalance");
}

#[test]
fn who_did_not_hear_the_end_of_the_join_phase_hears_it_again() {
    let mut bench = Bench::new();
    bench.join("a", |_| {});
    bench.join("b", |_| {});
    bench.pass(6);
    let again = bench.rejoin("a");
    assert_eq!((bench.joined(again).generation, bench.joined(again).members.len()), (Generation(1), 2));
}

#[test]
fn who_does_not_ask_for_its_assignment_is_out() {
    let mut bench = Bench::new();
    bench.join("a", |_| {});
    bench.join("b", |_| {});
    bench.pass(6);
    let b = bench.sync("b");
    for _ in 0..6 {
        bench.heartbeat("a").expect("alive, though it does not assign");
        bench.pass(9);
    }
    bench.heartbeat("a").expect("alive");
    bench.pass(6);
    assert_eq!(bench.refused(b), &MemberError::RebalanceInProgress);
    assert_eq!(bench.heartbeat("a"), Err(MemberError::UnknownMember));
    let b = bench.rejoin("b");
    assert_eq!(bench.joined(b).leader, Some(id("b")));
}

#[test]
fn who_waits_for_its_assignment_when_another_joins_is_to_join_too() {
    let mut bench = Bench::new();
    bench.join("a", |_| {});
    bench.join("b", |_| {});
    bench.pass(6);
    let b = bench.sync("b");
    bench.join("c", |_| {});
    assert_eq!(bench.refused(b), &MemberError::RebalanceInProgress);
}

#[test]
fn the_protocol_is_what_most_like_best_of_what_all_know() {
    let cases: [(&[&[&str]], Option<&str>); 4] = [
        (&[&["range"], &["range", "sticky"]], Some("range")),
        (&[&["sticky", "range"], &["range", "sticky"], &["sticky", "range"]], Some("sticky")),
        (&[&["b", "a"], &["a", "b"]], Some("a")),
        (&[&["a"], &["b"]], None),
    ];
    for (known, chosen) in cases {
        let mut bench = Bench::new();
        let tickets: Vec<_> = known
            .iter()
            .enumerate()
            .map(|(n, names)| bench.join(&format!("m{n}"), |join| join.protocols = protocols(names)))
            .collect();
        bench.pass(60);
        match chosen {
            Some(chosen) => {
                assert_eq!(bench.joined(tickets[0]).protocol.as_deref(), Some(chosen), "{known:?}")
            }
            None => assert_eq!(bench.refused(tickets[1]), &MemberError::InconsistentProtocol, "{known:?}"),
        }
    }
}

#[test]
fn what_does_not_fit_the_group_is_refused() {
    let mut bench = Bench::stable(&["a"]);
    let other_type = bench.join("b", |join| join.protocol_type = text("connect"));
    assert_eq!(bench.refused(other_type), &MemberError::InconsistentProtocol);
    let none = bench.join("b", |join| join.protocols.clear());
    assert_eq!(bench.refused(none), &MemberError::InconsistentProtocol);
    for seconds in [5, 1_801] {
        let ticket = bench.join("b", |join| join.session_timeout = Duration::from_secs(seconds));
        assert_eq!(bench.refused(ticket), &MemberError::InvalidSessionTimeout);
    }
    assert_eq!(bench.group.state_name(), "Stable");
}

#[test]
fn a_full_group_takes_nobody_more_and_lets_its_members_come_back() {
    let mut bench = Bench::stable(&["a", "b", "c", "d"]);
    let e = bench.join("e", |_| {});
    assert_eq!(bench.refused(e), &MemberError::Full);
    assert_eq!(bench.group.state_name(), "Stable");
    bench.settings.members_max = 2;
    let tickets = ["a", "b", "c", "d"].map(|name| bench.rejoin(name));
    assert_eq!(bench.refused(tickets[2]), &MemberError::Full, "the last to come back are too many");
    assert_eq!(bench.refused(tickets[3]), &MemberError::Full);
    assert_eq!(bench.joined(tickets[0]).members.len(), 2);
}

#[test]
fn members_that_ask_for_no_time_to_come_back_make_nobody_work_without_end() {
    let mut bench = Bench::new();
    let hasty = |join: &mut Join<u32>| {
        join.instance = Some(instance("a"));
        join.session_timeout = Duration::from_secs(100);
        join.rebalance_timeout = Duration::ZERO;
    };
    bench.join("a-1", hasty);
    bench.pass(0);
    bench.sync("a-1");
    // Another comes and goes again, and the static member does not come back.
    bench.join("b", |join| join.takes_id_first = true);
    bench.join("nobody", |join| {
        join.member = Some(id("b"));
        join.rebalance_timeout = Duration::ZERO;
    });
    bench.leave(&[(Some(id("b")), None)]);
    bench.pass(200);
    assert!(bench.group.is_empty());
}

#[test]
fn commits_are_taken_from_members_of_this_generation_and_from_administrators_of_an_empty_group() {
    let mut bench = Bench::new();
    let commit = |bench: &mut Bench, member: Option<&str>, generation| {
        bench.group.check_commit(member.map(id).as_ref(), None, generation, at(bench.seconds))
    };
    assert_eq!(commit(&mut bench, None, Generation::NONE), Ok(()));
    assert_eq!(commit(&mut bench, Some("a"), Generation(0)), Err(MemberError::UnknownMember));
    bench.join("a", |_| {});
    bench.pass(3);
    assert_eq!(commit(&mut bench, Some("a"), Generation(1)), Err(MemberError::RebalanceInProgress));
    bench.sync("a");
    assert_eq!(commit(&mut bench, Some("a"), Generation(1)), Ok(()));
    assert_eq!(
        commit(&mut bench, Some("a"), Generation(0)),
        Err(MemberError::IllegalGeneration(Generation(1)))
    );
    assert_eq!(commit(&mut bench, Some("b"), Generation(1)), Err(MemberError::UnknownMember));
    assert_eq!(commit(&mut bench, None, Generation::NONE), Err(MemberError::UnknownMember));
    bench.join("b", |_| {});
    assert_eq!(
        commit(&mut bench, Some("a"), Generation(1)),
        Ok(()),
        "before it joins it says how far it came"
    );
}

#[test]
fn a_group_goes_on_as_it_was_kept() {
    let mut bench = Bench::stable(&["a", "b"]);
    let stored = bench.group.stored();
    let later = at(bench.seconds + 100);
    let mut restored = ClassicGroup::<u32>::restored(stored.clone(), later.moment);
    assert_eq!(restored.stored(), stored);
    assert_eq!(restored.heartbeat(&id("b"), None, Generation(1), later), Ok(()));
    assert_eq!(
        restored.next_deadline(),
        Some(at(bench.seconds + 110).moment),
        "a session time-out is left to come back"
    );
    bench.group = restored;
    bench.seconds += 100;
    let again = bench.sync("b");
    assert_eq!(bench.assigned(again), b"for b");
}

/// Whatever comes, in whatever order: no ticket is answered twice or forgotten, and the invariants hold.
#[test]
fn any_order_of_calls_answers_all_in_the_end() {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bench = Bench::new();
        let mut asked = Vec::new();
        for step in 0..200 {
            let name = format!("m{}", random.random_range(0..6));
            let static_name =
                random.random_bool(0.3).then(|| instance(&format!("i{}", random.random_range(0..2))));
            match random.random_range(0..8) {
                0 | 1 => {
                    let takes_id_first = random.random();
                    asked.push(bench.join(&format!("{name}-{step}"), |join| {
                        join.instance = static_name;
                        join.takes_id_first = takes_id_first;
                    }));
                }
                2 | 3 => {
                    let known: Vec<_> = bench.group.members.iter().map(|(id, _)| id.clone()).collect();
                    let told: Vec<_> = bench.group.told.keys().cloned().collect();
                    let all: Vec<_> = known.into_iter().chain(told).collect();
                    if !all.is_empty() {
                        let one = all[random.random_range(0..all.len())].clone();
                        asked.push(bench.join("nobody", |join| {
                            join.member = Some(one);
                            join.instance = static_name;
                        }));
                    }
                }
                4 | 5 => {
                    let known: Vec<_> = bench.group.members.iter().map(|(id, _)| id.0.clone()).collect();
                    if !known.is_empty() {
                        let one = known[random.random_range(0..known.len())].clone();
                        asked.push(bench.sync(&one));
                    }
                }
                6 => {
                    let known: Vec<_> = bench.group.members.iter().map(|(id, _)| id.clone()).collect();
                    if !known.is_empty() {
                        let one = known[random.random_range(0..known.len())].clone();
                        bench.leave(&[(Some(one), None)]);
                    }
                }
                _ => bench.pass(random.random_range(0..20)),
            }
        }
        bench.pass(1_000);
        assert!(bench.group.is_empty(), "seed {seed}: nobody is heard of, and somebody is a member");
        for ticket in asked {
            let answers = usize::from(bench.joins.contains_key(&ticket))
                + usize::from(bench.syncs.contains_key(&ticket));
            assert_eq!(answers, 1, "seed {seed}: ticket {ticket}");
        }
    }
}
