//! Groups of consumers, kept on the internal topic `__consumer_offsets`.
//!
//! - An [`assignor`] says which member gets which partitions, where the coordinator decides that.
//! - A [`classic`] group has members that assign partitions among themselves, for a [`consumer`] group the coordinator does; [`offsets`] are how far a group is.
//! - [`records`] are what is kept of both; a [`shard`] is all groups of one partition of the topic.
//! - A driver asks the shard, and the partition to keep what it says; [`messages`] are what it is asked.

pub mod ids;
pub mod consumer_protocol;
pub mod assignor;
pub mod classic;
pub mod consumer;
pub mod offsets;
pub mod records;
pub mod settings;
mod progress;
pub mod shard;
pub mod messages;
mod image_topics;
mod outbox;
mod batches;
mod loading;
mod shown;
mod driver;
pub mod coordinators;

pub use progress::GroupProgress;

/// Where groups are kept.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
