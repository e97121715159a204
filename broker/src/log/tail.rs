//! The tail: batches that are in the journal and not yet in a synced segment, in memory.
//!
//! One chunk is the payload of one journal entry, so a chunk costs one allocation however many batches
//! came together. Chunks are contiguous in offsets and rising in LSN. Pure; owned by the partition's owner.

use std::collections::VecDeque;

use bytes::Bytes;

use super::batch::Batches;
use crate::ids::{Lsn, Offset};

/// Batches that came in one journal entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The entry.
    pub lsn: Lsn,
    /// The offset of the first record.
    pub base: Offset,
    /// The offset after the last record.
    pub end: Offset,
    /// Whole batches, stamped.
    pub bytes: Bytes,
    /// The largest timestamp of its batches; -1 where there is none.
    pub max_timestamp: i64,
}

/// The chunks of one partition that segments do not hold yet.
#[derive(Debug, Default)]
pub struct Tail {
    chunks: VecDeque<Chunk>,
    bytes: u64,
}

impl Tail {
    /// Puts a chunk at the end, where it has to follow.
    pub fn push(&mut self, chunk: Chunk) {
        assert!(chunk.base < chunk.end, "a chunk holds a batch");
        if let Some(last) = self.chunks.back() {
            assert_eq!(last.end, chunk.base, "the tail has no holes");
            assert!(last.lsn <= chunk.lsn, "the tail is in the journal's order");
        }
        self.bytes += chunk.bytes.len() as u64;
        self.chunks.push_back(chunk);
    }

    /// Bytes of all batches in it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The first offset held, if any.
    pub fn start(&self) -> Option<Offset> {
        self.chunks.front().map(|chunk| chunk.base)
    }

    /// The offset after the last one held, if any.
    pub fn end(&self) -> Option<Offset> {
        self.chunks.back().map(|chunk| chunk.end)
    }

    /// All chunks, rising.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> + Clone {
        self.chunks.iter()
    }

    /// Whole batches from the one that holds `from` up to `limit`, at most `max_bytes` of them; where `at_least_one`, the
    /// first however large it is.
    pub fn collect(&self, from: Offset, limit: Offset, max_bytes: usize, at_least_one: bool) -> Vec<Bytes> {
        let first = self.chunks.partition_point(|chunk| chunk.end <= from);
        let mut out = Vec::new();
        let mut left = max_bytes;
        for chunk in self.chunks.range(first..) {
            if chunk.base >= limit {
                break;
            }
            if chunk.base >= from && chunk.end <= limit && chunk.bytes.len() <= left {
                left -= chunk.bytes.len();
                out.push(chunk.bytes.clone());
                continue;
            }
            let (piece, whole) = part_of(&chunk.bytes, from, limit, left, at_least_one && out.is_empty());
            left = left.saturating_sub(piece.len());
            if !piece.is_empty() {
                out.push(piece);
            }
            if !whole {
                break;
            }
        }
        out
    }

    /// The largest timestamp of whole batches from `start` on, and up to `limit`.
    pub fn largest_timestamp(&self, start: Offset, limit: Offset) -> Option<i64> {
        let of_chunk = |chunk: &Chunk| {
            if chunk.base >= start && chunk.end <= limit {
                return Some(chunk.max_timestamp);
            }
            let headers = Batches::new(&chunk.bytes).map_while(Result::ok).map(|(_, header)| header);
            let visible = headers.filter(|header| header.base_offset >= start && header.end() <= limit);
            visible.map(|header| header.max_timestamp).max()
        };
        self.chunks.iter().take_while(|chunk| chunk.base < limit).filter_map(of_chunk).max()
    }

    /// The chunks that hold something not older than `timestamp`.
    pub fn not_older_than(&self, timestamp: i64) -> Vec<Bytes> {
        let wanted = self.chunks.iter().filter(|chunk| chunk.max_timestamp >= timestamp);
        wanted.map(|chunk| chunk.bytes.clone()).collect()
    }

    /// Forgets everything from `to` on, and a batch that reaches beyond it. Returns where the log ends then: `to`, unless
    /// that lies within a batch of the tail.
    pub fn truncate(&mut self, to: Offset) -> Offset {
        while let Some(last) = self.chunks.pop_back_if(|last| last.end > to) {
            self.bytes -= last.bytes.len() as u64;
            if last.base >= to {
                continue;
            }
            let kept =
                Batches::new(&last.bytes).map_while(Result::ok).take_while(|(_, header)| header.end() <= to);
            let Some((at, header)) = kept.last() else { return last.base };
            let bytes = last.bytes.slice(..at + header.bytes);
            self.bytes += bytes.len() as u64;
            // The largest time may have been in what goes: it is only looked at to find where to look.
            self.chunks.push_back(Chunk { end: header.end(), bytes, ..last });
            return header.end();
        }
        to
    }

    /// Forgets what ends at or before `upto`: it is in a synced segment, or nobody may read it any more.
    pub fn drop_before(&mut self, upto: Offset) {
        while let Some(first) = self.chunks.front()
            && first.end <= upto
        {
            self.bytes -= first.bytes.len() as u64;
            self.chunks.pop_front();
        }
    }

    /// The chunks whose LSN is not above `lsn`.
    pub fn up_to(&self, lsn: Lsn) -> Vec<Chunk> {
        self.chunks.iter().take_while(|chunk| chunk.lsn <= lsn).cloned().collect()
    }
}

/// The batches of `bytes` that end after `from`, up to `limit` and `max_bytes`; whether that reaches the end.
fn part_of(
    bytes: &Bytes,
    from: Offset,
    limit: Offset,
    max_bytes: usize,
    at_least_one: bool,
) -> (Bytes, bool) {
    let mut start = None;
    let mut end = 0;
    for batch in Batches::new(bytes) {
        let Ok((at, header)) = batch else { break };
        if header.end() <= from {
            end = at + header.bytes;
            continue;
        }
        let first = start.is_none() && at_least_one;
        let begin = *start.get_or_insert(at);
        if header.end() > limit || (at + header.bytes - begin > max_bytes && !first) {
            return (bytes.slice(begin..end.max(begin)), false);
        }
        end = at + header.bytes;
    }
    let begin = start.unwrap_or(end);
    (bytes.slice(begin..end), true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::test_batches::BatchSpec;

    fn chunk(lsn: u64, bases: &[i64]) -> Chunk {
        let batches: Vec<Bytes> = bases.iter().map(|base| BatchSpec::records(2).at(*base).build()).collect();
        Chunk {
            lsn: Lsn(lsn),
            base: Offset(bases[0]),
            end: Offset(bases[bases.len() - 1] + 2),
            bytes: batches.concat().into(),
            max_timestamp: 0,
        }
    }

    /// Offsets 10..12 and 12..14 in one chunk, 14..16 in the next.
    fn tail() -> Tail {
        let mut tail = Tail::default();
        tail.push(chunk(1, &[10, 12]));
        tail.push(chunk(2, &[14]));
        tail
    }

    fn bases(pieces: &[Bytes]) -> Vec<i64> {
        pieces
            .iter()
            .flat_map(|p| Batches::new(p).map(|b| b.unwrap().1.base_offset.0).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn collecting_starts_at_the_batch_that_holds_the_offset() {
        let all = Offset(100);
        for (from, expected) in
            [(10, vec![10, 12, 14]), (11, vec![10, 12, 14]), (13, vec![12, 14]), (14, vec![14]), (16, vec![])]
        {
            assert_eq!(bases(&tail().collect(Offset(from), all, 10_000, true)), expected, "from {from}");
        }
    }

    #[test]
    fn collecting_ends_before_the_limit_and_within_the_bytes_but_gives_one_batch_at_least() {
        let one = BatchSpec::records(2).build().len();
        assert_eq!(bases(&tail().collect(Offset(10), Offset(12), 10_000, true)), [10]);
        assert_eq!(bases(&tail().collect(Offset(10), Offset(13), 10_000, true)), [10]);
        assert_eq!(bases(&tail().collect(Offset(10), Offset(16), 1, true)), [10]);
        assert_eq!(bases(&tail().collect(Offset(12), Offset(16), 0, true)), [12]);
        assert_eq!(bases(&tail().collect(Offset(10), Offset(16), 2 * one, true)), [10, 12]);
        assert_eq!(bases(&tail().collect(Offset(12), Offset(16), 2 * one, true)), [12, 14]);
        assert_eq!(bases(&tail().collect(Offset(12), Offset(16), 2 * one - 1, true)), [12]);
        assert!(tail().collect(Offset(10), Offset(16), one - 1, false).is_empty());
        assert_eq!(bases(&tail().collect(Offset(10), Offset(16), one, false)), [10]);
    }

    #[test]
    fn both_ends_can_be_dropped() {
        let mut tail = tail();
        tail.drop_before(Offset(14));
        assert_eq!(tail.start(), Some(Offset(14)));
        assert_eq!(tail.chunks().count(), 1);
        assert_eq!(tail.truncate(Offset(14)), Offset(14));
        assert!(tail.is_empty());
    }

    #[test]
    fn the_end_is_cut_between_batches() {
        for (to, end, bases_left) in [
            (16, 16, vec![10, 12, 14]),
            (15, 14, vec![10, 12]),
            (14, 14, vec![10, 12]),
            (13, 12, vec![10]),
            (12, 12, vec![10]),
            (11, 10, vec![]),
            (10, 10, vec![]),
            (7, 7, vec![]),
        ] {
            let mut tail = tail();
            assert_eq!(tail.truncate(Offset(to)), Offset(end), "to {to}");
            assert_eq!(bases(&tail.collect(Offset(0), Offset(100), 10_000, true)), bases_left, "to {to}");
            let bytes: usize = tail.chunks().map(|chunk| chunk.bytes.len()).sum();
            assert_eq!(tail.bytes(), bytes as u64);
        }
    }
}
