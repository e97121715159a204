//! Replay: a replica becomes again what its journal entries say, in LSN order, before anything else happens.

use super::ReplicaState;
use crate::ids::{LeaderEpoch, Lsn, Offset, PartitionId};
use crate::journal::{EntryKind, JournalEntry};
use crate::log::batch;
use crate::log::tail::Chunk;

/// Why an entry of the journal cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The entry's checksum is sound, and its payload is no row of batches.
    #[error("journal entry {lsn} of {partition}: {damage}. Restore the data directory from a copy")]
    Damaged { partition: PartitionId, lsn: Lsn, damage: batch::Damage },
    /// A batch does not begin where the log ends.
    #[error(
        "journal entry {lsn} of {partition} begins at offset {found}, but what is known ends at {known}: entries in \
         between are missing. Restore the data directory from a copy"
    )]
    Gap { partition: PartitionId, lsn: Lsn, known: Offset, found: Offset },
    /// A truncation would take records that a checkpoint, or the log's start, knows to be committed.
    #[error(
        "journal entry {lsn} cuts {partition} to offset {to}, and records up to {committed} were committed: one of them \
         is not what was written. Restore the data directory from a copy"
    )]
    TruncateCommitted { partition: PartitionId, lsn: Lsn, to: Offset, committed: Offset },
    /// A truncation would take a part of a batch.
    #[error(
        "journal entry {lsn} cuts {partition} to offset {to}, in the middle of a batch before it: the journal contradicts \
         itself. Restore the data directory from a copy"
    )]
    TruncateInsideBatch { partition: PartitionId, lsn: Lsn, to: Offset },
    /// The log's start would be behind its end.
    #[error(
        "journal entry {lsn} has {partition} begin at {start:?}, behind its end at {end:?}: entries in between are \
         missing. Restore the data directory from a copy"
    )]
    StartBehindEnd { partition: PartitionId, lsn: Lsn, start: Offset, end: Offset },
}

/// What replaying an entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    Applied,
    /// It was there already.
    Known,
}

impl<T> ReplicaState<T> {
    /// Applies an entry that survived, in LSN order, before anything else happens.
    pub fn replay(&mut self, lsn: Lsn, entry: &JournalEntry) -> Result<Replayed, ReplayError> {
        let done = match entry.kind {
            EntryKind::Batch => self.replay_batches(lsn, entry)?,
            EntryKind::Truncate => {
                let (partition, to, committed) = (self.id, entry.base_offset, self.high_watermark);
                if to < committed {
                    return Err(ReplayError::TruncateCommitted { partition, lsn, to, committed });
                }
                if to < self.log_end {
                    self.synced = self.log_end;
                    if self.replay_truncate(to, entry.leader_epoch) != to {
                        return Err(ReplayError::TruncateInsideBatch { partition, lsn, to });
                    }
                }
                Replayed::Applied
            }
            EntryKind::TruncateFully => {
                let (partition, to, committed) = (self.id, entry.base_offset, self.high_watermark);
                if to < committed {
                    return Err(ReplayError::TruncateCommitted { partition, lsn, to, committed });
                }
                self.begin_anew(to);
                Replayed::Applied
            }
            EntryKind::EpochStart => {
                self.epochs.begin(entry.leader_epoch, entry.base_offset);
                Replayed::Applied
            }
            EntryKind::LogStart => {
                let start = entry.base_offset;
                if start > self.log_end {
                    let (partition, end) = (self.id, self.log_end);
                    return Err(ReplayError::StartBehindEnd { partition, lsn, start, end });
                }
                self.begin_log_at(start);
                Replayed::Applied
            }
            _ => Replayed::Known,
        };
        self.durable = self.durable.max(lsn);
        self.synced = self.log_end;
        self.check_invariants();
        Ok(done)
    }

    /// Epochs up to the one it was written in stay even where they have no record: who led went on in it.
    fn replay_truncate(&mut self, to: Offset, epoch: LeaderEpoch) -> Offset {
        let empty =
            self.epochs.entries().last().copied().filter(|(last, from)| *from == to && *last <= epoch);
        let end = self.cut_to(to);
        if let Some((epoch, start)) = empty {
            self.epochs.begin(epoch, start);
        }
        end
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
            self.take_over(&header);
        }
        let Some((at, base)) = from else { return Ok(Replayed::Known) };
        self.tail.push(Chunk { lsn, base, end, bytes: payload.slice(at..), max_timestamp });
        self.log_end = end;
        Ok(Replayed::Applied)
    }
}
