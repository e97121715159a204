//! Offsets that were looked up: the beginning, the end, and the first record that is not older than a time.

use std::collections::BTreeMap;

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{At, Deleted, History, Lookup, LookupQuery, Outcome, Place, seconds, timestamp_of};

/// A record whose offset is known.
#[derive(Clone, Copy, Debug)]
struct Known {
    timestamp: i64,
    /// Since when it surely was there for everybody: its acknowledgement.
    since: At,
}

/// What is known of one partition.
#[derive(Default)]
struct Log {
    records: BTreeMap<i64, Known>,
    /// Behind the last record that was ever seen, where its end was read.
    end: Option<i64>,
    /// Where it started then: what stands before may have been deleted at any time.
    start: i64,
}

pub fn lookups(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("wrong-look-up", Verdict::Safety);
    let logs = known(history);
    let none = Log::default();
    for lookup in &history.lookups {
        if history.deleted.get(&*lookup.place.topic).is_some_and(|deleted| *deleted <= lookup.at) {
            continue;
        }
        let log = logs.get(&lookup.place).unwrap_or(&none);
        let start = log.start.max(deleted_before(history, lookup));
        if let Some(what) = wrong(lookup, log, start) {
            findings.add(format!(
                "{} asked for {} of {} at {} and was told offset {} and time {}: {what}",
                lookup.client,
                name(lookup.query),
                lookup.place,
                seconds(lookup.sent),
                lookup.offset,
                lookup.timestamp
            ));
        }
    }
    history.misled.iter().for_each(|what| findings.add(what.clone()));
    findings.all()
}

fn name(query: LookupQuery) -> String {
    match query {
        LookupQuery::Earliest => "the earliest offset".into(),
        LookupQuery::Latest => "the latest offset".into(),
        LookupQuery::MaxTimestamp => "the newest record".into(),
        LookupQuery::Timestamp(wanted) => format!("the first record since {wanted}"),
    }
}

fn known(history: &History) -> BTreeMap<&Place, Log> {
    let mut logs: BTreeMap<&Place, Log> = BTreeMap::new();
    let mut timestamps = BTreeMap::new();
    for send in &history.sends {
        for (index, value) in send.values().enumerate() {
            timestamps.insert(value, timestamp_of(send.timestamp_ms, index));
        }
        let Outcome::Acked { at, base: Some(base) } = send.outcome else { continue };
        let log = logs.entry(&send.place).or_default();
        for index in 0..send.count {
            let timestamp = timestamp_of(send.timestamp_ms, index as usize);
            log.records.insert(base + i64::from(index), Known { timestamp, since: at });
        }
    }
    for (place, read) in &history.last_read {
        let log = logs.entry(place).or_default();
        log.start = history.start_of(place);
        log.end = Some(read.last().map_or(log.start, |(offset, _)| offset + 1));
        for (offset, value) in read {
            if let Some(timestamp) = timestamps.get(value) {
                log.records.entry(*offset).or_insert(Known { timestamp: *timestamp, since: At::MAX });
            }
        }
    }
    logs
}

/// Up to where somebody had asked for deletion by then, whatever he was told: a leader that has deleted so much may be followed by one
/// that has not.
fn deleted_before(history: &History, lookup: &Lookup) -> i64 {
    let asked = history.deletions.iter().filter(|one| one.place == lookup.place && one.sent <= lookup.at);
    let before = asked.map(|one| match (one.told, one.before) {
        (Deleted::Refused, _) => 0,
        (Deleted::From(low), before) => before.unwrap_or(low),
        (Deleted::Unknown, before) => before.unwrap_or(i64::MAX),
    });
    before.max().unwrap_or(0)
}

/// What is wrong with the answer, whatever else happened meanwhile. What stands before `start` may be gone.
fn wrong(lookup: &Lookup, log: &Log, start: i64) -> Option<String> {
    let there = || log.records.range(start..).filter(|(_, known)| known.since < lookup.sent);
    let answered = log.records.get(&lookup.offset);
    match lookup.query {
        // Judged with everything else that says where a log starts.
        LookupQuery::Earliest => None,
        LookupQuery::Latest => {
            let least = there().next_back().map_or(0, |(offset, _)| offset + 1);
            if lookup.offset < least {
                return Some(format!("records up to {least} had been acknowledged"));
            }
            let most = log.end.filter(|end| lookup.offset > *end)?;
            Some(format!("the log ended at {most} even later"))
        }
        LookupQuery::MaxTimestamp => {
            let newest = there().map(|(_, known)| known.timestamp).max()?;
            if lookup.timestamp < newest {
                return Some(format!("a record of {newest} had been acknowledged"));
            }
            let stands = answered.filter(|known| known.timestamp != lookup.timestamp)?;
            Some(format!("the record there is of {}", stands.timestamp))
        }
        LookupQuery::Timestamp(wanted) => {
            let first = there().find(|(_, known)| known.timestamp >= wanted);
            if let Some((offset, known)) = first
                && (lookup.offset < 0 || lookup.offset > *offset)
            {
                return Some(format!("offset {offset} is of {} and had been acknowledged", known.timestamp));
            }
            let stands = answered.filter(|_| lookup.offset >= 0)?;
            if stands.timestamp < wanted {
                return Some(format!("the record there is older, of {}", stands.timestamp));
            }
            (stands.timestamp != lookup.timestamp)
                .then(|| format!("the record there is of {}", stands.timestamp))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;

    /// Records 0, 1, 2 at offsets 0, 1, 2, of times 1,000, 1,001, 1,002, acknowledged at 500, 1,500, 2,500.
    fn check(query: LookupQuery, sent: At, offset: i64, timestamp: i64) -> usize {
        let sends = vec![acked(0, 0), acked(1, 1), acked(2, 2)];
        let mut history = ending_with(sends, &[(0, 0), (1, 1), (2, 2)]);
        history.lookups.push(Lookup {
            client: "client-1".into(),
            place: place(),
            query,
            sent,
            at: sent + 1,
            offset,
            timestamp,
        });
        lookups(&history).len()
    }

    #[test]
    fn right_answers_are_accepted_whichever_moment_they_are_of() {
        use LookupQuery::*;
        for (query, sent, offset, timestamp) in [
            (Earliest, 9_000, 0, -1),
            (Latest, 2_000, 2, -1),
            (Latest, 2_000, 3, -1),
            (Timestamp(1_001), 9_000, 1, 1_001),
            (Timestamp(0), 9_000, 0, 1_000),
            (Timestamp(1_003), 9_000, -1, -1),
            // The third record may or may not have been there.
            (Timestamp(1_002), 2_000, -1, -1),
            (Timestamp(1_002), 2_000, 2, 1_002),
            (MaxTimestamp, 9_000, 2, 1_002),
            (MaxTimestamp, 2_000, 1, 1_001),
        ] {
            assert_eq!(check(query, sent, offset, timestamp), 0, "{query:?} at {sent}: {offset}");
        }
    }

    #[test]
    fn wrong_answers_are_found() {
        use LookupQuery::*;
        for (query, sent, offset, timestamp) in [
            (Latest, 9_000, 2, -1),
            (Latest, 9_000, 4, -1),
            (Timestamp(1_001), 9_000, 0, 1_000),
            (Timestamp(1_001), 9_000, 2, 1_002),
            (Timestamp(1_001), 9_000, -1, -1),
            (Timestamp(1_001), 9_000, 1, 1_002),
            (MaxTimestamp, 9_000, 1, 1_001),
            (MaxTimestamp, 9_000, 1, 1_002),
        ] {
            assert_eq!(check(query, sent, offset, timestamp), 1, "{query:?} at {sent}: {offset}");
        }
    }
}
