//! Checkpoints: in which order, with which mark, and what follows when the disk fails in one.

use super::*;

#[test]
fn a_checkpoint_that_fails_half_way_leaves_everything_as_it_was() {
    // Whichever of its syncs fails: segment, next segment, snapshot.
    for failing in 0..3 {
        let fake = Fake::new();
        let mark = fake.run(async {
            let replica = start(&fake, None).await;
            replica.append_many(30).await;
            let healthy = std::iter::repeat_n(None, failing);
            fake.world().syncs = healthy.chain([Some(std::io::ErrorKind::Other)]).collect();
            replica.partition.checkpoint(replica.soon()).await.expect_err("a sync failed");
            assert_eq!(files(&fake, "log"), [] as [PathBuf; 0], "nothing half-made stays");
            assert_eq!(replica.read_all(500).await, even(60));
            replica.append_many(1).await;
            replica.checkpoint().await
        });
        fake.lose_power(|_, _| false);
        fake.run(async {
            let replica = start(&fake, Some(mark)).await;
            assert_eq!(replica.read_all(500).await, even(62), "sync {failing} failed");
        });
    }
}

#[test]
fn a_checkpoint_syncs_before_it_answers_and_lets_the_tail_and_the_journal_go() {
    with_new_replica(async |fake, replica| {
        replica.append_many(5).await;
        fake.world().log.clear();
        let mark = replica.checkpoint().await;
        assert_eq!((mark.log_end, mark.lsn), (Offset(10), replica.journal.status().durable));
        let log = fake.world().log.clone();
        let nth = |what: &str| log.iter().position(|line| line.starts_with(what)).expect(what);
        let at = |operation: &str, file: &str| nth(&format!("{operation} {}/{file}", directory().display()));
        let segment = at("sync", "00000000000000000000.log");
        let index = at("write", "00000000000000000000.index");
        let snapshot = at("sync", &format!("{:020}.snapshot.0.new", mark.lsn.0));
        assert!(segment < index && index < snapshot, "{log:#?}");
        fake.world().log.clear();
        let again = replica.checkpoint().await;
        assert_eq!(again, mark);
        assert_eq!(fake.world().log, [] as [String; 0], "nothing to do, nothing done");
    });
}

#[test]
fn the_mark_of_an_idle_partition_rises_with_the_journal() {
    with_new_replica(async |fake, replica| {
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
            0 => assert_eq!(names, ["00000000000000000000.g1.log"]),
            _ => assert_eq!(names, ["00000000000000000000.log", "00000000000000000010.g1.log"]),
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
