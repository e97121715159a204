//! The directories in a data directory. What stands in one is described by the module that writes it.

/// The journal of all partitions.
pub const JOURNAL: &str = "journal";
/// The journal of the metadata group.
pub const RAFT: &str = "raft";
/// A directory for each replica: segments, indexes, snapshots.
pub const PARTITIONS: &str = "partitions";
/// What the journal had of partitions that did not open, a file for each.
pub const RESCUED: &str = "rescued";
