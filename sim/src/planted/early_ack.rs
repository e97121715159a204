//! Tells of durability when entries are queued and not when they are synced.

use std::sync::Arc;

use broker::ids::Lsn;
use broker::journal::{JournalEntry, JournalHandle, SubmitError};
use broker::parts::Parts;
use io_backend::progress::Progress;

use super::submission;
use crate::world::SimBackend;

pub(super) fn plant(parts: &mut Parts<SimBackend>) {
    submission::replace(parts, early);
}

/// The same of Raft's journal: votes and entries are told before they are on the disk.
pub(super) fn plant_in_raft(parts: &mut Parts<SimBackend>) {
    submission::replace_rafts(parts, early);
}

fn early(
    under: &JournalHandle,
    entries: Vec<JournalEntry>,
    progress: &Arc<Progress>,
) -> Result<Lsn, SubmitError> {
    let last = under.submit(entries, progress)?;
    progress.reach(last.0);
    Ok(last)
}
