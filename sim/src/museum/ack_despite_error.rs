//! An internal error on the produce path was logged and answered as success: 271,000 records were acknowledged in a test of load, and
//! none of them was stored.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ProduceResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::planted::answers::Answers;
use crate::world::SimBackend;

const PRODUCE: i16 = 0;
/// From this version on answers have a header with tagged fields.
const FLEXIBLE: i16 = 9;

pub(super) fn plant(backend: &SimBackend) -> SimBackend {
    backend.rewriting(|| Box::new(Answers::to(PRODUCE, acknowledged)))
}

/// The same answer without its errors.
fn acknowledged(mut answer: Bytes, version: i16) -> Option<Bytes> {
    let header_version = i16::from(version >= FLEXIBLE);
    let header = ResponseHeader::decode(&mut answer, header_version).ok()?;
    let mut response = ProduceResponse::decode(&mut answer, version).ok()?;
    for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
        if partition.error_code != 0 {
            partition.error_code = 0;
            partition.error_message = None;
            partition.base_offset = 0;
        }
    }
    let mut out = BytesMut::new();
    header.encode(&mut out, header_version).ok()?;
    response.encode(&mut out, version).ok()?;
    Some(out.freeze())
}
