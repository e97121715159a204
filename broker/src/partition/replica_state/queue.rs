//! From the line to the journal: which appends are taken, which offsets they get, and what becomes of
//! them when the journal takes or refuses them.

use bytes::{Bytes, BytesMut};
use io_backend::{Deadline, Moment};

use super::{Answers, Append, EntryInFlight, Leadership, Now, ReplicaState, Staged, Waiting, What};
use crate::ids::{LeaderEpoch, Lsn, Offset};
use crate::journal::{EntryKind, JournalEntry, SubmitError};
use crate::limits;
use crate::log::batch;
use crate::log::batch::CheckedBatch;
use crate::log::producers::{RememberedBatch, SequenceError, Sequenced, sequence_after};
use crate::log::tail::Chunk;
use crate::metrics::Volume;
use crate::partition::{Acks, AppendError, Appended};

/// What follows a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Whoever waited for it has been told.
    Told,
    /// Wait for room, then stage again.
    Full,
    /// Stage again at once: it will be less.
    TooMuch,
}

impl<T> ReplicaState<T> {
    /// Puts an append behind those that wait.
    pub fn enqueue(&mut self, append: Append<T>) {
        self.queued.push_back(append);
    }

    /// Whether something is to be submitted.
    pub fn has_queued(&self) -> bool {
        let is_next = match self.anew {
            Some(_) => self.anew_to_submit().is_some(),
            None => !self.fetched.is_empty() || self.control_pending(),
        };
        is_next || !self.queued.is_empty()
    }

    fn control_pending(&self) -> bool {
        matches!(self.leadership, Leadership::Pending(_))
            || self.log_start_pending.is_some()
            || self.cut_to_submit()
    }

    /// A truncation of what may be durable waits for nothing else.
    fn cut_to_submit(&self) -> bool {
        self.anew.is_none() && self.cut_pending && self.truncate_pending && !self.cut_refused
    }

    /// What the journal must have room for, and until when the first in the queue can wait.
    pub fn queue_wants(&self, otherwise: Deadline) -> (usize, Deadline) {
        let bytes = self.next_submission_bytes();
        let deadlines = self.queued.iter().map(|append| append.deadline);
        (bytes, deadlines.fold(otherwise, Deadline::earlier))
    }

    fn next_submission_bytes(&self) -> usize {
        let mut bytes = self.fetched_bytes();
        for append in &self.queued {
            let more = bytes + append.bytes();
            if bytes > 0 && more > self.submit_bytes_max {
                break;
            }
            bytes = more;
        }
        bytes
    }

    /// Gives offsets to what is queued, as much as one submission takes, and returns the entries to
    /// submit. Their fate must be told before the next call. `None`: nothing is to be submitted now.
    pub fn stage(&mut self, now: Now, answers: &mut Answers<T>) -> Option<Vec<JournalEntry>> {
        assert!(self.staged.is_none(), "the fate of the last submission is not known yet");
        self.expire(now.moment, answers);
        self.refuse_expired(now.moment, answers);
        let mut staged = Staged { base: self.log_end, entries: Vec::new(), appends: Vec::new() };
        let mut open = Open::new(self.log_end, self.next_submission_bytes());
        let mut bytes = 0;
        let is_as_it_stays = self.anew.is_none();
        let log_start = self.log_start_pending.filter(|_| is_as_it_stays);
        if let Some(at) = self.anew_to_submit() {
            staged.entries.push((What::TruncateFully { at }, None));
        }
        if let Leadership::Pending(epoch) = self.leadership
            && is_as_it_stays
        {
            staged.entries.push((What::EpochStart { epoch, start: self.log_end }, None));
        }
        if let Some(start) = log_start {
            // By itself: the journal takes it where it takes no records, as on a full disk, which it may relieve.
            staged.entries.push((What::LogStart { start }, None));
        }
        while log_start.is_none()
            && let Some(append) = self.queued.pop_front()
        {
            let size = append.bytes();
            if bytes > 0 && bytes + size > self.submit_bytes_max {
                self.queued.push_front(append);
                break;
            }
            if let Some(refusal) = self.refusal(append.acks, size) {
                self.refuse(append, refusal, now.moment, answers);
                continue;
            }
            if !open.bytes.is_empty() && open.bytes.len() + size > self.entry_bytes_max {
                staged.entries.extend(open.close(self.log_end));
            }
            match self.number(&append, &mut open, now) {
                Ok((answer, end)) => {
                    bytes += size;
                    if self.in_sync.is_below_min() {
                        self.below_min_bytes += size;
                    }
                    staged.appends.push((append, answer, end));
                }
                Err(error) => answers.appends.push((append.ticket, Err(error))),
            }
        }
        staged.entries.extend(open.close(self.log_end));
        if is_as_it_stays && log_start.is_none() && matches!(self.leadership, Leadership::Following(_)) {
            staged.entries.extend(self.stage_fetched());
        }
        if staged.entries.is_empty() && !self.cut_to_submit() {
            // Nothing but repeats of what is there: they wait for their originals.
            for (append, answer, end) in staged.appends {
                self.wait(append, answer, end, answers);
            }
            return None;
        }
        if self.truncate_pending && is_as_it_stays {
            staged.entries.insert(0, (What::Truncate, None));
        }
        let entries =
            staged.entries.iter().map(|(what, chunk)| self.entry(*what, chunk, staged.base)).collect();
        self.staged = Some(staged);
        Some(entries)
    }

    fn refusal(&self, acks: Acks, bytes: usize) -> Option<AppendError> {
        if !matches!(self.leadership, Leadership::Leading(_)) {
            return Some(AppendError::NotLeader(self.id));
        }
        let is_full = self.below_min_bytes + bytes > limits::UNCOMMITTED_BYTES_MAX;
        if self.in_sync.is_below_min() && (acks == Acks::All || is_full) {
            return Some(AppendError::NotEnoughReplicas);
        }
        (bytes + 4096 > limits::JOURNAL_ENTRY_BYTES_MAX)
            .then_some(AppendError::Storage(SubmitError::TooLarge(bytes)))
    }

    /// Nothing of it was written.
    fn refuse(&mut self, append: Append<T>, why: AppendError, now: Moment, answers: &mut Answers<T>) {
        for stamp in append.batches.iter().filter_map(|batch| batch.producer) {
            self.producers.refused(stamp, now);
        }
        answers.appends.push((append.ticket, Err(why)));
    }

    /// Whoever is queued past its deadline, wherever: the next of all deadlines is what is waited for, and one that has
    /// passed would be waited for again and again.
    fn refuse_expired(&mut self, now: Moment, answers: &mut Answers<T>) {
        let past = |append: &Append<T>| matches!(append.deadline, Deadline::At(at) if at <= now);
        if !self.queued.iter().any(past) {
            return;
        }
        for append in std::mem::take(&mut self.queued) {
            if past(&append) {
                self.refuse(append, AppendError::Overloaded, now, answers);
            } else {
                self.queued.push_back(append);
            }
        }
    }

    /// Gives one append its offsets: all of its batches or none.
    fn number(
        &mut self,
        append: &Append<T>,
        open: &mut Open,
        now: Now,
    ) -> Result<(Appended, Offset), AppendError> {
        let Leadership::Leading(epoch) = self.leadership else {
            return Err(AppendError::NotLeader(self.id));
        };
        let before = (self.log_end, open.bytes.len(), open.max_timestamp);
        let append_time_ms = if self.log_append_time { now.wall_ms } else { -1 };
        let mut answer = Appended {
            base_offset: self.log_end,
            log_start: self.log_start,
            log_append_time_ms: append_time_ms,
            duplicate: false,
        };
        let mut end = self.log_end;
        for (nth, sent) in append.batches.iter().enumerate() {
            let sequenced = match sent.producer {
                // Where the log has begun anew the refused one may have come to another leader, and be deleted.
                Some(stamp)
                    if sent.behind_refused_first
                        && !self.began_anew
                        && !self.producers.knows(stamp.id, now.moment) =>
                {
                    let found = stamp.base_sequence;
                    Err(SequenceError::OutOfOrder { producer: stamp.id, expected: 0, found })
                }
                Some(stamp) => self.producers.check(stamp, sent.last_offset_delta, now.moment),
                None => Ok(Sequenced::Next),
            };
            match sequenced {
                Ok(Sequenced::Next) => {
                    end = self.take(sent, epoch, append_time_ms, now.moment, open);
                }
                Ok(Sequenced::Duplicate(original)) => {
                    if nth == 0 {
                        answer.base_offset = original.base_offset;
                        answer.log_append_time_ms = original.append_time_ms;
                        answer.duplicate = true;
                        end = original.end;
                    }
                    end = end.max(original.end);
                }
                Err(error) => {
                    self.log_end = before.0;
                    open.bytes.truncate(before.1);
                    open.max_timestamp = before.2;
                    self.roll_back_producers(&append.batches, before.0);
                    return Err(error.into());
                }
            }
        }
        Ok((answer, end))
    }

    /// Gives one batch its offsets; returns where it ends.
    fn take(
        &mut self,
        sent: &CheckedBatch,
        epoch: LeaderEpoch,
        append_time_ms: i64,
        now: Moment,
        open: &mut Open,
    ) -> Offset {
        let base = self.log_end;
        let end = base.plus(i64::from(sent.last_offset_delta) + 1);
        if self.log_append_time {
            batch::stamp_append_time(&mut open.bytes, &sent.bytes, base, epoch, append_time_ms);
            open.max_timestamp = open.max_timestamp.max(append_time_ms);
        } else {
            batch::stamp(&mut open.bytes, &sent.bytes, base, epoch);
            open.max_timestamp = open.max_timestamp.max(sent.max_timestamp);
        }
        if let Some(stamp) = sent.producer {
            let remembered = RememberedBatch {
                epoch: stamp.epoch,
                base_sequence: stamp.base_sequence,
                last_sequence: sequence_after(stamp.base_sequence, sent.last_offset_delta),
                base_offset: base,
                end,
                append_time_ms,
            };
            self.producers.remember(stamp.id, remembered, self.high_watermark, Some(now));
        }
        self.log_end = end;
        end
    }

    fn roll_back_producers(&mut self, batches: &[CheckedBatch], to: Offset) {
        for stamp in batches.iter().filter_map(|batch| batch.producer) {
            self.producers.roll_back_one(stamp.id, to);
        }
    }

    fn entry(&self, what: What, chunk: &Option<Chunk>, log_end: Offset) -> JournalEntry {
        let (kind, leader_epoch, base_offset) = match what {
            What::Batch { .. } => (EntryKind::Batch, self.view().leader_epoch, Offset::ZERO),
            What::EpochStart { epoch, start } => (EntryKind::EpochStart, epoch, start),
            What::LogStart { start } => (EntryKind::LogStart, self.epochs.latest(), start),
            What::Truncate => (EntryKind::Truncate, self.epochs.latest(), log_end),
            What::TruncateFully { at } => (EntryKind::TruncateFully, self.epochs.latest(), at),
            What::Void => unreachable!("only what is in flight is truncated on its way"),
        };
        JournalEntry {
            kind,
            partition: self.id,
            replica: self.replica,
            leader_epoch,
            base_offset: chunk.as_ref().map_or(base_offset, |chunk| chunk.base),
            payload: chunk.as_ref().map_or_else(Bytes::new, |chunk| chunk.bytes.clone()),
        }
    }

    /// The journal has taken what [`Self::stage`] returned; its entries have consecutive LSNs up to `last`.
    pub fn handle_submitted(&mut self, last: Lsn, answers: &mut Answers<T>) {
        let staged = self.staged.take().expect("what the journal took was staged");
        let first = last.0 + 1 - staged.entries.len() as u64;
        for (lsn, (what, chunk)) in (first..).zip(staged.entries) {
            if let Some(chunk) = chunk {
                self.tail.push(Chunk { lsn: Lsn(lsn), ..chunk });
            }
            match what {
                What::EpochStart { epoch, .. } => self.leadership = Leadership::Starting(epoch),
                What::LogStart { .. } => self.log_start_pending = None,
                What::Truncate | What::TruncateFully { .. } => self.truncate_pending = false,
                What::Batch { .. } | What::Void => {}
            }
            self.in_flight.push_back(EntryInFlight { lsn: Lsn(lsn), what });
        }
        for (append, answer, end) in staged.appends {
            if !answer.duplicate {
                let records =
                    append.batches.iter().map(|batch| u64::from(batch.records.unsigned_abs())).sum();
                answers.taken.add(Volume { records, bytes: append.bytes() as u64 });
            }
            self.wait(append, answer, end, answers);
        }
        self.check_invariants();
    }

    /// The journal took nothing.
    pub fn handle_refused(&mut self, error: SubmitError, answers: &mut Answers<T>) -> Refused {
        let staged = self.staged.take().expect("what the journal refused was staged");
        self.log_end = staged.base;
        let follows = matches!(self.leadership, Leadership::Following(_));
        for (append, ..) in &staged.appends {
            for stamp in append.batches.iter().filter_map(|batch| batch.producer) {
                self.producers.roll_back_one(stamp.id, staged.base);
            }
        }
        let again = match error {
            SubmitError::Full | SubmitError::ShareExhausted => Some(Refused::Full),
            // A small journal: what came together goes in smaller parts from now on.
            SubmitError::TooLarge(_) if staged.appends.len() > 1 => {
                let bytes: usize = staged.appends.iter().map(|(append, ..)| append.bytes()).sum();
                self.submit_bytes_max = bytes / 2;
                self.entry_bytes_max = self.entry_bytes_max.min(bytes / 2);
                Some(Refused::TooMuch)
            }
            SubmitError::TooLarge(_)
                if follows && self.entry_bytes_max > limits::PARTITION_ENTRY_BYTES_MIN =>
            {
                self.entry_bytes_max = (self.entry_bytes_max / 2).max(limits::PARTITION_ENTRY_BYTES_MIN);
                self.submit_bytes_max = self.entry_bytes_max;
                Some(Refused::TooMuch)
            }
            _ => None,
        };
        if follows {
            self.unstage_fetched(staged.base, staged.entries, again.is_some());
            if again.is_none() {
                answers.not_taken = Some(error);
            }
        }
        self.cut_refused |= again.is_none() && (follows || self.anew.is_some());
        if let Some(again) = again {
            for (append, ..) in staged.appends.into_iter().rev() {
                self.queued.push_front(append);
            }
            self.check_invariants();
            return again;
        }
        for (append, ..) in staged.appends {
            answers.appends.push((append.ticket, Err(AppendError::Storage(error))));
        }
        if let Leadership::Pending(epoch) = self.leadership {
            self.leadership = Leadership::No;
            answers.led.push((epoch, Err(AppendError::Storage(error))));
        }
        if self.log_start_pending.take().is_some() {
            answers.start_stays = Some(AppendError::Storage(error));
        }
        self.check_invariants();
        Refused::Told
    }

    fn wait(&mut self, append: Append<T>, answer: Appended, end: Offset, answers: &mut Answers<T>) {
        let (waiting, reached) = match append.acks {
            Acks::None => {
                answers.appends.push((append.ticket, Ok(answer)));
                return;
            }
            Acks::Leader => (&mut self.for_sync, self.synced),
            Acks::All => (&mut self.for_all, self.high_watermark),
        };
        if end <= reached {
            answers.appends.push((append.ticket, Ok(answer)));
            return;
        }
        let place = match waiting.back() {
            Some(last) if last.end > end => waiting.partition_point(|other| other.end <= end),
            _ => waiting.len(),
        };
        waiting.insert(place, Waiting { end, deadline: append.deadline, answer, ticket: append.ticket });
    }

    /// Nobody waits any more for what is past its deadline: what became of it is not known.
    fn expire(&mut self, now: Moment, answers: &mut Answers<T>) {
        let past = |waiting: &Waiting<T>| matches!(waiting.deadline, Deadline::At(at) if at <= now);
        for waiting in [&mut self.for_sync, &mut self.for_all] {
            if !waiting.front().is_some_and(past) {
                continue;
            }
            for one in std::mem::take(waiting) {
                if past(&one) {
                    answers.appends.push((one.ticket, Err(AppendError::Unknown)));
                } else {
                    waiting.push_back(one);
                }
            }
        }
    }
}

/// The journal entry being filled.
struct Open {
    base: Offset,
    bytes: BytesMut,
    max_timestamp: i64,
}

impl Open {
    fn new(base: Offset, expected_bytes: usize) -> Open {
        Open { base, bytes: BytesMut::with_capacity(expected_bytes), max_timestamp: -1 }
    }

    /// What is in it, as an entry; the next one begins at `end`.
    fn close(&mut self, end: Offset) -> Option<(What, Option<Chunk>)> {
        if self.bytes.is_empty() {
            return None;
        }
        let chunk = Chunk {
            lsn: Lsn(0),
            base: self.base,
            end,
            bytes: self.bytes.split().freeze(),
            max_timestamp: self.max_timestamp,
        };
        self.base = end;
        self.max_timestamp = -1;
        Some((What::Batch { end }, Some(chunk)))
    }
}
