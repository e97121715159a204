//! For tests: what the requests that the APIs fill have in common.

use bytes::BytesMut;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

pub fn text() -> StrBytes {
    StrBytes::from_static_str("text")
}

pub fn topic_name() -> TopicName {
    TopicName(StrBytes::from_static_str("orders"))
}

/// The name of a topic where versions from `ids_since` on have its id instead.
pub fn name_before(ids_since: i16, version: i16) -> TopicName {
    if version >= ids_since { TopicName::default() } else { topic_name() }
}

pub fn id_since(ids_since: i16, version: i16) -> Uuid {
    if version >= ids_since { Uuid::from_u128(7) } else { Uuid::nil() }
}

/// The request of this version, as a client sends it.
pub fn bytes<R: Encodable>(version: i16, request: impl FnOnce(i16) -> R) -> BytesMut {
    let mut bytes = BytesMut::new();
    if let Err(error) = request(version).encode(&mut bytes, version) {
        panic!("version {version}: {error:#}");
    }
    bytes
}
