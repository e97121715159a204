//! Truncations that are not written: the entry says nothing, so a start finds again what was cut.

use broker::journal::EntryKind;
use broker::parts::Parts;

use super::submission;
use crate::world::SimBackend;

pub(super) fn plant(parts: &mut Parts<SimBackend>) {
    submission::replace(parts, |under, mut entries, progress| {
        let cuts = |kind| matches!(kind, EntryKind::Truncate | EntryKind::TruncateFully);
        for entry in entries.iter_mut().filter(|entry| cuts(entry.kind)) {
            entry.kind = EntryKind::ReplicaCreate;
        }
        under.submit(entries, progress)
    });
}
