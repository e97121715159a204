//! A replica that follows: what it has is what leaders gave it, cut where they had something else, whatever the disk does.

use bytes::BytesMut;

use super::*;
use crate::log::batch;
use crate::log::epochs::EpochHistory;

/// A leader's log, as a list; in which epochs it was written is part of it.
#[derive(Default)]
pub(super) struct Leader {
    pub(super) epoch: i32,
    pub(super) batches: Vec<(LeaderEpoch, Offset, Bytes)>,
    pub(super) end: i64,
    pub(super) sequence: i32,
    /// What lies before is deleted.
    pub(super) log_start: i64,
}

impl Leader {
    /// Another one leads: it has the log up to the batch that ends at `end` or before, and goes on from there.
    pub(super) fn begin_epoch(&mut self, end: i64) {
        self.epoch += 1;
        self.batches.retain(|(_, base, bytes)| end_of(*base, bytes) <= end);
        self.end = self.batches.last().map_or(0, |(_, base, bytes)| end_of(*base, bytes));
        self.sequence = self.batches.iter().filter(|(_, _, bytes)| is_idempotent(bytes)).count() as i32;
    }

    fn append(&mut self, spec: BatchSpec, records: i64) {
        let mut stamped = BytesMut::new();
        batch::stamp(&mut stamped, &spec.build(), Offset(self.end), LeaderEpoch(self.epoch));
        self.batches.push((LeaderEpoch(self.epoch), Offset(self.end), stamped.freeze()));
        self.end += records;
    }

    /// One record of the idempotent producer 7.
    pub(super) fn append_next(&mut self) {
        let spec = BatchSpec::records(1).producer(7, 0, self.sequence).timestamp(i64::from(self.sequence));
        self.sequence += 1;
        self.append(spec, 1);
    }

    /// Two records that nobody else has.
    pub(super) fn append_two(&mut self, stamp: i64) {
        self.append(BatchSpec::records(2).timestamp(stamp), 2);
    }

    pub(super) fn answer(
        &self,
        (epoch, from): (LeaderEpoch, Offset),
        batches: usize,
        high_watermark: i64,
    ) -> Fetched {
        let mut epochs = EpochHistory::default();
        for (epoch, base, _) in &self.batches {
            if *epoch > epochs.latest() {
                epochs.begin(*epoch, *base);
            }
        }
        epochs.begin(LeaderEpoch(self.epoch), Offset(self.end).min(self.first_of_epoch()));
        epochs.forget_before(Offset(self.log_start));
        let first = self.kept().next().map_or(Offset(self.log_start), |(_, base, _)| *base);
        let (latest, known_from) = epochs.entries().first().copied().unwrap_or_default();
        let is_known = from.0 > self.log_start || (from.0 == self.log_start && known_from.0 < self.log_start);
        let has_left = epoch != LeaderEpoch::NONE && epoch < latest && is_known && self.log_start > 0;
        if has_left || (from.0 < self.log_start && from != first) {
            return Fetched::BeginsLater { at: first };
        }
        if epoch != LeaderEpoch::NONE
            && let Some((known, end)) = epochs.end_of(epoch, Offset(self.end))
            && (known < epoch || end < from)
        {
            return Fetched::Diverging { epoch: known, end };
        }
        let following = self.batches.iter().filter(|(_, base, _)| *base >= from);
        let batches = following.take(batches).map(|(_, _, bytes)| bytes.clone()).collect();
        Fetched::Records {
            batches,
            marks: LeaderMarks {
                high_watermark: Offset(high_watermark),
                log_start: Offset(self.log_start),
                ..LeaderMarks::default()
            },
        }
    }

    /// What is not deleted, and all of a batch of which something is not.
    pub(super) fn kept(&self) -> impl Iterator<Item = &(LeaderEpoch, Offset, Bytes)> {
        self.batches.iter().filter(|(_, base, bytes)| end_of(*base, bytes) > self.log_start)
    }

    fn first_of_epoch(&self) -> Offset {
        let first = self.batches.iter().find(|(epoch, ..)| epoch.0 == self.epoch);
        first.map_or(Offset(self.end), |(_, base, _)| *base)
    }
}

pub(super) fn end_of(base: Offset, bytes: &Bytes) -> i64 {
    let header = batch::BatchHeader::read(bytes).expect("a batch of ours");
    assert_eq!(header.base_offset, base);
    header.end().0
}

fn is_idempotent(bytes: &Bytes) -> bool {
    batch::BatchHeader::read(bytes).expect("a batch of ours").producer_id >= ProducerId(0)
}

pub(super) struct Follower {
    pub(super) replica: Replica,
    pub(super) position: (LeaderEpoch, Offset),
}

impl Follower {
    pub(super) async fn start(fake: &Fake, mark: Option<CheckpointMark>, leader: &Leader) -> Follower {
        let replica = try_start(fake, mark).await.expect("the replica opens");
        let position =
            replica.partition.follow(LeaderEpoch(leader.epoch), soon(fake)).await.expect("follows");
        Follower { replica, position }
    }

    pub(super) async fn follow(&mut self, leader: &Leader) {
        let soon = self.replica.soon();
        self.position =
            self.replica.partition.follow(LeaderEpoch(leader.epoch), soon).await.expect("follows");
    }

    pub(super) async fn fetch(&mut self, leader: &Leader, batches: usize, high_watermark: i64) {
        let answer = leader.answer(self.position, batches, high_watermark);
        let (epoch, soon) = (LeaderEpoch(leader.epoch), self.replica.soon());
        let next = self.replica.partition.fetched(epoch, self.position, answer, soon).await;
        match next.expect("the owner answers") {
            Ok(next) => self.position = next,
            // The journal gave up what was on its way.
            Err(FollowError::NotNext { .. } | FollowError::BeginsAnew(_)) => self.follow(leader).await,
            Err(error) => panic!("{error}"),
        }
    }

    /// Until it has all, durably.
    pub(super) async fn catch_up(&mut self, leader: &Leader, high_watermark: i64) {
        for _ in 0..1_000 {
            if self.position
                == (leader.batches.last().map_or(LeaderEpoch::NONE, |last| last.0), Offset(leader.end))
            {
                break;
            }
            self.fetch(leader, 3, high_watermark).await;
            self.replica.fake.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.position.1, Offset(leader.end), "it gets to the end");
        // The last answer tells the high watermark, too.
        self.fetch(leader, 3, high_watermark).await;
        self.replica.fake.sleep(Duration::from_millis(1)).await;
    }

    pub(super) fn high_watermark(&self) -> i64 {
        self.replica.partition.views().get().high_watermark.0
    }

    /// Leads, and shows all that it has.
    pub(super) async fn all_bytes(&self, epoch: i32) -> Vec<u8> {
        let replica = &self.replica;
        replica.partition.lead(LeaderEpoch(epoch), InSync::alone(), replica.soon()).await.expect("leads");
        let mut all = Vec::new();
        let mut from = replica.partition.views().get().log_start.0;
        loop {
            let pieces = replica.try_read(from, 300).await.expect("read");
            let Some(next) = end(&pieces) else { return all };
            pieces.iter().for_each(|piece| all.extend_from_slice(piece));
            from = next;
        }
    }
}

/// Two leaders, one after the other, whose logs are alike up to offset 12.
fn two_that_part() -> (Leader, Leader) {
    let mut leader = Leader::default();
    (0..12).for_each(|_| leader.append_next());
    let mut first = Leader { batches: leader.batches.clone(), end: 12, sequence: 12, ..Leader::default() };
    (0..40).for_each(|nth| first.append_two(1_000 + nth));
    leader.begin_epoch(12);
    (0..30).for_each(|_| leader.append_next());
    (first, leader)
}

fn bytes_of(leader: &Leader) -> Vec<u8> {
    leader.batches.iter().flat_map(|(_, _, bytes)| bytes.to_vec()).collect()
}

#[test]
fn what_a_follower_has_survives_a_restart_and_it_can_lead_with_it() {
    let fake = Fake::new();
    let mut leader = Leader::default();
    (0..20).for_each(|_| leader.append_next());
    let mark = fake.run(async {
        let mut follower = Follower::start(&fake, None, &leader).await;
        follower.catch_up(&leader, 15).await;
        assert_eq!(follower.high_watermark(), 15, "as the leader says");
        let mark = follower.replica.checkpoint().await;
        assert_eq!((mark.log_end, mark.high_watermark), (Offset(20), Offset(15)));
        mark
    });
    fake.lose_power(|_, _| false);
    fake.run(async {
        let follower = Follower::start(&fake, Some(mark), &leader).await;
        assert_eq!(follower.position, (LeaderEpoch(0), Offset(20)));
        assert_eq!(follower.high_watermark(), 15, "the high watermark survives");
        assert_eq!(follower.all_bytes(1).await, bytes_of(&leader));
        let again = follower.replica.put(BatchSpec::records(1).producer(7, 0, 19)).await.unwrap();
        assert_eq!((again.base_offset, again.duplicate), (Offset(19), true), "whose retry it is is known");
    });
}

#[test]
fn consumers_read_from_a_follower_what_it_knows_to_be_committed_and_nothing_else() {
    let fake = Fake::new();
    let mut leader = Leader::default();
    (0..20).for_each(|_| leader.append_next());
    fake.run(async {
        let mut follower = Follower::start(&fake, None, &leader).await;
        follower.catch_up(&leader, 15).await;
        let (partition, soon) = (&follower.replica.partition, follower.replica.soon());
        let view = *partition.views().get();
        assert_eq!((view.leading, view.following, view.leader_epoch), (false, true, LeaderEpoch(0)));
        let read = async |from: i64, epoch: Option<i32>| {
            let request = ReadRequest {
                from: Offset(from),
                max_bytes: 1 << 20,
                at_least_one: true,
                read_committed: false,
                current_epoch: epoch.map(LeaderEpoch),
            };
            let outcome = partition.read(request, soon).await?;
            Ok(end(&outcome.batches))
        };
        assert_eq!(read(3, None).await, Ok(Some(15)), "up to the high watermark");
        assert_eq!(read(15, Some(0)).await, Ok(None));
        assert_eq!(
            read(17, Some(0)).await,
            Ok(None),
            "it has that, and does not know whether it is committed"
        );
        let out = |from| Err(ReadError::OutOfRange(Offset(from), Offset(0), Offset(15)));
        assert_eq!(read(21, None).await, out(21), "the leader is asked again");
        assert_eq!(read(3, Some(1)).await, Err(ReadError::UnknownEpoch));
        let latest = OffsetQuery::Latest { read_committed: false };
        assert_eq!(partition.offset(latest, None, soon).await, Err(ReadError::NotLeader));
        assert_eq!(partition.resign(soon).await, Ok(()));
        assert_eq!(read(3, None).await, Err(ReadError::NotLeader), "whom it follows is not known");
    });
}

#[test]
fn a_new_leader_tells_where_the_log_ends_when_it_knows_what_was_committed_before() {
    let fake = Fake::new();
    let mut leader = Leader::default();
    (0..20).for_each(|_| leader.append_next());
    fake.run(async {
        let mut replica = Follower::start(&fake, None, &leader).await;
        replica.catch_up(&leader, 15).await;
        let (partition, soon) = (&replica.replica.partition, replica.replica.soon());
        let others = || InSync::new([BrokerId(2)], [BrokerId(2)], 2);
        partition.lead(LeaderEpoch(1), others(), soon).await.expect("leads");
        let offset =
            async |query| partition.offset(query, None, soon).await.map(|found| found.unwrap().offset);
        let latest = OffsetQuery::Latest { read_committed: false };
        assert_eq!(offset(latest).await, Err(ReadError::NotYetKnown), "up to 20 may have been read");
        assert_eq!(offset(OffsetQuery::Timestamp(3)).await, Err(ReadError::NotYetKnown));
        assert_eq!(offset(OffsetQuery::Earliest).await, Ok(Offset(0)));
        for all_or_some in [None, Some(Offset(18))] {
            let deleted = partition.delete_records(all_or_some, soon).await;
            assert_eq!(deleted, Err(DeleteRecordsError::NotYetKnown), "{all_or_some:?}");
        }
        partition
            .change_in_sync(LeaderEpoch(1), InSync::new([BrokerId(2)], [], 1), soon)
            .await
            .expect("heard");
        assert_eq!(partition.delete_records(Some(Offset(18)), soon).await, Ok(Offset(18)));
        assert_eq!(offset(latest).await, Ok(Offset(20)));
    });
}

#[test]
fn the_youngest_record_of_a_log_that_was_cut_is_one_that_is_left() {
    let fake = Fake::new();
    let (unlike, leader) = two_that_part();
    fake.run(async {
        let mut follower = Follower::start(&fake, None, &unlike).await;
        follower.catch_up(&unlike, 12).await;
        follower.replica.checkpoint().await;
        follower.follow(&leader).await;
        let only_common = Leader {
            epoch: leader.epoch,
            batches: leader.batches[..12].to_vec(),
            end: 12,
            ..Leader::default()
        };
        follower.fetch(&only_common, 3, 12).await;
        let (partition, soon) = (&follower.replica.partition, follower.replica.soon());
        for epoch in [2, 3] {
            partition.lead(LeaderEpoch(epoch), InSync::alone(), soon).await.expect("leads");
            let max = partition.offset(OffsetQuery::MaxTimestamp, None, soon).await.unwrap();
            assert_eq!(max.map(|found| (found.offset.0, found.timestamp)), Some((11, 11)));
            follower.replica.checkpoint().await;
        }
    });
}

#[test]
fn a_truncation_below_a_checkpoint_holds_whatever_of_it_was_recorded() {
    // What the checkpoint knows: nothing, the log before the truncation, or after it.
    for recorded in ["nothing", "before", "after", "long after"] {
        let fake = Fake::new();
        let (unlike, mut leader) = two_that_part();
        let mark = fake.run(async {
            let mut follower = Follower::start(&fake, None, &unlike).await;
            follower.catch_up(&unlike, 12).await;
            let before = follower.replica.checkpoint().await;
            assert_eq!(before.log_end, Offset(92));
            follower.follow(&leader).await;
            follower.catch_up(&leader, 12).await;
            match recorded {
                "nothing" => None,
                "before" => Some(before),
                "after" => Some(follower.replica.checkpoint().await),
                _ => {
                    follower.replica.checkpoint().await;
                    leader.append_next();
                    follower.catch_up(&leader, 12).await;
                    Some(follower.replica.checkpoint().await)
                }
            }
        });
        fake.lose_power(|_, _| false);
        for life in 0..2 {
            fake.run(async {
                let mut follower = Follower::start(&fake, mark, &leader).await;
                assert_eq!(
                    follower.position,
                    (LeaderEpoch(1), Offset(leader.end)),
                    "{recorded}, life {life}"
                );
                follower.fetch(&leader, 3, leader.end).await;
                if life == 1 {
                    assert_eq!(follower.all_bytes(2).await, bytes_of(&leader), "{recorded}");
                    let last = BatchSpec::records(1).producer(7, 0, leader.sequence - 1);
                    assert!(follower.replica.put(last).await.unwrap().duplicate, "{recorded}");
                }
            });
        }
    }
}

#[test]
fn what_a_checkpoint_copied_before_a_truncation_counts_for_nothing() {
    let fake = Fake::new();
    let (unlike, leader) = two_that_part();
    let mark = fake.run(async {
        let mut follower = Follower::start(&fake, None, &unlike).await;
        follower.catch_up(&unlike, 12).await;
        fake.world().latency = 50_000_000;
        let replica = &follower.replica;
        let asked = {
            let (partition, deadline) =
                (replica.partition.clone(), Deadline::after(&fake, Duration::from_secs(60)));
            let (done, ended) = io_backend::channel::<_, ()>(&fake, "test", 1).0.reply("checkpoint");
            fake.spawn("asks", async move { done.answer(partition.checkpoint(deadline).await) });
            ended
        };
        // It has begun, and is not done.
        fake.sleep(Duration::from_millis(20)).await;
        follower.follow(&leader).await;
        for _ in 0..20 {
            follower.fetch(&leader, 30, 12).await;
        }
        let mark = asked.wait(Deadline::after(&fake, Duration::from_secs(60))).await.expect("answered");
        let mark = mark.expect("the next one is told");
        assert_eq!(mark.log_end, Offset(42), "of what came after the truncation");
        mark
    });
    fake.lose_power(|_, _| false);
    fake.run(async {
        let follower = Follower::start(&fake, Some(mark), &leader).await;
        assert_eq!(follower.all_bytes(2).await, bytes_of(&leader));
    });
}

#[test]
fn what_was_committed_is_not_truncated_whatever_a_leader_says() {
    let fake = Fake::new();
    let mut leader = Leader::default();
    (0..12).for_each(|_| leader.append_next());
    fake.run(async {
        let mut follower = Follower::start(&fake, None, &leader).await;
        follower.catch_up(&leader, 12).await;
        leader.begin_epoch(6);
        follower.follow(&leader).await;
        let answer = Fetched::Diverging { epoch: LeaderEpoch(0), end: Offset(6) };
        let (partition, soon) = (&follower.replica.partition, follower.replica.soon());
        let told = partition.fetched(LeaderEpoch(1), follower.position, answer, soon).await.unwrap();
        assert!(
            matches!(told, Err(FollowError::Committed { to: Offset(6), committed: Offset(12), .. })),
            "{told:?}"
        );
    });
}

/// Leaders come and go, checkpoints are recorded or not, files fail, and the power goes: what was committed is there, and in
/// the end all that the last leader has, and nothing else.
#[test]
fn no_crash_brings_back_what_was_truncated_or_loses_what_was_committed() {
    for seed in 0..40 {
        let fake = Fake::seeded(seed);
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
        let mut draw = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut leader = Leader::default();
        let (mut mark, mut committed, mut stamp) = (None, 0, 1_000_000);
        for _ in 0..6 {
            let steps = draw(60) + 1;
            mark = fake.run(async {
                let mut follower = Follower::start(&fake, mark, &leader).await;
                assert!(
                    follower.position.1.0 >= committed,
                    "seed {seed}: {:?} of {committed}",
                    follower.position
                );
                let (mut mark, mut failed) = (mark, false);
                for _ in 0..steps {
                    match draw(14) {
                        0 => mark = Some(follower.replica.checkpoint().await),
                        1 => drop(follower.replica.checkpoint().await),
                        2 => {
                            fake.world().syncs.push_back(Some(std::io::ErrorKind::Other));
                            let _ = follower.replica.partition.checkpoint(follower.replica.soon()).await;
                            fake.world().syncs.clear();
                        }
                        3 => {
                            let behind = leader.end - committed;
                            leader.begin_epoch(committed + draw(behind as u64 + 1) as i64);
                            follower.follow(&leader).await;
                        }
                        // More than a few in a row, and the process would end.
                        4 if !failed => {
                            failed = true;
                            fake.world().durable_writes.push_back(Some(std::io::ErrorKind::Other));
                            follower.fetch(&leader, 2, committed).await;
                            fake.sleep(Duration::from_millis(1)).await;
                            fake.world().durable_writes.clear();
                        }
                        5..8 => {
                            stamp += 1;
                            match draw(2) {
                                0 => leader.append_next(),
                                _ => leader.append_two(stamp),
                            }
                        }
                        8 => {
                            // Whatever of it the follower's disk has by then is committed.
                            follower.catch_up(&leader, committed).await;
                            let boundary = leader.batches.iter().map(|(_, base, bytes)| end_of(*base, bytes));
                            let upto = committed + draw((leader.end - committed) as u64 + 1) as i64;
                            let upto = boundary.filter(|end| *end <= upto).max().unwrap_or(0);
                            follower.fetch(&leader, 1, upto).await;
                            fake.sleep(Duration::from_millis(1)).await;
                            committed = committed.max(follower.high_watermark());
                        }
                        _ => follower.fetch(&leader, 1 + draw(4) as usize, committed).await,
                    }
                }
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
            assert_eq!(follower.all_bytes(leader.epoch + 1).await, bytes_of(&leader), "seed {seed}");
            if leader.sequence > 0 {
                let last = BatchSpec::records(1).producer(7, 0, leader.sequence - 1);
                assert!(follower.replica.put(last).await.unwrap().duplicate, "seed {seed}");
            }
        });
    }
}
