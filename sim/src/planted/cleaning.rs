//! Slips in cleaning compacted logs.

use std::sync::Arc;

use broker::parts::Parts;
use broker::parts::cleaning::Fate;

use crate::world::SimBackend;

/// A tombstone goes as soon as what it deletes has gone, and before everybody may have read it.
pub(super) fn plant_early_drop(parts: &mut Parts<SimBackend>) {
    parts.cleaning = Arc::new(|_, fate| match fate {
        Fate::StaysUntil(_) => Fate::Goes,
        other => other,
    });
}

/// A tombstone goes when its time is over, whoever has not seen it.
pub(super) fn plant_unseen_drop(parts: &mut Parts<SimBackend>) {
    parts.cleaning = Arc::new(|judged, fate| if judged.is_lacked { Fate::Goes } else { fate });
}

/// The last record of a key goes with the others, now and then.
pub(super) fn plant_lost_last(parts: &mut Parts<SimBackend>) {
    parts.cleaning = Arc::new(|judged, fate| match fate {
        Fate::Stays if judged.is_newest && judged.offset.0 % 7 == 0 => Fate::Goes,
        other => other,
    });
}

/// Records that are superseded stay, and tombstones go: what they deleted is back.
pub(super) fn plant_stale_values(parts: &mut Parts<SimBackend>) {
    parts.cleaning = Arc::new(|judged, fate| match fate {
        Fate::Goes if !judged.is_newest && judged.offset.0 % 5 == 0 => Fate::Stays,
        Fate::StaysUntil(_) => Fate::Goes,
        other => other,
    });
}
