//! Probes: situations that a sweep has to have seen, or its silence means nothing.

/// Every probe with what it stands for.
pub const ALL: [(&str, &str); 11] = [
    ("acked records", "records acknowledged to producers"),
    ("power loss with un-synced bytes in flight", "what was being written could be kept, dropped or torn"),
    ("power loss with un-synced names", "files made or renamed without a synced directory could vanish"),
    ("torn tail cut", "recovery found the last group of a journal damaged and cut it"),
    ("stall hit an operation in flight", "a disk stopped in the middle of an operation"),
    ("records recovered from a journal", "a start replayed what its segments did not hold yet"),
    ("idempotent retry of an unknown outcome", "only the broker can tell whether it has the batch already"),
    ("refused while the storage stood still", "a request was refused at once and not kept waiting"),
    ("node started again", "a node came back after it had ended"),
    ("sync failed", "the kernel may have dropped what the sync should have covered"),
    ("consumer started over", "a partition was read from its beginning again, older data included"),
];

pub fn is_known(name: &str) -> bool {
    ALL.iter().any(|(known, _)| *known == name)
}
