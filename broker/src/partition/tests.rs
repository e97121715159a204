//! A whole replica, its journal and its segments on a disk in memory: written, damaged, killed, read back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use io_backend::{Backend, Clock, Deadline};
use uuid::Uuid;

use super::*;
use crate::ids::{Incarnation, TopicId};
use crate::journal::fake::Fake;
use crate::journal::{self, JournalContext, JournalHandle, JournalSettings};
use crate::log::batch::{Batches, verify};
use crate::log::test_batches::BatchSpec;
use crate::log::{CheckpointMark, LogSettings, Retention};

mod beginning_anew;
mod checkpoints;
mod following;
mod cleaning;
mod retention;
mod segments;

const ID: PartitionId = PartitionId { topic: TopicId(Uuid::from_u128(9)), index: 4 };
const REPLICA: Incarnation = Incarnation(2);

/// Small enough that segments roll and indexes have many entries in every test.
const WAITING_BYTES: usize = 1 << 20;

const SETTINGS: LogSettings = LogSettings {
    segment_bytes: 2_000,
    segment_age: Duration::from_secs(3600),
    index_interval_bytes: 150,
    log_append_time: false,
    retention: Retention::FOREVER,
    compaction: None,
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
            unreleased_bytes_max: u64::MAX,
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
        waiting_bytes: WAITING_BYTES,
        schedules: Schedules::default(),
        signal: LogSignal::default(),
        directory: directory(),
        journal: opened.journal.clone(),
        counters: Default::default(),
        mark,
        open_files: crate::log::open_files::OpenFiles::new(fake.clone(), 2),
        recovered: Box::pin(async { Ok(opened.entries) }),
        deadline: soon(fake),
    })
    .await?;
    Ok(Replica { fake: fake.clone(), journal: opened.journal, partition })
}

/// A process start: the replica is opened and leads.
async fn start(fake: &Fake, mark: Option<CheckpointMark>) -> Replica {
    let replica = try_start(fake, mark).await.expect("the replica opens");
    let next = LeaderEpoch(replica.partition.views().get().leader_epoch.0 + 1);
    replica.partition.lead(next, InSync::alone(), soon(fake)).await.expect("it leads");
    replica
}

/// Runs `test` against a replica that has nothing yet and leads.
fn with_new_replica(test: impl AsyncFnOnce(&Fake, Replica)) {
    let fake = Fake::new();
    fake.run(async { test(&fake, start(&fake, None).await).await });
}

#[test]
fn a_resignation_that_is_not_answered_in_time_is_not_taken_for_a_partition_that_is_gone() {
    let fake = Fake::new();
    fake.run(async {
        let replica = start(&fake, None).await;
        let now = Deadline::At(fake.now());
        assert_eq!(replica.partition.resign(now).await, Err(AppendError::Unknown));
        assert_eq!(replica.partition.resign(soon(&fake)).await, Ok(()));
        assert!(!replica.partition.views().get().leading);
        replica.partition.close(false, soon(&fake)).await;
        assert_eq!(replica.partition.resign(soon(&fake)).await, Err(AppendError::Gone));
    });
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
        let request = ReadRequest {
            from: Offset(from),
            max_bytes,
            at_least_one: true,
            read_committed: false,
            current_epoch: None,
        };
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

    async fn youngest(&self) -> Option<(i64, i64)> {
        let found = self.partition.offset(OffsetQuery::MaxTimestamp, None, self.soon()).await;
        found.expect("searched").map(|found| (found.offset.0, found.timestamp))
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

/// Numbers below what each is asked for, the same for the same seed.
fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
    move |below| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    }
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
    with_new_replica(async |fake, replica| {
        replica.append_many(3).await;
        fake.world().held = true;
        let deadline = Deadline::after(fake, Duration::from_millis(500));
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
    with_new_replica(async |fake, replica| {
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
    with_new_replica(async |fake, replica| {
        replica.append_many(5).await;
        replica.checkpoint().await;
        replica.partition.close(true, replica.soon()).await;
        assert_eq!(files(fake, "log"), [] as [PathBuf; 0]);
        assert_eq!(replica.put(BatchSpec::records(1)).await, Err(AppendError::Gone));
        assert_eq!(replica.try_read(0, 1).await, Err(ReadError::Gone));
    });
}

#[test]
fn entries_and_marks_of_another_life_are_ignored() {
    with_new_replica(async |fake, replica| {
        replica.append_many(5).await;
        let mark = replica.checkpoint().await;
        let other = CheckpointMark { replica: Incarnation(1), ..mark };
        let error = try_start(fake, Some(other)).await.err();
        assert!(error.is_none());
    });
}

/// Whatever a crash keeps or loses, and whenever checkpoints are recorded: what was acknowledged is there,
/// once, in order.
#[test]
fn no_crash_loses_or_doubles_what_was_acknowledged() {
    for seed in 0..20_u64 {
        let fake = Fake::new();
        let mut draw = draws(seed);
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

#[test]
fn appends_that_are_left_behind_are_bounded_by_their_bytes() {
    with_new_replica(async |fake, replica| {
        fake.world().held = true;
        let spec = BatchSpec::records(1).value_bytes(60_000);
        let one = spec.build().len();
        let mut taken = 0;
        // Nobody waits for them: each is forgotten as soon as it is queued.
        let refused = loop {
            match replica.partition.append(vec![spec.checked()], Acks::Leader, replica.soon()).await {
                Ok(pending) => drop(pending),
                Err(refused) => break refused,
            }
            taken += one;
            assert!(taken < 2 * WAITING_BYTES, "without bound");
        };
        assert_eq!(refused, AppendError::Overloaded);
        assert!(taken > WAITING_BYTES / 2, "{taken}");
        fake.let_go();
        assert!(replica.put(spec).await.is_ok(), "there is room again");
    });
}
