//! A whole replica, its journal and its segments on a disk in memory: written, damaged, killed, read back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use io_backend::{Backend, Deadline};
use uuid::Uuid;

use super::*;
use crate::ids::TopicId;
use crate::journal::fake::Fake;
use crate::journal::{self, JournalContext, JournalHandle, JournalSettings};
use crate::log::LogSettings;
use crate::log::batch::{Batches, verify};
use crate::log::test_batches::BatchSpec;

const ID: PartitionId = PartitionId { topic: TopicId(Uuid::from_u128(9)), index: 4 };
const REPLICA: Incarnation = Incarnation(2);

/// Small enough that segments roll and indexes have many entries in every test.
const SETTINGS: LogSettings = LogSettings {
    segment_bytes: 2_000,
    segment_age: Duration::from_secs(3600),
    index_interval_bytes: 150,
    log_append_time: false,
};

fn directory() -> PathBuf {
    "/data/partitions/orders-4".into()
}

struct Replica {
    fake: Fake,
    journal: JournalHandle,
    partition: PartitionHandle<Fake>,
}

async fn try_start(fake: &Fake, mark: Option<CheckpointMark>) -> Result<Replica, PartitionOpenError> {
    let opened = journal::open(JournalContext {
        backend: fake.clone(),
        name: "journal",
        directory: "/data/journal".into(),
        settings: JournalSettings {
            file_bytes: 256 * 1024,
            group_entries: 100,
            group_bytes: 64 * 1024,
            queue_entries: 400,
            queue_bytes: 256 * 1024,
            linger: Duration::ZERO,
        },
        metrics: Arc::default(),
    })
    .await
    .expect("the journal opens");
    let partition = open(OpenPartition {
        backend: fake.clone(),
        id: ID,
        name: "orders-4".into(),
        replica: REPLICA,
        settings: SETTINGS,
        directory: directory(),
        journal: opened.journal.clone(),
        mark,
        recovered: opened.entries,
        deadline: soon(fake),
    })
    .await?;
    Ok(Replica { fake: fake.clone(), journal: opened.journal, partition })
}

/// A process start: the replica is opened and leads.
async fn start(fake: &Fake, mark: Option<CheckpointMark>) -> Replica {
    let replica = try_start(fake, mark).await.expect("the replica opens");
    let next = LeaderEpoch(replica.partition.views().get().leader_epoch.0 + 1);
    replica.partition.lead(next, soon(fake)).await.expect("it leads");
    replica
}

fn soon(fake: &Fake) -> Deadline {
    Deadline::after(fake, Duration::from_secs(5))
}

impl Replica {
    fn soon(&self) -> Deadline {
        soon(&self.fake)
    }

    async fn put(&self, spec: BatchSpec) -> Result<Appended, AppendError> {
        self.partition.append(vec![spec.checked()], Acks::All, self.soon()).await?.wait().await
    }

    async fn append(&self, spec: BatchSpec) -> i64 {
        self.put(spec).await.expect("appended").base_offset.0
    }

    /// Batches of two records, each of about a hundred bytes, from the log's end on.
    async fn append_many(&self, batches: i64) {
        for _ in 0..batches {
            let at = self.partition.views().get().high_watermark.0;
            self.append(BatchSpec::records(2).timestamp(1_000 + at * 10).step(10)).await;
        }
    }

    async fn checkpoint(&self) -> CheckpointMark {
        self.partition.checkpoint(self.soon()).await.expect("checkpointed")
    }

    async fn try_read(&self, from: i64, max_bytes: usize) -> Result<Vec<Bytes>, ReadError> {
        let request =
            ReadRequest { from: Offset(from), max_bytes, read_committed: false, current_epoch: None };
        self.partition.read(request, self.soon()).await.map(|outcome| outcome.batches)
    }

    /// Base offsets of what a read gives; every batch is checked.
    async fn read(&self, from: i64, max_bytes: usize) -> Vec<i64> {
        bases(&self.try_read(from, max_bytes).await.expect("read"))
    }

    /// Reads everything, fetch by fetch.
    async fn read_all(&self, max_bytes: usize) -> Vec<i64> {
        let mut all = Vec::new();
        let mut next = self.partition.views().get().log_start.0;
        loop {
            let pieces = self.try_read(next, max_bytes).await.expect("read");
            let Some(end) = end(&pieces) else { return all };
            all.extend(bases(&pieces).into_iter().filter(|base| *base >= next));
            next = end;
        }
    }

    async fn at_or_after(&self, timestamp: i64) -> Option<(i64, i64)> {
        let found = self.partition.offset(OffsetQuery::Timestamp(timestamp), None, self.soon()).await;
        found.expect("searched").map(|found| (found.offset.0, found.timestamp))
    }
}

fn bases(pieces: &[Bytes]) -> Vec<i64> {
    let one = |piece: &Bytes| {
        let base = |batch: Result<(usize, crate::log::batch::BatchHeader), _>| {
            let (at, header) = batch.expect("whole batches");
            assert_eq!(verify(&piece[at..at + header.bytes]), Ok(()));
            header.base_offset.0
        };
        Batches::new(piece).map(base).collect::<Vec<_>>()
    };
    pieces.iter().flat_map(one).collect()
}

fn end(pieces: &[Bytes]) -> Option<i64> {
    let last = pieces.last()?;
    Batches::new(last).last().map(|batch| batch.expect("whole batches").1.end().0)
}

fn even(until: i64) -> Vec<i64> {
    (0..until).step_by(2).collect()
}

fn files(fake: &Fake, extension: &str) -> Vec<PathBuf> {
    let named = |path: &&PathBuf| path.extension().is_some_and(|e| e == extension);
    fake.world().files.keys().filter(named).filter(|path| path.starts_with(directory())).cloned().collect()
}

#[test]
fn what_was_acknowledged_survives_power_loss_with_and_without_a_checkpoint() {
    for checkpoint_after in [None, Some(10), Some(30)] {
        let fake = Fake::new();
        let mark = fake.run(async {
            let replica = start(&fake, None).await;
            let mut mark = None;
            for n in 0..30 {
                replica.append_many(1).await;
                if Some(n + 1) == checkpoint_after {
                    mark = Some(replica.checkpoint().await);
                }
            }
            mark
        });
        fake.lose_power(|_, _| false);
        fake.run(async {
            let replica = start(&fake, mark).await;
            assert_eq!(replica.read_all(10_000).await, even(60));
            assert_eq!(replica.append(BatchSpec::records(1)).await, 60);
        });
    }
}

#[test]
fn segments_roll_and_every_offset_is_found_within_its_bounds() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        replica.append_many(60).await;
        replica.checkpoint().await;
        replica.append_many(20).await;
        replica.checkpoint().await;
        replica.append_many(3).await;
        assert!(files(&fake, "log").len() >= 4, "{:?}", files(&fake, "log"));
        let one = BatchSpec::records(2).build().len();
        for from in 0..166 {
            let batch = from / 2 * 2;
            assert_eq!(replica.read(from, 1).await, [batch], "one batch at least, from {from}");
            assert_eq!(replica.read(from, one).await, [batch]);
            let three: Vec<i64> = (batch..166.min(batch + 6)).step_by(2).collect();
            assert_eq!(replica.read(from, 3 * one).await, three, "across segments and tail, from {from}");
        }
        assert_eq!(replica.read(166, 1_000).await, [] as [i64; 0]);
        assert_eq!(replica.read_all(usize::MAX >> 1).await, even(166));
        let beyond = replica.try_read(167, 1_000).await;
        assert_eq!(beyond, Err(ReadError::OutOfRange(Offset(167), Offset(0), Offset(166))));
    });
}

#[test]
fn a_checkpoint_syncs_before_it_answers_and_lets_the_tail_and_the_journal_go() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        replica.append_many(5).await;
        fake.world().log.clear();
        let mark = replica.checkpoint().await;
        assert_eq!((mark.log_end, mark.lsn), (Offset(10), replica.journal.status().durable));
        let log = fake.world().log.clone();
        let nth = |what: &str| log.iter().position(|line| line.starts_with(what)).expect(what);
        let at = |operation: &str, file: &str| nth(&format!("{operation} {}/{file}", directory().display()));
        let segment = at("sync", "00000000000000000000.log");
        let index = at("write", "00000000000000000000.index");
        let snapshot = at("sync", &format!("{:020}.snapshot.new", mark.lsn.0));
        assert!(segment < index && index < snapshot, "{log:#?}");
        fake.world().log.clear();
        let again = replica.checkpoint().await;
        assert_eq!(again, mark);
        assert_eq!(fake.world().log, [] as [String; 0], "nothing to do, nothing done");
    });
}

#[test]
fn the_mark_of_an_idle_partition_rises_with_the_journal() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        replica.append_many(1).await;
        let before = replica.checkpoint().await;
        let entry = journal::JournalEntry {
            kind: journal::EntryKind::ReplicaCreate,
            partition: PartitionId::NODE,
            replica: REPLICA,
            leader_epoch: LeaderEpoch(0),
            base_offset: Offset(0),
            payload: Bytes::new(),
        };
        let progress = Arc::new(io_backend::progress::Progress::default());
        let other = replica.journal.submit(vec![entry], &progress).unwrap();
        fake.sleep(Duration::from_millis(10)).await;
        let after = replica.checkpoint().await;
        assert_eq!((after.lsn, after.log_end), (other, before.log_end));
        assert!(after.lsn > before.lsn);
    });
}

#[test]
fn what_lies_beyond_the_mark_is_cut() {
    let fake = Fake::new();
    let mark = fake.run(async {
        let replica = start(&fake, None).await;
        replica.append_many(30).await;
        let mark = replica.checkpoint().await;
        replica.append_many(30).await;
        // Never recorded: a restart goes by the first mark.
        replica.checkpoint().await;
        mark
    });
    let last = files(&fake, "log").pop().unwrap();
    fake.damage(&last, |bytes| bytes.extend_from_slice(&[0xAB; 300]));
    fake.run(async {
        let replica = start(&fake, Some(mark)).await;
        assert!(files(&fake, "log").len() < 5, "segments beyond the mark are gone");
        assert_eq!(replica.read_all(10_000).await, even(120));
        replica.append_many(10).await;
        let mark = replica.checkpoint().await;
        assert_eq!(mark.log_end, Offset(140));
        assert_eq!(replica.read_all(700).await, even(140));
    });
}

#[test]
fn indexes_that_are_missing_short_or_damaged_are_rebuilt() {
    let cut: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() / 2);
    let flip: fn(&mut Vec<u8>) = |bytes| bytes.iter_mut().skip(20).for_each(|byte| *byte ^= 0x55);
    let zero: fn(&mut Vec<u8>) = |bytes| bytes.fill(0);
    let garbage: fn(&mut Vec<u8>) = |bytes| bytes.extend_from_slice(&[7; 100]);
    let damages = [cut, flip, zero, garbage];
    for (nth, damage) in damages.into_iter().enumerate() {
        for extension in ["index", "timeindex"] {
            let fake = Fake::new();
            let mark = fake.run(async {
                let replica = start(&fake, None).await;
                replica.append_many(60).await;
                replica.checkpoint().await
            });
            let before: Vec<Vec<u8>> = contents(&fake, "index");
            for path in files(&fake, extension) {
                match nth {
                    0 if path.to_string_lossy().contains("00000.") => {
                        fake.world().files.remove(&path);
                    }
                    _ => fake.damage(&path, damage),
                }
            }
            fake.run(async {
                let replica = start(&fake, Some(mark)).await;
                assert_eq!(replica.read_all(400).await, even(120), "damage {nth} of {extension}");
                assert_eq!(replica.at_or_after(1_505).await, Some((51, 1_510)));
            });
            assert_eq!(contents(&fake, "index"), before, "damage {nth} of {extension}");
        }
    }
}

fn contents(fake: &Fake, extension: &str) -> Vec<Vec<u8>> {
    files(fake, extension).iter().map(|path| fake.world().files[path].now.clone()).collect()
}

#[test]
fn an_index_of_another_life_of_the_file_leads_nobody_astray() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        replica.append_many(15).await;
        replica.checkpoint().await;
    });
    let index = contents(&fake, "index").remove(0);
    let path = files(&fake, "index").remove(0);
    let fake = Fake::new();
    let mark = fake.run(async {
        let replica = start(&fake, None).await;
        for _ in 0..15 {
            replica.append(BatchSpec::records(2).value_bytes(13)).await;
        }
        replica.checkpoint().await
    });
    fake.damage(&path, |bytes| *bytes = index.clone());
    fake.run(async {
        let replica = start(&fake, Some(mark)).await;
        for from in 0..30 {
            assert_eq!(replica.read(from, 1).await, [from / 2 * 2]);
        }
    });
}

#[test]
fn records_that_the_checkpoint_vouches_for_and_that_are_not_there_stop_the_replica() {
    let fake = Fake::new();
    let mark = fake.run(async {
        let replica = start(&fake, None).await;
        replica.append_many(60).await;
        replica.checkpoint().await
    });
    let logs = files(&fake, "log");
    let refused = |path: &Path, damage: &dyn Fn(&mut Vec<u8>)| {
        let before = fake.world().files[path].clone();
        fake.damage(path, damage);
        let error =
            fake.run(async { try_start(&fake, Some(mark)).await.err().expect("refused").to_string() });
        fake.world().files.insert(path.into(), before);
        error
    };
    let short = refused(logs.last().unwrap(), &|bytes| bytes.truncate(bytes.len() - 1));
    assert!(short.contains("ends in the middle of a batch") && short.contains("restore"), "{short}");
    let empty = refused(logs.last().unwrap(), &|bytes| bytes.clear());
    assert!(empty.contains("are missing"), "{empty}");
    let gone = fake.world().files.remove(&logs[0]).unwrap();
    let error = fake.run(async { try_start(&fake, Some(mark)).await.err().expect("refused").to_string() });
    assert!(error.contains("records from 0 to"), "{error}");
    fake.world().files.insert(logs[0].clone(), gone);
    fake.run(async { assert_eq!(start(&fake, Some(mark)).await.read_all(500).await, even(120)) });
}

#[test]
fn a_search_by_time_finds_the_record_wherever_it_is() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        replica.append_many(60).await;
        replica.checkpoint().await;
        replica.append_many(10).await;
        // Record n has the time 1,000 + 10 n.
        for n in 0..140 {
            assert_eq!(replica.at_or_after(1_000 + 10 * n).await, Some((n, 1_000 + 10 * n)));
            assert_eq!(replica.at_or_after(1_000 + 10 * n - 9).await, Some((n, 1_000 + 10 * n)));
        }
        assert_eq!(replica.at_or_after(0).await, Some((0, 1_000)));
        assert_eq!(replica.at_or_after(1_000 + 1_391).await, None);
        let query = |query| replica.partition.offset(query, None, replica.soon());
        let max = query(OffsetQuery::MaxTimestamp).await.unwrap().unwrap();
        assert_eq!((max.offset, max.timestamp, max.leader_epoch), (Offset(139), 2_390, LeaderEpoch(0)));
        let latest = query(OffsetQuery::Latest { read_committed: false }).await.unwrap().unwrap();
        assert_eq!((latest.offset, latest.timestamp), (Offset(140), -1));
        let earliest = query(OffsetQuery::Earliest).await.unwrap().unwrap();
        assert_eq!((earliest.offset, earliest.leader_epoch), (Offset(0), LeaderEpoch(0)));
    });
}

#[test]
fn the_youngest_record_is_found_when_times_do_not_rise() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        for time in [5, 90, 20, 90, 10] {
            replica.append(BatchSpec::records(1).timestamp(time)).await;
        }
        for _ in 0..2 {
            let max =
                replica.partition.offset(OffsetQuery::MaxTimestamp, None, replica.soon()).await.unwrap();
            assert_eq!(max.map(|found| (found.offset.0, found.timestamp)), Some((1, 90)));
            assert_eq!(replica.at_or_after(6).await, Some((1, 90)));
            replica.checkpoint().await;
        }
    });
}

#[test]
fn a_rotten_batch_is_never_served_and_said_to_be_rotten() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        replica.append_many(10).await;
        replica.checkpoint().await;
        let path = files(&fake, "log").remove(0);
        let one = BatchSpec::records(2).build().len();
        fake.damage(&path, |bytes| bytes[4 * one + 80] ^= 1);
        assert_eq!(replica.read(0, 100_000).await, [0, 2, 4, 6], "what is good before it is served");
        let Err(ReadError::Corrupt(text)) = replica.try_read(8, 100_000).await else { panic!("served") };
        assert!(
            text.contains("00000000000000000000.log is damaged at byte") && text.contains("offset 8"),
            "{text}"
        );
        assert_eq!(replica.read(10, 100_000).await, [10, 12, 14, 16, 18], "what follows is served");
        fake.damage(&path, |bytes| bytes[4 * one + 16] = 9);
        assert!(matches!(replica.try_read(8, 1).await, Err(ReadError::Corrupt(_))), "a header");
    });
}

#[test]
fn a_segment_whose_sync_failed_is_left_and_the_rest_goes_to_a_new_file() {
    for failing_checkpoint in [0, 1] {
        let fake = Fake::new();
        let mark = fake.run(async {
            let replica = start(&fake, None).await;
            replica.append_many(5).await;
            if failing_checkpoint == 1 {
                replica.checkpoint().await;
                replica.append_many(5).await;
            }
            fake.world().syncs.push_back(Some(std::io::ErrorKind::Other));
            let error = replica.partition.checkpoint(replica.soon()).await.expect_err("the sync failed");
            assert_eq!(error.operation, "fdatasync");
            replica.append_many(5).await;
            let until = 10 * (failing_checkpoint + 2);
            assert_eq!(replica.read_all(500).await, even(until), "served from the tail");
            let mark = replica.checkpoint().await;
            assert_eq!(replica.read_all(500).await, even(until));
            mark
        });
        let names: Vec<String> =
            files(&fake, "log").iter().map(|p| p.file_name().unwrap().to_string_lossy().into()).collect();
        match failing_checkpoint {
            0 => assert_eq!(names, ["00000000000000000000.1.log"]),
            _ => assert_eq!(names, ["00000000000000000000.log", "00000000000000000010.1.log"]),
        }
        fake.lose_power(|_, _| false);
        fake.run(async {
            let replica = start(&fake, Some(mark)).await;
            let until = 10 * (failing_checkpoint + 2);
            assert_eq!(replica.read_all(500).await, even(until));
            replica.append_many(1).await;
            replica.checkpoint().await;
            assert_eq!(replica.read_all(500).await, even(until + 2));
        });
    }
}

#[test]
fn producers_survive_a_restart_by_snapshot_and_without_one() {
    for damaged in [false, true] {
        let fake = Fake::new();
        let mark = fake.run(async {
            let replica = start(&fake, None).await;
            for sequence in 0..40 {
                replica.append(BatchSpec::records(1).producer(7, 0, sequence)).await;
            }
            let mark = replica.checkpoint().await;
            for sequence in 40..43 {
                replica.append(BatchSpec::records(1).producer(7, 0, sequence)).await;
            }
            mark
        });
        if damaged {
            for path in files(&fake, "snapshot") {
                fake.damage(&path, |bytes| bytes[10] ^= 1);
            }
        }
        fake.run(async {
            let replica = start(&fake, Some(mark)).await;
            for sequence in [38, 39, 42] {
                let again = replica.put(BatchSpec::records(1).producer(7, 0, sequence)).await.unwrap();
                assert_eq!((again.base_offset, again.duplicate), (Offset(i64::from(sequence)), true));
            }
            let gap = replica.put(BatchSpec::records(1).producer(7, 0, 44)).await;
            assert!(matches!(gap, Err(AppendError::OutOfOrderSequence { expected: 43, .. })));
            let epochs = replica.partition.epoch_end(LeaderEpoch(0), None, replica.soon()).await.unwrap();
            assert_eq!(epochs, (LeaderEpoch(0), Offset(43)));
        });
    }
}

#[test]
fn a_failed_journal_group_is_unknown_and_the_retry_takes_its_place() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        replica.append(BatchSpec::records(2).producer(7, 0, 0)).await;
        fake.world().durable_writes.push_back(Some(std::io::ErrorKind::Other));
        let lost = replica.put(BatchSpec::records(3).producer(7, 0, 2)).await;
        assert_eq!(lost, Err(AppendError::Unknown));
        assert_eq!(replica.read_all(500).await, [0]);
        let retried = replica.put(BatchSpec::records(3).producer(7, 0, 2)).await.unwrap();
        assert_eq!((retried.base_offset, retried.duplicate), (Offset(2), false));
        assert_eq!(replica.append(BatchSpec::records(1).producer(7, 0, 5)).await, 5);
    });
    // What the failed write left on the medium is kept: it must not come back beside its retry.
    fake.lose_power(|_, _| true);
    fake.run(async {
        let replica = start(&fake, None).await;
        assert_eq!(replica.read_all(500).await, [0, 2, 5]);
        let again = replica.put(BatchSpec::records(1).producer(7, 0, 5)).await.unwrap();
        assert!(again.duplicate);
    });
}

#[test]
fn while_the_journal_stands_still_reads_are_served_and_appends_end_by_their_deadline() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        replica.append_many(3).await;
        fake.world().held = true;
        let deadline = Deadline::after(&fake, Duration::from_millis(500));
        let batch = || vec![BatchSpec::records(2).checked()];
        let pending = replica.partition.append(batch(), Acks::All, deadline).await.unwrap();
        let before = fake.now();
        assert_eq!(replica.read_all(500).await, even(6), "what is not synced is not shown");
        assert_eq!(fake.now(), before, "and reading did not wait");
        assert_eq!(pending.wait().await, Err(AppendError::Unknown));
        assert!(fake.now().since(before) >= Duration::from_millis(500));
        fake.let_go();
        replica.append_many(1).await;
        assert_eq!(replica.read_all(500).await, even(10), "the late one is there, too");
    });
}

#[test]
fn a_full_journal_holds_up_appends_in_order_and_reads_not_at_all() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        fake.world().held = true;
        let mut pending = Vec::new();
        for _ in 0..30 {
            let batch = vec![BatchSpec::records(1).value_bytes(20_000).checked()];
            pending.push(replica.partition.append(batch, Acks::All, replica.soon()).await.unwrap());
            // So that they do not come in one submission.
            fake.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(replica.read(0, 500).await, [] as [i64; 0]);
        fake.let_go();
        let mut offsets = Vec::new();
        for one in pending {
            offsets.push(one.wait().await.expect("appended").base_offset.0);
        }
        assert_eq!(offsets, (0..30).collect::<Vec<_>>());
    });
}

#[test]
fn a_deleted_partition_answers_and_leaves_no_files() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        replica.append_many(5).await;
        replica.checkpoint().await;
        replica.partition.close(true, replica.soon()).await;
        assert_eq!(files(&fake, "log"), [] as [PathBuf; 0]);
        assert_eq!(replica.put(BatchSpec::records(1)).await, Err(AppendError::Gone));
        assert_eq!(replica.try_read(0, 1).await, Err(ReadError::Gone));
    });
}

#[test]
fn entries_and_marks_of_another_life_are_ignored() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        replica.append_many(5).await;
        let mark = replica.checkpoint().await;
        let other = CheckpointMark { replica: Incarnation(1), ..mark };
        let error = try_start(&fake, Some(other)).await.err();
        assert!(error.is_none());
    });
}

/// Whatever a crash keeps or loses, and whenever checkpoints are recorded: what was acknowledged is there,
/// once, in order.
#[test]
fn no_crash_loses_or_doubles_what_was_acknowledged() {
    for seed in 0..60_u64 {
        let fake = Fake::new();
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
        let mut draw = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut mark = None;
        let mut sequence = 0;
        for life in 0..5 {
            let steps = draw(40) + 1;
            (mark, sequence) = fake.run(async {
                let replica = start(&fake, mark).await;
                let known = replica.partition.views().get().high_watermark.0;
                assert!(known >= i64::from(sequence), "seed {seed}, life {life}: {known} of {sequence}");
                assert_eq!(replica.read_all(700).await, (0..known).collect::<Vec<_>>(), "seed {seed}");
                let (mut mark, mut sequence) = (mark, known as i32);
                for _ in 0..steps {
                    match draw(8) {
                        0 => mark = Some(replica.checkpoint().await),
                        1 => drop(replica.checkpoint().await),
                        2 => {
                            fake.world().syncs.push_back(Some(std::io::ErrorKind::Other));
                            let _ = replica.partition.checkpoint(replica.soon()).await;
                            fake.world().syncs.clear();
                        }
                        _ => {
                            let spec = BatchSpec::records(1).value_bytes(draw(300) as usize);
                            assert_eq!(
                                replica.append(spec.producer(7, 0, sequence)).await,
                                i64::from(sequence)
                            );
                            sequence += 1;
                        }
                    }
                }
                // One more is in flight when the power goes.
                fake.world().held = true;
                let spec = BatchSpec::records(1).producer(7, 0, sequence);
                let last = vec![spec.checked()];
                let _ = replica.partition.append(last, Acks::All, replica.soon()).await;
                fake.sleep(Duration::from_millis(1)).await;
                (mark, sequence)
            });
            fake.lose_power(|_, _| draw(2) == 0);
        }
    }
}
