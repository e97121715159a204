//! What administrators see, and what they take away.

use super::*;
use crate::metadata::MetadataImage;

#[test]
fn groups_are_listed_and_described_as_what_they_are() {
    let mut bench = Bench::with_member();
    bench.commit("progress", &ADMIN, "read", 3).expect("nobody is in it");
    let told: Vec<_> = bench
        .shard
        .list()
        .into_iter()
        .map(|one| (one.group, one.protocol_type.as_deref().map(str::to_owned), one.state, one.kind))
        .collect();
    let expected = [
        (group("g"), Some("consumer".to_owned()), "Stable", GroupKind::Classic),
        (group("progress"), None, "Empty", GroupKind::Classic),
    ];
    assert_eq!(told, expected);
    let described = bench.shard.describe(&group("g")).expect("a classic group");
    assert_eq!((described.state, described.protocol.as_deref()), ("Stable", Some("range")));
    let member = &described.members[0];
    assert_eq!((&member.id, &*member.assignment), (&id("a"), &b"all"[..]));
    assert_eq!(member.metadata, subscription("read"));
    assert_eq!(bench.shard.describe(&group("absent")), Err(NotDescribed::NotFound));
    assert_eq!(bench.shard.describe_consumer(&group("g")), Err(NotDescribed::OtherKind));
}

#[test]
fn a_consumer_group_is_described_with_what_its_members_have_and_are_to_have() {
    let mut bench = Bench::new();
    let beat = bench.beat("a", Joining::Join).expect("room");
    let described = bench.shard.describe_consumer(&group("g")).expect("a consumer group");
    assert_eq!(
        (described.state, described.epoch, described.target_epoch),
        ("Stable", beat.epoch, beat.epoch)
    );
    let member = &described.members[0];
    assert_eq!(Some(&member.assigned), beat.assignment.as_ref());
    assert_eq!(member.assigned, member.target);
    assert_eq!(bench.shard.describe(&group("g")), Err(NotDescribed::OtherKind));
    assert_eq!(bench.shard.list()[0].kind, GroupKind::Consumer);
}

#[test]
fn offsets_are_taken_away_but_where_members_read() {
    let mut bench = Bench::with_member();
    let member = Committer { member: Some(id("a")), instance: None, generation: Generation(1) };
    bench.commit("g", &member, "read", 7).expect("a member");
    bench.commit("g", &member, "left", 8).expect("a member");
    let of = |topic: &str| (text(topic), 0);
    let taken = bench.shard.delete_offsets(&group("g"), &[of("read"), of("left"), of("never")]);
    bench.take();
    assert_eq!(taken, Ok(vec![Err(OffsetsStay::Subscribed), Ok(()), Ok(())]));
    bench.reload();
    assert_eq!((bench.offset("g", "read"), bench.offset("g", "left")), (Some(7), None));
    bench.pass(10);
    let taken = bench.shard.delete_offsets(&group("g"), &[of("read")]);
    bench.take();
    assert_eq!(taken, Ok(vec![Ok(())]), "nobody is in it any more");
    assert_eq!(bench.offset("g", "read"), None);
    assert_eq!(bench.shard.delete_offsets(&group("absent"), &[of("read")]), Err(DeleteError::NotFound));
}

#[test]
fn groups_whose_members_are_no_consumers_keep_their_offsets() {
    let mut bench = Bench::new();
    bench.join("a", |join| join.protocol_type = text("connect"));
    bench.pass(0);
    let taken = bench.shard.delete_offsets(&group("g"), &[(text("read"), 0)]);
    assert_eq!(taken, Err(DeleteError::NotEmpty));
}

#[test]
fn what_was_committed_of_topics_that_are_gone_goes_with_them() {
    let mut bench = Bench::new();
    bench.commit("g", &ADMIN, "read", 7).expect("nobody is in it");
    bench.shard.handle_topics_deleted(&MetadataImage::default());
    bench.take();
    bench.reload();
    assert_eq!(bench.offset("g", "read"), None);
}

#[test]
fn a_member_of_a_consumer_group_is_told_offsets_in_its_own_epoch() {
    let mut bench = Bench::new();
    let beat = bench.beat("a", Joining::Join).expect("room");
    let check = |member: &str, epoch| bench.shard.check_fetch(&group("g"), &id(member), epoch);
    assert_eq!(check("a", beat.epoch), Ok(()));
    assert_eq!(check("a", Epoch(beat.epoch.0 + 1)), Err(ConsumerError::StaleEpoch));
    assert_eq!(check("b", beat.epoch), Err(ConsumerError::UnknownMember));
    assert_eq!(bench.shard.check_fetch(&group("absent"), &id("a"), beat.epoch), Ok(()));
}

#[test]
fn a_decision_of_which_only_a_part_was_kept_is_decided_anew() {
    let mut bench = Bench::new();
    let epoch = bench.beat("a", Joining::Join).expect("room").epoch;
    let before = bench.log.len();
    bench.beat("b", Joining::Join).expect("room");
    let whole = std::mem::take(&mut bench.log);
    assert!(whole.len() > before + 3, "several records say what b's coming has changed");
    for kept in before..whole.len() {
        bench.log = whole[..kept].to_vec();
        bench.reload();
        let _ = bench.beat("a", Joining::Member(epoch));
        let described = bench.shard.describe_consumer(&group("g")).expect("a consumer group");
        let targets = described.members.iter().flat_map(|member| member.target.values());
        let assigned: usize = targets.map(|partitions| partitions.len()).sum();
        assert_eq!(assigned, 7, "{kept} of {} records: each partition is somebody's", whole.len());
    }
}
