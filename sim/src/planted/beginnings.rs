//! Keeps nothing of where logs start: an entry that says so is written as one that says nothing, and checkpoint records say
//! that every log starts at its very beginning.

use broker::journal::EntryKind;
use broker::parts::Parts;
use bytes::{Bytes, BytesMut};

use super::submission;
use crate::world::SimBackend;

/// The form of a checkpoint record: what stands before the marks, a mark, and where in it the log's start is.
const HEADER_BYTES: usize = 5;
const MARK_BYTES: usize = 52;
const LOG_START_AT: usize = 36;

pub(super) fn plant(parts: &mut Parts<SimBackend>) {
    submission::replace(parts, |under, mut entries, progress| {
        for entry in &mut entries {
            match entry.kind {
                EntryKind::LogStart => entry.kind = EntryKind::ReplicaCreate,
                EntryKind::Checkpoint => entry.payload = without_starts(&entry.payload),
                _ => {}
            }
        }
        under.submit(entries, progress)
    });
}

/// A checkpoint record as it would be if every log started at its very beginning.
pub(super) fn without_starts(payload: &Bytes) -> Bytes {
    let mut payload = BytesMut::from(&payload[..]);
    for mark in payload[HEADER_BYTES..].chunks_exact_mut(MARK_BYTES) {
        mark[LOG_START_AT..LOG_START_AT + 8].fill(0);
    }
    payload.freeze()
}
