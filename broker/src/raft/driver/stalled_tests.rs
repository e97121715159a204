//! Members whose journals stand still, or whose disks are full.

use io_backend::Clock;
use io_backend::channel::ReplyError;
use raft::eraftpb::MessageType::*;

use super::group::{Group, propose_all, with_group, words};
use super::*;

#[test]
fn a_leader_whose_journal_stands_still_hands_over_once() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        propose_all(&mut group, 1, &words(0..3));
        let _ = group.propose(1, "in flight");
        let handed_over = |group: &Group| group.delivered.get("MsgTimeoutNow").copied().unwrap_or(0);
        for tick in 1..=capacity_ticks() + 15 {
            for id in [1, 2, 3] {
                group.tick(id, 19);
            }
            others_work(&mut group);
            assert!(handed_over(&group) == 0 || tick >= capacity_ticks(), "it was only slow");
        }
        assert_eq!(handed_over(&group), 1);
        let leader = group.leader().unwrap();
        assert!(leader != 1, "another leads while the first still has no disk");
        assert!(group.words(leader).contains(&"in flight".to_owned()), "it had been told of everything");
        let term = group.driver(leader).raft.raft.term;
        group.pass(30, 1);
        assert_eq!((group.leader(), group.driver(leader).raft.raft.term), (Some(leader), term));
        assert_eq!(group.words(1), group.words(leader), "and the first follows when it is back");
    });
}

#[test]
fn whoever_asks_for_a_place_is_told_at_once_and_others_apply_what_stands_there() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        let elsewhere = group.place(2, "not here");
        assert_eq!(elsewhere.wait(group.soon()).await.unwrap(), Err(Refusal::NotLeader { leader: Some(1) }));
        let place = group.place(1, "in flight").wait(group.soon()).await.unwrap().unwrap();
        assert_eq!(place.term, group.driver(1).raft.raft.term);
        for _ in 0..5 {
            others_work(&mut group);
            group.tick(1, 19);
        }
        assert_eq!(group.words(2), ["in flight"]);
        assert!(
            group.words(1).is_empty() && group.driver(2).applied == place.index,
            "its own disk stands still"
        );
        group.settle();
        assert_eq!(group.words(1), ["in flight"]);
        assert!(group.driver(1).waiting.is_empty());
    });
}

#[test]
fn a_sole_voter_whose_vote_is_not_durable_tells_no_place() {
    with_group(async |mut group| {
        group.found(&[1]);
        for _ in 0..30 {
            group.tick(1, 10);
        }
        assert!(group.driver(1).leads() && group.driver(1).line.promises());
        let early = group.place(1, "early").wait(group.soon()).await.unwrap();
        assert_eq!(early, Err(Refusal::NotLeader { leader: None }));
        group.settle();
        assert!(group.place(1, "later").wait(group.soon()).await.unwrap().is_ok());
    });
}

/// All disks work but that of the first, which leads.
fn others_work(group: &mut Group) {
    for _ in 0..5 {
        group.deliver_all();
        group.sync(2);
        group.sync(3);
    }
}

fn capacity_ticks() -> u64 {
    crate::raft::capacity::STALLED_TICKS
}

#[test]
fn a_leader_without_a_successor_stays_and_goes_on_when_the_disk_is_back() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        group.pass(12, 1);
        let reply = group.propose(1, "late");
        // Nobody's disk works, so nobody acknowledges.
        for _ in 0..capacity_ticks() + 5 {
            group.tick(1, 19);
            group.deliver_all();
        }
        assert!(!group.on_the_wire().iter().any(|message| message.2 == MsgTimeoutNow));
        group.settle();
        group.pass(15, 1);
        // Without a quorum it stepped down, and leads again.
        assert_eq!(group.leader(), Some(1));
        assert_eq!(reply.wait(group.soon()).await, Err(ReplyError::Dropped));
        assert_eq!(group.words(1), ["late"]);
    });
}

#[test]
fn a_leader_whose_hand_over_fails_resigns() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        propose_all(&mut group, 1, &words(0..3));
        group.tell(1, GroupInput::MayVote(false));
        assert!(group.on_the_wire().iter().any(|message| message.2 == MsgTimeoutNow), "told, not guessed");
        while !group.on_the_wire().is_empty() {
            group.take(0);
        }
        for _ in 0..12 {
            group.tick(1, 19);
            group.sync(1);
            for at in (0..group.on_the_wire().len()).rev() {
                let message = group.take(at);
                if message.get_msg_type() != MsgTimeoutNow {
                    group.put_back(message);
                }
            }
            group.settle();
        }
        assert!(!group.driver(1).leads(), "so that others elect");
        group.pass(25, 2);
        assert_eq!(group.leader(), Some(2));
    });
}

#[test]
fn a_member_whose_journal_stands_still_neither_votes_nor_campaigns() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.settle();
        group.tell(3, GroupInput::MayVote(false));
        for _ in 0..40 {
            group.tick(3, 10);
            group.sync(3);
        }
        assert_eq!(group.on_the_wire(), []);
        group.isolate(2);
        group.pass(40, 1);
        assert_eq!(group.leader(), None, "one of three cannot lead");
        group.tell(3, GroupInput::MayVote(true));
        group.pass(15, 1);
        assert_eq!(group.leader(), Some(1));
    });
}

#[test]
fn messages_are_heard_while_the_journal_takes_nothing() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        let node = group.node(2);
        node.driver.retry_at = Some(node.driver.backend.now() + Duration::from_secs(3_600));
        let (input, soon) = (GroupInput::MayVote(false), group.soon());
        let node = group.node(2);
        assert!(node.peers.try_send(input).is_ok());
        let event = node.driver.next_event(soon).await.unwrap();
        node.driver.handle(event);
        assert!(node.driver.office.told_not_to_vote);
    });
}

#[test]
fn a_follower_that_hears_much_while_its_disk_stands_still_holds_little() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        let _ = group.propose(1, "a");
        group.deliver_all();
        for _ in 0..2_000 {
            group.tick(1, 19);
            group.deliver_all();
            group.sync(1);
            group.sync(3);
        }
        assert!(group.node(2).journal.pending() <= 3);
        group.settle();
        group.pass(3, 1);
        assert_eq!(group.words(2), ["a"]);
    });
}

#[test]
fn a_full_disk_takes_what_a_process_begins_with_and_nothing_else() {
    with_group(async |mut group| {
        group.found(&[1]);
        group.elect(1);
        group.node(1).journal.fill(true);
        let registration = group.propose(1, "registration");
        group.settle();
        assert!(registration.wait(group.soon()).await.unwrap().is_ok());
        let more = group.propose(1, "more");
        assert_eq!(more.wait(group.soon()).await.unwrap().err(), Some(Refusal::DiskFull));
        group.node(1).journal.fill(false);
        let later = group.propose(1, "later");
        group.settle();
        assert!(later.wait(group.soon()).await.unwrap().is_ok());
        assert_eq!(group.words(1), ["registration", "later"]);
    });
}
