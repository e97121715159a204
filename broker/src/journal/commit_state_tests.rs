//! Where groups go, file by file, and what failures lead to.

use super::commit_state::*;
#[cfg(test)]
use super::format::{GroupPlace, HEADER_BYTES, PAGE_BYTES};
use crate::ids::Lsn;

const PAGE: u64 = PAGE_BYTES as u64;

fn file(sequence: u64) -> Prepared {
    Prepared {
        slot: sequence as u32,
        sequence,
        generation: sequence,
        file_bytes: HEADER_BYTES as u64 + 4 * PAGE,
    }
}

fn machine(after: FailurePolicy) -> CommitState {
    let active = Some(Active { file: file(1), position: HEADER_BYTES as u64 });
    CommitState::new(after, ResumePoint { active, ..ResumePoint::default() })
}

fn place_of(placement: Placement) -> GroupPlace {
    match placement {
        Placement::Here(place) => place,
        other => panic!("a place was expected: {other:?}"),
    }
}

/// Writes a group of one page that ends with `lsn`.
fn write(machine: &mut CommitState, lsn: u64, outcome: WriteOutcome) -> (GroupPlace, WriteVerdict) {
    let place = place_of(machine.handle_group(100, Holds::NoRecords));
    machine.handle_started(PAGE_BYTES, Lsn(lsn));
    (place, machine.handle_written(outcome))
}

#[test]
fn groups_follow_one_another_and_say_what_was_durable_before() {
    let mut machine = machine(FailurePolicy::MoveOn);
    let (first, _) = write(&mut machine, 10, WriteOutcome::Durable);
    let (second, verdict) = write(&mut machine, 12, WriteOutcome::Durable);
    assert_eq!(first, GroupPlace { number: 1, durable_up_to: Lsn(0), position: 4096, previous_file: 0 });
    assert_eq!(second, GroupPlace { number: 2, durable_up_to: Lsn(10), position: 8192, previous_file: 1 });
    assert_eq!(verdict, WriteVerdict::Durable);
}

#[test]
fn a_group_that_does_not_fit_goes_to_the_next_file() {
    let mut machine = machine(FailurePolicy::MoveOn);
    write(&mut machine, 1, WriteOutcome::Durable);
    write(&mut machine, 2, WriteOutcome::Durable);
    let last = machine.handle_group(PAGE_BYTES, Holds::NoRecords);
    assert!(matches!(last, Placement::Here(_)), "only the last page is kept for a start");
    assert_eq!(machine.handle_group(PAGE_BYTES + 1, Holds::NoRecords), Placement::NextFile);
    assert_eq!(machine.full(), Some(file(1).sealed(Lsn(2), true)));
    machine.handle_file(file(2));
    let place = place_of(machine.handle_group(PAGE_BYTES + 1, Holds::NoRecords));
    assert_eq!(place, GroupPlace { number: 3, durable_up_to: Lsn(2), position: 4096, previous_file: 1 });
}

#[test]
fn a_group_that_fills_an_empty_file_to_the_last_byte_is_written_there() {
    let machine = machine(FailurePolicy::MoveOn);
    for holds in [Holds::Records, Holds::NoRecords] {
        assert!(matches!(machine.handle_group(4 * PAGE_BYTES, holds), Placement::Here(_)));
        assert_eq!(machine.handle_group(4 * PAGE_BYTES + 1, holds), Placement::NextFile);
    }
}

#[test]
fn records_leave_a_part_of_each_file_to_what_is_no_record() {
    let six_pages = Prepared { file_bytes: HEADER_BYTES as u64 + 6 * PAGE, ..file(1) };
    let active = Some(Active { file: six_pages, position: HEADER_BYTES as u64 });
    let mut machine =
        CommitState::new(FailurePolicy::MoveOn, ResumePoint { active, ..ResumePoint::default() });
    assert_eq!(kept_back(six_pages.file_bytes), 4 * PAGE);
    let whole = machine.handle_group(6 * PAGE_BYTES, Holds::Records);
    assert!(matches!(whole, Placement::Here(_)), "an empty file takes whatever fits it");
    write(&mut machine, 1, WriteOutcome::Durable);
    assert!(matches!(machine.handle_group(PAGE_BYTES, Holds::Records), Placement::Here(_)));
    write(&mut machine, 2, WriteOutcome::Durable);
    assert_eq!(machine.handle_group(PAGE_BYTES, Holds::Records), Placement::NextFile);
    assert!(matches!(machine.handle_group(3 * PAGE_BYTES, Holds::NoRecords), Placement::Here(_)));
    assert_eq!(machine.handle_group(4 * PAGE_BYTES, Holds::NoRecords), Placement::NextFile);
    assert_eq!(machine.room(), 4 * PAGE);
}

#[test]
fn after_a_failure_the_same_number_goes_to_a_new_file() {
    let mut machine = machine(FailurePolicy::MoveOn);
    write(&mut machine, 1, WriteOutcome::Durable);
    let (failed, verdict) = write(&mut machine, 5, WriteOutcome::Failed);
    assert_eq!(verdict, WriteVerdict::MovedOn(file(1).sealed(Lsn(5), false)));
    assert_eq!(machine.handle_group(100, Holds::NoRecords), Placement::NextFile);
    assert_eq!(machine.full(), None);
    machine.handle_file(file(2));
    let (next, _) = write(&mut machine, 9, WriteOutcome::Durable);
    assert_eq!((failed.number, next.number), (2, 2));
    assert_eq!((next.durable_up_to, next.previous_file), (Lsn(1), 1));
}

#[test]
fn failures_in_a_row_stop_the_journal_and_a_success_between_them_does_not() {
    let mut machine = machine(FailurePolicy::MoveOn);
    let mut verdicts = Vec::new();
    for (n, outcome) in [
        WriteOutcome::Failed,
        WriteOutcome::Failed,
        WriteOutcome::Durable,
        WriteOutcome::Failed,
        WriteOutcome::Failed,
        WriteOutcome::Failed,
    ]
    .into_iter()
    .enumerate()
    {
        if machine.active().is_none() {
            machine.handle_file(file(n as u64 + 1));
        }
        verdicts.push(write(&mut machine, n as u64 + 1, outcome).1);
    }
    assert_eq!(verdicts.iter().filter(|v| matches!(v, WriteVerdict::MovedOn(_))).count(), 4);
    assert_eq!(verdicts[5], WriteVerdict::Stopped);
}

#[test]
fn one_failure_stops_a_journal_that_must_not_move_on() {
    let mut machine = machine(FailurePolicy::Stop);
    assert_eq!(write(&mut machine, 1, WriteOutcome::Failed).1, WriteVerdict::Stopped);
}

#[test]
fn a_full_disk_gives_a_file_up_and_is_no_failure_of_the_disk() {
    let mut machine = machine(FailurePolicy::Stop);
    for sequence in 2..10 {
        assert!(matches!(write(&mut machine, 1, WriteOutcome::Full).1, WriteVerdict::MovedOn(_)));
        machine.handle_file(file(sequence));
    }
}

#[test]
fn a_last_group_is_unproven_until_one_without_entries_follows() {
    let mut machine = machine(FailurePolicy::MoveOn);
    assert!(!machine.has_unproven_group());
    write(&mut machine, 1, WriteOutcome::Durable);
    assert!(machine.has_unproven_group());
    write(&mut machine, 1, WriteOutcome::Durable);
    assert!(!machine.has_unproven_group());
}
