//! Reading: the owner plans from what it knows, the caller does the disk part in its own task.
//!
//! A plan is a snapshot (shared segments, shared bytes of the tail), so it stays right whatever the owner
//! does meanwhile. A batch from disk is served only when its checksum holds; what is good before a
//! rotten batch is served first.

use std::sync::Arc;

use bytes::Bytes;
use io_backend::{Deadline, DiskError, File};

use super::batch::{self, BatchHeader, Damage, HEADER_BYTES};
use super::segment::{Segment, SegmentDamage, damage_at};
use super::tail::Tail;
use crate::ids::Offset;

/// Read at least so much at once: an index point may lie this far before what is wanted.
const READ_BYTES_MIN: usize = 64 * 1024;
/// Read at most so much at once.
const READ_BYTES_MAX: usize = 4 << 20;

/// What to read: batches from the one that holds `from`, none that ends after `limit`.
#[derive(Clone, Debug)]
pub struct ReadPlan<F> {
    /// The first offset that is wanted.
    pub from: Offset,
    /// The high watermark, or the last stable offset.
    pub limit: Offset,
    /// Bytes of batches at most.
    pub max_bytes: usize,
    /// The first batch is given even where it is larger than `max_bytes`.
    pub at_least_one: bool,
    /// Those that hold what the tail does not, as far as `max_bytes` goes.
    pub segments: Vec<Arc<Segment<F>>>,
    /// From the tail, and the offset it begins at: the segments planned for may end before.
    pub tail: Vec<Bytes>,
    /// Where `tail` begins; `limit` where the tail is empty.
    pub tail_start: Offset,
}

impl<F: File> ReadPlan<F> {
    /// Plans with what the owner knows now; takes no time.
    pub fn new(
        segments: &[Arc<Segment<F>>],
        tail: &Tail,
        from: Offset,
        limit: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> ReadPlan<F> {
        let in_tail = tail.start().is_some_and(|start| from >= start);
        let tail_start = tail.start().unwrap_or(limit);
        let mut plan = ReadPlan {
            from,
            limit,
            max_bytes,
            at_least_one,
            segments: Vec::new(),
            tail: Vec::new(),
            tail_start,
        };
        let mut covered = 0;
        if !in_tail {
            let first = segments.partition_point(|segment| segment.end() <= from);
            for segment in &segments[first..] {
                if segment.base >= limit || covered >= max_bytes as u64 {
                    break;
                }
                // How much of the first one lies after `from` is not known yet: it counts for nothing.
                covered += if plan.segments.is_empty() { 0 } else { segment.bytes };
                plan.segments.push(segment.clone());
            }
        }
        plan.tail = tail.collect(from, limit, max_bytes, at_least_one);
        plan
    }

    /// Less than it was planned for.
    pub fn limit_to(&mut self, max_bytes: usize, at_least_one: bool) {
        self.max_bytes = self.max_bytes.min(max_bytes);
        self.at_least_one &= at_least_one;
        if self.max_bytes == 0 && !self.at_least_one {
            self.segments.clear();
            self.tail.clear();
        }
        if self.segments.is_empty() {
            let mut left = self.max_bytes;
            let first_is_free = self.at_least_one;
            let fitting = self.tail.iter().enumerate().take_while(|(nth, piece)| {
                let fits = piece.len() <= left || (*nth == 0 && first_is_free);
                left = left.saturating_sub(piece.len());
                fits
            });
            let fitting = fitting.count();
            self.tail.truncate(fitting);
        }
    }

    /// Reads. Fewer bytes than there are may come, but the first batch where it is asked for.
    ///
    /// # Errors
    ///
    /// Nothing sound could be read before the disk failed, or before damage.
    pub async fn execute(self, deadline: Deadline) -> Result<Vec<Bytes>, ReadFailure> {
        if self.segments.is_empty() {
            return Ok(self.tail);
        }
        let mut out = Out { pieces: Vec::new(), left: self.max_bytes };
        let mut next = self.from;
        for segment in &self.segments {
            match self.read_segment(segment, &mut next, &mut out, deadline).await {
                Ok(Gone::On | Gone::Cut) => {}
                Ok(Gone::Done) => return Ok(out.pieces),
                // What is sound is served first; the next read begins at the damage and says so.
                Err(_) if !out.pieces.is_empty() => return Ok(out.pieces),
                Err(failure) => return Err(failure),
            }
        }
        if next >= self.tail_start {
            for piece in self.tail {
                if piece.len() > out.left && (!self.at_least_one || !out.pieces.is_empty()) {
                    break;
                }
                out.push(piece);
            }
        }
        Ok(out.pieces)
    }

    async fn read_segment(
        &self,
        segment: &Segment<F>,
        next: &mut Offset,
        out: &mut Out,
        deadline: Deadline,
    ) -> Result<Gone, ReadFailure> {
        let (position, at) = segment.position_before(*next);
        match self.read_from(segment, position, at, next, out, deadline).await {
            // An index point from an earlier life of the file: the file itself tells.
            Err(ReadFailure::Damaged(damage)) if damage.is_misled_at(position) => {
                self.read_from(segment, 0, segment.base, next, out, deadline).await
            }
            done => done,
        }
    }

    /// Reads on from `position`, where the batch of offset `at` begins.
    async fn read_from(
        &self,
        segment: &Segment<F>,
        mut position: u64,
        mut at: Offset,
        next: &mut Offset,
        out: &mut Out,
        deadline: Deadline,
    ) -> Result<Gone, ReadFailure> {
        let mut wanted = (out.left + READ_BYTES_MIN).min(READ_BYTES_MAX);
        while position < segment.bytes {
            let damaged = |damage, position, at| damage_at(segment.file.path(), position, at, damage);
            let len = (segment.bytes - position).min(wanted as u64) as usize;
            let buffer = segment.file.read_at(position, len, deadline).await?;
            let mut used = 0;
            let mut run = None;
            let mut gone = Gone::On;
            let mut damage = None;
            loop {
                let rest = &buffer[used..];
                let header = match whole_batch(rest, at) {
                    Ok(header) => header,
                    Err(Missing::More(bytes)) => {
                        let available = segment.bytes - position - used as u64;
                        if bytes as u64 > available && available > 0 {
                            damage = Some(damaged(Damage::Short, position + used as u64, at));
                        }
                        wanted = bytes.max(READ_BYTES_MIN);
                        break;
                    }
                    Err(Missing::Damaged(what)) => {
                        damage = Some(damaged(what, position + used as u64, at));
                        break;
                    }
                };
                if header.end() > self.limit {
                    gone = Gone::Done;
                    break;
                }
                if header.end() > segment.end() {
                    // It was cut there.
                    gone = Gone::Cut;
                    break;
                }
                if header.end() > *next {
                    let begin = *run.get_or_insert(used);
                    let taken = used + header.bytes - begin;
                    if taken > out.left && (!self.at_least_one || !out.pieces.is_empty() || used > begin) {
                        gone = Gone::Done;
                        break;
                    }
                    if let Err(what) = batch::verify(&rest[..header.bytes]) {
                        damage = Some(damaged(what, position + used as u64, at));
                        break;
                    }
                    *next = header.end();
                }
                used += header.bytes;
                at = header.end();
            }
            if used == 0 && buffer.len() < len && damage.is_none() {
                damage = Some(damaged(Damage::Short, position, at));
            }
            if let Some(begin) = run.filter(|begin| *begin < used) {
                // What is kept of a buffer is most of it, or a copy: who holds it is charged for its length.
                out.push(match (used - begin) * 2 < buffer.len() {
                    true => Bytes::copy_from_slice(&buffer[begin..used]),
                    false => buffer.slice(begin..used),
                });
            }
            if let Some(damage) = damage {
                return Err(damage.into());
            }
            if gone == Gone::Done || (out.left == 0 && !out.pieces.is_empty()) {
                return Ok(Gone::Done);
            }
            if gone == Gone::Cut {
                return Ok(Gone::Cut);
            }
            position += used as u64;
        }
        Ok(Gone::On)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// To the end of the segment.
    On,
    /// To where the segment was cut.
    Cut,
    Done,
}

enum Missing {
    /// So many bytes must be there.
    More(usize),
    Damaged(Damage),
}

/// The header of the batch that `bytes` begin with, if all of it is there and it is the one of offset `at`.
fn whole_batch(bytes: &[u8], at: Offset) -> Result<BatchHeader, Missing> {
    if bytes.len() < HEADER_BYTES {
        return Err(Missing::More(HEADER_BYTES));
    }
    let header = BatchHeader::read(bytes).map_err(Missing::Damaged)?;
    if header.base_offset != at {
        return Err(Missing::Damaged(Damage::Offset { expected: at, found: header.base_offset }));
    }
    if header.bytes > bytes.len() { Err(Missing::More(header.bytes)) } else { Ok(header) }
}

struct Out {
    pieces: Vec<Bytes>,
    left: usize,
}

impl Out {
    fn push(&mut self, piece: Bytes) {
        self.left = self.left.saturating_sub(piece.len());
        self.pieces.push(piece);
    }
}

/// Why a read from segments gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadFailure {
    /// The disk failed, or did not answer within the deadline.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Below the high watermark there is something that was never written there.
    #[error("{0}; it is not served. Restore the file from a copy, or delete the records up to there")]
    Damaged(#[from] SegmentDamage),
}
