//! What becomes of batches: which of their records stay, and the batches that those stand in afterwards. Pure, but that a large batch
//! is taken in pieces, between which others run.
//!
//! Batches follow one another without a hole, cleaned or not: a batch that was rewritten also covers the offsets of what is
//! gone before and behind its records, so it may have far fewer records than offsets, or none. What follows one another and
//! belongs together becomes one batch. A leader epoch begins where it began before. Batches that a producer is remembered by
//! keep their bounds and their sequence numbers.
//!
//! A tombstone stays for `delete.retention.ms` after it was cleaned for the first time: its batch says until when (KIP-534: bit 6,
//! and the base timestamp); what a batch that was fetched says does not count. And it stays until all replicas have it. Whatever
//! cannot be read stays as it is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{BufMut, Bytes, BytesMut};

use super::newest::Newest;
use super::record::{RecordView, walk};
use crate::ids::{LeaderEpoch, Offset};
use crate::log::batch::{BatchHeader, HEADER_BYTES, ProducerStamp, with_attributes};
use crate::log::encoder::{Encoder, Method};
use crate::log::producers::sequence_after;
use io_backend::task::give_way;

/// Batches that become one are together not larger than this, as opened.
const MERGED_BYTES: usize = 64 * 1024;
/// A batch from this size on stays as it is, if all of its records stay.
const KEPT_BYTES: usize = 16 * 1024;

/// So much of a batch is looked at, copied or compressed at once.
const PIECE_BYTES: usize = 64 * 1024;

const CODEC_BITS: i16 = 0b111;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
const HORIZON_BIT: i16 = 1 << 6;

/// What is to happen to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A newer one of its key is there, or what it says has been said for long enough, or nobody may read it.
    Goes,
    /// It stays.
    Stays,
    /// A tombstone: it stays until then, in milliseconds since 1970.
    StaysUntil(i64),
}

/// What a fate was decided by, for a part that decides otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Where the record is.
    pub offset: Offset,
    /// No newer one of its key is known.
    pub is_newest: bool,
    /// It has no value.
    pub is_tombstone: bool,
    /// A tombstone whose time is over, and which stays, for a replica may lack it that has what it deletes.
    pub is_lacked: bool,
}

/// May decide otherwise: ours does not.
pub type Judge = std::sync::Arc<dyn Fn(Judged, Fate) -> Fate + Send + Sync>;

/// By what it is decided which records stay.
pub struct Rules<'a> {
    /// Of the keys of what is cleaned for the first time.
    pub newest: &'a Newest,
    /// Records before are deleted.
    pub log_start: Offset,
    /// All replicas have what lies before. A tombstone that one of them lacks stays: it may have what that deletes, and would give it to
    /// others when it leads.
    pub held_by_all: Offset,
    /// The clock on the wall.
    pub now_ms: i64,
    /// Until when tombstones stay that are cleaned for the first time.
    pub horizon_ms: i64,
    /// Base offsets of batches that producers are remembered by.
    pub remembered: &'a BTreeSet<Offset>,
    /// Has the last word.
    pub judge: &'a Judge,
    /// Something before was left as it is that may be what a tombstone deletes.
    pub left_behind: &'a AtomicBool,
}

impl Rules<'_> {
    /// `horizon`: what the record's batch says; `is_clean`: its segment was made by cleaning.
    fn fate(
        &self,
        offset: Offset,
        record: &RecordView<'_>,
        horizon: Option<i64>,
        is_clean: bool,
    ) -> (Judged, Fate) {
        let mut judged =
            Judged { offset, is_newest: false, is_tombstone: record.is_tombstone, is_lacked: false };
        let Some(key) = record.key.filter(|_| offset >= self.log_start) else { return (judged, Fate::Goes) };
        let newest = self.newest.of(key);
        judged.is_newest = newest.is_none_or(|newest| newest <= offset);
        // Where nothing is known of the key, older records of it may have stayed before it.
        let is_alone = (is_clean || newest.is_some()) && !self.left_behind.load(Ordering::Relaxed);
        // What another replica has said of it, whose log was fetched: there what it deletes was gone by then, and here it is not yet.
        let horizon = horizon.filter(|_| is_clean);
        let is_over = horizon.is_some_and(|until| until <= self.now_ms);
        let is_held = offset < self.held_by_all;
        let fate = match (judged.is_newest, record.is_tombstone && is_alone, horizon) {
            (false, ..) => Fate::Goes,
            (true, false, _) => Fate::Stays,
            (true, true, Some(_)) if is_over && is_held => Fate::Goes,
            (true, true, Some(until)) => Fate::StaysUntil(until),
            // Cleaned before there was room to know its key.
            (true, true, None) if newest.is_none() => Fate::Stays,
            (true, true, None) => Fate::StaysUntil(self.horizon_ms),
        };
        judged.is_lacked = is_over && !is_held && matches!(fate, Fate::StaysUntil(_));
        (judged, (self.judge)(judged, fate))
    }
}

/// A record that stays, until its batch is closed.
struct Held {
    offset: Offset,
    timestamp: i64,
    at: usize,
    bytes: usize,
}

/// Records that stay, copied: as they would stand at the beginning of a batch.
#[derive(Default)]
struct Survivors {
    held: Vec<Held>,
    bytes: BytesMut,
    horizon: Option<i64>,
    /// There is a tombstone of which nobody can say yet that nothing is left for it to delete: a batch that has it says of none
    /// when it may go.
    is_open_ended: bool,
}

impl Survivors {
    fn hold(&mut self, offset: Offset, timestamp: i64, record: &RecordView<'_>) {
        let at = self.bytes.len();
        record.put(&mut self.bytes, 0, 0);
        self.held.push(Held { offset, timestamp, at, bytes: self.bytes.len() - at });
    }

    fn extend(&mut self, more: Survivors) {
        let behind = self.bytes.len();
        self.bytes.extend_from_slice(&more.bytes);
        self.held.extend(more.held.into_iter().map(|held| Held { at: held.at + behind, ..held }));
        self.horizon = self.horizon.or(more.horizon);
        self.is_open_ended |= more.is_open_ended;
    }

    fn horizon(&self) -> Option<i64> {
        self.horizon.filter(|_| !self.is_open_ended)
    }

    /// Whether both may stand in one batch.
    fn is_alike(&self, other: &Survivors) -> bool {
        let has_tombstones = |one: &Survivors| one.horizon.is_some() || one.is_open_ended;
        !has_tombstones(self) || !has_tombstones(other) || self.horizon() == other.horizon()
    }
}

/// Lets others run where a piece ends between the two, of what is gone through byte by byte.
pub(super) async fn give_way_between(before: usize, after: usize) {
    if before / PIECE_BYTES < after / PIECE_BYTES {
        give_way().await;
    }
}

/// The header of a batch to be made, beyond what its records say.
struct Frame {
    base: Offset,
    end: Offset,
    epoch: LeaderEpoch,
    attributes: i16,
    /// Id, epoch and base sequence.
    producer: (i64, i16, i32),
    /// Instead of the largest of its records.
    max_timestamp: Option<i64>,
}

impl Frame {
    /// `None`: its codec does not take it.
    async fn close(&self, survivors: &Survivors) -> Option<Bytes> {
        let first = survivors.held.first().map_or(-1, |held| held.timestamp);
        let base_timestamp = survivors.horizon().unwrap_or(first);
        let mut plain = BytesMut::new();
        for held in &survivors.held {
            let one = &survivors.bytes[held.at..held.at + held.bytes];
            let record = walk(one, 1).next()?.ok()?;
            let timestamp_delta = held.timestamp.wrapping_sub(base_timestamp);
            let before = plain.len();
            record.put(&mut plain, timestamp_delta, held.offset.0 - self.base.0);
            give_way_between(before, plain.len()).await;
        }
        let codec = if plain.is_empty() { 0 } else { self.attributes & CODEC_BITS };
        let mut encoder = Encoder::behind(Vec::new(), Method::of(codec)).ok()?;
        for piece in plain.chunks(PIECE_BYTES) {
            encoder.put(piece).ok()?;
            give_way_between(0, piece.len()).await;
        }
        let records = encoder.finish().ok()?;
        let newest = survivors.held.iter().map(|held| held.timestamp).max().unwrap_or(-1);
        let horizon_bit = if survivors.horizon().is_some() { HORIZON_BIT } else { 0 };
        let mut covered = BytesMut::with_capacity(HEADER_BYTES + records.len());
        covered.put_i16(self.attributes & !(CODEC_BITS | HORIZON_BIT) | codec | horizon_bit);
        covered.put_i32(i32::try_from(self.end.0 - self.base.0 - 1).ok()?);
        covered.put_i64(base_timestamp);
        covered.put_i64(self.max_timestamp.unwrap_or(newest));
        covered.put_i64(self.producer.0);
        covered.put_i16(self.producer.1);
        covered.put_i32(self.producer.2);
        covered.put_i32(i32::try_from(survivors.held.len()).ok()?);
        covered.put_slice(&records);
        let mut batch = BytesMut::with_capacity(21 + covered.len());
        batch.put_i64(self.base.0);
        batch.put_i32(i32::try_from(covered.len() + 9).ok()?);
        batch.put_i32(self.epoch.0);
        batch.put_i8(crate::formats::RECORD_BATCH);
        batch.put_u32(crc32c::crc32c(&covered));
        batch.put_slice(&covered);
        Some(batch.freeze())
    }
}

/// A batch that is to be cleaned, opened.
pub struct Opened<'a> {
    /// Its header.
    pub header: &'a BatchHeader,
    /// The whole of it, as it stands in its file.
    pub batch: &'a Bytes,
    /// Its records; `None`: they cannot be had.
    pub records: Option<&'a [u8]>,
    /// Its segment was made by cleaning.
    pub is_clean: bool,
}

/// What is open: offsets up to `end` that no batch covers yet, and the records there that stay.
struct Open {
    base: Offset,
    end: Offset,
    epoch: LeaderEpoch,
    codec: i16,
    survivors: Survivors,
}

/// Makes the batches of a cleaned segment out of those of others, one after the other.
pub struct Rewriter<'a> {
    rules: Rules<'a>,
    open: Option<Open>,
    made: Vec<Bytes>,
    /// What was decided so far.
    pub counts: Counts,
}

/// What became of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that went.
    pub went: u64,
    /// Records that stay.
    pub stayed: u64,
    /// Of these, tombstones whose time is over and that a replica lacks.
    pub lacked: u64,
    /// The last tombstone that went because all replicas have it stood before.
    pub held_before: Offset,
}

impl Counts {
    fn take(&mut self, judged: Judged, fate: Fate, held_by_all: Offset) {
        if fate != Fate::Goes {
            self.stayed += 1;
            self.lacked += u64::from(judged.is_lacked);
            return;
        }
        self.went += 1;
        if judged.is_newest && judged.is_tombstone && judged.offset < held_by_all {
            self.held_before = self.held_before.max(judged.offset.plus(1));
        }
    }

    /// These, too.
    pub fn add(&mut self, other: Counts) {
        let Counts { went, stayed, lacked, held_before } = other;
        self.went += went;
        self.stayed += stayed;
        self.lacked += lacked;
        self.held_before = self.held_before.max(held_before);
    }
}

impl<'a> Rewriter<'a> {
    /// Of nothing yet.
    pub fn new(rules: Rules<'a>) -> Rewriter<'a> {
        Rewriter { rules, open: None, made: Vec::new(), counts: Counts::default() }
    }

    /// Takes the next batch in.
    pub async fn add(&mut self, opened: &Opened<'_>) {
        let header = opened.header;
        let is_for_brokers = header.attributes & (CONTROL_BIT | TRANSACTIONAL_BIT) != 0;
        let judged = match opened.records.filter(|_| !is_for_brokers) {
            Some(records) => self.judge(opened, records).await,
            None => None,
        };
        let Some((survivors, counts)) = judged else {
            // Who knows what it has.
            self.rules.left_behind.store(true, Ordering::Relaxed);
            return self.keep(opened).await;
        };
        self.counts.add(counts);
        let (went, stay) = (counts.went, counts.stayed);
        let is_remembered = self.rules.remembered.contains(&header.base_offset);
        let says_new = survivors.horizon() != horizon_of(opened);
        if went == 0 && !says_new && (is_remembered || header.bytes >= KEPT_BYTES) {
            return self.keep(opened).await;
        }
        if is_remembered || (header.log_append_time() && stay > 0) {
            let frame = Frame {
                base: header.base_offset,
                end: header.end(),
                epoch: header.leader_epoch,
                attributes: header.attributes,
                producer: match is_remembered {
                    true => (header.producer_id.0, header.producer_epoch, header.base_sequence),
                    false => (-1, -1, -1),
                },
                max_timestamp: header.log_append_time().then_some(header.max_timestamp),
            };
            return self.put_or_keep(opened, frame.close(&survivors).await, went).await;
        }
        self.merge(opened, survivors, went).await;
    }

    /// Which records stay, and what was decided; `None`: they cannot be read.
    async fn judge(&self, opened: &Opened<'_>, records: &[u8]) -> Option<(Survivors, Counts)> {
        let header = opened.header;
        let mut survivors = Survivors::default();
        let mut counts = Counts::default();
        let mut next = header.base_offset;
        let mut seen = 0;
        for record in walk(records, header.records) {
            let record = record.ok()?;
            let offset = Offset(header.base_offset.0.checked_add(record.offset_delta)?);
            if offset < next || offset >= header.end() {
                return None;
            }
            next = offset.plus(1);
            let before = seen;
            seen += record.bytes();
            give_way_between(before, seen).await;
            let (judged, fate) = self.rules.fate(offset, &record, horizon_of(opened), opened.is_clean);
            counts.take(judged, fate, self.rules.held_by_all);
            match fate {
                Fate::Goes => continue,
                Fate::Stays => survivors.is_open_ended |= record.is_tombstone,
                Fate::StaysUntil(until) => survivors.horizon = survivors.horizon.max(Some(until)),
            }
            survivors.hold(offset, header.base_timestamp.wrapping_add(record.timestamp_delta), &record);
        }
        Some((survivors, counts))
    }

    /// Puts what stays of a batch to what is open, if it belongs there.
    async fn merge(&mut self, opened: &Opened<'_>, survivors: Survivors, went: u64) {
        let header = opened.header;
        let codec = header.compression();
        let belongs = self.open.as_ref().is_none_or(|open| {
            let is_alike = open.codec == codec && open.survivors.is_alike(&survivors);
            let fits = open.survivors.bytes.len() + survivors.bytes.len() <= MERGED_BYTES;
            // A batch that is large by itself keeps the distances that its records have.
            let may_be_moved = survivors.bytes.len() <= MERGED_BYTES;
            open.epoch == header.leader_epoch
                && header.end().0 - open.base.0 <= i64::from(i32::MAX)
                && (survivors.held.is_empty()
                    || (may_be_moved && fits && (open.survivors.held.is_empty() || is_alike)))
        });
        if !belongs {
            self.close().await;
        }
        let is_large = survivors.bytes.len() > MERGED_BYTES;
        let mut open = self.open.take().unwrap_or_else(|| Open {
            base: header.base_offset,
            end: header.base_offset,
            epoch: header.leader_epoch,
            codec,
            survivors: Survivors::default(),
        });
        if open.survivors.held.is_empty() {
            open.codec = codec;
        }
        open.end = header.end();
        open.survivors.extend(survivors);
        if is_large {
            return self.put_or_keep(opened, Some(open.close().await), went).await;
        }
        self.open = Some(open);
    }

    /// A batch of its own, or as it was where that would be larger: somebody may have no room for it.
    async fn put_or_keep(&mut self, opened: &Opened<'_>, made: Option<Bytes>, went: u64) {
        match made.filter(|made| made.len() <= opened.header.bytes.max(MERGED_BYTES)) {
            Some(made) => {
                self.close().await;
                self.made.push(made);
            }
            None => {
                self.rules.left_behind.fetch_or(went > 0, Ordering::Relaxed);
                self.close().await;
                self.made.push(unmarked(opened));
            }
        }
    }

    async fn keep(&mut self, opened: &Opened<'_>) {
        self.close().await;
        self.made.push(opened.batch.clone());
    }

    async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.made.push(open.close().await);
        }
    }

    /// The batches that are made, rising, without a hole.
    pub fn made(&mut self) -> std::vec::Drain<'_, Bytes> {
        self.made.drain(..)
    }

    /// Nothing follows.
    pub async fn end(&mut self) {
        self.close().await;
    }
}

impl Open {
    async fn close(self) -> Bytes {
        let mut frame = Frame {
            base: self.base,
            end: self.end,
            epoch: self.epoch,
            attributes: self.codec,
            producer: (-1, -1, -1),
            max_timestamp: None,
        };
        let mut made = frame.close(&self.survivors).await;
        if made.is_none() {
            // What does not let itself be compressed again.
            frame.attributes = 0;
            made = frame.close(&self.survivors).await;
        }
        made.expect("records that were read, uncompressed, of a range that fits")
    }
}

/// As it was, but for a mark from elsewhere: in a segment that was cleaned here it would count.
fn unmarked(opened: &Opened<'_>) -> Bytes {
    let is_foreign = horizon_of(opened).is_some() && !opened.is_clean;
    match is_foreign {
        true => with_attributes(opened.batch, opened.header.attributes & !HORIZON_BIT),
        false => opened.batch.clone(),
    }
}

fn horizon_of(opened: &Opened<'_>) -> Option<i64> {
    (opened.header.attributes & HORIZON_BIT != 0).then_some(opened.header.base_timestamp)
}

/// What a batch has from `from` on, which lies within it: for who has what is before that as it was when batches had other
/// bounds. `None`: there is no telling.
pub async fn from(header: &BatchHeader, records: &[u8], from: Offset) -> Option<Bytes> {
    if header.attributes & (CONTROL_BIT | TRANSACTIONAL_BIT) != 0 {
        return None;
    }
    // Sequence numbers follow the offsets that the batch had when it came.
    let skipped = i32::try_from(from.0 - header.base_offset.0).ok()?;
    let producer = match header.producer() {
        Some(ProducerStamp { id, epoch, base_sequence }) => {
            (id.0, epoch, sequence_after(base_sequence, skipped))
        }
        None => (-1, -1, -1),
    };
    let mut survivors = Survivors {
        horizon: (header.attributes & HORIZON_BIT != 0).then_some(header.base_timestamp),
        ..Survivors::default()
    };
    for record in walk(records, header.records) {
        let record = record.ok()?;
        let offset = header.base_offset.plus(record.offset_delta);
        if offset >= from {
            let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
            survivors.hold(offset, timestamp, &record);
        }
    }
    let frame = Frame {
        base: from,
        end: header.end(),
        epoch: header.leader_epoch,
        attributes: header.attributes,
        producer,
        max_timestamp: header.log_append_time().then_some(header.max_timestamp),
    };
    frame.close(&survivors).await
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
