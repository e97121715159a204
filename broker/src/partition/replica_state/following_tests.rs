//! A replica that follows, step by step.

use super::following::FollowError;
use super::tests::{Bench, ID, LATE, at};
use super::*;
use crate::ids::{BrokerId, PartitionEpoch, ProducerId};
use crate::log::batch::{self, ProducerStamp};
use crate::log::producers::Sequenced;
use crate::log::test_batches::BatchSpec;
use crate::partition::Durable;
use bytes::{Bytes, BytesMut};

const NOBODY: u32 = 0;

/// The batches of a leader of `epoch` from `base` on, one record each, of the idempotent producer 7.
fn records(epoch: i32, base: i64, count: i64) -> Bytes {
    let mut bytes = BytesMut::new();
    for offset in base..base + count {
        let spec =
            BatchSpec::records(1).producer(7, 0, offset as i32).timestamp(offset + 1_000 * i64::from(epoch));
        batch::stamp(&mut bytes, &spec.build(), Offset(offset), LeaderEpoch(epoch));
    }
    bytes.freeze()
}

/// What a leader says that has deleted nothing.
fn committed(high_watermark: i64) -> LeaderMarks {
    LeaderMarks { high_watermark: Offset(high_watermark), ..LeaderMarks::default() }
}

fn follow(bench: &mut Bench, epoch: i32) {
    bench.machine.handle_follow(LeaderEpoch(epoch), &mut Answers::default());
}

/// Takes records and submits them.
fn fetch(bench: &mut Bench, epoch: i32, base: i64, count: i64, high_watermark: i64) {
    let bytes = records(epoch, base, count);
    bench
        .machine
        .handle_fetched(LeaderEpoch(epoch), bytes, committed(high_watermark), &mut Answers::default())
        .unwrap();
    bench.submit();
}

/// The leader of `epoch` says that its epoch `of` ends at `end`.
fn diverging(bench: &mut Bench, epoch: i32, of: i32, end: i64) -> Answers<u32> {
    let mut answers = Answers::default();
    let asked = bench.machine.fetch_position();
    let told = (LeaderEpoch(of), Offset(end));
    bench.machine.handle_diverging(LeaderEpoch(epoch), asked, told, &mut answers).unwrap();
    answers
}

fn known(machine: &ReplicaState<u32>, sequence: i32) -> bool {
    let stamp = ProducerStamp { id: ProducerId(7), epoch: 0, base_sequence: sequence };
    matches!(machine.producers().check(stamp, 0, at(0)), Ok(Sequenced::Duplicate(_)))
}

fn is_next(machine: &ReplicaState<u32>, sequence: i32) -> bool {
    let stamp = ProducerStamp { id: ProducerId(7), epoch: 0, base_sequence: sequence };
    machine.producers().check(stamp, 0, at(0)) == Ok(Sequenced::Next)
}

#[test]
fn what_was_in_flight_before_a_truncation_does_not_count_as_synced_when_it_ends() {
    let mut bench = Bench::new();
    follow(&mut bench, 5);
    fetch(&mut bench, 5, 0, 8, 0);
    bench.durable();
    fetch(&mut bench, 5, 8, 3, 0);
    let old = bench.submitted;
    follow(&mut bench, 6);
    let answers = diverging(&mut bench, 6, 5, 6);
    assert_eq!(answers.cut, Some(Offset(6)), "what a checkpoint has of it does not count either");
    assert_eq!((bench.machine.synced(), bench.machine.view().log_end), (Offset(6), Offset(6)));
    // As much as there was before, of another leader, on its way.
    fetch(&mut bench, 6, 6, 9, 15);
    bench.durable_to(old);
    assert_eq!(bench.machine.synced(), Offset(6), "the old group ends");
    assert_eq!(bench.machine.high_watermark(), Offset(6));
    bench.durable();
    assert_eq!((bench.machine.synced(), bench.machine.high_watermark()), (Offset(15), Offset(15)));
    let restarted = bench.restarted();
    assert_eq!(restarted.epochs(), bench.machine.epochs());
    assert_eq!(restarted.view().log_end, Offset(15));
}

#[test]
fn no_checkpoint_begins_before_a_truncation_is_durable() {
    let mut bench = Bench::new();
    follow(&mut bench, 5);
    fetch(&mut bench, 5, 0, 8, 0);
    bench.durable();
    assert!(bench.machine.is_cut_durable());
    follow(&mut bench, 6);
    diverging(&mut bench, 6, 5, 6);
    assert!(
        !bench.machine.is_cut_durable() && bench.machine.has_queued(),
        "it goes to the journal by itself"
    );
    bench.submit();
    assert!(!bench.machine.is_cut_durable());
    bench.durable();
    assert!(bench.machine.is_cut_durable());
    assert_eq!(bench.restarted().view().log_end, Offset(6));
}

#[test]
fn a_refused_truncation_goes_with_what_is_fetched_next() {
    let mut bench = Bench::new();
    follow(&mut bench, 5);
    fetch(&mut bench, 5, 0, 8, 0);
    bench.durable();
    follow(&mut bench, 6);
    diverging(&mut bench, 6, 5, 6);
    bench.refuse(SubmitError::Stalled);
    assert!(!bench.machine.has_queued(), "not again at once");
    fetch(&mut bench, 6, 6, 1, 0);
    bench.durable();
    assert!(bench.machine.is_cut_durable());
    assert_eq!(bench.restarted().view().log_end, Offset(7));
}

#[test]
fn what_the_journal_refuses_is_fetched_again() {
    let mut bench = Bench::new();
    follow(&mut bench, 5);
    fetch(&mut bench, 5, 0, 3, 0);
    let taken =
        bench.machine.handle_fetched(LeaderEpoch(5), records(5, 3, 2), committed(0), &mut Answers::default());
    assert_eq!(taken, Ok(Offset(5)));
    let mut answers = Answers::default();
    bench.machine.stage(bench.now, &mut answers).unwrap();
    bench.machine.handle_refused(SubmitError::DiskFull, &mut answers);
    assert_eq!(answers.not_taken, Some(SubmitError::DiskFull));
    assert_eq!(bench.machine.fetch_position(), (LeaderEpoch(5), Offset(3)));
    assert!(is_next(&bench.machine, 3), "nor is anything remembered of it");
    fetch(&mut bench, 5, 3, 2, 0);
    bench.durable();
    assert_eq!(bench.machine.synced(), Offset(5));
}

#[test]
fn what_all_have_is_what_the_leader_of_this_epoch_has_told_last() {
    let mut bench = Bench::new();
    follow(&mut bench, 5);
    let hears = |bench: &mut Bench, held_by_all| {
        let marks = LeaderMarks { held_by_all: Offset(held_by_all), ..committed(0) };
        bench.machine.handle_fetched(LeaderEpoch(5), Bytes::new(), marks, &mut Answers::default()).unwrap();
        bench.machine.held_by_all()
    };
    assert_eq!(hears(&mut bench, 7), Offset(7));
    assert_eq!(hears(&mut bench, 3), Offset(3), "one has lost its disk");
    follow(&mut bench, 6);
    assert_eq!(bench.machine.held_by_all(), Offset(0));
    bench.machine.handle_resign(&mut Answers::default());
    assert_eq!(bench.machine.held_by_all(), Offset(0));
}

#[test]
fn a_follower_deletes_what_its_leader_has_deleted_once_it_is_committed_here_and_again_where_that_was_refused()
{
    let mut bench = Bench::new();
    follow(&mut bench, 5);
    let hears = |bench: &mut Bench, bytes, log_start| {
        let of_leader = LeaderMarks { log_start: Offset(log_start), ..committed(9) };
        bench.machine.handle_fetched(LeaderEpoch(5), bytes, of_leader, &mut Answers::default()).unwrap();
    };
    hears(&mut bench, records(5, 0, 6), 4);
    bench.submit();
    assert_eq!((bench.machine.lacking_log_start(), bench.machine.log_start()), (None, Offset(0)));
    bench.durable();
    assert!(bench.machine.moves_log_start_to(Offset(4)), "it is synced, and with that committed");
    bench.submit();
    bench.durable();
    assert_eq!(bench.machine.log_start(), Offset(4));
    hears(&mut bench, Bytes::new(), 5);
    bench.refuse(SubmitError::DiskFull);
    assert_eq!(bench.machine.lacking_log_start(), Some(Offset(5)));
    hears(&mut bench, records(5, 6, 1), 5);
    bench.submit();
    bench.durable();
    assert_eq!((bench.machine.lacking_log_start(), bench.machine.log_start()), (None, Offset(5)));
    hears(&mut bench, Bytes::new(), 7);
    follow(&mut bench, 6);
    assert_eq!(bench.machine.lacking_log_start(), None, "what another leader had deleted");
}

#[test]
fn what_is_too_much_for_the_journal_goes_in_smaller_entries() {
    let mut bench = Bench::new();
    follow(&mut bench, 5);
    let bytes = records(5, 0, 200);
    bench.machine.handle_fetched(LeaderEpoch(5), bytes, committed(0), &mut Answers::default()).unwrap();
    let (again, _) = {
        let mut answers = Answers::default();
        let before = bench.machine.stage(bench.now, &mut answers).unwrap().len();
        assert_eq!(before, 1);
        (bench.machine.handle_refused(SubmitError::TooLarge(1), &mut answers), answers)
    };
    assert_eq!(again, Refused::TooMuch);
    while bench.machine.entry_bytes_max > limits::PARTITION_ENTRY_BYTES_MIN {
        bench.machine.stage(bench.now, &mut Answers::default()).unwrap();
        bench.machine.handle_refused(SubmitError::TooLarge(1), &mut Answers::default());
    }
    bench.submit();
    bench.durable();
    assert!(bench.entries.len() > 2, "in {} entries", bench.entries.len());
    assert_eq!(bench.machine.synced(), Offset(200));
    assert_eq!(bench.restarted().view().log_end, Offset(200));
}

#[test]
fn an_epoch_that_got_no_record_is_not_asked_about_and_does_not_stay() {
    let mut bench = Bench::new();
    let lead = |bench: &mut Bench, epoch| {
        let in_sync = InSync::new([BrokerId(2)], [BrokerId(2)], 1);
        bench.machine.handle_lead(LeaderEpoch(epoch), in_sync, &mut Answers::default());
        bench.submit();
        bench.durable();
    };
    lead(&mut bench, 0);
    bench.append(BatchSpec::records(4));
    bench.durable();
    lead(&mut bench, 3);
    assert_eq!(bench.machine.epochs().latest(), LeaderEpoch(3));
    assert_eq!(bench.machine.fetch_position(), (LeaderEpoch(0), Offset(4)), "the epoch of the last record");
    follow(&mut bench, 4);
    diverging(&mut bench, 4, 0, 2);
    assert_eq!(bench.machine.fetch_position().1, Offset(0), "a batch goes as a whole");
    assert_eq!(bench.machine.epochs().entries(), [], "nor do epochs stay that begin at the cut");
}

#[test]
fn epochs_that_begin_at_the_cut_go_and_a_restart_agrees() {
    let mut bench = Bench::new();
    follow(&mut bench, 1);
    fetch(&mut bench, 1, 0, 4, 0);
    follow(&mut bench, 2);
    fetch(&mut bench, 2, 4, 2, 0);
    bench.durable();
    follow(&mut bench, 3);
    diverging(&mut bench, 3, 1, 4);
    bench.submit();
    bench.durable();
    assert_eq!(bench.machine.epochs().entries(), [(LeaderEpoch(1), Offset(0))]);
    assert_eq!(bench.restarted().epochs(), bench.machine.epochs());
}

#[test]
fn producers_are_rolled_back_exactly_as_far_as_a_truncation_may_reach() {
    let mut bench = Bench::new();
    follow(&mut bench, 1);
    // More than are kept of what is settled.
    fetch(&mut bench, 1, 0, 12, 5);
    bench.durable();
    fetch(&mut bench, 1, 12, 8, 5);
    bench.durable();
    follow(&mut bench, 2);
    let snapshot = bench.machine.producers().as_of(Offset(20), Offset(5));
    let restarted = RecoveredLog {
        log_end: Offset(20),
        lsn: Lsn(bench.submitted),
        epochs: bench.machine.epochs().clone(),
        producers: Producers::restored(snapshot),
        high_watermark: Offset(5),
        ..RecoveredLog::default()
    };
    let mut again = Bench::with(ReplicaState::new(ID, Incarnation(1), false, restarted));
    follow(&mut again, 2);
    for bench in [&mut bench, &mut again] {
        diverging(bench, 2, 1, 8);
        assert!(known(&bench.machine, 7) && known(&bench.machine, 4), "what is there is known again");
        assert!(is_next(&bench.machine, 8), "and what is gone may come");
    }
}

#[test]
fn who_loses_an_epoch_does_not_know_what_becomes_of_its_records() {
    let mut bench = Bench::new();
    let in_sync = InSync::new([BrokerId(2)], [BrokerId(2)], 1);
    bench.machine.handle_lead(LeaderEpoch(5), in_sync, &mut Answers::default());
    bench.submit();
    bench.durable();
    bench.append(BatchSpec::records(4));
    bench.enqueue(BatchSpec::records(1), Acks::Leader);
    bench.submit();
    let mut answers = Answers::default();
    bench.machine.handle_follow(LeaderEpoch(6), &mut answers);
    let told: Vec<_> =
        answers.appends.into_iter().map(|(ticket, answer)| (ticket, answer.unwrap_err())).collect();
    assert_eq!(told, [(2, AppendError::Unknown), (1, AppendError::Unknown)]);
    // Others' records reach the same offsets.
    fetch(&mut bench, 6, 5, 2, 7);
    assert_eq!(bench.durable().appends, []);
    assert_eq!(bench.machine.high_watermark(), Offset(7));
}

#[test]
fn who_takes_back_what_others_may_have_leads_only_under_a_later_epoch() {
    for (in_sync, resigned) in
        [(InSync::new([BrokerId(2)], [], 1), Some(LeaderEpoch(5))), (InSync::alone(), None)]
    {
        let mut bench = Bench::new();
        bench.machine.handle_lead(LeaderEpoch(5), in_sync.clone(), &mut Answers::default());
        bench.submit();
        bench.durable();
        bench.append(BatchSpec::records(4));
        let answers = bench.fail_from(bench.submitted - 1, bench.submitted);
        assert_eq!((answers.resigned, bench.machine.view().leading), (resigned, resigned.is_none()));
        if resigned.is_some() {
            let mut answers = Answers::default();
            bench.machine.handle_lead(LeaderEpoch(5), in_sync, &mut answers);
            assert_eq!(answers.led, [(LeaderEpoch(5), Err(AppendError::NotLeader(ID)))]);
            assert_eq!(bench.lead(6), [(LeaderEpoch(6), Ok(()))]);
        }
    }
}

#[test]
fn who_got_a_second_replica_while_something_was_taken_back_leads_only_under_a_later_epoch() {
    let mut bench = Bench::leading();
    bench.append(BatchSpec::records(4));
    bench.fail_from(bench.submitted - 1, bench.submitted);
    let mut answers = Answers::default();
    bench.machine.handle_in_sync(
        LeaderEpoch(0),
        |known| known.change_to(InSync::new([BrokerId(2)], [], 1)),
        &mut answers,
    );
    assert_eq!(answers.resigned, Some(LeaderEpoch(0)));
}

#[test]
fn an_epoch_start_in_flight_does_not_cover_what_came_since() {
    let mut bench = Bench::new();
    bench.machine.handle_lead(
        LeaderEpoch(3),
        InSync::new([BrokerId(2)], [BrokerId(2)], 1),
        &mut Answers::default(),
    );
    bench.submit();
    follow(&mut bench, 4);
    // The leader of 4 has records of an epoch before 3.
    let bytes = records(2, 0, 3);
    bench.machine.handle_fetched(LeaderEpoch(4), bytes, committed(0), &mut Answers::default()).unwrap();
    bench.submit();
    bench.durable();
    assert_eq!(bench.machine.epochs().entries(), [(LeaderEpoch(2), Offset(0))]);
    assert_eq!(bench.restarted().epochs(), bench.machine.epochs());
}

#[test]
fn a_follower_joins_with_all_that_its_leader_began_with() {
    let mut bench = Bench::leading();
    bench.append(BatchSpec::records(6));
    bench.durable();
    let mut bench = Bench::with(bench.restarted());
    bench.submitted = 100;
    bench.machine.handle_lead(LeaderEpoch(1), InSync::new([BrokerId(2)], [], 2), &mut Answers::default());
    bench.submit();
    bench.durable();
    assert_eq!(bench.machine.high_watermark(), Offset(0), "too few to say what is committed");
    let has = |bench: &mut Bench, offset, log_start| {
        let change = |known: &mut InSync| {
            known.fetched(BrokerId(2), Offset(offset));
            known.reported(BrokerId(2), Durable { synced: Offset(offset), log_start: Offset(log_start) });
        };
        bench.machine.handle_in_sync(LeaderEpoch(1), change, &mut Answers::default());
        bench.machine.may_join(BrokerId(2))
    };
    assert_eq!(
        [0, 5, 6].map(|offset| has(&mut bench, offset, 0)),
        [false, false, true],
        "some of it may have been committed in an earlier epoch"
    );
    let enough = |known: &mut InSync| known.change_to(InSync::new([BrokerId(2)], [], 1));
    bench.machine.handle_in_sync(LeaderEpoch(1), enough, &mut Answers::default());
    bench.machine.handle_log_start(Offset(4));
    bench.submit();
    bench.durable();
    assert_eq!(
        [3, 4].map(|start| has(&mut bench, 6, start)),
        [false, true],
        "it would bring back what is deleted"
    );
    let mut join = |epoch| {
        let asked = vec![BrokerId(2), BrokerId(3)];
        bench.machine.handle_joining(LeaderEpoch(epoch), PartitionEpoch(7), asked, &mut Answers::default())
    };
    assert_eq!(join(0), None, "it leads in another epoch");
    assert_eq!(join(1), Some(vec![BrokerId(2)]), "of 3 nothing is known");
    assert_eq!(bench.machine.low_watermark(), Some(Offset(4)));
    has(&mut bench, 6, 3);
    assert_eq!(bench.machine.low_watermark(), Some(Offset(3)), "from then on it counts");
    let late = bench.machine.handle_joining(
        LeaderEpoch(1),
        PartitionEpoch(7),
        vec![BrokerId(2)],
        &mut Answers::default(),
    );
    assert_eq!(late, Some(vec![]), "what was deleted since it was looked at");
}

#[test]
fn whose_log_ends_where_its_leaders_begins_with_other_records_has_left_it_before() {
    let mut bench = Bench::leading();
    bench.append(BatchSpec::records(4));
    bench.durable();
    for epoch in [1, 2] {
        bench.machine.handle_lead(LeaderEpoch(epoch), InSync::alone(), &mut Answers::default());
        bench.submit();
        bench.durable();
        let left = |bench: &Bench, epoch, at| {
            let (epoch, at) = (LeaderEpoch(epoch), Offset(at));
            (bench.machine.had_left(epoch, at), bench.machine.has_deleted_all_of(epoch, at))
        };
        if epoch == 1 {
            bench.append(BatchSpec::records(4));
            bench.durable();
            bench.machine.handle_log_start(Offset(8));
            bench.submit();
            bench.durable();
        }
        assert_eq!(
            left(&bench, 0, 8),
            (true, true),
            "epoch {epoch}: from 4 on it has what is not the leader's"
        );
        assert_eq!(left(&bench, 1, 8), (false, false), "epoch {epoch}: it has all that was there");
        assert_eq!(left(&bench, 1, 9), (false, false), "epoch {epoch}: it is told where the two part");
        assert_eq!(left(&bench, -1, 8), (false, false), "epoch {epoch}: it has begun anew");
        assert_eq!(left(&bench, 0, 7), (false, true), "epoch {epoch}");
    }
}

#[test]
fn answers_of_other_epochs_and_to_other_questions_change_nothing() {
    let mut bench = Bench::new();
    follow(&mut bench, 5);
    fetch(&mut bench, 5, 0, 4, 0);
    let before = bench.machine.view();
    let mut answers = Answers::default();
    let epoch = LeaderEpoch(5);
    let took = bench.machine.handle_fetched(LeaderEpoch(4), records(4, 4, 1), committed(9), &mut answers);
    assert_eq!(took, Err(FollowError::OtherEpoch(LeaderEpoch(4))));
    let took = bench.machine.handle_fetched(epoch, records(5, 6, 1), committed(9), &mut answers);
    assert_eq!(took, Err(FollowError::NotNext { expected: Offset(4), found: Offset(6) }));
    let damaged = {
        let mut bytes = BytesMut::from(&records(5, 4, 1)[..]);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bytes.freeze()
    };
    let took = bench.machine.handle_fetched(epoch, damaged, committed(9), &mut answers);
    assert!(matches!(took, Err(FollowError::Damaged(_))), "{took:?}");
    let old = bench.machine.handle_diverging(epoch, (epoch, Offset(3)), (epoch, Offset(1)), &mut answers);
    assert!(matches!(old, Err(FollowError::NotNext { .. })), "{old:?}");
    assert_eq!(bench.machine.view(), before);
    bench.machine.enqueue(Append {
        batches: vec![BatchSpec::records(1).checked()],
        acks: Acks::All,
        deadline: LATE,
        ticket: NOBODY,
    });
    let told = bench.submit();
    assert!(
        matches!(told[..], [(NOBODY, Err(AppendError::NotLeader(_)))]),
        "a follower takes no client's records"
    );
}

#[test]
fn below_the_minimum_nothing_is_taken_that_is_to_be_committed_and_not_much_else() {
    let mut bench = Bench::new();
    bench.machine.handle_lead(LeaderEpoch(1), InSync::new([BrokerId(2)], [], 2), &mut Answers::default());
    bench.submit();
    bench.durable();
    let written = bench.entries.len();
    assert_eq!(bench.append(BatchSpec::records(1)), [(1, Err(AppendError::NotEnoughReplicas))]);
    assert_eq!(bench.entries.len(), written, "nothing was written");
    let large = || BatchSpec::records(1).value_bytes(1 << 20);
    let takes = |bench: &mut Bench| {
        bench.enqueue(large(), Acks::Leader);
        bench.submit().is_empty()
    };
    let taken = (0..100).take_while(|_| takes(&mut bench)).count();
    assert_eq!(
        taken,
        limits::UNCOMMITTED_BYTES_MAX / (1 << 20) - 1,
        "what a batch has beside its records counts"
    );
    let of = |bench: &mut Bench, in_sync: InSync| {
        bench.machine.handle_in_sync(
            LeaderEpoch(1),
            |known| known.change_to(in_sync),
            &mut Answers::default(),
        );
    };
    of(&mut bench, InSync::new([BrokerId(2)], [BrokerId(2)], 2));
    assert!(takes(&mut bench) && bench.append(BatchSpec::records(1)).is_empty());
    of(&mut bench, InSync::new([BrokerId(2)], [], 2));
    assert!(takes(&mut bench), "it is counted anew");
}
