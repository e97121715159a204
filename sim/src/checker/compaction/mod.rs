//! Compacted topics, as those see them who read them whole: of each key the last record is there, nothing older comes back,
//! and what is left is not much more than that.
//!
//! What counts as the last is told by offsets: a write of unknown outcome may come to stand behind later ones.

mod lookups;

use std::collections::{BTreeMap, BTreeSet};

pub use lookups::lookups;
use reports::{Verdict, Violation};

use super::Findings;
use super::log::allowed_copies;
use crate::history::compaction::{KeyedRecord, ReadWhen, WholeRead};
use crate::history::{At, Deleted, Deletion, History, Outcome, Place, Send, Value, seconds};

/// A request whose outcome its client never learned has been carried out by then, or never will be.
const CARRIED_OUT_WITHIN: At = 20_000_000_000;

/// A record that was to be written, with what became of its batch.
#[derive(Clone, Copy, Debug)]
struct Write<'a> {
    record: KeyedRecord,
    send: &'a Send,
    /// Where it was acknowledged.
    offset: Option<i64>,
}

impl Write<'_> {
    fn sent(&self) -> At {
        self.send.sent.unwrap_or(self.send.began)
    }

    fn was_refused(&self) -> bool {
        matches!(self.send.outcome, Outcome::Refused { .. }) && self.send.unknown_attempts == 0
    }
}

/// All that is known of a run's compacted topics.
struct Known<'a> {
    writes: BTreeMap<Value, Write<'a>>,
    /// By key, in the order in which they began.
    of_key: BTreeMap<(&'a Place, u32), Vec<Value>>,
    /// Where each record was read or acknowledged to stand.
    offsets: BTreeMap<Value, BTreeSet<i64>>,
}

impl<'a> Known<'a> {
    fn of(history: &'a History) -> Known<'a> {
        let mut known = Known { writes: BTreeMap::new(), of_key: BTreeMap::new(), offsets: BTreeMap::new() };
        for send in &history.sends {
            let base = match send.outcome {
                Outcome::Acked { base, .. } => base,
                Outcome::Refused { .. } | Outcome::Unknown => None,
            };
            for (nth, value) in (0..).zip(send.values()) {
                let Some(record) = history.compaction.writes.get(&value).copied() else { continue };
                let offset = base.map(|base| base + nth);
                known.writes.insert(value, Write { record, send, offset });
                known.of_key.entry((&send.place, record.key)).or_default().push(value);
                known.offsets.entry(value).or_default().extend(offset);
            }
        }
        for read in &history.compaction.reads {
            for (offset, record) in &read.records {
                known.offsets.entry(record.value).or_default().insert(*offset);
            }
        }
        known
    }

    /// What is surely there from some moment on, in the order of these moments: what was acknowledged, and of each key the
    /// last that was read.
    fn surely(&self, history: &'a History) -> Vec<(At, &'a Place, u32, i64)> {
        let acked = self.writes.values().filter_map(|write| match write.send.outcome {
            Outcome::Acked { at, .. } => Some((at, &write.send.place, write.record.key, write.offset?)),
            Outcome::Refused { .. } | Outcome::Unknown => None,
        });
        let read = history.compaction.reads.iter().flat_map(|read| {
            let last = last_of_keys(read).into_iter();
            last.map(move |(key, (offset, _))| (read.ended, &read.place, key, offset))
        });
        let mut all: Vec<_> = acked.chain(read).collect();
        all.sort_unstable();
        all
    }
}

/// Of each key the last record that a read found.
fn last_of_keys(read: &WholeRead) -> BTreeMap<u32, (i64, KeyedRecord)> {
    read.records.iter().map(|(offset, record)| (record.key, (*offset, *record))).collect()
}

/// The reads, each with the last offset of each key that was surely there when it began.
fn each_read<'a>(
    history: &'a History,
    known: &Known<'a>,
    mut look: impl FnMut(&'a WholeRead, &BTreeMap<(&'a Place, u32), i64>),
) {
    let surely = known.surely(history);
    let mut reads: Vec<&WholeRead> = history.compaction.reads.iter().collect();
    reads.sort_by_key(|read| read.began);
    let mut newest: BTreeMap<(&Place, u32), i64> = BTreeMap::new();
    let mut next = 0;
    for read in reads {
        while let Some((_, place, key, offset)) = surely.get(next).filter(|(at, ..)| *at < read.began) {
            let known = newest.entry((place, *key)).or_insert(*offset);
            *known = (*known).max(*offset);
            next += 1;
        }
        look(read, &newest);
    }
}

/// Of each key the last record is read, or one behind it, or it was a tombstone and has stayed long enough. `clocks_differ`:
/// nobody can say how long that is.
pub fn lost(history: &History, clocks_differ: bool) -> Vec<Violation> {
    let mut findings = Findings::of("compacted-lost", Verdict::Safety);
    let known = Known::of(history);
    each_read(history, &known, |read, newest| {
        let last = last_of_keys(read);
        for ((_, key), offset) in newest.iter().filter(|((place, _), _)| **place == read.place) {
            // A leader that begins its epoch tells an older high watermark for a while.
            let is_before_its_end = *offset < read.end || read.when != ReadWhen::Meanwhile;
            let found = last.get(key).map(|(offset, _)| *offset);
            if !is_before_its_end || found >= Some(*offset) {
                continue;
            }
            let lack = Lack { key: *key, offset: *offset, found, clocks_differ };
            let is_of_age = lack.is_of_age(&known, read, history.compaction.retention);
            if is_of_age || may_be_deleted(history, &read.place, *offset, read.ended) {
                continue;
            }
            if let Some(what) = unexplained(&known, read, lack, history.compaction.delete_retention) {
                findings.add(what);
            }
        }
    });
    findings.all()
}

/// Somebody has asked by then for the deletion of what stands at an offset, and was not refused.
fn may_be_deleted(history: &History, place: &Place, offset: i64, by: At) -> bool {
    let of_place = |deletion: &&Deletion| deletion.place == *place && deletion.sent <= by;
    history.compaction.deletes()
        && history.deletions.iter().filter(of_place).any(|deletion| match (deletion.told, deletion.before) {
            (Deleted::From(low), before) => before.unwrap_or(low).max(low) > offset,
            (Deleted::Unknown, before) => before.is_none_or(|before| before > offset),
            (Deleted::Refused, _) => false,
        })
}

/// Whoever begins to read once a deletion is acknowledged finds nothing of what was deleted; and nothing is deleted on
/// request from a topic that is compacted only.
pub fn undeleted(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("compacted-undeleted", Verdict::Safety);
    let is_compacted = |place: &Place| history.compaction.reads.iter().any(|read| read.place == *place);
    let mut lows: BTreeMap<&Place, Vec<(At, i64)>> = BTreeMap::new();
    for deletion in &history.deletions {
        let (Deleted::From(low), Some(at)) = (deletion.told, deletion.answered) else { continue };
        lows.entry(&deletion.place).or_default().push((at, low));
        if !history.compaction.deletes() && is_compacted(&deletion.place) {
            findings.add(format!(
                "{} was told at {} that {} starts at {low}, and it is compacted only",
                deletion.client,
                seconds(at),
                deletion.place
            ));
        }
    }
    for read in &history.compaction.reads {
        let told = lows.get(&read.place).into_iter().flatten().filter(|(at, _)| *at < read.began);
        let Some(low) = told.map(|(_, low)| *low).max() else { continue };
        if let Some((offset, _)) = read.records.first().filter(|(offset, _)| *offset < low) {
            findings.add(format!(
                "reader {} found a record at offset {offset} of {} at {}, of which all before {low} was deleted",
                read.reader,
                read.place,
                seconds(read.began)
            ));
        }
    }
    findings.all()
}

/// A read did not find the record of a key that was last when it began.
#[derive(Clone, Copy)]
struct Lack {
    key: u32,
    offset: i64,
    /// The last one of the key that it found.
    found: Option<i64>,
    clocks_differ: bool,
}

impl Lack {
    /// It may have been deleted for its age, and with it all that stood before it.
    fn is_of_age(&self, known: &Known<'_>, read: &WholeRead, retention: Option<At>) -> bool {
        let Some(retention) = retention else { return false };
        let of_key = known.of_key.get(&(&read.place, self.key)).map_or(&[][..], Vec::as_slice);
        let mut there = of_key
            .iter()
            .filter(|value| known.offsets.get(value).is_some_and(|all| all.contains(&self.offset)));
        let is_old = |value: &Value| {
            self.clocks_differ || known.writes[value].send.began.saturating_add(retention) <= read.ended
        };
        self.found.is_none() && there.any(is_old)
    }
}

fn unexplained(known: &Known<'_>, read: &WholeRead, lack: Lack, delete_retention: At) -> Option<String> {
    let Lack { key, offset, found, clocks_differ } = lack;
    let of_key = known.of_key.get(&(&read.place, key)).map_or(&[][..], Vec::as_slice);
    let is_final = read.when != ReadWhen::Meanwhile;
    let may_stand = |value: &&Value| {
        let offsets = known.offsets.get(*value);
        match offsets.and_then(BTreeSet::last) {
            Some(last) => *last >= offset,
            None => !known.writes[*value].was_refused(),
        }
    };
    // Behind the end of the read, where what makes the record superfluous may stand already.
    let may_be_behind = |write: &Write<'_>, last: Option<i64>| match last {
        Some(last) => last >= read.end,
        None => write.sent().saturating_add(CARRIED_OUT_WITHIN) >= read.ended,
    };
    // Who reads for longer than tombstones stay, or of several nodes, may see a record on its way and not its tombstone any more.
    let may_miss_tombstones =
        clocks_differ || read.ended - read.began >= delete_retention || read.nodes.len() > 1;
    let mut young = None;
    for value in of_key.iter().filter(may_stand) {
        let write = &known.writes[value];
        let last = known.offsets.get(value).and_then(BTreeSet::last).copied();
        if write.sent() > read.ended {
            continue;
        }
        if !is_final && may_be_behind(write, last) {
            return None;
        }
        if write.record.tombstone {
            let is_old = clocks_differ || write.sent().saturating_add(delete_retention) <= read.ended;
            if is_old && (found.is_none() || may_miss_tombstones) {
                return None;
            }
            young = Some(write.sent());
        }
    }
    let instead = match found {
        Some(found) => format!("the older one at offset {found} is the last of its key"),
        None => "there is nothing of its key".to_owned(),
    };
    let tombstone = young.map(|sent| format!("; its tombstone was sent at {}", seconds(sent)));
    Some(format!(
        "key {key} of {}: its record at offset {offset} was there before {}, and for reader {}, who read from then until {} up to \
         offset {}, {instead}{}",
        read.place,
        seconds(read.began),
        read.reader,
        seconds(read.ended),
        read.end,
        tombstone.unwrap_or_default()
    ))
}

/// What stands at an offset is what was written there, whoever reads it whenever; offsets rise; and a record without a key
/// is taken by nobody.
pub fn differing(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("compacted-differs", Verdict::Safety);
    let known = Known::of(history);
    let mut at: BTreeMap<(&Place, i64), Value> = BTreeMap::new();
    for (value, write) in &known.writes {
        if let Some(offset) = write.offset
            && let Some(other) = at.insert((&write.send.place, offset), *value)
        {
            findings.add(format!(
                "{other} and {value} were both acknowledged at offset {offset} of {}",
                write.send.place
            ));
        }
    }
    for read in &history.compaction.reads {
        let who = || format!("reader {} at {}", read.reader, seconds(read.began));
        let mut before = -1;
        for (offset, record) in &read.records {
            if *offset <= before {
                findings.add(format!("{} is led from {before} to {offset} of {}", who(), read.place));
            }
            before = *offset;
            match known.writes.get(&record.value) {
                Some(write) if write.send.place == read.place && write.record == *record => {
                    if write.was_refused() {
                        findings.add(format!(
                            "{} was refused, and {} found it at offset {offset} of {}",
                            record.value,
                            who(),
                            read.place
                        ));
                    }
                }
                _ => findings.add(format!(
                    "{} found {record:?} at offset {offset} of {}, which nobody wrote there",
                    who(),
                    read.place
                )),
            }
            let other = *at.entry((&read.place, *offset)).or_insert(record.value);
            if other != record.value {
                findings.add(format!(
                    "offset {offset} of {} is {other}, and {} for {}",
                    read.place,
                    record.value,
                    who()
                ));
            }
        }
    }
    for (value, offsets) in &known.offsets {
        let allowed = known.writes.get(value).map_or(1, |write| allowed_copies(write.send));
        if offsets.len() > allowed {
            findings.add(format!("{value} stands at offsets {offsets:?}, where {allowed} can be"));
        }
    }
    for (place, at) in &history.compaction.keyless_acked {
        findings.add(format!("a record without a key was acknowledged for {place} at {}", seconds(*at)));
    }
    findings.all()
}

/// When nothing is broken any more and there was time for it, little more is left of a topic than its keys.
pub fn not_compacted(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("not-compacted", Verdict::Freeze);
    let Some(most) = history.compaction.left_max else { return Vec::new() };
    let mut left: BTreeMap<(u32, u32), (At, u64)> = BTreeMap::new();
    for read in history.compaction.reads.iter().filter(|read| read.when == ReadWhen::Settled) {
        let (ended, records) = left.entry((read.reader, read.round)).or_default();
        *ended = read.ended.max(*ended);
        *records += read.records.len() as u64;
    }
    for ((reader, _), (ended, records)) in left.into_iter().filter(|(_, (_, records))| *records > most) {
        findings.add(format!(
            "reader {reader} found {records} records at {}, and {most} should be left by then",
            seconds(ended)
        ));
    }
    findings.all()
}

/// What compaction was seen to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sightings {
    /// Offsets that a read passed without a record, the most of all reads of a partition, in all partitions.
    pub records_gone: u64,
    pub reads_with_gaps: u64,
    /// Keys of which nothing was left although they had been written to.
    pub tombstones_gone: u64,
}

pub fn sightings(history: &History) -> Sightings {
    let known = Known::of(history);
    let mut gone: BTreeMap<&Place, u64> = BTreeMap::new();
    let mut forgotten = BTreeSet::new();
    let mut reads_with_gaps = 0;
    each_read(history, &known, |read, newest| {
        let missing = read.end.max(0).unsigned_abs().saturating_sub(read.records.len() as u64);
        reads_with_gaps += u64::from(missing > 0);
        let most = gone.entry(&read.place).or_default();
        *most = missing.max(*most);
        let last = last_of_keys(read);
        let of_place = newest.iter().filter(|((place, _), _)| **place == read.place);
        let without = of_place.filter(|((_, key), offset)| **offset < read.end && !last.contains_key(key));
        forgotten.extend(without.map(|(of, offset)| (*of, *offset)));
    });
    Sightings { records_gone: gone.values().sum(), reads_with_gaps, tombstones_gone: forgotten.len() as u64 }
}

#[cfg(test)]
mod tests;
