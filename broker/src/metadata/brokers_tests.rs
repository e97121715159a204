use super::*;
use crate::metadata::testing::{
    after, broker, cluster, cluster_with, create, image_of, new_topic, partition, process, shown,
};
use crate::metadata::{MetadataCommand, Outcome};

fn registered(
    image: &MetadataImage,
    said: BrokerRegistration,
) -> (MetadataImage, Result<BrokerEpoch, RegistrationError>) {
    match after(image, &MetadataCommand::RegisterBroker(said)) {
        (image, Outcome::Registered(outcome)) => (image, outcome),
        other => panic!("{other:?}"),
    }
}

fn done(image: &MetadataImage, command: MetadataCommand) -> MetadataImage {
    let (image, outcome) = after(image, &command);
    assert_eq!(outcome, Outcome::Broker(Ok(())));
    image
}

fn fenced(image: &MetadataImage, broker: i32) -> MetadataImage {
    done(image, MetadataCommand::FenceBroker(process(image, broker)))
}

fn unfenced(image: &MetadataImage, broker: i32) -> MetadataImage {
    done(image, MetadataCommand::UnfenceBroker(process(image, broker)))
}

/// The partitions of all topics.
fn all(image: &MetadataImage) -> Vec<String> {
    image.topics.values().flat_map(|topic| topic.partitions.iter().map(shown)).collect()
}

#[test]
fn a_broker_is_alone_or_fenced_until_it_has_been_heard() {
    let (image, epoch) = registered(&MetadataImage::default(), broker(1, 1, 1, 1));
    assert_eq!(epoch, Ok(BrokerEpoch(1)));
    assert!(!image.brokers[&BrokerId(1)].fenced, "alone");
    let (image, epoch) = registered(&image, broker(2, 1, 2, 2));
    assert_eq!(epoch, Ok(BrokerEpoch(2)));
    assert!(image.brokers[&BrokerId(2)].fenced);
    assert!(!unfenced(&image, 2).brokers[&BrokerId(2)].fenced);
}

#[test]
fn what_a_registration_is_follows_from_nonce_count_and_storage() {
    let before = cluster_with(3, &[&[1, 2, 3]]);
    let copy = |known, found| {
        Err(RegistrationError::Copy {
            known: crate::ids::Incarnation(known),
            found: crate::ids::Incarnation(found),
        })
    };
    let epoch = before.brokers[&BrokerId(1)].epoch;
    let next = BrokerEpoch(before.index + 1);
    let table = [
        ("said again", broker(1, 1, 1, 1), Ok(epoch)),
        ("the next start", broker(1, 2, 1, 9), Ok(next)),
        ("a start after others that came to nothing", broker(1, 5, 1, 9), Ok(next)),
        ("a copy of the directory", broker(1, 1, 1, 9), copy(1, 1)),
        ("an older copy, or a late message", broker(1, 0, 1, 9), copy(1, 0)),
        (
            "another disk beside one that is heard",
            broker(1, 1, 7, 9),
            Err(RegistrationError::Duplicate(BrokerId(1))),
        ),
    ];
    for (what, said, expected) in table {
        let (image, outcome) = registered(&before, said);
        assert_eq!(outcome, expected, "{what}");
        if outcome != Ok(next) {
            assert_eq!(image.topics, before.topics, "{what}");
            assert_eq!(image.brokers, before.brokers, "{what}");
        }
    }
}

#[test]
fn a_copy_of_a_directory_is_refused_however_often_it_is_started() {
    let mut image = cluster_with(3, &[&[1, 2, 3]]);
    let copied = image.brokers[&BrokerId(1)].epoch;
    image = unfenced(&registered(&image, broker(1, 2, 1, 2)).0, 1);
    let served = image.brokers[&BrokerId(1)].epoch;
    let restored = |count| BrokerRegistration { previous_epoch: Some(copied), ..broker(1, count, 1, 99) };
    for count in 3..6 {
        let (after, outcome) = registered(&image, restored(count));
        assert_eq!(outcome, Err(RegistrationError::Behind { served, known: copied }));
        assert_eq!(after.topics, image.topics);
    }
    // One that ended before it knew that it was registered has acknowledged nothing.
    let unknown = registered(&image, broker(1, 3, 1, 3)).0;
    let next = BrokerRegistration { previous_epoch: Some(served), ..broker(1, 4, 1, 4) };
    assert!(registered(&unknown, next.clone()).1.is_ok());
    assert!(registered(&unfenced(&unknown, 1), next).1.is_err());
}

#[test]
fn a_process_that_comes_back_among_others_leads_again_when_it_is_elected() {
    let before = cluster_with(3, &[&[1, 2, 3], &[2, 1, 3], &[1]]);
    let (image, _) = registered(&before, broker(1, 2, 1, 9));
    assert_eq!(all(&image), ["2@1/1 isr 2,3", "2@0/1 isr 2,3", "-@1/1 isr  elr 1 last 1"]);
    let image = unfenced(&image, 1);
    assert_eq!(all(&image), ["2@1/1 isr 2,3", "2@0/1 isr 2,3", "1@2/2 isr 1"]);
    assert_eq!(partition(&image, 3, 0).leader_broker_epoch, image.brokers[&BrokerId(1)].epoch);
}

#[test]
fn another_storage_has_no_seat_of_the_one_before() {
    let before = cluster_with(3, &[&[1, 2, 3], &[2, 1, 3], &[1]]);
    let silent = fenced(&before, 1);
    let (image, epoch) = registered(&silent, broker(1, 1, 7, 9));
    assert_eq!(all(&image), ["2@1/2 isr 2,3", "2@0/2 isr 2,3", "-@1/2 isr "]);
    for topic in 1..=3 {
        let seat = *partition(&image, topic, 0).replica(BrokerId(1)).unwrap();
        assert_eq!(seat.storage, image.brokers[&BrokerId(1)].registration.storage);
        assert_eq!(Ok(BrokerEpoch(seat.assignment.0)), epoch, "it is another replica");
    }
    let back = unfenced(&image, 1);
    assert_eq!(all(&back)[2], "-@1/2 isr ", "what only it had is gone, and nobody may pretend otherwise");
}

#[test]
fn a_storage_that_is_another_after_its_broker_was_unregistered_has_no_seat_either() {
    let before = cluster_with(2, &[&[1, 2]]);
    let image = done(&before, MetadataCommand::UnregisterBroker { broker: BrokerId(1) });
    assert_eq!(all(&image), ["2@1/1 isr 2"]);
    let (image, _) = registered(&image, broker(1, 1, 7, 9));
    assert_ne!(partition(&image, 1, 0).replicas[0], partition(&before, 1, 0).replicas[0]);
    let (same, _) = registered(
        &done(&before, MetadataCommand::UnregisterBroker { broker: BrokerId(1) }),
        broker(1, 2, 1, 9),
    );
    assert_eq!(partition(&same, 1, 0).replicas[0], partition(&before, 1, 0).replicas[0]);
}

#[test]
fn fencing_moves_what_the_broker_leads_and_keeps_who_has_everything() {
    let mut image = cluster_with(3, &[&[1, 2, 3]]);
    let mut seen = Vec::new();
    for fence in [1, 2, 3] {
        image = fenced(&image, fence);
        seen.extend(all(&image));
    }
    // Two of three commit: below that the ELR has them all.
    assert_eq!(seen, ["2@1/1 isr 2,3", "3@2/2 isr 3 elr 2", "-@3/3 isr  elr 2,3 last 3"]);
    let back = unfenced(&image, 1);
    assert_eq!(all(&back), ["-@3/3 isr  elr 2,3 last 3"], "it lacks what was committed since");
    let back = unfenced(&back, 2);
    assert_eq!(all(&back), ["2@4/4 isr 2 elr 3"]);
}

#[test]
fn whoever_is_there_leads_only_where_an_unclean_election_is_configured() {
    for (unclean, expected) in [("false", "-@1/2 isr  elr 1 last 1"), ("true", "2@2/3 isr 2")] {
        let mut topic = new_topic(1, "t", &[&[1, 2]]);
        topic.configs.insert("unclean.leader.election.enable".into(), unclean.into());
        let image = after(&cluster(2), &create(vec![topic])).0;
        let image = unfenced(&fenced(&fenced(&image, 2), 1), 2);
        assert_eq!(all(&image), [expected]);
    }
}

#[test]
fn a_stalled_broker_hands_over_what_others_can_lead_in_one_event() {
    let before = cluster_with(3, &[&[1, 2, 3], &[1], &[2, 1], &[1, 2]]);
    let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
    let from = process(&before, 1);
    let rather = |barred: &[i32], avoided: &[i32]| MetadataCommand::MoveLeaders {
        from,
        barred: ids(barred),
        avoided: ids(avoided),
    };
    let command = |barred: &[i32]| rather(barred, &[]);
    let image = done(&before, rather(&[], &[2]));
    assert_eq!(all(&image), ["3@1/1 isr 2,3", "1@0/0 isr 1", "2@0/1 isr 2", "2@1/1 isr 2"]);
    let image = done(&before, command(&[]));
    assert_eq!(all(&image), ["2@1/1 isr 2,3", "1@0/0 isr 1", "2@0/1 isr 2", "2@1/1 isr 2"]);
    let image = done(&before, command(&[2]));
    assert_eq!(all(&image), ["3@1/1 isr 2,3", "1@0/0 isr 1", "2@0/1 isr 2", "1@0/0 isr 1,2"]);
    let image = done(&before, command(&[2, 3]));
    assert_eq!(
        all(&image),
        ["1@0/0 isr 1,2,3", "1@0/0 isr 1", "2@0/1 isr 2", "1@0/0 isr 1,2"],
        "nobody is better"
    );
}

#[test]
fn a_broker_that_is_about_to_stop_hands_over_and_is_given_nothing() {
    let before = cluster_with(2, &[&[1, 2], &[1]]);
    let image = done(&before, MetadataCommand::ControlledShutdown(process(&before, 1)));
    assert_eq!(all(&image), ["2@1/1 isr 2", "1@0/0 isr 1"]);
    let (image, _) = after(&image, &create(vec![new_topic(9, "u", &[&[1, 2]])]));
    assert_eq!(shown(&partition(&image, 9, 0)), "2@0/0 isr 2");
}

#[test]
fn what_an_earlier_process_asks_for_is_not_done() {
    let before = cluster_with(2, &[&[1, 2]]);
    let late = process(&before, 1);
    let (image, _) = registered(&before, broker(1, 2, 1, 9));
    for command in [
        MetadataCommand::FenceBroker(late),
        MetadataCommand::UnfenceBroker(late),
        MetadataCommand::ControlledShutdown(late),
        MetadataCommand::MoveLeaders { from: late, barred: vec![], avoided: vec![] },
    ] {
        let (same, outcome) = after(&image, &command);
        assert!(matches!(outcome, Outcome::Broker(Err(BrokerError::StaleEpoch { .. }))), "{command:?}");
        assert_eq!(same, MetadataImage { index: same.index, ..image.clone() });
    }
}

#[test]
fn a_node_alone_leads_on_as_it_did() {
    let start = |count, nonce| MetadataCommand::RegisterBroker(broker(1, count, 1, nonce));
    let image = image_of(&[start(1, 1), create(vec![new_topic(1, "t", &[&[1]])]), start(2, 2)]);
    assert_eq!(all(&image), ["1@1/1 isr 1"]);
    assert_eq!(partition(&image, 1, 0).leader_broker_epoch, BrokerEpoch(3));
}

#[test]
fn a_node_that_did_not_say_what_it_reads_reads_what_was_there_before() {
    let mut said = serde_json::to_value(broker(2, 1, 2, 2)).expect("numbers and text");
    said.as_object_mut().expect("a structure").remove("reads");
    let silent: BrokerRegistration = serde_json::from_value(said).expect("as it was written before");
    assert_eq!(silent.reads, 3);
    let (image, _) = registered(&MetadataImage::default(), broker(1, 1, 1, 1));
    let (image, _) = registered(&image, silent);
    assert_eq!((image.who_does_not_read(3), image.who_does_not_read(4)), (None, Some(BrokerId(2))));
    let (image, _) = registered(&image, broker(2, 2, 2, 3));
    assert_eq!(image.who_does_not_read(4), None, "it was upgraded");
}
