//! Groups of consumers, kept on the internal topic `__consumer_offsets`. What decides is pure.
//!
//! - A [`classic`] group has members that assign partitions among themselves; [`offsets`] are how far a group is.
//! - [`records`] are what is kept of both; a [`shard`] is all groups of one partition of the topic.

pub mod classic;
pub mod offsets;
pub mod records;
pub mod shard;
