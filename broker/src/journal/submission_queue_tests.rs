//! Who may join the line, and how groups are cut from it.

#[cfg(test)]
use std::collections::VecDeque;
use std::sync::Arc;

use io_backend::progress::Progress;

use super::format::entry_bytes;
use super::submission_queue::*;
use super::tests::entry;
use super::{JournalEntry, SubmitError};
use crate::ids::{Lsn, PartitionId};

fn bound(entries: usize, bytes: usize) -> Amount {
    Amount { entries, bytes }
}

struct JournalShared {
    submissions: SubmissionQueue,
    next: u64,
}

impl JournalShared {
    fn new(bound: Amount) -> JournalShared {
        JournalShared { submissions: SubmissionQueue::new(bound), next: 1 }
    }

    fn join(&mut self, entries: Vec<JournalEntry>) -> Result<(), SubmitError> {
        let amount = Amount::of(&entries);
        self.submissions.admit(&entries, amount)?;
        let first_lsn = Lsn(self.next);
        self.next += entries.len() as u64;
        let progress = Arc::new(Progress::default());
        self.submissions.join(Submission { first_lsn, entries, bytes: amount.bytes, progress });
        Ok(())
    }

    /// First and last LSN of each submission in the next group.
    fn take(&mut self, bound: Amount) -> Vec<(u64, u64)> {
        let mut group = VecDeque::new();
        self.submissions.take(bound, &mut group);
        group.iter().map(|part| (part.first_lsn.0, part.last_lsn().0)).collect()
    }
}

fn of(partition: i32, payload: usize) -> JournalEntry {
    entry(partition, 0, &vec![0; payload])
}

/// How many entries of one partition join until one is refused.
fn fill(queue: &mut JournalShared, partition: i32) -> usize {
    (0..).take_while(|_| queue.join(vec![of(partition, 40)]).is_ok()).count()
}

#[test]
fn greedy_partitions_share_and_leave_room_for_one_more() {
    let mut queue = JournalShared::new(bound(100, 1 << 20));
    let shares: Vec<usize> = (0..4).map(|partition| fill(&mut queue, partition)).collect();
    assert_eq!(shares, [50, 25, 12, 6], "each takes half of what is free");
    let newcomer = queue.join(vec![of(9, 40)]);
    assert_eq!(newcomer, Ok(()));
    assert_eq!(queue.join(vec![of(0, 40)]), Err(SubmitError::ShareExhausted));
}

#[test]
fn bytes_are_shared_as_entries_are() {
    let mut queue = JournalShared::new(bound(1000, 100 * entry_bytes(40)));
    assert_eq!(fill(&mut queue, 0), 50);
}

#[test]
fn what_belongs_to_the_node_has_no_share_but_the_bound_holds() {
    let mut queue = JournalShared::new(bound(100, 1 << 20));
    let node = || vec![JournalEntry { partition: PartitionId::NODE, ..of(0, 10) }];
    assert_eq!((0..).take_while(|_| queue.join(node()).is_ok()).count(), 100);
    assert_eq!(queue.join(node()), Err(SubmitError::Full));
}

#[test]
fn a_lone_submission_may_fill_the_line_but_not_overfill_it() {
    let mut queue = JournalShared::new(bound(10, 10_000));
    assert_eq!(queue.join(vec![of(0, 10_000)]), Err(SubmitError::TooLarge(entry_bytes(10_000))));
    assert_eq!(queue.join(vec![of(0, 9_000)]), Ok(()));
    assert_eq!(queue.join(vec![of(1, 2_000)]), Err(SubmitError::Full));
}

#[test]
fn a_group_is_bounded_by_entries_and_by_bytes() {
    let mut queue = JournalShared::new(bound(100, 1 << 20));
    for partition in 0..6 {
        queue.join(vec![of(partition, 40), of(partition, 40)]).expect("room");
    }
    assert_eq!(queue.take(bound(4, 1 << 20)), [(1, 2), (3, 4)]);
    assert_eq!(queue.take(bound(3, 1 << 20)), [(5, 6), (7, 7)], "a submission is split where the bound is");
    assert_eq!(queue.take(bound(100, 150)), [(8, 8)]);
    assert_eq!(queue.take(bound(100, 10)), [(9, 9)], "one entry always goes");
    assert_eq!(queue.take(bound(100, 1 << 20)), [(10, 10), (11, 12)]);
    assert!(queue.submissions.is_empty());
    assert_eq!(queue.submissions.held(), bound(0, 0));
}

#[test]
fn a_group_waits_for_more_until_it_is_full_or_the_line_half() {
    let mut queue = JournalShared::new(bound(10, 1_000));
    assert!(!queue.submissions.fills(bound(2, 1 << 20)));
    queue.join(vec![of(0, 40)]).expect("room");
    assert!(!queue.submissions.fills(bound(2, 1 << 20)));
    assert!(queue.submissions.fills(bound(1, 1 << 20)));
    assert!(queue.submissions.fills(bound(100, 40)));
    queue.join(vec![of(1, 40)]).expect("room");
    assert!(queue.submissions.fills(bound(2, 1 << 20)));
    assert!(!queue.submissions.fills(bound(100, 1 << 20)));
    for partition in 2..5 {
        queue.join(vec![of(partition, 40)]).expect("room");
    }
    assert!(queue.submissions.fills(bound(100, 1 << 20)), "half of the line");
}

#[test]
fn what_has_left_the_line_is_not_counted_any_more() {
    let mut queue = JournalShared::new(bound(100, 1 << 20));
    for _ in 0..50 {
        assert_eq!(fill(&mut queue, 0), 50);
        for _ in 0..10 {
            queue.take(bound(5, 1 << 20));
        }
        assert_eq!(queue.submissions.held(), bound(0, 0));
    }
    let mut mixed = JournalShared::new(bound(100, 1 << 20));
    mixed.join(vec![of(0, 10), of(1, 10), of(0, 10)]).expect("room");
    mixed.take(bound(1, 1 << 20));
    mixed.take(bound(1, 1 << 20));
    mixed.take(bound(1, 1 << 20));
    assert_eq!(fill(&mut mixed, 0), 50);
}
