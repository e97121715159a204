//! Replay: a replica becomes again what its journal entries say, in LSN order, before anything else happens.

use super::ReplicaState;
use crate::ids::{Lsn, Offset, PartitionId, ProducerId};
use crate::journal::{EntryKind, JournalEntry};
use crate::log::batch;
use crate::log::producers::{RememberedBatch, sequence_after};
use crate::log::tail::Chunk;

/// Why an entry of the journal cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The entry's checksum is sound, and its payload is no row of batches.
    #[error("journal entry {lsn} of {partition}: {damage}")]
    Damaged { partition: PartitionId, lsn: Lsn, damage: batch::Damage },
    /// A batch does not begin where the log ends.
    #[error(
        "journal entry {lsn} of {partition} begins at offset {found}, but what is known ends at {known}: entries in \
         between are missing. Restore the data directory from a copy"
    )]
    Gap { partition: PartitionId, lsn: Lsn, known: Offset, found: Offset },
    /// A truncation would take records that segments hold: a checkpoint had moved what was not settled.
    #[error("journal entry {lsn} cuts {partition} to {to:?}, before its checkpoint at {checkpoint:?}")]
    TruncateBeforeCheckpoint { partition: PartitionId, lsn: Lsn, to: Offset, checkpoint: Offset },
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
                self.truncate_pending = false;
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
        // Nothing is in sync but what is here, until followers tell.
        self.high_watermark = self.log_end;
        self.check_invariants();
        Ok(done)
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
                let settled = self.settled_in_replay();
                self.producers.remember(header.producer_id, remembered, settled, None);
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
