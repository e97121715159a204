//! A follower whose log ends before its leader's begins: it begins anew there, and no crash mixes the two logs.

use super::following::{Follower, Leader, end_of};
use super::*;

/// 30 batches of one record and two, of which a follower that was away has the first 20 records.
fn leader() -> Leader {
    let mut leader = Leader::default();
    (0..20).for_each(|_| leader.append_next());
    leader
}

/// What the leader goes on with while the follower is away, and deletes of it: the log's start lies within a batch of two.
fn go_on(leader: &mut Leader) {
    (0..10).for_each(|nth| leader.append_two(1_000 + nth));
    (0..5).for_each(|_| leader.append_next());
    leader.log_start = 31;
}

fn kept_by(leader: &Leader) -> Vec<u8> {
    leader.kept().flat_map(|(_, _, bytes)| bytes.to_vec()).collect()
}

#[test]
fn a_follower_that_was_away_for_long_begins_anew_where_its_leader_does() {
    let fake = Fake::new();
    let mut leader = leader();
    fake.run(async {
        let mut follower = Follower::start(&fake, None, &leader).await;
        follower.catch_up(&leader, 20).await;
        let before = follower.replica.checkpoint().await;
        go_on(&mut leader);
        fake.world().latency = 10_000_000;
        follower.fetch(&leader, 3, 32).await;
        let view = *follower.replica.partition.views().get();
        assert_eq!((view.log_start, view.log_end), (Offset(0), Offset(20)), "as long as that is not durable");
        fake.sleep(Duration::from_millis(100)).await;
        let view = *follower.replica.partition.views().get();
        let at = Offset(30);
        assert_eq!((view.log_start, view.high_watermark, view.log_end), (at, at, at));
        fake.world().latency = 0;
        follower.follow(&leader).await;
        assert_eq!(follower.position, (LeaderEpoch::NONE, at));
        follower.catch_up(&leader, 45).await;
        let after = follower.replica.checkpoint().await;
        assert_eq!(
            (after.log_start, after.log_end, after.high_watermark),
            (Offset(31), Offset(45), Offset(45))
        );
        assert!(after.truncations > before.truncations && after.generation > before.generation);
        let forgotten =
            follower.replica.partition.forget_before(after.log_start, follower.replica.soon()).await;
        let forgotten = forgotten.expect("the owner answers").segments;
        assert!(
            !forgotten.is_empty() && forgotten.iter().all(|name| name.base < Offset(20)),
            "{forgotten:?}"
        );
        assert_eq!(follower.all_bytes(1).await, kept_by(&leader));
        let last = BatchSpec::records(1).producer(7, 0, leader.sequence - 1);
        assert!(follower.replica.put(last).await.unwrap().duplicate, "whose retry it is is known");
    });
}

#[test]
fn a_log_begins_anew_where_its_leader_has_no_record_too() {
    let fake = Fake::new();
    let mut leader = leader();
    fake.run(async {
        let mut follower = Follower::start(&fake, None, &leader).await;
        follower.catch_up(&leader, 20).await;
        go_on(&mut leader);
        leader.log_start = leader.end;
        follower.fetch(&leader, 3, leader.end).await;
        fake.sleep(Duration::from_millis(1)).await;
        follower.follow(&leader).await;
        assert_eq!(follower.position, (LeaderEpoch::NONE, Offset(45)));
        leader.append_next();
        follower.catch_up(&leader, 46).await;
        assert_eq!(follower.all_bytes(1).await, kept_by(&leader));
        // Its first batch was refused here, came to the leader, and is deleted.
        let mut later = BatchSpec::records(1).producer(9, 0, 7).checked();
        later.behind_refused_first = true;
        let (partition, soon) = (&follower.replica.partition, follower.replica.soon());
        partition.lead(LeaderEpoch(leader.epoch + 1), InSync::alone(), soon).await.expect("leads");
        let appended = partition.append(vec![later], Acks::Leader, soon).await.unwrap().wait().await;
        assert_eq!(appended.map(|appended| appended.base_offset), Ok(Offset(46)));
    });
}

#[test]
fn what_was_committed_does_not_go_however_late_the_leader_begins() {
    let fake = Fake::new();
    let leader = leader();
    fake.run(async {
        let mut follower = Follower::start(&fake, None, &leader).await;
        follower.catch_up(&leader, 20).await;
        let (partition, soon) = (&follower.replica.partition, follower.replica.soon());
        let answer = Fetched::BeginsLater { at: Offset(19) };
        let told = partition.fetched(LeaderEpoch(0), follower.position, answer, soon).await.unwrap();
        assert!(matches!(told, Err(FollowError::Committed { to: Offset(19), .. })), "{told:?}");
    });
}

#[test]
fn who_is_told_to_lead_meanwhile_leads_with_what_it_has_then() {
    let fake = Fake::new();
    let mut leader = leader();
    fake.run(async {
        let mut follower = Follower::start(&fake, None, &leader).await;
        follower.catch_up(&leader, 20).await;
        go_on(&mut leader);
        fake.world().latency = 10_000_000;
        follower.fetch(&leader, 3, 32).await;
        let replica = &follower.replica;
        replica.partition.lead(LeaderEpoch(1), InSync::alone(), replica.soon()).await.expect("it leads");
        assert_eq!(replica.append(BatchSpec::records(1)).await, 30);
    });
}

/// The power goes at each moment of it, with a checkpoint from before recorded, one from after, or none: the log is the old one
/// or the new one, and gets to be the leader's.
#[test]
fn a_crash_at_any_moment_leaves_the_old_log_or_the_new_one() {
    let (mut old, mut new) = (0, 0);
    let cases = ["nothing", "before", "after"].into_iter();
    let cases = cases
        .flat_map(|recorded| (0..8_usize).flat_map(move |step| (0..10).map(move |n| (recorded, step, n))));
    for (recorded, last_step, seed) in cases {
        let case = format!("{recorded}, step {last_step}, seed {seed}");
        let fake = Fake::seeded(seed);
        let mut draw = draws(seed + 100 * last_step as u64);
        let mut leader = leader();
        let mark = fake.run(async {
            let mut follower = Follower::start(&fake, None, &leader).await;
            follower.catch_up(&leader, 18).await;
            let before = follower.replica.checkpoint().await;
            go_on(&mut leader);
            for step in 0..=last_step {
                // What is written from here on does not get to be durable.
                fake.world().held = step == last_step;
                follower.fetch(&leader, 2, 32).await;
                fake.sleep(Duration::from_millis(1)).await;
            }
            match recorded {
                "nothing" => None,
                "after" if follower.position.1 >= Offset(30) => Some(follower.replica.checkpoint().await),
                _ => Some(before),
            }
        });
        fake.lose_power(|_, _| draw(if seed % 2 == 0 { 8 } else { 2 }) > 0);
        fake.run(async {
            let mut follower = Follower::start(&fake, mark, &leader).await;
            let view = *follower.replica.partition.views().get();
            match view.log_start.0 {
                0 => {
                    old += 1;
                    assert_eq!(view.log_end, Offset(20), "{case}");
                }
                start => {
                    new += 1;
                    assert!((30..=31).contains(&start), "{case}: {view:?}");
                }
            }
            is_as_committed(&follower, &leader, seed).await;
            follower.catch_up(&leader, 45).await;
            assert_eq!(follower.all_bytes(1).await, kept_by(&leader), "{case}");
        });
    }
    assert!(old > 5 && new > 50, "{old} with the old log, {new} with the new one");
}

/// A follower that is not in sync, beside leaders that come and go and delete what they like of what is committed: whatever fails,
/// is recorded or is lost, what it knows to be committed is what was, and in the end it has what its leader has.
#[test]
fn no_crash_mixes_a_log_that_has_begun_anew_with_the_one_before() {
    let mut times_anew = 0;
    for seed in 0..80 {
        let fake = Fake::seeded(seed);
        let mut draw = draws(seed);
        let mut leader = Leader::default();
        let (mut mark, mut committed, mut stamp) = (None, 0, 1_000_000);
        for _ in 0..6 {
            let steps = draw(60) + 1;
            mark = fake.run(async {
                let mut follower = Follower::start(&fake, mark, &leader).await;
                is_as_committed(&follower, &leader, seed).await;
                let (mut mark, mut failed) = (mark, false);
                for _ in 0..steps {
                    let before = follower.replica.partition.views().get().log_start;
                    match draw(16) {
                        0 => mark = Some(follower.replica.checkpoint().await),
                        1 => drop(follower.replica.checkpoint().await),
                        2 => {
                            fake.world().syncs.push_back(Some(std::io::ErrorKind::Other));
                            let _ = follower.replica.partition.checkpoint(follower.replica.soon()).await;
                            fake.world().syncs.clear();
                        }
                        3 => {
                            let ends: Vec<i64> = ends(&leader).filter(|end| *end >= committed).collect();
                            if !ends.is_empty() {
                                leader.begin_epoch(ends[draw(ends.len() as u64) as usize]);
                                follower.follow(&leader).await;
                            }
                        }
                        // More than a few in a row, and the process would end.
                        4 if !failed => {
                            failed = true;
                            fake.world().durable_writes.push_back(Some(std::io::ErrorKind::Other));
                            follower.fetch(&leader, 2, committed).await;
                            fake.sleep(Duration::from_millis(1)).await;
                            fake.world().durable_writes.clear();
                        }
                        5..10 => {
                            stamp += 1;
                            match draw(2) {
                                0 => leader.append_next(),
                                _ => leader.append_two(stamp),
                            }
                        }
                        10 => {
                            let upto = committed + draw((leader.end - committed) as u64 + 1) as i64;
                            committed = ends(&leader).filter(|end| *end <= upto).max().unwrap_or(committed);
                            leader.log_start += draw((committed - leader.log_start) as u64 + 1) as i64;
                        }
                        _ => {
                            follower.fetch(&leader, 1 + draw(4) as usize, committed).await;
                            fake.sleep(Duration::from_micros(draw(300))).await;
                        }
                    }
                    let view = *follower.replica.partition.views().get();
                    times_anew += usize::from(view.log_start > before && view.log_start == view.log_end);
                }
                is_as_committed(&follower, &leader, seed).await;
                fake.world().held = true;
                follower.fetch(&leader, 2, committed).await;
                fake.sleep(Duration::from_millis(1)).await;
                fake.world().held = false;
                mark
            });
            fake.lose_power(|_, _| draw(2) == 0);
        }
        fake.run(async {
            let mut follower = Follower::start(&fake, mark, &leader).await;
            follower.catch_up(&leader, leader.end).await;
            assert_eq!(follower.all_bytes(leader.epoch + 1).await, kept_by(&leader), "seed {seed}");
        });
    }
    assert!(times_anew > 40, "{times_anew}");
}

fn ends(leader: &Leader) -> impl Iterator<Item = i64> {
    leader.batches.iter().map(|(_, base, bytes)| end_of(*base, bytes))
}

/// Up to its high watermark it has what the leader has, or had before that was deleted.
async fn is_as_committed(follower: &Follower, leader: &Leader, seed: u64) {
    let view = *follower.replica.partition.views().get();
    let (mut from, mut found) = (view.log_start, Vec::new());
    while from < view.high_watermark {
        let request = ReadRequest {
            from,
            max_bytes: 1 << 20,
            at_least_one: true,
            read_committed: false,
            current_epoch: None,
        };
        let outcome = follower.replica.partition.read(request, follower.replica.soon()).await.expect("read");
        from = Offset(
            end(&outcome.batches).unwrap_or_else(|| panic!("seed {seed}: nothing at {from} of {view:?}")),
        );
        outcome.batches.iter().for_each(|piece| found.extend_from_slice(piece));
    }
    let within = |(_, base, bytes): &&(LeaderEpoch, Offset, Bytes)| {
        let (start, end) = (view.log_start, view.high_watermark);
        start < end && end_of(*base, bytes) > start.0 && *base < end
    };
    let had: Vec<u8> =
        leader.batches.iter().filter(within).flat_map(|(_, _, bytes)| bytes.to_vec()).collect();
    assert_eq!(found, had, "seed {seed}: {view:?}");
}
