//! The whole journal on a disk in memory that refuses: syncs that fail, no space, no descriptor.

use std::sync::Arc;

use io_backend::progress::Progress;

use super::fake::Fake;
use super::format::PAGE_BYTES;
use super::tests::{
    FILE, commit, directory, entry, offsets, reopen, settings, soon, until_held, until_reached,
};
use super::*;

#[test]
fn a_failed_sync_fails_the_group_and_what_waits_and_the_journal_goes_on_in_another_file() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let journal = &opened.journal;
        let progress = Arc::new(Progress::default());
        commit(journal, &progress, 0, 10).await;
        fake.world().held = true;
        let failing = journal.submit(vec![entry(0, 1, b"fails")], &progress).expect("taken");
        until_held(&fake).await;
        let other = Arc::new(Progress::default());
        let waiting = journal.submit(vec![entry(1, 0, b"waits")], &other).expect("taken");
        fake.world().durable_writes.push_back(Some(io_kind()));
        fake.let_go();
        until_reached(&progress, failing).await;
        until_reached(&other, waiting).await;
        assert_eq!(progress.failed_from(), Some(failing.0));
        assert_eq!(other.failed_from(), Some(waiting.0));
        // Nothing is taken behind a failure that its owner has not dealt with.
        assert_eq!(journal.submit(vec![entry(0, 2, b"x")], &progress), Err(SubmitError::Failed));
        progress.clear_failure();
        let after = commit(journal, &progress, 1, 10).await;
        assert!(after > waiting);
        assert_eq!(progress.reached(), after.0);
        assert!(!journal.status().failed);
        let commits: Vec<String> =
            fake.world().log.iter().filter(|l| l.starts_with("commit")).cloned().collect();
        assert!(commits.last().expect("commits").contains("000002"), "{commits:?}");
    });
    // The failed group lies whole in the first file, and is not taken back.
    fake.run(async {
        let opened = reopen(&fake).await;
        assert_eq!(offsets(&opened), [0, 1]);
        assert_eq!(opened.entries[1].entry.payload.len(), 10);
    });
}

fn io_kind() -> std::io::ErrorKind {
    std::io::ErrorKind::Other
}

#[test]
fn three_failures_in_a_row_end_the_journal() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        fake.world().durable_writes.extend([Some(io_kind()); 3]);
        for offset in 0..3 {
            let progress = Arc::new(Progress::default());
            commit(&opened.journal, &progress, offset, 10).await;
            assert!(progress.failed_from().is_some());
        }
        assert!(opened.journal.status().failed);
        let progress = Arc::new(Progress::default());
        assert_eq!(opened.journal.submit(vec![entry(0, 9, b"x")], &progress), Err(SubmitError::Failed));
        opened.journal.close(soon(&fake)).await.expect("it has ended already");
    });
}

#[test]
fn a_failed_sync_of_rafts_journal_ends_it_at_once() {
    let fake = Fake::new();
    fake.run(async {
        let opened = open(JournalContext {
            backend: fake.clone(),
            name: RAFT,
            directory: directory(),
            settings: settings(),
            metrics: Arc::default(),
        })
        .await
        .expect("opens");
        fake.world().durable_writes.push_back(Some(io_kind()));
        let progress = Arc::new(Progress::default());
        commit(&opened.journal, &progress, 0, 10).await;
        assert!(opened.journal.status().failed);
    });
}

#[test]
fn a_full_disk_refuses_and_service_resumes_when_space_returns() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let journal = &opened.journal;
        io_backend::Clock::sleep(&fake, Duration::from_secs(1)).await;
        fake.world().full = true;
        let progress = Arc::new(Progress::default());
        let mut offset = 0;
        while progress.failed_from().is_none() {
            commit(journal, &progress, offset, 3000).await;
            offset += 1;
        }
        assert!(offset >= 2 * (FILE / PAGE_BYTES - 5) as i64, "the spare is used up first: {offset}");
        assert!(journal.status().disk_full);
        let other = Arc::new(Progress::default());
        assert_eq!(journal.submit(vec![entry(1, 0, b"x")], &other), Err(SubmitError::DiskFull));
        fake.world().full = false;
        io_backend::Clock::sleep(&fake, Duration::from_secs(2)).await;
        commit(journal, &other, 0, 10).await;
        assert_eq!(other.failed_from(), None);
    });
}

#[test]
fn a_journal_on_a_full_disk_opens_takes_what_is_no_record_and_goes_on_when_that_releases_a_file() {
    let fake = Fake::new();
    let committed = fake.run(async {
        let opened = reopen(&fake).await;
        io_backend::Clock::sleep(&fake, Duration::from_secs(1)).await;
        fake.world().full = true;
        let progress = Arc::new(Progress::default());
        let mut offset = 0;
        while progress.failed_from().is_none() {
            commit(&opened.journal, &progress, offset, 3000).await;
            offset += 1;
        }
        offset - 1
    });
    fake.lose_power(|_, _| false);
    fake.run(async {
        let opened = reopen(&fake).await;
        assert_eq!(offsets(&opened), (0..committed).collect::<Vec<_>>());
        let journal = &opened.journal;
        let progress = Arc::new(Progress::default());
        commit(journal, &progress, committed, 3000).await;
        assert!(progress.failed_from().is_some() && journal.status().disk_full, "{:?}", journal.status());
        progress.clear_failure();
        journal.until_unreleased(u64::MAX, soon(&fake)).await.expect("what can be released is asked for");
        let record = JournalEntry {
            kind: EntryKind::Checkpoint,
            partition: PartitionId::NODE,
            ..entry(0, 0, b"marks")
        };
        let lsn = journal.submit(vec![record], &progress).expect("a checkpoint record is taken");
        until_reached(&progress, lsn).await;
        assert_eq!(progress.failed_from(), None);
        journal.release_before(lsn);
        io_backend::Clock::sleep(&fake, Duration::from_secs(2)).await;
        commit(journal, &progress, committed, 3000).await;
        assert_eq!(progress.failed_from(), None, "a released file is used again, without new space");
    });
}

#[test]
fn a_journal_without_a_descriptor_waits_for_one_and_loses_nothing() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        io_backend::Clock::sleep(&fake, Duration::from_secs(1)).await;
        let progress = Arc::new(Progress::default());
        fake.world().opens_refused = 20;
        let lsn = opened.journal.submit(vec![entry(0, 0, &[1; 3000])], &progress).expect("taken");
        io_backend::Clock::sleep(&fake, Duration::from_millis(500)).await;
        assert_eq!(opened.journal.status().no_file, Some(NoFile::NoDescriptor));
        until_reached(&progress, lsn).await;
        assert_eq!(progress.failed_from(), None);
        assert_eq!(opened.journal.status().no_file, None);
    });
}

#[test]
fn rafts_journal_waits_for_space_and_what_it_took_is_not_lost() {
    let fake = Fake::new();
    fake.run(async {
        let context = JournalContext {
            backend: fake.clone(),
            name: RAFT,
            directory: directory(),
            settings: settings(),
            metrics: Arc::default(),
        };
        let journal = open(context).await.expect("the journal opens").journal;
        io_backend::Clock::sleep(&fake, Duration::from_secs(1)).await;
        fake.world().full = true;
        let progress = Arc::new(Progress::default());
        let hard_state = |offset| JournalEntry {
            kind: EntryKind::RaftHardState,
            partition: PartitionId::NODE,
            ..entry(0, offset, &[1; 3000])
        };
        let mut last = Lsn(0);
        for offset in 0..40 {
            last = journal.submit(vec![hard_state(offset)], &progress).expect("taken");
            io_backend::Clock::sleep(&fake, Duration::from_secs(1)).await;
        }
        assert_eq!(progress.failed_from(), None);
        assert!(progress.reached() < last.0 && journal.status().disk_full, "{:?}", journal.status());
        fake.world().full = false;
        until_reached(&progress, last).await;
        assert_eq!(progress.failed_from(), None);
        assert!(!journal.status().disk_full);
    });
}
