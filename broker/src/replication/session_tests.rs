use super::*;
use crate::ids::{Offset, TopicId};
use crate::partition::{Fetched, LeaderMarks};

const EPOCH: LeaderEpoch = LeaderEpoch(4);
const NOW: Moment = Moment(7);

fn id(index: i32) -> PartitionId {
    PartitionId { topic: TopicId::NIL, index }
}

fn synced(offset: i64) -> Durable {
    Durable { synced: Offset(offset), log_start: Offset::ZERO }
}

fn at(offset: i64) -> Position {
    Position {
        epoch: EPOCH,
        last_fetched_epoch: EPOCH,
        offset: Offset(offset),
        durable: synced(offset),
        told: LeaderMarks::default(),
    }
}

fn leads(log_end: i64) -> Option<LogState> {
    let [log_end, nothing] = [log_end, 0].map(Offset);
    Some(LogState {
        leading: true,
        epoch: EPOCH,
        log_end,
        synced: nothing,
        high_watermark: nothing,
        log_start: nothing,
        held_by_all: nothing,
    })
}

fn nothing_new() -> crate::partition::Fetched {
    Fetched::Records { batches: vec![], marks: LeaderMarks::default() }
}

/// Both ends, the first fetch taken by a leader whose logs end at 10.
fn both(partitions: &[i32]) -> (FollowerSession, LeaderSession) {
    let mut follower = FollowerSession::begin(SessionId(1));
    for partition in partitions {
        follower.ask(id(*partition), at(10), NOW);
    }
    let fetch = follower.fetch(BrokerEpoch(7), true);
    let mut leader = LeaderSession::begin(&fetch).expect("it is the first");
    leader.handle_fetch(&fetch, |_| leads(10)).unwrap();
    (follower, leader)
}

fn compare_all(leader: &mut LeaderSession) {
    for (partition, asked) in leader.take_due() {
        leader.handle_compared(partition, &asked);
    }
}

fn due(leader: &mut LeaderSession) -> Vec<i32> {
    leader.take_due().into_iter().map(|(partition, _)| partition.index).collect()
}

#[test]
fn a_fetch_of_partitions_without_news_says_nothing_of_them() {
    let (mut follower, mut leader) = both(&[1, 2, 3]);
    compare_all(&mut leader);
    for _ in 0..3 {
        assert!(follower.waits() && leader.owes());
        assert_eq!(follower.handle_answer(&leader.answer(vec![], None)), Ok(true));
        assert!(!follower.waits() && !leader.owes());
        let fetch = follower.fetch(BrokerEpoch(7), true);
        assert_eq!((fetch.asked.len(), fetch.forgotten.len()), (0, 0));
        leader.handle_fetch(&fetch, |_| leads(10)).unwrap();
        assert!(!leader.has_due());
    }
    leader.handle_moved(id(2), leads(11));
    assert_eq!(due(&mut leader), [2], "and is still asked for");
}

#[test]
fn what_was_answered_is_due_again_only_when_it_is_asked_for_again() {
    let (mut follower, mut leader) = both(&[1, 2]);
    compare_all(&mut leader);
    leader.handle_moved(id(1), leads(12));
    assert_eq!(due(&mut leader), [1]);
    let answer = leader.answer(vec![(id(1), EPOCH, Ok(nothing_new()))], Some(id(1)));
    leader.handle_moved(id(1), leads(14));
    assert!(!leader.has_due());
    assert_eq!(follower.handle_answer(&answer), Ok(true));
    follower.ask(id(1), at(12), NOW);
    let fetch = follower.fetch(BrokerEpoch(7), true);
    assert_eq!(fetch.asked, [(id(1), at(12))]);
    leader.handle_fetch(&fetch, |_| leads(14)).unwrap();
    assert_eq!(due(&mut leader), [1]);
}

#[test]
fn what_waits_to_be_asked_for_takes_back_no_report() {
    let (mut follower, _) = both(&[1]);
    let had = |offset| Position { durable: synced(offset), ..at(10) };
    [2, 3, 4].into_iter().for_each(|partition| follower.ask(id(partition), had(7), NOW));
    let before = LeaderEpoch(EPOCH.0 - 1);
    let reports = [(id(2), EPOCH, synced(9)), (id(3), before, synced(9)), (id(4), EPOCH, synced(12))];
    follower.synced(reports.to_vec(), true);
    let asked = follower.fetch(BrokerEpoch(7), true).asked;
    assert_eq!(asked, [(id(2), had(9)), (id(3), had(7)), (id(4), had(10))]);
}

#[test]
fn nobody_waits_any_more_for_what_was_taken_back() {
    let (mut follower, _) = both(&[1]);
    assert_eq!((follower.has_news(), follower.asks_since()), (false, None));
    follower.ask(id(2), at(10), NOW);
    follower.ask(id(3), at(10), Moment(9));
    assert_eq!(follower.asks_since(), Some(NOW));
    follower.forget(id(2));
    assert_eq!(follower.asks_since(), Some(NOW));
    follower.forget(id(3));
    assert_eq!((follower.has_news(), follower.asks_since()), (false, None));
    follower.forget(id(1));
    assert_eq!((follower.has_news(), follower.asks_since()), (true, None), "it is said with what comes next");
    follower.ask(id(2), at(10), NOW);
    follower.fetch(BrokerEpoch(7), true);
    assert_eq!((follower.has_news(), follower.asks_since()), (false, None));
}

#[test]
fn what_is_asked_for_under_an_epoch_that_the_leader_does_not_lead_in_waits_until_it_does() {
    let mut follower = FollowerSession::begin(SessionId(1));
    follower.ask(id(1), at(10), NOW);
    let fetch = follower.fetch(BrokerEpoch(7), true);
    let mut leader = LeaderSession::begin(&fetch).unwrap();
    let other = |change: fn(&mut LogState)| {
        let mut state = leads(10).unwrap();
        change(&mut state);
        Some(state)
    };
    leader.handle_fetch(&fetch, |_| None).unwrap();
    leader.handle_moved(id(1), other(|state| state.leading = false));
    leader.handle_moved(id(1), other(|state| state.epoch = LeaderEpoch(3)));
    leader.handle_moved(id(1), other(|state| state.epoch = LeaderEpoch(5)));
    assert!(!leader.has_due());
    leader.handle_moved(id(1), leads(10));
    assert_eq!(due(&mut leader), [1], "to be compared, if nothing else");
}

#[test]
fn another_high_watermark_or_log_start_is_news_and_what_all_have_once_it_is_all_or_less() {
    let (_, mut leader) = both(&[1]);
    compare_all(&mut leader);
    leader.handle_moved(id(1), leads(10));
    assert!(!leader.has_due());
    leader.handle_moved(id(1), leads(10).map(|state| LogState { high_watermark: Offset(1), ..state }));
    assert_eq!(due(&mut leader), [1]);
    leader.handle_moved(id(1), leads(10).map(|state| LogState { log_start: Offset(1), ..state }));
    assert_eq!(due(&mut leader), [1]);
    let marks = |high_watermark, held_by_all| LeaderMarks {
        high_watermark: Offset(high_watermark),
        held_by_all: Offset(held_by_all),
        ..LeaderMarks::default()
    };
    assert!(!marks(9, 5).is_news_after(marks(9, 4)), "another catches up");
    assert!(marks(9, 9).is_news_after(marks(9, 4)));
    assert!(marks(9, 3).is_news_after(marks(9, 4)), "who had it lost its disk");
    assert!(!marks(9, 9).is_news_after(marks(9, 9)));
}

#[test]
fn a_message_that_was_lost_ends_the_session() {
    let (mut follower, mut leader) = both(&[1]);
    let report = follower.synced(vec![(id(1), EPOCH, synced(10))], true);
    let fetch = follower.fetch(BrokerEpoch(7), true);
    assert_eq!(leader.handle_fetch(&fetch, |_| None), Err(Lost));
    assert_eq!(leader.handle_synced(&report), Ok(()));
    assert_eq!(leader.handle_synced(&report), Err(Lost), "nor is it doubled");
    assert_eq!(leader.handle_fetch(&fetch, |_| None), Ok(()));
    assert!(LeaderSession::begin(&fetch).is_none(), "no session begins in its middle");
    let other = Answer { session: SessionId(2), sequence: 9, number: 9, partitions: vec![] };
    assert!(follower.handle_answer(&other) == Ok(false) && follower.waits());
    let lost = leader.answer(vec![(id(1), EPOCH, Ok(nothing_new()))], None);
    leader.handle_fetch(&follower.fetch(BrokerEpoch(7), true), |_| None).unwrap();
    let next = leader.answer(vec![], None);
    assert_eq!(follower.handle_answer(&next), Err(Lost), "what was in the other is waited for");
    assert_eq!(follower.handle_answer(&lost), Ok(true));
}

#[test]
fn each_has_its_turn() {
    let (mut follower, mut leader) = both(&[1, 2, 3, 4]);
    assert_eq!(due(&mut leader), [1, 2, 3, 4]);
    [2, 3, 4].into_iter().for_each(|left| leader.handle_left(id(left)));
    let answer = leader.answer(vec![(id(1), EPOCH, Ok(nothing_new()))], Some(id(1)));
    assert_eq!(follower.handle_answer(&answer), Ok(true));
    follower.ask(id(1), at(12), NOW);
    leader.handle_fetch(&follower.fetch(BrokerEpoch(7), true), |_| leads(20)).unwrap();
    assert_eq!(due(&mut leader), [2, 3, 4, 1]);
    leader.answer(vec![(id(2), EPOCH, Ok(nothing_new()))], Some(id(2)));
    [1, 3, 4].into_iter().for_each(|left| leader.handle_left(id(left)));
    assert_eq!(due(&mut leader), [3, 4, 1]);
}

#[test]
fn what_is_forgotten_is_not_answered_and_may_be_asked_for_again() {
    let (mut follower, mut leader) = both(&[1, 2]);
    follower.forget(id(1));
    assert!(follower.has_news());
    let fetch = follower.fetch(BrokerEpoch(7), true);
    assert_eq!((fetch.asked.len(), &fetch.forgotten), (0, &vec![id(1)]));
    leader.handle_fetch(&fetch, |_| leads(10)).unwrap();
    assert!(!leader.is_asked(id(1), &at(10)) && leader.is_asked(id(2), &at(10)));
    assert_eq!(due(&mut leader), [2]);
    follower.forget(id(1));
    assert!(!follower.has_news(), "it is not asked for");
    follower.ask(id(1), at(10), NOW);
    follower.forget(id(1));
    assert!(!follower.has_news(), "nobody has heard of it");
}
