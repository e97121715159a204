//! The whole journal on a disk in memory: what is submitted, cut short, damaged, refused and read back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use io_backend::progress::Progress;
use io_backend::{Clock, Deadline};
use uuid::Uuid;

use super::fake::Fake;
use super::format::{HEADER_BYTES, PAGE_BYTES};
use super::*;
use crate::ids::TopicId;

pub(super) const FILE: usize = 64 * 1024;

pub(crate) fn settings() -> JournalSettings {
    JournalSettings {
        file_bytes: FILE,
        group_entries: 100,
        group_bytes: 16 * 1024,
        queue_entries: 400,
        queue_bytes: 64 * 1024,
        linger: Duration::ZERO,
        unreleased_bytes_max: u64::MAX,
    }
}

pub(super) fn directory() -> PathBuf {
    "/data/journal".into()
}

pub(super) fn path(slot: u32) -> PathBuf {
    directory().join(format!("{slot:06}.journal"))
}

pub(super) async fn try_open(fake: &Fake) -> Result<OpenedJournal, JournalOpenError> {
    open_with(fake, settings()).await
}

async fn open_with(fake: &Fake, settings: JournalSettings) -> Result<OpenedJournal, JournalOpenError> {
    open(JournalContext {
        backend: fake.clone(),
        name: "journal",
        directory: directory(),
        settings,
        metrics: Arc::default(),
    })
    .await
}

pub(super) async fn reopen(fake: &Fake) -> OpenedJournal {
    try_open(fake).await.expect("the journal opens")
}

pub(crate) fn entry(partition: i32, offset: i64, payload: &[u8]) -> JournalEntry {
    JournalEntry {
        kind: EntryKind::Batch,
        partition: PartitionId { topic: TopicId(Uuid::from_u128(7)), index: partition },
        replica: Incarnation(3),
        leader_epoch: LeaderEpoch(5),
        base_offset: Offset(offset),
        payload: Bytes::copy_from_slice(payload),
    }
}

pub(crate) async fn until_reached(progress: &Progress, lsn: Lsn) {
    std::future::poll_fn(|cx| {
        progress.register(cx);
        match progress.reached() >= lsn.0 || progress.failed_from().is_some() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

/// Submits one entry and waits for its end.
pub(super) async fn commit(
    journal: &JournalHandle,
    progress: &Arc<Progress>,
    offset: i64,
    bytes: usize,
) -> Lsn {
    let lsn = journal.submit(vec![entry(0, offset, &vec![offset as u8; bytes])], progress).expect("taken");
    until_reached(progress, lsn).await;
    lsn
}

pub(super) fn offsets(opened: &OpenedJournal) -> Vec<i64> {
    opened.entries.iter().map(|recovered| recovered.entry.base_offset.0).collect()
}

pub(super) fn soon(fake: &Fake) -> Deadline {
    Deadline::after(fake, Duration::from_secs(5))
}

#[test]
fn what_was_committed_is_read_back_in_order() {
    let fake = Fake::new();
    let lsns = fake.run(async {
        let opened = reopen(&fake).await;
        assert_eq!(opened.entries, []);
        let progress = Arc::new(Progress::default());
        let mut lsns = Vec::new();
        for offset in 0..5 {
            lsns.push(commit(&opened.journal, &progress, offset, 100).await);
        }
        assert_eq!(opened.journal.status().durable, lsns[4]);
        lsns
    });
    assert_eq!(lsns, [Lsn(1), Lsn(2), Lsn(3), Lsn(4), Lsn(5)]);
    fake.lose_power(|_, _| false);
    fake.run(async {
        let opened = reopen(&fake).await;
        assert_eq!(offsets(&opened), [0, 1, 2, 3, 4]);
        assert_eq!(opened.entries.iter().map(|r| r.lsn).collect::<Vec<_>>(), lsns);
        assert_eq!(opened.entries[3].entry, entry(0, 3, &[3; 100]));
        assert_eq!(opened.torn_tail, None);
        let progress = Arc::new(Progress::default());
        assert!(commit(&opened.journal, &progress, 5, 10).await > lsns[4]);
    });
}

#[test]
fn a_full_group_does_not_linger() {
    let fake = Fake::new();
    fake.run(async {
        let lingering =
            JournalSettings { group_entries: 3, linger: Duration::from_secs(3_600), ..settings() };
        let opened = open_with(&fake, lingering).await.expect("the journal opens");
        let progress = Arc::new(Progress::default());
        let began = fake.now();
        let mut last = Lsn(0);
        for offset in 0..3 {
            last = opened.journal.submit(vec![entry(0, offset, b"a")], &progress).expect("taken");
        }
        until_reached(&progress, last).await;
        assert!(fake.now().since(began) < Duration::from_secs(3_600));
        let alone = commit(&opened.journal, &progress, 3, 10).await;
        assert_eq!(alone, Lsn(4));
        assert!(fake.now().since(began) >= Duration::from_secs(3_600), "more was waited for");
    });
}

#[test]
fn what_arrives_while_a_commit_is_in_flight_is_the_next_group() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let progress = Arc::new(Progress::default());
        fake.world().held = true;
        let first = opened.journal.submit(vec![entry(0, 0, b"a")], &progress).expect("taken");
        until_held(&fake).await;
        let mut last = first;
        for offset in 1..50 {
            last = opened.journal.submit(vec![entry(0, offset, b"b")], &progress).expect("taken");
        }
        assert_eq!(progress.reached(), 0);
        fake.let_go();
        until_reached(&progress, last).await;
        assert_eq!(fake.world().durable_writes_done, 2);
    });
}

/// Until a commit is in flight.
pub(super) async fn until_held(fake: &Fake) {
    let tick = || io_backend::Clock::sleep(fake, Duration::from_millis(1));
    let begun = |fake: &Fake| fake.world().log.iter().filter(|line| line.starts_with("commit")).count();
    let before = begun(fake);
    while begun(fake) == before {
        tick().await;
    }
}

#[test]
fn an_idle_journal_does_nothing() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let progress = Arc::new(Progress::default());
        commit(&opened.journal, &progress, 0, 10).await;
        io_backend::Clock::sleep(&fake, Duration::from_secs(1)).await;
        let before = fake.world().log.len();
        io_backend::Clock::sleep(&fake, Duration::from_secs(3600)).await;
        assert_eq!(fake.world().log.len(), before);
    });
}

#[test]
fn a_journal_rolls_through_files_and_uses_released_ones_again() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let progress = Arc::new(Progress::default());
        for offset in 0..400 {
            let lsn = commit(&opened.journal, &progress, offset, 2000).await;
            if offset % 20 == 19 {
                opened.journal.release_before(lsn);
            }
        }
        assert!(opened.journal.status().unreleased_bytes <= 1 << 20);
    });
    // 400 pages are 27 files' worth.
    assert!(fake.world().files.len() <= 5, "{:?}", fake.world().files.keys());
    fake.lose_power(|_, _| false);
    fake.run(async {
        let opened = reopen(&fake).await;
        let found = offsets(&opened);
        assert_eq!(*found.last().expect("entries"), 399);
        assert!(found.windows(2).all(|pair| pair[1] == pair[0] + 1), "{found:?}");
        assert!(found[0] <= 400 - 20);
    });
}

#[test]
fn a_torn_last_group_is_cut_whichever_sectors_of_it_reached_the_disk() {
    // A group of two entries over four pages on top of two durable ones.
    let sectors = 4 * PAGE_BYTES / 512;
    for pattern in 0..sectors * 3 {
        let fake = Fake::new();
        fake.run(async {
            let opened = reopen(&fake).await;
            let progress = Arc::new(Progress::default());
            commit(&opened.journal, &progress, 0, 10).await;
            commit(&opened.journal, &progress, 1, 5000).await;
            fake.world().held = true;
            let tail = vec![entry(0, 2, &[2; 7500]), entry(0, 3, &[3; 7500])];
            opened.journal.submit(tail, &progress).expect("taken");
            until_held(&fake).await;
        });
        let mut unsynced = 0;
        fake.lose_power(|_, sector| {
            unsynced += usize::from(sector != usize::MAX);
            match pattern % 3 {
                // All but one, only one, all up to one.
                0 => unsynced != pattern / 3 + 1,
                1 => unsynced == pattern / 3 + 1,
                _ => unsynced <= pattern / 3,
            }
        });
        for again in [false, true] {
            fake.run(async {
                let opened = reopen(&fake).await;
                assert!(!again || opened.torn_tail.is_none(), "pattern {pattern}: {:?}", opened.torn_tail);
                let found = offsets(&opened);
                assert!(found == [0, 1] || found == [0, 1, 2, 3], "pattern {pattern}: {found:?}");
            });
            fake.lose_power(|_, _| false);
        }
        fake.run(async {
            let opened = reopen(&fake).await;
            let kept = offsets(&opened);
            let progress = Arc::new(Progress::default());
            commit(&opened.journal, &progress, 10, 10).await;
            commit(&opened.journal, &progress, 11, 10).await;
            drop(opened);
            let again = offsets(&reopen(&fake).await);
            assert_eq!(again, [&kept[..], &[10, 11]].concat(), "pattern {pattern}");
        });
    }
}

/// What a killed process had not synced, a start makes durable before it relies on it: the file that is
/// prepared ahead, in its directory and in its header.
#[test]
fn a_spare_that_a_killed_process_left_in_the_page_cache_is_made_durable_before_it_is_used() {
    for lost in ["name", "header"] {
        let fake = Fake::new();
        fake.run(async {
            let opened = reopen(&fake).await;
            commit(&opened.journal, &Arc::default(), 0, 10).await;
            io_backend::Clock::sleep(&fake, Duration::from_secs(1)).await;
        });
        if lost == "name" {
            assert!(fake.world().named.remove(&path(2)));
        } else {
            fake.world().files.get_mut(&path(2)).expect("the spare").durable[..HEADER_BYTES].fill(0);
        }
        fake.forget_waiting();
        fake.run(async {
            let opened = reopen(&fake).await;
            let progress = Arc::new(Progress::default());
            fake.world().names_unsynced = true;
            // Four go to the first file and five to the spare: one more would need a file whose name is lost.
            for offset in 1..10 {
                commit(&opened.journal, &progress, offset, 5000).await;
            }
        });
        fake.lose_power(|_, _| false);
        fake.run(async { assert_eq!(offsets(&reopen(&fake).await), (0..10).collect::<Vec<_>>(), "{lost}") });
    }
}

#[test]
fn every_damaged_byte_before_the_last_group_stops_the_node_or_harms_nothing() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let progress = Arc::new(Progress::default());
        for offset in 0..3 {
            commit(&opened.journal, &progress, offset, 200).await;
        }
    });
    fake.lose_power(|_, _| false);
    let sound = fake.world().files[&path(1)].clone();
    let group_bytes = 64 + 60 + 200;
    let every = |at: &usize| at.is_multiple_of(97) || at % PAGE_BYTES < group_bytes || *at < 520;
    for at in (0..HEADER_BYTES + 2 * PAGE_BYTES).filter(every) {
        fake.damage(&path(1), |bytes| bytes[at] ^= 0x40);
        let outcome = fake.run(async { try_open(&fake).await.map(|opened| offsets(&opened)) });
        let in_header = at < 512;
        let in_group = at >= HEADER_BYTES && (at - HEADER_BYTES) % PAGE_BYTES < group_bytes;
        if in_header || in_group {
            let error = outcome.expect_err(&format!("byte {at} is damaged"));
            let text = error.to_string();
            assert!(text.contains("000001.journal"), "{text}");
        } else {
            assert_eq!(outcome.expect("padding is nothing"), [0, 1, 2], "byte {at}");
        }
        fake.damage(&path(1), |bytes| bytes.clone_from(&sound.now));
    }
}

#[test]
fn a_missing_file_is_told_by_its_number() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let progress = Arc::new(Progress::default());
        for offset in 0..60 {
            commit(&opened.journal, &progress, offset, 3000).await;
        }
    });
    for slot in 1..=4 {
        let removed = fake.world().files.remove(&path(slot)).expect("four files are full");
        let error = fake.run(async { try_open(&fake).await.map(drop) }).expect_err("a file is missing");
        assert!(error.to_string().contains(&format!("number {slot} of the journal is missing")), "{error}");
        fake.world().files.insert(path(slot), removed);
    }
    assert_eq!(fake.run(async { offsets(&reopen(&fake).await).len() }), 60);
}

#[test]
fn what_a_failed_preparation_left_goes_also_where_both_files_of_its_number_are_released() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let progress = Arc::new(Progress::default());
        for offset in 0..60 {
            let lsn = commit(&opened.journal, &progress, offset, 3000).await;
            if offset == 40 {
                opened.journal.release_before(lsn);
            }
        }
    });
    let (sound, mut opens) = (fake.world().files.clone(), 0);
    for (path_of_one, file) in &sound {
        fake.world().files.clone_from(&sound);
        fake.world().files.insert(path(99), file.clone());
        match fake.run(async { try_open(&fake).await.map(|opened| offsets(&opened)) }) {
            Ok(offsets) => {
                assert_eq!(offsets.last(), Some(&59));
                assert!(!fake.world().files.contains_key(&path(99)));
                opens += 1;
            }
            Err(error) => assert!(error.to_string().contains("same place"), "{path_of_one:?}: {error}"),
        }
    }
    assert!((1..sound.len()).contains(&opens), "{opens} of {}", sound.len());
}

#[test]
fn foreign_newer_and_shortened_files_are_refused_by_name() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        commit(&opened.journal, &Arc::new(Progress::default()), 0, 10).await;
    });
    let sound = fake.world().files[&path(1)].now.clone();
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        fake.damage(Path::new("/data/journal/000001.journal"), |bytes| change(bytes));
        let error = fake.run(async { try_open(&fake).await.map(drop) }).expect_err("refused");
        fake.damage(Path::new("/data/journal/000001.journal"), |bytes| bytes.clone_from(&sound));
        error
    };
    let foreign = refused(&|bytes| bytes[..8].copy_from_slice(b"\x7fELF\0\0\0\0"));
    assert!(matches!(foreign, JournalOpenError::Foreign { .. }), "{foreign}");
    let damaged = refused(&|bytes| bytes[20] ^= 1);
    assert!(matches!(damaged, JournalOpenError::Corrupt { position: 0, .. }), "{damaged}");
    let lost = refused(&|bytes| bytes[..512].fill(0));
    assert!(lost.to_string().contains("header is gone"), "{lost}");
    let short = refused(&|bytes| bytes.truncate(FILE / 2));
    assert!(short.to_string().contains("shorter"), "{short}");
}

#[test]
fn closing_finishes_what_is_in_line() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let progress = Arc::new(Progress::default());
        fake.world().held = true;
        let mut last = Lsn(0);
        for offset in 0..10 {
            last = opened.journal.submit(vec![entry(0, offset, b"a")], &progress).expect("taken");
        }
        let closing = opened.journal.close(soon(&fake));
        assert_eq!(opened.journal.submit(vec![entry(0, 10, b"a")], &progress), Err(SubmitError::Closed));
        fake.let_go();
        closing.await.expect("in time");
        assert_eq!(progress.reached(), last.0);
    });
    // After a clean stop damage to the last entries is told from a torn tail.
    fake.lose_power(|_, _| false);
    fake.damage(&path(1), |bytes| bytes[HEADER_BYTES + 100] ^= 1);
    let error = fake.run(async { try_open(&fake).await.map(drop) }).expect_err("damaged");
    assert!(matches!(error, JournalOpenError::Corrupt { .. }), "{error}");
}

/// A file that is being prepared is not prepared to its end, and nothing goes on behind a closed journal.
#[test]
fn closing_ends_what_is_done_about_files() {
    let fake = Fake::new();
    fake.run(async {
        let large = JournalSettings { file_bytes: 64 << 20, ..settings() };
        let opened = open_with(&fake, large).await.unwrap();
        // The next file is begun with the first; each of its pieces takes a while from now on.
        fake.world().latency = 1_000_000_000;
        io_backend::Clock::sleep(&fake, Duration::from_secs(3)).await;
        let pieces = |fake: &Fake| {
            fake.world().log.iter().filter(|line| line.starts_with("write /data/journal/000002")).count()
        };
        assert!((1..10).contains(&pieces(&fake)), "{} pieces", pieces(&fake));
        let deadline = Deadline::after(&fake, Duration::from_secs(8));
        assert_eq!(opened.journal.close(deadline).await, Ok(()));
        let done = fake.world().log.len();
        io_backend::Clock::sleep(&fake, Duration::from_secs(60)).await;
        assert_eq!(fake.world().log.len(), done);
    });
}

#[test]
fn a_stalled_journal_takes_nothing_and_room_is_waited_for_with_a_deadline() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let journal = &opened.journal;
        let progress = Arc::new(Progress::default());
        fake.world().held = true;
        journal.submit(vec![entry(0, 0, b"a")], &progress).expect("taken");
        until_held(&fake).await;
        journal.set_refusing(Some(SubmitError::Stalled));
        assert_eq!(journal.submit(vec![entry(0, 1, b"a")], &progress), Err(SubmitError::Stalled));
        // Who comes with records is told why at once; a checkpoint waits until it may.
        journal.wait_for_capacity(entry(0, 0, b"").partition, 1, soon(&fake)).await.expect("to be refused");
        assert!(journal.wait_for_capacity(PartitionId::NODE, 1, soon(&fake)).await.is_err());
        journal.set_refusing(None);
        fake.let_go();
        journal.wait_for_capacity(entry(0, 0, b"").partition, 1, soon(&fake)).await.expect("room");
        commit(journal, &progress, 1, 10).await;
        assert_eq!(progress.failed_from(), None);
    });
}

#[test]
fn records_wait_while_checkpoints_are_far_behind_and_what_belongs_to_the_node_does_not() {
    let fake = Fake::new();
    fake.run(async {
        let bounded = JournalSettings { unreleased_bytes_max: 40_000, ..settings() };
        let opened = open(JournalContext {
            backend: fake.clone(),
            name: "journal",
            directory: directory(),
            settings: bounded,
            metrics: Arc::default(),
        })
        .await
        .expect("the journal opens");
        let journal = &opened.journal;
        let progress = Arc::new(Progress::default());
        let mut offset = 0;
        let refusal = loop {
            match journal.submit(vec![entry(0, offset, &[0; 1000])], &progress) {
                Ok(lsn) => until_reached(&progress, lsn).await,
                Err(refusal) => break refusal,
            }
            offset += 1;
        };
        assert_eq!(refusal, SubmitError::Full);
        assert!(journal.status().unreleased_bytes > 40_000);
        let record = JournalEntry {
            kind: EntryKind::Checkpoint,
            partition: PartitionId::NODE,
            ..entry(0, 0, b"marks")
        };
        let lsn = journal.submit(vec![record], &progress).expect("a checkpoint record is always taken");
        until_reached(&progress, lsn).await;
        journal.release_before(Lsn(lsn.0 + 1));
        journal
            .wait_for_capacity(entry(0, 0, b"").partition, 10, soon(&fake))
            .await
            .expect("there is room again");
        let more = settings().queue_bytes + 1;
        let room = journal.wait_for_capacity(entry(0, 0, b"").partition, more, soon(&fake)).await;
        room.expect("what is more than the queue holds comes in parts");
        assert!(journal.submit(vec![entry(0, offset, b"again")], &progress).is_ok());
    });
}

#[test]
fn one_hot_partition_leaves_room_for_another() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let journal = &opened.journal;
        fake.world().held = true;
        let hot = Arc::new(Progress::default());
        let mut offset = 0;
        let refusal = loop {
            match journal.submit(vec![entry(0, offset, &[0; 1000])], &hot) {
                Ok(_) => offset += 1,
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal, SubmitError::ShareExhausted);
        let cold = Arc::new(Progress::default());
        let lsn = journal.submit(vec![entry(1, 0, &[0; 1000])], &cold).expect("there is room for others");
        fake.let_go();
        until_reached(&cold, lsn).await;
        assert_eq!(cold.failed_from(), None);
    });
}

#[test]
fn an_entry_larger_than_a_file_is_refused() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let progress = Arc::new(Progress::default());
        let refused = opened.journal.submit(vec![entry(0, 0, &vec![0; FILE])], &progress);
        assert_eq!(refused, Err(SubmitError::TooLarge(FILE)));
    });
}

#[test]
fn a_journal_tells_people_what_it_holds() {
    let fake = Fake::new();
    fake.run(async {
        let opened = reopen(&fake).await;
        let progress = Arc::new(Progress::default());
        for offset in 0..8 {
            commit(&opened.journal, &progress, offset, 5000).await;
        }
        opened.journal.close(soon(&fake)).await.expect("closed");
    });
    let before = fake.world().log.clone();
    let text: Vec<String> = fake.run(async {
        let files = inspect(&fake, directory(), "journal").await.expect("sound");
        files.iter().map(ToString::to_string).collect()
    });
    assert_eq!(
        text,
        [
            "/data/journal/000001.journal: number 1, 5 entries in 5 groups, LSN 1 to 5, 45056 of 65536 bytes used, life 1",
            "/data/journal/000002.journal: number 2, 3 entries in 4 groups, LSN 6 to 8, 32768 of 65536 bytes used, life 1",
            "/data/journal/000003.journal: number 3, no entries, 4096 of 65536 bytes used, life 1",
        ]
    );
    let log = fake.world().log[before.len()..].to_vec();
    assert!(log.iter().all(|line| line.starts_with("open")), "{log:?}");
}
