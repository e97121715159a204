//! What must hold of any assignment, for groups drawn at random, and what each assignor promises.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::super::ids::InstanceId;
use super::*;
use crate::ids::TopicId;

fn topic(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number + 1))
}

fn member(number: usize) -> MemberId {
    MemberId(Arc::from(format!("m{number:03}")))
}

/// Members that read all topics; each topic has so many partitions.
fn group(members: usize, topics: &[i32]) -> GroupSpec {
    let topics: BTreeMap<_, _> =
        (0..).zip(topics).map(|(nth, partitions)| (topic(nth), *partitions)).collect();
    let all = MemberSpec { subscribed: topics.keys().copied().collect(), ..MemberSpec::default() };
    GroupSpec { members: (0..members).map(|nth| (member(nth), all.clone())).collect(), topics }
}

fn drawn(random: &mut StdRng) -> GroupSpec {
    let topics: Vec<i32> = (0..random.random_range(0..6)).map(|_| random.random_range(0..12)).collect();
    let mut group = group(random.random_range(0..8), &topics);
    for spec in group.members.values_mut() {
        spec.subscribed.retain(|_| random.random_bool(0.7));
        if random.random_bool(0.2) {
            spec.subscribed.insert(topic(99));
        }
        for _ in 0..random.random_range(0..8) {
            // What it was to have may be gone, or another's, or not its any more.
            let of = topic(random.random_range(0..7));
            spec.assigned.entry(of).or_default().insert(random.random_range(0..14));
        }
    }
    group
}

/// Each partition that somebody reads has one member, who reads its topic.
fn check(group: &GroupSpec, assigned: &BTreeMap<MemberId, Assignment>) {
    assert!(assigned.keys().eq(group.members.keys()), "all members are told");
    let mut owners = BTreeMap::new();
    for (id, assignment) in assigned {
        for (topic, partitions) in assignment {
            assert!(group.members[id].subscribed.contains(topic), "{id:?} does not read {topic}");
            assert!(!partitions.is_empty());
            for partition in partitions {
                assert!(owners.insert((*topic, *partition), id).is_none(), "two have {topic}-{partition}");
            }
        }
    }
    let wanted = group.topics.iter().filter(|(topic, _)| group.subscribers(**topic).next().is_some());
    let wanted: Vec<_> = wanted.flat_map(|(topic, count)| (0..*count).map(|nth| (*topic, nth))).collect();
    assert!(owners.keys().copied().eq(wanted));
}

fn sizes(assigned: &BTreeMap<MemberId, Assignment>) -> Vec<usize> {
    assigned.values().map(|assignment| assignment.values().map(BTreeSet::len).sum()).collect()
}

fn moves(before: &BTreeMap<MemberId, Assignment>, now: &BTreeMap<MemberId, Assignment>) -> usize {
    let kept = |id: &MemberId, topic: &TopicId, partition: &i32| {
        before.get(id).and_then(|had| had.get(topic)).is_some_and(|had| had.contains(partition))
    };
    now.iter()
        .flat_map(|(id, topics)| {
            topics.iter().flat_map(move |(topic, all)| all.iter().map(move |one| (id, topic, one)))
        })
        .filter(|(id, topic, partition)| !kept(id, topic, partition))
        .count()
}

fn with(mut group: GroupSpec, assigned: &BTreeMap<MemberId, Assignment>) -> GroupSpec {
    for (id, spec) in &mut group.members {
        spec.assigned = assigned.get(id).cloned().unwrap_or_default();
    }
    group
}

#[test]
fn each_partition_that_is_read_has_one_member_who_reads_it() {
    for seed in 0..500 {
        let mut random = StdRng::seed_from_u64(seed);
        let group = drawn(&mut random);
        for assignor in Assignor::ALL {
            check(&group, &assignor.assign(&group));
        }
    }
}

#[test]
fn uniform_gives_nobody_two_more_than_another_who_could_have_one() {
    for seed in 0..500 {
        let mut random = StdRng::seed_from_u64(seed);
        let group = drawn(&mut random);
        let assigned = Assignor::Uniform.assign(&group);
        let size = |id: &MemberId| assigned[id].values().map(BTreeSet::len).sum::<usize>();
        for (id, assignment) in &assigned {
            for topic in assignment.keys() {
                for (other, _) in group.subscribers(*topic) {
                    assert!(size(id) <= size(other) + 1, "seed {seed}: {id:?} and {other:?}");
                }
            }
        }
    }
}

#[test]
fn uniform_moves_nothing_where_nothing_has_changed_and_little_where_little_has() {
    let five = group(5, &[7, 4, 12]);
    let before = Assignor::Uniform.assign(&five);
    assert_eq!(sizes(&before), [5, 5, 5, 4, 4]);
    assert_eq!(Assignor::Uniform.assign(&with(five, &before)), before);
    let six = Assignor::Uniform.assign(&with(group(6, &[7, 4, 12]), &before));
    assert_eq!(sizes(&six), [4, 4, 4, 4, 4, 3]);
    assert_eq!(moves(&before, &six), 3, "the new one gets its share, and nobody else anything");
    let mut four = group(5, &[7, 4, 12]);
    four.members.remove(&member(0));
    let four = Assignor::Uniform.assign(&with(four, &before));
    assert_eq!(moves(&before, &four), 5, "what the one that left had, and nothing else");
}

#[test]
fn range_gives_the_same_numbers_of_topics_that_have_as_many() {
    let mut group = group(3, &[7, 7]);
    group.members.get_mut(&member(2)).expect("a member").instance = Some(InstanceId(Arc::from("first")));
    let assigned = Assignor::Range.assign(&group);
    let expected = [(2, 0..3), (0, 3..5), (1, 5..7)];
    for (nth, range) in expected {
        for number in 0..2 {
            assert_eq!(assigned[&member(nth)][&topic(number)], range.clone().collect(), "member {nth}");
        }
    }
}

#[test]
fn large_groups_are_assigned_in_one_go() {
    let group = group(1_000, &[10_000]);
    let assigned = Assignor::Uniform.assign(&group);
    assert!(sizes(&assigned).iter().all(|size| *size == 10));
    let mut grown = with(self::group(1_001, &[10_000]), &assigned);
    grown.members.get_mut(&member(5)).expect("a member").assigned.clear();
    check(&grown, &Assignor::Uniform.assign(&grown));
}

#[test]
fn assignors_have_names() {
    for assignor in Assignor::ALL {
        assert_eq!(Assignor::of_name(assignor.name()), Some(assignor));
    }
    assert_eq!(Assignor::of_name("sticky"), None);
}
