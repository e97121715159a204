use super::*;
use crate::ids::{BrokerEpoch, LeaderEpoch, PartitionEpoch};
use crate::metadata::testing::{after, cluster_with, id, partition, process, shown};
use crate::metadata::{
    AlteredConfigs, BrokerError, ConfigChange, ConfigOperation, ConfigResource, MetadataCommand, Outcome,
};

fn only(image: &MetadataImage, command: &MetadataCommand) -> (MetadataImage, Result<String, PartitionError>) {
    match after(image, command) {
        (image, Outcome::Partitions(mut outcomes)) => {
            let outcome = outcomes.remove(0).map(|partition| shown(&partition));
            (image, outcome)
        }
        other => panic!("{other:?}"),
    }
}

/// What `leader` says of partition 0 of topic 1, as it is in the image.
fn alter(image: &MetadataImage, leader: i32, isr: &[i32]) -> (BrokerProcess, AlteredPartition) {
    let known = partition(image, 1, 0);
    let asked = AlteredPartition {
        partition: id(1, 0),
        leader_epoch: known.leader_epoch,
        partition_epoch: known.partition_epoch,
        isr: isr.iter().map(|member| process(image, *member)).collect(),
    };
    (process(image, leader), asked)
}

fn command((leader, asked): (BrokerProcess, AlteredPartition)) -> MetadataCommand {
    MetadataCommand::AlterPartition { leader, partitions: vec![asked] }
}

fn altered(image: &MetadataImage, leader: i32, isr: &[i32]) -> MetadataImage {
    let (image, outcome) = only(image, &command(alter(image, leader, isr)));
    outcome.unwrap();
    image
}

fn fenced(image: &MetadataImage, broker: i32) -> MetadataImage {
    after(image, &MetadataCommand::FenceBroker(process(image, broker))).0
}

fn unfenced(image: &MetadataImage, broker: i32) -> MetadataImage {
    after(image, &MetadataCommand::UnfenceBroker(process(image, broker))).0
}

#[test]
fn an_isr_shrinks_into_the_elr_and_grows_out_of_it() {
    let mut image = cluster_with(3, &[&[1, 2, 3]]);
    let steps: [(&[i32], &str); 5] = [
        (&[1, 3], "1@0/1 isr 1,3"),
        (&[1], "1@0/2 isr 1 elr 3"),
        (&[1, 2], "1@0/3 isr 1,2"),
        (&[2, 1, 3], "1@0/4 isr 2,1,3"),
        // As it is, and at another version: what was asked for at this one is not done any more.
        (&[2, 1, 3], "1@0/5 isr 2,1,3"),
    ];
    for (isr, expected) in steps {
        let (next, outcome) = only(&image, &command(alter(&image, 1, isr)));
        assert_eq!(outcome.as_deref(), Ok(expected));
        image = next;
    }
}

#[test]
fn what_a_leader_may_not_ask_is_refused_with_kafkas_codes() {
    let image = fenced(&cluster_with(4, &[&[1, 2, 3]]), 3);
    let (leader, good) = alter(&image, 1, &[1, 2]);
    let with = |change: &dyn Fn(&mut AlteredPartition)| {
        let mut asked = good.clone();
        change(&mut asked);
        asked
    };
    let earlier = BrokerProcess { epoch: BrokerEpoch(1_000), ..leader };
    let invalid = |why: &str| PartitionError::InvalidRequest(why.to_owned());
    let named = "the ISR names a broker twice, or one without a replica";
    let table: Vec<(BrokerProcess, AlteredPartition, PartitionError)> = vec![
        (leader, with(&|asked| asked.partition = id(9, 0)), PartitionError::UnknownTopic),
        (leader, with(&|asked| asked.partition = id(1, 9)), PartitionError::UnknownPartition),
        (leader, with(&|asked| asked.leader_epoch = LeaderEpoch(-1)), PartitionError::FencedLeaderEpoch),
        (leader, with(&|asked| asked.leader_epoch = LeaderEpoch(1)), PartitionError::NotController),
        (
            leader,
            with(&|asked| asked.partition_epoch = PartitionEpoch(0)),
            PartitionError::InvalidUpdateVersion,
        ),
        (leader, with(&|asked| asked.partition_epoch = PartitionEpoch(9)), PartitionError::NotController),
        (process(&image, 2), good.clone(), invalid("the partition is led by another broker")),
        (leader, with(&|asked| asked.isr.push(process(&image, 4))), invalid(named)),
        (leader, with(&|asked| asked.isr.push(process(&image, 2))), invalid(named)),
        (leader, with(&|asked| asked.isr.truncate(0)), invalid("the leader is not in the ISR")),
        (
            leader,
            with(&|asked| asked.isr.push(process(&image, 3))),
            PartitionError::IneligibleReplica(BrokerId(3)),
        ),
        (
            leader,
            with(&|asked| asked.isr[1].epoch = BrokerEpoch(1)),
            PartitionError::IneligibleReplica(BrokerId(2)),
        ),
        (
            earlier,
            good.clone(),
            BrokerError::StaleEpoch { expected: leader.epoch, found: earlier.epoch }.into(),
        ),
    ];
    for (leader, asked, expected) in table {
        let (same, outcome) = only(&image, &command((leader, asked)));
        assert_eq!(outcome, Err(expected));
        assert_eq!(same.topics, image.topics);
    }
}

#[test]
fn a_change_that_comes_twice_does_not_bring_back_who_left_in_between() {
    let image = altered(&cluster_with(3, &[&[1, 2, 3]]), 1, &[1, 2]);
    let add = command(alter(&image, 1, &[1, 2, 3]));
    let image = after(&image, &add).0;
    let image = altered(&image, 1, &[1, 2]);
    let (same, outcome) = only(&image, &add);
    assert_eq!(outcome, Err(PartitionError::InvalidUpdateVersion));
    assert_eq!(same.topics, image.topics);
}

#[test]
fn a_smaller_minimum_commits_without_those_that_were_eligible() {
    let image = altered(&cluster_with(3, &[&[1, 2, 3]]), 1, &[1]);
    assert_eq!(shown(&partition(&image, 1, 0)), "1@0/1 isr 1 elr 2,3");
    let resource = ConfigResource::Topic(image.topics["t1"].id);
    let set = ConfigOperation::Set("1".into());
    let change = ConfigChange::Alter(vec![("min.insync.replicas".to_owned(), set)]);
    let resources = vec![AlteredConfigs { resource, change }];
    let image = after(&image, &MetadataCommand::AlterConfigs { resources }).0;
    assert_eq!(shown(&partition(&image, 1, 0)), "1@0/2 isr 1");
}

fn elect(image: &MetadataImage, kind: ElectionKind) -> (MetadataImage, Result<String, PartitionError>) {
    let election = PartitionElection { partition: id(1, 0), kind, partition_epoch: None };
    only(image, &MetadataCommand::ElectLeaders { elections: vec![election], barred: vec![] })
}

#[test]
fn elections_are_held_where_they_change_something_and_lose_nothing() {
    let whole = cluster_with(3, &[&[1, 2, 3]]);
    let moved = elect(&whole, ElectionKind::Designated(BrokerId(2))).0;
    let short = altered(&whole, 1, &[1]);
    let silent = fenced(&whole, 1);
    let dead = [3, 2, 1].iter().fold(cluster_with(3, &[&[1, 2, 3]]), |image, broker| fenced(&image, *broker));
    let third = unfenced(&dead, 3);
    let designated = |id| ElectionKind::Designated(BrokerId(id));
    let table: Vec<(&str, &MetadataImage, ElectionKind, Result<&str, PartitionError>)> = vec![
        ("led as it should be", &whole, ElectionKind::Preferred, Err(PartitionError::ElectionNotNeeded)),
        ("back to the first replica", &moved, ElectionKind::Preferred, Ok("1@2/2 isr 1,2,3")),
        (
            "the first is silent",
            &silent,
            ElectionKind::Preferred,
            Err(PartitionError::PreferredLeaderNotAvailable),
        ),
        ("in sync", &whole, designated(3), Ok("3@1/1 isr 1,2,3")),
        ("eligible", &short, designated(3), Ok("3@1/2 isr 3 elr 1,2")),
        ("leads already", &whole, designated(1), Err(PartitionError::ElectionNotNeeded)),
        ("no replica", &whole, designated(4), Err(PartitionError::EligibleLeadersNotAvailable)),
        ("has a leader", &whole, ElectionKind::Unclean, Err(PartitionError::ElectionNotNeeded)),
        ("nobody is there", &dead, ElectionKind::Unclean, Err(PartitionError::EligibleLeadersNotAvailable)),
        ("somebody is left", &third, ElectionKind::Unclean, Ok("3@2/4 isr 3")),
    ];
    for (what, image, kind, expected) in table {
        let (after, outcome) = elect(image, kind);
        assert_eq!(outcome.as_deref(), expected.as_ref().map(|shown| *shown), "{what}");
        assert_eq!(outcome.is_err(), after.topics == image.topics, "{what}");
    }
    let seen = PartitionElection {
        partition: id(1, 0),
        kind: designated(2),
        partition_epoch: Some(PartitionEpoch(0)),
    };
    let late = MetadataCommand::ElectLeaders { elections: vec![seen.clone()], barred: vec![] };
    assert_eq!(only(&moved, &late).1, Err(PartitionError::InvalidUpdateVersion));
    let barred = MetadataCommand::ElectLeaders { elections: vec![seen], barred: vec![BrokerId(2)] };
    assert_eq!(only(&whole, &barred).1, Err(PartitionError::EligibleLeadersNotAvailable));
}

fn lose(image: &MetadataImage, broker: i32) -> (MetadataImage, Result<String, PartitionError>) {
    let assignment = partition(image, 1, 0).replica(BrokerId(broker)).unwrap().assignment;
    only(
        image,
        &MetadataCommand::ReplicaLost { broker: process(image, broker), partition: id(1, 0), assignment },
    )
}

#[test]
fn a_rotten_replica_leaves_before_it_drops_anything_and_the_last_seat_never_drops() {
    let whole = cluster_with(3, &[&[1, 2, 3]]);
    let (image, outcome) = lose(&whole, 1);
    assert_eq!(outcome.as_deref(), Ok("2@1/1 isr 2,3"));
    let seat =
        |image: &MetadataImage, broker| partition(image, 1, 0).replica(BrokerId(broker)).unwrap().assignment;
    assert_eq!(seat(&image, 1).0, image.index, "it is another replica, which begins with nothing");
    assert_eq!(seat(&image, 2), seat(&whole, 2));
    let short = altered(&image, 2, &[2]);
    assert_eq!(shown(&partition(&short, 1, 0)), "2@1/2 isr 2 elr 3");
    let (image, outcome) = lose(&short, 3);
    assert_eq!(outcome.as_deref(), Ok("2@1/3 isr 2"));
    let (same, outcome) = lose(&image, 2);
    assert_eq!(outcome, Err(PartitionError::LastReplica));
    assert_eq!(same.topics, image.topics);
    let (image, outcome) = lose(&fenced(&short, 2), 2);
    assert_eq!(outcome.as_deref(), Ok("3@2/4 isr 3"), "eligible is enough");
    let again = MetadataCommand::ReplicaLost {
        broker: process(&image, 2),
        partition: id(1, 0),
        assignment: seat(&short, 2),
    };
    assert_eq!(only(&image, &again).1, Err(PartitionError::NoSuchReplica));
}

fn reassign(
    image: &MetadataImage,
    replicas: Option<&[i32]>,
) -> (MetadataImage, Result<String, PartitionError>) {
    let replicas = replicas.map(|ids| ids.iter().copied().map(BrokerId).collect());
    let reassignment = PartitionReassignment { partition: id(1, 0), replicas };
    only(image, &MetadataCommand::AlterPartitionReassignments { reassignments: vec![reassignment] })
}

fn brokers(image: &MetadataImage) -> Vec<i32> {
    partition(image, 1, 0).replica_brokers().map(|broker| broker.0).collect()
}

#[test]
fn a_reassignment_ends_when_what_it_adds_is_in_sync() {
    let before = cluster_with(4, &[&[1, 2]]);
    let (image, outcome) = reassign(&before, Some(&[3, 2]));
    assert_eq!(outcome.as_deref(), Ok("1@0/1 isr 1,2 adding 3 removing 1"));
    assert_eq!(brokers(&image), [3, 2, 1]);
    let add = command(alter(&image, 1, &[1, 2, 3]));
    let (image, outcome) = only(&image, &add);
    assert_eq!(outcome, Err(PartitionError::NewLeaderElected));
    assert_eq!(shown(&partition(&image, 1, 0)), "3@1/2 isr 2,3");
    assert_eq!(brokers(&image), [3, 2]);
}

#[test]
fn moved_away_and_back_it_is_another_replica() {
    let before = cluster_with(3, &[&[1, 2]]);
    let away = altered(&reassign(&before, Some(&[1, 3])).0, 1, &[1, 2, 3]);
    assert_eq!(brokers(&away), [1, 3]);
    let back = altered(&reassign(&away, Some(&[1, 2])).0, 1, &[1, 3, 2]);
    let seat = |image: &MetadataImage| partition(image, 1, 0).replica(BrokerId(2)).unwrap().assignment;
    assert!(seat(&back) > seat(&before));
    assert_eq!(
        partition(&back, 1, 0).replicas[0],
        partition(&before, 1, 0).replicas[0],
        "who stayed is who it was"
    );
}

#[test]
fn a_reassignment_is_replaced_by_another_and_can_be_cancelled() {
    let (first, _) = reassign(&cluster_with(5, &[&[1, 2]]), Some(&[3, 4]));
    assert_eq!(shown(&partition(&first, 1, 0)), "1@0/1 isr 1,2 adding 3,4 removing 1,2");
    let (_, outcome) = reassign(&first, Some(&[3, 5]));
    assert_eq!(outcome.as_deref(), Ok("1@0/2 isr 1,2 adding 3,5 removing 4,1,2"));
    let (cancelled, outcome) = reassign(&first, None);
    assert_eq!(outcome.as_deref(), Ok("1@1/2 isr 1,2"));
    assert_eq!(brokers(&cancelled), [1, 2]);
    assert_eq!(reassign(&cancelled, None).1, Err(PartitionError::NoReassignmentInProgress));
    let half = altered(&first, 1, &[1, 2, 3]);
    let gone = fenced(&fenced(&half, 1), 2);
    assert_eq!(shown(&partition(&gone, 1, 0)), "3@1/4 isr 3 adding 3,4 removing 1,2");
}

#[test]
fn replicas_that_cannot_be_are_refused() {
    let image = cluster_with(2, &[&[1, 2]]);
    let table: [(&[i32], &str); 3] = [
        (&[], "an empty replica list"),
        (&[1, 1], "the broker 1 more than once"),
        (&[1, 9], "broker 9, but no such"),
    ];
    for (target, part) in table {
        let (same, outcome) = reassign(&image, Some(target));
        assert!(outcome.unwrap_err().to_string().contains(part), "{part}");
        assert_eq!(same.topics, image.topics);
    }
}
