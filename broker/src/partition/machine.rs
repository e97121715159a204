//! One replica of a partition as a pure state machine: offsets, leadership, durability, acknowledgement.
//!
//! No I/O, no waiting, no clock. The driver puts appends in the [`Machine::line`], takes journal
//! entries from [`Machine::stage`], tells what became of them ([`Machine::handle_submitted`],
//! [`Machine::handle_refused`]) and how far the journal is durable ([`Machine::handle_progress`]).
//!
//! Invariants: an append is answered `Ok` only when what its `acks` asks for is synced; one that was
//! submitted is never answered as "not written"; offsets, epochs and producer state hold exactly what
//! is durable or in flight, so what fails is rolled back everywhere at once. After a failure the next
//! submission begins with a truncation, so that nothing of what failed can come back at a restart.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use io_backend::{Deadline, Moment};

use super::epochs::EpochHistory;
use super::producers::{Producers, RememberedBatch, Sequenced, sequence_after};
use super::{Acks, AppendError, Appended, CheckedBatch, PartitionView};
use crate::ids::{BrokerId, Incarnation, LeaderEpoch, Lsn, Offset, PartitionId, ProducerId};
use crate::journal::{EntryKind, JournalEntry, SubmitError};
use crate::limits;
use crate::log::batch;
use crate::log::tail::{Chunk, Tail};

/// An append as it waits in line. `T` is what its answer is given to.
#[derive(Debug)]
pub struct Append<T> {
    pub batches: Vec<CheckedBatch>,
    pub acks: Acks,
    pub deadline: Deadline,
    pub ticket: T,
}

impl<T> Append<T> {
    fn bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.bytes.len()).sum()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub moment: Moment,
    pub wall_ms: i64,
}

/// What callers are to be told.
#[derive(Debug)]
pub struct Answers<T> {
    pub appends: Vec<(T, Result<Appended, AppendError>)>,
    pub led: Vec<(LeaderEpoch, Result<(), AppendError>)>,
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Answers { appends: Vec::new(), led: Vec::new() }
    }
}

/// What a replica starts from: its last checkpoint, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Foundation {
    pub log_start: Offset,
    pub log_end: Offset,
    pub lsn: Lsn,
    pub epochs: EpochHistory,
    pub producers: Producers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leadership {
    No,
    /// The epoch's start is to be submitted.
    Owed(LeaderEpoch),
    /// The epoch's start is in flight.
    Starting(LeaderEpoch),
    Leading(LeaderEpoch),
}

/// An entry that the journal has and that is not durable yet.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    lsn: Lsn,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Batch { end: Offset },
    EpochStart { epoch: LeaderEpoch, start: Offset },
    LogStart { start: Offset },
    Truncate,
}

/// An append that waits for its records to be synced, here or by all in sync.
#[derive(Debug)]
struct Waiting<T> {
    end: Offset,
    deadline: Deadline,
    answer: Appended,
    ticket: T,
}

/// What has been given offsets and is about to be submitted.
#[derive(Debug)]
struct Staged<T> {
    base: Offset,
    entries: Vec<(What, Option<Chunk>)>,
    appends: Vec<(Append<T>, Appended, Offset)>,
}

#[derive(Debug)]
pub struct Machine<T> {
    id: PartitionId,
    replica: Incarnation,
    log_append_time: bool,
    leadership: Leadership,
    epochs: EpochHistory,
    producers: Producers,
    log_start: Offset,
    /// After the last record that has an offset, durable or not.
    log_end: Offset,
    /// Everything before is durable here.
    synced: Offset,
    high_watermark: Offset,
    /// How far the others in sync have synced.
    followers: BTreeMap<BrokerId, Offset>,
    tail: Tail,
    line: VecDeque<Append<T>>,
    staged: Option<Staged<T>>,
    in_flight: VecDeque<InFlight>,
    /// The last entry of ours that is durable.
    durable: Lsn,
    for_sync: VecDeque<Waiting<T>>,
    for_all: VecDeque<Waiting<T>>,
    owes_truncate: bool,
    owed_log_start: Option<Offset>,
    /// What the journal takes at once, as far as it has told.
    submit_bytes_max: usize,
    entry_bytes_max: usize,
}

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

impl<T> Machine<T> {
    pub fn new(id: PartitionId, replica: Incarnation, log_append_time: bool, from: Foundation) -> Machine<T> {
        Machine {
            id,
            replica,
            log_append_time,
            leadership: Leadership::No,
            epochs: from.epochs,
            producers: from.producers,
            log_start: from.log_start,
            log_end: from.log_end,
            synced: from.log_end,
            high_watermark: from.log_end,
            followers: BTreeMap::new(),
            tail: Tail::default(),
            line: VecDeque::new(),
            staged: None,
            in_flight: VecDeque::new(),
            durable: from.lsn,
            for_sync: VecDeque::new(),
            for_all: VecDeque::new(),
            owes_truncate: false,
            owed_log_start: None,
            submit_bytes_max: limits::PARTITION_SUBMIT_BYTES,
            entry_bytes_max: limits::PARTITION_ENTRY_BYTES,
        }
    }

    pub fn view(&self) -> PartitionView {
        let (leading, leader_epoch) = match self.leadership {
            Leadership::Leading(epoch) => (true, epoch),
            _ => (false, self.epochs.latest()),
        };
        PartitionView {
            leading,
            leader_epoch,
            log_start: self.log_start,
            high_watermark: self.high_watermark,
            last_stable: self.high_watermark,
            log_end: self.log_end,
        }
    }

    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    pub fn epochs(&self) -> &EpochHistory {
        &self.epochs
    }

    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Everything before is durable here.
    pub fn synced(&self) -> Offset {
        self.synced
    }

    /// The last of our entries that is durable.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// The first of our entries that is not durable, if one is in flight.
    pub fn first_in_flight(&self) -> Option<Lsn> {
        self.in_flight.front().map(|entry| entry.lsn)
    }

    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// Segments hold, synced, everything before `upto`.
    pub fn handle_checkpointed(&mut self, upto: Offset) {
        self.tail.drop_before(upto);
    }

    pub fn enqueue(&mut self, append: Append<T>) {
        self.line.push_back(append);
    }

    /// Whether something is to be submitted.
    pub fn has_line(&self) -> bool {
        !self.line.is_empty() || self.owes_control()
    }

    fn owes_control(&self) -> bool {
        matches!(self.leadership, Leadership::Owed(_)) || self.owed_log_start.is_some()
    }

    /// What the journal must have room for, and until when the first in line can wait.
    pub fn line_wants(&self, otherwise: Deadline) -> (usize, Deadline) {
        let bytes = self.next_submission_bytes();
        let deadlines = self.line.iter().map(|append| append.deadline);
        (bytes, deadlines.fold(otherwise, Deadline::earlier))
    }

    fn next_submission_bytes(&self) -> usize {
        let mut bytes = 0;
        for append in &self.line {
            let more = bytes + append.bytes();
            if bytes > 0 && more > self.submit_bytes_max {
                break;
            }
            bytes = more;
        }
        bytes
    }

    /// Leadership under `epoch` was granted to this process.
    pub fn handle_lead(&mut self, epoch: LeaderEpoch, answers: &mut Answers<T>) {
        match self.leadership {
            Leadership::Leading(current) if current == epoch => answers.led.push((epoch, Ok(()))),
            Leadership::Owed(current) | Leadership::Starting(current) if current == epoch => {}
            Leadership::Owed(current) | Leadership::Starting(current) | Leadership::Leading(current)
                if current > epoch =>
            {
                answers.led.push((epoch, Err(AppendError::NotLeader(self.id))));
            }
            _ if self.epochs.latest() > epoch => {
                answers.led.push((epoch, Err(AppendError::NotLeader(self.id))));
            }
            before => {
                if let Leadership::Owed(old) | Leadership::Starting(old) = before {
                    answers.led.push((old, Err(AppendError::NotLeader(self.id))));
                }
                self.leadership = Leadership::Owed(epoch);
            }
        }
    }

    /// Another broker leads, or nobody: appends are refused from now on.
    pub fn handle_resign(&mut self, answers: &mut Answers<T>) {
        if let Leadership::Owed(epoch) | Leadership::Starting(epoch) = self.leadership {
            answers.led.push((epoch, Err(AppendError::NotLeader(self.id))));
        }
        self.leadership = Leadership::No;
    }

    /// Records before `start` are to be deleted; takes effect once that is durable.
    pub fn handle_log_start(&mut self, start: Offset) {
        if start > self.log_start && start <= self.high_watermark {
            self.owed_log_start = Some(self.owed_log_start.map_or(start, |owed| owed.max(start)));
        }
    }

    /// Gives offsets to what stands in line, as much as one submission takes, and returns the entries to
    /// submit. Their fate must be told before the next call. `None`: nothing is to be submitted now.
    pub fn stage(&mut self, now: Now, answers: &mut Answers<T>) -> Option<Vec<JournalEntry>> {
        assert!(self.staged.is_none(), "the fate of the last submission is not known yet");
        self.expire(now.moment, answers);
        let mut staged = Staged { base: self.log_end, entries: Vec::new(), appends: Vec::new() };
        let mut open = Open::new(self.log_end, self.next_submission_bytes());
        let mut bytes = 0;
        if let Leadership::Owed(epoch) = self.leadership {
            staged.entries.push((What::EpochStart { epoch, start: self.log_end }, None));
        }
        if let Some(start) = self.owed_log_start {
            staged.entries.push((What::LogStart { start }, None));
        }
        while let Some(append) = self.line.pop_front() {
            let size = append.bytes();
            if bytes > 0 && bytes + size > self.submit_bytes_max {
                self.line.push_front(append);
                break;
            }
            if let Some(refusal) = self.refusal(&append, size, now.moment) {
                answers.appends.push((append.ticket, Err(refusal)));
                continue;
            }
            if !open.bytes.is_empty() && open.bytes.len() + size > self.entry_bytes_max {
                staged.entries.extend(open.close(self.log_end));
            }
            match self.number(&append, &mut open, now.wall_ms) {
                Ok((answer, end)) => {
                    bytes += size;
                    staged.appends.push((append, answer, end));
                }
                Err(error) => answers.appends.push((append.ticket, Err(error))),
            }
        }
        staged.entries.extend(open.close(self.log_end));
        if staged.entries.is_empty() {
            // Nothing but repeats of what is there: they wait for their originals.
            for (append, answer, end) in staged.appends {
                self.wait(append, answer, end, answers);
            }
            return None;
        }
        if self.owes_truncate {
            staged.entries.insert(0, (What::Truncate, None));
        }
        let entries =
            staged.entries.iter().map(|(what, chunk)| self.entry(*what, chunk, staged.base)).collect();
        self.staged = Some(staged);
        Some(entries)
    }

    fn refusal(&self, append: &Append<T>, bytes: usize, now: Moment) -> Option<AppendError> {
        if !matches!(self.leadership, Leadership::Leading(_)) {
            return Some(AppendError::NotLeader(self.id));
        }
        if matches!(append.deadline, Deadline::At(at) if at <= now) {
            return Some(AppendError::Overloaded);
        }
        (bytes + 4096 > limits::JOURNAL_ENTRY_BYTES_MAX)
            .then_some(AppendError::Storage(SubmitError::TooLarge(bytes)))
    }

    /// Gives one append its offsets: all of its batches or none.
    fn number(
        &mut self,
        append: &Append<T>,
        open: &mut Open,
        wall_ms: i64,
    ) -> Result<(Appended, Offset), AppendError> {
        let Leadership::Leading(epoch) = self.leadership else {
            return Err(AppendError::NotLeader(self.id));
        };
        let before = (self.log_end, open.bytes.len(), open.max_timestamp);
        let append_time_ms = if self.log_append_time { wall_ms } else { -1 };
        let mut answer = Appended {
            base_offset: self.log_end,
            log_start: self.log_start,
            log_append_time_ms: append_time_ms,
            duplicate: false,
        };
        let mut end = self.log_end;
        for (nth, sent) in append.batches.iter().enumerate() {
            let sequenced = match sent.producer {
                Some(stamp) => self.producers.check(stamp, sent.last_offset_delta),
                None => Ok(Sequenced::Next),
            };
            match sequenced {
                Ok(Sequenced::Next) => {
                    end = self.take(sent, epoch, append_time_ms, open);
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
                    return Err(error);
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
            self.producers.remember(stamp.id, remembered, self.high_watermark);
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
        let Some(staged) = self.staged.take() else { return };
        let first = last.0 + 1 - staged.entries.len() as u64;
        for (lsn, (what, chunk)) in (first..).zip(staged.entries) {
            if let Some(chunk) = chunk {
                self.tail.push(Chunk { lsn: Lsn(lsn), ..chunk });
            }
            match what {
                What::EpochStart { epoch, .. } => self.leadership = Leadership::Starting(epoch),
                What::LogStart { .. } => self.owed_log_start = None,
                What::Truncate => self.owes_truncate = false,
                What::Batch { .. } => {}
            }
            self.in_flight.push_back(InFlight { lsn: Lsn(lsn), what });
        }
        for (append, answer, end) in staged.appends {
            self.wait(append, answer, end, answers);
        }
    }

    /// The journal took nothing.
    pub fn handle_refused(&mut self, error: SubmitError, answers: &mut Answers<T>) -> Refused {
        let Some(staged) = self.staged.take() else { return Refused::Told };
        self.log_end = staged.base;
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
            _ => None,
        };
        if let Some(again) = again {
            for (append, ..) in staged.appends.into_iter().rev() {
                self.line.push_front(append);
            }
            return again;
        }
        for (append, ..) in staged.appends {
            answers.appends.push((append.ticket, Err(AppendError::Storage(error))));
        }
        if let Leadership::Owed(epoch) = self.leadership {
            self.leadership = Leadership::No;
            answers.led.push((epoch, Err(AppendError::Storage(error))));
        }
        self.owed_log_start = None;
        Refused::Told
    }

    /// The journal is durable up to `reached`, and nothing of ours from `failed_from` on will ever be.
    pub fn handle_progress(&mut self, reached: Lsn, failed_from: Option<Lsn>, answers: &mut Answers<T>) {
        let survives = |entry: &InFlight| failed_from.is_none_or(|failed| entry.lsn < failed);
        while let Some(first) = self.in_flight.front().copied()
            && first.lsn <= reached
            && survives(&first)
        {
            self.in_flight.pop_front();
            self.durable = first.lsn;
            match first.what {
                What::Batch { end } => self.synced = end,
                What::EpochStart { epoch, start } => {
                    self.epochs.begin(epoch, start);
                    if self.leadership == Leadership::Starting(epoch) {
                        self.leadership = Leadership::Leading(epoch);
                        answers.led.push((epoch, Ok(())));
                    }
                }
                What::LogStart { start } => self.begin_log_at(start),
                What::Truncate => {}
            }
        }
        if self.in_flight.back().is_some_and(|last| !survives(last)) {
            let first_lost = self.in_flight.partition_point(survives);
            self.give_up_from(first_lost, answers);
        }
        self.advance(answers);
    }

    /// Entries in flight from the nth on are lost, or will be taken for lost.
    fn give_up_from(&mut self, nth: usize, answers: &mut Answers<T>) {
        for lost in self.in_flight.split_off(nth) {
            if let What::EpochStart { epoch, .. } = lost.what
                && self.leadership == Leadership::Starting(epoch)
            {
                self.leadership = Leadership::No;
                answers.led.push((epoch, Err(AppendError::Unknown)));
            }
        }
        let survivor = |entry: &InFlight| match entry.what {
            What::Batch { end } => Some(end),
            _ => None,
        };
        let end = self.in_flight.iter().rev().find_map(survivor).unwrap_or(self.synced);
        self.truncate(end);
        self.owes_truncate = true;
        for waiting in [&mut self.for_sync, &mut self.for_all] {
            let first_lost = waiting.partition_point(|one| one.end <= end);
            for lost in waiting.split_off(first_lost) {
                answers.appends.push((lost.ticket, Err(AppendError::Unknown)));
            }
        }
    }

    fn truncate(&mut self, end: Offset) {
        self.log_end = end;
        self.tail.truncate(end);
        self.producers.roll_back(end);
        self.epochs.truncate(end);
    }

    /// A follower has synced everything before `offset`; the first call puts it among those in sync.
    pub fn handle_follower_synced(&mut self, follower: BrokerId, offset: Offset, answers: &mut Answers<T>) {
        let known = self.followers.entry(follower).or_insert(offset);
        *known = offset.max(*known);
        self.advance(answers);
    }

    /// A follower has left those in sync.
    pub fn handle_follower_left(&mut self, follower: BrokerId, answers: &mut Answers<T>) {
        self.followers.remove(&follower);
        self.advance(answers);
    }

    /// The high watermark: what all in sync have synced. It never falls.
    fn advance(&mut self, answers: &mut Answers<T>) {
        let all = self.followers.values().copied().fold(self.synced, Offset::min);
        self.high_watermark = self.high_watermark.max(all);
        for (waiting, reached) in
            [(&mut self.for_sync, self.synced), (&mut self.for_all, self.high_watermark)]
        {
            let done = waiting.partition_point(|one| one.end <= reached);
            answers.appends.extend(waiting.drain(..done).map(|one| (one.ticket, Ok(one.answer))));
        }
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

    /// The owner ends: what was submitted is not known, what stood in line was never written.
    pub fn handle_close(&mut self, answers: &mut Answers<T>) {
        for waiting in self.for_sync.drain(..).chain(self.for_all.drain(..)) {
            answers.appends.push((waiting.ticket, Err(AppendError::Unknown)));
        }
        for append in self.line.drain(..) {
            answers.appends.push((append.ticket, Err(AppendError::Gone)));
        }
        self.handle_resign(answers);
    }

    fn begin_log_at(&mut self, start: Offset) {
        self.log_start = self.log_start.max(start);
        self.epochs.forget_before(self.log_start);
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

/// Why an entry of the journal cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("journal entry {lsn} of {partition}: {damage}")]
    Damaged { partition: PartitionId, lsn: Lsn, damage: batch::Damage },
    #[error(
        "journal entry {lsn} of {partition} begins at offset {found}, but what is known ends at {known}: entries in \
         between are missing. Restore the data directory from a copy"
    )]
    Gap { partition: PartitionId, lsn: Lsn, known: Offset, found: Offset },
    #[error("journal entry {lsn} cuts {partition} to {to:?}, before its checkpoint at {checkpoint:?}")]
    TruncateBeforeCheckpoint { partition: PartitionId, lsn: Lsn, to: Offset, checkpoint: Offset },
}

/// What replaying an entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    Applied,
    /// It was there already.
    Known,
}

impl<T> Machine<T> {
    /// Applies an entry that survived, in LSN order, before anything else happens.
    pub fn replay(
        &mut self,
        lsn: Lsn,
        entry: &JournalEntry,
        checkpoint: Offset,
    ) -> Result<Replayed, ReplayError> {
        let done = match entry.kind {
            EntryKind::Batch => self.replay_batches(lsn, entry)?,
            EntryKind::Truncate => {
                let to = entry.base_offset;
                if to < checkpoint {
                    let partition = self.id;
                    return Err(ReplayError::TruncateBeforeCheckpoint { partition, lsn, to, checkpoint });
                }
                if to < self.log_end {
                    self.truncate(to);
                }
                self.owes_truncate = false;
                Replayed::Applied
            }
            EntryKind::EpochStart => {
                self.epochs.begin(entry.leader_epoch, entry.base_offset);
                Replayed::Applied
            }
            EntryKind::LogStart => {
                self.begin_log_at(entry.base_offset);
                Replayed::Applied
            }
            _ => Replayed::Known,
        };
        self.durable = self.durable.max(lsn);
        self.synced = self.log_end;
        // Nothing is in sync but what is here, until followers tell.
        self.high_watermark = self.log_end;
        Ok(done)
    }

    /// All entries have been replayed.
    pub fn finish_replay(&mut self) {
        self.producers.settle(self.log_end);
    }

    fn replay_batches(&mut self, lsn: Lsn, entry: &JournalEntry) -> Result<Replayed, ReplayError> {
        let payload = &entry.payload;
        let mut from = None;
        let mut end = self.log_end;
        let mut max_timestamp = -1;
        for one in batch::Batches::new(payload) {
            let (at, header) =
                one.map_err(|damage| ReplayError::Damaged { partition: self.id, lsn, damage })?;
            if header.base_offset < end {
                continue;
            }
            if header.base_offset > end {
                let (known, found) = (end, header.base_offset);
                return Err(ReplayError::Gap { partition: self.id, lsn, known, found });
            }
            from.get_or_insert((at, end));
            end = header.end();
            max_timestamp = max_timestamp.max(header.max_timestamp);
            if header.producer_id >= ProducerId(0) {
                let remembered = RememberedBatch {
                    epoch: header.producer_epoch,
                    base_sequence: header.base_sequence,
                    last_sequence: sequence_after(header.base_sequence, header.last_offset_delta),
                    base_offset: header.base_offset,
                    end,
                    append_time_ms: if header.log_append_time() { header.max_timestamp } else { -1 },
                };
                // Nothing is settled: a truncation may follow in the journal.
                self.producers.remember(header.producer_id, remembered, self.settled_in_replay());
            }
        }
        let Some((at, base)) = from else { return Ok(Replayed::Known) };
        self.tail.push(Chunk { lsn, base, end, bytes: payload.slice(at..), max_timestamp });
        self.log_end = end;
        Ok(Replayed::Applied)
    }

    /// While entries are replayed only what the segments hold is out of a truncation's reach.
    fn settled_in_replay(&self) -> Offset {
        self.tail.start().unwrap_or(self.log_end)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
