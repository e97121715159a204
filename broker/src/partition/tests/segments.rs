//! What readers get from segments, and what becomes of it when files are damaged.

use super::*;

#[test]
fn segments_roll_and_every_offset_is_found_within_its_bounds() {
    with_new_replica(async |fake, replica| {
        replica.append_many(60).await;
        replica.checkpoint().await;
        replica.append_many(20).await;
        replica.checkpoint().await;
        replica.append_many(3).await;
        assert!(files(fake, "log").len() >= 4, "{:?}", files(fake, "log"));
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
    with_new_replica(async |_, replica| {
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
    with_new_replica(async |_, replica| {
        for time in [5, 90, 20, 90, 10] {
            replica.append(BatchSpec::records(1).timestamp(time)).await;
        }
        for _ in 0..2 {
            assert_eq!(replica.youngest().await, Some((1, 90)));
            assert_eq!(replica.at_or_after(6).await, Some((1, 90)));
            replica.checkpoint().await;
        }
    });
}

#[test]
fn the_youngest_record_is_one_that_is_committed_and_not_deleted() {
    with_new_replica(async |fake, replica| {
        let (partition, soon) = (&replica.partition, replica.soon());
        for time in [5, 90, 20] {
            replica.append(BatchSpec::records(1).timestamp(time)).await;
        }
        let epoch = partition.views().get().leader_epoch;
        partition.change_in_sync(epoch, InSync::new([BrokerId(2)], [BrokerId(2)], 2), soon).await.unwrap();
        let late = vec![BatchSpec::records(1).timestamp(95).checked()];
        partition.append(late, Acks::Leader, soon).await.unwrap().wait().await.unwrap();
        assert_eq!(replica.youngest().await, Some((1, 90)), "nobody else has the one of 95");
        replica.checkpoint().await;
        assert_eq!(files(fake, "log").len(), 1);
        assert_eq!(replica.youngest().await, Some((1, 90)), "in a segment neither");
        let deleted = Durable { synced: Offset::ZERO, log_start: Offset(3) };
        partition.reported(epoch, BrokerId(2), deleted, soon).await;
        partition.delete_records(Some(Offset(2)), soon).await.unwrap();
        assert_eq!(replica.youngest().await, Some((2, 20)));
        partition.delete_records(Some(Offset(3)), soon).await.unwrap();
        assert_eq!(replica.youngest().await, None);
    });
}

#[test]
fn the_youngest_record_is_found_in_what_is_left_of_a_batch() {
    with_new_replica(async |_, replica| {
        let (partition, soon) = (&replica.partition, replica.soon());
        for in_segment in [false, true] {
            // Times 100, 90, 80, 70, then 60: what is deleted of the first batch is younger than all that is left.
            let base = replica.append(BatchSpec::records(4).timestamp(100).step(-10)).await;
            if in_segment {
                replica.checkpoint().await;
            }
            partition.delete_records(Some(Offset(base + 2)), soon).await.unwrap();
            assert_eq!(replica.youngest().await, Some((base + 2, 80)));
            replica.append(BatchSpec::records(1).timestamp(60)).await;
            assert_eq!(replica.youngest().await, Some((base + 2, 80)));
            replica.append(BatchSpec::records(1).timestamp(80)).await;
            assert_eq!(
                replica.youngest().await,
                Some((base + 2, 80)),
                "the first of those that are as young"
            );
            partition.delete_records(Some(Offset(base + 3)), soon).await.unwrap();
            assert_eq!(replica.youngest().await, Some((base + 5, 80)));
            partition.delete_records(None, soon).await.unwrap();
            assert_eq!(replica.youngest().await, None);
        }
    });
}

#[test]
fn a_rotten_batch_is_never_served_and_said_to_be_rotten() {
    with_new_replica(async |fake, replica| {
        replica.append_many(10).await;
        replica.checkpoint().await;
        let path = files(fake, "log").remove(0);
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
