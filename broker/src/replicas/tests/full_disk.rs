//! Checkpoints on a full disk: a record that would say nothing new is not written, and nothing goes that no record vouches for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use io_backend::progress::Progress;

use super::*;
use crate::journal::JournalEntry;

fn record_of_another() -> JournalEntry {
    JournalEntry {
        kind: EntryKind::ReplicaCreate,
        partition: PartitionId { topic: TopicId(Uuid::from_u128(9)), index: 0 },
        replica: Incarnation(9),
        leader_epoch: LeaderEpoch(0),
        base_offset: Offset(0),
        payload: Bytes::new(),
    }
}

/// Two rounds, the second on a full disk with nothing written since the first; how many records they wrote, and whether the last
/// one was let go of. `beside`: somebody else's entry comes into the journal before the first record.
fn records_written(beside: bool) -> (u64, bool) {
    let (_home, config) = home();
    on_backend(async |backend| {
        let (full, records) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (written, comes) = (records.clone(), AtomicBool::new(beside));
        let before = move |under: &JournalHandle, entries: &[JournalEntry]| {
            if entries.iter().any(|entry| entry.kind == EntryKind::Checkpoint) {
                written.fetch_add(1, Ordering::SeqCst);
                if comes.swap(false, Ordering::SeqCst) {
                    let progress = Arc::new(Progress::default());
                    under.submit(vec![record_of_another()], &progress).unwrap();
                }
            }
        };
        let by = Alterations { before: Some(Box::new(before)), full: full.clone(), ..Alterations::default() };
        let released_before = by.released_before.clone();
        let core = start_core_with(backend, config, |journal| Altered::over(journal, by)).await.unwrap();
        let topic = core.create(1, "orders", 1).await;
        core.append(topic, 0, 3).await;
        core.control.checkpoint(core.soon()).await.unwrap();
        full.store(true, Ordering::SeqCst);
        core.control.checkpoint(core.soon()).await.unwrap();
        let last = core.journal.status().submitted;
        (records.load(Ordering::SeqCst), released_before.load(Ordering::SeqCst) > last.0)
    })
}

#[test]
fn what_came_beside_a_record_is_not_let_go_of_before_another_one() {
    assert_eq!(records_written(false).0, 1, "the second would have said nothing new");
    assert_eq!(records_written(true).0, 2);
}

#[test]
fn a_record_that_no_other_one_follows_is_not_let_go_of() {
    let (records, the_last_is_gone) = records_written(false);
    assert_eq!(records, 1);
    assert!(!the_last_is_gone, "the next start would know of no partition");
}
