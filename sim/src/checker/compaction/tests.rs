//! Short histories of one key (and another), and what is found of them.

use super::*;
use crate::checker::stories::{acked, place, unknown};

pub(super) const S: At = 1_000_000_000;
/// Tombstones stay for ten seconds.
const RETENTION: At = 10 * S;

pub(super) fn record(number: u64) -> KeyedRecord {
    KeyedRecord { key: 7, value: Value { producer: 1, number }, tombstone: false }
}

pub(super) fn tombstone(number: u64) -> KeyedRecord {
    KeyedRecord { tombstone: true, ..record(number) }
}

/// Sent at `at` seconds, and acknowledged in the same.
pub(super) fn written(record: KeyedRecord, at: At, offset: i64) -> (Send, KeyedRecord) {
    let outcome = Outcome::Acked { at: at * S + 1, base: Some(offset) };
    (Send { began: at * S, outcome, ..acked(record.value.number, offset) }, record)
}

pub(super) fn in_doubt(record: KeyedRecord, at: At) -> (Send, KeyedRecord) {
    (Send { began: at * S, ..unknown(record.value.number) }, record)
}

fn read(began: At, end: i64, records: &[(i64, KeyedRecord)]) -> WholeRead {
    WholeRead {
        reader: 1,
        round: 1,
        when: ReadWhen::Meanwhile,
        place: place(),
        began: began * S,
        ended: began * S + S,
        end,
        nodes: [1].into(),
        records: records.to_vec(),
    }
}

pub(super) fn history(writes: &[(Send, KeyedRecord)], reads: &[WholeRead]) -> History {
    let mut history = History::default();
    for (send, record) in writes {
        history.sends.push(send.clone());
        history.compaction.writes.insert(record.value, *record);
    }
    history.compaction.delete_retention = RETENTION;
    history.compaction.reads = reads.to_vec();
    history
}

fn is_lost(writes: &[(Send, KeyedRecord)], reads: &[WholeRead]) -> bool {
    !lost(&history(writes, reads), false).is_empty()
}

#[test]
fn the_last_record_of_a_key_or_a_later_one_is_there() {
    let writes = [written(record(0), 1, 0), written(record(1), 3, 5), written(record(2), 9, 8)];
    for (what, read, wrong) in [
        ("all", read(4, 6, &[(0, record(0)), (5, record(1))]), false),
        ("the last alone", read(4, 6, &[(5, record(1))]), false),
        ("one that came meanwhile", read(8, 9, &[(8, record(2))]), false),
        ("nothing was there yet", read(0, 0, &[]), false),
        ("an older one", read(4, 6, &[(0, record(0))]), true),
        ("nothing", read(4, 6, &[]), true),
        ("the end is told late by a new leader", read(4, 5, &[(0, record(0))]), false),
    ] {
        assert_eq!(is_lost(&writes, &[read]), wrong, "{what}");
    }
    let late = WholeRead { when: ReadWhen::Settled, ..read(4, 5, &[(0, record(0))]) };
    assert!(is_lost(&writes[..2], &[late]), "in the end everybody tells the end");
}

#[test]
fn what_was_read_comes_back_as_nothing_older() {
    let writes = [written(record(0), 1, 0), in_doubt(record(1), 2)];
    let newer = read(3, 6, &[(5, record(1))]);
    assert!(is_lost(&writes, &[newer.clone(), read(5, 6, &[(0, record(0))])]));
    assert!(is_lost(&writes, &[newer.clone(), read(5, 6, &[])]));
    assert!(!is_lost(&writes, &[newer.clone(), newer]));
}

#[test]
fn nothing_is_left_of_a_key_whose_tombstone_has_stayed_long_enough() {
    let writes = [written(record(0), 1, 0), written(tombstone(1), 3, 5)];
    for (what, began, records, wrong) in [
        ("it is there", 20, &[(5, tombstone(1))][..], false),
        ("both are there", 20, &[(0, record(0)), (5, tombstone(1))], false),
        ("it has stayed", 12, &[], false),
        ("it has not", 11, &[], true),
        ("the older one came back", 20, &[(0, record(0))], true),
    ] {
        assert_eq!(is_lost(&writes, &[read(began, 6, records)]), wrong, "{what}");
    }
    let older = read(20, 6, &[(0, record(0))]);
    let slow = WholeRead { ended: 30 * S, ..older.clone() };
    assert!(!is_lost(&writes, &[slow]), "it had passed the older one before both went");
    let of_two = WholeRead { nodes: [1, 2].into(), ..older };
    assert!(!is_lost(&writes, &[of_two]), "the one had not compacted yet");
    let early = history(&writes, &[read(4, 6, &[])]);
    assert_eq!((lost(&early, false).len(), lost(&early, true).len()), (1, 0), "nobody knows how long");
}

#[test]
fn what_stands_behind_the_end_may_have_made_a_record_superfluous() {
    let behind = [written(record(0), 1, 0), written(record(1), 4, 6)];
    assert!(!is_lost(&behind, &[read(4, 6, &[])]));
    let in_doubt = [written(record(0), 1, 0), in_doubt(record(1), 3)];
    assert!(!is_lost(&in_doubt, &[read(4, 6, &[])]));
    assert!(is_lost(&in_doubt, &[read(30, 6, &[])]), "by then it stands somewhere, or nowhere");
    let settled = WholeRead { when: ReadWhen::Settled, ..read(4, 6, &[]) };
    assert!(is_lost(&in_doubt, &[settled]), "nothing stands behind the end then");
    let mut refused = in_doubt.clone();
    refused[1].0.outcome = Outcome::Refused { at: 4, error: "x".into() };
    refused[1].0.unknown_attempts = 0;
    assert!(is_lost(&refused, &[read(4, 6, &[])]));
}

#[test]
fn keys_and_partitions_are_told_apart() {
    let other = KeyedRecord { key: 8, ..record(1) };
    assert!(is_lost(&[written(record(0), 1, 0), written(other, 2, 5)], &[read(4, 6, &[(5, other)])]));
    let elsewhere = WholeRead { place: Place { partition: 1, ..place() }, ..read(4, 6, &[]) };
    assert!(!is_lost(&[written(record(0), 1, 0)], &[elsewhere]));
}

#[test]
fn an_offset_holds_what_was_written_there() {
    let writes = [written(record(0), 1, 0), written(record(1), 3, 5), in_doubt(record(2), 4)];
    let found = |reads: &[WholeRead]| differing(&history(&writes, reads)).len();
    assert_eq!(found(&[read(4, 6, &[(0, record(0)), (5, record(1))]), read(5, 9, &[(8, record(2))])]), 0);
    for (what, records, count) in [
        ("another record there, which stands twice then", &[(5, record(0))][..], 2),
        ("a tombstone that was none", &[(5, tombstone(1))], 1),
        ("another key", &[(5, KeyedRecord { key: 8, ..record(1) })], 1),
        ("nobody's", &[(7, record(9))], 1),
        ("back", &[(5, record(1)), (0, record(0))], 1),
        ("twice in a row", &[(5, record(1)), (5, record(1))], 1),
        ("at two offsets", &[(5, record(1)), (6, record(1))], 1),
    ] {
        assert_eq!(found(&[read(4, 9, records)]), count, "{what}");
    }
    assert_eq!(found(&[read(5, 9, &[(8, record(2))]), read(7, 9, &[(7, record(2))])]), 1);
}

#[test]
fn what_was_refused_and_what_has_no_key_is_not_taken() {
    let mut refused = written(record(0), 1, 0);
    refused.0.outcome = Outcome::Refused { at: 2, error: "x".into() };
    let mut history = history(&[refused], &[read(4, 6, &[(0, record(0))])]);
    assert_eq!(differing(&history).len(), 1);
    history.compaction.keyless_acked.push((place(), 3));
    assert_eq!(differing(&history).len(), 2);
}

#[test]
fn more_than_should_be_left_is_found_over_all_partitions_of_a_round() {
    let settled = |partition, round| {
        let records = [(0, record(0)), (5, record(1))];
        let place = Place { partition, ..place() };
        WholeRead { place, round, when: ReadWhen::Settled, ..read(9, 6, &records) }
    };
    let found = |left_max, reads: &[WholeRead]| {
        let mut history = history(&[], reads);
        history.compaction.left_max = left_max;
        not_compacted(&history).len()
    };
    let both = [settled(0, 1), settled(1, 1)];
    assert_eq!((found(Some(4), &both), found(Some(3), &both), found(None, &both)), (0, 1, 0));
    assert_eq!(found(Some(3), &[settled(0, 1), settled(1, 2)]), 0);
    assert_eq!(found(Some(1), &[read(4, 6, &[(0, record(0)), (5, record(1))])]), 0, "while others write");
}

#[test]
fn what_compaction_did_is_seen() {
    let writes = [written(record(0), 1, 0), written(tombstone(1), 3, 1)];
    let all = read(4, 2, &[(0, record(0)), (1, tombstone(1))]);
    assert_eq!(sightings(&history(&writes, std::slice::from_ref(&all))), Sightings::default());
    let reads = [all, read(6, 2, &[(1, tombstone(1))]), read(20, 2, &[]), read(21, 2, &[])];
    let seen = sightings(&history(&writes, &reads));
    assert_eq!(seen, Sightings { records_gone: 2, reads_with_gaps: 3, tombstones_gone: 1 });
}

#[test]
fn what_is_old_enough_may_have_gone_for_that_and_nothing_that_stood_before_it_is_left() {
    let writes = [written(record(0), 1, 0), written(record(1), 3, 5)];
    let table = [
        // When it is read, what is found, and whether something is wrong. Records go after five seconds.
        (4, &[][..], true),
        (7, &[], false),
        (7, &[(0, record(0))], true),
        (7, &[(5, record(1))], false),
    ];
    for (at, found, wrong) in table {
        let mut history = history(&writes, &[read(at, 9, found)]);
        history.compaction.retention = Some(5 * S);
        assert_eq!(!lost(&history, false).is_empty(), wrong, "at {at}: {found:?}");
        history.compaction.retention = None;
        assert_eq!(!lost(&history, false).is_empty(), found != [(5, record(1))], "at {at}: {found:?}");
    }
}

#[test]
fn what_was_deleted_on_request_stays_away() {
    let writes = [written(record(0), 1, 0), written(record(1), 3, 5)];
    let deleted = |told, reads: &[WholeRead]| {
        let mut history = history(&writes, reads);
        history.compaction.retention = Some(100 * S);
        let (client, answered) = ("client-1".into(), Some(4 * S));
        let (place, before, sent) = (place(), Some(6), 4 * S - 1);
        history.deletions = vec![Deletion { client, place, before, sent, answered, told }];
        history
    };
    let all = [(0, record(0)), (5, record(1))];
    let early = deleted(Deleted::From(6), &[read(3, 6, &all)]);
    assert_eq!(undeleted(&early), [], "it was there before");
    let late = deleted(Deleted::From(6), &[read(5, 6, &all)]);
    assert_eq!(undeleted(&late).len(), 1);
    for (told, lacks) in [(Deleted::From(6), 0), (Deleted::Unknown, 0), (Deleted::Refused, 1)] {
        let gone = deleted(told, &[read(5, 6, &[])]);
        assert_eq!(lost(&gone, false).len(), lacks, "{told:?}");
    }
    let mut only_compacted = deleted(Deleted::From(6), &[read(3, 6, &all)]);
    only_compacted.compaction.retention = None;
    assert_eq!(undeleted(&only_compacted).len(), 1);
}
