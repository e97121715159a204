//! The Kafka protocol: which versions are served, how bytes become requests and answers become bytes.
//!
//! Codecs are `kafka-protocol`'s. It allocates what an array's length announces, so every request is walked
//! along its shape first: nothing that reaches the codec can make it allocate more than the bytes
//! that really came justify.

mod head;
pub mod outgoing;
pub mod records;
mod response;
mod shape;
mod shapes;
pub mod versions;

pub use head::{Incoming, RequestHead, WireError, decode};
pub use response::{Response, api_versions, encode, internal_error, refusal};
#[cfg(test)]
pub(crate) use shapes::tests::filled;

/// Texts of the wire.
pub use kafka_protocol::protocol::StrBytes;

/// A text for the wire from anything that displays.
pub fn text(from: impl std::fmt::Display) -> StrBytes {
    StrBytes::from_string(from.to_string())
}
