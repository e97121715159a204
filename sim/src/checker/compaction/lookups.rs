//! Look-ups by time in a compacted topic: of records that go, the first that is not older than a time is found all the same.

use reports::{Verdict, Violation};

use super::{Findings, Known, Write, may_be_deleted};
use crate::history::{At, History, Lookup, LookupQuery, Outcome, Value, seconds, timestamp_of};

pub fn lookups(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("wrong-look-up", Verdict::Safety);
    let known = Known::of(history);
    for lookup in &history.compaction.lookups {
        let LookupQuery::Timestamp(wanted) = lookup.query else { continue };
        let what =
            wrong_record(&known, lookup, wanted).or_else(|| passed_over(history, &known, lookup, wanted));
        if let Some(what) = what {
            findings.add(format!(
                "{} asked for the first record since {wanted} of {} at {} and was told offset {} and time {}: {what}",
                lookup.client,
                lookup.place,
                seconds(lookup.sent),
                lookup.offset,
                lookup.timestamp
            ));
        }
    }
    findings.all()
}

fn timestamp(value: Value, write: &Write<'_>) -> i64 {
    timestamp_of(write.send.timestamp_ms, value.number.abs_diff(write.send.first) as usize)
}

/// What stands at the offset is of the time that was told, and this is not before the wanted one.
fn wrong_record(known: &Known<'_>, lookup: &Lookup, wanted: i64) -> Option<String> {
    let stands = |(value, write): &(&Value, &Write<'_>)| {
        write.send.place == lookup.place
            && known.offsets.get(value).is_some_and(|offsets| offsets.contains(&lookup.offset))
    };
    let (value, write) = known.writes.iter().find(stands)?;
    let time = timestamp(*value, write);
    (time < wanted || time != lookup.timestamp).then(|| format!("the record there is of {time}"))
}

/// A record that was surely there all the time is not passed over.
fn passed_over(history: &History, known: &Known<'_>, lookup: &Lookup, wanted: i64) -> Option<String> {
    let of_place = known.of_key.iter().filter(|((place, _), _)| **place == lookup.place);
    let sure = of_place.filter_map(|(_, values)| {
        let (offset, time) = stays(history, known, values, lookup)?;
        (time >= wanted).then_some(offset)
    });
    let first = sure.min()?;
    let passed = lookup.offset < 0 || lookup.offset > first;
    passed.then(|| format!("the record at offset {first} was there, and is not older"))
}

/// Of one key the record that was there while it was looked up, and its time: the last of all, acknowledged before, with a
/// value, and deleted by nobody.
fn stays(history: &History, known: &Known<'_>, of_key: &[Value], lookup: &Lookup) -> Option<(i64, i64)> {
    let acked = |value: &Value| {
        let write = &known.writes[value];
        let was_there = matches!(write.send.outcome, Outcome::Acked { at, .. } if at < lookup.sent);
        Some((write.offset.filter(|_| was_there)?, *value))
    };
    let (offset, last) = of_key.iter().filter_map(acked).max()?;
    let leaves_it = |value: &Value| {
        let other = &known.writes[value];
        let stands_before =
            other.offset.is_some_and(|other| other < offset) && other.send.unknown_attempts == 0;
        *value == last || stands_before || other.was_refused() || other.sent() > lookup.at
    };
    let write = &known.writes[&last];
    let is_young = |retention: At| write.send.began.saturating_add(retention) > lookup.at;
    let is_kept = history.compaction.retention.is_none_or(is_young)
        && !may_be_deleted(history, &lookup.place, offset, lookup.at);
    let is_there = is_kept && !write.record.tombstone && of_key.iter().all(leaves_it);
    is_there.then(|| (offset, timestamp(last, write)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{S, history, in_doubt, record, tombstone, written};
    use super::*;
    use crate::checker::stories::place;
    use crate::history::compaction::KeyedRecord;
    use crate::history::{Deleted, Deletion, Send};

    /// Of records at offsets 0, 5 and 8, of one key, sent at seconds 1, 3 and 6, of these times.
    const TIMES: [i64; 3] = [1_000, 3_000, 6_000];

    fn story(third: bool) -> History {
        let mut writes = vec![written(record(0), 1, 0), written(record(1), 3, 5)];
        writes.extend(third.then(|| written(record(2), 6, 8)));
        for ((send, _), time) in writes.iter_mut().zip(TIMES) {
            send.timestamp_ms = time;
        }
        history(&writes, &[])
    }

    fn found(mut history: History, since: i64, (offset, timestamp): (i64, i64)) -> usize {
        history.compaction.lookups.push(Lookup {
            client: "client-1".into(),
            place: place(),
            query: LookupQuery::Timestamp(since),
            sent: 9 * S,
            at: 9 * S + 1,
            offset,
            timestamp,
        });
        lookups(&history).len()
    }

    #[test]
    fn the_last_of_a_key_is_not_passed_over() {
        assert_eq!(found(story(false), 900, (0, 1_000)), 0, "what is not compacted yet");
        assert_eq!(found(story(false), 900, (5, 3_000)), 0, "what is");
        assert_eq!(found(story(true), 900, (5, 3_000)), 0);
        assert_eq!(found(story(true), 900, (8, 6_000)), 0);
        assert_eq!(found(story(true), 900, (-1, -1)), 1);
        assert_eq!(found(story(true), 900, (9, 7_000)), 1);
        assert_eq!(found(story(true), 6_001, (-1, -1)), 0, "nothing that late");
    }

    #[test]
    fn what_is_told_stands_there() {
        assert_eq!(found(story(true), 2_000, (0, 1_000)), 1, "too old");
        assert_eq!(found(story(true), 2_000, (5, 3_001)), 1, "of another time");
    }

    #[test]
    fn what_may_have_gone_may_be_passed_over() {
        let doubtful = |(send, record): (Send, KeyedRecord)| {
            let mut history = story(true);
            history.compaction.writes.insert(record.value, record);
            history.sends.push(send);
            history
        };
        assert_eq!(found(doubtful(in_doubt(record(3), 7)), 900, (-1, -1)), 0, "written over");
        assert_eq!(found(doubtful(written(tombstone(3), 7, 9)), 900, (-1, -1)), 0, "forgotten");
        let mut aged = story(true);
        aged.compaction.retention = Some(2 * S);
        assert_eq!(found(aged, 900, (-1, -1)), 0, "of age");
        for (told, passed) in [(Deleted::From(9), 0), (Deleted::Unknown, 0), (Deleted::Refused, 1)] {
            let mut deleted = story(true);
            deleted.compaction.retention = Some(100 * S);
            let (client, place) = ("client-2".into(), place());
            let deletion = Deletion { client, place, before: Some(9), sent: 8 * S, answered: None, told };
            deleted.deletions.push(deletion);
            assert_eq!(found(deleted, 900, (-1, -1)), passed, "{told:?}");
        }
    }
}
