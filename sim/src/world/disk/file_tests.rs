use super::*;
use std::collections::BTreeSet;

fn written(len: usize, value: u8) -> Bytes {
    Bytes::from(vec![value; len])
}

#[test]
fn what_was_synced_survives_every_power_loss() {
    for seed in 0..50 {
        let mut file = FileState::default();
        file.write(100, written(9_000, 1));
        file.sync(file.last_change());
        file.write(9_100, written(9_000, 2));
        file.power_loss(&mut Stream::new(seed, "disk"));
        assert_eq!(file.current().read(100, 9_000), vec![1; 9_000], "seed {seed}");
        assert_eq!(file.current(), file.durable());
    }
}

#[test]
fn what_was_not_synced_is_kept_dropped_or_torn_at_sectors() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let mut file = FileState::default();
        file.set_len(4096);
        file.sync(file.last_change());
        file.write(0, written(4096, 9));
        assert_eq!(file.power_loss(&mut Stream::new(seed, "disk")), 4096);
        let bytes = file.current().read(0, 4096);
        let sectors: Vec<bool> = bytes
            .chunks(512)
            .map(|sector| {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "torn within a sector");
                sector[0] == 9
            })
            .collect();
        outcomes.insert(match sectors.iter().filter(|kept| **kept).count() {
            0 => "dropped",
            8 => "kept",
            _ => "torn",
        });
    }
    assert_eq!(outcomes.len(), 3, "{outcomes:?}");
}

#[test]
fn pages_come_back_in_any_order() {
    let later_without_earlier = (0..100).any(|seed| {
        let mut file = FileState::default();
        file.set_len(8192);
        file.sync(file.last_change());
        file.write(0, written(4096, 1));
        file.write(4096, written(4096, 2));
        file.power_loss(&mut Stream::new(seed, "disk"));
        file.current().read(0, 1)[0] == 0 && file.current().read(4096, 4096) == vec![2; 4096]
    });
    assert!(later_without_earlier);
}

#[test]
fn a_sync_covers_only_what_came_before_it() {
    let mut file = FileState::default();
    file.write(0, written(512, 1));
    let asked = file.last_change();
    file.write(512, written(512, 2));
    file.sync(asked);
    assert_eq!(file.durable().read(0, 512), vec![1; 512]);
    assert_eq!(file.durable().len(), 512);
    assert_eq!(file.unsynced_bytes(), 512);
}

#[test]
fn overlapping_writes_in_one_page_are_synced_in_order() {
    let mut file = FileState::default();
    file.write(0, written(5_000, 1));
    file.write(10, written(20, 2));
    let asked = file.last_change();
    file.write(15, written(10, 3));
    file.sync(asked);
    assert_eq!(file.durable().read(8, 24), [vec![1; 2], vec![2; 20], vec![1; 2]].concat());
    assert_eq!(file.current().read(15, 10), vec![3; 10]);
}

/// A seed whose failed sync leaves nothing on the medium.
const NOTHING_KEPT: u64 = 1;

#[test]
fn a_failed_sync_leaves_nothing_some_or_all_of_what_it_should_have_covered() {
    let kept: BTreeSet<usize> = (0..50)
        .map(|seed| {
            let mut file = FileState::default();
            file.write(0, written(4096, 1));
            file.write(4096, written(4096, 1));
            let kept = file.lose(file.last_change(), false, &mut Stream::new(seed, "disk"));
            assert_eq!(kept.ranges.len() * 4096, file.durable().occupied().len() * 4096);
            assert_eq!(file.unsynced_bytes(), 0, "none of it is synced later");
            kept.ranges.len()
        })
        .collect();
    assert_eq!(kept, BTreeSet::from([0, 1, 2]));
}

#[test]
fn what_is_dirty_is_counted_as_it_comes_and_goes() {
    let mut file = FileState::default();
    file.write(0, written(1_000, 1));
    let asked = file.last_change();
    file.write(0, written(500, 2));
    file.set_len(200);
    assert_eq!(file.unsynced_bytes(), 1_500);
    file.sync(asked);
    assert_eq!(file.unsynced_bytes(), 500);
    file.power_loss(&mut Stream::new(1, "disk"));
    assert_eq!(file.unsynced_bytes(), 0);
}

#[test]
fn a_failed_sync_loses_the_pages_for_good() {
    let mut file = FileState::default();
    file.write(0, written(4096, 1));
    file.lose(file.last_change(), false, &mut Stream::new(NOTHING_KEPT, "disk"));
    assert_eq!(file.current().read(0, 1), [1], "the cache may still show it");
    file.sync(file.last_change());
    file.power_loss(&mut Stream::new(3, "disk"));
    assert!(!file.current().read(0, 4096).contains(&1), "a later sync must not bring it back");
}

#[test]
fn an_unsynced_truncation_may_or_may_not_survive() {
    let lengths: BTreeSet<u64> = (0..50)
        .map(|seed| {
            let mut file = FileState::default();
            file.write(0, written(8192, 1));
            file.sync(file.last_change());
            file.set_len(100);
            file.power_loss(&mut Stream::new(seed, "disk"));
            file.current().len()
        })
        .collect();
    assert_eq!(lengths, BTreeSet::from([100, 8192]));
}

#[test]
fn rot_flips_exactly_one_bit() {
    let mut file = FileState::default();
    file.write(4096, written(100, 0x55));
    file.sync(file.last_change());
    let before = file.durable().read(0, 5_000);
    assert!(file.rot(false, &mut Stream::new(1, "disk")));
    let after = file.durable().read(0, 5_000);
    let flipped: u32 = before.iter().zip(&after).map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!(flipped, 1);
    assert_eq!(file.current(), file.durable());
}

#[test]
fn rot_spares_what_was_synced_last() {
    let mut file = FileState::default();
    let mut stream = Stream::new(1, "disk");
    file.write(0, written(4096, 0x55));
    file.sync(file.last_change());
    assert!(!file.rot(true, &mut stream), "nothing else is there");
    file.write(4096, written(4096, 0x55));
    file.sync(file.last_change());
    file.write(8192, written(4096, 0));
    file.sync(file.last_change());
    for _ in 0..20 {
        assert!(file.rot(true, &mut stream));
    }
    assert_eq!(file.durable().read(4096, 4096), vec![0x55; 4096]);
}
