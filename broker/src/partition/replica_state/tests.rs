use super::replay::Replayed;
use super::*;
use crate::ids::{BrokerId, ProducerId, TopicId};
use crate::journal::{EntryKind, JournalEntry, SubmitError};
use crate::log::batch;
use crate::log::batch::ProducerStamp;
use crate::log::producers::Sequenced;
use crate::log::test_batches::BatchSpec;
use crate::partition::Durable;

type Outcome = (u32, Result<Appended, AppendError>);

pub(super) const ID: PartitionId = PartitionId { topic: TopicId::NIL, index: 3 };

/// A machine with a journal whose pace the test sets.
pub(super) struct Bench {
    pub(super) machine: ReplicaState<u32>,
    /// The last LSN given out; every submission takes as many as it has entries.
    pub(super) submitted: u64,
    pub(super) entries: Vec<(Lsn, JournalEntry)>,
    pub(super) now: Now,
    next_ticket: u32,
}

pub(super) fn at(millis: u64) -> Moment {
    Moment(millis * 1_000_000)
}

pub(super) const LATE: Deadline = Deadline::At(Moment(u64::MAX));

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::with(ReplicaState::new(ID, Incarnation(1), false, RecoveredLog::default()))
    }

    pub(super) fn with(machine: ReplicaState<u32>) -> Bench {
        let now = Now { moment: at(0), wall_ms: 5_000 };
        Bench { machine, submitted: 0, entries: Vec::new(), now, next_ticket: 0 }
    }

    pub(super) fn leading() -> Bench {
        let mut bench = Bench::new();
        bench.lead(0);
        bench
    }

    pub(super) fn lead(&mut self, epoch: i32) -> Vec<(LeaderEpoch, Result<(), AppendError>)> {
        let mut answers = Answers::default();
        self.machine.handle_lead(LeaderEpoch(epoch), InSync::alone(), &mut answers);
        let mut led = answers.led;
        self.submit();
        led.extend(self.durable().led);
        led
    }

    pub(super) fn enqueue(&mut self, spec: BatchSpec, acks: Acks) -> u32 {
        self.enqueue_until(spec, acks, LATE)
    }

    pub(super) fn enqueue_until(&mut self, spec: BatchSpec, acks: Acks, deadline: Deadline) -> u32 {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.machine.enqueue(Append { batches: vec![spec.checked()], acks, deadline, ticket });
        ticket
    }

    /// Submits what is queued; returns what is answered at once.
    pub(super) fn submit(&mut self) -> Vec<Outcome> {
        let mut answers = Answers::default();
        while self.machine.has_queued() {
            if let Some(entries) = self.machine.stage(self.now, &mut answers) {
                for entry in entries {
                    self.submitted += 1;
                    self.entries.push((Lsn(self.submitted), entry));
                }
                self.machine.handle_submitted(Lsn(self.submitted), &mut answers);
            }
        }
        answers.appends
    }

    pub(super) fn append(&mut self, spec: BatchSpec) -> Vec<Outcome> {
        self.enqueue(spec, Acks::All);
        self.submit()
    }

    pub(super) fn refuse(&mut self, error: SubmitError) -> (Refused, Vec<Outcome>) {
        let mut answers = Answers::default();
        let staged = self.machine.stage(self.now, &mut answers);
        assert!(staged.is_some(), "there was something to refuse");
        let wait = self.machine.handle_refused(error, &mut answers);
        (wait, answers.appends)
    }

    pub(super) fn durable(&mut self) -> Answers<u32> {
        self.durable_to(self.submitted)
    }

    pub(super) fn durable_to(&mut self, lsn: u64) -> Answers<u32> {
        let mut answers = Answers::default();
        self.machine.handle_progress(Lsn(lsn), None, &mut answers);
        answers
    }

    pub(super) fn fail_from(&mut self, reached: u64, failed: u64) -> Answers<u32> {
        let mut answers = Answers::default();
        self.machine.handle_progress(Lsn(reached), Some(Lsn(failed)), &mut answers);
        answers
    }

    /// What a process that starts from what the journal holds knows.
    pub(super) fn restarted(&self) -> ReplicaState<u32> {
        let mut machine = ReplicaState::new(ID, Incarnation(1), false, RecoveredLog::default());
        for (lsn, entry) in &self.entries {
            machine.replay(*lsn, entry).unwrap();
        }
        machine
    }
}

fn offsets(outcomes: &[Outcome]) -> Vec<(u32, i64)> {
    outcomes.iter().map(|(ticket, outcome)| (*ticket, outcome.as_ref().unwrap().base_offset.0)).collect()
}

fn errors(outcomes: Vec<Outcome>) -> Vec<(u32, AppendError)> {
    outcomes.into_iter().map(|(ticket, outcome)| (ticket, outcome.unwrap_err())).collect()
}

fn one(sequence: i32) -> BatchSpec {
    BatchSpec::records(1).producer(7, 0, sequence)
}

#[test]
fn nothing_is_acknowledged_or_shown_before_it_is_synced() {
    let mut bench = Bench::leading();
    let first = bench.enqueue(BatchSpec::records(3), Acks::All);
    let second = bench.enqueue(BatchSpec::records(2), Acks::Leader);
    assert_eq!(bench.submit(), []);
    let view = bench.machine.view();
    assert_eq!((view.high_watermark, view.log_end), (Offset(0), Offset(5)));
    let answers = bench.durable();
    assert_eq!(offsets(&answers.appends), [(second, 3), (first, 0)]);
    assert_eq!(bench.machine.view().high_watermark, Offset(5));
}

#[test]
fn appends_gathered_at_once_are_one_journal_entry() {
    let mut bench = Bench::leading();
    for _ in 0..10 {
        bench.enqueue(BatchSpec::records(2), Acks::All);
    }
    let before = bench.entries.len();
    bench.submit();
    assert_eq!(bench.entries.len(), before + 1);
    let (_, entry) = bench.entries.last().unwrap();
    assert_eq!((entry.kind, entry.base_offset), (EntryKind::Batch, Offset(0)));
    let bases: Vec<i64> = batch::Batches::new(&entry.payload).map(|b| b.unwrap().1.base_offset.0).collect();
    assert_eq!(bases, (0..10).map(|i| i * 2).collect::<Vec<_>>());
}

#[test]
fn large_appends_are_split_into_entries_and_submissions() {
    let mut bench = Bench::leading();
    let before = bench.entries.len();
    for _ in 0..12 {
        bench.enqueue(BatchSpec::records(1).value_bytes(600_000), Acks::All);
    }
    let mut answers = Answers::default();
    let entries = bench.machine.stage(bench.now, &mut answers).unwrap();
    assert!(entries.iter().all(|entry| entry.payload.len() <= limits::PARTITION_ENTRY_BYTES));
    let bytes: usize = entries.iter().map(|entry| entry.payload.len()).sum();
    assert!(bytes <= limits::PARTITION_SUBMIT_BYTES, "{bytes}");
    bench.submitted += entries.len() as u64;
    bench.machine.handle_submitted(Lsn(bench.submitted), &mut answers);
    bench.submit();
    assert_eq!(bench.machine.view().log_end, Offset(12));
    assert!(bench.submitted > before as u64);
    assert_eq!(bench.durable().appends.len(), 12);
}

#[test]
fn acks_none_is_answered_when_submitted() {
    let mut bench = Bench::leading();
    let ticket = bench.enqueue(BatchSpec::records(1), Acks::None);
    assert_eq!(offsets(&bench.submit()), [(ticket, 0)]);
}

#[test]
fn a_duplicate_waits_for_its_original() {
    let mut bench = Bench::leading();
    bench.append(one(0));
    assert_eq!(bench.append(one(0)), [], "the original is not durable yet");
    let lsn = bench.submitted;
    assert_eq!(bench.append(one(1)), []);
    let answers = bench.durable_to(lsn);
    assert_eq!(offsets(&answers.appends), [(1, 0), (2, 0)]);
    assert!(answers.appends[1].1.as_ref().unwrap().duplicate);
    let late = bench.append(one(0));
    assert_eq!(offsets(&late), [(4, 0)], "durable already: answered at once");
    assert_eq!(bench.machine.view().log_end, Offset(2), "nothing was written twice");
}

#[test]
fn a_duplicate_of_a_failed_original_is_not_known_either() {
    let mut bench = Bench::leading();
    bench.append(one(0));
    bench.append(one(0));
    let lsn = bench.submitted;
    let mut told = errors(bench.fail_from(lsn - 1, lsn).appends);
    told.sort_by_key(|(ticket, _)| *ticket);
    assert_eq!(told, [(1, AppendError::Unknown), (2, AppendError::Unknown)]);
}

#[test]
fn a_gap_in_sequence_is_refused_and_leaves_no_trace() {
    let mut bench = Bench::leading();
    bench.enqueue(one(0), Acks::All);
    let gap = bench.enqueue(one(2), Acks::All);
    bench.enqueue(one(1), Acks::All);
    let refused = AppendError::OutOfOrderSequence { producer: ProducerId(7), expected: 1, found: 2 };
    assert_eq!(errors(bench.submit()), [(gap, refused)]);
    assert_eq!(offsets(&bench.durable().appends), [(1, 0), (3, 1)]);
}

#[test]
fn a_batch_overtakes_no_first_one_that_was_refused_unless_that_came_by_another_node() {
    let mut bench = Bench::leading();
    let enqueue = |bench: &mut Bench, sequence: i32| {
        let batch = CheckedBatch { behind_refused_first: true, ..one(sequence).checked() };
        bench.next_ticket += 1;
        let (acks, deadline, ticket) = (Acks::All, LATE, bench.next_ticket);
        bench.machine.enqueue(Append { batches: vec![batch], acks, deadline, ticket });
        ticket
    };
    let early = enqueue(&mut bench, 1);
    let refused = AppendError::OutOfOrderSequence { producer: ProducerId(7), expected: 0, found: 1 };
    assert_eq!(errors(bench.submit()), [(early, refused)]);
    // What another leader took before this one comes from there.
    bench.append(one(0));
    bench.durable();
    let next = enqueue(&mut bench, 1);
    assert_eq!(bench.submit(), []);
    assert_eq!(offsets(&bench.durable().appends), [(next, 1)]);
}

#[test]
fn an_append_of_several_batches_is_written_whole_or_not_at_all() {
    let mut bench = Bench::leading();
    let batches = vec![one(0).checked(), one(5).checked()];
    bench.machine.enqueue(Append { batches, acks: Acks::All, deadline: LATE, ticket: 1 });
    let outcome = bench.submit();
    assert!(matches!(outcome[..], [(1, Err(AppendError::OutOfOrderSequence { expected: 1, .. }))]));
    assert_eq!(bench.machine.view().log_end, Offset(0));
    bench.next_ticket = 1;
    bench.append(one(0));
    assert_eq!(offsets(&bench.durable().appends), [(2, 0)]);
}

#[test]
fn what_the_journal_refuses_for_good_is_told_and_forgotten() {
    for error in [SubmitError::Stalled, SubmitError::DiskFull, SubmitError::Failed, SubmitError::Closed] {
        let mut bench = Bench::leading();
        bench.append(one(0));
        let ticket = bench.enqueue(one(1), Acks::All);
        let (wait, told) = bench.refuse(error);
        assert_eq!(wait, Refused::Told);
        assert_eq!(errors(told), [(ticket, AppendError::Storage(error))]);
        assert_eq!(bench.machine.view().log_end, Offset(1), "{error}");
        bench.append(one(1));
        assert_eq!(offsets(&bench.durable().appends), [(1, 0), (3, 1)], "the retry has the same place");
    }
}

#[test]
fn a_full_journal_is_waited_for_in_order() {
    let mut bench = Bench::leading();
    bench.enqueue(one(0), Acks::All);
    bench.enqueue(one(1), Acks::All);
    let (wait, told) = bench.refuse(SubmitError::Full);
    assert_eq!(wait, Refused::Full);
    assert_eq!(told, []);
    assert_eq!(bench.machine.view().log_end, Offset(0));
    let (bytes, _) = bench.machine.queue_wants(LATE);
    assert_eq!(bytes, 2 * one(0).build().len());
    bench.submit();
    assert_eq!(offsets(&bench.durable().appends), [(1, 0), (2, 1)]);
}

#[test]
fn behind_what_a_submission_takes_nobody_stands_past_its_deadline() {
    let mut bench = Bench::leading();
    for sequence in 0..4 {
        bench.enqueue(one(sequence), Acks::All);
    }
    assert_eq!(bench.refuse(SubmitError::TooLarge(1)), (Refused::TooMuch, vec![]));
    let last = bench.enqueue_until(one(4), Acks::All, Deadline::At(at(10)));
    assert_eq!(bench.machine.queue_wants(LATE).1, Deadline::At(at(10)));
    bench.now.moment = at(10);
    let (wait, told) = bench.refuse(SubmitError::Full);
    assert_eq!((wait, errors(told)), (Refused::Full, vec![(last, AppendError::Overloaded)]));
    assert_eq!(bench.machine.queue_wants(LATE).1, LATE, "or room is waited for until a time that has passed");
}

#[test]
fn what_is_too_much_at_once_goes_in_smaller_parts() {
    let mut bench = Bench::leading();
    for sequence in 0..4 {
        bench.enqueue(one(sequence), Acks::All);
    }
    assert_eq!(bench.refuse(SubmitError::TooLarge(1)), (Refused::TooMuch, vec![]));
    let before = bench.entries.len();
    bench.submit();
    assert_eq!(bench.entries.len(), before + 2);
    assert_eq!(offsets(&bench.durable().appends), [(1, 0), (2, 1), (3, 2), (4, 3)]);
    let alone = bench.enqueue(one(4), Acks::All);
    let (told, answers) = bench.refuse(SubmitError::TooLarge(1));
    assert_eq!((told, answers.len(), answers[0].0), (Refused::Told, 1, alone));
}

#[test]
fn past_its_deadline_an_append_is_refused_when_it_was_not_submitted_and_unknown_when_it_was() {
    let mut bench = Bench::leading();
    let submitted = bench.enqueue_until(one(0), Acks::All, Deadline::At(at(10)));
    bench.submit();
    let waiting = bench.enqueue_until(one(1), Acks::All, Deadline::At(at(10)));
    bench.now.moment = at(10);
    assert_eq!(
        errors(bench.submit()),
        [(submitted, AppendError::Unknown), (waiting, AppendError::Overloaded)]
    );
    assert_eq!(bench.durable().appends, [], "a late completion acknowledges nobody");
    assert_eq!(bench.machine.view().high_watermark, Offset(1), "but the record is there");
}

#[test]
fn a_failed_journal_takes_back_everything_from_the_failure_on() {
    let mut bench = Bench::leading();
    bench.append(one(0));
    let good = bench.submitted;
    bench.append(one(1));
    bench.append(one(2));
    let answers = bench.fail_from(good, good + 1);
    assert_eq!(answers.appends.iter().filter(|(_, outcome)| outcome.is_ok()).count(), 1);
    let unknown: Vec<u32> =
        answers.appends.iter().filter(|(_, o)| *o == Err(AppendError::Unknown)).map(|(t, _)| *t).collect();
    assert_eq!(unknown, [2, 3]);
    let view = bench.machine.view();
    assert_eq!((view.high_watermark, view.log_end, view.leading), (Offset(1), Offset(1), true));
    assert_eq!(bench.machine.tail().chunks().count(), 1);
}

#[test]
fn what_becomes_durable_behind_a_failure_is_not_acknowledged() {
    let mut bench = Bench::leading();
    bench.append(one(0));
    let failed = bench.submitted;
    bench.append(one(1));
    let answers = bench.fail_from(bench.submitted, failed);
    assert_eq!(errors(answers.appends), [(1, AppendError::Unknown), (2, AppendError::Unknown)]);
    assert_eq!(bench.machine.view().log_end, Offset(0));
}

#[test]
fn after_a_failure_the_next_submission_begins_with_a_truncation() {
    let mut bench = Bench::leading();
    bench.append(one(0));
    bench.durable();
    bench.append(BatchSpec::records(5).producer(7, 0, 1));
    let failed = bench.submitted;
    bench.fail_from(failed - 1, failed);
    // The producer sends it again, cut differently: it has another place and content now.
    bench.append(one(1));
    let kinds: Vec<(EntryKind, i64)> =
        bench.entries[2..].iter().map(|(_, entry)| (entry.kind, entry.base_offset.0)).collect();
    assert_eq!(kinds, [(EntryKind::Batch, 1), (EntryKind::Truncate, 1), (EntryKind::Batch, 1)]);
    assert_eq!(offsets(&bench.durable().appends), [(3, 1)]);
    // The failed entry has reached the medium all the same: a restart must not bring it back.
    let restarted = bench.restarted();
    assert_eq!(restarted.view().log_end, Offset(2));
    let stamp = |base_sequence| ProducerStamp { id: ProducerId(7), epoch: 0, base_sequence };
    assert_eq!(restarted.producers().check(stamp(2), 0, Moment(0)), Ok(Sequenced::Next));
}

#[test]
fn a_truncation_that_fails_is_owed_again() {
    let mut bench = Bench::leading();
    bench.append(one(0));
    bench.fail_from(bench.submitted - 1, bench.submitted);
    bench.append(one(0));
    bench.fail_from(1, bench.submitted - 1);
    bench.append(one(0));
    let kinds: Vec<EntryKind> = bench.entries.iter().rev().take(2).map(|(_, entry)| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::Batch, EntryKind::Truncate]);
    assert_eq!(offsets(&bench.durable().appends), [(3, 0)]);
}

#[test]
fn leading_begins_when_the_epochs_start_is_synced() {
    let mut bench = Bench::new();
    assert_eq!(errors(bench.append(one(0))), [(1, AppendError::NotLeader(ID))]);
    let mut answers = Answers::default();
    bench.machine.handle_lead(LeaderEpoch(4), InSync::alone(), &mut answers);
    bench.submit();
    assert!(answers.led.is_empty() && !bench.machine.view().leading);
    assert_eq!(bench.durable().led, [(LeaderEpoch(4), Ok(()))]);
    let view = bench.machine.view();
    assert_eq!((view.leading, view.leader_epoch), (true, LeaderEpoch(4)));
}

#[test]
fn leadership_is_taken_only_under_an_epoch_that_is_not_older() {
    let mut bench = Bench::new();
    assert_eq!(bench.lead(4), [(LeaderEpoch(4), Ok(()))]);
    assert_eq!(bench.lead(4), [(LeaderEpoch(4), Ok(()))], "asked again");
    assert_eq!(bench.lead(3), [(LeaderEpoch(3), Err(AppendError::NotLeader(ID)))]);
    assert_eq!(bench.lead(6), [(LeaderEpoch(6), Ok(()))]);
    bench.append(one(0));
    let (_, entry) = bench.entries.last().unwrap();
    assert_eq!(entry.leader_epoch, LeaderEpoch(6));
    let header = batch::BatchHeader::read(&entry.payload).unwrap();
    assert_eq!(header.leader_epoch, LeaderEpoch(6));
}

#[test]
fn an_epoch_start_that_is_refused_or_lost_is_not_leadership() {
    let mut bench = Bench::new();
    bench.machine.handle_lead(LeaderEpoch(1), InSync::alone(), &mut Answers::default());
    let mut answers = Answers::default();
    bench.machine.stage(bench.now, &mut answers).unwrap();
    bench.machine.handle_refused(SubmitError::Stalled, &mut answers);
    assert_eq!(answers.led, [(LeaderEpoch(1), Err(AppendError::Storage(SubmitError::Stalled)))]);
    bench.machine.handle_lead(LeaderEpoch(1), InSync::alone(), &mut Answers::default());
    bench.submit();
    assert_eq!(bench.fail_from(0, 1).led, [(LeaderEpoch(1), Err(AppendError::Unknown))]);
    assert!(!bench.machine.view().leading);
    assert_eq!(bench.lead(1), [(LeaderEpoch(1), Ok(()))]);
}

#[test]
fn the_high_watermark_is_what_all_in_sync_have_synced() {
    let mut bench = Bench::new();
    let mut answers = Answers::default();
    bench.machine.handle_lead(LeaderEpoch(0), InSync::new([BrokerId(2)], [BrokerId(2)], 1), &mut answers);
    bench.submit();
    bench.durable();
    let synced = |bench: &mut Bench, offset, answers: &mut Answers<u32>| {
        let change = |in_sync: &mut InSync| {
            in_sync.fetched(BrokerId(2), Offset(offset));
            in_sync.reported(BrokerId(2), Durable { synced: Offset(offset), log_start: Offset::ZERO });
        };
        bench.machine.handle_in_sync(LeaderEpoch(0), change, answers);
    };
    synced(&mut bench, 0, &mut answers);
    let all = bench.enqueue(BatchSpec::records(4), Acks::All);
    let leader = bench.enqueue(BatchSpec::records(1), Acks::Leader);
    bench.submit();
    assert_eq!(offsets(&bench.durable().appends), [(leader, 4)]);
    synced(&mut bench, 3, &mut answers);
    assert_eq!((answers.appends.len(), bench.machine.view().high_watermark), (0, Offset(3)));
    synced(&mut bench, 4, &mut answers);
    assert_eq!(offsets(&answers.appends), [(all, 0)]);
    bench.machine.handle_in_sync(LeaderEpoch(0), |in_sync| in_sync.change_to(InSync::alone()), &mut answers);
    assert_eq!(bench.machine.view().high_watermark, Offset(5));
}

#[test]
fn the_log_start_moves_when_that_is_durable_and_never_beyond_the_high_watermark() {
    let mut bench = Bench::leading();
    bench.append(BatchSpec::records(5));
    bench.machine.handle_log_start(Offset(3));
    assert!(!bench.machine.has_queued(), "not beyond what is committed");
    bench.durable();
    bench.machine.handle_log_start(Offset(3));
    bench.submit();
    assert_eq!(bench.machine.log_start(), Offset(0));
    bench.durable();
    assert_eq!(bench.machine.log_start(), Offset(3));
    assert_eq!(bench.restarted().log_start(), Offset(3));
}

#[test]
fn a_restart_knows_what_was_durable() {
    let mut bench = Bench::leading();
    for sequence in 0..7 {
        bench.append(one(sequence));
    }
    bench.durable();
    bench.lead(5);
    bench.append(BatchSpec::records(2));
    let mut restarted = Bench::with(bench.restarted());
    let view = restarted.machine.view();
    assert_eq!((view.leading, view.high_watermark, view.log_end), (false, Offset(0), Offset(9)));
    assert_eq!(restarted.machine.epochs(), bench.machine.epochs());
    restarted.submitted = 1_000;
    restarted.lead(6);
    assert_eq!(restarted.machine.view().high_watermark, Offset(9), "what the only replica has is committed");
    let duplicate = restarted.append(one(6));
    assert_eq!(offsets(&duplicate), [(1, 6)]);
    restarted.append(one(7));
    assert_eq!(offsets(&restarted.durable().appends), [(2, 9)]);
}

#[test]
fn replaying_twice_changes_nothing() {
    let mut bench = Bench::leading();
    bench.append(one(0));
    bench.append(one(1));
    let mut machine = bench.restarted();
    let (lsn, entry) = bench.entries.last().unwrap();
    assert_eq!(machine.replay(Lsn(lsn.0 + 1), entry), Ok(Replayed::Known));
    assert_eq!(machine.view().log_end, Offset(2));
}

#[test]
fn entries_that_are_missing_or_damaged_are_told() {
    let mut bench = Bench::leading();
    bench.append(one(0));
    bench.append(one(1));
    let mut machine: ReplicaState<u32> =
        ReplicaState::new(ID, Incarnation(1), false, RecoveredLog::default());
    let (lsn, entry) = bench.entries.last().unwrap();
    let gap = ReplayError::Gap { partition: ID, lsn: *lsn, known: Offset(0), found: Offset(1) };
    assert_eq!(machine.replay(*lsn, entry), Err(gap));
    let cut = JournalEntry { payload: entry.payload.slice(..70), ..entry.clone() };
    assert!(matches!(machine.replay(*lsn, &cut), Err(ReplayError::Damaged { .. })));
    let checkpointed =
        RecoveredLog { log_end: Offset(9), high_watermark: Offset(4), ..RecoveredLog::default() };
    let mut machine: ReplicaState<u32> = ReplicaState::new(ID, Incarnation(1), false, checkpointed);
    let truncate = |to| JournalEntry { kind: EntryKind::Truncate, base_offset: Offset(to), ..entry.clone() };
    assert!(matches!(machine.replay(*lsn, &truncate(3)), Err(ReplayError::TruncateCommitted { .. })));
    assert_eq!(machine.replay(*lsn, &truncate(4)), Ok(Replayed::Applied));
    assert_eq!(machine.view().log_end, Offset(4), "what a checkpoint had and nobody committed may go");
}

#[test]
fn a_truncation_that_cannot_be_is_told_and_says_what_to_do() {
    let mut bench = Bench::leading();
    bench.append(BatchSpec::records(4));
    bench.append(BatchSpec::records(4));
    bench.durable();
    let (lsn, entry) = bench.entries.last().unwrap().clone();
    let of = |kind, offset| JournalEntry { kind, base_offset: Offset(offset), ..entry.clone() };
    let lsn = Lsn(lsn.0 + 1);
    let mut machine = bench.restarted();
    machine.replay(lsn, &of(EntryKind::LogStart, 4)).unwrap();
    let (committed, inside) = (Offset(4), Offset(6));
    let table = [
        (3, ReplayError::TruncateCommitted { partition: ID, lsn, to: Offset(3), committed }),
        (6, ReplayError::TruncateInsideBatch { partition: ID, lsn, to: inside }),
    ];
    for (to, expected) in table {
        assert_eq!(machine.replay(lsn, &of(EntryKind::Truncate, to)), Err(expected.clone()));
        let text = expected.to_string();
        assert!(text.contains(&format!("to offset {to},")) && text.contains("Restore"), "{text}");
    }
    assert_eq!(machine.replay(lsn, &of(EntryKind::Truncate, 4)), Ok(Replayed::Applied));
    assert_eq!((machine.log_start(), machine.view().log_end), (Offset(4), Offset(4)));
}

#[test]
fn a_machine_that_is_checkpointed_keeps_only_what_follows() {
    let mut bench = Bench::leading();
    bench.append(one(0));
    bench.durable();
    bench.append(one(1));
    bench.machine.handle_checkpointed(Offset(1));
    assert_eq!(bench.machine.tail().start(), Some(Offset(1)));
}

#[test]
fn topics_with_append_time_get_the_brokers_time_and_say_so() {
    let machine = ReplicaState::new(ID, Incarnation(1), true, RecoveredLog::default());
    let mut bench = Bench::with(machine);
    bench.lead(0);
    bench.append(one(0));
    let answers = bench.durable();
    assert_eq!(answers.appends[0].1.as_ref().unwrap().log_append_time_ms, 5_000);
    let payload = &bench.entries.last().unwrap().1.payload;
    assert_eq!(batch::BatchHeader::read(payload).unwrap().max_timestamp, 5_000);
    assert_eq!(batch::verify(payload), Ok(()));
    bench.now.wall_ms = 9_000;
    let again = bench.append(one(0));
    assert_eq!(again[0].1.as_ref().unwrap().log_append_time_ms, 5_000, "the original's time");
}

#[test]
fn closing_tells_what_is_known_of_each() {
    let mut bench = Bench::leading();
    let submitted = bench.enqueue(one(0), Acks::All);
    bench.submit();
    let waiting = bench.enqueue(one(1), Acks::All);
    let mut answers = Answers::default();
    bench.machine.handle_close(&mut answers);
    assert_eq!(errors(answers.appends), [(submitted, AppendError::Unknown), (waiting, AppendError::Gone)]);
}
