//! Compacted partitions, whatever is in the middle of what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use io_backend::Disk;

use super::*;
use crate::log::Compaction;
use crate::log::batch::{BatchHeader, HEADER_BYTES};
use crate::log::cleaning::choice::{Sealed, groups};
use crate::log::cleaning::record::walk;
use crate::log::cleaning::rewrite::Judge;
use crate::log::cleaning::{Cleaning, Pace, Plan};

const COMPACTED: LogSettings = LogSettings {
    compaction: Some(Compaction {
        min_dirty_ppm: 1,
        min_lag: Duration::ZERO,
        max_lag: None,
        delete_retention: Duration::from_secs(1_000_000),
    }),
    ..SETTINGS
};

const KEYS: [&[(&str, Option<&str>)]; 4] = [
    &[("a", Some("1"))],
    &[("b", Some("2")), ("c", Some("2"))],
    &[("c", Some("3")), ("a", Some("3"))],
    &[("b", None)],
];

async fn started(fake: &Fake, mark: Option<CheckpointMark>) -> Replica {
    let replica = start(fake, mark).await;
    replica.partition.configure(COMPACTED, replica.soon()).await.unwrap();
    replica
}

/// Where the last record of each key is, and how many records there are.
async fn last_of_each(replica: &Replica) -> (BTreeMap<String, i64>, usize) {
    let (mut last, mut count, mut next) = (BTreeMap::new(), 0, 0);
    loop {
        let pieces = replica.try_read(next, 700).await.unwrap();
        let Some(behind) = end(&pieces) else { return (last, count) };
        for piece in &pieces {
            for (at, header) in Batches::new(piece).map(Result::unwrap) {
                for record in walk(&piece[at + HEADER_BYTES..at + header.bytes], header.records) {
                    let record = record.unwrap();
                    let offset = header.base_offset.0 + record.offset_delta;
                    // Without compaction of the tail a key may come again in the same pieces.
                    if offset >= next {
                        last.insert(String::from_utf8_lossy(record.key.unwrap()).into_owned(), offset);
                        count += 1;
                    }
                }
            }
        }
        next = behind;
    }
}

fn cleaning_of<'a>(
    backend: &'a Fake,
    plan: &'a Plan<Fake>,
    keys_bytes: usize,
    judge: &'a Judge,
) -> Cleaning<'a, Fake> {
    Cleaning { backend, plan, keys_bytes, judge, left_behind: AtomicBool::new(false) }
}

/// Cleans, as the cleaner does; puts only so many groups in their place, and gives up.
async fn clean(fake: &Fake, replica: &Replica, keys_bytes: usize, put_max: usize) -> usize {
    let Some(plan) = replica.partition.plan_cleaning(replica.soon()).await.unwrap() else { return 0 };
    let judge: Judge = Arc::new(|_, fate| fate);
    let cleaning = cleaning_of(fake, &plan, keys_bytes, &judge);
    let mut pace = Pace::new(fake, u64::MAX);
    let (newest, upto) = cleaning.survey(&mut pace).await.unwrap();
    let sealed: Vec<Sealed> = plan.segments[..upto].iter().map(|segment| Sealed::of(segment)).collect();
    let mut put = 0;
    for group in groups(&sealed, plan.segment_bytes) {
        let cleaned = cleaning.clean(&newest, &plan.segments[group], &mut pace).await.unwrap().unwrap();
        if put == put_max {
            return put;
        }
        let replaced = replica.partition.put_cleaned(Box::new(cleaned), replica.soon()).await.unwrap();
        for name in replaced.expect("nothing else changes segments").segments {
            fake.disk().remove_file(&directory().join(name.file("log")), replica.soon()).await.unwrap();
        }
        put += 1;
    }
    put
}

#[test]
fn a_log_shrinks_and_every_key_has_its_last_record_also_after_a_start() {
    let fake = Fake::new();
    let (mark, before) = fake.run(async {
        let replica = started(&fake, None).await;
        for n in 0..400 {
            replica.append(BatchSpec::of(KEYS[n % 4])).await;
        }
        let mark = replica.checkpoint().await;
        let (before, all) = last_of_each(&replica).await;
        assert_eq!(all, 600);
        assert!(clean(&fake, &replica, 1 << 20, usize::MAX).await > 0);
        let (after, left) = last_of_each(&replica).await;
        assert_eq!(after, before);
        assert!(left < 100, "{left} are left");
        assert!(replica.partition.plan_cleaning(replica.soon()).await.unwrap().is_none(), "all is clean");
        (mark, before)
    });
    fake.lose_power(|_, _| false);
    fake.run(async {
        let replica = started(&fake, Some(mark)).await;
        let (after, left) = last_of_each(&replica).await;
        assert_eq!(after, before);
        assert!(left < 100);
        assert_eq!(replica.append(BatchSpec::records(1)).await, 600);
        // What was cleaned once becomes fewer segments with the next cleaning.
        let mut counts = Vec::new();
        for _ in 0..2 {
            for n in 0..400 {
                replica.append(BatchSpec::of(KEYS[n % 4])).await;
            }
            replica.checkpoint().await;
            counts.push(files(&fake, "log").len());
            assert!(clean(&fake, &replica, 1 << 20, usize::MAX).await > 0);
        }
        let left = files(&fake, "log").len();
        assert!(left < counts[1] - counts[0] / 3, "{left} of {counts:?}");
    });
}

#[test]
fn no_crash_in_the_middle_of_a_cleaning_loses_a_last_record_or_brings_one_back() {
    for seed in 0..30_u64 {
        let fake = Fake::new();
        let mut draw = draws(seed);
        let mut mark = None;
        let mut known: BTreeMap<String, i64> = BTreeMap::new();
        for life in 0..6 {
            (mark, known) = fake.run(async {
                let replica = started(&fake, mark).await;
                assert_eq!(last_of_each(&replica).await.0, known, "seed {seed}, life {life}");
                let mut mark = mark;
                for _ in 0..draw(4) + 1 {
                    for _ in 0..draw(120) {
                        let keys = KEYS[draw(4) as usize];
                        let base = replica.append(BatchSpec::of(keys)).await;
                        known.extend(keys.iter().zip(base..).map(|((key, _), at)| ((*key).to_owned(), at)));
                    }
                    mark = Some(replica.checkpoint().await);
                    // With room for seven keys, or less than there are.
                    let put_max = if draw(2) == 0 { usize::MAX } else { draw(3) as usize };
                    clean(&fake, &replica, 1 << 20, put_max).await;
                    assert_eq!(last_of_each(&replica).await.0, known, "seed {seed}, life {life}");
                }
                (mark, known)
            });
            fake.lose_power(|_, _| draw(2) == 0);
        }
    }
}

#[test]
fn a_segment_that_is_gone_meanwhile_has_nothing_put_in_its_place() {
    let fake = Fake::new();
    fake.run(async {
        let replica = started(&fake, None).await;
        for n in 0..200 {
            replica.append(BatchSpec::of(KEYS[n % 4])).await;
        }
        replica.checkpoint().await;
        let plan = replica.partition.plan_cleaning(replica.soon()).await.unwrap().unwrap();
        let judge: Judge = Arc::new(|_, fate| fate);
        let cleaning = cleaning_of(&fake, &plan, 1 << 20, &judge);
        let mut pace = Pace::new(&fake, u64::MAX);
        let (newest, _) = cleaning.survey(&mut pace).await.unwrap();
        let cleaned = cleaning.clean(&newest, &plan.segments[..2], &mut pace).await.unwrap().unwrap();
        let until = plan.segments[0].end();
        replica.partition.delete_records(Some(until), replica.soon()).await.unwrap();
        replica.partition.forget_before(until, replica.soon()).await.unwrap();
        assert_eq!(replica.partition.put_cleaned(Box::new(cleaned), replica.soon()).await.unwrap(), None);
        let header = |pieces: Vec<Bytes>| BatchHeader::read(&pieces[0]).unwrap().base_offset;
        assert_eq!(header(replica.try_read(until.0, 100).await.unwrap()), until);
    });
}

#[test]
fn what_went_for_all_had_it_is_not_put_once_a_replica_lacks_it() {
    let fake = Fake::new();
    fake.run(async {
        let replica = started(&fake, None).await;
        for n in 0..200 {
            replica.append(BatchSpec::of(KEYS[n % 4])).await;
        }
        replica.checkpoint().await;
        let (epoch, soon) = (LeaderEpoch(0), replica.soon());
        let others = |others: &[i32]| InSync::new(others.iter().copied().map(BrokerId), [], 1);
        for (lacks, gone_before) in [(true, 1), (false, 0), (false, 1)] {
            let plan = replica.partition.plan_cleaning(soon).await.unwrap().unwrap();
            let judge: Judge = Arc::new(|_, fate| fate);
            let cleaning = cleaning_of(&fake, &plan, 1 << 20, &judge);
            let mut pace = Pace::new(&fake, u64::MAX);
            let (newest, _) = cleaning.survey(&mut pace).await.unwrap();
            let mut cleaned = cleaning.clean(&newest, &plan.segments[..1], &mut pace).await.unwrap().unwrap();
            cleaned.counts.held_before = Offset(gone_before);
            let now = others(if lacks || gone_before == 0 { &[2] } else { &[] });
            replica.partition.change_in_sync(epoch, now, soon).await.unwrap();
            let put = replica.partition.put_cleaned(Box::new(cleaned), soon).await.unwrap();
            assert_eq!(put.is_none(), lacks, "a tombstone went before {gone_before}");
        }
    });
}

/// A checkpoint gives back the files that it began with, and none of what was decided meanwhile.
#[test]
fn a_cleaning_that_begins_beside_a_checkpoint_has_a_number_that_no_other_gets() {
    let fake = Fake::new();
    fake.run(async {
        let replica = started(&fake, None).await;
        for n in 0..100 {
            replica.append(BatchSpec::of(KEYS[n % 4])).await;
        }
        replica.checkpoint().await;
        for n in 0..100 {
            replica.append(BatchSpec::of(KEYS[n % 4])).await;
        }
        let (beside, checkpoint) = futures::join!(
            replica.partition.plan_cleaning(replica.soon()),
            replica.partition.checkpoint(replica.soon())
        );
        let beside = beside.unwrap().unwrap();
        checkpoint.unwrap();
        let mut numbers = vec![beside.nth];
        for _ in 0..3 {
            for n in 0..40 {
                replica.append(BatchSpec::of(KEYS[n % 4])).await;
            }
            let (checkpoint, plan) = futures::join!(
                replica.partition.checkpoint(replica.soon()),
                replica.partition.plan_cleaning(replica.soon())
            );
            checkpoint.unwrap();
            numbers.push(plan.unwrap().unwrap().nth);
        }
        assert!(numbers.is_sorted_by(|one, two| one < two), "{numbers:?}");
    });
}
