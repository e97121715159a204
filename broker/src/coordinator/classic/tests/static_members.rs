//! Static members: who comes back under its instance id goes on.

use super::*;

#[test]
fn a_static_member_that_restarts_goes_on_with_what_it_had() {
    let mut bench = Bench::new();
    bench.join("a-1", |join| join.instance = Some(instance("a")));
    bench.join("b-1", |join| join.instance = Some(instance("b")));
    bench.pass(6);
    bench.sync_all();
    let changes = bench.changes;
    let again = bench.join("b-2", |join| join.instance = Some(instance("b")));
    assert_eq!(bench.joined(again).generation, Generation(1), "nobody else notices");
    assert_eq!(bench.group.state_name(), "Stable");
    assert_eq!(bench.changes, changes + 1, "its new id is kept");
    let synced = bench.sync("b-2");
    assert_eq!(bench.assigned(synced), b"for b-1");
    let fenced = bench.group.heartbeat(&id("b-1"), Some(&instance("b")), Generation(1), at(bench.seconds));
    assert_eq!(fenced, Err(MemberError::FencedInstance));
}

#[test]
fn a_static_member_that_assigned_and_restarts_does_not_assign_anew() {
    for can_skip in [true, false] {
        let mut bench = Bench::new();
        bench.join("a-1", |join| join.instance = Some(instance("a")));
        bench.pass(3);
        bench.sync("a-1");
        let again = bench.join("a-2", |join| {
            join.instance = Some(instance("a"));
            join.can_skip_assignment = can_skip;
        });
        let joined = bench.joined(again);
        assert_eq!(joined.skip_assignment, can_skip);
        let leader = if can_skip { "a-2" } else { "a-1" };
        assert_eq!(joined.leader, Some(id(leader)), "who takes itself for a follower asks only for its own");
        assert_eq!(joined.members.len(), usize::from(can_skip));
    }
}

#[test]
fn a_static_member_that_is_away_keeps_its_place_until_its_session_is_over() {
    let mut bench = Bench::new();
    let long = |join: &mut Join<u32>| {
        join.instance = Some(instance("a"));
        join.session_timeout = Duration::from_secs(100);
    };
    bench.join("a-1", long);
    bench.join("b", |_| {});
    bench.pass(6);
    bench.sync_all();
    let c = bench.join("c", |_| {});
    let b = bench.rejoin("b");
    bench.pass(60);
    assert_eq!(bench.joined(b).members.len(), 3, "it is assigned something still");
    assert_eq!(bench.joined(c).leader, Some(id("b")), "but does not assign");
    let again = bench.join("a-2", long);
    assert!(!bench.joins.contains_key(&again), "others were told of the id it had: all join again");
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance_id() {
    let mut bench = Bench::new();
    bench.join("a-1", |join| join.instance = Some(instance("a")));
    bench.pass(3);
    bench.sync_all();
    assert_eq!(bench.leave(&[(None, Some(instance("a")))]), [Ok(())]);
    assert!(bench.group.is_empty());
}
