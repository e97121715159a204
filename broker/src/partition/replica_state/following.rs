//! A replica that follows: it takes what the leader has, at the offsets the leader gave, and lets go of what the leader has not.
//!
//! What was fetched goes through the same journal as what is appended, so that a follower's disk works as a leader's does.
//! How far it is synced is what [`ReplicaState::synced`] says; a truncation lowers that when it is decided, and entries that
//! were in flight before it and lie behind it do not raise it again.

use bytes::Bytes;

use super::{Answers, Fetched, Leadership, ReplicaState, What};
use crate::ids::{LeaderEpoch, Lsn, Offset, PartitionId, ProducerId};
use crate::log::batch::{BatchHeader, Batches, Damage, verify};
use crate::log::producers::RememberedBatch;
use crate::log::tail::Chunk;
use crate::partition::LeaderMarks;

/// Why what the leader gave is not taken. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// It was asked for under another epoch, or as another role: it is dropped.
    #[error("this node does not follow the leader of epoch {0}")]
    OtherEpoch(LeaderEpoch),
    /// It does not begin where this replica's log ends: another answer was in between. It is asked for again.
    #[error("records from offset {found} on, where {expected} was due")]
    NotNext { expected: Offset, found: Offset },
    /// The log is about to begin anew there, and takes nothing before that. It is asked for from there.
    #[error(
        "this replica's log ends before the leader's begins: it begins anew at {0} as soon as the journal has that"
    )]
    BeginsAnew(Offset),
    /// A batch was damaged on its way.
    #[error("a batch of the leader's is damaged: {0}")]
    Damaged(#[from] Damage),
    /// What the leader does not have was committed: somebody has lost records. The replica keeps what it has.
    #[error(
        "the leader of {partition} in epoch {epoch} has nothing from offset {to} on, and records up to {committed} were \
         acknowledged: this replica keeps them and does not follow. If they are to be given up, move its directory away"
    )]
    Committed { partition: PartitionId, epoch: LeaderEpoch, to: Offset, committed: Offset },
}

impl<T> ReplicaState<T> {
    /// Another broker leads under `epoch`, and this replica follows it. Whoever waited for records that this replica
    /// appended as a leader is told that nobody knows. An epoch that is over changes nothing.
    pub fn handle_follow(&mut self, epoch: LeaderEpoch, answers: &mut Answers<T>) {
        let is_over = match self.leadership {
            Leadership::No => false,
            Leadership::Following(current)
            | Leadership::Pending(current)
            | Leadership::Starting(current)
            | Leadership::Leading(current) => current >= epoch,
        };
        if is_over {
            return;
        }
        self.resign(answers);
        self.leadership = Leadership::Following(epoch);
        self.of_leader = LeaderMarks { high_watermark: self.high_watermark, ..LeaderMarks::default() };
        self.check_invariants();
    }

    /// The epoch of the last record, and where the log ends: what a follower asks with. The epoch is none where there is no
    /// record, and one that began without a record since does not count.
    pub fn fetch_position(&self) -> (LeaderEpoch, Offset) {
        let last = Offset(self.log_end.0 - 1);
        let epoch = if last < self.log_start { LeaderEpoch::NONE } else { self.epochs.of(last) };
        (epoch, self.log_end)
    }

    /// Whether the log of a follower that ends at `offset` with a record of `epoch` is a beginning of this one. If not: the
    /// largest epoch here that is not above, and where it ends here; the follower truncates by it and asks again.
    pub fn diverging(&self, epoch: LeaderEpoch, offset: Offset) -> Option<(LeaderEpoch, Offset)> {
        if epoch == LeaderEpoch::NONE {
            return None;
        }
        let latest = (self.epochs.latest(), self.log_end);
        let (known, end) = self.epochs.end_of(epoch, self.log_end).unwrap_or(latest);
        (known < epoch || end < offset).then_some((known, end))
    }

    /// Where the log is to be truncated when the leader has said that its `epoch` ends at `end`: always between two batches.
    /// One epoch has the same batches everywhere. Where this log has not that epoch but an older one, all of the older one
    /// stays, to be asked about next: the leader may have it, and it may be committed.
    fn truncation_for(&self, epoch: LeaderEpoch, end: Offset) -> Offset {
        match self.epochs.end_of(epoch, self.log_end) {
            Some((own, own_end)) if own == epoch => own_end.min(end),
            Some((_, own_end)) => own_end,
            None => self.log_end,
        }
    }

    /// The leader of `epoch` was asked from `asked`, a [fetch position](Self::fetch_position), and that is not in its log,
    /// where the epoch `of` ends at `end`: what the leader has not goes.
    ///
    /// # Errors
    ///
    /// Another epoch has begun, this log has changed since, or what would go was committed. Nothing was changed.
    pub fn handle_diverging(
        &mut self,
        epoch: LeaderEpoch,
        asked: (LeaderEpoch, Offset),
        (of, end): (LeaderEpoch, Offset),
        answers: &mut Answers<T>,
    ) -> Result<(), FollowError> {
        self.follows(epoch)?;
        self.is_as_it_stays()?;
        if self.fetch_position() != asked || !self.fetched.is_empty() {
            return Err(FollowError::NotNext { expected: self.log_end, found: asked.1 });
        }
        let to = self.truncation_for(of, end);
        if to < self.high_watermark {
            let (partition, committed) = (self.id, self.high_watermark);
            return Err(FollowError::Committed { partition, epoch, to, committed });
        }
        if to < self.log_end {
            let durable = to < self.synced;
            let to = self.cut_to(to);
            self.truncate_pending = true;
            self.cut_pending = true;
            self.cut_refused = false;
            if durable {
                answers.cut = Some(answers.cut.map_or(to, |other: Offset| other.min(to)));
            }
        }
        self.check_invariants();
        Ok(())
    }

    /// What the leader of `epoch` gave, in answer to a fetch from this replica's log end, and what it says of its log. Returns where
    /// the log will end.
    ///
    /// # Errors
    ///
    /// Nothing was taken.
    pub fn handle_fetched(
        &mut self,
        epoch: LeaderEpoch,
        bytes: Bytes,
        marks: LeaderMarks,
        answers: &mut Answers<T>,
    ) -> Result<Offset, FollowError> {
        self.follows(epoch)?;
        self.is_as_it_stays()?;
        let base = self.fetched.back().map_or(self.log_end, |last| last.end);
        let mut end = base;
        for batch in Batches::new(&bytes) {
            let (at, header) = batch?;
            if header.base_offset != end {
                return Err(FollowError::NotNext { expected: end, found: header.base_offset });
            }
            verify(&bytes[at..at + header.bytes])?;
            end = header.end();
        }
        self.cut_refused = false;
        self.fetched.extend(pieces(&bytes, base, self.entry_bytes_max));
        let LeaderMarks { high_watermark, log_start, held_by_all } = marks;
        self.of_leader = LeaderMarks {
            high_watermark: self.of_leader.high_watermark.max(high_watermark),
            log_start: self.of_leader.log_start.max(log_start),
            held_by_all,
        };
        self.advance(answers);
        self.check_invariants();
        Ok(end)
    }

    pub(super) fn follows(&self, epoch: LeaderEpoch) -> Result<(), FollowError> {
        match self.leadership {
            Leadership::Following(current) if current == epoch => Ok(()),
            _ => Err(FollowError::OtherEpoch(epoch)),
        }
    }

    /// What was fetched, as entries for the journal, as much as one submission takes.
    pub(super) fn stage_fetched(&mut self) -> Vec<(What, Option<Chunk>)> {
        let mut entries = Vec::new();
        let mut taken = 0;
        if self.fetched.front().is_some() {
            self.void_in_flight_from(self.log_end);
        }
        while let Some(next) = self.fetched.front()
            && (taken == 0 || taken + next.bytes.len() <= self.submit_bytes_max)
            && let Some(Fetched { base, end, bytes, max_timestamp }) = self.fetched.pop_front()
        {
            taken += bytes.len();
            for header in Batches::new(&bytes).map_while(Result::ok).map(|(_, header)| header) {
                self.take_over(&header);
            }
            self.log_end = end;
            let chunk = Chunk { lsn: Lsn(0), base, end, bytes, max_timestamp };
            entries.push((What::Batch { end }, Some(chunk)));
        }
        entries
    }

    /// What was staged of it was not taken: all is as it was before. It is tried again, or dropped, to be fetched again.
    pub(super) fn unstage_fetched(&mut self, base: Offset, entries: Vec<(What, Option<Chunk>)>, again: bool) {
        let chunks: Vec<Chunk> = entries.into_iter().filter_map(|(_, chunk)| chunk).collect();
        if chunks.is_empty() {
            return;
        }
        self.producers.roll_back(base);
        self.epochs.truncate_without_empty(base);
        if !again {
            return self.fetched.clear();
        }
        for chunk in chunks.into_iter().rev() {
            for piece in pieces(&chunk.bytes, chunk.base, self.entry_bytes_max).into_iter().rev() {
                self.fetched.push_front(piece);
            }
        }
    }

    /// Bytes of the next submission, of what was fetched.
    pub(super) fn fetched_bytes(&self) -> usize {
        let all: usize = self.fetched.iter().map(|fetched| fetched.bytes.len()).sum();
        all.min(self.submit_bytes_max)
    }

    /// What a batch that has its offsets says of epochs and producers, whoever gave them.
    pub(super) fn take_over(&mut self, header: &BatchHeader) {
        // An epoch that was granted here, and begun, and got no record before another leader's came.
        self.epochs.truncate_without_empty(header.base_offset);
        if header.leader_epoch > self.epochs.latest() {
            self.epochs.begin(header.leader_epoch, header.base_offset);
        }
        if header.producer_id >= ProducerId(0) {
            let remembered = RememberedBatch::of(header);
            // What is not committed may be truncated.
            self.producers.remember(header.producer_id, remembered, self.high_watermark, None);
        }
    }
}

/// Sound batches from `base` on, as pieces of at most so many bytes, or of one batch.
fn pieces(bytes: &Bytes, base: Offset, bytes_max: usize) -> Vec<Fetched> {
    let mut pieces: Vec<Fetched> = Vec::new();
    let mut from = 0;
    let mut open = Fetched { base, end: base, bytes: Bytes::new(), max_timestamp: -1 };
    for (at, header) in Batches::new(bytes).map_while(Result::ok) {
        if at > from && at + header.bytes - from > bytes_max {
            let next = Fetched { base: open.end, end: open.end, bytes: Bytes::new(), max_timestamp: -1 };
            pieces.push(Fetched { bytes: bytes.slice(from..at), ..std::mem::replace(&mut open, next) });
            from = at;
        }
        open.end = header.end();
        open.max_timestamp = open.max_timestamp.max(header.max_timestamp);
    }
    if from < bytes.len() {
        pieces.push(Fetched { bytes: bytes.slice(from..), ..open });
    }
    pieces
}
