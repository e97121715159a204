//! Members come and go.

use raft::eraftpb::MessageType::*;

use super::group::{members, propose_all, with_group, words};
use super::*;
use crate::raft::memory_journal::MemoryJournal;
use crate::raft::{MemberChange, MembersRefusal};

#[test]
fn a_group_grows_from_one_member_and_lets_its_first_go() {
    with_group(async |mut group| {
        group.start(1, Begin::Alone, MemoryJournal::new());
        group.driver(1).raft.campaign().unwrap();
        group.settle();
        assert_eq!(group.driver(1).tick_at, None, "alone it rests");
        propose_all(&mut group, 1, &words(0..3));
        let mut expected = words(0..3);
        for id in [2, 3] {
            group.start(id, Begin::Join, MemoryJournal::new());
            assert_eq!(group.driver(id).tick_at, None);
            let added = group.change(1, MemberChange::AddLearner(id));
            group.settle();
            assert_eq!(added.wait(group.soon()).await.unwrap(), Ok(()));
            group.pass(6, 1);
            assert_eq!(group.words(id), expected);
            let promoted = group.change(1, MemberChange::AddVoter(id));
            group.pass(3, 1);
            assert_eq!(promoted.wait(group.soon()).await.unwrap(), Ok(()));
            let word = format!("with {id}");
            propose_all(&mut group, 1, std::slice::from_ref(&word));
            expected.push(word);
        }
        group.pass(3, 1);
        for id in [1, 2, 3] {
            assert_eq!(members(&mut group, id), (vec![1, 2, 3], vec![]));
            group.restart(id);
        }
        group.elect(1);
        for id in [1, 2, 3] {
            assert_eq!(members(&mut group, id), (vec![1, 2, 3], vec![]), "{id} after a restart");
        }
        let removed = group.change(1, MemberChange::Remove(1));
        group.settle();
        assert_eq!(removed.wait(group.soon()).await.unwrap(), Ok(()));
        group.pass(3, 2);
        let leader = group.leader().unwrap();
        assert!(leader != 1, "the furthest took over at once");
        expected.push("after".into());
        propose_all(&mut group, leader, &["after".to_owned()]);
        group.pass(30, 1);
        assert_eq!(group.leader(), Some(leader), "who was removed campaigns no more");
        group.pass(3, leader);
        assert_eq!((group.words(2), group.words(3)), (expected.clone(), expected));
    });
}

#[test]
fn a_learner_that_begins_again_with_an_older_snapshot_is_given_what_it_had_before() {
    with_group(async |mut group| {
        group.found(&[1, 2]);
        group.elect(1);
        group.start(3, Begin::Join, MemoryJournal::new());
        let added = group.change(1, MemberChange::AddLearner(3));
        group.settle();
        assert_eq!(added.wait(group.soon()).await, Ok(Ok(())));
        propose_all(&mut group, 1, &words(0..5));
        group.pass(4, 1);
        assert_eq!(group.words(3), words(0..5));
        // Its directory is lost. The leader goes back to a snapshot, and has it that the member acknowledged more.
        group.start(3, Begin::Join, MemoryJournal::new());
        group.tell(1, GroupInput::Unreachable(3));
        propose_all(&mut group, 1, &words(5..6));
        group.pass(20, 1);
        assert_eq!(group.words(3), words(0..6));
    });
}

#[test]
fn a_member_that_is_removed_hears_of_it() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        let removed = group.change(1, MemberChange::Remove(3));
        group.settle();
        assert_eq!(removed.wait(group.soon()).await.unwrap(), Ok(()));
        assert_eq!(members(&mut group, 3), (vec![1, 2], vec![]));
        assert!(!group.driver(3).raft.raft.promotable());
    });
}

#[test]
fn members_change_one_at_a_time_and_only_by_the_leader() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        let refusal = |refusal| Err(Refusal::Members(refusal));
        let first = group.change(1, MemberChange::AddLearner(4));
        let second = group.change(1, MemberChange::AddLearner(5));
        let elsewhere = group.change(2, MemberChange::AddLearner(5));
        let soon = group.soon();
        assert_eq!(second.wait(soon).await.unwrap(), refusal(MembersRefusal::OneAtATime));
        assert_eq!(elsewhere.wait(soon).await.unwrap(), Err(Refusal::NotLeader { leader: Some(1) }));
        group.settle();
        assert_eq!(first.wait(soon).await.unwrap(), Ok(()));
        let again = group.change(1, MemberChange::AddLearner(4));
        assert_eq!(again.wait(soon).await.unwrap(), Ok(()), "it is so already");
        let too_early = group.change(1, MemberChange::AddVoter(4));
        assert_eq!(too_early.wait(soon).await.unwrap(), refusal(MembersRefusal::HasNothing));
    });
}

#[test]
fn a_change_of_members_is_followed_when_a_restart_would_know_of_it() {
    with_group(async |mut group| {
        group.start(1, Begin::Alone, MemoryJournal::new());
        group.driver(1).raft.campaign().unwrap();
        group.settle();
        group.start(2, Begin::Join, MemoryJournal::new());
        let _ = group.change(1, MemberChange::AddLearner(2));
        group.pass(6, 1);
        let _ = group.change(1, MemberChange::AddVoter(2));
        let mut syncs = 0;
        while members(&mut group, 1).0 == [1] {
            group.node(1).journal.sync_entries(1);
            group.step(1);
            syncs += 1;
        }
        assert_eq!(syncs, 3, "hard state and entry, and then the commit index");
        group.restart(1);
        for _ in 0..40 {
            group.tick(1, 10);
            group.node(1).journal.sync();
        }
        assert!(!group.driver(1).leads(), "it knows of the other voter");
        assert_eq!(members(&mut group, 1).0, [1, 2]);
    });
}

#[test]
fn a_sole_voter_says_nothing_to_its_learners_in_a_term_that_it_could_forget() {
    with_group(async |mut group| {
        group.start(1, Begin::Alone, MemoryJournal::new());
        group.driver(1).raft.campaign().unwrap();
        group.settle();
        group.start(2, Begin::Join, MemoryJournal::new());
        let _ = group.change(1, MemberChange::AddLearner(2));
        group.pass(6, 1);
        group.restart(1);
        group.settle();
        for _ in 0..10 {
            group.tick(1, 10);
        }
        assert!(group.driver(1).leads());
        assert_eq!(group.on_the_wire(), []);
        group.sync(1);
        assert!(group.on_the_wire().contains(&(1, 2, MsgAppend)));
    });
}
