//! One replica of a partition as a pure state machine: offsets, leadership, durability, acknowledgement.
//!
//! No I/O, no waiting, no clock. The driver queues appends ([`ReplicaState::enqueue`]), takes journal
//! entries from [`ReplicaState::stage`], tells what became of them ([`ReplicaState::handle_submitted`],
//! [`ReplicaState::handle_refused`]) and how far the journal is durable ([`ReplicaState::handle_progress`]).
//!
//! Invariants: an append is answered `Ok` only when what its `acks` asks for is synced; one that was
//! submitted is never answered as "not written"; offsets, epochs and producer state hold exactly what
//! is durable or in flight, so what fails is rolled back everywhere at once. After a failure the next
//! submission begins with a truncation, so that nothing of what failed can come back at a restart. Who loses an
//! epoch answers all that wait in it as unknown: another leader decides about their records.
//!
//! The high watermark survives a restart as the last checkpoint says it. It advances only in a role: a leader's by
//! what all in sync have synced ([`in_sync`]), a follower's by what its leader says ([`following`]).

use std::collections::VecDeque;

use bytes::Bytes;
use io_backend::{Deadline, Moment};

use super::log_signal::LogState;
use super::{Acks, AppendError, Appended, LeaderMarks, PartitionView};
use crate::ids::{Incarnation, LeaderEpoch, Lsn, Offset, PartitionId};
use crate::journal::SubmitError;
use crate::limits;
use crate::log::batch::CheckedBatch;
use crate::log::epochs::EpochHistory;
use crate::log::open::RecoveredLog;
use crate::log::producers::Producers;
use crate::log::tail::{Chunk, Tail};
use crate::metrics::Volume;

mod in_sync;
mod invariants;
mod following;
mod leading;
mod beginning_anew;
mod log_start;
mod queue;
mod replay;

pub use following::FollowError;
pub use in_sync::InSync;
pub use queue::Refused;
pub use replay::ReplayError;

/// An append as it is queued. `T` is what its answer is given to.
#[derive(Debug)]
pub struct Append<T> {
    /// In the order in which they get offsets; all of one request.
    pub batches: Vec<CheckedBatch>,
    /// When it is answered.
    pub acks: Acks,
    /// Until then it waits; after that it is answered as not written, or as unknown once it is submitted.
    pub deadline: Deadline,
    /// Who is answered.
    pub ticket: T,
}

impl<T> Append<T> {
    fn bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.bytes.len()).sum()
    }
}

/// The time by both clocks, as decisions need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and ages: it only goes forward.
    pub moment: Moment,
    /// For records: milliseconds since 1970.
    pub wall_ms: i64,
}

/// What callers are to be told.
#[derive(Debug)]
pub struct Answers<T> {
    /// Appends that are decided.
    pub appends: Vec<(T, Result<Appended, AppendError>)>,
    /// Grants of leadership that have come into force, or will not.
    pub led: Vec<(LeaderEpoch, Result<(), AppendError>)>,
    /// The log's start does not move as it should have.
    pub start_stays: Option<AppendError>,
    /// The log was truncated: what segments hold from there on does not count any more.
    pub cut: Option<Offset>,
    /// The log has begun anew there: segments hold nothing of it.
    pub begun_anew: Option<Offset>,
    /// The leadership of this epoch is over: what others may have fetched was taken back.
    pub resigned: Option<LeaderEpoch>,
    /// What a follower had fetched was not taken by the journal, and is to be fetched again.
    pub not_taken: Option<SubmitError>,
    /// What the journal has taken since this was looked at.
    pub taken: Volume,
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Answers {
            appends: Vec::new(),
            led: Vec::new(),
            start_stays: None,
            cut: None,
            begun_anew: None,
            resigned: None,
            not_taken: None,
            taken: Volume::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leadership {
    No,
    Following(LeaderEpoch),
    /// The epoch's start is to be submitted.
    Pending(LeaderEpoch),
    /// The epoch's start is in flight.
    Starting(LeaderEpoch),
    Leading(LeaderEpoch),
}

/// An entry that the journal has and that is not durable yet.
#[derive(Clone, Copy, Debug)]
struct EntryInFlight {
    lsn: Lsn,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Batch {
        end: Offset,
    },
    EpochStart {
        epoch: LeaderEpoch,
        start: Offset,
    },
    LogStart {
        start: Offset,
    },
    Truncate,
    TruncateFully {
        at: Offset,
    },
    /// Records that were truncated before they were durable.
    Void,
}

/// An append that waits for its records to be synced, here or by all in sync.
#[derive(Debug)]
struct Waiting<T> {
    end: Offset,
    deadline: Deadline,
    answer: Appended,
    ticket: T,
}

/// Batches as the leader has them, contiguous from `base` on, each with a sound checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fetched {
    base: Offset,
    end: Offset,
    bytes: Bytes,
    max_timestamp: i64,
}

/// What has been given offsets and is about to be submitted.
#[derive(Debug)]
struct Staged<T> {
    base: Offset,
    entries: Vec<(What, Option<Chunk>)>,
    appends: Vec<(Append<T>, Appended, Offset)>,
}

/// What one partition is and does next; it does no I/O. The owner task feeds it and carries out what it says.
#[derive(Debug)]
pub struct ReplicaState<T> {
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
    /// Of a leader.
    in_sync: InSync,
    /// The last epoch in which it took back what others may have fetched: it leads only under a later one.
    taken_back_in: LeaderEpoch,
    /// Taken since the ISR is below its minimum.
    below_min_bytes: usize,
    /// Of a follower: what its leader has told of its log in this epoch; the high watermark as far as it counts here.
    of_leader: LeaderMarks,
    /// How often something durable was truncated.
    truncations: u32,
    tail: Tail,
    /// What a follower has fetched and not submitted.
    fetched: VecDeque<Fetched>,
    queued: VecDeque<Append<T>>,
    staged: Option<Staged<T>>,
    in_flight: VecDeque<EntryInFlight>,
    /// The last entry of ours that is durable.
    durable: Lsn,
    for_sync: VecDeque<Waiting<T>>,
    for_all: VecDeque<Waiting<T>>,
    /// The next submission begins with a truncation.
    truncate_pending: bool,
    /// Something that may be durable was truncated, and that is not durable yet.
    cut_pending: bool,
    /// The journal refused it: it goes with what is fetched next.
    cut_refused: bool,
    /// The log is to begin anew there: that is decided, and takes effect when it is durable.
    anew: Option<Offset>,
    log_start_pending: Option<Offset>,
    /// It has begun anew: what producers had sent before that is not known here.
    began_anew: bool,
    /// What the journal takes at once, as far as it has told.
    submit_bytes_max: usize,
    entry_bytes_max: usize,
}

impl<T> ReplicaState<T> {
    /// Begins from what segments hold; the journal's entries after that are replayed on top. It does not
    /// lead.
    pub fn new(
        id: PartitionId,
        replica: Incarnation,
        log_append_time: bool,
        from: RecoveredLog,
    ) -> ReplicaState<T> {
        ReplicaState {
            id,
            replica,
            log_append_time,
            leadership: Leadership::No,
            epochs: from.epochs,
            producers: from.producers,
            log_start: from.log_start,
            log_end: from.log_end,
            synced: from.log_end,
            high_watermark: from.high_watermark.min(from.log_end),
            in_sync: InSync::alone(),
            taken_back_in: LeaderEpoch::NONE,
            below_min_bytes: 0,
            of_leader: LeaderMarks::default(),
            truncations: from.truncations,
            tail: Tail::default(),
            fetched: VecDeque::new(),
            queued: VecDeque::new(),
            staged: None,
            in_flight: VecDeque::new(),
            durable: from.lsn,
            for_sync: VecDeque::new(),
            for_all: VecDeque::new(),
            truncate_pending: false,
            cut_pending: false,
            cut_refused: false,
            anew: None,
            log_start_pending: None,
            began_anew: false,
            submit_bytes_max: limits::PARTITION_SUBMIT_BYTES,
            entry_bytes_max: limits::PARTITION_ENTRY_BYTES,
        }
    }

    /// What readers may see now.
    pub fn view(&self) -> PartitionView {
        let (leading, following, leader_epoch) = match self.leadership {
            Leadership::Leading(epoch) => (true, false, epoch),
            Leadership::Following(epoch) => (false, true, epoch),
            _ => (false, false, self.epochs.latest()),
        };
        PartitionView {
            leading,
            following,
            leader_epoch,
            log_start: self.log_start,
            high_watermark: self.high_watermark,
            last_stable: self.high_watermark,
            log_end: self.log_end,
        }
    }

    /// What a leader says of its log to those who follow it.
    pub fn marks(&self) -> LeaderMarks {
        let ReplicaState { high_watermark, log_start, .. } = *self;
        LeaderMarks { high_watermark, log_start, held_by_all: self.held_by_all() }
    }

    /// Everything before is on the disks of all replicas, in sync or not, as far as is known here in this epoch. A record that
    /// says what is deleted goes only then: who lacks it may have what it deletes.
    pub fn held_by_all(&self) -> Offset {
        match self.leadership {
            Leadership::Leading(_) => self.in_sync.synced_by_replicas(self.synced).unwrap_or(Offset::ZERO),
            Leadership::Following(_) => self.of_leader.held_by_all,
            _ => Offset::ZERO,
        }
    }

    /// Where the log stands, for those who replicate it; `None` where nobody else has a replica, or this one has no role.
    pub fn log_state(&self) -> Option<LogState> {
        let (leading, epoch) = match self.leadership {
            Leadership::No => return None,
            Leadership::Following(epoch) => (false, epoch),
            _ if self.in_sync.is_alone() => return None,
            Leadership::Pending(epoch) | Leadership::Starting(epoch) => (false, epoch),
            Leadership::Leading(epoch) => (true, epoch),
        };
        let ReplicaState { log_end, synced, .. } = *self;
        let LeaderMarks { high_watermark, log_start, held_by_all } = self.marks();
        Some(LogState { leading, epoch, log_end, synced, high_watermark, log_start, held_by_all })
    }

    /// Batches that segments do not have yet.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Which leader epoch began where.
    pub fn epochs(&self) -> &EpochHistory {
        &self.epochs
    }

    /// What is known of idempotent producers.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Forgets producers that have been silent for long.
    pub fn expire_producers(&mut self, now: Moment) {
        self.producers.expire(self.synced.min(self.high_watermark), now);
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

    /// Where the log starts, durably.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The high watermark.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// From the next batch on, records carry the broker's time, or their producers'.
    pub fn set_log_append_time(&mut self, log_append_time: bool) {
        self.log_append_time = log_append_time;
    }

    /// Segments hold, synced, everything before `upto`.
    pub fn handle_checkpointed(&mut self, upto: Offset) {
        self.tail.drop_before(upto);
        self.check_invariants();
    }

    /// What was truncated is gone from the journal, too. Before, no checkpoint may say that it is gone: the journal could
    /// bring back a part of it that does not follow.
    pub fn is_cut_durable(&self) -> bool {
        !self.cut_pending
    }

    /// How often something durable was truncated: a checkpoint that began before knows records that are gone.
    pub fn truncations(&self) -> u32 {
        self.truncations
    }

    /// Another broker leads, or nobody: appends are refused from now on.
    pub fn handle_resign(&mut self, answers: &mut Answers<T>) {
        self.resign(answers);
        self.check_invariants();
    }

    fn resign(&mut self, answers: &mut Answers<T>) {
        if let Leadership::Pending(epoch) | Leadership::Starting(epoch) = self.leadership {
            answers.led.push((epoch, Err(AppendError::NotLeader(self.id))));
        }
        self.leadership = Leadership::No;
        self.in_sync = InSync::alone();
        self.below_min_bytes = 0;
        self.fetched.clear();
        for waiting in self.for_sync.drain(..).chain(self.for_all.drain(..)) {
            answers.appends.push((waiting.ticket, Err(AppendError::Unknown)));
        }
    }

    /// The journal is durable up to `reached`, and nothing of ours from `failed_from` on will ever be.
    pub fn handle_progress(&mut self, reached: Lsn, failed_from: Option<Lsn>, answers: &mut Answers<T>) {
        let survives = |entry: &EntryInFlight| failed_from.is_none_or(|failed| entry.lsn < failed);
        while let Some(first) = self.in_flight.front().copied()
            && first.lsn <= reached
            && survives(&first)
        {
            self.in_flight.pop_front();
            self.durable = first.lsn;
            match first.what {
                What::Batch { end } => self.synced = end,
                What::EpochStart { epoch, start } => {
                    // Records of a later epoch may have been taken over meanwhile.
                    if epoch > self.epochs.latest() {
                        self.epochs.begin(epoch, start);
                    }
                    if self.leadership == Leadership::Starting(epoch) {
                        self.leadership = Leadership::Leading(epoch);
                        answers.led.push((epoch, Ok(())));
                    }
                }
                What::LogStart { start } => self.begin_log_at(start),
                What::Truncate => self.cut_pending = self.truncate_pending,
                What::TruncateFully { at } => {
                    self.begin_anew(at);
                    answers.begun_anew = Some(at);
                }
                What::Void => {}
            }
        }
        if self.in_flight.back().is_some_and(|last| !survives(last)) {
            let first_lost = self.in_flight.partition_point(survives);
            self.give_up_from(first_lost, answers);
        }
        self.advance(answers);
        self.check_invariants();
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
            if let What::LogStart { .. } = lost.what {
                // A restart may find it after all, and then it holds: whoever asked for it is not told that it does not.
                answers.start_stays = Some(AppendError::Unknown);
            }
        }
        let survivor = |entry: &EntryInFlight| match entry.what {
            What::Batch { end } => Some(end),
            _ => None,
        };
        let end = self.in_flight.iter().rev().find_map(survivor).unwrap_or(self.synced);
        if let Leadership::Leading(epoch) = self.leadership
            && end < self.log_end
            && !self.in_sync.is_alone()
        {
            // Others may have fetched what is taken back, or fetch what takes its place while the disk still has it: its
            // offsets must not be given again in this epoch.
            self.resign(answers);
            answers.resigned = Some(epoch);
            self.taken_back_in = epoch;
        }
        self.fetched.clear();
        self.truncate(end);
        self.truncate_pending = true;
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

    /// Truncates what may be durable, or on its way to be. Returns where the log ends then: a batch goes as a whole.
    fn cut_to(&mut self, to: Offset) -> Offset {
        let to = self.tail.truncate(to);
        self.void_in_flight_from(to);
        if to < self.synced {
            self.synced = to;
            self.truncations += 1;
        }
        self.truncate(to);
        // An epoch that begins at the cut has no record here: it would be asked about again and again.
        self.epochs.truncate_without_empty(to);
        to
    }

    /// Other records come to stand from `offset` on than those on their way.
    fn void_in_flight_from(&mut self, offset: Offset) {
        for entry in &mut self.in_flight {
            match entry.what {
                What::Batch { end } if end > offset => entry.what = What::Void,
                What::EpochStart { start, .. } if start >= offset => entry.what = What::Void,
                _ => {}
            }
        }
    }

    /// The high watermark: what all in sync have synced, or what a leader says of that. It never falls.
    fn advance(&mut self, answers: &mut Answers<T>) {
        let committed = match self.leadership {
            Leadership::Leading(_) => self.in_sync.synced_by_in_sync(self.synced),
            Leadership::Following(_) if self.anew.is_none() => {
                Some(self.of_leader.high_watermark.min(self.synced))
            }
            Leadership::Following(_) | Leadership::No | Leadership::Pending(_) | Leadership::Starting(_) => {
                None
            }
        };
        self.high_watermark = committed.map_or(self.high_watermark, |all| self.high_watermark.max(all));
        self.follow_log_start();
        for (waiting, reached) in
            [(&mut self.for_sync, self.synced), (&mut self.for_all, self.high_watermark)]
        {
            let done = waiting.partition_point(|one| one.end <= reached);
            answers.appends.extend(waiting.drain(..done).map(|one| (one.ticket, Ok(one.answer))));
        }
    }

    /// The owner ends: what was submitted is not known, what was queued was never written.
    pub fn handle_close(&mut self, answers: &mut Answers<T>) {
        self.resign(answers);
        for append in self.queued.drain(..) {
            answers.appends.push((append.ticket, Err(AppendError::Gone)));
        }
        self.check_invariants();
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod following_tests;
#[cfg(test)]
mod model_replica_tests;
#[cfg(test)]
mod model_tests;
