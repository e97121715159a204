//! Searching by time: the first record that is not older than a timestamp.
//!
//! Like a read, planned by the owner and executed by the caller. Indexes lead to a batch; the record
//! within it is found by looking at the records.

use std::sync::Arc;

use bytes::Bytes;
use io_backend::task::give_way;
use io_backend::{Deadline, File};

use super::batch::{self, BatchHeader, Batches};
use super::read::ReadFailure;
use super::records::{Aim, RecordSearch, Step};
use super::segment::{Scan, ScanError, Segment, damage_at};
use crate::ids::{LeaderEpoch, Offset};

/// The record that a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its offset.
    pub offset: Offset,
    /// Its time, in milliseconds since 1970.
    pub timestamp: i64,
    /// The epoch in which it was appended.
    pub leader_epoch: LeaderEpoch,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The first record that is not older than this timestamp.
    Since(i64),
    /// The first record with the largest timestamp of all that may be told; that of the tail's whole batches is this.
    Newest(Option<i64>),
}

/// Where to search: shared segments, shared bytes of the tail.
#[derive(Clone, Debug)]
pub struct SearchPlan<F> {
    /// What is looked for.
    pub wanted: Wanted,
    /// Records before are deleted.
    pub log_start: Offset,
    /// Records from here on are not told.
    pub limit: Offset,
    /// All of them, rising; those that cannot answer are passed over.
    pub segments: Vec<Arc<Segment<F>>>,
    /// What follows the segments and may answer.
    pub tail: Vec<Bytes>,
    /// What of the tail holds the log's start in its middle, for the newest record.
    pub beginning: Option<Bytes>,
}

impl<F: File> SearchPlan<F> {
    /// Searches; `None`: no record that may be told is as late.
    ///
    /// # Errors
    ///
    /// The disk failed, or there is damage where the answer would be.
    pub async fn execute(self, deadline: Deadline) -> Result<Option<Found>, ReadFailure> {
        let wanted = match self.wanted {
            Wanted::Since(wanted) => wanted,
            Wanted::Newest(of_tail) => {
                let newest = self.newest(deadline).await?.max(of_tail.unwrap_or(-1));
                match self.newest_of_divided(deadline).await? {
                    Some(found) if found.timestamp >= newest => return Ok(Some(found)),
                    _ => newest,
                }
            }
        };
        if wanted < 0 {
            return Ok(None);
        }
        let first = self.first(wanted, deadline).await?;
        Ok(first.filter(|found| found.offset < self.limit))
    }

    /// The largest timestamp of whole batches that may be told of the segments; -1 where there is none.
    async fn newest(&self, deadline: Deadline) -> Result<i64, ReadFailure> {
        let mut newest = -1;
        for segment in &self.segments {
            // The largest timestamp of a segment says whether it is worth looking.
            if segment.state.max_timestamp > newest {
                newest = newest.max(self.newest_in(segment, deadline).await?);
            }
        }
        Ok(newest)
    }

    /// Records with the segment's largest timestamp may have been cut, deleted, or not be committed.
    async fn newest_in(&self, segment: &Segment<F>, deadline: Deadline) -> Result<i64, ReadFailure> {
        let until = segment.end().min(self.limit);
        if (self.log_start..until).contains(&segment.state.max_timestamp_at) {
            return Ok(segment.state.max_timestamp);
        }
        if until <= self.log_start.max(segment.base) {
            return Ok(-1);
        }
        let (before, position, at) = segment.newest_before(self.log_start, until);
        match self.newest_from(segment, (position, at), until, deadline).await {
            // An index point from an earlier life of the file: the file itself tells.
            Err(ReadFailure::Damaged(damage)) if damage.is_misled_at(position) => {
                self.newest_from(segment, (0, segment.base), until, deadline).await
            }
            found => Ok(found?.max(before)),
        }
    }

    async fn newest_from(
        &self,
        segment: &Segment<F>,
        (position, at): (u64, Offset),
        until: Offset,
        deadline: Deadline,
    ) -> Result<i64, ReadFailure> {
        let mut newest = -1;
        let mut scan = Scan::new(&segment.file, position, at, segment.bytes);
        while let Some((_, header)) = scan.next_batch(deadline).await? {
            if header.end() > until {
                break;
            }
            if header.base_offset >= self.log_start {
                newest = newest.max(header.max_timestamp);
            }
        }
        Ok(newest)
    }

    /// The newest of what is left of the batch that the log starts within: its header speaks of deleted records, too.
    async fn newest_of_divided(&self, deadline: Deadline) -> Result<Option<Found>, ReadFailure> {
        let holds_start =
            |segment: &&Arc<Segment<F>>| segment.base < self.log_start && self.log_start < segment.end();
        if let Some(segment) = self.segments.iter().find(holds_start) {
            let (position, at) = segment.position_before(self.log_start);
            return match self.newest_of_divided_in(segment, (position, at), deadline).await {
                // An index point from an earlier life of the file: the file itself tells.
                Err(ReadFailure::Damaged(damage)) if damage.is_misled_at(position) => {
                    self.newest_of_divided_in(segment, (0, segment.base), deadline).await
                }
                found => found,
            };
        }
        let bytes = self.beginning.as_deref().unwrap_or_default();
        for (at, header) in Batches::new(bytes).map_while(Result::ok) {
            if header.end() > self.log_start {
                return Ok(self.newest_left(&header, &bytes[at..at + header.bytes]).await);
            }
        }
        Ok(None)
    }

    async fn newest_of_divided_in(
        &self,
        segment: &Segment<F>,
        (position, at): (u64, Offset),
        deadline: Deadline,
    ) -> Result<Option<Found>, ReadFailure> {
        let mut scan = Scan::new(&segment.file, position, at, segment.bytes);
        while let Some((position, header)) = scan.next_batch(deadline).await? {
            if header.end() > self.log_start {
                let bytes = self.read(segment, position, &header, deadline).await?;
                return Ok(self.newest_left(&header, &bytes).await);
            }
        }
        Ok(None)
    }

    async fn newest_left(&self, header: &BatchHeader, bytes: &[u8]) -> Option<Found> {
        let is_divided = header.base_offset < self.log_start && header.end() <= self.limit;
        if is_divided { self.within(header, bytes, Aim::Newest).await } else { None }
    }

    /// The first record that answers, whether it may be told or not.
    async fn first(&self, wanted: i64, deadline: Deadline) -> Result<Option<Found>, ReadFailure> {
        for segment in &self.segments {
            if segment.state.max_timestamp < wanted || segment.end() <= self.log_start {
                continue;
            }
            let (position, at) = segment.position_before_timestamp(wanted);
            let found = match self.search(segment, position, at, wanted, deadline).await {
                // An index point from an earlier life of the file: the file itself tells.
                Err(ReadFailure::Damaged(damage)) if damage.is_misled_at(position) => {
                    self.search(segment, 0, segment.base, wanted, deadline).await?
                }
                done => done?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        for bytes in &self.tail {
            for (at, header) in Batches::new(bytes).map_while(Result::ok) {
                if header.max_timestamp < wanted {
                    continue;
                }
                let found = self.within(&header, &bytes[at..at + header.bytes], Aim::Since(wanted)).await;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    async fn search(
        &self,
        segment: &Segment<F>,
        position: u64,
        at: Offset,
        wanted: i64,
        deadline: Deadline,
    ) -> Result<Option<Found>, ReadFailure> {
        let mut scan = Scan::new(&segment.file, position, at, segment.bytes);
        while let Some((position, header)) = scan.next_batch(deadline).await? {
            if header.end() > segment.end() {
                // It was cut there.
                break;
            }
            if header.max_timestamp < wanted || header.end() <= self.log_start {
                continue;
            }
            let bytes = self.read(segment, position, &header, deadline).await?;
            if let Some(found) = self.within(&header, &bytes, Aim::Since(wanted)).await {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn read(
        &self,
        segment: &Segment<F>,
        position: u64,
        header: &BatchHeader,
        deadline: Deadline,
    ) -> Result<Bytes, ReadFailure> {
        let bytes = segment.file.read_at(position, header.bytes, deadline).await?;
        batch::verify(&bytes)
            .map_err(|damage| damage_at(segment.file.path(), position, header.base_offset, damage))?;
        Ok(bytes)
    }

    /// The record in this batch, if it is there.
    async fn within(&self, header: &BatchHeader, bytes: &[u8], aim: Aim) -> Option<Found> {
        let mut search = RecordSearch::new(header, bytes, aim, self.log_start);
        let (offset, timestamp) = loop {
            match search.step() {
                Step::Done(found) => break found?,
                Step::More => give_way().await,
            }
        };
        Some(Found { offset, timestamp, leader_epoch: header.leader_epoch })
    }
}

impl From<ScanError> for ReadFailure {
    fn from(error: ScanError) -> ReadFailure {
        match error {
            ScanError::Disk(error) => ReadFailure::Disk(error),
            ScanError::Damaged(damage) => ReadFailure::Damaged(damage),
        }
    }
}
