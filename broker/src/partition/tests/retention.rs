//! How the beginning of a log goes, and what a crash makes of it at each step.

use std::collections::BTreeSet;

use super::*;

const SMALL: Retention = Retention { bytes: Some(4_000), ..Retention::FOREVER };

impl Replica {
    async fn keeps(&self, retention: Retention) {
        let settings = LogSettings { retention, ..SETTINGS };
        self.partition.configure(settings, self.soon()).await.expect("configured");
    }

    async fn delete(&self, before: i64) -> Result<i64, DeleteRecordsError> {
        let outcome = self.partition.delete_records(Some(Offset(before)), self.soon()).await;
        outcome.map(|start| start.0)
    }

    fn log_start(&self) -> i64 {
        self.partition.views().get().log_start.0
    }
}

/// What a checkpoint record says when it vouches for a later start.
fn vouched(mark: CheckpointMark, start: i64) -> CheckpointMark {
    CheckpointMark { log_start: mark.log_start.max(Offset(start).min(mark.log_end)), ..mark }
}

#[test]
fn deleted_records_are_out_of_range_and_stay_so_whatever_ends_the_process() {
    for checkpoint in [false, true] {
        let fake = Fake::new();
        let mark = fake.run(async {
            let replica = start(&fake, None).await;
            replica.append_many(30).await;
            let mark = if checkpoint { Some(replica.checkpoint().await) } else { None };
            assert_eq!(replica.delete(25).await, Ok(25));
            assert_eq!(replica.delete(7).await, Ok(25), "what is deleted already is no mistake");
            assert_eq!(replica.delete(61).await, Err(DeleteRecordsError::OutOfRange(Offset(61), Offset(60))));
            assert_eq!(replica.delete(-2).await, Err(DeleteRecordsError::OutOfRange(Offset(-2), Offset(60))));
            let out = Err(ReadError::OutOfRange(Offset(24), Offset(25), Offset(60)));
            assert_eq!(replica.try_read(24, 1).await, out);
            assert_eq!(replica.read(25, 1).await, [24], "the batch that holds the first record");
            mark
        });
        fake.lose_power(|_, _| false);
        fake.run(async {
            let replica = start(&fake, mark).await;
            assert_eq!(replica.log_start(), 25);
            let earliest = replica.partition.offset(OffsetQuery::Earliest, None, replica.soon()).await;
            assert_eq!(earliest.unwrap().unwrap().offset, Offset(25));
            assert_eq!(replica.read_all(10_000).await, (26..60).step_by(2).collect::<Vec<_>>());
            assert_eq!(replica.append(BatchSpec::records(1)).await, 60);
        });
    }
}

#[test]
fn what_is_not_known_to_be_durable_is_not_told_to_be_deleted() {
    with_new_replica(async |fake, replica| {
        replica.append_many(5).await;
        fake.world().held = true;
        let deadline = Deadline::after(fake, Duration::from_millis(300));
        let deleted = replica.partition.delete_records(Some(Offset(4)), deadline).await;
        assert_eq!(deleted, Err(DeleteRecordsError::TimedOut));
        assert_eq!((replica.log_start(), replica.read(0, 1).await), (0, vec![0]), "it has not moved");
        fake.let_go();
        assert_eq!(replica.delete(4).await, Ok(4));
        fake.world().durable_writes.push_back(Some(std::io::ErrorKind::Other));
        assert_eq!(replica.delete(6).await, Err(DeleteRecordsError::TimedOut));
        assert_eq!(replica.log_start(), 4);
        assert_eq!(replica.delete(6).await, Ok(6));
    });
}

#[test]
fn what_is_deleted_is_told_once_all_in_sync_have_deleted_it_and_not_by_who_leads_no_more() {
    with_new_replica(async |fake, replica| {
        replica.append_many(5).await;
        let (partition, soon) = (&replica.partition, replica.soon());
        let epoch = partition.views().get().leader_epoch;
        partition
            .change_in_sync(
                epoch,
                InSync::new([BrokerId(2), BrokerId(3)], [BrokerId(2), BrokerId(3)], 2),
                soon,
            )
            .await
            .unwrap();
        let reports = async |follower, log_start| {
            let durable = Durable { synced: Offset::ZERO, log_start: Offset(log_start) };
            partition.reported(epoch, BrokerId(follower), durable, soon).await;
        };
        reports(2, 4).await;
        let shortly = || Deadline::after(fake, Duration::from_millis(300));
        let deleted = partition.delete_records(Some(Offset(4)), shortly()).await;
        assert_eq!((deleted, replica.log_start()), (Err(DeleteRecordsError::TimedOut), 4), "3 has it still");
        reports(3, 3).await;
        let deleted = partition.delete_records(Some(Offset(3)), soon).await;
        assert_eq!(deleted, Ok(Offset(3)), "what all have deleted");
        let deletion = partition.delete_records(Some(Offset(4)), soon);
        let (deleted, ()) = futures::join!(deletion, reports(3, 4));
        assert_eq!(deleted, Ok(Offset(4)));
        let (deleted, resigned) = futures::join!(replica.delete(6), partition.resign(soon));
        assert_eq!(
            (deleted, resigned),
            (Err(DeleteRecordsError::TimedOut), Ok(())),
            "another decides about it"
        );
    });
}

#[test]
fn a_log_is_kept_within_its_size_and_its_age_wherever_its_records_are() {
    with_new_replica(async |fake, replica| {
        replica.append_many(100).await;
        replica.checkpoint().await;
        replica.append_many(10).await;
        replica.keeps(SMALL).await;
        let before = replica.partition.bytes(replica.soon()).await.unwrap();
        let retained = replica.partition.retain(replica.soon()).await.unwrap();
        assert!(retained.has_dead && retained.failed.is_none() && before > 9_000, "{before}: {retained:?}");
        let dead = replica.partition.forget_before(retained.log_start, replica.soon()).await.unwrap();
        let left = replica.partition.bytes(replica.soon()).await.unwrap();
        assert!((4_000..6_000).contains(&left) && dead.bytes == before - left, "{left} and {dead:?}");
        // The tail alone is more than is to be kept, before anything of it comes into a segment.
        replica.append_many(60).await;
        let retained = replica.partition.retain(replica.soon()).await.unwrap();
        assert!(retained.has_dead && retained.log_start > Offset(220), "{retained:?}");
        assert!(replica.partition.bytes(replica.soon()).await.unwrap() < 6_000 + 2_200);
        let start = replica.log_start();
        assert_eq!(replica.read_all(700).await, (start..340).step_by(2).collect::<Vec<_>>());
        // All of it is old.
        fake.world().wall_ms = 1_000_000;
        replica.keeps(Retention { time: Some(Duration::ZERO), ..Retention::FOREVER }).await;
        let retained = replica.partition.retain(replica.soon()).await.unwrap();
        assert_eq!(retained.log_start, Offset(340));
        replica.append_many(3).await;
        let mark = replica.checkpoint().await;
        assert_eq!((mark.log_start, mark.log_end), (Offset(340), Offset(346)));
        let dead = replica.partition.forget_before(mark.log_start, replica.soon()).await.unwrap();
        assert!(!dead.segments.is_empty());
        assert_eq!(replica.read_all(700).await, [340, 342, 344], "in a segment of their own");
    });
}

#[test]
fn a_start_takes_a_directory_in_any_state_that_a_deletion_can_leave() {
    let fake = Fake::new();
    let (mark, names) = fake.run(async {
        let replica = start(&fake, None).await;
        replica.append_many(120).await;
        let mark = replica.checkpoint().await;
        replica.delete(185).await.unwrap();
        let mark = vouched(mark, replica.log_start());
        let dead = replica.partition.forget_before(mark.log_start, replica.soon()).await.unwrap();
        assert!(dead.segments.len() >= 3, "{dead:?}");
        (mark, dead.segments)
    });
    let all: Vec<PathBuf> = names
        .iter()
        .flat_map(|name| {
            ["log", "index", "timeindex"].map(|extension| directory().join(name.file(extension)))
        })
        .collect();
    let stored = fake.world().files.clone();
    let named = fake.world().named.clone();
    // Every subset of the first files, in whatever order they went or came back.
    for subset in 0..1_u32 << all.len().min(9) {
        fake.world().files = stored.clone();
        fake.world().named = named.clone();
        for (nth, path) in all.iter().enumerate() {
            if subset & (1 << (nth % 9)) != 0 {
                fake.world().files.remove(path);
            }
        }
        fake.run(async {
            let replica = start(&fake, Some(mark)).await;
            assert_eq!(replica.log_start(), 185);
            assert_eq!(replica.read_all(700).await, (186..240).step_by(2).collect::<Vec<_>>());
            let left: BTreeSet<PathBuf> = fake.world().files.keys().cloned().collect();
            assert!(all.iter().all(|path| !left.contains(path)), "{subset:b}: {left:?}");
        });
        fake.forget_waiting();
    }
    // A record from before the deletion needs them all.
    fake.world().files = stored;
    fake.world().files.remove(&all[0]);
    fake.run(async {
        let old = CheckpointMark { log_start: Offset(0), ..mark };
        let error = try_start(&fake, Some(old)).await.err().expect("it does not open").to_string();
        assert!(error.contains("records from 0 to"), "{error}");
    });
}

#[test]
fn a_reader_keeps_what_it_reads_or_is_told_that_it_is_out_of_range() {
    with_new_replica(async |fake, replica| {
        replica.append_many(60).await;
        let mark = replica.checkpoint().await;
        replica.delete(100).await.unwrap();
        let dead = replica.partition.forget_before(Offset(100), replica.soon()).await.unwrap();
        assert_eq!(mark.log_end, Offset(120));
        for name in dead.segments {
            fake.world().files.remove(&directory().join(name.file("log")));
        }
        for from in (0..100).step_by(7) {
            let out = ReadError::OutOfRange(Offset(from), Offset(100), Offset(120));
            assert_eq!(replica.try_read(from, 500).await, Err(out));
        }
        assert_eq!(replica.at_or_after(0).await, Some((100, 1_000 + 100 * 10)));
        assert_eq!(replica.read_all(300).await, (100..120).step_by(2).collect::<Vec<_>>());
    });
}

#[test]
fn a_reader_whose_file_goes_between_plan_and_read_is_out_of_range() {
    with_new_replica(async |fake, replica| {
        replica.append_many(60).await;
        replica.checkpoint().await;
        fake.world().latency = 10_000_000;
        let request = ReadRequest {
            from: Offset(0),
            max_bytes: 500,
            at_least_one: true,
            read_committed: false,
            current_epoch: None,
        };
        let reading = replica.partition.read(request, replica.soon());
        let deleting = async {
            replica.delete(120).await.unwrap();
            for path in files(fake, "log") {
                fake.world().files.remove(&path);
            }
        };
        let (read, ()) = futures::join!(reading, deleting);
        match read {
            Ok(outcome) => assert_eq!(bases(&outcome.batches)[0], 0, "data"),
            Err(error) => assert_eq!(error, ReadError::OutOfRange(Offset(0), Offset(120), Offset(120))),
        }
    });
}

#[test]
fn segments_end_by_the_times_of_their_records_over_restarts_too() {
    let fake = Fake::new();
    let batch = |timestamp| BatchSpec::records(1).timestamp(timestamp);
    let hour = 3_600_000;
    let mark = fake.run(async {
        let replica = start(&fake, None).await;
        replica.append(batch(1_000)).await;
        replica.append(batch(500)).await;
        replica.append(batch(1_000 + hour)).await;
        let mark = replica.checkpoint().await;
        assert_eq!(files(&fake, "log").len(), 1, "as old as it may be");
        mark
    });
    fake.run(async {
        let replica = start(&fake, Some(mark)).await;
        replica.append(batch(2_000)).await;
        let mark = replica.checkpoint().await;
        assert_eq!(files(&fake, "log").len(), 1);
        replica.append(batch(1_001 + hour)).await;
        replica.checkpoint().await;
        assert_eq!(
            files(&fake, "log").len(),
            2,
            "its age counts from its first record, whenever it was opened"
        );
        assert_eq!(mark.log_end, Offset(4));
        // Without times the clock counts.
        replica.append(batch(-1)).await;
        replica.checkpoint().await;
        assert_eq!(files(&fake, "log").len(), 2);
    });
}

#[test]
fn producers_outlive_their_records_and_epochs_before_the_start_are_forgotten() {
    let fake = Fake::new();
    let mark = fake.run(async {
        let replica = start(&fake, None).await;
        replica.append(BatchSpec::records(4).producer(7, 0, 0)).await;
        let next = LeaderEpoch(replica.partition.views().get().leader_epoch.0 + 1);
        replica.partition.lead(next, InSync::alone(), replica.soon()).await.unwrap();
        replica.append_many(10).await;
        replica.delete(24).await.unwrap();
        replica.checkpoint().await
    });
    fake.run(async {
        let replica = start(&fake, Some(mark)).await;
        let again = replica.put(BatchSpec::records(4).producer(7, 0, 0)).await.unwrap();
        assert!(again.duplicate);
        assert_eq!(replica.append(BatchSpec::records(1).producer(7, 0, 4)).await, 24);
        let end = replica.partition.epoch_end(LeaderEpoch(0), None, replica.soon()).await.unwrap();
        assert_eq!(end, (LeaderEpoch(0), Offset(24)), "nothing of it is left");
    });
}

/// Whatever a crash keeps or loses: the log starts where it was told to start or later, never before, and what follows is
/// whole.
#[test]
fn no_crash_brings_deleted_records_back_or_takes_others_along() {
    for seed in 0..30_u64 {
        let fake = Fake::new();
        let mut draw = draws(seed);
        let (mut mark, mut end, mut told, mut asked) = (None, 0, 0, 0);
        for life in 0..6 {
            let steps = draw(40) + 1;
            (mark, end, told, asked) = fake.run(async {
                let replica = start(&fake, mark).await;
                let view = *replica.partition.views().get();
                assert!(view.high_watermark.0 >= end, "seed {seed}, life {life}");
                assert!(
                    (told..=asked).contains(&view.log_start.0),
                    "seed {seed}, life {life}: {view:?} of {told} to {asked}"
                );
                let (mut end, mut told, mut asked) = (view.high_watermark.0, view.log_start.0, asked);
                assert_eq!(replica.read_all(700).await, (told..end).collect::<Vec<_>>(), "seed {seed}");
                let mut mark: Option<CheckpointMark> = mark;
                for _ in 0..steps {
                    match draw(10) {
                        0 => mark = Some(replica.checkpoint().await),
                        1 => drop(replica.checkpoint().await),
                        2 => {
                            fake.world().syncs.push_back(Some(std::io::ErrorKind::Other));
                            let _ = replica.partition.checkpoint(replica.soon()).await;
                            fake.world().syncs.clear();
                        }
                        3 => {
                            let to = told + draw((end - told + 1) as u64) as i64;
                            asked = asked.max(to);
                            told = replica.delete(to).await.expect("deleted");
                        }
                        4 | 5 if let Some(old) = mark => {
                            let new = vouched(old, told);
                            mark = Some(new);
                            let dead = replica.partition.forget_before(new.log_start, replica.soon()).await;
                            for name in dead.expect("forgotten").segments {
                                for extension in ["log", "index", "timeindex"] {
                                    if draw(3) > 0 {
                                        let path = directory().join(name.file(extension));
                                        fake.world().files.remove(&path);
                                    }
                                }
                            }
                        }
                        _ => {
                            let spec = BatchSpec::records(1).value_bytes(draw(300) as usize);
                            assert_eq!(replica.append(spec).await, end);
                            end += 1;
                        }
                    }
                }
                assert_eq!(replica.read_all(700).await, (told..end).collect::<Vec<_>>(), "seed {seed}");
                // One more is in flight when the power goes.
                fake.world().held = true;
                let deadline = Deadline::after(&fake, Duration::from_millis(1));
                asked = end;
                let _ = replica.partition.delete_records(None, deadline).await;
                (mark, end, told, asked)
            });
            fake.lose_power(|_, _| draw(2) == 0);
        }
    }
}
