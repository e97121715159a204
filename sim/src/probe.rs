//! Probes: situations that a sweep has to have seen, or its silence means nothing.

/// Every probe with what it stands for.
pub const ALL: [(&str, &str); 10] = [
    ("acked-records", "records acknowledged to producers"),
    ("power-loss-unsynced", "power was lost with un-synced bytes in flight"),
    ("torn-tail-cut", "recovery cut a torn tail off a journal"),
    ("stall-hit-in-flight", "a stall hit an operation in flight while clients waited for answers"),
    ("recovered-records", "a restart replayed records from the journal"),
    ("idempotent-retry", "an idempotent producer sent a batch again whose outcome it did not know"),
    ("refused-while-stalled", "a request was refused at once since the storage stood still"),
    ("process-started-again", "a node was started again after it had ended"),
    ("sync-failed", "a sync failed"),
    ("reread-from-start", "a consumer read a partition from its beginning again"),
];

pub fn is_known(name: &str) -> bool {
    ALL.iter().any(|(known, _)| *known == name)
}
