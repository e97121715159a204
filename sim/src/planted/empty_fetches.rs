//! A network on which every fetch is answered at once, with nothing in it: what a broker looks like from outside
//! that has the records and does not give them.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{FetchResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::answers::Answers;
use crate::world::SimBackend;

pub(super) const FETCH: i16 = 1;

pub(super) fn plant(backend: &SimBackend) -> SimBackend {
    backend.rewriting(|| Box::new(Answers::to(FETCH, emptied)))
}

/// The same answer without its records.
fn emptied(answer: Bytes, version: i16) -> Option<Bytes> {
    rewritten(answer, version, |response| {
        for topic in &mut response.responses {
            for partition in &mut topic.partitions {
                partition.records = Some(Bytes::new());
            }
        }
    })
}

/// An answer to a fetch, changed.
pub(super) fn rewritten(
    mut answer: Bytes,
    version: i16,
    change: impl FnOnce(&mut FetchResponse),
) -> Option<Bytes> {
    let header_version = i16::from(version >= 12);
    let header = ResponseHeader::decode(&mut answer, header_version).ok()?;
    let mut response = FetchResponse::decode(&mut answer, version).ok()?;
    change(&mut response);
    let mut out = BytesMut::new();
    header.encode(&mut out, header_version).ok()?;
    response.encode(&mut out, version).ok()?;
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::super::answers::frame;
    use super::*;
    use crate::world::Rewrite;
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};

    #[test]
    fn only_answers_to_fetches_lose_their_records() {
        let partition = PartitionData::default().with_records(Some(Bytes::from_static(b"records")));
        let topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
        let response = FetchResponse::default().with_responses(vec![topic]);
        let mut answer = BytesMut::new();
        ResponseHeader::default().with_correlation_id(7).encode(&mut answer, 1).unwrap();
        response.encode(&mut answer, 12).unwrap();
        let mut framed = BytesMut::from(&u32::try_from(answer.len()).unwrap().to_be_bytes()[..]);
        framed.extend_from_slice(&answer);

        let mut out = BytesMut::new();
        Answers::to(FETCH, emptied).written(&framed, &mut out);
        assert_eq!(out, framed, "nobody fetched");

        let mut out = BytesMut::new();
        let mut rewriting = Answers::to(FETCH, emptied);
        let request = [0, 0, 0, 8, 0, 1, 0, 12, 0, 0, 0, 7];
        rewriting.received(&request[..5]);
        rewriting.received(&request[5..]);
        rewriting.written(&framed[..9], &mut out);
        rewriting.written(&framed[9..], &mut out);
        let mut told = frame(&mut out).unwrap();
        ResponseHeader::decode(&mut told, 1).unwrap();
        let told = FetchResponse::decode(&mut told, 12).unwrap();
        assert_eq!(told.responses[0].partitions[0].records, Some(Bytes::new()));
    }
}
