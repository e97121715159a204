use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::ids::Offset;
use crate::log::batch::{self, Batches};
use crate::log::codec;
use crate::log::test_batches::BatchSpec;

/// Nothing here waits for anything but its next turn.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

const NOW: i64 = 10_000;
const HORIZON: i64 = 20_000;

fn stamped(spec: BatchSpec, base: i64, epoch: i32) -> Bytes {
    let mut into = BytesMut::new();
    batch::stamp(&mut into, &spec.build(), Offset(base), LeaderEpoch(epoch));
    into.freeze()
}

/// What is left: base, end, epoch of each batch, and its records as offset, time and key.
type Left = Vec<(i64, i64, i32, Vec<(i64, i64, String)>)>;

struct Case {
    batches: Vec<Bytes>,
    remembered: BTreeSet<Offset>,
    log_start: i64,
    held_by_all: i64,
    is_clean: bool,
    now_ms: i64,
    horizon_ms: i64,
    known: usize,
    left_behind: AtomicBool,
}

fn case(batches: &[(BatchSpec, i64, i32)]) -> Case {
    Case {
        batches: batches.iter().map(|(spec, base, epoch)| stamped(*spec, *base, *epoch)).collect(),
        remembered: BTreeSet::new(),
        log_start: 0,
        held_by_all: i64::MAX,
        is_clean: false,
        now_ms: NOW,
        horizon_ms: HORIZON,
        known: 1_000,
        left_behind: AtomicBool::new(false),
    }
}

impl Case {
    fn clean(&self) -> Vec<Bytes> {
        let mut newest = Newest::new((3, 4), self.known * 50);
        let headers: Vec<BatchHeader> =
            self.batches.iter().map(|batch| BatchHeader::read(batch).unwrap()).collect();
        for (header, batch) in headers.iter().zip(&self.batches).filter(|_| !self.is_clean) {
            for record in walk(&opened(header, batch), header.records) {
                let record = record.unwrap();
                newest.take(record.key.unwrap(), header.base_offset.plus(record.offset_delta));
            }
        }
        let judge: Judge = Arc::new(|_, fate| fate);
        let mut rewriter = Rewriter::new(Rules {
            newest: &newest,
            log_start: Offset(self.log_start),
            held_by_all: Offset(self.held_by_all),
            now_ms: self.now_ms,
            horizon_ms: self.horizon_ms,
            remembered: &self.remembered,
            judge: &judge,
            left_behind: &self.left_behind,
        });
        for (header, batch) in headers.iter().zip(&self.batches) {
            let records = opened(header, batch);
            block_on(rewriter.add(&Opened {
                header,
                batch,
                records: Some(&records),
                is_clean: self.is_clean,
            }));
        }
        block_on(rewriter.end());
        let made: Vec<Bytes> = rewriter.made().collect();
        // Whatever it is: without holes, and sound.
        let mut next = headers[0].base_offset;
        for batch in &made {
            let header = BatchHeader::read(batch).unwrap();
            assert_eq!((header.base_offset, header.bytes), (next, batch.len()));
            batch::verify(batch).unwrap();
            next = header.end();
        }
        assert_eq!(next, headers.last().unwrap().end());
        made
    }
}

fn opened(header: &BatchHeader, batch: &Bytes) -> Vec<u8> {
    let mut opened = Vec::new();
    let mut from = codec::open(header.compression(), &batch[HEADER_BYTES..]).unwrap();
    std::io::Read::read_to_end(&mut from, &mut opened).unwrap();
    opened
}

fn left(batches: &[Bytes]) -> Left {
    let mut all = Vec::new();
    for batch in batches {
        let header = BatchHeader::read(batch).unwrap();
        let records = opened(&header, batch);
        let records = walk(&records, header.records).map(|record| {
            let record = record.unwrap();
            let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
            (header.base_offset.0 + record.offset_delta, header.base_timestamp + record.timestamp_delta, key)
        });
        all.push((header.base_offset.0, header.end().0, header.leader_epoch.0, records.collect()));
    }
    all
}

fn record(offset: i64, time: i64, key: &str) -> (i64, i64, String) {
    (offset, time, key.to_owned())
}

const AB: BatchSpec = BatchSpec::of(&[("a", Some("1")), ("b", Some("1"))]);
const BC: BatchSpec = BatchSpec::of(&[("b", Some("2")), ("c", Some("2"))]);
const B: BatchSpec = BatchSpec::of(&[("b", Some("3"))]);
const GONE: BatchSpec = BatchSpec::of(&[("a", None)]);

#[test]
fn of_each_key_the_last_record_stays_where_it_was() {
    let made = case(&[(AB.step(5), 10, 0), (BC.step(7), 12, 0)]).clean();
    let records = vec![record(10, 1_000, "a"), record(12, 1_000, "b"), record(13, 1_007, "c")];
    assert_eq!(left(&made), [(10, 14, 0, records)], "small batches become one");
}

#[test]
fn what_is_gone_leaves_no_hole_and_an_epoch_begins_where_it_did() {
    let made = case(&[(B, 0, 1), (B, 1, 1), (B, 2, 2), (B, 3, 4), (B, 4, 4)]).clean();
    let expected: Left = vec![(0, 2, 1, vec![]), (2, 3, 2, vec![]), (3, 5, 4, vec![record(4, 1_000, "b")])];
    assert_eq!(left(&made), expected);
}

#[test]
fn a_batch_that_a_producer_is_remembered_by_keeps_its_bounds_and_sequences() {
    let spec = AB.producer(7, 3, 40);
    let mut case = case(&[(B, 0, 0), (spec, 1, 0), (BC, 3, 0), (AB, 5, 0)]);
    case.remembered.insert(Offset(1));
    let made = case.clean();
    let bounds: Vec<(i64, i64)> = left(&made).iter().map(|(base, end, ..)| (*base, *end)).collect();
    assert_eq!(bounds, [(0, 1), (1, 3), (3, 7)]);
    let kept = BatchHeader::read(&made[1]).unwrap();
    assert_eq!((kept.producer_id.0, kept.producer_epoch, kept.base_sequence), (7, 3, 40));
    assert_eq!((kept.records, kept.last_offset_delta), (0, 1));
    assert_eq!(BatchHeader::read(&made[2]).unwrap().producer(), None);
}

#[test]
fn a_tombstone_stays_until_its_time_is_over() {
    let first = case(&[(AB, 0, 0), (GONE, 2, 0)]);
    let made = first.clean();
    assert_eq!(left(&made)[0].3, [record(1, 1_000, "b"), record(2, 1_000, "a")]);
    let header = BatchHeader::read(&made[0]).unwrap();
    assert_eq!((header.attributes & HORIZON_BIT, header.base_timestamp), (HORIZON_BIT, HORIZON));
    assert_eq!(header.max_timestamp, 1_000);
    let again = |now_ms| Case { batches: made.clone(), is_clean: true, now_ms, ..case(&[]) }.clean();
    assert_eq!(left(&again(HORIZON - 1)), left(&made), "its time is said once");
    assert_eq!(left(&again(HORIZON))[0].3, [record(1, 1_000, "b")]);
}

#[test]
fn a_tombstone_that_was_fetched_stays_as_long_from_when_it_is_cleaned_here() {
    let of_leader = case(&[(AB, 0, 0), (GONE, 2, 0)]).clean();
    let fetched = |batches| Case { batches, now_ms: HORIZON, horizon_ms: HORIZON + 7, ..case(&[]) };
    let made = fetched(of_leader.clone()).clean();
    assert_eq!(left(&made), left(&of_leader));
    assert_eq!(BatchHeader::read(&made[0]).unwrap().base_timestamp, HORIZON + 7);
}

#[test]
fn a_mark_from_elsewhere_goes_also_where_its_batch_stays_as_it_is() {
    let key = |nth: usize| (&*format!("key-{nth}").leak(), (nth > 0).then_some("v"));
    let many: Vec<(&'static str, Option<&'static str>)> = (0..8_000).map(key).collect();
    // Its mark is the time of its records: with any other one they stand further from it, and take more room.
    let first = Case { horizon_ms: 1_000, ..case(&[(BatchSpec::of(many.leak()), 0, 0)]) };
    let of_leader = first.clean();
    let is_marked = |batch: &Bytes| BatchHeader::read(batch).unwrap().attributes & HORIZON_BIT != 0;
    assert!(of_leader[0].len() > MERGED_BYTES && is_marked(&of_leader[0]));
    let made = Case { batches: of_leader.clone(), horizon_ms: 1 << 40, ..case(&[]) }.clean();
    assert_eq!((made.len(), made[0].len()), (1, of_leader[0].len()), "made anew it would be larger");
    assert!(!is_marked(&made[0]));
    assert!(left(&made) == left(&of_leader));
}

#[test]
fn what_is_left_for_a_replica_that_lacks_it_is_counted() {
    let counts = |held_by_all| {
        let newest = Newest::new((3, 4), 1_000);
        let (judge, remembered): (Judge, _) = (Arc::new(|_, fate| fate), BTreeSet::new());
        let left_behind = AtomicBool::new(false);
        let mut rewriter = Rewriter::new(Rules {
            newest: &newest,
            log_start: Offset(0),
            held_by_all: Offset(held_by_all),
            now_ms: HORIZON,
            horizon_ms: HORIZON,
            remembered: &remembered,
            judge: &judge,
            left_behind: &left_behind,
        });
        let marked = &case(&[(AB, 0, 0), (GONE, 2, 0)]).clean()[0];
        let header = BatchHeader::read(marked).unwrap();
        let records = opened(&header, marked);
        let opened = Opened { header: &header, batch: marked, records: Some(&records), is_clean: true };
        block_on(rewriter.add(&opened));
        rewriter.counts
    };
    let at =
        |went, stayed, lacked, held_before| Counts { went, stayed, lacked, held_before: Offset(held_before) };
    assert_eq!(counts(2), at(0, 2, 1, 0));
    assert_eq!(counts(3), at(1, 1, 0, 3));
}

#[test]
fn a_tombstone_stays_as_long_as_a_replica_lacks_it_that_may_have_what_it_deletes() {
    let made = case(&[(AB, 0, 0), (GONE, 2, 0)]).clean();
    let over = |held_by_all| {
        let case = Case { batches: made.clone(), is_clean: true, now_ms: HORIZON, held_by_all, ..case(&[]) };
        left(&case.clean())
    };
    assert_eq!(over(2), left(&made), "its time is over, and the replica begins to lack there");
    assert_eq!(over(3)[0].3, [record(1, 1_000, "b")]);
}

#[test]
fn a_tombstone_whose_key_there_was_no_room_for_is_never_told_to_go() {
    // As many keys as there is room for come first.
    let mut case = case(&[(BatchSpec::keyed_many(7), 0, 0), (AB, 7, 0), (GONE, 9, 0)]);
    case.known = 0;
    let made = case.clean();
    assert!(left(&made).iter().flat_map(|batch| &batch.3).any(|record| record.0 == 9));
    for batch in &made {
        let header = BatchHeader::read(batch).unwrap();
        let has_tombstone = left(std::slice::from_ref(batch))[0].3.iter().any(|record| record.0 == 9);
        assert!(!has_tombstone || header.attributes & HORIZON_BIT == 0);
    }
}

#[test]
fn records_before_the_logs_start_go_and_batches_that_cannot_be_read_stay() {
    let mut case = case(&[(AB, 0, 0), (BC, 2, 0)]);
    case.log_start = 3;
    assert_eq!(left(&case.clean()), [(0, 4, 0, vec![record(3, 1_000, "c")])]);

    let newest = Newest::new((3, 4), 1_000);
    let (judge, remembered): (Judge, _) = (Arc::new(|_, fate| fate), BTreeSet::new());
    let left_behind = AtomicBool::new(false);
    let rules = Rules {
        newest: &newest,
        log_start: Offset(0),
        held_by_all: Offset(i64::MAX),
        now_ms: NOW,
        horizon_ms: HORIZON,
        remembered: &remembered,
        judge: &judge,
        left_behind: &left_behind,
    };
    let batch = stamped(AB, 0, 0);
    let header = BatchHeader::read(&batch).unwrap();
    let mut rewriter = Rewriter::new(rules);
    block_on(rewriter.add(&Opened { header: &header, batch: &batch, records: None, is_clean: false }));
    block_on(rewriter.add(&Opened {
        header: &header,
        batch: &batch,
        records: Some(&[0xff; 20]),
        is_clean: false,
    }));
    block_on(rewriter.end());
    assert_eq!(rewriter.made().collect::<Vec<_>>(), [batch.clone(), batch]);
    assert!(left_behind.load(Ordering::Relaxed));
}

#[test]
fn behind_what_was_left_as_it_is_no_tombstone_goes_or_is_told_to() {
    let left_behind = || AtomicBool::new(true);
    let first = Case { left_behind: left_behind(), ..case(&[(AB, 0, 0), (GONE, 2, 0)]) };
    let made = first.clean();
    assert_eq!(BatchHeader::read(&made[0]).unwrap().attributes & HORIZON_BIT, 0);
    let marked = case(&[(AB, 0, 0), (GONE, 2, 0)]).clean();
    let again =
        Case { batches: marked, is_clean: true, now_ms: HORIZON, left_behind: left_behind(), ..case(&[]) };
    assert!(left(&again.clean()).iter().any(|batch| batch.3.iter().any(|record| record.0 == 2)));
}

#[test]
fn compressed_batches_are_compressed_again_and_large_ones_stay_if_all_of_them_does() {
    for codec in 1..=4i16 {
        let plain = stamped(BatchSpec::keyed_many(500), 0, 0);
        let compressed = recompressed(&plain, codec);
        let again = recompressed(&stamped(BatchSpec::keyed_many(250), 500, 0), codec);
        let made = Case { batches: vec![compressed, again], ..case(&[]) }.clean();
        let left = left(&made);
        assert_eq!(left.iter().map(|batch| batch.3.len()).sum::<usize>(), 500, "codec {codec}");
        assert!(made.iter().all(|batch| BatchHeader::read(batch).unwrap().compression() == codec));
    }
    let large = stamped(BatchSpec::keyed_many(2_000), 0, 0);
    assert!(large.len() > KEPT_BYTES);
    let made = Case { known: 100_000, ..Case { batches: vec![large.clone()], ..case(&[]) } }.clean();
    assert_eq!(made, [large]);
}

fn recompressed(batch: &Bytes, codec: i16) -> Bytes {
    let header = BatchHeader::read(batch).unwrap();
    let mut survivors = Survivors::default();
    for record in walk(&batch[HEADER_BYTES..], header.records) {
        let record = record.unwrap();
        survivors.hold(header.base_offset.plus(record.offset_delta), header.base_timestamp, &record);
    }
    let (base, end, epoch) = (header.base_offset, header.end(), header.leader_epoch);
    let frame = Frame { base, end, epoch, attributes: codec, producer: (-1, -1, -1), max_timestamp: None };
    block_on(frame.close(&survivors)).unwrap()
}

#[test]
fn who_has_a_part_of_a_batch_is_given_the_rest() {
    let made = case(&[(AB, 10, 3), (BC, 12, 3)]).clean();
    let header = BatchHeader::read(&made[0]).unwrap();
    for (asked, records) in
        [(11, vec![record(12, 1_000, "b"), record(13, 1_000, "c")]), (13, vec![record(13, 1_000, "c")])]
    {
        let rest = block_on(from(&header, &opened(&header, &made[0]), Offset(asked))).unwrap();
        batch::verify(&rest).unwrap();
        assert_eq!(left(&[rest]), [(asked, 14, 3, records)]);
    }
    let of_producer = stamped(AB.producer(7, 3, 40), 10, 3);
    let header = BatchHeader::read(&of_producer).unwrap();
    let rest = block_on(from(&header, &of_producer[HEADER_BYTES..], Offset(11))).unwrap();
    let rest = BatchHeader::read(&rest).unwrap();
    assert_eq!((rest.producer_id.0, rest.producer_epoch, rest.base_sequence), (7, 3, 41));
    assert_eq!((rest.base_offset, rest.end(), rest.records), (Offset(11), Offset(12), 1));
    assert_eq!(Batches::new(&of_producer).count(), 1);
}

#[test]
fn a_batch_whose_offsets_do_not_rise_is_one_that_cannot_be_opened() {
    let good = stamped(AB, 0, 0);
    let views: Vec<_> = walk(&good[HEADER_BYTES..], 2).collect::<Result<_, _>>().unwrap();
    for (deltas, stays) in [([1, 0], true), ([1, 1], true), ([0, 2], true), ([0, 1], false)] {
        let mut records = BytesMut::new();
        for (view, delta) in views.iter().zip(deltas) {
            view.put(&mut records, 0, delta);
        }
        let mut wrong = [&good[..HEADER_BYTES], &records].concat();
        batch::close(&mut wrong, 0, 1_000);
        let header = BatchHeader::read(&wrong).unwrap();
        assert_eq!(block_on(super::super::are_in_order(&header, &records)), !stays, "{deltas:?}");
        let mut case = case(&[(AB, 2, 0)]);
        case.batches.insert(0, wrong.clone().into());
        let made = case.clean();
        assert_eq!(made[0] == wrong, stays, "{deltas:?}");
        assert_eq!(case.left_behind.load(Ordering::Relaxed), stays, "{deltas:?}");
    }
}
