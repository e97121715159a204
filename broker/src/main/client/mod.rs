//! A small client of the Kafka protocol, for the commands that people type: blocking, one request at a time, with a deadline
//! over all that a command does.
//!
//! It asks any node, learns the others from it, and sends what only one of them answers to that one: a partition's leader, a
//! group's coordinator, the controller. What is refused for a while only (leadership moves, a coordinator loads) is asked again
//! until the deadline.

pub mod clock;
pub mod failure;
pub mod apis;
mod connection;
pub mod cluster;
pub mod offsets;
pub mod groups;
pub mod records;

pub use clock::Deadline;
pub use cluster::{Client, Topic};
pub use failure::Failure;
pub use offsets::TopicPartition;
