//! A network on which every fetch is answered at once, with nothing in it: what a broker looks like from outside
//! that has the records and does not give them.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{FetchResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::world::{Rewrite, SimBackend};

const FETCH: i16 = 1;

pub(super) fn plant(backend: &SimBackend) -> SimBackend {
    backend.rewriting(|| Box::new(Emptied::default()))
}

#[derive(Default)]
struct Emptied {
    /// Versions of fetches that are not answered yet, by correlation id.
    fetches: BTreeMap<i32, i16>,
    requests: BytesMut,
    answers: BytesMut,
}

impl Rewrite for Emptied {
    fn received(&mut self, bytes: &[u8]) {
        self.requests.extend_from_slice(bytes);
        while let Some(mut request) = frame(&mut self.requests) {
            if request.len() < 8 {
                continue;
            }
            let (key, version, correlation) = (request.get_i16(), request.get_i16(), request.get_i32());
            if key == FETCH {
                self.fetches.insert(correlation, version);
            }
        }
    }

    fn written(&mut self, bytes: &[u8], out: &mut BytesMut) {
        self.answers.extend_from_slice(bytes);
        while let Some(answer) = frame(&mut self.answers) {
            let correlation = answer.get(..4).map(|mut id| id.get_i32()).unwrap_or_default();
            let version = self.fetches.remove(&correlation);
            let rewritten = version.and_then(|version| emptied(answer.clone(), version)).unwrap_or(answer);
            out.extend_from_slice(&u32::try_from(rewritten.len()).unwrap_or_default().to_be_bytes());
            out.extend_from_slice(&rewritten);
        }
    }
}

/// The next whole frame, without its length.
fn frame(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(*buffer.first_chunk()?) as usize;
    if buffer.len() < 4 + length {
        return None;
    }
    buffer.advance(4);
    Some(buffer.split_to(length).freeze())
}

/// The same answer without its records.
fn emptied(mut answer: Bytes, version: i16) -> Option<Bytes> {
    let header_version = i16::from(version >= 12);
    let header = ResponseHeader::decode(&mut answer, header_version).ok()?;
    let mut response = FetchResponse::decode(&mut answer, version).ok()?;
    for topic in &mut response.responses {
        for partition in &mut topic.partitions {
            partition.records = Some(Bytes::new());
        }
    }
    let mut out = BytesMut::new();
    header.encode(&mut out, header_version).ok()?;
    response.encode(&mut out, version).ok()?;
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
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
        Emptied::default().written(&framed, &mut out);
        assert_eq!(out, framed, "nobody fetched");

        let mut out = BytesMut::new();
        let mut rewriting = Emptied::default();
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
