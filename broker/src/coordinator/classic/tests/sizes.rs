//! What no record could hold is refused where it is said.

use super::super::super::batches;
use super::super::super::ids::GroupId;
use super::super::super::records::CoordinatorRecord;
use super::*;

fn protocol(bytes: usize) -> Vec<Protocol> {
    vec![Protocol { name: text("range"), metadata: Bytes::from(vec![0; bytes]) }]
}

#[test]
fn members_that_say_more_than_a_record_holds_do_not_come_in() {
    let mut bench = Bench::new();
    let third = limits::GROUP_RECORD_HALF_BYTES / 3;
    let first = bench.join("a", |join| join.protocols = protocol(third));
    let second = bench.join("b", |join| join.protocols = protocol(third));
    let third = bench.join("c", |join| join.protocols = protocol(third));
    assert_eq!(bench.refused(third), &MemberError::Full);
    // One that is in it says something else in its own place.
    let again = bench.join("nobody", |join| {
        join.member = Some(id("b"));
        join.protocols = protocol(limits::GROUP_RECORD_HALF_BYTES / 2);
    });
    assert_eq!(bench.refused(second), &MemberError::RebalanceInProgress);
    bench.pass(10);
    assert_eq!(bench.joined(first).generation, bench.joined(again).generation);
}

#[test]
fn assignments_that_no_record_holds_are_refused_and_others_are_taken() {
    let mut bench = Bench::new();
    bench.join("a", |join| join.protocols = protocol(limits::GROUP_RECORD_HALF_BYTES / 2));
    bench.pass(10);
    let mut sync = |bytes: usize| {
        let ticket = bench.ticket();
        let sync = Sync {
            member: id("a"),
            instance: None,
            generation: bench.group.generation,
            protocol_type: None,
            protocol: None,
            assignments: vec![(id("a"), Bytes::from(vec![0; bytes]))],
            ticket,
        };
        let mut outcome = Outcome::default();
        bench.group.sync(sync, at(bench.seconds), &mut outcome);
        bench.note(outcome);
        (bench.syncs[&ticket].clone().map(|synced| synced.assignment.len()), bench.changes)
    };
    let most = limits::GROUP_RECORD_HALF_BYTES;
    assert_eq!(sync(most + 1), (Err(MemberError::TooLarge), 0));
    assert_eq!(sync(most), (Ok(most), 1));
    // As long as names may be.
    let longest = "g".repeat(limits::GROUP_TEXT_BYTES_MAX);
    let mut stored = bench.group.stored();
    (stored.protocol_type, stored.protocol) = (Some(text(&longest)), Some(text(&longest)));
    let record = CoordinatorRecord::Group { group: GroupId(text(&longest)), stored: Some(stored) };
    let small = CoordinatorRecord::Group { group: GroupId(text(&longest)), stored: None };
    let before = std::iter::repeat_n(small.encode(), 25);
    let batches = batches::encode(before.chain([record.encode()]).collect(), 0).expect("each fits");
    assert_eq!(batches.len(), 2, "one that is large stands alone");
}
