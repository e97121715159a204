//! Elections, decisions and snapshots of several members.

use io_backend::channel::ReplyError;
use raft::eraftpb::MessageType::*;

use super::group::{Group, members, propose_all, with_group, words};
use super::*;
use crate::journal::EntryKind;
use crate::raft::MemberChange;
use crate::raft::memory_journal::MemoryJournal;

#[test]
fn three_begin_a_group_and_elect_one_of_them() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        for _ in 0..19 {
            group.tick(1, 10);
        }
        assert_eq!(group.on_the_wire(), [], "nothing is said before the beginning is durable");
        group.elect(1);
        for id in [1, 2, 3] {
            assert_eq!(group.driver(id).machine.leader, Some(1));
        }
    });
}

#[test]
fn what_is_decided_is_applied_by_all_and_answered_by_the_leader() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(2);
        let reply = group.propose(2, "a");
        let elsewhere = group.propose(1, "b");
        group.settle();
        assert!(reply.wait(group.soon()).await.unwrap().is_ok());
        let refused = elsewhere.wait(group.soon()).await.unwrap();
        assert_eq!(refused, Err(Refusal::NotLeader { leader: Some(2) }));
        group.pass(3, 2);
        for id in [1, 2, 3] {
            assert_eq!(group.words(id), ["a"]);
        }
    });
}

#[test]
fn a_vote_leaves_when_it_is_durable_and_is_kept() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.settle();
        group.isolate(3);
        for _ in 0..10 {
            group.tick(1, 10);
        }
        group.sync(1);
        group.deliver_all();
        group.sync(2);
        group.deliver_all();
        assert_eq!(group.on_the_wire(), [], "the candidate's own vote is not durable yet");
        group.sync(1);
        assert!(group.on_the_wire().contains(&(1, 2, MsgRequestVote)));
        group.deliver_all();
        assert_eq!(group.on_the_wire(), [], "nor is the voter's");
        group.sync(2);
        assert!(group.on_the_wire().contains(&(2, 1, MsgRequestVoteResponse)));
        let before = group.driver(2).raft.store().hard.clone();
        group.restart(2);
        let after = group.driver(2).raft.store().hard.clone();
        assert_eq!((before.vote, before.term), (1, after.term));
        assert_eq!(after.vote, 1);
    });
}

/// Ticks of all until somebody else leads; the silent one is not asked.
fn ticks_until_led(group: &mut Group) -> usize {
    for ticks in 1..10 {
        for id in group.ids() {
            group.tick(id, 19);
        }
        group.settle();
        if group.leader().is_some() {
            return ticks;
        }
    }
    panic!("nobody leads");
}

#[test]
fn a_leader_that_ended_is_replaced_long_before_an_election_would_begin_by_itself() {
    for (leader, left) in [(1, [2, 3]), (2, [1, 3]), (3, [1, 2])] {
        with_group(async |mut group| {
            group.found(&[1, 2, 3]);
            group.elect(leader);
            group.nodes.remove(&leader);
            left.into_iter().for_each(|id| group.tell(id, GroupInput::Unreachable(leader)));
            let ticks = ticks_until_led(&mut group);
            assert!(ticks <= 5, "{ticks} ticks");
        });
    }
}

#[test]
fn a_link_that_is_lost_while_the_leader_is_heard_changes_nothing() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        let term = group.driver(1).raft.raft.term;
        for _ in 0..5 {
            group.tell(2, GroupInput::Unreachable(1));
            group.pass(6, 1);
        }
        // Nor where one of them does not hear it: the other one does, and gives it no vote.
        group.cut.extend([(1, 2), (2, 1)]);
        group.tell(2, GroupInput::Unreachable(1));
        group.pass(9, 1);
        assert_eq!(group.leader(), Some(1));
        for id in [1, 2, 3] {
            assert_eq!(group.driver(id).raft.raft.term, term, "{id}");
        }
    });
}

#[test]
fn a_leader_that_is_asked_to_hands_over_at_once_and_others_hand_over_nothing() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        let hand_over = |group: &mut Group, id: u64| {
            let (replier, reply) = group.node(id).mailbox.reply("hand-over");
            let asked = vec![RaftInput::HandOver(replier)];
            group.driver(id).handle(Event::Inputs { of_the_group: Vec::new(), asked });
            group.step(id);
            reply
        };
        assert_eq!(hand_over(&mut group, 2).wait(group.soon()).await, Ok(None));
        let successor = hand_over(&mut group, 1).wait(group.soon()).await.unwrap().unwrap();
        group.settle();
        assert_eq!(group.leader(), Some(successor));
        assert_ne!(successor, 1);
    });
}

#[test]
fn a_member_that_was_away_for_long_gets_a_snapshot() {
    with_group(async |mut group| {
        group.snapshot_every_entries = 10;
        group.found(&[1, 2, 3]);
        group.elect(1);
        group.isolate(3);
        let all = words(0..35);
        propose_all(&mut group, 1, &all);
        assert!(group.words(3).is_empty());
        group.cut.clear();
        group.pass(4, 1);
        assert_eq!(group.words(3), all);
        assert!(group.driver(3).raft.store().snapshot.get_metadata().index > FOUNDED);
        group.restart(3);
        group.pass(4, 1);
        assert_eq!(group.words(3), all, "it is in its journal");
    });
}

#[test]
fn what_nobody_committed_does_not_come_back_behind_a_snapshot() {
    with_group(async |mut group| {
        group.snapshot_every_entries = 10;
        group.file_entries = 1_000;
        group.found(&[1, 2, 3]);
        group.elect(3);
        group.isolate(3);
        for word in words(100..140) {
            drop(group.propose(3, &word));
            group.sync(3);
        }
        group.settle();
        group.pass(25, 1);
        let all = words(0..15);
        propose_all(&mut group, 1, &all);
        group.cut.clear();
        for _ in 0..100 {
            if group.driver(3).applied > FOUNDED + 1 {
                break;
            }
            for at in (0..group.on_the_wire().len()).rev() {
                let message = group.take(at);
                group.deliver(message);
            }
            group.ids().into_iter().for_each(|id| group.sync(id));
            group.tick(1, 19);
        }
        group.restart(3);
        let last = group.driver(1).raft.raft.raft_log.last_index();
        assert!(group.driver(3).applied > FOUNDED + 1, "it took a snapshot over");
        assert!(group.driver(3).raft.raft.raft_log.last_index() <= last, "40 more stood in its log");
        group.pass(5, 1);
        assert_eq!(group.words(3), all);
    });
}

#[test]
fn a_snapshot_of_which_nothing_is_heard_is_sent_again() {
    with_group(async |mut group| {
        group.snapshot_every_entries = 10;
        group.found(&[1, 2, 3]);
        group.elect(1);
        group.isolate(3);
        let all = words(0..35);
        propose_all(&mut group, 1, &all);
        group.cut.clear();
        let mut lost = 0;
        for _ in 0..700 {
            group.tick(1, 19);
            group.sync(1);
            while !group.on_the_wire().is_empty() {
                let message = group.take(0);
                if message.get_msg_type() == MsgSnapshot && lost == 0 {
                    // Whoever was to carry it says nothing either.
                    lost += 1;
                } else {
                    group.deliver(message);
                }
                group.sync(2);
                group.sync(3);
            }
        }
        assert_eq!((lost, group.words(3)), (1, all));
    });
}

#[test]
fn a_snapshot_counts_when_all_of_it_is_durable() {
    with_group(async |mut group| {
        group.snapshot_every_entries = 10;
        group.found(&[1, 2, 3]);
        group.elect(1);
        group.isolate(3);
        let all = words(0..35);
        propose_all(&mut group, 1, &all);
        group.cut.clear();
        for _ in 0..2 {
            group.tick(1, 19);
        }
        while group.nodes[&3].journal.entries_in_flight() < 3 {
            group.deliver_all();
            group.sync(1);
            group.sync(2);
            if group.nodes[&3].journal.entries_in_flight() < 3 {
                group.sync(3);
                group.tick(1, 19);
            }
        }
        let pieces = group.nodes[&3].journal.entries_in_flight();
        assert!(pieces > 5, "a snapshot in several pieces: {pieces}");
        group.node(3).journal.sync_entries(pieces - 2);
        group.step(3);
        assert!(group.words(3).is_empty(), "nothing is in the state machine that a crash would take back");
        group.restart(3);
        assert!(group.words(3).is_empty());
        group.pass(15, 1);
        assert_eq!(group.words(3), all);
    });
}

#[test]
fn a_step_larger_than_the_journal_takes_goes_in_parts_and_may_be_torn_anywhere() {
    for durable in 0..16 {
        with_group(async |mut group| {
            group.submission_max = 4;
            group.found(&[1, 2, 3]);
            group.elect(1);
            group.isolate(3);
            let all = words(0..12);
            propose_all(&mut group, 1, &all);
            group.cut.clear();
            // The leader's first append reaches the follower with all entries and their commit index.
            while group.nodes[&3].journal.entries_in_flight() < 12 {
                group.sync(3);
                group.tick(1, 19);
                group.deliver_all();
            }
            assert_eq!(group.nodes[&3].journal.largest_submission(), 4);
            group.node(3).journal.sync_entries(durable);
            group.step(3);
            group.restart(3);
            group.pass(4, 1);
            assert_eq!(group.words(3), all, "{durable} entries were durable");
        });
    }
}

#[test]
fn who_proposed_to_a_leader_that_lost_its_office_is_not_told_that_it_came_to_nothing() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        let known = group.propose(1, "known to all");
        group.deliver_all();
        group.isolate(1);
        let alone = group.propose(1, "known to nobody else");
        group.settle();
        group.pass(25, 2);
        assert_eq!(group.leader(), Some(2));
        assert!(!group.driver(1).leads(), "a leader that hears of no quorum steps down");
        for reply in [known, alone] {
            assert_eq!(reply.wait(group.soon()).await, Err(ReplyError::Dropped));
        }
        group.cut.clear();
        group.pass(5, 2);
        for id in [1, 2, 3] {
            assert_eq!(group.words(id), ["known to all"]);
        }
    });
}

#[test]
fn a_leader_is_confirmed_by_what_voters_say_after_it_was_asked() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        let at_once = group.confirm(1, true);
        group.settle();
        assert_eq!(at_once.wait(group.soon()).await, Ok(()));
        let with_the_next = group.confirm(1, false);
        group.settle();
        assert!(!group.driver(1).office.confirmations.waiting.is_empty(), "no heartbeat is due");
        group.pass(3, 1);
        assert_eq!(with_the_next.wait(group.soon()).await, Ok(()));
        let elsewhere = group.confirm(2, true);
        assert_eq!(elsewhere.wait(group.soon()).await, Err(ReplyError::Dropped));
        // What was sent before it was asked counts for nothing: it still believes to lead, and is not confirmed.
        for _ in 0..2 {
            group.tick(1, 10);
        }
        let stale = group.confirm(1, false);
        group.settle();
        group.isolate(1);
        group.pass(3, 1);
        assert!(group.driver(1).leads() && !group.driver(1).office.confirmations.waiting.is_empty());
        group.pass(25, 2);
        assert_eq!(stale.wait(group.soon()).await, Err(ReplyError::Dropped));
        // What was lost on the way is asked again with the next heartbeat.
        group.cut.clear();
        group.pass(5, 2);
        let first = group.confirm(2, true);
        let second = group.confirm(2, true);
        group.lose_messages_of(2);
        group.pass(5, 2);
        for confirmed in [first, second] {
            assert_eq!(confirmed.wait(group.soon()).await, Ok(()));
        }
    });
}

#[test]
fn who_leads_alone_confirms_itself() {
    with_group(async |mut group| {
        group.start(1, Begin::Alone, MemoryJournal::new());
        group.driver(1).raft.campaign().unwrap();
        group.settle();
        let confirmed = group.confirm(1, false);
        group.settle();
        assert_eq!(confirmed.wait(group.soon()).await, Ok(()));
    });
}

#[test]
fn an_empty_journal_does_not_vote_even_where_others_count_on_it() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(2);
        group.isolate(3);
        propose_all(&mut group, 2, &words(0..5));
        // 1 is replaced by an empty machine, 2 is away, and 3 has none of what was decided.
        group.nodes.remove(&1);
        group.lose_messages_of(1);
        group.start(1, Begin::Join, MemoryJournal::new());
        group.cut.clear();
        group.isolate(2);
        group.pass(60, 3);
        assert_eq!(group.leader().filter(|leader| *leader != 2), None);
        group.cut.clear();
        group.pass(40, 2);
        assert_eq!(group.leader(), Some(2));
        assert!(group.words(1).is_empty(), "it is a voter to them, and waits to be a learner");
        for change in [MemberChange::Remove(1), MemberChange::AddLearner(1)] {
            let changed = group.change(2, change);
            group.pass(3, 2);
            assert_eq!(changed.wait(group.soon()).await.unwrap(), Ok(()));
        }
        group.pass(10, 2);
        assert_eq!(group.words(1), words(0..5));
        let promoted = group.change(2, MemberChange::AddVoter(1));
        group.pass(3, 2);
        assert_eq!(promoted.wait(group.soon()).await.unwrap(), Ok(()));
        assert_eq!(members(&mut group, 1), (vec![1, 2, 3], vec![]));
    });
}

#[test]
fn of_five_that_are_parted_the_three_go_on() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3, 4, 5]);
        group.elect(1);
        propose_all(&mut group, 1, &words(0..2));
        for few in [1, 2] {
            for many in [3, 4, 5] {
                group.cut.extend([(few, many), (many, few)]);
            }
        }
        let lost = group.propose(1, "of the few");
        group.pass(30, 4);
        assert_eq!(group.leader(), Some(4));
        assert_eq!(lost.wait(group.soon()).await, Err(ReplyError::Dropped));
        propose_all(&mut group, 4, &["of the many".to_owned()]);
        group.cut.clear();
        group.pass(15, 4);
        let expected = [words(0..2), vec!["of the many".into()]].concat();
        for id in [1, 2, 3, 4, 5] {
            assert_eq!(group.words(id), expected);
        }
        assert_eq!(group.leader(), Some(4), "those who come back disturb nobody");
    });
}

#[test]
fn who_was_paused_hears_what_came_meanwhile_before_time_passes() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        for _ in 0..2 {
            group.tick(1, 19);
        }
        let heartbeat = (0..group.on_the_wire().len()).find(|at| group.on_the_wire()[*at].1 == 2).unwrap();
        let heartbeat = group.take(heartbeat);
        let soon = group.soon();
        let node = group.node(2);
        // Its last tick but one before it campaigns, long ago.
        node.driver.raft.raft.set_randomized_election_timeout(10);
        node.driver.raft.raft.election_elapsed = 9;
        node.driver.tick_at = Some(Moment::ZERO);
        let ticks = node.driver.office.ticks;
        for _ in 0..50 {
            assert!(node.peers.try_send(GroupInput::Messages(vec![heartbeat.clone()])).is_ok());
        }
        let event = node.driver.next_event(soon).await.unwrap();
        node.driver.handle(event);
        assert_eq!(node.driver.raft.raft.state, StateRole::Follower);
        assert_eq!(
            node.driver.raft.raft.election_elapsed, 1,
            "what came was heard, then it was a tick later"
        );
        assert_eq!(node.driver.office.ticks, ticks + 1);
    });
}

#[test]
fn the_journal_of_a_follower_begins_each_step_with_its_term() {
    with_group(async |mut group| {
        group.found(&[1, 2, 3]);
        group.elect(1);
        propose_all(&mut group, 1, &words(0..3));
        let kinds: Vec<EntryKind> =
            group.node(2).journal.entries().iter().map(|entry| entry.entry.kind).collect();
        let before_entries = kinds.windows(2).filter(|two| two[1] == EntryKind::RaftEntry);
        assert!(before_entries.clone().count() >= 4);
        assert!(before_entries.into_iter().all(|two| two[0] != EntryKind::RaftSnapshot));
    });
}
