//! The Kafka protocol: how bytes become requests and answers become bytes. What is served, the APIs declare.
//!
//! Codecs are `kafka-protocol`'s. It allocates what an array's length announces, so every request is walked
//! along its shape first: nothing that reaches the codec can make it allocate more than the bytes
//! that really came justify.

pub mod outgoing;
pub mod records;
pub mod shape;
mod head;
mod response;

pub use head::{RequestHead, WireError, decode_body, read_head};
pub use response::{Message, Response, encode};

/// Texts of the wire.
pub use kafka_protocol::protocol::StrBytes;

/// A text for the wire from anything that displays.
pub fn text(from: impl std::fmt::Display) -> StrBytes {
    StrBytes::from_string(from.to_string())
}
