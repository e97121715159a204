//! Tells of durability when entries are queued and not when they are synced.

use broker::parts::Parts;

use super::submission;
use crate::world::SimBackend;

pub(super) fn plant(parts: &mut Parts<SimBackend>) {
    submission::replace(parts, |under, entries, progress| {
        let last = under.submit(entries, progress)?;
        progress.reach(last.0);
        Ok(last)
    });
}
